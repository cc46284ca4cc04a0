//! Calls made: sending requests, taking what answers them, and ending them.

use crate::calls::{Call, Flight, Place};
use crate::config::Config;
use crate::connect::Handshake;
use crate::credit::Room;
use crate::event::*;
use crate::extension::{Order, message_len, order_len};
use crate::flow::{Admission, excuse_wait};
use crate::outbox::Ready;
use crate::reassembly::{Assembly, Shape};
use crate::sack::{ACK_MAX, Ack, AckBody, AckHead};
use crate::session::Session;
use crate::transport::{Pending, Transport};
use tollfree_wire::header::{
    CALL_SLOTS, FLAG_CANCEL, FLAG_ENGINE, FLAG_METADATA, FLAG_OF_RESPONSE, FLAG_WORKING, HEADER_LEN, Header,
};
use tollfree_wire::{Code, Kind, Packet, Reason};
use zerocopy::IntoBytes;

/// The client's end of a session.
pub(crate) struct Client {
    link: u32,
    /// Until the session is agreed on.
    handshake: Option<Handshake>,
    /// Takes no new calls.
    pub closing: bool,
    /// The server is to hear of its end.
    pub goodbye: bool,
    /// Up to the highest slot used so far.
    slots: Vec<Slot>,
    /// A bit per slot without a call.
    free: [u64; CALL_SLOTS / 64],
    open: usize,
    used_at: u64,
    idle_ns: u64,
    /// The number of the next call of an ordered method.
    next_order: u32,
}

/// A place for a call.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Slot {
    /// The last call id given out.
    last: u64,
    /// The call's, while it is open.
    pub key: Option<u64>,
    /// Its number, while it is open and its method ordered.
    pub order: Option<u32>,
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
            next_order: 0,
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

    /// Their keys; those of ordered methods from the last made to the first, as they go back to the front of a queue.
    /// Allocates.
    pub fn keys(&self) -> Vec<u64> {
        let age = |slot: &&Slot| slot.order.map(|order| self.next_order.wrapping_sub(order));
        let mut slots: Vec<&Slot> = self.slots.iter().collect();
        slots.sort_by_key(age);
        slots.iter().filter_map(|slot| slot.key).collect()
    }

    /// The slots used so far.
    pub fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.slots.iter()
    }

    /// The lowest number of an open call; the next one's if there is none.
    pub fn floor(&self) -> u32 {
        let age = |slot: &Slot| slot.order.map(|order| self.next_order.wrapping_sub(order));
        self.next_order.wrapping_sub(self.slots.iter().filter_map(age).max().unwrap_or(0))
    }

    /// Gives a call the lowest free slot, and the id it has there. Low slots first: they are what both ends have
    /// memory for already.
    #[inline]
    pub fn take_slot(&mut self, key: u64, ordered: bool, now: u64) -> Option<u64> {
        let word = self.free.iter().position(|bits| *bits != 0)?;
        let bit = self.free[word].trailing_zeros() as usize;
        let slot = word * 64 + bit;
        self.free[word] &= !(1 << bit);
        if slot >= self.slots.len() {
            self.slots.resize(slot + 1, Slot::default());
        }
        let Slot { last, key: holder, order } = &mut self.slots[slot];
        *last = if *last == 0 { CALL_SLOTS as u64 | slot as u64 } else { *last + CALL_SLOTS as u64 };
        *holder = Some(key);
        *order = ordered.then_some(self.next_order);
        self.next_order = self.next_order.wrapping_add(u32::from(ordered));
        self.open += 1;
        self.used_at = now;
        Some(*last)
    }

    fn free_slot(&mut self, id: u64) {
        let slot = id as usize % CALL_SLOTS;
        if let Some(Slot { last, key, order }) = self.slots.get_mut(slot)
            && *last == id
            && key.take().is_some()
        {
            *order = None;
            self.free[slot / 64] |= 1 << (slot % 64);
            self.open -= 1;
        }
    }

    /// The key of the open call with this id.
    #[inline]
    pub fn call(&self, id: u64) -> Option<u64> {
        self.slots.get(id as usize % CALL_SLOTS).filter(|slot| slot.last == id)?.key
    }

    /// What an ordered call's request says of its turn.
    fn order(&self, id: u64) -> Option<Order> {
        let slot = self.slots.get(id as usize % CALL_SLOTS).filter(|slot| slot.last == id)?;
        Some(Order { number: slot.order?, floor: self.floor() })
    }

    /// Whether a call with this id was made on this session and has ended.
    fn has_ended(&self, id: u64) -> bool {
        let slot = self.slots.get(id as usize % CALL_SLOTS);
        slot.is_some_and(|slot| id < slot.last || (id == slot.last && slot.key.is_none()))
    }
}

impl Transport {
    /// Gives a call up: no event will come, its token is free at once, the peer is told.
    pub fn cancel(&mut self, now: u64, call: CallHandle) {
        self.send_cancel(call.0);
        self.give_up(now, call.0);
    }

    /// Ends a call that was answered. The peer's engine may have done so before the call's turn came.
    #[inline]
    fn end_answered(&mut self, now: u64, key: u64, verdict: Verdict) {
        match verdict {
            Verdict::Peer { by_engine: true } => self.give_up(now, key),
            _ => self.end_call(now, key),
        }
    }

    /// Ends a call without its application's word.
    fn give_up(&mut self, now: u64, key: u64) {
        let ordered =
            self.calls.get_mut(key).filter(|call| call.spec.ordered).and_then(|call| call.session());
        self.end_call(now, key);
        if let Some(session) = ordered {
            self.skip_in_order(session);
        }
    }

    /// Sends what an outgoing call has to send: its request, a few fragments of it, or an ack of its response's.
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
            flight.send_ack(now, id, call.response.as_deref_mut(), session, out)?;
            self.counters.acks_sent += 1;
        }
        let spec = call.spec;
        let order = match session.client() {
            Some(client) if spec.ordered => client.order(id),
            _ => None,
        };
        let mut bunch = 0;
        let mut held_back = Admission::Now;
        while let Some(fragment) = flight.window.due().filter(|_| now < call.deadline_ns) {
            if flight.window.is_held_back() {
                if bunch == BUNCH {
                    self.outbox.push(Ready::Call(key)); // others' turn
                    return Ok(());
                }
                bunch += 1;
                held_back = session.flow.admits(now);
                if held_back != Admission::Now {
                    if !std::mem::replace(&mut flight.parked, true) {
                        session.flow.park(Ready::Call(key));
                    }
                    break;
                }
            }
            let first = fragment == 0;
            let mut header = Header {
                flags: if call.metadata { FLAG_METADATA } else { 0 },
                flat_len: if first { call.flat_len } else { 0 },
                method: call.method,
                call: id,
                message_len: message_len(&spec, &flight.window),
                fragment: fragment as u16,
                fragments: flight.window.fragments() as u16,
                deadline_us: budget_us,
                layout: call.layout,
                ..Header::new(Kind::Request)
            };
            let flat = if first { flight.flat(call.flat_len) } else { &[] };
            session.signer.sign(&mut header, flat);
            let extension = order.as_ref().filter(|_| first).map_or(&[][..], |order| order.as_bytes());
            let range = flight.window.range(fragment);
            let range = range.start.saturating_sub(order_len(&spec))..range.end - order_len(&spec);
            let body = match range.is_empty() {
                true => Body::Empty,
                false => Body::Source { token: call.token, range },
            };
            let checksum = spec.checksum;
            out(Transmit { to: session.peer, header: &header, flat, extension, body, checksum })?;
            session.signer.sent();
            self.counters.packets_sent += 1;
            call.last = (header.sequence, header.tag);
            let sent = flight.window.sent(fragment, header.sequence, now);
            if sent.again {
                flight.resent = true;
                self.counters.packets_resent += 1;
            }
            session.flow.sent(now, sent.more);
            if call.first_sent == 0 {
                (call.first_sent, flight.heard_at) = (now.max(1), now);
                flight.interval = flight.patience(session, &self.config);
            }
            flight.resend_at = now.saturating_add(flight.interval);
        }
        call.ready = false;
        if !spec.is_reliable() && call.first_sent != 0 {
            self.calls.land(key);
        }
        self.reset_timer(key);
        match held_back {
            Admission::Now => self.unpark(now, index),
            held_back => self.wait_for_flow(index, held_back),
        }
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
                let fragments = u32::from(header.fragments);
                let ack = AckHead { base: fragments, limit: fragments, ..AckHead::default() };
                self.outbox.push_stateless(Ready::Finished(header.session, header.call, ack));
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
            session.answers.sample(now.saturating_sub(call.first_sent));
            session.path.moved();
        }
        let (token, status) = (call.token, Code::from_wire(header.status));
        let verdict = Verdict::Peer { by_engine: header.flags & FLAG_ENGINE != 0 };
        let metadata = header.flags & FLAG_METADATA != 0;
        sink(Event::Response { token, status, layout: header.layout, flat, metadata, body, verdict });
        self.end_answered(now, key, verdict);
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
        if let Some(flight) = call.flight.as_deref_mut() {
            flight.heard_at = now;
            session.flow.release(flight.window.finish(&mut self.boards));
        }
        if call.response.is_none() {
            let shape = Shape::of(packet)?;
            let opened = self.pool.begin(shape, session.peer.address, now);
            match (opened, call.flight.as_deref_mut()) {
                (Ok(assembly), _) => call.response = Some(assembly),
                // Its ack says that there is no room; another will when there is.
                (Err(room @ (Room::Later | Room::LaterForHost)), Some(flight)) => {
                    self.pool.credit.wait(&mut flight.claim, shape, room, Ready::Call(key));
                }
                (Err(_), _) => {
                    let why = "this host has no room to reassemble so long a response";
                    self.fail_call(now, key, Code::ResourceExhausted, why);
                    return Err(Reason::ReassemblyLimit);
                }
            }
        }
        let whole = match &mut call.response {
            Some(assembly) => assembly.add(packet, now)?,
            None => false,
        };
        let Some(assembly) = call.response.as_deref().filter(|_| whole) else {
            let kept = call.response.is_some();
            let Some(flight) = call.flight.as_deref_mut() else { return Ok(()) };
            flight.ack_due = true;
            // From here on the server retransmits; asking again is for when it has vanished.
            flight.interval = self.config.probe_ns;
            flight.resend_at = now.saturating_add(flight.interval);
            self.reset_timer(key);
            self.make_ready(key);
            return if kept { Ok(()) } else { Err(Reason::ReassemblyLimit) };
        };
        let ack = assembly.ack_head(now);
        let acknowledged = call.spec.is_reliable();
        let (token, status) = (call.token, Code::from_wire(assembly.status));
        let verdict = Verdict::Peer { by_engine: assembly.flags & FLAG_ENGINE != 0 };
        let (layout, flat, body) = (assembly.layout, assembly.flat(), assembly.body());
        let metadata = assembly.flags & FLAG_METADATA != 0;
        sink(Event::Response { token, status, layout, flat, metadata, body, verdict });
        if acknowledged {
            self.outbox.push_stateless(Ready::Finished(header.session, header.call, ack));
        }
        self.end_answered(now, key, verdict);
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
        let (metadata, verdict) = (false, Verdict::Driver);
        sink(Event::Response { token, status, layout, flat, metadata, body: &[], verdict });
        self.give_up(now, key);
        Ok(())
    }

    /// An ack of a request's fragments, or the word that it is being worked on.
    pub(crate) fn on_request_ack(&mut self, now: u64, packet: &Packet<'_>) -> Result<(), Reason> {
        let header = &packet.header;
        let session = self.table.get_mut(header.session).ok_or(Reason::UnknownSession)?;
        let key = session.client().and_then(|client| client.call(header.call)).ok_or(Reason::StaleCall)?;
        let call = self.calls.get_mut(key).filter(|call| call.first_sent != 0).ok_or(Reason::StaleCall)?;
        let flight = call.flight.as_deref_mut().ok_or(Reason::StaleCall)?;
        flight.heard_at = now;
        if !packet.body.is_empty() {
            let ack = Ack::read(packet.body)?;
            let progress = flight.window.acknowledge(&ack, header.sequence, now, session.flow.tolerance());
            session.flow.on_ack(now, &progress);
            if ack.turns_back() {
                session.flow.release(flight.window.turn_back(header.sequence));
                flight.resent = true;
                flight.interval = flight.interval.min(TURNED_BACK_NS);
                flight.resend_at = now.saturating_add(flight.interval);
            } else if progress.news {
                session.path.moved();
                flight.probed = false;
                flight.interval = flight.patience(session, &self.config);
                flight.resend_at = now.saturating_add(flight.interval);
            }
        }
        if header.flags & FLAG_WORKING != 0 && !flight.working {
            if flight.resent && flight.window.fragments() == 1 {
                session.answers.was_hasty(self.config.rto_min_ns);
            }
            flight.working = true;
            // Of a request of one packet this is the answer to a repetition: its handler is slow. A long one's server says so
            // at once, and the response that may follow at once is a single packet, which nothing but asking brings again.
            flight.interval = match flight.window.fragments() {
                1 => self.config.probe_ns,
                _ => session.ack_timeout(&self.config).saturating_mul(4).min(self.config.probe_ns),
            };
            flight.resend_at = now.saturating_add(flight.interval);
        }
        if flight.working || flight.window.arrived_whole() {
            session.flow.release(flight.window.finish(&mut self.boards));
        }
        let due = flight.window.due().is_some();
        self.reset_timer(key);
        if due {
            self.make_ready(key);
        }
        self.unpark(now, header.session);
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
        let Some(session) = self.table.get_mut(index) else { return };
        if let Some(flight) = call.flight.as_deref_mut()
            && flight.parked
            && !flight.window.is_under_way()
        {
            flight.heard_at = excuse_wait(flight.heard_at, flight.interval, session.heard_at);
        }
        // An unreliable call's timer goes off when it has waited for long enough.
        let heard_at = call.flight.as_ref().map_or(0, |flight| flight.heard_at);
        if now.saturating_sub(heard_at) >= self.config.dead_ns {
            let longest = call.flight.as_ref().map_or(0, |flight| flight.window.longest());
            let too_long = HEADER_LEN + longest > session.path.size();
            if now.saturating_sub(session.heard_at) >= self.config.dead_ns {
                self.retire_client(index, "the peer has gone silent");
            }
            let why = match too_long {
                true => "the network no longer carries packets as long as the request's; try again",
                false => "the peer does not answer",
            };
            self.counters.calls_dead += 1;
            self.send_cancel(key);
            return self.fail_call(now, key, Code::Unavailable, why);
        }
        let Some(flight) = call.flight.as_deref_mut() else { return };
        if flight.working || call.response.is_some() || flight.claim.shape.is_some() {
            flight.window.probe();
            flight.interval = flight.interval.saturating_mul(2).min(self.config.probe_ns);
        } else {
            if flight.window.overdue(now, &mut session.flow, &mut flight.probed) {
                session.path.lost(now, HEADER_LEN + flight.window.longest());
            }
            if flight.probed {
                flight.interval = flight.interval.saturating_mul(2).min(self.config.rto_max_ns);
            }
        }
        flight.resend_at = now.saturating_add(flight.interval);
        self.reset_timer(key);
        self.make_ready(key);
        self.unpark(now, index);
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
        self.give_up(now, key);
    }

    /// Forgets a call; its slot goes to the next that waits.
    #[inline]
    fn end_call(&mut self, now: u64, key: u64) {
        self.leave_flow(key);
        let Some(call) = self.calls.get_mut(key) else { return };
        let &mut Call { timer, place, .. } = call;
        let response = call.response.take();
        self.timers.clear(timer);
        self.calls.remove(key);
        let Place::Open { session, id } = place else { return };
        if let Some(assembly) = response {
            self.pool.close(assembly);
        }
        self.free_slot(now, session, id);
        self.unpark(now, session);
    }

    /// Takes a call out of its session's flow, and out of the queue for room.
    #[inline]
    pub(crate) fn leave_flow(&mut self, key: u64) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let Some(session) = call.session().and_then(|index| self.table.get_mut(index)) else { return };
        let Some(flight) = call.flight.as_deref_mut() else { return };
        session.flow.release(flight.window.finish(&mut self.boards));
        if std::mem::take(&mut flight.parked) {
            session.flow.forget(key);
        }
        if std::mem::take(&mut flight.claim).queued {
            self.pool.credit.forget_call(key);
        }
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
    pub(crate) fn make_ready(&mut self, key: u64) {
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
        ack: AckHead,
        out: &mut dyn FnMut(Transmit<'_>) -> Result<(), Blocked>,
    ) -> Result<(), Blocked> {
        let Some(session) = self.table.get_mut(index) else { return Ok(()) };
        let ack = AckBody::from(ack);
        session.signer.send_ack(session.peer, call, FLAG_OF_RESPONSE, ack.bytes(), out)?;
        self.counters.acks_sent += 1;
        Ok(())
    }
}

impl Flight {
    /// How long to wait before sending again.
    fn patience(&mut self, session: &Session, config: &Config) -> u64 {
        match self.window.fragments() {
            1 => session.answer_timeout(config),
            _ if self.window.is_behind() => session.flow.tolerance().ns,
            _ => session.ack_timeout(config),
        }
    }

    /// Tells the server what has arrived of its response.
    fn send_ack(
        &mut self,
        now: u64,
        id: u64,
        response: Option<&mut Assembly>,
        session: &mut Session,
        out: &mut dyn FnMut(Transmit<'_>) -> Result<(), Blocked>,
    ) -> Result<(), Blocked> {
        let ack = match response {
            Some(assembly) => assembly.ack(now),
            None => AckBody::from(AckHead::default()), // no room
        };
        session.signer.send_ack(session.peer, id, FLAG_OF_RESPONSE, ack.bytes(), out)?;
        self.ack_due = false;
        Ok(())
    }
}

/// How long to wait, in ns, before asking again whether there is room.
const TURNED_BACK_NS: u64 = 5_000_000;
/// Fragments of one message that are sent before others have their turn.
pub(crate) const BUNCH: u32 = 16;

// The body of an ack fits the smallest packet.
const _: () = assert!(HEADER_LEN + ACK_MAX <= crate::connect::PAYLOAD_MIN);
