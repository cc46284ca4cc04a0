//! Allocation in shared memory: a buddy allocator over offsets. It never touches that memory; its books are in the private
//! memory of whoever writes it, so what happens to the shared one can't confuse them.

use crate::Span;

/// The smallest block of a region, in bytes: header-sized messages are the common case.
pub(crate) const LEAF: u32 = 256;
/// The smallest block of the room for long messages, in bytes.
pub(crate) const LONG_LEAF: u32 = 64 << 10;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Leaf {
    /// Not the first of a block.
    Inner,
    /// The first of a free block of `leaf << order` bytes.
    Free(u8),
    /// The first of a block in use.
    Used(u8),
}

/// Which blocks of a region are free.
#[derive(Debug)]
pub(crate) struct Buddy {
    /// Bytes of the smallest block.
    leaf: u32,
    leaves: Box<[Leaf]>,
    /// Doubly linked lists of free blocks, by the index of their first leaf.
    next: Box<[u32]>,
    previous: Box<[u32]>,
    /// For each order, the first free block.
    heads: Box<[u32]>,
}

impl Buddy {
    /// All of `bytes`, a power of two, in blocks of `leaf` bytes, another; smaller ones where these would be few.
    pub(crate) fn new(bytes: u32, leaf: u32) -> Buddy {
        let leaf = leaf.min(bytes / 16);
        let count = bytes / leaf;
        let orders = count.ilog2() as usize + 1;
        let mut buddy = Buddy {
            leaf,
            leaves: vec![Leaf::Inner; count as usize].into_boxed_slice(),
            next: vec![NONE; count as usize].into_boxed_slice(),
            previous: vec![NONE; count as usize].into_boxed_slice(),
            heads: vec![NONE; orders].into_boxed_slice(),
        };
        buddy.insert(0, orders - 1);
        buddy
    }

    /// A block for `len` bytes; an empty span needs none. `None`: no room now, or never where `len` exceeds the region.
    pub(crate) fn alloc(&mut self, len: u32) -> Option<Span> {
        if len == 0 {
            return Some(Span::default());
        }
        let leaves = len.div_ceil(self.leaf).checked_next_power_of_two()?;
        let order = leaves.ilog2() as usize;
        let found = (order..self.heads.len()).find(|&larger| self.heads[larger] != NONE)?;
        let block = self.heads[found];
        self.remove(block, found);
        for smaller in (order..found).rev() {
            self.insert(block + (1 << smaller), smaller);
        }
        self.leaves[block as usize] = Leaf::Used(order as u8);
        Some(Span { offset: block * self.leaf, len })
    }

    /// Whether there is a block for `len` bytes now.
    pub(crate) fn has(&self, len: u32) -> bool {
        let leaves = len.div_ceil(self.leaf).checked_next_power_of_two();
        let order = leaves.map_or(usize::MAX, |leaves| leaves.ilog2() as usize);
        self.heads.get(order..).is_some_and(|larger| larger.iter().any(|head| *head != NONE))
    }

    /// Gives a block back. A span that is not in use is ignored.
    pub(crate) fn free(&mut self, span: Span) {
        let mut block = span.offset / self.leaf;
        if span.len == 0 || !span.offset.is_multiple_of(self.leaf) {
            return;
        }
        let Some(&Leaf::Used(order)) = self.leaves.get(block as usize) else {
            return;
        };
        let mut order = usize::from(order);
        self.leaves[block as usize] = Leaf::Inner;
        while order + 1 < self.heads.len() {
            let buddy = block ^ (1 << order);
            if self.leaves[buddy as usize] != Leaf::Free(order as u8) {
                break;
            }
            self.remove(buddy, order);
            block &= !(1 << order);
            order += 1;
        }
        self.insert(block, order);
    }

    fn insert(&mut self, block: u32, order: usize) {
        let head = std::mem::replace(&mut self.heads[order], block);
        self.leaves[block as usize] = Leaf::Free(order as u8);
        self.next[block as usize] = head;
        self.previous[block as usize] = NONE;
        if head != NONE {
            self.previous[head as usize] = block;
        }
    }

    fn remove(&mut self, block: u32, order: usize) {
        let (next, previous) = (self.next[block as usize], self.previous[block as usize]);
        match previous {
            NONE => self.heads[order] = next,
            _ => self.next[previous as usize] = next,
        }
        if next != NONE {
            self.previous[next as usize] = previous;
        }
        self.leaves[block as usize] = Leaf::Inner;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BYTES: u32 = 64 << 10;

    #[test]
    fn the_whole_region_is_one_block_again_after_everything_is_freed() {
        let mut buddy = Buddy::new(BYTES, LEAF);
        let spans: Vec<Span> = std::iter::from_fn(|| buddy.alloc(100)).collect();
        assert_eq!(spans.len(), (BYTES / LEAF) as usize);
        assert_eq!(buddy.alloc(1), None);
        spans.into_iter().rev().for_each(|span| buddy.free(span));
        assert_eq!(buddy.alloc(BYTES), Some(Span { offset: 0, len: BYTES }));
        assert_eq!(buddy.alloc(BYTES + 1), None);
    }

    #[test]
    fn freeing_twice_or_freeing_nonsense_changes_nothing() {
        let mut buddy = Buddy::new(BYTES, LEAF);
        let span = buddy.alloc(300).unwrap();
        buddy.free(span);
        buddy.free(span);
        buddy.free(Span { offset: 3, len: 7 });
        buddy.free(Span { offset: u32::MAX - 255, len: 7 });
        assert!(buddy.alloc(BYTES).is_some());
    }

    proptest! {
        #[test]
        fn blocks_in_use_never_overlap(steps in proptest::collection::vec((any::<bool>(), 1..9000u32, any::<prop::sample::Index>()), 1..300)) {
            let mut buddy = Buddy::new(BYTES, LEAF);
            let mut used: Vec<Span> = Vec::new();
            for (take, len, which) in steps {
                if take {
                    let Some(span) = buddy.alloc(len) else { continue };
                    prop_assert!(span.offset + span.len <= BYTES);
                    for other in &used {
                        prop_assert!(span.offset + span.len <= other.offset || other.offset + other.len <= span.offset);
                    }
                    used.push(span);
                } else if !used.is_empty() {
                    buddy.free(used.swap_remove(which.index(used.len())));
                }
            }
            used.into_iter().for_each(|span| buddy.free(span));
            prop_assert!(buddy.alloc(BYTES).is_some());
        }
    }
}
