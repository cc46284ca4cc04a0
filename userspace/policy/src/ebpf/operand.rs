//! Numbers that statements compute with: fields of the packet, attributes of the call, what slots keep.

use super::Refused;
use super::asm::{Alu, Cond, Label, R0, R1, R2, R7, R8, R9, Size};
use super::program::{Emitter, small};
use super::scratch::{NOW, NUMBERS, PORT, SlotKind};
use crate::ir::{Attribute, Constant, FieldAt, Operand};
use crate::table::{KeyType, ValueType};
use std::mem::offset_of;
use tollfree_wire::Header;
use tollfree_wire::header::{HEADER_LEN, NO_DEADLINE};

impl Emitter<'_> {
    /// A number in R1, or on to `absent`. R2 is lost.
    pub(super) fn number(&mut self, operand: &Operand, absent: Label) -> Result<(), Refused> {
        match operand {
            Operand::Constant(Constant::Number(number)) => self.asm.constant(R1, *number),
            Operand::Slot(slot) => {
                let slot = self.slots.get(*slot).ok_or_else(unset)?;
                match slot.kind {
                    SlotKind::Number => {
                        self.asm.load(Size::Dw, R1, R9, slot.present);
                        self.asm.jump_if(Cond::Eq, R1, 0, absent);
                        self.asm.load(Size::Dw, R1, R9, slot.value());
                    }
                    SlotKind::Never => self.asm.jump(absent),
                    SlotKind::Text(_) => return Err(not_a_number()),
                }
            }
            Operand::Field(field) => match self.field(*field).cloned() {
                None => self.asm.jump(absent),
                Some(field) => {
                    self.bounds(&field, absent);
                    self.load_number(&field)?;
                }
            },
            Operand::Attribute(attribute) => self.attribute(*attribute, absent)?,
            Operand::Peer(_) | Operand::Metadata(_) => {
                return Err(Refused::new("reads what only the engine knows of the peer or the call"));
            }
            Operand::Constant(Constant::Bytes(_)) => return Err(not_a_number()),
        }
        Ok(())
    }

    /// Two numbers, in R1 and R2; or on to `absent`.
    pub(super) fn pair(&mut self, a: &Operand, b: &Operand, absent: Label) -> Result<(), Refused> {
        self.number(a, absent)?;
        if let Operand::Constant(Constant::Number(number)) = b {
            self.asm.constant(R2, *number);
            return Ok(());
        }
        self.asm.store(Size::Dw, R9, NUMBERS[0], R1);
        self.number(b, absent)?;
        self.asm.mov_reg(R2, R1);
        self.asm.load(Size::Dw, R1, R9, NUMBERS[0]);
        Ok(())
    }

    fn attribute(&mut self, attribute: Attribute, absent: Label) -> Result<(), Refused> {
        match attribute {
            Attribute::Method => {
                self.asm.load(Size::W, R1, R7, small(offset_of!(Header, method)));
                self.sign_extend();
            }
            Attribute::Service => self.asm.constant(R1, i64::from(self.group.service as i32) as u64),
            Attribute::Size => {
                self.asm.load(Size::H, R1, R7, small(offset_of!(Header, flat_len)));
                self.asm.load(Size::W, R2, R7, small(offset_of!(Header, message_len)));
                self.asm.alu_reg(Alu::Add, R1, R2);
            }
            Attribute::Deadline => {
                self.asm.load(Size::W, R1, R7, small(offset_of!(Header, deadline_us)));
                self.asm.jump_if32(Cond::Eq, R1, NO_DEADLINE, absent);
                const NS_PER_US: i32 = 1_000;
                self.asm.alu(Alu::Mul, R1, NS_PER_US);
            }
            Attribute::Now => self.asm.load(Size::Dw, R1, R9, NOW),
            Attribute::Port => self.asm.load(Size::Dw, R1, R9, PORT),
            Attribute::Status | Attribute::Latency | Attribute::Backend => {
                return Err(Refused::new("reads what only a response has"));
            }
        }
        Ok(())
    }

    /// The flat block must be long enough. That the packet then is too, the root program has checked; the verifier
    /// wants to see it here as well. R1 is lost.
    pub(super) fn bounds(&mut self, field: &FieldAt, absent: Label) {
        self.asm.load(Size::H, R1, R7, small(offset_of!(Header, flat_len)));
        self.asm.jump_if(Cond::Lt, R1, field.end.into(), absent);
        self.asm.mov_reg(R1, R7);
        self.asm.alu(Alu::Add, R1, HEADER_LEN as i32 + i32::from(field.end));
        self.asm.jump_if_reg(Cond::Gt, R1, R8, absent);
    }

    /// Where a byte of a field is, from the base header.
    pub(super) fn at(field: &FieldAt, byte: usize) -> i16 {
        small(HEADER_LEN + usize::from(field.offset) + byte)
    }

    fn load_number(&mut self, field: &FieldAt) -> Result<(), Refused> {
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
            KeyType::U64 | KeyType::I64 | KeyType::Duration => self.asm.load(Size::Dw, R1, R7, at),
            _ => return Err(not_a_number()),
        }
        Ok(())
    }

    /// 0 or 1 in R1.
    pub(super) fn truth(&mut self) {
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
}

pub(super) fn unset() -> Refused {
    Refused::new("reads what was not kept")
}

pub(super) fn not_a_number() -> Refused {
    Refused::new("computes with what is no whole number")
}
