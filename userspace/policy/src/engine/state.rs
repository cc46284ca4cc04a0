//! What a policy in the engine remembers between calls: its tables, and the layouts agreed on with peers.

use super::Answered;
use crate::table::{TableError, TableSpec};
use std::collections::HashMap;
use std::sync::Arc;
use tollfree_wire::maps::LayoutKey;

/// The tables of one policy in force. Users' texts go in and out through [`TableSpec`]'s notation.
#[derive(Clone, Debug)]
pub struct State {
    specs: Arc<[TableSpec]>,
    tables: Vec<Table>,
    layouts: HashMap<LayoutKey, u32>,
}

type Table = HashMap<Box<[u8]>, u64>;

/// A write to a table that XDP reads too, to be written through to its map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// An entry has this value now; `None`: it is gone.
    Entry {
        /// The table, by its place in [`State::specs`].
        table: usize,
        /// The key's bytes in the map.
        key: &'a [u8],
        /// The value's bytes in the map.
        value: Option<&'a [u8]>,
    },
    /// There were too many to note them: the whole table is to be copied, from [`State::entries`].
    All {
        /// The table, by its place in [`State::specs`].
        table: usize,
    },
}

/// A line that a policy logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogLine<'a> {
    /// The element's name.
    pub element: &'a str,
    /// The method's id.
    pub method: u32,
    /// The values, with spaces between. Text of calls is escaped.
    pub text: &'a str,
}

impl State {
    pub(crate) fn new(specs: Arc<[TableSpec]>) -> State {
        let tables = specs.iter().map(|_| Table::new()).collect();
        State { specs, tables, layouts: HashMap::new() }
    }

    /// Takes over the tables of the policy before, where name and types are the same, up to this one's capacity; and
    /// the layouts agreed on.
    pub fn adopt(&mut self, old: State) {
        let State { specs, tables, layouts } = old;
        for (spec, table) in specs.iter().zip(tables) {
            let place = self.specs.iter().position(|own| own.same_type(spec));
            if let Some((own, capacity)) =
                place.and_then(|at| Some((self.tables.get_mut(at)?, self.specs[at].capacity)))
            {
                own.extend(table.into_iter().take(capacity as usize));
            }
        }
        self.layouts.extend(layouts);
    }

    /// Swaps the tables of the same name, type and capacity with another state: so a new policy gets the tables of the
    /// one before, and a policy that is no longer in force borrows them for a call that it has half judged. Takes no
    /// longer for large tables than for small ones.
    pub fn exchange(&mut self, other: &mut State) {
        for (spec, table) in self.specs.iter().zip(&mut self.tables) {
            let place =
                other.specs.iter().position(|own| own.same_type(spec) && own.capacity == spec.capacity);
            if let Some(own) = place.and_then(|at| other.tables.get_mut(at)) {
                std::mem::swap(own, table);
            }
        }
        std::mem::swap(&mut self.layouts, &mut other.layouts);
    }

    /// What the policy has answered the last call with, where its verdict was [`crate::Verdict::Answer`].
    pub fn answer(&self) -> Option<Answered<'_>> {
        None
    }

    /// Gives every write to a table that XDP reads too, and forgets it.
    pub fn take_changes(&mut self, change: impl FnMut(Change<'_>)) {
        drop(change);
    }

    /// Gives every line that the policy has logged and forgets it; says how many found no room since the last time.
    pub fn take_log(&mut self, line: impl FnMut(LogLine<'_>)) -> u64 {
        drop(line);
        0
    }

    /// Gives every entry of a table, as the bytes that are in its map.
    pub fn each_entry(&self, table: usize, mut entry: impl FnMut(&[u8], &[u8])) {
        let (Some(spec), Some(entries)) = (self.specs.get(table), self.tables.get(table)) else { return };
        for (key, value) in entries {
            entry(key, &spec.value.to_bytes(*value));
        }
    }

    /// The tables' types.
    pub fn specs(&self) -> &[TableSpec] {
        &self.specs
    }

    /// A peer's layout of a method's request is a compatible extension of the layout `known` here.
    pub fn layout_insert(&mut self, key: LayoutKey, known: u32) {
        self.layouts.insert(key, known);
    }

    /// Sets an entry.
    ///
    /// # Errors
    /// No such table, not a key or value of it, or the table is full.
    pub fn table_set(&mut self, table: &str, key: &str, value: &str) -> Result<(), TableError> {
        let at = self.find(table)?;
        let spec = &self.specs[at];
        let (key, value) = (spec.parse_key(key)?, spec.parse_value(value)?);
        let number = spec.value.number_from(&value).unwrap_or_default();
        match self.insert(at, &key, number) {
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
        let value = self.lookup(at, &spec.parse_key(key)?);
        Ok(value.map(|value| spec.format_value(&spec.value.to_bytes(value))))
    }

    /// Removes an entry; says whether it was there.
    ///
    /// # Errors
    /// No such table, or not a key of it.
    pub fn table_delete(&mut self, table: &str, key: &str) -> Result<bool, TableError> {
        let at = self.find(table)?;
        let key = self.specs[at].parse_key(key)?;
        Ok(self.remove(at, &key))
    }

    /// Every entry, by key.
    ///
    /// # Errors
    /// No such table.
    pub fn table_dump(&self, table: &str) -> Result<Vec<(String, String)>, TableError> {
        let at = self.find(table)?;
        let spec = &self.specs[at];
        let entries = self.tables.get(at).into_iter().flatten();
        let mut entries: Vec<(String, String)> = entries
            .map(|(key, value)| (spec.format_key(key), spec.format_value(&spec.value.to_bytes(*value))))
            .collect();
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

    pub(super) fn layout(&self, key: LayoutKey) -> Option<u32> {
        self.layouts.get(&key).copied()
    }

    pub(super) fn lookup(&self, table: usize, key: &[u8]) -> Option<u64> {
        self.tables.get(table)?.get(key).copied()
    }

    /// Whether there was room.
    pub(super) fn insert(&mut self, table: usize, key: &[u8], value: u64) -> bool {
        let (Some(entries), Some(spec)) = (self.tables.get_mut(table), self.specs.get(table)) else {
            return false;
        };
        // As wide as the table's values are: what a map would give back.
        let Some(value) = spec.value.number_from(&spec.value.to_bytes(value)) else { return false };
        if let Some(old) = entries.get_mut(key) {
            *old = value;
            return true;
        }
        if entries.len() >= spec.capacity as usize {
            return false;
        }
        entries.insert(key.into(), value);
        true
    }

    pub(super) fn remove(&mut self, table: usize, key: &[u8]) -> bool {
        self.tables.get_mut(table).is_some_and(|entries| entries.remove(key).is_some())
    }
}
