//! Statements, one after the other, and the exits that end them.

use super::Refused;
use super::asm::{Alu, Cond, FP, R0, R1, R2, R3, R4, R9, Size};
use super::matching::Matched;
use super::program::{Emitter, Ways, small};
use super::scratch::{Form, KEPT, Slot, SlotKind};
use super::text::form_of_value;
use super::{Shared, asm};
use crate::ir::{Action, Arm, Exit, Op, Operand, Statement};
use std::mem::offset_of;
use tollfree_wire::{Code as Status, Reason, SessionEntry};

impl Emitter<'_> {
    /// Emits statements; what follows is reached where none of them was an exit.
    pub(super) fn block(&mut self, block: &[Statement], ways: Ways) -> Result<(), Refused> {
        let mut rest = block.iter();
        while let Some(Statement { span, action }) = rest.next() {
            self.asm.line(span);
            match action {
                Action::Let { into, op } => match rest.as_slice().first() {
                    Some(Statement {
                        span,
                        action: Action::Match { subject: Operand::Slot(slot), arms },
                    }) if slot == into && self.is_only_matched(*into, op, arms)? => {
                        rest.next();
                        self.match_value(Matched::Op(op, span), arms, ways)?;
                    }
                    _ => self.keep(*into, op)?,
                },
                Action::Match { subject, arms } => {
                    self.match_value(Matched::Operand(subject), arms, ways)?;
                }
                Action::Set { table, key, value } => self.set(*table, key, value)?,
                Action::Delete { table, key } => self.delete(*table, key)?,
                Action::SetField { field, value } => self.set_field(*field, value.as_ref())?,
                Action::Effect(_) => return Err(Refused::new("does what only the engine can do")),
                Action::Exit(exit) => self.exit(exit, ways)?,
            }
        }
        Ok(())
    }

    /// Whether a number is found for these arms alone, which look at it once: it need not be kept.
    fn is_only_matched(&self, slot: usize, op: &Op, arms: &[Arm]) -> Result<bool, Refused> {
        let once = self.reads.get(slot) == Some(&1) && arms.iter().all(|arm| arm.guard.is_none());
        // What these methods do not have can be text as well as a number.
        let there = !matches!(op, Op::Copy(operand) if !self.has_value(operand));
        Ok(once && there && self.form_of_result(op)?.is_none())
    }

    /// A slot's value, or that it has none.
    fn keep(&mut self, into: usize, op: &Op) -> Result<(), Refused> {
        let (absent, done) = (self.asm.label(), self.asm.label());
        let slot = match self.form_of_result(op)? {
            _ if matches!(op, Op::Copy(operand) if !self.has_value(operand)) => {
                self.slots.add(into, SlotKind::Never)?;
                return Ok(());
            }
            Some(form) => {
                let slot = self.slots.add(into, SlotKind::Text(form))?;
                self.keep_text(op, slot, form, absent)?;
                slot
            }
            None => {
                let slot = self.slots.add(into, SlotKind::Number)?;
                self.op(op, absent)?;
                self.asm.store(Size::Dw, R9, slot.value(), R1);
                slot
            }
        };
        self.present_is(slot, true);
        self.asm.jump(done);
        self.asm.bind(absent);
        self.present_is(slot, false);
        self.asm.bind(done);
        Ok(())
    }

    fn present_is(&mut self, slot: Slot, present: bool) {
        self.asm.store_imm(Size::Dw, R9, slot.present, present.into());
    }

    /// The number that an operation gives, in R1.
    pub(super) fn op(&mut self, op: &Op, absent: asm::Label) -> Result<(), Refused> {
        match op {
            Op::Copy(operand) => self.number(operand, absent),
            Op::Lookup { table, key } => self.lookup(*table, key, absent),
            Op::Add { table, key, number, amount } => self.add(*table, key, *number, amount, absent),
            Op::Take { table, key, count, period_ns, burst, cost } => self.take(
                *table,
                key,
                &super::take::Rate { count, period_ns: *period_ns, burst, cost },
                absent,
            ),
            Op::Arithmetic { op, number, a, b } => self.arithmetic(*op, *number, a, b, absent),
            Op::Compare { op, number, a, b } => self.compare_numbers(*op, *number, a, b, absent),
            Op::Same { a, b } => self.same(a, b, absent),
            Op::StartsWith { text, prefix } => self.starts_with(text, prefix, absent),
            Op::Not(operand) => {
                self.number(operand, absent)?;
                self.truth();
                self.asm.alu(Alu::Xor, R1, 1);
                Ok(())
            }
            Op::And(a, b) => self.either(0, a, b, absent),
            Op::Or(a, b) => self.either(1, a, b, absent),
            Op::Narrow { number, value } => self.narrow(*number, value, absent),
            Op::Convert { from, to, value } => self.convert(*from, *to, value, absent),
            Op::Hash(operands) => self.hash(operands, absent),
            Op::Random => {
                self.asm.call(asm::Helper::Random);
                self.asm.mov_reg(R1, R0);
                Ok(())
            }
            Op::Chance(ppm) => self.chance(ppm, absent),
            Op::Backends(_) | Op::Ask(_) | Op::Crypt { .. } => {
                Err(Refused::new("asks for what only the engine knows"))
            }
        }
    }

    /// The form of what an operation gives; `None`: a number.
    fn form_of_result(&self, op: &Op) -> Result<Option<Form>, Refused> {
        Ok(match op {
            Op::Copy(operand) => self.form_of(operand),
            Op::Lookup { table, key: _ } => form_of_value(&self.table(*table)?.value),
            _ => None,
        })
    }

    /// A copy of a text, good until the element ends, whatever becomes of where it was.
    fn keep_text(&mut self, op: &Op, slot: Slot, form: Form, absent: asm::Label) -> Result<(), Refused> {
        match op {
            Op::Lookup { table, key } => {
                self.entry_of(*table, key, absent)?;
                for index in (0..form.width()).step_by(8) {
                    self.load_bytes(R1, R0, 0, index, (form.width() - index).min(8));
                    self.asm.store(Size::Dw, R9, slot.value() + small(index), R1);
                }
                Ok(())
            }
            Op::Copy(operand) => {
                let text = self.text(operand, absent)?;
                self.move_text(&text, slot.value(), form, absent)
            }
            _ => Err(Refused::new("keeps text from where none comes")),
        }
    }

    /// `and` (decided by 0) and `or` (decided by 1): a side that decides does so whatever the other one is, absent or
    /// not; else one absent side is enough for absence.
    fn either(&mut self, decisive: u64, a: &Operand, b: &Operand, absent: asm::Label) -> Result<(), Refused> {
        let (decided, second, alone, done) =
            (self.asm.label(), self.asm.label(), self.asm.label(), self.asm.label());
        // A side decides where it is 0 for `and`, where it is not for `or`.
        let cond = if decisive == 0 { Cond::Eq } else { Cond::Ne };
        self.number(a, alone)?;
        self.asm.jump_if(cond, R1, 0, decided);
        self.asm.jump(second);
        self.asm.bind(alone);
        if self.asm.is_open() {
            self.number(b, absent)?;
            self.asm.jump_if(cond, R1, 0, decided);
            self.asm.jump(absent);
        }
        self.asm.bind(second);
        self.number(b, absent)?;
        self.asm.jump_if(cond, R1, 0, decided);
        self.asm.constant(R1, 1 - decisive);
        self.asm.jump(done);
        self.asm.bind(decided);
        self.asm.constant(R1, decisive);
        self.asm.bind(done);
        Ok(())
    }

    fn exit(&mut self, exit: &Exit, ways: Ways) -> Result<(), Refused> {
        match exit {
            Exit::Send => self.asm.jump(ways.send),
            Exit::Drop => self.drop(Reason::PolicyDrop, ways),
            Exit::Reject(code, Some(why)) if !why.is_empty() => self.reject_saying(*code, why, ways),
            Exit::Reject(code, _) => self.reject(*code, Reason::PolicyReject, ways),
            Exit::Answer(fields) => self.answer(fields)?,
            Exit::Retry { .. } => return Err(Refused::new("makes calls again, which only the engine can")),
        }
        Ok(())
    }

    /// Goes on behind itself with the call admitted, or rejects it.
    pub(super) fn session_tracker(&mut self, ways: Ways) {
        let admit = self.asm.label();
        self.of_session(Shared::Sessions);
        self.asm.store(Size::Dw, FP, KEPT, R0);
        self.coarse_clock();
        self.asm.load(Size::Dw, R1, FP, KEPT);
        self.asm.load(Size::Dw, R2, R1, small(offset_of!(SessionEntry, idle_ns)));
        self.asm.jump_if(Cond::Eq, R2, 0, admit);
        // Another CPU may have admitted a call since this one read the clock.
        self.asm.load(Size::Dw, R3, R1, small(offset_of!(SessionEntry, last_seen_ns)));
        self.asm.jump_if_reg(Cond::Ge, R3, R0, admit);
        self.asm.mov_reg(R4, R0);
        self.asm.alu_reg(Alu::Sub, R4, R3);
        self.asm.jump_if_reg(Cond::Le, R4, R2, admit);
        self.reject(Status::Unauthenticated, Reason::SessionIdle, ways);
        self.asm.bind(admit);
        self.asm.store(Size::Dw, R1, small(offset_of!(SessionEntry, last_seen_ns)), R0);
        // Not atomic, which would take longer than all of the above: a session's packets mostly come by one queue.
        let calls = small(offset_of!(SessionEntry, calls));
        self.asm.load(Size::Dw, R2, R1, calls);
        self.asm.alu(Alu::Add, R2, 1);
        self.asm.store(Size::Dw, R1, calls, R2);
    }
}
