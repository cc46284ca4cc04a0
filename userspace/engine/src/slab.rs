//! A table whose keys are never confused with those of entries that are gone: index in the low half, use count above.

/// Values by generation-checked `u64` keys. The keys' highest bit is always clear.
#[derive(Debug)]
pub struct Slab<T> {
    entries: Vec<(u32, Option<T>)>,
    free: Vec<u32>,
}

impl<T> Default for Slab<T> {
    fn default() -> Self {
        Slab { entries: Vec::new(), free: Vec::new() }
    }
}

impl<T> Slab<T> {
    /// Keeps a value. Allocates only when more values are held than ever before.
    pub fn insert(&mut self, value: T) -> u64 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.entries.push((0, None));
            (self.entries.len() - 1) as u32
        });
        let (generation, entry) = &mut self.entries[index as usize];
        *generation = (*generation + 1) & 0x7fff_ffff;
        *entry = Some(value);
        u64::from(*generation) << 32 | u64::from(index)
    }

    /// The value of a key, unless it is gone.
    pub fn get(&self, key: u64) -> Option<&T> {
        let (generation, entry) = self.entries.get(key as u32 as usize)?;
        entry.as_ref().filter(|_| u64::from(*generation) == key >> 32)
    }

    /// Like [`Slab::get`], to change it.
    pub fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        let (generation, entry) = self.entries.get_mut(key as u32 as usize)?;
        entry.as_mut().filter(|_| u64::from(*generation) == key >> 32)
    }

    /// Two different values at once; keys of the same place give nothing.
    pub fn get_two_mut(&mut self, first: u64, second: u64) -> [Option<&mut T>; 2] {
        let places = [first as u32 as usize, second as u32 as usize];
        let Ok([(a, one), (b, two)]) = self.entries.get_disjoint_mut(places) else {
            return [None, None];
        };
        [
            one.as_mut().filter(|_| u64::from(*a) == first >> 32),
            two.as_mut().filter(|_| u64::from(*b) == second >> 32),
        ]
    }

    /// Forgets a key and returns its value.
    pub fn remove(&mut self, key: u64) -> Option<T> {
        let (generation, entry) = self.entries.get_mut(key as u32 as usize)?;
        if u64::from(*generation) != key >> 32 {
            return None;
        }
        let value = entry.take();
        if value.is_some() {
            self.free.push(key as u32);
        }
        value
    }

    /// How many values are held.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Every key and value.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.entries.iter().enumerate().filter_map(|(index, (generation, entry))| {
            Some((u64::from(*generation) << 32 | index as u64, entry.as_ref()?))
        })
    }

    /// The keys whose values fulfil a condition. Allocates; not for the steady state.
    pub fn keys_where(&self, condition: impl Fn(&T) -> bool) -> Vec<u64> {
        self.iter().filter(|(_, value)| condition(value)).map(|(key, _)| key).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_dead_once_removed_even_when_its_place_is_used_again() {
        let mut slab = Slab::default();
        let first = slab.insert('a');
        assert_eq!(slab.remove(first), Some('a'));
        let second = slab.insert('b');
        assert_ne!(first, second);
        assert_eq!((slab.get(first), slab.get(second), slab.len()), (None, Some(&'b'), 1));
        assert_eq!((slab.remove(first), slab.remove(u64::MAX)), (None, None));
        assert_eq!(slab.keys_where(|_| true), vec![second]);
    }
}
