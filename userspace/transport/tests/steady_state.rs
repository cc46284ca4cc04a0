//! A small call in the steady state does not allocate, and what peers can make a transport hold is bounded. Counted by
//! this test's own allocator, per thread.

mod counting;

use counting::memory;
use proptest::prelude::*;
use tollfree_simulator::hostile::{REASSEMBLY, survive};
use tollfree_transport::{Config, Event, IncomingCall, NewCall, Reply, Transport};
use tollfree_wire::Code;
use tollfree_wire::frame::{Address, Peer};
use tollfree_wire::header::{Header, Kind};
use tollfree_wire::spec::MethodSpec;
use zerocopy::IntoBytes;

fn peer(number: u32) -> Peer {
    Peer { address: Address::v4(number), port: 7400 }
}

fn transport(secret: u8) -> Transport {
    Transport::new(Config { secret: [secret; 32], ..Config::default() })
}

/// What two transports with a handful of sessions may hold beside messages under reassembly: kept replies, calls, tables.
const HELD_BESIDE: i64 = 8 << 20;

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
                let length = packet.payload_len();
                packet.write(&mut bytes[..length], |_, _, body| body.fill(0x55));
                wire.push((bytes, length));
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
                let reply = Reply {
                    status,
                    by_engine,
                    layout,
                    flat: &[1; 13],
                    metadata: false,
                    body_len,
                    token: 1,
                    copy_body,
                };
                assert!(ends[1].respond(*now, call, reply));
            }
        }
    }

    fn call(&mut self) {
        self.now += 50_000;
        let deadline_ns = self.now + 60_000_000_000;
        let call = NewCall {
            method: 9,
            layout: 2,
            flat: &[7; 21],
            metadata: false,
            body_len: 64,
            deadline_ns,
            token: 5,
        };
        self.ends[0].call(self.now, peer(2), call);
        self.exchange();
        for end in &mut self.ends {
            end.handle_timeouts(self.now, &mut |event| panic!("unexpected: {event:?}"));
        }
    }
}

#[test]
fn a_small_call_allocates_nothing_however_it_is_carried() {
    let reliable = MethodSpec::default();
    let ways = [
        reliable,
        MethodSpec::UNRELIABLE,
        MethodSpec { ordered: true, ..reliable },
        MethodSpec { ordered: true, checksum: true, timeout_us: 1_000_000, window: 8, ..reliable },
        MethodSpec { checksum: true, ..MethodSpec::UNRELIABLE },
    ];
    for spec in ways {
        let mut pair = Pair::new();
        pair.ends[0].set_specs(0, &[(9, spec)]);
        for _ in 0..100 {
            pair.call();
        }
        let before = memory().0;
        for _ in 0..2_000 {
            pair.call();
        }
        assert_eq!(memory().0 - before, 0, "{spec}");
        assert_eq!(pair.ended, 2_100, "{spec}");
    }
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
    let before = memory().0;
    assert_eq!(flood(&mut server, 20_000), 20 * 256, "the rest is dropped");
    assert_eq!(memory().0 - before, 0);
    assert_eq!(server.held().sessions, 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// What the fuzz target `session` looks for with more patience, and here the memory is counted too.
    #[test]
    fn a_hostile_peer_neither_breaks_it_nor_makes_it_hold_more_than_its_limits(program in proptest::collection::vec(any::<u8>(), 0..6_000)) {
        let before = memory().1;
        survive(&program, &mut || {
            let held = memory().1 - before;
            assert!(held < REASSEMBLY as i64 + HELD_BESIDE, "{held} bytes");
        });
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
