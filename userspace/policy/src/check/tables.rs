//! The tables of a policy: as declared, or as their use says.

use super::infer::{self, Conflict, Uses};
use crate::ast::{File, Table, Type};
use crate::diagnostics::{Sink, Span};
use crate::suggest::did_you_mean;
use crate::table::{CAPACITY_DEFAULT, CAPACITY_MAX, KeyType, TableSpec, ValueType};
use std::collections::BTreeMap;
use tollfree_schema::Manifest;
use tollfree_wire::header::FLAT_MAX;

/// The longest text or bytes that can be a key: no field is longer.
const KEY_BYTES_MAX: usize = FLAT_MAX - 1;
/// What the shared maps' names start with.
const RESERVED: &str = "tf_";
/// A longer name does not survive as a file name in bpffs together with what is put around it.
const NAME_MAX: usize = 64;

const TYPES: [&str; 9] = ["bool", "u32", "u64", "i32", "i64", "string", "bytes", "fixed", "enum"];

/// The types of all tables. A file with a `state:` block declares all of its tables there; without one, they are
/// inferred.
pub(super) fn resolve(file: &File, schema: &Manifest, sink: &mut Sink<'_>) -> Vec<TableSpec> {
    let uses = Uses::of(&file.elements);
    let specs = match &file.state {
        Some(state) => declared(&state.tables, &uses, schema, sink),
        None => inferred(&uses, schema, sink),
    };
    for (name, table) in &uses.tables {
        if name.starts_with(RESERVED) || name.len() > NAME_MAX {
            let message = format!("`{name}` cannot be the name of a table");
            sink.error(&table.first, message, "reserved or too long")
                .help(format!("names have at most {NAME_MAX} characters and do not start with {RESERVED}"));
        }
    }
    specs
}

fn inferred(uses: &Uses, schema: &Manifest, sink: &mut Sink<'_>) -> Vec<TableSpec> {
    let (values, conflicts) = infer::values(uses, schema, &BTreeMap::new());
    for conflict in conflicts {
        report(conflict, sink);
    }
    let mut specs = Vec::new();
    for (name, table) in &uses.tables {
        let value = values.get(name).cloned().unwrap_or(ValueType::Bool);
        for (origin, span) in &table.values {
            if let infer::Origin::Name(constant) = origin
                && ["none", "some", "true", "false"].contains(&constant.to_lowercase().as_str())
            {
                let message = format!("`{constant}` cannot be the name of a value");
                sink.error(span, message, "easily mistaken")
                    .help("absence is NONE, presence Some(x) or Some(_), the bools are true and false");
            }
        }
        match infer::key(table, schema, &values) {
            Ok(Some(key)) => {
                check_key(&key, &table.first, sink);
                specs.push(TableSpec::new(name.clone(), key, value, CAPACITY_DEFAULT));
            }
            // What is wrong with the key is reported where it stands. The type here only keeps the rest going.
            Ok(None) => specs.push(TableSpec::new(name.clone(), KeyType::U64, value, CAPACITY_DEFAULT)),
            Err(conflict) => {
                let key = conflict.key.clone().unwrap_or(KeyType::U64);
                report(conflict, sink);
                specs.push(TableSpec::new(name.clone(), key, value, CAPACITY_DEFAULT));
            }
        }
    }
    specs
}

fn declared(tables: &[Table], uses: &Uses, schema: &Manifest, sink: &mut Sink<'_>) -> Vec<TableSpec> {
    let values: BTreeMap<String, ValueType> =
        tables.iter().filter_map(|table| Some((table.name.text.clone(), value_type(table, sink)?))).collect();
    let mut specs: Vec<TableSpec> = Vec::new();
    for (at, table) in tables.iter().enumerate() {
        let Table { name, key, capacity, .. } = table;
        if let Some(first) = tables[..at].iter().find(|other| other.name.text == name.text) {
            sink.error(&name.span, format!("table `{}` is declared twice", name.text), "the second one")
                .related(&first.name.span, "the first one");
            continue;
        }
        let used = uses.tables.iter().find(|(known, _)| *known == name.text).map(|(_, used)| used);
        let from_use = used.and_then(|used| infer::key(used, schema, &values).unwrap_or(None));
        let key = key_type(&key[0], from_use.as_ref(), sink);
        if let Some(key) = &key {
            check_key(key, &table.key[0].name.span, sink);
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
        let value = values.get(&name.text).cloned().unwrap_or(ValueType::Bool);
        specs.push(TableSpec::new(name.text.clone(), key.unwrap_or(KeyType::U64), value, capacity));
    }
    for (name, table) in &uses.tables {
        if !specs.iter().any(|spec| spec.name == *name) {
            let known = specs.iter().map(|spec| spec.name.as_str());
            let help = did_you_mean(name, "the tables under `state:` are", known);
            sink.error(&table.first, format!("no table is called `{name}`"), "not declared").maybe_help(help);
        }
    }
    specs
}

fn report(conflict: Conflict, sink: &mut Sink<'_>) {
    let Conflict { span, message, other, key: _ } = conflict;
    let diagnostic = sink.error(&span, message, "does not agree");
    if let Some((span, text)) = other {
        diagnostic.related(&span, text);
    }
    diagnostic.help("a table has one type of key and one type of value");
}

fn value_type(table: &Table, sink: &mut Sink<'_>) -> Option<ValueType> {
    let plain = |kind: &Type| match kind.name.text.as_str() {
        "bool" => Some(ValueType::Bool),
        "u32" => Some(ValueType::U32),
        "u64" => Some(ValueType::U64),
        "i32" => Some(ValueType::I32),
        "i64" => Some(ValueType::I64),
        _ => None,
    };
    if let [only] = table.value.as_slice()
        && let Some(kind) = plain(only)
    {
        return Some(kind);
    }
    for kind in &table.value {
        let Type { name, size } = kind;
        if let Some((_, span)) = size
            && !TYPES.contains(&name.text.as_str())
        {
            sink.error(span, "the name of a value has no size", "not a size");
        }
        if TYPES.contains(&name.text.as_str())
            || ["NONE", "Some", "true", "false", "_"].contains(&name.text.as_str())
        {
            sink.error(
                &name.span,
                format!("a table cannot hold `{}` here", name.text),
                "not a type of value",
            )
            .help("values are bool, u32, u64, i32, i64, or names joined by |, such as ALLOW|DENY");
            return None;
        }
    }
    Some(ValueType::enumeration(table.value.iter().map(|kind| kind.name.text.clone())))
}

/// The declared type of a key; text and bytes without a size, and enums, take the rest from the use.
fn key_type(key: &Type, from_use: Option<&KeyType>, sink: &mut Sink<'_>) -> Option<KeyType> {
    let Type { name, size } = key;
    let length = match size {
        None => None,
        Some((number, span)) => match u8::try_from(*number) {
            Ok(number) if (1..=KEY_BYTES_MAX).contains(&usize::from(number)) => Some(number),
            _ => {
                sink.error(span, format!("a key has 1 to {KEY_BYTES_MAX} bytes"), "out of range");
                return None;
            }
        },
    };
    let kind = match (name.text.as_str(), length, from_use) {
        ("bool", None, _) => Some(KeyType::Bool),
        ("u32", None, _) => Some(KeyType::U32),
        ("u64", None, _) => Some(KeyType::U64),
        ("i32", None, _) => Some(KeyType::I32),
        ("i64", None, _) => Some(KeyType::I64),
        ("string", Some(max_len), _) => Some(KeyType::String { max_len }),
        ("bytes", Some(max_len), _) => Some(KeyType::Bytes { max_len }),
        ("fixed", Some(len), _) => Some(KeyType::Fixed { len }),
        ("string", None, Some(kind @ KeyType::String { .. }))
        | ("bytes", None, Some(kind @ KeyType::Bytes { .. }))
        | ("fixed", None, Some(kind @ KeyType::Fixed { .. }))
        | ("enum", None, Some(kind @ KeyType::Enum { .. })) => Some(kind.clone()),
        _ => None,
    };
    if kind.is_none() {
        let help = match (name.text.as_str(), length) {
            ("string" | "bytes" | "fixed", None) => Some(format!("say how many bytes: {}(32)", name.text)),
            ("enum", None) => {
                Some("`enum` is for tables that are looked up by an enum field of the schema".into())
            }
            (known, Some(_)) if TYPES.contains(&known) => Some(format!("`{known}` has no size")),
            (other, _) => did_you_mean(other, "keys are", TYPES),
        };
        sink.error(&name.span, format!("`{}` is not a type of key here", name.text), "not a type")
            .maybe_help(help);
    }
    kind
}

fn check_key(key: &KeyType, span: &Span, sink: &mut Sink<'_>) {
    if key.size() as usize > 1 + KEY_BYTES_MAX || key.size() == 0 {
        let message = format!(
            "the key of this table has {} bytes; 1 to {} are possible",
            key.size(),
            1 + KEY_BYTES_MAX
        );
        sink.error(span, message, "key of another size");
    }
}
