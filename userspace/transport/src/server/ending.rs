//! Calls received that are over, and sessions that are: letting go of what is held for them.

use super::{State, slot_of};
use crate::session::{End, Session};
use crate::transport::Transport;
use tollfree_wire::Reason;
use tollfree_wire::header::Header;

impl Transport {
    /// The client no longer waits for a call.
    pub(crate) fn on_cancel(&mut self, header: &Header) -> Result<(), Reason> {
        let server = self.table.get_mut(header.session).and_then(Session::server).ok_or(Reason::WrongKind)?;
        let slot = server.slot_mut(header.call);
        if header.call < slot.call {
            return Err(Reason::StaleCall);
        }
        self.retire_slot(header.session, slot_of(header.call));
        // Also where the cancellation overtook its request, which then comes too late.
        if let Some(server) = self.table.get_mut(header.session).and_then(Session::server) {
            server.slot_mut(header.call).call = header.call;
        }
        Ok(())
    }

    /// Lets go of everything that is held for a slot's call. Its id stays, so that it never runs again.
    pub(crate) fn retire_slot(&mut self, index: u32, slot: u8) {
        let Some(session) = self.table.get_mut(index) else { return };
        let Session { flow, end: End::Server(server), .. } = session else { return };
        let Some(slot) = server.slots.get_mut(usize::from(slot)) else { return };
        slot.claim.shape = None;
        if let Some(reply) = &mut slot.reply {
            flow.release(reply.window.finish(&mut self.boards));
        }
        if let Some(pending) = slot.retire(index) {
            self.pending.push_back(pending);
        }
        self.replies.free(slot.reply.take());
        if let Some(assembly) = slot.request.take() {
            self.pool.close(assembly);
        }
        if let Some(timer) = slot.timer {
            self.timers.clear(timer);
        }
    }

    /// Lets go of everything that is held for a session that is gone.
    pub(crate) fn retire_server(&mut self, session: &mut Session) {
        let &mut Session { index, peer, end: End::Server(ref mut server), .. } = session else { return };
        for slot in &mut server.slots {
            self.pending.extend(slot.retire(index));
            self.replies.free(slot.reply.take());
            if let Some(assembly) = slot.request.take() {
                self.pool.close(assembly);
            }
            if let Some(timer) = slot.timer.take() {
                self.timers.destroy(timer);
            }
        }
        self.pool.credit.forget(index);
        self.served_count -= 1;
        if let Some(indices) = self.served.get_mut(&peer) {
            indices.retain(|other| *other != index);
            if indices.is_empty() {
                self.served.remove(&peer);
            }
        }
    }

    /// A server session's timer: forgets kept replies once their client cannot ask for them any more, and the session
    /// once it has idled for too long.
    pub(crate) fn on_server_timer(&mut self, now: u64, index: u32) {
        let idle_ns = u64::from(self.config.idle_ms) * 1_000_000;
        let dead_ns = self.config.dead_ns.max(1);
        let Some(session) = self.table.get_mut(index) else { return };
        let silent = now.saturating_sub(session.heard_at);
        if idle_ns != 0 && silent >= idle_ns {
            // Silently: the client has closed it already or is gone.
            return self.drop_session(index, "idle");
        }
        let (timer, heard_at) = (session.timer, session.heard_at);
        if let Some(server) = session.server().filter(|_| silent >= dead_ns) {
            for slot in server.slots.iter_mut().filter(|slot| slot.state == State::Answered) {
                slot.state = State::Over;
                self.replies.free(slot.reply.take());
            }
        }
        let idle_at = if idle_ns == 0 { u64::MAX } else { heard_at.saturating_add(idle_ns) };
        self.timers.set(timer, idle_at.min(now.saturating_add(dead_ns)));
    }
}
