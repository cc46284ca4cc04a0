//! The program around the chain: finding the method and checking its layout, the elements one after the other, and the
//! program's ends.
//!
//! Registers: R6 the context, R7 the base header, R8 the packet's end, R9 the policy's own memory ([`super::scratch`]).
//! The others are free between statements.

use super::asm::{Alu, Assembler, Code, Cond, FP, Helper, Label, R0, R1, R2, R3, R6, R7, R8, R9, Reg, Size};
use super::decided::Runs;
use super::prologue::Prepared;
use super::scratch::{self, CONTEXT, INDEX, Slots};
use super::{Refused, Shared, TooMuch};
use crate::ir::{Body, FieldAt, FieldRef, Group, Operand, Policy};
use crate::table::TableSpec;
use std::collections::BTreeSet;
use std::mem::offset_of;
use tollfree_wire::header::HEADER_LEN;
use tollfree_wire::maps::{CallContext, LayoutKey, Stage};
use tollfree_wire::{Code as Status, Header, Reason};

/// The verifier needs a bound on where the base header starts; 66 is the most.
const HEADER_OFFSET_MASK: i32 = 0x7f;
/// Instructions of one element, for one group of methods: jumps reach 32,767 of them, and the verifier looks at no more
/// than 8,192 branches that are open at a time.
const ELEMENT_MAX: usize = 8_000;
/// Where a part of the program is long enough, and the next element begins another.
const PART_FULL: usize = 8_000;
/// The verifier looks at a million instructions, in all ways together. A way on which a field is absent differs from one
/// on which it is there, in how much of the packet is known to exist: so there are as many ways through an element as it
/// reads fields, and one more.
const WEIGHT_MAX: usize = 400_000;
/// From so many fields on, what is known of the packet is forgotten before each element.
const FIELDS_FORGOTTEN: usize = 8;
/// The kernel follows 33 tail calls; the root program and the last stage take some.
const PARTS_IN_A_ROW: usize = 24;
/// The most parts of a policy.
const PARTS_MAX: usize = 512;

pub(super) struct Emission {
    /// The first is the one to start with.
    pub parts: Vec<Part>,
    /// In the order of their indices, which follow those of the policy's tables.
    pub shared: Vec<Shared>,
    /// Bytes of the policy's own memory.
    pub scratch: u32,
    /// Per element, over all groups.
    pub per_element: Vec<usize>,
}

pub(super) struct Part {
    pub code: Code,
    /// From which instruction on it is which element's code, in which group.
    pub marks: Vec<Mark>,
}

/// A group's chain from an element on: what another part has left to do.
#[derive(Clone, Copy)]
struct Rest {
    group: usize,
    ordinal: usize,
    element: usize,
    /// The run of decided elements that was looked at last.
    run: Option<usize>,
    /// How many parts have come before it.
    depth: usize,
}

/// What the instructions from here on do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mark {
    pub at: usize,
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    Entry,
    Group(usize),
    Element(usize),
    Ends,
}

pub(super) struct Emitter<'a> {
    pub asm: Assembler,
    pub policy: &'a Policy,
    /// The group of methods that code is being emitted for.
    pub group: &'a Group,
    pub slots: Slots,
    pub prepared: Prepared,
    pub runs: &'a Runs,
    /// The group's only method's place among all methods; `None` where it has several.
    pub single: Option<usize>,
    pub exits: Exits,
    pub clock: super::Clock,
    shared: Vec<Shared>,
    marks: Vec<Mark>,
    per_element: Vec<usize>,
    /// What is left to other parts, in the order of their places behind the first.
    rests: Vec<Rest>,
    /// The ways through the part at hand: see [`WEIGHT_MAX`].
    weight: usize,
}

/// The ends of the program.
#[derive(Clone, Copy)]
pub(super) struct Exits {
    deliver: Label,
    /// With the rest of the chain left to the engine.
    deliver_rest: Label,
    /// With code and reason already noted.
    reject: Label,
    /// With the reason already noted.
    drop: Label,
    /// With the answer already in its place.
    pub answer: Label,
    /// What the policy decides per session is not known for this one.
    pub undecided: Label,
    unknown_layout: Label,
    /// Something that cannot be missing is missing.
    pub abort: Label,
}

/// Where an element's ways lead.
#[derive(Clone, Copy)]
pub(super) struct Ways {
    /// To the next element.
    pub send: Label,
    /// In a dry run: where a refusal is counted before the next element.
    pub audit: Option<Label>,
}

/// Emits the first `count` elements of the chain.
pub(super) fn program(
    policy: &Policy,
    groups: &[Group],
    count: usize,
    runs: &Runs,
    clock: super::Clock,
) -> Result<Emission, TooMuch> {
    let Some(first) = groups.first() else {
        return Err(TooMuch::Program("the schema has no methods".into()));
    };
    let mut asm = Assembler::default();
    let exits = Exits::new(&mut asm);
    let mut emitter = Emitter {
        asm,
        policy,
        group: first,
        slots: Slots::new(),
        prepared: Prepared::default(),
        runs,
        single: None,
        exits,
        clock,
        shared: Vec::new(),
        marks: Vec::new(),
        per_element: vec![0; policy.elements.len()],
        rests: Vec::new(),
        weight: 0,
    };
    emitter.entry();
    let starts: Vec<Label> = groups.iter().map(|_| emitter.asm.label()).collect();
    emitter.dispatch(groups, &starts);
    let mut ordinal = 0;
    for (at, (group, start)) in groups.iter().zip(&starts).enumerate() {
        emitter.asm.bind(*start);
        let rest = Rest { group: at, ordinal, element: 0, run: None, depth: 0 };
        ordinal += group.methods.len();
        if emitter.is_full() {
            emitter.go_on(rest)?;
        } else {
            emitter.chain(group, rest, count)?;
        }
    }
    let mut parts = vec![emitter.part()?];
    while let Some(rest) = emitter.rests.get(parts.len() - 1).copied() {
        emitter.entry();
        if let Some(group) = groups.get(rest.group) {
            emitter.chain(group, rest, count)?;
        }
        parts.push(emitter.part()?);
    }
    let Emitter { shared, slots, per_element, .. } = emitter;
    Ok(Emission { parts, shared, scratch: slots.size(), per_element })
}

impl Exits {
    fn new(asm: &mut Assembler) -> Exits {
        Exits {
            deliver: asm.label(),
            deliver_rest: asm.label(),
            reject: asm.label(),
            drop: asm.label(),
            answer: asm.label(),
            undecided: asm.label(),
            unknown_layout: asm.label(),
            abort: asm.label(),
        }
    }
}

/// An offset within a struct or a packet, which are all small.
pub(super) fn small(offset: usize) -> i16 {
    // At most a header, a flat block and a session entry's head: a few hundred bytes.
    i16::try_from(offset).unwrap_or(i16::MAX)
}

impl<'a> Emitter<'a> {
    fn is_full(&self) -> bool {
        self.asm.len() > PART_FULL || self.weight > WEIGHT_MAX
    }

    /// Ends the part at hand and begins the next.
    fn part(&mut self) -> Result<Part, TooMuch> {
        self.mark(What::Ends);
        self.ends();
        let mut asm = Assembler::default();
        self.exits = Exits::new(&mut asm);
        self.weight = 0;
        let code = std::mem::replace(&mut self.asm, asm).finish().map_err(|_| {
            TooMuch::Program("the schema has more methods than one XDP program can tell apart".into())
        })?;
        Ok(Part { code, marks: std::mem::take(&mut self.marks) })
    }

    fn mark(&mut self, what: What) {
        self.marks.push(Mark { at: self.asm.len(), what });
    }

    /// Leaves the rest to another part.
    fn go_on(&mut self, rest: Rest) -> Result<(), TooMuch> {
        let depth = rest.depth + 1;
        if depth > PARTS_IN_A_ROW || self.rests.len() >= PARTS_MAX {
            let why = "comes after more than fits into the programs that XDP can run one after the other";
            return Err(TooMuch::Element(rest.element, why.into()));
        }
        self.rests.push(Rest { depth, ..rest });
        self.asm.mov_reg(R1, R6);
        self.shared(R2, Shared::Parts);
        self.asm.mov(R3, self.rests.len() as i32);
        self.asm.call(Helper::TailCall);
        // Every part is in its place before the first can run.
        self.asm.jump(self.exits.abort);
        Ok(())
    }

    pub(super) fn shared(&mut self, dst: Reg, map: Shared) {
        let at = self.shared.iter().position(|known| *known == map).unwrap_or_else(|| {
            self.shared.push(map);
            self.shared.len() - 1
        });
        self.asm.map(dst, self.policy.tables.len() + at);
    }

    /// Looks up a shared map by what is at [`INDEX`]; the entry's address, or 0, is in R0.
    pub(super) fn shared_lookup(&mut self, map: Shared) {
        self.asm.mov_reg(R2, FP);
        self.asm.alu(Alu::Add, R2, INDEX.into());
        self.shared(R1, map);
        self.asm.call(Helper::MapLookup);
    }

    /// The address of a shared array's entry in R0.
    pub(super) fn shared_entry(&mut self, map: Shared, index: u32) {
        self.asm.store_imm(Size::W, FP, INDEX, index as i32);
        self.shared_lookup(map);
        self.asm.jump_if(Cond::Eq, R0, 0, self.exits.abort);
    }

    fn entry(&mut self) {
        self.mark(What::Entry);
        self.asm.mov_reg(R6, R1);
        self.shared_entry(Shared::Scratch, 0);
        self.asm.mov_reg(R9, R0);
        self.shared_entry(Shared::Call, 0);
        self.asm.store(Size::Dw, FP, CONTEXT, R0);
        self.find_header(R0);
    }

    /// Finds the base header anew, with the context at `context`: nothing more than that is known of the packet then.
    fn find_header(&mut self, context: Reg) {
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
    fn dispatch(&mut self, groups: &[Group], starts: &[Label]) {
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

    fn chain(&mut self, group: &'a Group, rest: Rest, count: usize) -> Result<(), TooMuch> {
        let policy = self.policy;
        self.mark(What::Group(rest.group));
        self.group = group;
        self.single = (group.methods.len() == 1).then_some(rest.ordinal);
        self.prepared = Prepared::default();
        let Rest { mut run, .. } = rest;
        let ends: BTreeSet<u16> = group.fields.iter().flatten().map(|field| field.end).collect();
        for (at, element) in policy.elements.iter().enumerate().take(count).skip(rest.element) {
            if !group.covered.get(at).copied().unwrap_or(false) {
                continue;
            }
            if self.is_full() {
                return self.go_on(Rest { element: at, run, ..rest });
            }
            if ends.len() > FIELDS_FORGOTTEN {
                self.context(R2);
                self.find_header(R2);
            }
            let before = self.asm.len();
            let ways = Ways { send: self.asm.label(), audit: element.audit.then(|| self.asm.label()) };
            let refused = |refused: Refused| TooMuch::Element(at, refused.why);
            match self.runs.of(at) {
                // The byte stands for the whole run.
                Some(known) if run == Some(known) => continue,
                Some(known) => {
                    run = Some(known);
                    self.mark(What::Element(at));
                    self.asm.line(&element.span);
                    self.decided(known, ways.send);
                }
                None => {
                    self.mark(What::Element(at));
                    self.element(element.request.as_ref(), &element.span, ways).map_err(refused)?;
                }
            }
            if let Some(audit) = ways.audit {
                self.asm.bind(audit);
                self.audited();
            }
            self.asm.bind(ways.send);
            let length = self.asm.len() - before;
            self.per_element[at] += length;
            if length > ELEMENT_MAX {
                let why =
                    format!("takes {length} instructions for one method, and XDP can take {ELEMENT_MAX}");
                return Err(TooMuch::Element(at, why));
            }
            let own = length * (1 + ends.len());
            if own > WEIGHT_MAX {
                let why =
                    format!("has more ways through its {length} instructions than the verifier follows");
                return Err(TooMuch::Element(at, why));
            }
            self.weight += own;
        }
        // A response handler is the engine's too, wherever its element's request handler runs.
        let rest = policy
            .elements
            .iter()
            .zip(&group.covered)
            .enumerate()
            .any(|(at, (element, covered))| *covered && (at >= count || element.response.is_some()));
        self.asm.jump(if rest { self.exits.deliver_rest } else { self.exits.deliver });
        Ok(())
    }

    fn element(
        &mut self,
        body: Option<&Body>,
        span: &crate::diagnostics::Span,
        ways: Ways,
    ) -> Result<(), Refused> {
        self.slots.clear();
        match body {
            None => {}
            Some(Body::SessionTracker(at)) => {
                self.asm.line(at);
                self.session_tracker(ways);
            }
            Some(Body::Block(block)) => {
                self.asm.line(span);
                self.prepare(block);
                self.block(block, ways)?;
            }
        }
        // A handler without an exit sends.
        self.asm.jump(ways.send);
        Ok(())
    }

    /// Where in [`CallContext`] the next stage looks.
    fn context(&mut self, dst: Reg) {
        self.asm.load(Size::Dw, dst, FP, CONTEXT);
    }

    pub(super) fn drop(&mut self, reason: Reason, ways: Ways) {
        if let Some(audit) = ways.audit {
            return self.asm.jump(audit);
        }
        self.note(None, reason);
        self.asm.jump(self.exits.drop);
    }

    pub(super) fn reject(&mut self, code: Status, reason: Reason, ways: Ways) {
        if let Some(audit) = ways.audit {
            return self.asm.jump(audit);
        }
        self.note(Some(code), reason);
        self.asm.jump(self.exits.reject);
    }

    /// The code is in R2 already.
    pub(super) fn reject_with_r2(&mut self) {
        self.context(R1);
        self.asm.store(Size::W, R1, small(offset_of!(CallContext, code)), R2);
        self.asm.store_imm(Size::W, R1, small(offset_of!(CallContext, reason)), Reason::PolicyReject as i32);
        self.asm.jump(self.exits.reject);
    }

    fn note(&mut self, code: Option<Status>, reason: Reason) {
        self.context(R1);
        if let Some(code) = code {
            self.asm.store_imm(Size::W, R1, small(offset_of!(CallContext, code)), code as i32);
        }
        self.asm.store_imm(Size::W, R1, small(offset_of!(CallContext, reason)), reason as i32);
    }

    /// Counts a refusal that a dry run did not carry out.
    fn audited(&mut self) {
        if !self.asm.is_open() {
            return;
        }
        self.shared_entry(Shared::Reasons, Reason::PolicyAudit as u32);
        self.asm.load(Size::Dw, R1, R0, 0);
        self.asm.alu(Alu::Add, R1, 1);
        self.asm.store(Size::Dw, R0, 0, R1);
    }

    /// The program's ends; those that nothing goes to are left out.
    fn ends(&mut self) {
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
        let stages = [
            (drop, Stage::Drop),
            (reject, Stage::Reject),
            (answer, Stage::Answer),
            (deliver, Stage::Deliver),
        ];
        for (label, stage) in stages {
            self.asm.bind(label);
            if self.asm.is_open() {
                self.asm.mov_reg(R1, R6);
                self.shared(R2, Shared::Stages);
                self.asm.mov(R3, stage as i32);
                self.asm.call(Helper::TailCall);
                // Only an empty slot comes back, and these never are.
                self.asm.jump(abort);
            }
        }
        self.asm.bind(abort);
        const XDP_DROP: i32 = 1;
        self.asm.mov(R0, XDP_DROP);
        self.asm.exit();
    }

    pub(super) fn table(&self, table: usize) -> Result<TableSpec, Refused> {
        self.policy.tables.get(table).cloned().ok_or_else(|| Refused::new("names a table that there is not"))
    }

    /// Whether the operand can have a value for these methods at all.
    pub(super) fn has_value(&self, operand: &Operand) -> bool {
        match operand {
            Operand::Field(field) => self.field(*field).is_some(),
            Operand::Slot(slot) => {
                self.slots.get(*slot).is_none_or(|slot| slot.kind != scratch::SlotKind::Never)
            }
            _ => true,
        }
    }

    pub(super) fn field(&self, field: FieldRef) -> Option<&FieldAt> {
        let FieldRef::Request(field) = field else { return None };
        self.group.fields.get(field)?.as_ref()
    }
}
