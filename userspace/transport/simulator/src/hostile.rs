//! One transport against a peer that is legitimate and gone rogue: it has sessions both ways, their keys, and a program of bytes
//! that decides what it sends and what else happens. Whatever the program, the transport neither fails nor holds more
//! than its limits, ends each call once, and holds nothing in the end.

use crate::forge::{Choices, forge};
use std::collections::{HashMap, HashSet};
use tollfree_transport::{
    Blocked, Body, CallHandle, Config, Event, IncomingCall, NewCall, Reply, SessionChange, Transport,
};
use tollfree_wire::frame::{Address, Peer};
use tollfree_wire::header::METHOD_CONTROL;
use tollfree_wire::session::Guard;
use tollfree_wire::{Code, Packet};
use zerocopy::IntoBytes;

/// Bytes the victim has for messages under reassembly.
pub const REASSEMBLY: usize = 1 << 20;
/// Sessions that one peer can make it have: four as a server, a few as a client that are on their way out.
const SESSIONS_MAX: usize = 12;
/// Calls the victim makes at once.
const CALLS_MAX: usize = 300;

const VICTIM: Peer = Peer { address: Address::v4(1), port: 7400 };
const ROGUE: Peer = Peer { address: Address::v4(2), port: 7400 };

struct Stage {
    now: u64,
    victim: Transport,
    /// Shakes hands as it should; everything else it sends is forged.
    rogue: Transport,
    guards: Vec<(Guard, u64)>,
    /// Handshake packets that the victim has received.
    handshakes: Vec<Vec<u8>>,
    seen: Seen,
    tokens: u64,
}

/// What the victim's applications know.
#[derive(Default)]
struct Seen {
    /// Calls made that have not ended.
    made: HashMap<u64, CallHandle>,
    running: Vec<IncomingCall>,
    /// Calls delivered so far.
    delivered: HashSet<IncomingCall>,
    /// Replies that are not released.
    held: HashSet<u64>,
}

impl Seen {
    fn take(&mut self, event: Event<'_>) {
        match event {
            Event::Request(request) => {
                assert!(self.delivered.insert(request.call), "{:?} was delivered twice", request.call);
                self.running.push(request.call);
            }
            Event::Response { token, .. } => {
                assert!(self.made.remove(&token).is_some(), "call {token} ended twice");
            }
            Event::Cancelled { call } => {
                let before = self.running.len();
                self.running.retain(|running| *running != call);
                assert!(self.running.len() < before, "{call:?} was cancelled and does not run");
            }
            Event::Released { token } => {
                assert!(self.held.remove(&token), "reply {token} was released twice");
            }
            Event::SessionUp { .. } | Event::SessionDown { .. } => {}
        }
    }
}

/// Runs a program. `step` is called after each of its steps.
pub fn survive(program: &[u8], step: &mut dyn FnMut()) {
    let mut choices = Choices::new(program);
    let verified = choices.one_in(4);
    let config = Config { verified, reassembly_bytes: REASSEMBLY, idle_ms: 20_000, ..Config::default() };
    let mut stage = Stage {
        now: 1_000_000_000,
        victim: Transport::new(Config { secret: [1; 32], epoch: 1, ..config.clone() }),
        rogue: Transport::new(Config { secret: [2; 32], epoch: 1, verified: false, ..config }),
        guards: Vec::new(),
        handshakes: Vec::new(),
        seen: Seen::default(),
        tokens: 0,
    };
    stage.victim_calls(&mut choices);
    stage.connect();
    while !choices.is_empty() {
        stage.act(&mut choices);
        stage.settle();
        step();
    }
    stage.end();
}

impl Stage {
    fn act(&mut self, choices: &mut Choices<'_>) {
        match choices.byte() % 32 {
            0..20 => {
                let at = usize::from(choices.byte());
                let count = self.guards.len();
                if let Some((guard, last)) = self.guards.get_mut(at % count.max(1)) {
                    let packet = forge(choices, guard, last);
                    self.receive(ROGUE, &packet);
                }
            }
            20..23 => self.now += 1 << (choices.byte() % 35),
            23..25 => self.victim_calls(choices),
            25 => {
                let key = self.seen.made.keys().min().copied();
                if let Some(handle) = key.and_then(|key| self.seen.made.remove(&key)) {
                    self.victim.cancel(self.now, handle);
                }
            }
            26..29 => self.victim_answers(choices),
            29 => {
                let at = usize::from(choices.byte());
                let Some(mut packet) = self.handshakes.get(at % self.handshakes.len().max(1)).cloned() else {
                    return;
                };
                let at = choices.number(2) as usize % packet.len();
                packet[at] ^= choices.byte();
                let from = if choices.one_in(4) { Peer { port: 1, ..ROGUE } } else { ROGUE };
                self.receive(from, &packet);
            }
            30 => self.connect(),
            _ => {
                if choices.one_in(8) {
                    self.victim.close_all(self.now);
                }
            }
        }
    }

    fn receive(&mut self, from: Peer, packet: &[u8]) {
        let Stage { victim, seen, now, .. } = self;
        // What is refused is refused by name; nothing else matters here.
        let _ = victim.receive(*now, from, packet, &mut |event| seen.take(event));
    }

    fn victim_calls(&mut self, choices: &mut Choices<'_>) {
        if self.seen.made.len() >= CALLS_MAX {
            return;
        }
        self.tokens += 1;
        let deadline_ns = match choices.byte() {
            0..64 => self.now + choices.number(4),
            _ => u64::MAX,
        };
        let body_len = choices.one_of(&[0, 10, 3_000, 60_000, 1 << 20]);
        let call = NewCall {
            method: 7,
            layout: 1,
            flat: &[7; 21],
            metadata: false,
            body_len,
            deadline_ns,
            token: self.tokens,
        };
        let handle = self.victim.call(self.now, ROGUE, call);
        self.seen.made.insert(self.tokens, handle);
    }

    fn victim_answers(&mut self, choices: &mut Choices<'_>) {
        let at = usize::from(choices.byte());
        let count = self.seen.running.len();
        if count == 0 {
            return;
        }
        let call = self.seen.running.swap_remove(at % count);
        if choices.one_in(8) {
            return self.victim.ignore(call);
        }
        self.tokens += 1;
        let body_len = choices.one_of(&[0, 10, 3_000, 60_000, 1 << 20]);
        let mut copied = body_len == 0;
        let copy_body = &mut |_: &mut [u8]| copied = true;
        let reply = Reply {
            status: Code::Ok,
            by_engine: false,
            layout: 1,
            flat: &[3; 5],
            metadata: false,
            body_len,
            token: self.tokens,
            copy_body,
        };
        if self.victim.respond(self.now, call, reply) && !copied {
            self.seen.held.insert(self.tokens);
        }
    }

    /// The rogue opens a session, if it has none.
    fn connect(&mut self) {
        let call = NewCall {
            method: METHOD_CONTROL,
            layout: 0,
            flat: &[],
            metadata: false,
            body_len: 0,
            deadline_ns: u64::MAX,
            token: 0,
        };
        let handle = self.rogue.call(self.now, VICTIM, call);
        for _ in 0..4 {
            self.settle();
        }
        self.rogue.cancel(self.now, handle);
    }

    /// Timers and handshakes; then everything is as it should be.
    fn settle(&mut self) {
        let Stage { now, victim, rogue, guards, handshakes, seen, .. } = self;
        for _ in victim.session_changes() {}
        let mut calls = 0;
        while victim.timeout().is_some_and(|at| at <= *now) {
            calls += 1;
            assert!(calls < 10_000, "a timer is always due");
            victim.handle_timeouts(*now, &mut |event| seen.take(event));
        }
        let mut packets = Vec::new();
        let mut sent = 0;
        victim.transmit(*now, &mut |packet| {
            sent += 1;
            assert!(sent < 100_000, "there is always more to send");
            let mut bytes = packet.header.as_bytes().to_vec();
            bytes.extend_from_slice(packet.flat);
            match packet.body {
                Body::Inline(body) => bytes.extend_from_slice(body),
                Body::Source { token, ref range } => {
                    assert!(
                        seen.made.contains_key(&token) || seen.held.contains(&token),
                        "token {token} is free"
                    );
                    bytes.resize(bytes.len() + range.len(), 0);
                }
                Body::Empty => {}
            }
            let decoded = Packet::decode(&bytes).expect("what is sent is well-formed");
            if decoded.kind.is_handshake() && packet.route.to == ROGUE {
                packets.push(bytes);
            }
            Ok(())
        });
        for packet in packets {
            // A rogue refuses what it likes.
            let _ = rogue.receive(*now, VICTIM, &packet, &mut |_| {});
        }
        for change in rogue.session_changes() {
            match change {
                SessionChange::Opened(guard, _) => guards.push((guard, 0)),
                SessionChange::Closed(index) => guards.retain(|(guard, _)| guard.index != index),
            }
        }
        let mut answers = Vec::new();
        rogue.transmit(*now, &mut |packet| {
            let Body::Inline(body) = packet.body else { return Ok::<(), Blocked>(()) };
            answers.push([packet.header.as_bytes(), body].concat());
            Ok(())
        });
        for answer in answers {
            let _ = victim.receive(*now, ROGUE, &answer, &mut |event| seen.take(event));
            handshakes.push(answer);
            handshakes.truncate(16);
        }
        let held = victim.held();
        assert!(held.reassembly_bytes <= REASSEMBLY, "{held:?}");
        assert!(held.sessions <= SESSIONS_MAX, "{held:?}");
        assert!(held.calls == seen.made.len(), "{held:?}, and {} calls are open", seen.made.len());
        assert!(held.timers <= SESSIONS_MAX * 257 + CALLS_MAX, "{held:?}");
        assert!(
            self.guards.len() <= 2 * SESSIONS_MAX || {
                self.guards.drain(..SESSIONS_MAX);
                true
            }
        );
    }

    /// The rogue falls silent. What it has begun times out.
    fn end(&mut self) {
        let end = self.now + 600_000_000_000;
        let Stage { now, victim, seen, .. } = self;
        let mut turns = 0;
        loop {
            for _ in victim.session_changes() {}
            victim.transmit(*now, &mut |_| Ok(()));
            let Some(at) = victim.timeout().filter(|at| *at < end) else { break };
            *now = at.max(*now);
            victim.handle_timeouts(*now, &mut |event| seen.take(event));
            turns += 1;
            assert!(turns < 1_000_000, "time stands still");
        }
        let held = victim.held();
        assert_eq!((held.calls, held.sessions, held.reassembly_bytes), (0, 0, 0), "{held:?}");
        assert!(seen.made.is_empty() && seen.running.is_empty() && seen.held.is_empty());
    }
}
