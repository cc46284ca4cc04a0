//! A policy as the engine runs it: flat lists of steps, with places in them for pointers.
//!
//! Jumps lead forwards only, so every element ends.

use super::registers::Register;
use super::shape::{Place, Shape};
use crate::ir::{Attribute, FieldRef};
use crate::operations::Order;
use crate::table::{KeyType, TableSpec};
use std::sync::Arc;
use tollfree_wire::Code as Status;

/// A compiled policy.
#[derive(Debug, Default)]
pub struct Code {
    /// The elements' names.
    pub names: Vec<String>,
    pub steps: Vec<Step>,
    /// Of all [`Step::Switch`]es and [`Step::SwitchBytes`].
    pub tests: Vec<Test>,
    /// The constants that have a register, and theirs.
    pub constants: Vec<(Register, u64)>,
    /// Of all [`Step::Hash`]es.
    pub sources: Vec<Source>,
    /// Of all keys: each part's shape and where it comes from.
    pub parts: Vec<(Shape, Source)>,
    /// Of all texts and addresses.
    pub bytes: Vec<u8>,
    /// Of all [`Probe::OneOf`]s, and constants that have no register.
    pub numbers: Vec<u64>,
    /// What is told with a status.
    pub whys: Vec<Arc<str>>,
    /// Of all answers: a response's field and its value.
    pub answers: Vec<(u16, Source)>,
    /// Of all [`Step::Log`]s: what their values are, beside `sources`.
    pub logged: Vec<(Source, KeyType)>,
    pub specs: Arc<[TableSpec]>,
    pub shared: Vec<usize>,
    /// By their ids.
    pub methods: Vec<Method>,
    pub groups: Vec<Group>,
    pub peer_names: Vec<String>,
    pub metadata: Vec<String>,
    pub selectors: Vec<String>,
    pub authorisers: Vec<String>,
    pub keys: Vec<String>,
    pub sizes: Sizes,
    pub uses: Uses,
}

/// How much room judging takes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sizes {
    /// Registers of texts.
    pub texts: usize,
    /// Bytes of text that an element keeps.
    pub arena: usize,
    /// Words of the longest key.
    pub key: usize,
}

/// What a policy does at all.
#[derive(Clone, Copy, Debug, Default)]
pub struct Uses {
    pub response: bool,
    pub request_in_response: bool,
    pub metadata_in_response: bool,
    pub changes_request: bool,
    pub changes_response: bool,
    pub logs: bool,
}

#[derive(Clone, Copy, Debug)]
pub enum Handler {
    SessionTracker,
    /// Its first step.
    Steps(u32),
}

#[derive(Clone, Debug)]
pub struct Method {
    pub id: u32,
    pub group: u32,
    pub request: Layouts,
    pub response: Layouts,
}

/// The layouts of a message that can be read, by their fingerprints.
#[derive(Clone, Debug)]
pub struct Layouts {
    /// What most calls have.
    pub usual: u32,
    /// Ascending.
    pub all: Vec<u32>,
}

/// Methods that share their fields' places.
#[derive(Clone, Debug)]
pub struct Group {
    pub service: u32,
    pub request: Vec<Option<Place>>,
    pub response: Vec<Option<Place>>,
    /// Bytes of the response's flat block, and its layout.
    pub answer: (u16, u32),
    /// What a request meets, in order.
    pub requests: Vec<Stop>,
    /// What a response meets, in order: the last element first.
    pub responses: Vec<Stop>,
}

/// An element's handler on a message's way.
#[derive(Clone, Copy, Debug)]
pub struct Stop {
    /// The element's number.
    pub element: usize,
    pub audit: bool,
    pub handler: Handler,
}

/// Part of one of [`Code`]'s lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct List {
    pub at: u32,
    pub len: u32,
}

impl List {
    /// Adds items to one of the lists; says where they are.
    pub fn append<T>(all: &mut Vec<T>, items: impl IntoIterator<Item = T>) -> List {
        let at = all.len();
        all.extend(items);
        List { at: at as u32, len: (all.len() - at) as u32 }
    }

    #[inline]
    pub fn of<T>(self, all: &[T]) -> &[T] {
        let at = self.at as usize;
        all.get(at..at + self.len as usize).unwrap_or_default()
    }
}

/// Where a table's key comes from.
#[derive(Clone, Copy, Debug)]
pub enum Key {
    /// The table has one value.
    None,
    /// Of one number, as most keys.
    Number(Shape, Source),
    /// Part of [`Code::parts`].
    Parts(List),
}

/// Operands that are numbers are registers: what comes from elsewhere is loaded before. Where an operand is absent, so is
/// what a step keeps.
#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Keeps a number from elsewhere.
    Load {
        into: Register,
        source: Source,
    },
    /// Keeps what another register has.
    Copy {
        into: Register,
        from: Register,
    },
    /// Keeps what a text is now.
    Keep {
        into: Register,
        /// Where in the arena there is room for it.
        room: u32,
        source: Source,
    },
    /// Keeps a text of a table.
    Fetch {
        into: Register,
        room: u32,
        table: u16,
        key: Key,
    },
    /// Keeps a number of a table.
    Lookup {
        into: Register,
        table: u16,
        key: Key,
    },
    Add {
        into: Register,
        table: u16,
        key: Key,
        amount: Register,
        sum: fn(u64, u64) -> u64,
        /// Whether the sum is kept: a counter gives nothing.
        gives: bool,
    },
    Take {
        into: Register,
        table: u16,
        key: Key,
        terms: Terms,
    },
    /// What a function of [`crate::operations`] gives.
    One {
        into: Register,
        function: fn(u64) -> u64,
        a: Register,
    },
    Two {
        into: Register,
        function: fn(u64, u64) -> u64,
        a: Register,
        b: Register,
    },
    Compare {
        into: Register,
        holds: Order,
        a: Register,
        b: Register,
    },
    /// Compares, and goes on at the next step where it holds. Where an operand is absent, a policy whose cases are not all
    /// covered lets nothing through.
    Branch {
        into: Register,
        holds: Order,
        a: Register,
        b: Register,
        otherwise: u32,
    },
    Same {
        into: Register,
        a: Source,
        b: Source,
    },
    StartsWith {
        into: Register,
        text: Source,
        prefix: List,
    },
    And {
        into: Register,
        a: Register,
        b: Register,
    },
    Or {
        into: Register,
        a: Register,
        b: Register,
    },
    Hash {
        into: Register,
        /// Part of [`Code::sources`].
        values: List,
    },
    Random {
        into: Register,
    },
    Chance {
        into: Register,
        ppm: Register,
    },
    Backends {
        into: Register,
        selector: u16,
    },
    Crypt {
        into: Register,
        field: FieldRef,
        key: u16,
        decrypt: bool,
    },
    /// Keeps an authoriser's word.
    Ask {
        into: Register,
        authoriser: u16,
    },
    /// On at the first test that holds of a number; a policy whose cases are not all covered lets nothing through.
    Switch {
        subject: Register,
        tests: List,
    },
    /// The same of bytes.
    SwitchBytes {
        subject: Source,
        tests: List,
    },
    /// On at the next step where it is this number.
    Case {
        subject: Register,
        is: u64,
        otherwise: u32,
    },
    Jump(u32),
    Set {
        table: u16,
        key: Key,
        value: Source,
    },
    Delete {
        table: u16,
        key: Key,
    },
    SetField {
        field: FieldRef,
        value: Source,
    },
    ZeroField(FieldRef),
    Delay(Register),
    Timeout(Register),
    Route {
        selector: u16,
        index: Option<Register>,
    },
    Mirror(u16),
    Eject {
        duration: Register,
        max_ppm: Register,
    },
    /// Part of [`Code::logged`].
    Log(List),
    Send,
    Drop,
    Reject {
        code: Status,
        why: Option<u32>,
    },
    /// Part of [`Code::answers`].
    Answer(List),
    Retry {
        max: u32,
        budget_ppm: u32,
    },
}

/// How much a token bucket gives: `count` calls a period.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub count: Register,
    /// What one call moves the bucket's time by, and how far it may be ahead of the clock.
    pub cost: Share,
    pub burst: Share,
}

/// Some calls' share of a bucket's period ([`crate::rate::share`]).
#[derive(Clone, Copy, Debug)]
pub enum Share {
    Known(u64),
    /// At [`Terms::count`] calls per so many ns.
    Of {
        calls: Register,
        period_ns: u64,
    },
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// A number's.
    Register(Register),
    /// One of [`Code::numbers`].
    Constant(u32),
    /// A text's register.
    Text(Register),
    /// Part of [`Code::bytes`].
    Bytes(List),
    Request(u16),
    Response(u16),
    Attribute(Attribute),
    Identity,
    Namespace,
    Address,
    Token,
    Sessions,
    /// One of [`Code::peer_names`].
    Named(u16),
    /// One of [`Code::metadata`].
    Metadata(u16),
}

#[derive(Clone, Copy, Debug)]
pub struct Test {
    pub probe: Probe,
    pub target: u32,
}

#[derive(Clone, Copy, Debug)]
pub enum Probe {
    Any,
    Absent,
    Present,
    Number(u64),
    Bytes(List),
    /// Part of [`Code::numbers`].
    OneOf(List),
    Prefix(List),
    /// From, and up to, exclusive.
    Range {
        /// Whether a number comes before another one.
        before: Order,
        from: u64,
        to: u64,
    },
    Cidr {
        address: List,
        bits: u8,
    },
}
