//! Constants: literals and names that stand for a value, of the type that their place asks for.

use super::Checker;
use super::kind::{Kind, Length};
use super::methods::NoMethod;
use crate::ast::{Expression, ExpressionKind, Literal, PatternKind};
use crate::diagnostics::Span;
use crate::ir::{Constant, Operand};
use crate::notation;
use crate::suggest::did_you_mean;
use std::borrow::Cow;

/// Words that are read as values; nothing else can have their names.
pub(super) const WORDS: [&str; 23] = [
    "rpc", "request", "response", "peer", "metadata", "method", "service", "size", "deadline", "now", "port",
    "status", "latency", "backend", "true", "false", "NONE", "Some", "not", "and", "or", "if", "match",
];

impl Checker<'_, '_, '_> {
    /// What an expression stands for if it is a parameter, and whether it is: its argument's names are none of the
    /// element's variables.
    pub(super) fn resolved<'e>(&self, expression: &'e Expression) -> Option<(Cow<'e, Expression>, bool)> {
        let ExpressionKind::Name(name) = &expression.kind else {
            return Some((Cow::Borrowed(expression), false));
        };
        match self.frame.parameters.get(name) {
            None => Some((Cow::Borrowed(expression), false)),
            Some(Some(argument)) => {
                let kind = argument.kind.clone();
                Some((Cow::Owned(Expression { span: expression.span.clone(), kind }), true))
            }
            Some(None) => None,
        }
    }

    /// The constant that an expression is: a literal, or a name that is no variable.
    pub(super) fn as_constant(&self, expression: &Expression) -> Option<PatternKind> {
        let (resolved, given) = self.resolved(expression)?;
        match &resolved.kind {
            ExpressionKind::Literal(literal) => Some(PatternKind::Literal(literal.clone())),
            ExpressionKind::Name(name)
                if !WORDS.contains(&name.as_str()) && (given || self.frame.find(name).is_none()) =>
            {
                Some(PatternKind::Name(name.clone()))
            }
            _ => None,
        }
    }

    /// A text that must be written out, or be a parameter.
    pub(super) fn text(&mut self, expression: &Expression, what: &str, usage: &str) -> Option<String> {
        let (resolved, _) = self.resolved(expression)?;
        if let ExpressionKind::Literal(Literal::Text(text)) = &resolved.kind {
            return Some(text.clone());
        }
        self.sink
            .error(&expression.span, format!("{what} is named by a string"), "not a string")
            .help(format!("write {usage}"));
        None
    }

    /// A constant of a type.
    pub(super) fn constant(&mut self, constant: &PatternKind, span: &Span, kind: &Kind) -> Option<Constant> {
        let found = match (constant, kind) {
            (PatternKind::Literal(literal), _) => self.literal(literal, span, kind),
            (PatternKind::Name(name), Kind::Enum(names)) => match names.number(name) {
                Some(number) => Ok(Some(Constant::Number(number))),
                None => {
                    let known = names.values.iter().map(|(name, _)| name.as_str());
                    let help = did_you_mean(name, "the values are", known);
                    self.sink
                        .error(span, format!("`{name}` is not one of the values"), "unknown")
                        .maybe_help(help);
                    Err(Reported)
                }
            },
            (PatternKind::Name(name), Kind::Method | Kind::Service) => self.only_id(name, span, kind),
            _ => Ok(None),
        };
        match found {
            Ok(Some(constant)) => Some(constant),
            Ok(None) => {
                let help = self.help_for_constant(constant, kind);
                self.sink
                    .error(span, format!("this constant is not of the type {kind}"), format!("not {kind}"))
                    .maybe_help(help);
                None
            }
            Err(Reported) => None,
        }
    }

    /// A method or service where only one will do.
    fn only_id(&mut self, name: &str, span: &Span, kind: &Kind) -> Result<Option<Constant>, Reported> {
        let numbers = self.ids(name, span, kind).ok_or(Reported)?;
        match numbers.as_slice() {
            [only] => Ok(Some(Constant::Number(*only))),
            _ => {
                self.sink
                    .error(span, format!("`{name}` is a method of several services"), "which one?")
                    .help("write its path, such as 'kv.Kv/Get'");
                Err(Reported)
            }
        }
    }

    /// The numbers of the methods or services of a name, ascending; at least one, or the mistake is reported.
    pub(super) fn ids(&mut self, name: &str, span: &Span, kind: &Kind) -> Option<Vec<u64>> {
        let found = match kind {
            Kind::Service => self.methods.service(name).map(|number| vec![number]),
            _ => self.methods.named(name),
        };
        match found {
            Ok(ids) => {
                let mut numbers: Vec<u64> = ids.into_iter().map(number_of_id).collect();
                numbers.sort_unstable();
                Some(numbers)
            }
            Err(NoMethod { message, help }) => {
                self.sink.error(span, message, "not in the schema").maybe_help(help);
                None
            }
        }
    }

    fn literal(&mut self, literal: &Literal, span: &Span, kind: &Kind) -> Result<Option<Constant>, Reported> {
        let number = |number: u64| Ok(Some(Constant::Number(number)));
        match (literal, kind) {
            (Literal::Bool(value), Kind::Bool) => number(u64::from(*value)),
            (Literal::Duration(ns), Kind::Duration) => number(*ns),
            (Literal::Percent(ppm), Kind::Percent) => number(*ppm),
            (Literal::Float(bits), Kind::Float) => number(*bits),
            (Literal::Text(text), Kind::Text(length) | Kind::Bytes(length)) => {
                if let Length::AtMost(max_len) = length
                    && text.len() > usize::from(*max_len)
                {
                    let message = format!("this has {} bytes, but {kind} has at most {max_len}", text.len());
                    self.sink.error(span, message, "too long to be equal");
                    return Err(Reported);
                }
                Ok(Some(Constant::Bytes(text.clone().into_bytes())))
            }
            (Literal::Text(text), Kind::Address) => match notation::address(text) {
                Some(address) => Ok(Some(Constant::Bytes(address.to_vec()))),
                None => {
                    self.sink
                        .error(span, format!("'{text}' is not an address"), "not an address")
                        .help("addresses are '192.0.2.1' or '2001:db8::1'");
                    Err(Reported)
                }
            },
            (Literal::Text(text), Kind::Cidr) => match notation::cidr(text) {
                Some((address, 128)) => Ok(Some(Constant::Bytes(address.to_vec()))),
                _ => Ok(None),
            },
            (Literal::Text(text), Kind::Method | Kind::Service) => self.only_id(text, span, kind),
            (Literal::Number { negative, magnitude }, _) => {
                let value = i128::from(*magnitude) * if *negative { -1 } else { 1 };
                let range = match kind {
                    Kind::U32 => (0, i128::from(u32::MAX)),
                    Kind::U64 => (0, i128::from(u64::MAX)),
                    Kind::I32 => (i128::from(i32::MIN), i128::from(i32::MAX)),
                    Kind::I64 => (i128::from(i64::MIN), i128::from(i64::MAX)),
                    Kind::Float => return number((value as f64).to_bits()),
                    _ => return Ok(None),
                };
                if !(range.0..=range.1).contains(&value) {
                    let label = format!("{} to {}", range.0, range.1);
                    self.sink.error(span, format!("{value} does not fit {kind}"), label);
                    return Err(Reported);
                }
                number(value as u64)
            }
            _ => Ok(None),
        }
    }

    fn help_for_constant(&self, constant: &PatternKind, kind: &Kind) -> Option<String> {
        Some(match (constant, kind) {
            (_, Kind::Fixed(_)) => "fixed bytes can be keys of tables, but have no constants".into(),
            (_, Kind::Enum(names)) => {
                let known = names.values.iter().map(|(name, _)| name.as_str());
                return did_you_mean("", "the values are", known);
            }
            (PatternKind::Name(_), Kind::Text(_)) => "text is quoted: 'text'".into(),
            (PatternKind::Name(_), Kind::Bool) => "the bools are true and false".into(),
            (PatternKind::Literal(Literal::Number { .. }), Kind::Duration) => {
                "times have a unit: 500us, 10ms, 10s, 5m, 1h".into()
            }
            (PatternKind::Literal(Literal::Number { .. } | Literal::Float(_)), Kind::Percent) => {
                "write 10% or 0.5%".into()
            }
            (PatternKind::Literal(Literal::Rate(_)), _) => "rates are for take(table, key, 100/s)".into(),
            (PatternKind::Literal(Literal::Float(_)), Kind::U32 | Kind::U64 | Kind::I32 | Kind::I64) => {
                "convert the other side: float(x)".into()
            }
            _ => return None,
        })
    }

    /// A literal by itself, whose place asks for no type: with the type that it has by its looks.
    pub(super) fn kind_of_literal(literal: &Literal) -> Option<Kind> {
        Some(match literal {
            Literal::Bool(_) => Kind::Bool,
            Literal::Number { negative: true, .. } => Kind::I64,
            Literal::Number { negative: false, .. } => Kind::U64,
            Literal::Float(_) => Kind::Float,
            Literal::Text(text) => Kind::Text(match u8::try_from(text.len()) {
                Ok(length) => Length::AtMost(length),
                Err(_) => Length::Unbounded,
            }),
            Literal::Duration(_) => Kind::Duration,
            Literal::Percent(_) => Kind::Percent,
            Literal::Rate(_) => return None,
        })
    }
}

/// A mistake has been reported.
struct Reported;

/// An id of a method or service as policies calculate with it: like the number of an enum.
pub(super) fn number_of_id(id: u32) -> u64 {
    i64::from(id as i32) as u64
}

/// The number, where an operand is one.
pub(super) fn number_in(operand: &Operand) -> Option<u64> {
    match operand {
        Operand::Constant(Constant::Number(number)) => Some(*number),
        _ => None,
    }
}
