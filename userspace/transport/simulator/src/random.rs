//! Random numbers that are the same everywhere, for a seed.

use std::ops::Range;

/// SplitMix64: small, good enough, and the same everywhere.
#[derive(Clone, Debug)]
pub struct Random(pub u64);

impl Random {
    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in a range that is not empty.
    pub fn below(&mut self, range: Range<u64>) -> u64 {
        range.start + self.number() % (range.end - range.start)
    }

    /// True in this fraction of cases.
    pub fn chance(&mut self, fraction: f64) -> bool {
        // 53 bits are what an f64 can tell apart.
        ((self.number() >> 11) as f64) < fraction * (1_u64 << 53) as f64
    }

    /// A fraction below a limit.
    pub fn fraction(&mut self, limit: f64) -> f64 {
        (self.number() >> 11) as f64 / (1_u64 << 53) as f64 * limit
    }
}
