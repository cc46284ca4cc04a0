//! The tables of a policy: as declared, or as their use says.

use super::declared;
use super::infer::{self, Conflict};
use super::kind::Kind;
use super::methods::Methods;
use super::uses::{Origin, Use, Uses};
use crate::ast::{File, Form};
use crate::diagnostics::{Sink, Span};
use crate::table::{CAPACITY_DEFAULT, KeyType, TableKind, TableSpec, ValueType};
use std::collections::HashMap;
use tollfree_wire::header::FLAT_MAX;

/// The longest text or bytes that can be a key: no field is longer.
pub(super) const KEY_BYTES_MAX: usize = FLAT_MAX - 1;
/// What the shared maps' names start with.
const RESERVED: &str = "tf_";
/// A longer name does not survive as a file name in bpffs together with what is put around it.
const NAME_MAX: usize = 64;
/// Tables of one policy: each is a map of the kernel.
const TABLES_MAX: usize = 64;
/// Parts of one key.
pub(super) const PARTS_MAX: usize = 8;

/// A table, with the types of its values and keys as the language has them.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub spec: TableSpec,
    pub key: Vec<Kind>,
    /// `None`: token buckets.
    pub value: Option<Kind>,
}

/// What is known of a table before it gets its form in memory.
pub(super) struct Draft {
    pub name: String,
    pub form: Form,
    pub key: Vec<Kind>,
    pub value: Option<Kind>,
    pub capacity: u32,
    pub lru: bool,
    pub initial: u64,
}

/// The types of all tables. A file with a `state:` block declares all of its tables there; without one, they are
/// inferred.
pub(super) fn resolve(file: &File, uses: &Uses, methods: &Methods<'_>, sink: &mut Sink<'_>) -> Vec<Table> {
    let declared_count = file.state.as_ref().map_or(0, |state| state.tables.len());
    let count = declared_count.max(uses.tables.len());
    if count > TABLES_MAX {
        let message = format!("a policy has at most {TABLES_MAX} tables; here are {count}");
        let first = uses.tables.first().map_or(0..0, |(_, table)| table.first.clone());
        let place = file.state.as_ref().map_or(first, |state| state.span.clone());
        sink.error(&place, message, "too many");
        return Vec::new();
    }
    let drafts = match &file.state {
        Some(state) => declared::drafts(&state.tables, uses, sink),
        None => inferred(uses, sink),
    };
    for (name, table) in &uses.tables {
        check_name(name, &table.first, sink);
    }
    drafts.into_iter().map(|draft| draft.finish(methods)).collect()
}

pub(super) fn check_name(name: &str, span: &Span, sink: &mut Sink<'_>) {
    if name.starts_with(RESERVED) || name.len() > NAME_MAX {
        let message = format!("`{name}` cannot be the name of a table");
        sink.error(span, message, "reserved or too long")
            .help(format!("names have at most {NAME_MAX} characters and do not start with {RESERVED}"));
    }
}

impl Draft {
    fn finish(self, methods: &Methods<'_>) -> Table {
        let Draft { name, form, key, value, capacity, lru, initial } = self;
        let mut parts: Vec<KeyType> = key.iter().map(|kind| key_type(kind, methods)).collect();
        let (key_type, single) = match (parts.len(), parts.pop()) {
            (1, Some(only)) => (only, true),
            (_, Some(last)) => {
                parts.push(last);
                (KeyType::Tuple { parts }, false)
            }
            (_, None) => (KeyType::Unit, true),
        };
        let kind = match form {
            Form::Counter => TableKind::Counter,
            _ if key.is_empty() => TableKind::Cell,
            _ if single && key_type == KeyType::Cidr => TableKind::Lpm,
            _ if lru => TableKind::Lru,
            _ => TableKind::Hash,
        };
        let value_type = match &value {
            None => ValueType::Bucket,
            Some(kind) => kind.value_type().unwrap_or(ValueType::Bool),
        };
        let capacity = if key.is_empty() { 1 } else { capacity };
        let spec = TableSpec { kind, initial, ..TableSpec::new(name, key_type, value_type, capacity) };
        Table { spec, key, value }
    }
}

/// How a table keeps one part of a key.
pub(super) fn key_type(kind: &Kind, methods: &Methods<'_>) -> KeyType {
    match kind {
        Kind::Method => methods.method_key(),
        Kind::Service => methods.service_key(),
        other => other.plain(),
    }
}

fn inferred(uses: &Uses, sink: &mut Sink<'_>) -> Vec<Draft> {
    let mut values = HashMap::new();
    for conflict in infer::values(uses, &mut values) {
        report(conflict, sink);
    }
    let mut drafts = Vec::new();
    for (name, table) in &uses.tables {
        for (origin, span) in &table.values {
            if let Origin::Name(constant) = origin {
                check_constant(constant, span, sink);
            }
        }
        let value = match &table.bucket {
            Some(taken) => {
                if let Some((_, span)) = table.values.first() {
                    sink.error(span, format!("`{name}` holds token buckets, not values"), "a value")
                        .related(taken, "tokens are taken here");
                }
                None
            }
            None => Some(values.get(name).cloned().unwrap_or(Kind::Bool)),
        };
        let key = key_from_use(name, table, &values, sink);
        let form = if key.is_empty() { Form::Cell } else { Form::Table };
        let (capacity, lru, initial) = (CAPACITY_DEFAULT, false, 0);
        drafts.push(Draft { name: name.clone(), form, key, value, capacity, lru, initial });
    }
    drafts
}

/// The key of a table that does not declare one.
pub(super) fn key_from_use(
    name: &str,
    table: &Use,
    values: &HashMap<String, Kind>,
    sink: &mut Sink<'_>,
) -> Vec<Kind> {
    if let Some(odd) = &table.odd {
        sink.error(odd, format!("`{name}` is used with another number of keys here"), "not as many keys")
            .related(&table.first, "as here");
    }
    let parts = table.keys.as_deref().unwrap_or_default();
    if parts.len() > PARTS_MAX {
        sink.error(&table.first, format!("a key has at most {PARTS_MAX} parts"), "too many");
        return Vec::new();
    }
    let mut kinds = Vec::new();
    for part in parts {
        kinds.push(match infer::key(part, values) {
            Ok(Some(kind)) => {
                check_key(&kind, &table.first, sink);
                kind
            }
            // What is wrong with the key is reported where it stands. The type here only keeps the rest going.
            Ok(None) => Kind::U64,
            Err(conflict) => {
                let kind = conflict.first.clone().unwrap_or(Kind::U64);
                report(conflict, sink);
                kind
            }
        });
    }
    check_key_size(&kinds, &table.first, sink);
    kinds
}

pub(super) fn report(conflict: Conflict, sink: &mut Sink<'_>) {
    let Conflict { span, message, other, first: _ } = conflict;
    let diagnostic = sink.error(&span, message, "does not agree");
    if let Some((span, text)) = other {
        diagnostic.related(&span, text);
    }
    diagnostic.help("a table has one type of key and one type of value");
}

/// A name that a made-up enum cannot have.
pub(super) fn check_constant(constant: &str, span: &Span, sink: &mut Sink<'_>) {
    if ["none", "some", "true", "false", "_"].contains(&constant.to_lowercase().as_str()) {
        sink.error(span, format!("`{constant}` cannot be the name of a value"), "easily mistaken")
            .help("absence is NONE, presence Some(x) or Some(_), the bools are true and false");
    }
}

pub(super) fn check_key(key: &Kind, span: &Span, sink: &mut Sink<'_>) {
    if *key == Kind::Float {
        sink.error(span, "a float cannot be a key", "never quite the same")
            .help("look the table up by a whole number: as_u64(x)");
    }
}

pub(super) fn check_key_size(key: &[Kind], span: &Span, sink: &mut Sink<'_>) {
    let size: u32 = key.iter().map(|kind| kind.plain().size()).sum();
    if size as usize > 1 + KEY_BYTES_MAX || (size == 0 && !key.is_empty()) {
        let message =
            format!("the key of this table has {size} bytes; 1 to {} are possible", 1 + KEY_BYTES_MAX);
        sink.error(span, message, "key of another size");
    }
}
