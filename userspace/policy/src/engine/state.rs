//! What a policy in the engine remembers between calls: its tables, the layouts agreed on with peers, its log, its
//! randomness; and the room that judging takes.

use super::answer::{AnswerBlock, Answered};
use super::changes::Change;
use super::code::Code;
use super::crypt::{Nonces, Spare};
use super::evaluate::Memory;
use super::log::{Log, LogLine};
use super::outcome::Outcome;
use super::random::Random;
use super::registers::Registers;
use super::retry::Retries;
use super::tables::{Key, Tables};
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
    /// Where the method of the last call is in the program's list.
    pub(super) method: usize,
    pub(super) memory: Memory,
    pub(super) registers: Registers,
    /// Of the last call.
    pub(super) outcome: Outcome,
}

impl State {
    pub(super) fn new(code: &Code) -> State {
        State {
            specs: code.specs.clone(),
            names: code.names.clone().into(),
            layouts: HashMap::new(),
            method: 0,
            memory: Memory {
                tables: Tables::new(&code.specs, &code.shared),
                key: Key::new(code.sizes.key),
                random: Random::unpredictable(),
                nonces: Nonces::default(),
                spare: Spare::default(),
                log: Log::new(code.uses.logs),
                retries: Retries::default(),
                answer: AnswerBlock::default(),
            },
            registers: Registers::new(code),
            outcome: Outcome::default(),
        }
    }

    /// Another call is judged.
    #[inline]
    pub(super) fn forget(&mut self) {
        self.outcome = Outcome::default();
        self.memory.answer.forget();
    }

    /// Swaps the tables of the same name, type and capacity with another state: so a new policy gets the tables of the
    /// one before, and a policy that is no longer in force borrows them for a call that it has half judged. Takes no
    /// longer for large tables than for small ones.
    pub fn exchange(&mut self, other: &mut State) {
        for (at, spec) in self.specs.iter().enumerate() {
            let same = |own: &TableSpec| own.same_type(spec) && own.capacity == spec.capacity;
            if let Some(theirs) = other.specs.iter().position(same) {
                self.memory.tables.exchange(at, &mut other.memory.tables, theirs);
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
        self.memory.random = Random::new(seed);
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

    /// What became of the last call that was judged, or response.
    pub fn outcome(&self) -> &Outcome {
        &self.outcome
    }

    /// What the policy has answered the last call with, where its verdict was [`crate::Verdict::Answer`].
    pub fn answer(&self) -> Option<Answered<'_>> {
        self.memory.answer.get()
    }

    /// Whether there are writes to tables that XDP reads.
    pub fn has_changes(&self) -> bool {
        !self.memory.tables.changes.is_empty()
    }

    /// Gives every write to the tables that XDP reads too ([`crate::Compiled::shared`]) since the last time, in order.
    pub fn take_changes(&mut self, change: impl FnMut(Change<'_>)) {
        self.memory.tables.changes.take(change);
    }

    /// Gives what the policy has logged since the last time; says how many lines found no room.
    pub fn take_log(&mut self, line: impl FnMut(LogLine<'_>)) -> u64 {
        self.memory.log.take(&self.names, line)
    }

    /// Gives every entry of a table, as its map's bytes.
    pub fn each_entry(&self, table: usize, entry: impl FnMut(&[u8], &[u8])) {
        self.memory.tables.each(table, entry);
    }

    /// Sets an entry by its map's bytes: what XDP had in it. Says whether there was room, and the bytes were a key and a
    /// value.
    pub fn set_entry(&mut self, table: usize, key: &[u8], value: &[u8]) -> bool {
        self.memory.tables.set_bytes(table, key, value)
    }

    /// Sets an entry.
    ///
    /// # Errors
    /// No such table, not a key or value of it, or the table is full.
    pub fn table_set(&mut self, table: &str, key: &str, value: &str) -> Result<(), TableError> {
        let at = self.find(table)?;
        let spec = &self.specs[at];
        let (key, value) = (spec.parse_key(key)?, spec.parse_value(value)?);
        match self.memory.tables.set_bytes(at, &key, &value) {
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
        Ok(self.memory.tables.peek(at, &spec.parse_key(key)?).map(|value| spec.format_value(&value)))
    }

    /// Removes an entry; says whether it was there. A cell is as at first then.
    ///
    /// # Errors
    /// No such table, or not a key of it.
    pub fn table_delete(&mut self, table: &str, key: &str) -> Result<bool, TableError> {
        let at = self.find(table)?;
        let key = self.specs[at].parse_key(key)?;
        Ok(self.memory.tables.remove_bytes(at, &key))
    }

    /// Every entry, by key.
    ///
    /// # Errors
    /// No such table.
    pub fn table_dump(&self, table: &str) -> Result<Vec<(String, String)>, TableError> {
        let at = self.find(table)?;
        let spec = &self.specs[at];
        let mut entries = Vec::new();
        self.memory
            .tables
            .each(at, |key, value| entries.push((spec.format_key(key), spec.format_value(value))));
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
