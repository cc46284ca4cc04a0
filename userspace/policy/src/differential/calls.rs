//! The schema that random policies are for, and random calls of its methods: right ones, and wrong in every way that
//! reaches a policy.

use super::random::Random;
use crate::table::{KeyType, ValueType};
use tollfree_schema::{FieldKind, Layout, Manifest, Member, Method, Service, Streaming, method_id};
use tollfree_wire::Code;

/// The engine's clock in these tests.
pub const NOW_NS: u64 = 1 << 50;
const SECOND: u64 = 1_000_000_000;

/// This host's port in these tests.
pub const PORT: u16 = 7400;
/// What travels with every call.
pub const METADATA: [(&str, &str); 1] = [("trace", "alice")];

#[derive(Clone, Debug)]
pub struct Call {
    pub method: u32,
    pub layout: u32,
    pub flat: Vec<u8>,
    pub body_len: u32,
    pub deadline_us: Option<u32>,
    pub last_seen_ns: u64,
    pub idle_ns: u64,
    /// One of [`PEERS`].
    pub peer: usize,
    /// Where its base header starts in a frame.
    pub offset: usize,
}

/// What answers a call.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: Code,
    pub layout: u32,
    pub flat: Vec<u8>,
    pub latency_ns: u64,
    pub backend: Option<u32>,
}

/// Who calls.
#[derive(Clone, Copy, Debug)]
pub struct Peer {
    pub address: &'static str,
    /// Empty: none.
    pub identity: &'static str,
    pub namespace: &'static str,
    pub token: Option<bool>,
}

pub const PEERS: [Peer; 3] = [
    Peer { address: "10.0.0.1", identity: "alice", namespace: "", token: Some(true) },
    Peer { address: "192.0.2.7", identity: "", namespace: "bob", token: Some(false) },
    Peer { address: "2001:db8::1", identity: "exactly-16-bytes", namespace: "mallory", token: None },
];

/// What the last of [`PEERS`] has besides.
pub fn named(peer: usize) -> Vec<(String, String)> {
    if peer == 2 { vec![("label.app".into(), "bob".into())] } else { Vec::new() }
}

pub fn roles() -> Vec<(String, i32)> {
    vec![("NOBODY".into(), 0), ("USER".into(), 1), ("ADMIN".into(), -5)]
}

pub fn schema() -> Manifest {
    let all = || {
        vec![
            ("user", FieldKind::String { max_len: 16 }),
            ("level", FieldKind::U32),
            ("flag", FieldKind::Bool),
            ("big", FieldKind::U64),
            ("delta", FieldKind::I32),
            ("far", FieldKind::I64),
            ("role", FieldKind::Enum { values: roles() }),
            ("token", FieldKind::Bytes { max_len: 7 }),
            ("mac", FieldKind::Fixed { len: 6 }),
            ("share", FieldKind::F64),
        ]
    };
    let answer = vec![
        ("left", FieldKind::U64),
        ("value", FieldKind::String { max_len: 16 }),
        ("hit", FieldKind::Bool),
        ("score", FieldKind::I32),
        ("key", FieldKind::Bytes { max_len: 7 }),
    ];
    let short = answer[..2].to_vec();
    let other = vec![
        ("flag", FieldKind::Bool),
        ("user", FieldKind::String { max_len: 32 }),
        ("level", FieldKind::U32),
        ("role", FieldKind::Enum { values: roles() }),
    ];
    let layout = |name: String, fields: Vec<(&str, FieldKind)>| {
        let members = fields.into_iter().zip(1..);
        let members = members.map(|((name, kind), number)| Member { name: name.into(), number, kind });
        Layout::new(name, members.collect(), 192).unwrap()
    };
    let method = |service: &str, name: &str, request: Vec<_>, response: Vec<_>| {
        let path = format!("/{service}/{name}");
        Method {
            name: name.into(),
            id: method_id(&path),
            path,
            streaming: Streaming::Unary,
            request: layout(format!("t.{name}"), request),
            response: layout(format!("t.{name}Response"), response),
        }
    };
    let methods = vec![
        method("t.T", "One", all(), answer.clone()),
        method("t.T", "Two", other.clone(), short),
        method("t.T", "None", Vec::new(), Vec::new()),
        method("t.T", "Same", all(), answer),
    ];
    let more = vec![method("u.U", "Other", other, Vec::new())];
    Manifest {
        services: vec![
            Service { name: "t.T".into(), methods },
            Service { name: "u.U".into(), methods: more },
        ],
    }
}

/// Layouts of newer peers that the engines have agreed on: (method, layout), and what of it is known here.
pub fn agreed() -> Vec<((u32, u32), u32)> {
    let schema = schema();
    let methods = schema.methods().map(|method| ((method.id, 0xabcd), method.request.fingerprint));
    // One that this policy was not compiled for after all.
    methods.chain([((method_id("/t.T/One"), 0xbad), 0x1234)]).collect()
}

pub fn user(random: &mut Random) -> String {
    let long = "x".repeat(random.below(33));
    random.pick(&["alice", "bob", "", "mallory", "exactly-16-bytes", long.as_str()]).to_string()
}

pub fn number(random: &mut Random) -> u64 {
    *random.pick(&[
        0,
        1,
        2,
        7,
        0x7fff_ffff,
        0x8000_0000,
        0xffff_ffff,
        1 << 40,
        u64::MAX,
        u64::MAX - 6,
        1 << 63,
    ])
}

pub fn random(random: &mut Random) -> Call {
    let schema = schema();
    let methods: Vec<&Method> = schema.methods().collect();
    let method = *random.pick(&methods);
    let (layout, flat) = message(random, &method.request);
    // Whatever time the test itself takes, these are far enough from it on either side.
    let (last_seen_ns, idle_ns) = *random.pick(&[
        (NOW_NS - SECOND, 0),
        (NOW_NS - SECOND, SECOND / 1000),
        (NOW_NS - SECOND, 3600 * SECOND),
        // Another CPU has admitted a call since this one read the clock.
        (NOW_NS + 3600 * SECOND, SECOND / 1000),
    ]);
    Call {
        method: if random.one_in(20) { 77 } else { method.id },
        layout,
        flat,
        body_len: *random.pick(&[0, 1, 1000, 1 << 20]),
        deadline_us: *random.pick(&[None, Some(0), Some(5), Some(250_000)]),
        last_seen_ns,
        idle_ns,
        peer: random.below(PEERS.len()),
        offset: *random.pick(&[42, 46, 62, 66]),
    }
}

/// What answers a call of a method.
pub fn response(random: &mut Random, call: &Call) -> Response {
    let schema = schema();
    let method = schema.methods().find(|method| method.id == call.method);
    let (layout, flat) = match method {
        Some(method) if !random.one_in(4) => message(random, &method.response),
        _ => (0, Vec::new()),
    };
    Response {
        status: *random.pick(&[Code::Ok, Code::Ok, Code::Unavailable, Code::Aborted]),
        layout,
        flat,
        latency_ns: *random.pick(&[0, 999, SECOND / 4, 2 * SECOND]),
        backend: *random.pick(&[None, Some(0), Some(7)]),
    }
}

/// A flat block and its layout.
fn message(random: &mut Random, known: &Layout) -> (u32, Vec<u8>) {
    let mut flat = vec![0; usize::from(known.flat_len)];
    for field in &known.fields {
        let at = usize::from(field.offset);
        let bytes = match &field.kind {
            FieldKind::String { max_len } | FieldKind::Bytes { max_len } => {
                let mut text = user(random).into_bytes();
                text.truncate(usize::from(*max_len));
                // What a hostile sender may put behind the text, and into the length.
                let garbage = if random.below(3) == 0 { 0xee } else { 0 };
                let mut bytes = vec![text.len() as u8];
                bytes.extend(text);
                bytes.resize(1 + usize::from(*max_len), garbage);
                if random.below(12) == 0 {
                    bytes[0] = *random.pick(&[max_len + 1, 255]);
                }
                bytes
            }
            FieldKind::Fixed { len } => vec![random.below(2) as u8; usize::from(*len)],
            FieldKind::Bool => vec![*random.pick(&[0, 1, 2, 255])],
            FieldKind::F64 => random.pick(&[0.0, 1.5, -7.25, 1e300, f64::NAN]).to_le_bytes().to_vec(),
            FieldKind::Enum { .. } => random.pick(&[0i32, 1, -5, 9]).to_le_bytes().to_vec(),
            _ => number(random).to_le_bytes()[..usize::from(field.width)].to_vec(),
        };
        flat[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    let prefixes: Vec<(u32, u16)> = known.prefix_fingerprints().collect();
    let mut layout = known.fingerprint;
    match random.below(8) {
        0 if !prefixes.is_empty() => {
            let (prefix, length) = *random.pick(&prefixes);
            layout = prefix;
            flat.truncate(usize::from(length));
        }
        1 => flat.truncate(random.below(flat.len() + 1)),
        2 => layout = *random.pick(&[0, 1, 0xabcd, 0xbad, 0x1234]),
        3 => {
            layout = 0xabcd;
            flat.resize((flat.len() + 9).min(192), 0x55);
        }
        _ => {}
    }
    (layout, flat)
}

/// A key as a user would write it.
pub fn key_text(random: &mut Random, kind: &KeyType) -> String {
    let number = number(random);
    match kind {
        KeyType::Bool => (random.below(2) == 0).to_string(),
        KeyType::U32 => (number as u32).to_string(),
        KeyType::U64 => number.to_string(),
        KeyType::I32 => (number as i32).to_string(),
        KeyType::I64 => (number as i64).to_string(),
        KeyType::Enum { values } => random.pick(values).0.clone(),
        KeyType::String { .. } => user(random),
        KeyType::Bytes { max_len } => {
            let mut text = user(random).into_bytes();
            text.truncate(usize::from(*max_len));
            text.iter().map(|byte| format!("{byte:02x}")).collect()
        }
        KeyType::Fixed { len } => format!("{:02x}", random.below(2)).repeat(usize::from(*len)),
        KeyType::F32 | KeyType::F64 => unreachable!("floats are no keys"),
        KeyType::Duration => format!("{number}ns"),
        KeyType::Address => format!("10.0.0.{}", random.below(4)),
        KeyType::Cidr => {
            let networks = [
                "10.0.0.0/8",
                "10.0.0.0/31",
                "10.0.0.1/32",
                "0.0.0.0/0",
                "::/0",
                "2001:db8::/32",
                "192.0.2.0/24",
            ];
            random.pick(&networks).to_string()
        }
        KeyType::Unit => String::new(),
        KeyType::Tuple { parts } => {
            parts.iter().map(|part| key_text(random, part)).collect::<Vec<_>>().join(",")
        }
    }
}

/// A value as a user would write it.
pub fn value_text(random: &mut Random, kind: &ValueType) -> String {
    let number = number(random);
    match kind {
        ValueType::Bool => (random.below(2) == 0).to_string(),
        ValueType::U32 => (number as u32).to_string(),
        ValueType::U64 => number.to_string(),
        ValueType::I32 => (number as i32).to_string(),
        ValueType::I64 => (number as i64).to_string(),
        ValueType::Enum { values } => random.pick(values).0.clone(),
        ValueType::F64 => (number as i64 as f64 / 2.0).to_string(),
        ValueType::Duration => format!("{number}ns"),
        // Full, empty, and in between.
        ValueType::Bucket => {
            let ahead = *random.pick(&[0, SECOND / 20, SECOND, 3600 * SECOND]);
            format!("{}ns", random.pick(&[0, NOW_NS - SECOND, NOW_NS + ahead]))
        }
        ValueType::String { max_len } => {
            let mut text = user(random);
            text.truncate(usize::from(*max_len));
            text
        }
        ValueType::Bytes { .. } => format!("{:02x}", random.below(2)).repeat(random.below(4)),
        ValueType::Fixed { len } => format!("{:02x}", random.below(2)).repeat(usize::from(*len)),
    }
}
