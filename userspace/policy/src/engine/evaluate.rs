//! The walk over a policy's steps that judges one call by one element.

use super::answer::AnswerBlock;
use super::code::{List, Probe, Step};
use super::crypt::{Cipher, Nonces, Spare};
use super::log::Log;
use super::outcome::{Eject, Outcome, Route, Verdict};
use super::random::Random;
use super::registers::Register;
use super::retry::Retries;
use super::steps::{and, or};
use super::tables::{Key, Tables};
use super::view::View;
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
    /// Goes on at this step when this authoriser has said what is to be kept in this register.
    Ask {
        authoriser: u16,
        next: u32,
        into: Register,
    },
}

/// What a policy remembers from call to call, and the room that judging takes.
#[derive(Clone, Debug)]
pub struct Memory {
    pub tables: Tables,
    pub key: Key,
    pub random: Random,
    pub nonces: Nonces,
    pub spare: Spare,
    pub log: Log,
    pub retries: Retries,
    pub answer: AnswerBlock,
}

/// Everything at hand while one call is judged.
pub struct Machine<'a, 'c, 'r> {
    pub view: View<'a, 'c, 'r>,
    pub keys: &'a [Option<Cipher>],
    pub memory: &'a mut Memory,
    pub outcome: &'a mut Outcome,
    /// The element at hand.
    pub element: usize,
}

impl Machine<'_, '_, '_> {
    /// Runs an element from a step on.
    pub fn run(&mut self, mut at: u32) -> End {
        let code = self.view.code;
        while let Some(step) = code.steps.get(at as usize) {
            at += 1;
            match *step {
                Step::Load { into, ref source } => self.set(into, self.view.number_outside(source)),
                Step::Copy { into, from } => self.set(into, self.number(from)),
                Step::Keep { into, room, ref source } => self.view.keep(into, room, source),
                Step::Fetch { into, room, table, ref key } => self.fetch(into, room, table, key),
                Step::Lookup { into, table, ref key } => {
                    let number = self.lookup(table, key);
                    self.set(into, number);
                }
                Step::Add { into, table, ref key, amount, sum, gives } => {
                    let sum = self.add(table, key, amount, sum);
                    self.set(into, sum.filter(|_| gives));
                }
                Step::Take { into, table, ref key, ref terms } => {
                    let taken = self.take(table, key, terms);
                    self.set(into, taken.map(u64::from));
                }
                Step::One { into, function, a } => self.set(into, self.number(a).map(function)),
                Step::Two { into, function, a, b } => {
                    self.set(into, self.two(a, b).map(|(a, b)| function(a, b)));
                }
                Step::Compare { into, holds, a, b } => {
                    self.set(into, self.two(a, b).map(|(a, b)| holds.holds(a, b).into()));
                }
                Step::Branch { into, holds, a, b, otherwise } => {
                    let Some((a, b)) = self.two(a, b) else { return End::Drop };
                    let held = holds.holds(a, b);
                    self.set(into, Some(held.into()));
                    if !held {
                        at = otherwise;
                    }
                }
                Step::Same { into, ref a, ref b } => self.set(into, self.same(a, b).map(u64::from)),
                Step::StartsWith { into, ref text, prefix } => {
                    self.set(into, self.starts_with(text, prefix).map(u64::from));
                }
                Step::And { into, a, b } => self.set(into, and(self.number(a), self.number(b))),
                Step::Or { into, a, b } => self.set(into, or(self.number(a), self.number(b))),
                Step::Hash { into, values } => self.set(into, self.hash(values)),
                Step::Random { into } => {
                    let number = self.memory.random.next_u32();
                    self.set(into, Some(number.into()));
                }
                Step::Chance { into, ppm } => {
                    let chance = self.number(ppm).map(|ppm| self.memory.random.chance(ppm));
                    self.set(into, chance.map(u64::from));
                }
                Step::Backends { into, selector } => {
                    let count = self.view.call.backends.get(usize::from(selector));
                    self.set(into, Some(count.copied().unwrap_or(0).into()));
                }
                Step::Crypt { into, field, key, decrypt } => {
                    let done = self.crypt(field, key, decrypt);
                    self.set(into, done.map(u64::from));
                }
                Step::Ask { into, authoriser } => return End::Ask { authoriser, next: at, into },
                Step::Switch { subject, tests } => {
                    // Only a table that was tampered with can hold a value that is no case.
                    let Some(target) = self.switch(self.number(subject), tests) else { return End::Drop };
                    at = target;
                }
                Step::SwitchBytes { ref subject, tests } => {
                    let Some(target) = self.switch_bytes(subject, tests) else { return End::Drop };
                    at = target;
                }
                Step::Case { subject, is, otherwise } => {
                    if self.number(subject) != Some(is) {
                        at = otherwise;
                    }
                }
                Step::Jump(target) => at = target,
                Step::Set { table, ref key, ref value } => self.write(table, key, value),
                Step::Delete { table, ref key } => self.delete(table, key),
                Step::SetField { field, ref value } => {
                    self.write_field(field, value);
                }
                Step::ZeroField(field) => {
                    if let Some((_, bytes)) = self.view.field(field) {
                        bytes.fill(0);
                    }
                }
                Step::Delay(ns) => {
                    let ns = self.number(ns).unwrap_or(0);
                    self.outcome.delay_ns = self.outcome.delay_ns.saturating_add(ns);
                }
                Step::Timeout(ns) => {
                    let ns = self.number(ns);
                    self.outcome.timeout_ns = self.outcome.timeout_ns.into_iter().chain(ns).min();
                }
                Step::Route { selector, index } => {
                    let index = index.map(|index| self.number(index));
                    if index != Some(None) {
                        self.outcome.route =
                            Some(Route { selector: selector.into(), index: index.flatten() });
                    }
                }
                Step::Mirror(selector) => {
                    self.outcome.mirror |= 1u64.checked_shl(selector.into()).unwrap_or(0);
                }
                Step::Eject { duration, max_ppm } => {
                    if let Some((duration_ns, max_ppm)) = self.two(duration, max_ppm) {
                        self.outcome.eject = Some(Eject { duration_ns, max_ppm });
                    }
                }
                Step::Log(values) => self.log(values),
                Step::Send => return End::Send,
                Step::Drop => return End::Drop,
                Step::Reject { code, why } => return End::Reject(code, why),
                Step::Answer(fields) => return End::Answer(fields),
                Step::Retry { max, budget_ppm } => {
                    let attempt = self.view.response.as_deref().map_or(u32::MAX, |response| response.attempt);
                    let again = attempt <= max && self.memory.retries.allow(budget_ppm);
                    return if again { End::Retry } else { End::Send };
                }
            }
        }
        End::Drop
    }

    /// Notes how an element ended; says whether that ends the call's way through the chain.
    #[inline(always)]
    pub fn ends(&mut self, end: End, audit: bool) -> bool {
        !matches!(end, End::Send) && self.is_kept(end, audit)
    }

    #[inline(never)]
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
            if let (Some(place), Some(value)) = (place, self.view.value(value))
                && let Some(bytes) = place.bytes_mut(self.memory.answer.flat_mut())
            {
                place.shape.write(value, bytes);
            }
        }
    }
}

impl Probe {
    #[inline(always)]
    pub(super) fn holds_of_number(&self, number: Option<u64>, lists: &[u64]) -> bool {
        match (self, number) {
            (Probe::Number(wanted), Some(number)) => *wanted == number,
            (Probe::Any, _) | (Probe::Absent, None) | (Probe::Present, Some(_)) => true,
            (Probe::OneOf(numbers), Some(number)) => numbers.of(lists).binary_search(&number).is_ok(),
            (Probe::Range { before, from, to }, Some(number)) => {
                !before.holds(number, *from) && before.holds(number, *to)
            }
            _ => false,
        }
    }

    pub(super) fn holds_of_bytes(&self, bytes: Option<&[u8]>, texts: &[u8]) -> bool {
        match (self, bytes) {
            (Probe::Any, _) | (Probe::Absent, None) | (Probe::Present, Some(_)) => true,
            (Probe::Bytes(wanted), Some(bytes)) => wanted.of(texts) == bytes,
            (Probe::Prefix(prefix), Some(bytes)) => bytes.starts_with(prefix.of(texts)),
            (Probe::Cidr { address, bits }, Some(bytes)) => in_network(address.of(texts), *bits, bytes),
            _ => false,
        }
    }
}

/// Whether the first bits of both are the same.
fn in_network(network: &[u8], bits: u8, address: &[u8]) -> bool {
    let (Ok(network), Ok(address)) = (network.try_into(), address.try_into()) else { return false };
    let differ = u128::from_be_bytes(network) ^ u128::from_be_bytes(address);
    differ.leading_zeros() >= bits.into()
}
