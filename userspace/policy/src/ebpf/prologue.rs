//! What an element needs to know besides the message is looked up once, before its first statement: reading it then
//! takes no call, and registers stay as they are.

use super::Clock;
use super::Shared;
use super::asm::{Cond, FP, Helper, R0, R1, R2, R7, R9, Size};
use super::program::{Emitter, small};
use super::scratch::{CONTEXT, INDEX, NOW, PEER, PEER_KNOWN, PORT, SESSION};
use crate::effects::{self, Node};
use crate::ir::{Attribute, Op, Operand, PeerValue, Statement};
use std::mem::offset_of;
use tollfree_wire::Header;
use tollfree_wire::maps::{CallContext, Config, PeerEntry};

/// What the code before this has looked up already.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Prepared {
    now: bool,
    port: bool,
    peer: bool,
    session: bool,
}

impl Emitter<'_> {
    /// Looks up what these statements need.
    pub(super) fn prepare(&mut self, block: &[Statement]) {
        let mut needs = Prepared::default();
        effects::visit(block, &mut |node| match node {
            Node::Op(Op::Take { .. }) | Node::Operand(Operand::Attribute(Attribute::Now)) => needs.now = true,
            Node::Operand(Operand::Attribute(Attribute::Port)) => needs.port = true,
            Node::Operand(Operand::Peer(PeerValue::Address)) => needs.session = true,
            Node::Operand(Operand::Peer(PeerValue::Identity | PeerValue::Namespace)) => needs.peer = true,
            _ => {}
        });
        if needs.now && !self.prepared.now {
            self.clock();
            self.asm.store(Size::Dw, R9, NOW, R0);
        }
        if needs.port && !self.prepared.port {
            self.shared_entry(Shared::Config, 0);
            self.asm.load(Size::H, R1, R0, small(offset_of!(Config, ports.first)));
            self.asm.store(Size::Dw, R9, PORT, R1);
        }
        if needs.session && !self.prepared.session {
            self.of_session(Shared::Sessions);
            self.asm.store(Size::Dw, FP, SESSION, R0);
        }
        if needs.peer && !self.prepared.peer {
            self.of_session(Shared::Peers);
            self.asm.store(Size::Dw, FP, PEER, R0);
            let done = self.asm.label();
            self.asm.load(Size::W, R2, R0, small(offset_of!(PeerEntry, session)));
            self.asm.load(Size::W, R1, R7, small(offset_of!(Header, session)));
            self.asm.store_imm(Size::Dw, R9, PEER_KNOWN, 0);
            self.asm.jump_if_reg(Cond::Ne, R1, R2, done);
            self.asm.store_imm(Size::Dw, R9, PEER_KNOWN, 1);
            self.asm.bind(done);
        }
        let Prepared { now, port, peer, session } = needs;
        self.prepared.now |= now;
        self.prepared.port |= port;
        self.prepared.peer |= peer;
        self.prepared.session |= session;
    }

    /// The session's entry in an array by [`tollfree_wire::session::place`]; its address is in R0.
    pub(super) fn of_session(&mut self, map: Shared) {
        self.asm.load(Size::Dw, R1, FP, CONTEXT);
        self.asm.load(Size::W, R1, R1, small(offset_of!(CallContext, session)));
        self.asm.store(Size::W, FP, INDEX, R1);
        self.shared_lookup(map);
        self.asm.jump_if(Cond::Eq, R0, 0, self.exits.abort);
    }

    /// ns of the monotonic clock in R0; all registers but R6 to R9 are lost.
    pub(super) fn clock(&mut self) {
        match self.clock {
            Clock::Kernel => self.asm.call(Helper::KtimeNs),
            Clock::Fixed(ns) => self.asm.constant(R0, ns),
        }
    }

    /// The same as of the kernel's last tick, a few ms ago at most, for a third of the price: for limits of seconds. Since
    /// Linux 5.11.
    pub(super) fn coarse_clock(&mut self) {
        match self.clock {
            Clock::Kernel => self.asm.call(Helper::KtimeCoarseNs),
            Clock::Fixed(ns) => self.asm.constant(R0, ns),
        }
    }
}
