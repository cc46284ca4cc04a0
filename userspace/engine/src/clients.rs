//! The clients of streams from other hosts: what of theirs waits for an answer, and what there is to answer with.

use crate::slab::Slab;
use std::collections::{HashMap, VecDeque};
use tollfree_transport::IncomingCall;
use tollfree_wire::Code;
use tollfree_wire::frame::Address;

/// Streams that one client's daemon may have open to this host.
pub const STREAMS_MAX: usize = 4096;
/// Daemons that are remembered, of one host and of all.
const CLIENTS_OF_HOST_MAX: usize = 64;
const CLIENTS_MAX: usize = 4096;
/// Exchanges of one client that wait at most; the oldest is answered then, with nothing.
const WAITING_MAX: usize = 8;
/// Streams of a client that were cancelled before they began, and are remembered.
const CANCELLED_MAX: usize = 256;
/// The longest text that goes with a status of the engine's own, in bytes.
pub const WHY_MAX: usize = 1024;

/// All clients with streams to this host.
#[derive(Debug, Default)]
pub struct Hosted {
    pub clients: Slab<Client>,
    /// Their keys in `clients`, by address and life.
    pub by_life: HashMap<(Address, u64), u64>,
    /// Streams, by client and number, and their keys in `incoming`.
    streams: HashMap<(u64, u64), u64>,
    /// Clients that there is something to do for.
    pub touched: Vec<u64>,
}

/// One start of another host's daemon.
#[derive(Debug)]
pub struct Client {
    pub address: Address,
    pub life: u64,
    pub streams: usize,
    /// Calls of the client that wait for an answer, oldest first.
    pub waiting: VecDeque<Waiting>,
    /// Streams with something to send, by their keys in `incoming`.
    pub ready: VecDeque<u64>,
    /// Ends of streams that are over here.
    pub ends: VecDeque<End>,
    /// Streams that the client has cancelled before they came.
    pub cancelled: VecDeque<u64>,
    /// When it was last heard of, in ns.
    pub heard_ns: u64,
    pub touched: bool,
}

/// A client's call that waits for an answer.
#[derive(Clone, Copy, Debug)]
pub struct Waiting {
    pub call: IncomingCall,
    /// It is to be answered with what there is, if anything.
    pub prompt: bool,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An exchange.
    Exchange,
    /// It has opened this stream, which has this key in `incoming`. Its answer carries frames of no other: a client that
    /// gives the stream up does not hear it.
    Opening { stream: u64, handle: u64 },
}

/// The end of a stream by this engine.
#[derive(Debug)]
pub struct End {
    pub stream: u64,
    pub sequence: u32,
    pub status: Code,
    pub why: String,
}

impl Hosted {
    /// The client that says it is this start of the daemon at `address`. `None`: there are too many.
    pub fn client(&mut self, now: u64, address: Address, life: u64) -> Option<u64> {
        if let Some(&link) = self.by_life.get(&(address, life)) {
            return Some(link);
        }
        let others = self.clients.iter().filter(|(_, client)| client.address == address).count();
        if others >= CLIENTS_OF_HOST_MAX || self.clients.len() >= CLIENTS_MAX {
            return None;
        }
        let link = self.clients.insert(Client {
            address,
            life,
            streams: 0,
            waiting: VecDeque::new(),
            ready: VecDeque::new(),
            ends: VecDeque::new(),
            cancelled: VecDeque::new(),
            heard_ns: now,
            touched: false,
        });
        self.by_life.insert((address, life), link);
        Some(link)
    }

    /// Whether no stream is under way.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        let idle = |client: &Client| client.streams == 0 && client.waiting.is_empty();
        self.streams.is_empty() && self.clients.iter().all(|(_, client)| idle(client))
    }

    pub fn touch(&mut self, link: u64) -> Option<&mut Client> {
        let client = self.clients.get_mut(link)?;
        if !std::mem::replace(&mut client.touched, true) {
            self.touched.push(link);
        }
        Some(client)
    }

    /// The key, in `incoming`, of a client's stream.
    pub fn stream(&self, link: u64, stream: u64) -> Option<u64> {
        self.streams.get(&(link, stream)).copied()
    }

    /// A client's streams by their keys in `incoming`, in the order of their numbers. Allocates.
    pub fn streams_of(&self, link: u64) -> Vec<u64> {
        let mut found: Vec<_> = self.streams.iter().filter(|((of, _), _)| *of == link).collect();
        found.sort_unstable();
        found.into_iter().map(|(_, handle)| *handle).collect()
    }

    /// Streams that a client has open.
    pub fn count(&self, link: u64) -> usize {
        self.clients.get(link).map_or(0, |client| client.streams)
    }

    /// Takes note of a stream and of the call that has opened it, which is answered at once where the client has more
    /// to send and has to know that it may. Returns the stream that had its number.
    pub fn open(
        &mut self,
        link: u64,
        stream: u64,
        handle: u64,
        call: IncomingCall,
        complete: bool,
    ) -> Option<u64> {
        let client = self.touch(link)?;
        client.streams += 1;
        let kind = Kind::Opening { stream, handle };
        client.waiting.push_back(Waiting { call, prompt: !complete, kind });
        self.streams.insert((link, stream), handle)
    }

    /// A stream is over here.
    pub fn close(&mut self, link: u64, stream: u64, handle: u64) {
        if self.streams.get(&(link, stream)) == Some(&handle) {
            self.streams.remove(&(link, stream));
        }
        if let Some(client) = self.touch(link) {
            client.streams = client.streams.saturating_sub(1);
        }
    }

    /// The client is to hear that a stream is over.
    pub fn end(&mut self, link: u64, stream: u64, sequence: u32, status: Code, why: &str) {
        if let Some(client) = self.touch(link) {
            let mut end = why.len().min(WHY_MAX);
            while !why.is_char_boundary(end) {
                end -= 1;
            }
            if client.ends.len() == STREAMS_MAX {
                // A client that never asks does not want to know.
                client.ends.pop_front();
            }
            client.ends.push_back(End { stream, sequence, status, why: why[..end].to_owned() });
        }
    }

    /// A client does not want a stream that has not begun.
    pub fn forbid(&mut self, link: u64, stream: u64) {
        if let Some(client) = self.clients.get_mut(link) {
            if client.cancelled.len() == CANCELLED_MAX {
                client.cancelled.pop_front();
            }
            client.cancelled.push_back(stream);
        }
    }

    /// Whether a client has cancelled a stream before it began.
    pub fn is_forbidden(&self, link: u64, stream: u64) -> bool {
        self.clients.get(link).is_some_and(|client| client.cancelled.contains(&stream))
    }
}

impl Client {
    /// Whether there is anything to answer with.
    pub fn speaks(&self) -> bool {
        !(self.ready.is_empty() && self.ends.is_empty())
    }

    /// The call to answer now, if any. The youngest exchange carries what there is to send: the others are there already
    /// for what comes next.
    pub fn next_answer(&mut self) -> Option<Waiting> {
        let Client { waiting, ready, ends, .. } = self;
        let due = waiting.iter().position(|waiting| match waiting.kind {
            Kind::Opening { stream, handle } => {
                waiting.prompt || ready.contains(&handle) || ends.iter().any(|end| end.stream == stream)
            }
            Kind::Exchange => waiting.prompt,
        });
        if let Some(place) = due {
            return waiting.remove(place);
        }
        if self.speaks()
            && let Some(place) = self.waiting.iter().rposition(|waiting| waiting.kind == Kind::Exchange)
        {
            return self.waiting.remove(place);
        }
        if self.streams == 0 || self.waiting.len() > WAITING_MAX { self.waiting.pop_front() } else { None }
    }
}
