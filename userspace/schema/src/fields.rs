//! What a field holds: the rules of flat fields, and the types of the others in words.

use std::collections::HashMap;

use crate::descriptor::{Enum, Field, Flat, Message};
use crate::error::Fault;
use crate::layout::{BLOCK_MAX, FieldKind};
use crate::names::{bare, is_name, printable};

/// What a full type name stands for.
pub(crate) enum Symbol<'a> {
    Message(&'a Message),
    Enum(&'a Enum),
}

/// By full name, with the leading dot that references have.
pub(crate) type Symbols<'a> = HashMap<String, Symbol<'a>>;

/// What a flat field holds.
pub(crate) fn kind(
    symbols: &Symbols<'_>,
    message: &Message,
    field: &Field,
    option: Flat,
) -> Result<FieldKind, Fault> {
    let target = symbols.get(&field.type_name);
    if field.label == REPEATED {
        let is_map = matches!(target, Some(Symbol::Message(entry))
            if entry.options.as_ref().is_some_and(|options| options.map_entry));
        return Err(if is_map { Fault::Map } else { Fault::Repeated });
    }
    if field.proto3_optional || field.label == REQUIRED {
        return Err(Fault::Optional);
    }
    if let Some(index) = field.oneof_index {
        let oneof = usize::try_from(index).ok().and_then(|index| message.oneof.get(index));
        return Err(Fault::Oneof(oneof.map(|oneof| printable(&oneof.name)).unwrap_or_default()));
    }
    let Flat { max_len, fixed_len } = option;
    let (kind, name) = match field.r#type {
        9 => return Ok(FieldKind::String { max_len: string_len("string field", option)? }),
        12 => {
            return match fixed_len {
                Some(_) if max_len.is_some() => Err(Fault::BothLengths),
                Some(len) => fixed(len),
                None => Ok(FieldKind::Bytes { max_len: string_len("bytes field", option)? }),
            };
        }
        14 => match target {
            Some(Symbol::Enum(item)) => (enum_kind(item)?, "enum"),
            _ => return Err(Fault::Unresolved(printable(bare(&field.type_name)))),
        },
        10 | 11 => return Err(Fault::Message),
        1 => (FieldKind::F64, "double"),
        2 => (FieldKind::F32, "float"),
        3 | 16 | 18 => (FieldKind::I64, "integer"),
        4 | 6 => (FieldKind::U64, "integer"),
        5 | 15 | 17 => (FieldKind::I32, "integer"),
        7 | 13 => (FieldKind::U32, "integer"),
        8 => (FieldKind::Bool, "bool"),
        other => return Err(Fault::Descriptor(other)),
    };
    match (max_len, fixed_len) {
        (Some(_), _) => Err(Fault::Lengthless { option: "max_len", kind: name }),
        (_, Some(_)) => Err(Fault::Lengthless { option: "fixed_len", kind: name }),
        (None, None) => Ok(kind),
    }
}

/// A body field's type in words; its target must be in the set, or no stub could be generated from it.
pub(crate) fn body_kind(symbols: &Symbols<'_>, field: &Field) -> Result<String, Fault> {
    let Some(name) = usize::try_from(field.r#type).ok().and_then(|number| PROTOBUF_TYPES.get(number)) else {
        return Err(Fault::Descriptor(field.r#type));
    };
    let name = match (*name, symbols.get(&field.type_name)) {
        ("message" | "group", Some(Symbol::Message(_))) | ("enum", Some(Symbol::Enum(_))) => {
            bare(&field.type_name)
        }
        ("message" | "group" | "enum", _) => {
            return Err(Fault::Unresolved(printable(bare(&field.type_name))));
        }
        (name, _) => name,
    };
    Ok(if field.label == REPEATED { format!("repeated {name}") } else { name.to_owned() })
}

const REQUIRED: i32 = 2;
const REPEATED: i32 = 3;

/// `FieldDescriptorProto.Type`, by number.
const PROTOBUF_TYPES: [&str; 19] = [
    "double", "double", "float", "int64", "uint64", "int32", "fixed64", "fixed32", "bool", "string", "group",
    "message", "bytes", "uint32", "enum", "sfixed32", "sfixed64", "sint32", "sint64",
];

fn string_len(kind: &'static str, option: Flat) -> Result<u8, Fault> {
    match option {
        Flat { max_len: Some(max), fixed_len: None } => {
            u8::try_from(max).ok().filter(|max| *max > 0).ok_or(Fault::MaxLen(max))
        }
        Flat { max_len: Some(_), fixed_len: Some(_) } => Err(Fault::BothLengths),
        Flat { max_len: None, fixed_len: Some(_) } => {
            Err(Fault::Lengthless { option: "fixed_len", kind: "string" })
        }
        Flat { max_len: None, fixed_len: None } => Err(Fault::NoMaxLen(kind)),
    }
}

fn fixed(len: u32) -> Result<FieldKind, Fault> {
    match u8::try_from(len) {
        Ok(fits) if fits > 0 && u16::from(fits) <= BLOCK_MAX => Ok(FieldKind::Fixed { len: fits }),
        _ => Err(Fault::FixedLen(len)),
    }
}

fn enum_kind(item: &Enum) -> Result<FieldKind, Fault> {
    if let Some(value) = item.value.iter().find(|value| !is_name(&value.name)) {
        return Err(Fault::Name(printable(&value.name)));
    }
    Ok(FieldKind::Enum {
        values: item.value.iter().map(|value| (value.name.clone(), value.number)).collect(),
    })
}
