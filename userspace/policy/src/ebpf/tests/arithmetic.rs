//! Numbers: every operation against what Rust says.

use super::{Call, Judge};

const UNSIGNED: [u64; 9] = [0, 1, 2, 7, 1 << 32, (1 << 63) - 1, 1 << 63, u64::MAX - 1, u64::MAX];
const SIGNED: [i64; 11] = [0, 1, -1, 2, -2, 7, -7, 1 << 40, i64::MAX, i64::MIN + 1, i64::MIN];

type Binary<T> = fn(T, T) -> T;
type Holds = fn(std::cmp::Ordering) -> bool;

fn each(fields: [&'static str; 2], values: &[u64], mut check: impl FnMut(&Call<'_>, u64, u64)) {
    for a in values {
        for b in values {
            let numbers = [(fields[0], *a), (fields[1], *b)];
            check(&Call { method: "Calc", numbers: &numbers, ..Call::default() }, *a, *b);
        }
    }
}

#[test]
fn unsigned_arithmetic_saturates() {
    let operations: [(&str, Binary<u64>); 5] = [
        ("+", u64::saturating_add),
        ("-", u64::saturating_sub),
        ("*", u64::saturating_mul),
        ("/", |a, b| a.checked_div(b).unwrap_or(0)),
        ("%", |a, b| a.checked_rem(b).unwrap_or(a)),
    ];
    for (sign, expected) in operations {
        let text = format!("f()\nf():\n    set(rpc, 'out', get(rpc, 'a') {sign} get(rpc, 'b'))\n");
        let Some(mut judge) = Judge::new(&text) else { return };
        each(["a", "b"], &UNSIGNED, |call, a, b| {
            assert_eq!(judge.number(call, "out"), expected(a, b), "{a} {sign} {b}");
        });
    }
}

#[test]
fn signed_arithmetic_saturates() {
    let operations: [(&str, Binary<i64>); 5] = [
        ("+", i64::saturating_add),
        ("-", i64::saturating_sub),
        ("*", i64::saturating_mul),
        ("/", |a, b| if b == 0 { 0 } else { a.checked_div(b).unwrap_or(i64::MAX) }),
        ("%", |a, b| if b == 0 { a } else { a.wrapping_rem(b) }),
    ];
    let values = SIGNED.map(|value| value as u64);
    for (sign, expected) in operations {
        let text = format!("f()\nf():\n    set(rpc, 'signed', get(rpc, 'c') {sign} get(rpc, 'd'))\n");
        let Some(mut judge) = Judge::new(&text) else { return };
        each(["c", "d"], &values, |call, c, d| {
            let (c, d) = (c as i64, d as i64);
            assert_eq!(judge.number(call, "signed") as i64, expected(c, d), "{c} {sign} {d}");
        });
    }
}

#[test]
fn comparisons_know_signs() {
    let operations: [(&str, Holds); 6] = [
        ("==", std::cmp::Ordering::is_eq),
        ("!=", std::cmp::Ordering::is_ne),
        ("<", std::cmp::Ordering::is_lt),
        ("<=", std::cmp::Ordering::is_le),
        (">", std::cmp::Ordering::is_gt),
        (">=", std::cmp::Ordering::is_ge),
    ];
    for (sign, expected) in operations {
        let text = format!("f()\nf():\n    set(rpc, 'flag', get(rpc, 'a') {sign} get(rpc, 'b'))\n");
        let Some(mut judge) = Judge::new(&text) else { return };
        each(["a", "b"], &UNSIGNED, |call, a, b| {
            assert_eq!(judge.number(call, "flag"), u64::from(expected(a.cmp(&b))), "{a} {sign} {b}");
        });
        let text = format!("f()\nf():\n    set(rpc, 'flag', get(rpc, 'c') {sign} get(rpc, 'd'))\n");
        let Some(mut judge) = Judge::new(&text) else { return };
        each(["c", "d"], &SIGNED.map(|value| value as u64), |call, c, d| {
            let (c, d) = (c as i64, d as i64);
            assert_eq!(judge.number(call, "flag"), u64::from(expected(c.cmp(&d))), "{c} {sign} {d}");
        });
    }
}

#[test]
fn numbers_convert_at_their_ends() {
    let text = "f()\nf():\n    set(rpc, 'signed', as_i64(get(rpc, 'a')))\n    set(rpc, 'out', as_u64(get(rpc, 'c')))\n";
    let Some(mut judge) = Judge::new(text) else { return };
    for (a, signed) in [(5, 5), (u64::MAX, i64::MAX), (1 << 63, i64::MAX)] {
        let call = Call { method: "Calc", numbers: &[("a", a)], ..Call::default() };
        assert_eq!(judge.number(&call, "signed") as i64, signed);
    }
    for (c, unsigned) in [(5, 5), (-5i64, 0), (i64::MIN, 0), (i64::MAX, i64::MAX as u64)] {
        let call = Call { method: "Calc", numbers: &[("c", c as u64)], ..Call::default() };
        assert_eq!(judge.number(&call, "out"), unsigned);
    }
}

#[test]
fn what_is_too_large_for_a_field_becomes_its_end() {
    let text = "f()\nf():\n    set(rpc, 'small', get(rpc, 'a'))\n    set(rpc, 'less', get(rpc, 'c'))\n";
    let Some(mut judge) = Judge::new(text) else { return };
    for (a, small) in [(7, 7), (u64::MAX, u32::MAX), (1 << 32, u32::MAX)] {
        let call = Call { method: "Calc", numbers: &[("a", a)], ..Call::default() };
        assert_eq!(judge.number(&call, "small"), u64::from(small));
    }
    for (c, less) in [(-7, -7), (i64::MIN, i32::MIN), (i64::MAX, i32::MAX)] {
        let call = Call { method: "Calc", numbers: &[("c", c as u64)], ..Call::default() };
        assert_eq!(judge.number(&call, "less") as u32 as i32, less);
    }
}
