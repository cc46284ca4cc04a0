//! The tables of one policy: keys lead to rows, by a hash table, by a trie or to the only one; values are in rows. And the
//! writes to note.

mod form;
mod key;
mod lpm;
mod store;
mod values;

use super::changes::Changes;
use super::shape::{Shape, Value};
use crate::table::{KeyType, TableKind, TableSpec};
pub use form::Form;
pub use key::{Key, words_of};
use lpm::Lpm;
use store::{Store, WhenFull};
use values::Values;

/// All tables of a policy, by their places in its list.
#[derive(Clone, Debug)]
pub struct Tables {
    tables: Vec<Table>,
    pub changes: Changes,
    /// Room for a write that is noted: the key's and the value's bytes in the map.
    noting: Vec<u8>,
}

#[derive(Clone, Debug)]
pub struct Table {
    keys: Keys,
    /// The shapes of a key's parts.
    parts: Vec<Shape>,
    values: Values,
    /// What a cell holds at first.
    initial: u64,
}

/// The way from a key to a row.
#[derive(Clone, Debug)]
enum Keys {
    Store(Store),
    Lpm(Lpm),
    /// One row that is always there, and no key.
    Cell,
}

impl Tables {
    /// Those of `shared` note their writes.
    pub fn new(specs: &[TableSpec], shared: &[usize]) -> Tables {
        Tables {
            tables: specs.iter().map(Table::new).collect(),
            changes: Changes::new(specs.len(), shared),
            noting: Vec::new(),
        }
    }

    /// The number that a key has; a use, where the table counts uses.
    #[inline(always)]
    pub fn number<K: Form + ?Sized>(&mut self, table: usize, key: &K) -> Option<u64> {
        key.number(self.tables.get_mut(table)?).copied()
    }

    /// The text, or the bytes, that a key has; a use, where the table counts uses.
    #[inline]
    pub fn bytes(&mut self, table: usize, key: &[u64]) -> Option<&[u8]> {
        let table = self.tables.get_mut(table)?;
        match table.values.get(table.keys.find(key)?)? {
            Value::Bytes(bytes) => Some(bytes),
            Value::Number(_) => None,
        }
    }

    /// Sets a value; says whether there was room.
    #[inline]
    pub fn set(&mut self, at: usize, key: &[u64], value: Value<'_>) -> bool {
        let Some(table) = self.tables.get_mut(at).filter(|table| table.values.fits(value)) else {
            return false;
        };
        let Some(row) = table.keys.exact(key).or_else(|| self.add(at, key)) else { return false };
        self.put(at, key, row, value);
        true
    }

    /// Changes a number to what `next` makes of it, of `None` where the key is new: to a number that the table can hold.
    /// `None`, and nothing changes, where `next` gives that, or where a new key finds no room.
    #[inline(always)]
    pub fn update<K: Form + ?Sized>(
        &mut self,
        at: usize,
        key: &K,
        next: impl FnOnce(Option<u64>) -> Option<u64>,
    ) -> Option<u64> {
        if self.changes.wants(at) {
            return self.update_noted(at, key.words(), next);
        }
        match key.number(self.tables.get_mut(at)?) {
            Some(number) => {
                *number = next(Some(*number))?;
                Some(*number)
            }
            None => self.insert(at, key.words(), next(None)?),
        }
    }

    fn update_noted(
        &mut self,
        at: usize,
        key: &[u64],
        next: impl FnOnce(Option<u64>) -> Option<u64>,
    ) -> Option<u64> {
        let table = self.tables.get_mut(at)?;
        let Some(row) = table.keys.find(key) else { return self.insert(at, key, next(None)?) };
        let number = table.values.number_mut(row)?;
        let next = next(Some(*number))?;
        *number = next;
        self.note(at, key, Some(row));
        Some(next)
    }

    /// Gives a new key a number.
    #[inline(never)]
    fn insert(&mut self, at: usize, key: &[u64], number: u64) -> Option<u64> {
        if !self.tables.get(at)?.values.are_numbers() {
            return None;
        }
        let row = self.add(at, key)?;
        self.put(at, key, row, Value::Number(number));
        Some(number)
    }

    /// Whether the key was there. A cell is as at first then.
    pub fn remove(&mut self, at: usize, key: &[u64]) -> bool {
        let Some(table) = self.tables.get_mut(at) else { return false };
        let there = match &mut table.keys {
            Keys::Store(store) => store.remove(key),
            Keys::Lpm(lpm) => lpm.remove(key),
            Keys::Cell => {
                let initial = Value::Number(table.initial);
                table.values.reset(0);
                self.put(at, key, 0, initial);
                return true;
            }
        };
        if there {
            self.note(at, key, None);
        }
        there
    }

    /// The bytes in the map of the value of exactly this key, for who looks on.
    pub fn peek(&self, table: usize, key: &[u8]) -> Option<Vec<u8>> {
        let table = self.tables.get(table)?;
        let key = Key::from_map(&table.parts, key)?;
        let row = match &table.keys {
            Keys::Store(store) => store.peek(key.words()),
            Keys::Lpm(lpm) => lpm.peek(key.words()),
            Keys::Cell => Some(0),
        };
        let mut value = Vec::new();
        table.values.to_map(row?, &mut value);
        Some(value)
    }

    /// [`Tables::set`] by a map's bytes; false where they are no key or no value, too.
    pub fn set_bytes(&mut self, at: usize, key: &[u8], value: &[u8]) -> bool {
        let Some(table) = self.tables.get(at) else { return false };
        match (Key::from_map(&table.parts, key), table.values.parse(value)) {
            (Some(key), Some(value)) => self.set(at, key.words(), value),
            _ => false,
        }
    }

    /// [`Tables::remove`] by a map's bytes.
    pub fn remove_bytes(&mut self, at: usize, key: &[u8]) -> bool {
        let key = self.tables.get(at).and_then(|table| Key::from_map(&table.parts, key));
        key.is_some_and(|key| self.remove(at, key.words()))
    }

    /// Every entry of a table by its map's bytes; what was not used for longest first, where the table knows.
    pub fn each(&self, table: usize, mut entry: impl FnMut(&[u8], &[u8])) {
        let Some(table) = self.tables.get(table) else { return };
        let (mut key, mut value) = (Vec::new(), Vec::new());
        let mut show = |words: &[u64], row| {
            key.clear();
            value.clear();
            key::to_map(&table.parts, words, &mut key);
            table.values.to_map(row, &mut value);
            entry(&key, &value);
        };
        match &table.keys {
            Keys::Store(store) => store.entries().for_each(|(words, row)| show(words, row)),
            Keys::Lpm(lpm) => lpm.entries().for_each(|(words, row)| show(&words, row)),
            Keys::Cell => show(&[], 0),
        }
    }

    /// Swaps a table with another policy's of the same type. For who has it noted it has changed as a whole.
    pub fn exchange(&mut self, own: usize, other: &mut Tables, theirs: usize) {
        if let (Some(own), Some(theirs)) = (self.tables.get_mut(own), other.tables.get_mut(theirs)) {
            std::mem::swap(own, theirs);
        }
        self.changes.want_all(own);
        other.changes.want_all(theirs);
    }

    /// A row for a key that has none, zero or empty at first; `None` where there is no room. The entry that makes room is
    /// noted, the new one is not.
    fn add(&mut self, at: usize, key: &[u64]) -> Option<u32> {
        let Tables { tables, changes, noting } = self;
        let Table { keys, parts, values, .. } = tables.get_mut(at)?;
        let evicted = |key: &[u64]| {
            if changes.wants(at) {
                noting.clear();
                key::to_map(parts, key, noting);
                changes.note(at, noting, None);
            }
        };
        let row = match keys {
            Keys::Store(store) => store.add(key, evicted)?,
            Keys::Lpm(lpm) => lpm.add(key)?,
            Keys::Cell => 0,
        };
        values.reset(row);
        Some(row)
    }

    #[inline]
    fn put(&mut self, at: usize, key: &[u64], row: u32, value: Value<'_>) {
        if let Some(table) = self.tables.get_mut(at) {
            table.values.set(row, value);
        }
        if self.changes.wants(at) {
            self.note(at, key, Some(row));
        }
    }

    /// Notes what a key has now: a row, or nothing.
    fn note(&mut self, at: usize, key: &[u64], row: Option<u32>) {
        let Tables { tables, changes, noting } = self;
        let Some(table) = tables.get(at).filter(|_| changes.wants(at)) else { return };
        noting.clear();
        key::to_map(&table.parts, key, noting);
        let length = noting.len();
        if let Some(row) = row {
            table.values.to_map(row, noting);
        }
        let (key, value) = noting.split_at(length);
        changes.note(at, key, row.map(|_| value));
    }
}

impl Table {
    fn new(spec: &TableSpec) -> Table {
        let parts = Shape::of_key(&spec.key);
        let words = words_of(&parts);
        let keys = match (spec.kind, &spec.key) {
            (TableKind::Cell, _) | (_, KeyType::Unit) => Keys::Cell,
            (TableKind::Lpm, _) => Keys::Lpm(Lpm::new(spec.capacity)),
            (TableKind::Lru, _) => Keys::Store(Store::new(words, spec.capacity, WhenFull::Evict)),
            (TableKind::Hash | TableKind::Counter, _) => {
                Keys::Store(Store::new(words, spec.capacity, WhenFull::Refuse))
            }
        };
        let shape = Shape::of_value(&spec.value);
        let values = match keys {
            Keys::Cell => Values::cell(shape, spec.initial),
            Keys::Store(_) | Keys::Lpm(_) => Values::new(shape),
        };
        Table { keys, parts, values, initial: spec.initial }
    }

    #[inline(always)]
    fn number_by_number(&mut self, key: u64) -> Option<&mut u64> {
        let Keys::Store(store) = &mut self.keys else { return None };
        self.values.number_mut(store.find_number(key)?)
    }
}

impl Keys {
    /// The row that a key leads to: of a trie, that of the longest prefix of an address.
    #[inline]
    fn find(&mut self, key: &[u64]) -> Option<u32> {
        match self {
            Keys::Store(store) => store.find(key),
            Keys::Lpm(lpm) => lpm.longest(key),
            Keys::Cell => Some(0),
        }
    }

    /// The row of exactly this key.
    #[inline]
    fn exact(&mut self, key: &[u64]) -> Option<u32> {
        match self {
            Keys::Store(store) => store.find(key),
            Keys::Lpm(lpm) => lpm.peek(key),
            Keys::Cell => Some(0),
        }
    }
}
