//! A table of address prefixes, looked up by an address: the longest prefix that it starts with counts.
//!
//! A binary tree in which every node is a prefix of its children's, without nodes that neither have a value nor fork. So
//! a lookup passes at most one node per bit, and as many nodes as there are prefixes of one another at least.

/// Bits of an address.
const BITS: u8 = 128;
/// Bytes of a key: the number of bits in the host's order, the address.
pub const KEY: usize = 20;

#[derive(Clone, Debug)]
pub struct Lpm {
    nodes: Vec<Node>,
    free: Vec<u32>,
    root: Option<u32>,
    values: Vec<u8>,
    value_size: usize,
    len: usize,
    capacity: usize,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    /// The bits behind the prefix are zero.
    address: u128,
    bits: u8,
    /// Whether it is an entry, with its value in the row of the node's number.
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
    pub fn new(value_size: usize, capacity: u32) -> Lpm {
        let (nodes, free, values) = (Vec::new(), Vec::new(), Vec::new());
        Lpm { nodes, free, root: None, values, value_size, len: 0, capacity: capacity as usize }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    /// The value of the longest prefix of the key's address. How many bits the key says does not count.
    pub fn get(&mut self, key: &[u8]) -> Option<&mut [u8]> {
        let row = self.longest(parse(key)?.0)?;
        self.values.get_mut(range(row, self.value_size))
    }

    /// The value of exactly this prefix.
    pub fn peek(&self, key: &[u8]) -> Option<&[u8]> {
        let (address, bits) = parse(key)?;
        let mut at = self.root;
        while let Some((number, node)) = at.and_then(|number| Some((number, self.node(number)?))) {
            if node.bits > bits || !starts_with(address, node) {
                return None;
            }
            if node.bits == bits {
                return node.entry.then(|| self.values.get(range(number, self.value_size))).flatten();
            }
            at = node.children[bit(address, node.bits)];
        }
        None
    }

    /// The value of exactly this prefix, new ones all zero; `None` where there is no room.
    pub fn entry(&mut self, key: &[u8]) -> Option<&mut [u8]> {
        let (address, bits) = parse(key)?;
        let (mut link, mut at) = (Link::Root, self.root);
        let number = loop {
            let Some((number, node)) = at.and_then(|number| Some((number, *self.node(number)?))) else {
                break self.new_entry(address, bits, link)?;
            };
            let same = same_bits(address, node.address).min(node.bits).min(bits);
            if same == node.bits && same == bits {
                if !node.entry {
                    self.note_entry(number)?;
                }
                break number;
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
                break new;
            }
            let fork = self.new_node(Node {
                address: cut(address, same),
                bits: same,
                entry: false,
                children: [None; 2],
            });
            self.hang(link, Some(fork));
            self.node_mut(fork)?.children[bit(node.address, same)] = Some(number);
            break self.new_entry(address, bits, Link::Child(fork, bit(address, same)))?;
        };
        self.values.get_mut(range(number, self.value_size))
    }

    /// Whether exactly this prefix was there.
    pub fn remove(&mut self, key: &[u8]) -> bool {
        self.try_remove(key).is_some()
    }

    fn try_remove(&mut self, key: &[u8]) -> Option<()> {
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

    /// Every entry: its key's bytes, its value.
    pub fn entries(&self) -> impl Iterator<Item = ([u8; KEY], &[u8])> {
        let mut open: Vec<u32> = self.root.into_iter().collect();
        std::iter::from_fn(move || {
            loop {
                let number = open.pop()?;
                let node = self.node(number)?;
                open.extend(node.children.iter().flatten());
                if node.entry {
                    return Some((
                        key(node.address, node.bits),
                        self.values.get(range(number, self.value_size))?,
                    ));
                }
            }
        })
    }

    fn longest(&self, address: u128) -> Option<u32> {
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
                self.values.resize(self.nodes.len() * self.value_size, 0);
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

    /// Makes a node an entry, of value zero.
    fn note_entry(&mut self, number: u32) -> Option<()> {
        if self.len >= self.capacity {
            return None;
        }
        self.node_mut(number)?.entry = true;
        self.values.get_mut(range(number, self.value_size))?.fill(0);
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

fn range(row: u32, size: usize) -> std::ops::Range<usize> {
    let at = row as usize * size;
    at..at + size
}

/// Address and bits, those behind them zero; what is no key is no prefix.
fn parse(key: &[u8]) -> Option<(u128, u8)> {
    let (bits, address) = key.split_first_chunk()?;
    let bits = u8::try_from(u32::from_ne_bytes(*bits)).ok().filter(|bits| *bits <= BITS)?;
    Some((cut(u128::from_be_bytes(*address.first_chunk()?), bits), bits))
}

fn key(address: u128, bits: u8) -> [u8; KEY] {
    let mut key = [0; KEY];
    let (length, place) = key.split_at_mut(4);
    length.copy_from_slice(&u32::from(bits).to_ne_bytes());
    place.copy_from_slice(&address.to_be_bytes());
    key
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

    fn set(table: &mut Lpm, address: u128, bits: u8, value: u8) -> bool {
        table.entry(&key(address, bits)).map(|bytes| bytes[0] = value).is_some()
    }

    #[test]
    fn the_longest_prefix_counts() {
        let net = |text: &str| crate::notation::cidr(text).unwrap();
        let mut table = Lpm::new(1, 4);
        for (value, text) in (1..).zip(["10.0.0.0/8", "10.1.0.0/16", "::/0", "10.1.2.3/32"]) {
            let (address, bits) = net(text);
            assert!(set(&mut table, u128::from_be_bytes(address), bits, value));
        }
        let get = |table: &mut Lpm, text| table.get(&key(u128::from_be_bytes(net(text).0), BITS)).unwrap()[0];
        for (text, value) in
            [("10.1.2.3", 4), ("10.1.2.4", 2), ("10.2.0.0", 1), ("11.0.0.0", 3), ("fd00::1", 3)]
        {
            assert_eq!(get(&mut table, text), value, "{text}");
        }
        assert!(!set(&mut table, 1, BITS, 5), "full");
        let (address, bits) = net("10.1.0.0/16");
        assert!(table.remove(&key(u128::from_be_bytes(address), bits)));
        assert_eq!(get(&mut table, "10.1.2.4"), 1);
        assert_eq!(get(&mut table, "10.1.2.3"), 4);
    }

    /// Against looking at every prefix.
    #[test]
    fn it_does_what_a_plain_list_does() {
        let mut random = 7u64;
        let mut below = |limit: u64| {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            (random >> 33) % limit
        };
        let mut table = Lpm::new(1, 60);
        let mut list: BTreeMap<(u128, u8), u8> = BTreeMap::new();
        for _ in 0..30_000 {
            // Few bits in few places, so that prefixes meet.
            let address = u128::from(below(16)) << 124 | u128::from(below(4)) << 60 | u128::from(below(8));
            let bits = [0, 1, 2, 3, 4, 62, 63, 66, 68, 125, 126, 127, 128][below(13) as usize];
            let prefix = cut(address, bits);
            match below(5) {
                0 => assert_eq!(table.remove(&key(address, bits)), list.remove(&(prefix, bits)).is_some()),
                1 | 2 => {
                    let value = below(256) as u8;
                    let fits = list.contains_key(&(prefix, bits)) || list.len() < 60;
                    assert_eq!(set(&mut table, address, bits, value), fits);
                    if fits {
                        list.insert((prefix, bits), value);
                    }
                }
                3 => assert_eq!(
                    table.peek(&key(address, bits)).map(|value| value[0]),
                    list.get(&(prefix, bits)).copied()
                ),
                _ => {
                    let longest = (0..=BITS).rev().find_map(|bits| list.get(&(cut(address, bits), bits)));
                    assert_eq!(table.get(&key(address, BITS)).map(|value| value[0]), longest.copied());
                }
            }
            assert_eq!(table.len(), list.len());
            assert!(
                table.nodes.len() - table.free.len() <= 2 * list.len(),
                "forks go with what they were for"
            );
        }
        let mut entries: Vec<_> =
            table.entries().map(|(key, value)| (parse(&key).unwrap(), value[0])).collect();
        entries.sort_unstable();
        assert!(entries.into_iter().eq(list));
    }
}
