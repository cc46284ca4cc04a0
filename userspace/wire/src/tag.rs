//! The authentication tag: SipHash-2-4 over the base header and the flat block, in a form the verifier can follow.
//!
//! The `siphasher` crate serves the same function in the tests as the reference; it hashes byte slices, which BPF
//! cannot index without a check per byte, so the hot path works on whole words read through the cursor.

use crate::cursor::Short;
use crate::header::FLAT_MAX;
use crate::{Cursor, Header};

/// A session's 128-bit key.
pub type Key = [u64; 2];

struct SipHash {
    v0: u64,
    v1: u64,
    v2: u64,
    v3: u64,
}

impl SipHash {
    #[inline(always)]
    fn new(key: Key) -> SipHash {
        SipHash {
            v0: key[0] ^ 0x736f_6d65_7073_6575,
            v1: key[1] ^ 0x646f_7261_6e64_6f6d,
            v2: key[0] ^ 0x6c79_6765_6e65_7261,
            v3: key[1] ^ 0x7465_6462_7974_6573,
        }
    }

    #[inline(always)]
    fn round(&mut self) {
        self.v0 = self.v0.wrapping_add(self.v1);
        self.v2 = self.v2.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(13) ^ self.v0;
        self.v3 = self.v3.rotate_left(16) ^ self.v2;
        self.v0 = self.v0.rotate_left(32);
        self.v2 = self.v2.wrapping_add(self.v1);
        self.v0 = self.v0.wrapping_add(self.v3);
        self.v1 = self.v1.rotate_left(17) ^ self.v2;
        self.v3 = self.v3.rotate_left(21) ^ self.v0;
        self.v2 = self.v2.rotate_left(32);
    }

    #[inline(always)]
    fn word(&mut self, word: u64) {
        self.v3 ^= word;
        self.round();
        self.round();
        self.v0 ^= word;
    }

    #[inline(always)]
    fn finish(mut self, bytes: usize) -> u64 {
        self.word((bytes as u64) << 56);
        self.v2 ^= 0xff;
        self.round();
        self.round();
        self.round();
        self.round();
        self.v0 ^ self.v1 ^ self.v2 ^ self.v3
    }
}

/// The tag of a packet whose padded flat block starts at `flat`. The header's own tag field is not covered.
#[inline(always)]
pub fn tag(key: Key, header: &Header, mut flat: Cursor<'_>) -> Result<u64, Short> {
    let mut hash = SipHash::new(key);
    let words: [u64; 7] = zerocopy::transmute!(*header);
    hash.word(words[0]);
    hash.word(words[1]);
    hash.word(words[2]);
    hash.word(words[3]);
    hash.word(words[4]);
    hash.word(words[5]);
    let span = header.flat_span();
    let mut done = 0;
    while done < span && done < FLAT_MAX {
        hash.word(flat.read::<u64>()?);
        done += 8;
    }
    Ok(hash.finish(48 + done))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Kind;
    use core::hash::Hasher;
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    proptest! {
        #[test]
        fn is_standard_siphash_2_4(key in any::<[u64; 2]>(), call in any::<u64>(), flat in proptest::collection::vec(any::<u8>(), 0..=FLAT_MAX / 8)) {
            let padded: std::vec::Vec<u8> = flat.iter().flat_map(|byte| [*byte; 8]).collect();
            let header = Header { call, flat_len: padded.len() as u16, ..Header::new(Kind::Request) };
            let mut reference = siphasher::sip::SipHasher24::new_with_keys(key[0], key[1]);
            reference.write(&header.as_bytes()[..48]);
            reference.write(&padded);
            prop_assert_eq!(tag(key, &header, Cursor::new(&padded)), Ok(reference.finish()));
        }
    }
}
