//! The typed form of a policy, which both back ends compile: names are resolved, types agree, every path ends.
//!
//! A value that a policy reads never changes while one call is judged, so a variable is no storage: it is another
//! name for an [`Operand`].

use crate::diagnostics::Span;
use crate::effects::{Node, visit};
use crate::table::{KeyType, TableSpec, service_number};
use serde::{Deserialize, Serialize};
use tollfree_schema::{FieldKind, Layout, Manifest};
use tollfree_wire::Code;

/// Which end of a session a chain guards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Side {
    /// Calls that arrive at services on this host.
    #[default]
    Server,
    /// Calls that leave from applications on this host.
    Client,
}

impl std::fmt::Display for Side {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Side::Server => "server",
            Side::Client => "client",
        })
    }
}

/// What one side's chains of a file say.
#[derive(Clone, Debug)]
pub(crate) struct Policy {
    pub side: Side,
    /// In the order in which a request meets them; a response meets them in reverse.
    pub elements: Vec<Element>,
    pub tables: Vec<TableSpec>,
    /// The request fields that are read or changed.
    pub fields: Vec<FieldUse>,
    /// The response fields that are read or changed.
    pub response_fields: Vec<FieldUse>,
    /// What is asked of the session besides [`PeerValue`]'s own: `label.app`, `claim.role`, `issuer`, `audience`, `token`.
    pub peer_names: Vec<String>,
    /// Keys of metadata that are read.
    pub metadata: Vec<String>,
    /// Groups of backends, by name or by label, that calls are routed or mirrored to.
    pub selectors: Vec<String>,
    /// External authorisers that are asked.
    pub authorisers: Vec<String>,
    /// Keys of encryption, by the names they have in the daemon's configuration.
    pub keys: Vec<String>,
}

/// A field that the policy uses, as all methods together see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldUse {
    pub name: String,
    /// Of text and bytes: the longest over all methods.
    pub kind: KeyType,
}

/// A use of an element in a chain, its parameters filled in.
#[derive(Clone, Debug)]
pub(crate) struct Element {
    pub name: String,
    /// The place of its use in the chain.
    pub span: Span,
    /// The methods it judges, by id, ascending; `None`: all.
    pub methods: Option<Vec<u32>>,
    /// A dry run: what it would refuse is counted and goes on.
    pub audit: bool,
    pub request: Option<Body>,
    pub response: Option<Vec<Statement>>,
}

#[derive(Clone, Debug)]
pub(crate) enum Body {
    /// The built-in `session_tracker()`; with the place of its call in the chain.
    SessionTracker(Span),
    Block(Vec<Statement>),
}

#[derive(Clone, Debug)]
pub(crate) struct Statement {
    pub span: Span,
    pub action: Action,
}

/// Statements. Where an operand that one needs is absent, nothing happens. A key has an operand per part: none for a cell
/// or a counter without key, an address where the table's key is a cidr.
#[derive(Clone, Debug)]
pub(crate) enum Action {
    /// Keeps what an operation gives, or that it gives nothing.
    Let {
        into: usize,
        op: Op,
    },
    /// Goes on in the first arm with a pattern that matches and a guard that holds; behind the match if that arm does
    /// not end the element.
    Match {
        subject: Operand,
        arms: Vec<Arm>,
    },
    /// Nothing happens where a new key finds the table full.
    Set {
        table: usize,
        key: Vec<Operand>,
        value: Operand,
    },
    Delete {
        table: usize,
        key: Vec<Operand>,
    },
    /// Writes a flat field of the message at hand; `None`: its bytes become zero. A text too long for the field, and a
    /// field that the method or the flat block does not have, change nothing.
    SetField {
        field: FieldRef,
        value: Option<Operand>,
    },
    /// What only the engine can do, noted for it.
    Effect(Effect),
    Exit(Exit),
}

/// What the engine does with a call besides letting it go on.
#[derive(Clone, Debug)]
pub(crate) enum Effect {
    /// Holds it for this many ns more.
    Delay(Operand),
    /// It has at most this many ns left.
    Timeout(Operand),
    /// Sends it to a backend of [`Policy::selectors`]; `None`: the next in turn.
    Route { selector: usize, index: Option<Operand> },
    /// Sends a copy whose answer nobody waits for.
    Mirror { selector: usize },
    /// Takes the backend that answered out for so many ns, unless more than `max_ppm` of its group would be out.
    Eject { duration: Operand, max_ppm: Operand },
    /// A line for the log, with the kinds of the values.
    Log(Vec<(Operand, KeyType)>),
}

/// Operations that give a value. With an absent operand they give none, but for [`Op::And`] and [`Op::Or`].
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Copy(Operand),
    /// What the table has for the key; absent where it has nothing. Text and bytes are good until the element ends.
    Lookup {
        table: usize,
        key: Vec<Operand>,
    },
    /// Adds to a number in a table, which starts at 0 (a cell at its first value), and gives the sum, saturating at the
    /// ends of what the table's values can be. On a counter it gives nothing. `number` is how to read the amount: a
    /// signed one can take from an unsigned number.
    Add {
        table: usize,
        key: Vec<Operand>,
        number: Number,
        amount: Operand,
    },
    /// A token bucket (generic cell rate algorithm): whether there was room for `cost` at `count` per `period_ns`. None at
    /// a count of 0. See [`crate::rate`].
    Take {
        table: usize,
        key: Vec<Operand>,
        count: Operand,
        period_ns: u64,
        burst: Operand,
        cost: Operand,
    },
    /// Saturates at the ends of the type; x / 0 is 0, x % 0 is x.
    Arithmetic {
        op: Arithmetic,
        number: Number,
        a: Operand,
        b: Operand,
    },
    Compare {
        op: Comparison,
        number: Number,
        a: Operand,
        b: Operand,
    },
    /// Whether two texts, byte strings or addresses are the same.
    Same {
        a: Operand,
        b: Operand,
    },
    /// Whether a text starts so.
    StartsWith {
        text: Operand,
        prefix: Vec<u8>,
    },
    Not(Operand),
    /// False where either is false, absent or not; else absent where either is absent.
    And(Operand, Operand),
    /// True where either is true, absent or not; else absent where either is absent.
    Or(Operand, Operand),
    /// Between the kinds of numbers, saturating; a float's NaN becomes 0.
    Convert {
        from: Number,
        to: Number,
        value: Operand,
    },
    /// What 32 bits of this kind of number can hold, saturating: what is written to a 32-bit field or table. Not for
    /// floats.
    Narrow {
        number: Number,
        value: Operand,
    },
    /// [`crate::hash::Hasher`] over the operands' canonical bytes.
    Hash(Vec<Operand>),
    /// 32 random bits.
    Random,
    /// True for so many of a million.
    Chance(Operand),
    /// How many backends a selector has.
    Backends(usize),
    /// An external authoriser's word; absent where it cannot be reached.
    Ask(usize),
    /// Encrypts or decrypts a bytes field of the message at hand in place, and says whether that was possible.
    Crypt {
        field: FieldRef,
        key: usize,
        decrypt: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
}

/// How 64 bits are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Number {
    Unsigned,
    Signed,
    /// An IEEE double.
    Float,
}

#[derive(Clone, Debug)]
pub(crate) struct Arm {
    pub patterns: Vec<Pattern>,
    pub guard: Option<Guard>,
    pub body: Vec<Statement>,
}

/// A condition, with the operations it is made of. Absent does not hold.
#[derive(Clone, Debug)]
pub(crate) struct Guard {
    pub statements: Vec<Statement>,
    pub condition: Operand,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Pattern {
    Any,
    Absent,
    Present,
    Equal(Constant),
    /// One of these numbers, ascending: the methods whose names start with a prefix.
    OneOf(Vec<u64>),
    /// A text with this beginning.
    Prefix(Vec<u8>),
    /// From and up to, exclusive.
    Range {
        number: Number,
        from: u64,
        to: u64,
    },
    /// An address whose first `bits` are these.
    Cidr {
        address: [u8; 16],
        bits: u8,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Operand {
    Constant(Constant),
    /// What an [`Action::Let`] kept.
    Slot(usize),
    Field(FieldRef),
    Attribute(Attribute),
    Peer(PeerValue),
    /// An index into [`Policy::metadata`].
    Metadata(usize),
}

/// A flat field of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldRef {
    /// An index into [`Policy::fields`].
    Request(usize),
    /// An index into [`Policy::response_fields`]; in response handlers only.
    Response(usize),
}

/// What a call is, besides its message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Attribute {
    /// The method's id.
    Method,
    /// [`crate::table::service_number`] of the service's full name.
    Service,
    /// Bytes of flat block and body.
    Size,
    /// ns until the caller stops waiting; absent where it never does.
    Deadline,
    /// ns of the monotonic clock.
    Now,
    /// This host's port.
    Port,
    /// The [`Code`] a call ended with; in response handlers, as the two below.
    Status,
    /// ns since the request was judged.
    Latency,
    /// Which backend answered; absent where there is only one.
    Backend,
}

/// Who calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerValue {
    /// Text; absent where the daemon's configuration knows none.
    Identity,
    /// Text; absent where the daemon's configuration knows none.
    Namespace,
    /// 16 bytes, IPv4 mapped into IPv6.
    Address,
    /// Text: an index into [`Policy::peer_names`].
    Named(usize),
    /// [`TOKEN_VALID`] or [`TOKEN_BAD`]; absent without a token.
    Token,
    /// How many sessions the peer's host had when this one was opened, itself included.
    Sessions,
}

/// The numbers of `get(peer, 'token')`, in the order of the names' letters.
pub(crate) const TOKEN_BAD: u64 = 0;
pub(crate) const TOKEN_VALID: u64 = 1;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Constant {
    /// Signed numbers sign-extended, floats as their bits.
    Number(u64),
    /// Text and bytes, without padding; addresses.
    Bytes(Vec<u8>),
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Exit {
    /// On to the next element; behind the last, to the engine.
    Send,
    Drop,
    /// With what to tell the caller, where there is a way to.
    Reject(Code, Option<String>),
    /// Ends the call OK with these fields of the response, by [`Policy::response_fields`]; all others are zero. An absent
    /// value leaves its field zero.
    Answer(Vec<(usize, Operand)>),
    /// Makes the call once more, unless it was made so often already or more than `budget_ppm` of calls were.
    Retry {
        max: u32,
        budget_ppm: u32,
    },
}

/// Where one method's request has a field.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct FieldAt {
    pub offset: u16,
    /// The byte behind it: a shorter flat block does not have it.
    pub end: u16,
    pub kind: KeyType,
}

/// Methods that the policy cannot tell apart but by their ids: of one service, judged by the same elements, with all
/// fields that the policy uses in the same places. They share code.
#[derive(Clone, Debug)]
pub(crate) struct Group {
    /// Per [`Policy::fields`].
    pub fields: Vec<Option<FieldAt>>,
    /// Per [`Policy::response_fields`].
    pub response_fields: Vec<Option<FieldAt>>,
    /// Bytes of the response's flat block, and its layout's fingerprint; zeros where the policy answers no calls.
    pub response: (u16, u32),
    /// [`crate::table::service_number`] of the service; 0 where the policy does not ask for it.
    pub service: u32,
    /// Per [`Policy::elements`]: whether it judges these methods.
    pub covered: Vec<bool>,
    pub methods: Vec<MethodLayouts>,
}

/// A method and the layouts that its policy code can read.
#[derive(Clone, Debug)]
pub(crate) struct MethodLayouts {
    pub id: u32,
    /// The request's layout as the schema has it.
    pub current: u32,
    /// 0, where a peer sends no flat block, and every prefix of the request's layout.
    pub fingerprints: Vec<u32>,
    /// The response's layout as the schema has it.
    pub current_response: u32,
    /// [`MethodLayouts::fingerprints`] of the response.
    pub response_fingerprints: Vec<u32>,
}

impl Policy {
    /// The methods of the schema, by what the policy can tell of them.
    pub(crate) fn groups(&self, manifest: &Manifest) -> Vec<Group> {
        let mut groups: Vec<Group> = Vec::new();
        // What the policy does not ask for must not keep methods apart.
        let Asked { service: by_service, response: by_response } = self.asked();
        for (service, method) in manifest.services.iter().flat_map(|service| {
            service.methods.iter().map(move |method| (service_number(&service.name), method))
        }) {
            let places = |uses: &[FieldUse], layout| {
                uses.iter().map(|field| field_at(layout, &field.name)).collect::<Vec<_>>()
            };
            let prefixes = |layout: &Layout| {
                let mut fingerprints: Vec<u32> =
                    layout.prefix_fingerprints().map(|(fingerprint, _)| fingerprint).collect();
                fingerprints.push(0);
                fingerprints.sort_unstable();
                fingerprints.dedup();
                fingerprints
            };
            let covers = |element: &Element| {
                element.methods.as_ref().is_none_or(|methods| methods.binary_search(&method.id).is_ok())
            };
            let group = Group {
                fields: places(&self.fields, &method.request),
                response_fields: places(&self.response_fields, &method.response),
                response: if by_response {
                    (method.response.flat_len, method.response.fingerprint)
                } else {
                    (0, 0)
                },
                service: if by_service { service } else { 0 },
                covered: self.elements.iter().map(covers).collect(),
                methods: vec![MethodLayouts {
                    id: method.id,
                    current: method.request.fingerprint,
                    fingerprints: prefixes(&method.request),
                    current_response: method.response.fingerprint,
                    response_fingerprints: prefixes(&method.response),
                }],
            };
            match groups.iter_mut().find(|known| known.is_like(&group)) {
                Some(known) => known.methods.extend(group.methods),
                None => groups.push(group),
            }
        }
        groups
    }
}

/// What a policy asks of methods besides their fields.
#[derive(Clone, Copy, Debug, Default)]
struct Asked {
    service: bool,
    response: bool,
}

impl Policy {
    fn asked(&self) -> Asked {
        let mut asked = Asked::default();
        let mut see = |node: Node<'_>| match node {
            Node::Operand(Operand::Attribute(Attribute::Service)) => asked.service = true,
            Node::Action(Action::Exit(Exit::Answer(_))) => asked.response = true,
            _ => {}
        };
        for Element { request, response, .. } in &self.elements {
            if let Some(Body::Block(block)) = request {
                visit(block, &mut see);
            }
            if let Some(block) = response {
                visit(block, &mut see);
            }
        }
        asked
    }
}

impl Group {
    fn is_like(&self, other: &Group) -> bool {
        let Group { fields, response_fields, response, service, covered, methods: _ } = self;
        *fields == other.fields
            && *response_fields == other.response_fields
            && *response == other.response
            && *service == other.service
            && *covered == other.covered
    }
}

fn field_at(layout: &Layout, name: &str) -> Option<FieldAt> {
    let field = layout.fields.iter().find(|field| field.name == name)?;
    let kind = kind_of_field(&field.kind);
    Some(FieldAt { offset: field.offset, end: field.offset.checked_add(field.width)?, kind })
}

/// The kind of a field as policies see it.
pub(crate) fn kind_of_field(kind: &FieldKind) -> KeyType {
    match kind {
        FieldKind::Bool => KeyType::Bool,
        FieldKind::U32 => KeyType::U32,
        FieldKind::U64 => KeyType::U64,
        FieldKind::I32 => KeyType::I32,
        FieldKind::I64 => KeyType::I64,
        FieldKind::F32 => KeyType::F32,
        FieldKind::F64 => KeyType::F64,
        FieldKind::Enum { values } => KeyType::Enum { values: values.clone() },
        FieldKind::String { max_len } => KeyType::String { max_len: *max_len },
        FieldKind::Bytes { max_len } => KeyType::Bytes { max_len: *max_len },
        FieldKind::Fixed { len } => KeyType::Fixed { len: *len },
    }
}
