//! A hash table from keys to rows, which refuses new keys when it is full or forgets the one that was not used for longest.
//!
//! Keys sit in a flat vector, by row; rows that are free again are used first. Keys come from anybody: see [`Hasher`].

use super::key::Hasher;
use hashbrown::HashTable;

/// What becomes of a new key in a full table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    Refuse,
    /// Forgets the key that was not used for longest.
    Evict,
}

#[derive(Clone, Debug)]
pub struct Store {
    index: HashTable<u32>,
    hasher: Hasher,
    /// Of the longest key: what a row of `keys` has.
    words: usize,
    /// Zeros behind the end of a key.
    keys: Vec<u64>,
    capacity: usize,
    free: Vec<u32>,
    order: Option<Order>,
    /// The rows of keys that are one number below [`DIRECT`], by the key: backends, methods and enums need no hashing.
    /// [`NO_ROW`]: it has none.
    direct: Box<[u32]>,
}

const DIRECT: usize = 256;
/// No table has so many rows.
const NO_ROW: u32 = u32::MAX;

impl Store {
    /// For keys of up to so many words.
    pub fn new(words: usize, capacity: u32, full: WhenFull) -> Store {
        Store {
            index: HashTable::new(),
            hasher: Hasher::new(words),
            words,
            keys: Vec::new(),
            capacity: capacity as usize,
            free: Vec::new(),
            order: (full == WhenFull::Evict).then(Order::default),
            direct: vec![NO_ROW; if words == 1 { DIRECT } else { 0 }].into(),
        }
    }

    /// The row of a key, which counts as a use.
    #[inline]
    pub fn find(&mut self, key: &[u64]) -> Option<u32> {
        let row = self.peek(key)?;
        if let Some(order) = &mut self.order {
            order.touch(row);
        }
        Some(row)
    }

    /// The row of a key that is one number, which counts as a use.
    #[inline(always)]
    pub fn find_number(&mut self, number: u64) -> Option<u32> {
        let row = match self.direct.get(usize::try_from(number).ok()?) {
            Some(&NO_ROW) => return None,
            Some(row) => *row,
            None => self.hashed_number(number)?,
        };
        if let Some(order) = &mut self.order {
            order.touch(row);
        }
        Some(row)
    }

    #[inline(never)]
    fn hashed_number(&self, number: u64) -> Option<u32> {
        self.peek(&[number])
    }

    /// The row of a key, for who looks on.
    #[inline]
    pub fn peek(&self, key: &[u64]) -> Option<u32> {
        let Store { index, hasher, words, keys, .. } = self;
        // No key is the beginning of another, so what is behind its end needs no comparison.
        let is = |row: &u32| {
            let at = *row as usize * words;
            keys.get(at..at + key.len()).is_some_and(|known| known.iter().zip(key).all(|(a, b)| a == b))
        };
        index.find(hasher.hash(key), is).copied()
    }

    /// A row for a key that has none; `None` where there is no room for one. The key that has to make room is given to
    /// `evicted`.
    pub fn add(&mut self, key: &[u64], evicted: impl FnOnce(&[u64])) -> Option<u32> {
        if key.len() > self.words {
            return None;
        }
        if self.index.len() >= self.capacity {
            let oldest = self.order.as_ref()?.oldest?;
            evicted(self.key(oldest));
            self.release(oldest);
        }
        // Rows in use and free ones are together never more than the capacity, which is 32 bits wide.
        let row = self.free.pop().unwrap_or(self.index.len() as u32);
        let at = row as usize * self.words;
        self.keys.resize((at + self.words).max(self.keys.len()), 0);
        let (used, behind) = self.keys.get_mut(at..at + self.words)?.split_at_mut_checked(key.len())?;
        used.copy_from_slice(key);
        behind.fill(0);
        if let Some(order) = &mut self.order {
            order.push(row);
        }
        let Store { index, hasher, words, keys, .. } = self;
        let hash = |row: &u32| hasher.hash(row_of(keys, *row, *words));
        index.insert_unique(hasher.hash(key), row, hash);
        lead(&mut self.direct, key, row);
        Some(row)
    }

    /// Whether the key was there.
    pub fn remove(&mut self, key: &[u64]) -> bool {
        let row = self.peek(key);
        row.inspect(|row| self.release(*row)).is_some()
    }

    /// Every key, with zeros behind it, and its row; what was not used for longest first, where the table knows.
    pub fn entries(&self) -> impl Iterator<Item = (&[u64], u32)> {
        let in_order = self.order.as_ref().map(Order::by_use);
        let any = self.order.is_none().then(|| self.index.iter().copied());
        let rows = in_order.into_iter().flatten().chain(any.into_iter().flatten());
        rows.map(|row| (self.key(row), row))
    }

    fn key(&self, row: u32) -> &[u64] {
        row_of(&self.keys, row, self.words)
    }

    fn release(&mut self, row: u32) {
        let Store { direct, hasher, words, keys, .. } = self;
        let key = row_of(keys, row, *words);
        lead(direct, key, NO_ROW);
        let hash = hasher.hash(key);
        if let Ok(entry) = self.index.find_entry(hash, |known| *known == row) {
            entry.remove();
        }
        if let Some(order) = &mut self.order {
            order.unlink(row);
        }
        self.free.push(row);
    }
}

/// Notes which row a key leads to directly, where it does.
fn lead(direct: &mut [u32], key: &[u64], row: u32) {
    if let [number] = key
        && let Some(place) = usize::try_from(*number).ok().and_then(|number| direct.get_mut(number))
    {
        *place = row;
    }
}

fn row_of(keys: &[u64], row: u32, words: usize) -> &[u64] {
    let at = row as usize * words;
    keys.get(at..at + words).unwrap_or_default()
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

    /// The row of a key, a new one where it has none and there is room.
    fn row(store: &mut Store, key: u64) -> Option<u32> {
        assert_eq!(store.find_number(key), store.peek(&[key]));
        store.find(&[key]).or_else(|| store.add(&[key], |_| {}))
    }

    fn keys(store: &Store) -> Vec<u64> {
        store.entries().map(|(key, _)| key[0]).collect()
    }

    #[test]
    fn a_full_table_refuses_or_forgets_what_was_not_used_for_longest() {
        let mut refusing = Store::new(1, 2, WhenFull::Refuse);
        assert!(row(&mut refusing, 1).is_some() && row(&mut refusing, 2).is_some());
        assert!(row(&mut refusing, 3).is_none());
        assert!(row(&mut refusing, 1).is_some(), "a key that it has");
        assert!(refusing.remove(&[2]) && !refusing.remove(&[2]));
        assert!(row(&mut refusing, 3).is_some());
        assert_eq!(refusing.index.len(), 2);

        let mut evicting = Store::new(1, 3, WhenFull::Evict);
        for key in [1, 2, 3] {
            row(&mut evicting, key);
        }
        assert!(evicting.find(&[1]).is_some());
        assert!(evicting.peek(&[2]).is_some(), "which is no use");
        let mut gone = Vec::new();
        assert!(evicting.add(&[4], |key| gone.push(key[0])).is_some());
        assert_eq!(gone, [2]);
        assert_eq!(keys(&evicting), [3, 1, 4]);
        assert!(evicting.remove(&[1]));
        assert_eq!(keys(&evicting), [3, 4]);
        row(&mut evicting, 3);
        assert_eq!(keys(&evicting), [4, 3]);
    }

    #[test]
    fn a_short_key_in_a_row_of_a_long_one_is_found() {
        let mut store = Store::new(3, 1, WhenFull::Evict);
        let long = store.add(&[2, 5, 6], |_| {});
        assert_eq!(store.add(&[1, 5], |_| {}), long, "the row is used again");
        assert_eq!(store.find(&[1, 5]), long);
        assert_eq!(store.find(&[2, 5, 6]), None);
        assert!(store.remove(&[1, 5]));
        assert_eq!(store.add(&[0; 4], |_| {}), None, "no key of this table");
    }

    /// Against std's, with a list of uses.
    #[test]
    fn it_does_what_a_plain_list_does() {
        for full in [WhenFull::Refuse, WhenFull::Evict] {
            let mut store = Store::new(1, 20, full);
            let mut list: Vec<(u64, u32)> = Vec::new();
            let mut random = 1u64;
            for _ in 0..20_000 {
                random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                // Half of the keys lead to their rows directly.
                let (key, what) = (236 + (random >> 33) % 40, random >> 60);
                let at = list.iter().position(|(known, _)| *known == key);
                match what {
                    0..4 => {
                        assert_eq!(store.remove(&[key]), at.is_some());
                        at.map(|at| list.remove(at));
                    }
                    4..8 => {
                        assert_eq!(store.find(&[key]), at.map(|at| list[at].1));
                        if let Some(at) = at {
                            let entry = list.remove(at);
                            list.push(entry);
                        }
                    }
                    _ => {
                        let fits = at.is_some() || list.len() < 20 || full == WhenFull::Evict;
                        let row = row(&mut store, key);
                        assert_eq!(row.is_some(), fits);
                        if let Some(row) = row {
                            if let Some(at) = at.or((list.len() == 20).then_some(0)) {
                                list.remove(at);
                            }
                            assert!(list.iter().all(|(_, taken)| *taken != row), "a row each");
                            list.push((key, row));
                        }
                    }
                }
                assert_eq!(store.index.len(), list.len());
            }
            let mut entries: Vec<(u64, u32)> = store.entries().map(|(key, row)| (key[0], row)).collect();
            if full == WhenFull::Refuse {
                entries.sort_unstable();
                list.sort_unstable();
            }
            assert_eq!(entries, list);
        }
    }
}
