//! The tables of one policy: a hash table, a trie or one value behind one face, and the writes to note.

mod lpm;
mod store;

use super::changes::Changes;
use super::shape::{Shape, Value};
use crate::table::{KeyType, TableKind, TableSpec};
use lpm::Lpm;
use store::{Store, WhenFull};

/// One table, by its map's bytes.
#[derive(Clone, Debug)]
enum Table {
    Store(Store),
    Lpm(Lpm),
    /// One value that is always there.
    Cell {
        value: Box<[u8]>,
        initial: Box<[u8]>,
    },
}

/// What became of a number in a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Updated {
    To(u64),
    /// As it was asked for.
    Unchanged,
    /// A new key found no room.
    Full,
}

/// All tables of a policy, by their places in its list.
#[derive(Clone, Debug)]
pub struct Tables {
    tables: Vec<Table>,
    pub changes: Changes,
}

impl Tables {
    /// Those of `shared` note their writes.
    pub fn new(specs: &[TableSpec], shared: &[usize]) -> Tables {
        Tables { tables: specs.iter().map(Table::new).collect(), changes: Changes::new(specs.len(), shared) }
    }

    /// The value of a key; a use, where the table counts uses.
    pub fn get(&mut self, table: usize, key: &[u8]) -> Option<&[u8]> {
        Some(self.tables.get_mut(table)?.get(key)?)
    }

    /// The value of exactly this key, for who looks on.
    pub fn peek(&self, table: usize, key: &[u8]) -> Option<&[u8]> {
        match self.tables.get(table)? {
            Table::Store(store) => store.peek(key),
            Table::Lpm(lpm) => lpm.peek(key),
            Table::Cell { value, .. } => Some(value),
        }
    }

    /// Sets a value; says whether there was room. `value` is as long as the table's values are.
    pub fn set(&mut self, table: usize, key: &[u8], value: &[u8]) -> bool {
        let Some(place) = self.entry(table, key).filter(|place| place.len() == value.len()) else {
            return false;
        };
        place.copy_from_slice(value);
        self.changes.note(table, key, Some(value));
        true
    }

    /// Changes a number to what `next` makes of it, of `None` where the key is new. Nothing changes where it gives
    /// `None`.
    pub fn update(
        &mut self,
        table: usize,
        key: &[u8],
        shape: Shape,
        next: impl FnOnce(Option<u64>) -> Option<u64>,
    ) -> Updated {
        let known = self.tables.get_mut(table).and_then(|table| table.get(key));
        let old = known.as_deref().and_then(|bytes| match shape.read(bytes)? {
            Value::Number(number) => Some(number),
            Value::Bytes(_) => None,
        });
        let Some(new) = next(old) else { return Updated::Unchanged };
        let place = match known {
            Some(place) => place,
            None => match self.entry(table, key) {
                Some(place) => place,
                None => return Updated::Full,
            },
        };
        shape.write(Value::Number(new), place);
        if self.changes.wants(table) {
            let mut value = [0; 8];
            let value = value.get_mut(..shape.size()).unwrap_or_default();
            shape.write(Value::Number(new), value);
            self.changes.note(table, key, Some(value));
        }
        Updated::To(new)
    }

    /// Whether the key was there. A cell is as at first then.
    pub fn remove(&mut self, table: usize, key: &[u8]) -> bool {
        let there = match self.tables.get_mut(table) {
            Some(Table::Store(store)) => store.remove(key),
            Some(Table::Lpm(lpm)) => lpm.remove(key),
            Some(Table::Cell { value, initial }) => {
                value.copy_from_slice(initial);
                self.changes.note(table, key, Some(initial));
                return true;
            }
            None => false,
        };
        if there {
            self.changes.note(table, key, None);
        }
        there
    }

    /// Every entry of a table; what was not used for longest first, where the table knows.
    pub fn each(&self, table: usize, mut entry: impl FnMut(&[u8], &[u8])) {
        match self.tables.get(table) {
            Some(Table::Store(store)) => store.entries().for_each(|(key, value)| entry(key, value)),
            Some(Table::Lpm(lpm)) => lpm.entries().for_each(|(key, value)| entry(&key, value)),
            Some(Table::Cell { value, .. }) => entry(&[0; 4], value),
            None => {}
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

    pub fn count(&self, table: usize) -> usize {
        match self.tables.get(table) {
            Some(Table::Store(store)) => store.len(),
            Some(Table::Lpm(lpm)) => lpm.len(),
            Some(Table::Cell { .. }) => 1,
            None => 0,
        }
    }

    /// The value of a key to be overwritten; `None` where a new key finds no room. The entry that makes room is noted,
    /// the write is not.
    fn entry(&mut self, table: usize, key: &[u8]) -> Option<&mut [u8]> {
        let Tables { tables, changes } = self;
        match tables.get_mut(table)? {
            Table::Store(store) => store.entry(key, |evicted| changes.note(table, evicted, None)),
            Table::Lpm(lpm) => lpm.entry(key),
            Table::Cell { value, .. } => Some(value),
        }
    }
}

impl Table {
    fn new(spec: &TableSpec) -> Table {
        let (key, value) = (spec.key.size() as usize, Shape::of_value(&spec.value).size());
        match (spec.kind, &spec.key) {
            (TableKind::Cell, _) | (_, KeyType::Unit) => {
                let mut initial = vec![0; value].into_boxed_slice();
                Shape::of_value(&spec.value).write(Value::Number(spec.initial), &mut initial);
                Table::Cell { value: initial.clone(), initial }
            }
            (TableKind::Lpm, _) => Table::Lpm(Lpm::new(value, spec.capacity)),
            (TableKind::Lru, _) => Table::Store(Store::new(key, value, spec.capacity, WhenFull::Evict)),
            (TableKind::Hash | TableKind::Counter, _) => {
                Table::Store(Store::new(key, value, spec.capacity, WhenFull::Refuse))
            }
        }
    }

    fn get(&mut self, key: &[u8]) -> Option<&mut [u8]> {
        match self {
            Table::Store(store) => store.get(key),
            Table::Lpm(lpm) => lpm.get(key),
            Table::Cell { value, .. } => Some(value),
        }
    }
}
