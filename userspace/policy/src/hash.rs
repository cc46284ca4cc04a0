//! The hash of `hash(...)`: the same in both back ends, and in no way secret.

pub(crate) const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
pub(crate) const PRIME: u64 = 0x0000_0100_0000_01b3;

/// The last rounds: the hash shifted right is added without carry, then it is multiplied.
pub(crate) const ROUNDS: [(u32, u64); 3] =
    [(33, 0xff51_afd7_ed55_8ccd), (33, 0xc4ce_b9fe_1a85_ec53), (33, 1)];

/// FNV-1a over 64-bit words, with a last round that spreads every bit over all others (that of MurmurHash3).
///
/// The words are the operands' canonical form, one after the other: a number is one word; text, bytes and addresses are
/// their length in bytes and then their bytes, eight to a word, the last filled up with zeros.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hasher(u64);

impl Default for Hasher {
    fn default() -> Hasher {
        Hasher(OFFSET)
    }
}

impl Hasher {
    pub(crate) fn word(&mut self, word: u64) {
        self.0 = (self.0 ^ word).wrapping_mul(PRIME);
    }

    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        self.word(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.word(u64::from_le_bytes(word));
        }
    }

    pub(crate) fn finish(self) -> u64 {
        ROUNDS
            .iter()
            .fold(self.0, |hash, (shift, multiplier)| (hash ^ (hash >> shift)).wrapping_mul(*multiplier))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_stays_what_it_is() {
        // Back ends, hosts and versions agree on it: backends are chosen by it.
        let mut hasher = Hasher::default();
        hasher.word(7);
        hasher.bytes(b"hello, world");
        assert_eq!(hasher.finish(), 469_141_649_278_795_548);
    }
}
