//! `take()`: a token bucket as the theoretical arrival time of the next call (the generic cell rate algorithm).

use super::Refused;
use super::asm::{Alu, Cond, Helper, Label, R0, R1, R2, R3, R9, Size};
use super::program::Emitter;
use super::scratch::{NOW, NUMBERS, VALUE};
use crate::ir::{Arithmetic, Constant, Operand};

/// `count` per `period_ns`, at most `burst` at once; a call takes `cost`.
pub(super) struct Rate<'a> {
    pub count: &'a Operand,
    pub period_ns: u64,
    pub burst: &'a Operand,
    pub cost: &'a Operand,
}

impl Emitter<'_> {
    /// Whether there was room: 0 or 1 in R1. A full table has none for a new key.
    pub(super) fn take(
        &mut self,
        table: usize,
        key: &[Operand],
        rate: &Rate<'_>,
        absent: Label,
    ) -> Result<(), Refused> {
        let (refused, done, later, known, new) =
            (self.asm.label(), self.asm.label(), self.asm.label(), self.asm.label(), self.asm.label());
        // What one call moves the time by, and how far it may be ahead.
        self.share(rate.cost, rate, NUMBERS[1], refused, absent)?;
        self.share(rate.burst, rate, NUMBERS[2], refused, absent)?;
        let missing = self.asm.label();
        self.entry_of_bucket(table, key, missing, absent)?;
        self.asm.load(Size::Dw, R1, R0, 0);
        self.asm.jump(known);
        self.asm.bind(missing);
        self.asm.mov(R1, 0);
        self.asm.bind(known);
        self.asm.load(Size::Dw, R3, R9, NOW);
        self.asm.jump_if_reg(Cond::Ge, R1, R3, later);
        self.asm.mov_reg(R1, R3);
        self.asm.bind(later);
        self.asm.load(Size::Dw, R2, R9, NUMBERS[1]);
        self.unsigned(Arithmetic::Add);
        self.asm.load(Size::Dw, R3, R9, NOW);
        self.asm.mov_reg(R2, R1);
        self.asm.alu_reg(Alu::Sub, R2, R3);
        self.asm.load(Size::Dw, R3, R9, NUMBERS[2]);
        self.asm.jump_if_reg(Cond::Gt, R2, R3, refused);
        self.asm.jump_if(Cond::Eq, R0, 0, new);
        self.asm.store(Size::Dw, R0, 0, R1);
        self.asm.mov(R1, 1);
        self.asm.jump(done);
        self.asm.bind(new);
        self.asm.store(Size::Dw, R9, VALUE, R1);
        self.update(table);
        self.asm.mov(R1, 1);
        self.asm.jump_if(Cond::Eq, R0, 0, done);
        self.asm.bind(refused);
        self.asm.mov(R1, 0);
        self.asm.bind(done);
        Ok(())
    }

    /// [`crate::rate::share`] of an amount, to memory at `to`; on to `none` where nothing is to get through.
    fn share(
        &mut self,
        amount: &Operand,
        rate: &Rate<'_>,
        to: i16,
        none: Label,
        absent: Label,
    ) -> Result<(), Refused> {
        let Rate { count, period_ns, .. } = *rate;
        if let (Operand::Constant(Constant::Number(amount)), Operand::Constant(Constant::Number(count))) =
            (amount, count)
        {
            match crate::rate::share(*amount, period_ns, *count) {
                Some(share) => self.asm.constant(R1, share),
                None => self.asm.jump(none),
            }
        } else {
            self.number(amount, absent)?;
            self.times(period_ns);
            self.asm.store(Size::Dw, R9, NUMBERS[0], R1);
            self.number(count, absent)?;
            self.asm.jump_if(Cond::Eq, R1, 0, none);
            self.asm.mov_reg(R2, R1);
            self.asm.load(Size::Dw, R1, R9, NUMBERS[0]);
            self.unsigned(Arithmetic::Divide);
        }
        self.asm.store(Size::Dw, R9, to, R1);
        Ok(())
    }

    /// The bucket's address in R0; on to `missing` with 0 in R0.
    fn entry_of_bucket(
        &mut self,
        table: usize,
        key: &[Operand],
        missing: Label,
        absent: Label,
    ) -> Result<(), Refused> {
        let spec = self.table(table)?;
        self.key(&spec, key, absent)?;
        self.key_and_map(table);
        self.asm.call(Helper::MapLookup);
        self.asm.jump_if(Cond::Eq, R0, 0, missing);
        Ok(())
    }
}
