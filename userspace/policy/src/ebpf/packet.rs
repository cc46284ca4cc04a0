//! What a policy writes: fields of the request at hand, and answers.

use super::asm::{FP, Label, R0, R1, R5, R7, R9, Reg, Size};
use super::program::{Emitter, small};
use super::scratch::{KEPT, TEXTS};
use super::text::form_of_key;
use super::{Refused, Shared};
use crate::ir::{FieldAt, FieldRef, Operand};
use crate::table::KeyType;
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

    /// Writes a moved text from `from` in R9 to the packet or an answer: `width` bytes, not one more. R1 is lost.
    pub(super) fn put_text(&mut self, from: i16, base: Reg, at: i16, width: usize) {
        let mut done = 0;
        for size in [Size::Dw, Size::W, Size::H, Size::B] {
            while width - done >= size.bytes() {
                self.asm.load(size, R1, R9, from + small(done));
                self.asm.store(size, base, at + small(done), R1);
                done += size.bytes();
            }
        }
    }

    /// Zeros, `width` bytes of them. R0 is lost.
    pub(super) fn put_zeros(&mut self, base: Reg, at: i16, width: usize) {
        let mut done = 0;
        self.asm.mov(R0, 0);
        for size in [Size::Dw, Size::W, Size::H, Size::B] {
            while width - done >= size.bytes() {
                self.asm.store(size, base, at + small(done), R0);
                done += size.bytes();
            }
        }
    }

    /// Writes an operand to a field behind `base`, which must not be R0 to R4; nothing where it does not fit. `None`
    /// writes zeros.
    pub(super) fn put_field(
        &mut self,
        field: &FieldAt,
        base: (Reg, i16),
        value: Option<&Operand>,
        done: Label,
    ) -> Result<(), Refused> {
        let (base, at) = base;
        let width = usize::from(field.end - field.offset);
        let Some(value) = value else {
            self.put_zeros(base, at, width);
            return Ok(());
        };
        match form_of_key(&field.kind) {
            Some(form) => {
                let text = self.text(value, done)?;
                self.move_text(&text, TEXTS[0], form, done)?;
                // The base may have been R5, which the text's place was put into.
                self.restore(base);
                self.put_text(TEXTS[0], base, at, width);
            }
            None => {
                self.number(value, done)?;
                if field.kind == KeyType::Bool {
                    self.truth();
                }
                let size = Size::of(width).ok_or_else(|| Refused::new("writes a number of an odd width"))?;
                self.restore(base);
                self.asm.store(size, base, at, R1);
            }
        }
        Ok(())
    }

    /// R5 as a base is what is kept on the stack.
    fn restore(&mut self, base: Reg) {
        if base == R5 {
            self.asm.load(Size::Dw, R5, FP, KEPT);
        }
    }
}
