//! From addresses to rows by address prefixes: the longest prefix that an address starts with counts. A row is the number
//! of a node.
//!
//! A key is three words: the number of bits, then the address's bytes, eight to a word.
//!
//! A binary tree in which every node is a prefix of its children's, without nodes that neither have a value nor fork. So
//! a lookup passes at most one node per bit, and as many nodes as there are prefixes of one another at least.

/// Bits of an address.
const BITS: u8 = 128;

#[derive(Clone, Debug)]
pub struct Lpm {
    nodes: Vec<Node>,
    free: Vec<u32>,
    root: Option<u32>,
    len: usize,
    capacity: usize,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    /// The bits behind the prefix are zero.
    address: u128,
    bits: u8,
    /// Whether it is an entry, or there for the fork only.
    entry: bool,
    /// By the bit behind the prefix.
    children: [Option<u32>; 2],
}

/// Where a node hangs.
#[derive(Clone, Copy)]
enum Link {
    Root,
    Child(u32, usize),
}

impl Lpm {
    pub fn new(capacity: u32) -> Lpm {
        Lpm { nodes: Vec::new(), free: Vec::new(), root: None, len: 0, capacity: capacity as usize }
    }

    /// The row of the longest prefix of the key's address. How many bits the key says does not count.
    pub fn longest(&self, key: &[u64]) -> Option<u32> {
        let address = parse(key)?.0;
        let (mut best, mut at) = (None, self.root);
        while let Some((number, node)) = at.and_then(|number| Some((number, self.node(number)?))) {
            if !starts_with(address, node) {
                break;
            }
            if node.entry {
                best = Some(number);
            }
            if node.bits == BITS {
                break;
            }
            at = node.children[bit(address, node.bits)];
        }
        best
    }

    /// The row of exactly this prefix.
    pub fn peek(&self, key: &[u64]) -> Option<u32> {
        let (address, bits) = parse(key)?;
        let mut at = self.root;
        while let Some((number, node)) = at.and_then(|number| Some((number, self.node(number)?))) {
            if node.bits > bits || !starts_with(address, node) {
                return None;
            }
            if node.bits == bits {
                return node.entry.then_some(number);
            }
            at = node.children[bit(address, node.bits)];
        }
        None
    }

    /// The row of exactly this prefix, a new one where it has none; `None` where there is no room.
    pub fn add(&mut self, key: &[u64]) -> Option<u32> {
        let (address, bits) = parse(key)?;
        let (mut link, mut at) = (Link::Root, self.root);
        loop {
            let Some((number, node)) = at.and_then(|number| Some((number, *self.node(number)?))) else {
                return self.new_entry(address, bits, link);
            };
            let same = same_bits(address, node.address).min(node.bits).min(bits);
            if same == node.bits && same == bits {
                if !node.entry {
                    self.note_entry(number)?;
                }
                return Some(number);
            }
            if same == node.bits {
                let way = bit(address, node.bits);
                (link, at) = (Link::Child(number, way), node.children[way]);
                continue;
            }
            // The new prefix is above the node, or both are below where they part.
            if self.len >= self.capacity {
                return None;
            }
            if same == bits {
                let new = self.new_entry(address, bits, link)?;
                self.node_mut(new)?.children[bit(node.address, bits)] = Some(number);
                return Some(new);
            }
            let fork = self.new_node(Node {
                address: cut(address, same),
                bits: same,
                entry: false,
                children: [None; 2],
            });
            self.hang(link, Some(fork));
            self.node_mut(fork)?.children[bit(node.address, same)] = Some(number);
            return self.new_entry(address, bits, Link::Child(fork, bit(address, same)));
        }
    }

    /// Whether exactly this prefix was there.
    pub fn remove(&mut self, key: &[u64]) -> bool {
        self.try_remove(key).is_some()
    }

    fn try_remove(&mut self, key: &[u64]) -> Option<()> {
        let (address, bits) = parse(key)?;
        let (mut above, mut link) = (None, Link::Root);
        let mut number = self.root?;
        let node = loop {
            let node = *self.node(number)?;
            if node.bits > bits || !starts_with(address, &node) {
                return None;
            }
            if node.bits == bits {
                break node;
            }
            let way = bit(address, node.bits);
            (above, link) = (Some((number, link)), Link::Child(number, way));
            number = node.children[way]?;
        };
        if !node.entry {
            return None;
        }
        self.node_mut(number)?.entry = false;
        self.len -= 1;
        self.prune(number, link);
        // What was above it may have been there for the fork only.
        if let Some((number, link)) = above {
            self.prune(number, link);
        }
        Some(())
    }

    /// Every entry: its key, its row.
    pub fn entries(&self) -> impl Iterator<Item = ([u64; 3], u32)> {
        let mut open: Vec<u32> = self.root.into_iter().collect();
        std::iter::from_fn(move || {
            loop {
                let number = open.pop()?;
                let node = self.node(number)?;
                open.extend(node.children.iter().flatten());
                if node.entry {
                    return Some((key(node.address, node.bits), number));
                }
            }
        })
    }

    fn node(&self, number: u32) -> Option<&Node> {
        self.nodes.get(number as usize)
    }

    fn node_mut(&mut self, number: u32) -> Option<&mut Node> {
        self.nodes.get_mut(number as usize)
    }

    fn hang(&mut self, link: Link, node: Option<u32>) {
        match link {
            Link::Root => self.root = node,
            Link::Child(parent, way) => {
                if let Some(parent) = self.node_mut(parent) {
                    parent.children[way] = node;
                }
            }
        }
    }

    fn new_node(&mut self, node: Node) -> u32 {
        match self.free.pop() {
            Some(number) => {
                if let Some(place) = self.node_mut(number) {
                    *place = node;
                }
                number
            }
            None => {
                // Each entry comes with one fork at most, and entries are counted in 32 bits.
                self.nodes.push(node);
                self.nodes.len() as u32 - 1
            }
        }
    }

    fn new_entry(&mut self, address: u128, bits: u8, link: Link) -> Option<u32> {
        if self.len >= self.capacity {
            return None;
        }
        let node = Node { address: cut(address, bits), bits, entry: false, children: [None; 2] };
        let number = self.new_node(node);
        self.hang(link, Some(number));
        self.note_entry(number)?;
        Some(number)
    }

    /// Makes a node an entry.
    fn note_entry(&mut self, number: u32) -> Option<()> {
        if self.len >= self.capacity {
            return None;
        }
        self.node_mut(number)?.entry = true;
        self.len += 1;
        Some(())
    }

    /// Takes a node out that is no entry and does not fork.
    fn prune(&mut self, number: u32, link: Link) {
        let Some(&Node { entry: false, children, .. }) = self.node(number) else { return };
        let child = match children {
            [Some(_), Some(_)] => return,
            [child, None] | [None, child] => child,
        };
        self.hang(link, child);
        self.free.push(number);
    }
}

/// Address and bits, those behind them zero; what is no key is no prefix.
fn parse(key: &[u64]) -> Option<(u128, u8)> {
    let &[bits, first, last] = key else { return None };
    let bits = u8::try_from(bits).ok().filter(|bits| *bits <= BITS)?;
    // The bytes were read as little-endian words; the first byte of an address is its highest.
    let address = (u128::from(last) << 64 | u128::from(first)).swap_bytes();
    Some((cut(address, bits), bits))
}

fn key(address: u128, bits: u8) -> [u64; 3] {
    let words = address.swap_bytes();
    [bits.into(), words as u64, (words >> 64) as u64]
}

/// The first bits, zeros behind them.
fn cut(address: u128, bits: u8) -> u128 {
    address & !u128::MAX.checked_shr(bits.into()).unwrap_or(0)
}

fn starts_with(address: u128, node: &Node) -> bool {
    same_bits(address, node.address) >= node.bits
}

fn same_bits(a: u128, b: u128) -> u8 {
    // At most 128.
    (a ^ b).leading_zeros() as u8
}

/// The bit behind so many; 0 behind the last.
fn bit(address: u128, bits: u8) -> usize {
    usize::from(address.checked_shl(bits.into()).unwrap_or(0) >> 127 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    /// A trie with the values of its rows.
    struct Table {
        lpm: Lpm,
        values: Vec<u8>,
    }

    impl Table {
        fn new(capacity: u32) -> Table {
            Table { lpm: Lpm::new(capacity), values: vec![0; 256] }
        }

        fn set(&mut self, address: u128, bits: u8, value: u8) -> bool {
            self.lpm.add(&key(address, bits)).map(|row| self.values[row as usize] = value).is_some()
        }

        fn get(&self, address: u128) -> Option<u8> {
            self.lpm.longest(&key(address, BITS)).map(|row| self.values[row as usize])
        }
    }

    #[test]
    fn the_longest_prefix_counts() {
        let net = |text: &str| crate::notation::cidr(text).unwrap();
        let mut table = Table::new(4);
        for (value, text) in (1..).zip(["10.0.0.0/8", "10.1.0.0/16", "::/0", "10.1.2.3/32"]) {
            let (address, bits) = net(text);
            assert!(table.set(u128::from_be_bytes(address), bits, value));
        }
        let get = |table: &Table, text| table.get(u128::from_be_bytes(net(text).0)).unwrap();
        for (text, value) in
            [("10.1.2.3", 4), ("10.1.2.4", 2), ("10.2.0.0", 1), ("11.0.0.0", 3), ("fd00::1", 3)]
        {
            assert_eq!(get(&table, text), value, "{text}");
        }
        assert!(!table.set(1, BITS, 5), "full");
        let (address, bits) = net("10.1.0.0/16");
        assert!(table.lpm.remove(&key(u128::from_be_bytes(address), bits)));
        assert_eq!(get(&table, "10.1.2.4"), 1);
        assert_eq!(get(&table, "10.1.2.3"), 4);
    }

    /// Against looking at every prefix.
    #[test]
    fn it_does_what_a_plain_list_does() {
        let mut random = 7u64;
        let mut below = |limit: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % limit
        };
        let mut table = Table::new(60);
        let mut list: BTreeMap<(u128, u8), u8> = BTreeMap::new();
        for _ in 0..30_000 {
            // Few bits in few places, so that prefixes meet.
            let address = u128::from(below(16)) << 124 | u128::from(below(4)) << 60 | u128::from(below(8));
            let bits = [0, 1, 2, 3, 4, 62, 63, 66, 68, 125, 126, 127, 128][below(13) as usize];
            let prefix = cut(address, bits);
            match below(5) {
                0 => {
                    assert_eq!(table.lpm.remove(&key(address, bits)), list.remove(&(prefix, bits)).is_some())
                }
                1 | 2 => {
                    let value = below(256) as u8;
                    let fits = list.contains_key(&(prefix, bits)) || list.len() < 60;
                    assert_eq!(table.set(address, bits, value), fits);
                    if fits {
                        list.insert((prefix, bits), value);
                    }
                }
                3 => assert_eq!(
                    table.lpm.peek(&key(address, bits)).map(|row| table.values[row as usize]),
                    list.get(&(prefix, bits)).copied()
                ),
                _ => {
                    let longest = (0..=BITS).rev().find_map(|bits| list.get(&(cut(address, bits), bits)));
                    assert_eq!(table.get(address), longest.copied());
                }
            }
            assert_eq!(table.lpm.len, list.len());
            assert!(
                table.lpm.nodes.len() - table.lpm.free.len() <= 2 * list.len(),
                "forks go with what they were for"
            );
        }
        let mut entries: Vec<_> = table
            .lpm
            .entries()
            .map(|(key, row)| (parse(&key).unwrap(), table.values[row as usize]))
            .collect();
        entries.sort_unstable();
        assert!(entries.into_iter().eq(list));
    }
}
