//! What happens in the world of a seed: a random network, random calls, and on most days something worse. In the end the network
//! heals, and then everything has to work again and nothing to be left.

use crate::forge::{Choices, forge};
use crate::network::LATEST;
use crate::{MS, Network, Random, World};
use tollfree_transport::Config;
use tollfree_wire::Code;
use tollfree_wire::frame::{Address, Peer};
use tollfree_wire::header::HEADER_LEN;
use tollfree_wire::spec::MethodSpec;

/// What is said about a world; the rest is decided by its seed.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Hosts; at least two.
    pub hosts: Option<usize>,
    /// Calls made.
    pub calls: Option<u64>,
    /// Fraction of packets lost.
    pub loss: Option<f64>,
    /// Fraction of packets that arrive twice.
    pub dup: Option<f64>,
    /// Fraction of packets that others overtake. Said, it is the only reordering there is.
    pub reorder: Option<f64>,
    /// Fraction of packets that arrive altered.
    pub corrupt: Option<f64>,
    /// Whether an XDP program checks packets first.
    pub verified: Option<bool>,
    /// Only the network is bad: nobody crashes, leaps in time, floods or goes rogue.
    pub calm: bool,
}

/// Bytes of the longest packets that a network may carry; the last is what any does.
const LENGTHS: [usize; 4] = [9_000, 4_000, 2_000, 1_472];

/// A world, and what is going to happen in it.
pub struct Scenario {
    /// The world.
    pub world: World,
    random: Random,
    calls: u64,
    crashes: bool,
    leaps: bool,
    floods: bool,
    /// The longest packets that the network carries change.
    shrinks: bool,
    must_succeed: Vec<u64>,
}

impl Scenario {
    /// The world of a seed, at its beginning.
    pub fn new(seed: u64, settings: &Settings) -> Scenario {
        let mut random = Random(seed ^ 0x5eed);
        let network = network(&mut random, settings);
        let hosts = random.below(2..5) as usize;
        let hosts = settings.hosts.unwrap_or(hosts).max(2);
        let verified = random.chance(0.3);
        let verified = settings.verified.unwrap_or(verified);
        let mut sometimes = |fraction| random.chance(fraction) && !settings.calm;
        let (crashes, leaps, floods) = (sometimes(0.3), sometimes(0.15), sometimes(0.1));
        let (skewed, rogue) = (sometimes(0.3), sometimes(0.15));
        let calls = settings.calls.unwrap_or(random.below(5..40) * (hosts as u64).div_ceil(4));
        // What a rogue forges leaves from its first port, which is to be its sessions'.
        let ports = if rogue { 1 } else { 16 };
        let shrinks = random.chance(0.25);
        let max_payload = if shrinks { LENGTHS[0] } else { Config::default().max_payload };
        let config = Config {
            idle_ms: 20_000,
            dead_ns: 3_000 * MS,
            verified,
            max_payload,
            ports,
            ..Config::default()
        };
        let mut world = World::new(seed, hosts, network, config);
        for host in &mut world.hosts {
            host.handler = [0..1, 0..5 * MS, 0..600 * MS][random.below(0..3) as usize].clone();
            host.poll = [0..1, 0..20_000, 0..2 * MS][random.below(0..3) as usize].clone();
            if skewed {
                host.clock.fast_ppm = random.below(0..100_000) as i64 - 50_000;
            }
        }
        if rogue {
            world.hosts[0].rogue = true;
        }
        world.carry(spec(&mut random));
        Scenario { world, random, calls, crashes, leaps, floods, shrinks, must_succeed: Vec::new() }
    }

    /// Lives through it. Panics where something does not hold.
    pub fn run(&mut self) {
        for _ in 0..self.calls {
            self.call();
            self.trouble();
        }
        if self.random.chance(0.7) {
            self.world.run_for(30_000 * MS);
        }
        self.heal();
        self.world.assert_nothing_left();
        for uid in &self.must_succeed {
            let ended = self.world.ended.get(uid);
            assert_eq!(self.world.status(*uid), Some(Code::Ok), "call {uid}: {ended:?}");
        }
    }

    /// One call, and a while to wait.
    fn call(&mut self) {
        let Scenario { world, random, .. } = self;
        let count = world.hosts.len() as u64;
        let from = random.below(0..count) as usize;
        let to = (from + random.below(1..count) as usize) % count as usize;
        if world.hosts[from].transport.is_none() {
            return;
        }
        if random.chance(0.05) {
            world.call_denied(from, to, length(random));
            return;
        }
        let deadline = if random.chance(0.4) { world.now + random.below(1..2_000 * MS) } else { u64::MAX };
        let uid = world.call(from, to, length(random), length(random), deadline);
        let pause = random.below(0..3) as usize;
        world.run_for([0, 200_000, 80 * MS][pause]);
        if random.chance(0.08) {
            world.cancel(from, uid);
        } else if deadline == u64::MAX && self.is_sure() {
            self.must_succeed.push(uid);
        }
    }

    /// Whether every call without a deadline must succeed.
    fn is_sure(&self) -> bool {
        let Scenario { world, crashes, leaps, .. } = self;
        let Network { lost, corrupted, .. } = world.network;
        let MethodSpec { timeout_us, .. } = world.spec;
        let kept = world.spec.is_reliable() && timeout_us == 0;
        kept && lost == 0.0
            && corrupted == 0.0
            && !crashes
            && !leaps
            && !world.hosts.iter().any(|host| host.rogue)
    }

    /// What else happens.
    fn trouble(&mut self) {
        let Scenario { world, random, .. } = self;
        let number = random.below(0..world.hosts.len() as u64) as usize;
        if self.crashes && random.chance(0.08) {
            // Longer than any packet is under way, as every restart is.
            world.crash(number);
            world.run_for(random.below(LATEST + 2 * MS..5_000 * MS));
            world.start(number);
        }
        if self.leaps && random.chance(0.1) {
            world.leap(number, [MS, 400 * MS, 10_000 * MS, 3_600_000 * MS][random.below(0..4) as usize]);
        }
        if self.shrinks && random.chance(0.1) {
            let carries = LENGTHS[random.below(0..LENGTHS.len() as u64) as usize];
            world.network.carries = carries;
            world.note(format_args!("the network carries packets of {carries} bytes"));
        }
        if self.floods && random.chance(0.2) {
            self.flood(number);
        }
        if self.world.hosts[0].rogue {
            self.misbehave(0);
        }
        if self.random.chance(0.02) {
            self.world.run_for(15_500 * MS); // around the time clients close idle sessions
        }
    }

    /// Hellos from addresses that do not exist.
    fn flood(&mut self, victim: usize) {
        let Scenario { world, random, .. } = self;
        let to = world.hosts[victim].peer;
        if world.last_hello.is_empty() {
            return;
        }
        for _ in 0..random.below(1..400) {
            let mut hello = world.last_hello.clone();
            let at = HEADER_LEN + random.below(0..100) as usize;
            hello[at] = random.number() as u8;
            let source = Peer { address: Address::v4(random.number() as u32 | 1 << 31), port: 7400 };
            world.launch_as(victim, source, to, hello);
        }
    }

    /// A rogue sends what it likes on the sessions it has.
    fn misbehave(&mut self, rogue: usize) {
        let Scenario { world, random, .. } = self;
        let guards: Vec<_> = world.hosts[rogue].guards.values().copied().collect();
        for _ in 0..if guards.is_empty() { 0 } else { random.below(0..40) } {
            let guard = guards[random.below(0..guards.len() as u64) as usize];
            let mut program = [0; 64];
            program.fill_with(|| random.number() as u8);
            let last = world.hosts[rogue].sequences.entry(guard.peer_index).or_default();
            let packet = forge(&mut Choices::new(&program), &guard, last);
            world.launch(rogue, Peer { address: guard.peer, port: guard.peer_port }, packet);
            if random.chance(0.1) {
                world.run_for(random.below(0..MS));
            }
        }
    }

    /// The network carries everything, all hosts are up, the rogue is gone (it could keep a call open as long as it lies): after as long as it takes to give up what
    /// was begun, calls must succeed. The first one to a peer may still find that the peer was started anew, and then must not
    /// be repeated by the transport, because it may have run; the second must succeed.
    fn heal(&mut self) {
        let Scenario { world, random, .. } = self;
        world.network = Network::default();
        world.note(format_args!("the network heals"));
        for rogue in (0..world.hosts.len()).filter(|host| world.hosts[*host].rogue).collect::<Vec<_>>() {
            world.crash(rogue);
        }
        world.run_for(LATEST + world.config.dead_ns);
        for host in &mut world.hosts {
            host.handler = 0..MS;
        }
        let honest: Vec<usize> = (0..world.hosts.len()).filter(|host| !world.hosts[*host].rogue).collect();
        let turned = honest.iter().cycle().skip(random.below(1..honest.len().max(2) as u64) as usize);
        let mut pairs: Vec<(usize, usize)> = honest.iter().copied().zip(turned.copied()).collect();
        pairs.retain(|(from, to)| from != to);
        for again in [false, true] {
            // What the path no longer carries is lost; an unreliable method's messages are not cut again.
            let longest = if world.spec.is_reliable() { usize::MAX } else { 1_000 };
            let mut length = || length(random).min(longest);
            let mut call = |&(from, to)| world.call(from, to, length(), length(), u64::MAX);
            let uids: Vec<u64> = pairs.iter().map(&mut call).collect();
            world.run_for(5_000 * MS);
            let mut calls = pairs.iter().zip(uids).map(|(pair, uid)| (*pair, uid));
            let mut failed = Vec::new();
            for (pair, uid) in &mut calls {
                match world.status(uid) {
                    Some(Code::Ok) => {}
                    Some(Code::Unavailable) if !again => failed.push(pair),
                    _ => panic!("call {uid}, after the network healed: {:?}", world.ended.get(&uid)),
                }
            }
            pairs = failed;
        }
    }
}

fn network(random: &mut Random, settings: &Settings) -> Network {
    let longest = [100_000, MS, 10 * MS, 60 * MS][random.below(0..4) as usize];
    let mut network = match random.below(0..4) {
        0 => Network { delay: 10_000..longest, ..Network::default() },
        1 => Network { lost: random.fraction(0.3), delay: 10_000..longest, ..Network::default() },
        2 => Network { lost: random.fraction(0.05), reordered: random.fraction(0.2), ..Network::default() },
        _ => Network {
            lost: random.fraction(0.25),
            repeated: random.fraction(0.2),
            reordered: random.fraction(0.1),
            corrupted: random.fraction(0.1),
            delay: 10_000..longest,
            blocked: random.fraction(0.3),
            ..Network::default()
        },
    };
    let Settings { loss, dup, reorder, corrupt, .. } = *settings;
    network.lost = loss.unwrap_or(network.lost);
    network.repeated = dup.unwrap_or(network.repeated);
    network.corrupted = corrupt.unwrap_or(network.corrupted);
    if let Some(reorder) = reorder {
        network.reordered = reorder;
        network.delay = longest / 20..longest / 20 + 1;
    }
    network
}

/// How the world's calls are carried.
fn spec(random: &mut Random) -> MethodSpec {
    let reliable = MethodSpec::default();
    match random.below(0..10) {
        0..6 => reliable,
        6..9 => MethodSpec { ordered: random.chance(0.8), checksum: random.chance(0.3), ..reliable },
        _ => MethodSpec { checksum: random.chance(0.3), ..MethodSpec::UNRELIABLE },
    }
}

/// Bytes of a message: mostly one packet, sometimes hundreds.
fn length(random: &mut Random) -> usize {
    let longest = match random.below(0..20) {
        0..8 => 200,
        8..14 => 3_000,
        14..19 => 40_000,
        _ => 300_000,
    };
    random.below(0..longest) as usize
}
