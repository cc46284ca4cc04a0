//! Expressions.

use super::super::calls::{METADATA, NOW_NS, PEERS, PORT, named};
use super::value::{self, Maybe, Of, Value};
use super::{Names, Reference, Way};
use crate::ast::{self, Expression, ExpressionKind, Literal};
use crate::hash::Hasher;
use crate::notation;

impl Reference {
    pub(super) fn value(&mut self, expression: &Expression, way: &mut Way<'_>, names: &Names) -> Maybe {
        match &expression.kind {
            ExpressionKind::Literal(literal) => Some(value::literal(literal)),
            ExpressionKind::Name(name) => match names.get(name) {
                Some(value) => value.clone(),
                None => word(name, way),
            },
            ExpressionKind::Not(inner) => match self.value(inner, way, names)? {
                Value::Bool(value) => Some(Value::Bool(!value)),
                other => panic!("{other:?}"),
            },
            ExpressionKind::Negate(inner) => match self.value(inner, way, names)? {
                Value::Int(number, of) => Some(Value::Int(-number, of)),
                Value::Float(number) => Some(Value::Float(-number)),
                other => panic!("{other:?}"),
            },
            ExpressionKind::Binary { operator, left, right } => {
                let (a, b) = (self.value(left, way, names), self.value(right, way, names));
                value::binary(*operator, a, b)
            }
            ExpressionKind::Call(call) => self.function(call, way, names),
        }
    }

    pub(super) fn function(&mut self, call: &ast::Call, way: &mut Way<'_>, names: &Names) -> Maybe {
        let ast::Call { name, arguments, named, .. } = call;
        match (name.text.as_str(), arguments.as_slice()) {
            ("get", [from, what @ ..]) => {
                let ExpressionKind::Name(from) = &from.kind else { panic!("{from:?}") };
                match (from.as_str(), what.first().map(|what| &what.kind)) {
                    ("rpc", Some(ExpressionKind::Literal(Literal::Text(field)))) => way.message().get(field),
                    ("request", Some(ExpressionKind::Literal(Literal::Text(field)))) => {
                        way.request.get(field)
                    }
                    ("peer", Some(ExpressionKind::Literal(Literal::Text(what)))) => peer(what, way.call.peer),
                    ("metadata", Some(ExpressionKind::Literal(Literal::Text(key)))) => {
                        let known = METADATA.iter().find(|(known, _)| known == key);
                        known.map(|(_, text)| Value::Text(text.as_bytes().to_vec()))
                    }
                    _ => {
                        let key = self.key(from, what, way, names)?;
                        self.get(from, &key)
                    }
                }
            }
            ("add", [table, key @ .., amount]) => {
                let ExpressionKind::Name(table) = &table.kind else { panic!("{table:?}") };
                let (key, amount) = (self.key(table, key, way, names), self.value(amount, way, names));
                match amount? {
                    Value::Int(amount, _) => self.add(table, &key?, amount),
                    other => panic!("{other:?}"),
                }
            }
            ("take", [table, key @ .., rate]) => {
                let ExpressionKind::Name(table) = &table.kind else { panic!("{table:?}") };
                let ExpressionKind::Literal(Literal::Rate(rate)) = &rate.kind else { panic!("{rate:?}") };
                let mut number =
                    |wanted: &str, default: u64| match named.iter().find(|(name, _)| name.text == wanted) {
                        Some((_, value)) => match self.value(value, way, names) {
                            Some(Value::Int(number, _)) => number as u64,
                            other => panic!("{other:?}"),
                        },
                        None => default,
                    };
                let (burst, cost) = (number("burst", rate.count.max(1)), number("cost", 1));
                let key = self.key(table, key, way, names)?;
                let rate = (rate.count, rate.period_ns);
                Some(Value::Bool(self.take(table, &key, NOW_NS, rate, burst, cost)))
            }
            ("chance", [Expression { kind: ExpressionKind::Literal(Literal::Percent(ppm)), .. }]) => {
                // Never or always.
                Some(Value::Bool(*ppm != 0))
            }
            ("hash", values) => {
                let mut hasher = Hasher::default();
                let values: Vec<Maybe> = values.iter().map(|value| self.value(value, way, names)).collect();
                for value in values {
                    match value? {
                        Value::Bool(value) => hasher.word(value.into()),
                        Value::Int(number, _) => hasher.word(number as u64),
                        Value::Text(bytes) => hasher.bytes(&bytes),
                        other => panic!("{other:?}"),
                    }
                }
                Some(Value::Int(hasher.finish().into(), Of::Unsigned))
            }
            ("starts_with", [text, prefix]) => {
                match (self.value(text, way, names)?, self.value(prefix, way, names)?) {
                    (Value::Text(text), Value::Text(prefix)) => Some(Value::Bool(text.starts_with(&prefix))),
                    other => panic!("{other:?}"),
                }
            }
            ("as_u64", [number]) => match self.value(number, way, names)? {
                Value::Int(number, _) => Some(Value::Int(number.max(0), Of::Unsigned)),
                other => panic!("{other:?}"),
            },
            ("as_i64", [number]) => match self.value(number, way, names)? {
                Value::Int(number, _) => Some(Value::Int(number.min(i64::MAX.into()), Of::Signed)),
                other => panic!("{other:?}"),
            },
            other => panic!("{other:?}"),
        }
    }
}

/// A word that stands for something of the call, or for a name of an enum.
fn word(name: &str, way: &Way<'_>) -> Maybe {
    let path = way.method.path.trim_start_matches('/');
    let length =
        |message: &[u8], body: u32| Value::Int(message.len() as i128 + i128::from(body), Of::Unsigned);
    Some(match name {
        "method" => Value::Method(path.to_owned()),
        "service" => Value::Service(path.split('/').next().unwrap().to_owned()),
        "size" => match &way.response {
            Some((response, _)) => length(&response.flat, 0),
            None => length(&way.call.flat, way.call.body_len),
        },
        "deadline" => Value::Int(i128::from(way.call.deadline_us?) * 1000, Of::Duration),
        "now" => Value::Int(NOW_NS.into(), Of::Duration),
        "port" => Value::Int(PORT.into(), Of::Unsigned),
        "status" => {
            let (response, _) = way.response.as_ref().unwrap();
            Value::Name(response.status.name().to_owned(), response.status as i64)
        }
        "latency" => Value::Int(way.response.as_ref().unwrap().0.latency_ns.into(), Of::Duration),
        "backend" => Value::Int(way.response.as_ref().unwrap().0.backend?.into(), Of::Unsigned),
        other => Value::Name(other.to_owned(), 0),
    })
}

fn peer(what: &str, at: usize) -> Maybe {
    let peer = PEERS[at];
    let text = |text: &str| (!text.is_empty()).then(|| Value::Text(text.as_bytes().to_vec()));
    match what {
        "identity" => text(peer.identity),
        "namespace" => text(peer.namespace),
        "address" => notation::address(peer.address).map(|address| Value::Text(address.to_vec())),
        "token" => {
            peer.token.map(|valid| Value::Name(if valid { "VALID" } else { "BAD" }.into(), valid.into()))
        }
        other => named(at)
            .into_iter()
            .find(|(known, _)| known == other)
            .map(|(_, value)| Value::Text(value.into())),
    }
}
