//! The eBPF back end: instructions emitted directly and written as an ELF object, so that putting a policy in force
//! needs no compiler on the host.
//!
//! The program finds the method and checks its layout, then runs the chain on constant offsets: methods whose requests
//! have the fields that the policy reads in the same places share code, all others get their own. No loops, so it
//! verifies by construction.

mod arithmetic;
mod asm;
mod btf;
mod chain;
mod compare;
mod decided;
mod elf;
mod entry;
mod exits;
mod hashing;
mod listing;
mod matching;
mod operand;
mod packet;
mod program;
mod prologue;
mod scratch;
mod statement;
mod tables;
mod take;
#[cfg(test)]
mod tests;
mod text;

pub(crate) use decided::Runs;
pub(crate) use listing::Listing;

use crate::ir::{Group, Policy};
use crate::table::{KeyType, TableKind, TableSpec};
use elf::Map;
use tollfree_wire::{Reason, maps, session};

/// Kinds of maps, as `enum bpf_map_type` numbers them.
const MAP_HASH: u32 = 1;
const MAP_ARRAY: u32 = 2;
const MAP_PROG_ARRAY: u32 = 3;
const MAP_PERCPU_HASH: u32 = 5;
const MAP_PERCPU_ARRAY: u32 = 6;
const MAP_LRU_HASH: u32 = 9;
const MAP_LPM_TRIE: u32 = 11;
/// `BPF_F_NO_PREALLOC`: a table takes memory for the entries it has, not for those it could have.
const NO_PREALLOC: u32 = 1;

/// The map through which the parts of a policy too long for one program go on in one another: a program array by the
/// numbers in the parts' names, `tf_policy_1` and so on.
pub(crate) const PARTS: &str = "tf_parts";

/// A policy as an object file.
#[derive(Debug)]
pub(crate) struct Emitted {
    pub object: Vec<u8>,
    pub instructions: usize,
    /// Per element of the chain, over all groups of methods.
    pub per_element: Vec<usize>,
    pub listing: Listing,
}

/// Why a policy cannot be emitted as it was placed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum TooMuch {
    /// Because of this element: it belongs in the engine, and so do those behind it. The words go on from its name.
    Element(usize, String),
    Program(String),
}

/// Why an element cannot be emitted, in words that go on from its name.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Refused {
    why: String,
}

impl Refused {
    fn new(why: &str) -> Refused {
        Refused { why: why.to_owned() }
    }
}

/// Where an object's programs have the time from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Clock {
    /// The kernel's monotonic clock.
    #[default]
    Kernel,
    /// It stands still at so many ns, for tests: the instruction that reads the clock loads this number instead.
    Fixed(u64),
}

/// Emits the first `count` elements of a policy.
pub(crate) fn emit(
    policy: &Policy,
    groups: &[Group],
    count: usize,
    runs: &Runs,
    clock: Clock,
    source: &crate::Source<'_>,
) -> Result<Emitted, TooMuch> {
    let program::Emission { parts, shared, scratch, per_element } =
        program::program(policy, groups, count, runs, clock)?;
    let tables = policy.tables.iter().map(table);
    let others = shared.into_iter().map(|map| definition(map, scratch, parts.len()));
    let maps: Vec<Map> = tables.chain(others).collect();
    let lines = btf::Lines { name: source.name, text: source.text };
    let codes: Vec<&asm::Code> = parts.iter().map(|part| &part.code).collect();
    let object = elf::write(&codes, &maps, &lines)
        .ok_or_else(|| TooMuch::Program("its object file cannot be written".into()))?;
    let instructions = codes.iter().map(|code| code.bytes.len() / 8).sum();
    let listing = Listing::new(parts, maps.into_iter().map(|map| map.name).collect(), policy, source);
    Ok(Emitted { object, instructions, per_element, listing })
}

/// Whether a table can be a map, and else why not, in words that go on from its name.
pub(crate) fn map_obstacle(table: &TableSpec) -> Option<String> {
    let TableSpec { key_size, value_size, .. } = table;
    (!scratch::fits(table)).then(|| {
        format!(
            "has keys of {key_size} bytes and values of {value_size}, which is more than XDP programs take"
        )
    })
}

fn table(table: &TableSpec) -> Map {
    let TableSpec { name, key, kind, capacity, key_size, value_size, .. } = table;
    let (kind, max_entries, flags) = match (kind, key) {
        (TableKind::Hash, _) => (MAP_HASH, *capacity, NO_PREALLOC),
        // A map of this kind must have all its memory from the start.
        (TableKind::Lru, _) => (MAP_LRU_HASH, *capacity, 0),
        (TableKind::Lpm, _) => (MAP_LPM_TRIE, *capacity, NO_PREALLOC),
        (TableKind::Cell, _) => (MAP_ARRAY, 1, 0),
        (TableKind::Counter, KeyType::Unit) => (MAP_PERCPU_ARRAY, 1, 0),
        (TableKind::Counter, _) => (MAP_PERCPU_HASH, *capacity, NO_PREALLOC),
    };
    Map { name: name.clone(), kind, key_size: *key_size, value_size: *value_size, max_entries, flags }
}

/// A map that is no table. Most are shared with the root program and user space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shared {
    Call,
    Stages,
    Sessions,
    Layouts,
    Config,
    Reasons,
    Answer,
    Peers,
    /// With bytes of an entry; the policy's own.
    Decisions(usize),
    /// The policy's own, with a place per part.
    Parts,
    /// The policy's own.
    Generation,
    /// The policy's own.
    Scratch,
}

/// The definitions must be those of the root program's object: the maps are the same ones.
fn definition(shared: Shared, scratch: u32, parts: usize) -> Map {
    let index = size_of::<u32>();
    let slots = session::SESSION_SLOTS;
    let (name, kind, key, value, max_entries) = match shared {
        Shared::Call => (maps::CALL, MAP_PERCPU_ARRAY, index, size_of::<maps::CallContext>(), 1),
        Shared::Stages => (maps::STAGES, MAP_PROG_ARRAY, index, index, maps::Stage::COUNT),
        Shared::Sessions => {
            (maps::SESSIONS, MAP_ARRAY, index, size_of::<tollfree_wire::SessionEntry>(), slots)
        }
        Shared::Layouts => {
            (maps::LAYOUTS, MAP_HASH, size_of::<maps::LayoutKey>(), size_of::<u32>(), maps::LAYOUTS_MAX)
        }
        Shared::Config => (maps::CONFIG, MAP_ARRAY, index, size_of::<maps::Config>(), 1),
        Shared::Reasons => (maps::REASONS, MAP_PERCPU_ARRAY, index, size_of::<u64>(), Reason::COUNT as u32),
        Shared::Answer => (maps::ANSWER, MAP_PERCPU_ARRAY, index, size_of::<maps::Answer>(), 1),
        Shared::Peers => (maps::PEERS, MAP_ARRAY, index, size_of::<maps::PeerEntry>(), slots),
        Shared::Decisions(size) => (maps::DECISIONS, MAP_ARRAY, index, size, slots),
        Shared::Parts => (PARTS, MAP_PROG_ARRAY, index, index, parts as u32),
        Shared::Generation => (maps::GENERATION, MAP_ARRAY, index, size_of::<u64>(), 1),
        Shared::Scratch => (maps::SCRATCH, MAP_PERCPU_ARRAY, index, scratch as usize, 1),
    };
    let (key_size, value_size) = (key as u32, value as u32);
    Map { name: name.into(), kind, key_size, value_size, max_entries, flags: 0 }
}
