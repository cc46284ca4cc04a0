//! A host: a transport, what runs in front of it, and the applications on it.

use crate::clock::Clock;
use crate::driver::Driver;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use tollfree_transport::{CallHandle, IncomingCall, Transport};
use tollfree_wire::frame::Peer;
use tollfree_wire::session::Guard;

/// A call as its maker knows it.
#[derive(Clone, Debug)]
pub struct Made {
    /// Its name in the world, which nothing but the world knows.
    pub uid: u64,
    /// Whom it is for.
    pub to: usize,
    /// To cancel it with.
    pub handle: CallHandle,
    /// What [`tollfree_transport::Body::Source`] asks for.
    pub body: Vec<u8>,
    /// Bytes of body its answer must have.
    pub reply_len: usize,
    /// Every driver's policy refuses it.
    pub denied: bool,
}

/// A call received and not answered.
#[derive(Clone, Debug)]
pub struct Running {
    /// When to answer.
    pub at: u64,
    /// What to answer.
    pub call: IncomingCall,
    /// What with.
    pub reply: Vec<u8>,
}

/// One host: a transport, and the applications on it.
pub struct Host {
    /// Where it is reached.
    pub peer: Peer,
    /// `None` while it is down.
    pub transport: Option<Transport>,
    /// In front of a verified transport.
    pub driver: Driver,
    /// What its transport takes for the time.
    pub clock: Clock,
    /// Counts its starts.
    pub epoch: u32,
    /// Its applications and its engine do as they like: calls from and to it may end in any way, but once.
    pub rogue: bool,
    /// The keys of its sessions, by its index for them: what a rogue signs with.
    pub guards: BTreeMap<u32, Guard>,
    /// A rogue's last sequence per session, by the peer's index for it.
    pub(crate) sequences: HashMap<u32, u64>,
    /// Calls made that have not ended, by token.
    pub made: HashMap<u64, Made>,
    /// Calls received and not answered.
    pub running: Vec<Running>,
    /// Bodies of long replies, by token, until they are released.
    pub held: HashMap<u64, Vec<u8>>,
    /// Handlers that were told that nobody waits.
    pub cancelled: usize,
    /// The last token given out.
    pub tokens: u64,
    /// Time a handler takes, in ns.
    pub handler: Range<u64>,
    /// Time until the engine looks at what has arrived, in ns: longer than a packet's time makes it take many at once.
    pub poll: Range<u64>,
    /// Packets refused or dropped, by reason.
    pub dropped: HashMap<&'static str, u64>,
    /// Arrived and not looked at.
    pub(crate) inbox: VecDeque<(Peer, Vec<u8>)>,
    /// When it is looked after next.
    pub(crate) wake_at: u64,
}

impl Host {
    /// A host that is down.
    pub(crate) fn new(peer: Peer) -> Host {
        Host {
            peer,
            transport: None,
            driver: Driver::default(),
            clock: Clock::default(),
            epoch: 0,
            rogue: false,
            guards: BTreeMap::new(),
            sequences: HashMap::new(),
            made: HashMap::new(),
            running: Vec::new(),
            held: HashMap::new(),
            cancelled: 0,
            tokens: 0,
            handler: 0..1,
            poll: 0..1,
            dropped: HashMap::new(),
            inbox: VecDeque::new(),
            wake_at: u64::MAX,
        }
    }

    /// When it next has something to do of its own accord.
    pub(crate) fn next(&self, now: u64) -> u64 {
        let Some(transport) = &self.transport else { return u64::MAX };
        let timeout = transport.timeout().map_or(u64::MAX, |at| self.clock.reaches(at, now));
        let answer = self.running.iter().map(|running| running.at).min().unwrap_or(u64::MAX);
        timeout.min(answer).max(now)
    }
}
