//! Calls about which a peer says nothing, though it is alive: they end, and keep nobody behind them waiting.

use tollfree_simulator::{MS, Network, World};
use tollfree_transport::{Config, Verdict};
use tollfree_wire::spec::{Class, MethodSpec};
use tollfree_wire::{Code, Kind};

const FOREVER: u64 = u64::MAX;
const DEAD: u64 = 3_000 * MS;
const ORDERED: MethodSpec = MethodSpec { class: Class::Reliable, ordered: true, ..MethodSpec::UNRELIABLE };

fn config() -> Config {
    Config { idle_ms: 20_000, dead_ns: DEAD, ..Config::default() }
}

/// A world in which a session is up.
fn connected(config: Config, spec: Option<MethodSpec>) -> World {
    let mut world = World::new(1, 2, Network::default(), config);
    if let Some(spec) = spec {
        world.carry(spec);
    }
    let uid = world.call(0, 1, 10, 10, FOREVER);
    world.run_for(10 * MS);
    assert_eq!(world.status(uid), Some(Code::Ok));
    world
}

/// Later fragments of requests are lost from now on.
fn lose_later_fragments(world: &mut World) {
    world.filter = Box::new(|_, packet| packet.kind != Kind::Request || packet.header.fragment < 5);
}

#[test]
fn a_request_that_the_server_gives_up_ends_by_its_word() {
    let mut world = connected(config(), None);
    lose_later_fragments(&mut world);
    let uid = world.call(0, 1, 100_000, 10, FOREVER);
    world.run_for(DEAD + 10 * MS);
    let ended = &world.ended[&uid];
    assert_eq!((ended.status, ended.verdict), (Code::Unavailable, Verdict::Peer { by_engine: true }));
    assert!(!world.ran.contains(&uid));
    world.assert_nothing_left();
}

#[test]
fn a_call_of_which_nothing_is_heard_ends_although_others_are_answered() {
    let mut world = connected(config(), None);
    // So many that they wait for each other's turn on a path that seems to take nothing.
    let silent: Vec<u64> = (0..200).map(|_| world.call(0, 1, 100_000, 10, FOREVER)).collect();
    world.filter = Box::new(|_, packet| packet.kind != Kind::Request || packet.header.fragments == 1);
    for _ in 0..200 {
        let uid = world.call(0, 1, 64, 64, FOREVER);
        world.run_for(100 * MS);
        assert_eq!(world.status(uid), Some(Code::Ok));
    }
    // One after the other, as each has its turns.
    let ended: Vec<Code> = silent.iter().filter_map(|uid| world.status(*uid)).collect();
    assert!(!ended.is_empty() && ended.iter().all(|status| *status == Code::Unavailable), "{ended:?}");
}

#[test]
fn an_ordered_call_that_its_server_gives_up_lets_the_next_go_on() {
    let mut world = connected(config(), Some(ORDERED));
    lose_later_fragments(&mut world);
    let lost = world.call(0, 1, 100_000, 10, FOREVER);
    let next = world.call(0, 1, 64, 64, FOREVER);
    world.run_for(DEAD - 100 * MS);
    assert_eq!((world.status(lost), world.status(next)), (None, None));
    world.run_for(110 * MS);
    assert_eq!((world.status(lost), world.status(next)), (Some(Code::Unavailable), Some(Code::Ok)));
}

#[test]
fn an_ordered_call_that_is_refused_before_its_turn_lets_the_next_go_on() {
    let mut world = connected(Config { reassembly_bytes: 100_000, ..config() }, Some(ORDERED));
    let refused = world.call(0, 1, 60_000, 10, FOREVER);
    let next = world.call(0, 1, 64, 64, FOREVER);
    world.run_for(5 * MS);
    assert_eq!(world.status(refused), Some(Code::ResourceExhausted));
    assert_eq!(world.status(next), Some(Code::Ok));
}

#[test]
fn calls_that_were_never_sent_do_not_take_turns_at_a_silent_peer() {
    let mut world = connected(config(), None);
    // Long ones, of which the network takes ever less: most never come to be sent.
    world.filter = Box::new(|_, _| false);
    let uids: Vec<u64> = (0..130).map(|_| world.call(0, 1, 1 << 20, 10, FOREVER)).collect();
    world.run_for(4 * DEAD);
    let ended = uids.iter().filter(|uid| world.status(**uid) == Some(Code::Unavailable)).count();
    assert_eq!(ended, uids.len(), "of so many calls");
    world.assert_nothing_left();
}
