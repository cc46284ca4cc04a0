//! How values lie in bytes: in flat blocks, in tables' keys and in tables' values.

use crate::ir::FieldAt;
use crate::table::{KeyType, ValueType};
use std::ops::Range;

/// A value while a call is judged. Text, bytes and addresses are bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Signed numbers sign-extended, floats as a double's bits, booleans 0 or 1.
    Number(u64),
    Bytes(&'a [u8]),
}

/// How one value lies in bytes. Numbers are little-endian.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// One byte; any but 0 is true.
    Bool,
    /// Four bytes; any but 0 is true.
    WideBool,
    U32,
    I32,
    /// Eight bytes of any number.
    Wide,
    /// A float of four bytes.
    Float,
    /// A length byte, so many bytes of room.
    Inline(u8),
    Fixed(u8),
    /// 32 bits with the length of a prefix in the host's order, then the address.
    Cidr,
    /// Four zero bytes.
    Unit,
}

impl Shape {
    /// Of each part of a key.
    pub fn of_key(key: &KeyType) -> Vec<Shape> {
        vec![match key {
            KeyType::Bool => Shape::Bool,
            KeyType::U32 => Shape::U32,
            KeyType::I32 | KeyType::Enum { .. } => Shape::I32,
            KeyType::U64 | KeyType::I64 | KeyType::F64 | KeyType::Duration => Shape::Wide,
            KeyType::F32 => Shape::Float,
            KeyType::String { max_len } | KeyType::Bytes { max_len } => Shape::Inline(*max_len),
            KeyType::Fixed { len } => Shape::Fixed(*len),
            KeyType::Address => Shape::Fixed(16),
            KeyType::Cidr => Shape::Cidr,
            KeyType::Unit => Shape::Unit,
            KeyType::Tuple { parts } => return parts.iter().flat_map(Shape::of_key).collect(),
        }]
    }

    /// Of what a table holds.
    pub fn of_value(value: &ValueType) -> Shape {
        match value {
            ValueType::Bool => Shape::WideBool,
            ValueType::U32 => Shape::U32,
            ValueType::I32 | ValueType::Enum { .. } => Shape::I32,
            ValueType::U64 | ValueType::I64 | ValueType::F64 | ValueType::Duration | ValueType::Bucket => {
                Shape::Wide
            }
            ValueType::String { max_len } | ValueType::Bytes { max_len } => Shape::Inline(*max_len),
            ValueType::Fixed { len } => Shape::Fixed(*len),
        }
    }

    pub fn size(self) -> usize {
        match self {
            Shape::Bool => 1,
            Shape::WideBool | Shape::U32 | Shape::I32 | Shape::Float | Shape::Unit => 4,
            Shape::Wide => 8,
            Shape::Inline(room) => 1 + usize::from(room),
            Shape::Fixed(length) => usize::from(length),
            Shape::Cidr => 20,
        }
    }

    /// Whether values of this shape are numbers.
    #[inline]
    pub fn is_number(self) -> bool {
        match self {
            Shape::Bool | Shape::WideBool | Shape::U32 | Shape::I32 | Shape::Wide | Shape::Float => true,
            Shape::Inline(_) | Shape::Fixed(_) | Shape::Cidr | Shape::Unit => false,
        }
    }

    /// What reads back of a number that was written.
    #[inline(always)]
    pub fn canonical(self, number: u64) -> u64 {
        if self == Shape::Wide { number } else { self.narrow(number) }
    }

    #[inline(never)]
    fn narrow(self, number: u64) -> u64 {
        match self {
            Shape::Bool | Shape::WideBool => u64::from(number != 0),
            Shape::U32 => u64::from(number as u32),
            Shape::I32 => i64::from(number as i32) as u64,
            Shape::Float => f64::from(f64::from_bits(number) as f32).to_bits(),
            Shape::Wide | Shape::Inline(_) | Shape::Fixed(_) | Shape::Cidr | Shape::Unit => number,
        }
    }

    /// The value at the beginning of these bytes. A length that is a lie reads as absent, and so does what is cut off.
    #[inline]
    pub fn read(self, bytes: &[u8]) -> Option<Value<'_>> {
        Some(match self {
            Shape::Bool => Value::Number(u64::from(*bytes.first()? != 0)),
            Shape::WideBool => Value::Number(u64::from(u32::from_le_bytes(*bytes.first_chunk()?) != 0)),
            Shape::U32 => Value::Number(u64::from(u32::from_le_bytes(*bytes.first_chunk()?))),
            Shape::I32 => Value::Number(i64::from(i32::from_le_bytes(*bytes.first_chunk()?)) as u64),
            Shape::Wide => Value::Number(u64::from_le_bytes(*bytes.first_chunk()?)),
            Shape::Float => Value::Number(f64::from(f32::from_le_bytes(*bytes.first_chunk()?)).to_bits()),
            Shape::Inline(room) => {
                let (length, bytes) = bytes.get(..1 + usize::from(room))?.split_first()?;
                Value::Bytes(bytes.get(..usize::from(*length))?)
            }
            Shape::Fixed(length) => Value::Bytes(bytes.get(..usize::from(length))?),
            Shape::Cidr | Shape::Unit => return None,
        })
    }

    /// Writes a value over exactly these bytes; false, and nothing is changed, where it does not fit.
    #[inline]
    pub fn write(self, value: Value<'_>, out: &mut [u8]) -> bool {
        self.try_write(value, out).is_some()
    }

    fn try_write(self, value: Value<'_>, out: &mut [u8]) -> Option<()> {
        match (self, value) {
            (Shape::Inline(room), Value::Bytes(bytes)) => {
                let length = u8::try_from(bytes.len()).ok().filter(|length| *length <= room)?;
                let (first, rest) = out.get_mut(..1 + usize::from(room))?.split_first_mut()?;
                let (text, behind) = rest.split_at_mut_checked(bytes.len())?;
                *first = length;
                text.copy_from_slice(bytes);
                behind.fill(0);
            }
            (Shape::Fixed(length), Value::Bytes(bytes)) => {
                let (text, behind) = out.get_mut(..usize::from(length))?.split_at_mut_checked(bytes.len())?;
                text.copy_from_slice(bytes);
                behind.fill(0);
            }
            (Shape::Bool, Value::Number(number)) => *out.first_mut()? = u8::from(number != 0),
            (Shape::Float, Value::Number(number)) => {
                *out.first_chunk_mut()? = (f64::from_bits(number) as f32).to_le_bytes();
            }
            (Shape::WideBool | Shape::U32 | Shape::I32, Value::Number(number)) => {
                *out.first_chunk_mut()? = (number as u32).to_le_bytes();
            }
            (Shape::Wide, Value::Number(number)) => *out.first_chunk_mut()? = number.to_le_bytes(),
            _ => return None,
        }
        Some(())
    }
}

/// Where one method's message has a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    offset: u16,
    size: u16,
    pub shape: Shape,
}

impl Place {
    pub fn of(field: &FieldAt) -> Option<Place> {
        let shape = Shape::of_key(&field.kind).first().copied()?;
        Some(Place { offset: field.offset, size: shape.size() as u16, shape })
    }

    #[inline]
    pub fn read(self, flat: &[u8]) -> Option<Value<'_>> {
        self.shape.read(self.bytes(flat)?)
    }

    /// The field's bytes; `None` where the block ends before it does.
    #[inline]
    pub fn bytes(self, flat: &[u8]) -> Option<&[u8]> {
        flat.get(self.range())
    }

    #[inline]
    pub fn bytes_mut(self, flat: &mut [u8]) -> Option<&mut [u8]> {
        flat.get_mut(self.range())
    }

    #[inline]
    fn range(self) -> Range<usize> {
        let start = usize::from(self.offset);
        start..start + usize::from(self.size)
    }
}
