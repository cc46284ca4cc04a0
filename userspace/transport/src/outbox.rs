//! What is waiting to be sent, in order. Entries name state rather than hold packets: what is sent is what is true when
//! it is sent, and an entry whose state is gone is skipped.

use crate::event::Route;
use crate::sack::AckHead;
use std::collections::VecDeque;
use tollfree_wire::frame::Peer;
use tollfree_wire::header::Header;

/// Answers that no state bounds, to packets of no session or of no call, that may wait at once. More are dropped, as
/// the network would.
const STATELESS_MAX: usize = 256;

/// One entry.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ready {
    /// Fragments or an ack of an outgoing call, by its key.
    Call(u64),
    /// A reply's fragments or an ack of a received call: session index and slot.
    Slot(u32, u8),
    /// A response has arrived whole: session index, call, and what its ack says.
    Finished(u32, u64, AckHead),
    /// A hello for the session being opened with this index.
    Hello(u32),
    /// The welcome of this session.
    Welcome(u32),
    /// A challenge to a hello.
    Challenge { to: Peer, session: u32, epoch: u32, nonce: [u8; 16] },
    /// The word that there is no session, as the versions differ.
    Incompatible { to: Peer, session: u32, nonce: [u8; 16] },
    /// The wish for another session instead of this one.
    Renew(u32),
    /// A header-only packet, sealed.
    Packet(Route, Header),
    /// A probe of how long packets may be, or the answer to one.
    Path { session: u32, size: u32, answer: bool },
    /// Like [`Ready::Packet`], answering a packet of no session.
    Reset(Peer, Header),
}

impl Ready {
    fn is_stateless(&self) -> bool {
        matches!(
            self,
            Ready::Challenge { .. }
                | Ready::Incompatible { .. }
                | Ready::Reset(..)
                | Ready::Finished(..)
                | Ready::Path { .. }
        )
    }
}

/// What is waiting to be sent.
#[derive(Debug, Default)]
pub(crate) struct Outbox {
    queue: VecDeque<Ready>,
    stateless: usize,
}

impl Outbox {
    pub fn push(&mut self, ready: Ready) {
        self.queue.push_back(ready);
    }

    /// Adds an answer that no state bounds. False when too many wait already.
    pub fn push_stateless(&mut self, ready: Ready) -> bool {
        debug_assert!(ready.is_stateless());
        if self.stateless >= STATELESS_MAX {
            return false;
        }
        self.stateless += 1;
        self.queue.push_back(ready);
        true
    }

    pub fn front(&self) -> Option<Ready> {
        self.queue.front().copied()
    }

    pub fn pop(&mut self) {
        if self.queue.pop_front().is_some_and(|ready| ready.is_stateless()) {
            self.stateless -= 1;
        }
    }
}
