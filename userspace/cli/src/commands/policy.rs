//! `tollfree policy`: check, explain, apply, rollback, clear.

use super::policy_test::Chosen;
use crate::admin::{Applied, Client, Request};
use crate::args::{Emit, Policy, PolicyInput, Target};
use crate::daemon::config::Side;
use crate::exit::refused;
use crate::input;
use crate::output::{Align, Output, Show, facts, table};
use crate::paths::Places;
use crate::xdp;
use anyhow::{Result, bail};
use serde::Serialize;
use tollfree_policy::{Compiled, Explain, Options};

/// Runs one of the commands.
pub fn run(command: Policy, places: &Places) -> Result<()> {
    match command {
        Policy::Check { input, emit, output } => check(&input, emit, output),
        Policy::Explain { input, emit, output } => explain(&input, emit, output),
        Policy::Test { policies, tests, includes, place, object, output } => {
            let tests = tests.as_deref();
            super::policy_test::run(
                &policies,
                Chosen { tests, place, object: object.as_deref() },
                &includes,
                output,
            )
        }
        Policy::Fmt { policies, check } => super::policy_fmt::run(&policies, check),
        Policy::Diff { input, target, output } => super::diff::run(&input, &target, output, places),
        Policy::Apply { input, target, output } => apply(&input, &target, output, places),
        Policy::Rollback { target, output } => rollback(&target, output, places),
        Policy::Clear { target, output } => clear(&target, output, places),
        Policy::Table(command) => super::table::run(command, places),
    }
}

/// What `policy check` says of a policy without mistakes.
#[derive(Serialize)]
struct Checked {
    ok: bool,
    elements: usize,
    tables: usize,
    instructions: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    emitted: Option<String>,
    #[serde(skip)]
    name: String,
}

impl Show for Checked {
    fn text(&self) -> String {
        let emitted = self.emitted.as_deref().unwrap_or_default();
        format!("{emitted}{}: no mistakes\n", self.name)
    }
}

fn check(input: &PolicyInput, emit: Option<Emit>, output: Output) -> Result<()> {
    let policy = input::Policy::read(input)?;
    let compiled = policy.compile_sides(None, Options::default(), output)?;
    let emitted = emit.map(|form| emitted(&policy, &compiled, form, output)).transpose()?;
    output.print(&Checked {
        ok: true,
        elements: compiled.iter().map(|side| side.explain.elements.len()).sum(),
        tables: compiled.iter().map(|side| side.tables.len()).sum(),
        instructions: compiled.iter().map(|side| side.instructions).sum(),
        emitted,
        name: policy.name,
    })
}

/// What the compiler made of a policy, both sides one behind the other.
fn emitted(policy: &input::Policy, compiled: &[Compiled], form: Emit, output: Output) -> Result<String> {
    let mut text = String::new();
    for compiled in compiled {
        match form {
            Emit::Ir => text.push_str(&policy.ir_or_show(compiled.side, output)?),
            Emit::Asm => text.push_str(&tollfree_policy::emit_asm(compiled)),
        }
    }
    Ok(text)
}

/// One explanation for each side that a policy guards.
#[derive(Serialize)]
#[serde(untagged)]
enum Explained {
    One(Box<Explain>),
    Both(Vec<Explain>),
}

/// What `--emit` prints.
#[derive(Serialize)]
struct Emitted {
    emitted: String,
}

impl Show for Emitted {
    fn text(&self) -> String {
        self.emitted.clone()
    }
}

fn explain(input: &PolicyInput, emit: Option<Emit>, output: Output) -> Result<()> {
    let policy = input::Policy::read(input)?;
    let compiled = policy.compile_sides(None, Options::default(), output)?;
    if let Some(form) = emit {
        return output.print(&Emitted { emitted: emitted(&policy, &compiled, form, output)? });
    }
    let mut explained: Vec<Explain> = compiled.into_iter().map(|side| side.explain).collect();
    output.print(&match explained.len() {
        1 => Explained::One(Box::new(explained.remove(0))),
        _ => Explained::Both(explained),
    })
}

impl Show for Explained {
    fn text(&self) -> String {
        match self {
            Explained::One(one) => explanation(one),
            Explained::Both(both) => both.iter().map(explanation).collect::<Vec<_>>().join("\n"),
        }
    }
}

fn explanation(explain: &Explain) -> String {
    let Explain { file, side, elements, instructions, tables, transport, notes } = explain;
    let mut heading = vec![("policy", file.clone()), ("guards", format!("the {side}'s side"))];
    if *instructions > 0 {
        heading.push(("program", format!("{instructions} eBPF instructions, checks included")));
    }
    let mut text = facts(heading);
    text.push('\n');
    let columns = [
        ("ELEMENT", Align::Left),
        ("PLACE", Align::Left),
        ("INSNS", Align::Right),
        ("READS", Align::Left),
        ("TABLES", Align::Left),
        ("WHY", Align::Left),
    ];
    text.push_str(&table(
        &columns,
        elements.iter().map(|element| {
            let mut used = element.tables_read.clone();
            used.extend(
                element.tables_written.iter().filter(|name| !element.tables_read.contains(name)).cloned(),
            );
            let instructions = element.instructions;
            vec![
                element.name.clone(),
                element.place.to_string(),
                if instructions > 0 { instructions.to_string() } else { "-".into() },
                list(&element.reads),
                list(&used),
                element.why.clone(),
            ]
        }),
    ));
    if !tables.is_empty() {
        text.push('\n');
        let columns = [
            ("TABLE", Align::Left),
            ("KEY", Align::Left),
            ("VALUE", Align::Left),
            ("CAPACITY", Align::Right),
        ];
        text.push_str(&table(
            &columns,
            tables.iter().map(|table| {
                let capacity = table.capacity.to_string();
                vec![table.name.clone(), table.key.to_string(), table.value.to_string(), capacity]
            }),
        ));
    }
    if !transport.is_empty() {
        text.push('\n');
        text.push_str(&table(
            &[("METHOD", Align::Left), ("TRANSPORT", Align::Left)],
            transport.iter().map(|method| vec![method.method.clone(), method.modules.join(" -> ")]),
        ));
    }
    for note in notes {
        text.push_str(&format!("note: {note}\n"));
    }
    text
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "-".into() } else { names.join(", ") }
}

/// By what means a command reaches a policy.
pub enum Means {
    /// An interface's pins.
    Pins(Box<xdp::Attached>),
    /// The daemon, which keeps its engine and its interface alike.
    Daemon(Client),
}

impl Means {
    /// The pins of `--iface`, unless a daemon has that interface; else the daemon.
    ///
    /// # Errors
    /// No such interface, not attached, not allowed, no daemon.
    pub fn of(target: &Target, places: &Places) -> Result<Means> {
        let socket = places.admin_socket();
        let Some(interface) = &target.interface else { return Ok(Means::Daemon(Client::connect(&socket)?)) };
        match Client::of_interface(&socket, interface)? {
            Some(client) => Ok(Means::Daemon(client)),
            None => Ok(Means::Pins(Box::new(xdp::Attached::open(places, interface)?))),
        }
    }
}

fn apply(input: &PolicyInput, target: &Target, output: Output, places: &Places) -> Result<()> {
    let policy = input::Policy::read(input)?;
    let at = side_asked(target);
    // Compiled here even when the daemon will do it again: here the mistakes can be shown in place.
    let options = Options { interface: target.interface.as_deref(), ..Options::default() };
    let compiled = policy.compile_sides(at, options, output)?;
    let applied = match Means::of(target, places)? {
        Means::Pins(mut interface) => match compiled.as_slice() {
            [only] => vec![interface.apply(&policy, only)?],
            _ => {
                return Err(refused(format!(
                    "{}: it has chains for both sides, and calls that leave are judged in the engine; apply it through \
                     the daemon, without --iface",
                    policy.name
                )));
            }
        },
        Means::Daemon(mut client) => {
            let input::Policy { name, text, manifest } = policy;
            client.ask(&Request::PolicyApply { name, text, manifest: Box::new(manifest), at })?
        }
    };
    output.print(&AllApplied(applied))
}

fn rollback(target: &Target, output: Output, places: &Places) -> Result<()> {
    let applied = match Means::of(target, places)? {
        Means::Pins(mut interface) => match interface.record_before()? {
            Some(record) => {
                let policy = record.policy();
                let options = Options { interface: target.interface.as_deref(), ..Options::default() };
                let compiled = policy.compile_or_show(options, output)?;
                Some(interface.apply(&policy, &compiled)?)
            }
            None if interface.record()?.is_some() => {
                interface.clear()?;
                None
            }
            None => bail!("no policy was in force on {} before", interface.interface()),
        },
        Means::Daemon(mut client) => client.ask(&Request::PolicyRollback { at: target.at })?,
    };
    match applied {
        Some(applied) => output.print(&AllApplied(vec![applied])),
        None => output.print(&Cleared { at: target.at }),
    }
}

/// `--at client` asks for the client's side; the default leaves it to the policy's own words.
pub fn side_asked(target: &Target) -> Option<Side> {
    match (&target.interface, target.at) {
        (None, Side::Client) => Some(Side::Client),
        _ => None,
    }
}

/// Policies that came into force.
#[derive(Serialize)]
#[serde(transparent)]
struct AllApplied(Vec<Applied>);

impl Show for AllApplied {
    fn text(&self) -> String {
        self.0.iter().map(Show::text).collect()
    }
}

/// No policy is in force any more.
#[derive(Serialize)]
struct Cleared {
    at: Side,
}

impl Show for Cleared {
    fn text(&self) -> String {
        "no policy is in force; every call is delivered\n".to_owned()
    }
}

impl Show for Applied {
    fn text(&self) -> String {
        let Applied { policy, target, place, at, generation, tables, instructions } = self;
        let mut text = format!("{policy} is in force ");
        match place.as_str() {
            "xdp" => text.push_str(&format!("in XDP on {target} ({instructions} instructions)")),
            _ => text.push_str(&format!("in the engine, at the {}", at.name())),
        }
        text.push_str(&format!(", generation {generation}"));
        if !tables.is_empty() {
            text.push_str(&format!("; tables: {}", tables.join(", ")));
        }
        text.push('\n');
        text
    }
}

fn clear(target: &Target, output: Output, places: &Places) -> Result<()> {
    match Means::of(target, places)? {
        Means::Pins(mut interface) => interface.clear()?,
        Means::Daemon(mut client) => client.ask(&Request::PolicyClear { at: target.at })?,
    }
    output.print(&Cleared { at: target.at })
}
