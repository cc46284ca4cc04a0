//! The tables of the policies in force: in the kernel's maps, in the engine's state, or in both. Shown and changed for
//! people, and carried over where a policy is judged elsewhere from now on.

use super::{Policies, engine_side, slot};
use crate::admin::{Entry, TableOp, TableView};
use crate::daemon::ask;
use crate::daemon::config::Side;
use crate::exit::refused;
use anyhow::{Result, anyhow};
use tollfree_engine::{Command, Handle};
use tollfree_policy::{Compiled, Home, State, TableError, TableKind};
use tracing::warn;

/// Entries that the poll thread takes between two turns.
const ENTRIES_PER_COMMAND: usize = 256;

impl Policies {
    /// Looks into or changes tables.
    ///
    /// # Errors
    /// No policy, no such table, not a key or value of it.
    pub async fn table(&mut self, at: Side, op: TableOp) -> Result<serde_json::Value> {
        let homes = self.in_force[slot(at)].as_ref().map(|in_force| &in_force.homes);
        let home = |name: &str| homes.and_then(|homes| homes.get(name)).copied();
        let Some(xdp) = self.xdp.as_mut().filter(|_| homes.is_some_and(|homes| !homes.is_empty())) else {
            return self.engine_table(at, op).await;
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
            Some(name) if home(name) == Some(Home::Engine) => self.engine_table(at, op).await,
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

    /// A table that only the engine has. What people change in it outlives the daemon.
    async fn engine_table(&mut self, at: Side, op: TableOp) -> Result<serde_json::Value> {
        let answer = engine_table(&self.engine, at, op.clone()).await?;
        match op {
            TableOp::Set { table, key, value } => self.record.change_side(at, |kept| {
                kept.entries.entry(table).or_default().insert(key, value);
            })?,
            TableOp::Delete { table, key } => self.record.change_side(at, |kept| {
                if let Some(entries) = kept.entries.get_mut(&table) {
                    entries.remove(&key);
                }
            })?,
            TableOp::Tables | TableOp::Entries { .. } | TableOp::Get { .. } => {}
        }
        Ok(answer)
    }

    /// Sets in the engine again what people had set there, as far as the policy in force has such tables.
    pub(super) async fn restore_entries(&self, at: Side, compiled: &Compiled) -> Result<()> {
        for (table, entries) in &self.record.side(at).entries {
            let home = compiled.tables.iter().zip(&compiled.homes).find(|(spec, _)| spec.name == *table);
            if home.is_none_or(|(_, home)| {
                *home != Home::Engine && compiled.object.is_some() && self.xdp.is_some()
            }) {
                continue;
            }
            for (key, value) in entries {
                let op = TableOp::Set { table: table.clone(), key: key.clone(), value: value.clone() };
                if let Err(error) = engine_table(&self.engine, at, op).await {
                    warn!("an entry that was set before is not in force: {}", crate::exit::flatten(&error));
                }
            }
        }
        Ok(())
    }

    /// Copies tables of the kernel to the engine: those that the engine uses now and did not before, where `wanted` says
    /// so of the table's home.
    pub(super) async fn copy_to_engine(
        &self,
        compiled: &Compiled,
        wanted: impl Fn(Home) -> bool,
    ) -> Result<()> {
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
    pub(super) async fn engine_entries(
        &self,
        compiled: &Compiled,
    ) -> Result<Vec<(String, Vec<u8>, Vec<u8>)>> {
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
