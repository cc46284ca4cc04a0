//! The walk over a policy's steps that judges one call by one element.

use super::answer::AnswerBlock;
use super::code::{Group, List, Op, Probe, Source, Step, Terms};
use super::crypt::{Cipher, Nonces};
use super::log::Log;
use super::operations;
use super::outcome::{Eject, Outcome, Route, Verdict};
use super::random::Random;
use super::retry::Retries;
use super::shape::{Shape, Value};
use super::tables::{Tables, Updated};
use super::view::{Slot, View};
use crate::hash::Hasher;
use crate::ir::FieldRef;
use tollfree_wire::{Code as Status, Reason};

/// How an element ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Send,
    Drop,
    Reject(Status, Option<u32>),
    Answer(List),
    Retry,
    /// `session_tracker()` found that the session had idled.
    Idle,
    /// Goes on at this step when this authoriser has said what is to be kept in this slot.
    Ask {
        authoriser: u16,
        next: u32,
        into: u16,
    },
}

/// Everything at hand while one call is judged.
pub struct Machine<'a> {
    pub view: View<'a>,
    pub group: &'a Group,
    pub keys: &'a [Option<Cipher>],
    pub tables: &'a mut Tables,
    /// A key's bytes, as its table has them.
    pub key: &'a mut [u8],
    /// A value's bytes, as its table has them; and decrypted texts.
    pub value: &'a mut [u8],
    pub random: &'a mut Random,
    pub nonces: &'a mut Nonces,
    pub log: &'a mut Log,
    pub retries: &'a mut Retries,
    pub answer: &'a mut AnswerBlock,
    pub outcome: Outcome,
    /// The element at hand.
    pub element: usize,
}

impl Machine<'_> {
    /// Runs an element from a step on.
    pub fn run(&mut self, mut at: u32) -> End {
        let code = self.view.code;
        while let Some(step) = code.steps.get(at as usize) {
            at += 1;
            match *step {
                Step::Let { into, room, op } => {
                    if let Op::Ask(authoriser) = op {
                        return End::Ask { authoriser, next: at, into };
                    }
                    let slot = self.operate(op, room).unwrap_or_default();
                    self.set_slot(into, slot);
                }
                Step::Switch { subject, tests } => {
                    let value = self.view.value(subject);
                    let hit = tests.of(&code.tests).iter().find(|test| self.holds(test.probe, value));
                    match hit {
                        Some(test) => at = test.target,
                        // Only a table that was tampered with can hold a value that is no case.
                        None => return End::Drop,
                    }
                }
                Step::Guard { condition, otherwise } => {
                    if self.view.number(condition) != Some(1) {
                        at = otherwise;
                    }
                }
                Step::Jump(target) => at = target,
                Step::Set { table, key, value } => {
                    self.set(table, key, value);
                }
                Step::Delete { table, key } => {
                    if let Some((size, _)) = self.build_key(table, key) {
                        self.tables.remove(table.into(), self.key.get(..size).unwrap_or_default());
                    }
                }
                Step::SetField { field, value } => {
                    self.set_field(field, value);
                }
                Step::ZeroField(field) => {
                    if let Some((_, bytes)) = self.view.field(field) {
                        bytes.fill(0);
                    }
                }
                Step::Delay(ns) => {
                    let ns = self.view.number(ns).unwrap_or(0);
                    self.outcome.delay_ns = self.outcome.delay_ns.saturating_add(ns);
                }
                Step::Timeout(ns) => {
                    let ns = self.view.number(ns);
                    self.outcome.timeout_ns = self.outcome.timeout_ns.into_iter().chain(ns).min();
                }
                Step::Route { selector, index } => {
                    let index = index.map(|index| self.view.number(index));
                    if index != Some(None) {
                        self.outcome.route =
                            Some(Route { selector: selector.into(), index: index.flatten() });
                    }
                }
                Step::Mirror(selector) => {
                    self.outcome.mirror |= 1u64.checked_shl(selector.into()).unwrap_or(0);
                }
                Step::Eject { duration, max_ppm } => {
                    if let (Some(duration_ns), Some(max_ppm)) =
                        (self.view.number(duration), self.view.number(max_ppm))
                    {
                        self.outcome.eject = Some(Eject { duration_ns, max_ppm });
                    }
                }
                Step::Log(values) => {
                    let values = values.of(&code.logged).iter();
                    let values = values.map(|(source, kind)| (self.view.value(*source), kind));
                    self.log.line(self.element, self.view.method, values);
                }
                Step::Send => return End::Send,
                Step::Drop => return End::Drop,
                Step::Reject { code, why } => return End::Reject(code, why),
                Step::Answer(fields) => return End::Answer(fields),
                Step::Retry { max, budget_ppm } => {
                    let attempt = self.view.answered.map_or(u32::MAX, |answered| answered.attempt);
                    let again = attempt <= max && self.retries.allow(budget_ppm);
                    return if again { End::Retry } else { End::Send };
                }
            }
        }
        End::Drop
    }

    /// Notes how an element ended; says whether that ends the call's way through the chain.
    pub fn ends(&mut self, end: End, audit: bool) -> bool {
        let verdict = match end {
            End::Send => return false,
            End::Drop | End::Reject(..) | End::Idle if audit => {
                self.outcome.audited = self.outcome.audited.saturating_add(1);
                return false;
            }
            End::Drop => Verdict::Drop(Reason::PolicyDrop),
            End::Reject(code, why) => {
                let why = why.and_then(|why| self.view.code.whys.get(why as usize));
                self.outcome.why = why.cloned();
                Verdict::Reject(code, Reason::PolicyReject)
            }
            End::Idle => Verdict::Reject(Status::Unauthenticated, Reason::SessionIdle),
            End::Answer(fields) => {
                self.build_answer(fields);
                Verdict::Answer
            }
            End::Retry => Verdict::Retry,
            End::Ask { authoriser, .. } => Verdict::Ask(authoriser.into()),
        };
        self.outcome.verdict = verdict;
        self.outcome.element = Some(self.element);
        true
    }

    fn build_answer(&mut self, fields: List) {
        let (length, layout) = self.group.answer;
        self.answer.reset(length.into(), layout);
        for (field, value) in fields.of(&self.view.code.answers) {
            let place = self.view.response_places.get(usize::from(*field)).copied().flatten();
            if let (Some(place), Some(value)) = (place, self.view.value(*value))
                && let Some(bytes) = place.bytes_mut(self.answer.flat_mut())
            {
                place.shape.write(value, bytes);
            }
        }
    }

    pub fn set_slot(&mut self, into: u16, slot: Slot) {
        if let Some(place) = self.view.slots.get_mut(usize::from(into)) {
            *place = slot;
        }
    }

    /// What an operation gives. Text goes to `room` in the arena.
    fn operate(&mut self, op: Op, room: u32) -> Option<Slot> {
        let view = &mut self.view;
        let truth = |value: bool| Some(Slot::Number(value.into()));
        match op {
            Op::Copy(source) => match source {
                Source::Slot(slot) => view.slots.get(usize::from(slot)).copied(),
                Source::Request(_) | Source::Response(_) => {
                    let mut text = [0; 255];
                    let length = match view.value(source)? {
                        Value::Number(number) => return Some(Slot::Number(number)),
                        Value::Bytes(bytes) => {
                            text.get_mut(..bytes.len())?.copy_from_slice(bytes);
                            bytes.len()
                        }
                    };
                    keep(view.arena, room, text.get(..length)?)
                }
                source => Some(match view.value(source)? {
                    Value::Number(number) => Slot::Number(number),
                    Value::Bytes(_) => Slot::Alias(source),
                }),
            },
            Op::Lookup { table, key } => {
                let (size, shape) = self.build_key(table, key)?;
                let bytes = self.tables.get(table.into(), self.key.get(..size)?)?;
                match shape.read(bytes)? {
                    Value::Number(number) => Some(Slot::Number(number)),
                    Value::Bytes(bytes) => keep(self.view.arena, room, bytes),
                }
            }
            Op::Add { table, key, amount, number } => {
                let amount = view.number(amount)?;
                let (size, shape) = self.build_key(table, key)?;
                let spec = self.view.code.tables.get(usize::from(table))?;
                let sum = |old: Option<u64>| Some(spec.sum.add(old.unwrap_or(0), amount, number));
                let key = self.key.get(..size)?;
                match self.tables.update(table.into(), key, shape, sum) {
                    Updated::To(sum) if !spec.counter => Some(Slot::Number(sum)),
                    _ => None,
                }
            }
            Op::Take { table, key, terms: Terms { count, period_ns, burst, cost } } => {
                let (count, burst, cost) = (view.number(count)?, view.number(burst)?, view.number(cost)?);
                let now = view.now_ns;
                let (size, shape) = self.build_key(table, key)?;
                let key = self.key.get(..size)?;
                let take =
                    |old: Option<u64>| operations::take(old.unwrap_or(0), now, cost, burst, count, period_ns);
                truth(matches!(self.tables.update(table.into(), key, shape, take), Updated::To(_)))
            }
            Op::Arithmetic { op, number, a, b } => {
                Some(Slot::Number(operations::arithmetic(op, number, view.number(a)?, view.number(b)?)))
            }
            Op::Compare { op, number, a, b } => {
                truth(operations::compare(op, number, view.number(a)?, view.number(b)?))
            }
            Op::Same { a, b } => truth(view.value(a)? == view.value(b)?),
            Op::StartsWith { text, prefix } => {
                truth(view.bytes(text)?.starts_with(prefix.of(&view.code.bytes)))
            }
            Op::Not(a) => truth(view.number(a)? == 0),
            Op::And(a, b) => match (view.number(a), view.number(b)) {
                (Some(0), _) | (_, Some(0)) => truth(false),
                (Some(_), Some(_)) => truth(true),
                _ => None,
            },
            Op::Or(a, b) => match (view.number(a), view.number(b)) {
                (Some(0), Some(0)) => truth(false),
                (Some(1..), _) | (_, Some(1..)) => truth(true),
                _ => None,
            },
            Op::Convert { from, to, value } => {
                Some(Slot::Number(operations::convert(from, to, view.number(value)?)))
            }
            Op::Narrow { number, value } => {
                Some(Slot::Number(operations::narrow(number, view.number(value)?)))
            }
            Op::Hash(values) => {
                let mut hasher = Hasher::default();
                for source in values.of(&view.code.sources) {
                    match view.value(*source)? {
                        Value::Number(number) => hasher.word(number),
                        Value::Bytes(bytes) => hasher.bytes(bytes),
                    }
                }
                Some(Slot::Number(hasher.finish()))
            }
            Op::Random => Some(Slot::Number(self.random.next_u32().into())),
            Op::Chance(ppm) => truth(self.random.chance(view.number(ppm)?)),
            Op::Backends(selector) => {
                Some(Slot::Number(view.backends.get(usize::from(selector)).copied().unwrap_or(0).into()))
            }
            // `run` has paused.
            Op::Ask(_) => None,
            Op::Crypt { field, key, decrypt } => truth(self.crypt(field, key, decrypt)?),
        }
    }

    fn holds(&self, probe: Probe, value: Option<Value<'_>>) -> bool {
        let code = self.view.code;
        match (probe, value) {
            (Probe::Any, _) | (Probe::Absent, None) | (Probe::Present, Some(_)) => true,
            (Probe::Number(wanted), Some(Value::Number(number))) => wanted == number,
            (Probe::OneOf(numbers), Some(Value::Number(number))) => {
                numbers.of(&code.numbers).binary_search(&number).is_ok()
            }
            (Probe::Range { number: kind, from, to }, Some(Value::Number(number))) => {
                use crate::ir::Comparison::{GreaterEqual, Less};
                operations::compare(GreaterEqual, kind, number, from)
                    && operations::compare(Less, kind, number, to)
            }
            (Probe::Bytes(wanted), Some(Value::Bytes(bytes))) => wanted.of(&code.bytes) == bytes,
            (Probe::Prefix(prefix), Some(Value::Bytes(bytes))) => bytes.starts_with(prefix.of(&code.bytes)),
            (Probe::Cidr { address, bits }, Some(Value::Bytes(bytes))) => {
                in_network(address.of(&code.bytes), bits, bytes)
            }
            _ => false,
        }
    }

    /// Writes a key as its table has it; gives its size, and the shape of the table's values.
    #[inline]
    fn build_key(&mut self, table: u16, sources: List) -> Option<(usize, Shape)> {
        let code = self.view.code;
        let table = code.tables.get(usize::from(table))?;
        let mut rest = self.key.get_mut(..table.key_size)?;
        for (shape, source) in table.parts.iter().zip(sources.of(&code.sources)) {
            let (part, behind) = rest.split_at_mut_checked(shape.size())?;
            if !shape.write(self.view.value(*source)?, part) {
                return None;
            }
            rest = behind;
        }
        // A cell's key, which nothing has written.
        rest.fill(0);
        Some((table.key_size, table.value))
    }

    fn set(&mut self, table: u16, key: List, value: Source) -> Option<()> {
        let (size, shape) = self.build_key(table, key)?;
        let bytes = self.value.get_mut(..shape.size())?;
        if shape.write(self.view.value(value)?, bytes) {
            self.tables.set(table.into(), self.key.get(..size)?, bytes);
        }
        Some(())
    }

    fn set_field(&mut self, field: FieldRef, value: Source) -> Option<()> {
        let mut text = [0; 255];
        let value = match self.view.value(value)? {
            Value::Number(number) => Value::Number(number),
            Value::Bytes(bytes) => {
                let text = text.get_mut(..bytes.len())?;
                text.copy_from_slice(bytes);
                Value::Bytes(text)
            }
        };
        let (place, bytes) = self.view.field(field)?;
        place.shape.write(value, bytes);
        Some(())
    }

    /// Whether it was possible; `None` where there is no such field.
    fn crypt(&mut self, field: FieldRef, key: u16, decrypt: bool) -> Option<bool> {
        let (place, bytes) = self.view.field(field)?;
        let Shape::Inline(_) = place.shape else { return None };
        let (length, room) = bytes.split_first_mut()?;
        let known = Some(usize::from(*length)).filter(|known| *known <= room.len())?;
        let Some(cipher) = self.keys.get(usize::from(key))? else { return Some(false) };
        let now = match decrypt {
            true => cipher.decrypt(room, known, self.value),
            false => cipher.encrypt(self.nonces, room, known),
        };
        let Some(now) = now else { return Some(false) };
        room.get_mut(now..)?.fill(0);
        *length = u8::try_from(now).ok()?;
        Some(true)
    }
}

/// Keeps a text in the arena.
fn keep(arena: &mut [u8], room: u32, text: &[u8]) -> Option<Slot> {
    let at = room as usize;
    arena.get_mut(at..at + text.len())?.copy_from_slice(text);
    Some(Slot::Text { at: room, len: u8::try_from(text.len()).ok()? })
}

/// Whether the first bits of both are the same.
fn in_network(network: &[u8], bits: u8, address: &[u8]) -> bool {
    let (Ok(network), Ok(address)) = (network.try_into(), address.try_into()) else { return false };
    let differ = u128::from_be_bytes(network) ^ u128::from_be_bytes(address);
    differ.leading_zeros() >= bits.into()
}
