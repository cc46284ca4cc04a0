//! How methods are carried: one test per promise of a transport block, and of agreeing on one.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use tollfree_simulator::{MS, Network, Random, World};
use tollfree_transport::{Config, Verdict};
use tollfree_wire::header::HEADER_LEN;
use tollfree_wire::spec::MethodSpec;
use tollfree_wire::{Code, Kind};
use zerocopy::IntoBytes;

/// What every call of the simulated world calls.
const METHOD: u32 = 7;
const FOREVER: u64 = u64::MAX;
const UNRELIABLE: MethodSpec = MethodSpec::UNRELIABLE;
const RELIABLE: MethodSpec = MethodSpec { class: tollfree_wire::spec::Class::Reliable, ..UNRELIABLE };

fn config() -> Config {
    Config { idle_ms: 20_000, dead_ns: 3_000 * MS, ..Config::default() }
}

/// Sets a host's transport block.
fn set(world: &mut World, host: usize, spec: MethodSpec) {
    let now = world.now;
    world.transport(host).set_specs(now, &[(METHOD, spec)]);
}

/// A world in which `spec` has been agreed on and a session is up.
fn connected(spec: MethodSpec) -> World {
    let mut world = World::new(1, 2, Network::default(), config());
    set(&mut world, 0, spec);
    set(&mut world, 1, spec);
    let uid = world.call(0, 1, 10, 10, FOREVER);
    world.run_for(10 * MS);
    assert_eq!(world.status(uid), Some(Code::Ok));
    world.sent.clear();
    world
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

#[test]
fn an_unreliable_call_is_two_packets_and_never_more() {
    let mut world = connected(UNRELIABLE);
    let uid = world.call(0, 1, 64, 64, FOREVER);
    world.run_for(5_000 * MS);
    assert_eq!(world.status(uid), Some(Code::Ok));
    assert_eq!(world.sent.values().sum::<u64>(), 2, "{:?}", world.sent);

    world.sent.clear();
    world.hosts[1].handler = 1_000 * MS..1_001 * MS;
    let uid = world.call(0, 1, 64, 64, FOREVER);
    world.run_for(2_000 * MS);
    assert_eq!(world.status(uid), Some(Code::Ok), "a slow handler is waited for, not asked after");
    assert_eq!(world.sent.values().sum::<u64>(), 2, "{:?}", world.sent);
}

#[test]
fn what_an_unreliable_call_loses_stays_lost() {
    for kind in [Kind::Request, Kind::Response] {
        let mut world = connected(UNRELIABLE);
        lose(&mut world, kind, 1);
        let deadline = world.now + 100 * MS;
        let lost = world.call(0, 1, 64, 64, deadline);
        let without_deadline = world.now;
        world.run_for(200 * MS);
        assert_eq!((world.ended[&lost].at, world.status(lost)), (deadline, Some(Code::DeadlineExceeded)));
        assert_eq!(world.transport(0).counters().packets_resent, 0);
        assert_eq!(world.transport(1).counters().replies_repeated, 0);

        lose(&mut world, kind, 1);
        let lost = world.call(0, 1, 64, 64, FOREVER);
        world.run_for(10 * MS);
        let next = world.call(0, 1, 64, 64, FOREVER);
        world.run_for(6_000 * MS);
        assert_eq!(world.status(next), Some(Code::Ok));
        let ended = &world.ended[&lost];
        assert_eq!(ended.status, Code::Unavailable);
        assert!(ended.at >= without_deadline + 3_000 * MS, "as long as a dead peer is waited for");
        world.run_for(30_000 * MS);
        world.assert_nothing_left();
    }
}

#[test]
fn a_repeated_unreliable_request_runs_once() {
    let mut world = connected(UNRELIABLE);
    world.network.repeated = 1.0;
    let uids: Vec<u64> = (0..50).map(|_| world.call(0, 1, 64, 64, FOREVER)).collect();
    // The world itself fails when a handler runs twice.
    world.run_for(1_000 * MS);
    assert!(uids.iter().all(|uid| world.status(*uid) == Some(Code::Ok)));
    assert!(world.hosts[1].dropped["replayed"] > 0, "{:?}", world.hosts[1].dropped);
}

#[test]
fn a_longer_unreliable_message_is_sent_at_once_and_a_long_one_refused() {
    let mut world = connected(UNRELIABLE);
    world.network.delay = 50_000..50_001;
    let uid = world.call(0, 1, 30_000, 30_000, FOREVER);
    world.run_for(10 * MS);
    assert_eq!(world.status(uid), Some(Code::Ok));
    assert_eq!(sent(&world, Kind::Ack), 0, "{:?}", world.sent);
    let too_long = world.call(0, 1, 60_000, 10, FOREVER);
    let answered_too_long = world.call(0, 1, 10, 60_000, FOREVER);
    world.run_for(100 * MS);
    assert_eq!(world.status(too_long), Some(Code::ResourceExhausted));
    let ended = &world.ended[&answered_too_long];
    assert_eq!((ended.status, ended.verdict), (Code::ResourceExhausted, Verdict::Peer { by_engine: true }));
    world.run_for(30_000 * MS);
    world.assert_nothing_left();
}

#[test]
fn an_unreliable_call_notices_a_server_that_restarted() {
    let mut world = connected(UNRELIABLE);
    world.crash(1);
    world.start(1);
    let lost = world.call(0, 1, 64, 64, FOREVER);
    world.run_for(100 * MS);
    assert_eq!(world.status(lost), Some(Code::Unavailable), "it is not sent again");
    let next = world.call(0, 1, 64, 64, FOREVER);
    world.run_for(100 * MS);
    assert_eq!(world.status(next), Some(Code::Ok));
}

#[test]
fn one_ends_block_is_enough_and_the_stronger_of_two_is_agreed_on() {
    let cases = [
        (Some(UNRELIABLE), None, true),
        (None, Some(UNRELIABLE), true),
        (Some(UNRELIABLE), Some(UNRELIABLE), true),
        (Some(UNRELIABLE), Some(RELIABLE), false),
        (Some(RELIABLE), Some(UNRELIABLE), false),
        (None, None, false),
    ];
    for (client, server, unreliable) in cases {
        let mut world = World::new(1, 2, Network::default(), config());
        for (host, spec) in [(0, client), (1, server)] {
            if let Some(spec) = spec {
                set(&mut world, host, spec);
            }
        }
        world.call(0, 1, 10, 10, FOREVER);
        world.run_for(10 * MS);
        lose(&mut world, Kind::Request, 1);
        let deadline = world.now + 500 * MS;
        let uid = world.call(0, 1, 10, 10, deadline);
        world.run_for(600 * MS);
        let expected = if unreliable { Code::DeadlineExceeded } else { Code::Ok };
        assert_eq!(world.status(uid), Some(expected), "{client:?} with {server:?}");
    }
}

#[test]
fn a_new_block_takes_effect_on_new_calls_and_those_under_way_end_as_they_began() {
    for changed in [0, 1] {
        let mut world = connected(RELIABLE);
        world.hosts[1].handler = 300 * MS..301 * MS;
        let before = world.call(0, 1, 64, 64, FOREVER);
        world.run_for(10 * MS);
        lose(&mut world, Kind::Response, 1);
        set(&mut world, changed, MethodSpec { timeout_us: 100_000, ..RELIABLE });
        world.run_for(20 * MS);
        let now = world.now;
        let after = world.call(0, 1, 64, 64, FOREVER);
        world.run_for(2_000 * MS);
        assert_eq!(world.status(before), Some(Code::Ok), "carried to its end, a lost response included");
        let ended = &world.ended[&after];
        assert_eq!(ended.status, Code::DeadlineExceeded, "the timeout of the new block");
        assert!(ended.at - now < 110 * MS, "{} ms", (ended.at - now) / MS);
        assert_eq!(world.transport(0).sessions().count(), 1);
        assert_eq!(world.transport(1).sessions().count(), 1, "the old session has been closed in order");
    }
}

#[test]
fn a_timeout_caps_the_deadline_and_no_more() {
    let mut world = connected(MethodSpec { timeout_us: 50_000, ..RELIABLE });
    world.hosts[1].handler = 500 * MS..501 * MS;
    let now = world.now;
    let (long, short) = (world.call(0, 1, 64, 64, FOREVER), world.call(0, 1, 64, 64, now + 20 * MS));
    world.run_for(100 * MS);
    assert_eq!((world.ended[&long].at - now, world.ended[&short].at - now), (50 * MS, 20 * MS));
    assert_eq!(world.status(long), Some(Code::DeadlineExceeded));
    assert_eq!(world.hosts[1].cancelled, 2, "both handlers are told");
}

#[test]
fn a_quiet_call_keeps_its_session() {
    let mut world = connected(UNRELIABLE);
    world.hosts[1].handler = 50_000 * MS..50_001 * MS;
    let deadline = world.now + 100_000 * MS;
    let uid = world.call(0, 1, 64, 64, deadline);
    world.run_for(60_000 * MS);
    assert_eq!(world.status(uid), Some(Code::Ok), "longer than the server lets a session idle");
}

const ORDERED: MethodSpec = MethodSpec { ordered: true, ..RELIABLE };

/// The calls that have run, in the order in which they were delivered.
fn delivered(world: &World, uids: &[u64]) -> Vec<u64> {
    world.delivered.iter().copied().filter(|uid| uids.contains(uid)).collect()
}

#[test]
fn ordered_requests_arrive_in_order_whatever_the_network_does() {
    for seed in 0..20 {
        let network =
            Network { lost: 0.1, repeated: 0.1, delay: 10_000..MS, blocked: 0.1, ..Network::default() };
        let mut world = World::new(seed, 2, network, config());
        set(&mut world, 0, MethodSpec { checksum: seed % 2 == 0, ..ORDERED });
        let mut uids = Vec::new();
        for n in 0..300 {
            uids.push(world.call(0, 1, if n % 17 == 0 { 20_000 } else { 64 }, 64, FOREVER));
            world.run_for(if n % 100 == 0 { 200 * MS } else { 0 });
        }
        world.run_for(60_000 * MS);
        let failed: Vec<_> = uids.iter().filter(|uid| world.status(**uid) != Some(Code::Ok)).collect();
        assert!(failed.is_empty(), "seed {seed}: {failed:?}");
        assert_eq!(delivered(&world, &uids), uids, "seed {seed}");
        world.run_for(30_000 * MS);
        world.assert_nothing_left();
    }
}

#[test]
fn who_waits_behind_a_call_that_never_comes_goes_on_when_it_ends() {
    let mut world = connected(ORDERED);
    let first = world.call(0, 1, 64, 64, FOREVER);
    // The simulated world's layouts are its calls' names.
    world.filter = Box::new(move |_, packet| packet.header.layout != first as u32);
    let behind: Vec<u64> = (0..5).map(|_| world.call(0, 1, 64, 64, FOREVER)).collect();
    world.run_for(100 * MS);
    assert!(delivered(&world, &behind).is_empty(), "they wait");
    world.cancel(0, first);
    world.run_for(MS);
    assert!(!world.ran.contains(&first));
    assert!(
        behind.iter().all(|uid| world.status(*uid) == Some(Code::Ok)),
        "at once, not at the next timeout"
    );
    assert_eq!(delivered(&world, &behind), behind);
    world.run_for(30_000 * MS);
    world.assert_nothing_left();
}

#[test]
fn unordered_calls_overtake() {
    let mut world = connected(RELIABLE);
    lose(&mut world, Kind::Request, 1);
    let (first, second) = (world.call(0, 1, 64, 64, FOREVER), world.call(0, 1, 64, 64, FOREVER));
    world.run_for(100 * MS);
    assert_eq!(delivered(&world, &[first, second]), [second, first]);
}

#[test]
fn a_corrupt_body_is_as_good_as_lost() {
    for (kind, spec) in [
        (Kind::Request, MethodSpec { checksum: true, ..RELIABLE }),
        (Kind::Response, MethodSpec { checksum: true, ..RELIABLE }),
        (Kind::Request, MethodSpec { checksum: true, ..ORDERED }),
    ] {
        let mut world = connected(spec);
        let kept: Rc<RefCell<Option<Vec<u8>>>> = Rc::default();
        let keep = kept.clone();
        world.filter = Box::new(move |_, packet| {
            if packet.kind != kind || keep.borrow().is_some() {
                return true;
            }
            let mut bytes = packet.header.as_bytes().to_vec();
            bytes.extend_from_slice(packet.flat_padded);
            bytes.extend_from_slice(packet.body);
            *keep.borrow_mut() = Some(bytes);
            false
        });
        let uid = world.call(0, 1, 64, 64, FOREVER);
        world.run_for(MS);
        let mut corrupt = kept.borrow_mut().take().expect("a packet");
        let last = corrupt.len() - 10;
        corrupt[last] ^= 4;
        let (from, to) = if kind == Kind::Request { (0, 1) } else { (1, 0) };
        world.deliver(from, to, &corrupt);
        assert_eq!(world.hosts[to].dropped["bad_checksum"], 1);
        *kept.borrow_mut() = Some(Vec::new());
        world.run_for(500 * MS);
        assert_eq!(world.status(uid), Some(Code::Ok), "sent again");
    }
}

#[test]
fn long_messages_are_checked_fragment_by_fragment() {
    let network = Network { lost: 0.05, delay: 10_000..MS, ..Network::default() };
    let mut world = World::new(3, 2, network, config());
    set(&mut world, 1, MethodSpec { checksum: true, window: 4, ..ORDERED });
    let lengths = [0, 1, 1_300, 1_396, 1_400, 1_404, 1_408, 40_000, 300_000];
    let uids: Vec<u64> = lengths.iter().map(|length| world.call(0, 1, *length, *length, FOREVER)).collect();
    world.run_for(30_000 * MS);
    assert!(uids.iter().all(|uid| world.status(*uid) == Some(Code::Ok)), "{:?}", world.ended);
}

#[test]
fn a_window_bounds_what_is_under_way() {
    for window in [1, 4, 0] {
        let mut world = connected(MethodSpec { window, ..RELIABLE });
        world.network.delay = MS..MS + 1;
        let fragments: Rc<RefCell<BTreeSet<u16>>> = Rc::default();
        let seen = fragments.clone();
        world.filter = Box::new(move |_, packet| {
            if packet.kind == Kind::Request {
                seen.borrow_mut().insert(packet.header.fragment);
            }
            true
        });
        let start = world.now;
        let uid = world.call(0, 1, 60_000, 10, FOREVER);
        // Before anything can have been acknowledged.
        world.run_until(start + MS);
        let first = fragments.borrow().len();
        assert!(if window == 0 { first > 4 } else { first == usize::from(window) }, "{window}: {first}");
        world.run_for(1_000 * MS);
        assert_eq!(world.status(uid), Some(Code::Ok));
    }
}

/// A way of carrying methods, or none said.
fn any_spec(random: &mut Random) -> Option<MethodSpec> {
    let spec = MethodSpec {
        checksum: random.chance(0.3),
        timeout_us: if random.chance(0.2) { 300_000 } else { 0 },
        ..UNRELIABLE
    };
    match random.below(0..4) {
        0 => None,
        1 => Some(spec),
        _ => {
            let window = if random.chance(0.3) { 1 + random.below(0..8) as u16 } else { 0 };
            Some(MethodSpec { class: RELIABLE.class, ordered: random.chance(0.6), window, ..spec })
        }
    }
}

#[test]
fn whatever_is_agreed_on_every_call_ends_once_and_nothing_is_left() {
    for seed in 0..150 {
        let mut random = Random(seed ^ 0xc0de);
        let network = Network {
            lost: if random.chance(0.5) { 0.15 } else { 0.0 },
            repeated: 0.1,
            delay: 10_000..5 * MS,
            blocked: 0.1,
            ..Network::default()
        };
        let mut world = World::new(seed, 2, network, config());
        world.hosts[1].handler = if random.chance(0.5) { 0..1 } else { 0..100 * MS };
        let mut made = Vec::new();
        for _ in 0..random.below(5..60) {
            // Both ends change their minds now and then.
            if random.chance(0.2) {
                let (host, now) = (random.below(0..2) as usize, world.now);
                let specs: Vec<_> = any_spec(&mut random).map(|spec| (METHOD, spec)).into_iter().collect();
                if let Some(transport) = &mut world.hosts[host].transport {
                    transport.set_specs(now, &specs);
                }
            }
            if random.chance(0.03) {
                world.crash(1);
                world.run_for(100 * MS);
                world.start(1);
            }
            let deadline = if random.chance(0.4) { world.now + random.below(1..500 * MS) } else { FOREVER };
            let long = random.chance(0.2);
            let length = random.below(0..if long { 30_000 } else { 200 }) as usize;
            let uid = world.call(0, 1, length, length, deadline);
            world.run_for([0, 200_000, 20 * MS][random.below(0..3) as usize]);
            if random.chance(0.1) {
                world.cancel(0, uid);
            } else {
                made.push(uid);
            }
        }
        world.run_for(60_000 * MS);
        let silent: Vec<_> = made.iter().filter(|uid| world.status(**uid).is_none()).collect();
        assert!(silent.is_empty(), "seed {seed}: {silent:?} never ended");
        world.assert_nothing_left();
    }
}

#[test]
fn a_hello_that_was_altered_under_way_is_refused() {
    let mut world = World::new(1, 2, Network::default(), config());
    let seen: Rc<RefCell<Option<Vec<u8>>>> = Rc::default();
    let keep = seen.clone();
    world.filter = Box::new(move |from, packet| {
        let second = packet.kind == Kind::Hello && packet.body[24..56] != [0; 32];
        if from == 0 && second {
            let mut bytes = packet.header.as_bytes().to_vec();
            bytes.extend_from_slice(packet.body);
            *keep.borrow_mut() = Some(bytes);
        }
        !second
    });
    world.call(0, 1, 1, 1, FOREVER);
    world.run_for(5 * MS);
    let hello = seen.borrow().clone().expect("a hello with a cookie");
    let mut later = hello.clone();
    let versions = HEADER_LEN + 4 + 4 + 16 + 32 + 32 + 4;
    assert_eq!(later[versions..versions + 4], [1, 0, 1, 0]);
    later[versions] = 9;
    later[versions + 2] = 9;
    world.deliver(0, 1, &later);
    assert_eq!(world.hosts[1].dropped["bad_handshake"], 1, "altered under way");
    assert_eq!(world.transport(1).held().sessions, 0);
}
