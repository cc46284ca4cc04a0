//! Replies: keeping or sourcing them, sending them, sending them again.

use crate::connect::UNRELIABLE_FRAGMENTS;
use crate::event::*;
use crate::outbox::Ready;
use crate::server::{State, slot_of};
use crate::session::{End, Session};
use crate::timers::Owner;
use crate::transport::{Pending, Transport};
use crate::window::{Ack, Window, fragments};
use tollfree_wire::header::{FLAG_ENGINE, FLAG_WORKING, FLAT_MAX, HEADER_LEN, Header, MESSAGE_MAX};
use tollfree_wire::{Code, Kind, Packet, Reason};
use zerocopy::FromBytes;

/// An answer that is being sent, or may have to be sent again.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    status: u8,
    by_engine: bool,
    layout: u32,
    flat_len: u16,
    /// The padded flat block and, when it fits one packet, the body.
    bytes: Vec<u8>,
    pub token: u64,
    pub window: Window,
    pub heard_at: u64,
    interval: u64,
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
        let payload = session.payload;
        let Some(slot) = session.server().and_then(|server| server.find(call)) else { return false };
        if slot.state != State::Running {
            return false;
        }
        let Reply { mut status, mut by_engine, layout, mut flat, mut body_len, token, copy_body } = reply;
        let span = flat.len().next_multiple_of(8);
        let room = |span: usize| (payload - HEADER_LEN).saturating_sub(span) as u32;
        let fits = flat.len() <= FLAT_MAX
            && body_len <= MESSAGE_MAX
            && (slot.reliable || fragments(body_len, room(span)) <= UNRELIABLE_FRAGMENTS);
        if !fits {
            (status, by_engine, flat, body_len) = (Code::ResourceExhausted, true, &[], 0);
        }
        let span = flat.len().next_multiple_of(8);
        let kept = slot.reply.insert(self.replies.take());
        let Kept { bytes, .. } = std::mem::take(&mut **kept);
        **kept = Kept {
            status: status as u8,
            by_engine,
            layout,
            flat_len: flat.len() as u16,
            bytes,
            token,
            window: Window::new(body_len, room(span)),
            heard_at: now,
            interval: 0,
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
        if !std::mem::replace(&mut slot.ready, true) {
            self.outbox.push(Ready::Slot(index, slot_of(call)));
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

    /// Sends what a received call has to send: its reply, or an ack of its request.
    pub(crate) fn send_slot(
        &mut self,
        now: u64,
        index: u32,
        slot: u8,
        out: &mut dyn FnMut(Transmit<'_>) -> Result<(), Blocked>,
    ) -> Result<(), Blocked> {
        let Some(Session { peer, signer, round_trip, end: End::Server(server), .. }) =
            self.table.get_mut(index)
        else {
            return Ok(());
        };
        let owner = Owner::Slot(index, slot);
        let Some(slot) = server.slots.get_mut(usize::from(slot)) else { return Ok(()) };
        if std::mem::take(&mut slot.ack_due) {
            let (flags, ack) = match (&slot.request, slot.state) {
                (Some(assembly), _) => (0, assembly.ack()),
                // All fragments, however many they were: the client takes its own count from the flag.
                (None, State::Running) => (FLAG_WORKING, Ack::default()),
                (None, _) => (0, Ack::default()),
            };
            if let Err(Blocked) = signer.send_ack(*peer, slot.call, flags, &ack, out) {
                slot.ack_due = true;
                return Err(Blocked);
            }
            self.counters.acks_sent += 1;
        }
        let (State::Answered | State::Answering, Some(reply)) = (slot.state, slot.reply.as_deref_mut())
        else {
            slot.ready = false;
            return Ok(());
        };
        let span = usize::from(reply.flat_len).next_multiple_of(8);
        while let Some(fragment) = if slot.reliable { reply.window.due() } else { reply.window.unsent() } {
            let range = reply.window.range(fragment);
            let (flat, inline) = reply.bytes.split_at(span);
            let (flat, flat_len) = if fragment == 0 { (flat, reply.flat_len) } else { (&[][..], 0) };
            let mut header = Header {
                flags: if reply.by_engine { FLAG_ENGINE } else { 0 },
                status: reply.status,
                flat_len,
                method: slot.method,
                call: slot.call,
                message_len: reply.window.length(),
                fragment: fragment as u16,
                fragments: reply.window.fragments() as u16,
                layout: reply.layout,
                ..Header::new(Kind::Response)
            };
            signer.sign(&mut header, flat);
            let body = match slot.state {
                State::Answering => Body::Source { token: reply.token, range },
                _ if inline.is_empty() => Body::Empty,
                _ => Body::Inline(inline),
            };
            out(Transmit { to: *peer, header: &header, flat, body })?;
            signer.sent();
            self.counters.packets_sent += 1;
            self.counters.packets_resent += u64::from(reply.window.sent(fragment, now));
        }
        slot.ready = false;
        if !slot.reliable {
            // Nobody will ask for it again.
            if std::mem::take(&mut slot.state) == State::Answering {
                self.pending.push_back(Pending::Released(reply.token));
            }
            self.replies.free(slot.reply.take());
        } else if slot.state == State::Answering {
            if reply.interval == 0 {
                reply.interval = round_trip.timeout(self.config.rto_initial_ns, self.config.rto_min_ns);
            }
            let interval = reply.interval;
            let timer = *slot.timer.get_or_insert_with(|| self.timers.create(owner));
            self.timers.set(timer, now.saturating_add(interval));
        }
        Ok(())
    }

    /// An ack of a long reply's fragments.
    pub(crate) fn on_reply_ack(&mut self, now: u64, packet: &Packet<'_>) -> Result<(), Reason> {
        let header = &packet.header;
        let ack = Ack::read_from_bytes(packet.body).map_err(|_| Reason::BadLength)?;
        let Some(Session { round_trip, end: End::Server(server), .. }) = self.table.get_mut(header.session)
        else {
            return Err(Reason::WrongKind);
        };
        let slot = server.find(header.call).filter(|slot| slot.state == State::Answering);
        let slot = slot.ok_or(Reason::StaleCall)?;
        let reply = slot.reply.as_deref_mut().ok_or(Reason::StaleCall)?;
        reply.heard_at = now;
        let (news, measured) = reply.window.acknowledge(&ack, now);
        if let Some(measured) = measured {
            round_trip.sample(measured);
        }
        if reply.window.arrived_whole() {
            self.retire_slot(header.session, slot_of(header.call));
            return Ok(());
        }
        if news {
            reply.interval = round_trip.timeout(self.config.rto_initial_ns, self.config.rto_min_ns);
            if let Some(timer) = slot.timer {
                self.timers.set(timer, now.saturating_add(reply.interval));
            }
        }
        if reply.window.due().is_some() && !std::mem::replace(&mut slot.ready, true) {
            self.outbox.push(Ready::Slot(header.session, slot_of(header.call)));
        }
        Ok(())
    }

    /// A slot's timer: its reply's fragments are lost, or its request's never come.
    pub(crate) fn on_slot_timer(&mut self, now: u64, index: u32, slot: u8) {
        let dead_ns = self.config.dead_ns;
        let Some(server) = self.table.get_mut(index).and_then(Session::server) else { return };
        let Some(state) = server.slots.get_mut(usize::from(slot)) else { return };
        let reply = state.reply.as_deref_mut();
        let heard_at = match (state.state, &state.request, &reply) {
            (State::Assembling, Some(request), _) => request.heard_at,
            (State::Answering, _, Some(reply)) => reply.heard_at,
            _ => return,
        };
        if now.saturating_sub(heard_at) >= dead_ns {
            return self.retire_slot(index, slot);
        }
        let Some(timer) = state.timer else { return };
        let Some(reply) = reply.filter(|_| state.state == State::Answering) else {
            return self.timers.set(timer, heard_at.saturating_add(dead_ns));
        };
        reply.window.lost();
        reply.interval = reply.interval.saturating_mul(2).min(self.config.rto_max_ns);
        self.timers.set(timer, now.saturating_add(reply.interval));
        if !std::mem::replace(&mut state.ready, true) {
            self.outbox.push(Ready::Slot(index, slot));
        }
    }
}
