//! Random policies that compile: every kind of field, table, pattern and statement.

use std::fmt::Write as _;

/// Repeatable randomness (xorshift64*).
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random((seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % limit.max(1)
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }
}

/// A kind of value, as far as the generator cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
}

use Kind::{Bool, I32, I64, Mac, Role, Rule, Text, Token, U32, U64};

const FIELDS: [(&str, Kind); 9] = [
    ("user", Text),
    ("level", U32),
    ("flag", Bool),
    ("big", U64),
    ("delta", I32),
    ("far", I64),
    ("role", Role),
    ("token", Token),
    ("mac", Mac),
];

const TABLES: [(&str, Kind, Kind, &str); 9] = [
    ("rules", Text, Rule, "table(string(32) -> MAYBE|ALLOW|DENY, capacity = 4)"),
    ("levels", U32, U64, "table(u32 -> u64, capacity = 3)"),
    ("flags", Bool, Bool, "table(bool -> bool)"),
    ("bigs", U64, U32, "table(u64 -> u32, capacity = 5)"),
    ("deltas", I32, I32, "table(i32 -> i32, capacity = 2)"),
    ("fars", I64, I64, "table(i64 -> i64)"),
    ("roles", Role, Rule, "table(enum -> ALLOW|DENY|MAYBE)"),
    ("tokens", Token, Bool, "table(bytes(7) -> bool, capacity = 4)"),
    ("macs", Mac, U64, "table(fixed(6) -> u64, capacity = 4)"),
];

#[derive(Clone)]
struct Value {
    text: String,
    kind: Kind,
    optional: bool,
    /// A table's enum has no other values; a field's can.
    closed: bool,
}

struct Generator<'r> {
    random: &'r mut Random,
    out: String,
    variables: Vec<Value>,
    count: usize,
    lookups: usize,
}

pub fn policy(random: &mut Random) -> String {
    let mut generator = Generator { random, out: String::new(), variables: Vec::new(), count: 0, lookups: 0 };
    let elements = 1 + generator.random.below(2);
    for element in 0..elements {
        generator.variables.clear();
        generator.lookups = 0;
        let _ = writeln!(generator.out, "e{element}():");
        generator.block(1, true);
    }
    let body = generator.out;
    let mut chain: Vec<String> = (0..elements).map(|element| format!("e{element}()")).collect();
    if random.below(2) == 0 {
        chain.insert(random.below(chain.len() + 1), "session_tracker()".into());
    }
    let mut text = format!("{}\n", chain.join(" -> "));
    let used: Vec<_> = TABLES.iter().filter(|table| body.contains(&format!("({},", table.0))).collect();
    if !used.is_empty() {
        text.push_str("state:\n");
        for (name, _, _, declaration) in used {
            let _ = writeln!(text, "    {name}: {declaration}");
        }
    }
    text + &body
}

impl Generator<'_> {
    fn line(&mut self, depth: usize, text: &str) {
        let _ = writeln!(self.out, "{}{text}", "    ".repeat(depth));
    }

    /// Statements; whether they end with a verdict on every path, which they do if they must.
    fn block(&mut self, depth: usize, must_end: bool) -> bool {
        let outer = self.variables.len();
        for _ in 0..1 + self.random.below(3) {
            match self.random.below(6) {
                0 | 1 => {
                    let value = self.value();
                    self.count += 1;
                    let name = format!("v{}", self.count);
                    self.line(depth, &format!("{name} = {}", value.text));
                    self.variables.push(Value { text: name, ..value });
                }
                2 => self.change(depth),
                _ if depth < 4 && self.match_value(depth) => {
                    self.variables.truncate(outer);
                    return true;
                }
                _ => {}
            }
        }
        if must_end || self.random.below(2) == 0 {
            let exit =
                *self.random.pick(&["send(rpc)", "send(rpc)", "send(rpc)", "drop()", "reject(ABORTED)"]);
            self.line(depth, exit);
            self.variables.truncate(outer);
            return true;
        }
        self.line(depth, "set(flags, true, false)");
        self.variables.truncate(outer);
        false
    }

    fn change(&mut self, depth: usize) {
        let (name, key, value, _) = *self.random.pick(&TABLES);
        let key = self.of_kind(key);
        let statement = if self.random.below(3) == 0 {
            format!("delete({name}, {key})")
        } else {
            format!("set({name}, {key}, {})", self.of_kind(value))
        };
        self.line(depth, &statement);
    }

    /// A value of a kind: a constant where the kind has them, a variable or a field.
    fn of_kind(&mut self, kind: Kind) -> String {
        let known: Vec<String> = self
            .variables
            .iter()
            .filter(|value| value.kind == kind && (kind != Role))
            .map(|value| value.text.clone())
            .collect();
        if !known.is_empty() && self.random.below(2) == 0 {
            return self.random.pick(&known).clone();
        }
        let field = FIELDS.iter().find(|(_, known)| *known == kind);
        if let Some((name, _)) = field
            && (self.random.below(2) == 0 || matches!(kind, Token | Mac | Role))
        {
            return format!("get(rpc, '{name}')");
        }
        self.constant(kind)
    }

    fn constant(&mut self, kind: Kind) -> String {
        let choices: &[&str] = match kind {
            Text => &["'alice'", "'bob'", "''", "'mallory'", "'exactly-16-bytes'"],
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
            Mac => &[],
        };
        self.random.pick(choices).to_string()
    }

    fn value(&mut self) -> Value {
        if !self.variables.is_empty() && self.random.below(3) == 0 {
            let variables = self.variables.clone();
            return self.random.pick(&variables).clone();
        }
        // One element can keep sixteen table values.
        if self.random.below(2) == 0 && self.lookups < 14 {
            self.lookups += 1;
            let (name, key, kind, _) = *self.random.pick(&TABLES);
            let key = self.of_kind(key);
            return Value { text: format!("get({name}, {key})"), kind, optional: true, closed: true };
        }
        let (name, kind) = *self.random.pick(&FIELDS);
        Value { text: format!("get(rpc, '{name}')"), kind, optional: true, closed: kind == Bool }
    }

    fn match_value(&mut self, depth: usize) -> bool {
        let subject = self.value();
        self.line(depth, &format!("match {}:", subject.text));
        let mut ends = true;
        let mut seen: Vec<String> = Vec::new();
        let mut none = !subject.optional;
        for _ in 0..self.random.below(4) {
            if subject.kind == Mac {
                break;
            }
            let mut patterns = Vec::new();
            for _ in 0..1 + self.random.below(2) {
                let constant = self.constant(subject.kind);
                if !seen.contains(&constant) {
                    seen.push(constant.clone());
                    patterns.push(constant);
                }
            }
            if !none && self.random.below(4) == 0 {
                none = true;
                patterns.push("NONE".into());
            }
            if !patterns.is_empty() {
                ends &= self.arm(depth, &patterns.join(" | "));
            }
        }
        let all: &[&str] = match subject.kind {
            Bool => &["true", "false"],
            Rule => &["ALLOW", "DENY", "MAYBE"],
            _ => &[],
        };
        let listed = subject.closed
            && !all.is_empty()
            && all.iter().all(|name| seen.iter().any(|known| known == name));
        if listed && none {
            return ends;
        }
        if self.random.below(2) == 0 || !subject.optional {
            return ends & self.arm(depth, "_");
        }
        if !none {
            ends &= self.arm(depth, "NONE");
        }
        if listed {
            return ends;
        }
        self.count += 1;
        let name = format!("v{}", self.count);
        self.variables.push(Value { text: name.clone(), optional: false, ..subject });
        ends &= self.arm(depth, &format!("Some({name})"));
        self.variables.pop();
        ends
    }

    fn arm(&mut self, depth: usize, patterns: &str) -> bool {
        self.line(depth + 1, &format!("{patterns} =>"));
        self.block(depth + 2, false)
    }
}
