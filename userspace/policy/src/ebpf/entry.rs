//! The beginning of a program: finding the base header, the method's group, and whether the packet's layout is one that
//! its code can read.

use super::Shared;
use super::asm::{Alu, Cond, FP, Label, R0, R1, R2, R6, R7, R8, R9, Reg, Size};
use super::program::{Emitter, What, small};
use super::scratch::{self, CONTEXT, INDEX};
use crate::ir::Group;
use std::mem::offset_of;
use tollfree_wire::Header;
use tollfree_wire::header::HEADER_LEN;
use tollfree_wire::maps::{CallContext, LayoutKey};

/// The verifier needs a bound on where the base header starts; 66 is the most.
const HEADER_OFFSET_MASK: i32 = 0x7f;

impl Emitter<'_> {
    pub(super) fn entry(&mut self) {
        self.mark(What::Entry);
        self.asm.mov_reg(R6, R1);
        let start = self.asm.len();
        self.shared_entry(Shared::Scratch, 0);
        self.asm.mov_reg(R9, R0);
        self.asm.set_up(R9, start);
        self.shared_entry(Shared::Call, 0);
        self.asm.store(Size::Dw, FP, CONTEXT, R0);
        self.find_header(R0);
    }

    /// Finds the base header anew, with the context at `context`: nothing more than that is known of the packet then.
    pub(super) fn find_header(&mut self, context: Reg) {
        let abort = self.exits.abort;
        // struct xdp_md: data, data_end.
        self.asm.load(Size::W, R7, R6, 0);
        self.asm.load(Size::W, R8, R6, 4);
        self.asm.load(Size::W, R1, context, small(offset_of!(CallContext, header_offset)));
        self.asm.alu(Alu::And, R1, HEADER_OFFSET_MASK);
        self.asm.alu_reg(Alu::Add, R7, R1);
        self.asm.mov_reg(R1, R7);
        self.asm.alu(Alu::Add, R1, HEADER_LEN as i32);
        self.asm.jump_if_reg(Cond::Gt, R1, R8, abort);
    }

    /// To the group of the packet's method, if its layout is one that the group's code can read: at first as the
    /// packet says, then as the engines have agreed.
    pub(super) fn dispatch(&mut self, groups: &[Group], starts: &[Label]) {
        let agreed = self.asm.label();
        self.asm.load(Size::W, R1, R7, small(offset_of!(Header, method)));
        self.asm.load(Size::W, R2, R7, small(offset_of!(Header, layout)));
        self.compare(groups, starts, agreed);
        self.asm.bind(agreed);
        self.asm.store(Size::W, FP, INDEX + small(offset_of!(LayoutKey, method)), R1);
        self.asm.store(Size::W, FP, INDEX + small(offset_of!(LayoutKey, layout)), R2);
        self.shared_lookup(Shared::Layouts);
        self.asm.jump_if(Cond::Eq, R0, 0, self.exits.unknown_layout);
        self.asm.load(Size::W, R2, R0, 0);
        self.asm.load(Size::W, R1, R7, small(offset_of!(Header, method)));
        self.compare(groups, starts, self.exits.unknown_layout);
    }

    /// Method in R1, fingerprint in R2. Where it is of use, the method's place among all is noted.
    fn compare(&mut self, groups: &[Group], starts: &[Label], otherwise: Label) {
        let mut ordinal = 0;
        for (group, start) in groups.iter().zip(starts) {
            for method in &group.methods {
                let next = self.asm.label();
                self.asm.jump_if32(Cond::Ne, R1, method.id, next);
                if group.methods.len() > 1 && !self.runs.is_empty() {
                    self.asm.store_imm(Size::Dw, R9, scratch::ORDINAL, ordinal);
                }
                ordinal += 1;
                for fingerprint in &method.fingerprints {
                    self.asm.jump_if32(Cond::Eq, R2, *fingerprint, *start);
                }
                self.asm.jump(otherwise);
                self.asm.bind(next);
            }
        }
        self.asm.jump(self.exits.unknown_layout);
    }
}
