//! Text, bytes and addresses: where they are, and how they are compared and moved.
//!
//! In memory a text is a length byte and its bytes; what is behind them in a packet is the sender's, and must not make
//! another key or another hash of it. Moved texts are in canonical form: zeros behind the end, as tables keep them.

use super::Refused;
use super::asm::{Alu, Cond, FP, Label, R0, R1, R2, R3, R4, R5, R7, R9, Reg, Size};
use super::operand::unset;
use super::program::{Emitter, small};
use super::scratch::{Form, PEER, PEER_KNOWN, SESSION, SlotKind, TEXTS};
use crate::ir::{Constant, FieldAt, Operand, PeerValue};
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

    /// Jumps to `equal` if the text, whose length is in R1, is this. R1 and R5 are kept.
    pub(super) fn equal_bytes(&mut self, text: &Text, bytes: &[u8], equal: Label) {
        let (base, at) = match text {
            Text::Constant(known) => {
                if known == bytes {
                    self.asm.jump(equal);
                }
                return;
            }
            // Too long for this method's field: never equal.
            Text::Memory { form: Form::Inline(max), .. } if bytes.len() > *max => return,
            Text::Memory { form: Form::Fixed(len), .. } if bytes.len() != *len => return,
            Text::Memory { base, at, form: Form::Inline(_), .. } => (*base, *at + 1),
            Text::Memory { base, at, form: Form::Fixed(_), .. } => (*base, *at),
        };
        let other = self.asm.label();
        if let Text::Memory { form: Form::Inline(_), .. } = text {
            self.asm.jump_if(Cond::Ne, R1, bytes.len() as i32, other);
        }
        self.begins_at(base, at, bytes, other);
        self.asm.jump(equal);
        self.asm.bind(other);
    }

    /// Jumps to `yes` if the text, whose length is in R1, begins with this. R1 and R5 are kept.
    pub(super) fn prefix_bytes(&mut self, text: &Text, prefix: &[u8], yes: Label) {
        let other = self.asm.label();
        match text {
            Text::Constant(known) => {
                if known.starts_with(prefix) {
                    self.asm.jump(yes);
                }
            }
            Text::Memory { base, at, form: Form::Inline(max), .. } if prefix.len() <= *max => {
                self.asm.jump_if(Cond::Lt, R1, prefix.len() as i32, other);
                self.begins_at(*base, *at + 1, prefix, other);
                self.asm.jump(yes);
            }
            Text::Memory { base, at, form: Form::Fixed(len), .. } if prefix.len() <= *len => {
                self.begins_at(*base, *at, prefix, other);
                self.asm.jump(yes);
            }
            Text::Memory { .. } => {}
        }
        self.asm.bind(other);
    }

    /// Goes on if these bytes are there, else to `other`. R2 and R3 are lost.
    fn begins_at(&mut self, base: Reg, at: i16, bytes: &[u8], other: Label) {
        let mut done = 0;
        for size in [Size::Dw, Size::W, Size::H, Size::B] {
            while bytes.len() - done >= size.bytes() {
                let mut word = [0; 8];
                word[..size.bytes()].copy_from_slice(&bytes[done..done + size.bytes()]);
                self.asm.load(size, R2, base, at + small(done));
                self.asm.jump_if_constant(Cond::Ne, R2, u64::from_le_bytes(word), R3, other);
                done += size.bytes();
            }
        }
    }

    /// Jumps to `inside` if the first `bits` of the address are these.
    pub(super) fn in_cidr(&mut self, text: &Text, address: &[u8; 16], bits: u8, inside: Label) {
        let outside = self.asm.label();
        let mut left = u32::from(bits.min(128));
        for (index, word) in address.as_chunks::<4>().0.iter().enumerate() {
            if left == 0 {
                break;
            }
            // The first bits of an address are the high ones of its first bytes.
            let mask = u32::MAX.checked_shl(32 - left.min(32)).unwrap_or(0).swap_bytes();
            let wanted = u32::from_le_bytes(*word) & mask;
            match text {
                Text::Constant(known) => {
                    let known = known.get(index * 4..).and_then(|rest| rest.first_chunk());
                    if known.is_none_or(|known| u32::from_le_bytes(*known) & mask != wanted) {
                        self.asm.jump(outside);
                    }
                }
                Text::Memory { base, at, .. } => {
                    self.asm.load(Size::W, R2, *base, *at + small(index * 4));
                    if left < 32 {
                        self.asm.constant(R3, u64::from(mask));
                        self.asm.alu_reg(Alu::And, R2, R3);
                    }
                    self.asm.jump_if32(Cond::Ne, R2, wanted, outside);
                }
            }
            left = left.saturating_sub(32);
        }
        self.asm.jump(inside);
        self.asm.bind(outside);
    }

    /// Whether two texts are the same: 0 or 1 in R1.
    pub(super) fn same(&mut self, a: &Operand, b: &Operand, absent: Label) -> Result<(), Refused> {
        let (yes, no, done) = (self.asm.label(), self.asm.label(), self.asm.label());
        match (a, b) {
            (Operand::Constant(Constant::Bytes(bytes)), other)
            | (other, Operand::Constant(Constant::Bytes(bytes))) => {
                let text = self.text(other, absent)?;
                self.equal_bytes(&text, bytes, yes);
            }
            _ => {
                let forms = [self.form_of(a), self.form_of(b)];
                let common = match forms {
                    [Some(Form::Inline(a)), Some(Form::Inline(b))] => Form::Inline(a.max(b)),
                    [Some(Form::Fixed(a)), Some(Form::Fixed(b))] => Form::Fixed(a.max(b)),
                    _ => {
                        // One of them is a field that these methods do not have.
                        if self.has_value(a) && self.has_value(b) {
                            return Err(Refused::new("compares text with what is none"));
                        }
                        self.asm.jump(absent);
                        Form::Fixed(0)
                    }
                };
                for (operand, to) in [a, b].into_iter().zip(TEXTS) {
                    if self.asm.is_open() {
                        let text = self.text(operand, absent)?;
                        self.move_text(&text, to, common, no)?;
                    }
                }
                for index in (0..common.width()).step_by(8) {
                    self.asm.load(Size::Dw, R1, R9, TEXTS[0] + small(index));
                    self.asm.load(Size::Dw, R2, R9, TEXTS[1] + small(index));
                    self.asm.jump_if_reg(Cond::Ne, R1, R2, no);
                }
                self.asm.jump(yes);
            }
        }
        self.asm.bind(no);
        self.asm.mov(R1, 0);
        self.asm.jump(done);
        self.asm.bind(yes);
        self.asm.mov(R1, 1);
        self.asm.bind(done);
        Ok(())
    }

    /// Whether a text begins so: 0 or 1 in R1.
    pub(super) fn starts_with(
        &mut self,
        text: &Operand,
        prefix: &[u8],
        absent: Label,
    ) -> Result<(), Refused> {
        let (yes, done) = (self.asm.label(), self.asm.label());
        let text = self.text(text, absent)?;
        self.prefix_bytes(&text, prefix, yes);
        self.asm.mov(R1, 0);
        self.asm.jump(done);
        self.asm.bind(yes);
        self.asm.mov(R1, 1);
        self.asm.bind(done);
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
            self.asm.load(Size::Dw, R5, FP, super::scratch::KEPT);
        }
    }
}
