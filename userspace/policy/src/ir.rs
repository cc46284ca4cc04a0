//! The typed form of a policy, which both back ends compile: names are resolved, types agree, every path ends.
//!
//! A value that a policy reads never changes while one call is judged, so a variable is no storage: it is another
//! name for an [`Operand`].

use crate::diagnostics::Span;
use crate::table::{KeyType, TableSpec};
use serde::{Deserialize, Serialize};
use tollfree_schema::{FieldKind, Manifest, Method};
use tollfree_wire::Code;

/// Which end of a session a chain guards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Calls that arrive at services on this host.
    #[default]
    Server,
    /// Calls that leave from applications on this host.
    Client,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Side::Server => "server",
            Side::Client => "client",
        })
    }
}

/// A whole policy.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub side: Side,
    /// In the chain's order.
    pub elements: Vec<Element>,
    pub tables: Vec<TableSpec>,
    /// The request fields that are read.
    pub fields: Vec<FieldUse>,
}

/// A field that the policy reads, as all methods together see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldUse {
    pub name: String,
    /// Of text and bytes: the longest over all methods.
    pub kind: KeyType,
}

#[derive(Clone, Debug)]
pub(crate) struct Element {
    pub name: String,
    pub body: Body,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// The built-in `session_tracker()`; with the place of its call in the chain.
    SessionTracker(Span),
    Block(Vec<Statement>),
}

#[derive(Clone, Debug)]
pub(crate) struct Statement {
    pub span: Span,
    pub action: Action,
}

#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Keeps what the table has for the key; absent where it has nothing or there is no key.
    Lookup {
        table: usize,
        key: Operand,
        into: usize,
    },
    /// Goes on in the first arm with a pattern that matches; behind the match if that arm does not end the element.
    Match {
        subject: Operand,
        arms: Vec<Arm>,
    },
    /// Nothing happens where the key or the value is absent, or a new key finds the table full.
    Set {
        table: usize,
        key: Operand,
        value: Operand,
    },
    Delete {
        table: usize,
        key: Operand,
    },
    Exit(Exit),
}

#[derive(Clone, Debug)]
pub(crate) struct Arm {
    pub patterns: Vec<Pattern>,
    pub body: Vec<Statement>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Pattern {
    Any,
    Absent,
    Present,
    Equal(Constant),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operand {
    Constant(Constant),
    /// What a lookup kept.
    Slot(usize),
    /// An index into [`Policy::fields`].
    Field(usize),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Constant {
    /// Signed numbers sign-extended.
    Number(u64),
    /// Text and bytes, without padding.
    Bytes(Vec<u8>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// On to the next element; behind the last, to the engine.
    Send,
    Drop,
    Reject(Code),
}

/// Where one method's request has a field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FieldAt {
    pub offset: u16,
    /// The byte behind it: a shorter flat block does not have it.
    pub end: u16,
    pub kind: KeyType,
}

/// Methods whose requests have all fields that the policy reads in the same places: they share code.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// Per [`Policy::fields`].
    pub fields: Vec<Option<FieldAt>>,
    pub methods: Vec<MethodLayouts>,
}

/// A method and the layouts that its policy code can read.
#[derive(Clone, Debug)]
pub(crate) struct MethodLayouts {
    pub id: u32,
    /// 0, where a peer sends no flat block, and every prefix of the request's layout.
    pub fingerprints: Vec<u32>,
}

impl Policy {
    /// The methods of the schema, by where they have what this policy reads.
    pub(crate) fn groups(&self, manifest: &Manifest) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        for method in manifest.methods() {
            let fields: Vec<_> = self.fields.iter().map(|field| field_at(method, &field.name)).collect();
            let mut fingerprints: Vec<u32> =
                method.request.prefix_fingerprints().map(|(fingerprint, _)| fingerprint).collect();
            fingerprints.push(0);
            fingerprints.sort_unstable();
            fingerprints.dedup();
            let layouts = MethodLayouts { id: method.id, fingerprints };
            match groups.iter_mut().find(|group| group.fields == fields) {
                Some(group) => group.methods.push(layouts),
                None => groups.push(Group { fields, methods: vec![layouts] }),
            }
        }
        groups
    }
}

fn field_at(method: &Method, name: &str) -> Option<FieldAt> {
    let field = method.request.fields.iter().find(|field| field.name == name)?;
    let kind = comparable(&field.kind)?;
    Some(FieldAt { offset: field.offset, end: field.offset.checked_add(field.width)?, kind })
}

/// The kind of a field as policies see it; `None` for floating point, which has no useful equality.
pub(crate) fn comparable(kind: &FieldKind) -> Option<KeyType> {
    Some(match kind {
        FieldKind::Bool => KeyType::Bool,
        FieldKind::U32 => KeyType::U32,
        FieldKind::U64 => KeyType::U64,
        FieldKind::I32 => KeyType::I32,
        FieldKind::I64 => KeyType::I64,
        FieldKind::F32 | FieldKind::F64 => return None,
        FieldKind::Enum { values } => KeyType::Enum { values: values.clone() },
        FieldKind::String { max_len } => KeyType::String { max_len: *max_len },
        FieldKind::Bytes { max_len } => KeyType::Bytes { max_len: *max_len },
        FieldKind::Fixed { len } => KeyType::Fixed { len: *len },
    })
}
