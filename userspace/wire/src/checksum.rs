//! The Internet checksum (RFC 1071), for frames built in user space and answers built in XDP.

/// A running ones'-complement sum of 16-bit words in the byte order they have in the packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Checksum(u64);

impl Checksum {
    /// Adds one 32-bit word, as read from the packet without swapping.
    #[inline(always)]
    pub fn word(self, word: u32) -> Checksum {
        Checksum(self.0.wrapping_add(word as u64))
    }

    /// Adds two 16-bit words given in network order.
    #[inline(always)]
    pub fn pair(self, first: u16, second: u16) -> Checksum {
        self.word(first as u32).word(second as u32)
    }

    /// Adds bytes; an odd last byte counts as the first of a pair.
    pub fn bytes(self, bytes: &[u8]) -> Checksum {
        let mut sum = self;
        let mut words = bytes.chunks_exact(4);
        for word in &mut words {
            sum = sum.word(u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
        }
        let mut rest = [0; 4];
        rest[..words.remainder().len()].copy_from_slice(words.remainder());
        sum.word(u32::from_ne_bytes(rest))
    }

    /// The checksum, as it is stored in the packet.
    #[inline(always)]
    pub fn finish(self) -> u16 {
        let mut sum = self.0;
        sum = (sum & 0xffff_ffff) + (sum >> 32);
        sum = (sum & 0xffff_ffff) + (sum >> 32);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        sum = (sum & 0xffff) + (sum >> 16);
        !(sum as u16)
    }

    /// The checksum for UDP, where zero would mean "none" and is sent as its other form.
    #[inline(always)]
    pub fn finish_udp(self) -> u16 {
        match self.finish() {
            0 => 0xffff,
            sum => sum,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_known_ipv4_header_sums_to_its_known_checksum() {
        let header = [
            0x45, 0x00, 0x00, 0x73, 0x00, 0x00, 0x40, 0x00, 0x40, 0x11, 0x00, 0x00, 0xc0, 0xa8, 0x00, 0x01,
            0xc0, 0xa8, 0x00, 0xc7,
        ];
        assert_eq!(Checksum::default().bytes(&header).finish(), u16::from_be_bytes([0xb8, 0x61]).to_be());
    }

    proptest! {
        #[test]
        fn agrees_with_the_textbook(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
            let mut sum = 0u64;
            for pair in bytes.chunks(2) {
                sum += u64::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
            }
            while sum > 0xffff { sum = (sum & 0xffff) + (sum >> 16); }
            prop_assert_eq!(Checksum::default().bytes(&bytes).finish(), (!(sum as u16)).to_be());
        }
    }
}
