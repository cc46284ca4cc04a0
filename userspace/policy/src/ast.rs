//! A policy as it was written, with the place of everything in the text.

use crate::diagnostics::Span;
use crate::ir::Side;

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Name {
    pub text: String,
    pub span: Span,
}

/// A file.
#[derive(Clone, Debug, Default)]
pub(crate) struct File {
    pub chains: Vec<Chain>,
    pub elements: Vec<Element>,
    pub state: Option<State>,
    pub transport: Option<Transport>,
}

/// `firewall() -> session_tracker() at server`
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    pub calls: Vec<Call>,
    pub side: Option<(Side, Span)>,
    pub span: Span,
}

/// `name(arguments)`
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub name: Name,
    pub arguments: Vec<Expression>,
    pub span: Span,
}

/// `name():` and its handlers.
#[derive(Clone, Debug)]
pub(crate) struct Element {
    pub name: Name,
    pub parameters: Vec<Name>,
    pub request: Option<Handler>,
    pub response: Option<Handler>,
}

#[derive(Clone, Debug)]
pub(crate) struct Handler {
    /// Of the word `request` or `response`, or of the element's name.
    pub span: Span,
    pub body: Vec<Statement>,
}

#[derive(Clone, Debug)]
pub(crate) struct Statement {
    pub span: Span,
    pub kind: StatementKind,
}

#[derive(Clone, Debug)]
pub(crate) enum StatementKind {
    Assign { name: Name, value: Expression },
    Match { subject: Expression, arms: Vec<Arm> },
    Call(Call),
}

#[derive(Clone, Debug)]
pub(crate) struct Arm {
    pub patterns: Vec<Pattern>,
    pub body: Vec<Statement>,
}

#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    pub span: Span,
    pub kind: PatternKind,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PatternKind {
    /// `_`
    Any,
    /// `NONE`
    Absent,
    /// `Some(x)`; `None` for `Some(_)`.
    Present(Option<Name>),
    Literal(Literal),
    /// A value of an enum.
    Name(String),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Literal {
    Bool(bool),
    Number { negative: bool, magnitude: u64 },
    Text(String),
}

#[derive(Clone, Debug)]
pub(crate) struct Expression {
    pub span: Span,
    pub kind: ExpressionKind,
}

#[derive(Clone, Debug)]
pub(crate) enum ExpressionKind {
    Name(String),
    Literal(Literal),
    Call(Call),
}

/// `state:` and its tables.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub span: Span,
    pub tables: Vec<Table>,
}

/// `name: table(key -> value, capacity = 1024)`
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub name: Name,
    pub key: Type,
    pub value: Vec<Type>,
    pub capacity: Option<(u64, Span)>,
}

/// `string(32)`, `u64`, or one name of an enum.
#[derive(Clone, Debug)]
pub(crate) struct Type {
    pub name: Name,
    pub size: Option<(u64, Span)>,
}

/// `match rpc-schema:` and its arms.
#[derive(Clone, Debug)]
pub(crate) struct Transport {
    pub span: Span,
    pub arms: Vec<TransportArm>,
}

#[derive(Clone, Debug)]
pub(crate) struct TransportArm {
    /// Methods; `_` for all others. With dots and slashes where they were written.
    pub methods: Vec<Name>,
    pub modules: Vec<Call>,
}
