//! Requests: sending them, and sending them again.

use super::calls::{Flight, Place};
use crate::config::Config;
use crate::event::*;
use crate::extension::order_len;
use crate::flow::{Admission, excuse_wait};
use crate::outbox::Ready;
use crate::sack::Ack;
use crate::session::Session;
use crate::transport::Transport;
use crate::window::BUNCH;
use tollfree_wire::header::{FLAG_WORKING, HEADER_LEN, Header};
use tollfree_wire::{Code, Packet, Reason};
use zerocopy::IntoBytes;

/// How long to wait, in ns, before asking again whether there is room.
const TURNED_BACK_NS: u64 = 5_000_000;

impl Transport {
    /// Sends what an outgoing call has to send: its request, a few fragments of it, or an ack of its response's. A request of
    /// one packet leaves by [`Transport::send_request`].
    pub(crate) fn send_call(&mut self, now: u64, key: u64, out: Out<'_>) -> Result<(), Blocked> {
        let Some(call) = self.calls.get_mut(key) else { return Ok(()) };
        let Place::Open { session: index, id } = call.place else { return Ok(()) };
        let Some(session) = self.table.get_mut(index) else { return Ok(()) };
        let Some(header) = call.header(now, id) else { return Ok(()) };
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
                if bunch == BUNCH && !session.flow.is_awaited() {
                    self.outbox.push(Ready::Call(key)); // other peers' turn
                    return Ok(());
                }
                held_back = session.flow.admits(now);
                if bunch == BUNCH || held_back != Admission::Now {
                    session.flow.park(Ready::Call(key), flight.window.left(), &mut flight.parked);
                    break;
                }
                bunch += 1;
            }
            let first = fragment == 0;
            let flat_len = if first { call.flat_len } else { 0 };
            let mut header = Header { flat_len, fragment: fragment as u16, ..header };
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
            out(Transmit { route: session.route(), header: &header, flat, extension, body, checksum })?;
            session.signer.sent();
            self.counters.packets_sent += 1;
            call.last = (header.sequence, header.tag);
            let sent = flight.window.sent(fragment, header.sequence, now);
            if sent.again {
                flight.resent = true;
                self.counters.packets_resent += 1;
            }
            session.flow.sent(now, sent.more);
            flight.left(now, &mut call.first_sent, session, &self.config);
        }
        self.end_turn(now, key, held_back);
        Ok(())
    }

    /// A call has sent what it may at the moment.
    #[inline]
    pub(crate) fn end_turn(&mut self, now: u64, key: u64, held_back: Admission) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let Some(index) = call.session() else { return };
        call.ready = false;
        if !call.spec.is_reliable() && call.first_sent != 0 {
            self.calls.land(key);
        }
        self.reset_timer(key);
        match held_back {
            Admission::Now => self.unpark(now, index),
            held_back => self.wait_for_flow(index, held_back),
        }
    }

    /// Sets a call's timer to what it waits for next.
    pub(super) fn reset_timer(&mut self, key: u64) {
        if let Some(call) = self.calls.get_mut(key) {
            self.timers.set(call.timer, call.due_at(self.config.dead_ns));
        }
    }

    /// Puts a call into the outbox, once.
    pub(crate) fn make_ready(&mut self, key: u64) {
        if let Some(call) = self.calls.get_mut(key)
            && !std::mem::replace(&mut call.ready, true)
        {
            self.outbox.push(Ready::Call(key));
        }
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
                session.path.moved(flight.longest_packet(call.flat_len));
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
        let goes_on = flight.window.due().is_some()
            && !session.flow.park_behind_others(Ready::Call(key), &flight.window, &mut flight.parked);
        self.reset_timer(key);
        if goes_on {
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
            if now.saturating_sub(session.heard_at) >= self.config.dead_ns {
                self.retire_client(now, index, "the peer has gone silent");
            }
            self.counters.calls_dead += 1;
            self.send_cancel(key);
            return self.fail_call(now, key, Code::Unavailable, "the peer does not answer");
        }
        let Some(flight) = call.flight.as_deref_mut() else { return };
        if flight.working || call.response.is_some() || flight.claim.shape.is_some() {
            if now.saturating_sub(flight.heard_at) > flight.interval {
                session.path.lost(now, flight.longest_packet(call.flat_len)); // the last time it was not heard
            }
            let (room, next) = (session.path.room(call.flat_len.into(), &call.spec), session.signer.next());
            if let Some(gone) = flight.window.cut_again(room, next, &call.spec, &mut self.boards) {
                session.flow.release(gone);
            }
            flight.window.probe();
            flight.interval = flight.interval.saturating_mul(2).min(self.config.probe_ns);
        } else {
            if flight.window.overdue(now, &mut session.flow, &mut flight.probed) {
                session.path.lost(now, flight.longest_packet(call.flat_len));
            }
            let (room, next) = (session.path.room(call.flat_len.into(), &call.spec), session.signer.next());
            if let Some(gone) = flight.window.cut_again(room, next, &call.spec, &mut self.boards) {
                session.flow.release(gone);
                (flight.resent, flight.probed) = (true, false);
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
}

impl Flight {
    /// Bytes of its longest packet, from the base header on.
    pub(crate) fn longest_packet(&self, flat_len: u16) -> usize {
        HEADER_LEN + usize::from(flat_len).next_multiple_of(8) + self.window.longest()
    }

    /// A packet has left, the call's first if none has at any time.
    #[inline]
    pub(crate) fn left(&mut self, now: u64, first_sent: &mut u64, session: &Session, config: &Config) {
        if *first_sent == 0 {
            (*first_sent, self.heard_at) = (now.max(1), now);
            self.interval = self.patience(session, config);
        }
        self.resend_at = now.saturating_add(self.interval);
    }

    /// How long to wait before sending again.
    fn patience(&mut self, session: &Session, config: &Config) -> u64 {
        match self.window.fragments() {
            1 => session.answer_timeout(config),
            _ if self.window.is_behind() => session.flow.tolerance().ns,
            _ => session.ack_timeout(config),
        }
    }
}
