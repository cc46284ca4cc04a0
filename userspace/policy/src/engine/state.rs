//! What a policy in the engine remembers between calls: its tables, the layouts agreed on with peers, its log, its
//! randomness; and the room that judging takes.

use super::answer::{AnswerBlock, Answered};
use super::changes::Change;
use super::code::{Code, Sizes};
use super::crypt::Nonces;
use super::log::{Log, LogLine};
use super::random::Random;
use super::retry::Retries;
use super::tables::Tables;
use super::view::Slot;
use crate::table::{TableError, TableSpec};
use std::collections::HashMap;
use std::sync::Arc;
use tollfree_wire::maps::{LAYOUTS_MAX, LayoutKey};

/// What one policy in force remembers. Users' texts go in and out through [`TableSpec`]'s notation.
#[derive(Clone, Debug)]
pub struct State {
    specs: Arc<[TableSpec]>,
    /// The elements' names.
    names: Arc<[String]>,
    layouts: HashMap<LayoutKey, u32>,
    pub(super) tables: Tables,
    pub(super) scratch: Scratch,
    pub(super) random: Random,
    pub(super) nonces: Nonces,
    pub(super) log: Log,
    pub(super) retries: Retries,
    pub(super) answer: AnswerBlock,
}

/// Room for what is known while one call is judged.
#[derive(Clone, Debug)]
pub(super) struct Scratch {
    pub slots: Box<[Slot]>,
    pub arena: Box<[u8]>,
    pub key: Box<[u8]>,
    pub value: Box<[u8]>,
}

impl Scratch {
    fn new(sizes: Sizes) -> Scratch {
        let Sizes { slots, arena, key, value } = sizes;
        let bytes = |length| vec![0; length].into_boxed_slice();
        Scratch {
            slots: vec![Slot::Absent; slots].into(),
            arena: bytes(arena),
            key: bytes(key),
            value: bytes(value),
        }
    }
}

impl State {
    pub(super) fn new(code: &Code) -> State {
        State {
            specs: code.specs.clone(),
            names: code.names.clone().into(),
            layouts: HashMap::new(),
            tables: Tables::new(&code.specs, &code.shared),
            scratch: Scratch::new(code.sizes),
            random: Random::unpredictable(),
            nonces: Nonces::new(),
            log: Log::new(code.uses.logs),
            retries: Retries::default(),
            answer: AnswerBlock::default(),
        }
    }

    /// Takes over the tables of the policy before, where name and types are the same, up to this one's capacity; and
    /// the layouts agreed on.
    pub fn adopt(&mut self, old: State) {
        for (at, spec) in old.specs.iter().enumerate() {
            let Some(own) = self.specs.iter().position(|own| own.same_type(spec)) else { continue };
            // What was used last matters most where not all of it fits.
            let surplus = old.tables.count(at).saturating_sub(self.specs[own].capacity as usize);
            let mut seen = 0;
            old.tables.each(at, |key, value| {
                seen += 1;
                if seen > surplus {
                    self.tables.set(own, key, value);
                }
            });
        }
        self.layouts.extend(old.layouts);
    }

    /// Swaps the tables of the same name, type and capacity with another state: so a new policy gets the tables of the
    /// one before, and a policy that is no longer in force borrows them for a call that it has half judged. Takes no
    /// longer for large tables than for small ones.
    pub fn exchange(&mut self, other: &mut State) {
        for (at, spec) in self.specs.iter().enumerate() {
            let same = |own: &TableSpec| own.same_type(spec) && own.capacity == spec.capacity;
            if let Some(theirs) = other.specs.iter().position(same) {
                self.tables.exchange(at, &mut other.tables, theirs);
            }
        }
        std::mem::swap(&mut self.layouts, &mut other.layouts);
    }

    /// The tables' types.
    pub fn specs(&self) -> &[TableSpec] {
        &self.specs
    }

    /// Makes what is random repeatable.
    pub fn seed(&mut self, seed: u64) {
        self.random = Random::new(seed);
    }

    /// A peer's layout of a method's request or response is a compatible extension of the layout `known` here. Of more
    /// than [`LAYOUTS_MAX`] none is kept.
    pub fn layout_insert(&mut self, key: LayoutKey, known: u32) {
        if self.layouts.len() < LAYOUTS_MAX as usize || self.layouts.contains_key(&key) {
            self.layouts.insert(key, known);
        }
    }

    pub(super) fn layout(&self, key: LayoutKey) -> Option<u32> {
        self.layouts.get(&key).copied()
    }

    /// What the policy has answered the last call with, where its verdict was [`crate::Verdict::Answer`].
    pub fn answer(&self) -> Option<Answered<'_>> {
        self.answer.get()
    }

    /// Whether there are writes to tables that XDP reads.
    pub fn has_changes(&self) -> bool {
        !self.tables.changes.is_empty()
    }

    /// Gives every write to the tables that XDP reads too ([`crate::Compiled::shared`]) since the last time, in order.
    pub fn take_changes(&mut self, change: impl FnMut(Change<'_>)) {
        self.tables.changes.take(change);
    }

    /// Gives what the policy has logged since the last time; says how many lines found no room.
    pub fn take_log(&mut self, line: impl FnMut(LogLine<'_>)) -> u64 {
        self.log.take(&self.names, line)
    }

    /// Gives every entry of a table, as its map's bytes.
    pub fn each_entry(&self, table: usize, entry: impl FnMut(&[u8], &[u8])) {
        self.tables.each(table, entry);
    }

    /// Sets an entry by its map's bytes: what XDP had in it. Says whether there was room.
    pub fn set_entry(&mut self, table: usize, key: &[u8], value: &[u8]) -> bool {
        let fits = self.specs.get(table).is_some_and(|spec| spec.key_size as usize == key.len());
        fits && self.tables.set(table, key, value)
    }

    /// Sets an entry.
    ///
    /// # Errors
    /// No such table, not a key or value of it, or the table is full.
    pub fn table_set(&mut self, table: &str, key: &str, value: &str) -> Result<(), TableError> {
        let at = self.find(table)?;
        let spec = &self.specs[at];
        let (key, value) = (spec.parse_key(key)?, spec.parse_value(value)?);
        match self.tables.set(at, &key, &value) {
            true => Ok(()),
            false => {
                let TableSpec { name, capacity, .. } = &self.specs[at];
                Err(TableError::Full { table: name.clone(), capacity: *capacity })
            }
        }
    }

    /// What the table has for a key.
    ///
    /// # Errors
    /// No such table, or not a key of it.
    pub fn table_get(&self, table: &str, key: &str) -> Result<Option<String>, TableError> {
        let at = self.find(table)?;
        let spec = &self.specs[at];
        Ok(self.tables.peek(at, &spec.parse_key(key)?).map(|value| spec.format_value(value)))
    }

    /// Removes an entry; says whether it was there. A cell is as at first then.
    ///
    /// # Errors
    /// No such table, or not a key of it.
    pub fn table_delete(&mut self, table: &str, key: &str) -> Result<bool, TableError> {
        let at = self.find(table)?;
        let key = self.specs[at].parse_key(key)?;
        Ok(self.tables.remove(at, &key))
    }

    /// Every entry, by key.
    ///
    /// # Errors
    /// No such table.
    pub fn table_dump(&self, table: &str) -> Result<Vec<(String, String)>, TableError> {
        let at = self.find(table)?;
        let spec = &self.specs[at];
        let mut entries = Vec::new();
        self.tables.each(at, |key, value| entries.push((spec.format_key(key), spec.format_value(value))));
        entries.sort();
        Ok(entries)
    }

    fn find(&self, name: &str) -> Result<usize, TableError> {
        self.specs.iter().position(|spec| spec.name == name).ok_or_else(|| {
            let known: Vec<&str> = self.specs.iter().map(|spec| spec.name.as_str()).collect();
            let known = (!known.is_empty()).then(|| known.join(", "));
            TableError::Unknown { name: name.to_owned(), known }
        })
    }
}
