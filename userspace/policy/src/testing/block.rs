//! Flat blocks from what people write, and back.

use super::file::Value;
use crate::ir::kind_of_field;
use crate::table::KeyType;
use std::collections::BTreeMap;
use tollfree_schema::{Field, Layout};

/// A flat block with these fields, all others zero.
pub(super) fn build(layout: &Layout, fields: &BTreeMap<String, Value>) -> Result<Vec<u8>, String> {
    let mut block = vec![0; usize::from(layout.flat_len)];
    for (name, value) in fields {
        let field = find(layout, name)?;
        let kind = kind_of_field(&field.kind);
        let text = value.to_string();
        let bytes = match kind {
            KeyType::F32 => text.parse::<f32>().ok().map(|number| number.to_le_bytes().to_vec()),
            KeyType::F64 => text.parse::<f64>().ok().map(|number| number.to_le_bytes().to_vec()),
            ref kind => kind.parse(&text),
        };
        let bytes =
            bytes.ok_or_else(|| format!("{text:?} is no value of field '{name}', which is {kind}"))?;
        block[usize::from(field.offset)..][..bytes.len()].copy_from_slice(&bytes);
    }
    Ok(block)
}

/// The fields of a block that are not as they are wanted, each with a sentence.
pub(super) fn differences(
    layout: &Layout,
    block: &[u8],
    wanted: &BTreeMap<String, Value>,
) -> Result<Vec<String>, String> {
    let mut differences = Vec::new();
    for (name, value) in wanted {
        let field = find(layout, name)?;
        let bytes = &block[usize::from(field.offset)..][..usize::from(field.width)];
        let found = kind_of_field(&field.kind).format(bytes).unwrap_or_default();
        if found != value.to_string() {
            differences.push(format!("field '{name}' is {found:?}, not {:?}", value.to_string()));
        }
    }
    Ok(differences)
}

fn find<'l>(layout: &'l Layout, name: &str) -> Result<&'l Field, String> {
    layout.field(name).ok_or_else(|| {
        let known: Vec<&str> = layout.fields.iter().map(|field| field.name.as_str()).collect();
        format!("{} has no flat field '{name}'; it has {}", layout.message, known.join(", "))
    })
}
