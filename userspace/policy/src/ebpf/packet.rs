//! What a policy writes: fields of the request at hand, and answers.

use super::asm::{Alu, FP, Label, R0, R1, R2, R3, R4, R5, R7, R9, Size};
use super::program::{Emitter, small};
use super::scratch::{Form, KEPT, NUMBERS, TEXTS};
use super::{Refused, Shared};
use crate::hash;
use crate::ir::{FieldRef, Operand};
use std::mem::offset_of;
use tollfree_wire::header::FLAT_MAX;
use tollfree_wire::maps::Answer;

impl Emitter<'_> {
    /// Writes a field where it is in the packet. The tag has been checked; what comes later sees the new value.
    pub(super) fn set_field(&mut self, field: FieldRef, value: Option<&Operand>) -> Result<(), Refused> {
        let FieldRef::Request(_) = field else {
            return Err(Refused::new("changes a response, which XDP does not see"));
        };
        // A method without the field is left as it is.
        let Some(field) = self.field(field).cloned() else { return Ok(()) };
        let done = self.asm.label();
        self.bounds(&field, done);
        self.put_field(&field, (R7, Self::at(&field, 0)), value, done)?;
        self.asm.bind(done);
        Ok(())
    }

    /// Puts the answer together and ends the call with it.
    pub(super) fn answer(&mut self, fields: &[(usize, Operand)]) -> Result<(), Refused> {
        let (flat_len, layout) = self.group.response;
        self.shared_entry(Shared::Answer, 0);
        self.asm.store(Size::Dw, FP, KEPT, R0);
        self.asm.mov_reg(R5, R0);
        self.put_zeros(R5, small(offset_of!(Answer, flat)), FLAT_MAX);
        self.asm.store_imm(Size::W, R5, small(offset_of!(Answer, flat_len)), flat_len.into());
        self.asm.store_imm(Size::W, R5, small(offset_of!(Answer, layout)), layout as i32);
        for (field, value) in fields {
            let Some(field) = self.group.response_fields.get(*field).cloned().flatten() else { continue };
            let absent = self.asm.label();
            let at = small(offset_of!(Answer, flat) + usize::from(field.offset));
            self.put_field(&field, (R5, at), Some(value), absent)?;
            self.asm.bind(absent);
        }
        self.asm.jump(self.exits.answer);
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
                self.asm.jump_if(super::asm::Cond::Le, R5, index as i32, done);
            }
            // The last word is filled up with zeros, of which there are enough behind a moved text.
            self.load_bytes(R1, R9, start, index, (length - index).min(8));
            self.hash_word();
        }
        self.asm.bind(done);
        Ok(())
    }
}
