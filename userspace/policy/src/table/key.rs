//! What tables are looked up by.

use super::text::{hex, inline, name_of, names, number_of, text_of, unhex};
use crate::notation;
use serde::{Deserialize, Serialize};

/// What a table is looked up by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeyType {
    /// One byte, 0 or 1.
    Bool,
    /// Four bytes, little-endian.
    U32,
    /// Eight bytes, little-endian.
    U64,
    /// Four bytes, little-endian.
    I32,
    /// Eight bytes, little-endian.
    I64,
    /// An enum of the schema: names and numbers; four bytes.
    Enum {
        /// Names and numbers, by number.
        values: Vec<(String, i32)>,
    },
    /// Text: a length byte, then `max_len` bytes, zero-padded.
    String {
        /// The longest key, in bytes.
        max_len: u8,
    },
    /// Any bytes, kept like text; written in hexadecimal.
    Bytes {
        /// The longest key, in bytes.
        max_len: u8,
    },
    /// Exactly `len` bytes; written in hexadecimal.
    Fixed {
        /// How many bytes.
        len: u8,
    },
    /// A float of four bytes. Not a key of tables: its equality is of no use.
    F32,
    /// A float of eight bytes. Not a key of tables either.
    F64,
    /// Eight bytes: a time in ns; written with a unit, as `250ms`.
    Duration,
    /// 16 bytes: an IPv6 address, or an IPv4 address mapped into one.
    Address,
    /// What [`KeyType::Address`]es are looked up in by their longest prefix: four bytes with the number of bits, in the
    /// host's order, then the 16 of the address; written `10.0.0.0/8`.
    Cidr,
    /// Nothing: the key of a cell, four zero bytes.
    Unit,
    /// Several keys in one, each right behind the other; written with commas between.
    Tuple {
        /// At least two, none of them a tuple, a cidr or a unit.
        parts: Vec<KeyType>,
    },
}

impl KeyType {
    /// Bytes of a key.
    pub fn size(&self) -> u32 {
        match self {
            KeyType::Bool => 1,
            KeyType::U32 | KeyType::I32 | KeyType::F32 | KeyType::Enum { .. } | KeyType::Unit => 4,
            KeyType::U64 | KeyType::I64 | KeyType::F64 | KeyType::Duration => 8,
            KeyType::Address => 16,
            KeyType::Cidr => 20,
            KeyType::Tuple { parts } => parts.iter().map(KeyType::size).sum(),
            KeyType::String { max_len } | KeyType::Bytes { max_len } => 1 + u32::from(*max_len),
            KeyType::Fixed { len } => u32::from(*len),
        }
    }

    pub(crate) fn parse(&self, text: &str) -> Option<Vec<u8>> {
        match self {
            KeyType::Bool => text.parse().ok().map(|value: bool| vec![u8::from(value)]),
            KeyType::U32 => text.parse().ok().map(|n: u32| n.to_le_bytes().to_vec()),
            KeyType::U64 => text.parse().ok().map(|n: u64| n.to_le_bytes().to_vec()),
            KeyType::I32 => text.parse().ok().map(|n: i32| n.to_le_bytes().to_vec()),
            KeyType::I64 => text.parse().ok().map(|n: i64| n.to_le_bytes().to_vec()),
            KeyType::Enum { values } => number_of(values, text).map(|n| n.to_le_bytes().to_vec()),
            KeyType::String { max_len } => inline(text.as_bytes(), *max_len),
            KeyType::Bytes { max_len } => inline(&unhex(text)?, *max_len),
            KeyType::Fixed { len } => unhex(text).filter(|bytes| bytes.len() == usize::from(*len)),
            KeyType::F32 | KeyType::F64 => None,
            KeyType::Duration => notation::duration(text).map(|ns| ns.to_le_bytes().to_vec()),
            KeyType::Address => notation::address(text).map(|address| address.to_vec()),
            KeyType::Cidr => notation::cidr(text).map(|(address, bits)| {
                let mut key = u32::from(bits).to_ne_bytes().to_vec();
                key.extend(address);
                key
            }),
            KeyType::Unit => text.is_empty().then(|| vec![0; 4]),
            KeyType::Tuple { parts } => {
                let texts: Vec<&str> = text.split(',').map(str::trim).collect();
                if texts.len() != parts.len() {
                    return None;
                }
                let keys: Option<Vec<Vec<u8>>> =
                    parts.iter().zip(texts).map(|(part, text)| part.parse(text)).collect();
                keys.map(|keys| keys.concat())
            }
        }
    }

    pub(crate) fn format(&self, key: &[u8]) -> Option<String> {
        Some(match self {
            KeyType::Bool => (*key.first()? != 0).to_string(),
            KeyType::U32 => u32::from_le_bytes(*key.first_chunk()?).to_string(),
            KeyType::U64 => u64::from_le_bytes(*key.first_chunk()?).to_string(),
            KeyType::I32 => i32::from_le_bytes(*key.first_chunk()?).to_string(),
            KeyType::I64 => i64::from_le_bytes(*key.first_chunk()?).to_string(),
            KeyType::Enum { values } => name_of(values, i32::from_le_bytes(*key.first_chunk()?)),
            KeyType::String { .. } => String::from_utf8_lossy(text_of(key)?).into_owned(),
            KeyType::Bytes { .. } => hex(text_of(key)?),
            KeyType::Fixed { .. } => hex(key),
            KeyType::F32 => f32::from_le_bytes(*key.first_chunk()?).to_string(),
            KeyType::F64 => f64::from_le_bytes(*key.first_chunk()?).to_string(),
            KeyType::Duration => notation::format_duration(u64::from_le_bytes(*key.first_chunk()?)),
            KeyType::Address => notation::format_address(*key.first_chunk()?),
            KeyType::Cidr => {
                let (bits, address) = key.split_first_chunk()?;
                notation::format_cidr(*address.first_chunk()?, u32::from_ne_bytes(*bits))
            }
            KeyType::Unit => String::new(),
            KeyType::Tuple { parts } => {
                let mut rest = key;
                let mut texts = Vec::new();
                for part in parts {
                    let (key, behind) = rest.split_at_checked(part.size() as usize)?;
                    texts.push(part.format(key)?);
                    rest = behind;
                }
                texts.join(",")
            }
        })
    }
}

impl std::fmt::Display for KeyType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeyType::Bool => f.write_str("bool"),
            KeyType::U32 => f.write_str("u32"),
            KeyType::U64 => f.write_str("u64"),
            KeyType::I32 => f.write_str("i32"),
            KeyType::I64 => f.write_str("i64"),
            KeyType::Enum { values } => f.write_str(&names(values)),
            KeyType::String { max_len } => write!(f, "string({max_len})"),
            KeyType::Bytes { max_len } => write!(f, "bytes({max_len})"),
            KeyType::Fixed { len } => write!(f, "fixed({len})"),
            KeyType::F32 | KeyType::F64 => f.write_str("float"),
            KeyType::Duration => f.write_str("duration"),
            KeyType::Address => f.write_str("address"),
            KeyType::Cidr => f.write_str("cidr"),
            KeyType::Unit => f.write_str("nothing"),
            KeyType::Tuple { parts } => {
                let parts: Vec<String> = parts.iter().map(ToString::to_string).collect();
                f.write_str(&parts.join(", "))
            }
        }
    }
}
