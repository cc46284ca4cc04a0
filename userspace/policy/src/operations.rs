//! What operations on numbers give: in the engine, and where the compiler already knows both sides.

use crate::ir::{Arithmetic, Comparison, Number};
use crate::table::ValueType;

/// What arithmetic does to two numbers.
pub(crate) fn arithmetic(op: Arithmetic, number: Number) -> fn(u64, u64) -> u64 {
    use Arithmetic::{Add, Divide, Multiply, Remainder, Subtract};
    match (number, op) {
        (Number::Unsigned, Add) => u64::saturating_add,
        (Number::Unsigned, Subtract) => u64::saturating_sub,
        (Number::Unsigned, Multiply) => u64::saturating_mul,
        (Number::Unsigned, Divide) => |a, b| a.checked_div(b).unwrap_or(0),
        (Number::Unsigned, Remainder) => |a, b| a.checked_rem(b).unwrap_or(a),
        (Number::Signed, Add) => |a, b| signed(a, b, i64::saturating_add),
        (Number::Signed, Subtract) => |a, b| signed(a, b, i64::saturating_sub),
        (Number::Signed, Multiply) => |a, b| signed(a, b, i64::saturating_mul),
        (Number::Signed, Divide) => |a, b| signed(a, b, |a, b| if b == 0 { 0 } else { a.saturating_div(b) }),
        // The one remainder that does not fit 64 bits in between is 0.
        (Number::Signed, Remainder) => |a, b| signed(a, b, |a, b| if b == 0 { a } else { a.wrapping_rem(b) }),
        (Number::Float, Add) => |a, b| float(a, b, |a, b| a + b),
        (Number::Float, Subtract) => |a, b| float(a, b, |a, b| a - b),
        (Number::Float, Multiply) => |a, b| float(a, b, |a, b| a * b),
        (Number::Float, Divide) => |a, b| float(a, b, |a, b| if b == 0.0 { 0.0 } else { a / b }),
        (Number::Float, Remainder) => |a, b| float(a, b, |a, b| if b == 0.0 { a } else { a % b }),
    }
}

/// In which orders of two numbers a comparison holds: so it is told without a jump.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    number: Number,
    /// Bits from the lowest on: less, equal, greater, and none of them, which only a float that is no number has.
    holds: u8,
}

impl Order {
    pub fn new(op: Comparison, number: Number) -> Order {
        let holds = match op {
            Comparison::Equal => 0b0010,
            Comparison::NotEqual => 0b1101,
            Comparison::Less => 0b0001,
            Comparison::LessEqual => 0b0011,
            Comparison::Greater => 0b0100,
            Comparison::GreaterEqual => 0b0110,
        };
        Order { number, holds }
    }

    #[inline(always)]
    pub fn holds(self, a: u64, b: u64) -> bool {
        let order = match self.number {
            Number::Unsigned => a.cmp(&b) as u8,
            Number::Signed => (a as i64).cmp(&(b as i64)) as u8,
            Number::Float => f64::from_bits(a).partial_cmp(&f64::from_bits(b)).map_or(2, |order| order as u8),
        };
        self.holds >> (order.wrapping_add(1) & 3) & 1 != 0
    }
}

#[inline]
fn signed(a: u64, b: u64, apply: impl Fn(i64, i64) -> i64) -> u64 {
    apply(a as i64, b as i64) as u64
}

#[inline]
fn float(a: u64, b: u64, apply: impl Fn(f64, f64) -> f64) -> u64 {
    apply(f64::from_bits(a), f64::from_bits(b)).to_bits()
}

/// How a number of one kind becomes one of another.
pub(crate) fn convert(from: Number, to: Number) -> fn(u64) -> u64 {
    match (from, to) {
        (Number::Unsigned, Number::Signed) => |value| value.min(i64::MAX as u64),
        (Number::Signed, Number::Unsigned) => |value| (value as i64).max(0) as u64,
        (Number::Unsigned, Number::Float) => |value| (value as f64).to_bits(),
        (Number::Signed, Number::Float) => |value| (value as i64 as f64).to_bits(),
        (Number::Float, Number::Unsigned) => |value| f64::from_bits(value) as u64,
        (Number::Float, Number::Signed) => |value| f64::from_bits(value) as i64 as u64,
        (Number::Unsigned, Number::Unsigned)
        | (Number::Signed, Number::Signed)
        | (Number::Float, Number::Float) => |value| value,
    }
}

/// How a number becomes one of 32 bits.
pub(crate) fn narrow(number: Number) -> fn(u64) -> u64 {
    match number {
        Number::Unsigned => |value| value.min(u32::MAX.into()),
        Number::Signed => |value| (value as i64).clamp(i32::MIN.into(), i32::MAX.into()) as u64,
        Number::Float => |value| value,
    }
}

/// How an amount, a number of this kind, is added to a table's number: up or down to where its type ends.
pub(crate) fn sum(table: &ValueType, amount: Number) -> fn(u64, u64) -> u64 {
    const U32_MAX: u64 = u32::MAX as u64;
    const I32: (i64, i64) = (i32::MIN as i64, i32::MAX as i64);
    let is_signed = amount == Number::Signed;
    match table {
        ValueType::F64 => |old, amount| float(old, amount, |a, b| a + b),
        ValueType::I64 if amount == Number::Unsigned => {
            |old, amount| (old as i64).saturating_add_unsigned(amount) as u64
        }
        ValueType::I64 => |old, amount| signed(old, amount, i64::saturating_add),
        ValueType::I32 | ValueType::Enum { .. } if amount == Number::Unsigned => {
            |old, amount| (old as i64).saturating_add_unsigned(amount).clamp(I32.0, I32.1) as u64
        }
        ValueType::I32 | ValueType::Enum { .. } => {
            |old, amount| signed(old, amount, |a, b| a.saturating_add(b).clamp(I32.0, I32.1))
        }
        ValueType::U32 if is_signed => |old, amount| old.saturating_add_signed(amount as i64).min(U32_MAX),
        ValueType::U32 => |old, amount| old.saturating_add(amount).min(U32_MAX),
        ValueType::Bool if is_signed => |old, amount| old.saturating_add_signed(amount as i64).min(1),
        ValueType::Bool => |old, amount| old.saturating_add(amount).min(1),
        _ if is_signed => |old, amount| old.saturating_add_signed(amount as i64),
        _ => u64::saturating_add,
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
            assert_eq!(arithmetic(op, number)(a, b), expected, "{op:?} {number:?} {a} {b}");
        }
    }

    #[test]
    fn conversions_stop_at_the_other_ends() {
        assert_eq!(convert(Number::Signed, Number::Unsigned)(-1i64 as u64), 0);
        assert_eq!(convert(Number::Unsigned, Number::Signed)(u64::MAX), i64::MAX as u64);
        assert_eq!(convert(Number::Float, Number::Unsigned)(f64::NAN.to_bits()), 0);
        assert_eq!(convert(Number::Float, Number::Signed)((-1e30f64).to_bits()), i64::MIN as u64);
        assert_eq!(narrow(Number::Unsigned)(1 << 40), u64::from(u32::MAX));
        assert_eq!(narrow(Number::Signed)(i64::MIN as u64), i64::from(i32::MIN) as u64);
    }

    #[test]
    fn comparisons_hold_in_the_orders_that_they_name() {
        use Comparison::{Equal, Greater, GreaterEqual, Less, LessEqual, NotEqual};
        let all = [Equal, NotEqual, Less, LessEqual, Greater, GreaterEqual];
        let held = |number, a, b| all.map(|op| Order::new(op, number).holds(a, b));
        let (less, same, greater) = (
            [false, true, true, true, false, false],
            [true, false, false, true, false, true],
            [false, true, false, false, true, true],
        );
        assert_eq!(held(Number::Unsigned, 1, 2), less);
        assert_eq!(held(Number::Unsigned, u64::MAX, 2), greater);
        assert_eq!(held(Number::Signed, -1i64 as u64, 0), less);
        assert_eq!(held(Number::Signed, 7, 7), same);
        assert_eq!(held(Number::Float, 2.5f64.to_bits(), 2.25f64.to_bits()), greater);
        assert_eq!(held(Number::Float, 0, (-0.0f64).to_bits()), same);
        assert_eq!(held(Number::Float, f64::NAN.to_bits(), 0), [false, true, false, false, false, false]);
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
