//! Operations and what they are about: registers, constants, keys, texts.

use super::super::code::{Code, Key, List, Share, Source, Step, Terms};
use super::super::program::SLOTS_MAX;
use super::super::registers::Register;
use super::super::shape::Shape;
use super::{Compiler, LOADS_MAX, TEXT_MAX, narrow};
use crate::ir::{self, Constant, FieldRef, Operand, PeerValue};
use crate::operations::{self, Order};
use crate::rate;
use crate::table::{TableKind, ValueType};

impl Compiler<'_> {
    /// The step that keeps what an operation gives, behind those that load what it is about.
    pub(super) fn keep(&mut self, slot: usize, op: &ir::Op) -> Step {
        let into = slot as Register;
        let is_truth = self.gives_truth(op);
        if let Some(place) = self.truth_slots.get_mut(slot) {
            *place = is_truth;
        }
        let step = match op {
            ir::Op::Copy(value) if self.is_text(value) => {
                let room = if let Operand::Field(_) = value { self.room() } else { 0 };
                let source = self.source(value);
                self.keeps_text(slot);
                return Step::Keep { into, room, source };
            }
            ir::Op::Copy(value) => match self.source(value) {
                Source::Register(from) => Step::Copy { into, from },
                source => Step::Load { into, source },
            },
            ir::Op::Lookup { table, key } => {
                let holds_numbers =
                    self.tables.get(*table).is_none_or(|spec| Shape::of_value(&spec.value).is_number());
                let (table, key) = (narrow(*table), self.key(*table, key));
                if !holds_numbers {
                    self.keeps_text(slot);
                    return Step::Fetch { into, room: self.room(), table, key };
                }
                Step::Lookup { into, table, key }
            }
            ir::Op::Add { table, key, amount, number } => {
                let spec = self.tables.get(*table);
                let sum = operations::sum(spec.map_or(&ValueType::U64, |spec| &spec.value), *number);
                let gives = spec.is_none_or(|spec| spec.kind != TableKind::Counter);
                let (amount, key) = (self.number(amount), self.key(*table, key));
                Step::Add { into, table: narrow(*table), key, amount, sum, gives }
            }
            ir::Op::Take { table, key, count, period_ns, burst, cost } => {
                let terms = Terms {
                    count: self.number(count),
                    cost: self.share(cost, *period_ns, count),
                    burst: self.share(burst, *period_ns, count),
                };
                Step::Take { into, table: narrow(*table), key: self.key(*table, key), terms }
            }
            ir::Op::Arithmetic { op, number, a, b } => {
                let function = operations::arithmetic(*op, *number);
                Step::Two { into, function, a: self.number(a), b: self.number(b) }
            }
            ir::Op::Compare { op, number, a, b } => {
                let holds = Order::new(*op, *number);
                Step::Compare { into, holds, a: self.number(a), b: self.number(b) }
            }
            ir::Op::Same { a, b } => Step::Same { into, a: self.source(a), b: self.source(b) },
            ir::Op::StartsWith { text, prefix } => {
                Step::StartsWith { into, text: self.source(text), prefix: self.bytes(prefix) }
            }
            ir::Op::Not(a) => Step::One { into, function: |a| u64::from(a == 0), a: self.number(a) },
            ir::Op::And(a, b) => Step::And { into, a: self.number(a), b: self.number(b) },
            ir::Op::Or(a, b) => Step::Or { into, a: self.number(a), b: self.number(b) },
            ir::Op::Convert { from, to, value } => {
                Step::One { into, function: operations::convert(*from, *to), a: self.number(value) }
            }
            ir::Op::Narrow { number, value } => {
                Step::One { into, function: operations::narrow(*number), a: self.number(value) }
            }
            ir::Op::Hash(values) => Step::Hash { into, values: self.sources(values) },
            ir::Op::Random => Step::Random { into },
            ir::Op::Chance(ppm) => Step::Chance { into, ppm: self.number(ppm) },
            ir::Op::Backends(selector) => Step::Backends { into, selector: narrow(*selector) },
            ir::Op::Ask(authoriser) => Step::Ask { into, authoriser: narrow(*authoriser) },
            ir::Op::Crypt { field, key, decrypt } => {
                self.changes(*field);
                Step::Crypt { into, field: *field, key: narrow(*key), decrypt: *decrypt }
            }
        };
        if let Some(is_text) = self.text_slots.get_mut(slot) {
            *is_text = false;
        }
        step
    }

    fn share(&mut self, calls: &Operand, period_ns: u64, count: &Operand) -> Share {
        match (calls, count) {
            (Operand::Constant(Constant::Number(calls)), Operand::Constant(Constant::Number(count))) => {
                // Nothing gets through at a count of 0.
                Share::Known(rate::share(*calls, period_ns, *count).unwrap_or(0))
            }
            _ => Share::Of { calls: self.number(calls), period_ns },
        }
    }

    /// Whether an operation gives nothing but true and false, or is absent.
    fn gives_truth(&self, op: &ir::Op) -> bool {
        match op {
            ir::Op::Compare { .. }
            | ir::Op::Same { .. }
            | ir::Op::StartsWith { .. }
            | ir::Op::Not(_)
            | ir::Op::And(..)
            | ir::Op::Or(..)
            | ir::Op::Take { .. }
            | ir::Op::Chance(_)
            | ir::Op::Ask(_)
            | ir::Op::Crypt { .. } => true,
            ir::Op::Lookup { table, .. } => {
                self.tables.get(*table).is_some_and(|spec| spec.value == ValueType::Bool)
            }
            ir::Op::Copy(value) => self.is_truth(value),
            _ => false,
        }
    }

    pub(super) fn is_truth(&self, operand: &Operand) -> bool {
        matches!(operand, Operand::Slot(slot) if self.truth_slots.get(*slot) == Some(&true))
    }

    fn keeps_text(&mut self, slot: usize) {
        self.code.sizes.texts = self.code.sizes.texts.max(slot + 1);
        if let Some(is_text) = self.text_slots.get_mut(slot) {
            *is_text = true;
        }
    }

    /// Whether a value is no number.
    pub(super) fn is_text(&self, operand: &Operand) -> bool {
        let is = |list: &[bool], at: usize| list.get(at).copied().unwrap_or(false);
        match operand {
            Operand::Constant(Constant::Number(_)) | Operand::Attribute(_) => false,
            Operand::Peer(PeerValue::Token | PeerValue::Sessions) => false,
            Operand::Constant(Constant::Bytes(_)) | Operand::Peer(_) | Operand::Metadata(_) => true,
            Operand::Slot(slot) => is(&self.text_slots, *slot),
            Operand::Field(FieldRef::Request(field)) => is(&self.text_fields, *field),
            Operand::Field(FieldRef::Response(field)) => is(&self.text_response_fields, *field),
        }
    }

    /// The register that has a number, which is loaded where it has none.
    pub(super) fn number(&mut self, operand: &Operand) -> Register {
        match self.source(operand) {
            Source::Register(register) => register,
            source => {
                debug_assert!(self.loads < LOADS_MAX, "the parser limits how deep matches are");
                let into = (SLOTS_MAX + self.loads.min(LOADS_MAX - 1)) as Register;
                self.loads += 1;
                self.code.steps.push(Step::Load { into, source });
                into
            }
        }
    }

    /// A register of its own, where there is one left.
    fn constant(&mut self, number: u64) -> Source {
        let Code { constants, numbers, .. } = &mut self.code;
        *self.constants.entry(number).or_insert_with(|| {
            let register = SLOTS_MAX + LOADS_MAX + constants.len();
            match Register::try_from(register) {
                Ok(register) => {
                    constants.push((register, number));
                    Source::Register(register)
                }
                Err(_) => Source::Constant(List::append(numbers, [number]).at),
            }
        })
    }

    /// A place in the arena for a text.
    fn room(&mut self) -> u32 {
        let room = self.arena as u32;
        self.arena += TEXT_MAX;
        room
    }

    pub(super) fn key(&mut self, table: usize, operands: &[Operand]) -> Key {
        let shapes = self.tables.get(table).map(|spec| Shape::of_key(&spec.key)).unwrap_or_default();
        let parts: Vec<_> =
            shapes.into_iter().zip(operands).map(|(shape, operand)| (shape, self.source(operand))).collect();
        match *parts {
            [] => Key::None,
            [(shape, source)] if shape.is_number() => Key::Number(shape, source),
            _ => Key::Parts(List::append(&mut self.code.parts, parts)),
        }
    }

    pub(super) fn sources(&mut self, operands: &[Operand]) -> List {
        let sources: Vec<Source> = operands.iter().map(|operand| self.source(operand)).collect();
        List::append(&mut self.code.sources, sources)
    }

    pub(super) fn source(&mut self, operand: &Operand) -> Source {
        match operand {
            Operand::Constant(Constant::Number(number)) => self.constant(*number),
            Operand::Constant(Constant::Bytes(bytes)) => Source::Bytes(self.bytes(bytes)),
            Operand::Slot(slot) if self.is_text(operand) => Source::Text(*slot as Register),
            Operand::Slot(slot) => Source::Register(*slot as Register),
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
            Operand::Metadata(key) => {
                self.code.uses.metadata_in_response |= self.in_response;
                Source::Metadata(narrow(*key))
            }
        }
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) -> List {
        List::append(&mut self.code.bytes, bytes.iter().copied())
    }
}
