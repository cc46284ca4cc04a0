//! The policy language: a few lines of text become eBPF instructions in the NIC's driver, or a program in the engine.
//!
//! [`compile`] goes from text to both: lex → parse → check (names, types, paths) → place → emit. The compiler, not the
//! kernel's verifier, explains mistakes: see [`Diagnostics`].
//!
//! Not here: loading the object (the loader's job), keeping policies in force (the engine's).
#![forbid(unsafe_code)]

mod ast;
mod check;
mod diagnostics;
#[cfg(test)]
mod differential;
mod ebpf;
mod effects;
mod engine;
mod explain;
mod hash;
mod ir;
mod lex;
mod notation;
mod parse;
mod place;
mod suggest;
mod table;

pub use diagnostics::{Diagnostic, Diagnostics, Span};
pub use engine::{CallView, Program, State, Tracked, Verdict};
pub use explain::{ElementPlace, Explain, MethodTransport, Place};
pub use ir::Side;
pub use table::{CAPACITY_DEFAULT, CAPACITY_MAX, KeyType, TableError, TableKind, TableSpec, ValueType};

use tollfree_schema::Manifest;

/// A policy's text.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// What diagnostics call it: the file's path.
    pub name: &'a str,
    /// The text.
    pub text: &'a str,
}

/// What a policy is compiled for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// The side to guard where the chain does not say. A chain that says otherwise is an error.
    pub side: Option<Side>,
    /// Whether XDP programs run in front of the engine. Without them everything is placed in the engine.
    pub xdp: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { side: None, xdp: true }
    }
}

/// A policy, compiled.
#[derive(Clone, Debug)]
pub struct Compiled {
    /// The end of a session that the chain guards.
    pub side: Side,
    /// The tables, declared or inferred.
    pub tables: Vec<TableSpec>,
    /// The ELF object with program `tf_policy` in section `xdp`, where the chain runs in XDP. It needs the maps of
    /// [`tollfree_wire::maps`] by their names, and has one map per table.
    pub object: Option<Vec<u8>>,
    /// The whole chain for the engine: to be used where [`Compiled::object`] is `None`, or cannot be.
    pub program: Program,
    /// What went where, and why.
    pub explain: Explain,
    /// Instructions in [`Compiled::object`]; 0 without one.
    pub instructions: usize,
}

/// Compiles a policy for the methods of a schema.
///
/// # Errors
/// Every mistake found, with its place in the text and what to do.
pub fn compile(source: &Source<'_>, schema: &Manifest, options: Options) -> Result<Compiled, Diagnostics> {
    let Source { name, text } = *source;
    let Options { side, xdp } = options;
    let mut sink = diagnostics::Sink::new(name, text);
    let file = parse::parse(text, &mut sink);
    let check::Checked { policy, transport, notes } = check::check(&file, schema, side, &mut sink);
    sink.finish()?;

    let groups = policy.groups(schema);
    let wanted = xdp && policy.side == Side::Server && !policy.elements.is_empty();
    let emitted = if wanted { ebpf::emit(&policy, &groups, name, text) } else { None };
    let placed = place::place(&policy, xdp, emitted.is_some());
    let per_element = emitted.as_ref().map_or(&[][..], |emitted| &emitted.per_element);
    let instructions = emitted.as_ref().map_or(0, |emitted| emitted.instructions);
    let elements = policy.elements.iter().zip(placed).enumerate();
    let elements = elements.map(|(at, (element, place::Placed { place, why, effects }))| ElementPlace {
        name: element.name.clone(),
        place,
        why,
        instructions: per_element.get(at).copied().unwrap_or(0),
        reads: effects.fields.into_iter().collect(),
        tables_read: effects.tables_read.into_iter().collect(),
        tables_written: effects.tables_written.into_iter().collect(),
    });
    let explain = Explain {
        file: name.to_owned(),
        side: policy.side,
        elements: elements.collect(),
        instructions,
        tables: policy.tables.clone(),
        transport,
        notes,
    };
    Ok(Compiled {
        side: policy.side,
        tables: policy.tables.clone(),
        object: emitted.map(|emitted| emitted.object),
        program: Program::new(&policy, &groups),
        explain,
        instructions,
    })
}
