//! How methods are carried: one test per promise of a transport block, and of agreeing on one.

use tollfree_simulator::{MS, Network, World};
use tollfree_transport::{Config, Verdict};
use tollfree_wire::spec::MethodSpec;
use tollfree_wire::{Code, Kind};

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
