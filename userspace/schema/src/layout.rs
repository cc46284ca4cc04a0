//! The layout of a message's flat block: which field sits where, and the fingerprints two peers compare.
//!
//! A layout follows from its fields' names, numbers and kinds alone, in any language, by these rules:
//!
//! - Fields are placed by ascending number, each at the next offset that its alignment divides. Integers, floats and
//!   enums are as wide as they are aligned (an enum: 4 bytes), little-endian. A bool is one byte, 0 or 1. A string, or
//!   bytes with `max_len`, is a length byte, then `max_len` bytes, zeros behind the value; alignment 1. Bytes with
//!   `fixed_len` are just these bytes; alignment 1.
//! - The block ends with its last field.
//! - The fingerprint of no fields is 0. That of one more field is FNV-1a 32 over: the fingerprint before it (u32), its
//!   name, a zero byte, its number (u32), its kind (u8: 1 bool, 2 uint32, 3 uint64, 4 int32, 5 int64, 6 float, 7 double,
//!   8 enum, 9 string, 10 bytes, 11 fixed-size bytes), its offset (u16) and its width (u16), all little-endian; where
//!   that gives 0, it is 1.
//!
//! Not here: reading `.proto` files (see [`crate::source`]) and values in a block (see `tollfree_wire::flat`).

use serde::{Deserialize, Serialize};
use tollfree_wire::header::FLAT_MAX;

/// Bytes a flat block may have unless its file raises the limit with `option (tollfree.flat_block_max)`.
pub const BLOCK_DEFAULT: u16 = 128;

/// Bytes no flat block may exceed: what fits the base header's promise to XDP.
pub const BLOCK_MAX: u16 = FLAT_MAX as u16;

/// Where each flat field of a message sits, and what the message carries besides.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    /// Full name of the message, such as `demo.HashRequest`.
    pub message: String,
    /// Fingerprint of all flat fields; 0 when there are none.
    pub fingerprint: u32,
    /// Bytes of the block: the end of the last field, not rounded up.
    pub flat_len: u16,
    /// The flat fields, by ascending number.
    pub fields: Vec<Field>,
    /// The fields that travel in the protobuf body, by ascending number.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub body: Vec<BodyField>,
}

/// One flat field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Field {
    /// Name in the `.proto` file.
    pub name: String,
    /// Protobuf field number.
    pub number: u32,
    /// What the bytes mean.
    pub kind: FieldKind,
    /// First byte in the block.
    pub offset: u16,
    /// Bytes taken, the length byte of strings and bytes included.
    pub width: u16,
    /// Fingerprint of the layout up to and including this field.
    pub fingerprint: u32,
}

/// What a flat field holds. Protobuf's `sint` and `fixed` variants are the plain integers here.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case", deny_unknown_fields)]
pub enum FieldKind {
    /// One byte, 0 or 1.
    Bool,
    /// `uint32`, `fixed32`.
    U32,
    /// `uint64`, `fixed64`.
    U64,
    /// `int32`, `sint32`, `sfixed32`.
    I32,
    /// `int64`, `sint64`, `sfixed64`.
    I64,
    /// `float`.
    F32,
    /// `double`.
    F64,
    /// An enum, as its 32-bit number.
    Enum {
        /// Name and number of each value, in file order. Not part of the fingerprint: values may be added.
        values: Vec<(String, i32)>,
    },
    /// A length byte, then room for `max_len` bytes of UTF-8, zero-padded.
    String {
        /// Bytes, not characters.
        max_len: u8,
    },
    /// A length byte, then room for `max_len` bytes, zero-padded.
    Bytes {
        /// Most bytes the value may have.
        max_len: u8,
    },
    /// Exactly `len` bytes without a length byte.
    Fixed {
        /// Bytes the value has.
        len: u8,
    },
}

/// A field of the protobuf body. Kept so that moving a field between body and block is noticed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BodyField {
    /// Name in the `.proto` file.
    pub name: String,
    /// Protobuf field number.
    pub number: u32,
    /// Its protobuf type, such as `bytes` or `repeated demo.Item`.
    pub kind: String,
}

/// A flat field before it has a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Name in the `.proto` file.
    pub name: String,
    /// Protobuf field number.
    pub number: u32,
    /// What the bytes mean.
    pub kind: FieldKind,
}

/// A field that ends beyond the longest block allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("flat field `{field}` ends at byte {end}, but a flat block has at most {limit} bytes")]
pub struct TooLong {
    /// The first field that does not fit.
    pub field: String,
    /// Where it would end.
    pub end: u32,
    /// Most bytes allowed.
    pub limit: u16,
}

impl FieldKind {
    /// Bytes the field takes in the block.
    pub fn width(&self) -> u16 {
        match self {
            Self::Bool => 1,
            Self::U32 | Self::I32 | Self::F32 | Self::Enum { .. } => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
            Self::String { max_len } | Self::Bytes { max_len } => 1 + u16::from(*max_len),
            Self::Fixed { len } => u16::from(*len),
        }
    }

    /// What the field's offset is a multiple of.
    pub fn align(&self) -> u16 {
        match self {
            Self::Bool | Self::String { .. } | Self::Bytes { .. } | Self::Fixed { .. } => 1,
            Self::U32 | Self::I32 | Self::F32 | Self::Enum { .. } => 4,
            Self::U64 | Self::I64 | Self::F64 => 8,
        }
    }

    /// The kind's number in fingerprints and bind messages; never changes.
    pub(crate) fn tag(&self) -> u8 {
        match self {
            Self::Bool => 1,
            Self::U32 => 2,
            Self::U64 => 3,
            Self::I32 => 4,
            Self::I64 => 5,
            Self::F32 => 6,
            Self::F64 => 7,
            Self::Enum { .. } => 8,
            Self::String { .. } => 9,
            Self::Bytes { .. } => 10,
            Self::Fixed { .. } => 11,
        }
    }
}

impl std::fmt::Display for FieldKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bool => f.write_str("bool"),
            Self::U32 => f.write_str("uint32"),
            Self::U64 => f.write_str("uint64"),
            Self::I32 => f.write_str("int32"),
            Self::I64 => f.write_str("int64"),
            Self::F32 => f.write_str("float"),
            Self::F64 => f.write_str("double"),
            Self::Enum { .. } => f.write_str("enum"),
            Self::String { max_len } => write!(f, "string of at most {max_len} bytes"),
            Self::Bytes { max_len } => write!(f, "bytes, at most {max_len}"),
            Self::Fixed { len } => write!(f, "exactly {len} bytes"),
        }
    }
}

impl Layout {
    /// Places `members` (any order) in a block of at most `limit` bytes.
    ///
    /// # Errors
    /// Names the first field that ends beyond `limit`.
    pub fn new(message: impl Into<String>, members: Vec<Member>, limit: u16) -> Result<Self, TooLong> {
        let mut members = members;
        members.sort_by_key(|member| member.number);
        let (mut end, mut prefix) = (0u32, 0u32);
        let mut fields = Vec::with_capacity(members.len());
        for Member { name, number, kind } in members {
            let start = end.next_multiple_of(u32::from(kind.align()));
            end = start + u32::from(kind.width());
            let offset = match u16::try_from(start) {
                Ok(offset) if end <= u32::from(limit) => offset,
                _ => return Err(TooLong { field: name, end, limit }),
            };
            let mut field = Field { width: kind.width(), name, number, kind, offset, fingerprint: 0 };
            field.fingerprint = chain(prefix, &field);
            prefix = field.fingerprint;
            fields.push(field);
        }
        let flat_len = fields.last().map_or(0, Field::end);
        Ok(Self { message: message.into(), fingerprint: prefix, flat_len, fields, body: Vec::new() })
    }

    /// The layout that the fields' names, numbers and kinds give; differs from `self` only where someone else filled
    /// in places or fingerprints.
    pub(crate) fn rebuilt(&self) -> Result<Self, TooLong> {
        let member = |Field { name, number, kind, .. }: &Field| Member {
            name: name.clone(),
            number: *number,
            kind: kind.clone(),
        };
        let mut layout =
            Self::new(self.message.clone(), self.fields.iter().map(member).collect(), BLOCK_MAX)?;
        layout.body.clone_from(&self.body);
        Ok(layout)
    }

    /// The fingerprint of all flat fields; 0 when there are none.
    pub fn fingerprint(&self) -> u32 {
        self.fingerprint
    }

    /// The flat field called `name`.
    pub fn field(&self, name: &str) -> Option<&Field> {
        self.fields.iter().find(|field| field.name == name)
    }

    /// Every layout this one extends, itself last: fingerprint and block length. Starts with the empty layout
    /// `(0, 0)`, which is what a peer without any flat field sends.
    pub fn prefix_fingerprints(&self) -> impl Iterator<Item = (u32, u16)> + '_ {
        std::iter::once((0, 0)).chain(self.fields.iter().map(|field| (field.fingerprint, field.end())))
    }
}

impl Field {
    /// The first byte after the field.
    pub fn end(&self) -> u16 {
        self.offset.saturating_add(self.width)
    }
}

/// The id under which a method travels: FNV-1a 32 of its path, such as `/demo.Hash/Sha256`.
pub fn method_id(path: &str) -> u32 {
    fnv1a(FNV_OFFSET, path.as_bytes())
}

const FNV_OFFSET: u32 = 0x811c_9dc5;

fn fnv1a(state: u32, bytes: &[u8]) -> u32 {
    bytes.iter().fold(state, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
}

/// The fingerprint of a layout that ends with `field` after the fields that gave `prefix`.
fn chain(prefix: u32, field: &Field) -> u32 {
    let Field { name, number, kind, offset, width, fingerprint: _ } = field;
    let mut hash = fnv1a(FNV_OFFSET, &prefix.to_le_bytes());
    hash = fnv1a(hash, name.as_bytes());
    hash = fnv1a(hash, &[0]);
    hash = fnv1a(hash, &number.to_le_bytes());
    hash = fnv1a(hash, &[kind.tag()]);
    hash = fnv1a(hash, &offset.to_le_bytes());
    hash = fnv1a(hash, &width.to_le_bytes());
    // 0 says "no flat fields" on the wire.
    hash.max(1)
}
