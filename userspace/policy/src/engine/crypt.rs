//! Encryption of single fields: AEGIS-256 (draft-irtf-cfrg-aegis-aead) with a tag of 16 bytes. It is made of the processor's
//! AES rounds, takes a third of AES-256-GCM's time for short texts, and needs nothing prepared per key; its nonce of 32
//! bytes has room for chance.
//!
//! Two messages must never have the same nonce. Half of it is the *salt*, 128 random bits that each policy in each daemon
//! draws for itself, and anew every second; behind it come the time and a count, so that nonces with one salt differ. A
//! virtual machine that is copied while it runs goes on twice with one salt until that second is over: then only the clock's
//! nanoseconds keep its nonces apart.
//!
//! An encrypted field is the nonce, the ciphertext and the tag: [`LONGER`] bytes more than the text was. Nothing else is
//! authenticated, because what one method stores encrypted another gives back.

use aegis::aegis256::Aegis256;

const SALT: usize = 16;
const NONCE: usize = 32;
const TAG: usize = 16;
/// What encryption adds, in bytes.
pub const LONGER: usize = NONCE + TAG;
/// The longest text that a field can have.
const TEXT_MAX: usize = 255;
/// How long a salt serves, in ns.
const SALT_NS: u64 = 1_000_000_000;

/// A secret key.
#[derive(Clone, Copy)]
pub struct Cipher([u8; 32]);

/// Room for what a text was before it is decrypted.
#[derive(Clone, Debug)]
pub struct Spare([u8; TEXT_MAX]);

impl Default for Spare {
    fn default() -> Spare {
        Spare([0; TEXT_MAX])
    }
}

/// The nonces that come next.
#[derive(Debug, Default)]
pub struct Nonces {
    salt: [u8; SALT],
    /// When it was drawn; `None`: there is none yet.
    drawn_ns: Option<u64>,
    messages: u64,
}

/// With a salt of its own.
impl Clone for Nonces {
    fn clone(&self) -> Nonces {
        Nonces::default()
    }
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cipher")
    }
}

impl Cipher {
    pub fn new(key: [u8; 32]) -> Cipher {
        Cipher(key)
    }

    /// Encrypts the text at the beginning of `room` over it; gives the new length, or `None` where it does not fit and
    /// stays as it was.
    pub fn encrypt(&self, nonces: &mut Nonces, now_ns: u64, room: &mut [u8], length: usize) -> Option<usize> {
        let longer = length.checked_add(LONGER)?;
        let all = room.get_mut(..longer)?;
        let nonce = nonces.next(now_ns)?;
        all.copy_within(..length, NONCE);
        let (place, sealed) = all.split_first_chunk_mut()?;
        *place = nonce;
        let (text, tag) = sealed.split_last_chunk_mut()?;
        *tag = Aegis256::<TAG>::new(&self.0, &nonce).encrypt_in_place(text, &[]);
        Some(longer)
    }

    /// Decrypts what is at the beginning of `room` over it; gives the text's length, or `None` where it is not authentic
    /// and stays as it was.
    pub fn decrypt(&self, spare: &mut Spare, room: &mut [u8], length: usize) -> Option<usize> {
        let encrypted = room.get_mut(..length)?;
        let (nonce, sealed) = encrypted.split_first_chunk_mut::<NONCE>()?;
        let (text, tag) = sealed.split_last_chunk_mut::<TAG>()?;
        let before = spare.0.get_mut(..text.len())?;
        before.copy_from_slice(text);
        let length = text.len();
        if Aegis256::<TAG>::new(&self.0, nonce).decrypt_in_place(text, tag, &[]).is_err() {
            // The library leaves zeros where a text is not authentic.
            text.copy_from_slice(before);
            return None;
        }
        encrypted.copy_within(NONCE..NONCE + length, 0);
        Some(length)
    }
}

impl Nonces {
    /// `None` where the operating system has no random bits.
    fn next(&mut self, now_ns: u64) -> Option<[u8; NONCE]> {
        if self.drawn_ns.is_none_or(|drawn_ns| now_ns.saturating_sub(drawn_ns) >= SALT_NS) {
            getrandom::fill(&mut self.salt).ok()?;
            self.drawn_ns = Some(now_ns);
        }
        self.messages += 1;
        let mut nonce = [0; NONCE];
        let (salt, rest) = nonce.split_at_mut(SALT);
        let (time, count) = rest.split_at_mut(8);
        salt.copy_from_slice(&self.salt);
        time.copy_from_slice(&now_ns.to_le_bytes());
        count.copy_from_slice(&self.messages.to_le_bytes());
        Some(nonce)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encrypted_comes_back_and_nothing_else_does() {
        let (cipher, other) = (Cipher::new([7; 32]), Cipher::new([8; 32]));
        let mut nonces = Nonces::default();
        let mut room = [0; 80];
        room[..5].copy_from_slice(b"hello");
        assert_eq!(cipher.encrypt(&mut nonces, 1, &mut room, 5), Some(53));
        let encrypted = room;
        assert!(!encrypted.windows(5).any(|window| window == b"hello"));
        assert_eq!(other.decrypt(&mut Spare::default(), &mut room, 53), None);
        assert_eq!(room, encrypted, "untouched");
        for byte in [0, 15, 16, 31, 32, 36, 37, 52] {
            room[byte] ^= 1;
            assert_eq!(cipher.decrypt(&mut Spare::default(), &mut room, 53), None);
            room[byte] ^= 1;
        }
        for length in [0, 47, 52, 54, 81] {
            assert_eq!(
                cipher.decrypt(&mut Spare::default(), &mut room, length),
                None,
                "{length} bytes of it"
            );
        }
        assert_eq!(cipher.decrypt(&mut Spare::default(), &mut room, 53), Some(5));
        assert_eq!(&room[..5], b"hello");
        let before = room;
        assert_eq!(cipher.encrypt(&mut nonces, 1, &mut room, 33), None, "no room");
        assert_eq!(room, before);
        assert_eq!(cipher.encrypt(&mut nonces, 1, &mut room, 32), Some(80));
        assert_ne!(room[..32], encrypted[..32], "nonces differ");
        assert_eq!(room[..16], encrypted[..16], "by one salt");
    }

    #[test]
    fn the_longest_text_of_a_field_is_encrypted() {
        let cipher = Cipher::new([7; 32]);
        let mut room = [5; TEXT_MAX];
        let length = TEXT_MAX - LONGER;
        assert_eq!(cipher.encrypt(&mut Nonces::default(), 1, &mut room, length), Some(TEXT_MAX));
        assert_eq!(cipher.decrypt(&mut Spare::default(), &mut room, TEXT_MAX), Some(length));
        assert_eq!(room[..length], [5; TEXT_MAX - LONGER]);
    }

    #[test]
    fn no_two_nonces_are_the_same() {
        let (mut here, mut there) = (Nonces::default(), Nonces::default());
        assert_ne!(here.next(1), there.next(1), "of two daemons");
        assert_ne!(here.next(1), here.next(1), "of two messages at one time");
        let mut copy = here.clone();
        assert_ne!(here.next(1), copy.next(1), "of a copy");
        let salt = |nonce: Option<[u8; NONCE]>| nonce.unwrap()[..SALT].to_vec();
        assert_eq!(salt(here.next(1)), salt(here.next(SALT_NS)), "within a second");
        assert_ne!(salt(here.next(SALT_NS)), salt(here.next(SALT_NS + 1)), "of the next second");
    }

    /// The first vector of the specification.
    #[test]
    fn it_is_aegis_256() {
        let (mut key, mut nonce) = ([0; 32], [0; NONCE]);
        key[..2].copy_from_slice(&[0x10, 0x01]);
        nonce[..3].copy_from_slice(&[0x10, 0x00, 0x02]);
        let mut text = [0; 16];
        let tag = Aegis256::<TAG>::new(&key, &nonce).encrypt_in_place(&mut text, &[]);
        let expected = "754fc3d8c973246dcc6d741412a4b2363fe91994768b332ed7f570a19ec5896e";
        assert_eq!([text, tag].concat(), crate::table::unhex(expected).unwrap());
    }
}
