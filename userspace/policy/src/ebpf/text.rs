//! Text, bytes and addresses: where they are, and how they are moved.
//!
//! In memory a text is a length byte and its bytes; what is behind them in a packet is the sender's, and must not make
//! another key or another hash of it. Moved texts are in canonical form: zeros behind the end, as tables keep them.

use super::Refused;
use super::asm::{Alu, Cond, FP, Label, R1, R2, R3, R4, R5, R7, R9, Reg, Size};
use super::operand::unset;
use super::program::{Emitter, small};
use super::scratch::{Form, PEER, PEER_KNOWN, SESSION, SlotKind};
use crate::ir::{Constant, Operand, PeerValue};
use crate::table::{KeyType, ValueType};
use std::mem::offset_of;
use tollfree_wire::SessionEntry;
use tollfree_wire::maps::{IDENTITY_MAX, PeerEntry};
use tollfree_wire::session::Guard;

/// Bytes of an address.
pub(super) const ADDRESS: usize = 16;

/// A text that is there. Where its form is inline, its length is in R1 right after it was found.
#[derive(Clone, Debug)]
pub(super) enum Text {
    Constant(Vec<u8>),
    Memory { base: Reg, at: i16, form: Form, canonical: bool },
}

/// The form of a field or key.
pub(super) fn form_of_key(kind: &KeyType) -> Option<Form> {
    match kind {
        KeyType::String { max_len } | KeyType::Bytes { max_len } => Some(Form::Inline((*max_len).into())),
        KeyType::Fixed { len } => Some(Form::Fixed((*len).into())),
        KeyType::Address => Some(Form::Fixed(ADDRESS)),
        _ => None,
    }
}

/// The form of a table's values.
pub(super) fn form_of_value(value: &ValueType) -> Option<Form> {
    match value {
        ValueType::String { max_len } | ValueType::Bytes { max_len } => Some(Form::Inline((*max_len).into())),
        ValueType::Fixed { len } => Some(Form::Fixed((*len).into())),
        _ => None,
    }
}

impl Emitter<'_> {
    /// The form of an operand; `None` of numbers, and of fields that these methods do not have.
    pub(super) fn form_of(&self, operand: &Operand) -> Option<Form> {
        match operand {
            Operand::Field(field) => form_of_key(&self.field(*field)?.kind),
            Operand::Slot(slot) => match self.slots.get(*slot)?.kind {
                SlotKind::Text(form) => Some(form),
                SlotKind::Number | SlotKind::Never => None,
            },
            Operand::Constant(Constant::Bytes(bytes)) => Some(Form::Inline(bytes.len())),
            Operand::Peer(PeerValue::Address) => Some(Form::Fixed(ADDRESS)),
            Operand::Peer(PeerValue::Identity | PeerValue::Namespace) => Some(Form::Inline(IDENTITY_MAX)),
            _ => None,
        }
    }

    /// Finds a text, or goes to `absent`. Its base may be R5, which moving and comparing it do not lose.
    pub(super) fn text(&mut self, operand: &Operand, absent: Label) -> Result<Text, Refused> {
        let no_text = || Refused::new("takes for text what is none");
        match operand {
            Operand::Constant(Constant::Bytes(bytes)) => Ok(Text::Constant(bytes.clone())),
            Operand::Field(field) => {
                let Some(field) = self.field(*field).cloned() else {
                    self.asm.jump(absent);
                    return Ok(Text::Constant(Vec::new()));
                };
                let form = form_of_key(&field.kind).ok_or_else(no_text)?;
                self.bounds(&field, absent);
                let at = Self::at(&field, 0);
                if let Form::Inline(max) = form {
                    self.asm.load(Size::B, R1, R7, at);
                    // A length over the limit is a lie and reads as absent.
                    self.asm.jump_if(Cond::Gt, R1, max as i32, absent);
                }
                Ok(Text::Memory { base: R7, at, form, canonical: false })
            }
            Operand::Slot(slot) => {
                let slot = self.slots.get(*slot).ok_or_else(unset)?;
                let form = match slot.kind {
                    SlotKind::Text(form) => form,
                    SlotKind::Number => return Err(no_text()),
                    SlotKind::Never => {
                        self.asm.jump(absent);
                        return Ok(Text::Constant(Vec::new()));
                    }
                };
                self.asm.load(Size::Dw, R1, R9, slot.present);
                self.asm.jump_if(Cond::Eq, R1, 0, absent);
                if let Form::Inline(_) = form {
                    self.asm.load(Size::B, R1, R9, slot.value());
                }
                Ok(Text::Memory { base: R9, at: slot.value(), form, canonical: true })
            }
            Operand::Peer(PeerValue::Address) => {
                self.asm.load(Size::Dw, R5, FP, SESSION);
                let at = small(offset_of!(SessionEntry, guard) + offset_of!(Guard, peer));
                Ok(Text::Memory { base: R5, at, form: Form::Fixed(ADDRESS), canonical: true })
            }
            Operand::Peer(peer @ (PeerValue::Identity | PeerValue::Namespace)) => {
                let at = small(match peer {
                    PeerValue::Identity => offset_of!(PeerEntry, identity),
                    _ => offset_of!(PeerEntry, namespace),
                });
                self.asm.load(Size::Dw, R1, R9, PEER_KNOWN);
                self.asm.jump_if(Cond::Eq, R1, 0, absent);
                self.asm.load(Size::Dw, R5, FP, PEER);
                self.asm.load(Size::B, R1, R5, at);
                self.asm.jump_if(Cond::Eq, R1, 0, absent);
                self.asm.jump_if(Cond::Gt, R1, IDENTITY_MAX as i32, absent);
                Ok(Text::Memory { base: R5, at, form: Form::Inline(IDENTITY_MAX), canonical: true })
            }
            _ => Err(no_text()),
        }
    }

    /// Moves a text, whose length is in R1, to R9 + `to` in canonical form; up to seven bytes behind it are zeroed too.
    /// Goes to `too_long` where it does not fit. R1 to R4 are lost.
    pub(super) fn move_text(
        &mut self,
        text: &Text,
        to: i16,
        form: Form,
        too_long: Label,
    ) -> Result<(), Refused> {
        let places = (to..).step_by(8).zip((0..form.width()).step_by(8));
        match (text, form) {
            (Text::Constant(bytes), _) => {
                let mut canonical = match form {
                    Form::Inline(_) => vec![u8::try_from(bytes.len()).unwrap_or(u8::MAX)],
                    Form::Fixed(_) => Vec::new(),
                };
                canonical.extend(bytes);
                if canonical.len() > form.width() {
                    self.asm.jump(too_long);
                    return Ok(());
                }
                canonical.resize(form.width().next_multiple_of(8), 0);
                for ((place, _), word) in places.zip(canonical.as_chunks::<8>().0) {
                    self.asm.constant(R1, u64::from_le_bytes(*word));
                    self.asm.store(Size::Dw, R9, place, R1);
                }
            }
            (Text::Memory { base, at, form: Form::Inline(max), canonical }, Form::Inline(room)) => {
                if *max > room {
                    self.asm.jump_if(Cond::Gt, R1, room as i32, too_long);
                }
                let width = 1 + (*max).min(room);
                // How many bytes count: the length byte and the text.
                self.asm.mov_reg(R3, R1);
                self.asm.alu(Alu::Add, R3, 1);
                for (place, index) in places {
                    if index >= width {
                        self.asm.store_imm(Size::Dw, R9, place, 0);
                        continue;
                    }
                    let taken = (width - index).min(8);
                    self.load_bytes(R1, *base, *at, index, taken);
                    if !canonical {
                        self.mask(index, taken);
                    }
                    self.asm.store(Size::Dw, R9, place, R1);
                }
            }
            (Text::Memory { base, at, form: Form::Fixed(len), .. }, Form::Fixed(room)) if *len <= room => {
                for (place, index) in places {
                    if index >= *len {
                        self.asm.store_imm(Size::Dw, R9, place, 0);
                        continue;
                    }
                    self.load_bytes(R1, *base, *at, index, (*len - index).min(8));
                    self.asm.store(Size::Dw, R9, place, R1);
                }
            }
            (Text::Memory { .. }, _) => {
                return Err(Refused::new("keeps bytes of one kind where another belongs"));
            }
        }
        Ok(())
    }

    /// What of the word in R1, which is `taken` bytes from `index` on, is behind the text's end becomes zero. R3 says
    /// how many bytes count; R4 is lost.
    fn mask(&mut self, index: usize, taken: usize) {
        let (whole, part) = (self.asm.label(), self.asm.label());
        self.asm.jump_if(Cond::Ge, R3, (index + taken) as i32, whole);
        if index > 0 {
            self.asm.jump_if(Cond::Gt, R3, index as i32, part);
            self.asm.mov(R1, 0);
            self.asm.jump(whole);
        }
        self.asm.bind(part);
        self.asm.mov(R4, index as i32 + 8);
        self.asm.alu_reg(Alu::Sub, R4, R3);
        self.asm.alu(Alu::Lsh, R4, 3);
        self.asm.alu_reg(Alu::Lsh, R1, R4);
        self.asm.alu_reg(Alu::Rsh, R1, R4);
        self.asm.bind(whole);
    }

    /// Up to eight bytes as a number, zero-extended. R2 is lost.
    pub(super) fn load_bytes(&mut self, dst: Reg, base: Reg, at: i16, from: usize, count: usize) {
        let mut done = 0;
        for size in [Size::Dw, Size::W, Size::H, Size::B] {
            if count - done < size.bytes() {
                continue;
            }
            let part = if done == 0 { dst } else { R2 };
            self.asm.load(size, part, base, at + small(from + done));
            if done > 0 {
                self.asm.alu(Alu::Lsh, R2, 8 * done as i32);
                self.asm.alu_reg(Alu::Or, dst, R2);
            }
            done += size.bytes();
        }
    }
}
