//! Calls and answers that a policy holds for a while, and calls that wait for a service's room: in bounded number and size.

use crate::apps::AppId;
use std::collections::BTreeMap;
use tollfree_ring::{Flags, VerdictAt};
use tollfree_transport::IncomingCall;
use tollfree_wire::Code;

/// Most calls that are held at once.
const HELD_MAX: usize = 4096;
/// Most bytes of theirs that are held.
const BYTES_MAX: usize = 32 << 20;

/// A call that waits, on its way there or back.
#[derive(Debug)]
pub enum Held {
    /// It has come from another host.
    Arrived(Box<Arrived>),
    /// An application here makes it: its key in `outgoing`, and the flat block as judged. It has not left.
    Leaving { token: u64, flat: Vec<u8> },
    /// The same, and it is for an application here, whose policy has let it through. That may have no room for it.
    Local { token: u64, flat: Vec<u8>, judged: Option<u64>, awaits: Option<AppId> },
    /// A service here has answered it; it goes back to another host.
    Reply { call: IncomingCall, answer: Box<Answered> },
    /// It is answered; an application here has made it: its key in `outgoing`.
    Response { token: u64, answer: Box<Answered> },
}

/// An answer whose body the engine has: a service's that waits, as judged, whose room is free, or one of its own.
#[derive(Debug)]
pub struct Answered {
    pub status: Code,
    pub at: VerdictAt,
    pub flags: Flags,
    pub layout: u32,
    pub flat: Vec<u8>,
    pub body: Vec<u8>,
}

impl Answered {
    /// An answer of the engine's own.
    pub fn by_engine(status: Code, body: Vec<u8>) -> Answered {
        let (at, flags) = (VerdictAt::Engine, Flags::default());
        Answered { status, at, flags, layout: 0, flat: Vec::new(), body }
    }
}

/// A request from another host that waits.
#[derive(Debug)]
pub struct Arrived {
    pub call: IncomingCall,
    pub method: u32,
    pub layout: u32,
    pub deadline_ns: u64,
    pub capped: bool,
    pub flat: Vec<u8>,
    pub flags: Flags,
    pub stream: Option<(u64, u64)>,
    pub body: Vec<u8>,
    pub judged: Option<u64>,
}

impl Held {
    fn bytes(&self) -> usize {
        match self {
            Held::Arrived(arrived) => arrived.flat.len() + arrived.body.len(),
            Held::Leaving { flat, .. } | Held::Local { flat, .. } => flat.len(),
            Held::Reply { answer, .. } | Held::Response { answer, .. } => {
                answer.flat.len() + answer.body.len()
            }
        }
    }
}

/// The calls that wait, by when they go on.
#[derive(Debug, Default)]
pub struct Delayed {
    queue: BTreeMap<(u64, u64), Held>,
    bytes: usize,
    next: u64,
}

impl Delayed {
    /// Whether there is room for a call of so many bytes.
    pub fn has_room(&self, bytes: usize) -> bool {
        self.queue.len() < HELD_MAX && self.bytes.saturating_add(bytes) <= BYTES_MAX
    }

    /// Holds a call until `due`.
    pub fn hold(&mut self, due: u64, held: Held) {
        self.bytes += held.bytes();
        self.next += 1;
        self.queue.insert((due, self.next), held);
    }

    /// When the next one goes on.
    pub fn due(&self) -> Option<u64> {
        self.queue.first_key_value().map(|((due, _), _)| *due)
    }

    /// Takes one out that goes on now.
    pub fn pop(&mut self, now: u64) -> Option<Held> {
        let entry = self.queue.first_entry().filter(|entry| entry.key().0 <= now)?;
        let held = entry.remove();
        self.bytes -= held.bytes();
        Some(held)
    }

    /// Takes out a call of another host, or its answer, that nobody waits for any more; returns the call.
    pub fn withdraw(&mut self, call: IncomingCall) -> Option<Box<Arrived>> {
        let held = self.take(|held| match held {
            Held::Arrived(arrived) => arrived.call == call,
            Held::Reply { call: other, .. } => *other == call,
            _ => false,
        });
        match held? {
            Held::Arrived(arrived) => Some(arrived),
            _ => None,
        }
    }

    /// Takes out the answer to a call made here that nobody waits for any more.
    pub fn withdraw_response(&mut self, outgoing: u64) {
        self.take(|held| matches!(held, Held::Response { token, .. } if *token == outgoing));
    }

    fn take(&mut self, is_it: impl Fn(&Held) -> bool) -> Option<Held> {
        let key = *self.queue.iter().find(|(_, held)| is_it(held))?.0;
        let held = self.queue.remove(&key)?;
        self.bytes -= held.bytes();
        Some(held)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_go_on_in_the_order_of_their_times_and_room_is_bounded() {
        let mut delayed = Delayed::default();
        let leaving = |token| Held::Leaving { token, flat: vec![0; 100] };
        for (due, token) in [(30, 1), (10, 2), (10, 3)] {
            assert!(delayed.has_room(100));
            delayed.hold(due, leaving(token));
        }
        assert_eq!(delayed.due(), Some(10));
        let mut order = Vec::new();
        for now in [9, 10, 10, 10, 30] {
            if let Some(Held::Leaving { token, .. }) = delayed.pop(now) {
                order.push((now, token));
            }
        }
        assert_eq!(order, [(10, 2), (10, 3), (30, 1)]);
        assert_eq!((delayed.len(), delayed.bytes), (0, 0));
        for token in 0..HELD_MAX as u64 {
            delayed.hold(1, leaving(token));
        }
        assert!(!delayed.has_room(0));
        assert!(!Delayed::default().has_room(BYTES_MAX + 1));
    }
}
