//! Random policies that compile: every kind of field, attribute, table, operation, pattern and statement.
//!
//! A policy for both back ends keeps to what XDP can run, but for a few elements that only the engine can; one for the
//! engine alone has responses, floats, metadata and effects everywhere.

mod expressions;
mod tables;

use super::random::Random;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use tables::TABLES;

/// A type of values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Text,
    U32,
    U64,
    I32,
    I64,
    Bool,
    Role,
    Token,
    Mac,
    /// Of a table: ALLOW, DENY or MAYBE.
    Rule,
    Duration,
    Address,
    Float,
    /// How a call ended.
    Status,
}

use Kind::{Address, Bool, Duration, Float, I32, I64, Mac, Role, Rule, Status, Text, Token, U32, U64};

/// Fields of requests.
const FIELDS: [(&str, Kind); 10] = [
    ("user", Text),
    ("level", U32),
    ("flag", Bool),
    ("big", U64),
    ("delta", I32),
    ("far", I64),
    ("role", Role),
    ("token", Token),
    ("mac", Mac),
    ("share", Float),
];

/// Fields of responses.
const RESPONSE_FIELDS: [(&str, Kind); 5] =
    [("value", Text), ("left", U64), ("hit", Bool), ("score", I32), ("key", Token)];

/// Who runs a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum For {
    BothBackEnds,
    TheEngine,
}

/// A value that a policy has a name for.
#[derive(Clone, Debug)]
struct Variable {
    name: String,
    kind: Kind,
    optional: bool,
    /// The field or table that it is another name for: of no use once that has changed.
    source: Option<String>,
}

/// An expression.
struct Value {
    text: String,
    kind: Kind,
    optional: bool,
    source: Option<String>,
}

struct Generator<'r> {
    random: &'r mut Random,
    policy_to: For,
    /// The element at hand.
    to: For,
    out: String,
    variables: Vec<Variable>,
    /// Of the element at hand, with their types.
    parameters: Vec<(String, Kind)>,
    count: usize,
    in_response: bool,
    /// The methods of the chain at hand all have these fields of responses.
    answers: bool,
}

/// A policy. Not every one compiles: some keep too much at the same time.
pub fn policy(random: &mut Random, to: For) -> String {
    let mut generator = Generator {
        random,
        policy_to: to,
        to,
        out: String::new(),
        variables: Vec::new(),
        parameters: Vec::new(),
        count: 0,
        in_response: false,
        answers: true,
    };
    generator.file()
}

impl Generator<'_> {
    fn file(&mut self) -> String {
        let elements = 1 + self.random.below(3);
        let mut parameters = Vec::new();
        for element in 0..elements {
            parameters.push(self.element(element));
        }
        let mut text = String::new();
        for chain in 0..1 + self.random.below(2) {
            text.push_str(&self.chain(chain, &parameters));
        }
        let body = std::mem::take(&mut self.out);
        let mut state = String::new();
        for (name, declaration) in tables::DECLARATIONS {
            if body.contains(&format!("({name},")) || body.contains(&format!("({name})")) {
                let _ = writeln!(state, "    {name}: {declaration}");
            }
        }
        if !state.is_empty() {
            text.push_str("state:\n");
        }
        text + &state + &body
    }

    fn chain(&mut self, chain: usize, parameters: &[Vec<Kind>]) -> String {
        let mut calls = Vec::new();
        for (element, kinds) in parameters.iter().enumerate() {
            if chain > 0 && self.random.one_in(2) {
                continue;
            }
            let arguments: Vec<String> = kinds.iter().map(|kind| self.constant(*kind)).collect();
            calls.push(format!("e{element}({})", arguments.join(", ")));
        }
        if calls.is_empty() {
            calls.push("session_tracker()".into());
        } else if chain == 0 && self.random.one_in(2) {
            calls.insert(self.random.below(calls.len() + 1), "session_tracker()".into());
        }
        let scopes = [" for One | Two", " for t.T/One", " for 't.T/T*' | Same", " for t.T", " for 'S*'"];
        let scope = if self.random.one_in(3) { *self.random.pick(&scopes) } else { "" };
        let audit = if self.random.one_in(8) { " audit" } else { "" };
        format!("{} at server{scope}{audit}\n", calls.join(" -> "))
    }

    /// An element; the types of its parameters.
    fn element(&mut self, element: usize) -> Vec<Kind> {
        let kinds: Vec<Kind> =
            (0..self.random.below(3)).map(|_| *self.random.pick(&[U64, I64, Bool, Text, Duration])).collect();
        self.to = match self.policy_to {
            For::BothBackEnds if !self.random.one_in(6) => For::BothBackEnds,
            _ => For::TheEngine,
        };
        self.parameters = (0..).zip(&kinds).map(|(at, kind)| (format!("p{at}"), *kind)).collect();
        let names: Vec<&str> = self.parameters.iter().map(|(name, _)| name.as_str()).collect();
        let head = format!("e{element}({}):", names.join(", "));
        self.line(0, &head);
        let has_response = self.to == For::TheEngine && self.random.one_in(2);
        if has_response {
            if self.random.one_in(2) {
                self.handler("request", false);
            }
            self.handler("response", true);
        } else {
            self.variables.clear();
            self.block(1, true);
        }
        kinds
    }

    fn handler(&mut self, name: &str, response: bool) {
        self.line(1, &format!("{name}:"));
        self.variables.clear();
        self.in_response = response;
        self.block(2, true);
        self.in_response = false;
    }

    fn line(&mut self, depth: usize, text: &str) {
        let _ = writeln!(self.out, "{}{text}", "    ".repeat(depth));
    }

    /// Statements; whether they end with a verdict on every path, which they do if they must.
    fn block(&mut self, depth: usize, must_end: bool) -> bool {
        let outer = self.variables.len();
        for _ in 0..1 + self.random.below(4) {
            match self.random.below(8) {
                0..3 => self.assign(depth),
                3 | 4 => self.change(depth),
                5 if self.to == For::TheEngine => self.effect(depth),
                _ if depth < 5 && self.choose(depth) => {
                    self.variables.truncate(outer);
                    return true;
                }
                _ => {}
            }
        }
        let ends = must_end || self.random.one_in(2);
        if ends {
            let exit = self.exit();
            self.line(depth, &exit);
        } else {
            self.line(depth, "set(flags, true, false)");
        }
        self.variables.truncate(outer);
        ends
    }

    fn exit(&mut self) -> String {
        match self.random.below(8) {
            0 => "drop()".into(),
            1 => "reject(ABORTED)".into(),
            2 => "reject(PERMISSION_DENIED, 'no')".into(),
            3 if self.answers && !self.in_response => self.answer(),
            _ => "send(rpc)".into(),
        }
    }

    fn answer(&mut self) -> String {
        let mut fields: Vec<(&str, Kind)> = RESPONSE_FIELDS.to_vec();
        let mut parts = Vec::new();
        for _ in 0..1 + self.random.below(3) {
            let (name, kind) = fields.remove(self.random.below(fields.len()));
            let value = self.simple(kind);
            parts.push(format!("'{name}', {value}"));
        }
        format!("answer({})", parts.join(", "))
    }

    fn assign(&mut self, depth: usize) {
        let value = match self.random.below(6) {
            0 => self.doing(),
            _ => {
                let kind = self.any_kind();
                self.computed(kind, 2)
            }
        };
        self.count += 1;
        let name = format!("v{}", self.count);
        self.line(depth, &format!("{name} = {}", value.text));
        let Value { text: _, kind, optional, source } = value;
        self.variables.push(Variable { name, kind, optional, source });
    }

    fn any_kind(&mut self) -> Kind {
        let all = [Text, U32, U64, I32, I64, Bool, Bool, Role, Token, Mac, Rule, Duration, Address];
        match self.to {
            For::TheEngine if self.random.one_in(8) => Float,
            _ => *self.random.pick(&all),
        }
    }

    /// Writes a table or a field.
    fn change(&mut self, depth: usize) {
        let statement = match self.random.below(6) {
            0 | 1 => {
                let fields: &[(&str, Kind)] = if self.in_response { &RESPONSE_FIELDS } else { &FIELDS };
                let (name, kind) = *self.random.pick(fields);
                if kind == Float && self.to == For::BothBackEnds {
                    return;
                }
                match self.random.one_in(4) || kind == Mac {
                    true => format!("delete(rpc, '{name}')"),
                    false => {
                        let value = self.simple(kind);
                        format!("set(rpc, '{name}', {value})")
                    }
                }
            }
            2 => {
                let table = *self.random.pick(&TABLES);
                let key = self.key(&table);
                if table.cell {
                    return;
                }
                self.forget(table.name);
                format!("delete({}, {key})", table.name)
            }
            3 => {
                let value = self.doing();
                // As a statement: what it gives is not used.
                match value.text.starts_with("add(") {
                    true => value.text,
                    false => return,
                }
            }
            _ => {
                let table = *self.random.pick(&TABLES);
                let key = self.key(&table);
                let value = self.simple(table.value);
                self.forget(table.name);
                match table.cell {
                    true => format!("set({}, {value})", table.name),
                    false => format!("set({}, {key}, {value})", table.name),
                }
            }
        };
        self.line(depth, &statement);
    }

    fn effect(&mut self, depth: usize) {
        let text = match self.random.below(6) {
            0 => format!("delay({})", self.simple(Duration)),
            1 if !self.in_response => format!("timeout({})", self.simple(Duration)),
            2 if !self.in_response => {
                let index = self.simple(U64);
                self.random.pick(&["route('a')".to_owned(), format!("route('b', {index})")]).clone()
            }
            3 if !self.in_response => "mirror('b')".into(),
            4 if self.in_response => format!("eject({}, max = 50%)", self.simple(Duration)),
            _ => {
                let (a, b) = (self.any_kind(), self.any_kind());
                format!("log({}, {})", self.expression(a, 1).text, self.expression(b, 1).text)
            }
        };
        self.line(depth, &text);
    }

    /// What stands for a text in a table stands for it no longer; what stands for a field stays as it was.
    fn forget(&mut self, source: &str) {
        for variable in &mut self.variables {
            if variable.source.as_deref() == Some(source) {
                // A name that no expression is generated with.
                variable.source = Some(String::new());
            }
        }
    }

    /// A `match` with arms for everything; whether every one ends.
    fn choose(&mut self, depth: usize) -> bool {
        if self.random.one_in(6) {
            return self.choose_method(depth);
        }
        let kind = match self.random.below(12) {
            0 if self.in_response => Status,
            _ => self.any_kind(),
        };
        let subject = self.computed(kind, 1);
        self.line(depth, &format!("match {}:", subject.text));
        let mut ends = true;
        let mut seen = BTreeSet::new();
        let mut none_covered = false;
        for _ in 0..1 + self.random.below(3) {
            let mut patterns = Vec::new();
            for _ in 0..1 + self.random.below(2) {
                let pattern = self.pattern(kind);
                if let Some(pattern) = pattern
                    && seen.insert(pattern.clone())
                {
                    patterns.push(pattern);
                }
            }
            if subject.optional && self.random.one_in(5) && seen.insert("NONE".into()) {
                patterns.push("NONE".into());
            }
            if patterns.is_empty() {
                continue;
            }
            let mut pattern = patterns.join(" | ");
            if self.random.one_in(3) {
                let guard = self.expression(Bool, 1);
                pattern = format!("{pattern} if {}", guard.text);
                ends &= self.arm(depth, &pattern, None);
                continue;
            }
            none_covered |= patterns.iter().any(|pattern| pattern == "NONE");
            ends &= self.arm(depth, &pattern, None);
        }
        if self.random.one_in(3) {
            self.count += 1;
            let name = format!("v{}", self.count);
            let bound =
                Variable { name: name.clone(), kind, optional: false, source: subject.source.clone() };
            if subject.optional {
                if !none_covered {
                    ends &= self.arm(depth, "NONE", None);
                }
                return ends & self.arm(depth, &format!("Some({name})"), Some(bound));
            }
        }
        ends & self.arm(depth, "_", None)
    }

    fn choose_method(&mut self, depth: usize) -> bool {
        let what = *self.random.pick(&["method", "service"]);
        self.line(depth, &format!("match {what}:"));
        let arms: &[&str] = match what {
            "method" => &["One", "'t.T/Two'", "'T*'", "One | Same"],
            _ => &["'t.T'", "'t*'", "'u.U'"],
        };
        let arm = *self.random.pick(arms);
        let first = self.arm(depth, arm, None);
        first & self.arm(depth, "_", None)
    }

    fn arm(&mut self, depth: usize, pattern: &str, bound: Option<Variable>) -> bool {
        self.line(depth + 1, &format!("{pattern} =>"));
        let outer = self.variables.len();
        self.variables.extend(bound);
        let ends = self.block(depth + 2, false);
        self.variables.truncate(outer);
        ends
    }
}
