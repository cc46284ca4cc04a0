//! The statements of an element: names, types, patterns, and the guarantee that every path ends in an exit.

use super::Checker;
use super::infer::kind_of;
use crate::ast::{Call, Element, Expression, ExpressionKind, Literal, PatternKind, Statement, StatementKind};
use crate::diagnostics::Span;
use crate::engine::SLOTS_MAX;
use crate::ir::{self, Action, Body, Constant, Exit, Operand};
use crate::suggest::did_you_mean;
use crate::table::KeyType;
use tollfree_wire::Code;

/// A value with its type.
#[derive(Clone, Debug)]
pub(super) struct Value {
    pub operand: Operand,
    pub kind: KeyType,
    /// Whether it can be absent.
    pub optional: bool,
}

/// The variables of one handler.
#[derive(Default)]
pub(super) struct Scope {
    pub variables: Vec<Variable>,
    slots: usize,
    /// How many blocks are open.
    pub depth: usize,
}

pub(super) struct Variable {
    name: String,
    span: Span,
    /// `None` where its value had a mistake, which is reported there and not again.
    value: Option<Value>,
    depth: usize,
}

/// Statements, and whether every path through them ends the element.
pub(super) struct Block {
    pub statements: Vec<ir::Statement>,
    pub ends: bool,
}

impl Checker<'_, '_, '_> {
    /// The element's request handler; `None` where it has mistakes.
    pub(super) fn element(&mut self, element: &Element) -> Option<Body> {
        let Element { name, parameters, request, response } = element;
        if let Some(parameter) = parameters.first() {
            self.sink
                .error(&parameter.name.span, "parameters of elements are not supported yet", "a parameter")
                .help("write the constant in the element");
        }
        if let Some(response) = response {
            self.sink
                .error(&response.span, "response handlers are not supported yet", "would not run")
                .help("this version judges requests only; leave the section out");
        }
        let Some(request) = request else {
            if response.is_none() {
                self.sink.error(&name.span, "this element does nothing", "no statements");
            }
            return None;
        };
        let mistakes = self.sink.count();
        let mut scope = Scope::default();
        let block = self.block(&request.body, &mut scope);
        if scope.slots > SLOTS_MAX {
            let message =
                format!("`{}` looks up {} tables, at most {SLOTS_MAX} are possible", name.text, scope.slots);
            self.sink.error(&name.span, message, "too many").help("split the element");
        }
        if !block.ends && self.sink.count() == mistakes {
            let last = request.body.last().map_or(&name.span, |statement| &statement.span);
            self.sink
                .error(
                    last,
                    format!("`{}` can end here without a verdict", name.text),
                    "goes on into nothing",
                )
                .help("end every path with send(rpc), drop() or reject(CODE)");
        }
        (self.sink.count() == mistakes).then_some(Body::Block(block.statements))
    }

    pub(super) fn block(&mut self, statements: &[Statement], scope: &mut Scope) -> Block {
        let outer = scope.variables.len();
        scope.depth += 1;
        let mut block = Block { statements: Vec::new(), ends: false };
        let mut reported = false;
        for statement in statements {
            if block.ends && !reported {
                reported = true;
                self.sink
                    .error(&statement.span, "this never runs", "unreachable")
                    .help("every path before it has ended with a verdict");
            }
            self.statement(statement, scope, &mut block);
        }
        scope.depth -= 1;
        scope.variables.truncate(outer);
        block
    }

    fn statement(&mut self, statement: &Statement, scope: &mut Scope, block: &mut Block) {
        let Statement { span, kind } = statement;
        let push = |block: &mut Block, action| {
            block.statements.push(ir::Statement { span: span.clone(), action });
        };
        match kind {
            StatementKind::Assign { name, value } => {
                let value = self.value(value, scope, block);
                if name.text == "rpc" || self.table_names.contains(&name.text) {
                    let message = format!("`{}` is not a variable", name.text);
                    self.sink.error(&name.span, message, "cannot be assigned").help("choose another name");
                }
                let outer =
                    scope.variables.iter().find(|known| known.name == name.text && known.depth < scope.depth);
                if let Some(outer) = outer {
                    self.sink
                        .error(
                            &name.span,
                            format!("`{}` has a value already", name.text),
                            "assigned again in an arm",
                        )
                        .related(&outer.span, "assigned here")
                        .help("a variable of an arm is gone behind it: choose another name");
                }
                scope.bind(name.text.clone(), name.span.clone(), value);
            }
            StatementKind::Match { subject, arms } => {
                let subject_span = subject.span.clone();
                let subject = self.value(subject, scope, block);
                let mut ends = true;
                let mut checked = Vec::new();
                for arm in arms {
                    let (arm, arm_ends) = self.arm(arm, subject.as_ref(), scope);
                    ends &= arm_ends;
                    checked.push(arm);
                }
                if let Some(subject) = subject {
                    self.arms(&subject_span, &subject, arms, &checked);
                    push(block, Action::Match { subject: subject.operand, arms: checked });
                }
                block.ends |= ends && !arms.is_empty();
            }
            StatementKind::Call(call) => {
                if let Some(action) = self.call(call, scope, block) {
                    block.ends |= matches!(action, Action::Exit(_));
                    push(block, action);
                }
            }
        }
    }

    fn call(&mut self, call: &Call, scope: &mut Scope, block: &mut Block) -> Option<Action> {
        let Call { name, arguments, named: _, span } = call;
        // A verdict with a mistake in it still ends the path.
        let exit = |exit| Some(Action::Exit(exit));
        match (name.text.as_str(), arguments.as_slice()) {
            ("send", [rpc]) if is_name(rpc, "rpc") => exit(Exit::Send),
            ("drop", []) => exit(Exit::Drop),
            ("drop", [rpc]) if is_name(rpc, "rpc") => exit(Exit::Drop),
            ("reject", [code]) => exit(Exit::Reject(self.code(code), None)),
            ("set", [table, key, value]) => {
                let (table, key) = self.entry(table, key, scope, block)?;
                let kind = kind_of(&self.tables.get(table)?.value);
                let span = &value.span;
                let value = self.typed(value, &kind, "the table's values", scope, block)?;
                if matches!((&value, &kind), (Operand::Field(_), KeyType::Enum { .. })) {
                    self.sink
                        .error(span, "a field's enum cannot be kept in a table", "could be any number")
                        .help("match it, and set the names one by one");
                }
                Some(Action::Set { table, key: vec![key], value })
            }
            ("delete", [table, key]) => {
                let (table, key) = self.entry(table, key, scope, block)?;
                Some(Action::Delete { table, key: vec![key] })
            }
            ("send" | "drop" | "reject" | "set" | "delete", _) => {
                let usage = match name.text.as_str() {
                    "send" => "send(rpc)",
                    "drop" => "drop()",
                    "reject" => "reject(CODE), with a code such as PERMISSION_DENIED",
                    "set" => "set(table, key, value)",
                    _ => "delete(table, key)",
                };
                self.sink
                    .error(span, format!("`{}` is not called like this", name.text), "wrong arguments")
                    .help(format!("write {usage}"));
                match name.text.as_str() {
                    "send" => exit(Exit::Send),
                    "drop" | "reject" => exit(Exit::Drop),
                    _ => None,
                }
            }
            ("get", _) => {
                self.sink
                    .error(span, "the value that is read here goes nowhere", "not used")
                    .help("assign it or match it");
                None
            }
            (other, _) => {
                let known = ["send", "drop", "reject", "set", "delete", "get"];
                let help = did_you_mean(other, "an element can call", known);
                self.sink
                    .error(&name.span, format!("`{other}` is not something to call"), "unknown")
                    .maybe_help(help);
                None
            }
        }
    }

    fn code(&mut self, expression: &Expression) -> Code {
        let name = match &expression.kind {
            ExpressionKind::Name(name) => name.as_str(),
            _ => "",
        };
        match Code::from_name(name) {
            Some(Code::Ok) => {
                self.sink
                    .error(&expression.span, "a rejected call cannot end OK", "not a refusal")
                    .help("let it through with send(rpc), or choose another code");
                Code::Unknown
            }
            Some(code) => code,
            None => {
                let known = Code::ALL.iter().skip(1).map(|code| code.name());
                let help = did_you_mean(name, "codes are", known);
                self.sink.error(&expression.span, "this is not a status code", "unknown").maybe_help(help);
                Code::Unknown
            }
        }
    }

    /// A table and a key of its type.
    fn entry(
        &mut self,
        table: &Expression,
        key: &Expression,
        scope: &mut Scope,
        block: &mut Block,
    ) -> Option<(usize, Operand)> {
        let at = match &table.kind {
            // A table that is not declared has been reported with the tables.
            ExpressionKind::Name(name) if scope.find(name).is_none() && name != "rpc" => {
                Some(self.table_names.iter().position(|known| known == name)?)
            }
            _ => None,
        };
        let Some(at) = at else {
            self.sink
                .error(&table.span, "this is not a table", "neither `rpc` nor a table")
                .help("read fields with get(rpc, 'field') and tables with get(table, key)");
            return None;
        };
        let kind = self.tables.get(at)?.key.clone();
        let key = self.typed(key, &kind, "the table's keys", scope, block)?;
        Some((at, key))
    }

    /// A value that must be of a type; constants take it on.
    fn typed(
        &mut self,
        expression: &Expression,
        kind: &KeyType,
        what: &str,
        scope: &mut Scope,
        block: &mut Block,
    ) -> Option<Operand> {
        let constant = match &expression.kind {
            ExpressionKind::Literal(literal) => Some(PatternKind::Literal(literal.clone())),
            ExpressionKind::Name(name)
                if scope.find(name).is_none() && matches!(kind, KeyType::Enum { .. }) =>
            {
                Some(PatternKind::Name(name.clone()))
            }
            _ => None,
        };
        if let Some(constant) = constant {
            return self.constant(&constant, &expression.span, kind).map(Operand::Constant);
        }
        let value = self.value(expression, scope, block)?;
        if fits(&value.kind, kind) {
            return Some(value.operand);
        }
        let message = format!("this is {}, but {what} are {kind}", value.kind);
        let longer =
            fits(kind, &value.kind) && matches!(kind, KeyType::String { .. } | KeyType::Bytes { .. });
        let help = longer
            .then(|| format!("cut short, it would be someone else's: declare the key as {}", value.kind));
        self.sink.error(&expression.span, message, format!("not {kind}")).maybe_help(help);
        None
    }

    fn value(&mut self, expression: &Expression, scope: &mut Scope, block: &mut Block) -> Option<Value> {
        let span = &expression.span;
        match &expression.kind {
            ExpressionKind::Name(name) => match scope.find(name) {
                Some(variable) => variable.value.clone(),
                None => {
                    let known: Vec<&str> = scope.variables.iter().map(|known| known.name.as_str()).collect();
                    let help = match name.as_str() {
                        "rpc" => Some("read one of its fields: get(rpc, 'field')".to_owned()),
                        table if self.table_names.iter().any(|known| known == table) => {
                            Some(format!("read an entry of the table: get({table}, key)"))
                        }
                        other => did_you_mean(other, "the variables here are", known),
                    };
                    self.sink
                        .error(span, format!("`{name}` has no value here"), "not a value")
                        .maybe_help(help);
                    None
                }
            },
            ExpressionKind::Literal(literal) => {
                let (constant, kind) = match literal {
                    Literal::Bool(value) => (Constant::Number(u64::from(*value)), KeyType::Bool),
                    Literal::Number { negative, .. } => {
                        let kind = if *negative { KeyType::I64 } else { KeyType::U64 };
                        let constant = self.constant(&PatternKind::Literal(literal.clone()), span, &kind)?;
                        (constant, kind)
                    }
                    Literal::Text(text) => {
                        let Ok(max_len) = u8::try_from(text.len()) else {
                            self.sink.error(span, "no field or key is that long", "too long");
                            return None;
                        };
                        (Constant::Bytes(text.clone().into_bytes()), KeyType::String { max_len })
                    }
                    _ => return None,
                };
                Some(Value { operand: Operand::Constant(constant), kind, optional: false })
            }
            ExpressionKind::Call(call) => self.get(call, scope, block),
            _ => None,
        }
    }

    fn get(&mut self, call: &Call, scope: &mut Scope, block: &mut Block) -> Option<Value> {
        let Call { name, arguments, named: _, span } = call;
        let ("get", [from, what]) = (name.text.as_str(), arguments.as_slice()) else {
            let help = did_you_mean(&name.text, "what gives a value is", ["get"]);
            let known = name.text == "get";
            let help =
                if known { Some("write get(rpc, 'field') or get(table, key)".to_owned()) } else { help };
            let message = if known {
                "`get` takes two arguments".to_owned()
            } else {
                format!("`{}` gives no value", name.text)
            };
            self.sink.error(span, message, "not a value").maybe_help(help);
            return None;
        };
        if is_name(from, "rpc") {
            let ExpressionKind::Literal(Literal::Text(field)) = &what.kind else {
                self.sink
                    .error(&what.span, "a field is named by a string", "not a string")
                    .help("write get(rpc, 'field')");
                return None;
            };
            let at = self.field(field, &what.span)?;
            let kind = self.fields.get(at)?.kind.clone();
            return Some(Value { operand: Operand::Field(ir::FieldRef::Request(at)), kind, optional: true });
        }
        let (table, key) = self.entry(from, what, scope, block)?;
        let into = scope.slots;
        scope.slots += 1;
        block.statements.push(ir::Statement {
            span: span.clone(),
            action: Action::Let { into, op: ir::Op::Lookup { table, key: vec![key] } },
        });
        let kind = kind_of(&self.tables.get(table)?.value);
        Some(Value { operand: Operand::Slot(into), kind, optional: true })
    }
}

/// Whether a value of one type can be used as one of the other without loss.
fn fits(kind: &KeyType, wanted: &KeyType) -> bool {
    match (kind, wanted) {
        (KeyType::String { max_len: has }, KeyType::String { max_len: room })
        | (KeyType::Bytes { max_len: has }, KeyType::Bytes { max_len: room }) => has <= room,
        (KeyType::U32, KeyType::U64 | KeyType::I64) | (KeyType::I32, KeyType::I64) => true,
        _ => kind == wanted,
    }
}

fn is_name(expression: &Expression, name: &str) -> bool {
    matches!(&expression.kind, ExpressionKind::Name(text) if text == name)
}

impl Scope {
    fn find(&self, name: &str) -> Option<&Variable> {
        self.variables.iter().rev().find(|variable| variable.name == name)
    }

    pub(super) fn bind(&mut self, name: String, span: Span, value: Option<Value>) {
        let depth = self.depth;
        self.variables.push(Variable { name, span, value, depth });
    }
}
