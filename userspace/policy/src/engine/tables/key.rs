//! Keys as tables hash and compare them: words of 64 bits, and the way from there to their bytes in a map and back.
//!
//! A number is one word. A text, or bytes of any length, is its length and then its bytes ([`crate::hash::words`]); bytes
//! of a fixed length are only those. So no key is the beginning of another key of its table, and of a text only as much
//! is touched as there is of it, not the room that it has.

use crate::engine::shape::{Shape, Value};
use crate::hash::words;
use std::hash::{BuildHasher, RandomState};

/// Room for one key.
#[derive(Clone, Debug)]
pub struct Key {
    words: Box<[u64]>,
    used: usize,
}

impl Key {
    /// With room for so many words.
    pub fn new(room: usize) -> Key {
        Key { words: vec![0; room].into(), used: 0 }
    }

    /// A key from its bytes in a map; `None` where they are none.
    pub fn from_map(parts: &[Shape], bytes: &[u8]) -> Option<Key> {
        let mut key = Key::new(words_of(parts));
        let mut rest = bytes;
        for shape in parts {
            let (part, behind) = rest.split_at_checked(shape.size())?;
            rest = behind;
            match (shape, shape.read(part)) {
                (Shape::Unit, _) => {}
                (Shape::Cidr, _) => {
                    let (bits, address) = part.split_first_chunk()?;
                    key.push(u32::from_ne_bytes(*bits).into())?;
                    words(address).try_for_each(|word| key.push(word))?;
                }
                (shape, Some(Value::Number(number))) => key.push_number(*shape, number)?,
                (shape, Some(Value::Bytes(bytes))) => key.push_bytes(*shape, bytes)?,
                (_, None) => return None,
            }
        }
        rest.is_empty().then_some(key)
    }

    #[inline]
    pub fn clear(&mut self) {
        self.used = 0;
    }

    #[inline]
    pub fn words(&self) -> &[u64] {
        self.words.get(..self.used).unwrap_or_default()
    }

    /// Adds a part that is a number.
    #[inline]
    pub fn push_number(&mut self, shape: Shape, number: u64) -> Option<()> {
        if shape.is_number() { self.push(shape.canonical(number)) } else { None }
    }

    /// Adds a part that is none; `None` where there is no room for all of it.
    #[inline]
    pub fn push_bytes(&mut self, shape: Shape, bytes: &[u8]) -> Option<()> {
        match shape {
            Shape::Inline(room) if bytes.len() <= usize::from(room) => self.push(bytes.len() as u64)?,
            Shape::Fixed(length) if bytes.len() <= usize::from(length) => {}
            Shape::Cidr if bytes.len() == 16 => self.push(128)?,
            _ => return None,
        }
        words(bytes).try_for_each(|word| self.push(word))?;
        if let Shape::Fixed(length) = shape {
            let missing = usize::from(length).div_ceil(8) - bytes.len().div_ceil(8);
            (0..missing).try_for_each(|_| self.push(0))?;
        }
        Some(())
    }

    #[inline]
    fn push(&mut self, word: u64) -> Option<()> {
        *self.words.get_mut(self.used)? = word;
        self.used += 1;
        Some(())
    }
}

/// The words of the longest key that has these parts.
pub fn words_of(parts: &[Shape]) -> usize {
    let words = parts.iter().map(|shape| match shape {
        Shape::Unit => 0,
        Shape::Inline(room) => 1 + usize::from(*room).div_ceil(8),
        Shape::Fixed(length) => usize::from(*length).div_ceil(8),
        Shape::Cidr => 3,
        Shape::Bool | Shape::WideBool | Shape::U32 | Shape::I32 | Shape::Wide | Shape::Float => 1,
    });
    words.sum()
}

/// Adds a key's bytes in a map.
pub fn to_map(parts: &[Shape], key: &[u64], out: &mut Vec<u8>) {
    let mut words = key.iter().copied();
    for shape in parts {
        let end = out.len() + shape.size();
        let length = match shape {
            Shape::Inline(room) => {
                let length = words.next().unwrap_or(0).min(u64::from(*room)) as u8;
                out.push(length);
                length.into()
            }
            Shape::Fixed(length) => usize::from(*length),
            Shape::Cidr => {
                out.extend((words.next().unwrap_or(0) as u32).to_ne_bytes());
                16
            }
            Shape::Unit => 0,
            number => {
                let start = out.len();
                out.resize(end, 0);
                number.write(
                    Value::Number(words.next().unwrap_or(0)),
                    out.get_mut(start..).unwrap_or_default(),
                );
                0
            }
        };
        let text = out.len();
        for word in words.by_ref().take(length.div_ceil(8)) {
            out.extend(word.to_le_bytes());
        }
        out.truncate(text + length);
        out.resize(end, 0);
    }
}

/// Multiply-add-shift over vectors (Dietzfelbinger 1996): the sum of the words, each multiplied by a random number of its
/// own of 128 bits, of which the upper half is the hash.
///
/// It is strongly universal: of two different keys, whoever has chosen them without knowing the numbers, the hashes are
/// independent and evenly spread. So nobody can prepare keys that share a place of a table any better than by chance. What
/// no key has behind its end adds nothing, as zeros would.
#[derive(Clone, Debug)]
pub struct Hasher {
    addend: u128,
    multipliers: Box<[u128]>,
}

impl Hasher {
    /// For keys of up to so many words, by numbers of its own.
    pub fn new(words: usize) -> Hasher {
        // SipHash with a key from the operating system.
        let random = RandomState::new();
        let mut drawn = 0u64;
        let mut half = || {
            drawn += 1;
            u128::from(random.hash_one(drawn))
        };
        let mut next = || half() << 64 | half();
        Hasher { addend: next(), multipliers: (0..words).map(|_| next()).collect() }
    }

    #[inline]
    pub fn hash(&self, key: &[u64]) -> u64 {
        let products = key.iter().zip(&self.multipliers);
        let sum = products.fold(self.addend, |sum, (word, multiplier)| {
            sum.wrapping_add(multiplier.wrapping_mul(u128::from(*word)))
        });
        (sum >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_back_from_their_words() {
        let parts = [Shape::Inline(5), Shape::I32, Shape::Fixed(10), Shape::Bool, Shape::Wide];
        let mut bytes = b"\x03tea\0\0".to_vec();
        bytes.extend((-5i32).to_le_bytes());
        bytes.extend(b"0123456789");
        bytes.push(1);
        bytes.extend(7u64.to_le_bytes());
        let key = Key::from_map(&parts, &bytes).unwrap();
        assert_eq!(key.words().len(), 1 + 1 + 1 + 2 + 1 + 1);
        let mut back = Vec::new();
        to_map(&parts, key.words(), &mut back);
        assert_eq!(back, bytes);

        bytes[0] = 6;
        assert!(Key::from_map(&parts, &bytes).is_none(), "a text longer than its room");
        assert!(Key::from_map(&parts, &bytes[1..]).is_none());
        let network = [&24u32.to_ne_bytes()[..], &[1; 16]].concat();
        let key = Key::from_map(&[Shape::Cidr], &network).unwrap();
        back.clear();
        to_map(&[Shape::Cidr], key.words(), &mut back);
        assert_eq!(back, network);
    }

    #[test]
    fn what_is_behind_a_text_does_not_count_and_what_is_too_long_is_no_key() {
        let parts = [Shape::Inline(9)];
        let words = |bytes: &[u8]| Key::from_map(&parts, bytes).unwrap().words().to_vec();
        assert_eq!(words(b"\x03tea\0\0\0\0\0\0"), words(b"\x03teaXXXXXX"));
        assert_ne!(words(b"\x03tea\0\0\0\0\0\0"), words(b"\x04tea\0\0\0\0\0\0"));
        let mut key = Key::new(3);
        assert!(key.push_bytes(Shape::Inline(9), b"ten letters").is_none());
        assert!(key.push_bytes(Shape::Inline(9), b"nine more").is_some());
        assert!(key.push_number(Shape::Wide, 1).is_none(), "no room");
    }

    #[test]
    fn hashes_differ_by_table_and_ignore_zeros_at_the_end() {
        let (one, other) = (Hasher::new(3), Hasher::new(3));
        assert_ne!(one.hash(&[1, 2, 3]), other.hash(&[1, 2, 3]));
        assert_eq!(one.hash(&[1, 2]), one.hash(&[1, 2, 0]));
        assert_ne!(one.hash(&[1, 2]), one.hash(&[2, 1]));
    }
}
