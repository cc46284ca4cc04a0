//! Worlds of many seeds, as `cargo xtask sim` lives through them, but fewer.

use tollfree_simulator::run::{many, one};
use tollfree_simulator::{Scenario, Settings};

#[test]
fn every_call_ends_once_with_the_right_bytes_and_nothing_leaks() {
    let threads = std::thread::available_parallelism().map_or(1, Into::into);
    let summary = many(0..150, &Settings::default(), threads, &|_| {});
    if let Some(failure) = summary.failure {
        panic!("{}\nreplay with: cargo xtask sim --trace --seed {}", failure.what, failure.seed);
    }
    // A simulation that never gets where it hurts proves nothing.
    let counted = summary.counted;
    let rare =
        [counted.replies_repeated, counted.requests_expired, counted.resets_believed, counted.calls_dead];
    assert!(rare.iter().all(|count| *count > 0), "{counted:?}");
}

/// Worlds in which an ordered call never ended, so that all behind it waited for good: their servers gave up assembling a
/// request that the network let through too slowly, and said nothing.
#[test]
fn worlds_that_were_wrong_once_stay_right() {
    for seed in [3125, 6170] {
        one(seed, &Settings::default(), 0).unwrap_or_else(|failure| panic!("seed {seed}: {}", failure.what));
    }
}

#[test]
fn a_seed_is_a_world() {
    let live = |seed| {
        let mut scenario = Scenario::new(seed, &Settings::default());
        scenario.run();
        (scenario.world.digest, scenario.world.now)
    };
    assert_eq!(live(7), live(7));
    assert_ne!(live(7), live(8));
}

#[test]
fn many_hosts_are_a_world_too() {
    let settings = Settings { hosts: Some(20), loss: Some(0.1), calls: Some(100), ..Settings::default() };
    one(5, &settings, 0).expect("nothing is wrong");
}
