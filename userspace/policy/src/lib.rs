//! The policy language: a few lines of text become eBPF instructions in the NIC's driver, or a program in the engine.
//!
//! [`compile`] goes from text to both: lex → parse → check (names, types, paths) → place → emit. The compiler, not the
//! kernel's verifier, explains mistakes: see [`Diagnostics`].
//!
//! Not here: loading the object (the loader's job), keeping policies in force (the engine's).
#![forbid(unsafe_code)]

mod ast;
mod check;
mod cost;
mod decisions;
mod diagnostics;
#[cfg(test)]
mod differential;
mod ebpf;
mod effects;
mod engine;
mod explain;
mod format;
mod hash;
mod ir;
mod lex;
mod needs;
mod notation;
mod operations;
mod parse;
mod place;
mod print;
mod rate;
mod suggest;
mod table;
pub mod testing;

pub use decisions::Decisions;
pub use diagnostics::{Diagnostic, Diagnostics, Span};
pub use ebpf::Clock;
pub use engine::{
    Answered, CallView, Change, Eject, LogLine, Outcome, Paused, PeerView, Program, ResponseView, Route,
    Start, State, Tracked, Verdict,
};
pub use explain::{ElementPlace, Explain, MethodTransport, Place, ResponsePlace};
pub use ir::Side;
pub use needs::Needs;
pub use place::Home;
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
pub struct Options<'a> {
    /// The side to guard. `None`: the only one that the file has chains for, else the server's. Chains of the other side
    /// are left out; chains that name no side are the server's if another chain names one, else they are for the side
    /// asked for.
    pub side: Option<Side>,
    /// Whether XDP programs run in front of the engine. Without them everything is placed in the engine.
    pub xdp: bool,
    /// The interface that calls come by or leave by: chains for another one are left out. `None`: none are.
    pub interface: Option<&'a str>,
    /// Where the object has the time from.
    pub clock: Clock,
}

impl Default for Options<'_> {
    fn default() -> Self {
        Options { side: None, xdp: true, interface: None, clock: Clock::Kernel }
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
    /// How many of the chain's leading elements the object runs; the engine judges by the rest.
    pub in_xdp: usize,
    /// What the object wants decided once per session; `None`: nothing.
    pub decisions: Option<Decisions>,
    /// The tables, by index, that the object reads and the engine uses: what becomes of them in the engine is to be
    /// written to the maps, and what a user changes to both.
    pub shared: Vec<usize>,
    /// Where each of the tables is.
    pub homes: Vec<Home>,
    listing: Option<ebpf::Listing>,
    /// What a daemon must have for the policy to mean what it says.
    pub needs: Needs,
    /// Whether what it does with a call depends on chance.
    pub chances: bool,
}

/// Compiles a policy for the methods of a schema.
///
/// # Errors
/// Every mistake found, with its place in the text and what to do.
pub fn compile(
    source: &Source<'_>,
    schema: &Manifest,
    options: Options<'_>,
) -> Result<Compiled, Diagnostics> {
    Parsed::of(source).compile(schema, options)
}

/// The sides that a policy has chains for: none where it has mistakes that keep it from being read.
pub fn sides(source: &Source<'_>) -> Vec<Side> {
    Parsed::of(source).sides()
}

/// A policy, read but not understood yet: what is compiled for both sides is read once.
#[derive(Debug)]
pub struct Parsed<'a> {
    source: Source<'a>,
    file: ast::File,
    mistakes: diagnostics::Sink<'a>,
}

impl<'a> Parsed<'a> {
    /// Reads a policy; its mistakes are told by [`Parsed::compile`], along with those that are found later.
    pub fn of(source: &Source<'a>) -> Parsed<'a> {
        let mut mistakes = diagnostics::Sink::new(source.name, source.text);
        let file = parse::parse(source.text, &mut mistakes);
        Parsed { source: *source, file, mistakes }
    }

    /// As [`sides`] says.
    pub fn sides(&self) -> Vec<Side> {
        if self.mistakes.count() > 0 { Vec::new() } else { check::sides(&self.file) }
    }

    /// As [`compile`] does.
    ///
    /// # Errors
    /// As there.
    pub fn compile(&self, schema: &Manifest, options: Options<'_>) -> Result<Compiled, Diagnostics> {
        let Options { side, xdp, interface, clock } = options;
        let mut sink = self.mistakes.clone();
        let checked = check::check(&self.file, schema, check::Target { side, interface }, &mut sink);
        sink.finish()?;
        Ok(assemble(checked, schema, &self.source, xdp, clock))
    }
}

/// Places what was understood, and emits it.
fn assemble(
    checked: check::Checked,
    schema: &Manifest,
    source: &Source<'_>,
    xdp: bool,
    clock: Clock,
) -> Compiled {
    let check::Checked { policy, transport, notes } = checked;
    let plan = place::plan(policy, schema, xdp, clock, source);
    let place::Plan { policy, emitted, elements, in_xdp, decisions, homes } = plan;
    let groups = policy.groups(schema);
    let instructions = emitted.as_ref().map_or(0, |emitted| emitted.instructions);
    let explain = Explain {
        file: source.name.to_owned(),
        side: policy.side,
        elements,
        instructions,
        tables: policy.tables.clone(),
        transport,
        notes,
    };
    let both = homes.iter().enumerate().filter(|(_, home)| **home == Home::Both);
    let shared: Vec<usize> = both.map(|(at, _)| at).collect();
    let (object, listing) = emitted.map(|emitted| (emitted.object, emitted.listing)).unzip();
    Compiled {
        side: policy.side,
        tables: policy.tables.clone(),
        object,
        listing,
        program: Program::new(&policy, &groups, in_xdp, &shared),
        explain,
        instructions,
        in_xdp,
        decisions,
        shared,
        homes,
        needs: needs::of(&policy, &groups, schema),
        chances: effects::chances(&policy),
    }
}

/// The object's programs as readable assembly, with the elements and lines of the policy that the instructions come from.
/// Without an object, one line says so.
pub fn emit_asm(compiled: &Compiled) -> String {
    match &compiled.listing {
        Some(listing) => listing.print(),
        None => "; nothing of this policy runs in XDP\n".to_owned(),
    }
}

/// A policy in its canonical layout, comments kept: formatting it again changes nothing, and it means the same.
///
/// # Errors
/// What keeps it from being read. Names and types are not looked at.
pub fn format(source: &Source<'_>) -> Result<String, Diagnostics> {
    let mut sink = diagnostics::Sink::new(source.name, source.text);
    let lexed = lex::lex(source.text, &mut sink);
    parse::parse_lexed(source.text, &lexed.tokens, &mut sink);
    sink.finish().map(|()| format::format(source.text, &lexed))
}

/// What the compiler understood: the policy's typed form as text, one line per statement.
///
/// # Errors
/// Those of [`compile`].
pub fn emit_ir(source: &Source<'_>, schema: &Manifest, options: Options<'_>) -> Result<String, Diagnostics> {
    let Parsed { file, mistakes: mut sink, .. } = Parsed::of(source);
    let Options { side, interface, .. } = options;
    let checked = check::check(&file, schema, check::Target { side, interface }, &mut sink);
    sink.finish()?;
    Ok(print::print(&checked.policy, schema))
}
