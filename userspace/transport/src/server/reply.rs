//! Replies: made, and kept for as long as somebody may ask for them.

use super::{State, slot_of};
use crate::client::link::UNRELIABLE_FRAGMENTS;
use crate::event::*;
use crate::extension::message_len;
use crate::outbox::Ready;
use crate::path::Path;
use crate::session::{End, Session};
use crate::transport::Transport;
use crate::window::{Boards, Window};
use tollfree_wire::header::{FLAG_ENGINE, FLAG_METADATA, FLAT_MAX, HEADER_LEN, Header, MESSAGE_MAX};
use tollfree_wire::spec::MethodSpec;
use tollfree_wire::{Code, Kind};

/// An answer that is being sent, or may have to be sent again.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    status: u8,
    by_engine: bool,
    metadata: bool,
    layout: u32,
    flat_len: u16,
    /// The padded flat block and, when it fits one packet, the body.
    bytes: Vec<u8>,
    pub token: u64,
    pub window: Window,
    pub heard_at: u64,
    /// How long to wait before something is sent again; 0: nothing was sent.
    pub interval: u64,
    /// A missing fragment was sent again, to hear what has become of the rest, and nothing was heard since.
    pub probed: bool,
}

impl Kept {
    fn flags(&self) -> u8 {
        let by_engine = if self.by_engine { FLAG_ENGINE } else { 0 };
        by_engine | if self.metadata { FLAG_METADATA } else { 0 }
    }

    /// Whether the body stays where it is until [`Event::Released`].
    pub fn is_sourced(&self) -> bool {
        self.window.length() as usize > self.bytes.len() - self.flat_span()
    }

    fn flat_span(&self) -> usize {
        usize::from(self.flat_len).next_multiple_of(8)
    }

    /// Bytes of its longest packet, from the base header on.
    pub fn longest_packet(&self) -> usize {
        HEADER_LEN + self.flat_span() + self.window.longest()
    }

    /// Cuts the answer again where the path no longer carries packets of the length that it was cut into. Returns how many of
    /// them need not be waited for.
    pub fn cut_again(
        &mut self,
        path: &Path,
        next: u64,
        spec: &MethodSpec,
        boards: &mut Boards,
    ) -> Option<u32> {
        let gone = self.window.cut_again(path.room(self.flat_span(), spec), next, spec, boards)?;
        self.probed = false;
        Some(gone)
    }

    /// A fragment: its header, without what its call tells and unsigned, its flat block and its part of the body.
    #[inline]
    pub fn packet(&self, fragment: u32) -> (Header, &[u8], Body<'_>) {
        let (flat, inline) = self.bytes.split_at(self.flat_span());
        let (flat, flat_len) = if fragment == 0 { (flat, self.flat_len) } else { (&[][..], 0) };
        let header = Header {
            flags: self.flags(),
            status: self.status,
            flat_len,
            fragment: fragment as u16,
            fragments: self.window.fragments() as u16,
            layout: self.layout,
            ..Header::new(Kind::Response)
        };
        let range = self.window.range(fragment);
        let body = match inline.get(range.start as usize..range.end as usize) {
            _ if range.is_empty() => Body::Empty,
            Some(part) => Body::Inline(part),
            None => Body::Source { token: self.token, range },
        };
        (header, flat, body)
    }
}

/// Answers for calls to come, with the memory they once took.
#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "they move between here and the slots without being copied")]
pub(crate) struct Replies(Vec<Box<Kept>>);

/// Answers kept in [`Replies`]: what a burst took beyond them goes back to the allocator.
const SPARE_REPLIES: usize = 1024;

impl Replies {
    fn take(&mut self) -> Box<Kept> {
        self.0.pop().unwrap_or_default()
    }

    /// Takes back what a slot no longer needs.
    #[inline]
    pub fn free(&mut self, reply: Option<Box<Kept>>) {
        if self.0.len() < SPARE_REPLIES {
            self.0.extend(reply);
        }
    }
}

impl Transport {
    /// Answers a call. False: the call is gone, or the reply impossible (over a limit; its caller is told), and nothing
    /// was kept. True, and [`Reply::copy_body`] not called although there is a body: the token is in use until
    /// [`Event::Released`].
    pub fn respond(&mut self, now: u64, call: IncomingCall, reply: Reply<'_>) -> bool {
        let IncomingCall { session: index, call } = call;
        let Some(session) = self.table.get_mut(index) else { return false };
        let Session { path, end: End::Server(server), .. } = session else { return false };
        let Some(slot) = server.find(call) else { return false };
        if slot.state != State::Running {
            return false;
        }
        let Reply { mut status, mut by_engine, layout, mut flat, metadata, mut body_len, token, copy_body } =
            reply;
        let span = flat.len().next_multiple_of(8);
        let spec = slot.spec;
        let room = |span: usize| path.room(span, &spec);
        let fits = flat.len() <= FLAT_MAX && body_len <= MESSAGE_MAX && {
            let window = Window::once(body_len, room(span));
            message_len(&spec, &window) <= MESSAGE_MAX
                && (spec.is_reliable() || window.fragments() <= UNRELIABLE_FRAGMENTS)
        };
        if !fits {
            (status, by_engine, flat, body_len) = (Code::ResourceExhausted, true, &[], 0);
        }
        let span = flat.len().next_multiple_of(8);
        let window = match spec.is_reliable() {
            true => Window::acknowledged(body_len, room(span), spec.window, &mut self.boards),
            false => Window::once(body_len, room(span)),
        };
        let kept = slot.reply.insert(self.replies.take());
        let Kept { bytes, .. } = std::mem::take(&mut **kept);
        **kept = Kept {
            status: status as u8,
            by_engine,
            metadata: metadata && fits,
            layout,
            flat_len: flat.len() as u16,
            bytes,
            token,
            window,
            heard_at: now,
            interval: 0,
            probed: false,
        };
        kept.bytes.clear();
        kept.bytes.extend_from_slice(flat);
        kept.bytes.resize(span, 0);
        if kept.window.fragments() == 1 {
            kept.bytes.resize(span + body_len as usize, 0);
            if body_len > 0 {
                copy_body(&mut kept.bytes[span..]);
            }
            slot.state = State::Answered;
        } else {
            slot.state = State::Answering;
        }
        slot.ack_due = false;
        let long = slot.state == State::Answering;
        if !std::mem::replace(&mut slot.ready, true) {
            self.outbox.push(Ready::Slot(index, slot_of(call)));
        }
        if long {
            self.probe_path(now, index);
        }
        fits
    }

    /// Never answers a call: to its caller it looks lost. What a policy's silent drop wants.
    pub fn ignore(&mut self, call: IncomingCall) {
        let server = self.table.get_mut(call.session).and_then(Session::server);
        if let Some(slot) = server.and_then(|server| server.find(call.call))
            && slot.state == State::Running
        {
            slot.state = State::Over;
            slot.ack_due = false;
        }
    }

    /// Answers a call with a status of our own, and a sentence short enough for one packet.
    pub(crate) fn refuse(&mut self, now: u64, call: IncomingCall, status: Code, why: &str) {
        let copy_body = &mut |body: &mut [u8]| body.copy_from_slice(why.as_bytes());
        let (flat, metadata, body_len) = (&[][..], false, why.len() as u32);
        let reply =
            Reply { status, by_engine: true, layout: 0, flat, metadata, body_len, token: 0, copy_body };
        self.respond(now, call, reply);
    }
}
