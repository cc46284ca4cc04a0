//! What is known inside one handler: parameters, variables, and what has been changed on the way.

use super::fields::Message;
use super::kind::Kind;
use crate::ast::Expression;
use crate::diagnostics::Span;
use crate::ir::{Operand, Side};
use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

/// A value with its type.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub operand: Operand,
    pub kind: Kind,
    /// Whether it can be absent.
    pub optional: bool,
    /// The table whose memory it is text in.
    pub table: Option<usize>,
}

impl Value {
    pub(super) fn new(operand: Operand, kind: Kind, optional: bool) -> Value {
        Value { operand, kind, optional, table: None }
    }
}

/// What a variable can be another name for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Source {
    Field(Message, String),
    Table(usize),
}

pub(super) struct Variable {
    pub span: Span,
    /// `None` where its value had a mistake, which is reported there and not again.
    pub value: Option<Value>,
    /// Of its source, when it was bound.
    version: u32,
    pub depth: usize,
}

/// One use of an element, and one of its handlers.
#[derive(Default)]
pub(super) struct Frame {
    /// The chain's number; chains of one number cover the same methods.
    pub scope: usize,
    /// The methods covered, ascending; `None`: all.
    pub methods: Option<Rc<[u32]>>,
    pub side: Option<Side>,
    pub response: bool,
    /// What the chain gives for them; `None`: nothing, which is reported there.
    pub parameters: HashMap<String, Option<Expression>>,
    variables: HashMap<String, Vec<Variable>>,
    /// Names bound, in order.
    bound: Vec<String>,
    pub slots: usize,
    /// How many blocks are open.
    pub depth: usize,
    /// How many `and`, `or`, `not` are open.
    pub logic: usize,
    /// Whether a statement has ended a path.
    pub exits: bool,
    changed: BTreeMap<Source, u32>,
    changes: u32,
}

impl Frame {
    pub(super) fn new(scope: usize, methods: Option<Rc<[u32]>>, side: Option<Side>) -> Frame {
        Frame { scope, methods, side, ..Frame::default() }
    }

    pub(super) fn message(&self) -> Message {
        if self.response { Message::Response } else { Message::Request }
    }

    /// Begins a handler: nothing is bound, nothing has been changed.
    pub(super) fn begin(&mut self, response: bool) {
        self.response = response;
        self.variables.clear();
        self.bound.clear();
        self.changed.clear();
        (self.slots, self.depth, self.logic, self.exits) = (0, 0, 0, false);
    }

    pub(super) fn find(&self, name: &str) -> Option<&Variable> {
        self.variables.get(name)?.last()
    }

    pub(super) fn variables(&self) -> impl Iterator<Item = &str> {
        self.bound.iter().map(String::as_str)
    }

    pub(super) fn bind(&mut self, name: &str, span: Span, value: Option<Value>, source: Option<&Source>) {
        let version = self.version(source);
        let variable = Variable { span, value, version, depth: self.depth };
        self.variables.entry(name.to_owned()).or_default().push(variable);
        self.bound.push(name.to_owned());
    }

    /// Opens a block; what it binds is gone with [`Frame::close`].
    pub(super) fn open(&mut self) -> usize {
        self.depth += 1;
        self.bound.len()
    }

    pub(super) fn close(&mut self, opened: usize) {
        self.depth = self.depth.saturating_sub(1);
        for name in self.bound.drain(opened..) {
            if let Some(variables) = self.variables.get_mut(&name) {
                variables.pop();
            }
        }
    }

    fn version(&self, source: Option<&Source>) -> u32 {
        source.and_then(|source| self.changed.get(source)).copied().unwrap_or(0)
    }

    /// Whether what a variable is a name for has changed since.
    pub(super) fn is_stale(&self, variable: &Variable, source: Option<&Source>) -> bool {
        variable.version != self.version(source)
    }

    pub(super) fn change(&mut self, source: Source) {
        self.changes += 1;
        self.changed.insert(source, self.changes);
    }

    pub(super) fn changed(&self) -> BTreeMap<Source, u32> {
        self.changed.clone()
    }

    /// Goes back to what had been changed before; returns what has been changed since as well.
    pub(super) fn reset_changed(&mut self, before: &BTreeMap<Source, u32>) -> BTreeMap<Source, u32> {
        std::mem::replace(&mut self.changed, before.clone())
    }

    /// One of several ways was taken.
    pub(super) fn join_changed(&mut self, other: BTreeMap<Source, u32>) {
        for (source, version) in other {
            let known = self.changed.entry(source).or_default();
            *known = version.max(*known);
        }
    }
}
