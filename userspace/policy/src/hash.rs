//! Values as words of 64 bits, and the hash of `hash(...)` over them: the same in both back ends, and in no way secret.

pub(crate) const OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
pub(crate) const PRIME: u64 = 0x0000_0100_0000_01b3;

/// The last rounds: the hash shifted right is added without carry, then it is multiplied.
pub(crate) const ROUNDS: [(u32, u64); 3] =
    [(33, 0xff51_afd7_ed55_8ccd), (33, 0xc4ce_b9fe_1a85_ec53), (33, 1)];

/// Bytes as little-endian words, eight to a word, the last filled up with zeros.
#[inline]
pub(crate) fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let (whole, rest) = bytes.as_chunks::<8>();
    whole.iter().map(|word| u64::from_le_bytes(*word)).chain(short(rest))
}

/// Up to seven bytes; `None` of none. Reads overlap rather than go byte by byte: what is read twice comes to the same
/// place twice.
#[inline]
fn short(bytes: &[u8]) -> Option<u64> {
    let at = |place: usize| u64::from(bytes[place]) << (8 * place);
    match (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        (Some(first), Some(last)) => {
            let [first, last] = [first, last].map(|four| u64::from(u32::from_le_bytes(*four)));
            Some(first | last << (8 * (bytes.len() - 4)))
        }
        _ if bytes.is_empty() => None,
        _ => Some(at(0) | at(bytes.len() / 2) | at(bytes.len() - 1)),
    }
}

/// FNV-1a over 64-bit words, with a last round that spreads every bit over all others (that of MurmurHash3).
///
/// The words are the operands' canonical form, one after the other: a number is one word; text, bytes and addresses are
/// their length in bytes and then their [`words`].
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
        words(bytes).for_each(|word| self.word(word));
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

    #[test]
    fn words_are_the_bytes_and_zeros_behind_them() {
        let bytes: Vec<u8> = (1..=40).collect();
        for length in 0..bytes.len() {
            let text = &bytes[..length];
            let mut back: Vec<u8> = words(text).flat_map(u64::to_le_bytes).collect();
            assert_eq!(back.len(), length.next_multiple_of(8));
            assert!(back.split_off(length).iter().all(|byte| *byte == 0), "{length}");
            assert_eq!(back, text);
        }
    }
}
