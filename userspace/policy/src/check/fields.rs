//! A message's field as all methods that a chain covers together see it.

use super::kind::Kind;
use super::methods::Methods;
use crate::ir::kind_of_field;
use crate::suggest::did_you_mean;
use crate::table::KeyType;
use std::collections::BTreeSet;
use tollfree_schema::{Layout, Method};

/// Which of a call's two messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Message {
    Request,
    Response,
}

impl Message {
    pub(super) fn name(self) -> &'static str {
        match self {
            Message::Request => "request",
            Message::Response => "response",
        }
    }

    pub(super) fn layout(self, method: &Method) -> &Layout {
        match self {
            Message::Request => &method.request,
            Message::Response => &method.response,
        }
    }

    fn other(self) -> Message {
        match self {
            Message::Request => Message::Response,
            Message::Response => Message::Request,
        }
    }
}

/// A field that can be read.
#[derive(Clone, Debug)]
pub(super) struct Found {
    /// Of text and bytes: the longest over all methods.
    pub wire: KeyType,
    pub kind: Kind,
    /// Paths of the methods whose messages do not have it: it reads as absent there.
    pub missing: Vec<String>,
}

/// Why a field cannot be read.
#[derive(Clone, Debug)]
pub(super) struct Unreadable {
    pub message: String,
    pub help: Option<String>,
}

pub(super) fn find(
    methods: &Methods<'_>,
    ids: Option<&[u32]>,
    which: Message,
    name: &str,
) -> Result<Found, Unreadable> {
    let mut found: Option<(KeyType, &str)> = None;
    let mut missing = Vec::new();
    for method in methods.within(ids) {
        let Some(field) = which.layout(method).fields.iter().find(|field| field.name == name) else {
            missing.push(method.path.clone());
            continue;
        };
        let kind = kind_of_field(&field.kind);
        found = Some(match found {
            None => (kind, &method.path),
            Some((first, path)) => match join(&first, &kind) {
                Some(both) => (both, path),
                None => {
                    let message = which.name();
                    return Err(Unreadable {
                        message: format!(
                            "field '{name}' is {first} in the {message} of {path}, but {kind} in that of {}",
                            method.path
                        ),
                        help: Some(
                            "rename one of them, or let a chain cover only one of the methods: `... for {service}/{method}`"
                                .replace("{service}/{method}", path.trim_start_matches('/')),
                        ),
                    });
                }
            },
        });
    }
    match found {
        Some((wire, _)) => Ok(Found { kind: Kind::of_field(&wire), wire, missing }),
        None => Err(unknown(methods, ids, which, name)),
    }
}

fn unknown(methods: &Methods<'_>, ids: Option<&[u32]>, which: Message, name: &str) -> Unreadable {
    let body = |layout: &Layout| layout.body.iter().any(|field| field.name == name);
    if let Some(method) = methods.within(ids).find(|method| body(which.layout(method))) {
        return Unreadable {
            message: format!("field '{name}' of {} is not flat", which.layout(method).message),
            help: Some(format!(
                "policies read the flat header only: give the field the option (tollfree.flat) in the schema, as in \
                 `string {name} = 1 [(tollfree.flat) = {{ max_len: 32 }}];`"
            )),
        };
    }
    let other = which.other();
    let in_other = |method: &&Method| {
        let layout = other.layout(method);
        layout.fields.iter().any(|field| field.name == name) || body(layout)
    };
    if let Some(method) = methods.within(ids).find(in_other) {
        return Unreadable {
            message: format!(
                "field '{name}' is in the {} of {}, not in any {}",
                other.name(),
                method.path,
                which.name()
            ),
            help: Some(match which {
                Message::Request => "a request handler reads the request's flat fields".into(),
                Message::Response => {
                    format!("a response handler reads its request's fields by get(request, '{name}')")
                }
            }),
        };
    }
    let fields = methods.within(ids).flat_map(|method| &which.layout(method).fields);
    let known: Vec<&str> = fields.map(|field| field.name.as_str()).collect();
    let what = format!("the schema's flat {} fields are", which.name());
    let help = did_you_mean(name, &what, known)
        .or_else(|| Some(format!("the schema's {}s have no flat field at all", which.name())));
    let messages: BTreeSet<&str> =
        methods.within(ids).map(|method| which.layout(method).message.as_str()).collect();
    let message = match (messages.first(), messages.len()) {
        (Some(only), 1) => format!("'{name}' is not a field of {only}"),
        _ => format!("no method's {} has a field '{name}'", which.name()),
    };
    Unreadable { message, help }
}

/// The type both fields fit in, if they are of one kind.
fn join(a: &KeyType, b: &KeyType) -> Option<KeyType> {
    match (a, b) {
        (KeyType::String { max_len: a }, KeyType::String { max_len: b }) => {
            Some(KeyType::String { max_len: *a.max(b) })
        }
        (KeyType::Bytes { max_len: a }, KeyType::Bytes { max_len: b }) => {
            Some(KeyType::Bytes { max_len: *a.max(b) })
        }
        (KeyType::F32 | KeyType::F64, KeyType::F32 | KeyType::F64) if a != b => Some(KeyType::F64),
        _ => (a == b).then(|| a.clone()),
    }
}
