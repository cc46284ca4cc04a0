//! Which policy is in force where. On an `afxdp` daemon a server-side policy runs in XDP, and once more in the engine
//! for calls between applications of this host, which no NIC sees; everything else runs in the engine alone. How methods
//! are carried is the engine's business on every backend.
//!
//! A policy replaces what it speaks of: one with nothing but a transport block leaves the chain in force that is, and
//! one without leaves methods carried as they are. Clearing a side ends both.

use super::config::{Config, Secret, Side};
use super::{Daemon, ask, needs};
use crate::admin::{Applied, Entry, InForceView, TableOp, TableView};
use crate::exit::refused;
use crate::input::Policy;
use crate::mirror::Known;
use crate::xdp::{Attached, Record, loader_error};
use anyhow::{Result, anyhow};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use tollfree_engine::{Below, Command, Handle};
use tollfree_policy::{Compiled, Home, MethodTransport, Options, Source, State, TableError, TableKind};
use tracing::{info, warn};

/// Entries that the poll thread takes between two turns.
const ENTRIES_PER_COMMAND: usize = 256;

/// A policy in force, for reports.
#[derive(Clone)]
pub struct InForce {
    /// Its file.
    pub name: String,
    /// `xdp` or `engine`.
    pub place: &'static str,
    /// Counts the policies that have been in force there.
    pub generation: u64,
    source: Policy,
    /// Where its tables are; empty where all are in the engine.
    homes: HashMap<String, Home>,
}

/// The policies of one daemon.
pub struct Policies {
    engine: Handle,
    xdp: Option<Attached>,
    /// Of the server's and of the client's side.
    in_force: [Option<InForce>; 2],
    /// What was in force before.
    before: [Option<Policy>; 2],
    /// What the engine judges by on each side, and judged by before.
    programs: [[Option<tollfree_engine::Policy>; 2]; 2],
    /// What the transport blocks of both sides name.
    carried: [Vec<MethodTransport>; 2],
    /// What policies in XDP are to be told of sessions.
    known: Known,
    /// This host's Tollfree port.
    port: u16,
    /// Keys that policies encrypt with.
    keys: BTreeMap<String, Secret>,
}

impl Policies {
    /// Nothing in force yet.
    pub fn new(engine: Handle, xdp: Option<Attached>, known: Known, config: &Config, port: u16) -> Policies {
        Policies {
            engine,
            xdp,
            in_force: [None, None],
            before: [None, None],
            programs: Default::default(),
            carried: Default::default(),
            known,
            port,
            keys: config.keys.clone(),
        }
    }

    /// What is in force on a side.
    pub fn in_force(&self, at: Side) -> Option<&InForce> {
        self.in_force[slot(at)].as_ref()
    }

    /// What a side's transport block names.
    pub fn carried(&self, at: Side) -> &[MethodTransport] {
        &self.carried[slot(at)]
    }

    /// The interface in front of the engine.
    pub fn xdp(&self) -> Option<&Attached> {
        self.xdp.as_ref()
    }

    /// Finds the policy that a daemon before this one, or a command, has left in force in XDP.
    ///
    /// # Errors
    /// When the engine has stopped. A policy that no longer compiles stays in force in XDP and is reported.
    pub async fn resume(&mut self) -> Result<()> {
        let Some(xdp) = &self.xdp else { return Ok(()) };
        self.before[slot(Side::Server)] = xdp.record_before()?.map(Record::policy);
        let Some(record) = xdp.record()? else { return Ok(()) };
        let generation = xdp.generation()?;
        let policy = record.policy();
        let name = policy.name.clone();
        match self.compile(&policy, Side::Server) {
            // What the program leaves to an engine, and what was decided for its sessions, is this compiler's business:
            // so is the program.
            Ok(compiled)
                if compiled.in_xdp < compiled.explain.elements.len() || compiled.decisions.is_some() =>
            {
                self.carry(Side::Server, &compiled).await?;
                self.judge(&policy, Side::Server, &compiled).await?;
                self.copy_to_engine(&compiled, |home| home != Home::Engine).await?;
            }
            Ok(compiled) => {
                self.carry(Side::Server, &compiled).await?;
                let below = Below::Whole(generation);
                self.set_engine(Side::Server, Some((&compiled, below))).await?;
                self.copy_to_engine(&compiled, |home| home != Home::Engine).await?;
                self.took_force(&policy, Side::Server, "xdp", generation, &compiled);
            }
            Err(error) => {
                warn!("calls between applications of this host are not judged by {name}: {error}");
                self.in_force[slot(Side::Server)] = Some(InForce {
                    name: name.clone(),
                    place: "xdp",
                    generation,
                    source: policy,
                    homes: HashMap::new(),
                });
            }
        }
        info!(generation, "policy {name} was left in force in XDP");
        Ok(())
    }

    fn compile(&self, policy: &Policy, at: Side) -> Result<Compiled> {
        let interface = self.xdp.as_ref().map(Attached::interface);
        let options = Options { side: Some(compiler_side(at)), xdp: self.xdp.is_some(), interface };
        policy.compile(options).map_err(refused)
    }

    /// Puts a policy in force: its chains for the side asked for, else for every side that it has chains for. On failure
    /// what was in force stays.
    ///
    /// # Errors
    /// Mistakes in the policy; needs that this daemon cannot meet; a program that the kernel refuses; an engine that has
    /// stopped.
    pub async fn apply(&mut self, policy: &Policy, at: Option<Side>) -> Result<Vec<Applied>> {
        let mut sides: Vec<Side> = at.into_iter().collect();
        if sides.is_empty() {
            let source = Source { name: &policy.name, text: &policy.text };
            sides.extend(tollfree_policy::sides(&source).into_iter().map(own_side));
        }
        if sides.is_empty() {
            sides.push(Side::Server);
        }
        let mut compiled = Vec::new();
        for at in sides {
            let chain = self.compile(policy, at)?;
            needs::check(&policy.name, &chain, &self.keys).map_err(refused)?;
            compiled.push((at, chain));
        }
        let mut applied = Vec::new();
        for (at, chain) in &compiled {
            match self.apply_side(policy, *at, chain).await {
                Ok(one) => applied.push(one),
                Err(error) => {
                    // A file comes into force as a whole or not at all.
                    for done in applied {
                        let Applied { at, .. } = done;
                        if let Err(undone) = self.rollback(at).await {
                            warn!("what was in force at the {} could not be restored: {undone}", at.name());
                        }
                    }
                    return Err(error);
                }
            }
        }
        Ok(applied)
    }

    async fn apply_side(&mut self, policy: &Policy, at: Side, compiled: &Compiled) -> Result<Applied> {
        let before = self.carried[slot(at)].clone();
        self.carry(at, compiled).await?;
        let applied = self.judge(policy, at, compiled).await;
        if applied.is_err() {
            self.carry_methods(at, before).await?;
        }
        applied
    }

    /// Puts the policy in force again that was before the one that is, with the tables that only it had.
    ///
    /// # Errors
    /// When none was, or it cannot be applied any more.
    pub async fn rollback(&mut self, at: Side) -> Result<Option<Applied>> {
        match self.before[slot(at)].clone() {
            Some(policy) => {
                let compiled = self.compile(&policy, at)?;
                needs::check(&policy.name, &compiled, &self.keys).map_err(refused)?;
                self.apply_side(&policy, at, &compiled).await.map(Some)
            }
            None if self.in_force(at).is_some() => {
                self.clear(at).await?;
                Ok(None)
            }
            None => Err(anyhow!("no policy was in force at the {} before", at.name())),
        }
    }

    /// Puts a policy's chain in force, if it has one.
    async fn judge(&mut self, policy: &Policy, at: Side, compiled: &Compiled) -> Result<Applied> {
        let in_engine = |generation, tables| Applied {
            policy: policy.name.clone(),
            target: "engine".into(),
            place: "engine".into(),
            at,
            generation,
            tables,
            instructions: 0,
        };
        if compiled.explain.elements.is_empty() {
            let generation = self.in_force(at).map_or(0, |in_force| in_force.generation);
            if self.in_force(at).is_none() {
                self.took_force(policy, at, "engine", generation, compiled);
            }
            return Ok(in_engine(generation, Vec::new()));
        }
        let applied = if at == Side::Server && compiled.object.is_some() && self.xdp.is_some() {
            self.judge_in_xdp(policy, compiled).await?
        } else {
            let generation = self.set_engine(at, Some((compiled, Below::Nothing))).await?;
            // The engine judges from here on; what XDP has let through meanwhile it has judged by the policy before.
            if let (Side::Server, Some(xdp)) = (at, &mut self.xdp)
                && xdp.record()?.is_some()
                && let Err(error) = xdp.clear()
            {
                self.restore_engine(at).await?;
                return Err(error);
            }
            self.copy_to_engine(compiled, |_| true).await?;
            in_engine(generation, compiled.tables.iter().map(|table| table.name.clone()).collect())
        };
        let place = if applied.place == "xdp" { "xdp" } else { "engine" };
        self.took_force(policy, at, place, applied.generation, compiled);
        Ok(applied)
    }

    /// Puts a policy in force in XDP, its rest in the engine. The engine knows it before the first packet names it.
    async fn judge_in_xdp(&mut self, policy: &Policy, compiled: &Compiled) -> Result<Applied> {
        let at = Side::Server;
        let entries = self.engine_entries(compiled).await?;
        let Some(xdp) = &mut self.xdp else { return Err(anyhow!("no interface is attached")) };
        let prepared = xdp.prepare(policy, compiled)?;
        let generation = prepared.generation();
        for (table, key, value) in entries {
            prepared.table(&table).and_then(|table| table.set(&key, &value)).map_err(loader_error)?;
        }
        let expected = self.known.expect(&prepared, compiled, self.port);
        let whole = compiled.in_xdp == compiled.explain.elements.len();
        let below = if whole { Below::Whole(generation) } else { Below::Part(generation) };
        let ready = match expected {
            Ok(()) => self.set_engine(at, Some((compiled, below))).await.map(drop),
            Err(error) => Err(error),
        };
        let Some(xdp) = &mut self.xdp else { return Err(anyhow!("no interface is attached")) };
        let applied = match ready {
            Ok(()) => xdp.commit(policy, compiled, prepared),
            Err(error) => Err(error),
        };
        match applied {
            Ok(applied) => {
                self.known.in_force(generation);
                self.copy_to_engine(compiled, |home| home == Home::Both).await?;
                Ok(applied)
            }
            Err(error) => {
                self.known.forget(generation);
                self.restore_engine(at).await?;
                Err(error)
            }
        }
    }

    fn took_force(
        &mut self,
        policy: &Policy,
        at: Side,
        place: &'static str,
        generation: u64,
        compiled: &Compiled,
    ) {
        let homes =
            compiled.tables.iter().map(|table| table.name.clone()).zip(compiled.homes.iter().copied());
        let homes = if place == "xdp" { homes.collect() } else { HashMap::new() };
        let now = InForce { name: policy.name.clone(), place, generation, source: policy.clone(), homes };
        let before = self.in_force[slot(at)].replace(now);
        if let Some(before) = before {
            self.before[slot(at)] = Some(before.source);
        }
    }

    /// Takes a policy out of force.
    ///
    /// # Errors
    /// When none is, or the kernel or the engine fails.
    pub async fn clear(&mut self, at: Side) -> Result<()> {
        let Some(in_force) = self.in_force[slot(at)].clone() else {
            return Err(anyhow!("no policy is in force at the {}", at.name()));
        };
        if let (Some(xdp), "xdp") = (&mut self.xdp, in_force.place) {
            xdp.clear()?;
        }
        self.set_engine(at, None).await?;
        self.carry_methods(at, Vec::new()).await?;
        self.in_force[slot(at)] = None;
        self.before[slot(at)] = Some(in_force.source);
        Ok(())
    }

    /// Looks into or changes tables.
    ///
    /// # Errors
    /// No policy, no such table, not a key or value of it.
    pub async fn table(&mut self, at: Side, op: TableOp) -> Result<serde_json::Value> {
        let homes = self.in_force[slot(at)].as_ref().map(|in_force| &in_force.homes);
        let home = |name: &str| homes.and_then(|homes| homes.get(name)).copied();
        let Some(xdp) = self.xdp.as_mut().filter(|_| homes.is_some_and(|homes| !homes.is_empty())) else {
            return engine_table(&self.engine, at, op).await;
        };
        match op.table() {
            None => {
                let kernel: Vec<TableView> = serde_json::from_value(xdp.table(&op)?)?;
                let engine: Vec<TableView> =
                    serde_json::from_value(engine_table(&self.engine, at, op).await?)?;
                let shown = kernel.into_iter().zip(engine).map(|(kernel, engine)| match home(&kernel.name) {
                    Some(Home::Engine) => engine,
                    Some(Home::Both) => TableView { place: "both".into(), ..kernel },
                    Some(Home::Xdp) | None => kernel,
                });
                Ok(serde_json::to_value(shown.collect::<Vec<_>>())?)
            }
            Some(name) if home(name) == Some(Home::Engine) => engine_table(&self.engine, at, op).await,
            Some(_) => {
                let answer = xdp.table(&op)?;
                // The engine judges calls between applications of this host by tables of its own.
                if matches!(op, TableOp::Set { .. } | TableOp::Delete { .. }) {
                    engine_table(&self.engine, at, op).await?;
                }
                Ok(answer)
            }
        }
    }

    /// The addresses whose packets are for this host's engine.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn set_addresses(&mut self, addresses: &[IpAddr]) -> Result<()> {
        self.xdp.as_mut().map_or(Ok(()), |xdp| xdp.set_addresses(addresses))
    }

    /// Leaves XDP as it is: a firewall outlives the daemon behind it.
    pub fn leave(&mut self) {
        if let Some(xdp) = self.xdp.take() {
            info!(
                "XDP stays attached to {0} with its policy; `tollfree iface detach {0}` takes it off",
                xdp.interface()
            );
        }
    }

    /// Carries methods as a policy's transport block says, if it has one.
    async fn carry(&mut self, at: Side, compiled: &Compiled) -> Result<()> {
        match compiled.explain.transport.as_slice() {
            [] => Ok(()),
            block => self.carry_methods(at, block.to_vec()).await,
        }
    }

    async fn carry_methods(&mut self, at: Side, block: Vec<MethodTransport>) -> Result<()> {
        let named = block.iter().map(|method| (method.id, method.spec)).collect();
        let carried = ask(&self.engine, |reply| Command::Carry(engine_side(at), named, reply)).await?;
        carried.map_err(refused)?;
        self.carried[slot(at)] = block;
        Ok(())
    }

    async fn set_engine(&mut self, at: Side, policy: Option<(&Compiled, Below)>) -> Result<u64> {
        let policy = policy.map(|(compiled, below)| {
            let mut program = compiled.program.clone();
            program.set_keys(|name| self.keys.get(name).map(|Secret(key)| *key));
            tollfree_engine::Policy { program, below }
        });
        let boxed = policy.clone().map(Box::new);
        let generation = ask(&self.engine, |reply| Command::Policy(engine_side(at), boxed, reply)).await?;
        self.programs[slot(at)] = [policy, self.programs[slot(at)][0].take()];
        Ok(generation)
    }

    /// Puts the policy in force again in the engine that was before the last one.
    async fn restore_engine(&mut self, at: Side) -> Result<()> {
        let [_, before] = &mut self.programs[slot(at)];
        let before = before.take();
        let boxed = before.clone().map(Box::new);
        ask(&self.engine, |reply| Command::Policy(engine_side(at), boxed, reply)).await?;
        self.programs[slot(at)] = [before, None];
        Ok(())
    }

    /// Copies tables of the kernel to the engine: those that the engine uses now and did not before, where `wanted` says
    /// so of the table's home.
    async fn copy_to_engine(&self, compiled: &Compiled, wanted: impl Fn(Home) -> bool) -> Result<()> {
        let Some(xdp) = &self.xdp else { return Ok(()) };
        let homes = self.in_force[slot(Side::Server)].as_ref().map(|in_force| &in_force.homes);
        for (spec, home) in compiled.tables.iter().zip(&compiled.homes) {
            let was = homes.and_then(|homes| homes.get(&spec.name));
            let in_step = homes.is_some() && was != Some(&Home::Xdp);
            if in_step || !wanted(*home) || spec.kind == TableKind::Counter {
                continue;
            }
            let entries = xdp.entries(spec)?;
            for chunk in entries.chunks(ENTRIES_PER_COMMAND) {
                let (table, chunk) = (spec.name.clone(), chunk.to_vec());
                ask(&self.engine, |reply| {
                    let run = move |state: Option<&mut State>| {
                        let Some(state) = state else { return reply(()) };
                        for Entry { key, value } in &chunk {
                            // A table that is full here holds what the kernel's did when the policy changed.
                            let _ = state.table_set(&table, key, value);
                        }
                        reply(());
                    };
                    Command::Tables(tollfree_engine::Side::Server, Box::new(run))
                })
                .await?;
            }
        }
        Ok(())
    }

    /// The entries of tables that only the engine has used so far and XDP is going to.
    async fn engine_entries(&self, compiled: &Compiled) -> Result<Vec<(String, Vec<u8>, Vec<u8>)>> {
        let Some(in_force) = &self.in_force[slot(Side::Server)] else { return Ok(Vec::new()) };
        let mut entries = Vec::new();
        for (spec, home) in compiled.tables.iter().zip(&compiled.homes) {
            let was_engines = match in_force.place {
                "xdp" => in_force.homes.get(&spec.name) == Some(&Home::Engine),
                _ => true,
            };
            if *home == Home::Engine || !was_engines || spec.kind == TableKind::Counter {
                continue;
            }
            let wanted = spec.clone();
            let found: Vec<(Vec<u8>, Vec<u8>)> = ask(&self.engine, |reply| {
                let run = move |state: Option<&mut State>| {
                    let mut found = Vec::new();
                    if let Some(state) = state
                        && let Some(at) = state.specs().iter().position(|spec| spec.same_type(&wanted))
                    {
                        state.each_entry(at, |key, value| found.push((key.to_vec(), value.to_vec())));
                    }
                    reply(found);
                };
                Command::Tables(tollfree_engine::Side::Server, Box::new(run))
            })
            .await?;
            entries.extend(found.into_iter().map(|(key, value)| (spec.name.clone(), key, value)));
        }
        Ok(entries)
    }
}

async fn engine_table(engine: &Handle, at: Side, op: TableOp) -> Result<serde_json::Value> {
    let done: Option<Result<serde_json::Value, TableError>> = ask(engine, |reply| {
        Command::Tables(engine_side(at), Box::new(move |state| reply(state.map(|state| on_state(state, op)))))
    })
    .await?;
    match done {
        None => Err(anyhow!("no policy is in force at the {}; `tollfree policy apply` sets one", at.name())),
        Some(Err(full @ TableError::Full { .. })) => Err(full.into()),
        Some(result) => result.map_err(refused),
    }
}

/// Runs on the poll thread: short, and only for people's commands.
fn on_state(state: &mut State, op: TableOp) -> Result<serde_json::Value, TableError> {
    Ok(match op {
        TableOp::Tables => {
            let specs = state.specs().to_vec();
            let mut views = Vec::new();
            for spec in specs {
                views.push(TableView {
                    entries: state.table_dump(&spec.name)?.len() as u64,
                    place: "engine".into(),
                    key: spec.key.to_string(),
                    value: spec.value.to_string(),
                    capacity: spec.capacity,
                    name: spec.name,
                });
            }
            serde_json::json!(views)
        }
        TableOp::Entries { table } => {
            let entries = state.table_dump(&table)?.into_iter().map(|(key, value)| Entry { key, value });
            serde_json::json!(entries.collect::<Vec<_>>())
        }
        TableOp::Get { table, key } => {
            let value = state.table_get(&table, &key)?;
            serde_json::json!(value.map(|value| Entry { key, value }))
        }
        TableOp::Set { table, key, value } => {
            state.table_set(&table, &key, &value)?;
            serde_json::Value::Null
        }
        TableOp::Delete { table, key } => serde_json::json!(state.table_delete(&table, &key)?),
    })
}

impl Daemon {
    /// See [`Policies::apply`].
    ///
    /// # Errors
    /// As there.
    pub async fn policy_apply(&self, policy: Policy, at: Option<Side>) -> Result<Vec<Applied>> {
        self.policies.lock().await.apply(&policy, at).await
    }

    /// The policy in force on a side, as it was given.
    pub async fn policy_in_force(&self, at: Side) -> Option<InForceView> {
        let policies = self.policies.lock().await;
        let Policy { name, text, manifest } = policies.in_force(at)?.source.clone();
        Some(InForceView { name, text, manifest })
    }

    /// See [`Policies::rollback`].
    ///
    /// # Errors
    /// As there.
    pub async fn policy_rollback(&self, at: Side) -> Result<Option<Applied>> {
        self.policies.lock().await.rollback(at).await
    }

    /// See [`Policies::clear`].
    ///
    /// # Errors
    /// As there.
    pub async fn policy_clear(&self, at: Side) -> Result<()> {
        self.policies.lock().await.clear(at).await
    }

    /// See [`Policies::table`].
    ///
    /// # Errors
    /// As there.
    pub async fn table(&self, at: Side, op: TableOp) -> Result<serde_json::Value> {
        self.policies.lock().await.table(at, op).await
    }
}

fn slot(at: Side) -> usize {
    match at {
        Side::Server => 0,
        Side::Client => 1,
    }
}

fn own_side(side: tollfree_policy::Side) -> Side {
    match side {
        tollfree_policy::Side::Server => Side::Server,
        tollfree_policy::Side::Client => Side::Client,
    }
}

fn compiler_side(at: Side) -> tollfree_policy::Side {
    match at {
        Side::Server => tollfree_policy::Side::Server,
        Side::Client => tollfree_policy::Side::Client,
    }
}

fn engine_side(at: Side) -> tollfree_engine::Side {
    match at {
        Side::Server => tollfree_engine::Side::Server,
        Side::Client => tollfree_engine::Side::Client,
    }
}
