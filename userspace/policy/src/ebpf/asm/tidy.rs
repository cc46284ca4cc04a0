//! What is left of a program's instructions once all of them are known: jumps to jumps go where those go, and what nothing
//! reaches, or nothing needs, is left out. All jumps go forwards, so each pass looks at every instruction once.

use super::{EXIT, Insn, JA, Reg, TooFar};
use std::ops::Range;

/// Instructions that are there for a register's sake alone.
#[derive(Debug)]
pub(super) struct SetUp {
    pub register: Reg,
    pub at: Range<usize>,
}

/// Which instructions stay.
pub(super) struct Tidy {
    /// Per instruction: where it jumps to.
    pub targets: Vec<Option<usize>>,
    pub kept: Vec<bool>,
    /// Per instruction, and behind the last: its place among those that stay, or that of the next one that does.
    pub moved: Vec<usize>,
}

/// `targets` has the place that each jump names.
pub(super) fn tidy(
    insns: &[Insn],
    mut targets: Vec<Option<usize>>,
    set_up: Option<&SetUp>,
) -> Result<Tidy, TooFar> {
    for from in (0..insns.len()).rev() {
        if let Some(to) = targets[from]
            && insns.get(to).is_some_and(|insn| insn.opcode == JA)
        {
            targets[from] = targets[to];
        }
    }
    let idle = set_up.filter(|set_up| !set_up.is_needed(insns)).map_or(0..0, |set_up| set_up.at.clone());
    let mut kept = vec![false; insns.len() + 1];
    kept[0] = true;
    for (at, insn) in insns.iter().enumerate() {
        if !kept[at] {
            continue;
        }
        if idle.contains(&at) {
            kept[at] = false;
            kept[at + 1] = true;
            continue;
        }
        if let Some(to) = targets[at] {
            *kept.get_mut(to).ok_or(TooFar)? = true;
        }
        kept[at + 1] |= insn.opcode != JA && insn.opcode != EXIT;
    }
    kept.truncate(insns.len());
    // From the end on, so that it is known what comes next.
    let mut next = vec![insns.len(); insns.len() + 1];
    for (at, insn) in insns.iter().enumerate().rev() {
        let leads_on = insn.opcode == JA && targets[at].is_some_and(|to| next[to] == next[at + 1]);
        kept[at] &= !leads_on;
        next[at] = if kept[at] { at } else { next[at + 1] };
    }
    let mut moved = Vec::with_capacity(insns.len() + 1);
    let mut place = 0;
    for kept in &kept {
        moved.push(place);
        place += usize::from(*kept);
    }
    moved.push(place);
    Ok(Tidy { targets, kept, moved })
}

impl SetUp {
    /// Whether anything else uses the register.
    fn is_needed(&self, insns: &[Insn]) -> bool {
        let Reg(register) = self.register;
        let uses = |insn: &Insn| insn.registers & 0x0f == register || insn.registers >> 4 == register;
        insns.iter().enumerate().any(|(at, insn)| !self.at.contains(&at) && uses(insn))
    }
}
