//! Values as the language sees them, and what operators make of them.

use crate::ast::{Literal, Operator};
use crate::ir::{Arithmetic, Comparison};
use crate::notation;
use crate::table::{KeyType, ValueType};

/// What an integer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Of {
    Unsigned,
    Signed,
    /// ns.
    Duration,
    /// As it is written in a policy: it goes with both signs.
    Constant,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    Bool(bool),
    Int(i128, Of),
    Float(f64),
    Text(Vec<u8>),
    /// Of an enum: its name, or its number where it has none, and its number.
    Name(String, i64),
    Method(String),
    Service(String),
}

use Value::{Bool, Float, Int, Name, Text};

/// Absent, or there.
pub type Maybe = Option<Value>;

pub fn literal(literal: &Literal) -> Value {
    match literal {
        Literal::Bool(value) => Bool(*value),
        Literal::Number { negative, magnitude } => {
            Int(i128::from(*magnitude) * if *negative { -1 } else { 1 }, Of::Constant)
        }
        Literal::Float(bits) => Float(f64::from_bits(*bits)),
        Literal::Text(text) => Text(text.clone().into_bytes()),
        Literal::Duration(ns) => Int((*ns).into(), Of::Duration),
        Literal::Percent(ppm) => Int((*ppm).into(), Of::Unsigned),
        Literal::Rate(_) => panic!("a rate is no value"),
    }
}

/// Two values where one may be a constant, as the other wants it.
fn together(a: Value, b: Value) -> (Value, Value) {
    let adopt = |value: Value, other: &Value| match (value, other) {
        (Int(number, Of::Constant), Float(_)) => Float(number as f64),
        (Int(number, Of::Constant), Int(_, of)) if *of != Of::Duration => Int(number, *of),
        (Int(number, Of::Constant), _) => Int(number, Of::Unsigned),
        (Text(text), Text(address)) if address.len() == 16 => {
            let as_address = std::str::from_utf8(&text).ok().and_then(notation::address);
            Text(as_address.map_or(text, |bytes| bytes.to_vec()))
        }
        (value, _) => value,
    };
    let a = adopt(a, &b);
    let b = adopt(b, &a);
    (a, b)
}

pub fn binary(operator: Operator, a: Maybe, b: Maybe) -> Maybe {
    match operator {
        Operator::And | Operator::Or => {
            let decides = operator == Operator::Or;
            match (a, b) {
                (Some(Bool(value)), _) | (_, Some(Bool(value))) if value == decides => Some(Bool(decides)),
                (Some(_), Some(_)) => Some(Bool(!decides)),
                _ => None,
            }
        }
        Operator::Compare(op) => {
            let (a, b) = together(a?, b?);
            Some(Bool(compare(op, &a, &b)))
        }
        Operator::Arithmetic(op) => {
            let (a, b) = together(a?, b?);
            Some(calculate(op, a, b))
        }
    }
}

fn compare(op: Comparison, a: &Value, b: &Value) -> bool {
    let order = match (a, b) {
        (Int(a, _), Int(b, _)) => Some(a.cmp(b)),
        (Float(a), Float(b)) => a.partial_cmp(b),
        (Name(a, _), Name(b, _)) => Some(a.cmp(b)),
        (Text(a), Text(b)) => Some(a.cmp(b)),
        (Bool(a), Bool(b)) => Some(a.cmp(b)),
        other => panic!("{other:?}"),
    };
    match (op, order) {
        (Comparison::NotEqual, None) => true,
        (_, None) => false,
        (Comparison::Equal, Some(order)) => order.is_eq(),
        (Comparison::NotEqual, Some(order)) => order.is_ne(),
        (Comparison::Less, Some(order)) => order.is_lt(),
        (Comparison::LessEqual, Some(order)) => order.is_le(),
        (Comparison::Greater, Some(order)) => order.is_gt(),
        (Comparison::GreaterEqual, Some(order)) => order.is_ge(),
    }
}

fn calculate(op: Arithmetic, a: Value, b: Value) -> Value {
    if let (Float(a), Float(b)) = (&a, &b) {
        return Float(match op {
            Arithmetic::Add => a + b,
            Arithmetic::Subtract => a - b,
            Arithmetic::Multiply => a * b,
            Arithmetic::Divide if *b == 0.0 => 0.0,
            Arithmetic::Divide => a / b,
            Arithmetic::Remainder if *b == 0.0 => *a,
            Arithmetic::Remainder => a % b,
        });
    }
    let (Int(x, of), Int(y, other)) = (&a, &b) else { panic!("{a:?} {b:?}") };
    let (x, y) = (*x, *y);
    // In 128 bits, only a product can be too large.
    let result = match op {
        Arithmetic::Add => x + y,
        Arithmetic::Subtract => x - y,
        Arithmetic::Multiply => x.saturating_mul(y),
        Arithmetic::Divide if y == 0 => 0,
        Arithmetic::Divide => x / y,
        Arithmetic::Remainder if y == 0 => x,
        Arithmetic::Remainder => x % y,
    };
    let of = match (of, other, op) {
        (Of::Duration, Of::Duration, Arithmetic::Divide) => Of::Unsigned,
        (Of::Duration, _, _) | (_, Of::Duration, _) => Of::Duration,
        (Of::Constant, Of::Constant, _) => Of::Unsigned,
        _ => *of,
    };
    Int(saturated(result, of), of)
}

pub fn saturated(number: i128, of: Of) -> i128 {
    match of {
        Of::Signed => number.clamp(i64::MIN.into(), i64::MAX.into()),
        _ => number.clamp(0, u64::MAX.into()),
    }
}

/// A value as a table's user writes it.
pub fn format(value: &Value, kind: &ValueType) -> String {
    match (value, kind) {
        (Bool(value), _) => value.to_string(),
        (Int(number, _), ValueType::U32) => (*number).clamp(0, u32::MAX.into()).to_string(),
        (Int(number, _), ValueType::I32) => (*number).clamp(i32::MIN.into(), i32::MAX.into()).to_string(),
        (Int(number, _), ValueType::Duration | ValueType::Bucket) => {
            notation::format_duration(*number as u64)
        }
        (Int(number, _), ValueType::F64) => (*number as f64).to_string(),
        (Int(number, _), _) => number.to_string(),
        (Float(number), _) => number.to_string(),
        (Text(text), ValueType::Bytes { .. } | ValueType::Fixed { .. }) => hex(text),
        (Text(text), _) => String::from_utf8(text.clone()).unwrap(),
        (Name(name, _), _) => name.clone(),
        other => panic!("{other:?}"),
    }
}

/// What a user has written, as a value.
pub fn parse(text: &str, kind: &ValueType) -> Value {
    let int = |of| Int(text.parse().unwrap(), of);
    match kind {
        ValueType::Bool => Bool(text == "true"),
        ValueType::U32 | ValueType::U64 => int(Of::Unsigned),
        ValueType::I32 | ValueType::I64 => int(Of::Signed),
        ValueType::Duration | ValueType::Bucket => {
            Int(notation::duration(text).unwrap().into(), Of::Duration)
        }
        ValueType::F64 => Float(text.parse().unwrap()),
        ValueType::Enum { values } => {
            let number = values.iter().find(|(name, _)| name == text).map_or(0, |(_, number)| *number);
            Name(text.to_owned(), number.into())
        }
        ValueType::String { .. } => Text(text.as_bytes().to_vec()),
        ValueType::Bytes { .. } | ValueType::Fixed { .. } => Text(
            (0..text.len() / 2)
                .map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16).unwrap())
                .collect(),
        ),
    }
}

/// One part of a key as a table's user writes it.
pub fn format_key(value: &Value, kind: &KeyType) -> String {
    match (value, kind) {
        (Text(text), KeyType::Bytes { .. } | KeyType::Fixed { .. }) => hex(text),
        (Text(text), KeyType::String { .. }) => String::from_utf8(text.clone()).unwrap(),
        (Bool(value), _) => value.to_string(),
        (Int(number, _), _) => number.to_string(),
        (Name(name, _), _) => name.clone(),
        other => panic!("{other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
