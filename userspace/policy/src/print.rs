//! The typed form as text, for people who want to see what the compiler understood: one line per statement, places in
//! the source left out, so that two policies that mean the same look the same.

use crate::ir::{
    Action, Arithmetic, Arm, Attribute, Body, Comparison, Constant, Effect, Element, Exit, FieldRef,
    FieldUse, Guard, Number, Op, Operand, Pattern, PeerValue, Policy, Statement,
};
use crate::notation;
use crate::table::{TableKind, TableSpec};
use std::fmt::Write as _;
use tollfree_schema::Manifest;

const INDENT: &str = "    ";

/// The text; methods are called by their paths.
pub(crate) fn print(policy: &Policy, schema: &Manifest) -> String {
    let mut printer = Printer { policy, out: String::new(), depth: 0 };
    printer.line(format!("at {}", policy.side));
    for table in &policy.tables {
        printer.table(table);
    }
    for element in &policy.elements {
        printer.element(element, schema);
    }
    printer.out
}

struct Printer<'p> {
    policy: &'p Policy,
    out: String,
    depth: usize,
}

impl Printer<'_> {
    fn line(&mut self, line: impl AsRef<str>) {
        for _ in 0..self.depth {
            self.out.push_str(INDENT);
        }
        self.out.push_str(line.as_ref());
        self.out.push('\n');
    }

    fn inside(&mut self, write: impl FnOnce(&mut Self)) {
        self.depth += 1;
        write(self);
        self.depth -= 1;
    }

    fn table(&mut self, table: &TableSpec) {
        let TableSpec { name, key, value, kind, initial, capacity, .. } = table;
        let line = match kind {
            TableKind::Hash => format!("table {name}: {key} -> {value}, {capacity} entries"),
            TableKind::Lru => format!("table {name}: {key} -> {value}, {capacity} entries, lru"),
            TableKind::Lpm => format!("table {name}: {key} -> {value}, {capacity} entries, longest prefix"),
            TableKind::Cell => {
                format!("cell {name}: {value} = {}", table.format_value(&value.to_bytes(*initial)))
            }
            TableKind::Counter if *capacity > 1 => format!("counter {name}: {key}, {capacity} entries"),
            TableKind::Counter => format!("counter {name}"),
        };
        self.line(line);
    }

    fn element(&mut self, element: &Element, schema: &Manifest) {
        let Element { name, span: _, methods, audit, request, response } = element;
        let mut head = format!("element {name}");
        if let Some(ids) = methods {
            let covered = schema.methods().filter(|method| ids.contains(&method.id));
            let paths: Vec<&str> = covered.map(|method| method.path.trim_start_matches('/')).collect();
            let _ = write!(head, " for {}", paths.join(" | "));
        }
        if *audit {
            head.push_str(" audit");
        }
        self.line(head);
        self.inside(|printer| {
            match request {
                Some(Body::SessionTracker(_)) => printer.line("session_tracker"),
                Some(Body::Block(block)) => printer.handler("request", block),
                None => {}
            }
            if let Some(block) = response {
                printer.handler("response", block);
            }
        });
    }

    fn handler(&mut self, name: &str, block: &[Statement]) {
        self.line(name);
        self.inside(|printer| printer.block(block));
    }

    fn block(&mut self, block: &[Statement]) {
        for Statement { span: _, action } in block {
            self.action(action);
        }
    }

    fn action(&mut self, action: &Action) {
        let line = match action {
            Action::Let { into, op } => format!("%{into} = {}", self.op(op)),
            Action::Match { subject, arms } => {
                let subject = self.operand(subject);
                self.line(format!("match {subject}"));
                self.inside(|printer| arms.iter().for_each(|arm| printer.arm(arm)));
                return;
            }
            Action::Set { table, key, value } => {
                format!("{} = {}", self.entry(*table, key), self.operand(value))
            }
            Action::Delete { table, key } => format!("delete {}", self.entry(*table, key)),
            Action::SetField { field, value: Some(value) } => {
                format!("{} = {}", self.field(*field), self.operand(value))
            }
            Action::SetField { field, value: None } => format!("clear {}", self.field(*field)),
            Action::Effect(effect) => self.effect(effect),
            Action::Exit(exit) => self.exit(exit),
        };
        self.line(line);
    }

    fn arm(&mut self, arm: &Arm) {
        let Arm { patterns, guard, body } = arm;
        let patterns: Vec<String> = patterns.iter().map(pattern).collect();
        self.line(patterns.join(" | "));
        self.inside(|printer| {
            if let Some(Guard { statements, condition }) = guard {
                printer.block(statements);
                let condition = printer.operand(condition);
                printer.line(format!("if {condition}"));
            }
            printer.block(body);
        });
    }

    fn effect(&self, effect: &Effect) -> String {
        match effect {
            Effect::Delay(time) => format!("delay {}", self.operand(time)),
            Effect::Timeout(time) => format!("timeout {}", self.operand(time)),
            Effect::Route { selector, index: Some(index) } => {
                format!("route {} {}", self.selector(*selector), self.operand(index))
            }
            Effect::Route { selector, index: None } => format!("route {}", self.selector(*selector)),
            Effect::Mirror { selector } => format!("mirror {}", self.selector(*selector)),
            Effect::Eject { duration, max_ppm } => {
                format!("eject {}, at most {} ppm", self.operand(duration), self.operand(max_ppm))
            }
            Effect::Log(values) => {
                let values: Vec<String> =
                    values.iter().map(|(value, kind)| format!("{}: {kind}", self.operand(value))).collect();
                format!("log {}", values.join(", "))
            }
        }
    }

    fn exit(&self, exit: &Exit) -> String {
        match exit {
            Exit::Send => "send".into(),
            Exit::Drop => "drop".into(),
            Exit::Reject(code, None) => format!("reject {}", code.name()),
            Exit::Reject(code, Some(why)) => format!("reject {} {why:?}", code.name()),
            Exit::Answer(fields) => {
                let fields: Vec<String> = fields
                    .iter()
                    .map(|(field, value)| {
                        format!("{} = {}", self.field(FieldRef::Response(*field)), self.operand(value))
                    })
                    .collect();
                format!("answer {}", fields.join(", ")).trim_end().to_owned()
            }
            Exit::Retry { max, budget_ppm } => format!("retry {max}, at most {budget_ppm} ppm"),
        }
    }

    fn op(&self, op: &Op) -> String {
        let operand = |operand: &Operand| self.operand(operand);
        match op {
            Op::Copy(value) => operand(value),
            Op::Lookup { table, key } => self.entry(*table, key),
            Op::Add { table, key, number, amount } => {
                format!("add{} {} {}", suffix(*number), self.entry(*table, key), operand(amount))
            }
            Op::Take { table, key, count, period_ns, burst, cost } => format!(
                "take {} {} of {} in {}, burst {}",
                self.entry(*table, key),
                operand(cost),
                operand(count),
                notation::format_duration(*period_ns),
                operand(burst)
            ),
            Op::Arithmetic { op, number, a, b } => {
                let sign = match op {
                    Arithmetic::Add => "+",
                    Arithmetic::Subtract => "-",
                    Arithmetic::Multiply => "*",
                    Arithmetic::Divide => "/",
                    Arithmetic::Remainder => "%",
                };
                format!("{} {sign}{} {}", operand(a), suffix(*number), operand(b))
            }
            Op::Compare { op, number, a, b } => {
                let sign = match op {
                    Comparison::Equal => "==",
                    Comparison::NotEqual => "!=",
                    Comparison::Less => "<",
                    Comparison::LessEqual => "<=",
                    Comparison::Greater => ">",
                    Comparison::GreaterEqual => ">=",
                };
                format!("{} {sign}{} {}", operand(a), suffix(*number), operand(b))
            }
            Op::Same { a, b } => format!("same {} {}", operand(a), operand(b)),
            Op::StartsWith { text, prefix } => format!("{} starts with {}", operand(text), bytes(prefix)),
            Op::Not(value) => format!("not {}", operand(value)),
            Op::And(a, b) => format!("{} and {}", operand(a), operand(b)),
            Op::Or(a, b) => format!("{} or {}", operand(a), operand(b)),
            Op::Convert { from, to, value } => {
                format!("convert{}{} {}", suffix(*from), suffix(*to), operand(value))
            }
            Op::Narrow { number, value } => format!("narrow{} {}", suffix(*number), operand(value)),
            Op::Hash(values) => format!("hash {}", self.operands(values)),
            Op::Random => "random".into(),
            Op::Chance(ppm) => format!("chance {}", operand(ppm)),
            Op::Backends(selector) => format!("backends {}", self.selector(*selector)),
            Op::Ask(at) => format!("ask {:?}", named(&self.policy.authorisers, *at)),
            Op::Crypt { field, key, decrypt } => {
                let word = if *decrypt { "decrypt" } else { "encrypt" };
                format!("{word} {} {:?}", self.field(*field), named(&self.policy.keys, *key))
            }
        }
    }

    fn entry(&self, table: usize, key: &[Operand]) -> String {
        let name = self.policy.tables.get(table).map_or("?", |table| &table.name);
        format!("{name}[{}]", self.operands(key))
    }

    fn operands(&self, operands: &[Operand]) -> String {
        operands.iter().map(|operand| self.operand(operand)).collect::<Vec<_>>().join(", ")
    }

    fn operand(&self, operand: &Operand) -> String {
        match operand {
            Operand::Constant(value) => constant(value),
            Operand::Slot(slot) => format!("%{slot}"),
            Operand::Field(field) => self.field(*field),
            Operand::Attribute(attribute) => attribute_name(*attribute).into(),
            Operand::Peer(value) => format!("peer.{}", self.peer(*value)),
            Operand::Metadata(at) => format!("metadata[{:?}]", named(&self.policy.metadata, *at)),
        }
    }

    fn peer(&self, value: PeerValue) -> &str {
        match value {
            PeerValue::Identity => "identity",
            PeerValue::Namespace => "namespace",
            PeerValue::Address => "address",
            PeerValue::Named(at) => named(&self.policy.peer_names, at),
            PeerValue::Token => "token",
            PeerValue::Sessions => "sessions",
        }
    }

    fn field(&self, field: FieldRef) -> String {
        let name = |list: &[FieldUse], at: usize| list.get(at).map_or("?".into(), |field| field.name.clone());
        match field {
            FieldRef::Request(at) => format!("request.{}", name(&self.policy.fields, at)),
            FieldRef::Response(at) => format!("response.{}", name(&self.policy.response_fields, at)),
        }
    }

    fn selector(&self, at: usize) -> String {
        format!("{:?}", named(&self.policy.selectors, at))
    }
}

fn named(list: &[String], at: usize) -> &str {
    list.get(at).map_or("?", String::as_str)
}

/// How numbers are read, where it is not as unsigned ones.
fn suffix(number: Number) -> &'static str {
    match number {
        Number::Unsigned => "",
        Number::Signed => ".signed",
        Number::Float => ".float",
    }
}

fn constant(constant: &Constant) -> String {
    match constant {
        Constant::Number(number) => number.to_string(),
        Constant::Bytes(text) => bytes(text),
    }
}

fn bytes(bytes: &[u8]) -> String {
    format!("'{}'", bytes.escape_ascii())
}

fn pattern(pattern: &Pattern) -> String {
    match pattern {
        Pattern::Any => "_".into(),
        Pattern::Absent => "NONE".into(),
        Pattern::Present => "Some(_)".into(),
        Pattern::Equal(value) => constant(value),
        Pattern::OneOf(numbers) => {
            let numbers: Vec<String> = numbers.iter().map(u64::to_string).collect();
            format!("one of {}", numbers.join(", "))
        }
        Pattern::Prefix(prefix) => format!("{} and more", bytes(prefix)),
        Pattern::Range { number, from, to } => format!("{from}..{to}{}", suffix(*number)),
        Pattern::Cidr { address, bits } => notation::format_cidr(*address, u32::from(*bits)),
    }
}

fn attribute_name(attribute: Attribute) -> &'static str {
    match attribute {
        Attribute::Method => "method",
        Attribute::Service => "service",
        Attribute::Size => "size",
        Attribute::Deadline => "deadline",
        Attribute::Now => "now",
        Attribute::Port => "port",
        Attribute::Status => "status",
        Attribute::Latency => "latency",
        Attribute::Backend => "backend",
    }
}
