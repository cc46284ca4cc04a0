//! What a server sends of a call: its reply, again where that is lost, and acks of its request.

use super::{Slot, State, slot_of};
use crate::event::*;
use crate::extension::message_len;
use crate::flow::{Admission, excuse_wait};
use crate::outbox::Ready;
use crate::sack::{Ack, AckBody, AckHead};
use crate::session::{End, Session, Signer};
use crate::timers::Owner;
use crate::transport::{Pending, Transport};
use crate::window::BUNCH;
use tollfree_wire::header::{FLAG_WORKING, Header};
use tollfree_wire::{Packet, Reason};

impl Transport {
    /// Sends what a received call has to send: its reply, a few fragments of it, or an ack of its request. A reply of one
    /// packet leaves by [`Transport::send_reply`].
    pub(crate) fn send_slot(&mut self, now: u64, index: u32, slot: u8, out: Out<'_>) -> Result<(), Blocked> {
        let Some(session) = self.table.get_mut(index) else { return Ok(()) };
        let timeout = session.ack_timeout(&self.config);
        let Session { peer, signer, flow, end: End::Server(server), .. } = session else {
            return Ok(());
        };
        let (owner, ready) = (Owner::Slot(index, slot), Ready::Slot(index, slot));
        let Some(slot) = server.slots.get_mut(usize::from(slot)) else { return Ok(()) };
        if !matches!(slot.state, State::Assembling | State::Held | State::Postponed)
            && let Some(taken) = slot.request.take()
        {
            self.pool.close(taken);
        }
        if slot.ack_due {
            slot.send_ack(now, signer, (*peer).into(), out)?;
            self.counters.acks_sent += 1;
        }
        let (State::Answered | State::Answering, Some(reply)) = (slot.state, slot.reply.as_deref_mut())
        else {
            slot.ready = false;
            self.unpark(now, index);
            return Ok(());
        };
        let mut bunch = 0;
        let mut held_back = Admission::Now;
        while let Some(fragment) = reply.window.due() {
            if reply.window.is_held_back() {
                if bunch == BUNCH && !flow.is_awaited() {
                    self.outbox.push(ready); // other peers' turn
                    return Ok(());
                }
                held_back = flow.admits(now);
                if bunch == BUNCH || held_back != Admission::Now {
                    flow.park(ready, reply.window.left(), &mut slot.parked);
                    break;
                }
                bunch += 1;
            }
            let (header, flat, body) = reply.packet(fragment);
            let message_len = message_len(&slot.spec, &reply.window);
            let mut header = Header { method: slot.method, call: slot.call, message_len, ..header };
            signer.sign(&mut header, flat);
            let checksum = slot.spec.checksum;
            out(Transmit { route: (*peer).into(), header: &header, flat, extension: &[], body, checksum })?;
            signer.sent();
            self.counters.packets_sent += 1;
            let sent = reply.window.sent(fragment, header.sequence, now);
            self.counters.packets_resent += u64::from(sent.again);
            flow.sent(now, sent.more);
        }
        slot.ready = false;
        if !slot.spec.is_reliable() {
            // Nobody will ask for it again.
            if std::mem::take(&mut slot.state) == State::Answering {
                self.pending.push_back(Pending::Released(reply.token));
            }
            self.replies.free(slot.reply.take());
        } else if slot.state == State::Answering {
            if reply.interval == 0 {
                reply.interval = timeout;
            }
            let interval = reply.interval;
            let timer = *slot.timer.get_or_insert_with(|| self.timers.create(owner));
            self.timers.set(timer, now.saturating_add(interval));
        }
        match held_back {
            Admission::Now => self.unpark(now, index),
            held_back => self.wait_for_flow(index, held_back),
        }
        Ok(())
    }

    /// Has the room of a request that was just delivered freed at the next transmission.
    fn free_taken(&mut self, index: u32, slot: u8) {
        let server = self.table.get_mut(index).and_then(Session::server);
        if let Some(state) = server.and_then(|server| server.slots.get_mut(usize::from(slot)))
            && !std::mem::replace(&mut state.ready, true)
        {
            self.outbox.push(Ready::Slot(index, slot));
        }
    }

    /// An ack of a long reply's fragments.
    pub(crate) fn on_reply_ack(&mut self, now: u64, packet: &Packet<'_>) -> Result<(), Reason> {
        let header = &packet.header;
        let ack = Ack::read(packet.body)?;
        let session = self.table.get_mut(header.session).ok_or(Reason::UnknownSession)?;
        let timeout = session.ack_timeout(&self.config);
        let Session { flow, path, end: End::Server(server), .. } = session else {
            return Err(Reason::WrongKind);
        };
        let slot = server.find(header.call).filter(|slot| slot.state == State::Answering);
        let slot = slot.ok_or(Reason::StaleCall)?;
        let reply = slot.reply.as_deref_mut().ok_or(Reason::StaleCall)?;
        if ack.head.base >= reply.window.fragments() {
            // It has all of it, or has ended the call and wants no more, however little was sent.
            self.retire_slot(header.session, slot_of(header.call));
            self.unpark(now, header.session);
            return Ok(());
        }
        reply.heard_at = now;
        let progress = reply.window.acknowledge(&ack, header.sequence, now, flow.tolerance());
        flow.on_ack(now, &progress);
        if ack.turns_back() {
            flow.release(reply.window.turn_back(header.sequence));
        }
        if reply.window.arrived_whole() {
            self.retire_slot(header.session, slot_of(header.call));
        } else {
            if progress.news {
                path.moved(reply.longest_packet());
                reply.probed = false;
                reply.interval = if reply.window.is_behind() { flow.tolerance().ns } else { timeout };
                if let Some(timer) = slot.timer {
                    self.timers.set(timer, now.saturating_add(reply.interval));
                }
            }
            let ready = Ready::Slot(header.session, slot_of(header.call));
            let goes_on = reply.window.due().is_some()
                && !flow.park_behind_others(ready, &reply.window, &mut slot.parked);
            if goes_on && !std::mem::replace(&mut slot.ready, true) {
                self.outbox.push(ready);
            }
        }
        self.unpark(now, header.session);
        Ok(())
    }

    /// A slot's timer: its reply's fragments are lost, or its request's never come.
    pub(crate) fn on_slot_timer(&mut self, now: u64, index: u32, slot: u8, sink: Sink<'_>) {
        let dead_ns = self.config.dead_ns;
        let Some(session) = self.table.get_mut(index) else { return };
        let Session { flow, path, signer, heard_at: peer_heard_at, end: End::Server(server), .. } = session
        else {
            return;
        };
        let Some(state) = server.slots.get_mut(usize::from(slot)) else { return };
        if state.state == State::Postponed {
            let call = state.call;
            // Expired or not, it waits no longer; the reason is counted where packets are.
            let _ = self.deliver_assembled(now, index, call, sink);
            return self.free_taken(index, slot);
        }
        let reply = state.reply.as_deref_mut();
        let heard_at = match (state.state, &state.request, &reply) {
            (State::Assembling, Some(request), _) => request.heard_at,
            (State::Answering, _, Some(reply)) => reply.heard_at,
            _ => return,
        };
        if now.saturating_sub(heard_at) >= dead_ns {
            let call = IncomingCall { session: index, call: state.call };
            let told = state.state == State::Assembling && state.spec.is_reliable();
            self.retire_slot(index, slot);
            if told {
                self.give_up_request(now, call);
            }
            return self.unpark(now, index);
        }
        let Some(timer) = state.timer else { return };
        let Some(reply) = reply.filter(|_| state.state == State::Answering) else {
            return self.timers.set(timer, heard_at.saturating_add(dead_ns));
        };
        if state.parked && !reply.window.is_under_way() {
            reply.heard_at = excuse_wait(heard_at, reply.interval, *peer_heard_at);
        } else {
            if reply.window.overdue(now, flow, &mut reply.probed) {
                path.lost(now, reply.longest_packet());
            }
            if let Some(gone) = reply.cut_again(path, signer.next(), &state.spec, &mut self.boards) {
                flow.release(gone);
            }
            if reply.probed {
                reply.interval = reply.interval.saturating_mul(2).min(self.config.rto_max_ns);
            }
        }
        self.timers.set(timer, now.saturating_add(reply.interval));
        if !std::mem::replace(&mut state.ready, true) {
            self.outbox.push(Ready::Slot(index, slot));
        }
        self.unpark(now, index);
    }
}

impl Slot {
    /// Tells the client what has arrived of its request.
    fn send_ack(&mut self, now: u64, signer: &mut Signer, route: Route, out: Out<'_>) -> Result<(), Blocked> {
        let working =
            matches!(self.state, State::Held | State::Postponed | State::Running | State::Answering);
        let flags = if working { FLAG_WORKING } else { 0 };
        let ack = match (&mut self.request, self.whole) {
            // Of one packet, or several: it is whole.
            (Some(_), None) if self.state == State::Held => None,
            (Some(assembly), _) => Some(assembly.ack(now)),
            (None, Some(whole)) => Some(AckBody::from(whole)),
            (None, None) if matches!(self.state, State::Waiting | State::Deferred) => {
                Some(AckBody::from(AckHead::default()))
            }
            // A request of one packet, received again: there is nothing to say of its fragments.
            (None, None) => None,
        };
        signer.send_ack(route, self.call, flags, ack.as_ref().map_or(&[], AckBody::bytes), out)?;
        self.ack_due = false;
        Ok(())
    }
}
