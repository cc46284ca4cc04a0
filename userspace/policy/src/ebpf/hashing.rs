//! Hashes and chances.

use super::Refused;
use super::asm::{Alu, Cond, Helper, Label, R0, R1, R2, R3, R4, R5, R9, Size};
use super::program::Emitter;
use super::scratch::{Form, NUMBERS, TEXTS};
use crate::hash;
use crate::ir::Operand;

impl Emitter<'_> {
    /// True for so many of a million: 0 or 1 in R1.
    pub(super) fn chance(&mut self, ppm: &Operand, absent: Label) -> Result<(), Refused> {
        self.number(ppm, absent)?;
        self.asm.store(Size::Dw, R9, NUMBERS[0], R1);
        self.asm.call(Helper::Random);
        // 32 random bits times a million are below 2^52.
        const MILLION: i32 = 1_000_000;
        self.asm.alu(Alu::Mul, R0, MILLION);
        self.asm.alu(Alu::Rsh, R0, 32);
        self.asm.load(Size::Dw, R3, R9, NUMBERS[0]);
        let done = self.asm.label();
        self.asm.mov(R1, 1);
        self.asm.jump_if_reg(Cond::Lt, R0, R3, done);
        self.asm.mov(R1, 0);
        self.asm.bind(done);
        Ok(())
    }

    /// [`hash::hash`] over the operands, in R1.
    pub(super) fn hash(&mut self, operands: &[Operand], absent: Label) -> Result<(), Refused> {
        self.asm.constant(R3, hash::OFFSET);
        self.asm.store(Size::Dw, R9, NUMBERS[1], R3);
        for operand in operands {
            if !self.has_value(operand) {
                self.asm.jump(absent);
                return Ok(());
            }
            match self.form_of(operand) {
                None => {
                    self.number(operand, absent)?;
                    self.asm.load(Size::Dw, R3, R9, NUMBERS[1]);
                    self.asm.constant(R4, hash::PRIME);
                    self.hash_word();
                }
                Some(form) => self.hash_text(operand, form, absent)?,
            }
            self.asm.store(Size::Dw, R9, NUMBERS[1], R3);
        }
        self.asm.mov_reg(R1, R3);
        for (shift, multiplier) in hash::ROUNDS {
            self.asm.mov_reg(R2, R1);
            self.asm.alu(Alu::Rsh, R2, shift as i32);
            self.asm.alu_reg(Alu::Xor, R1, R2);
            if multiplier != 1 {
                self.asm.constant(R2, multiplier);
                self.asm.alu_reg(Alu::Mul, R1, R2);
            }
        }
        Ok(())
    }

    /// The word in R1 into the hash in R3; the prime is in R4.
    fn hash_word(&mut self) {
        self.asm.alu_reg(Alu::Xor, R3, R1);
        self.asm.alu_reg(Alu::Mul, R3, R4);
    }

    fn hash_text(&mut self, operand: &Operand, form: Form, absent: Label) -> Result<(), Refused> {
        let text = self.text(operand, absent)?;
        self.move_text(&text, TEXTS[0], form, absent)?;
        self.asm.load(Size::Dw, R3, R9, NUMBERS[1]);
        self.asm.constant(R4, hash::PRIME);
        let done = self.asm.label();
        let (length, start) = match form {
            Form::Inline(max) => {
                self.asm.load(Size::B, R5, R9, TEXTS[0]);
                self.asm.mov_reg(R1, R5);
                (max, TEXTS[0] + 1)
            }
            Form::Fixed(len) => {
                self.asm.mov(R1, len as i32);
                (len, TEXTS[0])
            }
        };
        self.hash_word();
        for index in (0..length).step_by(8) {
            if let Form::Inline(_) = form {
                self.asm.jump_if(Cond::Le, R5, index as i32, done);
            }
            // The last word is filled up with zeros, of which there are enough behind a moved text.
            self.load_bytes(R1, R9, start, index, (length - index).min(8));
            self.hash_word();
        }
        self.asm.bind(done);
        Ok(())
    }
}
