//! The writes to tables that XDP reads too: noted here until the engine has written them to the maps.

/// Writes that are noted one by one; beyond them, whole tables are.
const ENTRIES_MAX: usize = 1024;
/// Bytes of keys and values that are noted.
const BYTES_MAX: usize = 64 * 1024;

/// A write to a table that XDP reads too, to be written through to its map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change<'a> {
    /// An entry has this value now; `None`: it is gone.
    Entry {
        /// The table, by its place in [`crate::State::specs`].
        table: usize,
        /// The key's bytes in the map.
        key: &'a [u8],
        /// The value's bytes in the map.
        value: Option<&'a [u8]>,
    },
    /// There were too many to note them: the map is to become what [`crate::State::each_entry`] gives.
    All {
        /// The table, by its place in [`crate::State::specs`].
        table: usize,
    },
}

#[derive(Clone, Debug, Default)]
pub struct Changes {
    /// Per table.
    wanted: Vec<Wanted>,
    noted: Vec<Noted>,
    /// Keys and values of what is noted, one behind the other.
    bytes: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    No,
    Each,
    /// All of it, because there was no room for each.
    All,
}

#[derive(Clone, Copy, Debug)]
struct Noted {
    table: usize,
    key: usize,
    value: Option<usize>,
}

impl Changes {
    pub fn new(tables: usize, shared: &[usize]) -> Changes {
        let wanted: Vec<Wanted> = (0..tables)
            .map(|table| if shared.contains(&table) { Wanted::Each } else { Wanted::No })
            .collect();
        match shared {
            [] => Changes { wanted, ..Changes::default() },
            _ => Changes {
                wanted,
                noted: Vec::with_capacity(ENTRIES_MAX),
                bytes: Vec::with_capacity(BYTES_MAX),
            },
        }
    }

    /// Whether a table's writes are to be noted one by one.
    #[inline]
    pub fn wants(&self, table: usize) -> bool {
        self.wanted.get(table) == Some(&Wanted::Each)
    }

    #[inline]
    pub fn note(&mut self, table: usize, key: &[u8], value: Option<&[u8]>) {
        if self.wants(table) {
            self.note_wanted(table, key, value);
        }
    }

    fn note_wanted(&mut self, table: usize, key: &[u8], value: Option<&[u8]>) {
        let more = key.len() + value.map_or(0, <[u8]>::len);
        if self.noted.len() >= ENTRIES_MAX || self.bytes.len() + more > BYTES_MAX {
            return self.want_all(table);
        }
        self.bytes.extend_from_slice(key);
        self.bytes.extend_from_slice(value.unwrap_or_default());
        self.noted.push(Noted { table, key: key.len(), value: value.map(<[u8]>::len) });
    }

    /// A table has changed as a whole.
    pub fn want_all(&mut self, table: usize) {
        if let Some(wanted @ Wanted::Each) = self.wanted.get_mut(table) {
            *wanted = Wanted::All;
        }
    }

    pub fn is_empty(&self) -> bool {
        self.noted.is_empty() && !self.wanted.contains(&Wanted::All)
    }

    /// Gives every change, in order, and forgets them. Of tables that are to be copied whole, only that.
    pub fn take(&mut self, mut change: impl FnMut(Change<'_>)) {
        let mut rest = self.bytes.as_slice();
        for &Noted { table, key, value } in &self.noted {
            let (key, behind) = rest.split_at_checked(key).unwrap_or_default();
            let (bytes, behind) = behind.split_at_checked(value.unwrap_or(0)).unwrap_or_default();
            rest = behind;
            if self.wanted.get(table) == Some(&Wanted::Each) {
                change(Change::Entry { table, key, value: value.map(|_| bytes) });
            }
        }
        self.noted.clear();
        self.bytes.clear();
        for (table, wanted) in self.wanted.iter_mut().enumerate() {
            if *wanted == Wanted::All {
                *wanted = Wanted::Each;
                change(Change::All { table });
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(changes: &mut Changes) -> Vec<String> {
        let mut texts = Vec::new();
        changes.take(|change| texts.push(format!("{change:?}")));
        texts
    }

    #[test]
    fn writes_come_out_in_order_and_once() {
        let mut changes = Changes::new(3, &[1]);
        changes.note(0, b"not", Some(b"shared"));
        changes.note(1, b"key", Some(b"value"));
        changes.note(1, b"key", None);
        let expected = [
            Change::Entry { table: 1, key: b"key", value: Some(b"value") },
            Change::Entry { table: 1, key: b"key", value: None },
        ];
        assert_eq!(taken(&mut changes), expected.map(|change| format!("{change:?}")));
        assert!(changes.is_empty() && taken(&mut changes).is_empty());
    }

    #[test]
    fn too_many_writes_become_the_whole_table() {
        let mut changes = Changes::new(2, &[0, 1]);
        changes.note(1, b"small", None);
        for number in 0..100_000u32 {
            changes.note(0, &number.to_le_bytes(), Some(&[0; 8]));
        }
        let expected = [Change::Entry { table: 1, key: b"small", value: None }, Change::All { table: 0 }];
        assert_eq!(taken(&mut changes), expected.map(|change| format!("{change:?}")));
        changes.note(0, b"key", None);
        assert_eq!(taken(&mut changes).len(), 1, "noted one by one again");
    }
}
