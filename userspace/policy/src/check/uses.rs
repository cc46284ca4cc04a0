//! How a policy uses its tables.

use super::constants::WORDS;
use super::fields::{self, Message};
use super::kind::{Kind, Length};
use super::methods::Methods;
use crate::ast::{
    Arm, Call, Element, Expression, ExpressionKind, Literal, Operator, PatternKind, Statement, StatementKind,
};
use crate::diagnostics::Span;
use crate::ir::Arithmetic;
use std::collections::HashMap;
use std::rc::Rc;
use tollfree_wire::maps::IDENTITY_MAX;

/// Where a value comes from, as far as that tells its type.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    Kind(Kind),
    Table(String),
    Literal(Literal),
    /// Neither a variable nor a table: a name of an enum.
    Name(String),
    Unknown,
}

/// What is done with one table.
#[derive(Clone, Debug)]
pub(super) struct Use {
    /// The place where it is mentioned first.
    pub first: Span,
    /// By position in the key; `None` before the first use with a key.
    pub keys: Option<Vec<Vec<(Origin, Span)>>>,
    /// The first use with another number of keys.
    pub odd: Option<Span>,
    /// Constants it is matched with, and values it is set to.
    pub values: Vec<(Origin, Span)>,
    /// Where tokens are taken from it.
    pub bucket: Option<Span>,
}

/// The uses of every table, in the order in which they are mentioned.
#[derive(Debug, Default)]
pub(super) struct Uses {
    pub tables: Vec<(String, Use)>,
    places: HashMap<String, usize>,
}

impl Uses {
    pub(super) fn of(&self, table: &str) -> Option<&Use> {
        self.places.get(table).map(|at| &self.tables[*at].1)
    }

    fn entry(&mut self, name: &str, span: &Span) -> &mut Use {
        let at = *self.places.entry(name.to_owned()).or_insert_with(|| {
            let new = Use { first: span.clone(), keys: None, odd: None, values: Vec::new(), bucket: None };
            self.tables.push((name.to_owned(), new));
            self.tables.len() - 1
        });
        &mut self.tables[at].1
    }
}

/// Walks through elements as chains use them.
pub(super) struct Walker<'a, 'm> {
    methods: &'a Methods<'m>,
    uses: Uses,
    fields: HashMap<(usize, Message, String), Option<Kind>>,
    scope: usize,
    ids: Option<Rc<[u32]>>,
    response: bool,
    parameters: HashMap<String, Option<Expression>>,
    variables: HashMap<String, Vec<Origin>>,
    bound: Vec<String>,
}

impl<'a, 'm> Walker<'a, 'm> {
    pub(super) fn new(methods: &'a Methods<'m>) -> Walker<'a, 'm> {
        Walker {
            methods,
            uses: Uses::default(),
            fields: HashMap::new(),
            scope: 0,
            ids: None,
            response: false,
            parameters: HashMap::new(),
            variables: HashMap::new(),
            bound: Vec::new(),
        }
    }

    /// One use of an element, by the chain of that number.
    pub(super) fn element(
        &mut self,
        element: &Element,
        parameters: HashMap<String, Option<Expression>>,
        scope: usize,
        ids: Option<Rc<[u32]>>,
    ) {
        (self.parameters, self.scope, self.ids) = (parameters, scope, ids);
        for (handler, response) in [(&element.request, false), (&element.response, true)] {
            let Some(handler) = handler else { continue };
            self.response = response;
            self.variables.clear();
            self.bound.clear();
            self.block(&handler.body);
        }
    }

    pub(super) fn finish(self) -> Uses {
        self.uses
    }

    fn bind(&mut self, name: &str, origin: Origin) {
        self.variables.entry(name.to_owned()).or_default().push(origin);
        self.bound.push(name.to_owned());
    }

    fn close(&mut self, opened: usize) {
        for name in self.bound.drain(opened..) {
            if let Some(origins) = self.variables.get_mut(&name) {
                origins.pop();
            }
        }
    }

    fn block(&mut self, block: &[Statement]) {
        let opened = self.bound.len();
        for statement in block {
            match &statement.kind {
                StatementKind::Assign { name, value } => {
                    let origin = self.origin(value);
                    self.bind(&name.text, origin);
                }
                StatementKind::Match { subject, arms } => {
                    let origin = self.origin(subject);
                    for arm in arms {
                        self.arm(arm, &origin);
                    }
                }
                StatementKind::Call(call) => self.statement(call),
                StatementKind::Pass => {}
            }
        }
        self.close(opened);
    }

    fn statement(&mut self, call: &Call) {
        match (call.name.text.as_str(), call.arguments.as_slice()) {
            ("set", [table, rest @ ..]) => {
                let Some((value, key)) = rest.split_last() else { return };
                let name = self.key_use(table, key);
                let origin = self.origin(value);
                if let Some(name) = name {
                    self.value_use(&name, origin, &value.span);
                }
            }
            ("delete", [table, key @ ..]) => {
                self.key_use(table, key);
            }
            _ => {
                self.call(call);
            }
        }
    }

    fn arm(&mut self, arm: &Arm, subject: &Origin) {
        let opened = self.bound.len();
        for pattern in &arm.patterns {
            let constant = match &pattern.kind {
                PatternKind::Any | PatternKind::Absent | PatternKind::Present(None) => continue,
                PatternKind::Present(Some(name)) => {
                    self.bind(&name.text, subject.clone());
                    continue;
                }
                PatternKind::Literal(literal) | PatternKind::Range(literal, _) => {
                    Origin::Literal(literal.clone())
                }
                PatternKind::Name(name) => match self.parameters.get(name) {
                    Some(argument) => argument.clone().map_or(Origin::Unknown, |given| constant_of(&given)),
                    None => Origin::Name(name.clone()),
                },
                PatternKind::Prefix(text) => Origin::Literal(Literal::Text(text.clone())),
            };
            if let Origin::Table(table) = subject {
                self.value_use(table, constant, &pattern.span);
            }
        }
        if let Some(guard) = &arm.guard {
            self.origin(guard);
        }
        self.block(&arm.body);
        self.close(opened);
    }

    fn origin(&mut self, expression: &Expression) -> Origin {
        match &expression.kind {
            ExpressionKind::Literal(literal) => Origin::Literal(literal.clone()),
            ExpressionKind::Name(name) => match self.parameters.get(name) {
                Some(argument) => argument.as_ref().map_or(Origin::Unknown, constant_of),
                None => self.variable(name).unwrap_or_else(|| named(name)),
            },
            ExpressionKind::Call(call) => self.call(call),
            ExpressionKind::Not(inner) => {
                self.origin(inner);
                Origin::Kind(Kind::Bool)
            }
            ExpressionKind::Negate(inner) => self.origin(inner),
            ExpressionKind::Binary { operator, left, right } => {
                let (a, b) = (self.origin(left), self.origin(right));
                self.hint(&a, &b, &right.span);
                self.hint(&b, &a, &left.span);
                match operator {
                    Operator::Arithmetic(op) => combined(*op, a, b),
                    Operator::Compare(_) | Operator::And | Operator::Or => Origin::Kind(Kind::Bool),
                }
            }
        }
    }

    /// A table's value meets a value of a type: it has that type.
    fn hint(&mut self, table: &Origin, other: &Origin, span: &Span) {
        if let (Origin::Table(table), Origin::Literal(_) | Origin::Name(_) | Origin::Kind(_)) = (table, other)
        {
            self.value_use(table, other.clone(), span);
        }
    }

    fn variable(&self, name: &str) -> Option<Origin> {
        self.variables.get(name)?.last().cloned()
    }

    fn call(&mut self, call: &Call) -> Origin {
        for (_, argument) in &call.named {
            self.origin(argument);
        }
        match (call.name.text.as_str(), call.arguments.as_slice()) {
            ("get", [from, rest @ ..]) => self.get(from, rest),
            ("add", [table, rest @ ..]) => {
                let Some((amount, key)) = rest.split_last() else { return Origin::Unknown };
                let name = self.key_use(table, key);
                let origin = match self.origin(amount) {
                    // It takes away, which an unsigned number can bear.
                    Origin::Literal(Literal::Number { magnitude, .. }) => {
                        Origin::Literal(Literal::Number { negative: false, magnitude })
                    }
                    Origin::Kind(kind) => Origin::Kind(kind.widened()),
                    other => other,
                };
                let Some(name) = name else { return Origin::Unknown };
                self.value_use(&name, origin, &amount.span);
                Origin::Table(name)
            }
            ("take", [table, rest @ ..]) => {
                let Some((_, key)) = rest.split_last() else { return Origin::Unknown };
                if let Some(name) = self.key_use(table, key) {
                    self.uses.entry(&name, &table.span).bucket.get_or_insert(table.span.clone());
                }
                Origin::Kind(Kind::Bool)
            }
            (name, arguments) => {
                for argument in arguments {
                    self.origin(argument);
                }
                match name {
                    "random" => Origin::Kind(Kind::U32),
                    "hash" | "backends" | "as_u64" => Origin::Kind(Kind::U64),
                    "as_i64" => Origin::Kind(Kind::I64),
                    "float" => Origin::Kind(Kind::Float),
                    "chance" | "starts_with" | "ask" | "encrypt" | "decrypt" => Origin::Kind(Kind::Bool),
                    _ => Origin::Unknown,
                }
            }
        }
    }

    fn get(&mut self, from: &Expression, rest: &[Expression]) -> Origin {
        let word = match &from.kind {
            ExpressionKind::Name(name) => name.as_str(),
            _ => "",
        };
        let text = match rest {
            [only] => match self.origin(only) {
                Origin::Literal(Literal::Text(text)) => Some(text),
                _ => None,
            },
            _ => None,
        };
        match (word, text) {
            ("rpc", Some(field)) => {
                let message = if self.response { Message::Response } else { Message::Request };
                self.field(message, field)
            }
            ("request", Some(field)) => self.field(Message::Request, field),
            ("peer", Some(name)) => Origin::Kind(match name.as_str() {
                "identity" | "namespace" => Kind::Text(Length::AtMost(IDENTITY_MAX as u8)),
                "address" => Kind::Address,
                "sessions" => Kind::U32,
                "token" => return Origin::Unknown,
                _ => Kind::Text(Length::Unbounded),
            }),
            ("metadata", Some(_)) => Origin::Kind(Kind::Text(Length::Unbounded)),
            ("rpc" | "request" | "response" | "peer" | "metadata", _) => Origin::Unknown,
            _ => self.key_use(from, rest).map_or(Origin::Unknown, Origin::Table),
        }
    }

    fn field(&mut self, message: Message, name: String) -> Origin {
        let (methods, ids) = (self.methods, self.ids.clone());
        let known = self.fields.entry((self.scope, message, name));
        let kind = known.or_insert_with_key(|(_, message, name)| {
            fields::find(methods, ids.as_deref(), *message, name).ok().map(|found| found.kind)
        });
        kind.clone().map_or(Origin::Unknown, Origin::Kind)
    }

    /// The table that is used so.
    fn key_use(&mut self, table: &Expression, key: &[Expression]) -> Option<String> {
        let origins: Vec<(Origin, Span)> =
            key.iter().map(|key| (self.origin(key), key.span.clone())).collect();
        let ExpressionKind::Name(written) = &table.kind else { return None };
        let name = match self.parameters.get(written) {
            Some(argument) => match &argument.as_ref()?.kind {
                ExpressionKind::Name(name) => name.clone(),
                _ => return None,
            },
            None if self.variable(written).is_some() => return None,
            None => written.clone(),
        };
        if WORDS.contains(&name.as_str()) {
            return None;
        }
        let known = self.uses.entry(&name, &table.span);
        let keys = known.keys.get_or_insert_with(|| vec![Vec::new(); origins.len()]);
        if keys.len() == origins.len() {
            keys.iter_mut().zip(origins).for_each(|(keys, key)| keys.push(key));
        } else {
            known.odd.get_or_insert(table.span.clone());
        }
        Some(name)
    }

    fn value_use(&mut self, table: &str, origin: Origin, span: &Span) {
        if matches!(&origin, Origin::Table(other) if other == table) {
            return;
        }
        self.uses.entry(table, span).values.push((origin, span.clone()));
    }
}

/// What an argument of an element, or a name that is no variable, stands for.
fn constant_of(expression: &Expression) -> Origin {
    match &expression.kind {
        ExpressionKind::Literal(literal) => Origin::Literal(literal.clone()),
        ExpressionKind::Name(name) => named(name),
        _ => Origin::Unknown,
    }
}

fn named(name: &str) -> Origin {
    match name {
        "method" => Origin::Kind(Kind::Method),
        "service" => Origin::Kind(Kind::Service),
        "size" => Origin::Kind(Kind::U64),
        "deadline" | "now" | "latency" => Origin::Kind(Kind::Duration),
        "port" | "backend" => Origin::Kind(Kind::U32),
        word if WORDS.contains(&word) => Origin::Unknown,
        other => Origin::Name(other.to_owned()),
    }
}

/// What a calculation gives.
fn combined(op: Arithmetic, a: Origin, b: Origin) -> Origin {
    match (a, b) {
        (
            Origin::Kind(Kind::Duration),
            Origin::Kind(Kind::Duration) | Origin::Literal(Literal::Duration(_)),
        ) if op == Arithmetic::Divide => Origin::Kind(Kind::U64),
        (Origin::Literal(Literal::Duration(_)), Origin::Kind(Kind::Duration)) if op == Arithmetic::Divide => {
            Origin::Kind(Kind::U64)
        }
        (duration @ Origin::Kind(Kind::Duration), _) | (_, duration @ Origin::Kind(Kind::Duration)) => {
            duration
        }
        (duration @ Origin::Literal(Literal::Duration(_)), _)
        | (_, duration @ Origin::Literal(Literal::Duration(_))) => duration,
        (Origin::Kind(kind), _) | (_, Origin::Kind(kind)) => Origin::Kind(kind.widened()),
        (table @ Origin::Table(_), _) | (_, table @ Origin::Table(_)) => table,
        (a, _) => a,
    }
}
