//! Streams from other hosts, at their servers: the exchanges of clients wait here until there is something to answer
//! (WIRE.md §13). What arrives is taken in `arrive`; a client's end is in `exchange`.

use crate::calls::{HeldReply, Incoming, REPLY_TOKEN};
use crate::core::{Core, Refusal};
use crate::driver::Driver;
use crate::exchange::BROKEN;
use crate::frames::{Answer, Frame, Front, Head};
use crate::remote::{BATCH, Taken};
use crate::slab::Slab;
use crate::streams::Direction;
use crate::verdict::Ended;
use std::collections::{HashMap, VecDeque};
use tollfree_transport::{IncomingCall, IncomingRequest, Reply, Transport};
use tollfree_wire::Code;
use tollfree_wire::frame::Address;

/// Streams that one client's daemon may have open to this host.
pub const STREAMS_MAX: usize = 4096;
/// Daemons that are remembered, of one host and of all.
const CLIENTS_OF_HOST_MAX: usize = 64;
const CLIENTS_MAX: usize = 4096;
/// Exchanges of one client that wait at most; the oldest is answered then, with nothing.
const WAITING_MAX: usize = 8;
/// An exchange that brought so much is answered at once, in bytes: its client keeps what it carries until then.
const PROMPT: usize = 4 << 10;
/// Streams are over when their client has had no exchange here for this long, in ns.
const SILENCE_NS: u64 = 15_000_000_000;
/// A client without streams is forgotten after this long, in ns.
const FORGET_NS: u64 = 60_000_000_000;
/// Streams of a client that were cancelled before they began, and are remembered.
const CANCELLED_MAX: usize = 256;
/// The longest text that goes with a status of the engine's own, in bytes.
pub const WHY_MAX: usize = 1024;

/// All clients with streams to this host.
#[derive(Debug, Default)]
pub struct Hosted {
    clients: Slab<Client>,
    /// Their keys in `clients`, by address and life.
    by_life: HashMap<(Address, u64), u64>,
    /// Streams, by client and number, and their keys in `incoming`.
    streams: HashMap<(u64, u64), u64>,
    /// Clients that there is something to do for.
    touched: Vec<u64>,
}

/// One start of another host's daemon.
#[derive(Debug)]
struct Client {
    address: Address,
    life: u64,
    streams: usize,
    /// Calls of the client that wait for an answer, oldest first.
    waiting: VecDeque<Waiting>,
    /// Streams with something to send, by their keys in `incoming`.
    ready: VecDeque<u64>,
    /// Ends of streams that are over here.
    ends: VecDeque<End>,
    /// Streams that the client has cancelled before they came.
    cancelled: VecDeque<u64>,
    /// When it was last heard of, in ns.
    heard_ns: u64,
    touched: bool,
}

/// A client's call that waits for an answer.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    call: IncomingCall,
    /// It is to be answered with what there is, if anything.
    prompt: bool,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// An exchange.
    Exchange,
    /// It has opened this stream, which has this key in `incoming`. Its answer carries frames of no other: a client that
    /// gives the stream up does not hear it.
    Opening { stream: u64, handle: u64 },
}

/// The end of a stream by this engine.
#[derive(Debug)]
struct End {
    stream: u64,
    sequence: u32,
    status: Code,
    why: String,
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

    fn touch(&mut self, link: u64) -> Option<&mut Client> {
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
    fn streams_of(&self, link: u64) -> Vec<u64> {
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
    fn speaks(&self) -> bool {
        !(self.ready.is_empty() && self.ends.is_empty())
    }

    /// The call to answer now, if any. The youngest exchange carries what there is to send: the others are there already
    /// for what comes next.
    fn next_answer(&mut self) -> Option<Waiting> {
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

impl<D: Driver> Core<D> {
    /// A control call of a peer, if it is an exchange.
    pub fn on_exchange(&mut self, now: u64, request: &IncomingRequest<'_>) -> bool {
        let &IncomingRequest { call, peer, body, .. } = request;
        let Some(read) = Front::split(body) else { return false };
        let refuse = |status, why: &str| Refusal { call, ended: Ended::Status(status, why.to_owned()) };
        let Some((front, frames)) = read else {
            self.refusals.push(refuse(Code::InvalidArgument, BROKEN));
            return true;
        };
        let life = self.exchanges.life;
        let served = &mut self.exchanges.served;
        let known = served.by_life.contains_key(&(peer.address, front.client));
        if front.server != 0 && (front.server != life || !known) {
            let why = "the server's daemon has been restarted, or has not heard of its client for long";
            self.refusals.push(refuse(Code::Unavailable, why));
            return true;
        }
        let Some(link) = served.client(now, peer.address, front.client) else {
            let why = "too many daemons of this host have had streams to the server";
            self.refusals.push(refuse(Code::ResourceExhausted, why));
            return true;
        };
        if let Some(client) = served.touch(link) {
            client.heard_ns = now;
            let (prompt, kind) = (body.len() > PROMPT, Kind::Exchange);
            client.waiting.push_back(Waiting { call, prompt, kind });
        }
        if self.take_requests(now, link, frames).is_none() {
            self.break_client(now, link, Code::Internal, BROKEN);
        }
        true
    }

    /// A call that opens a stream: whose it is.
    pub fn client_of(
        &mut self,
        now: u64,
        request: &IncomingRequest<'_>,
        head: Head,
    ) -> Result<u64, (Code, String)> {
        let peer = request.peer;
        let served = &mut self.exchanges.served;
        let Some(link) = served.client(now, peer.address, head.life) else {
            let why = format!("too many daemons of {peer} have had streams to this host");
            return Err((Code::ResourceExhausted, why));
        };
        if served.count(link) >= STREAMS_MAX {
            let why = format!("{peer} has {STREAMS_MAX} streams open to this host; end some first");
            return Err((Code::ResourceExhausted, why));
        }
        if let Some(client) = served.clients.get_mut(link) {
            client.heard_ns = now;
        }
        Ok(link)
    }

    /// A call that streams is served here: takes note of it if it has something to send.
    pub fn list_response(&mut self, handle: u64) {
        if let Some(Incoming { remote: Some(remote), .. }) = self.incoming.get_mut(handle)
            && remote.has_work()
            && !std::mem::replace(&mut remote.listed, true)
            && let Some(client) = self.exchanges.served.touch(remote.link)
        {
            client.ready.push_back(handle);
        }
    }

    /// A call of a client is over, and nobody waits for its answer: its daemon, or the way to it, is gone. True if it was
    /// about streams.
    pub fn on_exchange_cancelled(&mut self, now: u64, call: IncomingCall) -> bool {
        let waits = |client: &Client| client.waiting.iter().position(|waiting| waiting.call == call);
        let served = &mut self.exchanges.served;
        let found = served.clients.iter().find_map(|(link, client)| Some((link, waits(client)?)));
        let Some((link, place)) = found else { return false };
        let waiting = served.clients.get_mut(link).and_then(|client| client.waiting.remove(place));
        match waiting.map(|waiting| waiting.kind) {
            Some(Kind::Opening { handle, .. }) => self.tell_cancelled(now, handle, Code::Cancelled),
            Some(Kind::Exchange) => {
                self.break_client(now, link, Code::Unavailable, "the client is gone");
            }
            None => {}
        }
        true
    }

    /// Ends all streams of a client.
    fn break_client(&mut self, now: u64, link: u64, status: Code, why: &str) {
        for handle in self.exchanges.served.streams_of(link) {
            self.break_incoming(now, handle, status, why);
        }
    }

    /// Answers clients' calls as far as there is reason to.
    pub fn answer_exchanges(&mut self, now: u64, transport: &mut Transport) {
        while let Some(link) = self.exchanges.served.touched.pop() {
            if let Some(client) = self.exchanges.served.clients.get_mut(link) {
                client.touched = false;
            }
            while let Some(waiting) =
                self.exchanges.served.clients.get_mut(link).and_then(Client::next_answer)
            {
                self.answer(now, transport, link, waiting);
            }
        }
    }

    /// Answers calls that have opened streams and hold slots of their sessions; looks whether clients are still there.
    pub fn look_after_clients(&mut self, now: u64) {
        let mut silent = Vec::new();
        let mut forgotten = Vec::new();
        for (link, client) in self.exchanges.served.clients.iter() {
            let since_ns = now.saturating_sub(client.heard_ns);
            if client.waiting.iter().any(|waiting| waiting.kind != Kind::Exchange) {
                silent.push((link, false));
            } else if client.streams > 0 && client.waiting.is_empty() && since_ns > SILENCE_NS {
                silent.push((link, true));
            } else if client.streams == 0 && client.waiting.is_empty() && since_ns > FORGET_NS {
                forgotten.push(link);
            }
        }
        for (link, gone) in silent {
            if gone {
                self.break_client(now, link, Code::Unavailable, "the client is gone");
            } else if let Some(client) = self.exchanges.served.touch(link) {
                for waiting in &mut client.waiting {
                    waiting.prompt |= waiting.kind != Kind::Exchange;
                }
            }
        }
        let served = &mut self.exchanges.served;
        for link in forgotten {
            if let Some(Client { address, life, .. }) = served.clients.remove(link) {
                served.by_life.remove(&(address, life));
            }
        }
    }

    /// Answers one call of a client with what its streams have to send.
    fn answer(&mut self, now: u64, transport: &mut Transport, link: u64, waiting: Waiting) {
        let Waiting { call, kind, .. } = waiting;
        let mut batch = self.exchanges.begin();
        Answer { more: false, server: self.exchanges.life }.put(&mut batch);
        match kind {
            Kind::Opening { stream, handle } => self.gather_of(link, stream, handle, &mut batch),
            Kind::Exchange => self.gather_responses(link, &mut batch),
        }
        let client = self.exchanges.served.clients.get(link);
        if client.is_some_and(|client| client.speaks() && client.waiting.is_empty()) {
            Answer::set_more(&mut batch);
        }
        let body_len = batch.len() as u32;
        let key = self.held.insert(HeldReply::Batch(batch));
        let Some(HeldReply::Batch(batch)) = self.held.get(key) else { return };
        let mut copied = false;
        let reply = Reply {
            status: Code::Ok,
            by_engine: true,
            layout: 0,
            flat: &[],
            metadata: false,
            body_len,
            token: REPLY_TOKEN | key,
            copy_body: &mut |out| {
                out.copy_from_slice(batch);
                copied = true;
            },
        };
        let accepted = transport.respond(now, call, reply);
        if copied || !accepted {
            self.release_batch(key);
        }
        match kind {
            _ if accepted => {}
            // What was in it is lost.
            Kind::Opening { handle, .. } => self.tell_cancelled(now, handle, Code::Cancelled),
            Kind::Exchange => self.break_client(now, link, Code::Unavailable, "the client is gone"),
        }
    }

    /// An answer's memory is free again.
    pub fn release_batch(&mut self, key: u64) {
        if let Some(HeldReply::Batch(batch)) = self.held.remove(key) {
            self.exchanges.recycle(batch);
        }
    }

    /// Adds what a client's streams have to send, in turn.
    fn gather_responses(&mut self, link: u64, batch: &mut Vec<u8>) {
        while batch.len() < BATCH {
            let Some(client) = self.exchanges.served.clients.get_mut(link) else { return };
            if let Some(End { stream, sequence, status, why }) = client.ends.pop_front() {
                Frame::status(stream, sequence, status, &why).put(batch);
                continue;
            }
            let Some(handle) = client.ready.pop_front() else { return };
            let before = batch.len();
            let Some(taken) = self.write_responses(handle, batch) else { continue };
            let Some(client) = self.exchanges.served.clients.get_mut(link) else { return };
            if taken.more && batch.len() == before {
                // It wants a batch of its own.
                return client.ready.push_front(handle);
            }
            if taken.more {
                client.ready.push_back(handle);
            }
        }
    }

    /// Adds what one stream has to send, as much as fits.
    fn gather_of(&mut self, link: u64, stream: u64, handle: u64, batch: &mut Vec<u8>) {
        let Some(client) = self.exchanges.served.clients.get_mut(link) else { return };
        client.ready.retain(|other| *other != handle);
        if let Some(place) = client.ends.iter().position(|end| end.stream == stream)
            && let Some(End { stream, sequence, status, why }) = client.ends.remove(place)
        {
            return Frame::status(stream, sequence, status, &why).put(batch);
        }
        loop {
            let before = batch.len();
            match self.write_responses(handle, batch) {
                Some(Taken { more: true, .. }) if batch.len() > before => {}
                Some(Taken { more: true, .. }) => break,
                _ => return,
            }
        }
        if let Some(client) = self.exchanges.served.clients.get_mut(link) {
            client.ready.push_back(handle);
        }
    }

    fn write_responses(&mut self, handle: u64, batch: &mut Vec<u8>) -> Option<Taken> {
        let Core { incoming, apps, .. } = self;
        let Incoming { app: id, remote: Some(remote), .. } = incoming.get_mut(handle)? else { return None };
        let id = *id;
        let taken = remote.write(batch, &apps.get(id.0)?.port, |_, _| Ok(())).ok()?;
        remote.listed = taken.more;
        self.take_room(Direction::Response(handle), taken.messages);
        if taken.ended {
            self.remove_incoming(handle);
            if let Some(app) = self.apps.get_mut(id.0) {
                app.release(handle);
            }
        }
        Some(taken)
    }
}
