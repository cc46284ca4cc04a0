//! Everything that starts with a digit: numbers, sizes, floats, times, shares and rates.

use super::{Kind, Lexer};
use crate::ast::Rate;
use crate::notation::UNITS;

/// What sizes are counted in.
const SIZES: [(&str, u64); 3] = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
/// Parts per million in one percent.
const PERCENT: u64 = 10_000;

const NUMBERS: &str = "numbers are whole, up to 64 bits, in decimal or hexadecimal: 1000, 1_000, 0x3e8; others are \
                       sizes (4KiB), times (250ms), shares (0.5%), rates (100/s) and floats (1.5)";

impl Lexer<'_, '_, '_> {
    pub(super) fn number(&mut self) {
        let start = self.at;
        let (kind, length) = match read(&self.text[start..]) {
            Ok(found) => found,
            Err((length, help)) => {
                let written = &self.text[start..start + length];
                let message = format!("`{written}` is not a number");
                self.sink.error(&(start..start + length), message, "not a number").help(help);
                (Kind::Number(0), length)
            }
        };
        self.at += length;
        self.push(kind, start..self.at);
    }
}

/// A number of any form at the start of a text, with its length; or the length of what is none, with what to do.
fn read(text: &str) -> Result<(Kind, usize), (usize, &'static str)> {
    let word = word(text);
    let behind = &text[word.len()..];
    let fraction = behind.strip_prefix('.').map(self::word).filter(|fraction| starts_with_digit(fraction));
    if let Some(fraction) = fraction {
        let length = word.len() + 1 + fraction.len();
        if let Some(percent) = percent(&text[length..]) {
            let value = fraction_of_percent(word, fraction).ok_or((length + percent, SHARES))?;
            return Ok((Kind::Percent(value), length + percent));
        }
        if fraction.find(|c: char| !c.is_ascii_digit() && c != '_').is_some() {
            let unit = UNITS.iter().any(|(unit, _)| fraction.ends_with(unit));
            return Err((
                length,
                if unit { "write times whole, in a smaller unit: 1500ms" } else { NUMBERS },
            ));
        }
        let digits = format!("{word}.{fraction}").replace('_', "");
        let value = digits.parse::<f64>().ok().filter(|value| value.is_finite());
        return value.map(|value| (Kind::Float(value.to_bits()), length)).ok_or((length, NUMBERS));
    }
    let digits = word.replace('_', "");
    if let Some(hex) = digits.strip_prefix("0x") {
        let value = u64::from_str_radix(hex, 16).map_err(|_| (word.len(), NUMBERS))?;
        return Ok((Kind::Number(value), word.len()));
    }
    let (number, unit) = digits.split_at(digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len()));
    let number: u64 = number.parse().map_err(|_| (word.len(), NUMBERS))?;
    if let Some((_, ns)) = UNITS.iter().find(|(known, _)| *known == unit) {
        let value =
            number.checked_mul(*ns).ok_or((word.len(), "times have at most 64 bits of ns: 584 years"))?;
        return Ok((Kind::Duration(value), word.len()));
    }
    let size = SIZES.iter().find(|(known, _)| *known == unit).map(|(_, bytes)| *bytes);
    let count = match (unit, size) {
        ("", _) => number,
        (_, Some(bytes)) => number.checked_mul(bytes).ok_or((word.len(), NUMBERS))?,
        _ => return Err((word.len(), NUMBERS)),
    };
    if let Some((period_ns, length)) = period(behind) {
        return Ok((Kind::Rate(Rate { count, period_ns }), word.len() + length));
    }
    if let (None, Some(percent)) = (size, percent(behind)) {
        let value = count.checked_mul(PERCENT).ok_or((word.len() + percent, SHARES))?;
        return Ok((Kind::Percent(value), word.len() + percent));
    }
    Ok((Kind::Number(count), word.len()))
}

const SHARES: &str = "shares have at most four digits behind the point: 0.0001%";

fn word(text: &str) -> &str {
    &text[..text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len())]
}

fn starts_with_digit(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit())
}

/// The length of a `%` that makes what is before it a share, rather than the start of a remainder such as `7%x`.
fn percent(text: &str) -> Option<usize> {
    let behind = text.strip_prefix('%')?;
    let operand = behind.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '(');
    (!operand).then_some(1)
}

fn fraction_of_percent(whole: &str, fraction: &str) -> Option<u64> {
    let whole: u64 = whole.replace('_', "").parse().ok()?;
    let digits = fraction.replace('_', "");
    if digits.len() > 4 || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let parts: u64 = format!("{digits:0<4}").parse().ok()?;
    whole.checked_mul(PERCENT)?.checked_add(parts)
}

/// The `/s` of a rate: its period in ns, and its length.
fn period(text: &str) -> Option<(u64, usize)> {
    let unit = word(text.strip_prefix('/')?);
    let (_, ns) = UNITS.iter().find(|(known, _)| *known == unit)?;
    Some((*ns, 1 + unit.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_is_read_to_its_end() {
        let rate = |count, period_ns| Kind::Rate(Rate { count, period_ns });
        let cases = [
            ("1_000 x", Kind::Number(1000), 5),
            ("0x1f)", Kind::Number(31), 4),
            ("4KiB,", Kind::Number(4096), 4),
            ("250ms", Kind::Duration(250_000_000), 5),
            ("1.5 ", Kind::Float(1.5f64.to_bits()), 3),
            ("1..5", Kind::Number(1), 1),
            ("12%)", Kind::Percent(120_000), 3),
            ("0.5%", Kind::Percent(5_000), 4),
            ("7%x", Kind::Number(7), 1),
            ("7 % 5", Kind::Number(7), 1),
            ("100/s,", rate(100, 1_000_000_000), 5),
            ("10MiB/m", rate(10 << 20, 60_000_000_000), 7),
            ("100/second", Kind::Number(100), 3),
        ];
        for (text, kind, length) in cases {
            assert_eq!(read(text), Ok((kind, length)), "{text}");
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in
            ["12x", "0x", "99999999999999999999", "1.5s", "0.00001%", "1.x5", "18446744073709551615h", "1e9"]
        {
            let read = read(text);
            assert!(read.is_err() || text.starts_with("1.x"), "{text}: {read:?}");
        }
    }
}
