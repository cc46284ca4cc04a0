//! Fields of flat blocks.

use super::super::calls::roles;
use super::value::{Of, Value};
use tollfree_schema::{Field, FieldKind, Layout};

pub struct Message {
    layout: Layout,
    flat: Vec<u8>,
}

impl Message {
    pub fn new(layout: &Layout, flat: Vec<u8>) -> Message {
        Message { layout: layout.clone(), flat }
    }

    pub fn into_flat(self) -> Vec<u8> {
        self.flat
    }

    /// The field's bytes, where the block reaches so far.
    fn find(&mut self, name: &str) -> Option<(&Field, &mut [u8])> {
        let field = self.layout.fields.iter().find(|field| field.name == name)?;
        let at = usize::from(field.offset);
        Some((field, self.flat.get_mut(at..at + usize::from(field.width))?))
    }

    pub fn get(&mut self, name: &str) -> Option<Value> {
        let (field, bytes) = self.find(name)?;
        let wide = |signed: bool| {
            let fill = if signed && bytes[bytes.len() - 1] & 0x80 != 0 { 0xff } else { 0 };
            let mut all = [fill; 16];
            all[..bytes.len()].copy_from_slice(bytes);
            i128::from_le_bytes(all)
        };
        Some(match &field.kind {
            FieldKind::Bool => Value::Bool(bytes[0] != 0),
            FieldKind::U32 | FieldKind::U64 => Value::Int(wide(false), Of::Unsigned),
            FieldKind::I32 | FieldKind::I64 => Value::Int(wide(true), Of::Signed),
            FieldKind::Enum { .. } => {
                let number = wide(true) as i64;
                let known = roles().into_iter().find(|(_, known)| i64::from(*known) == number);
                Value::Name(known.map_or_else(|| number.to_string(), |(name, _)| name), number)
            }
            FieldKind::String { .. } | FieldKind::Bytes { .. } => {
                let length = usize::from(bytes[0]);
                Value::Text(bytes.get(1..1 + length)?.to_vec())
            }
            FieldKind::Fixed { .. } => Value::Text(bytes.to_vec()),
            FieldKind::F64 => Value::Float(f64::from_le_bytes(bytes.try_into().unwrap())),
            FieldKind::F32 => panic!("no such field"),
        })
    }

    pub fn set(&mut self, name: &str, value: &Value) {
        let Some((field, bytes)) = self.find(name) else { return };
        let width = bytes.len();
        let number = |low: i128, high: i128| match value {
            Value::Int(number, _) => (*number).clamp(low, high).to_le_bytes()[..width].to_vec(),
            other => panic!("{other:?}"),
        };
        let new = match (&field.kind, value) {
            (FieldKind::Bool, Value::Bool(value)) => vec![u8::from(*value)],
            (FieldKind::U32, _) => number(0, u32::MAX.into()),
            (FieldKind::U64, _) => number(0, u64::MAX.into()),
            (FieldKind::I32, _) => number(i32::MIN.into(), i32::MAX.into()),
            (FieldKind::I64, _) => number(i64::MIN.into(), i64::MAX.into()),
            (FieldKind::F64, Value::Float(value)) => value.to_le_bytes().to_vec(),
            (FieldKind::Enum { .. }, Value::Name(name, number)) => {
                let known = roles().into_iter().find(|(known, _)| known == name);
                known.map_or(*number, |(_, number)| number.into()).to_le_bytes()[..4].to_vec()
            }
            (FieldKind::String { .. } | FieldKind::Bytes { .. }, Value::Text(text)) => {
                if text.len() >= width {
                    return;
                }
                let mut new = vec![text.len() as u8];
                new.extend(text);
                new.resize(width, 0);
                new
            }
            (FieldKind::Fixed { .. }, Value::Text(text)) => text.clone(),
            other => panic!("{other:?}"),
        };
        bytes.copy_from_slice(&new);
    }

    pub fn zero(&mut self, name: &str) {
        if let Some((_, bytes)) = self.find(name) {
            bytes.fill(0);
        }
    }
}
