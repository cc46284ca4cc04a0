//! The pieces of keys and values as users write them: names of enums, text, bytes in hexadecimal.

use std::fmt::Write as _;

pub(crate) fn number_of(values: &[(String, i32)], name: &str) -> Option<i32> {
    values.iter().find(|(known, _)| known == name).map(|(_, number)| *number)
}

pub(crate) fn name_of(values: &[(String, i32)], number: i32) -> String {
    let known = values.iter().find(|(_, known)| *known == number);
    known.map_or_else(|| number.to_string(), |(name, _)| name.clone())
}

pub(crate) fn names(values: &[(String, i32)]) -> String {
    values.iter().map(|(name, _)| name.as_str()).collect::<Vec<_>>().join("|")
}

/// The length byte, the bytes, zeros.
pub(crate) fn inline(bytes: &[u8], max_len: u8) -> Option<Vec<u8>> {
    let mut key = vec![0; 1 + usize::from(max_len)];
    tollfree_wire::flat::put_bytes(&mut key, 0, usize::from(max_len), bytes).ok()?;
    Some(key)
}

pub(crate) fn text_of(key: &[u8]) -> Option<&[u8]> {
    let (length, text) = key.split_first()?;
    text.get(..usize::from(*length))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
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
