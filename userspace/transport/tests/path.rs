//! How long packets get on paths that carry more, less, or suddenly less than an Ethernet does.

use std::cell::Cell;
use std::rc::Rc;
use tollfree_simulator::{MS, Network, World};
use tollfree_transport::Config;
use tollfree_wire::Code;
use tollfree_wire::header::HEADER_LEN;

/// A path between two hosts that could take 9000 bytes, and what it carries of them. Packets longer than that get lost.
fn world(carries: usize) -> (World, Rc<Cell<usize>>, Rc<Cell<usize>>) {
    let config = Config { max_payload: 9_000, dead_ns: 3_000 * MS, ..Config::default() };
    let mut world = World::new(5, 2, Network::default(), config);
    let (limit, longest) = (Rc::new(Cell::new(carries)), Rc::new(Cell::new(0)));
    let (carried, seen) = (limit.clone(), longest.clone());
    world.filter = Box::new(move |_, packet| {
        let length = HEADER_LEN + packet.flat_padded.len() + packet.body.len();
        let passes = length <= carried.get();
        if passes {
            seen.set(length.max(seen.get()));
        }
        passes
    });
    (world, limit, longest)
}

/// Lets a long call go each way; they must succeed.
fn exchange(world: &mut World) {
    for (from, to) in [(0, 1), (1, 0)] {
        let uid = world.call(from, to, 50_000, 50_000, u64::MAX);
        world.run_for(100 * MS);
        assert_eq!(world.status(uid), Some(Code::Ok), "{:?}", world.ended.get(&uid));
    }
}

#[test]
fn packets_get_as_long_as_the_path_carries() {
    for (carries, least) in [(9_000, 9_000), (4_000, 3_900), (1_472, 1_400)] {
        let (mut world, _, longest) = world(carries);
        for _ in 0..40 {
            exchange(&mut world);
        }
        longest.set(0);
        world.sent.clear();
        exchange(&mut world);
        assert!((least..=carries).contains(&longest.get()), "{carries}: {}", longest.get());
        world.assert_nothing_left();
    }
}

#[test]
fn calls_survive_a_path_that_carries_less_all_of_a_sudden() {
    for (body_len, reply_len) in
        [(50_000, 50_000), (3_000, 10), (10, 3_000), (3_000, 3_000), (4 << 20, 10), (10, 4 << 20)]
    {
        let (mut world, limit, longest) = world(9_000);
        exchange(&mut world);
        exchange(&mut world);
        assert_eq!(longest.get(), 9_000);
        let uid = world.call(0, 1, body_len, reply_len, u64::MAX);
        world.run_for(MS); // some of a long message has arrived
        limit.set(1_500);
        let next = world.call(0, 1, body_len, reply_len, u64::MAX);
        world.run_for(2_500 * MS);
        for uid in [uid, next] {
            let ended = world.ended.get(&uid);
            assert_eq!(world.status(uid), Some(Code::Ok), "{body_len}, {reply_len}: {ended:?}");
        }
        exchange(&mut world);
        world.assert_nothing_left();
    }
}

#[test]
fn short_calls_that_go_through_do_not_hide_that_long_packets_do_not() {
    let (mut world, limit, _) = world(9_000);
    exchange(&mut world);
    exchange(&mut world);
    limit.set(1_500);
    let uid = world.call(0, 1, 50_000, 0, u64::MAX);
    for _ in 0..500 {
        world.call(0, 1, 10, 10, u64::MAX);
        world.run_for(MS);
    }
    assert_eq!(world.status(uid), Some(Code::Ok), "{:?}", world.ended.get(&uid));
}
