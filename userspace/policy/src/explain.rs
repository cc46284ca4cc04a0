//! What the compiler decided and why, for people and for programs.

use crate::ir::Side;
use crate::table::TableSpec;
use serde::{Deserialize, Serialize};
use tollfree_wire::spec::{Class, MethodSpec};

/// Where an element runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// In the NIC's driver, on what arrives.
    XdpIngress,
    /// Once per session and method; the driver reads what was decided.
    Session,
    /// In the engine.
    Engine,
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Place::XdpIngress => "XDP ingress",
            Place::Session => "session",
            Place::Engine => "engine",
        })
    }
}

/// Everything `tollfree policy explain` shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Explain {
    /// The policy's file.
    pub file: String,
    /// The end of a session that the chain guards.
    pub side: Side,
    /// In the order in which they run: the chain's, but for elements that were moved ahead, whose reasons say so.
    pub elements: Vec<ElementPlace>,
    /// Instructions of the whole XDP program: what every call costs (finding the method, checking its layout,
    /// leaving) and the elements. 0 where nothing runs in XDP.
    pub instructions: usize,
    /// The tables, declared or inferred.
    pub tables: Vec<TableSpec>,
    /// What the transport block says per method.
    pub transport: Vec<MethodTransport>,
    /// What a reader of the policy might not expect.
    pub notes: Vec<String>,
}

/// Where an element went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ElementPlace {
    /// Its name.
    pub name: String,
    /// The methods it judges, by id, ascending; `None`: all.
    pub methods: Option<Vec<u32>>,
    /// Where it runs.
    pub place: Place,
    /// Why there.
    pub why: String,
    /// Its eBPF instructions, over all groups of methods; 0 in the engine.
    pub instructions: usize,
    /// What its request handler costs a call at most, roughly, in ns.
    #[serde(default)]
    pub cost_ns: u32,
    /// Its response handler's place; `None` where it has none.
    #[serde(default)]
    pub response: Option<ResponsePlace>,
    /// Request fields it reads.
    pub reads: Vec<String>,
    /// Tables that its request handler reads.
    pub tables_read: Vec<String>,
    /// Tables that its request handler changes.
    pub tables_written: Vec<String>,
}

/// Where an element's response handler went.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ResponsePlace {
    /// Where it runs.
    pub place: Place,
    /// Why there.
    pub why: String,
    /// What it costs a call at most, roughly, in ns.
    pub cost_ns: u32,
    /// Tables it reads.
    pub tables_read: Vec<String>,
    /// Tables it changes.
    pub tables_written: Vec<String>,
}

/// What the transport block says of one method.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MethodTransport {
    /// The method's path, such as `/demo.Hash/Sha256`.
    pub method: String,
    /// Its id.
    pub id: u32,
    /// The transport's modules, in order, such as `reliable` and `ordered`.
    pub modules: Vec<String>,
    /// The same as the transport takes it.
    #[serde(with = "Spec")]
    pub spec: MethodSpec,
}

/// How a [`MethodSpec`] looks to programs.
#[derive(Serialize, Deserialize)]
#[serde(remote = "MethodSpec")]
struct Spec {
    #[serde(with = "SpecClass")]
    class: Class,
    ordered: bool,
    checksum: bool,
    timeout_us: u32,
    window: u16,
}

#[derive(Serialize, Deserialize)]
#[serde(remote = "Class", rename_all = "snake_case")]
enum SpecClass {
    Unreliable,
    Reliable,
}

impl std::fmt::Display for Explain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Explain { file, side, elements, instructions, tables, transport, notes } = self;
        writeln!(f, "{file}: guards the {side}'s side")?;
        for element in elements {
            let ElementPlace { name, place, why, instructions, cost_ns, response, .. } = element;
            write!(f, "  {name}() -> {place}")?;
            if *instructions > 0 {
                write!(f, ", {instructions} instructions")?;
            }
            writeln!(f, ", about {cost_ns} ns: {why}")?;
            if let Some(ResponsePlace { place, why, cost_ns, .. }) = response {
                writeln!(f, "    response -> {place}, about {cost_ns} ns: {why}")?;
            }
        }
        if *instructions > 0 {
            writeln!(f, "  {instructions} instructions in all")?;
        }
        for TableSpec { name, key, value, capacity, .. } in tables {
            writeln!(f, "  table {name}: {key} -> {value}, at most {capacity} entries")?;
        }
        for MethodTransport { method, modules, .. } in transport {
            writeln!(f, "  transport of {method}: {}", modules.join(" -> "))?;
        }
        for note in notes {
            writeln!(f, "  note: {note}")?;
        }
        Ok(())
    }
}
