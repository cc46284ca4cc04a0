//! What values are: the types of the language, and when one can stand for another.

use crate::table::{KeyType, ValueType};
use std::collections::HashMap;
use std::sync::Arc;

/// The longest text in a peer's entry: what tables keep of texts whose length nothing bounds.
const UNBOUNDED_KEPT: u8 = tollfree_wire::maps::IDENTITY_MAX as u8;

/// The type of a value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Kind {
    Bool,
    U32,
    U64,
    I32,
    I64,
    Float,
    /// Unsigned, in ns.
    Duration,
    /// Unsigned, in parts per million.
    Percent,
    Text(Length),
    Bytes(Length),
    Fixed(u8),
    Enum(Arc<Names>),
    /// A method of the schema.
    Method,
    /// A service of the schema.
    Service,
    Address,
    /// Of a table's key only: it is looked up by an address.
    Cidr,
}

/// How long a text can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Length {
    AtMost(u8),
    /// Of a peer's label, of metadata: nobody knows.
    Unbounded,
}

/// The values of an enum.
#[derive(Debug, PartialEq)]
pub(super) struct Names {
    pub values: Vec<(String, i32)>,
    by_name: HashMap<String, i32>,
    /// No other numbers occur. A field's enum can have numbers that this schema has no name for (a newer peer's).
    pub closed: bool,
}

/// Two kinds of numbers that calculate and compare with each other, as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wide {
    Unsigned,
    Signed,
    Float,
    Duration,
    Percent,
}

impl Names {
    pub(super) fn new(values: Vec<(String, i32)>, closed: bool) -> Arc<Names> {
        let by_name = values.iter().cloned().collect();
        Arc::new(Names { values, by_name, closed })
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        self.by_name.get(name).map(|number| i64::from(*number) as u64)
    }
}

impl Length {
    pub(super) fn kept(self) -> u8 {
        match self {
            Length::AtMost(length) => length,
            Length::Unbounded => UNBOUNDED_KEPT,
        }
    }

    fn join(self, other: Length) -> Length {
        match (self, other) {
            (Length::AtMost(a), Length::AtMost(b)) => Length::AtMost(a.max(b)),
            _ => Length::Unbounded,
        }
    }

    /// Whether a text of this length is never too long for the other. Of unbounded ones a table takes what fits.
    fn fits(self, room: Length) -> bool {
        match (self, room) {
            (Length::AtMost(has), Length::AtMost(room)) => has <= room,
            (Length::Unbounded, _) | (_, Length::Unbounded) => true,
        }
    }
}

impl Kind {
    /// A field's.
    pub(super) fn of_field(kind: &KeyType) -> Kind {
        match kind {
            KeyType::Enum { values } => Kind::Enum(Names::new(values.clone(), false)),
            other => Kind::of_plain(other),
        }
    }

    fn of_plain(kind: &KeyType) -> Kind {
        match kind {
            KeyType::Bool => Kind::Bool,
            KeyType::U32 => Kind::U32,
            KeyType::U64 => Kind::U64,
            KeyType::I32 => Kind::I32,
            KeyType::I64 => Kind::I64,
            KeyType::F32 | KeyType::F64 => Kind::Float,
            KeyType::Duration => Kind::Duration,
            KeyType::String { max_len } => Kind::Text(Length::AtMost(*max_len)),
            KeyType::Bytes { max_len } => Kind::Bytes(Length::AtMost(*max_len)),
            KeyType::Fixed { len } => Kind::Fixed(*len),
            KeyType::Enum { values } => Kind::Enum(Names::new(values.clone(), true)),
            KeyType::Address => Kind::Address,
            KeyType::Cidr => Kind::Cidr,
            // Neither is the type of one value.
            KeyType::Unit | KeyType::Tuple { .. } => Kind::U32,
        }
    }

    /// How a table keeps it as a value; `None`: it cannot.
    pub(super) fn value_type(&self) -> Option<ValueType> {
        Some(match self {
            Kind::Bool => ValueType::Bool,
            Kind::U32 => ValueType::U32,
            Kind::U64 => ValueType::U64,
            Kind::I32 => ValueType::I32,
            Kind::I64 => ValueType::I64,
            Kind::Float => ValueType::F64,
            Kind::Duration => ValueType::Duration,
            Kind::Text(length) => ValueType::String { max_len: length.kept() },
            Kind::Bytes(length) => ValueType::Bytes { max_len: length.kept() },
            Kind::Fixed(len) => ValueType::Fixed { len: *len },
            Kind::Enum(names) if names.closed => ValueType::Enum { values: names.values.clone() },
            Kind::Enum(_) | Kind::Percent | Kind::Method | Kind::Service | Kind::Address | Kind::Cidr => {
                return None;
            }
        })
    }

    /// How the log shows it, and how it is kept as one part of a key, but for methods and services.
    pub(super) fn plain(&self) -> KeyType {
        match self {
            Kind::Bool => KeyType::Bool,
            Kind::U32 => KeyType::U32,
            Kind::U64 | Kind::Percent => KeyType::U64,
            Kind::I32 => KeyType::I32,
            Kind::I64 => KeyType::I64,
            Kind::Float => KeyType::F64,
            Kind::Duration => KeyType::Duration,
            Kind::Text(length) => KeyType::String { max_len: length.kept() },
            Kind::Bytes(length) => KeyType::Bytes { max_len: length.kept() },
            Kind::Fixed(len) => KeyType::Fixed { len: *len },
            Kind::Enum(names) => KeyType::Enum { values: names.values.clone() },
            Kind::Method | Kind::Service => KeyType::Enum { values: Vec::new() },
            Kind::Address => KeyType::Address,
            Kind::Cidr => KeyType::Cidr,
        }
    }

    /// The type both values fit in, if they are of one kind.
    pub(super) fn join(&self, other: &Kind) -> Option<Kind> {
        match (self, other) {
            (Kind::Text(a), Kind::Text(b)) => Some(Kind::Text(a.join(*b))),
            (Kind::Bytes(a), Kind::Bytes(b)) => Some(Kind::Bytes(a.join(*b))),
            _ => (self == other).then(|| self.clone()),
        }
    }

    /// Whether a value of this type can be used as one of the other without loss.
    pub(super) fn fits(&self, wanted: &Kind) -> bool {
        match (self, wanted) {
            (Kind::Text(has), Kind::Text(room)) | (Kind::Bytes(has), Kind::Bytes(room)) => has.fits(*room),
            (Kind::U32, Kind::U64) | (Kind::I32, Kind::I64) | (Kind::U32, Kind::I64) => true,
            (Kind::Address, Kind::Cidr) => true,
            (Kind::Enum(a), Kind::Enum(b)) => a.values == b.values,
            _ => self == wanted,
        }
    }

    pub(super) fn is_text(&self) -> bool {
        matches!(self, Kind::Text(_) | Kind::Bytes(_) | Kind::Fixed(_) | Kind::Address | Kind::Cidr)
    }

    /// As a number to calculate and compare with.
    pub(super) fn wide(&self) -> Option<Wide> {
        Some(match self {
            Kind::U32 | Kind::U64 => Wide::Unsigned,
            Kind::I32 | Kind::I64 => Wide::Signed,
            Kind::Float => Wide::Float,
            Kind::Duration => Wide::Duration,
            Kind::Percent => Wide::Percent,
            _ => return None,
        })
    }

    /// The same type with 64 bits, if it has 32: what operations give.
    pub(super) fn widened(&self) -> Kind {
        match self {
            Kind::U32 => Kind::U64,
            Kind::I32 => Kind::I64,
            other => other.clone(),
        }
    }
}

impl Wide {
    pub(super) fn kind(self) -> Kind {
        match self {
            Wide::Unsigned => Kind::U64,
            Wide::Signed => Kind::I64,
            Wide::Float => Kind::Float,
            Wide::Duration => Kind::Duration,
            Wide::Percent => Kind::Percent,
        }
    }

    pub(super) fn number(self) -> crate::ir::Number {
        match self {
            Wide::Unsigned | Wide::Duration | Wide::Percent => crate::ir::Number::Unsigned,
            Wide::Signed => crate::ir::Number::Signed,
            Wide::Float => crate::ir::Number::Float,
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Kind::Percent => f.write_str("a percentage"),
            Kind::Text(Length::Unbounded) => f.write_str("text"),
            Kind::Bytes(Length::Unbounded) => f.write_str("bytes"),
            Kind::Method => f.write_str("method"),
            Kind::Service => f.write_str("service"),
            Kind::Enum(names) if names.values.len() > NAMED_MAX => {
                let first: Vec<&str> =
                    names.values.iter().take(NAMED_MAX).map(|(name, _)| name.as_str()).collect();
                write!(f, "{}|...", first.join("|"))
            }
            other => other.plain().fmt(f),
        }
    }
}

/// Names of an enum that a message lists.
const NAMED_MAX: usize = 8;
