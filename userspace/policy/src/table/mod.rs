//! Tables: their types, and the way from what a user types to the bytes in a map and back.
//!
//! Both back ends keep a table's keys and values in the same bytes, so a table can be dumped and changed without
//! knowing where it lives.

mod key;
mod text;
mod value;

pub use key::KeyType;
use serde::{Deserialize, Serialize};
pub(crate) use text::unhex;
use text::{hex, names};
pub use value::ValueType;

/// Entries of a table whose policy does not say.
pub const CAPACITY_DEFAULT: u32 = 65_536;
/// The most entries a table can have.
pub const CAPACITY_MAX: u32 = 1 << 24;

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
