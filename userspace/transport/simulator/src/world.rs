//! The world: its hosts, its network, and what happens in it. What must hold is in `checks`, how packets get from host to
//! host in `packets`.

mod checks;
mod packets;

use crate::Random;
use crate::clock::Clock;
use crate::driver::DENIED;
use crate::host::{Host, Made, Running};
use crate::network::Network;
use crate::trace::Trace;
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use tollfree_transport::{Config, Counters, NewCall, Reply, Transport, Verdict};
use tollfree_wire::frame::{Address, Peer, Ports};
use tollfree_wire::header::Kind;
use tollfree_wire::spec::MethodSpec;
use tollfree_wire::{Code, Packet};

/// A millisecond, in ns.
pub const MS: u64 = 1_000_000;
/// The method that handlers serve.
pub const METHOD: u32 = 7;
/// Turns of one host at one moment after which it must be going round in circles.
const TURNS_MAX: u32 = 100_000;

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

/// Decides about a packet that a host sends.
pub type Filter = Box<dyn FnMut(usize, &Packet<'_>) -> bool>;

/// Something that will happen.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Due {
    at: u64,
    /// Tells apart what happens at the same time, in the order in which it was decided.
    number: u64,
    what: What,
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum What {
    /// A packet arrives at a host, from an address and a port.
    Arrival { to: usize, from: ([u32; 4], u16), bytes: Vec<u8> },
    /// A host is looked after.
    Turn(usize),
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
    /// How every host has the method carried that handlers serve. For hosts that start from now on.
    pub spec: MethodSpec,
    /// By number.
    pub hosts: Vec<Host>,
    /// How calls have ended, by uid.
    pub ended: HashMap<u64, Ended>,
    /// Calls that a handler has seen, by uid.
    pub ran: HashSet<u64>,
    /// The same, in the order in which they were delivered.
    pub delivered: Vec<u64>,
    /// Calls made so far.
    pub uids: u64,
    /// Decides about each packet before the network does: false loses it.
    pub filter: Filter,
    /// Packets sent, by kind.
    pub sent: HashMap<Kind, u64>,
    /// What hosts had counted in lives that ended in a crash.
    pub crashed: Vec<Counters>,
    /// The last hello that anybody sent: what a flood is made of.
    pub last_hello: Vec<u8>,
    /// What happened last, where somebody wants to know.
    pub trace: Option<Trace>,
    /// A number that differs where two worlds differ in any packet or its time.
    pub digest: u64,
    /// The session on which a call was first sent, by uid: its server and that server's index for it.
    first_sent: HashMap<u64, (usize, u32)>,
    /// The last call that a session has delivered, by its server and that server's index for it.
    last_delivered: HashMap<(usize, u32), u64>,
    due: BinaryHeap<Reverse<Due>>,
    numbers: u64,
    /// How often which host had its turn at the moment.
    turns: (u64, u32),
}

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

/// The flat block of a call: who it is, how long an answer it wants, and zeros.
fn flat(uid: u64, reply_len: usize) -> Vec<u8> {
    let mut flat = vec![0; 17 + (uid % 100) as usize];
    flat[..8].copy_from_slice(&uid.to_le_bytes());
    flat[8..16].copy_from_slice(&(reply_len as u64).to_le_bytes());
    flat
}

/// What [`flat`] says.
fn read_flat(flat: &[u8]) -> Option<(u64, usize)> {
    let number = |at: usize| flat.get(at..at + 8)?.try_into().ok().map(u64::from_le_bytes);
    Some((number(0)?, number(8)? as usize))
}

impl World {
    /// A world whose hosts are up.
    pub fn new(seed: u64, hosts: usize, network: Network, config: Config) -> World {
        let peer = |number: usize| Peer { address: Address::v4(number as u32 + 1), port: 7400 };
        let mut world = World {
            now: 1_000 * MS,
            random: Random(seed),
            network,
            config,
            spec: MethodSpec::default(),
            hosts: (0..hosts).map(|number| Host::new(peer(number))).collect(),
            ended: HashMap::new(),
            ran: HashSet::new(),
            delivered: Vec::new(),
            uids: 0,
            filter: Box::new(|_, _| true),
            sent: HashMap::new(),
            crashed: Vec::new(),
            last_hello: Vec::new(),
            trace: None,
            digest: 0,
            first_sent: HashMap::new(),
            last_delivered: HashMap::new(),
            due: BinaryHeap::new(),
            numbers: 0,
            turns: (0, 0),
        };
        for number in 0..hosts {
            world.start(number);
        }
        world
    }

    /// A host comes up and knows nothing of its previous life.
    pub fn start(&mut self, number: usize) {
        let mut secret = [0; 32];
        secret.fill_with(|| self.random.number() as u8);
        let host = &mut self.hosts[number];
        host.epoch += 1;
        host.driver.restart();
        host.guards.clear();
        host.transport = Some(Transport::new(Config { secret, epoch: host.epoch, ..self.config.clone() }));
        let epoch = host.epoch;
        self.note(format_args!("host {number} is up, epoch {epoch}"));
        self.specify(number);
    }

    /// Has every host carry the method that handlers serve so from now on.
    pub fn carry(&mut self, spec: MethodSpec) {
        self.spec = spec;
        (0..self.hosts.len()).for_each(|number| self.specify(number));
    }

    fn specify(&mut self, number: usize) {
        let (now, spec) = (self.local(number), self.spec);
        if let Some(transport) =
            self.hosts[number].transport.as_mut().filter(|_| spec != MethodSpec::default())
        {
            transport.set_specs(now, &[(METHOD, spec)]);
        }
    }

    /// The process is gone, with everything it knew.
    pub fn crash(&mut self, number: usize) {
        let host = &mut self.hosts[number];
        if let Some(transport) = host.transport.take() {
            self.crashed.push(transport.counters());
        }
        host.made.clear();
        host.running.clear();
        host.held.clear();
        self.note(format_args!("host {number} crashes"));
    }

    /// A host wakes up from a sleep that it did not notice.
    pub fn leap(&mut self, number: usize, ns: u64) {
        let Clock { leapt, .. } = &mut self.hosts[number].clock;
        *leapt += ns;
        self.note(format_args!("host {number}'s clock leaps by {} ms", ns / MS));
        self.turn(number);
    }

    /// The transport of a host that is up.
    pub fn transport(&mut self, host: usize) -> &mut Transport {
        self.hosts[host].transport.as_mut().expect("the host is up")
    }

    /// The time by a host's clock.
    pub fn local(&self, host: usize) -> u64 {
        self.hosts[host].clock.shows(self.now)
    }

    /// Makes a call; returns its uid. The deadline is a time of the world's.
    pub fn call(
        &mut self,
        from: usize,
        to: usize,
        body_len: usize,
        reply_len: usize,
        deadline_ns: u64,
    ) -> u64 {
        self.make(METHOD, from, to, body_len, reply_len, deadline_ns)
    }

    /// Makes a call that every driver's policy refuses; returns its uid.
    pub fn call_denied(&mut self, from: usize, to: usize, body_len: usize) -> u64 {
        self.make(DENIED, from, to, body_len, 0, u64::MAX)
    }

    fn make(
        &mut self,
        method: u32,
        from: usize,
        to: usize,
        body_len: usize,
        reply_len: usize,
        deadline_ns: u64,
    ) -> u64 {
        self.uids += 1;
        let uid = self.uids;
        let (now, peer) = (self.local(from), self.hosts[to].peer);
        let host = &mut self.hosts[from];
        host.tokens += 1;
        let token = host.tokens;
        let deadline_ns = if deadline_ns == u64::MAX { u64::MAX } else { host.clock.shows(deadline_ns) };
        let body = pattern(uid, body_len);
        let call = NewCall {
            method,
            layout: uid as u32,
            flat: &flat(uid, reply_len),
            metadata: false,
            body_len: body_len as u32,
            deadline_ns,
            token,
        };
        let handle = host.transport.as_mut().expect("the host is up").call(now, peer, call);
        let denied = method == DENIED && self.config.verified;
        host.made.insert(token, Made { uid, to, handle, body, reply_len, denied });
        self.note(format_args!(
            "host {from} makes call {uid} to host {to}: {body_len} bytes, wants {reply_len}"
        ));
        uid
    }

    /// Gives a call up, if it has not ended.
    pub fn cancel(&mut self, from: usize, uid: u64) {
        let now = self.local(from);
        let host = &mut self.hosts[from];
        let token = host.made.iter().find(|(_, made)| made.uid == uid).map(|(token, _)| *token);
        if let Some(made) = token.and_then(|token| host.made.remove(&token)) {
            host.transport.as_mut().expect("the host is up").cancel(now, made.handle);
            self.note(format_args!("host {from} cancels call {uid}"));
        }
    }

    /// Lets everything happen up to a time.
    pub fn run_until(&mut self, end: u64) {
        for host in 0..self.hosts.len() {
            self.turn(host);
        }
        while self.due.peek().is_some_and(|Reverse(due)| due.at <= end) {
            let Some(Reverse(Due { at, what, .. })) = self.due.pop() else { break };
            self.now = self.now.max(at);
            match what {
                What::Arrival { to, from: (address, port), bytes } => {
                    self.arrive(to, Peer { address: Address(address), port }, bytes);
                }
                What::Turn(host) if self.hosts[host].wake_at == at => self.turn(host),
                What::Turn(_) => {}
            }
        }
        self.now = end;
    }

    /// Lets everything happen for a while.
    pub fn run_for(&mut self, ns: u64) {
        self.run_until(self.now + ns);
    }

    /// Has a host looked after at a time, unless it is sooner anyway.
    fn wake(&mut self, host: usize, at: u64) {
        if at < self.hosts[host].wake_at {
            self.hosts[host].wake_at = at;
            self.schedule(at, What::Turn(host));
        }
    }

    fn schedule(&mut self, at: u64, what: What) {
        self.numbers += 1;
        self.due.push(Reverse(Due { at, number: self.numbers, what }));
    }

    /// One round of a host's engine.
    fn turn(&mut self, number: usize) {
        let (moment, turns) = self.turns;
        self.turns = if moment == self.now { (moment, turns + 1) } else { (self.now, 0) };
        assert!(turns < TURNS_MAX, "time stands still: host {number} always wants to be called at once");
        self.hosts[number].wake_at = u64::MAX;
        while let Some((from, bytes)) = self.hosts[number].inbox.pop_front() {
            self.receive(number, from, &bytes);
        }
        self.answer(number);
        self.timeouts(number);
        self.transmit(number);
        let next = self.hosts[number].next(self.now);
        if next != u64::MAX {
            self.wake(number, next);
        }
    }

    fn timeouts(&mut self, number: usize) {
        let now = self.local(number);
        let Some(mut transport) = self.hosts[number].transport.take() else { return };
        if transport.timeout().is_some_and(|at| at <= now) {
            transport.handle_timeouts(now, &mut |event| self.on_event(number, event));
        }
        self.hosts[number].transport = Some(transport);
    }

    /// Handlers that are done answer.
    fn answer(&mut self, number: usize) {
        let (world_now, now) = (self.now, self.local(number));
        let host = &mut self.hosts[number];
        let Some(transport) = &mut host.transport else { return };
        if !host.running.iter().any(|running| running.at <= world_now) {
            return;
        }
        let (due, later): (Vec<Running>, Vec<Running>) =
            std::mem::take(&mut host.running).into_iter().partition(|running| running.at <= world_now);
        host.running = later;
        for Running { call, reply: body, .. } in due {
            host.tokens += 1;
            let token = host.tokens;
            let mut copied = body.is_empty();
            let reply = Reply {
                status: Code::Ok,
                by_engine: false,
                layout: 9,
                flat: &body[..body.len().min(5)],
                metadata: false,
                body_len: body.len() as u32,
                token,
                copy_body: &mut |out| {
                    copied = true;
                    out.copy_from_slice(&body);
                },
            };
            if transport.respond(now, call, reply) && !copied {
                host.held.insert(token, body);
            }
        }
    }

    /// The host with this address.
    pub fn number(&self, peer: &Peer) -> Option<usize> {
        let number = (peer.address.0[3] as usize).checked_sub(1)?;
        let ours = |host: &&Host| {
            let ports = Ports { first: host.peer.port, count: self.config.ports };
            host.peer.address == peer.address && ports.contain(peer.port)
        };
        self.hosts.get(number).filter(ours).map(|_| number)
    }

    /// How a call has ended.
    pub fn status(&self, uid: u64) -> Option<Code> {
        self.ended.get(&uid).map(|ended| ended.status)
    }

    /// What hosts have counted, in this life and in those that crashed.
    pub fn counters(&self) -> impl Iterator<Item = Counters> {
        let up = self.hosts.iter().filter_map(|host| host.transport.as_ref());
        self.crashed.iter().copied().chain(up.map(Transport::counters))
    }

    /// Adds a line to the trace, if there is one.
    pub fn note(&mut self, text: std::fmt::Arguments<'_>) {
        if let Some(trace) = &mut self.trace {
            trace.line(self.now, text);
        }
    }
}
