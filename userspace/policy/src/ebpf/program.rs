//! A policy's programs: one after the other, each with its own entry and ends, around the chains of the groups of methods.
//!
//! Registers: R6 the context, R7 the base header, R8 the packet's end, R9 the policy's own memory ([`super::scratch`]).
//! The others are free between statements.

use super::asm::{Alu, Assembler, Code, Cond, FP, Helper, Label, R0, R1, R2, R3, R6, Reg, Size};
use super::decided::Runs;
use super::prologue::Prepared;
use super::scratch::{self, INDEX, Slots};
use super::{Refused, Shared, TooMuch};
use crate::ir::{FieldAt, FieldRef, Group, Operand, Policy};
use crate::table::TableSpec;
use std::collections::BTreeSet;

/// Where a part of the program is long enough, and the next element begins another.
const PART_FULL: usize = 8_000;
/// The verifier looks at a million instructions, in all ways together. A way on which a field is absent differs from one
/// on which it is there, in how much of the packet is known to exist: so there are as many ways through an element as it
/// reads fields, and one more.
pub(super) const WEIGHT_MAX: usize = 400_000;
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
pub(super) struct Rest {
    pub group: usize,
    pub ordinal: usize,
    pub element: usize,
    /// The run of decided elements that was looked at last.
    pub run: Option<usize>,
    /// How many parts have come before it.
    pub depth: usize,
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
    /// How often the element at hand reads each of its slots.
    pub reads: Vec<usize>,
    pub prepared: Prepared,
    pub runs: &'a Runs,
    /// The group's only method's place among all methods; `None` where it has several.
    pub single: Option<usize>,
    pub exits: Exits,
    pub clock: super::Clock,
    shared: Vec<Shared>,
    marks: Vec<Mark>,
    pub per_element: Vec<usize>,
    /// What is left to other parts, in the order of their places behind the first.
    rests: Vec<Rest>,
    /// The ways through the part at hand: see [`WEIGHT_MAX`].
    pub weight: usize,
}

/// The ends of the program.
#[derive(Clone, Copy)]
pub(super) struct Exits {
    pub deliver: Label,
    /// With the rest of the chain left to the engine.
    pub deliver_rest: Label,
    /// With code and reason already noted.
    pub reject: Label,
    /// With the reason already noted.
    pub drop: Label,
    /// With the answer already in its place.
    pub answer: Label,
    /// What the policy decides per session is not known for this one.
    pub undecided: Label,
    pub unknown_layout: Label,
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
        reads: Vec::new(),
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
    let shared = used(&mut parts, policy.tables.len(), shared);
    Ok(Emission { parts, shared, scratch: slots.size(), per_element })
}

/// Leaves out the shared maps that no instruction is left to name.
fn used(parts: &mut [Part], tables: usize, shared: Vec<Shared>) -> Vec<Shared> {
    let named = || parts.iter().flat_map(|part| &part.code.maps).map(|(_, map)| *map);
    let used: BTreeSet<usize> = named().filter(|map| *map >= tables).collect();
    for (_, map) in parts.iter_mut().flat_map(|part| &mut part.code.maps) {
        if *map >= tables {
            *map = tables + used.range(..*map).count();
        }
    }
    let shared = shared.into_iter().enumerate();
    shared.filter(|(at, _)| used.contains(&(tables + at))).map(|(_, map)| map).collect()
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
    pub(super) fn is_full(&self) -> bool {
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
        let mut marks = std::mem::take(&mut self.marks);
        for mark in &mut marks {
            mark.at = code.moved[mark.at];
        }
        for pair in marks.windows(2) {
            if let What::Element(element) = pair[0].what {
                self.per_element[element] += pair[1].at - pair[0].at;
            }
        }
        Ok(Part { code, marks })
    }

    pub(super) fn mark(&mut self, what: What) {
        self.marks.push(Mark { at: self.asm.len(), what });
    }

    /// Leaves the rest to another part.
    pub(super) fn go_on(&mut self, rest: Rest) -> Result<(), TooMuch> {
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
