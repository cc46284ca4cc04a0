//! A hash table from keys' bytes to values' bytes, which refuses new keys when it is full or forgets what was not used
//! for longest.
//!
//! Entries sit in rows of two flat vectors; what is removed is used again first. Keys come from anybody, so the hash is
//! keyed at random.

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::hash::{BuildHasher, RandomState};

/// What becomes of a new key in a full table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    Refuse,
    /// Forgets the entry that was not used for longest.
    Evict,
}

#[derive(Clone, Debug)]
pub struct Store {
    index: HashTable<u32>,
    hasher: RandomState,
    key_size: usize,
    value_size: usize,
    capacity: usize,
    keys: Vec<u8>,
    values: Vec<u8>,
    free: Vec<u32>,
    order: Option<Order>,
}

impl Store {
    pub fn new(key_size: usize, value_size: usize, capacity: u32, full: WhenFull) -> Store {
        Store {
            index: HashTable::new(),
            hasher: RandomState::new(),
            key_size,
            value_size,
            capacity: capacity as usize,
            keys: Vec::new(),
            values: Vec::new(),
            free: Vec::new(),
            order: (full == WhenFull::Evict).then(Order::default),
        }
    }

    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// The value of a key, which counts as a use.
    pub fn get(&mut self, key: &[u8]) -> Option<&mut [u8]> {
        let row = self.find(key)?;
        if let Some(order) = &mut self.order {
            order.touch(row);
        }
        self.values.get_mut(range(row, self.value_size))
    }

    /// The value of a key, for who looks on.
    pub fn peek(&self, key: &[u8]) -> Option<&[u8]> {
        self.values.get(range(self.find(key)?, self.value_size))
    }

    /// The value of a key, new ones all zero; `None` where there is no room for one. An entry that has to make room is
    /// given to `evicted`.
    pub fn entry(&mut self, key: &[u8], evicted: impl FnOnce(&[u8])) -> Option<&mut [u8]> {
        if let Some(row) = self.find(key) {
            if let Some(order) = &mut self.order {
                order.touch(row);
            }
            return self.values.get_mut(range(row, self.value_size));
        }
        if self.index.len() >= self.capacity {
            let oldest = self.order.as_ref()?.oldest?;
            let old = self.keys.get(range(oldest, self.key_size))?;
            evicted(old);
            let hash = hash(&self.hasher, old);
            self.release(oldest, hash);
        }
        let row = self.new_row(key)?;
        self.values.get_mut(range(row, self.value_size))
    }

    /// Whether the key was there.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        let Some(row) = self.find(key) else { return false };
        self.release(row, hash(&self.hasher, key));
        true
    }

    /// Every entry; what was not used for longest first, where the table knows.
    pub fn entries(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        let in_order = self.order.as_ref().map(Order::by_use);
        let any = self.order.is_none().then(|| self.index.iter().copied());
        let rows = in_order.into_iter().flatten().chain(any.into_iter().flatten());
        rows.filter_map(|row| {
            Some((self.keys.get(range(row, self.key_size))?, self.values.get(range(row, self.value_size))?))
        })
    }

    fn find(&self, key: &[u8]) -> Option<u32> {
        let hash = hash(&self.hasher, key);
        self.index.find(hash, |row| self.keys.get(range(*row, self.key_size)) == Some(key)).copied()
    }

    fn new_row(&mut self, key: &[u8]) -> Option<u32> {
        if key.len() != self.key_size {
            return None;
        }
        let row = match self.free.pop() {
            Some(row) => {
                self.keys.get_mut(range(row, self.key_size))?.copy_from_slice(key);
                self.values.get_mut(range(row, self.value_size))?.fill(0);
                row
            }
            None => {
                // Rows in use and free ones are together never more than the capacity, which is 32 bits wide.
                let row = self.index.len() as u32;
                self.keys.extend_from_slice(key);
                self.values.resize(self.values.len() + self.value_size, 0);
                row
            }
        };
        if let Some(order) = &mut self.order {
            order.push(row);
        }
        let Store { index, hasher, keys, key_size, .. } = self;
        let hash_row = |row: &u32| hash(hasher, keys.get(range(*row, *key_size)).unwrap_or_default());
        match index.entry(hash(hasher, key), |_| false, hash_row) {
            Entry::Vacant(vacant) => vacant.insert(row),
            Entry::Occupied(occupied) => occupied,
        };
        Some(row)
    }

    fn release(&mut self, row: u32, hash: u64) {
        if let Ok(entry) = self.index.find_entry(hash, |known| *known == row) {
            entry.remove();
        }
        if let Some(order) = &mut self.order {
            order.unlink(row);
        }
        self.free.push(row);
    }
}

/// Without the zeros at the end, which most texts have many of: all keys are of one length.
fn hash(hasher: &RandomState, key: &[u8]) -> u64 {
    let mut used = key;
    while let Some((rest, [0, 0, 0, 0, 0, 0, 0, 0])) = used.split_last_chunk::<8>() {
        used = rest;
    }
    hasher.hash_one(used)
}

fn range(row: u32, size: usize) -> std::ops::Range<usize> {
    let at = row as usize * size;
    at..at + size
}

/// Rows by their last use: a list through two vectors.
#[derive(Clone, Debug, Default)]
struct Order {
    /// Per row, the one used before it and the one used after it.
    links: Vec<Link>,
    oldest: Option<u32>,
    newest: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Link {
    older: Option<u32>,
    newer: Option<u32>,
}

impl Order {
    fn by_use(&self) -> impl Iterator<Item = u32> {
        std::iter::successors(self.oldest, |row| self.links.get(*row as usize)?.newer)
    }

    fn push(&mut self, row: u32) {
        if self.links.len() <= row as usize {
            self.links.resize(row as usize + 1, Link::default());
        }
        if let Some(link) = self.links.get_mut(row as usize) {
            *link = Link { older: self.newest, newer: None };
        }
        match self.newest.and_then(|newest| self.links.get_mut(newest as usize)) {
            Some(link) => link.newer = Some(row),
            None => self.oldest = Some(row),
        }
        self.newest = Some(row);
    }

    fn unlink(&mut self, row: u32) {
        let Some(&Link { older, newer }) = self.links.get(row as usize) else { return };
        match older.and_then(|older| self.links.get_mut(older as usize)) {
            Some(link) => link.newer = newer,
            None => self.oldest = newer,
        }
        match newer.and_then(|newer| self.links.get_mut(newer as usize)) {
            Some(link) => link.older = older,
            None => self.newest = older,
        }
    }

    fn touch(&mut self, row: u32) {
        if self.newest != Some(row) {
            self.unlink(row);
            self.push(row);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(store: &mut Store, key: u8, value: u8) -> bool {
        store.entry(&[key], |_| {}).map(|bytes| bytes.copy_from_slice(&[value])).is_some()
    }

    fn keys(store: &Store) -> Vec<u8> {
        store.entries().map(|(key, _)| key[0]).collect()
    }

    #[test]
    fn a_full_table_refuses_or_forgets_what_was_not_used_for_longest() {
        let mut refusing = Store::new(1, 1, 2, WhenFull::Refuse);
        assert!(set(&mut refusing, 1, 10) && set(&mut refusing, 2, 20));
        assert!(!set(&mut refusing, 3, 30));
        assert!(set(&mut refusing, 1, 11), "a key that it has can change");
        assert!(refusing.remove(&[2]) && !refusing.remove(&[2]));
        assert!(set(&mut refusing, 3, 30));
        assert_eq!(refusing.len(), 2);

        let mut evicting = Store::new(1, 1, 3, WhenFull::Evict);
        for key in [1, 2, 3] {
            set(&mut evicting, key, key);
        }
        assert_eq!(evicting.get(&[1]), Some(&mut [1][..]));
        assert_eq!(evicting.peek(&[2]), Some(&[2][..]), "which is no use");
        let mut gone = Vec::new();
        assert!(evicting.entry(&[4], |key| gone.push(key[0])).is_some());
        assert_eq!(gone, [2]);
        assert_eq!(keys(&evicting), [3, 1, 4]);
        assert!(evicting.remove(&[1]));
        assert_eq!(keys(&evicting), [3, 4]);
        set(&mut evicting, 3, 0);
        assert_eq!(keys(&evicting), [4, 3]);
    }

    #[test]
    fn a_row_that_is_used_again_starts_from_zero() {
        let mut store = Store::new(1, 1, 2, WhenFull::Refuse);
        set(&mut store, 1, 77);
        store.remove(&[1]);
        assert_eq!(store.entry(&[2], |_| {}), Some(&mut [0][..]));
    }

    /// Against std's, with a list of uses.
    #[test]
    fn it_does_what_a_plain_list_does() {
        for full in [WhenFull::Refuse, WhenFull::Evict] {
            let mut store = Store::new(1, 1, 20, full);
            let mut list: Vec<(u8, u8)> = Vec::new();
            let mut random = 1u64;
            for _ in 0..20_000 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                let (key, value, what) = ((random >> 33) as u8 % 40, (random >> 41) as u8, random >> 60);
                let at = list.iter().position(|(known, _)| *known == key);
                match what {
                    0..4 => {
                        assert_eq!(store.remove(&[key]), at.is_some());
                        at.map(|at| list.remove(at));
                    }
                    4..8 => {
                        assert_eq!(store.get(&[key]).map(|value| value[0]), at.map(|at| list[at].1));
                        if let Some(at) = at {
                            let entry = list.remove(at);
                            list.push(entry);
                        }
                    }
                    _ => {
                        let fits = at.is_some() || list.len() < 20 || full == WhenFull::Evict;
                        assert_eq!(set(&mut store, key, value), fits);
                        if fits {
                            if let Some(at) = at.or((list.len() == 20).then_some(0)) {
                                list.remove(at);
                            }
                            list.push((key, value));
                        }
                    }
                }
                assert_eq!(store.len(), list.len());
            }
            let mut entries: Vec<(u8, u8)> = store.entries().map(|(key, value)| (key[0], value[0])).collect();
            if full == WhenFull::Refuse {
                entries.sort_unstable();
                list.sort_unstable();
            }
            assert_eq!(entries, list);
        }
    }
}
