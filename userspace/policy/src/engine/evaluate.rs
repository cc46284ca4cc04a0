//! The walk over a policy's steps that judges one call by one element.

use super::answer::AnswerBlock;
use super::code::{List, Op, Probe, Share, Source, Step, Table, Terms};
use super::crypt::{Cipher, Keyring};
use super::log::Log;
use super::outcome::{Eject, Outcome, Route, Verdict};
use super::random::Random;
use super::retry::Retries;
use super::shape::{Shape, Value};
use super::tables::{Key, Tables};
use super::view::{Slot, View};
use crate::hash::Hasher;
use crate::ir::FieldRef;
use crate::operations;
use crate::rate;
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

/// What a policy remembers from call to call, and the room that judging takes.
#[derive(Clone, Debug)]
pub struct Memory {
    pub tables: Tables,
    pub key: Key,
    pub random: Random,
    pub keyring: Keyring,
    pub log: Log,
    pub retries: Retries,
    pub answer: AnswerBlock,
}

/// Everything at hand while one call is judged.
pub struct Machine<'a, 'c> {
    pub view: View<'a, 'c>,
    pub keys: &'a [Option<Cipher>],
    pub memory: &'a mut Memory,
    pub outcome: &'a mut Outcome,
    /// The element at hand.
    pub element: usize,
}

impl Machine<'_, '_> {
    /// Runs an element from a step on.
    pub fn run(&mut self, mut at: u32) -> End {
        let code = self.view.code;
        while let Some(step) = code.steps.get(at as usize) {
            at += 1;
            match *step {
                Step::Let { into, ref op } => {
                    let slot = self.operate(op).map_or(Slot::Absent, Slot::Number);
                    self.view.set_slot(into, slot);
                }
                Step::Copy { into, room, source } => {
                    let slot = self.copy(source, room).unwrap_or_default();
                    self.view.set_slot(into, slot);
                }
                Step::Fetch { into, room, table, key } => {
                    let slot = self.fetch(table, key, room).unwrap_or_default();
                    self.view.set_slot(into, slot);
                }
                Step::Ask { into, authoriser } => return End::Ask { authoriser, next: at, into },
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
                    if self.build_key(key).is_some() {
                        self.memory.tables.remove(table.into(), self.memory.key.words());
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
                    self.memory.log.line(self.element, self.view.call.method, values);
                }
                Step::Send => return End::Send,
                Step::Drop => return End::Drop,
                Step::Reject { code, why } => return End::Reject(code, why),
                Step::Answer(fields) => return End::Answer(fields),
                Step::Retry { max, budget_ppm } => {
                    let attempt = self.view.response.as_ref().map_or(u32::MAX, |response| response.attempt);
                    let again = attempt <= max && self.memory.retries.allow(budget_ppm);
                    return if again { End::Retry } else { End::Send };
                }
            }
        }
        End::Drop
    }

    /// Notes how an element ended; says whether that ends the call's way through the chain.
    #[inline]
    pub fn ends(&mut self, end: End, audit: bool) -> bool {
        end != End::Send && self.is_kept(end, audit)
    }

    fn is_kept(&mut self, end: End, audit: bool) -> bool {
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
            End::Ask { authoriser, .. } => Verdict::Ask(authoriser),
        };
        self.outcome.verdict = verdict;
        self.outcome.element = Some(self.element);
        true
    }

    fn build_answer(&mut self, fields: List) {
        let (length, layout) = self.view.group.answer;
        self.memory.answer.reset(length.into(), layout);
        for (field, value) in fields.of(&self.view.code.answers) {
            let place = self.view.group.response.get(usize::from(*field)).copied().flatten();
            if let (Some(place), Some(value)) = (place, self.view.value(*value))
                && let Some(bytes) = place.bytes_mut(self.memory.answer.flat_mut())
            {
                place.shape.write(value, bytes);
            }
        }
    }

    /// What an operation gives.
    #[inline]
    fn operate(&mut self, op: &Op) -> Option<u64> {
        let view = &self.view;
        match *op {
            Op::Lookup { table, key } => {
                self.build_key(key)?;
                match self.memory.tables.get(table.into(), self.memory.key.words())? {
                    Value::Number(number) => Some(number),
                    Value::Bytes(_) => None,
                }
            }
            Op::Add { table, key, amount, number } => {
                let amount = view.number(amount)?;
                let Table { sum, counter } = *view.code.tables.get(usize::from(table))?;
                self.build_key(key)?;
                let next = |old: Option<u64>| Some(sum.add(old.unwrap_or(0), amount, number));
                let sum = self.memory.tables.update(table.into(), self.memory.key.words(), next);
                sum.filter(|_| !counter)
            }
            Op::Take { table, key, ref terms } => {
                let Terms { count, cost, burst } = *terms;
                let count = view.number(count)?;
                let (cost, burst) = (share(view, cost, count)?, share(view, burst, count)?);
                if count == 0 {
                    return Some(0);
                }
                let now = view.call.now_ns;
                self.build_key(key)?;
                let take = |old: Option<u64>| operations::take(old.unwrap_or(0), now, cost, burst);
                let taken = self.memory.tables.update(table.into(), self.memory.key.words(), take);
                Some(taken.is_some().into())
            }
            Op::Arithmetic { op, number, a, b } => {
                Some(operations::arithmetic(op, number, view.number(a)?, view.number(b)?))
            }
            Op::Compare { op, number, a, b } => {
                Some(operations::compare(op, number, view.number(a)?, view.number(b)?).into())
            }
            Op::Same { a, b } => Some((view.value(a)? == view.value(b)?).into()),
            Op::StartsWith { text, prefix } => {
                Some(view.bytes(text)?.starts_with(prefix.of(&view.code.bytes)).into())
            }
            Op::Not(a) => Some((view.number(a)? == 0).into()),
            Op::And(a, b) => match (view.number(a), view.number(b)) {
                (Some(0), _) | (_, Some(0)) => Some(0),
                (Some(_), Some(_)) => Some(1),
                _ => None,
            },
            Op::Or(a, b) => match (view.number(a), view.number(b)) {
                (Some(0), Some(0)) => Some(0),
                (Some(1..), _) | (_, Some(1..)) => Some(1),
                _ => None,
            },
            Op::Convert { from, to, value } => Some(operations::convert(from, to, view.number(value)?)),
            Op::Narrow { number, value } => Some(operations::narrow(number, view.number(value)?)),
            Op::Hash(values) => {
                let mut hasher = Hasher::default();
                for source in values.of(&view.code.sources) {
                    match view.value(*source)? {
                        Value::Number(number) => hasher.word(number),
                        Value::Bytes(bytes) => hasher.bytes(bytes),
                    }
                }
                Some(hasher.finish())
            }
            Op::Random => Some(self.memory.random.next_u32().into()),
            Op::Chance(ppm) => Some(self.memory.random.chance(view.number(ppm)?).into()),
            Op::Backends(selector) => {
                Some(view.call.backends.get(usize::from(selector)).copied().unwrap_or(0).into())
            }
            Op::Crypt { field, key, decrypt } => self.crypt(field, key, decrypt).map(u64::from),
        }
    }

    /// What a value is now; a text that can change goes to `room` in the arena.
    fn copy(&mut self, source: Source, room: u32) -> Option<Slot> {
        let View { group, call, response, slots, arena, .. } = &mut self.view;
        let (places, message, field) = match source {
            Source::Slot(slot) => return slots.get(usize::from(slot)).copied(),
            Source::Request(field) => (&group.request, &*call.flat, field),
            Source::Response(field) => (&group.response, &*response.as_ref()?.flat, field),
            source => {
                return Some(match self.view.value(source)? {
                    Value::Number(number) => Slot::Number(number),
                    Value::Bytes(_) => Slot::Alias(source),
                });
            }
        };
        match (*places.get(usize::from(field))?)?.read(message)? {
            Value::Number(number) => Some(Slot::Number(number)),
            Value::Bytes(text) => keep(arena, room, text),
        }
    }

    /// A text that a table has, in `room` in the arena: the table can change.
    fn fetch(&mut self, table: u16, key: List, room: u32) -> Option<Slot> {
        self.build_key(key)?;
        match self.memory.tables.get(table.into(), self.memory.key.words())? {
            Value::Number(number) => Some(Slot::Number(number)),
            Value::Bytes(text) => keep(self.view.arena, room, text),
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

    /// Puts a key together; `None` where a part of it is absent, or does not fit.
    #[inline]
    fn build_key(&mut self, parts: List) -> Option<()> {
        let key = &mut self.memory.key;
        key.clear();
        parts.of(&self.view.code.parts).iter().try_for_each(|(shape, source)| {
            match self.view.value(*source)? {
                Value::Number(number) => key.push_number(*shape, number),
                Value::Bytes(bytes) => key.push_bytes(*shape, bytes),
            }
        })
    }

    fn set(&mut self, table: u16, key: List, value: Source) -> Option<()> {
        self.build_key(key)?;
        let value = self.view.value(value)?;
        self.memory.tables.set(table.into(), self.memory.key.words(), value);
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
        let now_ns = self.view.call.now_ns;
        let (place, bytes) = self.view.field(field)?;
        let Shape::Inline(_) = place.shape else { return None };
        let (length, room) = bytes.split_first_mut()?;
        let known = Some(usize::from(*length)).filter(|known| *known <= room.len())?;
        let Some(cipher) = self.keys.get(usize::from(key))? else { return Some(false) };
        let now = match decrypt {
            true => self.memory.keyring.decrypt(cipher, room, known),
            false => self.memory.keyring.encrypt(cipher, now_ns, room, known),
        };
        let Some(now) = now else { return Some(false) };
        room.get_mut(now..)?.fill(0);
        *length = u8::try_from(now).ok()?;
        Some(true)
    }
}

/// Some calls' share of a bucket's period; 0 where nothing is to get through.
#[inline]
fn share(view: &View<'_, '_>, share: Share, count: u64) -> Option<u64> {
    match share {
        Share::Known(share) => Some(share),
        Share::Of { calls, period_ns } => {
            Some(rate::share(view.number(calls)?, period_ns, count).unwrap_or(0))
        }
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
