//! Slots: while an element is checked every operation has one of its own; here they are shared by those that are not
//! needed at the same time, since both back ends keep few.

use super::walk;
use crate::ir::{Action, Op, Operand, Statement};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

/// Renumbers the slots of a handler; returns how many it needs.
///
/// There are no loops, and one slot is written in one place: it is needed from there to its last use in the order of
/// the text. Operations do not write over their own operands.
pub(super) fn share(block: &mut [Statement], is_text: &dyn Fn(&Op) -> bool) -> usize {
    let mut last = HashMap::new();
    let mut at = 0;
    walk(block, &mut at, &mut |at, mut statement| {
        if let Step::Action(Action::Let { into, .. }) = &statement {
            last.entry(*into).or_insert(at);
        }
        if let Step::Again(Operand::Slot(slot)) = &statement {
            last.insert(*slot, at);
        }
        statement.operands(&mut |operand| {
            if let Operand::Slot(slot) = operand {
                last.insert(*slot, at);
            }
        });
    });
    let (shared, busy, free) = (HashMap::new(), BinaryHeap::new(), Default::default());
    let mut pool = Pool { is_text, last, shared, busy, free, count: 0 };
    at = 0;
    walk(block, &mut at, &mut |at, mut statement| {
        statement.operands(&mut |operand| {
            if let Operand::Slot(slot) = operand {
                *slot = pool.shared.get(slot).copied().unwrap_or(*slot);
            }
        });
        if let Step::Action(Action::Let { into, op }) = statement {
            *into = pool.take(*into, op, at);
        }
    });
    pool.count
}

/// What stands in one place.
enum Step<'a> {
    Action(&'a mut Action),
    Condition(&'a mut Operand),
    /// What is looked at again: the subject of a match, when a guard did not hold.
    Again(&'a Operand),
}

impl Step<'_> {
    fn operands(&mut self, see: &mut dyn FnMut(&mut Operand)) {
        match self {
            Step::Action(action) => walk::operands(action, see),
            Step::Condition(operand) => see(operand),
            Step::Again(_) => {}
        }
    }
}

fn walk(block: &mut [Statement], at: &mut usize, see: &mut dyn FnMut(usize, Step<'_>)) {
    for statement in block {
        *at += 1;
        see(*at, Step::Action(&mut statement.action));
        if let Action::Match { subject, arms } = &mut statement.action {
            for arm in arms {
                if let Some(guard) = &mut arm.guard {
                    walk(&mut guard.statements, at, see);
                    *at += 1;
                    see(*at, Step::Condition(&mut guard.condition));
                    see(*at, Step::Again(subject));
                }
                walk(&mut arm.body, at, see);
            }
        }
    }
}

struct Pool<'a> {
    /// Whether an operation gives text.
    is_text: &'a dyn Fn(&Op) -> bool,
    /// Where a slot is used last.
    last: HashMap<usize, usize>,
    /// The slot that it shares.
    shared: HashMap<usize, usize>,
    /// In use: until where, which, and whether for text.
    busy: BinaryHeap<Reverse<(usize, usize, bool)>>,
    /// Free ones for numbers, and for texts, which take more room.
    free: [BinaryHeap<Reverse<usize>>; 2],
    count: usize,
}

impl Pool<'_> {
    fn take(&mut self, slot: usize, op: &Op, at: usize) -> usize {
        while let Some(Reverse((until, free, text))) = self.busy.peek().copied()
            && until < at
        {
            self.busy.pop();
            self.free[usize::from(text)].push(Reverse(free));
        }
        let text = (self.is_text)(op);
        let shared = match self.free[usize::from(text)].pop() {
            Some(Reverse(free)) => free,
            None => {
                self.count += 1;
                self.count - 1
            }
        };
        let until = self.last.get(&slot).copied().unwrap_or(at);
        self.busy.push(Reverse((until, shared, text)));
        self.shared.insert(slot, shared);
        shared
    }
}
