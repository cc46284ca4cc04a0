//! The server's end of a session: what it knows of the last call in each slot.
//!
//! `accept` opens sessions. `request` delivers each call once, `assembly` puts long ones together, `order` has them wait for
//! their turn; `reply` answers them, `sending` gets the answer to the client; `ending` is when nobody needs them any more.

pub(crate) mod accept;
mod assembly;
mod ending;
mod order;
pub(crate) mod reply;
mod request;
mod sending;

use crate::credit::Claim;
use crate::event::*;
use crate::reassembly::Assembly;
use crate::sack::AckHead;
use crate::timers::TimerId;
use crate::transport::Pending;
use order::Turn;
use reply::Kept;
use tollfree_wire::header::{CALL_SLOTS, Header, NO_DEADLINE};
use tollfree_wire::spec::MethodSpec;

/// The server's end of a session.
pub(crate) struct Server {
    /// The client's nonce: a repeated hello gets the same welcome.
    pub nonce: [u8; 16],
    pub server_nonce: [u8; 16],
    /// The client's epoch.
    pub epoch: u32,
    /// A welcome is in the outbox.
    pub welcoming: bool,
    /// This host's transport block has changed since: the client is to open another session.
    pub outdated: bool,
    /// That wish is in the outbox.
    pub renewing: bool,
    /// Whose turn it is among the calls of ordered methods.
    pub turn: Turn,
    /// Up to the highest slot the client has used.
    pub slots: Vec<Slot>,
}

/// What the server knows of the last call in a slot. Of an unreliable call this is all, but for the time between its
/// answer and the next [`Transport::transmit`].
#[derive(Debug, Default)]
pub(crate) struct Slot {
    /// Its id; 0: none yet.
    pub call: u64,
    pub state: State,
    /// How its session carries it.
    pub spec: MethodSpec,
    /// Its number, while it is held back.
    pub order: u32,
    /// In the outbox.
    pub ready: bool,
    /// Waits for the network to take more of the answer, in its session's flow.
    pub parked: bool,
    /// An ack of the request is due.
    pub ack_due: bool,
    /// What it says once a request of several fragments is whole.
    pub whole: Option<AckHead>,
    /// Where the request waits for room.
    pub claim: Claim,
    pub method: u32,
    pub deadline_ns: u64,
    pub request: Option<Box<Assembly>>,
    pub timer: Option<TimerId>,
    /// The answer, from when it is given until nobody can ask for it any more.
    pub reply: Option<Box<Kept>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing to do or say: no call yet, or one that is over and whose answer is not kept.
    #[default]
    Over,
    /// There is no room for the request.
    Waiting,
    /// Its service has no room for the request, which was not kept: it is new when it comes again.
    Deferred,
    /// Its service has no room for the request, which was assembled and is delivered again in a while.
    Postponed,
    /// Fragments of the request are missing.
    Assembling,
    /// Whole, but earlier ones of its session are to be delivered first.
    Held,
    /// Delivered; no answer yet.
    Running,
    /// Answered in one packet, which is kept.
    Answered,
    /// Answered in several, which the client has not acknowledged.
    Answering,
}

impl Server {
    pub fn new(nonce: [u8; 16], server_nonce: [u8; 16], epoch: u32) -> Server {
        Server {
            nonce,
            server_nonce,
            epoch,
            welcoming: false,
            outdated: false,
            renewing: false,
            turn: Turn::default(),
            slots: Vec::new(),
        }
    }

    /// Calls without an answer, or whose answer is not acknowledged.
    pub fn open(&self) -> usize {
        self.slots.iter().filter(|slot| !matches!(slot.state, State::Over | State::Answered)).count()
    }

    /// The slot of a call id, whatever call it has.
    pub fn slot_mut(&mut self, call: u64) -> &mut Slot {
        let slot = call as usize % CALL_SLOTS;
        if slot >= self.slots.len() {
            self.slots.resize_with(slot + 1, Slot::default);
        }
        &mut self.slots[slot]
    }

    /// The slot whose last call is this one.
    pub fn find(&mut self, call: u64) -> Option<&mut Slot> {
        self.slots.get_mut(call as usize % CALL_SLOTS).filter(|slot| slot.call == call)
    }
}

/// The slot of a call id.
pub(crate) fn slot_of(call: u64) -> u8 {
    (call as usize % CALL_SLOTS) as u8
}

impl Slot {
    /// A new call takes the slot. Returns what was kept of the last one.
    #[must_use]
    pub fn begin(&mut self, now: u64, header: &Header, spec: MethodSpec) -> Option<Box<Kept>> {
        self.call = header.call;
        self.spec = spec;
        self.method = header.method;
        (self.ack_due, self.whole) = (false, None);
        self.deadline_ns = match header.deadline_us {
            NO_DEADLINE => u64::MAX,
            us => now.saturating_add(u64::from(us) * 1000),
        };
        self.reply.take()
    }

    /// Its call is over; returns who has to know.
    fn retire(&mut self, session: u32) -> Option<Pending> {
        self.ack_due = false;
        match (std::mem::take(&mut self.state), &self.reply) {
            (State::Running, _) => Some(Pending::Cancelled(IncomingCall { session, call: self.call })),
            (State::Answering, Some(reply)) if reply.is_sourced() => Some(Pending::Released(reply.token)),
            _ => None,
        }
    }
}
