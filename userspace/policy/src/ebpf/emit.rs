//! The program around the chain, and the chain's control flow.
//!
//! Registers: R6 the context, R7 the base header, R8 the packet's end, R9 what the root program left in
//! [`tollfree_wire::maps::CallContext`]. The others are free between statements.

use super::Shared;
use super::asm::{
    Alu, Assembler, Code, Cond, FP, Helper, Label, R0, R1, R2, R3, R4, R6, R7, R8, R9, Reg, Size,
};
use crate::ir::{
    Action, Arm, Body, Constant, Exit, FieldAt, FieldRef, Group, Op, Operand, Pattern, Policy, Statement,
};
use crate::table::TableSpec;
use std::mem::offset_of;
use tollfree_wire::header::HEADER_LEN;
use tollfree_wire::maps::{CallContext, LayoutKey, Stage};
use tollfree_wire::{Code as Status, Header, Reason, SessionEntry};

/// Eight bytes for small keys of shared maps.
const SCRATCH: i16 = -8;
/// Eight bytes for a value to be set, or a pointer to be kept over a call.
pub(super) const VALUE: i16 = -16;
/// Room for the longest key, in whole words.
const KEY_ROOM: i16 = 200;
/// Where a table's key is put together.
pub(super) const KEY: i16 = VALUE - KEY_ROOM;
/// Sixteen bytes per slot: the value, then whether it is there.
const SLOT: i16 = 16;
/// The verifier needs a bound on where the base header starts; 66 is the most.
const HEADER_OFFSET_MASK: i32 = 0x7f;

const _: () = assert!(-KEY + SLOT * crate::engine::SLOTS_MAX as i16 <= 512, "the stack of an eBPF program");
const _: () = assert!(KEY_ROOM as usize > tollfree_wire::header::FLAT_MAX);

pub(super) struct Emission {
    pub code: Code,
    /// In the order of their indices, which follow those of the policy's tables.
    pub shared: Vec<Shared>,
    pub per_element: Vec<usize>,
}

pub(super) struct Emitter<'a> {
    pub asm: Assembler,
    pub policy: &'a Policy,
    /// Of the group of methods that code is being emitted for.
    pub fields: &'a [Option<FieldAt>],
    shared: Vec<Shared>,
    exits: Exits,
}

/// The ends of the program.
#[derive(Clone, Copy)]
struct Exits {
    deliver: Label,
    /// With code and reason already noted.
    reject: Label,
    /// With the reason already noted.
    drop: Label,
    /// A value for which no arm is meant: nothing gets through.
    no_arm: Label,
    unknown_layout: Label,
    /// Something that cannot be missing is missing.
    abort: Label,
}

pub(super) fn program(policy: &Policy, groups: &[Group]) -> Option<Emission> {
    let mut asm = Assembler::default();
    let exits = Exits {
        deliver: asm.label(),
        reject: asm.label(),
        drop: asm.label(),
        no_arm: asm.label(),
        unknown_layout: asm.label(),
        abort: asm.label(),
    };
    let mut emitter = Emitter { asm, policy, fields: &[], shared: Vec::new(), exits };
    emitter.entry();
    let starts: Vec<Label> = groups.iter().map(|_| emitter.asm.label()).collect();
    emitter.dispatch(groups, &starts);
    let mut per_element = vec![0; policy.elements.len()];
    for (group, start) in groups.iter().zip(&starts) {
        emitter.asm.bind(*start);
        emitter.fields = &group.fields;
        emitter.chain(&mut per_element)?;
    }
    emitter.ends();
    let Emitter { asm, shared, .. } = emitter;
    let code = asm.finish().ok()?;
    Some(Emission { code, shared, per_element })
}

/// An offset within a struct or a packet, which are all small.
pub(super) fn small(offset: usize) -> i16 {
    // At most a header, a flat block and a session entry's head: a few hundred bytes.
    i16::try_from(offset).unwrap_or(i16::MAX)
}

impl Emitter<'_> {
    fn shared(&mut self, dst: Reg, map: Shared) {
        let at = self.shared.iter().position(|known| *known == map).unwrap_or_else(|| {
            self.shared.push(map);
            self.shared.len() - 1
        });
        self.asm.map(dst, self.policy.tables.len() + at);
    }

    /// Looks up a shared map by what is in the scratch space; the entry's address, or 0, is in R0.
    fn shared_lookup(&mut self, map: Shared) {
        self.asm.mov_reg(R2, FP);
        self.asm.alu(Alu::Add, R2, SCRATCH.into());
        self.shared(R1, map);
        self.asm.call(Helper::MapLookup);
    }

    fn entry(&mut self) {
        let abort = self.exits.abort;
        self.asm.mov_reg(R6, R1);
        self.asm.store_imm(Size::W, FP, SCRATCH, 0);
        self.shared_lookup(Shared::Call);
        self.asm.jump_if(Cond::Eq, R0, 0, abort);
        self.asm.mov_reg(R9, R0);
        // struct xdp_md: data, data_end.
        self.asm.load(Size::W, R7, R6, 0);
        self.asm.load(Size::W, R8, R6, 4);
        self.asm.load(Size::W, R1, R9, small(offset_of!(CallContext, header_offset)));
        self.asm.alu(Alu::And, R1, HEADER_OFFSET_MASK);
        self.asm.alu_reg(Alu::Add, R7, R1);
        self.asm.mov_reg(R1, R7);
        self.asm.alu(Alu::Add, R1, HEADER_LEN as i32);
        self.asm.jump_if_reg(Cond::Gt, R1, R8, abort);
    }

    /// To the group of the packet's method, if its layout is one that the group's code can read: at first as the
    /// packet says, then as the engines have agreed.
    fn dispatch(&mut self, groups: &[Group], starts: &[Label]) {
        let agreed = self.asm.label();
        self.asm.load(Size::W, R1, R7, small(offset_of!(Header, method)));
        self.asm.load(Size::W, R2, R7, small(offset_of!(Header, layout)));
        self.compare(groups, starts, agreed);
        if !self.asm.is_referenced(agreed) {
            return;
        }
        self.asm.bind(agreed);
        self.asm.store(Size::W, FP, SCRATCH + small(offset_of!(LayoutKey, method)), R1);
        self.asm.store(Size::W, FP, SCRATCH + small(offset_of!(LayoutKey, layout)), R2);
        self.shared_lookup(Shared::Layouts);
        self.asm.jump_if(Cond::Eq, R0, 0, self.exits.unknown_layout);
        self.asm.load(Size::W, R2, R0, 0);
        self.asm.load(Size::W, R1, R7, small(offset_of!(Header, method)));
        self.compare(groups, starts, self.exits.unknown_layout);
    }

    /// Method in R1, fingerprint in R2.
    fn compare(&mut self, groups: &[Group], starts: &[Label], otherwise: Label) {
        for (group, start) in groups.iter().zip(starts) {
            for method in &group.methods {
                let next = self.asm.label();
                self.asm.jump_if32(Cond::Ne, R1, method.id, next);
                for fingerprint in &method.fingerprints {
                    self.asm.jump_if32(Cond::Eq, R2, *fingerprint, *start);
                }
                self.asm.jump(otherwise);
                self.asm.bind(next);
            }
        }
        self.asm.jump(self.exits.unknown_layout);
    }

    fn chain(&mut self, per_element: &mut [usize]) -> Option<()> {
        let policy = self.policy;
        let deliver = self.exits.deliver;
        let mut reached = true;
        for (element, instructions) in policy.elements.iter().zip(per_element) {
            if !reached {
                break;
            }
            let before = self.asm.len();
            let next = self.asm.label();
            match element.request.as_ref()? {
                Body::SessionTracker(span) => {
                    self.asm.line(span);
                    self.session_tracker();
                    self.asm.jump(next);
                }
                Body::Block(block) => {
                    if self.block(block, next)? {
                        // The checker lets no path end without an exit; if one did, nothing would get through.
                        self.asm.jump(self.exits.no_arm);
                    }
                }
            }
            *instructions += self.asm.len() - before;
            reached = self.asm.is_referenced(next);
            self.asm.bind(next);
        }
        if reached {
            self.asm.jump(deliver);
        }
        Some(())
    }

    /// Emits statements; whether the way out at their end can be reached.
    fn block(&mut self, block: &[Statement], send: Label) -> Option<bool> {
        for Statement { span, action } in block {
            self.asm.line(span);
            match action {
                Action::Let { into, op: Op::Lookup { table, key } } => {
                    self.lookup(*table, only(key)?, *into)?;
                }
                Action::Match { subject, arms } => {
                    if !self.match_value(subject, arms, send)? {
                        return Some(false);
                    }
                }
                Action::Set { table, key, value } => self.set(*table, only(key)?, value)?,
                Action::Delete { table, key } => {
                    let done = self.asm.label();
                    let key = only(key)?;
                    self.key(*table, key, done)?;
                    if self.has_value(key) {
                        self.asm.mov_reg(R2, FP);
                        self.asm.alu(Alu::Add, R2, KEY.into());
                        self.asm.map(R1, *table);
                        self.asm.call(Helper::MapDelete);
                    }
                    self.asm.bind(done);
                }
                Action::Let { .. } | Action::SetField { .. } | Action::Effect(_) => return None,
                Action::Exit(exit) => {
                    self.exit(exit, send)?;
                    return Some(false);
                }
            }
        }
        Some(true)
    }

    fn exit(&mut self, exit: &Exit, send: Label) -> Option<()> {
        match exit {
            Exit::Send => self.asm.jump(send),
            Exit::Drop => self.drop(Reason::PolicyDrop),
            Exit::Reject(code, _) => self.reject(*code, Reason::PolicyReject),
            Exit::Answer(_) | Exit::Retry { .. } => return None,
        }
        Some(())
    }

    fn drop(&mut self, reason: Reason) {
        self.asm.store_imm(Size::W, R9, small(offset_of!(CallContext, reason)), reason as i32);
        self.asm.jump(self.exits.drop);
    }

    fn reject(&mut self, code: Status, reason: Reason) {
        self.asm.store_imm(Size::W, R9, small(offset_of!(CallContext, code)), code as i32);
        self.asm.store_imm(Size::W, R9, small(offset_of!(CallContext, reason)), reason as i32);
        self.asm.jump(self.exits.reject);
    }

    fn table(&self, table: usize) -> Option<&TableSpec> {
        self.policy.tables.get(table)
    }

    pub(super) fn slot(slot: usize) -> i16 {
        KEY - SLOT * (small(slot) + 1)
    }

    fn lookup(&mut self, table: usize, key: &Operand, into: usize) -> Option<()> {
        let (absent, done) = (self.asm.label(), self.asm.label());
        let slot = Self::slot(into);
        let present = slot + 8;
        self.key(table, key, absent)?;
        if self.has_value(key) {
            self.asm.mov_reg(R2, FP);
            self.asm.alu(Alu::Add, R2, KEY.into());
            self.asm.map(R1, table);
            self.asm.call(Helper::MapLookup);
            self.asm.jump_if(Cond::Eq, R0, 0, absent);
            let value = self.table(table)?.value.clone();
            self.load_table_value(&value);
            self.asm.store(Size::Dw, FP, slot, R1);
            self.asm.store_imm(Size::Dw, FP, present, 1);
            self.asm.jump(done);
            self.asm.bind(absent);
        }
        self.asm.store_imm(Size::Dw, FP, slot, 0);
        self.asm.store_imm(Size::Dw, FP, present, 0);
        self.asm.bind(done);
        Some(())
    }

    fn set(&mut self, table: usize, key: &Operand, value: &Operand) -> Option<()> {
        let done = self.asm.label();
        if !self.has_value(key) || !self.has_value(value) {
            return Some(());
        }
        self.number(value, done)?;
        self.asm.store(Size::Dw, FP, VALUE, R1);
        self.key(table, key, done)?;
        self.asm.map(R1, table);
        self.asm.mov_reg(R2, FP);
        self.asm.alu(Alu::Add, R2, KEY.into());
        self.asm.mov_reg(R3, FP);
        self.asm.alu(Alu::Add, R3, VALUE.into());
        // BPF_ANY; a full table refuses, and the call goes on.
        self.asm.mov(R4, 0);
        self.asm.call(Helper::MapUpdate);
        self.asm.bind(done);
        Some(())
    }

    /// Emits a match; whether its end can be reached.
    fn match_value(&mut self, subject: &Operand, arms: &[Arm], send: Label) -> Option<bool> {
        let labels: Vec<Label> = arms.iter().map(|_| self.asm.label()).collect();
        let no_arm = self.exits.no_arm;
        let absent = first(arms, &labels, |pattern| matches!(pattern, Pattern::Any | Pattern::Absent));
        let absent = absent.unwrap_or(no_arm);
        match subject {
            Operand::Constant(constant) => {
                let taken = first(arms, &labels, |pattern| match pattern {
                    Pattern::Any | Pattern::Present => true,
                    Pattern::Absent => false,
                    Pattern::Equal(wanted) => wanted == constant,
                    _ => false,
                });
                self.asm.jump(taken.unwrap_or(no_arm));
            }
            _ if !self.has_value(subject) => self.asm.jump(absent),
            _ => {
                self.present(subject, absent)?;
                let tests = arms
                    .iter()
                    .zip(&labels)
                    .flat_map(|(arm, label)| arm.patterns.iter().map(move |pattern| (pattern, *label)));
                let mut open = true;
                for (pattern, label) in tests {
                    match pattern {
                        Pattern::Absent => {}
                        Pattern::Any | Pattern::Present => {
                            self.asm.jump(label);
                            open = false;
                            break;
                        }
                        Pattern::Equal(constant) => self.equal(subject, constant, label)?,
                        _ => return None,
                    }
                }
                if open {
                    self.asm.jump(no_arm);
                }
            }
        }
        let after = self.asm.label();
        for (arm, label) in arms.iter().zip(&labels) {
            if !self.asm.is_referenced(*label) {
                continue;
            }
            self.asm.bind(*label);
            if self.block(&arm.body, send)? {
                self.asm.jump(after);
            }
        }
        let reached = self.asm.is_referenced(after);
        self.asm.bind(after);
        Some(reached)
    }

    /// Goes on behind itself with the call admitted, or rejects it.
    fn session_tracker(&mut self) {
        let (admit, abort) = (self.asm.label(), self.exits.abort);
        self.asm.load(Size::W, R1, R9, small(offset_of!(CallContext, session)));
        self.asm.store(Size::W, FP, SCRATCH, R1);
        self.shared_lookup(Shared::Sessions);
        self.asm.jump_if(Cond::Eq, R0, 0, abort);
        self.asm.store(Size::Dw, FP, VALUE, R0);
        self.asm.call(Helper::KtimeNs);
        self.asm.load(Size::Dw, R1, FP, VALUE);
        self.asm.load(Size::Dw, R2, R1, small(offset_of!(SessionEntry, idle_ns)));
        self.asm.jump_if(Cond::Eq, R2, 0, admit);
        // Another CPU may have admitted a call since this one read the clock.
        self.asm.load(Size::Dw, R3, R1, small(offset_of!(SessionEntry, last_seen_ns)));
        self.asm.jump_if_reg(Cond::Ge, R3, R0, admit);
        self.asm.mov_reg(R4, R0);
        self.asm.alu_reg(Alu::Sub, R4, R3);
        self.asm.jump_if_reg(Cond::Le, R4, R2, admit);
        self.reject(Status::Unauthenticated, Reason::SessionIdle);
        self.asm.bind(admit);
        self.asm.store(Size::Dw, R1, small(offset_of!(SessionEntry, last_seen_ns)), R0);
        self.asm.mov(R2, 1);
        self.asm.atomic_add(R1, small(offset_of!(SessionEntry, calls)), R2);
    }

    /// The program's ends; those that nothing goes to are left out.
    fn ends(&mut self) {
        let Exits { deliver, reject, drop, no_arm, unknown_layout, abort } = self.exits;
        if self.asm.is_referenced(unknown_layout) {
            self.asm.bind(unknown_layout);
            self.reject(Status::FailedPrecondition, Reason::UnknownLayout);
        }
        if self.asm.is_referenced(no_arm) {
            self.asm.bind(no_arm);
            self.drop(Reason::PolicyDrop);
        }
        for (label, stage) in [(drop, Stage::Drop), (reject, Stage::Reject), (deliver, Stage::Deliver)] {
            if self.asm.is_referenced(label) {
                self.asm.bind(label);
                self.asm.mov_reg(R1, R6);
                self.shared(R2, Shared::Stages);
                self.asm.mov(R3, stage as i32);
                self.asm.call(Helper::TailCall);
                // Only an empty slot comes back, and these three never are.
                self.asm.jump(abort);
            }
        }
        self.asm.bind(abort);
        const XDP_DROP: i32 = 1;
        self.asm.mov(R0, XDP_DROP);
        self.asm.exit();
    }

    /// Whether the operand can have a value for these methods at all.
    pub(super) fn has_value(&self, operand: &Operand) -> bool {
        match operand {
            Operand::Field(field) => self.field(*field).is_some(),
            _ => true,
        }
    }

    pub(super) fn field(&self, field: FieldRef) -> Option<&FieldAt> {
        let FieldRef::Request(field) = field else { return None };
        self.fields.get(field)?.as_ref()
    }

    /// Jumps to `equal` if the subject, which is there, is this constant. Its number is in R1.
    fn equal(&mut self, subject: &Operand, constant: &Constant, equal: Label) -> Option<()> {
        match constant {
            Constant::Number(number) => match i32::try_from(*number as i64) {
                Ok(immediate) => self.asm.jump_if(Cond::Eq, R1, immediate, equal),
                Err(_) => {
                    self.asm.constant(R2, *number);
                    self.asm.jump_if_reg(Cond::Eq, R1, R2, equal);
                }
            },
            Constant::Bytes(bytes) => {
                let Operand::Field(field) = subject else { return None };
                let field = self.field(*field)?.clone();
                self.equal_bytes(&field, bytes, equal);
            }
        }
        Some(())
    }
}

fn only(key: &[Operand]) -> Option<&Operand> {
    if let [key] = key { Some(key) } else { None }
}

/// The label of the first arm with a pattern that matches.
fn first(arms: &[Arm], labels: &[Label], matches: impl Fn(&Pattern) -> bool) -> Option<Label> {
    let at = arms.iter().position(|arm| arm.patterns.iter().any(&matches))?;
    labels.get(at).copied()
}
