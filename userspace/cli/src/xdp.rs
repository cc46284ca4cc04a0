//! An interface with XDP programs of Tollfree, as commands and the daemon act on it: policies with their sources,
//! tables in users' notation. The loader underneath knows bytes and pins; nothing here needs a daemon.

use crate::admin::{Applied, Entry, InterfaceView, TableOp, TableView};
use crate::daemon::config::{Config, Side, XdpMode};
use crate::exit::{Exit, refused};
use crate::input::Policy;
use crate::paths::{self, Places};
use crate::{interfaces, privilege};
use anyhow::{Result, anyhow, bail};
use serde::{Deserialize, Serialize};
use std::net::IpAddr;
use std::os::fd::BorrowedFd;
use std::path::Path;
use tollfree_engine::Driver;
use tollfree_loader::{AttachOptions, Interface, Mode, TableInfo};
use tollfree_policy::{Compiled, TableError, TableSpec, Tracked};
use tollfree_schema::Manifest;
use tollfree_wire::maps::LayoutKey;
use tollfree_wire::{Reason, SessionEntry};
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
    /// UDP port of Tollfree.
    pub port: u16,
    /// The compiled programs; searched for when absent.
    pub object: Option<&'a Path>,
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
        let How { mode, force, port, object } = *how;
        let object = paths::object(object)?;
        let mode = match mode {
            XdpMode::Native => Mode::Native,
            XdpMode::Generic => Mode::Generic,
        };
        let options = AttachOptions { mode, force, port, object: &object };
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
            port: config.port(),
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

    /// Puts a compiled policy in force.
    ///
    /// # Errors
    /// Where it needs the engine, guards the client, or the kernel refuses it; what was in force stays.
    pub fn apply(&mut self, policy: &Policy, compiled: &Compiled) -> Result<Applied> {
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
                ..TableInfo::default()
            })
            .collect();
        let meta = serde_json::to_value(&record)?;
        let generation = self.interface.apply_policy(object, &tables, meta).map_err(loader_error)?;
        Ok(Applied {
            policy: policy.name.clone(),
            target: self.name.clone(),
            place: "xdp".into(),
            at: Side::Server,
            generation,
            tables: record.tables.into_iter().map(|table| table.name).collect(),
            instructions: record.instructions,
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
        let status = self.interface.status().map_err(loader_error)?;
        if status.policy.is_null() {
            return Ok(None);
        }
        serde_json::from_value(status.policy).map(Some).map_err(|_| {
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

    fn entries(&self, spec: &TableSpec) -> Result<Vec<Entry>> {
        let dump = self.interface.table_dump(&spec.name).map_err(loader_error)?;
        let mut entries: Vec<Entry> = dump
            .iter()
            .map(|(key, value)| Entry { key: spec.format_key(key), value: spec.format_value(value) })
            .collect();
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        Ok(entries)
    }

    /// Every table with its entries.
    ///
    /// # Errors
    /// When a table cannot be read.
    pub fn all_entries(&self) -> Result<Vec<(String, Vec<Entry>)>> {
        let tables = self.record()?.map(|record| record.tables).unwrap_or_default();
        tables.iter().map(|spec| Ok((spec.name.clone(), self.entries(spec)?))).collect()
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
        _ => error.into(),
    }
}

/// Mirrors the engine's sessions and layouts into an interface's maps, and its sockets. Lives on the poll thread.
pub struct Mirror {
    interface: Interface,
}

impl Mirror {
    /// A second hold on the same pins.
    ///
    /// # Errors
    /// When it is not attached.
    pub fn open(places: &Places, name: &str) -> Result<Mirror> {
        Ok(Mirror { interface: Interface::open(&places.loader(), name).map_err(loader_error)? })
    }

    /// Has XDP hand the packets of one receive queue to this socket.
    ///
    /// # Errors
    /// A sentence.
    pub fn register(&mut self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), String> {
        self.interface.register_socket(queue, socket).map_err(|error| error.to_string())
    }

    /// Removes the sessions of an engine that is gone, so that peers hear at once that they need new ones.
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn forget_sessions(&mut self) -> Result<()> {
        self.interface.sessions_clear().map_err(loader_error)
    }
}

impl Driver for Mirror {
    fn session_insert(&mut self, entry: &SessionEntry) -> Result<(), String> {
        self.interface.session_insert(entry).map_err(|error| error.to_string())
    }

    fn session_remove(&mut self, index: u32) -> Result<(), String> {
        self.interface.session_remove(index).map_err(|error| error.to_string())
    }

    fn layout_insert(&mut self, key: LayoutKey, known: u32) -> Result<(), String> {
        self.interface.layout_insert(key, known).map_err(|error| error.to_string())
    }

    fn tracked(&self, index: u32) -> Option<Tracked> {
        let entry = self.interface.session_get(index).ok().flatten()?;
        let SessionEntry { last_seen_ns, idle_ns, calls, .. } = entry;
        Some(Tracked { last_seen_ns, idle_ns, calls })
    }
}
