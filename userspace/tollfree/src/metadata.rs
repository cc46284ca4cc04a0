//! Metadata: keys with values that a call carries beside its message. The shape is tonic's.
//!
//! What it may hold is bounded (`tollfree_wire::metadata`): 64 entries, 8 KiB in all. Nothing here refuses an entry:
//! the call that would carry one that is not allowed ends with `INVALID_ARGUMENT`.

use crate::Status;
use std::borrow::Cow;
use std::marker::PhantomData;
use std::str::FromStr;
use tollfree_wire::metadata::{self, BINARY_SUFFIX, Metadata};

/// Values of keys that do not end in `-bin`: printable ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Ascii {}

/// Values of keys that end in `-bin`: any bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Binary {}

/// A value.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct MetadataValue<E = Ascii> {
    bytes: Cow<'static, [u8]>,
    encoding: PhantomData<E>,
}

/// A value of printable ASCII.
pub type AsciiMetadataValue = MetadataValue<Ascii>;
/// A value of any bytes.
pub type BinaryMetadataValue = MetadataValue<Binary>;

/// The text is not printable ASCII.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a metadata value must be printable ASCII; for other values use a key that ends in -bin")]
pub struct InvalidMetadataValue;

impl<E> MetadataValue<E> {
    fn new(bytes: impl Into<Cow<'static, [u8]>>) -> MetadataValue<E> {
        MetadataValue { bytes: bytes.into(), encoding: PhantomData }
    }

    /// The bytes of the value.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Whether the value is empty.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }
}

impl MetadataValue<Ascii> {
    /// A value known when compiling. One that is not printable ASCII is refused when the call is made.
    pub const fn from_static(text: &'static str) -> Self {
        MetadataValue { bytes: Cow::Borrowed(text.as_bytes()), encoding: PhantomData }
    }

    /// The value as text.
    ///
    /// # Errors
    /// Where it is not printable ASCII, which no received value is.
    pub fn to_str(&self) -> Result<&str, InvalidMetadataValue> {
        std::str::from_utf8(&self.bytes).map_err(|_| InvalidMetadataValue)
    }
}

impl MetadataValue<Binary> {
    /// A value of these bytes.
    pub fn from_bytes(bytes: &[u8]) -> Self {
        MetadataValue::new(bytes.to_vec())
    }

    /// The bytes of the value.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.bytes.to_vec()
    }
}

impl FromStr for MetadataValue<Ascii> {
    type Err = InvalidMetadataValue;

    fn from_str(text: &str) -> Result<Self, InvalidMetadataValue> {
        text.to_owned().try_into()
    }
}

impl TryFrom<String> for MetadataValue<Ascii> {
    type Error = InvalidMetadataValue;

    fn try_from(text: String) -> Result<Self, InvalidMetadataValue> {
        metadata::check_value("", text.as_bytes()).map_err(|_| InvalidMetadataValue)?;
        Ok(MetadataValue::new(text.into_bytes()))
    }
}

impl TryFrom<&str> for MetadataValue<Ascii> {
    type Error = InvalidMetadataValue;

    fn try_from(text: &str) -> Result<Self, InvalidMetadataValue> {
        text.parse()
    }
}

impl From<u64> for MetadataValue<Ascii> {
    fn from(number: u64) -> Self {
        MetadataValue::new(number.to_string().into_bytes())
    }
}

impl PartialEq<str> for MetadataValue<Ascii> {
    fn eq(&self, other: &str) -> bool {
        *self.bytes == *other.as_bytes()
    }
}

impl PartialEq<&str> for MetadataValue<Ascii> {
    fn eq(&self, other: &&str) -> bool {
        *self == **other
    }
}

impl<E> std::fmt::Debug for MetadataValue<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "\"{}\"", self.bytes.escape_ascii())
    }
}

/// A key with its value, as [`MetadataMap::iter`] gives them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyAndValueRef<'a> {
    /// A key that does not end in `-bin`.
    Ascii(&'a str, &'a MetadataValue<Ascii>),
    /// A key that does.
    Binary(&'a str, &'a MetadataValue<Binary>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Value {
    Ascii(MetadataValue<Ascii>),
    Binary(MetadataValue<Binary>),
}

impl Value {
    fn bytes(&self) -> &[u8] {
        match self {
            Value::Ascii(value) => value.as_bytes(),
            Value::Binary(value) => value.as_bytes(),
        }
    }
}

/// Keys with values, in the order they were added. Keys are lower-case; a key may come more than once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MetadataMap {
    entries: Vec<(Cow<'static, str>, Value)>,
}

impl MetadataMap {
    /// A map without entries.
    pub const fn new() -> MetadataMap {
        MetadataMap { entries: Vec::new() }
    }

    /// Sets a key's value, in place of all it had; the first of them is returned.
    pub fn insert(
        &mut self,
        key: impl Into<Cow<'static, str>>,
        value: MetadataValue<Ascii>,
    ) -> Option<MetadataValue<Ascii>> {
        let key = key.into();
        let old = self.remove(&key);
        self.append(key, value);
        old
    }

    /// Sets the bytes of a key that ends in `-bin`, in place of all it had; the first of them are returned.
    pub fn insert_bin(
        &mut self,
        key: impl Into<Cow<'static, str>>,
        value: MetadataValue<Binary>,
    ) -> Option<MetadataValue<Binary>> {
        let key = key.into();
        let old = self.remove_bin(&key);
        self.append_bin(key, value);
        old
    }

    /// Adds a value to those a key has.
    pub fn append(&mut self, key: impl Into<Cow<'static, str>>, value: MetadataValue<Ascii>) {
        self.entries.push((key.into(), Value::Ascii(value)));
    }

    /// Adds bytes to those that a key which ends in `-bin` has.
    pub fn append_bin(&mut self, key: impl Into<Cow<'static, str>>, value: MetadataValue<Binary>) {
        self.entries.push((key.into(), Value::Binary(value)));
    }

    /// A key's first value.
    pub fn get(&self, key: &str) -> Option<&MetadataValue<Ascii>> {
        self.entries.iter().find_map(|(other, value)| match value {
            Value::Ascii(value) if other == key => Some(value),
            _ => None,
        })
    }

    /// The first bytes of a key that ends in `-bin`.
    pub fn get_bin(&self, key: &str) -> Option<&MetadataValue<Binary>> {
        self.entries.iter().find_map(|(other, value)| match value {
            Value::Binary(value) if other == key => Some(value),
            _ => None,
        })
    }

    /// All values of a key.
    pub fn get_all<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a MetadataValue<Ascii>> {
        self.entries.iter().filter_map(move |(other, value)| match value {
            Value::Ascii(value) if other == key => Some(value),
            _ => None,
        })
    }

    /// All bytes of a key that ends in `-bin`.
    pub fn get_all_bin<'a>(&'a self, key: &'a str) -> impl Iterator<Item = &'a MetadataValue<Binary>> {
        self.entries.iter().filter_map(move |(other, value)| match value {
            Value::Binary(value) if other == key => Some(value),
            _ => None,
        })
    }

    /// Takes out all values of a key; the first is returned.
    pub fn remove(&mut self, key: &str) -> Option<MetadataValue<Ascii>> {
        let first = self.get(key).cloned();
        self.entries.retain(|(other, value)| other != key || matches!(value, Value::Binary(_)));
        first
    }

    /// Takes out all bytes of a key that ends in `-bin`; the first are returned.
    pub fn remove_bin(&mut self, key: &str) -> Option<MetadataValue<Binary>> {
        let first = self.get_bin(key).cloned();
        self.entries.retain(|(other, value)| other != key || matches!(value, Value::Ascii(_)));
        first
    }

    /// Whether a key has a value.
    pub fn contains_key(&self, key: &str) -> bool {
        self.entries.iter().any(|(other, _)| other == key)
    }

    /// Every key and value.
    pub fn iter(&self) -> impl Iterator<Item = KeyAndValueRef<'_>> {
        self.entries.iter().map(|(key, value)| match value {
            Value::Ascii(value) => KeyAndValueRef::Ascii(key, value),
            Value::Binary(value) => KeyAndValueRef::Binary(key, value),
        })
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Takes all of them out.
    pub fn clear(&mut self) {
        self.entries.clear();
    }

    /// Adds all of another map's.
    pub fn merge(&mut self, other: MetadataMap) {
        self.entries.extend(other.entries);
    }

    /// The block that goes in front of a body; empty without entries.
    pub(crate) fn encode(&self) -> Result<Vec<u8>, Status> {
        let mut block = Vec::new();
        let mismatched = |(key, value): &&(Cow<'static, str>, Value)| {
            key.ends_with(BINARY_SUFFIX) != matches!(value, Value::Binary(_))
        };
        if let Some((key, _)) = self.entries.iter().find(mismatched) {
            let why = format!("metadata `{key}`: keys of bytes end in -bin, those of text do not");
            return Err(Status::invalid_argument(why));
        }
        let entries = self.entries.iter().map(|(key, value)| (key.as_ref(), value.bytes()));
        metadata::encode(entries, &mut block).map_err(|error| Status::invalid_argument(error.to_string()))?;
        Ok(block)
    }

    /// Takes the block in front of a body, and returns it with the rest.
    pub(crate) fn decode(body: &[u8]) -> Result<(MetadataMap, &[u8]), Status> {
        let (metadata, rest) =
            Metadata::split(body).map_err(|error| Status::internal(format!("as received, {error}")))?;
        let mut map = MetadataMap::new();
        for (key, value) in metadata.iter() {
            let key = key.to_owned();
            if key.ends_with(BINARY_SUFFIX) {
                map.append_bin(key, MetadataValue::new(value.to_vec()));
            } else {
                map.append(key, MetadataValue::new(value.to_vec()));
            }
        }
        Ok((map, rest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_behaves_as_tonics_does_and_survives_the_wire() {
        let mut map = MetadataMap::new();
        assert_eq!(map.insert("x-user", "alice".parse().unwrap()), None);
        assert_eq!(map.insert("x-user", "bob".parse().unwrap()).unwrap(), "alice");
        map.append("x-user", MetadataValue::from_static("carol"));
        map.insert_bin("trace-bin", MetadataValue::from_bytes(&[0, 255]));
        assert_eq!(map.get("x-user").unwrap().to_str(), Ok("bob"));
        assert_eq!((map.get_all("x-user").count(), map.len()), (2, 3));
        assert!(map.get("trace-bin").is_none() && map.contains_key("trace-bin"));

        let mut body = map.encode().unwrap();
        body.extend_from_slice(b"message");
        let (back, message) = MetadataMap::decode(&body).unwrap();
        assert_eq!((back, message), (map.clone(), &b"message"[..]));
        assert_eq!(map.remove("x-user").unwrap(), "bob");
        assert_eq!(map.iter().count(), 1);
    }

    #[test]
    fn what_is_not_allowed_is_refused_with_a_status_that_says_so() {
        assert_eq!("line\nbreak".parse::<AsciiMetadataValue>(), Err(InvalidMetadataValue));
        let refused = |edit: fn(&mut MetadataMap)| {
            let mut map = MetadataMap::new();
            edit(&mut map);
            map.encode().unwrap_err().message().to_owned()
        };
        assert_eq!(
            refused(|map| drop(map.insert("trace-bin", "text".parse().unwrap()))),
            "metadata `trace-bin`: keys of bytes end in -bin, those of text do not"
        );
        assert!(
            refused(|map| drop(map.insert("X-User", "a".parse().unwrap()))).contains("a key that is not")
        );
        assert!(
            refused(|map| drop(map.insert("k", MetadataValue::from_static("\n"))))
                .contains("printable ASCII")
        );
    }
}
