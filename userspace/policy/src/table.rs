//! Tables: their types, and the way from what a user types to the bytes in a map and back.
//!
//! Both back ends keep a table's keys and values in the same bytes, so a table can be dumped and changed without
//! knowing where it lives.

use crate::notation;
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// Entries of a table whose policy does not say.
pub const CAPACITY_DEFAULT: u32 = 65_536;
/// The most entries a table can have.
pub const CAPACITY_MAX: u32 = 1 << 24;

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

/// How a table keeps its entries.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TableKind {
    /// A full table refuses new keys.
    #[default]
    Hash,
    /// A full table forgets what was not used for longest. In the kernel that is approximate.
    Lru,
    /// Longest prefix match, looked up by an address.
    Lpm,
    /// One value, always there.
    Cell,
    /// Numbers that are only added to: per CPU in the kernel, and exact.
    Counter,
}

/// A table of a policy.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TableSpec {
    /// The name in the policy, which is the map's name too.
    pub name: String,
    /// What it is looked up by.
    pub key: KeyType,
    /// What it holds.
    pub value: ValueType,
    /// How it keeps its entries.
    #[serde(default)]
    pub kind: TableKind,
    /// What a cell holds at first; 0 in all other tables.
    #[serde(default)]
    pub initial: u64,
    /// The most entries.
    pub capacity: u32,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
}

/// Why a table could not be read or changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// No such table.
    #[error("the policy has no table {name:?}{}", known.as_deref().map(|k| format!(" (it has {k})")).unwrap_or_default())]
    Unknown {
        /// The name asked for.
        name: String,
        /// The tables there are, if any.
        known: Option<String>,
    },
    /// The text is not a key of this table.
    #[error("{text:?} is not a key of table {table}: {expected}")]
    Key {
        /// The table.
        table: String,
        /// What was given.
        text: String,
        /// What a key looks like.
        expected: String,
    },
    /// The text is not a value of this table.
    #[error("{text:?} is not a value of table {table}: {expected}")]
    Value {
        /// The table.
        table: String,
        /// What was given.
        text: String,
        /// What a value looks like.
        expected: String,
    },
    /// No room.
    #[error("table {table} is full: it has room for {capacity} entries")]
    Full {
        /// The table.
        table: String,
        /// Its capacity.
        capacity: u32,
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
            KeyType::Bool => parse_bool(text).map(|value| vec![u8::from(value)]),
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
    fn parse(&self, text: &str) -> Option<Vec<u8>> {
        let number = match self {
            ValueType::Bool => parse_bool(text).map(u64::from),
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

    fn format(&self, bytes: &[u8]) -> Option<String> {
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

impl TableSpec {
    pub(crate) fn new(name: String, key: KeyType, value: ValueType, capacity: u32) -> TableSpec {
        let (key_size, value_size) = (key.size(), value.size());
        let (kind, initial) = (TableKind::Hash, 0);
        TableSpec { name, key, value, kind, initial, capacity, key_size, value_size }
    }

    /// What a cell's map holds before anything has changed it: to be written to its entry, whose key is four zero bytes,
    /// before the policy that made it is in force. `None` of other tables, which begin empty.
    pub fn first_value(&self) -> Option<Vec<u8>> {
        (self.kind == TableKind::Cell).then(|| self.value.to_bytes(self.initial))
    }

    /// What the bytes of its keys and values mean, as text: the same for tables whose entries can be taken over.
    pub fn meaning(&self) -> String {
        let TableSpec { key, value, kind, .. } = self;
        // Serialising these cannot fail: they are enums of numbers and texts.
        serde_json::to_string(&(key, value, kind)).unwrap_or_default()
    }

    /// The bytes of what a cell holds at first; zeros for all other tables.
    pub fn initial_bytes(&self) -> Vec<u8> {
        let mut bytes = self.initial.to_le_bytes().to_vec();
        bytes.resize(self.value_size as usize, 0);
        bytes
    }

    /// Whether entries of a table of the other type mean the same in this one: a policy swap keeps them then.
    pub fn same_type(&self, other: &TableSpec) -> bool {
        let TableSpec { name, key, value, kind, initial: _, capacity: _, key_size: _, value_size: _ } = self;
        *name == other.name && *key == other.key && *value == other.value && *kind == other.kind
    }

    /// The bytes of a key as a user writes it: text as it is, numbers in decimal, enums by name, bytes in hexadecimal.
    ///
    /// # Errors
    /// [`TableError::Key`], saying what a key looks like.
    pub fn parse_key(&self, text: &str) -> Result<Vec<u8>, TableError> {
        self.key.parse(text).ok_or_else(|| TableError::Key {
            table: self.name.clone(),
            text: text.to_owned(),
            expected: match &self.key {
                KeyType::String { max_len } => format!("keys are text of at most {max_len} bytes"),
                KeyType::Bytes { max_len } => {
                    format!("keys are at most {max_len} bytes in hexadecimal, two digits a byte")
                }
                KeyType::Fixed { len } => format!("keys are {len} bytes in hexadecimal, two digits a byte"),
                KeyType::Enum { values } => format!("keys are {}", names(values)),
                other => format!("keys are of type {other}"),
            },
        })
    }

    /// The bytes of a value as a user writes it: numbers in decimal, enums by name.
    ///
    /// # Errors
    /// [`TableError::Value`], saying what a value looks like.
    pub fn parse_value(&self, text: &str) -> Result<Vec<u8>, TableError> {
        self.value.parse(text).ok_or_else(|| TableError::Value {
            table: self.name.clone(),
            text: text.to_owned(),
            expected: match &self.value {
                ValueType::Enum { values } => format!("values are {}", names(values)),
                other => format!("values are of type {other}"),
            },
        })
    }

    /// A key for people; [`TableSpec::parse_key`] reads it back. Bytes that are no key show in hexadecimal.
    pub fn format_key(&self, key: &[u8]) -> String {
        self.key.format(key).unwrap_or_else(|| hex(key))
    }

    /// A value for people; [`TableSpec::parse_value`] reads it back. Bytes that are no value show in hexadecimal.
    pub fn format_value(&self, value: &[u8]) -> String {
        self.value.format(value).unwrap_or_else(|| hex(value))
    }
}

/// What stands for a service where a policy computes with it: FNV-1a 32 of its full name.
pub(crate) fn service_number(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

fn parse_bool(text: &str) -> Option<bool> {
    text.parse().ok()
}

fn number_of(values: &[(String, i32)], name: &str) -> Option<i32> {
    values.iter().find(|(known, _)| known == name).map(|(_, number)| *number)
}

fn name_of(values: &[(String, i32)], number: i32) -> String {
    let known = values.iter().find(|(_, known)| *known == number);
    known.map_or_else(|| number.to_string(), |(name, _)| name.clone())
}

fn names(values: &[(String, i32)]) -> String {
    values.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join("|")
}

/// The length byte, the bytes, zeros.
fn inline(bytes: &[u8], max_len: u8) -> Option<Vec<u8>> {
    let mut key = vec![0; 1 + usize::from(max_len)];
    tollfree_wire::flat::put_bytes(&mut key, 0, usize::from(max_len), bytes).ok()?;
    Some(key)
}

fn text_of(key: &[u8]) -> Option<&[u8]> {
    let (length, text) = key.split_first()?;
    text.get(..usize::from(*length))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a String cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

pub(crate) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> =
        text.chars().map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok())).collect();
    let (pairs, rest) = digits.as_deref()?.as_chunks::<2>().to_owned();
    rest.is_empty().then(|| pairs.iter().map(|[high, low]| high << 4 | low).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn firewall() -> TableSpec {
        let value = ValueType::enumeration(["DENY".to_owned(), "ALLOW".to_owned()]);
        TableSpec::new("firewall_rules".into(), KeyType::String { max_len: 8 }, value, 16)
    }

    #[test]
    fn what_a_user_writes_comes_back() {
        let table = firewall();
        assert_eq!(table.parse_key("alice").unwrap(), *b"\x05alice\0\0\0");
        assert_eq!(table.format_key(b"\x05alice\0\0\0"), "alice");
        assert_eq!(table.parse_value("DENY").unwrap(), [1, 0, 0, 0]);
        assert_eq!(table.format_value(&[0, 0, 0, 0]), "ALLOW");
        let keys = [
            (KeyType::I64, "-7"),
            (KeyType::U64, "18446744073709551615"),
            (KeyType::Bool, "true"),
            (KeyType::Bytes { max_len: 3 }, "00ff"),
            (KeyType::Fixed { len: 2 }, "0aff"),
            (KeyType::Enum { values: vec![("A".into(), -1)] }, "A"),
        ];
        for (key, text) in keys {
            let table = TableSpec { key, ..firewall() };
            assert_eq!(table.format_key(&table.parse_key(text).unwrap()), text);
        }
    }

    #[test]
    fn what_is_no_key_says_what_is() {
        let table = firewall();
        let error = table.parse_key("a name too long").unwrap_err().to_string();
        assert_eq!(
            error,
            r#""a name too long" is not a key of table firewall_rules: keys are text of at most 8 bytes"#
        );
        let error = table.parse_value("allow").unwrap_err().to_string();
        assert_eq!(error, r#""allow" is not a value of table firewall_rules: values are ALLOW|DENY"#);
        assert_eq!(table.format_key(&[200, 1]), "c801", "a lie about the length shows as it is");
    }
}
