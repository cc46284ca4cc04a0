//! A request field as all methods of the schema together see it.

use crate::ir::kind_of_field;
use crate::suggest::did_you_mean;
use crate::table::KeyType;
use tollfree_schema::Manifest;

/// A field that can be read.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Of text and bytes: the longest over all methods.
    pub kind: KeyType,
    /// Paths of the methods whose requests do not have it: it reads as absent there.
    pub missing: Vec<String>,
}

/// Why a field cannot be read.
#[derive(Clone, Debug)]
pub(super) struct Unreadable {
    pub message: String,
    pub help: Option<String>,
}

pub(super) fn find(manifest: &Manifest, name: &str) -> Result<Found, Unreadable> {
    let mut found: Option<(KeyType, &str)> = None;
    let mut missing = Vec::new();
    for method in manifest.methods() {
        let Some(field) = method.request.fields.iter().find(|field| field.name == name) else {
            missing.push(method.path.clone());
            continue;
        };
        let kind = kind_of_field(&field.kind);
        if matches!(kind, KeyType::F32 | KeyType::F64) {
            return Err(Unreadable {
                message: format!("field '{name}' of {} is a floating-point number", method.request.message),
                help: Some("policies read whole numbers, bool, enums, text and bytes".into()),
            });
        }
        found = Some(match found {
            None => (kind, &method.path),
            Some((first, path)) => {
                match join(&first, &kind) {
                    Some(both) => (both, path),
                    None => {
                        return Err(Unreadable {
                        message: format!(
                            "field '{name}' is {first} in the request of {path}, but {kind} in that of {}",
                            method.path
                        ),
                        help: Some("rename one of them, or compile the policy for a schema with one of the methods".into()),
                    });
                    }
                }
            }
        });
    }
    match found {
        Some((kind, _)) => Ok(Found { kind, missing }),
        None => Err(unknown(manifest, name)),
    }
}

fn unknown(manifest: &Manifest, name: &str) -> Unreadable {
    let body = |layout: &tollfree_schema::Layout| layout.body.iter().any(|field| field.name == name);
    if let Some(method) = manifest.methods().find(|method| body(&method.request)) {
        return Unreadable {
            message: format!("field '{name}' of {} is not flat", method.request.message),
            help: Some(format!(
                "policies read the flat header only: give the field the option (tollfree.flat) in the schema, as in \
                 `string {name} = 1 [(tollfree.flat) = {{ max_len: 32 }}];`"
            )),
        };
    }
    let in_response = |method: &&tollfree_schema::Method| {
        method.response.fields.iter().any(|field| field.name == name) || body(&method.response)
    };
    if let Some(method) = manifest.methods().find(in_response) {
        return Unreadable {
            message: format!("field '{name}' is in the response of {}, not in any request", method.path),
            help: Some("a request handler reads the request's flat fields".into()),
        };
    }
    let fields = manifest.methods().flat_map(|method| &method.request.fields);
    let known: Vec<&str> = fields.map(|field| field.name.as_str()).collect();
    let help = did_you_mean(name, "the schema's flat request fields are", known)
        .or_else(|| Some("the schema's requests have no flat field at all".into()));
    Unreadable { message: format!("no method's request has a field '{name}'"), help }
}

/// The type both values fit in, if they are of one kind.
pub(super) fn join(a: &KeyType, b: &KeyType) -> Option<KeyType> {
    match (a, b) {
        (KeyType::String { max_len: a }, KeyType::String { max_len: b }) => {
            Some(KeyType::String { max_len: *a.max(b) })
        }
        (KeyType::Bytes { max_len: a }, KeyType::Bytes { max_len: b }) => {
            Some(KeyType::Bytes { max_len: *a.max(b) })
        }
        _ => (a == b).then(|| a.clone()),
    }
}
