//! Lines that policies log, kept until the engine fetches them. There is room for so many; the others are counted.

use super::shape::Value;
use crate::notation;
use crate::table::KeyType;
use std::fmt::Write as _;
use std::net::Ipv6Addr;

/// Bytes of text that are kept.
const TEXT_MAX: usize = 64 * 1024;
/// Lines that are kept.
const LINES_MAX: usize = 1024;
/// Bytes of one value that are shown.
const VALUE_MAX: usize = 256;
/// Bytes that a value can become: a control character is written with five.
const SHOWN_MAX: usize = 8 * VALUE_MAX;

/// A line that a policy logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLine<'a> {
    /// The element's name.
    pub element: &'a str,
    /// The method's id.
    pub method: u32,
    /// The values, with spaces between. Text of calls is escaped.
    pub text: &'a str,
}

#[derive(Clone, Debug, Default)]
pub struct Log {
    text: String,
    lines: Vec<Line>,
    lost: u64,
}

#[derive(Clone, Copy, Debug)]
struct Line {
    element: usize,
    method: u32,
    end: usize,
}

impl Log {
    /// With room for lines, where a policy logs at all.
    pub fn new(wanted: bool) -> Log {
        match wanted {
            true => {
                Log { text: String::with_capacity(TEXT_MAX), lines: Vec::with_capacity(LINES_MAX), lost: 0 }
            }
            false => Log::default(),
        }
    }

    /// Adds a line with these values.
    pub fn line<'v>(
        &mut self,
        element: usize,
        method: u32,
        values: impl Iterator<Item = (Option<Value<'v>>, &'v KeyType)>,
    ) {
        if self.lines.len() >= LINES_MAX || self.text.len() + SHOWN_MAX > TEXT_MAX {
            self.lost = self.lost.saturating_add(1);
            return;
        }
        for (at, (value, kind)) in values.enumerate() {
            if self.text.len() + SHOWN_MAX > TEXT_MAX {
                break;
            }
            if at > 0 {
                self.text.push(' ');
            }
            // Writing to a String cannot fail.
            let _ = show(&mut self.text, value, kind);
        }
        self.lines.push(Line { element, method, end: self.text.len() });
    }

    /// Gives every line and forgets them; says how many found no room since the last time.
    pub fn take(&mut self, names: &[String], mut line: impl FnMut(LogLine<'_>)) -> u64 {
        let mut start = 0;
        for &Line { element, method, end } in &self.lines {
            let text = self.text.get(start..end).unwrap_or_default();
            start = end;
            line(LogLine { element: names.get(element).map_or("", String::as_str), method, text });
        }
        self.lines.clear();
        self.text.clear();
        std::mem::take(&mut self.lost)
    }
}

fn show(out: &mut String, value: Option<Value<'_>>, kind: &KeyType) -> std::fmt::Result {
    let value = value.map(|value| match value {
        Value::Bytes(bytes) => Value::Bytes(bytes.get(..VALUE_MAX).unwrap_or(bytes)),
        number => number,
    });
    match (value, kind) {
        (None, _) => out.write_str("NONE"),
        (Some(Value::Number(number)), kind) => match kind {
            KeyType::Bool => write!(out, "{}", number != 0),
            KeyType::I32 | KeyType::I64 => write!(out, "{}", number as i64),
            KeyType::F32 | KeyType::F64 => write!(out, "{}", f64::from_bits(number)),
            KeyType::Duration => {
                let (unit, each) = notation::unit_of(number);
                write!(out, "{}{unit}", number / each)
            }
            KeyType::Enum { values } => {
                let known = values.iter().find(|(_, known)| i64::from(*known) as u64 == number);
                match known {
                    Some((name, _)) => out.write_str(name),
                    None => write!(out, "{}", number as i64),
                }
            }
            _ => write!(out, "{number}"),
        },
        (Some(Value::Bytes(bytes)), KeyType::Address) if bytes.len() == 16 => {
            let address = bytes.try_into().map(|bytes: [u8; 16]| Ipv6Addr::from(bytes).to_canonical());
            address.map_or(Ok(()), |address| write!(out, "{address}"))
        }
        (Some(Value::Bytes(bytes)), KeyType::String { .. }) => bytes.utf8_chunks().try_for_each(|chunk| {
            write!(out, "{}", chunk.valid().escape_debug())?;
            if chunk.invalid().is_empty() { Ok(()) } else { out.write_char(char::REPLACEMENT_CHARACTER) }
        }),
        (Some(Value::Bytes(bytes)), _) => bytes.iter().try_for_each(|byte| write!(out, "{byte:02x}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_show_as_people_write_them() {
        let text = KeyType::String { max_len: 8 };
        let role = KeyType::Enum { values: vec![("ADMIN".into(), -5)] };
        let number = |number| Some(Value::Number(number));
        let mapped = notation::address("10.0.0.1").unwrap();
        let values = [
            (number(5), KeyType::U32),
            (number(-5i64 as u64), KeyType::I64),
            (number(-5i64 as u64), role),
            (number(1), KeyType::Bool),
            (number(1.5f64.to_bits()), KeyType::F64),
            (number(250_000_000), KeyType::Duration),
            (Some(Value::Bytes(b"a\nb")), text.clone()),
            (Some(Value::Bytes(b"\xff")), text),
            (Some(Value::Bytes(b"\x00\xff")), KeyType::Bytes { max_len: 2 }),
            (Some(Value::Bytes(&mapped)), KeyType::Address),
            (None, KeyType::U32),
        ];
        let mut log = Log::new(true);
        log.line(1, 7, values.iter().map(|(value, kind)| (*value, kind)));
        let mut lines = Vec::new();
        let names = ["first".to_owned(), "second".to_owned()];
        let lost =
            log.take(&names, |line| lines.push(format!("{} {} {}", line.element, line.method, line.text)));
        assert_eq!(lost, 0);
        assert_eq!(lines, ["second 7 5 -5 ADMIN true 1.5 250ms a\\nb \u{fffd} 00ff 10.0.0.1 NONE"]);
    }

    #[test]
    fn a_full_log_counts_and_does_not_grow() {
        let mut log = Log::new(true);
        let kind = KeyType::U64;
        for _ in 0..5000 {
            log.line(0, 0, std::iter::once((Some(Value::Number(7)), &kind)));
        }
        assert_eq!((log.text.capacity(), log.lines.capacity()), (TEXT_MAX, LINES_MAX));
        let mut lines = 0;
        assert_eq!(log.take(&[], |_| lines += 1), 5000 - LINES_MAX as u64);
        assert_eq!(lines, LINES_MAX);
    }
}
