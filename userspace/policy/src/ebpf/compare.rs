//! Comparing texts, bytes and addresses.

use super::Refused;
use super::asm::{Alu, Cond, Label, R1, R2, R3, R9, Reg, Size};
use super::program::{Emitter, small};
use super::scratch::{Form, TEXTS};
use super::text::Text;
use crate::ir::{Constant, Operand};

impl Emitter<'_> {
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
}
