//! Metadata: what a call says about itself beside its message, as keys with values, at the front of the body (WIRE.md §12).
//!
//! One decoder for engines, policies and applications: what the one judges is what the other reads.

/// Most bytes of a metadata block, its length prefix excluded.
pub const METADATA_MAX: usize = 8192;
/// Most entries of a metadata block.
pub const ENTRIES_MAX: usize = 64;
/// Keys that end so have bytes as values; all others have printable ASCII.
pub const BINARY_SUFFIX: &str = "-bin";

/// Bytes of the length in front of the entries.
const PREFIX: usize = 4;
/// Bytes in front of an entry's key: its length, a zero, the value's length.
const ENTRY_PREFIX: usize = 4;

/// Why bytes are no metadata block, or entries make none. The text completes "the metadata ...".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// It ends before it should.
    Truncated,
    /// Over [`METADATA_MAX`].
    TooLong,
    /// Over [`ENTRIES_MAX`].
    TooMany,
    /// A key that is none.
    Key,
    /// A value that its key does not allow.
    Value,
}

impl Malformed {
    /// What is wrong, for people.
    pub const fn describe(self) -> &'static str {
        match self {
            Malformed::Truncated => "ends before its length says",
            Malformed::TooLong => "has more than 8192 bytes",
            Malformed::TooMany => "has more than 64 entries",
            Malformed::Key => "has a key that is not 1 to 255 of a-z, 0-9, '-', '_' and '.'",
            Malformed::Value => {
                "has a value that is not printable ASCII under a key that does not end in -bin"
            }
        }
    }
}

impl core::fmt::Display for Malformed {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "the metadata {}", self.describe())
    }
}

impl core::error::Error for Malformed {}

/// Checks an entry's key.
///
/// # Errors
/// [`Malformed::Key`].
pub fn check_key(key: &[u8]) -> Result<&str, Malformed> {
    let known = |byte: &u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.');
    if key.is_empty() || key.len() > 255 || !key.iter().all(known) {
        return Err(Malformed::Key);
    }
    core::str::from_utf8(key).map_err(|_| Malformed::Key)
}

/// Checks an entry's value.
///
/// # Errors
/// [`Malformed::Value`], or [`Malformed::TooLong`].
pub fn check_value(key: &str, value: &[u8]) -> Result<(), Malformed> {
    if value.len() > METADATA_MAX {
        return Err(Malformed::TooLong);
    }
    let printable = |byte: &u8| matches!(byte, b' '..=b'~');
    if key.ends_with(BINARY_SUFFIX) || value.iter().all(printable) { Ok(()) } else { Err(Malformed::Value) }
}

/// A checked metadata block. The default is one without entries.
#[derive(Clone, Copy, Debug, Default)]
pub struct Metadata<'a> {
    entries: &'a [u8],
}

impl<'a> Metadata<'a> {
    /// Takes the block from the front of a body, checked to its last byte, and returns it with what follows.
    ///
    /// # Errors
    /// What is malformed about it.
    pub fn split(body: &'a [u8]) -> Result<(Metadata<'a>, &'a [u8]), Malformed> {
        let (prefix, rest) = body.split_first_chunk::<PREFIX>().ok_or(Malformed::Truncated)?;
        let len = Metadata::block_len(*prefix)? - PREFIX;
        let (entries, message) = rest.split_at_checked(len).ok_or(Malformed::Truncated)?;
        let mut left = entries;
        let mut count = 0;
        while !left.is_empty() {
            count += 1;
            if count > ENTRIES_MAX {
                return Err(Malformed::TooMany);
            }
            let (key, value, rest) = entry(left).ok_or(Malformed::Truncated)?;
            check_value(check_key(key)?, value)?;
            left = rest;
        }
        Ok((Metadata { entries }, message))
    }

    /// Bytes of the block in front of a body that begins with these, its length prefix included.
    ///
    /// # Errors
    /// It would be too long.
    pub fn block_len(prefix: [u8; PREFIX]) -> Result<usize, Malformed> {
        let len = u32::from_le_bytes(prefix) as usize;
        if len > METADATA_MAX { Err(Malformed::TooLong) } else { Ok(PREFIX + len) }
    }

    /// Its keys and values, in the order they were added. A key may come more than once.
    pub fn iter(&self) -> Entries<'a> {
        Entries { left: self.entries }
    }

    /// The first value of a key.
    pub fn get(&self, key: &str) -> Option<&'a [u8]> {
        self.iter().find(|(other, _)| *other == key).map(|(_, value)| value)
    }

    /// Whether there are no entries.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

/// The entries of a [`Metadata`].
#[derive(Clone, Debug)]
pub struct Entries<'a> {
    left: &'a [u8],
}

impl<'a> Iterator for Entries<'a> {
    type Item = (&'a str, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let (key, value, rest) = entry(self.left)?;
        self.left = rest;
        Some((core::str::from_utf8(key).ok()?, value))
    }
}

/// The first entry and what follows it.
fn entry(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (&[key_len, zero, low, high], rest) = bytes.split_first_chunk::<ENTRY_PREFIX>()?;
    let (key, rest) = rest.split_at_checked(usize::from(key_len)).filter(|_| zero == 0)?;
    let (value, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([low, high])))?;
    Some((key, value, rest))
}

/// Appends the block of these entries, length included; nothing is appended where there are none.
///
/// # Errors
/// What does not fit or is not allowed; `out` is then as it was.
#[cfg(any(test, feature = "std"))]
pub fn encode<'a>(
    entries: impl Iterator<Item = (&'a str, &'a [u8])>,
    out: &mut std::vec::Vec<u8>,
) -> Result<(), Malformed> {
    let start = out.len();
    let encoded = encode_entries(entries, out, start);
    if encoded.is_err() {
        out.truncate(start);
    }
    encoded
}

#[cfg(any(test, feature = "std"))]
fn encode_entries<'a>(
    entries: impl Iterator<Item = (&'a str, &'a [u8])>,
    out: &mut std::vec::Vec<u8>,
    start: usize,
) -> Result<(), Malformed> {
    for (index, (key, value)) in entries.enumerate() {
        if index == 0 {
            out.extend_from_slice(&[0; PREFIX]);
        }
        if index >= ENTRIES_MAX {
            return Err(Malformed::TooMany);
        }
        check_value(check_key(key.as_bytes())?, value)?;
        out.extend_from_slice(&[key.len() as u8, 0]);
        out.extend_from_slice(&(value.len() as u16).to_le_bytes());
        out.extend_from_slice(key.as_bytes());
        out.extend_from_slice(value);
        if out.len() - start - PREFIX > METADATA_MAX {
            return Err(Malformed::TooLong);
        }
    }
    let len = out.len().saturating_sub(start + PREFIX) as u32;
    if let Some(prefix) = out.get_mut(start..start + PREFIX) {
        prefix.copy_from_slice(&len.to_le_bytes());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::string::String;
    use std::vec::Vec;

    #[test]
    fn each_limit_has_its_error() {
        let block = |entries: &[(&str, &[u8])]| encode(entries.iter().copied(), &mut Vec::new());
        assert_eq!(block(&[("Upper", b"v")]), Err(Malformed::Key));
        assert_eq!(block(&[("", b"v")]), Err(Malformed::Key));
        assert_eq!(block(&[("key", b"new\nline")]), Err(Malformed::Value));
        assert_eq!(block(&[("key-bin", b"new\nline")]), Ok(()));
        assert_eq!(block(&[("k", b"v".as_slice()); 64]), Ok(()));
        assert_eq!(block(&[("k", b"v".as_slice()); 65]), Err(Malformed::TooMany));
        assert_eq!(block(&[("k", &[b'v'; METADATA_MAX])]), Err(Malformed::TooLong));
        let mut out = std::vec![7];
        assert_eq!(encode([].into_iter(), &mut out), Ok(()));
        assert_eq!(out, [7], "no entries, no block");
    }

    proptest! {
        #[test]
        fn what_is_encoded_comes_back(entries in proptest::collection::vec(("[a-z0-9._-]{1,20}", "[ -~]{0,40}"), 1..40), message: Vec<u8>) {
            let entries: Vec<(String, String)> = entries;
            let mut out = Vec::new();
            encode(entries.iter().map(|(key, value)| (key.as_str(), value.as_bytes())), &mut out).unwrap();
            out.extend_from_slice(&message);
            let (metadata, rest) = Metadata::split(&out).unwrap();
            prop_assert_eq!(rest, &message[..]);
            let back: Vec<_> = metadata.iter().map(|(key, value)| (key.into(), String::from_utf8(value.into()).unwrap())).collect();
            prop_assert_eq!(back, entries);
        }

        #[test]
        fn any_bytes_are_metadata_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200), len in 0..60u8) {
            let mut bytes = bytes;
            if bytes.len() > 4 {
                bytes[..4].copy_from_slice(&[len, 0, 0, 0]);
            }
            if let Ok((metadata, rest)) = Metadata::split(&bytes) {
                let inside: usize = metadata.iter().map(|(key, value)| 4 + key.len() + value.len()).sum();
                prop_assert_eq!(4 + inside + rest.len(), bytes.len());
            }
        }
    }
}
