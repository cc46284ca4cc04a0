//! Random expressions of a type, and patterns for their values.

use super::Kind::{
    self, Address, Bool, Duration, Float, I32, I64, Mac, Role, Rule, Status, Text, Token, U32, U64,
};
use super::tables::{TABLES, Table};
use super::{FIELDS, For, Generator, RESPONSE_FIELDS, Value};

impl Generator<'_> {
    /// A value of a type that is no operation of its own: a constant, a variable, a field; where there is none, what
    /// there is.
    pub(super) fn simple(&mut self, kind: Kind) -> String {
        self.simple_value(kind).text
    }

    fn simple_value(&mut self, kind: Kind) -> Value {
        if kind != Mac && self.random.one_in(3) {
            return Value { text: self.constant(kind), kind, optional: false, source: None };
        }
        self.expression(kind, 0)
    }

    pub(super) fn constant(&mut self, kind: Kind) -> String {
        let choices: &[&str] = match kind {
            Text => &["'alice'", "'bob'", "''", "'mallory'", "'exactly-16-bytes'", "'al'"],
            U32 => &["0", "1", "7", "2147483648", "4294967295"],
            U64 => {
                &["0", "1", "7", "4294967295", "1099511627776", "18446744073709551615", "9223372036854775808"]
            }
            I32 => &["0", "1", "-1", "-7", "2147483647", "-2147483648"],
            I64 => &["0", "1", "-1", "-7", "1099511627776", "-9223372036854775808"],
            Bool => &["true", "false"],
            Role => &["NOBODY", "USER", "ADMIN"],
            Rule => &["ALLOW", "DENY", "MAYBE"],
            Token => &["'alice'", "'bob'", "''"],
            Duration => &["0ns", "1ns", "5us", "250ms", "30s", "1h", "400000h"],
            Address => &["'10.0.0.1'", "'10.0.0.2'", "'192.0.2.7'", "'2001:db8::1'"],
            Float => &["0.0", "1.5", "0.25", "100.0"],
            Status => &["OK", "UNAVAILABLE", "ABORTED"],
            // Nothing constant is as long as it has to be.
            Mac => &["get(rpc, 'mac')"],
        };
        self.random.pick(choices).to_string()
    }

    /// A pattern of a value, as a key of a table is one too.
    pub(super) fn pattern(&mut self, kind: Kind) -> Option<String> {
        Some(match (kind, self.random.below(3)) {
            (Mac, _) => return None,
            (Text | Token, 0) => self.random.pick(&["'al*'", "'e*'", "'b*'"]).to_string(),
            (U32, 0) => self.random.pick(&["1..7", "0..4294967295", "2..3"]).to_string(),
            (U64, 0) => self.random.pick(&["1..7", "4294967295..9223372036854775808"]).to_string(),
            (I32 | I64, 0) => self.random.pick(&["-7..0", "0..100", "-2147483648..-1"]).to_string(),
            (Duration, 0) => self.random.pick(&["0ns..1ms", "1s..1h"]).to_string(),
            (Address, 0) => self.random.pick(&["'10.0.0.0/8'", "'10.0.0.0/31'", "'::/0'"]).to_string(),
            (Float, 0) => self.random.pick(&["0.0..1.0", "1.5..9.0"]).to_string(),
            _ => self.constant(kind),
        })
    }

    /// The keys of a table, with commas between.
    pub(super) fn key(&mut self, table: &Table) -> String {
        let parts: Vec<String> = table
            .key
            .iter()
            .map(|kind| match kind {
                // What its names are, the field says.
                Role => self.role(),
                kind => self.simple(*kind),
            })
            .collect();
        parts.join(", ")
    }

    fn role(&self) -> String {
        format!("get({}, 'role')", if self.in_response { "request" } else { "rpc" })
    }

    /// An operation that does something besides: it stands alone.
    pub(super) fn doing(&mut self) -> Value {
        let value = |text: String, kind, optional| Value { text, kind, optional, source: None };
        match self.random.below(7) {
            0 => value(self.random.pick(&["chance(0%)", "chance(100%)"]).to_string(), Bool, false),
            1 => {
                let amount = self.simple_value(U64);
                value(format!("add(total, {})", amount.text), U64, amount.optional)
            }
            2 => {
                let (key, amount) = (self.simple_value(U32), self.random.pick(&["1", "-5", "7"]).to_string());
                value(format!("add(levels, {}, {amount})", key.text), U64, key.optional)
            }
            3 => {
                let (key, amount) = (self.simple_value(I32), self.simple_value(I64));
                let text = format!("add(deltas, {}, {})", key.text, amount.text);
                value(text, I64, key.optional || amount.optional)
            }
            4 => match self.random.below(3) {
                0 => value("add(calls, 1)".into(), U64, true),
                1 => value(format!("add(by_role, {}, 2)", self.role()), U64, true),
                _ => value("add(low, -2147483648)".into(), I64, false),
            },
            5 => {
                let key = self.simple_value(Text);
                let terms =
                    ["10/s", "100/m, burst = 3", "7/s, burst = 9, cost = 2", "1/h, burst = 100, cost = size"];
                let text = format!("take(buckets, {}, {})", key.text, self.random.pick(&terms));
                value(text, Bool, key.optional)
            }
            _ => value("take(bucket_of_all, 1000/s, burst = 2)".into(), Bool, false),
        }
    }

    /// A value of a type, of so many operations in one another.
    pub(super) fn expression(&mut self, kind: Kind, depth: usize) -> Value {
        if !matches!(kind, Mac | Role | Rule | Status) && self.random.one_in(5) {
            return Value { text: self.constant(kind), kind, optional: false, source: None };
        }
        self.computed(kind, depth)
    }

    /// The same, but no constant.
    pub(super) fn computed(&mut self, kind: Kind, depth: usize) -> Value {
        let value = |text: String, optional| Value { text, kind, optional, source: None };
        if depth > 0 && self.random.one_in(2) {
            let inner = depth - 1;
            match kind {
                Bool => return self.condition(inner),
                U64 if self.random.one_in(3) => {
                    let parts: Vec<Value> = (0..1 + self.random.below(2))
                        .map(|_| {
                            let kind = *self.random.pick(&[Text, U32, I64, Bool, Token, Address, Mac]);
                            self.expression(kind, inner)
                        })
                        .collect();
                    let texts: Vec<&str> = parts.iter().map(|part| part.text.as_str()).collect();
                    let optional = parts.iter().any(|part| part.optional);
                    return value(format!("hash({})", texts.join(", ")), optional);
                }
                U64 if self.random.one_in(4) => {
                    let kind = *self.random.pick(&[I32, I64, Duration]);
                    let of = self.variable(kind, inner);
                    return value(format!("as_u64({})", of.text), of.optional);
                }
                I64 if self.random.one_in(4) => {
                    let kind = *self.random.pick(&[U32, U64]);
                    let of = self.variable(kind, inner);
                    return value(format!("as_i64({})", of.text), of.optional);
                }
                U64 | I64 | Float => {
                    let narrow = match kind {
                        U64 => U32,
                        I64 => I32,
                        _ => Float,
                    };
                    let (a, b) = (*self.random.pick(&[kind, narrow]), *self.random.pick(&[kind, narrow]));
                    let (a, b) = (self.variable(a, inner), self.expression(b, inner));
                    let operator = *self.random.pick(&["+", "-", "*", "/", "%"]);
                    return value(format!("({} {operator} {})", a.text, b.text), a.optional || b.optional);
                }
                Duration => {
                    let a = self.variable(Duration, inner);
                    let (text, optional) = match self.random.below(4) {
                        0 => (format!("({} * {})", a.text, self.random.pick(&["2", "1000000", "0"])), false),
                        1 => (format!("({} / {})", a.text, self.random.pick(&["2", "1000000", "0"])), false),
                        _ => {
                            let operator = *self.random.pick(&["+", "-", "%"]);
                            let b = self.expression(Duration, inner);
                            (format!("({} {operator} {})", a.text, b.text), b.optional)
                        }
                    };
                    return value(text, a.optional || optional);
                }
                _ => {}
            }
        }
        self.variable(kind, depth)
    }

    /// A variable, a table's value, or what comes with the call.
    fn variable(&mut self, kind: Kind, depth: usize) -> Value {
        let known: Vec<_> = self
            .variables
            .iter()
            .filter(|variable| variable.kind == kind && variable.source.as_deref() != Some(""))
            .cloned()
            .collect();
        if !known.is_empty() && self.random.one_in(2) {
            let variable = self.random.pick(&known).clone();
            let (optional, source) = (variable.optional, variable.source);
            return Value { text: variable.name, kind, optional, source };
        }
        if depth > 0
            && self.random.one_in(3)
            && let Some(found) = self.look_up(kind)
        {
            return found;
        }
        self.given(kind)
    }

    fn look_up(&mut self, kind: Kind) -> Option<Value> {
        let tables: Vec<Table> = TABLES.iter().filter(|table| table.value == kind).copied().collect();
        if tables.is_empty() {
            return None;
        }
        let table = *self.random.pick(&tables);
        let source = matches!(kind, Text | Token).then(|| table.name.to_owned());
        let text = match table.cell {
            true => format!("get({})", table.name),
            false => format!("get({}, {})", table.name, self.key(&table)),
        };
        Some(Value { text, kind, optional: !table.cell, source })
    }

    /// What comes with the call.
    fn given(&mut self, kind: Kind) -> Value {
        let value = |text: &str, optional| Value { text: text.to_owned(), kind, optional, source: None };
        let (rpc, request) = if self.in_response { ("response", "request") } else { ("request", "rpc") };
        let engine = self.to == For::TheEngine;
        if self.in_response
            && let Some((name, _)) = RESPONSE_FIELDS.iter().find(|(_, known)| *known == kind)
            && self.random.one_in(2)
        {
            let text = format!("get(rpc, '{name}')");
            return Value { text, kind, optional: true, source: Some(format!("{rpc} {name}")) };
        }
        match (kind, self.random.below(3)) {
            (Text, 0) => {
                let what = *self.random.pick(&["identity", "namespace"]);
                value(&format!("get(peer, '{what}')"), true)
            }
            (Text, 1) if engine => {
                let from = *self.random.pick(&["metadata, 'trace'", "peer, 'label.app'"]);
                value(&format!("get({from})"), true)
            }
            (U64, 0) => value("size", false),
            (U32, 0) => value("port", false),
            (U32, 1) if self.in_response => value("backend", true),
            (Bool, 0) if engine && !self.in_response => value("(get(peer, 'token') == VALID)", true),
            (Duration, 1) if self.in_response => value("latency", false),
            (Duration, 0 | 1) => value("deadline", true),
            (Duration, _) => value("now", false),
            (Address, _) => value("get(peer, 'address')", false),
            (Status, _) => value("status", false),
            (Rule, _) => match self.look_up(Rule) {
                Some(found) => found,
                None => value("get(gate)", false),
            },
            _ => {
                let parameters: Vec<_> =
                    self.parameters.iter().filter(|(_, known)| *known == kind).cloned().collect();
                if self.random.one_in(3) && !parameters.is_empty() && kind == Bool {
                    let (name, _) = self.random.pick(&parameters).clone();
                    return value(&name, false);
                }
                let (name, _) =
                    FIELDS.iter().find(|(_, known)| *known == kind).copied().unwrap_or(("flag", Bool));
                let text = format!("get({request}, '{name}')");
                Value { text, kind, optional: true, source: Some(format!("request {name}")) }
            }
        }
    }

    fn condition(&mut self, depth: usize) -> Value {
        let value = |text: String, optional| Value { text, kind: Bool, optional, source: None };
        match self.random.below(8) {
            0 => {
                let a = self.variable(Bool, depth);
                value(format!("not {}", a.text), a.optional)
            }
            1 | 2 => {
                let (a, b) = (self.variable(Bool, depth), self.expression(Bool, depth));
                let operator = *self.random.pick(&["and", "or"]);
                value(format!("({} {operator} {})", a.text, b.text), a.optional || b.optional)
            }
            3 => {
                let text = self.variable(Text, depth);
                let prefix = *self.random.pick(&["'al'", "''", "'exactly-16'"]);
                value(format!("starts_with({}, {prefix})", text.text), text.optional)
            }
            4 => {
                let kind = *self.random.pick(&[Text, Token, Address, Role, Rule, Bool]);
                let (a, b) = (self.variable(kind, depth), self.constant(kind));
                let operator = *self.random.pick(&["==", "!="]);
                value(format!("({} {operator} {b})", a.text), a.optional)
            }
            _ => {
                let kinds = [U32, U64, I32, I64, Duration, Float];
                let kinds = if self.to == For::TheEngine { &kinds[..] } else { &kinds[..5] };
                let kind = *self.random.pick(kinds);
                let a = self.variable(kind, depth);
                let parameters: Vec<_> =
                    self.parameters.iter().filter(|(_, known)| *known == kind).cloned().collect();
                let (b, optional) = match self.random.below(3) {
                    0 if !parameters.is_empty() => (self.random.pick(&parameters).0.clone(), false),
                    0 | 1 => (self.constant(kind), false),
                    _ => {
                        let b = self.expression(kind, depth);
                        (b.text, b.optional)
                    }
                };
                let operator = *self.random.pick(&["==", "!=", "<", "<=", ">", ">="]);
                value(format!("({} {operator} {b})", a.text), a.optional || optional)
            }
        }
    }
}
