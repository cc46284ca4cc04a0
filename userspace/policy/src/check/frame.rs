//! What is known inside one handler: parameters, variables, what it covers.

use super::fields::Message;
use super::kind::Kind;
use crate::ast::Expression;
use crate::diagnostics::Span;
use crate::ir::{Operand, Side};
use std::collections::{HashMap, HashSet};
use std::rc::Rc;

/// A value with its type.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub operand: Operand,
    pub kind: Kind,
    /// Whether it can be absent.
    pub optional: bool,
}

impl Value {
    pub(super) fn new(operand: Operand, kind: Kind, optional: bool) -> Value {
        Value { operand, kind, optional }
    }
}

pub(super) struct Variable {
    pub span: Span,
    /// `None` where its value had a mistake, which is reported there and not again.
    pub value: Option<Value>,
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
    /// The fields of the message at hand that the handler changes somewhere.
    pub changed: HashSet<String>,
}

impl Frame {
    pub(super) fn new(scope: usize, methods: Option<Rc<[u32]>>, side: Option<Side>) -> Frame {
        Frame { scope, methods, side, ..Frame::default() }
    }

    pub(super) fn message(&self) -> Message {
        if self.response { Message::Response } else { Message::Request }
    }

    /// Begins a handler, which changes some fields: nothing is bound.
    pub(super) fn begin(&mut self, response: bool, changed: HashSet<String>) {
        (self.response, self.changed) = (response, changed);
        self.variables.clear();
        self.bound.clear();
        (self.slots, self.depth, self.logic, self.exits) = (0, 0, 0, false);
    }

    pub(super) fn find(&self, name: &str) -> Option<&Variable> {
        self.variables.get(name)?.last()
    }

    pub(super) fn variables(&self) -> impl Iterator<Item = &str> {
        self.bound.iter().map(String::as_str)
    }

    pub(super) fn bind(&mut self, name: &str, span: Span, value: Option<Value>) {
        let variable = Variable { span, value, depth: self.depth };
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
}
