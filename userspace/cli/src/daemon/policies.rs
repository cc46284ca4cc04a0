//! Which policy is in force where. On an `afxdp` daemon a server-side policy runs in XDP, and once more in the engine
//! for calls between applications of this host, which no NIC sees; everything else runs in the engine alone. How methods
//! are carried is the engine's business on every backend.
//!
//! A policy replaces what it speaks of: one with nothing but a transport block leaves the chain in force that is, and
//! one without leaves methods carried as they are. Clearing a side ends both.

use super::config::Side;
use super::{Daemon, ask};
use crate::admin::{Applied, Entry, TableOp, TableView};
use crate::exit::refused;
use crate::input::Policy;
use crate::xdp::Attached;
use anyhow::{Result, anyhow};
use std::net::IpAddr;
use tollfree_engine::{Command, Handle};
use tollfree_policy::{Compiled, Options, State, TableError};
use tollfree_wire::spec::MethodSpec;
use tracing::{info, warn};

/// A policy in force, for reports.
#[derive(Clone, Debug)]
pub struct InForce {
    /// Its file.
    pub name: String,
    /// `xdp` or `engine`.
    pub place: &'static str,
    /// Counts the policies that have been in force there.
    pub generation: u64,
}

/// The policies of one daemon.
pub struct Policies {
    engine: Handle,
    xdp: Option<Attached>,
    /// Of the server's and of the client's side.
    in_force: [Option<InForce>; 2],
    /// What the transport blocks of both sides name.
    carried: [Vec<(u32, MethodSpec)>; 2],
}

impl Policies {
    /// Nothing in force yet.
    pub fn new(engine: Handle, xdp: Option<Attached>) -> Policies {
        Policies { engine, xdp, in_force: [None, None], carried: Default::default() }
    }

    /// What is in force on a side.
    pub fn in_force(&self, at: Side) -> Option<&InForce> {
        self.in_force[slot(at)].as_ref()
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
        let Some(record) = xdp.record()? else { return Ok(()) };
        let policy = Policy { name: record.name, text: record.text, manifest: record.manifest };
        let generation = xdp.generation()?;
        match policy.compile(Options::default()) {
            Ok(compiled) => {
                self.carry(Side::Server, &compiled).await?;
                self.set_engine(Side::Server, Some(compiled)).await?;
                self.copy_tables_to_engine().await?;
            }
            Err(error) => {
                warn!("calls between applications of this host are not judged by {}: {error}", policy.name)
            }
        }
        info!(generation, "policy {} was left in force in XDP", policy.name);
        self.in_force[slot(Side::Server)] = Some(InForce { name: policy.name, place: "xdp", generation });
        Ok(())
    }

    /// Puts a policy in force. On failure what was in force stays.
    ///
    /// # Errors
    /// Mistakes in the policy; a program that the kernel refuses; an engine that has stopped.
    pub async fn apply(&mut self, policy: &Policy, at: Side) -> Result<Applied> {
        let options = Options { side: Some(compiler_side(at)), xdp: self.xdp.is_some(), interface: None };
        let compiled = policy.compile(options).map_err(refused)?;
        let before = self.carried[slot(at)].clone();
        self.carry(at, &compiled).await?;
        let applied = self.judge(policy, at, compiled).await;
        if applied.is_err() {
            self.carry_methods(at, before).await?;
        }
        applied
    }

    /// Puts a policy's chain in force, if it has one.
    async fn judge(&mut self, policy: &Policy, at: Side, compiled: Compiled) -> Result<Applied> {
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
            self.in_force[slot(at)].get_or_insert_with(|| InForce {
                name: policy.name.clone(),
                place: "engine",
                generation,
            });
            return Ok(in_engine(generation, Vec::new()));
        }
        let applied = match (&mut self.xdp, at, &compiled.object) {
            (Some(xdp), Side::Server, Some(_)) => {
                let applied = xdp.apply(policy, &compiled)?;
                self.set_engine(at, Some(compiled)).await?;
                self.copy_tables_to_engine().await?;
                applied
            }
            // What XDP let through the engine does not judge again, so it would never run.
            (Some(_), Side::Server, None) => {
                let elements = compiled.explain.elements.iter();
                let first =
                    elements.into_iter().find(|element| element.place == tollfree_policy::Place::Engine);
                return Err(refused(match first {
                    Some(element) => format!(
                        "{}: {}() cannot run in XDP ({}), where the afxdp backend judges what arrives",
                        policy.name, element.name, element.why
                    ),
                    None => format!("{}: nothing in it runs in XDP", policy.name),
                }));
            }
            _ => {
                let tables = compiled.tables.iter().map(|table| table.name.clone()).collect();
                let generation = self.set_engine(at, Some(compiled)).await?;
                in_engine(generation, tables)
            }
        };
        let place = if applied.place == "xdp" { "xdp" } else { "engine" };
        let generation = applied.generation;
        self.in_force[slot(at)] = Some(InForce { name: policy.name.clone(), place, generation });
        Ok(applied)
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
        Ok(())
    }

    /// Looks into or changes tables.
    ///
    /// # Errors
    /// No policy, no such table, not a key or value of it.
    pub async fn table(&mut self, at: Side, op: TableOp) -> Result<serde_json::Value> {
        let in_xdp = self.in_force[slot(at)].as_ref().is_some_and(|in_force| in_force.place == "xdp");
        match (&mut self.xdp, in_xdp) {
            (Some(xdp), true) => {
                let answer = xdp.table(&op)?;
                if matches!(op, TableOp::Set { .. } | TableOp::Delete { .. }) {
                    engine_table(&self.engine, at, op).await?;
                }
                Ok(answer)
            }
            _ => engine_table(&self.engine, at, op).await,
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
        let named: Vec<_> =
            compiled.explain.transport.iter().map(|method| (method.id, method.spec)).collect();
        if named.is_empty() { Ok(()) } else { self.carry_methods(at, named).await }
    }

    async fn carry_methods(&mut self, at: Side, named: Vec<(u32, MethodSpec)>) -> Result<()> {
        let wanted = named.clone();
        let carried = ask(&self.engine, |reply| Command::Carry(engine_side(at), wanted, reply)).await?;
        carried.map_err(refused)?;
        self.carried[slot(at)] = named;
        Ok(())
    }

    async fn set_engine(&self, at: Side, compiled: Option<Compiled>) -> Result<u64> {
        let program = compiled.map(|compiled| Box::new(compiled.program));
        ask(&self.engine, |reply| Command::Policy(engine_side(at), program, reply)).await
    }

    /// Tables kept over a swap in XDP have their entries; the engine's copies may be new.
    async fn copy_tables_to_engine(&self) -> Result<()> {
        let Some(xdp) = &self.xdp else { return Ok(()) };
        for (table, entries) in xdp.all_entries()? {
            for Entry { key, value } in entries {
                let op = TableOp::Set { table: table.clone(), key, value };
                engine_table(&self.engine, Side::Server, op).await?;
            }
        }
        Ok(())
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
    pub async fn policy_apply(&self, policy: Policy, at: Side) -> Result<Applied> {
        self.policies.lock().await.apply(&policy, at).await
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
