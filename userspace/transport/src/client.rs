//! Calls made: sending requests, taking what answers them, and ending them.

use crate::calls::{Call, Place};
use crate::connect::Handshake;
use crate::event::*;
use crate::outbox::Ready;
use crate::session::Session;
use crate::transport::{Pending, Transport};
use crate::window::Ack;
use tollfree_wire::header::{
    CALL_SLOTS, FLAG_CANCEL, FLAG_ENGINE, FLAG_OF_RESPONSE, FLAG_WORKING, HEADER_LEN, Header,
};
use tollfree_wire::{Code, Kind, Packet, Reason};
use zerocopy::FromBytes;

/// The client's end of a session.
pub(crate) struct Client {
    link: u32,
    /// Until the session is agreed on.
    handshake: Option<Handshake>,
    /// Takes no new calls.
    pub closing: bool,
    /// The server is to hear of its end.
    pub goodbye: bool,
    /// Per slot used so far: the last call id given out and, while it is open, the call's key.
    slots: Vec<(u64, Option<u64>)>,
    /// A bit per slot without a call.
    free: [u64; CALL_SLOTS / 64],
    open: usize,
    used_at: u64,
    idle_ns: u64,
}

impl Client {
    pub fn new(link: u32, handshake: Handshake, now: u64) -> Client {
        let free = [u64::MAX; CALL_SLOTS / 64];
        let slots = Vec::new();
        Client {
            link,
            handshake: Some(handshake),
            closing: false,
            goodbye: false,
            slots,
            free,
            open: 0,
            used_at: now,
            idle_ns: 0,
        }
    }

    pub fn link(&self) -> u32 {
        self.link
    }

    pub fn handshake(&mut self) -> Option<&mut Handshake> {
        self.handshake.as_mut()
    }

    /// The handshake is done. The server forgets the session after `idle_ns` of silence (0: never).
    pub fn opened(&mut self, now: u64, idle_ns: u64) {
        self.handshake = None;
        self.used_at = now;
        self.idle_ns = idle_ns;
    }

    /// When the session has idled long enough to close it: well before the server would.
    pub fn idle_at(&self) -> Option<u64> {
        (self.idle_ns != 0).then(|| self.used_at + self.idle_ns / 4 * 3)
    }

    /// Calls with a slot.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Their keys. Allocates.
    pub fn keys(&self) -> Vec<u64> {
        self.slots.iter().filter_map(|(_, key)| *key).collect()
    }

    /// Gives a call the lowest free slot, and the id it has there. Low slots first: they are what both ends have
    /// memory for already.
    #[inline]
    pub fn take_slot(&mut self, key: u64, now: u64) -> Option<u64> {
        let word = self.free.iter().position(|bits| *bits != 0)?;
        let bit = self.free[word].trailing_zeros() as usize;
        let slot = word * 64 + bit;
        self.free[word] &= !(1 << bit);
        if slot >= self.slots.len() {
            self.slots.resize(slot + 1, (0, None));
        }
        let (last, holder) = &mut self.slots[slot];
        *last = if *last == 0 { CALL_SLOTS as u64 | slot as u64 } else { *last + CALL_SLOTS as u64 };
        *holder = Some(key);
        self.open += 1;
        self.used_at = now;
        Some(*last)
    }

    fn free_slot(&mut self, id: u64) {
        let slot = id as usize % CALL_SLOTS;
        if let Some((last, holder)) = self.slots.get_mut(slot)
            && *last == id
            && holder.take().is_some()
        {
            self.free[slot / 64] |= 1 << (slot % 64);
            self.open -= 1;
        }
    }

    /// The key of the open call with this id.
    #[inline]
    pub fn call(&self, id: u64) -> Option<u64> {
        self.slots.get(id as usize % CALL_SLOTS).filter(|(last, _)| *last == id)?.1
    }

    /// Whether a call with this id was made on this session and has ended.
    fn has_ended(&self, id: u64) -> bool {
        let slot = self.slots.get(id as usize % CALL_SLOTS);
        slot.is_some_and(|(last, holder)| id < *last || (id == *last && holder.is_none()))
    }
}

impl Transport {
    /// Gives a call up: no event will come, its token is free at once, the peer is told.
    pub fn cancel(&mut self, now: u64, call: CallHandle) {
        self.send_cancel(call.0);
        self.end_call(now, call.0);
    }

    /// Sends what an outgoing call has to send: fragments, or an ack of its response's.
    pub(crate) fn send_call(
        &mut self,
        now: u64,
        key: u64,
        out: &mut dyn FnMut(Transmit<'_>) -> Result<(), Blocked>,
    ) -> Result<(), Blocked> {
        let Some(call) = self.calls.get_mut(key) else { return Ok(()) };
        let Place::Open { session: index, id } = call.place else { return Ok(()) };
        let Some(session) = self.table.get_mut(index) else { return Ok(()) };
        let budget_us = call.budget_us(now);
        let Some(flight) = call.flight.as_deref_mut() else { return Ok(()) };
        if flight.ack_due {
            if let Some(assembly) = &call.response {
                session.signer.send_ack(session.peer, id, FLAG_OF_RESPONSE, &assembly.ack(), out)?;
                self.counters.acks_sent += 1;
            }
            flight.ack_due = false;
        }
        let reliable = call.spec.is_reliable();
        while now < call.deadline_ns
            && let Some(fragment) = if reliable { flight.window.due() } else { flight.window.unsent() }
        {
            let range = flight.window.range(fragment);
            let first = fragment == 0;
            let mut header = Header {
                flat_len: if first { call.flat_len } else { 0 },
                method: call.method,
                call: id,
                message_len: flight.window.length(),
                fragment: fragment as u16,
                fragments: flight.window.fragments() as u16,
                deadline_us: budget_us,
                layout: call.layout,
                ..Header::new(Kind::Request)
            };
            let flat = if first { flight.flat(call.flat_len) } else { &[] };
            session.signer.sign(&mut header, flat);
            let body = if range.is_empty() {
                Body::Empty
            } else {
                Body::Source { token: call.token, range: range.clone() }
            };
            out(Transmit { to: session.peer, header: &header, flat, body })?;
            session.signer.sent();
            self.counters.packets_sent += 1;
            call.last = (header.sequence, header.tag);
            if flight.window.sent(fragment, now) {
                flight.resent = true;
                self.counters.packets_resent += 1;
            }
            if call.first_sent == 0 {
                (call.first_sent, flight.heard_at) = (now.max(1), now);
                flight.interval =
                    session.round_trip.timeout(self.config.rto_initial_ns, self.config.rto_min_ns);
            }
            flight.resend_at = now.saturating_add(flight.interval);
        }
        call.ready = false;
        let sent_once = !reliable && call.first_sent != 0;
        if sent_once {
            self.calls.land(key);
        }
        self.reset_timer(key);
        Ok(())
    }

    /// Sets a call's timer to what it waits for next.
    fn reset_timer(&mut self, key: u64) {
        if let Some(call) = self.calls.get_mut(key) {
            self.timers.set(call.timer, call.due_at(self.config.dead_ns));
        }
    }

    /// A response, or a fragment of one.
    pub(crate) fn on_response(
        &mut self,
        now: u64,
        packet: &Packet<'_>,
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Reason> {
        let &Packet { ref header, flat, body, .. } = packet;
        let session = self.table.get_mut(header.session).ok_or(Reason::UnknownSession)?;
        let client = session.client().ok_or(Reason::WrongKind)?;
        let Some(key) = client.call(header.call) else {
            // Its server waits for an ack if the response is long: whoever has ended the call has no use for more.
            let ended = header.fragments > 1 && client.has_ended(header.call);
            if ended && session.spec(header.method).is_reliable() {
                self.outbox.push_stateless(Ready::Finished(header.session, header.call, header.fragments));
            }
            return Err(Reason::StaleCall);
        };
        let call = self.calls.get_mut(key).ok_or(Reason::StaleCall)?;
        if call.first_sent == 0 {
            return Err(Reason::StaleCall);
        }
        if header.fragments > 1 {
            return self.on_response_fragment(now, key, packet, sink);
        }
        if let Some(flight) = &call.flight
            && !flight.resent
            && !flight.working
            && flight.window.fragments() == 1
        {
            session.round_trip.sample(now.saturating_sub(call.first_sent));
        }
        let (token, status) = (call.token, Code::from_wire(header.status));
        let verdict = Verdict::Peer { by_engine: header.flags & FLAG_ENGINE != 0 };
        sink(Event::Response { token, status, layout: header.layout, flat, body, verdict });
        self.end_call(now, key);
        Ok(())
    }

    fn on_response_fragment(
        &mut self,
        now: u64,
        key: u64,
        packet: &Packet<'_>,
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Reason> {
        let header = &packet.header;
        let session = self.table.get_mut(header.session).ok_or(Reason::UnknownSession)?;
        let call = self.calls.get_mut(key).ok_or(Reason::StaleCall)?;
        let assembly = match &mut call.response {
            Some(assembly) => assembly,
            None => call.response.insert(self.pool.open(packet, &mut session.reassembling, now)?),
        };
        let whole = assembly.add(packet, now)?;
        if !whole {
            let Some(flight) = call.flight.as_deref_mut() else { return Ok(()) };
            flight.heard_at = now;
            flight.window.finish();
            flight.ack_due = true;
            // From here on the server retransmits; asking again is for when it has vanished.
            flight.interval = self.config.probe_ns;
            flight.resend_at = now.saturating_add(flight.interval);
            self.reset_timer(key);
            self.make_ready(key);
            return Ok(());
        }
        let acknowledged = call.spec.is_reliable();
        let (token, status) = (call.token, Code::from_wire(assembly.status));
        let verdict = Verdict::Peer { by_engine: assembly.flags & FLAG_ENGINE != 0 };
        let (layout, flat, body) = (assembly.layout, assembly.flat(), assembly.body());
        sink(Event::Response { token, status, layout, flat, body, verdict });
        if acknowledged {
            self.outbox.push_stateless(Ready::Finished(header.session, header.call, header.fragments));
        }
        self.end_call(now, key);
        Ok(())
    }

    /// A policy in the peer's driver has refused the call, or answered it (WIRE.md §7).
    pub(crate) fn on_reject(
        &mut self,
        now: u64,
        packet: &Packet<'_>,
        sink: &mut dyn FnMut(Event<'_>),
    ) -> Result<(), Reason> {
        let &Packet { ref header, flat, .. } = packet;
        let client = self.table.get_mut(header.session).and_then(Session::client).ok_or(Reason::WrongKind)?;
        let key = client.call(header.call).ok_or(Reason::StaleCall)?;
        let call = self.calls.get_mut(key).filter(|call| call.first_sent != 0).ok_or(Reason::StaleCall)?;
        // Only an answer has anything to say besides its status.
        let (status, layout, flat) = match Code::from_wire(header.status) {
            Code::Ok => (Code::Ok, header.layout, flat),
            status => (status, 0, &[][..]),
        };
        let token = call.token;
        sink(Event::Response { token, status, layout, flat, body: &[], verdict: Verdict::Driver });
        self.end_call(now, key);
        Ok(())
    }

    /// An ack of a request's fragments, or the word that it is being worked on.
    pub(crate) fn on_request_ack(&mut self, now: u64, packet: &Packet<'_>) -> Result<(), Reason> {
        let header = &packet.header;
        let ack = Ack::read_from_bytes(packet.body).map_err(|_| Reason::BadLength)?;
        let session = self.table.get_mut(header.session).ok_or(Reason::UnknownSession)?;
        let key = session.client().and_then(|client| client.call(header.call)).ok_or(Reason::StaleCall)?;
        let call = self.calls.get_mut(key).filter(|call| call.first_sent != 0).ok_or(Reason::StaleCall)?;
        let flight = call.flight.as_deref_mut().ok_or(Reason::StaleCall)?;
        flight.heard_at = now;
        let (news, measured) = flight.window.acknowledge(&ack, now);
        if let Some(round_trip) = measured {
            session.round_trip.sample(round_trip);
        }
        if header.flags & FLAG_WORKING != 0 {
            flight.working = true;
            flight.window.finish();
            flight.interval = self.config.probe_ns;
        } else if news {
            flight.interval = session.round_trip.timeout(self.config.rto_initial_ns, self.config.rto_min_ns);
        }
        let due = flight.window.due().is_some();
        if news || flight.working {
            flight.resend_at = now.saturating_add(flight.interval);
            self.reset_timer(key);
        }
        if due {
            self.make_ready(key);
        }
        Ok(())
    }

    /// A call's timer: its deadline, or time to send again.
    pub(crate) fn on_call_timer(&mut self, now: u64, position: u64) {
        let Some(key) = self.calls.key_at(position) else { return };
        let Some(call) = self.calls.get_mut(key) else { return };
        if now >= call.deadline_ns {
            self.send_cancel(key);
            return self.fail_call(
                now,
                key,
                Code::DeadlineExceeded,
                "the deadline passed before an answer came",
            );
        }
        let Place::Open { session: index, .. } = call.place else { return };
        // An unreliable call's timer goes off when it has waited for long enough.
        let heard_at = call.flight.as_ref().map_or(0, |flight| flight.heard_at);
        if now.saturating_sub(heard_at) >= self.config.dead_ns {
            let silent = self.table.get_mut(index).map_or(0, |session| now.saturating_sub(session.heard_at));
            if silent >= self.config.dead_ns {
                self.retire_client(index, "the peer has gone silent");
            }
            self.counters.calls_dead += 1;
            self.send_cancel(key);
            return self.fail_call(now, key, Code::Unavailable, "the peer does not answer");
        }
        let Some(flight) = call.flight.as_deref_mut() else { return };
        flight.window.lost();
        if flight.working || call.response.is_some() {
            flight.interval = self.config.probe_ns;
        } else {
            flight.interval = flight.interval.saturating_mul(2).min(self.config.rto_max_ns);
        }
        flight.resend_at = now.saturating_add(flight.interval);
        self.reset_timer(key);
        self.make_ready(key);
    }

    /// Tells the server that nobody waits for a call. Sent once: a later call in the same slot says it too.
    fn send_cancel(&mut self, key: u64) {
        let Some(call) = self.calls.get_mut(key).filter(|call| call.first_sent != 0) else { return };
        let Place::Open { session, id } = call.place else { return };
        let method = call.method;
        let Some(session) = self.table.get_mut(session) else { return };
        let header = session.packet(Kind::Request, |header| {
            (header.flags, header.call, header.method) = (FLAG_CANCEL, id, method);
        });
        self.outbox.push(Ready::Packet(session.peer, header));
    }

    /// Ends a call with a status of our own.
    pub(crate) fn fail_call(&mut self, now: u64, key: u64, status: Code, why: &'static str) {
        let Some(Call { token, .. }) = self.calls.get_mut(key) else { return };
        self.pending.push_back(Pending::Ended { token: *token, status, why });
        self.end_call(now, key);
    }

    /// Forgets a call; its slot goes to the next that waits.
    #[inline]
    fn end_call(&mut self, now: u64, key: u64) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let &mut Call { timer, place, .. } = call;
        let response = call.response.take();
        self.timers.clear(timer);
        self.calls.remove(key);
        let Place::Open { session, id } = place else { return };
        if let (Some(assembly), Some(session)) = (response, self.table.get_mut(session)) {
            self.pool.close(assembly, &mut session.reassembling);
        }
        self.free_slot(now, session, id);
    }

    /// Frees a call's slot: for the next call that waits, or for good.
    #[inline]
    pub(crate) fn free_slot(&mut self, now: u64, index: u32, id: u64) {
        let Some(client) = self.table.get_mut(index).and_then(Session::client) else { return };
        client.free_slot(id);
        let (link, goodbye) = (client.link, client.goodbye);
        if client.closing && client.open == 0 {
            if goodbye {
                self.say_goodbye(index);
            }
            self.drop_session(index, "");
        }
        self.pump(now, link);
    }

    /// Puts a call into the outbox, once.
    fn make_ready(&mut self, key: u64) {
        if let Some(call) = self.calls.get_mut(key)
            && !std::mem::replace(&mut call.ready, true)
        {
            self.outbox.push(Ready::Call(key));
        }
    }

    /// Tells a server that a long response has arrived.
    pub(crate) fn send_finished(
        &mut self,
        index: u32,
        call: u64,
        fragments: u16,
        out: &mut dyn FnMut(Transmit<'_>) -> Result<(), Blocked>,
    ) -> Result<(), Blocked> {
        let Some(session) = self.table.get_mut(index) else { return Ok(()) };
        let ack = Ack { base: u32::from(fragments), ..Ack::default() };
        session.signer.send_ack(session.peer, call, FLAG_OF_RESPONSE, &ack, out)?;
        self.counters.acks_sent += 1;
        Ok(())
    }
}

// The body of an ack fits the smallest packet.
const _: () = assert!(HEADER_LEN + size_of::<Ack>() <= crate::connect::PAYLOAD_MIN);
