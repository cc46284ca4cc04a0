//! What operations on numbers give: in the engine, and where the compiler already knows both sides.

use crate::ir::{Arithmetic, Comparison, Number};
use std::cmp::Ordering;

#[inline]
pub(crate) fn arithmetic(op: Arithmetic, number: Number, a: u64, b: u64) -> u64 {
    match number {
        Number::Unsigned => match op {
            Arithmetic::Add => a.saturating_add(b),
            Arithmetic::Subtract => a.saturating_sub(b),
            Arithmetic::Multiply => a.saturating_mul(b),
            Arithmetic::Divide => a.checked_div(b).unwrap_or(0),
            Arithmetic::Remainder => a.checked_rem(b).unwrap_or(a),
        },
        Number::Signed => {
            let (a, b) = (a as i64, b as i64);
            let result = match op {
                Arithmetic::Add => a.saturating_add(b),
                Arithmetic::Subtract => a.saturating_sub(b),
                Arithmetic::Multiply => a.saturating_mul(b),
                Arithmetic::Divide if b == 0 => 0,
                Arithmetic::Divide => a.saturating_div(b),
                Arithmetic::Remainder if b == 0 => a,
                // The one that does not fit 64 bits in between is 0.
                Arithmetic::Remainder => a.wrapping_rem(b),
            };
            result as u64
        }
        Number::Float => {
            let (a, b) = (f64::from_bits(a), f64::from_bits(b));
            let result = match op {
                Arithmetic::Add => a + b,
                Arithmetic::Subtract => a - b,
                Arithmetic::Multiply => a * b,
                Arithmetic::Divide if b == 0.0 => 0.0,
                Arithmetic::Divide => a / b,
                Arithmetic::Remainder if b == 0.0 => a,
                Arithmetic::Remainder => a % b,
            };
            result.to_bits()
        }
    }
}

#[inline]
pub(crate) fn compare(op: Comparison, number: Number, a: u64, b: u64) -> bool {
    let order = match number {
        Number::Unsigned => Some(a.cmp(&b)),
        Number::Signed => Some((a as i64).cmp(&(b as i64))),
        Number::Float => f64::from_bits(a).partial_cmp(&f64::from_bits(b)),
    };
    match op {
        Comparison::Equal => order == Some(Ordering::Equal),
        Comparison::NotEqual => order != Some(Ordering::Equal),
        Comparison::Less => order == Some(Ordering::Less),
        Comparison::LessEqual => matches!(order, Some(Ordering::Less | Ordering::Equal)),
        Comparison::Greater => order == Some(Ordering::Greater),
        Comparison::GreaterEqual => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
    }
}

#[inline]
pub(crate) fn convert(from: Number, to: Number, value: u64) -> u64 {
    match (from, to) {
        (Number::Unsigned, Number::Signed) => value.min(i64::MAX as u64),
        (Number::Signed, Number::Unsigned) => (value as i64).max(0) as u64,
        (Number::Unsigned, Number::Float) => (value as f64).to_bits(),
        (Number::Signed, Number::Float) => (value as i64 as f64).to_bits(),
        (Number::Float, Number::Unsigned) => f64::from_bits(value) as u64,
        (Number::Float, Number::Signed) => f64::from_bits(value) as i64 as u64,
        (Number::Unsigned, Number::Unsigned)
        | (Number::Signed, Number::Signed)
        | (Number::Float, Number::Float) => value,
    }
}

/// To 32 bits.
#[inline]
pub(crate) fn narrow(number: Number, value: u64) -> u64 {
    match number {
        Number::Unsigned => value.min(u32::MAX.into()),
        Number::Signed => (value as i64).clamp(i32::MIN.into(), i32::MAX.into()) as u64,
        Number::Float => value,
    }
}

/// A bucket's next theoretical arrival time, where a call that moves it by `cost` ns gets no further than `burst` ns ahead
/// of the clock (generic cell rate algorithm).
#[inline]
pub(crate) fn take(known: u64, now: u64, cost: u64, burst: u64) -> Option<u64> {
    let next = known.max(now).saturating_add(cost);
    (next - now <= burst).then_some(next)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rate::share;

    #[test]
    fn numbers_stop_at_their_ends() {
        use Arithmetic::{Add, Divide, Multiply, Remainder, Subtract};
        let (min, max) = (i64::MIN as u64, i64::MAX as u64);
        let cases = [
            (Add, Number::Unsigned, u64::MAX, 1, u64::MAX),
            (Subtract, Number::Unsigned, 1, 2, 0),
            (Multiply, Number::Unsigned, 1 << 40, 1 << 40, u64::MAX),
            (Divide, Number::Unsigned, 7, 0, 0),
            (Remainder, Number::Unsigned, 7, 0, 7),
            (Add, Number::Signed, max, 1, max),
            (Subtract, Number::Signed, min, 1, min),
            (Multiply, Number::Signed, min, 2, min),
            (Multiply, Number::Signed, min, -1i64 as u64, max),
            (Divide, Number::Signed, min, -1i64 as u64, max),
            (Divide, Number::Signed, -7i64 as u64, 2, -3i64 as u64),
            (Remainder, Number::Signed, -7i64 as u64, 2, -1i64 as u64),
            (Remainder, Number::Signed, min, -1i64 as u64, 0),
            (Divide, Number::Float, 1f64.to_bits(), 0, 0),
            (Multiply, Number::Float, 1.5f64.to_bits(), 2f64.to_bits(), 3f64.to_bits()),
        ];
        for (op, number, a, b, expected) in cases {
            assert_eq!(arithmetic(op, number, a, b), expected, "{op:?} {number:?} {a} {b}");
        }
    }

    #[test]
    fn conversions_stop_at_the_other_ends() {
        assert_eq!(convert(Number::Signed, Number::Unsigned, -1i64 as u64), 0);
        assert_eq!(convert(Number::Unsigned, Number::Signed, u64::MAX), i64::MAX as u64);
        assert_eq!(convert(Number::Float, Number::Unsigned, f64::NAN.to_bits()), 0);
        assert_eq!(convert(Number::Float, Number::Signed, (-1e30f64).to_bits()), i64::MIN as u64);
        assert_eq!(narrow(Number::Unsigned, 1 << 40), u64::from(u32::MAX));
        assert_eq!(narrow(Number::Signed, i64::MIN as u64), i64::from(i32::MIN) as u64);
        assert!(!compare(Comparison::Less, Number::Float, f64::NAN.to_bits(), 0));
        assert!(compare(Comparison::NotEqual, Number::Float, f64::NAN.to_bits(), f64::NAN.to_bits()));
        assert!(compare(Comparison::Less, Number::Signed, -1i64 as u64, 0));
    }

    /// 10/s with a burst of 3, by hand: three at once, then one every 100 ms.
    #[test]
    fn a_bucket_lets_a_burst_through_and_then_the_rate() {
        const MS: u64 = 1_000_000;
        let mut bucket = 0;
        let ns = |calls| share(calls, 1000 * MS, 10).unwrap();
        let mut admitted = |now_ms: u64| match take(bucket, now_ms * MS, ns(1), ns(3)) {
            Some(next) => {
                bucket = next;
                true
            }
            None => false,
        };
        assert_eq!([1000; 4].map(&mut admitted), [true, true, true, false]);
        assert!(!admitted(1099));
        assert!(admitted(1100));
        assert!(!admitted(1100));
        assert_eq!([9000; 4].map(&mut admitted), [true, true, true, false], "no more than a burst is saved");
        assert_eq!(take(0, 0, ns(u64::MAX), ns(1)), None, "costs saturate");
        assert_eq!(share(1, MS, 0), None, "nothing at a rate of 0");
        assert_eq!(take(u64::MAX, 5, 0, 1), None, "far in the future");
    }
}
