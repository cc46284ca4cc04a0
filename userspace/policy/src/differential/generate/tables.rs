//! The tables that random policies can use.

use super::Kind::{self, Bool, Duration, I32, I64, Mac, Role, Rule, Text, Token, U32, U64};

/// A table to look up and to write.
#[derive(Clone, Copy, Debug)]
pub struct Table {
    pub name: &'static str,
    pub key: &'static [Kind],
    pub value: Kind,
    /// One value, always there.
    pub cell: bool,
}

const fn table(name: &'static str, key: &'static [Kind], value: Kind) -> Table {
    Table { name, key, value, cell: key.is_empty() }
}

pub const TABLES: [Table; 18] = [
    table("rules", &[Text], Rule),
    table("levels", &[U32], U64),
    table("flags", &[Bool], Bool),
    table("bigs", &[U64], U32),
    table("deltas", &[I32], I32),
    table("fars", &[I64], I64),
    table("roles", &[Role], Rule),
    table("tokens", &[Token], Bool),
    table("macs", &[Mac], U64),
    table("pairs", &[Text, Bool], I32),
    table("nets", &[Kind::Address], Rule),
    table("names", &[U32], Text),
    table("blobs", &[Text], Token),
    table("recent", &[Text], U64),
    table("ages", &[Text], Duration),
    table("total", &[], U64),
    table("low", &[], I32),
    table("gate", &[], Bool),
];

/// Those that are only added to or taken from come with these too. Where entries are evicted there is always room: whose
/// turn it is differs between the back ends.
pub const DECLARATIONS: [(&str, &str); 22] = [
    ("rules", "table(string(63) -> MAYBE|ALLOW|DENY, capacity = 4)"),
    ("levels", "table(u32 -> u64, capacity = 3)"),
    ("flags", "table(bool -> bool)"),
    ("bigs", "table(u64 -> u32, capacity = 5)"),
    ("deltas", "table(i32 -> i32, capacity = 2)"),
    ("fars", "table(i64 -> i64)"),
    ("roles", "table(enum -> ALLOW|DENY|MAYBE)"),
    ("tokens", "table(bytes(7) -> bool, capacity = 4)"),
    ("macs", "table(fixed(6) -> u64, capacity = 4)"),
    ("pairs", "table(string(63), bool -> i32, capacity = 4)"),
    ("nets", "table(cidr -> ALLOW|DENY|MAYBE, capacity = 16)"),
    ("names", "table(u32 -> string(63), capacity = 4)"),
    ("blobs", "table(string(63) -> bytes(7), capacity = 4)"),
    ("recent", "table(string(63) -> u64, capacity = 1000, evict = lru)"),
    ("ages", "table(string(63) -> duration, capacity = 4)"),
    ("total", "u64 = 5"),
    ("low", "i32 = -3"),
    ("gate", "bool = true"),
    ("buckets", "table(string(63) -> bucket, capacity = 4)"),
    ("bucket_of_all", "bucket"),
    ("calls", "counter"),
    ("by_role", "counter(enum, capacity = 3)"),
];
