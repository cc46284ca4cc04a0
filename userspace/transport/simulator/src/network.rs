//! What the network does to a packet.

use crate::{MS, Random};
use std::ops::Range;

/// How bad the network is; fractions of packets.
#[derive(Clone, Debug)]
pub struct Network {
    /// Never arrives.
    pub lost: f64,
    /// Arrives twice.
    pub repeated: f64,
    /// Takes up to twenty times as long, so that others overtake it; never longer than [`LATEST`].
    pub reordered: f64,
    /// Arrives altered in its header or flat block, or cut off there.
    pub corrupted: f64,
    /// How long a packet is under way, in ns.
    pub delay: Range<u64>,
    /// Fraction of transmissions that find the ring full.
    pub blocked: f64,
    /// The longest packet that it carries, from the base header on; longer ones are lost.
    pub carries: usize,
}

/// The longest a packet is under way, in ns. At most once across a restart rests on restarts that take longer.
pub const LATEST: u64 = 90 * MS;

impl Default for Network {
    fn default() -> Network {
        Network {
            lost: 0.0,
            repeated: 0.0,
            reordered: 0.0,
            corrupted: 0.0,
            delay: 50_000..60_000,
            blocked: 0.0,
            carries: usize::MAX,
        }
    }
}

/// A packet's way through the network: each copy that arrives, and after how long.
pub struct Fate {
    /// Time under way and whether it is altered, per copy.
    pub copies: Vec<(u64, bool)>,
}

impl Network {
    /// Decides what becomes of a packet.
    pub fn fate(&self, random: &mut Random) -> Fate {
        let count = match (random.chance(self.lost), random.chance(self.repeated)) {
            (true, _) => 0,
            (false, false) => 1,
            (false, true) => 2,
        };
        let mut copy = |_| {
            let mut delay = random.below(self.delay.clone());
            if random.chance(self.reordered) {
                delay = random.below(delay..20 * delay + 2).min(LATEST);
            }
            (delay, random.chance(self.corrupted))
        };
        Fate { copies: (0..count).map(&mut copy).collect() }
    }

    /// Flips a bit among the first `protected` bytes, or cuts the packet off there.
    pub fn alter(&self, random: &mut Random, bytes: &mut Vec<u8>, protected: usize) {
        let bit = random.below(0..protected as u64 * 8) as usize;
        bytes[bit / 8] ^= 1 << (bit % 8);
        if random.chance(0.2) {
            bytes.truncate(bit / 8);
        }
    }
}
