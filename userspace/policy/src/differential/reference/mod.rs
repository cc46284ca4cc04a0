//! What a policy means, as literally as possible: a walk over the text's tree, with values as the language has them and
//! tables in their users' notation. It shares no code with what it is held against but the reading of the text.

mod expression;
mod message;
mod tables;
mod value;

use super::Judged;
use super::calls::{Call, NOW_NS, Response, agreed, schema};
use crate::ast::{
    self, Chain, Expression, ExpressionKind, File, Pattern, PatternKind, Statement, StatementKind,
};
use crate::diagnostics::Sink;
use crate::notation;
use crate::{TableSpec, Verdict};
use message::Message;
use std::collections::{BTreeMap, HashMap};
use tollfree_schema::Method;
use tollfree_wire::{Code, Reason};
use value::{Maybe, Value};

pub struct Reference {
    file: File,
    specs: Vec<TableSpec>,
    tables: HashMap<String, BTreeMap<String, String>>,
}

/// A call on its way through the chains.
struct Way<'a> {
    call: &'a Call,
    method: Method,
    request: Message,
    response: Option<(&'a Response, Message)>,
    answer: Option<Message>,
    admitted: u64,
    audited: u32,
    delay_ns: u64,
    timeout_ns: Option<u64>,
    route: Option<(String, Option<u64>)>,
}

/// What an element's names stand for.
type Names = HashMap<String, Maybe>;

/// How an element ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Send,
    Drop,
    Reject(Code),
    Answer,
}

impl Reference {
    pub fn new(text: &str, specs: &[TableSpec], entries: &[Vec<(String, String)>]) -> Reference {
        let mut sink = Sink::new("", text);
        let file = crate::parse::parse(text, &mut sink);
        let tables = specs.iter().zip(entries);
        let tables =
            tables.map(|(spec, entries)| (spec.name.clone(), entries.iter().cloned().collect())).collect();
        Reference { file, specs: specs.to_vec(), tables }
    }

    /// A request; or what answered one that was sent on with this flat block.
    pub fn judge(&mut self, call: &Call, response: Option<&Response>) -> Judged {
        let schema = schema();
        let unknown = Verdict::Reject(Code::FailedPrecondition, Reason::UnknownLayout);
        let Some(method) = schema.methods().find(|method| method.id == call.method).cloned() else {
            return self.judged(call, response, None, unknown);
        };
        let readable = |id: u32, layout: u32, fields: &[tollfree_schema::Field]| {
            let known = |layout| layout == 0 || fields.iter().any(|field| field.fingerprint == layout);
            let through = agreed().into_iter().find(|(key, _)| *key == (id, layout));
            known(layout) || through.is_some_and(|(_, layout)| known(layout))
        };
        let request = Message::new(&method.request, call.flat.clone());
        let response_message =
            response.map(|response| (response, Message::new(&method.response, response.flat.clone())));
        let mut way = Way {
            call,
            method: method.clone(),
            request,
            response: response_message,
            answer: None,
            admitted: 0,
            audited: 0,
            delay_ns: 0,
            timeout_ns: None,
            route: None,
        };
        let mut elements: Vec<(ast::Call, bool)> = Vec::new();
        for Chain { calls, scope, audit, .. } in &self.file.chains {
            if scope.is_empty() || scope.iter().any(|scope| in_scope(&scope.text, &method)) {
                elements.extend(calls.iter().map(|call| (call.clone(), audit.is_some())));
            }
        }
        let verdict = match response {
            None if !readable(call.method, call.layout, &method.request.fields) => unknown,
            None => self.chain(&elements, &mut way),
            Some(response) => {
                elements.reverse();
                elements
                    .retain(|(call, _)| self.element(call).is_some_and(|element| element.response.is_some()));
                match readable(call.method, response.layout, &method.response.fields) || elements.is_empty() {
                    true => self.chain(&elements, &mut way),
                    false => unknown,
                }
            }
        };
        self.judged(call, response, Some(way), verdict)
    }

    fn judged(
        &self,
        call: &Call,
        response: Option<&Response>,
        way: Option<Way<'_>>,
        verdict: Verdict,
    ) -> Judged {
        let tables = self.specs.iter().map(|spec| {
            let mut entries: Vec<_> = self.tables[&spec.name].clone().into_iter().collect();
            entries.sort();
            entries
        });
        let mut judged = Judged {
            verdict,
            flat: response.map_or(&call.flat, |response| &response.flat).clone(),
            answer: None,
            tables: tables.collect(),
            admitted: 0,
            audited: 0,
            effects: super::effects(0, None, None),
        };
        if let Some(Way {
            request,
            response,
            answer,
            admitted,
            audited,
            delay_ns,
            timeout_ns,
            route,
            method,
            ..
        }) = way
        {
            judged.flat = response.map_or(request, |(_, message)| message).into_flat();
            judged.answer = answer
                .filter(|_| verdict == Verdict::Answer)
                .map(|message| (method.response.fingerprint, message.into_flat()));
            (judged.admitted, judged.audited) = (admitted, audited);
            judged.effects = super::effects(delay_ns, timeout_ns, route);
        }
        judged
    }

    fn element(&self, call: &ast::Call) -> Option<&ast::Element> {
        self.file.elements.iter().find(|element| element.name.text == call.name.text)
    }

    fn chain(&mut self, elements: &[(ast::Call, bool)], way: &mut Way<'_>) -> Verdict {
        for (element_call, audit) in elements {
            let verdict = if element_call.name.text == "session_tracker" {
                let silent = NOW_NS.saturating_sub(way.call.last_seen_ns);
                // It notes each call that it admits as the last one.
                if way.call.idle_ns != 0 && silent > way.call.idle_ns && way.admitted == 0 {
                    Verdict::Reject(Code::Unauthenticated, Reason::SessionIdle)
                } else {
                    way.admitted += 1;
                    Verdict::Send
                }
            } else {
                let element = self.element(element_call).unwrap().clone();
                let handler = if way.response.is_some() { &element.response } else { &element.request };
                let mut names: Names = element
                    .parameters
                    .iter()
                    .zip(&element_call.arguments)
                    .map(|(parameter, argument)| {
                        (parameter.name.text.clone(), self.value(argument, way, &Names::new()))
                    })
                    .collect();
                let end = match handler {
                    Some(handler) => self.run(&handler.body, way, &mut names).unwrap_or(End::Send),
                    None => End::Send,
                };
                match end {
                    End::Send => Verdict::Send,
                    End::Drop => Verdict::Drop(Reason::PolicyDrop),
                    End::Reject(code) => Verdict::Reject(code, Reason::PolicyReject),
                    End::Answer => Verdict::Answer,
                }
            };
            match verdict {
                Verdict::Send => {}
                Verdict::Drop(_) | Verdict::Reject(..) if *audit => way.audited += 1,
                verdict => return verdict,
            }
        }
        Verdict::Send
    }

    fn run(&mut self, block: &[Statement], way: &mut Way<'_>, names: &mut Names) -> Option<End> {
        for statement in block {
            match &statement.kind {
                StatementKind::Assign { name, value } => {
                    let value = self.value(value, way, names);
                    names.insert(name.text.clone(), value);
                }
                StatementKind::Match { subject, arms } => {
                    let value = self.value(subject, way, names);
                    for arm in arms {
                        let mut inner = names.clone();
                        if !arm.patterns.iter().any(|pattern| matches(pattern, &value, &mut inner)) {
                            continue;
                        }
                        if let Some(guard) = &arm.guard
                            && self.value(guard, way, &inner) != Some(Value::Bool(true))
                        {
                            continue;
                        }
                        let end = self.run(&arm.body, way, &mut inner);
                        if end.is_some() {
                            return end;
                        }
                        break;
                    }
                }
                StatementKind::Call(call) => {
                    if let Some(end) = self.statement(call, way, names) {
                        return Some(end);
                    }
                }
                StatementKind::Pass => {}
            }
        }
        None
    }

    fn statement(&mut self, call: &ast::Call, way: &mut Way<'_>, names: &Names) -> Option<End> {
        let ast::Call { name, arguments, .. } = call;
        let word = |expression: &Expression| match &expression.kind {
            ExpressionKind::Name(name) => name.clone(),
            ExpressionKind::Literal(ast::Literal::Text(text)) => text.clone(),
            other => panic!("{other:?}"),
        };
        match (name.text.as_str(), arguments.as_slice()) {
            ("send", _) => return Some(End::Send),
            ("drop", _) => return Some(End::Drop),
            ("reject", [code, ..]) => return Some(End::Reject(Code::from_name(&word(code)).unwrap())),
            ("answer", fields) => {
                let layout = way.method.response.clone();
                let mut answer = Message::new(&layout, vec![0; usize::from(layout.flat_len)]);
                for pair in fields.chunks(2) {
                    if let Some(value) = self.value(&pair[1], way, names) {
                        answer.set(&word(&pair[0]), &value);
                    }
                }
                way.answer = Some(answer);
                return Some(End::Answer);
            }
            ("set", [target, field, value]) if word(target) == "rpc" => {
                let value = self.value(value, way, names);
                if let Some(value) = value {
                    way.message().set(&word(field), &value);
                }
            }
            ("delete", [target, field]) if word(target) == "rpc" => way.message().zero(&word(field)),
            ("set", [table, key @ .., value]) => {
                let (key, value) = (self.key(&word(table), key, way, names), self.value(value, way, names));
                if let (Some(key), Some(value)) = (key, value) {
                    self.set(&word(table), &key, &value);
                }
            }
            ("delete", [table, key @ ..]) => {
                if let Some(key) = self.key(&word(table), key, way, names) {
                    self.tables.get_mut(&word(table)).unwrap().remove(&key);
                }
            }
            ("delay", [time]) => {
                way.delay_ns = way.delay_ns.saturating_add(self.ns(time, way, names).unwrap_or(0))
            }
            ("timeout", [time]) => {
                let ns = self.ns(time, way, names);
                way.timeout_ns = way.timeout_ns.into_iter().chain(ns).min();
            }
            ("route", [group]) => way.route = Some((word(group), None)),
            ("route", [group, index]) => {
                if let Some(index) = self.ns(index, way, names) {
                    way.route = Some((word(group), Some(index)));
                }
            }
            ("mirror" | "eject", _) => {}
            // What is logged has been evaluated.
            ("log", values) => values.iter().for_each(|value| drop(self.value(value, way, names))),
            ("add", _) => {
                self.function(call, way, names);
            }
            other => panic!("{other:?}"),
        }
        None
    }

    fn ns(&mut self, time: &Expression, way: &mut Way<'_>, names: &Names) -> Option<u64> {
        match self.value(time, way, names)? {
            Value::Int(ns, _) => u64::try_from(ns).ok(),
            other => panic!("{other:?}"),
        }
    }
}

impl Way<'_> {
    /// The one at hand.
    fn message(&mut self) -> &mut Message {
        match &mut self.response {
            Some((_, message)) => message,
            None => &mut self.request,
        }
    }
}

fn in_scope(scope: &str, method: &Method) -> bool {
    let path = method.path.trim_start_matches('/');
    let service = path.split('/').next().unwrap();
    match scope.strip_suffix('*') {
        Some(prefix) => path.starts_with(prefix) || method.name.starts_with(prefix),
        None => scope == path || scope == method.name || scope == service,
    }
}

fn matches(pattern: &Pattern, value: &Maybe, names: &mut Names) -> bool {
    let Some(known) = value else { return matches!(pattern.kind, PatternKind::Any | PatternKind::Absent) };
    let constant = |literal: &ast::Literal| value::literal(literal);
    match &pattern.kind {
        PatternKind::Any => true,
        PatternKind::Absent => false,
        PatternKind::Present(name) => {
            if let Some(name) = name {
                names.insert(name.text.clone(), value.clone());
            }
            true
        }
        PatternKind::Name(name) => match known {
            Value::Name(known, _) => known == name,
            Value::Method(path) => path.ends_with(&format!("/{name}")),
            other => panic!("{other:?}"),
        },
        PatternKind::Literal(literal) => match (known, constant(literal)) {
            (Value::Method(known) | Value::Service(known), Value::Text(text)) => *known.as_bytes() == *text,
            (Value::Text(known), Value::Text(text)) => {
                let network = std::str::from_utf8(&text).ok().and_then(notation::cidr);
                match network {
                    Some((address, bits)) if known.len() == 16 => same_network(known, &address, bits),
                    _ => *known == text,
                }
            }
            (Value::Int(known, _), Value::Int(wanted, _)) => *known == wanted,
            (Value::Float(known), Value::Int(wanted, _)) => *known == wanted as f64,
            (Value::Float(known), Value::Float(wanted)) => known.to_bits() == wanted.to_bits(),
            (known, wanted) => *known == wanted,
        },
        PatternKind::Prefix(prefix) => match known {
            Value::Text(text) => text.starts_with(prefix.as_bytes()),
            Value::Service(known) => known.starts_with(prefix),
            Value::Method(path) => {
                path.starts_with(prefix) || path.split('/').next_back().unwrap().starts_with(prefix)
            }
            other => panic!("{other:?}"),
        },
        PatternKind::Range(from, to) => match (known, constant(from), constant(to)) {
            (Value::Int(known, _), Value::Int(from, _), Value::Int(to, _)) => from <= *known && *known < to,
            (Value::Float(known), Value::Float(from), Value::Float(to)) => from <= *known && *known < to,
            other => panic!("{other:?}"),
        },
    }
}

fn same_network(address: &[u8], network: &[u8; 16], bits: u8) -> bool {
    (0..usize::from(bits)).all(|bit| {
        let of = |bytes: &[u8]| bytes[bit / 8] >> (7 - bit % 8) & 1;
        of(address) == of(network)
    })
}
