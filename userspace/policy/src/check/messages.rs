//! The fields of messages: reading, writing, encrypting; and what is known of the peer.

use super::Checker;
use super::fields::{self, Found, Message, Unreadable};
use super::frame::Value;
use super::functions::place_of;
use super::kind::{Kind, Length, Names};
use crate::ast::Expression;
use crate::diagnostics::Span;
use crate::ir::{Action, FieldRef, FieldUse, Op, Operand, PeerValue, TOKEN_BAD, TOKEN_VALID};
use crate::suggest::did_you_mean;
use tollfree_wire::maps::IDENTITY_MAX;

const PEER: [&str; 7] = ["identity", "namespace", "address", "sessions", "token", "issuer", "audience"];

impl Checker<'_, '_, '_> {
    /// `get(rpc, 'field')`, `get(request, 'field')`
    pub(super) fn get_field(&mut self, of: &str, place: &Expression, field: &Expression) -> Option<Value> {
        let message = match (of, self.frame.response) {
            ("request", true) => Message::Request,
            ("request", false) | ("response", _) => {
                let (message, help) = match of {
                    "request" => ("here `rpc` is the request", "write get(rpc, 'field')"),
                    _ => ("the response is `rpc` in a response handler", "write get(rpc, 'field') there"),
                };
                self.sink.error(&place.span, message, "not a message here").help(help);
                return None;
            }
            _ => self.frame.message(),
        };
        let name = self.text(field, "a field", &format!("get({of}, 'field')"))?;
        let (at, kind) = self.field(message, &name, &field.span)?;
        let field = match message {
            Message::Request => FieldRef::Request(at),
            Message::Response => FieldRef::Response(at),
        };
        Some(Value::new(Operand::Field(field), kind, true))
    }

    /// A field among those used, if it can be; else the mistake is reported.
    pub(super) fn field(&mut self, message: Message, name: &str, span: &Span) -> Option<(usize, Kind)> {
        let known = (self.frame.scope, message, name.to_owned());
        if let Some((at, kind)) = self.known_fields.get(&known) {
            return Some((*at, kind.clone()));
        }
        match fields::find(&self.methods, self.frame.methods.as_deref(), message, name) {
            Ok(Found { wire, kind, missing }) => {
                if !missing.is_empty() {
                    self.note(format!(
                        "field '{name}' reads as NONE in {}: not in the {}",
                        missing.join(", "),
                        message.name()
                    ));
                }
                let list = match message {
                    Message::Request => &mut self.uses.fields,
                    Message::Response => &mut self.uses.response_fields,
                };
                let field = FieldUse { name: name.to_owned(), kind: wire };
                let at = list.iter().position(|known| *known == field).unwrap_or_else(|| {
                    list.push(field);
                    list.len() - 1
                });
                self.known_fields.insert(known, (at, kind.clone()));
                Some((at, kind))
            }
            Err(Unreadable { message, help }) => {
                self.sink.error(span, message, "cannot be read").maybe_help(help);
                None
            }
        }
    }

    /// The field of `set(rpc, 'field', ...)`.
    fn changed_field(&mut self, field: &Expression, usage: &str) -> Option<(FieldRef, Kind)> {
        let name = self.text(field, "a field", usage)?;
        let message = self.frame.message();
        let (at, kind) = self.field(message, &name, &field.span)?;
        let field = match message {
            Message::Request => FieldRef::Request(at),
            Message::Response => FieldRef::Response(at),
        };
        Some((field, kind))
    }

    /// `set(rpc, 'field', value)`
    pub(super) fn set_field(&mut self, field: &Expression, value: &Expression) -> Option<Action> {
        let (field, kind) = self.changed_field(field, "set(rpc, 'field', value)")?;
        let what = "the field is";
        let value = match (&kind, self.as_constant(value).is_some()) {
            (Kind::Text(_) | Kind::Bytes(_), false) => self.any_length(value, &kind, what)?,
            _ => self.stored(value, &kind, what)?,
        };
        Some(Action::SetField { field, value: Some(value.operand) })
    }

    /// `delete(rpc, 'field')`
    pub(super) fn delete_field(&mut self, field: &Expression) -> Option<Action> {
        let (field, _) = self.changed_field(field, "delete(rpc, 'field')")?;
        Some(Action::SetField { field, value: None })
    }

    /// `encrypt(rpc, 'field', 'key')`, `decrypt(rpc, 'field', 'key')`
    pub(super) fn crypt(
        &mut self,
        message: &Expression,
        field: &Expression,
        key: &Expression,
        decrypt: bool,
        span: &Span,
    ) -> Option<Value> {
        let word = if decrypt { "decrypt" } else { "encrypt" };
        let usage = format!("{word}(rpc, 'field', 'key')");
        if !super::is_name(message, "rpc") {
            self.sink
                .error(&message.span, "this is not the message", "not `rpc`")
                .help(format!("write {usage}"));
            return None;
        }
        let key = self.text(key, "a key", &usage)?;
        let place = &field.span;
        let (field, kind) = self.changed_field(field, &usage)?;
        if !matches!(kind, Kind::Bytes(_)) {
            self.sink
                .error(place, format!("this field is {kind}"), "not bytes")
                .help("what is encrypted is any bytes: give the field the type `bytes` in the schema");
            return None;
        }
        let key = place_of(&mut self.uses.keys, &key);
        Some(self.keep(span, Op::Crypt { field, key, decrypt }, Kind::Bool, true))
    }

    /// `get(peer, 'identity')`
    pub(super) fn get_peer(&mut self, what: &Expression) -> Option<Value> {
        let name = self.text(what, "what is known of the peer", "get(peer, 'identity')")?;
        let entry = Kind::Text(Length::AtMost(IDENTITY_MAX as u8));
        let (value, kind, optional) = match name.as_str() {
            "identity" => (PeerValue::Identity, entry, true),
            "namespace" => (PeerValue::Namespace, entry, true),
            "address" => (PeerValue::Address, Kind::Address, false),
            "sessions" => (PeerValue::Sessions, Kind::U32, false),
            "token" => {
                let values =
                    vec![("BAD".to_owned(), TOKEN_BAD as i32), ("VALID".to_owned(), TOKEN_VALID as i32)];
                place_of(&mut self.uses.peer_names, "token");
                (PeerValue::Token, Kind::Enum(Names::new(values, true)), true)
            }
            named if is_named(named) => {
                let at = place_of(&mut self.uses.peer_names, named);
                (PeerValue::Named(at), Kind::Text(Length::Unbounded), true)
            }
            other => {
                let known = PEER.into_iter().chain(["label.KEY", "claim.KEY"]);
                let help = did_you_mean(other, "what is known of a peer is", known);
                self.sink
                    .error(&what.span, format!("nothing of a peer is called '{other}'"), "not known")
                    .maybe_help(help);
                return None;
            }
        };
        Some(Value::new(Operand::Peer(value), kind, optional))
    }
}

/// Whether a name is one of those that tokens and labels give.
fn is_named(name: &str) -> bool {
    let key = name.strip_prefix("label.").or_else(|| name.strip_prefix("claim."));
    matches!(name, "issuer" | "audience") || key.is_some_and(|key| !key.is_empty())
}
