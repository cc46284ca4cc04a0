//! Tables: keys, and what is read from them and written to them.

use super::Refused;
use super::asm::{Alu, Cond, Helper, Label, R0, R1, R2, R3, R4, R9, Size};
use super::program::{Emitter, small};
use super::scratch::{Form, KEY, NUMBERS, VALUE};
use super::text::{ADDRESS, form_of_key, form_of_value};
use crate::ir::{Arithmetic, Number, Operand};
use crate::table::{KeyType, TableKind, TableSpec, ValueType};

/// Bits of an address, as a longest-prefix map wants them in front of it.
const ADDRESS_BITS: i32 = 8 * ADDRESS as i32;

impl Emitter<'_> {
    /// Puts a table's key together, or goes to `absent`.
    pub(super) fn key(
        &mut self,
        spec: &TableSpec,
        operands: &[Operand],
        absent: Label,
    ) -> Result<(), Refused> {
        let parts = match &spec.key {
            KeyType::Unit => {
                self.asm.store_imm(Size::W, R9, KEY, 0);
                return Ok(());
            }
            KeyType::Tuple { parts } => parts.as_slice(),
            kind => std::slice::from_ref(kind),
        };
        if parts.len() != operands.len() {
            return Err(Refused::new("has a key of another length than its table"));
        }
        let mut to = KEY;
        for (kind, operand) in parts.iter().zip(operands) {
            if !self.has_value(operand) {
                self.asm.jump(absent);
                return Ok(());
            }
            match kind {
                KeyType::Cidr => {
                    self.asm.store_imm(Size::W, R9, to, ADDRESS_BITS);
                    let address = self.text(operand, absent)?;
                    self.move_text(&address, to + 4, Form::Fixed(ADDRESS), absent)?;
                }
                _ => match form_of_key(kind) {
                    Some(form) => {
                        let text = self.text(operand, absent)?;
                        self.move_text(&text, to, form, absent)?;
                    }
                    None => {
                        let size = Size::of(kind.size() as usize).ok_or_else(odd)?;
                        self.number(operand, absent)?;
                        self.asm.store(size, R9, to, R1);
                    }
                },
            }
            to += small(kind.size() as usize);
        }
        Ok(())
    }

    pub(super) fn key_and_map(&mut self, table: usize) {
        self.asm.mov_reg(R2, R9);
        self.asm.alu(Alu::Add, R2, KEY.into());
        self.asm.map(R1, table);
    }

    /// The address of the key's entry in R0, or on to `absent`.
    pub(super) fn entry_of(&mut self, table: usize, key: &[Operand], absent: Label) -> Result<(), Refused> {
        let spec = self.table(table)?;
        self.key(&spec, key, absent)?;
        self.key_and_map(table);
        self.asm.call(Helper::MapLookup);
        self.asm.jump_if(Cond::Eq, R0, 0, absent);
        Ok(())
    }

    /// The key's number in R1.
    pub(super) fn lookup(&mut self, table: usize, key: &[Operand], absent: Label) -> Result<(), Refused> {
        self.entry_of(table, key, absent)?;
        let value = self.table(table)?.value;
        self.load_table_value(&value);
        Ok(())
    }

    pub(super) fn set(&mut self, table: usize, key: &[Operand], value: &Operand) -> Result<(), Refused> {
        let done = self.asm.label();
        let spec = self.table(table)?;
        if !self.has_value(value) {
            return Ok(());
        }
        match form_of_value(&spec.value) {
            Some(form) => {
                let text = self.text(value, done)?;
                self.move_text(&text, VALUE, form, done)?;
            }
            None => {
                self.number(value, done)?;
                self.asm.store(Size::Dw, R9, VALUE, R1);
            }
        }
        self.key(&spec, key, done)?;
        self.update(table);
        self.asm.bind(done);
        Ok(())
    }

    /// The value that was put together becomes the key's; R0 is 0 if so. A full table refuses.
    pub(super) fn update(&mut self, table: usize) {
        self.key_and_map(table);
        self.asm.mov_reg(R3, R9);
        self.asm.alu(Alu::Add, R3, VALUE.into());
        const BPF_ANY: i32 = 0;
        self.asm.mov(R4, BPF_ANY);
        self.asm.call(Helper::MapUpdate);
    }

    pub(super) fn delete(&mut self, table: usize, key: &[Operand]) -> Result<(), Refused> {
        let done = self.asm.label();
        let spec = self.table(table)?;
        if matches!(spec.kind, TableKind::Cell) || spec.key == KeyType::Unit {
            return Err(Refused::new("deletes what is always there"));
        }
        self.key(&spec, key, done)?;
        self.key_and_map(table);
        self.asm.call(Helper::MapDelete);
        self.asm.bind(done);
        Ok(())
    }

    /// Adds to the key's number; the sum is in R1. Counters give nothing.
    pub(super) fn add(
        &mut self,
        table: usize,
        key: &[Operand],
        number: Number,
        amount: &Operand,
        absent: Label,
    ) -> Result<(), Refused> {
        let spec = self.table(table)?;
        let (new, sum) = (self.asm.label(), self.asm.label());
        self.number(amount, absent)?;
        self.asm.store(Size::Dw, R9, NUMBERS[1], R1);
        self.key(&spec, key, absent)?;
        self.key_and_map(table);
        self.asm.call(Helper::MapLookup);
        self.asm.jump_if(Cond::Eq, R0, 0, new);
        self.load_table_value(&spec.value);
        self.asm.load(Size::Dw, R2, R9, NUMBERS[1]);
        let size = Size::of(spec.value_size as usize).ok_or_else(odd)?;
        if spec.kind == TableKind::Counter {
            // Of this CPU alone.
            self.sum(&spec.value, number);
            self.asm.store(size, R0, 0, R1);
            self.asm.jump(absent);
        } else if size == Size::Dw {
            self.add_atomically(&spec.value, number);
            self.asm.jump(sum);
        } else {
            self.sum(&spec.value, number);
            self.asm.store(size, R0, 0, R1);
            self.asm.jump(sum);
        }
        self.asm.bind(new);
        if self.asm.is_open() {
            self.asm.mov(R1, 0);
            self.asm.load(Size::Dw, R2, R9, NUMBERS[1]);
            self.sum(&spec.value, number);
            self.asm.store(Size::Dw, R9, VALUE, R1);
            self.update(table);
            self.asm.jump_if(Cond::Ne, R0, 0, absent);
            if spec.kind == TableKind::Counter {
                self.asm.jump(absent);
            }
            self.asm.load(Size::Dw, R1, R9, VALUE);
        }
        self.asm.bind(sum);
        Ok(())
    }

    /// The table's number in R1 and the amount in R2, added and kept within what the table's values can be, in R1. R0 is
    /// kept, R3 to R5 are lost.
    fn sum(&mut self, value: &ValueType, amount: Number) {
        match (value, amount) {
            (ValueType::I32 | ValueType::I64 | ValueType::Enum { .. }, _) => self.signed(Arithmetic::Add),
            (_, Number::Signed) => {
                let (less, done) = (self.asm.label(), self.asm.label());
                self.asm.jump_if(Cond::Slt, R2, 0, less);
                self.unsigned(Arithmetic::Add);
                self.asm.jump(done);
                self.asm.bind(less);
                self.asm.alu(Alu::Neg, R2, 0);
                self.unsigned(Arithmetic::Subtract);
                self.asm.bind(done);
            }
            _ => self.unsigned(Arithmetic::Add),
        }
        match value {
            ValueType::I32 | ValueType::Enum { .. } => self.within_i32(),
            ValueType::U32 => self.within_u32(),
            _ => {}
        }
    }

    /// The same on the 64 bits at R0, whose value is in R1. Only where the sum is one, and not a type's end, another CPU
    /// can add at the same time without one of the two being lost.
    fn add_atomically(&mut self, value: &ValueType, number: Number) {
        let (done, plain) = (self.asm.label(), self.asm.label());
        self.asm.store(Size::Dw, R9, NUMBERS[2], R1);
        self.sum(value, number);
        self.asm.load(Size::Dw, R3, R9, NUMBERS[2]);
        self.asm.load(Size::Dw, R2, R9, NUMBERS[1]);
        self.asm.alu_reg(Alu::Add, R3, R2);
        self.asm.jump_if_reg(Cond::Ne, R1, R3, plain);
        self.asm.mov_reg(R1, R2);
        self.asm.atomic_fetch_add(R0, 0, R2);
        self.asm.alu_reg(Alu::Add, R1, R2);
        self.asm.jump(done);
        self.asm.bind(plain);
        self.asm.store(Size::Dw, R0, 0, R1);
        self.asm.bind(done);
    }
}

fn odd() -> Refused {
    Refused::new("uses a number of an odd width")
}
