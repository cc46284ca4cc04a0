//! Expressions become operands: names, calls and operators, each operation a [`Action::Let`] of its own.

use super::Checker;
use super::constants::WORDS;
use super::fields::Message;
use super::frame::Value;
use super::kind::Kind;
use crate::ast::{Expression, ExpressionKind, Literal, PatternKind};
use crate::diagnostics::Span;
use crate::ir::{self, Action, Attribute, FieldRef, Number, Op, Operand};
use crate::suggest::did_you_mean;

impl Checker<'_, '_, '_> {
    pub(super) fn push(&mut self, span: &Span, action: Action) {
        self.out.push(ir::Statement { span: span.clone(), action });
    }

    /// Keeps what an operation gives.
    pub(super) fn keep(&mut self, span: &Span, op: Op, kind: Kind, optional: bool) -> Value {
        let into = self.frame.slots;
        self.frame.slots += 1;
        self.push(span, Action::Let { into, op });
        Value::new(Operand::Slot(into), kind, optional)
    }

    /// A value of whatever type it has.
    pub(super) fn value(&mut self, expression: &Expression) -> Option<Value> {
        let (resolved, given) = self.resolved(expression)?;
        let span = &expression.span;
        match &resolved.kind {
            ExpressionKind::Name(name) => self.named(name, span, given),
            ExpressionKind::Literal(literal) => {
                let Some(kind) = Self::kind_of_literal(literal) else {
                    self.sink
                        .error(span, "a rate is not a value", "a rate")
                        .help("rates are for take(table, key, 100/s)");
                    return None;
                };
                let constant = self.constant(&PatternKind::Literal(literal.clone()), span, &kind)?;
                Some(Value::new(Operand::Constant(constant), kind, false))
            }
            ExpressionKind::Call(call) => self.function(call),
            ExpressionKind::Not(inner) => self.not(inner, span),
            ExpressionKind::Negate(inner) => self.negate(inner, span),
            ExpressionKind::Binary { operator, left, right } => self.binary(*operator, left, right, span),
        }
    }

    fn named(&mut self, name: &str, span: &Span, given: bool) -> Option<Value> {
        if let (false, Some(variable)) = (given, self.frame.find(name)) {
            return variable.value.clone();
        }
        if let Some(value) = self.attribute(name, span)? {
            return Some(value);
        }
        let known: Vec<&str> =
            self.frame.variables().chain(self.frame.parameters.keys().map(String::as_str)).collect();
        let help = match name {
            "rpc" | "request" => Some(format!("read one of its fields: get({name}, 'field')")),
            "peer" => Some("read what is known of it: get(peer, 'identity')".to_owned()),
            "metadata" => Some("read one of its texts: get(metadata, 'key')".to_owned()),
            "NONE" => Some("a value is absent where nothing gives it one; match it with NONE".to_owned()),
            table if self.table_names.contains_key(table) => Some(match self.cell(table) {
                true => format!("read it: get({table})"),
                false => format!("read an entry of the table: get({table}, key)"),
            }),
            other => did_you_mean(other, "the variables here are", known),
        };
        self.sink.error(span, format!("`{name}` has no value here"), "not a value").maybe_help(help);
        None
    }

    /// A word that stands for what a call is; `Some(None)` if it is none.
    fn attribute(&mut self, name: &str, span: &Span) -> Option<Option<Value>> {
        let (attribute, kind, optional) = match name {
            "method" => (Attribute::Method, Kind::Method, false),
            "service" => (Attribute::Service, Kind::Service, false),
            "size" => (Attribute::Size, Kind::U64, false),
            "deadline" => (Attribute::Deadline, Kind::Duration, true),
            "now" => (Attribute::Now, Kind::Duration, false),
            "port" => (Attribute::Port, Kind::U32, false),
            "status" => (Attribute::Status, Kind::Enum(self.codes.clone()), false),
            "latency" => (Attribute::Latency, Kind::Duration, false),
            "backend" => (Attribute::Backend, Kind::U32, true),
            _ => return Some(None),
        };
        let only_responses = matches!(attribute, Attribute::Status | Attribute::Latency | Attribute::Backend);
        if only_responses && !self.frame.response {
            self.sink
                .error(span, format!("`{name}` is known when the response is there"), "too early")
                .help("read it in the element's `response:` handler");
            return None;
        }
        Some(Some(Value::new(Operand::Attribute(attribute), kind, optional)))
    }

    /// A value that stays as it is: a copy of a field that the handler changes somewhere.
    pub(super) fn kept(&mut self, value: Value, span: &Span) -> Value {
        let Operand::Field(field) = &value.operand else { return value };
        let (message, list, at) = match field {
            FieldRef::Request(at) => (Message::Request, &self.uses.fields, *at),
            FieldRef::Response(at) => (Message::Response, &self.uses.response_fields, *at),
        };
        let changes = message == self.frame.message()
            && list.get(at).is_some_and(|field| self.frame.changed.contains(&field.name));
        if !changes {
            return value;
        }
        self.keep(span, Op::Copy(value.operand), value.kind, value.optional)
    }

    /// A value that must be of a type; constants take it on.
    pub(super) fn typed(&mut self, expression: &Expression, kind: &Kind, what: &str) -> Option<Value> {
        if let Some(constant) = self.as_constant(expression) {
            let named = matches!(&constant, PatternKind::Name(_));
            if !named || matches!(kind, Kind::Enum(_) | Kind::Method | Kind::Service) {
                let constant = self.constant(&constant, &expression.span, kind)?;
                return Some(Value::new(Operand::Constant(constant), kind.clone(), false));
            }
        }
        let value = self.value(expression)?;
        if value.kind.fits(kind) {
            return Some(value);
        }
        let message = format!("this is {}, but {what} {kind}", value.kind);
        let help = self.help_for_type(&value.kind, kind);
        self.sink.error(&expression.span, message, format!("not {kind}")).maybe_help(help);
        None
    }

    /// The same where the value is kept in 32 or 64 bits: what is too large for them becomes the largest.
    pub(super) fn stored(&mut self, expression: &Expression, kind: &Kind, what: &str) -> Option<Value> {
        let number = match kind {
            Kind::U32 => Number::Unsigned,
            Kind::I32 => Number::Signed,
            _ => return self.typed(expression, kind, what),
        };
        if matches!(self.as_constant(expression), Some(PatternKind::Literal(_))) {
            return self.typed(expression, kind, what);
        }
        let value = self.typed(expression, &kind.widened(), what)?;
        if value.kind == *kind {
            return Some(value);
        }
        let op = Op::Narrow { number, value: value.operand };
        Some(self.keep(&expression.span, op, kind.clone(), value.optional))
    }

    fn help_for_type(&self, kind: &Kind, wanted: &Kind) -> Option<String> {
        let longer = wanted.fits(kind) && matches!(wanted, Kind::Text(_) | Kind::Bytes(_));
        Some(match (kind, wanted) {
            _ if longer => format!("cut short, it would be someone else's: declare the key as {kind}"),
            (Kind::I32 | Kind::I64, Kind::U64) => "convert it: as_u64(x) makes negative numbers 0".into(),
            (Kind::U64, Kind::I64) => "convert it: as_i64(x)".into(),
            (Kind::Duration | Kind::Percent, Kind::U64) => "convert it: as_u64(x)".into(),
            (Kind::U32 | Kind::U64 | Kind::I32 | Kind::I64, Kind::Float) => "convert it: float(x)".into(),
            (Kind::U32 | Kind::U64, Kind::Duration) => "multiply it by a unit: x * 1ms".into(),
            (Kind::Text(_), Kind::Address) => "addresses come from get(peer, 'address')".into(),
            _ => return None,
        })
    }

    /// A constant number of a type, known while the policy is compiled.
    pub(super) fn constant_number(
        &mut self,
        expression: &Expression,
        kind: &Kind,
        what: &str,
    ) -> Option<u64> {
        let value = self.typed(expression, kind, what)?;
        if let Some(number) = super::constants::number_in(&value.operand) {
            return Some(number);
        }
        self.sink
            .error(&expression.span, "this must be a constant", "known only when calls come")
            .help("write the number, or make it a parameter of the element");
        None
    }

    /// Reports a name that stands for something else already.
    pub(super) fn check_new_name(&mut self, name: &str, span: &Span) {
        let taken = if WORDS.contains(&name) {
            "a word of the language"
        } else if self.table_names.contains_key(name) {
            "a table"
        } else if self.element_names.contains(name) {
            "an element"
        } else if self.frame.parameters.contains_key(name) {
            "a parameter of this element"
        } else {
            return;
        };
        self.sink
            .error(span, format!("`{name}` is {taken}"), "has a meaning already")
            .help("choose another name");
    }

    /// The literal that an expression is.
    pub(super) fn literal_of(&self, expression: &Expression) -> Option<Literal> {
        match self.as_constant(expression)? {
            PatternKind::Literal(literal) => Some(literal),
            _ => None,
        }
    }
}
