//! Replies: keeping or sourcing them, sending them, sending them again.

use crate::event::*;
use crate::outbox::Ready;
use crate::server::{State, slot_of};
use crate::session::{End, Session};
use crate::timers::Owner;
use crate::transport::Transport;
use crate::window::{Ack, Window};
use tollfree_wire::header::{FLAG_ENGINE, FLAG_WORKING, FLAT_MAX, HEADER_LEN, Header, MESSAGE_MAX};
use tollfree_wire::{Code, Kind, Packet, Reason};
use zerocopy::FromBytes;

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
        let fits = flat.len() <= FLAT_MAX && body_len <= MESSAGE_MAX;
        if !fits {
            (status, by_engine, flat, body_len) = (Code::ResourceExhausted, true, &[], 0);
        }
        let span = flat.len().next_multiple_of(8);
        let room = payload - HEADER_LEN - span;
        (slot.status, slot.by_engine, slot.layout) = (status as u8, by_engine, layout);
        slot.flat_len = flat.len() as u16;
        (slot.token, slot.heard_at) = (token, now);
        slot.window = Window::new(body_len, room as u32);
        slot.reply.clear();
        slot.reply.extend_from_slice(flat);
        slot.reply.resize(span, 0);
        if slot.window.fragments() == 1 {
            slot.reply.resize(span + body_len as usize, 0);
            if body_len > 0 {
                copy_body(&mut slot.reply[span..]);
            }
            slot.state = State::Answered;
        } else {
            slot.state = State::Answering;
            slot.interval = 0;
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
        if !matches!(slot.state, State::Answered | State::Answering) {
            slot.ready = false;
            return Ok(());
        }
        let span = usize::from(slot.flat_len).next_multiple_of(8);
        while let Some(fragment) = slot.window.due() {
            let range = slot.window.range(fragment);
            let (flat, inline) = slot.reply.split_at(span);
            let (flat, flat_len) = if fragment == 0 { (flat, slot.flat_len) } else { (&[][..], 0) };
            let mut header = Header {
                flags: if slot.by_engine { FLAG_ENGINE } else { 0 },
                status: slot.status,
                flat_len,
                method: slot.method,
                call: slot.call,
                message_len: slot.window.length(),
                fragment: fragment as u16,
                fragments: slot.window.fragments() as u16,
                layout: slot.layout,
                ..Header::new(Kind::Response)
            };
            signer.sign(&mut header, flat);
            let body = match slot.state {
                State::Answering => Body::Source { token: slot.token, range },
                _ if inline.is_empty() => Body::Empty,
                _ => Body::Inline(inline),
            };
            out(Transmit { to: *peer, header: &header, flat, body })?;
            signer.sent();
            self.counters.packets_sent += 1;
            self.counters.packets_resent += u64::from(slot.window.sent(fragment, now));
        }
        slot.ready = false;
        if slot.state == State::Answering {
            if slot.interval == 0 {
                slot.interval = round_trip.timeout(self.config.rto_initial_ns, self.config.rto_min_ns);
            }
            let timer = *slot.timer.get_or_insert_with(|| self.timers.create(owner));
            self.timers.set(timer, now.saturating_add(slot.interval));
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
        slot.heard_at = now;
        let (news, measured) = slot.window.acknowledge(&ack, now);
        if let Some(measured) = measured {
            round_trip.sample(measured);
        }
        if slot.window.arrived_whole() {
            self.retire_slot(header.session, slot_of(header.call));
            return Ok(());
        }
        if news {
            slot.interval = round_trip.timeout(self.config.rto_initial_ns, self.config.rto_min_ns);
            if let Some(timer) = slot.timer {
                self.timers.set(timer, now.saturating_add(slot.interval));
            }
        }
        if slot.window.due().is_some() && !std::mem::replace(&mut slot.ready, true) {
            self.outbox.push(Ready::Slot(header.session, slot_of(header.call)));
        }
        Ok(())
    }

    /// A slot's timer: its reply's fragments are lost, or its request's never come.
    pub(crate) fn on_slot_timer(&mut self, now: u64, index: u32, slot: u8) {
        let dead_ns = self.config.dead_ns;
        let Some(server) = self.table.get_mut(index).and_then(Session::server) else { return };
        let Some(state) = server.slots.get_mut(usize::from(slot)) else { return };
        let heard_at = state.request.as_ref().map_or(state.heard_at, |request| request.heard_at);
        if !matches!(state.state, State::Assembling | State::Answering) {
            return;
        }
        if now.saturating_sub(heard_at) >= dead_ns {
            return self.retire_slot(index, slot);
        }
        let Some(timer) = state.timer else { return };
        if state.state == State::Assembling {
            return self.timers.set(timer, heard_at.saturating_add(dead_ns));
        }
        state.window.lost();
        state.interval = state.interval.saturating_mul(2).min(self.config.rto_max_ns);
        self.timers.set(timer, now.saturating_add(state.interval));
        if !std::mem::replace(&mut state.ready, true) {
            self.outbox.push(Ready::Slot(index, slot));
        }
    }
}
