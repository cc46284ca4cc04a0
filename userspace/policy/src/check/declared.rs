//! Tables as the `state:` block declares them. What it leaves out follows from the use.

use super::infer;
use super::kind::{Kind, Length};
use super::tables::{
    Draft, KEY_BYTES_MAX, PARTS_MAX, check_constant, check_key, check_key_size, check_name, key_from_use,
    report,
};
use super::uses::{Use, Uses};
use crate::ast::{self, Expression, ExpressionKind, Form, Literal, Type};
use crate::diagnostics::{Sink, Span};
use crate::suggest::did_you_mean;
use crate::table::{CAPACITY_DEFAULT, CAPACITY_MAX};
use std::collections::{HashMap, HashSet};

/// The names of types that keys can have, besides `cidr`.
const KEY_TYPES: [&str; 13] = [
    "bool", "u32", "u64", "i32", "i64", "string", "bytes", "fixed", "enum", "duration", "address", "method",
    "service",
];
/// The names of types that values can have.
const VALUE_TYPES: [&str; 11] =
    ["bool", "u32", "u64", "i32", "i64", "string", "bytes", "fixed", "duration", "float", "bucket"];

/// The tables of the block.
pub(super) fn drafts(tables: &[ast::Table], uses: &Uses, sink: &mut Sink<'_>) -> Vec<Draft> {
    let mut values: HashMap<String, Kind> = HashMap::new();
    let mut buckets: HashSet<&str> = HashSet::new();
    for table in tables {
        match value_kind(table, sink) {
            Some(Declared::Kind(kind)) => {
                values.insert(table.name.text.clone(), kind);
            }
            Some(Declared::Bucket) => {
                buckets.insert(&table.name.text);
            }
            Some(Declared::FromUse)
                if uses.of(&table.name.text).is_some_and(|used| used.bucket.is_some()) =>
            {
                buckets.insert(&table.name.text);
            }
            Some(Declared::FromUse) => {}
            None => {
                values.insert(table.name.text.clone(), Kind::Bool);
            }
        }
    }
    let names: HashSet<&str> = tables.iter().map(|table| table.name.text.as_str()).collect();
    for conflict in infer::values(uses, &mut values) {
        report(conflict, sink);
    }
    let mut drafts: Vec<Draft> = Vec::new();
    let mut first: HashMap<&str, &Span> = HashMap::new();
    for table in tables {
        let name = table.name.text.as_str();
        check_name(name, &table.name.span, sink);
        if let Some(first) = first.get(name) {
            sink.error(&table.name.span, format!("table `{name}` is declared twice"), "the second one")
                .related(first, "the first one");
            continue;
        }
        first.insert(name, &table.name.span);
        let key = key_kinds(table, uses.of(name), &values, sink);
        let value = match buckets.contains(name) {
            true => None,
            false if table.form == Form::Counter => Some(Kind::U64),
            false => Some(values.get(name).cloned().unwrap_or(Kind::Bool)),
        };
        drafts.push(options(table, key, value, sink));
    }
    for (name, table) in &uses.tables {
        if !names.contains(name.as_str()) {
            let known = names.iter().copied().collect::<Vec<_>>();
            let help = did_you_mean(name, "the tables under `state:` are", known);
            sink.error(&table.first, format!("no table is called `{name}`"), "not declared").maybe_help(help);
        }
    }
    drafts
}

/// Capacity, eviction and first value.
fn options(table: &ast::Table, key: Vec<Kind>, value: Option<Kind>, sink: &mut Sink<'_>) -> Draft {
    let ast::Table { name, form, capacity, evict, initial, .. } = table;
    let alone = key.is_empty();
    if let (true, Some((_, span))) = (alone, capacity) {
        sink.error(span, "one value needs no capacity", "of what?").help("leave it out");
    }
    let capacity = match capacity {
        None => CAPACITY_DEFAULT,
        Some((number, span)) => match u32::try_from(*number) {
            Ok(number @ 1..=CAPACITY_MAX) => number,
            _ => {
                let message = format!("a table has room for 1 to {CAPACITY_MAX} entries");
                sink.error(span, message, "out of range");
                CAPACITY_DEFAULT
            }
        },
    };
    if let Some(evict) = evict {
        let trouble = match (evict.text.as_str(), form) {
            ("lru", Form::Counter) => Some(("counters are never evicted", "their sums would be wrong")),
            ("lru", _) if alone => Some(("one value is never evicted", "leave it out")),
            ("lru", _) if key.contains(&Kind::Cidr) => {
                Some(("networks are never evicted", "leave `evict` out, and make the capacity large enough"))
            }
            ("lru", _) => None,
            _ => Some((
                "this is no way to evict",
                "write `evict = lru`: what was not used for longest goes first",
            )),
        };
        if let Some((message, help)) = trouble {
            sink.error(&evict.span, message, "not possible").help(help);
        }
    }
    let initial = match (initial, &value) {
        (None, _) => 0,
        (Some(initial), Some(kind)) => first_value(initial, kind, sink).unwrap_or(0),
        (Some(initial), None) => {
            sink.error(&initial.span, "a bucket has no first value", "a bucket starts full")
                .help("leave it out");
            0
        }
    };
    if let (Form::Cell, Some(kind)) = (form, &value)
        && kind.is_text()
    {
        sink.error(&name.span, format!("a cell cannot hold {kind}"), "not a number")
            .help("text needs a table: `name: table(u32 -> string(32))`");
    }
    Draft { name: name.text.clone(), form: *form, key, value, capacity, lru: evict.is_some(), initial }
}

/// The number that a cell holds at first.
fn first_value(initial: &Expression, kind: &Kind, sink: &mut Sink<'_>) -> Option<u64> {
    let fits = |value: i128, low: i128, high: i128| (low..=high).contains(&value).then_some(value as u64);
    let found = match (&initial.kind, kind) {
        (ExpressionKind::Literal(literal), _) => match (literal, kind) {
            (Literal::Bool(value), Kind::Bool) => Some(u64::from(*value)),
            (Literal::Duration(ns), Kind::Duration) => Some(*ns),
            (Literal::Float(bits), Kind::Float) => Some(*bits),
            (Literal::Number { negative, magnitude }, _) => {
                let value = i128::from(*magnitude) * if *negative { -1 } else { 1 };
                match kind {
                    Kind::U32 => fits(value, 0, u32::MAX.into()),
                    Kind::U64 => fits(value, 0, u64::MAX.into()),
                    Kind::I32 => fits(value, i32::MIN.into(), i32::MAX.into()),
                    Kind::I64 => fits(value, i64::MIN.into(), i64::MAX.into()),
                    Kind::Float => Some((value as f64).to_bits()),
                    _ => None,
                }
            }
            _ => None,
        },
        (ExpressionKind::Name(name), Kind::Enum(names)) => names.number(name),
        _ => None,
    };
    if found.is_none() {
        sink.error(
            &initial.span,
            format!("this is not a constant of the type {kind}"),
            format!("not {kind}"),
        );
    }
    found
}

enum Declared {
    Kind(Kind),
    Bucket,
    FromUse,
}

fn value_kind(table: &ast::Table, sink: &mut Sink<'_>) -> Option<Declared> {
    if table.form == Form::Counter {
        return Some(Declared::Kind(Kind::U64));
    }
    if let [only] = table.value.as_slice() {
        let Type { name, size } = only;
        if name.text == "bucket" && size.is_none() {
            return Some(Declared::Bucket);
        }
        let length = match size {
            None => None,
            Some(_) => Some(length(size.as_ref(), "a value", u8::MAX.into(), sink)?),
        };
        let kind = match (name.text.as_str(), length) {
            ("bool", None) => Some(Kind::Bool),
            ("u32", None) => Some(Kind::U32),
            ("u64", None) => Some(Kind::U64),
            ("i32", None) => Some(Kind::I32),
            ("i64", None) => Some(Kind::I64),
            ("float", None) => Some(Kind::Float),
            ("duration", None) => Some(Kind::Duration),
            ("string", Some(length)) => Some(Kind::Text(Length::AtMost(length))),
            ("bytes", Some(length)) => Some(Kind::Bytes(Length::AtMost(length))),
            ("fixed", Some(length)) => Some(Kind::Fixed(length)),
            ("string" | "bytes", None) => return Some(Declared::FromUse),
            _ => None,
        };
        if let Some(kind) = kind {
            return Some(Declared::Kind(kind));
        }
    }
    let alone = table.value.len() == 1;
    for Type { name, size } in &table.value {
        // One name alone is more likely a slip than an enum of one value.
        let slip = alone && name.text.starts_with(|c: char| c.is_ascii_lowercase());
        let is_type = VALUE_TYPES.contains(&name.text.as_str()) || KEY_TYPES.contains(&name.text.as_str());
        if is_type || slip || name.text == "cidr" {
            let help = match name.text.as_str() {
                "string" | "bytes" | "fixed" => format!("say how many bytes: {}(32)", name.text),
                _ => "values are bool, u32, u64, i32, i64, float, duration, bucket, string(n), bytes(n), fixed(n), \
                      or names joined by |, such as ALLOW|DENY"
                    .to_owned(),
            };
            sink.error(
                &name.span,
                format!("a table cannot hold `{}` here", name.text),
                "not a type of value",
            )
            .help(help);
            return None;
        }
        if let Some((_, span)) = size {
            sink.error(span, "the name of a value has no size", "not a size");
        }
        check_constant(&name.text, &name.span, sink);
    }
    if table.value.is_empty() {
        return Some(Declared::FromUse);
    }
    Some(Declared::Kind(infer::enumeration(table.value.iter().map(|kind| kind.name.text.clone()).collect())))
}

/// The declared types of a key; what is left out follows from the use.
fn key_kinds(
    table: &ast::Table,
    used: Option<&Use>,
    values: &HashMap<String, Kind>,
    sink: &mut Sink<'_>,
) -> Vec<Kind> {
    if table.key.is_empty() {
        return match (table.form, used) {
            (Form::Table, Some(used)) => key_from_use(&table.name.text, used, values, sink),
            (Form::Table, None) => {
                sink.error(&table.name.span, "nothing says what this table is looked up by", "not used")
                    .help("declare its key: table(string(32) -> u64)");
                vec![Kind::U64]
            }
            (Form::Counter | Form::Cell, _) => Vec::new(),
        };
    }
    if table.key.len() > PARTS_MAX {
        sink.error(&table.name.span, format!("a key has at most {PARTS_MAX} parts"), "too many");
        return Vec::new();
    }
    let mut kinds = Vec::new();
    for (at, written) in table.key.iter().enumerate() {
        let from_use = used
            .and_then(|used| used.keys.as_ref()?.get(at))
            .and_then(|part| infer::key(part, values).unwrap_or(None));
        let kind = key_kind(written, from_use.as_ref(), sink).unwrap_or(Kind::U64);
        check_key(&kind, &written.name.span, sink);
        if kind == Kind::Cidr && table.key.len() > 1 {
            sink.error(&written.name.span, "networks are looked up alone", "one of several keys")
                .help("a network's longest prefix cannot be found together with another key: use two tables");
        }
        if kind == Kind::Cidr && table.form == Form::Counter {
            sink.error(&written.name.span, "counters are not looked up by networks", "not possible")
                .help("count in a table: table(cidr -> u64)");
        }
        kinds.push(kind);
    }
    if let Some(first) = table.key.first() {
        check_key_size(&kinds, &first.name.span, sink);
    }
    kinds
}

fn length(size: Option<&(u64, Span)>, what: &str, most: usize, sink: &mut Sink<'_>) -> Option<u8> {
    let (number, span) = size?;
    match u8::try_from(*number) {
        Ok(number) if (1..=most).contains(&usize::from(number)) => Some(number),
        _ => {
            sink.error(span, format!("{what} has 1 to {most} bytes"), "out of range");
            None
        }
    }
}

/// One part of a key; text and bytes without a size, and enums, take the rest from the use.
fn key_kind(written: &Type, from_use: Option<&Kind>, sink: &mut Sink<'_>) -> Option<Kind> {
    let Type { name, size } = written;
    let length = match size {
        None => None,
        Some(_) => Some(length(size.as_ref(), "a key", KEY_BYTES_MAX, sink)?),
    };
    let kind = match (name.text.as_str(), length, from_use) {
        ("bool", None, _) => Some(Kind::Bool),
        ("u32", None, _) => Some(Kind::U32),
        ("u64", None, _) => Some(Kind::U64),
        ("i32", None, _) => Some(Kind::I32),
        ("i64", None, _) => Some(Kind::I64),
        ("duration", None, _) => Some(Kind::Duration),
        ("address", None, _) => Some(Kind::Address),
        ("cidr", None, _) => Some(Kind::Cidr),
        ("method", None, _) => Some(Kind::Method),
        ("service", None, _) => Some(Kind::Service),
        ("string", Some(max_len), _) => Some(Kind::Text(Length::AtMost(max_len))),
        ("bytes", Some(max_len), _) => Some(Kind::Bytes(Length::AtMost(max_len))),
        ("fixed", Some(len), _) => Some(Kind::Fixed(len)),
        ("string", None, Some(kind @ Kind::Text(_)))
        | ("bytes", None, Some(kind @ Kind::Bytes(_)))
        | ("fixed", None, Some(kind @ Kind::Fixed(_)))
        | ("enum", None, Some(kind @ Kind::Enum(_))) => Some(kind.clone()),
        _ => None,
    };
    if kind.is_none() {
        let help = match (name.text.as_str(), length) {
            ("string" | "bytes" | "fixed", None) => Some(format!("say how many bytes: {}(32)", name.text)),
            ("enum", None) => {
                Some("`enum` is for tables that are looked up by an enum field of the schema".into())
            }
            (known, Some(_)) if KEY_TYPES.contains(&known) => Some(format!("`{known}` has no size")),
            (other, _) => did_you_mean(other, "keys are", KEY_TYPES.into_iter().chain(["cidr"])),
        };
        sink.error(&name.span, format!("`{}` is not a type of key here", name.text), "not a type")
            .maybe_help(help);
    }
    kind
}
