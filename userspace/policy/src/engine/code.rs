//! A policy as the engine runs it: flat lists of steps, with places in them for pointers.
//!
//! Jumps lead forwards only, so every element ends.

use super::shape::{Place, Shape, Sum};
use crate::ir::{Arithmetic, Attribute, Comparison, FieldRef, Number};
use crate::table::{KeyType, TableSpec};
use std::ops::Range;
use std::sync::Arc;
use tollfree_wire::Code as Status;

/// A compiled policy.
#[derive(Debug, Default)]
pub struct Code {
    pub elements: Vec<Element>,
    /// The elements' names.
    pub names: Vec<String>,
    pub steps: Vec<Step>,
    /// Of all [`Step::Switch`]es.
    pub tests: Vec<Test>,
    /// Of all [`Op::Hash`]es.
    pub sources: Vec<Source>,
    /// Of all keys: each part's shape and where it comes from.
    pub parts: Vec<(Shape, Source)>,
    /// Of all texts and addresses.
    pub bytes: Vec<u8>,
    /// Of all [`Probe::OneOf`]s.
    pub numbers: Vec<u64>,
    /// What is told with a status.
    pub whys: Vec<Arc<str>>,
    /// Of all answers: a response's field and its value.
    pub answers: Vec<(u16, Source)>,
    /// Of all [`Step::Log`]s: what their values are, beside `sources`.
    pub logged: Vec<(Source, KeyType)>,
    pub tables: Vec<Table>,
    pub specs: Arc<[TableSpec]>,
    pub shared: Vec<usize>,
    /// Ascending; beside `methods`.
    pub method_ids: Vec<u32>,
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
    pub slots: usize,
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
    pub changes_request: bool,
    pub changes_response: bool,
    pub logs: bool,
}

#[derive(Clone, Copy, Debug)]
pub struct Element {
    pub audit: bool,
    pub request: Option<Handler>,
    /// Its first step.
    pub response: Option<u32>,
}

#[derive(Clone, Copy, Debug)]
pub enum Handler {
    SessionTracker,
    /// Its first step.
    Steps(u32),
}

#[derive(Clone, Debug)]
pub struct Method {
    /// The fingerprint that most calls have.
    pub layout: u32,
    pub group: u32,
    /// Layouts that can be read, ascending.
    pub layouts: Vec<u32>,
    pub response_layouts: Vec<u32>,
}

/// Methods that share their fields' places.
#[derive(Clone, Debug)]
pub struct Group {
    pub service: u32,
    pub request: Vec<Option<Place>>,
    pub response: Vec<Option<Place>>,
    /// Bytes of the response's flat block, and its layout.
    pub answer: (u16, u32),
    /// The elements that a request meets, in order.
    pub requests: Vec<u32>,
    /// The elements that a response meets, in order: the last first.
    pub responses: Vec<u32>,
}

impl Group {
    /// The places in [`Group::requests`] of the elements with these numbers.
    pub fn requests_in(&self, elements: Range<usize>) -> Range<usize> {
        let before = |limit| self.requests.partition_point(|number| (*number as usize) < limit);
        before(elements.start)..before(elements.end)
    }
}

#[derive(Clone, Copy, Debug)]
pub struct Table {
    pub sum: Sum,
    /// Gives nothing when it is added to.
    pub counter: bool,
}

/// Part of one of [`Code`]'s lists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct List {
    pub at: u32,
    pub len: u32,
}

impl List {
    #[inline]
    pub fn of<T>(self, all: &[T]) -> &[T] {
        let at = self.at as usize;
        all.get(at..at + self.len as usize).unwrap_or_default()
    }
}

#[derive(Clone, Copy, Debug)]
pub enum Step {
    /// Keeps a number.
    Let {
        into: u16,
        op: Op,
    },
    /// Keeps what a value is now.
    Copy {
        into: u16,
        /// Where in the arena there is room for a text.
        room: u32,
        source: Source,
    },
    /// Keeps a text of a table.
    Fetch {
        into: u16,
        room: u32,
        table: u16,
        /// Part of [`Code::parts`], as all keys.
        key: List,
    },
    /// Keeps an authoriser's word.
    Ask {
        into: u16,
        authoriser: u16,
    },
    /// On at the first test that holds; a policy whose cases are not all covered lets nothing through.
    Switch {
        subject: Source,
        tests: List,
    },
    /// On at the next step where it holds.
    Guard {
        condition: Source,
        otherwise: u32,
    },
    Jump(u32),
    Set {
        table: u16,
        key: List,
        value: Source,
    },
    Delete {
        table: u16,
        key: List,
    },
    SetField {
        field: FieldRef,
        value: Source,
    },
    ZeroField(FieldRef),
    Delay(Source),
    Timeout(Source),
    Route {
        selector: u16,
        index: Option<Source>,
    },
    Mirror(u16),
    Eject {
        duration: Source,
        max_ppm: Source,
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

/// What gives a number.
#[derive(Clone, Copy, Debug)]
pub enum Op {
    Lookup {
        table: u16,
        key: List,
    },
    Add {
        table: u16,
        key: List,
        amount: Source,
        number: Number,
    },
    Take {
        table: u16,
        key: List,
        terms: Terms,
    },
    Arithmetic {
        op: Arithmetic,
        number: Number,
        a: Source,
        b: Source,
    },
    Compare {
        op: Comparison,
        number: Number,
        a: Source,
        b: Source,
    },
    Same {
        a: Source,
        b: Source,
    },
    StartsWith {
        text: Source,
        prefix: List,
    },
    Not(Source),
    And(Source, Source),
    Or(Source, Source),
    Convert {
        from: Number,
        to: Number,
        value: Source,
    },
    Narrow {
        number: Number,
        value: Source,
    },
    /// Part of [`Code::sources`].
    Hash(List),
    Random,
    Chance(Source),
    Backends(u16),
    Crypt {
        field: FieldRef,
        key: u16,
        decrypt: bool,
    },
}

/// How much a token bucket gives: `count` calls a period.
#[derive(Clone, Copy, Debug)]
pub struct Terms {
    pub count: Source,
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
        calls: Source,
        period_ns: u64,
    },
}

/// Where a value comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    Number(u64),
    /// Part of [`Code::bytes`].
    Bytes {
        at: u32,
        len: u32,
    },
    Slot(u16),
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
        number: Number,
        from: u64,
        to: u64,
    },
    Cidr {
        address: List,
        bits: u8,
    },
}
