//! The world: its hosts, its network, and what must hold in it at any moment. Whatever does not hold panics.

use crate::Random;
use crate::clock::Clock;
use crate::driver::{DENIED, Verdict as DriverVerdict};
use crate::host::{Host, Made, Running};
use crate::network::Network;
use crate::trace::{Trace, describe};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};
use tollfree_transport::{
    Blocked, Config, Counters, Event, IncomingRequest, NewCall, Reply, SessionChange, Transmit, Transport,
    Verdict,
};
use tollfree_wire::frame::{Address, Peer};
use tollfree_wire::header::{HEADER_LEN, Kind};
use tollfree_wire::spec::MethodSpec;
use tollfree_wire::{Code, Packet, Reason};
use zerocopy::IntoBytes;

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

    /// A packet reaches a host's network card.
    fn arrive(&mut self, to: usize, from: Peer, bytes: Vec<u8>) {
        if self.config.verified && !self.admit(to, from, &bytes) {
            return;
        }
        let host = &mut self.hosts[to];
        if host.transport.is_some() {
            host.inbox.push_back((from, bytes));
            let poll = self.random.below(host.poll.clone());
            self.wake(to, self.now + poll);
        }
    }

    /// The driver's checks. True: the engine gets the packet.
    fn admit(&mut self, to: usize, from: Peer, bytes: &[u8]) -> bool {
        let verdict = match Packet::decode(bytes) {
            Ok(packet) => {
                let racing = self.random.chance(0.01);
                self.hosts[to].driver.judge(from, &packet, racing)
            }
            Err(reason) => DriverVerdict::Drop(reason),
        };
        match verdict {
            DriverVerdict::Deliver => return true,
            DriverVerdict::Answer(answer, reason) => {
                self.refused(to, reason, bytes);
                self.launch(to, from, answer.as_bytes().to_vec());
            }
            DriverVerdict::Drop(reason) => self.refused(to, reason, bytes),
        }
        false
    }

    /// A packet arrives now, whether the network carried it or not.
    pub fn deliver(&mut self, from: usize, to: usize, bytes: &[u8]) {
        self.receive(to, self.hosts[from].peer, bytes);
    }

    fn receive(&mut self, to: usize, from: Peer, bytes: &[u8]) {
        let now = self.local(to);
        let Some(mut transport) = self.hosts[to].transport.take() else { return };
        if let Err(reason) = transport.receive(now, from, bytes, &mut |event| self.on_event(to, event)) {
            self.refused(to, reason, bytes);
        }
        self.hosts[to].transport = Some(transport);
    }

    fn refused(&mut self, at: usize, reason: Reason, bytes: &[u8]) {
        *self.hosts[at].dropped.entry(reason.name()).or_default() += 1;
        if self.trace.is_some() {
            self.note(format_args!("  host {at} refuses ({reason}): {}", describe(bytes)));
        }
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

    fn transmit(&mut self, number: usize) {
        let now = self.local(number);
        let Some(mut transport) = self.hosts[number].transport.take() else { return };
        let host = &mut self.hosts[number];
        for change in transport.session_changes() {
            match change {
                SessionChange::Opened(guard, _) => host.guards.insert(guard.index, guard),
                SessionChange::Closed(index) => host.guards.remove(&index),
            };
            host.driver.mirror(change);
        }
        let mut blocked = self.network.blocked > 0.0;
        loop {
            let mut full = false;
            transport.transmit(now, &mut |packet| {
                if blocked && self.random.chance(self.network.blocked) {
                    full = true;
                    return Err(Blocked);
                }
                self.send(number, &packet);
                Ok(())
            });
            // The ring has room again at once: the simulated world has no event for it.
            if !full {
                break;
            }
            blocked = self.random.chance(0.5);
        }
        self.hosts[number].transport = Some(transport);
    }

    fn send(&mut self, from: usize, packet: &Transmit<'_>) {
        let host = &self.hosts[from];
        let mut bytes = vec![0; packet.payload_len()];
        packet.write(&mut bytes, |token, start, out| {
            let body = host.made.get(&token).map(|made| &made.body).or_else(|| host.held.get(&token));
            let body = body.expect("a body is asked for only while its token is in use");
            out.copy_from_slice(&body[start as usize..start as usize + out.len()]);
        });
        assert!(bytes.len() <= self.config.max_payload, "{} bytes do not fit", bytes.len());
        let decoded = Packet::decode(&bytes).expect("what is sent is well-formed");
        if decoded.kind == Kind::Hello {
            self.last_hello.clone_from(&bytes);
        }
        if let (Kind::Request, Some((uid, _)), Some(to)) =
            (decoded.kind, read_flat(decoded.flat), self.number(&packet.to))
        {
            self.first_sent.entry(uid).or_insert((to, packet.header.session));
        }
        if host.rogue {
            let last = self.hosts[from].sequences.entry(packet.header.session).or_default();
            *last = packet.header.sequence.max(*last);
        }
        self.launch(from, packet.to, bytes);
    }

    /// Hands any bytes to the network. Those to nobody's address get lost.
    pub fn launch(&mut self, from: usize, to: Peer, bytes: Vec<u8>) {
        let source = self.hosts[from].peer;
        self.launch_as(from, source, to, bytes);
    }

    /// Like [`World::launch`], with a source address that may be a lie.
    pub fn launch_as(&mut self, from: usize, source: Peer, to: Peer, bytes: Vec<u8>) {
        self.mark(from, &bytes);
        let decoded = Packet::decode(&bytes);
        let mut passes = true;
        let mut protected = bytes.len();
        if let Ok(packet) = &decoded {
            *self.sent.entry(packet.kind).or_default() += 1;
            passes = (self.filter)(from, packet);
            let checked = self.spec.checksum && packet.header.method == METHOD;
            if !packet.kind.is_handshake() && !checked {
                // The body is UDP's checksum's business; header and flat block must survive without it.
                protected = HEADER_LEN + packet.flat_padded.len();
            }
        }
        let Some(number) = self.number(&to).filter(|_| passes) else { return };
        let copies = self.network.fate(&mut self.random).copies;
        if self.trace.is_some() {
            let fate = match copies[..] {
                [] => "lost".to_owned(),
                [(delay, altered)] => {
                    format!("{} µs{}", delay / 1000, if altered { ", altered" } else { "" })
                }
                _ => format!("{} times", copies.len()),
            };
            self.note(format_args!("{from} → {number}: {} [{fate}]", describe(&bytes)));
        }
        for (delay, altered) in copies {
            let mut bytes = bytes.clone();
            if altered {
                self.network.alter(&mut self.random, &mut bytes, protected);
            }
            let from = (source.address.0, source.port);
            self.schedule(self.now + delay, What::Arrival { to: number, from, bytes });
        }
    }

    /// The host with this address.
    pub fn number(&self, peer: &Peer) -> Option<usize> {
        let number = (peer.address.0[3] as usize).checked_sub(1)?;
        self.hosts.get(number).filter(|host| host.peer == *peer).map(|_| number)
    }

    fn on_event(&mut self, at: usize, event: Event<'_>) {
        match event {
            Event::Request(request) => self.on_request(at, &request),
            Event::Response { token, status, layout, flat, body, verdict, .. } => {
                let made = self.hosts[at].made.remove(&token).expect("one response per call");
                let Made { uid, to, reply_len, denied, .. } = made;
                let trusted = !self.hosts[at].rogue && !self.hosts[to].rogue;
                if status == Code::Ok && trusted {
                    let expected = pattern(!uid, reply_len);
                    assert!(body == expected, "call {uid}: wrong reply");
                    assert_eq!((layout, flat), (9, &expected[..expected.len().min(5)]));
                    assert!(self.ran.contains(&uid), "call {uid} was answered and never ran");
                }
                if trusted && denied {
                    assert!(status != Code::Ok && !self.ran.contains(&uid), "call {uid} got past the policy");
                }
                let before = self.ended.insert(uid, Ended { at: self.now, status, verdict });
                assert_eq!(before, None, "call {uid} ended twice");
                self.note(format_args!("call {uid} ends at host {at}: {status:?} ({verdict:?})"));
            }
            Event::Cancelled { call } => {
                let host = &mut self.hosts[at];
                let before = host.running.len();
                host.running.retain(|running| running.call != call);
                host.cancelled += before - host.running.len();
            }
            Event::Released { token } => {
                let released = self.hosts[at].held.remove(&token);
                assert!(released.is_some(), "token {token} was released twice");
            }
            Event::SessionUp { peer } => {
                let other = self.number(&peer).expect("a session is with a host that exists");
                self.note(format_args!("host {at} has a session with host {other}"));
            }
            Event::SessionDown { peer, why } => {
                let other = self.number(&peer).expect("a session was with a host that exists");
                self.note(format_args!("host {at} has ended a session with host {other}: {why}"));
            }
        }
    }

    fn on_request(&mut self, at: usize, request: &IncomingRequest<'_>) {
        let now = self.local(at);
        let honest = self.number(&request.peer).is_some_and(|from| !self.hosts[from].rogue);
        assert!(request.deadline_ns > now, "a request was delivered after its deadline");
        let takes = self.random.below(self.hosts[at].handler.clone());
        let mut running = Running { at: self.now + takes, call: request.call, reply: Vec::new() };
        if honest {
            let (uid, reply_len) = read_flat(request.flat).expect("the flat block is the caller's");
            assert_eq!(request.layout, uid as u32);
            assert_eq!(request.flat, flat(uid, reply_len));
            assert!(request.body == pattern(uid, request.body.len()), "call {uid}: wrong bytes");
            assert!(self.ran.insert(uid), "call {uid} ran twice");
            self.delivered.push(uid);
            self.check_order(at, request.session, request.method, uid);
            running.reply = pattern(!uid, reply_len);
            self.note(format_args!("call {uid} runs at host {at}"));
        } else {
            running.reply = pattern(0, request.body.len() * 3);
        }
        self.hosts[at].running.push(running);
    }

    /// Calls of an ordered method come in the order in which they were made on their session. One that was sent on another session
    /// before has lost its place.
    fn check_order(&mut self, at: usize, session: u32, method: u32, uid: u64) {
        if !self.spec.ordered || method != METHOD || self.first_sent.get(&uid) != Some(&(at, session)) {
            return;
        }
        let last = self.last_delivered.insert((at, session), uid).unwrap_or(0);
        assert!(last < uid, "call {uid} ran after call {last}, which was made later on the same session");
    }

    /// Nothing may be left when nothing happens any more and every session has idled out.
    pub fn assert_nothing_left(&mut self) {
        let quiet = u64::from(self.config.idle_ms) * MS * 3 + self.config.dead_ns * 3;
        self.run_for(quiet);
        for (number, host) in self.hosts.iter().enumerate().filter(|(_, host)| !host.rogue) {
            let open: Vec<u64> = host.made.values().map(|made| made.uid).collect();
            assert!(open.is_empty(), "host {number}: calls never ended: {open:?}");
            assert!(host.running.is_empty(), "host {number}: calls never answered nor cancelled");
            assert!(host.held.is_empty(), "host {number}: tokens never released: {:?}", host.held.keys());
            let Some(transport) = &host.transport else { continue };
            let held = transport.held();
            assert_eq!(
                (held.calls, held.sessions, held.reassembly_bytes, held.in_flight),
                (0, 0, 0, 0),
                "host {number}: {held:?}"
            );
        }
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

    fn mark(&mut self, from: usize, bytes: &[u8]) {
        let words = bytes.chunks(8).map(|chunk| {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            u64::from_le_bytes(word)
        });
        for word in [self.now, from as u64].into_iter().chain(words.take(8)) {
            self.digest = (self.digest ^ word).wrapping_mul(0x0100_0000_01b3);
        }
    }
}
