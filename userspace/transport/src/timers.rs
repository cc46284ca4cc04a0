//! Timers: an indexed binary heap. Setting, moving and clearing a timer costs O(log n) and leaves nothing behind, so a
//! call's deadline of minutes that is cleared after microseconds takes no room; memory is that of the most timers ever.

/// Whose timer it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    /// The outgoing call with this key.
    Call(u64),
    /// The session with this index.
    Session(u32),
    /// A call received: session index and slot.
    Slot(u32, u8),
    /// What a session's flow holds back, by its index.
    Flow(u32),
}

/// A timer, set or not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TimerId(u32);

const UNSET: u32 = u32::MAX;

#[derive(Debug)]
struct Entry {
    at: u64,
    /// Where it is in the heap; [`UNSET`] when it is not.
    position: u32,
    owner: Owner,
}

/// All timers of a transport.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: Vec<u32>,
    entries: Vec<Entry>,
    free: Vec<u32>,
}

impl Timers {
    /// A new timer, not set.
    pub fn create(&mut self, owner: Owner) -> TimerId {
        let entry = Entry { at: 0, position: UNSET, owner };
        match self.free.pop() {
            Some(id) => {
                self.entries[id as usize] = entry;
                TimerId(id)
            }
            None => {
                self.entries.push(entry);
                TimerId(self.entries.len() as u32 - 1)
            }
        }
    }

    /// Clears a timer and forgets it; its id may be used again.
    pub fn destroy(&mut self, timer: TimerId) {
        self.clear(timer);
        self.free.push(timer.0);
    }

    /// Sets or moves a timer.
    pub fn set(&mut self, timer: TimerId, at: u64) {
        let entry = &mut self.entries[timer.0 as usize];
        entry.at = at;
        if entry.position == UNSET {
            entry.position = self.heap.len() as u32;
            self.heap.push(timer.0);
        }
        let position = self.entries[timer.0 as usize].position as usize;
        let position = self.up(position);
        self.down(position);
    }

    /// Clears a timer.
    pub fn clear(&mut self, timer: TimerId) {
        let position = std::mem::replace(&mut self.entries[timer.0 as usize].position, UNSET);
        if position == UNSET {
            return;
        }
        let position = position as usize;
        self.heap.swap_remove(position);
        if let Some(&moved) = self.heap.get(position) {
            self.entries[moved as usize].position = position as u32;
            let position = self.up(position);
            self.down(position);
        }
    }

    /// When the earliest timer is due.
    pub fn next(&self) -> Option<u64> {
        self.heap.first().map(|&id| self.entries[id as usize].at)
    }

    /// Clears a timer that is due and returns its owner.
    pub fn pop_due(&mut self, now: u64) -> Option<Owner> {
        let &id = self.heap.first()?;
        let Entry { at, owner, .. } = self.entries[id as usize];
        if at > now {
            return None;
        }
        self.clear(TimerId(id));
        Some(owner)
    }

    /// How many timers there are, set or not.
    pub fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    fn at(&self, position: usize) -> u64 {
        self.entries[self.heap[position] as usize].at
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.entries[self.heap[a] as usize].position = a as u32;
        self.entries[self.heap[b] as usize].position = b as u32;
    }

    fn up(&mut self, mut position: usize) -> usize {
        while position > 0 {
            let parent = (position - 1) / 2;
            if self.at(parent) <= self.at(position) {
                break;
            }
            self.swap(parent, position);
            position = parent;
        }
        position
    }

    fn down(&mut self, mut position: usize) {
        loop {
            let left = 2 * position + 1;
            if left >= self.heap.len() {
                return;
            }
            let right = left + 1;
            let child = if right < self.heap.len() && self.at(right) < self.at(left) { right } else { left };
            if self.at(position) <= self.at(child) {
                return;
            }
            self.swap(position, child);
            position = child;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn fires_in_order_and_only_what_is_set(steps in proptest::collection::vec((0..20u64, proptest::option::of(1..1000u64)), 0..300)) {
            let mut timers = Timers::default();
            let ids: Vec<TimerId> = (0..20).map(|n| timers.create(Owner::Call(n))).collect();
            let mut model = [None; 20];
            for (n, at) in steps {
                model[n as usize] = at;
                match at {
                    Some(at) => timers.set(ids[n as usize], at),
                    None => timers.clear(ids[n as usize]),
                }
                prop_assert_eq!(timers.next(), model.iter().flatten().min().copied());
            }
            let mut last = 0;
            while let Some(next) = timers.next() {
                prop_assert!(next >= last);
                last = next;
                prop_assert_eq!(timers.pop_due(next - 1), None);
                let Some(Owner::Call(n)) = timers.pop_due(next) else { panic!("nothing due") };
                prop_assert_eq!(model[n as usize].take(), Some(next));
            }
            prop_assert_eq!(model, [None; 20]);
        }
    }
}
