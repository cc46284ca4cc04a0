//! Functions: calls that give a value.

use super::Checker;
use super::frame::Value;
use super::kind::{Kind, Wide};
use super::operators::constant;
use crate::ast::{Call, Expression, Literal};
use crate::diagnostics::Span;
use crate::ir::{Constant, Number, Op, Operand};
use crate::operations;
use crate::parse::instead_of;
use crate::suggest::did_you_mean;

/// What can be called for a value, with how.
pub(super) const FUNCTIONS: [(&str, &str); 14] = [
    ("get", "get(rpc, 'field') or get(table, key)"),
    ("add", "add(table, key, 1)"),
    ("take", "take(table, key, 100/s, burst = 20)"),
    ("random", "random()"),
    ("chance", "chance(10%)"),
    ("hash", "hash(value, ...)"),
    ("starts_with", "starts_with(text, 'prefix')"),
    ("as_u64", "as_u64(number)"),
    ("as_i64", "as_i64(number)"),
    ("float", "float(number)"),
    ("backends", "backends('group')"),
    ("ask", "ask('authoriser')"),
    ("encrypt", "encrypt(rpc, 'field', 'key')"),
    ("decrypt", "decrypt(rpc, 'field', 'key')"),
];

/// Parts in one million.
const MILLION: f64 = 1_000_000.0;

impl Checker<'_, '_, '_> {
    /// What a call gives.
    pub(super) fn function(&mut self, call: &Call) -> Option<Value> {
        let Call { name, arguments, named, span } = call;
        let does = matches!(
            name.text.as_str(),
            "add" | "take" | "chance" | "random" | "ask" | "encrypt" | "decrypt"
        );
        if does && self.frame.logic > 0 {
            let message = format!("`{}` cannot stand inside `and`, `or` and `not`", name.text);
            self.sink
                .error(span, message, "both sides are always evaluated")
                .help(format!("assign it first: `x = {}(...)`", name.text));
            return None;
        }
        if !matches!(name.text.as_str(), "take") {
            self.no_named(named, &name.text);
        }
        match (name.text.as_str(), arguments.as_slice()) {
            ("get", [from, rest @ ..]) => self.get(from, rest, span),
            ("add", [table, rest @ ..]) if !rest.is_empty() => self.add(table, rest, span),
            ("take", [table, rest @ ..]) if !rest.is_empty() => self.take(table, rest, named, span),
            ("random", []) => Some(self.keep(span, Op::Random, Kind::U32, false)),
            ("chance", [share]) => self.chance(share, span),
            ("hash", [_, ..]) => {
                let values: Vec<_> = arguments.iter().map(|argument| self.value(argument)).collect();
                let values: Vec<Value> = values.into_iter().collect::<Option<_>>()?;
                let optional = values.iter().any(|value| value.optional);
                let operands = values.into_iter().map(|value| value.operand).collect();
                Some(self.keep(span, Op::Hash(operands), Kind::U64, optional))
            }
            ("starts_with", [text, prefix]) => {
                let value = self.value(text)?;
                let place = &prefix.span;
                let prefix = self.text(prefix, "a prefix", "starts_with(text, 'prefix')")?;
                if matches!(value.kind, Kind::Method | Kind::Service) && !value.optional {
                    let numbers = self.starting_with(&prefix, place, &value.kind)?;
                    return Some(self.is_one_of(value.operand, &numbers, span));
                }
                if !matches!(value.kind, Kind::Text(_) | Kind::Bytes(_)) {
                    self.sink.error(&text.span, format!("this is {}, not text", value.kind), "not text");
                    return None;
                }
                let op = Op::StartsWith { text: value.operand, prefix: prefix.into_bytes() };
                Some(self.keep(span, op, Kind::Bool, value.optional))
            }
            ("as_u64", [number]) => self.convert(number, Number::Unsigned, Kind::U64, span),
            ("as_i64", [number]) => self.convert(number, Number::Signed, Kind::I64, span),
            ("float", [number]) => self.convert(number, Number::Float, Kind::Float, span),
            ("backends", [group]) => {
                let at = self.selector(group, "backends('group')")?;
                Some(self.keep(span, Op::Backends(at), Kind::U64, false))
            }
            ("ask", [authoriser]) => {
                let name = self.text(authoriser, "an authoriser", "ask('authoriser')")?;
                let at = place_of(&mut self.uses.authorisers, &name);
                Some(self.keep(span, Op::Ask(at), Kind::Bool, true))
            }
            ("encrypt" | "decrypt", [message, field, key]) => {
                self.crypt(message, field, key, name.text == "decrypt", span)
            }
            (known, _) if let Some((_, usage)) = FUNCTIONS.iter().find(|(name, _)| *name == known) => {
                self.sink
                    .error(span, format!("`{known}` is not called like this"), "wrong arguments")
                    .help(format!("write {usage}"));
                None
            }
            (other, _) => {
                let help = instead_of(other).map(str::to_owned).or_else(|| {
                    did_you_mean(other, "what gives a value is", FUNCTIONS.map(|(name, _)| name))
                });
                self.sink.error(span, format!("`{other}` gives no value"), "not a value").maybe_help(help);
                None
            }
        }
    }

    /// Reports arguments with names where there are none.
    pub(super) fn no_named(&mut self, named: &[(crate::ast::Name, Expression)], what: &str) {
        if let Some((name, _)) = named.first() {
            let message = format!("`{what}` has no argument `{}`", name.text);
            self.sink.error(&name.span, message, "unknown");
        }
    }

    /// Reports all but some names; returns the arguments with those.
    pub(super) fn options<'e, const N: usize>(
        &mut self,
        named: &'e [(crate::ast::Name, Expression)],
        what: &str,
        known: [&str; N],
    ) -> [Option<&'e Expression>; N] {
        for (name, _) in named {
            if !known.contains(&name.text.as_str()) {
                let message = format!("`{what}` has no argument `{}`", name.text);
                let help = did_you_mean(&name.text, "it has", known);
                self.sink.error(&name.span, message, "unknown").maybe_help(help);
            }
        }
        known.map(|wanted| named.iter().find(|(name, _)| name.text == wanted).map(|(_, value)| value))
    }

    fn chance(&mut self, share: &Expression, span: &Span) -> Option<Value> {
        if matches!(self.literal_of(share), Some(Literal::Number { .. })) {
            self.sink.error(&share.span, "a chance is a percentage", "of what?").help("write chance(10%)");
            return None;
        }
        let value = self.value(share)?;
        let ppm = match value.kind.wide() {
            Some(Wide::Percent | Wide::Unsigned) => value.operand,
            Some(Wide::Float) => {
                let million = Operand::Constant(Constant::Number(MILLION.to_bits()));
                let (op, number) = (crate::ir::Arithmetic::Multiply, Number::Float);
                let scaled = Op::Arithmetic { op, number, a: value.operand, b: million };
                let scaled = self.keep(span, scaled, Kind::Float, value.optional);
                let (from, to) = (Number::Float, Number::Unsigned);
                let whole = Op::Convert { from, to, value: scaled.operand };
                self.keep(span, whole, Kind::Percent, value.optional).operand
            }
            _ => {
                self.sink
                    .error(&share.span, format!("this is {}, not a share", value.kind), "of what?")
                    .help("a chance is a percentage, a float up to 1.0, or a u64 of parts per million");
                return None;
            }
        };
        Some(self.keep(span, Op::Chance(ppm), Kind::Bool, value.optional))
    }

    fn convert(&mut self, number: &Expression, to: Number, kind: Kind, span: &Span) -> Option<Value> {
        let value = self.value(number)?;
        let from = match &value.kind {
            Kind::Bool | Kind::Method | Kind::Service | Kind::Enum(_) => Some(Number::Signed),
            other => other.wide().map(Wide::number),
        };
        let Some(from) = from else {
            self.sink.error(&number.span, format!("this is {}, not a number", value.kind), "not a number");
            return None;
        };
        if let Operand::Constant(Constant::Number(bits)) = value.operand {
            return Some(constant(operations::convert(from, to)(bits), kind));
        }
        if from == to {
            return Some(Value { kind, ..value });
        }
        Some(self.keep(span, Op::Convert { from, to, value: value.operand }, kind, value.optional))
    }

    /// The index of a group of backends.
    pub(super) fn selector(&mut self, group: &Expression, usage: &str) -> Option<usize> {
        let name = self.text(group, "a group of backends", usage)?;
        Some(place_of(&mut self.uses.selectors, &name))
    }
}

/// Where a name stands in a list; at its end if it is new.
pub(super) fn place_of(list: &mut Vec<String>, name: &str) -> usize {
    list.iter().position(|known| known == name).unwrap_or_else(|| {
        list.push(name.to_owned());
        list.len() - 1
    })
}
