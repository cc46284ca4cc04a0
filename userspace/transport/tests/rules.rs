//! One test per rule of the transport, each in a small world of its own.

use std::cell::RefCell;
use std::collections::HashSet;
use std::rc::Rc;
use tollfree_simulator::{MS, Network, World, pattern};
use tollfree_transport::{Config, Event, SessionChange, Verdict};
use tollfree_wire::header::{FLAG_CANCEL, HEADER_LEN, Header, METHOD_CONTROL};
use tollfree_wire::session::Guard;
use tollfree_wire::spec::MethodSpec;
use tollfree_wire::tag::tag;
use tollfree_wire::{Code, Cursor, Kind, Packet};
use zerocopy::IntoBytes;

const FOREVER: u64 = u64::MAX;

fn config() -> Config {
    Config { idle_ms: 20_000, dead_ns: 3_000 * MS, ..Config::default() }
}

fn pair() -> World {
    World::new(1, 2, Network::default(), config())
}

/// Loses the first `count` packets of a kind.
fn lose(world: &mut World, kind: Kind, mut count: usize) {
    world.filter = Box::new(move |_, packet| {
        let lost = packet.kind == kind && count > 0;
        count -= usize::from(lost);
        !lost
    });
}

fn sent(world: &World, kind: Kind) -> u64 {
    world.sent.get(&kind).copied().unwrap_or(0)
}

/// A world in which a session is up.
fn connected() -> World {
    let mut world = pair();
    let uid = world.call(0, 1, 10, 10, FOREVER);
    world.run_for(10 * MS);
    assert_eq!(world.status(uid), Some(Code::Ok));
    world.sent.clear();
    world
}

#[test]
fn a_small_call_is_two_packets() {
    let mut world = connected();
    let uid = world.call(0, 1, 64, 64, FOREVER);
    world.run_for(5_000 * MS);
    assert_eq!(world.status(uid), Some(Code::Ok));
    assert_eq!(world.sent.values().sum::<u64>(), 2, "{:?}", world.sent);
}

#[test]
fn calls_to_several_servers_leave_from_several_ports_and_to_one_server_from_one() {
    let mut world = World::new(1, 9, Network::default(), Config { ports: 16, ..config() });
    let ports = |world: &World| -> Vec<u16> {
        let guards = |server: usize| world.hosts[server].guards.values();
        (1..9)
            .map(|server| guards(server).next().expect("a session").peer_port - world.hosts[0].peer.port)
            .collect()
    };
    let calls = |world: &mut World| {
        let calls: Vec<u64> = (1..9).map(|server| world.call(0, server, 10, 5_000, FOREVER)).collect();
        world.run_for(10 * MS);
        assert!(calls.iter().all(|uid| world.status(*uid) == Some(Code::Ok)));
    };
    calls(&mut world);
    let first = ports(&world);
    assert!(first.iter().all(|port| *port < 16));
    assert!(first.iter().collect::<HashSet<_>>().len() > 4, "{first:?}");

    // The servers know who it is by address and port: a new session is to be the same host's.
    for server in 1..9 {
        world.crash(server);
        world.start(server);
    }
    calls(&mut world);
    assert_eq!(ports(&world), first);
}

#[test]
fn a_session_takes_two_round_trips() {
    let mut world = pair();
    world.call(0, 1, 0, 0, FOREVER);
    world.run_for(10 * MS);
    let count = |kind| sent(&world, kind);
    assert_eq!((count(Kind::Hello), count(Kind::Challenge), count(Kind::Welcome)), (2, 1, 1));
}

#[test]
fn a_lost_request_is_sent_again() {
    let mut world = connected();
    lose(&mut world, Kind::Request, 3);
    let uid = world.call(0, 1, 64, 64, FOREVER);
    world.run_for(1_000 * MS);
    assert_eq!(world.status(uid), Some(Code::Ok));
    assert_eq!(sent(&world, Kind::Request), 4);
}

#[test]
fn a_lost_response_is_answered_from_the_cache() {
    let mut world = connected();
    lose(&mut world, Kind::Response, 2);
    let uid = world.call(0, 1, 64, 900, FOREVER);
    world.run_for(1_000 * MS);
    assert_eq!(world.status(uid), Some(Code::Ok), "and the world checks that the handler ran once");
    assert_eq!(world.transport(1).counters().replies_repeated, 2);
}

#[test]
fn a_lost_short_response_to_a_long_request_is_asked_for_soon() {
    let mut world = connected();
    world.call(0, 1, 64 << 10, 64, FOREVER);
    world.run_for(50 * MS);
    world.hosts[1].handler = MS..2 * MS; // so that the ack of the request goes ahead
    lose(&mut world, Kind::Response, 1);
    let uid = world.call(0, 1, 64 << 10, 64, FOREVER);
    world.run_for(20 * MS);
    assert_eq!(world.status(uid), Some(Code::Ok), "long before a slow handler is asked after");
}

#[test]
fn a_slow_handler_is_asked_after_slowly_and_never_run_again() {
    let mut world = connected();
    world.hosts[1].handler = 8_000 * MS..8_001 * MS;
    let uid = world.call(0, 1, 64, 64, FOREVER);
    world.run_for(10_000 * MS);
    assert_eq!(world.status(uid), Some(Code::Ok), "although it took longer than a dead peer is waited for");
    assert!(sent(&world, Kind::Request) < 40, "{:?}", world.sent);
    assert!(sent(&world, Kind::Ack) > 20, "{:?}", world.sent);
}

#[test]
fn a_deadline_ends_the_call_here_and_frees_the_server() {
    let mut world = connected();
    world.hosts[1].handler = 500 * MS..501 * MS;
    let deadline = world.now + 50 * MS;
    let uid = world.call(0, 1, 64, 64, deadline);
    world.run_for(100 * MS);
    let ended = &world.ended[&uid];
    assert_eq!((ended.at, ended.status), (deadline, Code::DeadlineExceeded));
    assert!(matches!(ended.verdict, Verdict::Transport(_)));
    assert_eq!(world.hosts[1].cancelled, 1);
}

#[test]
fn an_expired_request_is_not_delivered() {
    let mut world = connected();
    // Nothing but the time under way uses up the budget: what arrives with nothing left is not started.
    let deadline = world.now + 500;
    let uid = world.call(0, 1, 64, 64, deadline);
    world.run_for(100 * MS);
    assert_eq!(world.status(uid), Some(Code::DeadlineExceeded));
    assert!(!world.ran.contains(&uid));
    assert_eq!(world.transport(1).counters().requests_expired, 1);
}

#[test]
fn a_deadline_runs_while_the_call_waits_for_a_session() {
    let mut world = pair();
    world.crash(1);
    let deadline = world.now + 70 * MS;
    let uid = world.call(0, 1, 64, 64, deadline);
    world.run_for(100 * MS);
    assert_eq!((world.ended[&uid].at, world.status(uid)), (deadline, Some(Code::DeadlineExceeded)));
}

#[test]
fn a_cancelled_call_has_no_event_and_its_handler_is_told() {
    let mut world = connected();
    world.hosts[1].handler = 500 * MS..501 * MS;
    let uid = world.call(0, 1, 64, 64, FOREVER);
    world.run_for(5 * MS);
    world.cancel(0, uid);
    world.run_for(5 * MS);
    assert_eq!((world.status(uid), world.hosts[1].cancelled), (None, 1));
    world.assert_nothing_left();
}

#[test]
fn a_lost_cancellation_is_made_good_by_the_next_call_in_the_slot() {
    let mut world = connected();
    world.hosts[1].handler = 500 * MS..501 * MS;
    let uid = world.call(0, 1, 64, 64, FOREVER);
    world.run_for(5 * MS);
    world.filter = Box::new(|_, packet| packet.header.flags & FLAG_CANCEL == 0);
    world.cancel(0, uid);
    world.run_for(5 * MS);
    assert_eq!(world.hosts[1].cancelled, 0);
    world.call(0, 1, 64, 64, FOREVER);
    world.run_for(5 * MS);
    assert_eq!(world.hosts[1].cancelled, 1);
}

#[test]
fn a_long_reply_that_nobody_waits_for_ends_although_the_cancellation_was_lost() {
    let mut world = connected();
    let uid = world.call(0, 1, 64, 4 << 20, FOREVER);
    world.run_for(MS / 2);
    assert!(sent(&world, Kind::Response) > 0 && world.status(uid).is_none(), "{:?}", world.sent);
    world.filter = Box::new(|_, packet| packet.header.flags & FLAG_CANCEL == 0);
    world.cancel(0, uid);
    world.run_for(100 * MS);
    assert!(world.hosts[1].held.is_empty(), "its client says that it wants no more of it");
    assert_eq!(world.transport(1).held().in_flight, 0);
}

#[test]
fn a_cancellation_that_overtakes_its_request_stops_it() {
    let mut world = connected();
    let cancelled = Rc::new(RefCell::new(false));
    let seen = cancelled.clone();
    world.filter = Box::new(move |_, packet| {
        *seen.borrow_mut() |= packet.header.flags & FLAG_CANCEL != 0;
        packet.kind != Kind::Request || *seen.borrow()
    });
    let uid = world.call(0, 1, 64, 64, FOREVER);
    world.run_for(MS);
    world.cancel(0, uid);
    world.run_for(100 * MS);
    assert!(*cancelled.borrow() && !world.ran.contains(&uid));
}

#[test]
fn a_restarted_server_is_noticed_and_a_call_sent_once_succeeds() {
    let mut world = connected();
    world.crash(1);
    world.start(1);
    let uid = world.call(0, 1, 64, 64, FOREVER);
    world.run_for(100 * MS);
    assert_eq!(world.status(uid), Some(Code::Ok));
    assert_eq!(world.transport(0).counters().resets_believed, 1);
    assert_eq!(world.transport(0).sessions().count(), 1);
}

#[test]
fn a_call_that_may_have_run_before_the_restart_is_not_sent_again() {
    let mut world = connected();
    world.hosts[1].handler = 500 * MS..501 * MS;
    let uid = world.call(0, 1, 64, 64, FOREVER);
    world.run_for(30 * MS);
    assert!(world.ran.contains(&uid));
    world.crash(1);
    world.start(1);
    world.run_for(2_000 * MS);
    assert_eq!(world.status(uid), Some(Code::Unavailable));
}

#[test]
fn a_forged_reset_is_not_believed() {
    let mut world = connected();
    world.hosts[1].handler = 50 * MS..51 * MS;
    let uid = world.call(0, 1, 64, 64, FOREVER);
    world.run_for(5 * MS);
    for call in 0..3 {
        for sequence in 0..5 {
            let header = Header {
                flags: tollfree_wire::header::FLAG_RESET,
                call: call << 8,
                sequence,
                tag: 0x1234,
                ..Header::new(Kind::Close)
            };
            world.deliver(1, 0, header.as_bytes());
        }
    }
    assert_eq!(world.transport(0).counters().resets_believed, 0);
    world.run_for(100 * MS);
    assert_eq!(world.status(uid), Some(Code::Ok));
}

#[test]
fn a_reset_that_an_altered_copy_provoked_is_not_believed() {
    let mut world = connected();
    let seen: Rc<RefCell<Option<Header>>> = Rc::default();
    let keep = seen.clone();
    world.filter = Box::new(move |_, packet| {
        if packet.kind == Kind::Request {
            *keep.borrow_mut() = Some(packet.header);
        }
        true
    });
    world.hosts[1].handler = 10 * MS..11 * MS;
    let uid = world.call(0, 1, 0, 64, FOREVER);
    world.run_for(MS);
    let mut altered = seen.borrow().expect("a request");
    (altered.session, altered.flat_len) = (altered.session ^ 0x100, 0);
    world.deliver(0, 1, altered.as_bytes());
    world.run_for(100 * MS);
    assert_eq!(world.transport(1).counters().resets_sent, 1);
    assert_eq!(world.transport(0).counters().resets_believed, 0);
    assert_eq!(world.status(uid), Some(Code::Ok));
}

#[test]
fn a_restarted_client_ends_what_its_previous_life_began() {
    let mut world = connected();
    world.hosts[1].handler = 5_000 * MS..5_001 * MS;
    world.call(0, 1, 64, 64, FOREVER);
    world.run_for(5 * MS);
    world.crash(0);
    world.start(0);
    world.call(0, 1, 64, 64, FOREVER);
    world.run_for(5 * MS);
    assert_eq!(world.hosts[1].cancelled, 1);
    assert_eq!(world.transport(1).sessions().count(), 1);
}

#[test]
fn a_restarted_peer_that_calls_us_ends_our_calls_to_its_previous_life() {
    let mut world = connected();
    world.hosts[1].handler = 5_000 * MS..5_001 * MS;
    let uid = world.call(0, 1, 64, 64, FOREVER);
    world.run_for(5 * MS);
    world.crash(1);
    world.start(1);
    world.call(1, 0, 64, 64, FOREVER);
    world.run_for(2 * MS);
    assert_eq!(world.status(uid), Some(Code::Unavailable), "at once, not after the next probe");
}

#[test]
fn a_dead_peer_ends_calls_in_time() {
    let mut world = connected();
    world.hosts[1].transport = None;
    let before = world.now;
    let sent = world.call(0, 1, 64, 64, FOREVER);
    world.run_for(10_000 * MS);
    let connecting = world.call(0, 1, 64, 64, FOREVER);
    let later = world.now;
    world.run_for(10_000 * MS);
    for (uid, since) in [(sent, before), (connecting, later)] {
        let ended = &world.ended[&uid];
        assert_eq!(ended.status, Code::Unavailable);
        assert!(
            ended.at - since >= 3_000 * MS && ended.at - since < 5_000 * MS,
            "{} ms",
            (ended.at - since) / MS
        );
    }
}

#[test]
fn a_server_that_says_goodbye_ends_calls_at_once() {
    let mut world = connected();
    world.hosts[1].handler = 500 * MS..501 * MS;
    let uid = world.call(0, 1, 64, 64, FOREVER);
    world.run_for(5 * MS);
    let now = world.now;
    world.transport(1).close_all(now);
    world.run_for(MS);
    assert_eq!(world.status(uid), Some(Code::Unavailable));
}

#[test]
fn idle_sessions_are_closed_by_the_client_first_and_by_the_server_in_the_end() {
    let mut world = connected();
    world.run_for(14_900 * MS);
    assert_eq!(world.transport(0).sessions().count(), 1);
    world.run_for(200 * MS);
    assert_eq!((world.transport(0).sessions().count(), world.transport(1).sessions().count()), (0, 0));
    world.call(0, 1, 1, 1, FOREVER);
    world.run_for(MS);
    world.crash(0);
    world.run_for(19_000 * MS);
    assert_eq!(world.transport(1).sessions().count(), 1);
    world.run_for(2_000 * MS);
    assert_eq!(world.transport(1).sessions().count(), 0);
}

#[test]
fn more_calls_than_slots_wait_their_turn() {
    let mut world = connected();
    world.hosts[1].handler = MS..2 * MS;
    let uids: Vec<u64> = (0..1000).map(|_| world.call(0, 1, 64, 64, FOREVER)).collect();
    let mut most = 0;
    for _ in 0..1000 {
        world.run_for(MS / 10);
        most = most.max(world.hosts[1].running.len());
    }
    assert!(uids.iter().all(|uid| world.status(*uid) == Some(Code::Ok)));
    assert!((200..=256).contains(&most), "{most} at once");
}

#[test]
fn a_megabyte_each_way_survives_ten_percent_loss() {
    let network = Network { lost: 0.1, repeated: 0.02, delay: 50_000..500_000, ..Network::default() };
    let mut world = World::new(7, 2, network, config());
    let uid = world.call(0, 1, 1 << 20, 1 << 20, FOREVER);
    world.run_for(60_000 * MS);
    assert_eq!(world.status(uid), Some(Code::Ok), "{:?}", world.ended.get(&uid));
    world.assert_nothing_left();
}

#[test]
fn the_longest_message_arrives() {
    let mut world = pair();
    let longest = tollfree_wire::header::MESSAGE_MAX as usize;
    let uid = world.call(0, 1, longest, longest, FOREVER);
    let over = world.call(0, 1, longest + 1, 0, FOREVER);
    world.run_for(60_000 * MS);
    assert_eq!(world.status(uid), Some(Code::Ok));
    assert_eq!(world.status(over), Some(Code::ResourceExhausted));
}

#[test]
fn a_reply_over_the_limit_is_a_status() {
    let mut world = pair();
    let over = tollfree_wire::header::MESSAGE_MAX as usize + 1;
    let uid = world.call(0, 1, 10, over, FOREVER);
    world.run_for(1_000 * MS);
    let ended = &world.ended[&uid];
    assert_eq!((ended.status, ended.verdict), (Code::ResourceExhausted, Verdict::Peer { by_engine: true }));
    world.assert_nothing_left();
}

#[test]
fn requests_wait_for_room_to_be_reassembled() {
    let config = Config { reassembly_bytes: 400_000, ..config() };
    let mut world = World::new(3, 2, Network::default(), config);
    let uids: Vec<u64> = (0..8).map(|_| world.call(0, 1, 150_000, 10, FOREVER)).collect();
    world.run_for(30_000 * MS);
    assert!(uids.iter().all(|uid| world.status(*uid) == Some(Code::Ok)), "{:?}", world.ended);
    assert!(world.hosts[1].dropped["reassembly_limit"] > 0);
}

#[test]
fn a_host_has_half_of_the_room_however_many_sessions_it_opens_and_keeps_nobody_else_waiting() {
    let config = Config { reassembly_bytes: 400_000, ..config() };
    let mut world = World::new(3, 3, Network::default(), config);
    world.filter = Box::new(|from, packet| from != 0 || packet.header.fragment < 5);
    for session in 1..4 {
        let (now, timeout_us) = (world.now, session * 60_000_000);
        world.transport(0).set_specs(now, &[(7, MethodSpec { timeout_us, ..MethodSpec::default() })]);
        for _ in 0..2 {
            world.call(0, 2, 90_000, 10, FOREVER);
        }
        world.run_for(20 * MS);
    }
    assert!(world.transport(2).sessions().count() > 1);
    assert_eq!(world.transport(2).held().reassembly_bytes, 180_000);
    let uid = world.call(1, 2, 190_000, 10, FOREVER);
    world.run_for(100 * MS);
    assert_eq!(world.status(uid), Some(Code::Ok));
    world.run_for(15_000 * MS);
    world.assert_nothing_left();
}

#[test]
fn an_ignored_call_looks_lost() {
    let mut world = connected();
    world.hosts[1].handler = 1_000 * MS..1_001 * MS;
    let uid = world.call(0, 1, 64, 64, FOREVER);
    world.run_for(MS);
    let running = world.hosts[1].running.pop().expect("it arrived");
    world.transport(1).ignore(running.call);
    world.run_for(10_000 * MS);
    assert_eq!(world.status(uid), Some(Code::Unavailable));
}

/// The key of host 0's session with host 1, as an XDP program at host 1 would know it.
fn open_with_guard(world: &mut World) -> Guard {
    let now = world.now;
    let peer = world.hosts[1].peer;
    let call = tollfree_transport::NewCall {
        method: METHOD_CONTROL,
        layout: 0,
        flat: &[],
        metadata: false,
        body_len: 0,
        deadline_ns: FOREVER,
        token: u64::MAX,
    };
    // Both ends by hand, so that the session's opening is seen.
    let mut guard = None;
    let mut packets: Vec<(usize, Vec<u8>)> = Vec::new();
    world.transport(0).call(now, peer, call);
    for _ in 0..6 {
        for host in 0..2 {
            for change in world.transport(host).session_changes() {
                if let (1, SessionChange::Opened(opened, _)) = (host, change) {
                    guard = Some(opened);
                }
            }
            world.transport(host).transmit(now, &mut |packet| {
                let mut bytes = packet.header.as_bytes().to_vec();
                if let tollfree_transport::Body::Inline(body) = packet.body {
                    bytes.extend_from_slice(body);
                }
                if packet.header.kind != Kind::Request as u8 {
                    packets.push((host, bytes));
                }
                Ok(())
            });
        }
        for (from, bytes) in packets.drain(..) {
            world.deliver(from, 1 - from, &bytes);
        }
    }
    guard.expect("a session")
}

#[test]
fn a_drivers_reject_ends_the_call_with_its_verdict() {
    let mut world = pair();
    let guard = open_with_guard(&mut world);
    let mut reject = Header {
        session: guard.peer_index,
        call: 256,
        sequence: 1,
        status: Code::PermissionDenied as u8,
        ..Header::new(Kind::Reject)
    };
    let peer = world.hosts[1].peer;
    let now = world.now;
    let deliver = |world: &mut World, header: &Header| {
        let mut got = Vec::new();
        let outcome = world.transport(0).receive(now, peer, header.as_bytes(), &mut |event| {
            if let Event::Response { token, status, verdict, .. } = event {
                got.push((token, status, verdict));
            }
        });
        (outcome.is_ok(), got)
    };
    assert_eq!(deliver(&mut world, &reject), (false, vec![]), "without its tag");
    reject.tag = tag(guard.key, &reject, Cursor::new(&[])).expect("no flat block");
    assert_eq!(
        deliver(&mut world, &reject),
        (true, vec![(u64::MAX, Code::PermissionDenied, Verdict::Driver)])
    );
    assert_eq!(deliver(&mut world, &reject), (false, vec![]), "once");
}

#[test]
fn a_drivers_answer_has_a_flat_block_and_its_refusal_a_text() {
    let long = [b'x'; 136];
    for (status, len, flat, expected) in [
        (Code::Ok, 5, &b"known\0\0\0"[..], (Code::Ok, 9, &b"known"[..], &b""[..])),
        (Code::Aborted, 5, b"known\0\0\0", (Code::Aborted, 0, b"", b"known")),
        (Code::Aborted, 128, &long[..128], (Code::Aborted, 0, b"", &long[..128])),
        // Hostile: neither is taken for a text.
        (Code::Aborted, 129, &long, (Code::Aborted, 0, b"", b"")),
        (Code::Aborted, 2, b"\xff\xfe\0\0\0\0\0\0", (Code::Aborted, 0, b"", b"")),
    ] {
        let mut world = pair();
        let guard = open_with_guard(&mut world);
        let mut answer = Header {
            session: guard.peer_index,
            call: 256,
            sequence: 1,
            status: status as u8,
            flat_len: len,
            layout: 9,
            ..Header::new(Kind::Reject)
        };
        answer.tag = tag(guard.key, &answer, Cursor::new(flat)).expect("padded");
        let (now, peer) = (world.now, world.hosts[1].peer);
        let mut deliver = |flat: &[u8]| {
            let mut got = Vec::new();
            let packet = [answer.as_bytes(), flat].concat();
            let outcome = world.transport(0).receive(now, peer, &packet, &mut |event| {
                if let Event::Response { status, layout, flat, body, verdict: Verdict::Driver, .. } = event {
                    got.push((status, layout, flat.to_vec(), body.to_vec()));
                }
            });
            (outcome.is_ok(), got)
        };
        let mut other = flat.to_vec();
        other[0] ^= 1;
        assert_eq!(deliver(&other), (false, vec![]), "the tag covers it");
        let (status, layout, block, body) = expected;
        assert_eq!(deliver(flat), (true, vec![(status, layout, block.to_vec(), body.to_vec())]));
        assert_eq!(deliver(flat), (false, vec![]), "once");
    }
}

#[test]
fn replayed_spoofed_and_altered_packets_are_refused_by_name() {
    let mut world = connected();
    let kept: Rc<RefCell<Vec<Vec<u8>>>> = Rc::default();
    let keep = kept.clone();
    world.filter = Box::new(move |from, packet| {
        if from == 0 && packet.kind == Kind::Request {
            let mut bytes = packet.header.as_bytes().to_vec();
            bytes.extend_from_slice(packet.flat_padded);
            bytes.extend_from_slice(packet.body);
            keep.borrow_mut().push(bytes);
        }
        true
    });
    world.call(0, 1, 64, 64, FOREVER);
    world.run_for(MS);
    let request = kept.borrow()[0].clone();
    world.deliver(0, 1, &request);
    assert_eq!(world.hosts[1].dropped["replayed"], 1);
    world.deliver(1, 1, &request);
    assert_eq!(world.hosts[1].dropped["wrong_peer"], 1);
    for byte in 0..HEADER_LEN + 8 {
        let mut altered = request.clone();
        altered[byte] ^= 0x10;
        world.deliver(0, 1, &altered);
    }
    assert!(world.hosts[1].dropped["bad_tag"] > 20, "{:?}", world.hosts[1].dropped);
    assert_eq!(world.ran.len(), 2);
}

#[test]
fn another_secret_gets_no_session() {
    let mut world = pair();
    world.config.psk = b"other".to_vec();
    world.start(0);
    let uid = world.call(0, 1, 64, 64, FOREVER);
    world.run_for(5_000 * MS);
    assert_eq!(world.status(uid), Some(Code::Unavailable));
    assert_eq!(world.transport(1).held().sessions, 0);
    assert!(world.hosts[1].dropped["bad_handshake"] > 0);
}

#[test]
fn patterns_differ() {
    assert_ne!(pattern(1, 9), pattern(2, 9));
    assert!(Packet::decode(&pattern(3, 80)).is_err());
}
