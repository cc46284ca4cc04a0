//! An interface with XDP programs of Tollfree, as commands and the daemon act on it: policies with their sources,
//! tables in users' notation. The loader underneath knows bytes and pins; nothing here needs a daemon.

use crate::admin::{Applied, Entry, InForceView, InterfaceView, TableOp, TableView};
use crate::daemon::config::{Config, Side, XdpMode};
use crate::exit::{Exit, refused};
use crate::input::Policy;
use crate::paths::{self, Places};
use crate::{interfaces, privilege};
use anyhow::{Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::io::ErrorKind;
use std::net::IpAddr;
use std::path::Path;
use tollfree_loader::{AttachOptions, Interface, Mode, NewPolicy, Prepared, TableInfo};
use tollfree_policy::{Compiled, Place, TableError, TableSpec};
use tollfree_schema::Manifest;
use tollfree_wire::Reason;
use tollfree_wire::frame::Ports;
use tracing::info;

/// Kept with a policy in force, so that its tables can be shown in users' words and a daemon can take it up.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    /// The policy's file.
    pub name: String,
    /// Its source.
    pub text: String,
    /// Its schema.
    pub manifest: Manifest,
    /// Its tables.
    pub tables: Vec<TableSpec>,
    /// eBPF instructions.
    pub instructions: usize,
}

/// An attached interface.
pub struct Attached {
    interface: Interface,
    name: String,
}

/// How and with what to attach.
pub struct How<'a> {
    /// Where in the kernel the program runs.
    pub mode: XdpMode,
    /// Whether a foreign program is replaced.
    pub force: bool,
    /// UDP ports of Tollfree.
    pub ports: Ports,
    /// The compiled programs; searched for when absent.
    pub object: Option<&'a Path>,
}

impl Record {
    /// The policy, to be applied again.
    pub fn policy(self) -> Policy {
        let Record { name, text, manifest, .. } = self;
        Policy { name, text, manifest }
    }
}

impl From<Record> for InForceView {
    fn from(record: Record) -> InForceView {
        let Record { name, text, manifest, .. } = record;
        InForceView { name, text, manifest }
    }
}

impl Attached {
    /// Opens an interface that is attached already.
    ///
    /// # Errors
    /// No such interface, not attached, or not allowed.
    pub fn open(places: &Places, name: &str) -> Result<Attached> {
        interfaces::require(name)?;
        privilege::require("acting on an interface", privilege::ATTACH)?;
        match find(places, name)? {
            Some(attached) => Ok(attached),
            None => bail!(
                "no XDP program of Tollfree is attached to {name}; `tollfree iface attach {name}` does that"
            ),
        }
    }

    /// Attaches.
    ///
    /// # Errors
    /// No such interface, not allowed, no native mode, a foreign program, an object that does not verify.
    pub fn attach(places: &Places, name: &str, how: &How<'_>) -> Result<Attached> {
        interfaces::require(name)?;
        privilege::require("attaching XDP", privilege::ATTACH)?;
        let How { mode, force, ports, object } = *how;
        let object = paths::object(object)?;
        let mode = match mode {
            XdpMode::Native => Mode::Native,
            XdpMode::Generic => Mode::Generic,
        };
        let options = AttachOptions { mode, force, ports, object: &object };
        let interface = Interface::attach(&places.loader(), name, options).map_err(loader_error)?;
        let mut attached = Attached { interface, name: name.to_owned() };
        attached.set_addresses(&crate::daemon::addresses(name))?;
        Ok(attached)
    }

    /// What a daemon does at its start: attaches, or takes over what is attached already.
    ///
    /// # Errors
    /// As [`Attached::attach`]; or it is attached in another mode than configured.
    pub fn open_or_attach(places: &Places, name: &str, config: &Config) -> Result<Attached> {
        let how = How {
            mode: config.mode,
            force: config.force,
            ports: config.ports(),
            object: config.object.as_deref(),
        };
        let before = find(places, name)?;
        // Attaching again replaces the programs without a gap and keeps the policy, so that they are always the ones
        // this daemon was built with.
        let attached = Attached::attach(places, name, &how)?;
        let mode = attached.view()?.mode;
        match before {
            Some(_) => info!("took over {name}: XDP in {mode} mode, programs replaced, policy kept"),
            None => info!("attached XDP to {name} in {mode} mode"),
        }
        Ok(attached)
    }

    /// The interface's name.
    pub fn interface(&self) -> &str {
        &self.name
    }

    /// Puts a compiled policy in force, where no engine is in between.
    ///
    /// # Errors
    /// Where it needs the engine, guards the client, or the kernel refuses it; what was in force stays.
    pub fn apply(&mut self, policy: &Policy, compiled: &Compiled) -> Result<Applied> {
        let engine = compiled.explain.elements.iter().find(|element| {
            element.place == Place::Engine || element.place == Place::Session || element.response.is_some()
        });
        if let Some(element) = engine {
            return Err(refused(format!(
                "{}: {}() needs an engine ({}); apply it through the daemon, without --iface",
                policy.name, element.name, element.why
            )));
        }
        let prepared = self.prepare(policy, compiled)?;
        self.commit(policy, compiled, prepared)
    }

    /// The generation that the next policy will have, unless another process applies one before.
    ///
    /// # Errors
    /// When the interface's state cannot be read.
    pub fn next_generation(&mut self) -> Result<u64> {
        self.interface.next_generation().map_err(loader_error)
    }

    /// Loads a compiled policy beside the one in force.
    ///
    /// # Errors
    /// As [`Attached::apply`].
    pub fn prepare(&mut self, policy: &Policy, compiled: &Compiled) -> Result<Prepared> {
        if compiled.side == tollfree_policy::Side::Client {
            return Err(refused(format!(
                "{}: a policy at the client judges what leaves, which runs in the engine; apply it through the daemon, \
                 without --iface",
                policy.name
            )));
        }
        let Some(object) = &compiled.object else {
            return Err(refused(format!(
                "{}: nothing in it runs in XDP (`tollfree policy explain` says why); apply it through the daemon, \
                 without --iface",
                policy.name
            )));
        };
        let record = Record {
            name: policy.name.clone(),
            text: policy.text.clone(),
            manifest: policy.manifest.clone(),
            tables: compiled.tables.clone(),
            instructions: compiled.instructions,
        };
        let tables: Vec<TableInfo> = compiled
            .tables
            .iter()
            .map(|table| TableInfo {
                name: table.name.clone(),
                key_size: table.key_size,
                value_size: table.value_size,
                capacity: table.capacity,
                meaning: table.meaning(),
                initial: table.initial_bytes(),
            })
            .collect();
        let meta = serde_json::value::to_raw_value(&record)?;
        let new = NewPolicy { object, tables: &tables, meta: &meta };
        self.interface.prepare(new).map_err(loader_error)
    }

    /// Puts a prepared policy in force.
    ///
    /// # Errors
    /// When the kernel refuses; what was in force stays.
    pub fn commit(&mut self, policy: &Policy, compiled: &Compiled, prepared: Prepared) -> Result<Applied> {
        let generation = self.interface.commit(prepared).map_err(loader_error)?;
        Ok(Applied {
            policy: policy.name.clone(),
            target: self.name.clone(),
            place: "xdp".into(),
            at: Side::Server,
            generation,
            tables: compiled.tables.iter().map(|table| table.name.clone()).collect(),
            instructions: compiled.instructions,
        })
    }

    /// Takes the policy out of force.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn clear(&mut self) -> Result<()> {
        self.interface.clear_policy().map_err(loader_error)
    }

    /// What is in force; `None` for no policy.
    ///
    /// # Errors
    /// When the record was written by another version.
    pub fn record(&self) -> Result<Option<Record>> {
        self.read_record(&self.interface.status().map_err(loader_error)?.policy)
    }

    /// Whether a policy is in force, be it one that this version does not understand.
    ///
    /// # Errors
    /// When the interface's record cannot be read.
    pub fn has_policy(&self) -> Result<bool> {
        Ok(self.interface.status().map_err(loader_error)?.policy.get() != "null")
    }

    /// What was in force before; `None` for no policy.
    ///
    /// # Errors
    /// When the record was written by another version.
    pub fn record_before(&self) -> Result<Option<Record>> {
        self.read_record(&self.interface.status().map_err(loader_error)?.policy_before)
    }

    fn read_record(&self, record: &RawValue) -> Result<Option<Record>> {
        serde_json::from_str(record.get()).map_err(|_| {
            anyhow!("the policy on {} was applied by another version of tollfree; apply it again", self.name)
        })
    }

    /// Counts the policies that have been in force.
    ///
    /// # Errors
    /// When the interface's record cannot be read.
    pub fn generation(&self) -> Result<u64> {
        Ok(self.interface.status().map_err(loader_error)?.generation)
    }

    /// Looks into or changes the tables of the policy in force; the answer is as [`TableOp`] says.
    ///
    /// # Errors
    /// No policy, no such table, not a key or value of it, a full table.
    pub fn table(&mut self, op: &TableOp) -> Result<serde_json::Value> {
        let Some(Record { tables, .. }) = self.record()? else {
            bail!("no policy is in force on {}; `tollfree policy apply` sets one", self.name);
        };
        Ok(match op {
            TableOp::Tables => {
                let mut views = Vec::new();
                for spec in tables {
                    let entries = self.interface.table_dump(&spec.name).map_err(loader_error)?.len() as u64;
                    views.push(TableView {
                        place: "xdp".into(),
                        key: spec.key.to_string(),
                        value: spec.value.to_string(),
                        entries,
                        capacity: spec.capacity,
                        name: spec.name,
                    });
                }
                serde_json::to_value(views)?
            }
            TableOp::Entries { table } => serde_json::to_value(self.entries(find_table(&tables, table)?)?)?,
            TableOp::Get { table, key } => {
                let spec = find_table(&tables, table)?;
                let bytes = spec.parse_key(key).map_err(refused)?;
                let value = self.interface.table_get(table, &bytes).map_err(loader_error)?;
                let entry = value.map(|value| Entry { key: key.clone(), value: spec.format_value(&value) });
                serde_json::to_value(entry)?
            }
            TableOp::Set { table, key, value } => {
                let spec = find_table(&tables, table)?;
                let key = spec.parse_key(key).map_err(refused)?;
                let value = spec.parse_value(value).map_err(refused)?;
                self.interface.table_set(table, &key, &value).map_err(loader_error)?;
                serde_json::Value::Null
            }
            TableOp::Delete { table, key } => {
                let key = find_table(&tables, table)?.parse_key(key).map_err(refused)?;
                serde_json::to_value(self.interface.table_delete(table, &key).map_err(loader_error)?)?
            }
        })
    }

    /// The entries of a table.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn entries(&self, spec: &TableSpec) -> Result<Vec<Entry>> {
        let dump = self.interface.table_dump(&spec.name).map_err(loader_error)?;
        let mut entries: Vec<Entry> = dump
            .iter()
            .map(|(key, value)| Entry { key: spec.format_key(key), value: spec.format_value(value) })
            .collect();
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(entries)
    }

    /// The addresses whose packets are for this host's engine.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn set_addresses(&mut self, addresses: &[IpAddr]) -> Result<()> {
        self.interface.set_addresses(addresses).map_err(loader_error)
    }

    /// A report.
    ///
    /// # Errors
    /// When pins or record cannot be read.
    pub fn view(&self) -> Result<InterfaceView> {
        let status = self.interface.status().map_err(loader_error)?;
        let counts = self.interface.reasons().map_err(loader_error)?;
        let record = self.record().ok().flatten();
        Ok(InterfaceView {
            interface: self.name.clone(),
            mode: status.mode.map_or_else(|| "detached".to_owned(), |mode| mode.to_string()),
            port: status.port,
            ports: status.ports,
            instructions: record.as_ref().map_or(0, |record| record.instructions),
            policy: record.map(|record| record.name),
            generation: status.generation,
            reasons: Reason::ALL
                .iter()
                .zip(counts)
                .filter(|(_, count)| *count > 0)
                .map(|(reason, count)| (reason.name().to_owned(), count))
                .collect(),
        })
    }
}

fn find_table<'a>(tables: &'a [TableSpec], name: &str) -> Result<&'a TableSpec> {
    tables.iter().find(|table| table.name == name).ok_or_else(|| {
        let known: Vec<&str> = tables.iter().map(|table| table.name.as_str()).collect();
        let known = (!known.is_empty()).then(|| known.join(", "));
        refused(TableError::Unknown { name: name.to_owned(), known })
    })
}

/// The attached interface of this name, if it is attached.
fn find(places: &Places, name: &str) -> Result<Option<Attached>> {
    if !Interface::list(&places.loader()).map_err(loader_error)?.iter().any(|known| known == name) {
        return Ok(None);
    }
    let interface = Interface::open(&places.loader(), name).map_err(loader_error)?;
    Ok(Some(Attached { interface, name: name.to_owned() }))
}

/// Takes the programs off an interface.
///
/// # Errors
/// No such interface, not attached, or not allowed.
pub fn detach(places: &Places, name: &str) -> Result<()> {
    Attached::open(places, name)?.interface.detach().map_err(loader_error)
}

/// Reports on all attached interfaces.
///
/// # Errors
/// When one of them cannot be looked at: an incomplete list would look like a complete one.
pub fn list(places: &Places) -> Result<Vec<InterfaceView>> {
    let names = Interface::list(&places.loader()).map_err(loader_error)?;
    names.iter().filter_map(|name| view(places, name).transpose()).collect()
}

fn view(places: &Places, name: &str) -> Result<Option<InterfaceView>> {
    find(places, name)?.map(|found| found.view()).transpose()
}

/// Reports on the attached interfaces that this user may look at; warns of the others.
pub fn views(places: &Places) -> Vec<InterfaceView> {
    let names = Interface::list(&places.loader()).unwrap_or_default();
    let mut views = Vec::new();
    for name in &names {
        match view(places, name) {
            Ok(view) => views.extend(view),
            Err(error) => tracing::warn!("cannot look at {name}: {}", crate::exit::flatten(&error)),
        }
    }
    views
}

/// A loader's error with its exit code.
pub fn loader_error(error: tollfree_loader::Error) -> anyhow::Error {
    match error {
        tollfree_loader::Error::Capability { .. } => Exit::Privilege(error.to_string()).into(),
        tollfree_loader::Error::File { ref cause, .. } if cause.kind() == ErrorKind::PermissionDenied => {
            Exit::Privilege(format!("{error}; run it as root")).into()
        }
        _ => error.into(),
    }
}
