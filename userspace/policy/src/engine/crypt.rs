//! Encryption of single fields: AES-256-GCM-SIV, so that a nonce that comes twice gives away no more than that two texts
//! are the same.
//!
//! An encrypted field is the nonce, the ciphertext and the tag: [`LONGER`] bytes more than the text was. Nothing else is
//! authenticated, because what one method stores encrypted another gives back.

use aes_gcm_siv::aead::{AeadInOut, KeyInit};
use aes_gcm_siv::{Aes256GcmSiv, Nonce, Tag};
use std::hash::{BuildHasher, RandomState};

const NONCE: usize = 12;
const TAG: usize = 16;
/// What encryption adds, in bytes.
pub const LONGER: usize = NONCE + TAG;

/// A key that is ready for use.
#[derive(Clone)]
pub struct Cipher(Aes256GcmSiv);

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cipher")
    }
}

/// Numbers used once: counted on from a random one.
#[derive(Clone, Debug)]
pub struct Nonces(u128);

impl Nonces {
    pub fn new() -> Nonces {
        let random = |number: u64| u128::from(RandomState::new().hash_one(number));
        Nonces(random(0) << 64 | random(1))
    }

    fn next(&mut self) -> [u8; NONCE] {
        self.0 = self.0.wrapping_add(1);
        let mut nonce = [0; NONCE];
        nonce.iter_mut().zip(self.0.to_le_bytes()).for_each(|(to, from)| *to = from);
        nonce
    }
}

impl Cipher {
    pub fn new(key: [u8; 32]) -> Cipher {
        Cipher(Aes256GcmSiv::new(&key.into()))
    }

    /// Encrypts the text at the beginning of `room` over it; gives the new length, or `None` where it does not fit and
    /// stays as it was.
    pub fn encrypt(&self, nonces: &mut Nonces, room: &mut [u8], length: usize) -> Option<usize> {
        let longer = length.checked_add(LONGER)?;
        let all = room.get_mut(..longer)?;
        all.copy_within(..length, NONCE);
        let (first, rest) = all.split_first_chunk_mut::<NONCE>()?;
        let (text, last) = rest.split_last_chunk_mut::<TAG>()?;
        *first = nonces.next();
        // It fails for texts of gigabytes only.
        *last = self.0.encrypt_inout_detached(&Nonce::from(*first), &[], text.into()).ok()?.into();
        Some(longer)
    }

    /// Decrypts what is at the beginning of `room` over it; gives the text's length, or `None` where it is not authentic
    /// and stays as it was. `spare` is as long as `room` at least.
    pub fn decrypt(&self, room: &mut [u8], length: usize, spare: &mut [u8]) -> Option<usize> {
        let encrypted = room.get_mut(..length)?;
        let (nonce, rest) = encrypted.split_first_chunk::<NONCE>()?;
        let (ciphertext, tag) = rest.split_last_chunk::<TAG>()?;
        let text = spare.get_mut(..ciphertext.len())?;
        text.copy_from_slice(ciphertext);
        let (nonce, tag) = (Nonce::from(*nonce), Tag::from(*tag));
        self.0.decrypt_inout_detached(&nonce, &[], (&mut *text).into(), &tag).ok()?;
        room.get_mut(..text.len())?.copy_from_slice(text);
        Some(text.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encrypted_comes_back_and_nothing_else_does() {
        let (cipher, other) = (Cipher::new([7; 32]), Cipher::new([8; 32]));
        let mut nonces = Nonces::new();
        let mut spare = [0; 64];
        let mut room = [0; 64];
        room[..5].copy_from_slice(b"hello");
        assert_eq!(cipher.encrypt(&mut nonces, &mut room, 5), Some(33));
        let encrypted = room;
        assert!(!encrypted.windows(5).any(|window| window == b"hello"));
        assert_eq!(other.decrypt(&mut room, 33, &mut spare), None);
        assert_eq!(room, encrypted, "untouched");
        room[20] ^= 1;
        assert_eq!(cipher.decrypt(&mut room, 33, &mut spare), None);
        room = encrypted;
        assert_eq!(cipher.decrypt(&mut room, 27, &mut spare), None);
        assert_eq!(cipher.decrypt(&mut room, 33, &mut spare), Some(5));
        assert_eq!(&room[..5], b"hello");
        let before = room;
        assert_eq!(cipher.encrypt(&mut nonces, &mut room, 37), None, "no room");
        assert_eq!(room, before);
        assert_eq!(cipher.encrypt(&mut nonces, &mut room, 36), Some(64));
    }

    #[test]
    fn nonces_differ() {
        let mut nonces = Nonces(u128::MAX);
        assert_ne!(nonces.next(), nonces.next());
    }
}
