//! What was decided per session: one byte per run of elements and method, read instead of running them.

use super::Shared;
use super::asm::{Alu, Cond, Label, R0, R1, R2, R7, R9, Size};
use super::program::{Emitter, Ways, small};
use super::scratch::ORDINAL;
use std::mem::offset_of;
use std::ops::Range;
use tollfree_wire::maps::{DECISION_REJECT, Decision};
use tollfree_wire::{Code, Header, Reason};

/// Where the session's index is in an entry; the bytes are behind it.
const HEAD: usize = size_of::<u32>();

/// Runs of elements that are decided per session, and how many methods there are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Runs {
    pub runs: Vec<Range<usize>>,
    pub methods: usize,
    /// What their rejects say, by the byte's distance from [`tollfree_wire::maps::DECISION_SAYING`].
    pub sayings: Vec<(Code, String)>,
}

impl Runs {
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// The run that an element belongs to.
    pub(crate) fn of(&self, element: usize) -> Option<usize> {
        self.runs.iter().position(|run| run.contains(&element))
    }

    /// Bytes of an entry, in whole words.
    pub(crate) fn size(&self) -> usize {
        (HEAD + self.runs.len() * self.methods).next_multiple_of(8)
    }
}

impl Emitter<'_> {
    /// Does what was decided for this session and method.
    pub(super) fn decided(&mut self, run: usize, send: Label) {
        let ways = Ways { send, audit: None };
        let methods = self.runs.methods;
        let start = small(HEAD + run * methods);
        self.of_session(Shared::Decisions(self.runs.size()));
        self.asm.load(Size::W, R1, R0, 0);
        self.asm.load(Size::W, R2, R7, small(offset_of!(Header, session)));
        self.asm.jump_if_reg(Cond::Ne, R1, R2, self.exits.undecided);
        match self.single {
            Some(ordinal) => self.asm.load(Size::B, R2, R0, start + small(ordinal)),
            None => {
                self.asm.load(Size::Dw, R2, R9, ORDINAL);
                // The verifier does not know where it came from.
                self.asm.jump_if(Cond::Ge, R2, methods as i32, self.exits.abort);
                self.asm.alu_reg(Alu::Add, R0, R2);
                self.asm.load(Size::B, R2, R0, start);
            }
        }
        self.asm.jump_if(Cond::Eq, R2, Decision::Send.to_byte().into(), send);
        self.asm.jump_if(Cond::Eq, R2, 0, self.exits.undecided);
        let reject = self.asm.label();
        self.asm.jump_if(Cond::Ne, R2, Decision::Drop.to_byte().into(), reject);
        self.drop(Reason::PolicyDrop, ways);
        self.asm.bind(reject);
        for (index, (code, why)) in (0u8..).zip(self.runs.sayings.clone()) {
            let other = self.asm.label();
            self.asm.jump_if(Cond::Ne, R2, Decision::RejectSaying(index).to_byte().into(), other);
            self.reject_saying(code, &why, ways);
            self.asm.bind(other);
        }
        self.asm.alu(Alu::Sub, R2, DECISION_REJECT.into());
        self.asm.alu(Alu::And, R2, 0xff);
        self.reject_with_r2();
    }
}
