//! The eBPF back end: instructions emitted directly and written as an ELF object, so that putting a policy in force
//! needs no compiler on the host.
//!
//! The program finds the method and checks its layout, then runs the chain on constant offsets: methods whose requests
//! have the fields that the policy reads in the same places share code, all others get their own. No loops, so it
//! verifies by construction.

mod asm;
mod btf;
mod elf;
mod emit;
mod value;

use crate::ir::{Group, Policy};
use elf::Map;
use tollfree_wire::maps;

/// `BPF_MAP_TYPE_HASH`.
const MAP_HASH: u32 = 1;
/// `BPF_MAP_TYPE_ARRAY`.
const MAP_ARRAY: u32 = 2;
/// `BPF_MAP_TYPE_PROG_ARRAY`.
const MAP_PROG_ARRAY: u32 = 3;
/// `BPF_MAP_TYPE_PERCPU_ARRAY`.
const MAP_PERCPU_ARRAY: u32 = 6;
/// `BPF_F_NO_PREALLOC`: a table takes memory for the entries it has, not for those it could have.
const NO_PREALLOC: u32 = 1;

/// A policy as an object file.
#[derive(Debug)]
pub(crate) struct Emitted {
    pub object: Vec<u8>,
    pub instructions: usize,
    /// Per element of the chain, over all groups of methods.
    pub per_element: Vec<usize>,
}

/// Emits a policy; `None` where the program would be longer than jumps reach.
pub(crate) fn emit(policy: &Policy, groups: &[Group], name: &str, text: &str) -> Option<Emitted> {
    let emit::Emission { code, shared, per_element } = emit::program(policy, groups)?;
    let tables = policy.tables.iter().map(|table| Map {
        name: table.name.clone(),
        kind: MAP_HASH,
        key_size: table.key_size,
        value_size: table.value_size,
        max_entries: table.capacity,
        flags: NO_PREALLOC,
    });
    let maps: Vec<Map> = tables.chain(shared.into_iter().map(definition)).collect();
    let object = elf::write(&code, &maps, &btf::Lines { name, text })?;
    Some(Emitted { object, instructions: code.bytes.len() / 8, per_element })
}

/// A map that the root program and user space share with policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shared {
    Call,
    Stages,
    Sessions,
    Layouts,
}

/// The definitions must be those of the root program's object: the maps are the same ones.
fn definition(shared: Shared) -> Map {
    let index = size_of::<u32>();
    let (name, kind, key, value, max_entries) = match shared {
        Shared::Call => (maps::CALL, MAP_PERCPU_ARRAY, index, size_of::<maps::CallContext>(), 1),
        Shared::Stages => (maps::STAGES, MAP_PROG_ARRAY, index, index, maps::Stage::COUNT),
        Shared::Sessions => {
            let slots = tollfree_wire::session::SESSION_SLOTS;
            (maps::SESSIONS, MAP_ARRAY, index, size_of::<tollfree_wire::SessionEntry>(), slots)
        }
        Shared::Layouts => {
            (maps::LAYOUTS, MAP_HASH, size_of::<maps::LayoutKey>(), size_of::<u32>(), maps::LAYOUTS_MAX)
        }
    };
    let (key_size, value_size) = (key as u32, value as u32);
    Map { name: name.into(), kind, key_size, value_size, max_entries, flags: 0 }
}
