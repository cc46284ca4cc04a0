//! Saturating arithmetic, comparisons and conversions of whole numbers.
//!
//! eBPF has unsigned multiplication and division only (signed ones came with kernels that are too new), so signed
//! numbers are taken apart into sign and size. What it does for division by zero is what the language says: x / 0 is 0,
//! x % 0 is x.

use super::Refused;
use super::asm::{Alu, Cond, Label, R1, R2, R3, R4, R5};
use super::operand::not_a_number;
use super::program::Emitter;
use crate::ir::{Arithmetic, Comparison, Number, Operand};

impl Emitter<'_> {
    /// The result in R1.
    pub(super) fn arithmetic(
        &mut self,
        op: Arithmetic,
        number: Number,
        a: &Operand,
        b: &Operand,
        absent: Label,
    ) -> Result<(), Refused> {
        self.pair(a, b, absent)?;
        match number {
            Number::Unsigned => self.unsigned(op),
            Number::Signed => self.signed(op),
            Number::Float => return Err(not_a_number()),
        }
        Ok(())
    }

    /// R1 and R2 to R1; R3 is lost.
    pub(super) fn unsigned(&mut self, op: Arithmetic) {
        let done = self.asm.label();
        match op {
            Arithmetic::Add => {
                self.asm.alu_reg(Alu::Add, R1, R2);
                self.asm.jump_if_reg(Cond::Ge, R1, R2, done);
                self.asm.mov(R1, -1);
            }
            Arithmetic::Subtract => {
                let fits = self.asm.label();
                self.asm.jump_if_reg(Cond::Ge, R1, R2, fits);
                self.asm.mov_reg(R1, R2);
                self.asm.bind(fits);
                self.asm.alu_reg(Alu::Sub, R1, R2);
            }
            Arithmetic::Multiply => {
                self.asm.mov(R3, -1);
                self.multiply();
            }
            Arithmetic::Divide => self.asm.alu_reg(Alu::Div, R1, R2),
            Arithmetic::Remainder => self.asm.alu_reg(Alu::Mod, R1, R2),
        }
        self.asm.bind(done);
    }

    /// R1 times a constant to R1, at most the largest number; R2 is lost. What [`Emitter::multiply`] divides for is known
    /// here.
    pub(super) fn times(&mut self, factor: u64) {
        let (fits, done) = (self.asm.label(), self.asm.label());
        self.asm.constant(R2, u64::MAX.checked_div(factor).unwrap_or(u64::MAX));
        self.asm.jump_if_reg(Cond::Le, R1, R2, fits);
        self.asm.mov(R1, -1);
        self.asm.jump(done);
        self.asm.bind(fits);
        self.asm.constant(R2, factor);
        self.asm.alu_reg(Alu::Mul, R1, R2);
        self.asm.bind(done);
    }

    /// R1 times R2 to R1, but at most R3; R4 is lost.
    fn multiply(&mut self) {
        let (too_much, fits, done) = (self.asm.label(), self.asm.label(), self.asm.label());
        self.asm.jump_if(Cond::Eq, R2, 0, fits);
        self.asm.mov_reg(R4, R3);
        self.asm.alu_reg(Alu::Div, R4, R2);
        self.asm.jump_if_reg(Cond::Gt, R1, R4, too_much);
        self.asm.bind(fits);
        self.asm.alu_reg(Alu::Mul, R1, R2);
        self.asm.jump(done);
        self.asm.bind(too_much);
        self.asm.mov_reg(R1, R3);
        self.asm.bind(done);
    }

    /// R1 and R2 to R1; R3, R4 and R5 are lost.
    pub(super) fn signed(&mut self, op: Arithmetic) {
        match op {
            Arithmetic::Add | Arithmetic::Subtract => self.signed_sum(op),
            Arithmetic::Multiply | Arithmetic::Divide => {
                // The result's sign.
                self.asm.mov_reg(R5, R1);
                self.asm.alu_reg(Alu::Xor, R5, R2);
                self.asm.alu(Alu::Arsh, R5, 63);
                self.size_of(R1);
                self.size_of(R2);
                // The largest size: 2^63 - 1, and one more below zero.
                self.asm.constant(R3, i64::MAX as u64);
                self.asm.alu_reg(Alu::Sub, R3, R5);
                if op == Arithmetic::Multiply {
                    self.multiply();
                } else {
                    let fits = self.asm.label();
                    self.asm.alu_reg(Alu::Div, R1, R2);
                    self.asm.jump_if_reg(Cond::Le, R1, R3, fits);
                    self.asm.mov_reg(R1, R3);
                    self.asm.bind(fits);
                }
                self.with_sign();
            }
            Arithmetic::Remainder => {
                self.asm.mov_reg(R5, R1);
                self.asm.alu(Alu::Arsh, R5, 63);
                self.size_of(R1);
                self.size_of(R2);
                self.asm.alu_reg(Alu::Mod, R1, R2);
                self.with_sign();
            }
        }
    }

    fn signed_sum(&mut self, op: Arithmetic) {
        let done = self.asm.label();
        self.asm.mov_reg(R3, R1);
        self.asm.mov_reg(R4, R1);
        // A sum overflows where both sides have a sign that it has not; a difference where the sides differ and it has
        // not the sign of the left one.
        self.asm.alu_reg(Alu::Xor, R4, R2);
        if op == Arithmetic::Add {
            self.asm.alu_reg(Alu::Add, R1, R2);
            self.asm.alu(Alu::Xor, R4, -1);
        } else {
            self.asm.alu_reg(Alu::Sub, R1, R2);
        }
        self.asm.mov_reg(R5, R3);
        self.asm.alu_reg(Alu::Xor, R5, R1);
        self.asm.alu_reg(Alu::And, R4, R5);
        self.asm.jump_if(Cond::Sge, R4, 0, done);
        self.asm.alu(Alu::Arsh, R3, 63);
        self.asm.constant(R1, i64::MAX as u64);
        self.asm.alu_reg(Alu::Xor, R1, R3);
        self.asm.bind(done);
    }

    /// What a register is without its sign.
    fn size_of(&mut self, register: super::asm::Reg) {
        let done = self.asm.label();
        self.asm.jump_if(Cond::Sge, register, 0, done);
        self.asm.alu(Alu::Neg, register, 0);
        self.asm.bind(done);
    }

    /// R1 with the sign in R5: 0 or all ones.
    fn with_sign(&mut self) {
        self.asm.alu_reg(Alu::Xor, R1, R5);
        self.asm.alu_reg(Alu::Sub, R1, R5);
    }

    /// 0 or 1 in R1.
    pub(super) fn compare_numbers(
        &mut self,
        op: Comparison,
        number: Number,
        a: &Operand,
        b: &Operand,
        absent: Label,
    ) -> Result<(), Refused> {
        self.pair(a, b, absent)?;
        let signed = match number {
            Number::Unsigned => false,
            Number::Signed => true,
            Number::Float => return Err(not_a_number()),
        };
        let cond = match (op, signed) {
            (Comparison::Equal, _) => Cond::Eq,
            (Comparison::NotEqual, _) => Cond::Ne,
            (Comparison::Less, false) => Cond::Lt,
            (Comparison::LessEqual, false) => Cond::Le,
            (Comparison::Greater, false) => Cond::Gt,
            (Comparison::GreaterEqual, false) => Cond::Ge,
            (Comparison::Less, true) => Cond::Slt,
            (Comparison::LessEqual, true) => Cond::Sle,
            (Comparison::Greater, true) => Cond::Sgt,
            (Comparison::GreaterEqual, true) => Cond::Sge,
        };
        let done = self.asm.label();
        self.asm.mov_reg(R3, R1);
        self.asm.mov(R1, 1);
        self.asm.jump_if_reg(cond, R3, R2, done);
        self.asm.mov(R1, 0);
        self.asm.bind(done);
        Ok(())
    }

    pub(super) fn convert(
        &mut self,
        from: Number,
        to: Number,
        value: &Operand,
        absent: Label,
    ) -> Result<(), Refused> {
        self.number(value, absent)?;
        let done = self.asm.label();
        match (from, to) {
            (Number::Float, _) | (_, Number::Float) => return Err(not_a_number()),
            (Number::Unsigned, Number::Signed) => {
                self.asm.jump_if(Cond::Sge, R1, 0, done);
                self.asm.constant(R1, i64::MAX as u64);
            }
            (Number::Signed, Number::Unsigned) => {
                self.asm.jump_if(Cond::Sge, R1, 0, done);
                self.asm.mov(R1, 0);
            }
            (Number::Unsigned, Number::Unsigned) | (Number::Signed, Number::Signed) => {}
        }
        self.asm.bind(done);
        Ok(())
    }

    /// A number within what 32 bits can hold.
    pub(super) fn narrow(&mut self, number: Number, value: &Operand, absent: Label) -> Result<(), Refused> {
        self.number(value, absent)?;
        match number {
            Number::Unsigned => self.within_u32(),
            Number::Signed => self.within_i32(),
            Number::Float => return Err(not_a_number()),
        }
        Ok(())
    }

    /// R1 within 32 unsigned bits; R2 is lost.
    pub(super) fn within_u32(&mut self) {
        let fits = self.asm.label();
        self.asm.constant(R2, u64::from(u32::MAX));
        self.asm.jump_if_reg(Cond::Le, R1, R2, fits);
        self.asm.mov_reg(R1, R2);
        self.asm.bind(fits);
    }

    /// R1 within 32 signed bits; R2 is lost.
    pub(super) fn within_i32(&mut self) {
        let (low, fits) = (self.asm.label(), self.asm.label());
        self.asm.constant(R2, i64::from(i32::MIN) as u64);
        self.asm.jump_if_reg(Cond::Slt, R1, R2, low);
        self.asm.constant(R2, i64::from(i32::MAX) as u64);
        self.asm.jump_if_reg(Cond::Sle, R1, R2, fits);
        self.asm.bind(low);
        self.asm.mov_reg(R1, R2);
        self.asm.bind(fits);
    }
}
