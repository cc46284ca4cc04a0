//! Streams from other hosts, at their servers: the exchanges of clients wait here until there is something to answer
//! (WIRE.md §13). What arrives is taken in `arrive`; a client's end is in `exchange`.

use crate::calls::{HeldReply, Incoming};
use crate::clients::{Client, End, Kind, STREAMS_MAX, Waiting};
use crate::core::{Core, Refusal};
use crate::delay::Answered;
use crate::driver::Driver;
use crate::exchange::BROKEN;
use crate::frames::{Answer, Frame, Front, Head};
use crate::remote::{BATCH, Taken};
use crate::streams::Direction;
use crate::verdict::Ended;
use tollfree_transport::{IncomingCall, IncomingRequest, Transport};
use tollfree_wire::Code;

/// An exchange that brought so much is answered at once, in bytes: its client keeps what it carries until then.
const PROMPT: usize = 4 << 10;
/// Streams are over when their client has had no exchange here for this long, in ns.
const SILENCE_NS: u64 = 15_000_000_000;
/// A client without streams is forgotten after this long, in ns.
const FORGET_NS: u64 = 60_000_000_000;

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
        match kind {
            _ if self.reply_with(now, transport, call, Answered::by_engine(Code::Ok, batch)) => {}
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
