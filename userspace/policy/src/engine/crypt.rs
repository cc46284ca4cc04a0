//! Encryption of single fields: XAES-256-GCM (c2sp.org/XAES-256-GCM), by which AES-256-GCM gets a nonce of 24 bytes. The
//! first half, the *salt*, makes a key of the secret one; by that key AES-256-GCM encrypts with the other half.
//!
//! Making a key is dear, so a salt is drawn for [`MESSAGES_MAX`] messages, and keys made lately are kept. Two messages must
//! never have the same nonce. Salts are 96 random bits: of 2³² of them, more than all daemons draw in their lives, two are
//! the same with a chance of 2⁻³³. Behind a salt comes a count, so nonces with one salt differ; and the time, so that they
//! differ too where a virtual machine was copied while it ran and goes on with the same salt and count twice.
//!
//! An encrypted field is the nonce, the ciphertext and the tag: [`LONGER`] bytes more than the text was. Nothing else is
//! authenticated, because what one method stores encrypted another gives back.

use aes_gcm::aead::consts::U12;
use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::aes::Aes256Enc;
use aes_gcm::aes::cipher::BlockCipherEncrypt;
use aes_gcm::{AesGcm, Nonce, Tag};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

const SALT: usize = 12;
const REST: usize = 12;
const TAG: usize = 16;
/// What encryption adds, in bytes.
pub const LONGER: usize = SALT + REST + TAG;
/// Messages of one salt.
const MESSAGES_MAX: u32 = u32::MAX;
/// Keys that are kept: of so many hosts messages are decrypted without making keys anew.
const KEPT_MAX: usize = 32;

type Salt = [u8; SALT];
type Gcm = AesGcm<Aes256Enc, U12>;

/// A secret key that is ready for use. Cheap to clone.
#[derive(Clone)]
pub struct Cipher(Arc<Secret>);

struct Secret {
    aes: Aes256Enc,
    /// CMAC's first subkey.
    subkey: [u8; 16],
}

/// Keys made lately, and the nonces that come next.
#[derive(Clone)]
pub struct Keyring {
    salt: Salt,
    messages: u32,
    /// Beside `ciphers`.
    made_of: Vec<(Salt, Cipher)>,
    ciphers: Vec<Gcm>,
    /// The one to be replaced next.
    oldest: usize,
}

impl std::fmt::Debug for Cipher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Cipher")
    }
}

impl std::fmt::Debug for Keyring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keyring")
    }
}

impl Cipher {
    pub fn new(key: [u8; 32]) -> Cipher {
        let aes = Aes256Enc::new(&key.into());
        let mut block = [0; 16].into();
        aes.encrypt_block(&mut block);
        // Doubled in GF(2¹²⁸).
        let zero = u128::from_be_bytes(block.into());
        let carry = if zero >> 127 == 1 { 0x87 } else { 0 };
        Cipher(Arc::new(Secret { aes, subkey: (zero << 1 ^ carry).to_be_bytes() }))
    }

    /// AES-256-GCM by the key that a salt makes of this one.
    fn derive(&self, salt: &Salt) -> Gcm {
        let Secret { aes, subkey } = &*self.0;
        let mut key = [0; 32];
        for (half, counter) in key.as_chunks_mut::<16>().0.iter_mut().zip([1, 2]) {
            let mut block = [0; 16];
            block.iter_mut().zip([0, counter, b'X', 0].iter().chain(salt)).for_each(|(to, from)| *to = *from);
            block.iter_mut().zip(subkey).for_each(|(to, from)| *to ^= from);
            aes.encrypt_block((&mut block).into());
            *half = block;
        }
        Gcm::new(&key.into())
    }

    fn is(&self, other: &Cipher) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Keyring {
    pub fn new() -> Keyring {
        Keyring { salt: draw(), messages: 0, made_of: Vec::new(), ciphers: Vec::new(), oldest: 0 }
    }

    /// Encrypts the text at the beginning of `room` over it; gives the new length, or `None` where it does not fit and
    /// stays as it was.
    pub fn encrypt(&mut self, cipher: &Cipher, now_ns: u64, room: &mut [u8], length: usize) -> Option<usize> {
        let longer = length.checked_add(LONGER)?;
        let all = room.get_mut(..longer)?;
        if self.messages == MESSAGES_MAX {
            (self.salt, self.messages) = (draw(), 0);
        }
        self.messages += 1;
        let mut rest = [0; REST];
        let (time, count) = rest.split_at_mut(8);
        time.copy_from_slice(&now_ns.to_le_bytes());
        count.copy_from_slice(&self.messages.to_le_bytes());
        let salt = self.salt;
        let gcm = match self.find(cipher, &salt) {
            Some(known) => known,
            None => self.keep(cipher, salt, cipher.derive(&salt)),
        };
        all.copy_within(..length, SALT + REST);
        let (nonce, sealed) = all.split_at_mut(SALT + REST);
        nonce.copy_from_slice([salt, rest].as_flattened());
        let (text, tag) = sealed.split_last_chunk_mut::<TAG>()?;
        // It fails for texts of gigabytes only.
        *tag = gcm.encrypt_inout_detached(&Nonce::from(rest), &[], text.into()).ok()?.into();
        Some(longer)
    }

    /// Decrypts what is at the beginning of `room` over it; gives the text's length, or `None` where it is not authentic
    /// and stays as it was. A key is kept once something was authentic by it, so that nobody without the secret key drives
    /// out the others.
    pub fn decrypt(&mut self, cipher: &Cipher, room: &mut [u8], length: usize) -> Option<usize> {
        let encrypted = room.get_mut(..length)?;
        let (salt, sealed) = encrypted.split_first_chunk_mut::<SALT>()?;
        let (rest, sealed) = sealed.split_first_chunk_mut::<REST>()?;
        let (text, tag) = sealed.split_last_chunk_mut::<TAG>()?;
        let (nonce, tag, length) = (Nonce::from(*rest), Tag::from(*tag), text.len());
        match self.find(cipher, salt) {
            Some(known) => known.decrypt_inout_detached(&nonce, &[], text.into(), &tag).ok()?,
            None => {
                let gcm = cipher.derive(salt);
                gcm.decrypt_inout_detached(&nonce, &[], text.into(), &tag).ok()?;
                self.keep(cipher, *salt, gcm);
            }
        }
        encrypted.copy_within(SALT + REST..SALT + REST + length, 0);
        Some(length)
    }

    fn find(&self, cipher: &Cipher, salt: &Salt) -> Option<&Gcm> {
        let place = self.made_of.iter().position(|(known, of)| known == salt && of.is(cipher))?;
        self.ciphers.get(place)
    }

    /// Keeps a key, instead of the one that is here longest where there are many.
    fn keep(&mut self, cipher: &Cipher, salt: Salt, gcm: Gcm) -> &Gcm {
        let place = if self.ciphers.len() < KEPT_MAX {
            self.made_of.push((salt, cipher.clone()));
            self.ciphers.push(gcm);
            self.ciphers.len() - 1
        } else {
            let place = self.oldest;
            self.oldest = (place + 1) % KEPT_MAX;
            self.made_of[place] = (salt, cipher.clone());
            self.ciphers[place] = gcm;
            place
        };
        &self.ciphers[place]
    }
}

/// A salt from SipHash with a key from the operating system.
fn draw() -> Salt {
    let random = RandomState::new();
    let [first, last] = [0, 1].map(|number: u8| random.hash_one(number).to_le_bytes());
    let mut salt = [0; SALT];
    salt.iter_mut().zip(first.into_iter().chain(last)).for_each(|(to, from)| *to = from);
    salt
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_encrypted_comes_back_and_nothing_else_does() {
        let (cipher, other) = (Cipher::new([7; 32]), Cipher::new([8; 32]));
        let (mut here, mut there) = (Keyring::new(), Keyring::new());
        let mut room = [0; 80];
        room[..5].copy_from_slice(b"hello");
        assert_eq!(here.encrypt(&cipher, 1, &mut room, 5), Some(45));
        let encrypted = room;
        assert!(!encrypted.windows(5).any(|window| window == b"hello"));
        assert_eq!(there.decrypt(&other, &mut room, 45), None);
        assert_eq!(room, encrypted, "untouched");
        for byte in [0, 15, 23, 26, 44] {
            room[byte] ^= 1;
            assert_eq!(there.decrypt(&cipher, &mut room, 45), None);
            room[byte] ^= 1;
        }
        assert!(there.ciphers.is_empty(), "nothing was authentic");
        assert_eq!(there.decrypt(&cipher, &mut room, 39), None);
        assert_eq!(there.decrypt(&cipher, &mut room, 45), Some(5));
        assert_eq!(&room[..5], b"hello");
        let before = room;
        assert_eq!(here.encrypt(&cipher, 1, &mut room, 41), None, "no room");
        assert_eq!(room, before);
        assert_eq!(here.encrypt(&cipher, 1, &mut room, 40), Some(80));
        assert_ne!(room[..24], encrypted[..24], "nonces differ");
        assert_eq!(room[..12], encrypted[..12], "by one salt");
    }

    #[test]
    fn a_salt_serves_so_many_messages_and_keys_are_kept_of_so_many_hosts() {
        let cipher = Cipher::new([7; 32]);
        let mut here = Keyring::new();
        let mut hosts = Vec::new();
        for _ in 0..2 * KEPT_MAX {
            let mut room = [0; 48];
            here.messages = MESSAGES_MAX;
            assert_eq!(here.encrypt(&cipher, 1, &mut room, 8), Some(48));
            hosts.push(room);
        }
        assert!(hosts.windows(2).all(|two| two[0][..12] != two[1][..12]), "salts differ");
        assert_eq!(here.ciphers.len(), KEPT_MAX);
        for room in &mut hosts {
            assert_eq!(here.decrypt(&cipher, room, 48), Some(8));
        }
    }

    /// The vectors of the specification: key, additional data, ciphertext and tag.
    #[test]
    fn it_is_xaes_256_gcm() {
        let vectors = [
            ([1; 32], "", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
            ([3; 32], "c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
        ];
        for (key, additional, expected) in vectors {
            let mut text = *b"XAES-256-GCM";
            let gcm = Cipher::new(key).derive(b"ABCDEFGHIJKL");
            let nonce = Nonce::from(*b"MNOPQRSTUVWX");
            let tag =
                gcm.encrypt_inout_detached(&nonce, additional.as_bytes(), text[..].as_mut().into()).unwrap();
            assert_eq!([&text[..], &tag].concat(), crate::table::unhex(expected).unwrap());
        }
    }
}
