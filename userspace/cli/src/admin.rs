//! What the commands and the daemon say to each other over the admin socket: one JSON value per line, a request and
//! its reply in turn. Here: the messages, and the commands' end. The daemon's end is `daemon::admin`.

use crate::daemon::config::Side;
use crate::exit::{Exit, refused};
use anyhow::{Context, Result, anyhow};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tollfree_schema::Manifest;

/// A command to the daemon. What it does comes first and what it needs after that, so that a long request is read without
/// being kept in between.
#[derive(Debug, Serialize, Deserialize)]
#[serde(tag = "op", content = "with", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Report: a [`DaemonView`].
    Status,
    /// Which interface the daemon has, as text or null.
    Interface,
    /// Put a policy in force: [`Applied`]s, one for each side.
    PolicyApply {
        /// The file as the user named it, for messages.
        name: String,
        /// The policy's source.
        text: String,
        /// Its schema.
        manifest: Box<Manifest>,
        /// Which calls it judges; null: those that it has chains for.
        at: Option<Side>,
    },
    /// The policy in force, to be compared: an [`InForceView`] or null.
    PolicyInForce {
        /// Which one.
        at: Side,
    },
    /// Put the policy in force again that was before: an [`Applied`], or null where there was none.
    PolicyRollback {
        /// Which one.
        at: Side,
    },
    /// Take a policy out of force.
    PolicyClear {
        /// Which one.
        at: Side,
    },
    /// Look into or change the tables of a policy.
    Table {
        /// Which policy.
        at: Side,
        /// What to do.
        table: TableOp,
    },
}

/// What to do with the tables of a policy. Keys and values are as a user writes them.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum TableOp {
    /// All tables: [`TableView`]s.
    Tables,
    /// The entries of one: [`Entry`]s.
    Entries { table: String },
    /// One entry: an [`Entry`], or null where there is none.
    Get { table: String, key: String },
    /// Sets one entry: null.
    Set { table: String, key: String, value: String },
    /// Deletes one entry: whether there was one.
    Delete { table: String, key: String },
}

impl TableOp {
    /// The table that it is about; `None`: all.
    pub fn table(&self) -> Option<&str> {
        match self {
            TableOp::Tables => None,
            TableOp::Entries { table }
            | TableOp::Get { table, .. }
            | TableOp::Set { table, .. }
            | TableOp::Delete { table, .. } => Some(table),
        }
    }
}

/// One table.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TableView {
    /// Its name.
    pub name: String,
    /// Where it lives: `xdp`, `engine` or `both`.
    pub place: String,
    /// Type of its keys.
    pub key: String,
    /// Type of its values.
    pub value: String,
    /// Entries in it now.
    pub entries: u64,
    /// The most entries.
    pub capacity: u32,
}

/// One entry of a table, as a user writes it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    pub key: String,
    pub value: String,
}

/// A policy in force, as it was given.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct InForceView {
    /// Its file.
    pub name: String,
    /// Its source.
    pub text: String,
    /// Its schema.
    pub manifest: Manifest,
}

/// What became of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Applied {
    /// The policy's file.
    pub policy: String,
    /// Where it is in force: an interface's name, or `engine`.
    pub target: String,
    /// Where it runs: `xdp` or `engine`.
    pub place: String,
    /// Which calls it judges.
    pub at: Side,
    /// Counts the policies that have been in force there.
    pub generation: u64,
    /// Its tables.
    pub tables: Vec<String>,
    /// eBPF instructions; 0 in the engine.
    pub instructions: usize,
}

/// The daemon's answer.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply {
    /// Done; the value depends on the request.
    Ok(serde_json::Value),
    /// It failed.
    Error(String),
    /// The request itself is at fault; nothing was changed.
    Refused(String),
}

impl From<Result<serde_json::Value>> for Reply {
    fn from(result: Result<serde_json::Value>) -> Reply {
        match result {
            Ok(value) => Reply::Ok(value),
            Err(error) if matches!(error.downcast_ref(), Some(Exit::Refused(_))) => {
                Reply::Refused(crate::exit::flatten(&error))
            }
            Err(error) => Reply::Error(crate::exit::flatten(&error)),
        }
    }
}

/// A command's connection to the daemon.
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
}

/// Longer than the daemon ever takes; a hung daemon must not hang its commands.
const PATIENCE: Duration = Duration::from_secs(10);

impl Client {
    /// Connects; `None` where no daemon runs.
    ///
    /// # Errors
    /// When there is one, but not for this user.
    pub fn find(path: &Path) -> Result<Option<Client>> {
        use std::io::ErrorKind::{ConnectionRefused, NotFound, PermissionDenied};
        match UnixStream::connect(path) {
            Ok(stream) => {
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.set_write_timeout(Some(PATIENCE))?;
                Ok(Some(Client { stream: BufReader::new(stream), path: path.to_owned() }))
            }
            Err(error) if matches!(error.kind(), NotFound | ConnectionRefused) => Ok(None),
            Err(error) if error.kind() == PermissionDenied => Err(Exit::Privilege(format!(
                "this user may not use {}; run the command as the user the daemon runs as",
                path.display()
            ))
            .into()),
            Err(error) => Err(error).with_context(|| format!("cannot connect to {}", path.display())),
        }
    }

    /// Connects.
    ///
    /// # Errors
    /// Where no daemon runs, says how to start one.
    pub fn connect(path: &Path) -> Result<Client> {
        Client::find(path)?.ok_or_else(|| {
            anyhow!(
                "no daemon answers at {}; start one with `tollfree run`, name its --state-dir, or act on an interface \
                 with --iface",
                path.display()
            )
        })
    }

    /// The daemon that has this interface; `None` where none does, and its pins are all there is to act on.
    ///
    /// # Errors
    /// When a daemon does not answer.
    pub fn of_interface(path: &Path, interface: &str) -> Result<Option<Client>> {
        let Some(mut client) = Client::find(path)? else { return Ok(None) };
        let its: Option<String> = client.ask(&Request::Interface)?;
        Ok((its.as_deref() == Some(interface)).then_some(client))
    }

    /// One request and its reply.
    ///
    /// # Errors
    /// The daemon's own, with its exit code; or when the connection fails.
    pub fn ask<T: DeserializeOwned>(&mut self, request: &Request) -> Result<T> {
        let mut line = serde_json::to_string(request)?;
        line.push('\n');
        let lost = || format!("the daemon at {} did not answer; its log says why", self.path.display());
        self.stream.get_mut().write_all(line.as_bytes()).with_context(lost)?;
        let mut answer = String::new();
        let length = self.stream.read_line(&mut answer).with_context(lost)?;
        if length == 0 {
            return Err(anyhow!(lost()));
        }
        match serde_json::from_str(&answer)
            .context("the daemon's answer makes no sense; is it another version?")?
        {
            Reply::Ok(value) => serde_json::from_value(value)
                .context("the daemon's answer makes no sense; is it another version?"),
            Reply::Error(text) => Err(anyhow!(text)),
            Reply::Refused(text) => Err(refused(text)),
        }
    }
}

/// What a daemon says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DaemonView {
    /// Of the binary.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Seconds since its start.
    pub uptime_s: u64,
    /// `udp` or `afxdp`.
    pub backend: String,
    /// The interface of backend `afxdp`.
    pub interface: Option<String>,
    /// The address of backend `udp`.
    pub listen: Option<String>,
    /// UDP port.
    pub port: u16,
    /// Where applications attach.
    pub app_socket: PathBuf,
    /// Which host serves which service.
    pub routes: Vec<RouteView>,
    /// Policies in force.
    pub policies: Vec<PolicyView>,
    /// How methods are carried that the policies' transport blocks name.
    #[serde(default)]
    pub transport: Vec<TransportView>,
    /// Attached applications.
    pub apps: Vec<AppView>,
    /// Sessions with other hosts.
    pub sessions: Vec<SessionView>,
    /// The poll loop.
    pub engine: EngineView,
    /// The XDP programs in front of it, for backend `afxdp`.
    pub xdp: Option<InterfaceView>,
}

/// One route.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteView {
    pub service: String,
    pub peer: String,
}

/// One policy in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyView {
    /// Which calls it judges.
    pub at: Side,
    /// Its file.
    pub policy: String,
    /// `xdp` or `engine`; `closed` where it cannot be in force again, so that every call is refused.
    pub place: String,
    /// Counts the policies that have been in force there.
    pub generation: u64,
}

/// How one method is carried.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TransportView {
    /// The side whose policy says so.
    pub at: Side,
    /// The method's path.
    pub method: String,
    /// The modules, such as `reliable() -> ordered()`.
    pub carried: String,
}

/// One application.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppView {
    /// What it calls itself.
    pub name: String,
    /// Its process.
    pub pid: u32,
    /// The services it serves.
    pub serves: Vec<String>,
    /// Calls it has made.
    pub calls_made: u64,
    /// Calls it has been given to serve.
    pub calls_served: u64,
    /// Deliveries that wait because its ring is full.
    pub backlog: u64,
}

/// One session.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionView {
    /// The index this host chose.
    pub index: u32,
    /// The peer's address and port.
    pub peer: String,
    /// `client` or `server`.
    pub role: String,
    /// Calls that `session_tracker()` has admitted; 0 while no policy in force has one.
    pub calls: u64,
    /// Time since the last of them, or since the session was opened, in ms.
    pub idle_ms: u64,
}

/// The poll loop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineView {
    /// How it waits.
    pub waiting: String,
    /// Packets received from the backend.
    pub received: u64,
    /// Packets handed to the backend.
    pub transmitted: u64,
    /// Calls under way.
    pub calls_open: u64,
    /// What became of packets that reached the engine, by reason; those above zero.
    pub reasons: BTreeMap<String, u64>,
}

/// One interface with XDP programs of Tollfree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceView {
    /// Its name.
    pub interface: String,
    /// `native` or `generic`; `detached` where somebody has taken our program off.
    pub mode: String,
    /// The first of Tollfree's UDP ports: the one that peers call.
    pub port: u16,
    /// How many they are.
    pub ports: u16,
    /// The policy in force, by its file.
    pub policy: Option<String>,
    /// Counts the policies that have been in force.
    pub generation: u64,
    /// eBPF instructions of the policy.
    pub instructions: usize,
    /// What became of packets, by reason; those above zero.
    pub reasons: BTreeMap<String, u64>,
}

impl InterfaceView {
    /// Its UDP ports as ranges are written: `7400-7415`.
    pub fn ports_text(&self) -> String {
        match self.ports {
            0 | 1 => self.port.to_string(),
            several => format!("{}-{}", self.port, self.port + (several - 1)),
        }
    }
}
