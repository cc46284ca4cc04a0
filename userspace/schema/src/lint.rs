//! What a schema's author should know: changes that break peers, and flat fields that do not do what they seem to.

use std::path::PathBuf;

use crate::layout::{BodyField, FieldKind, Layout};
use crate::manifest::{Manifest, Method, Streaming};
use crate::{Error, Problem};

/// A change that breaks peers or policies which know the old schema.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Breakage {
    /// Callers of it get `UNIMPLEMENTED`.
    #[error("service `{0}` is gone: its callers get UNIMPLEMENTED")]
    Service(String),
    /// Callers of it get `UNIMPLEMENTED`.
    #[error("method {0} is gone: its callers get UNIMPLEMENTED")]
    Method(String),
    /// A flat field is not what it was.
    #[error("{method}: field `{field}` of `{message}` was {old} and is now {new}: {help}", help = APPEND)]
    Field {
        /// Path of the method.
        method: String,
        /// The message, by its new name.
        message: String,
        /// The first field that differs.
        field: String,
        /// What it was.
        old: String,
        /// What it is.
        new: String,
    },
    /// A flat field is gone from the end of the block.
    #[error("{method}: flat field `{field}` of `{message}` is gone: policies that read it no longer compile")]
    Removed {
        /// Path of the method.
        method: String,
        /// The message, by its new name.
        message: String,
        /// The field.
        field: String,
    },
    /// A body field has another type under the same number.
    #[error(
        "{method}: field {number} of `{message}` was `{old}` and is now `{new}`: give the new one its own number"
    )]
    Body {
        /// Path of the method.
        method: String,
        /// The message, by its new name.
        message: String,
        /// The field's number.
        number: u32,
        /// Type and name it had.
        old: String,
        /// Type and name it has.
        new: String,
    },
    /// An enum value in a flat field has another number, or none.
    #[error("{method}: value `{value}` of flat field `{field}` was {old} and is now {}", match new {
        Some(new) => new.to_string(),
        None => "gone".to_owned(),
    })]
    Value {
        /// Path of the method.
        method: String,
        /// The field.
        field: String,
        /// The enum value's name.
        value: String,
        /// Its old number.
        old: i32,
        /// Its new number.
        new: Option<i32>,
    },
    /// A side of a method streams that did not, or the reverse.
    #[error(
        "{method} was {old} and is {new}: peers that run would wait for what never comes; give it a new name"
    )]
    Streaming {
        /// Path of the method.
        method: String,
        /// What it was.
        old: Streaming,
        /// What it is.
        new: Streaming,
    },
}

const APPEND: &str = "flat fields are append-only, so keep it and give new ones higher numbers";

/// Everything about `new` that breaks peers or policies which know `old`; empty where the change is safe.
pub fn against(old: &Manifest, new: &Manifest) -> Vec<Breakage> {
    let mut found = Vec::new();
    for service in &old.services {
        let Some(now) = new.service(&service.name) else {
            found.push(Breakage::Service(service.name.clone()));
            continue;
        };
        for method in &service.methods {
            match now.methods.iter().find(|other| other.name == method.name) {
                None => found.push(Breakage::Method(method.path.clone())),
                Some(now) => {
                    let Method { name: _, path, id: _, streaming, request, response } = method;
                    if *streaming != now.streaming {
                        let (method, old, new) = (path.clone(), *streaming, now.streaming);
                        found.push(Breakage::Streaming { method, old, new });
                    }
                    compare(path, request, &now.request, &mut found);
                    compare(path, response, &now.response, &mut found);
                }
            }
        }
    }
    // Methods share messages: the same change is worth saying for each, but only once.
    let mut said = Vec::new();
    found.retain(|breakage| {
        let new = !said.contains(breakage);
        if new {
            said.push(breakage.clone());
        }
        new
    });
    found
}

fn compare(method: &str, old: &Layout, new: &Layout, found: &mut Vec<Breakage>) {
    let (method, message) = (method.to_owned(), new.message.clone());
    if let Err(crate::Incompatible { message: _, field, ours, theirs }) = old.compatible(new) {
        found.push(Breakage::Field { method, message, field, old: ours, new: theirs });
        return;
    }
    for field in old.fields.iter().skip(new.fields.len()) {
        found.push(Breakage::Removed {
            method: method.clone(),
            message: message.clone(),
            field: field.name.clone(),
        });
    }
    for field in &old.body {
        let now = new.body.iter().find(|other| other.number == field.number);
        if let Some(now) = now.filter(|now| !same_encoding(&field.kind, &now.kind)) {
            let show = |BodyField { name, number: _, kind }: &BodyField| format!("{kind} {name}");
            found.push(Breakage::Body {
                method: method.clone(),
                message: message.clone(),
                number: field.number,
                old: show(field),
                new: show(now),
            });
        }
    }
    for (was, is) in old.fields.iter().zip(&new.fields) {
        if let (FieldKind::Enum { values: was_values }, FieldKind::Enum { values: is_values }) =
            (&was.kind, &is.kind)
        {
            for (value, number) in was_values {
                let now = is_values.iter().find(|(name, _)| name == value).map(|(_, number)| *number);
                if now != Some(*number) {
                    found.push(Breakage::Value {
                        method: method.clone(),
                        field: was.name.clone(),
                        value: value.clone(),
                        old: *number,
                        new: now,
                    });
                }
            }
        }
    }
}

/// Whether protobuf reads the one as the other.
fn same_encoding(old: &str, new: &str) -> bool {
    const ALIKE: [&[&str]; 5] = [
        &["int32", "uint32", "int64", "uint64", "bool"],
        &["sint32", "sint64"],
        &["fixed32", "sfixed32"],
        &["fixed64", "sfixed64"],
        &["string", "bytes"],
    ];
    old == new || ALIKE.iter().any(|group| group.contains(&old) && group.contains(&new))
}

/// Flat fields that are allowed but of no use, or dearer than they need be; `includes` as in
/// [`Manifest::from_proto`].
///
/// # Errors
/// What is wrong with the files, by file, line and field.
pub fn check(files: &[PathBuf], includes: &[PathBuf]) -> Result<Vec<Problem>, Error> {
    Ok(crate::parse::parse(files, includes)?.warnings)
}
