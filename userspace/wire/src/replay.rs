//! Which packets of a session were accepted, so that none is accepted twice.
//!
//! The sequences of about a thousand packets are remembered in a ring of words of 64, as RFC 6479 has it: the window moves by
//! whole words, so that a packet costs the same whether it comes in order or late. Both sides of the kernel
//! boundary use it.

use crate::Reason;
use bytemuck::{Pod, Zeroable};

/// Words in the ring: a power of two.
const WORDS: usize = 16;
/// A sequence that is less than this below the highest accepted can still be told from one accepted before. The word that the
/// highest is in may have only just been begun, so it does not count.
pub const REPLAY_SPAN: u64 = (WORDS as u64 - 1) * 64;

/// What was accepted. All zero: nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Pod, Zeroable)]
#[repr(C)]
pub struct Replay {
    /// The highest sequence accepted.
    top: u64,
    /// Bit n of word w, where the ring holds it: sequence 64 w + n was accepted.
    words: [u64; WORDS],
}

const _: () = assert!(WORDS.is_power_of_two() && size_of::<Replay>() == 136);

impl Replay {
    /// Nothing was accepted.
    pub const NONE: Replay = Replay { top: 0, words: [0; WORDS] };

    /// As if everything up to `top` had been accepted.
    pub fn up_to(top: u64) -> Replay {
        let mut words = [u64::MAX; WORDS];
        words[(top / 64) as usize % WORDS] = u64::MAX >> (63 - top % 64);
        Replay { top, words }
    }

    /// Takes note of a sequence.
    ///
    /// # Errors
    /// [`Reason::Replayed`]: it was accepted before, or is too old to tell.
    #[inline(always)]
    pub fn accept(&mut self, sequence: u64) -> Result<(), Reason> {
        let (word, newest) = (sequence / 64, self.top / 64);
        if sequence > self.top {
            // Bounded by the ring's length rather than by how far it moves, which the verifier has to see.
            for ahead in 1..=WORDS as u64 {
                if ahead > word - newest {
                    break;
                }
                self.words[(newest + ahead) as usize % WORDS] = 0;
            }
            self.top = sequence;
        } else if newest - word >= WORDS as u64 {
            return Err(Reason::Replayed);
        }
        let bit = 1 << (sequence % 64);
        let word = &mut self.words[word as usize % WORDS];
        if *word & bit != 0 {
            return Err(Reason::Replayed);
        }
        *word |= bit;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashSet;

    #[test]
    fn what_lies_below_is_refused_and_what_lies_above_is_not() {
        for top in [0, 1, 63, 64, 5000, u64::MAX / 2] {
            let mut replay = Replay::up_to(top);
            for sequence in top.saturating_sub(2000)..=top {
                assert_eq!(replay.accept(sequence), Err(Reason::Replayed), "{sequence} of {top}");
            }
            for sequence in (top + 1..top + 200).rev() {
                assert_eq!(replay.accept(sequence), Ok(()), "{sequence} after {top}");
            }
        }
    }

    proptest! {
        #[test]
        fn no_sequence_is_accepted_twice(steps in proptest::collection::vec((0..4u8, 0..2500u64), 0..400)) {
            let (mut replay, mut accepted) = (Replay::NONE, HashSet::new());
            let mut top = 1;
            for (kind, by) in steps {
                // Mostly near the highest, on either side of it.
                let sequence = match kind {
                    0 => top + by,
                    1 => top + by % 3,
                    _ => (top + 2).saturating_sub(by).max(1),
                };
                let fresh = replay.accept(sequence).is_ok();
                if sequence + REPLAY_SPAN > top {
                    prop_assert_eq!(fresh, !accepted.contains(&sequence), "{} below {}", sequence, top);
                }
                prop_assert!(!fresh || accepted.insert(sequence), "{} twice", sequence);
                top = top.max(sequence);
            }
        }
    }
}
