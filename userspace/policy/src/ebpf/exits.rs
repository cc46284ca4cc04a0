//! The ends of a program: what is noted for the stage that comes next, and the way to it.

use super::Shared;
use super::asm::{Alu, FP, Helper, R0, R1, R2, R3, R6, Reg, Size};
use super::program::{Emitter, Exits, Ways, small};
use super::scratch::CONTEXT;
use std::mem::offset_of;
use tollfree_wire::maps::{Answer, CallContext, Stage, WHY_MAX};
use tollfree_wire::{Code as Status, Reason};

impl Emitter<'_> {
    /// Where in [`CallContext`] the next stage looks.
    pub(super) fn context(&mut self, dst: Reg) {
        self.asm.load(Size::Dw, dst, FP, CONTEXT);
    }

    pub(super) fn drop(&mut self, reason: Reason, ways: Ways) {
        if let Some(audit) = ways.audit {
            return self.asm.jump(audit);
        }
        self.context(R1);
        self.asm.store_imm(Size::W, R1, small(offset_of!(CallContext, reason)), reason as i32);
        self.asm.jump(self.exits.drop);
    }

    pub(super) fn reject(&mut self, code: Status, reason: Reason, ways: Ways) {
        if let Some(audit) = ways.audit {
            return self.asm.jump(audit);
        }
        self.refuse(code, 0, reason);
    }

    /// Rejects with a text of at most [`WHY_MAX`] bytes.
    pub(super) fn reject_saying(&mut self, code: Status, why: &str, ways: Ways) {
        if let Some(audit) = ways.audit {
            return self.asm.jump(audit);
        }
        let why = why.as_bytes().get(..WHY_MAX).unwrap_or(why.as_bytes());
        self.shared_entry(Shared::Answer, 0);
        for (at, chunk) in why.chunks(8).enumerate() {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.asm.constant(R1, u64::from_le_bytes(word));
            self.asm.store(Size::Dw, R0, small(offset_of!(Answer, flat) + 8 * at), R1);
        }
        self.refuse(code, why.len(), Reason::PolicyReject);
    }

    fn refuse(&mut self, code: Status, why_len: usize, reason: Reason) {
        self.context(R1);
        // One store for the code and the text's length behind it.
        const { assert!(offset_of!(CallContext, why_len) == offset_of!(CallContext, code) + 2) };
        let both = i32::from(code as u8) | (why_len as i32) << 16;
        self.asm.store_imm(Size::W, R1, small(offset_of!(CallContext, code)), both);
        self.asm.store_imm(Size::W, R1, small(offset_of!(CallContext, reason)), reason as i32);
        self.asm.jump(self.exits.reject);
    }

    /// The code is in R2 already; there is no text.
    pub(super) fn reject_with_r2(&mut self) {
        self.context(R1);
        self.asm.store(Size::W, R1, small(offset_of!(CallContext, code)), R2);
        self.asm.store_imm(Size::W, R1, small(offset_of!(CallContext, reason)), Reason::PolicyReject as i32);
        self.asm.jump(self.exits.reject);
    }

    /// Counts a refusal that a dry run did not carry out.
    pub(super) fn audited(&mut self) {
        if !self.asm.is_open() {
            return;
        }
        self.shared_entry(Shared::Reasons, Reason::PolicyAudit as u32);
        self.asm.load(Size::Dw, R1, R0, 0);
        self.asm.alu(Alu::Add, R1, 1);
        self.asm.store(Size::Dw, R0, 0, R1);
    }

    /// The program's ends; those that nothing goes to are left out.
    pub(super) fn ends(&mut self) {
        let Exits { deliver, deliver_rest, reject, drop, answer, undecided, unknown_layout, abort } =
            self.exits;
        self.asm.bind(unknown_layout);
        let ways = Ways { send: deliver, audit: None };
        self.reject(Status::FailedPrecondition, Reason::UnknownLayout, ways);
        self.asm.bind(undecided);
        self.reject(Status::Unavailable, Reason::Undecided, ways);
        self.asm.bind(deliver_rest);
        if self.asm.is_open() {
            self.shared_entry(Shared::Generation, 0);
            self.asm.load(Size::Dw, R2, R0, 0);
            self.context(R1);
            self.asm.store(Size::Dw, R1, small(offset_of!(CallContext, generation)), R2);
            self.asm.jump(deliver);
        }
        // The kernel turns a tail call of one known stage into a jump, which interrupts every CPU while the policy is
        // loaded. That is for calls that are let through; the others share a tail call that looks the stage up.
        let seldom = self.asm.label();
        for (label, stage) in [(drop, Stage::Drop), (reject, Stage::Reject), (answer, Stage::Answer)] {
            self.asm.bind(label);
            if self.asm.is_open() {
                self.asm.mov(R3, stage as i32);
                self.asm.jump(seldom);
            }
        }
        self.asm.bind(seldom);
        if self.asm.is_open() {
            self.tail_call();
        }
        self.asm.bind(deliver);
        if self.asm.is_open() {
            self.asm.mov(R3, Stage::Deliver as i32);
            self.tail_call();
        }
        self.asm.bind(abort);
        const XDP_DROP: i32 = 1;
        self.asm.mov(R0, XDP_DROP);
        self.asm.exit();
    }

    /// To the stage in R3.
    fn tail_call(&mut self) {
        self.asm.mov_reg(R1, R6);
        self.shared(R2, Shared::Stages);
        self.asm.call(Helper::TailCall);
        // Only an empty slot comes back, and these never are.
        self.asm.jump(self.exits.abort);
    }
}
