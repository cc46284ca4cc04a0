//! Matches: tests, and the steps that lead to the arm of the first one that holds.

use super::super::code::{List, Probe, Source, Step, Test};
use super::super::registers::Register;
use super::Compiler;
use crate::ir::{self, Comparison, Constant, Operand, Pattern};
use crate::operations::Order;

/// What a match is about.
#[derive(Clone, Copy)]
enum Subject {
    Number(Register),
    Bytes(Source),
}

impl Compiler<'_> {
    /// Two arms, the one for one number and the other for all else, need no switch: says whether it was so.
    pub(super) fn branch(&mut self, subject: &Operand, arms: &[ir::Arm]) -> bool {
        let [first, second] = arms else { return false };
        if first.guard.is_some() || second.guard.is_some() || self.is_text(subject) {
            return false;
        }
        let (is, held, not) = match (number_of(first), number_of(second)) {
            (Some(is), _) if second.patterns.contains(&Pattern::Any) => (is, first, second),
            (Some(1), _) if is_untrue(second) && self.is_truth(subject) => (1, first, second),
            (_, Some(1)) if is_untrue(first) && self.is_truth(subject) => (1, second, first),
            (Some(1), Some(0)) => return self.branch_as_compared(subject, first, second),
            (Some(0), Some(1)) => return self.branch_as_compared(subject, second, first),
            _ => return false,
        };
        let subject = self.number(subject);
        self.fork(held, not, |otherwise| Step::Case { subject, is, otherwise });
        true
    }

    /// Where the comparison made just before is all that the arms are about, that and the branch are one step.
    fn branch_as_compared(&mut self, subject: &Operand, held: &ir::Arm, not: &ir::Arm) -> bool {
        let Operand::Slot(slot) = subject else { return false };
        let Some(Step::Compare { into, holds, a, b }) = self.code.steps.last().copied() else { return false };
        if usize::from(into) != *slot {
            return false;
        }
        self.code.steps.pop();
        self.fork(held, not, |otherwise| Step::Branch { into, holds, a, b, otherwise });
        true
    }

    fn fork(&mut self, held: &ir::Arm, not: &ir::Arm, step: impl Fn(u32) -> Step) {
        let fork = self.here();
        self.code.steps.push(step(0));
        self.block(&held.body);
        let jump = self.here();
        self.code.steps.push(Step::Jump(0));
        let otherwise = self.here();
        self.patch(fork, step(otherwise));
        self.block(&not.body);
        let behind = self.here();
        self.patch(jump, Step::Jump(behind));
    }

    /// A switch; then each arm: its guard, which goes on with the tests of the arms behind it where it does not hold, its
    /// body, a jump behind the match.
    pub(super) fn arms(&mut self, subject: &Operand, arms: &[ir::Arm]) {
        let subject = match self.is_text(subject) {
            true => Subject::Bytes(self.source(subject)),
            false => Subject::Number(self.number(subject)),
        };
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
        let switch = |start: usize| {
            let tests = List { at: start as u32, len: (end - start) as u32 };
            match subject {
                Subject::Number(subject) => Step::Switch { subject, tests },
                Subject::Bytes(subject) => Step::SwitchBytes { subject, tests },
            }
        };
        self.code.steps.push(switch(first));
        let mut jumps = Vec::new();
        for (arm, (start, behind)) in arms.iter().zip(ranges) {
            let target = self.here();
            for test in self.code.tests.get_mut(start..behind).unwrap_or_default() {
                test.target = target;
            }
            if let Some(ir::Guard { statements, condition }) = &arm.guard {
                self.block(statements);
                let loads = self.loads;
                let condition = self.number(condition);
                self.loads = loads;
                let guard = self.here();
                self.code.steps.push(Step::Jump(0));
                self.block(&arm.body);
                jumps.push(self.here());
                self.code.steps.push(Step::Jump(0));
                let otherwise = self.here();
                self.patch(guard, Step::Case { subject: condition, is: 1, otherwise });
                self.code.steps.push(switch(behind));
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
                Probe::OneOf(List::append(&mut self.code.numbers, numbers.iter().copied()))
            }
            Pattern::Prefix(prefix) => Probe::Prefix(self.bytes(prefix)),
            Pattern::Range { number, from, to } => {
                let before = Order::new(Comparison::Less, *number);
                Probe::Range { before, from: *from, to: *to }
            }
            Pattern::Cidr { address, bits } => Probe::Cidr { address: self.bytes(address), bits: *bits },
        }
    }
}

/// The number that an arm is for, where it is for nothing else.
fn number_of(arm: &ir::Arm) -> Option<u64> {
    match *arm.patterns {
        [Pattern::Equal(Constant::Number(number))] => Some(number),
        _ => None,
    }
}

/// Whether an arm is for what is false or absent.
fn is_untrue(arm: &ir::Arm) -> bool {
    let has = |pattern: &Pattern| arm.patterns.contains(pattern);
    has(&Pattern::Equal(Constant::Number(0))) && has(&Pattern::Absent)
}
