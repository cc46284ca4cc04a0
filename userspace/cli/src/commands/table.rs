//! `tollfree policy table`: the tables of the policy in force, by an interface's pins or through the daemon.

use super::policy::Means;
use crate::admin::{Entry, Request, TableOp, TableView};
use crate::args::{Table, Target};
use crate::output::{Align, Show, table};
use crate::paths::Places;
use anyhow::{Result, bail};
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Runs one of the commands.
pub fn run(command: Table, places: &Places) -> Result<()> {
    match command {
        Table::List { table: None, target, output } => {
            output.print(&Tables(ask(&target, places, TableOp::Tables)?))
        }
        Table::List { table: Some(table), target, output } => {
            output.print(&Entries(ask(&target, places, TableOp::Entries { table })?))
        }
        Table::Get { table, key, target, output } => {
            let op = TableOp::Get { table: table.clone(), key: key.clone() };
            match ask::<Option<Entry>>(&target, places, op)? {
                Some(entry) => output.print(&OneEntry(entry)),
                None => bail!("table {table} has no entry for {key:?}"),
            }
        }
        Table::Set { table, key, value, target, output } => {
            let done = Changed { table: table.clone(), key: key.clone(), value: Some(value.clone()) };
            let () = ask(&target, places, TableOp::Set { table, key, value })?;
            output.print(&done)
        }
        Table::Delete { table, key, target, output } => {
            let op = TableOp::Delete { table: table.clone(), key: key.clone() };
            match ask(&target, places, op)? {
                true => output.print(&Changed { table, key, value: None }),
                false => bail!("table {table} has no entry for {key:?}"),
            }
        }
    }
}

fn ask<T: DeserializeOwned>(target: &Target, places: &Places, table: TableOp) -> Result<T> {
    match Means::of(target, places)? {
        Means::Pins(mut interface) => Ok(serde_json::from_value(interface.table(&table)?)?),
        Means::Daemon(mut client) => client.ask(&Request::Table { at: target.at, table }),
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Tables(Vec<TableView>);

impl Show for Tables {
    fn text(&self) -> String {
        if self.0.is_empty() {
            return "the policy in force has no tables\n".into();
        }
        let columns = [
            ("TABLE", Align::Left),
            ("PLACE", Align::Left),
            ("KEY", Align::Left),
            ("VALUE", Align::Left),
            ("ENTRIES", Align::Right),
            ("CAPACITY", Align::Right),
        ];
        table(
            &columns,
            self.0.iter().map(|TableView { name, place, key, value, entries, capacity }| {
                vec![
                    name.clone(),
                    place.clone(),
                    key.clone(),
                    value.clone(),
                    entries.to_string(),
                    capacity.to_string(),
                ]
            }),
        )
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct Entries(Vec<Entry>);

impl Show for Entries {
    fn text(&self) -> String {
        if self.0.is_empty() {
            return "the table is empty\n".into();
        }
        table(
            &[("KEY", Align::Left), ("VALUE", Align::Left)],
            self.0.iter().map(|Entry { key, value }| vec![key.clone(), value.clone()]),
        )
    }
}

/// An entry that was set, or deleted where it has no value.
#[derive(Serialize)]
struct Changed {
    table: String,
    key: String,
    value: Option<String>,
}

impl Show for Changed {
    fn text(&self) -> String {
        let Changed { table, key, value } = self;
        match value {
            Some(value) if key.is_empty() => format!("{table} = {value}\n"),
            Some(value) => format!("{table}: {key} = {value}\n"),
            None => format!("{table}: {key} deleted\n"),
        }
    }
}

#[derive(Serialize)]
#[serde(transparent)]
struct OneEntry(Entry);

impl Show for OneEntry {
    fn text(&self) -> String {
        format!("{}\n", self.0.value)
    }
}
