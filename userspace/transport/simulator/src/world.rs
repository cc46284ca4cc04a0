//! The world: its hosts, its network, and what must hold in it at any moment.

use crate::Random;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use std::ops::Range;
use tollfree_transport::{
    Blocked, Body, CallHandle, Config, Event, IncomingCall, NewCall, Reply, Transmit, Transport, Verdict,
};
use tollfree_wire::frame::{Address, Peer};
use tollfree_wire::header::{HEADER_LEN, Kind};
use tollfree_wire::{Code, Packet};
use zerocopy::IntoBytes;

/// A millisecond, in ns.
pub const MS: u64 = 1_000_000;

/// How bad the network is; fractions of packets.
#[derive(Clone, Debug)]
pub struct Network {
    /// Never arrives.
    pub lost: f64,
    /// Arrives twice.
    pub repeated: f64,
    /// Arrives altered in its header or flat block, or cut off there.
    pub corrupted: f64,
    /// How long a packet is under way, in ns.
    pub delay: Range<u64>,
    /// Fraction of transmissions that find the ring full.
    pub blocked: f64,
}

impl Default for Network {
    fn default() -> Network {
        Network { lost: 0.0, repeated: 0.0, corrupted: 0.0, delay: 50_000..60_000, blocked: 0.0 }
    }
}

/// A call as its maker knows it.
#[derive(Clone, Debug)]
pub struct Made {
    /// Its name in the world, which nothing but the world knows.
    pub uid: u64,
    /// To cancel it with.
    pub handle: CallHandle,
    /// What [`Body::Source`] asks for.
    pub body: Vec<u8>,
    /// Bytes of body its answer must have.
    pub reply_len: usize,
}

/// How a call ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// When.
    pub at: u64,
    /// With what.
    pub status: Code,
    /// Who says so.
    pub verdict: Verdict,
}

/// One host: a transport, and the applications on it.
pub struct Host {
    /// Where it is reached.
    pub peer: Peer,
    /// `None` while it is down.
    pub transport: Option<Transport>,
    /// Counts its starts.
    pub epoch: u32,
    /// Calls made that have not ended, by token.
    pub made: HashMap<u64, Made>,
    /// Calls received and not answered: when to, and with what.
    pub running: Vec<(u64, IncomingCall, Vec<u8>)>,
    /// Bodies of long replies, by token, until they are released.
    pub held: HashMap<u64, Vec<u8>>,
    /// Handlers that were told that nobody waits.
    pub cancelled: usize,
    /// The last token given out.
    pub tokens: u64,
    /// Time a handler takes, in ns.
    pub handler: Range<u64>,
    /// Packets refused or dropped, by reason.
    pub dropped: HashMap<&'static str, u64>,
}

/// The world.
pub struct World {
    /// The time, in ns.
    pub now: u64,
    /// Where everything that is not said comes from.
    pub random: Random,
    /// How packets travel.
    pub network: Network,
    /// What hosts are started with, but for their secrets and epochs.
    pub config: Config,
    /// By number.
    pub hosts: Vec<Host>,
    /// How calls have ended, by uid.
    pub ended: HashMap<u64, Ended>,
    /// Calls that a handler has seen, by uid.
    pub ran: HashSet<u64>,
    /// Calls made so far.
    pub uids: u64,
    /// Decides about each packet before the network does: false loses it.
    pub filter: Filter,
    /// Packets sent, by kind.
    pub sent: HashMap<Kind, u64>,
    wire: BinaryHeap<Reverse<(u64, u64, usize, usize)>>,
    packets: HashMap<u64, Vec<u8>>,
    numbers: u64,
}

/// Decides about a packet that a host sends.
pub type Filter = Box<dyn FnMut(usize, &Packet<'_>) -> bool>;

/// The bytes a message with this id has.
pub fn pattern(uid: u64, length: usize) -> Vec<u8> {
    let mut random = Random(uid);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&random.number().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

fn flat(uid: u64, reply_len: usize) -> Vec<u8> {
    let mut flat = vec![0; 17 + (uid % 100) as usize];
    flat[..8].copy_from_slice(&uid.to_le_bytes());
    flat[8..16].copy_from_slice(&(reply_len as u64).to_le_bytes());
    flat
}

impl World {
    /// A world whose hosts are up.
    pub fn new(seed: u64, hosts: usize, network: Network, config: Config) -> World {
        let mut world = World {
            now: 1_000 * MS,
            random: Random(seed),
            network,
            config,
            hosts: Vec::new(),
            ended: HashMap::new(),
            ran: HashSet::new(),
            uids: 0,
            filter: Box::new(|_, _| true),
            sent: HashMap::new(),
            wire: BinaryHeap::new(),
            packets: HashMap::new(),
            numbers: 0,
        };
        for number in 0..hosts {
            world.hosts.push(Host {
                peer: Peer { address: Address::v4(number as u32 + 1), port: 7400 },
                transport: None,
                epoch: 0,
                made: HashMap::new(),
                running: Vec::new(),
                held: HashMap::new(),
                cancelled: 0,
                tokens: 0,
                handler: 0..1,
                dropped: HashMap::new(),
            });
            world.start(number);
        }
        world
    }

    /// A host comes up and knows nothing of its previous life.
    pub fn start(&mut self, host: usize) {
        let mut secret = [0; 32];
        secret.fill_with(|| self.random.number() as u8);
        let host = &mut self.hosts[host];
        host.epoch += 1;
        host.transport = Some(Transport::new(Config { secret, epoch: host.epoch, ..self.config.clone() }));
    }

    /// The process is gone, with everything it knew.
    pub fn crash(&mut self, host: usize) {
        let host = &mut self.hosts[host];
        host.transport = None;
        host.made.clear();
        host.running.clear();
        host.held.clear();
    }

    /// The transport of a host that is up.
    pub fn transport(&mut self, host: usize) -> &mut Transport {
        self.hosts[host].transport.as_mut().expect("the host is up")
    }

    /// Makes a call; returns its uid.
    pub fn call(
        &mut self,
        from: usize,
        to: usize,
        body_len: usize,
        reply_len: usize,
        deadline_ns: u64,
    ) -> u64 {
        self.uids += 1;
        let uid = self.uids;
        let (now, peer) = (self.now, self.hosts[to].peer);
        let host = &mut self.hosts[from];
        host.tokens += 1;
        let token = host.tokens;
        let body = pattern(uid, body_len);
        let flat = flat(uid, reply_len);
        let call = NewCall {
            method: 7,
            layout: uid as u32,
            flat: &flat,
            body_len: body_len as u32,
            deadline_ns,
            token,
        };
        let handle = host.transport.as_mut().expect("the host is up").call(now, peer, call);
        host.made.insert(token, Made { uid, handle, body, reply_len });
        uid
    }

    /// Gives a call up, if it has not ended.
    pub fn cancel(&mut self, from: usize, uid: u64) {
        let now = self.now;
        let host = &mut self.hosts[from];
        let token = host.made.iter().find(|(_, made)| made.uid == uid).map(|(token, _)| *token);
        if let Some(made) = token.and_then(|token| host.made.remove(&token)) {
            host.transport.as_mut().expect("the host is up").cancel(now, made.handle);
        }
    }

    /// Lets everything happen up to a time.
    pub fn run_until(&mut self, end: u64) {
        self.turn();
        while let Some(next) = self.next().filter(|next| *next <= end) {
            self.now = self.now.max(next);
            self.turn();
        }
        self.now = end;
    }

    /// Lets everything happen for a while.
    pub fn run_for(&mut self, ns: u64) {
        self.run_until(self.now + ns);
    }

    fn next(&self) -> Option<u64> {
        let wire = self.wire.peek().map(|Reverse((at, ..))| *at);
        let hosts = self.hosts.iter().filter(|host| host.transport.is_some()).flat_map(|host| {
            let timeout = host.transport.as_ref().and_then(Transport::timeout);
            host.running.iter().map(|(at, ..)| *at).chain(timeout)
        });
        hosts.chain(wire).min()
    }

    fn turn(&mut self) {
        let now = self.now;
        while let Some(Reverse((at, number, from, to))) = self.wire.peek().copied() {
            if at > now {
                break;
            }
            self.wire.pop();
            let bytes = self.packets.remove(&number).expect("a packet under way has bytes");
            self.deliver(from, to, &bytes);
        }
        for host in 0..self.hosts.len() {
            self.handlers(host);
            self.timeouts(host);
            self.transmit(host);
        }
    }

    /// A packet arrives now, whether the network carried it or not.
    pub fn deliver(&mut self, from: usize, to: usize, bytes: &[u8]) {
        let (now, from) = (self.now, self.hosts[from].peer);
        let Some(mut transport) = self.hosts[to].transport.take() else { return };
        if let Err(reason) = transport.receive(now, from, bytes, &mut |event| self.on_event(to, event)) {
            *self.hosts[to].dropped.entry(reason.name()).or_default() += 1;
        }
        self.hosts[to].transport = Some(transport);
    }

    fn timeouts(&mut self, host: usize) {
        let now = self.now;
        let Some(mut transport) = self.hosts[host].transport.take() else { return };
        if transport.timeout().is_some_and(|at| at <= now) {
            transport.handle_timeouts(now, &mut |event| self.on_event(host, event));
        }
        self.hosts[host].transport = Some(transport);
    }

    fn handlers(&mut self, host: usize) {
        let now = self.now;
        let host = &mut self.hosts[host];
        let Some(transport) = &mut host.transport else { return };
        let (due, later) = std::mem::take(&mut host.running).into_iter().partition(|(at, ..)| *at <= now);
        host.running = later;
        let due: Vec<(u64, IncomingCall, Vec<u8>)> = due;
        for (_, call, body) in due {
            host.tokens += 1;
            let token = host.tokens;
            let mut copied = body.is_empty();
            let accepted = transport.respond(
                now,
                call,
                Reply {
                    status: Code::Ok,
                    by_engine: false,
                    layout: 9,
                    flat: &body[..body.len().min(5)],
                    body_len: body.len() as u32,
                    token,
                    copy_body: &mut |out| {
                        copied = true;
                        out.copy_from_slice(&body);
                    },
                },
            );
            if accepted && !copied {
                host.held.insert(token, body);
            }
        }
    }

    fn transmit(&mut self, host: usize) {
        let now = self.now;
        let Some(mut transport) = self.hosts[host].transport.take() else { return };
        for _ in transport.session_changes() {}
        let mut blocked = self.network.blocked > 0.0;
        loop {
            let mut full = false;
            transport.transmit(now, &mut |packet| {
                if blocked && self.random.chance(self.network.blocked) {
                    full = true;
                    return Err(Blocked);
                }
                self.send(host, &packet);
                Ok(())
            });
            // The ring has room again at once: the simulated world has no event for it.
            if !full {
                break;
            }
            blocked = self.random.chance(0.5);
        }
        self.hosts[host].transport = Some(transport);
    }

    fn send(&mut self, from: usize, packet: &Transmit<'_>) {
        let host = &self.hosts[from];
        let mut bytes = packet.header.as_bytes().to_vec();
        bytes.extend_from_slice(packet.flat);
        match &packet.body {
            Body::Empty => {}
            Body::Inline(body) => bytes.extend_from_slice(body),
            Body::Source { token, range } => {
                let body = host.made.get(token).map(|made| &made.body).or_else(|| host.held.get(token));
                let body = body.expect("a body is asked for only while its token is in use");
                bytes.extend_from_slice(&body[range.start as usize..range.end as usize]);
            }
        }
        assert_eq!(bytes.len(), packet.payload_len());
        assert!(bytes.len() <= self.config.max_payload, "{} bytes do not fit", bytes.len());
        let decoded = Packet::decode(&bytes).expect("what is sent is well-formed");
        *self.sent.entry(decoded.kind).or_default() += 1;
        let Some(to) = self.hosts.iter().position(|host| host.peer == packet.to) else { return };
        if !(self.filter)(from, &decoded) || self.random.chance(self.network.lost) {
            return;
        }
        let protected =
            if decoded.kind.is_handshake() { bytes.len() } else { HEADER_LEN + packet.flat.len() };
        let copies = if self.random.chance(self.network.repeated) { 2 } else { 1 };
        for _ in 0..copies {
            let mut bytes = bytes.clone();
            if self.random.chance(self.network.corrupted) {
                // The body is UDP's checksum's business; header and flat block must survive without it.
                let bit = self.random.below(0..protected as u64 * 8) as usize;
                bytes[bit / 8] ^= 1 << (bit % 8);
                if self.random.chance(0.2) {
                    bytes.truncate(bit / 8);
                }
            }
            self.numbers += 1;
            let at = self.now + self.random.below(self.network.delay.clone());
            self.packets.insert(self.numbers, bytes);
            self.wire.push(Reverse((at, self.numbers, from, to)));
        }
    }

    fn on_event(&mut self, at: usize, event: Event<'_>) {
        let now = self.now;
        match event {
            Event::Request(request) => {
                let uid = u64::from_le_bytes(request.flat[..8].try_into().expect("flat block"));
                let reply_len =
                    u64::from_le_bytes(request.flat[8..16].try_into().expect("flat block")) as usize;
                assert_eq!((request.method, request.layout), (7, uid as u32));
                assert_eq!(request.flat, flat(uid, reply_len));
                assert!(request.body == pattern(uid, request.body.len()), "call {uid}: wrong bytes");
                assert!(request.deadline_ns > now, "call {uid} was delivered after its deadline");
                assert!(self.ran.insert(uid), "call {uid} ran twice");
                let takes = self.random.below(self.hosts[at].handler.clone());
                self.hosts[at].running.push((now + takes, request.call, pattern(!uid, reply_len)));
            }
            Event::Response { token, status, layout, flat, body, verdict } => {
                let made = self.hosts[at].made.remove(&token).expect("one response per call");
                if status == Code::Ok {
                    let expected = pattern(!made.uid, made.reply_len);
                    assert!(body == expected, "call {}: wrong reply", made.uid);
                    assert_eq!((layout, flat), (9, &expected[..expected.len().min(5)]));
                    assert!(self.ran.contains(&made.uid));
                }
                let before = self.ended.insert(made.uid, Ended { at: now, status, verdict });
                assert_eq!(before, None, "call {} ended twice", made.uid);
            }
            Event::Cancelled { call } => {
                let host = &mut self.hosts[at];
                let before = host.running.len();
                host.running.retain(|(_, other, _)| *other != call);
                host.cancelled += before - host.running.len();
            }
            Event::Released { token } => {
                let released = self.hosts[at].held.remove(&token);
                assert!(released.is_some(), "token {token} was released twice");
            }
            Event::SessionUp { .. } | Event::SessionDown { .. } => {}
        }
    }

    /// Nothing may be left when nothing happens any more and every session has idled out.
    pub fn assert_nothing_left(&mut self) {
        let quiet = u64::from(self.config.idle_ms) * MS * 3 + self.config.dead_ns * 3;
        self.run_for(quiet);
        for (number, host) in self.hosts.iter().enumerate() {
            assert!(host.made.is_empty(), "host {number}: calls never ended: {:?}", host.made.values());
            assert!(host.running.is_empty(), "host {number}: calls never answered nor cancelled");
            assert!(host.held.is_empty(), "host {number}: tokens never released: {:?}", host.held.keys());
            let Some(transport) = &host.transport else { continue };
            let held = transport.held();
            assert_eq!(
                (held.calls, held.sessions, held.reassembly_bytes),
                (0, 0, 0),
                "host {number}: {held:?}"
            );
        }
    }

    /// How a call has ended.
    pub fn status(&self, uid: u64) -> Option<Code> {
        self.ended.get(&uid).map(|ended| ended.status)
    }
}
