//! What a policy means, as literally as possible: a walk over the text's tree with values in the users' notation.

use super::Outcome;
use super::calls::{Call, agreed, roles, schema};
use crate::ast::{
    Call as AstCall, Expression, ExpressionKind, File, Literal, PatternKind, Statement, StatementKind,
};
use crate::diagnostics::Sink;
use crate::{KeyType, TableSpec, ValueType, Verdict};
use std::collections::{BTreeMap, HashMap};
use tollfree_schema::FieldKind;
use tollfree_wire::{Code, Reason};

pub struct Reference {
    file: File,
    specs: Vec<TableSpec>,
    tables: HashMap<String, BTreeMap<String, String>>,
}

/// A value: what a user would write for it.
type Value = Option<String>;

impl Reference {
    pub fn new(text: &str, specs: &[TableSpec], entries: &[Vec<(String, String)>]) -> Reference {
        let mut sink = Sink::new("", text);
        let file = crate::parse::parse(text, &mut sink);
        let tables = specs.iter().zip(entries);
        let tables =
            tables.map(|(spec, entries)| (spec.name.clone(), entries.iter().cloned().collect())).collect();
        Reference { file, specs: specs.to_vec(), tables }
    }

    pub fn judge(&mut self, call: &Call) -> Outcome {
        let (verdict, admitted) = self.chain(call);
        let tables = self.specs.iter().map(|spec| {
            let mut entries: Vec<_> = self.tables[&spec.name].clone().into_iter().collect();
            entries.sort();
            entries
        });
        Outcome { verdict, tables: tables.collect(), admitted }
    }

    fn chain(&mut self, call: &Call) -> (Verdict, u64) {
        let schema = schema();
        let unknown = Verdict::Reject(Code::FailedPrecondition, Reason::UnknownLayout);
        let Some(method) = schema.methods().find(|method| method.id == call.method) else {
            return (unknown, 0);
        };
        let known =
            |layout| layout == 0 || method.request.fields.iter().any(|field| field.fingerprint == layout);
        let through = agreed().into_iter().find(|(key, _)| *key == (call.method, call.layout));
        if !known(call.layout) && !through.is_some_and(|(_, layout)| known(layout)) {
            return (unknown, 0);
        }
        let mut admitted = 0;
        let calls = self.file.chains[0].calls.clone();
        for element in calls {
            if element.name.text == "session_tracker" {
                let silent = super::calls::NOW_NS.saturating_sub(call.last_seen_ns);
                if call.idle_ns != 0 && silent > call.idle_ns {
                    return (Verdict::Reject(Code::Unauthenticated, Reason::SessionIdle), admitted);
                }
                admitted += 1;
                continue;
            }
            let body = self.file.elements.iter().find(|known| known.name.text == element.name.text);
            let body = body.unwrap().request.clone().unwrap().body;
            match self.run(&body, call, &mut HashMap::new()).unwrap() {
                Verdict::Send => {}
                verdict => return (verdict, admitted),
            }
        }
        (Verdict::Send, admitted)
    }

    fn run(
        &mut self,
        block: &[Statement],
        call: &Call,
        names: &mut HashMap<String, Value>,
    ) -> Option<Verdict> {
        for statement in block {
            match &statement.kind {
                StatementKind::Assign { name, value } => {
                    let value = self.value(value, call, names);
                    names.insert(name.text.clone(), value);
                }
                StatementKind::Pass => {}
                StatementKind::Match { subject, arms } => {
                    let value = self.value(subject, call, names);
                    let mut inner = names.clone();
                    let arm = arms.iter().find(|arm| {
                        arm.patterns.iter().any(|pattern| match (&pattern.kind, &value) {
                            (PatternKind::Any, _) | (PatternKind::Absent, None) => true,
                            (PatternKind::Present(name), Some(_)) => {
                                if let Some(name) = name {
                                    inner.insert(name.text.clone(), value.clone());
                                }
                                true
                            }
                            (PatternKind::Literal(constant), Some(value)) => literal(constant) == *value,
                            (PatternKind::Name(name), Some(value)) => name == value,
                            _ => false,
                        })
                    });
                    let verdict = self.run(&arm.unwrap().body, call, &mut inner);
                    if verdict.is_some() {
                        return verdict;
                    }
                }
                StatementKind::Call(AstCall { name, arguments, .. }) => match name.text.as_str() {
                    "send" => return Some(Verdict::Send),
                    "drop" => return Some(Verdict::Drop(Reason::PolicyDrop)),
                    "reject" => return Some(Verdict::Reject(Code::Aborted, Reason::PolicyReject)),
                    "set" => {
                        let value = self.value(&arguments[2], call, names);
                        if let (Some((table, key)), Some(value)) = (self.entry(arguments, call, names), value)
                        {
                            let spec = self.specs.iter().find(|spec| spec.name == table).unwrap();
                            let entries = self.tables.get_mut(&table).unwrap();
                            if entries.contains_key(&key) || entries.len() < spec.capacity as usize {
                                entries.insert(key, value);
                            }
                        }
                    }
                    "delete" => {
                        if let Some((table, key)) = self.entry(arguments, call, names) {
                            self.tables.get_mut(&table).unwrap().remove(&key);
                        }
                    }
                    other => panic!("{other}"),
                },
            }
        }
        None
    }

    fn entry(
        &mut self,
        arguments: &[Expression],
        call: &Call,
        names: &HashMap<String, Value>,
    ) -> Option<(String, String)> {
        let ExpressionKind::Name(table) = &arguments[0].kind else { panic!("{arguments:?}") };
        let mut key = self.value(&arguments[1], call, names)?;
        let spec = self.specs.iter().find(|spec| spec.name == *table).unwrap();
        // A user writes a table's bytes in hexadecimal; a policy's constants and fields are the bytes themselves.
        if let KeyType::Bytes { .. } = spec.key
            && !key.starts_with("hex:")
        {
            key = format!("hex:{}", hex(key.as_bytes()));
        }
        Some((table.clone(), key.trim_start_matches("hex:").to_owned()))
    }

    fn value(&mut self, expression: &Expression, call: &Call, names: &HashMap<String, Value>) -> Value {
        match &expression.kind {
            ExpressionKind::Literal(constant) => Some(literal(constant)),
            ExpressionKind::Name(name) => names.get(name).cloned().unwrap_or_else(|| Some(name.clone())),
            ExpressionKind::Call(AstCall { arguments, .. }) => match (&arguments[0].kind, &arguments[1].kind)
            {
                (ExpressionKind::Name(rpc), ExpressionKind::Literal(Literal::Text(field)))
                    if rpc == "rpc" =>
                {
                    self.field(field, call)
                }
                _ => {
                    let (table, key) = self.entry(arguments, call, names)?;
                    let spec = self.specs.iter().find(|spec| spec.name == table).unwrap();
                    assert!(!matches!(spec.value, ValueType::Enum { ref values } if values.is_empty()));
                    self.tables[&table].get(&key).cloned()
                }
            },
            other => panic!("not generated: {other:?}"),
        }
    }

    fn field(&self, name: &str, call: &Call) -> Value {
        let schema = schema();
        let method = schema.methods().find(|method| method.id == call.method)?;
        let field = method.request.fields.iter().find(|field| field.name == name)?;
        let at = usize::from(field.offset);
        if at + usize::from(field.width) > call.flat.len() {
            return None;
        }
        let bytes = &call.flat[at..at + usize::from(field.width)];
        let wide = |signed: bool| {
            let fill = if signed && bytes[bytes.len() - 1] & 0x80 != 0 { 0xff } else { 0 };
            let mut all = [fill; 16];
            all[..bytes.len()].copy_from_slice(bytes);
            i128::from_le_bytes(all)
        };
        Some(match &field.kind {
            FieldKind::Bool => (bytes[0] != 0).to_string(),
            FieldKind::U32 | FieldKind::U64 => wide(false).to_string(),
            FieldKind::I32 | FieldKind::I64 => wide(true).to_string(),
            FieldKind::Enum { .. } => {
                let number = wide(true);
                let known = roles().into_iter().find(|(_, known)| i128::from(*known) == number);
                known.map_or_else(|| number.to_string(), |(name, _)| name)
            }
            FieldKind::String { .. } | FieldKind::Bytes { .. } => {
                let length = usize::from(bytes[0]);
                String::from_utf8_lossy(bytes.get(1..1 + length)?).into_owned()
            }
            FieldKind::Fixed { .. } => format!("hex:{}", hex(bytes)),
            FieldKind::F32 | FieldKind::F64 => panic!("no such field"),
        })
    }
}

fn literal(literal: &Literal) -> String {
    match literal {
        Literal::Bool(value) => value.to_string(),
        Literal::Number { negative, magnitude } => format!("{}{magnitude}", if *negative { "-" } else { "" }),
        Literal::Text(text) => text.clone(),
        other => panic!("not generated: {other:?}"),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
