//! Every feature of the language that XDP has, in the running kernel.

mod arithmetic;
mod calls;
mod decided;
mod large;
mod placement;
mod tables;

use super::Clock;
use crate::differential::kernel::{self, Kernel, Packet, Ran};
use crate::{Compiled, Options, Source, compile};
use tollfree_schema::{FieldKind, Layout, Manifest, Member, Method, Service, method_id};
use tollfree_wire::header::NO_DEADLINE;

const NOW_NS: u64 = 1 << 50;

fn method(
    service: &str,
    name: &str,
    request: &[(&str, FieldKind)],
    response: &[(&str, FieldKind)],
) -> Method {
    let layout = |fields: &[(&str, FieldKind)], suffix: &str| {
        let members = fields.iter().zip(1..);
        let members =
            members.map(|((name, kind), number)| Member { name: (*name).into(), number, kind: kind.clone() });
        Layout::new(format!("{name}{suffix}"), members.collect(), 192).unwrap()
    };
    let path = format!("/{service}/{name}");
    Method {
        name: name.into(),
        id: method_id(&path),
        path,
        streaming: tollfree_schema::Streaming::Unary,
        request: layout(request, "Request"),
        response: layout(response, "Response"),
    }
}

/// `Calc` has numbers, `Text` has texts, `Admin*` have little.
fn schema() -> Manifest {
    let text = |max_len| FieldKind::String { max_len };
    let numbers = [
        ("a", FieldKind::U64),
        ("b", FieldKind::U64),
        ("c", FieldKind::I64),
        ("d", FieldKind::I64),
        ("out", FieldKind::U64),
        ("signed", FieldKind::I64),
        ("small", FieldKind::U32),
        ("less", FieldKind::I32),
        ("flag", FieldKind::Bool),
    ];
    let texts = [
        ("user", text(16)),
        ("other", text(40)),
        ("mac", FieldKind::Fixed { len: 6 }),
        ("out", FieldKind::U64),
        ("flag", FieldKind::Bool),
    ];
    let answer = [("value", text(24)), ("level", FieldKind::U32), ("hit", FieldKind::Bool)];
    let short = [("user", text(8))];
    Manifest {
        services: vec![
            Service {
                name: "t.T".into(),
                methods: vec![
                    method("t.T", "Calc", &numbers, &[]),
                    method("t.T", "Text", &texts, &answer),
                    method("t.T", "AdminA", &short, &[]),
                    method("t.T", "AdminB", &short, &[]),
                ],
            },
            Service { name: "u.U".into(), methods: vec![method("u.U", "Get", &short, &[])] },
        ],
    }
}

/// A policy in the kernel.
struct Judge {
    compiled: Compiled,
    kernel: Kernel,
}

/// A request: what the methods of [`schema`] have, by name.
#[derive(Clone, Default)]
struct Call<'a> {
    method: &'a str,
    numbers: &'a [(&'a str, u64)],
    texts: &'a [(&'a str, &'a str)],
    body: u32,
    deadline_us: Option<u32>,
}

fn compiled(text: &str) -> Compiled {
    let source = Source { name: "test.policy", text };
    compile(&source, &schema(), Options { clock: Clock::Fixed(NOW_NS), ..Options::default() })
        .unwrap_or_else(|diagnostics| panic!("{text}\n{diagnostics}"))
}

impl Judge {
    /// `None`, with a word, where programs cannot be loaded.
    fn new(text: &str) -> Option<Judge> {
        if let Err(why) = kernel::possible() {
            println!("skipped: {why}");
            return None;
        }
        let compiled = compiled(text);
        let kernel =
            Kernel::load(&compiled).unwrap_or_else(|why| panic!("{why}\n{text}\n{}", compiled.explain));
        Some(Judge { compiled, kernel })
    }

    fn run(&mut self, call: &Call<'_>) -> Ran {
        let schema = schema();
        let method = schema.methods().find(|method| method.name == call.method).unwrap();
        let flat = flat(method, call);
        self.kernel.run(&Packet {
            method: method.id,
            layout: method.request.fingerprint,
            flat: &flat,
            message_len: call.body,
            deadline_us: call.deadline_us.unwrap_or(NO_DEADLINE),
            offset: 42,
        })
    }

    /// A number of the request afterwards.
    fn number(&mut self, call: &Call<'_>, field: &str) -> u64 {
        let ran = self.run(call);
        let schema = schema();
        let method = schema.methods().find(|method| method.name == call.method).unwrap();
        let field = method.request.fields.iter().find(|known| known.name == field).unwrap();
        let mut word = [0; 8];
        let (from, width) = (usize::from(field.offset), usize::from(field.width));
        word[..width].copy_from_slice(&ran.flat[from..from + width]);
        u64::from_le_bytes(word)
    }

    fn table(&self, name: &str) -> Vec<(String, String)> {
        self.kernel.dump(self.compiled.tables.iter().find(|table| table.name == name).unwrap())
    }

    fn insert(&self, table: &str, key: &str, value: &str) {
        let spec = self.compiled.tables.iter().find(|known| known.name == table).unwrap();
        self.kernel.put(table, &spec.parse_key(key).unwrap(), &spec.parse_value(value).unwrap());
    }
}

fn flat(method: &Method, call: &Call<'_>) -> Vec<u8> {
    let mut flat = vec![0; usize::from(method.request.flat_len)];
    for (name, value) in call.numbers {
        let field = method.request.fields.iter().find(|field| field.name == *name).unwrap();
        let (from, width) = (usize::from(field.offset), usize::from(field.width));
        flat[from..from + width].copy_from_slice(&value.to_le_bytes()[..width]);
    }
    for (name, text) in call.texts {
        let field = method.request.fields.iter().find(|field| field.name == *name).unwrap();
        let from = usize::from(field.offset);
        match field.kind {
            FieldKind::Fixed { .. } => flat[from..from + text.len()].copy_from_slice(text.as_bytes()),
            _ => {
                // What a sender can put behind a text's end.
                flat[from + 1..from + usize::from(field.width)].fill(0xee);
                flat[from] = text.len() as u8;
                flat[from + 1..from + 1 + text.len()].copy_from_slice(text.as_bytes());
            }
        }
    }
    flat
}
