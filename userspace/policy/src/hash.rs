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
pub(crate) fn hash(words: impl IntoIterator<Item = u64>) -> u64 {
    let hash = words.into_iter().fold(OFFSET, |hash, word| (hash ^ word).wrapping_mul(PRIME));
    ROUNDS.iter().fold(hash, |hash, (shift, multiplier)| (hash ^ (hash >> shift)).wrapping_mul(*multiplier))
}

/// The words of a text, byte string or address.
pub(crate) fn words(bytes: &[u8]) -> impl Iterator<Item = u64> {
    let length = bytes.len() as u64;
    let rest = bytes.chunks(8).map(|chunk| {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        u64::from_le_bytes(word)
    });
    std::iter::once(length).chain(rest)
}
