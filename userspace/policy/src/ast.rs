//! A policy as it was written, with the place of everything in the text.

use crate::diagnostics::Span;
use crate::ir::{Arithmetic, Comparison, Side};

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

/// `firewall() -> session_tracker() at server for kv.Kv on eth0 audit`
#[derive(Clone, Debug)]
pub(crate) struct Chain {
    pub calls: Vec<Call>,
    pub side: Option<(Side, Span)>,
    /// Services and methods as written, without spaces; empty: all.
    pub scope: Vec<Name>,
    pub interface: Option<Name>,
    /// The place of the word.
    pub audit: Option<Span>,
}

/// `name(arguments)`; those with a name come behind those without.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    pub name: Name,
    pub arguments: Vec<Expression>,
    pub named: Vec<(Name, Expression)>,
    pub span: Span,
}

/// `name(parameters):` and its handlers.
#[derive(Clone, Debug)]
pub(crate) struct Element {
    pub name: Name,
    pub parameters: Vec<Parameter>,
    pub request: Option<Handler>,
    pub response: Option<Handler>,
}

#[derive(Clone, Debug)]
pub(crate) struct Parameter {
    pub name: Name,
    pub default: Option<Expression>,
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
    Assign {
        name: Name,
        value: Expression,
    },
    Match {
        subject: Expression,
        arms: Vec<Arm>,
    },
    Call(Call),
    /// `pass`: nothing.
    Pass,
}

#[derive(Clone, Debug)]
pub(crate) struct Arm {
    pub patterns: Vec<Pattern>,
    pub guard: Option<Expression>,
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
    /// A value of an enum, a method, a service, or a parameter.
    Name(String),
    /// `'text*'`, without the star.
    Prefix(String),
    /// `from..to`
    Range(Literal, Literal),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Literal {
    Bool(bool),
    Number {
        negative: bool,
        magnitude: u64,
    },
    /// The bits of a double.
    Float(u64),
    Text(String),
    /// In ns.
    Duration(u64),
    /// In parts per million.
    Percent(u64),
    Rate(Rate),
}

/// `100/s`
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Rate {
    pub count: u64,
    pub period_ns: u64,
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
    Not(Box<Expression>),
    Negate(Box<Expression>),
    Binary { operator: Operator, left: Box<Expression>, right: Box<Expression> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Arithmetic(Arithmetic),
    Compare(Comparison),
    And,
    Or,
}

/// `state:` and its tables.
#[derive(Clone, Debug)]
pub(crate) struct State {
    pub span: Span,
    pub tables: Vec<Table>,
}

/// `name: table(key, key -> value, capacity = 1024, evict = lru)`, `name: counter(key)`, `name: u64 = 5`. What is left
/// out follows from the use.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    pub name: Name,
    pub form: Form,
    pub key: Vec<Type>,
    /// Several: the names of an enum.
    pub value: Vec<Type>,
    pub capacity: Option<(u64, Span)>,
    pub evict: Option<Name>,
    pub initial: Option<Expression>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    Table,
    Counter,
    Cell,
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
