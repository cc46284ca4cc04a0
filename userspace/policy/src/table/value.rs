//! What tables hold.

use super::text::{hex, inline, name_of, names, number_of, text_of, unhex};
use crate::notation;
use serde::{Deserialize, Serialize};

/// What a table holds per key. In a map, values are little-endian.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ValueType {
    /// Four bytes, 0 or 1.
    Bool,
    /// Four bytes.
    U32,
    /// Eight bytes.
    U64,
    /// Four bytes.
    I32,
    /// Eight bytes.
    I64,
    /// One of these names; four bytes with its number. An enum that a policy makes up is numbered in the order of
    /// the names' letters, so that reordering the arms of a `match` does not change the type.
    Enum {
        /// Names and numbers.
        values: Vec<(String, i32)>,
    },
    /// Eight bytes.
    F64,
    /// Eight bytes: a time in ns.
    Duration,
    /// Eight bytes: the theoretical arrival time of a token bucket, in ns.
    Bucket,
    /// Kept as in a flat block: a length byte, then `max_len` bytes; UTF-8.
    String {
        /// The longest value, in bytes.
        max_len: u8,
    },
    /// Arbitrary bytes, kept like text; written in hexadecimal.
    Bytes {
        /// The longest value, in bytes.
        max_len: u8,
    },
    /// Exactly `len` bytes; written in hexadecimal.
    Fixed {
        /// How many bytes.
        len: u8,
    },
}

impl ValueType {
    /// Bytes of a value.
    pub fn size(&self) -> u32 {
        match self {
            ValueType::Bool | ValueType::U32 | ValueType::I32 | ValueType::Enum { .. } => 4,
            ValueType::U64 | ValueType::I64 | ValueType::F64 | ValueType::Duration | ValueType::Bucket => 8,
            ValueType::String { max_len } | ValueType::Bytes { max_len } => 1 + u32::from(*max_len),
            ValueType::Fixed { len } => u32::from(*len),
        }
    }

    /// A made-up enum of these names, numbered in the order of their letters.
    pub(crate) fn enumeration(names: impl IntoIterator<Item = String>) -> ValueType {
        let mut names: Vec<String> = names.into_iter().collect();
        names.sort();
        names.dedup();
        ValueType::Enum { values: names.into_iter().zip(0..).collect() }
    }

    /// The bytes of a value as a user writes it.
    pub(super) fn parse(&self, text: &str) -> Option<Vec<u8>> {
        let number = match self {
            ValueType::Bool => text.parse().ok().map(|value: bool| value.into()),
            ValueType::U32 => text.parse().ok().map(|n: u32| u64::from(n)),
            ValueType::U64 => text.parse().ok(),
            ValueType::I32 => text.parse().ok().map(|n: i32| i64::from(n) as u64),
            ValueType::I64 => text.parse().ok().map(|n: i64| n as u64),
            ValueType::Enum { values } => number_of(values, text).map(|n| i64::from(n) as u64),
            ValueType::F64 => text.parse().ok().map(f64::to_bits),
            ValueType::Duration | ValueType::Bucket => notation::duration(text),
            ValueType::String { max_len } => return inline(text.as_bytes(), *max_len),
            ValueType::Bytes { max_len } => return inline(&unhex(text)?, *max_len),
            ValueType::Fixed { len } => {
                return unhex(text).filter(|bytes| bytes.len() == usize::from(*len));
            }
        };
        number.map(|number| self.to_bytes(number))
    }

    /// The bytes of a value in a map.
    pub(crate) fn to_bytes(&self, value: u64) -> Vec<u8> {
        match self.size() {
            4 => (value as u32).to_le_bytes().to_vec(),
            _ => value.to_le_bytes().to_vec(),
        }
    }

    /// The value from its bytes in a map.
    pub(crate) fn number_from(&self, bytes: &[u8]) -> Option<u64> {
        let small = || bytes.first_chunk().map(|chunk| u32::from_le_bytes(*chunk));
        match self {
            ValueType::Bool => small().map(|n| u64::from(n != 0)),
            ValueType::U32 => small().map(u64::from),
            ValueType::I32 | ValueType::Enum { .. } => small().map(|n| i64::from(n as i32) as u64),
            ValueType::U64 | ValueType::I64 | ValueType::F64 | ValueType::Duration | ValueType::Bucket => {
                bytes.first_chunk().map(|chunk| u64::from_le_bytes(*chunk))
            }
            ValueType::String { .. } | ValueType::Bytes { .. } | ValueType::Fixed { .. } => None,
        }
    }

    pub(super) fn format(&self, bytes: &[u8]) -> Option<String> {
        let number = || self.number_from(bytes);
        Some(match self {
            ValueType::Bool => (number()? != 0).to_string(),
            ValueType::U32 | ValueType::U64 => number()?.to_string(),
            ValueType::I32 | ValueType::I64 => (number()? as i64).to_string(),
            ValueType::Enum { values } => name_of(values, number()? as i32),
            ValueType::F64 => f64::from_bits(number()?).to_string(),
            ValueType::Duration | ValueType::Bucket => notation::format_duration(number()?),
            ValueType::String { .. } => String::from_utf8_lossy(text_of(bytes)?).into_owned(),
            ValueType::Bytes { .. } => hex(text_of(bytes)?),
            ValueType::Fixed { .. } => hex(bytes),
        })
    }
}

impl std::fmt::Display for ValueType {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            ValueType::Bool => f.write_str("bool"),
            ValueType::U32 => f.write_str("u32"),
            ValueType::U64 => f.write_str("u64"),
            ValueType::I32 => f.write_str("i32"),
            ValueType::I64 => f.write_str("i64"),
            ValueType::Enum { values } => f.write_str(&names(values)),
            ValueType::F64 => f.write_str("float"),
            ValueType::Duration => f.write_str("duration"),
            ValueType::Bucket => f.write_str("bucket"),
            ValueType::String { max_len } => write!(f, "string({max_len})"),
            ValueType::Bytes { max_len } => write!(f, "bytes({max_len})"),
            ValueType::Fixed { len } => write!(f, "fixed({len})"),
        }
    }
}
