//! From a policy's typed form to the engine's steps.

use super::code::{
    Code, Element, Group, Handler, List, Method, Op, Probe, Share, Source, Step, Table, Terms, Test,
};
use super::shape::{Place, Shape, Sum};
use super::tables::words_of;
use crate::ir::{
    self, Action, Body, Constant, Effect, Exit, FieldRef, Operand, Pattern, PeerValue, Policy, Statement,
};
use crate::rate;
use crate::table::{TableKind, TableSpec};

/// The longest text that a field or a table can have, in bytes.
const TEXT_MAX: usize = 255;

/// The steps of a policy. Tables of `shared` note their writes.
pub fn compile(policy: &Policy, groups: &[ir::Group], shared: &[usize]) -> Code {
    let Policy {
        side: _,
        elements,
        tables,
        fields: _,
        response_fields: _,
        peer_names,
        metadata,
        selectors,
        authorisers,
        keys,
    } = policy;
    let mut compiler = Compiler { tables, code: Code::default(), arena: 0, in_response: false };
    for element in elements {
        compiler.element(element);
    }
    let Compiler { mut code, .. } = compiler;
    let table =
        |spec: &TableSpec| Table { sum: Sum::of(&spec.value), counter: spec.kind == TableKind::Counter };
    code.tables = tables.iter().map(table).collect();
    code.sizes.key = tables.iter().map(|spec| words_of(&Shape::of_key(&spec.key))).max().unwrap_or(0);
    code.specs = tables.clone().into();
    code.shared = shared.to_vec();
    code.peer_names = peer_names.clone();
    code.metadata = metadata.clone();
    code.selectors = selectors.clone();
    code.authorisers = authorisers.clone();
    code.keys = keys.clone();
    code.groups = groups.iter().map(|group| group_of(group, &code.elements)).collect();
    let mut methods: Vec<(u32, Method)> = (0..)
        .zip(groups)
        .flat_map(|(number, group)| {
            group.methods.iter().map(move |method| (method.id, method_of(method, number)))
        })
        .collect();
    methods.sort_by_key(|(id, _)| *id);
    (code.method_ids, code.methods) = methods.into_iter().unzip();
    code
}

fn method_of(method: &ir::MethodLayouts, group: u32) -> Method {
    let sorted = |layouts: &[u32]| {
        let mut layouts = layouts.to_vec();
        layouts.sort_unstable();
        layouts
    };
    Method {
        layout: method.current,
        group,
        layouts: sorted(&method.fingerprints),
        response_layouts: sorted(&method.response_fingerprints),
    }
}

fn group_of(group: &ir::Group, elements: &[Element]) -> Group {
    let places = |fields: &[Option<ir::FieldAt>]| {
        fields.iter().map(|field| field.as_ref().and_then(Place::of)).collect::<Vec<_>>()
    };
    let covered = |number: u32| group.covered.get(number as usize) == Some(&true);
    let all = || (0..).zip(elements).filter(|(number, _)| covered(*number));
    let requests = all().filter(|(_, element)| element.request.is_some()).map(|(number, _)| number);
    let responses = all().filter(|(_, element)| element.response.is_some()).map(|(number, _)| number);
    let mut responses: Vec<u32> = responses.collect();
    responses.reverse();
    Group {
        service: group.service,
        request: places(&group.fields),
        response: places(&group.response_fields),
        answer: group.response,
        requests: requests.collect(),
        responses,
    }
}

struct Compiler<'a> {
    tables: &'a [TableSpec],
    code: Code,
    /// Bytes of the arena that the handler at hand has taken.
    arena: usize,
    in_response: bool,
}

impl Compiler<'_> {
    fn element(&mut self, element: &ir::Element) {
        let ir::Element { name, span: _, methods: _, audit, request, response } = element;
        let request = request.as_ref().map(|body| match body {
            Body::SessionTracker(_) => Handler::SessionTracker,
            Body::Block(block) => Handler::Steps(self.handler(block)),
        });
        self.in_response = true;
        let response = response.as_ref().map(|block| self.handler(block));
        self.in_response = false;
        self.code.uses.response |= response.is_some();
        self.code.elements.push(Element { audit: *audit, request, response });
        self.code.names.push(name.clone());
    }

    fn handler(&mut self, block: &[Statement]) -> u32 {
        let start = self.here();
        self.arena = 0;
        self.block(block);
        // The checker lets a path end without an exit only where there is none at all. If another did, nothing would get
        // through.
        let ends = self.code.steps.iter().skip(start as usize).any(|step| {
            matches!(
                step,
                Step::Send | Step::Drop | Step::Reject { .. } | Step::Answer(_) | Step::Retry { .. }
            )
        });
        self.code.steps.push(if ends { Step::Drop } else { Step::Send });
        self.code.sizes.arena = self.code.sizes.arena.max(self.arena);
        start
    }

    fn here(&self) -> u32 {
        self.code.steps.len() as u32
    }

    fn block(&mut self, block: &[Statement]) {
        for statement in block {
            self.statement(&statement.action);
        }
    }

    fn statement(&mut self, action: &Action) {
        let step = match action {
            Action::Let { into, op } => self.keep(*into, op),
            Action::Match { subject, arms } => return self.arms(subject, arms),
            Action::Set { table, key, value } => {
                Step::Set { table: narrow(*table), key: self.key(*table, key), value: self.source(value) }
            }
            Action::Delete { table, key } => {
                Step::Delete { table: narrow(*table), key: self.key(*table, key) }
            }
            Action::SetField { field, value } => {
                self.changes(*field);
                match value {
                    Some(value) => Step::SetField { field: *field, value: self.source(value) },
                    None => Step::ZeroField(*field),
                }
            }
            Action::Effect(effect) => self.effect(effect),
            Action::Exit(exit) => self.exit(exit),
        };
        self.code.steps.push(step);
    }

    /// A switch; then each arm: its guard, which goes on with the tests of the arms behind it where it does not hold, its
    /// body, a jump behind the match.
    fn arms(&mut self, subject: &Operand, arms: &[ir::Arm]) {
        let subject = self.source(subject);
        let first = self.code.tests.len();
        // Guards and bodies can have tests of their own, so this match's come first, their targets later.
        let ranges: Vec<(usize, usize)> = arms
            .iter()
            .map(|arm| {
                let start = self.code.tests.len();
                for pattern in &arm.patterns {
                    let probe = self.probe(pattern);
                    self.code.tests.push(Test { probe, target: 0 });
                }
                (start, self.code.tests.len())
            })
            .collect();
        let end = self.code.tests.len();
        let list = |start: usize| List { at: start as u32, len: (end - start) as u32 };
        self.code.steps.push(Step::Switch { subject, tests: list(first) });
        let mut jumps = Vec::new();
        for (arm, (start, behind)) in arms.iter().zip(ranges) {
            let target = self.here();
            for test in self.code.tests.get_mut(start..behind).unwrap_or_default() {
                test.target = target;
            }
            if let Some(ir::Guard { statements, condition }) = &arm.guard {
                self.block(statements);
                let condition = self.source(condition);
                let guard = self.here();
                self.code.steps.push(Step::Jump(0));
                self.block(&arm.body);
                jumps.push(self.here());
                self.code.steps.push(Step::Jump(0));
                let otherwise = self.here();
                self.patch(guard, Step::Guard { condition, otherwise });
                self.code.steps.push(Step::Switch { subject, tests: list(behind) });
            } else {
                self.block(&arm.body);
                jumps.push(self.here());
                self.code.steps.push(Step::Jump(0));
            }
        }
        let behind = self.here();
        for jump in jumps {
            self.patch(jump, Step::Jump(behind));
        }
    }

    fn patch(&mut self, at: u32, step: Step) {
        if let Some(place) = self.code.steps.get_mut(at as usize) {
            *place = step;
        }
    }

    fn probe(&mut self, pattern: &Pattern) -> Probe {
        match pattern {
            Pattern::Any => Probe::Any,
            Pattern::Absent => Probe::Absent,
            Pattern::Present => Probe::Present,
            Pattern::Equal(Constant::Number(number)) => Probe::Number(*number),
            Pattern::Equal(Constant::Bytes(bytes)) => Probe::Bytes(self.bytes(bytes)),
            Pattern::OneOf(numbers) => {
                let at = self.code.numbers.len() as u32;
                self.code.numbers.extend(numbers);
                Probe::OneOf(List { at, len: numbers.len() as u32 })
            }
            Pattern::Prefix(prefix) => Probe::Prefix(self.bytes(prefix)),
            Pattern::Range { number, from, to } => Probe::Range { number: *number, from: *from, to: *to },
            Pattern::Cidr { address, bits } => Probe::Cidr { address: self.bytes(address), bits: *bits },
        }
    }

    fn keep(&mut self, into: usize, op: &ir::Op) -> Step {
        self.code.sizes.slots = self.code.sizes.slots.max(into + 1);
        let into = narrow(into);
        let op = match op {
            ir::Op::Copy(value) => {
                let room = if let Operand::Field(_) = value { self.room() } else { 0 };
                return Step::Copy { into, room, source: self.source(value) };
            }
            ir::Op::Ask(authoriser) => return Step::Ask { into, authoriser: narrow(*authoriser) },
            ir::Op::Lookup { table, key } => {
                let holds_numbers =
                    self.tables.get(*table).is_none_or(|spec| Shape::of_value(&spec.value).is_number());
                let (table, key) = (narrow(*table), self.key(*table, key));
                if !holds_numbers {
                    return Step::Fetch { into, room: self.room(), table, key };
                }
                Op::Lookup { table, key }
            }
            ir::Op::Add { table, key, amount, number } => Op::Add {
                table: narrow(*table),
                key: self.key(*table, key),
                amount: self.source(amount),
                number: *number,
            },
            ir::Op::Take { table, key, count, period_ns, burst, cost } => {
                let (count, period_ns) = (self.source(count), *period_ns);
                let mut share = |calls: &Operand| {
                    let calls = self.source(calls);
                    match (calls, count) {
                        (Source::Number(calls), Source::Number(count)) => {
                            // Nothing gets through at a count of 0.
                            Share::Known(rate::share(calls, period_ns, count).unwrap_or(0))
                        }
                        _ => Share::Of { calls, period_ns },
                    }
                };
                let terms = Terms { count, cost: share(cost), burst: share(burst) };
                Op::Take { table: narrow(*table), key: self.key(*table, key), terms }
            }
            ir::Op::Arithmetic { op, number, a, b } => {
                Op::Arithmetic { op: *op, number: *number, a: self.source(a), b: self.source(b) }
            }
            ir::Op::Compare { op, number, a, b } => {
                Op::Compare { op: *op, number: *number, a: self.source(a), b: self.source(b) }
            }
            ir::Op::Same { a, b } => Op::Same { a: self.source(a), b: self.source(b) },
            ir::Op::StartsWith { text, prefix } => {
                Op::StartsWith { text: self.source(text), prefix: self.bytes(prefix) }
            }
            ir::Op::Not(a) => Op::Not(self.source(a)),
            ir::Op::And(a, b) => Op::And(self.source(a), self.source(b)),
            ir::Op::Or(a, b) => Op::Or(self.source(a), self.source(b)),
            ir::Op::Convert { from, to, value } => {
                Op::Convert { from: *from, to: *to, value: self.source(value) }
            }
            ir::Op::Narrow { number, value } => Op::Narrow { number: *number, value: self.source(value) },
            ir::Op::Hash(values) => Op::Hash(self.sources(values)),
            ir::Op::Random => Op::Random,
            ir::Op::Chance(ppm) => Op::Chance(self.source(ppm)),
            ir::Op::Backends(selector) => Op::Backends(narrow(*selector)),
            ir::Op::Crypt { field, key, decrypt } => {
                self.changes(*field);
                Op::Crypt { field: *field, key: narrow(*key), decrypt: *decrypt }
            }
        };
        Step::Let { into, op }
    }

    /// A place in the arena for a text.
    fn room(&mut self) -> u32 {
        let room = self.arena as u32;
        self.arena += TEXT_MAX;
        room
    }

    fn key(&mut self, table: usize, operands: &[Operand]) -> List {
        let shapes = self.tables.get(table).map(|spec| Shape::of_key(&spec.key)).unwrap_or_default();
        let parts: Vec<_> =
            shapes.into_iter().zip(operands).map(|(shape, operand)| (shape, self.source(operand))).collect();
        let list = List { at: self.code.parts.len() as u32, len: parts.len() as u32 };
        self.code.parts.extend(parts);
        list
    }

    fn effect(&mut self, effect: &Effect) -> Step {
        match effect {
            Effect::Delay(ns) => Step::Delay(self.source(ns)),
            Effect::Timeout(ns) => Step::Timeout(self.source(ns)),
            Effect::Route { selector, index } => Step::Route {
                selector: narrow(*selector),
                index: index.as_ref().map(|index| self.source(index)),
            },
            Effect::Mirror { selector } => Step::Mirror(narrow(*selector)),
            Effect::Eject { duration, max_ppm } => {
                Step::Eject { duration: self.source(duration), max_ppm: self.source(max_ppm) }
            }
            Effect::Log(values) => {
                self.code.uses.logs = true;
                let values: Vec<_> =
                    values.iter().map(|(value, kind)| (self.source(value), kind.clone())).collect();
                let at = self.code.logged.len() as u32;
                let len = values.len() as u32;
                self.code.logged.extend(values);
                Step::Log(List { at, len })
            }
        }
    }

    fn exit(&mut self, exit: &Exit) -> Step {
        match exit {
            Exit::Send => Step::Send,
            Exit::Drop => Step::Drop,
            Exit::Reject(code, why) => {
                let why = why.as_ref().map(|why| {
                    self.code.whys.push(why.as_str().into());
                    self.code.whys.len() as u32 - 1
                });
                Step::Reject { code: *code, why }
            }
            Exit::Answer(fields) => {
                let fields: Vec<_> =
                    fields.iter().map(|(field, value)| (narrow(*field), self.source(value))).collect();
                let at = self.code.answers.len() as u32;
                let len = fields.len() as u32;
                self.code.answers.extend(fields);
                Step::Answer(List { at, len })
            }
            Exit::Retry { max, budget_ppm } => Step::Retry { max: *max, budget_ppm: *budget_ppm },
        }
    }

    fn changes(&mut self, field: FieldRef) {
        match field {
            FieldRef::Request(_) => self.code.uses.changes_request = true,
            FieldRef::Response(_) => self.code.uses.changes_response = true,
        }
    }

    fn sources(&mut self, operands: &[Operand]) -> List {
        let sources: Vec<Source> = operands.iter().map(|operand| self.source(operand)).collect();
        let at = self.code.sources.len() as u32;
        self.code.sources.extend(&sources);
        List { at, len: sources.len() as u32 }
    }

    fn source(&mut self, operand: &Operand) -> Source {
        match operand {
            Operand::Constant(Constant::Number(number)) => Source::Number(*number),
            Operand::Constant(Constant::Bytes(bytes)) => {
                let List { at, len } = self.bytes(bytes);
                Source::Bytes { at, len }
            }
            Operand::Slot(slot) => Source::Slot(narrow(*slot)),
            Operand::Field(FieldRef::Request(field)) => {
                self.code.uses.request_in_response |= self.in_response;
                Source::Request(narrow(*field))
            }
            Operand::Field(FieldRef::Response(field)) => Source::Response(narrow(*field)),
            Operand::Attribute(attribute) => Source::Attribute(*attribute),
            Operand::Peer(PeerValue::Identity) => Source::Identity,
            Operand::Peer(PeerValue::Namespace) => Source::Namespace,
            Operand::Peer(PeerValue::Address) => Source::Address,
            Operand::Peer(PeerValue::Named(name)) => Source::Named(narrow(*name)),
            Operand::Peer(PeerValue::Token) => Source::Token,
            Operand::Peer(PeerValue::Sessions) => Source::Sessions,
            Operand::Metadata(key) => Source::Metadata(narrow(*key)),
        }
    }

    fn bytes(&mut self, bytes: &[u8]) -> List {
        let at = self.code.bytes.len() as u32;
        self.code.bytes.extend(bytes);
        List { at, len: bytes.len() as u32 }
    }
}

/// A place in a list that a text of a policy can make: far below 65,536, which its length in bytes limits.
fn narrow(place: usize) -> u16 {
    u16::try_from(place).unwrap_or(u16::MAX)
}
