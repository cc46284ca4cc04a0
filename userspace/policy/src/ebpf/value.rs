//! Values: fields of the packet, values of tables, and the keys made of them.

use super::asm::{Alu, Cond, FP, Label, R0, R1, R2, R3, R4, R5, R7, R8, Reg, Size};
use super::emit::{Emitter, KEY, small};
use crate::ir::{Constant, FieldAt, Operand};
use crate::table::{KeyType, ValueType};
use std::mem::offset_of;
use tollfree_wire::Header;
use tollfree_wire::header::HEADER_LEN;

impl Emitter<'_> {
    /// Goes on only if the operand is there, else to `absent`; a number is in R1 then. Of text and bytes in a field,
    /// the length byte is in R1.
    pub(super) fn present(&mut self, operand: &Operand, absent: Label) -> Option<()> {
        match operand {
            Operand::Constant(Constant::Number(number)) => self.asm.constant(R1, *number),
            Operand::Constant(Constant::Bytes(_)) => {}
            Operand::Slot(slot) => {
                let slot = Self::slot(*slot);
                self.asm.load(Size::Dw, R1, FP, slot + 8);
                self.asm.jump_if(Cond::Eq, R1, 0, absent);
                self.asm.load(Size::Dw, R1, FP, slot);
            }
            Operand::Field(field) => {
                let Some(field) = self.field(*field).cloned() else {
                    self.asm.jump(absent);
                    return Some(());
                };
                self.bounds(&field, absent);
                self.load_field(&field, absent);
            }
            _ => return None,
        }
        Some(())
    }

    /// A number in R1.
    pub(super) fn number(&mut self, operand: &Operand, absent: Label) -> Option<()> {
        match operand {
            Operand::Constant(Constant::Bytes(_)) => None,
            _ => self.present(operand, absent),
        }
    }

    /// The flat block must be long enough. That the packet then is too, the root program has checked; the verifier
    /// wants to see it here as well.
    fn bounds(&mut self, field: &FieldAt, absent: Label) {
        self.asm.load(Size::H, R1, R7, small(offset_of!(Header, flat_len)));
        self.asm.jump_if(Cond::Lt, R1, field.end.into(), absent);
        self.asm.mov_reg(R1, R7);
        self.asm.alu(Alu::Add, R1, HEADER_LEN as i32 + i32::from(field.end));
        self.asm.jump_if_reg(Cond::Gt, R1, R8, absent);
    }

    fn at(field: &FieldAt, byte: usize) -> i16 {
        small(HEADER_LEN + usize::from(field.offset) + byte)
    }

    fn load_field(&mut self, field: &FieldAt, absent: Label) {
        let at = Self::at(field, 0);
        match &field.kind {
            KeyType::Bool => {
                self.asm.load(Size::B, R1, R7, at);
                self.truth();
            }
            KeyType::U32 => self.asm.load(Size::W, R1, R7, at),
            KeyType::I32 | KeyType::Enum { .. } => {
                self.asm.load(Size::W, R1, R7, at);
                self.sign_extend();
            }
            KeyType::U64 | KeyType::I64 => self.asm.load(Size::Dw, R1, R7, at),
            KeyType::String { max_len } | KeyType::Bytes { max_len } => {
                self.asm.load(Size::B, R1, R7, at);
                // A length over the limit is a lie and reads as absent.
                self.asm.jump_if(Cond::Gt, R1, i32::from(*max_len), absent);
            }
            _ => {}
        }
    }

    /// 0 or 1 in R1.
    fn truth(&mut self) {
        let done = self.asm.label();
        self.asm.jump_if(Cond::Eq, R1, 0, done);
        self.asm.mov(R1, 1);
        self.asm.bind(done);
    }

    fn sign_extend(&mut self) {
        self.asm.alu(Alu::Lsh, R1, 32);
        self.asm.alu(Alu::Arsh, R1, 32);
    }

    /// The number at the entry in R0 to R1.
    pub(super) fn load_table_value(&mut self, value: &ValueType) {
        match value {
            ValueType::Bool => {
                self.asm.load(Size::W, R1, R0, 0);
                self.truth();
            }
            ValueType::U32 => self.asm.load(Size::W, R1, R0, 0),
            ValueType::I32 | ValueType::Enum { .. } => {
                self.asm.load(Size::W, R1, R0, 0);
                self.sign_extend();
            }
            _ => self.asm.load(Size::Dw, R1, R0, 0),
        }
    }

    /// Puts a table's key together on the stack; goes to `absent` if there is none.
    pub(super) fn key(&mut self, table: usize, operand: &Operand, absent: Label) -> Option<()> {
        let kind = self.policy.tables.get(table)?.key.clone();
        let size = kind.size() as usize;
        if !self.has_value(operand) {
            return Some(());
        }
        match operand {
            Operand::Constant(Constant::Bytes(bytes)) => {
                let mut key = match kind {
                    KeyType::Fixed { .. } => Vec::new(),
                    _ => vec![u8::try_from(bytes.len()).ok()?],
                };
                key.extend(bytes);
                key.resize(size.next_multiple_of(4), 0);
                for (at, word) in (KEY..).step_by(4).zip(key.as_chunks::<4>().0) {
                    self.asm.store_imm(Size::W, FP, at, i32::from_le_bytes(*word));
                }
            }
            Operand::Field(field) => {
                let field = self.field(*field)?.clone();
                self.bounds(&field, absent);
                self.load_field(&field, absent);
                match &field.kind {
                    KeyType::String { .. } | KeyType::Bytes { .. } => self.copy_text(&field, size),
                    KeyType::Fixed { .. } => self.copy_fixed(&field, size),
                    _ => self.store_number(size)?,
                }
            }
            Operand::Constant(Constant::Number(_)) | Operand::Slot(_) => {
                self.number(operand, absent)?;
                self.store_number(size)?;
            }
            _ => return None,
        }
        Some(())
    }

    fn store_number(&mut self, size: usize) -> Option<()> {
        let size = [Size::B, Size::H, Size::W, Size::Dw].into_iter().find(|known| known.bytes() == size)?;
        self.asm.store(size, FP, KEY, R1);
        Some(())
    }

    /// Text or bytes, whose length is in R1, as a key of `size` bytes. What a sender puts behind the text's end must
    /// not make another key of it, so it is masked off.
    fn copy_text(&mut self, field: &FieldAt, size: usize) {
        let width = usize::from(field.end - field.offset);
        // How many bytes count: the length byte and the text.
        self.asm.mov_reg(R3, R1);
        self.asm.alu(Alu::Add, R3, 1);
        self.asm.mov_reg(R5, R3);
        self.asm.alu(Alu::Lsh, R5, 3);
        for (index, place) in (0..size).step_by(8).zip((KEY..).step_by(8)) {
            if index >= width {
                self.asm.store_imm(Size::Dw, FP, place, 0);
                continue;
            }
            let taken = (width - index).min(8);
            let (whole, part) = (self.asm.label(), self.asm.label());
            self.load_bytes(R1, field, index, taken);
            self.asm.jump_if(Cond::Ge, R3, (index + taken) as i32, whole);
            if index > 0 {
                self.asm.jump_if(Cond::Gt, R3, index as i32, part);
                self.asm.mov(R1, 0);
                self.asm.jump(whole);
            }
            self.asm.bind(part);
            self.asm.mov(R4, 8 * (index as i32 + 8));
            self.asm.alu_reg(Alu::Sub, R4, R5);
            self.asm.alu_reg(Alu::Lsh, R1, R4);
            self.asm.alu_reg(Alu::Rsh, R1, R4);
            self.asm.bind(whole);
            self.asm.store(Size::Dw, FP, place, R1);
        }
    }

    fn copy_fixed(&mut self, field: &FieldAt, size: usize) {
        for (index, place) in (0..size).step_by(8).zip((KEY..).step_by(8)) {
            self.load_bytes(R1, field, index, (size - index).min(8));
            self.asm.store(Size::Dw, FP, place, R1);
        }
    }

    /// Up to eight bytes of a field as a number, zero-extended. R2 is lost.
    fn load_bytes(&mut self, dst: Reg, field: &FieldAt, from: usize, count: usize) {
        let mut done = 0;
        for size in [Size::Dw, Size::W, Size::H, Size::B] {
            if count - done < size.bytes() {
                continue;
            }
            let part = if done == 0 { dst } else { R2 };
            self.asm.load(size, part, R7, Self::at(field, from + done));
            if done > 0 {
                self.asm.alu(Alu::Lsh, R2, 8 * done as i32);
                self.asm.alu_reg(Alu::Or, dst, R2);
            }
            done += size.bytes();
        }
    }

    /// Jumps to `equal` if the text or bytes of the field, which is there, are these. R1 keeps the length.
    pub(super) fn equal_bytes(&mut self, field: &FieldAt, bytes: &[u8], equal: Label) {
        let width = usize::from(field.end - field.offset);
        let Ok(length) = i32::try_from(bytes.len()) else { return };
        // Too long for this method's field: never equal.
        if bytes.len() + 1 > width {
            return;
        }
        if bytes.is_empty() {
            self.asm.jump_if(Cond::Eq, R1, 0, equal);
            return;
        }
        let other = self.asm.label();
        self.asm.jump_if(Cond::Ne, R1, length, other);
        let mut done = 0;
        for size in [Size::Dw, Size::W, Size::H, Size::B] {
            while bytes.len() - done >= size.bytes() {
                let mut word = [0; 8];
                word[..size.bytes()].copy_from_slice(&bytes[done..done + size.bytes()]);
                let wanted = u64::from_le_bytes(word);
                self.asm.load(size, R2, R7, Self::at(field, 1 + done));
                match i32::try_from(wanted as i64) {
                    Ok(immediate) => self.asm.jump_if(Cond::Ne, R2, immediate, other),
                    Err(_) => {
                        self.asm.constant(R3, wanted);
                        self.asm.jump_if_reg(Cond::Ne, R2, R3, other);
                    }
                }
                done += size.bytes();
            }
        }
        self.asm.jump(equal);
        self.asm.bind(other);
    }
}
