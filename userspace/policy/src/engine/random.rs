//! Randomness for shedding and spreading calls: quick, and in no way secret.

use std::hash::{BuildHasher, RandomState};

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// From the process's own randomness.
    pub fn unpredictable() -> Random {
        Random(RandomState::new().hash_one(0))
    }

    #[inline]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let word = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    #[inline]
    pub fn next_u32(&mut self) -> u32 {
        (self.next() >> 32) as u32
    }

    /// True for so many of a million.
    #[inline]
    pub fn chance(&mut self, ppm: u64) -> bool {
        ((u64::from(self.next_u32()) * 1_000_000) >> 32) < ppm
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chances_are_what_they_say() {
        let mut random = Random::new(1);
        for (ppm, expected) in
            [(0, 0..1), (10_000, 900..1100), (500_000, 49_000..51_000), (1_000_000, 100_000..100_001)]
        {
            let held = (0..100_000).filter(|_| random.chance(ppm)).count();
            assert!(expected.contains(&held), "{ppm} ppm: {held}");
        }
    }
}
