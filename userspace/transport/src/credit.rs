//! Room for messages that arrive in several packets: who has it, and who waits for it.
//!
//! A sender may send [`crate::window::UNASKED`] packets of a message unasked, and from then on what the receiver's
//! acks let it. The receiver lets it send only what it has reserved room for, whole messages at a time: so what is
//! reserved never exceeds what there is, what was begun can be finished, and a message without room waits at its
//! sender. Room that becomes free goes to who has waited longest. No host gets more than half of it, over all of its
//! sessions and from whichever ports, and who waits for its own share does not keep others waiting.

use crate::event::IncomingCall;
use crate::outbox::Ready;
use crate::reassembly::Shape;
use crate::server::{State, slot_of};
use crate::session::Session;
use crate::timers::Owner;
use crate::transport::Transport;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use tollfree_wire::frame::Address;

/// How long an assembled request waits, in ns, before it is offered to its service again.
const POSTPONED_NS: u64 = 2_000_000;

/// Room for messages, in bytes.
#[derive(Debug)]
pub(crate) struct Credit {
    limit: usize,
    reserved: usize,
    /// Of that, what each host has; hosts that have none are not in it.
    shares: HashMap<Address, usize>,
    /// Calls whose responses, and slots whose requests, wait for room. At most once each, which `Claim` sees to.
    waiting: VecDeque<Ready>,
    /// One of them waits for more than its host's share.
    short: bool,
    /// Room has become free since it was last given away.
    freed: bool,
}

/// A message's place among those that wait for room.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Claim {
    /// The message, while it waits.
    pub shape: Option<Shape>,
    /// Its call or slot is in the queue: perhaps for an earlier message of the same slot, whose place it then takes.
    pub queued: bool,
}

/// Whether there is room for a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Reserved,
    /// Not now: others have it.
    Later,
    /// Not now: its host has as much as one may have.
    LaterForHost,
    /// Not ever.
    Never,
}

impl Credit {
    /// Room for `limit` bytes, of which one host gets at most half.
    pub fn new(limit: usize) -> Credit {
        let (shares, waiting) = (HashMap::new(), VecDeque::new());
        Credit { limit, reserved: 0, shares, waiting, short: false, freed: false }
    }

    /// Bytes reserved now.
    pub fn reserved(&self) -> usize {
        self.reserved
    }

    /// Reserves room for a message from a host.
    pub fn reserve(&mut self, bytes: usize, from: Address) -> Room {
        if bytes > self.limit / 2 {
            return Room::Never;
        }
        let share = self.shares.get(&from).copied().unwrap_or(0);
        if share + bytes > self.limit / 2 {
            return Room::LaterForHost;
        }
        if self.reserved + bytes > self.limit {
            return Room::Later;
        }
        self.reserved += bytes;
        self.shares.insert(from, share + bytes);
        Room::Reserved
    }

    /// Gives room back.
    pub fn free(&mut self, bytes: usize, from: Address) {
        self.reserved -= bytes;
        if let Entry::Occupied(mut share) = self.shares.entry(from) {
            *share.get_mut() -= bytes;
            if *share.get() == 0 {
                share.remove();
            }
        }
        self.freed = true;
    }

    /// Whether somebody waits for more than its host's share. Who comes later does not get ahead.
    pub fn is_short(&self) -> bool {
        self.short
    }

    /// Puts a message into the queue, for which there was no `room`.
    pub fn wait(&mut self, claim: &mut Claim, shape: Shape, room: Room, who: Ready) {
        claim.shape = Some(shape);
        self.short |= room == Room::Later;
        if !std::mem::replace(&mut claim.queued, true) {
            self.waiting.push_back(who);
        }
    }

    /// Forgets a call made that is over.
    pub fn forget_call(&mut self, call: u64) {
        self.waiting.retain(|ready| !matches!(ready, Ready::Call(key) if *key == call));
        self.freed = true; // others behind it may have room
    }

    /// Forgets the calls received on a session that is gone.
    pub fn forget(&mut self, session: u32) {
        self.waiting.retain(|ready| !matches!(ready, Ready::Slot(index, _) if *index == session));
        self.freed = true;
    }
}

impl Transport {
    /// Gives room that has become free to those that wait for it.
    pub(crate) fn grant(&mut self, now: u64) {
        if !std::mem::take(&mut self.pool.credit.freed) {
            return;
        }
        self.pool.credit.short = false;
        let mut place = 0;
        while let Some(&who) = self.pool.credit.waiting.get(place) {
            let room = match who {
                Ready::Slot(index, slot) => self.grant_request(now, index, slot),
                Ready::Call(key) => self.grant_response(now, key),
                _ => None,
            };
            match room {
                Some(Room::Later) => {
                    self.pool.credit.short = true;
                    return;
                }
                Some(Room::LaterForHost) => place += 1,
                Some(Room::Reserved | Room::Never) | None => {
                    self.pool.credit.waiting.remove(place);
                }
            }
        }
    }

    /// Hands a request back that was delivered since the last [`Transport::transmit`] and for which its service has no
    /// room. One of several packets is kept and delivered again in a while; of one packet, its client is told to wait,
    /// and sends it again. False where that cannot be, of an ordered or unreliable method or too late: it has to be answered.
    pub fn defer(&mut self, now: u64, call: IncomingCall) -> bool {
        let IncomingCall { session: index, call } = call;
        let server = self.table.get_mut(index).and_then(Session::server);
        let Some(slot) = server.and_then(|server| server.find(call)) else { return false };
        if slot.state != State::Running || slot.spec.ordered || !slot.spec.is_reliable() {
            return false;
        }
        self.counters.calls_received -= 1;
        self.counters.requests_deferred += 1;
        if slot.request.is_some() {
            slot.state = State::Postponed;
            let owner = Owner::Slot(index, slot_of(call));
            let timer = *slot.timer.get_or_insert_with(|| self.timers.create(owner));
            self.timers.set(timer, now.saturating_add(POSTPONED_NS));
            return true;
        }
        (slot.state, slot.ack_due) = (State::Deferred, true);
        if !std::mem::replace(&mut slot.ready, true) {
            self.outbox.push(Ready::Slot(index, slot_of(call)));
        }
        true
    }

    /// Opens a request that waits for room. `None`: it does not, any more.
    fn grant_request(&mut self, now: u64, index: u32, slot: u8) -> Option<Room> {
        let session = self.table.get_mut(index)?;
        let from = session.peer.address;
        let server = session.server()?;
        let state = server.slots.get_mut(usize::from(slot))?;
        let shape = state.claim.shape.filter(|_| state.state == State::Waiting);
        let opened = shape.map(|shape| self.pool.open(shape, from, now));
        match opened {
            Some(Err(room @ (Room::Later | Room::LaterForHost))) => return Some(room),
            Some(Ok(assembly)) => {
                state.state = State::Assembling;
                state.request = Some(assembly);
                state.ack_due = true;
                let owner = Owner::Slot(index, slot);
                let timer = *state.timer.get_or_insert_with(|| self.timers.create(owner));
                self.timers.set(timer, now.saturating_add(self.config.dead_ns));
                if !std::mem::replace(&mut state.ready, true) {
                    self.outbox.push(Ready::Slot(index, slot));
                }
            }
            Some(Err(_)) | None => {}
        }
        state.claim = Claim::default();
        None
    }

    /// Opens a response that waits for room. `None`: it does not, any more.
    fn grant_response(&mut self, now: u64, key: u64) -> Option<Room> {
        let call = self.calls.get_mut(key)?;
        let session = self.table.get_mut(call.session()?)?;
        let flight = call.flight.as_deref_mut()?;
        if let Some(shape) = flight.claim.shape {
            match self.pool.open(shape, session.peer.address, now) {
                Ok(assembly) => call.response = Some(assembly),
                Err(room) => return Some(room),
            }
            flight.ack_due = true;
        }
        flight.claim = Claim::default();
        self.make_ready(key);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_reserved_than_there_is_and_a_host_has_its_share() {
        let mut credit = Credit::new(1000);
        let [a, b, c] = [1, 2, 3].map(Address::v4);
        assert_eq!(credit.reserve(501, a), Room::Never);
        assert_eq!(credit.reserve(400, a), Room::Reserved);
        assert_eq!(credit.reserve(101, a), Room::LaterForHost);
        assert_eq!(credit.reserve(500, b), Room::Reserved);
        assert_eq!(credit.reserve(101, c), Room::Later);
        credit.free(400, a);
        assert_eq!((credit.reserve(101, c), credit.reserved()), (Room::Reserved, 601));
        credit.free(500, b);
        credit.free(101, c);
        assert!(
            credit.shares.is_empty() && credit.reserved() == 0,
            "nothing is kept of hosts without messages"
        );
    }

    #[test]
    fn whoever_waits_is_in_the_queue_once() {
        let mut credit = Credit::new(1000);
        let mut claim = Claim::default();
        let shape = Shape { message_len: 10, fragments: 2, size: 5 };
        for _ in 0..3 {
            credit.wait(&mut claim, shape, Room::Later, Ready::Slot(1, 2));
        }
        assert_eq!(credit.waiting.len(), 1);
        credit.forget(1);
        assert!(credit.waiting.is_empty());
    }
}
