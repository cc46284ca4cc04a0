//! Statements: assignment, `match`, and calls that do something.

use super::Checker;
use super::frame::Value;
use super::functions::FUNCTIONS;
use crate::ast::{Arm, Call, Expression, Name, Statement, StatementKind};
use crate::diagnostics::Span;
use crate::ir::{self, Action, Exit, Guard};
use crate::parse::instead_of;
use crate::suggest::did_you_mean;

/// What can stand as a statement, with how, besides [`FUNCTIONS`].
const STATEMENTS: [(&str, &str); 14] = [
    ("send", "send(rpc)"),
    ("drop", "drop()"),
    ("reject", "reject(CODE) or reject(CODE, 'why'), with a code such as PERMISSION_DENIED"),
    ("answer", "answer('field', value, ...)"),
    ("retry", "retry(max = 2, budget = 10%)"),
    ("set", "set(table, key, value) or set(rpc, 'field', value)"),
    ("delete", "delete(table, key) or delete(rpc, 'field')"),
    ("log", "log(value, ...)"),
    ("delay", "delay(10ms)"),
    ("timeout", "timeout(10ms)"),
    ("route", "route('group') or route('group', index)"),
    ("mirror", "mirror('group')"),
    ("eject", "eject(30s, max = 50%)"),
    ("add", "add(table, key, 1)"),
];

impl Checker<'_, '_, '_> {
    /// Statements, and whether every path through them ends the element.
    pub(super) fn block(&mut self, statements: &[Statement]) -> (Vec<ir::Statement>, bool) {
        let outer = std::mem::take(&mut self.out);
        let opened = self.frame.open();
        let (mut ends, mut reported) = (false, false);
        for statement in statements {
            if ends && !reported {
                reported = true;
                self.sink
                    .error(&statement.span, "this never runs", "unreachable")
                    .help("every path before it has ended with a verdict");
            }
            ends |= self.statement(statement);
        }
        self.frame.close(opened);
        (std::mem::replace(&mut self.out, outer), ends)
    }

    /// Whether every path through it ends the element.
    fn statement(&mut self, statement: &Statement) -> bool {
        let Statement { span, kind } = statement;
        match kind {
            StatementKind::Assign { name, value } => self.assign(name, value),
            StatementKind::Match { subject, arms } => return self.choose(subject, arms, span),
            StatementKind::Call(call) => {
                if let Some(action) = self.action(call) {
                    let ends = matches!(action, Action::Exit(_));
                    self.frame.exits |= ends;
                    self.push(span, action);
                    return ends;
                }
            }
            StatementKind::Pass => {}
        }
        false
    }

    fn assign(&mut self, name: &Name, value: &Expression) {
        let value = self.value(value);
        self.check_new_name(&name.text, &name.span);
        if let Some(outer) = self.frame.find(&name.text)
            && outer.depth < self.frame.depth
        {
            let outer = outer.span.clone();
            let message = format!("`{}` has a value already", name.text);
            self.sink
                .error(&name.span, message, "assigned again in an arm")
                .related(&outer, "assigned here")
                .help("a variable of an arm is gone behind it: choose another name");
        }
        self.bind(name, value);
    }

    pub(super) fn bind(&mut self, name: &Name, value: Option<Value>) {
        let value = value.map(|value| self.kept(value, &name.span));
        self.frame.bind(&name.text, name.span.clone(), value);
    }

    fn choose(&mut self, subject: &Expression, arms: &[Arm], span: &Span) -> bool {
        let place = subject.span.clone();
        let mut subject = self.value(subject);
        // A guard may change what later arms are to be matched with.
        if arms.iter().any(|arm| arm.guard.is_some()) {
            subject = subject.map(|subject| self.kept(subject, &place));
        }
        let mut ends = true;
        let mut checked = Vec::new();
        for arm in arms {
            let (arm, arm_ends) = self.arm(arm, subject.as_ref());
            ends &= arm_ends;
            checked.push(arm);
        }
        if let Some(subject) = subject {
            self.coverage(&place, &subject, arms, &checked);
            self.push(span, Action::Match { subject: subject.operand, arms: checked });
        }
        ends && !arms.is_empty()
    }

    /// An arm, and whether it ends.
    fn arm(&mut self, arm: &Arm, subject: Option<&Value>) -> (ir::Arm, bool) {
        let opened = self.frame.open();
        let mut patterns = Vec::new();
        for pattern in &arm.patterns {
            if let Some(pattern) = self.pattern(pattern, arm.patterns.len(), subject) {
                patterns.push(pattern);
            }
        }
        let guard = arm.guard.as_ref().and_then(|guard| self.guard(guard));
        let (body, ends) = self.block(&arm.body);
        self.frame.close(opened);
        (ir::Arm { patterns, guard, body }, ends)
    }

    fn guard(&mut self, guard: &Expression) -> Option<Guard> {
        let outer = std::mem::take(&mut self.out);
        let condition = self.typed(guard, &super::kind::Kind::Bool, "a guard is");
        let statements = std::mem::replace(&mut self.out, outer);
        Some(Guard { statements, condition: condition?.operand })
    }

    fn action(&mut self, call: &Call) -> Option<Action> {
        let Call { name, arguments, named, span } = call;
        if !matches!(name.text.as_str(), "retry" | "eject" | "take") {
            self.no_named(named, &name.text);
        }
        // A verdict with a mistake in it still ends the path.
        match (name.text.as_str(), arguments.as_slice()) {
            ("send", [rpc]) if super::is_name(rpc, "rpc") => Some(Action::Exit(Exit::Send)),
            ("drop", []) => Some(Action::Exit(Exit::Drop)),
            ("drop", [rpc]) if super::is_name(rpc, "rpc") => Some(Action::Exit(Exit::Drop)),
            ("reject", [code]) => Some(Action::Exit(self.reject(code, None))),
            ("reject", [code, why]) => Some(Action::Exit(self.reject(code, Some(why)))),
            ("answer", fields) => Some(Action::Exit(self.answer(fields, span))),
            ("retry", []) => Some(Action::Exit(self.retry(named, span))),
            ("set", [rpc, field, value]) if super::is_name(rpc, "rpc") => self.set_field(field, value),
            ("delete", [rpc, field]) if super::is_name(rpc, "rpc") => self.delete_field(field),
            ("set" | "delete", [message, ..])
                if ["request", "response", "peer", "metadata"]
                    .iter()
                    .any(|word| super::is_name(message, word)) =>
            {
                self.sink
                    .error(&message.span, "only the message at hand can be changed", "not changed here")
                    .help("the message at hand is `rpc`: set(rpc, 'field', value)");
                None
            }
            ("set", [table, rest @ ..]) if !rest.is_empty() => self.set(table, rest, span),
            ("delete", [table, key @ ..]) => self.delete(table, key, span),
            ("log", [_, ..]) => self.log(arguments),
            ("delay", [time]) => self.delay(time),
            ("timeout", [time]) => self.timeout(time),
            ("route", [group]) => self.route(group, None),
            ("route", [group, index]) => self.route(group, Some(index)),
            ("mirror", [group]) => self.mirror(group),
            ("eject", [time]) => self.eject(time, named, span),
            ("add" | "encrypt", _) => {
                self.function(call);
                None
            }
            (known, _) if let Some((_, usage)) = STATEMENTS.iter().find(|(name, _)| *name == known) => {
                self.sink
                    .error(span, format!("`{known}` is not called like this"), "wrong arguments")
                    .help(format!("write {usage}"));
                match known {
                    "send" => Some(Action::Exit(Exit::Send)),
                    "drop" | "reject" => Some(Action::Exit(Exit::Drop)),
                    _ => None,
                }
            }
            (known, _) if FUNCTIONS.iter().any(|(name, _)| *name == known) => {
                self.sink
                    .error(span, "the value that is read here goes nowhere", "not used")
                    .help("assign it or match it");
                None
            }
            (other, _) => {
                let known = STATEMENTS.iter().chain(&FUNCTIONS).map(|(name, _)| *name);
                let help = instead_of(other)
                    .map(str::to_owned)
                    .or_else(|| did_you_mean(other, "an element can call", known));
                self.sink
                    .error(&name.span, format!("`{other}` is not something to call"), "unknown")
                    .maybe_help(help);
                None
            }
        }
    }
}
