//! Random worlds: hosts call each other over a network that loses, repeats, reorders, delays and corrupts, while
//! hosts crash and come back. `TOLLFREE_SIM_SEEDS` sets how many worlds, `TOLLFREE_SIM_SEED` replays one.

use tollfree_simulator::{MS, Network, Random, World};
use tollfree_transport::{Config, Counters};
use tollfree_wire::Code;

fn config() -> Config {
    Config { idle_ms: 20_000, dead_ns: 3_000 * MS, ..Config::default() }
}

fn network(random: &mut Random) -> Network {
    let longest = [100_000, MS, 10 * MS, 60 * MS][random.below(0..4) as usize];
    match random.below(0..4) {
        0 => Network { delay: 10_000..longest, ..Network::default() },
        1 => Network { lost: random.fraction(0.3), delay: 10_000..longest, ..Network::default() },
        _ => Network {
            lost: random.fraction(0.25),
            repeated: random.fraction(0.2),
            corrupted: random.fraction(0.1),
            delay: 10_000..longest,
            blocked: random.fraction(0.3),
        },
    }
}

fn length(random: &mut Random) -> usize {
    match random.below(0..20) {
        0..8 => random.below(0..200),
        8..14 => random.below(0..3_000),
        14..19 => random.below(0..40_000),
        _ => random.below(0..300_000),
    }
    .try_into()
    .expect("a length")
}

/// Lives through one world; returns what its hosts have counted, in those of their lives that did not crash.
fn world(seed: u64) -> Vec<Counters> {
    let mut random = Random(seed ^ 0x5eed);
    let network = network(&mut random);
    let clean = network.lost == 0.0 && network.corrupted == 0.0;
    let hosts = random.below(2..4) as usize;
    let mut world = World::new(seed, hosts, network, config());
    for host in &mut world.hosts {
        host.handler = match random.below(0..3) {
            0 => 0..1,
            1 => 0..5 * MS,
            _ => 0..600 * MS,
        };
    }
    let crashes = random.chance(0.3);
    let mut must_succeed = Vec::new();
    for _ in 0..random.below(5..60) {
        let from = random.below(0..hosts as u64) as usize;
        let to = (from + random.below(1..hosts as u64) as usize) % hosts;
        if world.hosts[from].transport.is_none() {
            continue;
        }
        let deadline = if random.chance(0.4) { world.now + random.below(1..2_000 * MS) } else { u64::MAX };
        let uid = world.call(from, to, length(&mut random), length(&mut random), deadline);
        let pause = random.below(0..3);
        world.run_for([0, 200_000, 80 * MS][pause as usize]);
        if random.chance(0.08) {
            world.cancel(from, uid);
        } else if clean && !crashes && deadline == u64::MAX {
            must_succeed.push(uid);
        }
        if crashes && random.chance(0.08) {
            // Longer than any packet is under way, as every restart is.
            world.crash(to);
            world.run_for(random.below(100 * MS..5_000 * MS));
            world.start(to);
        }
        if random.chance(0.02) {
            world.run_for(15_500 * MS); // around the time clients close idle sessions
        }
    }
    world.run_for(30_000 * MS);
    world.assert_nothing_left();
    for uid in must_succeed {
        assert_eq!(world.status(uid), Some(Code::Ok), "call {uid}: {:?}", world.ended.get(&uid));
    }
    let up: Vec<usize> = (0..hosts).filter(|host| world.hosts[*host].transport.is_some()).collect();
    up.into_iter().map(|host| world.transport(host).counters()).collect()
}

#[test]
fn every_call_ends_once_with_the_right_bytes_and_nothing_leaks() {
    let number = |name| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    if let Some(seed) = number("TOLLFREE_SIM_SEED") {
        world(seed);
        return;
    }
    let mut counted = Vec::new();
    for seed in 0..number("TOLLFREE_SIM_SEEDS").unwrap_or(300) {
        match std::panic::catch_unwind(|| world(seed)) {
            Ok(counters) => counted.extend(counters),
            Err(panic) => {
                eprintln!("failed at seed {seed}; replay with TOLLFREE_SIM_SEED={seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    // A simulation that never gets where it hurts proves nothing.
    let reached = |count: fn(&Counters) -> u64| counted.iter().map(count).sum::<u64>();
    let rare = [
        ("replies repeated", reached(|counters| counters.replies_repeated)),
        ("requests expired", reached(|counters| counters.requests_expired)),
        ("resets believed", reached(|counters| counters.resets_believed)),
        ("calls dead", reached(|counters| counters.calls_dead)),
    ];
    println!("{rare:?}");
    assert!(counted.len() < 300 || rare.iter().all(|(_, count)| *count > 0), "{rare:?}");
}
