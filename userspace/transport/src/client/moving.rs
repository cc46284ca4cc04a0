//! Sessions that end before their calls do, and what becomes of these: some move to another session, some end.

use super::calls::{Call, Place};
use crate::session::Session;
use crate::transport::{Pending, Transport};
use tollfree_wire::frame::Peer;
use tollfree_wire::header::Header;
use tollfree_wire::{Code, Reason};

/// Sessions a call may move through before something else must be wrong than a forgetful server.
const MOVES_MAX: u8 = 3;

impl Transport {
    /// New calls go to a new session, after those of this one that were never sent; it ends with its last call.
    pub(crate) fn retire_client(&mut self, now: u64, index: u32, why: &'static str) {
        let Some(session) = self.table.get_mut(index) else { return };
        let peer = session.peer;
        let Some(client) = session.client() else { return };
        let (link, calls) = (self.links.get_mut(client.link()), client.open());
        if link.session != Some(index) {
            return;
        }
        link.session = None;
        if calls == 0 {
            return self.drop_session(index, why);
        }
        client.closing = true;
        let keys = client.keys();
        // Said now rather than when the last call ends: whoever agreed on something in this session must ask again.
        self.pending.push_back(Pending::Down(peer, why));
        for key in keys {
            if self.calls.get_mut(key).is_some_and(|call| call.first_sent == 0) {
                self.requeue(now, key);
            }
        }
    }

    /// New calls go to a new session that is carried as its ends want it now; calls under way end on this one.
    pub(crate) fn renew_client(&mut self, now: u64, index: u32, why: &'static str) {
        let Some(session) = self.table.get_mut(index) else { return };
        let open = session.is_open();
        let Some(client) = session.client() else { return };
        let (link, calls) = (client.link(), client.open());
        client.goodbye = open;
        if !open {
            self.drop_session(index, why);
        } else {
            if calls == 0 {
                self.say_goodbye(index);
            }
            self.retire_client(now, index, why);
        }
        self.pump(now, link);
    }

    /// A peer says that it does not know a session. Believed only of the call whose last packet it proves to answer:
    /// that packet was not taken, so that a call sent once has not run and may be sent to a new session. The reset's
    /// method is the unknown session's index; 0 where whoever answers does not say.
    pub(crate) fn on_reset(&mut self, now: u64, from: Peer, header: &Header) -> Result<(), Reason> {
        let link_id = self.links.find(&from).ok_or(Reason::UnknownSession)?;
        let link = self.links.get_mut(link_id);
        let table = &mut self.table;
        let found = link.sessions.iter().find_map(|&index| {
            let session = table.get_mut(index)?;
            let named = header.method == 0 || header.method == session.guard.peer_index;
            Some((index, session.client()?.call(header.call).filter(|_| named)?))
        });
        let (index, key) = found.ok_or(Reason::StaleCall)?;
        let call = self.calls.get_mut(key).ok_or(Reason::StaleCall)?;
        if call.first_sent == 0 || call.last != (header.sequence, header.tag) {
            return Err(Reason::StaleCall);
        }
        self.counters.resets_believed += 1;
        let why_not = match &call.flight {
            None => Some("the peer forgot the session, and an unreliable call is not sent again"),
            Some(flight)
                if flight.resent || flight.working || call.response.is_some() || call.moves >= MOVES_MAX =>
            {
                Some("the peer forgot the session; the call may or may not have run")
            }
            Some(_) => None,
        };
        self.retire_client(now, index, "the peer does not know it");
        match why_not {
            Some(why) => self.fail_call(now, key, Code::Unavailable, why),
            None => self.requeue(now, key),
        }
        self.pump(now, link_id);
        Ok(())
    }

    /// The server says goodbye: what it has not answered it will not answer.
    pub(crate) fn on_close(&mut self, now: u64, index: u32) {
        let Some(client) = self.table.get_mut(index).and_then(Session::client) else { return };
        let link = client.link();
        self.retire_client(now, index, "the server closed it");
        let client = self.table.get_mut(index).and_then(Session::client);
        for key in client.map(|client| client.keys()).unwrap_or_default() {
            self.fail_call(now, key, Code::Unavailable, "the server shut down before it answered");
        }
        self.pump(now, link);
    }

    /// The peer at this address runs for the first time since `epoch`: sessions with its previous life are over.
    pub(crate) fn peer_restarted(&mut self, now: u64, peer: &Peer, epoch: u32) {
        let Some(link_id) = self.links.find(peer) else { return };
        let link = self.links.get_mut(link_id);
        if link.epoch.is_none_or(|known| epoch.wrapping_sub(known) as i32 <= 0) {
            return;
        }
        link.epoch = Some(epoch);
        for index in link.sessions.clone() {
            if self.table.get_mut(index).is_some_and(|session| session.is_open()) {
                self.on_close(now, index);
            }
        }
    }

    /// Sends a call again as if it never had been, to the link's next session.
    fn requeue(&mut self, now: u64, key: u64) {
        let Some(call) = self.calls.get_mut(key) else { return };
        let Place::Open { session, id } = call.place else { return };
        self.leave_flow(key);
        let Some(call) = self.calls.get_mut(key) else { return };
        call.requeue();
        let &mut Call { timer, deadline_ns, link, .. } = call;
        self.timers.clear(timer);
        if deadline_ns != u64::MAX {
            self.timers.set(timer, deadline_ns);
        }
        self.links.get_mut(link).queue.push_front(key);
        self.free_slot(now, session, id);
        self.unpark(now, session);
    }
}
