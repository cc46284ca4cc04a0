//! Streams to other hosts, at their clients: exchanges (WIRE.md §13), calls that carry frames of all streams to one peer and
//! whose answers carry that peer's. What arrives is taken in `arrive`; a server's end is in `hosting`.

use crate::calls::{Origin, Outgoing, Progress};
use crate::clients::Hosted;
use crate::core::Core;
use crate::driver::Driver;
use crate::frames::{Answer, Frame, FrameKind, Front};
use crate::remote::{BATCH, Taken};
use crate::slab::Slab;
use crate::streams::Direction;
use std::collections::{HashMap, VecDeque};
use tollfree_ring::{Flags, VerdictAt};
use tollfree_transport::{NewCall, Transport};
use tollfree_wire::Code;
use tollfree_wire::frame::Peer;
use tollfree_wire::header::METHOD_CONTROL;

/// Exchanges with one peer that are under way at most; what more there is to send gathers for the next.
const EXCHANGES_MAX: usize = 16;
/// Exchanges that a client keeps at its peer at most, for that to have something to answer.
const LISTENING_MAX: usize = 8;
/// Bytes of frames that overtook others, of all streams, at most.
const KEPT_MAX: usize = 64 << 20;
/// Batches kept for later use.
const SPARE_MAX: usize = 64;
/// Memory of a batch that is kept for later use, in bytes.
const SPARE_BYTES: usize = 4 * BATCH;

/// What breaks a stream to a peer that does not keep to the protocol.
pub const BROKEN: &str = "the peer's stream breaks the protocol";

/// All streams between this host and others.
#[derive(Debug)]
pub struct Exchanges {
    /// This start of the daemon, as peers know it.
    pub life: u64,
    /// As a client, by peer. They stay: there are as many as peers this host calls.
    pub made: Vec<Link>,
    by_peer: HashMap<Peer, u64>,
    /// Links that have something to do.
    touched: Vec<u64>,
    /// What exchanges under way carry.
    batches: Slab<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    /// Bytes of frames that overtook others, of all streams.
    pub kept: usize,
    /// As a server.
    pub served: Hosted,
}

/// The way to one peer.
#[derive(Debug)]
pub struct Link {
    peer: Peer,
    /// The peer's daemon, once known.
    server: u64,
    /// Exchanges under way.
    under_way: usize,
    /// How many the peer is to have, so that it can send as much as it has.
    wanted: usize,
    /// Streams that the peer has taken.
    streams: usize,
    /// Those with something to send, by their keys in `outgoing`.
    ready: VecDeque<u64>,
    /// Streams that the peer is to forget, by their numbers.
    cancelled: Vec<u64>,
    touched: bool,
}

impl Exchanges {
    /// None, in the life of a daemon with this number.
    pub fn new(life: u64) -> Exchanges {
        Exchanges {
            life,
            made: Vec::new(),
            by_peer: HashMap::new(),
            touched: Vec::new(),
            batches: Slab::default(),
            spare: Vec::new(),
            kept: 0,
            served: Hosted::default(),
        }
    }

    /// The way to a peer.
    pub fn link_to(&mut self, peer: Peer) -> u64 {
        *self.by_peer.entry(peer).or_insert_with(|| {
            self.made.push(Link {
                peer,
                server: 0,
                under_way: 0,
                wanted: 2,
                streams: 0,
                ready: VecDeque::new(),
                cancelled: Vec::new(),
                touched: false,
            });
            self.made.len() as u64 - 1
        })
    }

    /// Whether no stream is under way.
    #[cfg(test)]
    pub fn is_idle(&self) -> bool {
        self.batches.len() + self.kept == 0
            && self.served.is_idle()
            && self.made.iter().all(|link| link.streams == 0)
    }

    fn touch(&mut self, link: u64) -> Option<&mut Link> {
        let found = self.made.get_mut(link as usize)?;
        if !std::mem::replace(&mut found.touched, true) {
            self.touched.push(link);
        }
        Some(found)
    }

    /// A part of what an exchange carries.
    pub fn batch(&self, key: u64) -> &[u8] {
        self.batches.get(key).map(Vec::as_slice).unwrap_or_default()
    }

    /// An empty batch.
    pub fn begin(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Keeps a batch's memory for later.
    pub fn recycle(&mut self, mut batch: Vec<u8>) {
        if self.spare.len() < SPARE_MAX && batch.capacity() <= SPARE_BYTES {
            batch.clear();
            self.spare.push(batch);
        }
    }

    /// A frame that overtook others is kept.
    ///
    /// # Errors
    /// Too much is.
    pub fn keep(&mut self, len: usize) -> Result<(), (Code, String)> {
        self.kept += len;
        match self.kept <= KEPT_MAX {
            true => Ok(()),
            false => {
                let why = "this host keeps too much of streams whose messages overtake each other";
                Err((Code::ResourceExhausted, why.to_owned()))
            }
        }
    }

    /// A peer is to forget a stream, or never to begin it.
    pub fn cancel(&mut self, link: u64, stream: u64) {
        if let Some(link) = self.touch(link) {
            link.cancelled.push(stream);
        }
    }

    /// A stream that a peer had taken is over.
    pub fn closed(&mut self, link: u64) {
        if let Some(link) = self.touch(link) {
            link.streams = link.streams.saturating_sub(1);
        }
    }
}

impl<D: Driver> Core<D> {
    /// A call that streams was made here: takes note of it if it has something to send.
    pub fn list_request(&mut self, token: u64) {
        if let Some(Outgoing { progress: Progress::Open, remote: Some(remote), .. }) =
            self.outgoing.get_mut(token)
            && remote.has_work()
            && !std::mem::replace(&mut remote.listed, true)
            && let Some(link) = self.exchanges.touch(remote.link)
        {
            link.ready.push_back(token);
        }
    }

    /// The peer has taken a stream.
    pub fn on_opened(&mut self, now: u64, token: u64, answer: Answer, frames: &[u8]) {
        let Some(Outgoing { progress, remote: Some(remote), .. }) = self.outgoing.get_mut(token) else {
            return;
        };
        *progress = Progress::Open;
        let link = remote.link;
        let Some(way) = self.exchanges.touch(link) else { return };
        let before = std::mem::replace(&mut way.server, answer.server);
        if before != 0 && before != answer.server {
            self.break_link(link, Code::Unavailable, "the peer's daemon has been restarted");
        }
        if let Some(way) = self.exchanges.touch(link) {
            way.streams += 1;
        }
        self.list_request(token);
        self.on_answer(now, link, answer, frames);
    }

    /// An exchange has been answered.
    pub fn on_exchanged(&mut self, now: u64, link: u64, batch: u64, status: Code, body: &[u8]) {
        if let Some(batch) = self.exchanges.batches.remove(batch) {
            self.exchanges.recycle(batch);
        }
        if let Some(way) = self.exchanges.touch(link) {
            way.under_way -= 1;
        }
        match (status, Answer::split(body)) {
            (Code::Ok, Some((answer, frames))) => self.on_answer(now, link, answer, frames),
            (Code::Ok, None) => self.break_link(link, Code::Internal, BROKEN),
            (status, _) => self.break_link(link, status, &String::from_utf8_lossy(body)),
        }
    }

    fn on_answer(&mut self, now: u64, link: u64, answer: Answer, frames: &[u8]) {
        if let Some(way) = self.exchanges.touch(link)
            && answer.more
        {
            way.wanted = (way.wanted * 2).min(LISTENING_MAX);
        }
        if self.take_responses(now, link, frames).is_none() {
            self.break_link(link, Code::Internal, BROKEN);
        }
    }

    /// Ends all streams to a peer that cannot go on.
    fn break_link(&mut self, link: u64, status: Code, why: &str) {
        let over = |call: &Outgoing| {
            matches!(call.progress, Progress::Open)
                && call.remote.as_ref().is_some_and(|remote| remote.link == link)
        };
        for token in self.outgoing.keys_where(over) {
            self.broken.push((token, status, why.to_owned()));
        }
        // Whatever comes next begins anew.
        if let Some(way) = self.exchanges.touch(link) {
            way.server = 0;
        }
    }

    /// Makes the exchanges that are needed.
    pub fn exchange(&mut self, now: u64, transport: &mut Transport) {
        while let Some(link) = self.exchanges.touched.pop() {
            while self.wants_exchange(link) {
                self.make_exchange(now, transport, link);
            }
        }
    }

    fn wants_exchange(&mut self, link: u64) -> bool {
        let Some(way) = self.exchanges.made.get_mut(link as usize) else { return false };
        way.touched = false;
        let speaks = !(way.ready.is_empty() && way.cancelled.is_empty());
        let listens = way.streams > 0 && way.under_way < way.wanted.div_ceil(2);
        listens || (speaks && way.under_way < EXCHANGES_MAX)
    }

    fn make_exchange(&mut self, now: u64, transport: &mut Transport, link: u64) {
        let mut batch = self.exchanges.begin();
        let Some(way) = self.exchanges.made.get_mut(link as usize) else { return };
        let peer = way.peer;
        Front { client: self.exchanges.life, server: way.server }.put(&mut batch);
        while batch.len() < BATCH
            && let Some(stream) = way.cancelled.pop()
        {
            Frame::new(FrameKind::Cancel, stream).put(&mut batch);
        }
        way.under_way += 1;
        self.gather_requests(link, &mut batch);
        let body_len = batch.len() as u32;
        let batch = self.exchanges.batches.insert(batch);
        let carrier = self.outgoing.insert(Outgoing {
            origin: Origin::Exchange { link, batch },
            method: METHOD_CONTROL,
            flags: Flags::default(),
            deadline_ns: u64::MAX,
            binding: None,
            progress: Progress::Binding,
            judged: None,
            requests: None,
            remote: None,
            metadata: None,
        });
        let (method, deadline_ns, token) = (METHOD_CONTROL, u64::MAX, carrier);
        let call = NewCall { method, layout: 0, flat: &[], metadata: false, body_len, deadline_ns, token };
        let handle = transport.call(now, peer, call);
        if let Some(call) = self.outgoing.get_mut(carrier) {
            call.progress = Progress::Sent(handle);
        }
    }

    /// Adds what streams to a peer have to send, in turn.
    fn gather_requests(&mut self, link: u64, batch: &mut Vec<u8>) {
        while batch.len() < BATCH {
            let Some(way) = self.exchanges.made.get_mut(link as usize) else { return };
            let Some(token) = way.ready.pop_front() else { return };
            let before = batch.len();
            match self.write_requests(token, batch) {
                Ok(Taken { more: true, .. }) => {
                    let Some(way) = self.exchanges.made.get_mut(link as usize) else { return };
                    if batch.len() == before {
                        // It wants a batch of its own.
                        return way.ready.push_front(token);
                    }
                    way.ready.push_back(token);
                }
                Ok(_) => {}
                Err((status, why)) => self.broken.push((token, status, why)),
            }
        }
    }

    fn write_requests(&mut self, token: u64, batch: &mut Vec<u8>) -> Result<Taken, (Code, String)> {
        let Core { outgoing, apps, .. } = self;
        let Some(Outgoing { origin: Origin::App { app, .. }, method, remote: Some(remote), .. }) =
            outgoing.get_mut(token)
        else {
            return Ok(Taken::default());
        };
        let Some(app) = apps.get(app.0) else { return Ok(Taken::default()) };
        let known = app.methods.get(method);
        let check = |layout, flat: &[u8]| known.map_or(Ok(()), |known| known.check_request(layout, flat));
        let taken = remote.write(batch, &app.port, check)?;
        remote.listed = taken.more;
        self.take_room(Direction::Request(token), taken.messages);
        Ok(taken)
    }

    /// Ends the streams that broke while nothing could be told to the transport.
    pub fn end_broken(&mut self, now: u64, transport: &mut Transport) {
        while let Some((token, status, why)) = self.broken.pop() {
            self.break_call(now, transport, token, status, &why);
        }
    }

    /// Withdraws the calls that have opened streams which are over.
    pub fn cancel_abandoned(&mut self, now: u64, transport: &mut Transport) {
        while let Some(call) = self.abandoned.pop() {
            transport.cancel(now, call);
        }
    }

    /// Where a status of a stream was decided, as its caller sees it.
    pub fn decided(by_engine: bool, status: Code) -> VerdictAt {
        match (by_engine, status) {
            (true, _) => VerdictAt::Engine,
            (false, Code::Ok) => VerdictAt::None,
            (false, _) => VerdictAt::Application,
        }
    }
}
