//! The ways in which a call is over: answered, given up, cancelled.

use super::calls::{Call, Place};
use crate::event::*;
use crate::outbox::Ready;
use crate::session::Session;
use crate::transport::{Pending, Transport};
use tollfree_wire::header::FLAG_CANCEL;
use tollfree_wire::{Code, Kind};

impl Transport {
    /// Gives a call up: no event will come, its token is free at once, the peer is told.
    pub fn cancel(&mut self, now: u64, call: CallHandle) {
        self.send_cancel(call.0);
        self.give_up(now, call.0);
    }

    /// Ends a call that was answered. The peer's engine may have done so before the call's turn came.
    #[inline]
    pub(crate) fn end_answered(&mut self, now: u64, key: u64, verdict: Verdict) {
        match verdict {
            Verdict::Peer { by_engine: true } => self.give_up(now, key),
            _ => self.end_call(now, key),
        }
    }

    /// Ends a call without its application's word.
    pub(super) fn give_up(&mut self, now: u64, key: u64) {
        let ordered =
            self.calls.get_mut(key).filter(|call| call.spec.ordered).and_then(|call| call.session());
        self.end_call(now, key);
        if let Some(session) = ordered {
            self.skip_in_order(session);
        }
    }

    /// Ends a call with a status of our own.
    pub(crate) fn fail_call(&mut self, now: u64, key: u64, status: Code, why: &'static str) {
        let Some(Call { token, .. }) = self.calls.get_mut(key) else { return };
        self.pending.push_back(Pending::Ended { token: *token, status, why });
        self.give_up(now, key);
    }

    /// Tells the server that nobody waits for a call. Sent once: a later call in the same slot says it too.
    pub(super) fn send_cancel(&mut self, key: u64) {
        let Some(call) = self.calls.get_mut(key).filter(|call| call.first_sent != 0) else { return };
        let Place::Open { session, id } = call.place else { return };
        let method = call.method;
        let Some(session) = self.table.get_mut(session) else { return };
        let header = session.packet(Kind::Request, |header| {
            (header.flags, header.call, header.method) = (FLAG_CANCEL, id, method);
        });
        self.outbox.push(Ready::Packet(session.route(), header));
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
    pub(super) fn free_slot(&mut self, now: u64, index: u32, id: u64) {
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
}
