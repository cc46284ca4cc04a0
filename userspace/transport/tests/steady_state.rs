//! A small call in the steady state does not allocate, and what peers can make a transport hold is bounded. Counted by
//! this test's own allocator, per thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use proptest::prelude::*;
use tollfree_transport::{Body, Config, Event, IncomingCall, NewCall, Reply, Transport};
use tollfree_wire::Code;
use tollfree_wire::frame::{Address, Peer};
use tollfree_wire::header::{Header, Kind};
use zerocopy::IntoBytes;

/// Counts what this thread allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static HELD: Cell<i64> = const { Cell::new(0) };
}

fn count(bytes: i64) {
    // Fails while a thread ends, when nobody counts any more.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + u64::from(bytes > 0)));
    let _ = HELD.try_with(|held| held.set(held.get() + bytes));
}

// SAFETY: everything is the system allocator's; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as i64);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as i64));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn peer(number: u32) -> Peer {
    Peer { address: Address::v4(number), port: 7400 }
}

fn transport(secret: u8) -> Transport {
    Transport::new(Config { secret: [secret; 32], ..Config::default() })
}

/// A client and a server joined without delay and without allocating.
struct Pair {
    ends: [Transport; 2],
    wire: Vec<([u8; 2048], usize)>,
    arrived: Option<IncomingCall>,
    ended: u64,
    now: u64,
}

impl Pair {
    fn new() -> Pair {
        Pair {
            ends: [transport(1), transport(2)],
            wire: Vec::with_capacity(64),
            arrived: None,
            ended: 0,
            now: 1_000_000_000,
        }
    }

    fn exchange(&mut self) {
        let Pair { ends, wire, arrived, ended, now } = self;
        for round in 0..8 {
            let from = round % 2;
            for _ in ends[from].session_changes() {}
            ends[from].transmit(*now, &mut |packet| {
                let mut bytes = [0; 2048];
                let header = packet.header.as_bytes();
                let (flat, body) = (header.len() + packet.flat.len(), packet.payload_len());
                bytes[..header.len()].copy_from_slice(header);
                bytes[header.len()..flat].copy_from_slice(packet.flat);
                match packet.body {
                    Body::Inline(inline) => bytes[flat..body].copy_from_slice(inline),
                    Body::Source { .. } => bytes[flat..body].fill(0x55),
                    Body::Empty => {}
                }
                wire.push((bytes, body));
                Ok(())
            });
            for (bytes, length) in wire.drain(..) {
                let outcome =
                    ends[1 - from].receive(*now, peer(from as u32 + 1), &bytes[..length], &mut |event| {
                        match event {
                            Event::Request(request) => *arrived = Some(request.call),
                            Event::Response { status: Code::Ok, body: [0x66, ..], .. } => *ended += 1,
                            Event::SessionUp { .. } => {}
                            other => panic!("unexpected: {other:?}"),
                        }
                    });
                assert_eq!(outcome, Ok(()));
            }
            if let Some(call) = arrived.take() {
                let copy_body = &mut |out: &mut [u8]| out.fill(0x66);
                let (status, by_engine, layout, body_len) = (Code::Ok, false, 3, 100);
                let reply =
                    Reply { status, by_engine, layout, flat: &[1; 13], body_len, token: 1, copy_body };
                assert!(ends[1].respond(*now, call, reply));
            }
        }
    }

    fn call(&mut self) {
        self.now += 50_000;
        let deadline_ns = self.now + 60_000_000_000;
        let call = NewCall { method: 9, layout: 2, flat: &[7; 21], body_len: 64, deadline_ns, token: 5 };
        self.ends[0].call(self.now, peer(2), call);
        self.exchange();
        for end in &mut self.ends {
            end.handle_timeouts(self.now, &mut |event| panic!("unexpected: {event:?}"));
        }
    }
}

#[test]
fn a_small_call_allocates_nothing() {
    let mut pair = Pair::new();
    for _ in 0..100 {
        pair.call();
    }
    let before = ALLOCATIONS.get();
    for _ in 0..10_000 {
        pair.call();
    }
    assert_eq!(ALLOCATIONS.get() - before, 0);
    assert_eq!(pair.ended, 10_100);
}

#[test]
fn a_flood_of_hellos_allocates_nothing_and_is_answered_by_less() {
    let mut server = transport(3);
    let mut header = Header { message_len: 256, ..Header::new(Kind::Hello) };
    header.session = 0;
    let mut hello = header.as_bytes().to_vec();
    hello.resize(hello.len() + 256, 0);
    // The maximum payload, so that the hello is a plausible one.
    let at = hello.len() - 168;
    let mut flood = |server: &mut Transport, count: u32| {
        let mut answered = 0;
        for number in 0..count {
            hello[56..60].copy_from_slice(&(number + 1).to_le_bytes());
            hello[at..at + 4].copy_from_slice(&1472_u32.to_le_bytes());
            let outcome =
                server.receive(5, peer(number), &hello, &mut |event| panic!("unexpected: {event:?}"));
            assert_eq!(outcome, Ok(()));
            if number % 1000 == 999 {
                server.transmit(5, &mut |packet| {
                    assert_eq!(packet.header.kind, Kind::Challenge as u8);
                    assert!(packet.payload_len() < hello.len());
                    answered += 1;
                    Ok(())
                });
            }
        }
        answered
    };
    flood(&mut server, 1_000);
    let before = ALLOCATIONS.get();
    assert_eq!(flood(&mut server, 20_000), 20 * 256, "the rest is dropped");
    assert_eq!(ALLOCATIONS.get() - before, 0);
    assert_eq!(server.held().sessions, 0);
}

/// A packet that decodes, mostly: with random contents where it hurts.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let header = (1..9u8, 0..32u8, any::<u8>(), 0..40u16, any::<[u32; 2]>(), 0..0x2000u64, 0..200u64);
    let more =
        (any::<u32>(), 0..20u16, 0..20u16, any::<u32>(), proptest::collection::vec(any::<u8>(), 0..300));
    (header, more).prop_map(
        |(
            (kind, flags, status, flat_len, ids, call, sequence),
            (length, fragment, fragments, time, body),
        )| {
            let span = usize::from(flat_len).next_multiple_of(8);
            let message_len =
                if fragments <= 1 { (body.len().saturating_sub(span)) as u32 } else { length % (17 << 20) };
            let header = Header {
                kind,
                flags,
                status,
                flat_len: if fragment == 0 { flat_len } else { 0 },
                session: ids[0] % 3,
                method: ids[1],
                call,
                sequence,
                message_len,
                fragment,
                fragments,
                deadline_us: time,
                ..Header::new(Kind::Request)
            };
            let mut bytes = header.as_bytes().to_vec();
            bytes.extend_from_slice(&body);
            bytes
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// With `verified`, tags are XDP's business: everything that decodes reaches the calls, as from a hostile peer that
    /// has a session and its key.
    #[test]
    fn hostile_packets_neither_panic_nor_make_it_hold_more_than_its_limit(packets in proptest::collection::vec(hostile(), 1..200), answer in any::<bool>()) {
        let mut pair = Pair::new();
        for end in &mut pair.ends {
            *end = Transport::new(Config { verified: true, reassembly_bytes: 1 << 20, ..Config::default() });
        }
        pair.call();
        let indices: Vec<u32> = pair.ends.iter().flat_map(|end| end.sessions().map(|session| session.index).collect::<Vec<_>>()).collect();
        let mut calls = Vec::new();
        let held = HELD.get();
        for (number, mut bytes) in packets.into_iter().enumerate() {
            pair.now += 1_000_000;
            let end = number % 2;
            if bytes[8] == 1 {
                bytes[8..12].copy_from_slice(&indices[end].to_le_bytes());
            }
            let transport = &mut pair.ends[end];
            let _ = transport.receive(pair.now, peer(2 - end as u32), &bytes, &mut |event| {
                if let Event::Request(request) = event { calls.push(request.call) }
            });
            if answer && let Some(call) = calls.pop() {
                let body_len = if number % 3 == 0 { 50_000 } else { 10 };
                let reply = Reply { status: Code::Ok, by_engine: false, layout: 0, flat: &[], body_len, token: 2, copy_body: &mut |_| {} };
                transport.respond(pair.now, call, reply);
            }
            let call = NewCall { method: 9, layout: 2, flat: &[7; 21], body_len: 3_000, deadline_ns: u64::MAX, token: 5 };
            if number % 7 == 0 {
                pair.ends[0].call(pair.now, peer(2), call);
            }
            for end in &mut pair.ends {
                end.transmit(pair.now, &mut |_| Ok(()));
                end.handle_timeouts(pair.now, &mut |_| {});
                prop_assert!(end.held().reassembly_bytes <= 1 << 20);
            }
        }
        prop_assert!(HELD.get() - held < 8 << 20, "{} bytes", HELD.get() - held);
    }

    #[test]
    fn any_bytes_at_all_do_no_harm(packets in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..200), 0..50)) {
        let mut transport = transport(9);
        for mut bytes in packets {
            if bytes.len() > 4 {
                bytes[..3].copy_from_slice(&Header::new(Kind::Hello).as_bytes()[..3]);
                bytes[3] = bytes[3] % 8 + 1;
            }
            let _ = transport.receive(1, peer(1), &bytes, &mut |event| panic!("unexpected: {event:?}"));
            transport.transmit(1, &mut |_| Ok(()));
        }
        prop_assert_eq!(transport.held().sessions, 0);
    }
}
