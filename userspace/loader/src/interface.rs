//! An interface with Tollfree on it: opened by its pins, looked at, detached.

use crate::maps::SharedMap;
use crate::paths::{Pins, remove_file, remove_tree};
use crate::state::Known;
use crate::{Error, Mode, Paths, State, bpffs, device};
use libbpf_rs::query::LinkTypeInfo;
use libbpf_rs::{Link, MapCore, MapFlags};
use serde::Serialize;
use serde_json::value::RawValue;
use std::path::Path;
use tollfree_wire::Reason;
use tollfree_wire::maps;

/// An interface that Tollfree is attached to. Holds the maps' descriptors, never the link's: dropping it, or the
/// process's death, changes nothing in the kernel.
#[derive(Debug)]
pub struct Interface {
    pub(crate) name: String,
    pub(crate) paths: Paths,
    pub(crate) pins: Pins,
    pub(crate) sessions: SharedMap,
    pub(crate) peers: SharedMap,
    pub(crate) layouts: SharedMap,
    pub(crate) addresses: SharedMap,
    pub(crate) sockets: SharedMap,
    pub(crate) stages: SharedMap,
    reasons: SharedMap,
    /// Maps that only programs use.
    others: [SharedMap; 3],
    /// The state file, as last seen.
    pub(crate) known: Option<Known>,
}

/// What is to be said of an interface.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Its name.
    pub interface: String,
    /// The mode in force, by the kernel's word; `None`: our program is not attached any more.
    pub mode: Option<Mode>,
    /// The id of the root program attached, if it is ours.
    pub program_id: Option<u32>,
    /// The first of Tollfree's UDP ports: the one that peers call.
    pub port: u16,
    /// How many they are.
    pub ports: u16,
    /// The object the programs came from.
    pub object: std::path::PathBuf,
    /// Counts the changes of policy; 0: never any.
    pub generation: u64,
    /// What was given along with the policy in force; null without one.
    pub policy: Box<RawValue>,
    /// What was given along with the policy before; null where there was none.
    pub policy_before: Box<RawValue>,
    /// The policy's tables.
    pub tables: Vec<String>,
    /// Queues with an AF_XDP socket.
    pub queues: Vec<u32>,
}

impl Interface {
    /// Opens what is attached to an interface already.
    ///
    /// # Errors
    /// [`Error::NotAttached`], [`Error::NoInterface`], or pins of another version.
    pub fn open(paths: &Paths, interface: &str) -> Result<Interface, Error> {
        let pins = paths.pins(interface);
        if !pins.link().exists() {
            device::index(interface)?;
            return Err(Error::NotAttached { interface: interface.to_owned() });
        }
        crate::maps::check_pins(&pins)?;
        let map = |name| SharedMap::open(&pins, interface, name);
        Ok(Interface {
            name: interface.to_owned(),
            paths: paths.clone(),
            sessions: map(maps::SESSIONS)?,
            peers: map(maps::PEERS)?,
            layouts: map(maps::LAYOUTS)?,
            addresses: map(maps::ADDRESSES)?,
            sockets: map(maps::SOCKETS)?,
            stages: map(maps::STAGES)?,
            reasons: map(maps::REASONS)?,
            others: [map(maps::CONFIG)?, map(maps::CALL)?, map(maps::ANSWER)?],
            known: None,
            pins,
        })
    }

    /// A shared map, by its name.
    pub(crate) fn shared(&self, name: &str) -> Option<&SharedMap> {
        let Interface { sessions, peers, layouts, addresses, sockets, stages, reasons, others, .. } = self;
        let named = [sessions, peers, layouts, addresses, sockets, stages, reasons];
        named.into_iter().chain(others).find(|map| map.name == name)
    }

    /// The generation that the next policy will have, unless another process applies one before.
    ///
    /// # Errors
    /// The state cannot be read.
    pub fn next_generation(&mut self) -> Result<u64, Error> {
        Ok(Known::read(&mut self.known, &self.paths, &self.name)?.generation + 1)
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The interfaces below `paths` that have Tollfree on them, sorted.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn list(paths: &Paths) -> Result<Vec<String>, Error> {
        let mut names = Vec::new();
        for directory in directories(&paths.bpffs)? {
            if directory.join("link").exists() {
                names.extend(directory.file_name().map(|name| Paths::interface(&name.to_string_lossy())));
            }
        }
        names.sort();
        Ok(names)
    }

    /// How things stand.
    ///
    /// # Errors
    /// The state file or the kernel cannot be asked.
    pub fn status(&self) -> Result<Status, Error> {
        let State {
            mode: _,
            port,
            ports,
            object,
            generation,
            tables: _,
            policy,
            tables_before: _,
            policy_before,
        } = State::read(&self.paths, &self.name)?.unwrap_or_default();
        let ours = linked_program(&self.pins)?.map(|link| link.program);
        let running = match device::attached(&self.name) {
            Ok(running) => running.filter(|running| Some(running.id) == ours),
            Err(Error::NoInterface { .. }) => None,
            Err(error) => return Err(error),
        };
        let queues = (0..maps::QUEUES_MAX)
            .filter(|queue| {
                matches!(self.sockets.map.lookup(&queue.to_ne_bytes(), MapFlags::ANY), Ok(Some(_)))
            })
            .collect();
        Ok(Status {
            interface: self.name.clone(),
            mode: running.as_ref().map(|running| running.mode),
            program_id: running.map(|running| running.id),
            port,
            ports,
            object,
            generation,
            policy,
            policy_before,
            tables: self.tables()?,
            queues,
        })
    }

    /// Packets by reason, summed over CPUs; the index is [`Reason::index`].
    ///
    /// # Errors
    /// The kernel refused a lookup.
    pub fn reasons(&self) -> Result<[u64; Reason::COUNT], Error> {
        let mut counts = [0; Reason::COUNT];
        for (index, count) in counts.iter_mut().enumerate() {
            let key = (index as u32).to_ne_bytes();
            let values =
                self.reasons.map.lookup_percpu(&key, MapFlags::ANY).map_err(self.reasons.failed("read"))?;
            *count = values
                .iter()
                .flatten()
                .filter_map(|value| bytemuck::try_pod_read_unaligned::<u64>(value).ok())
                .sum();
        }
        Ok(counts)
    }

    /// Takes Tollfree off the interface, and everything of it out of the kernel.
    ///
    /// # Errors
    /// The kernel refused, or pins cannot be removed.
    pub fn detach(self) -> Result<(), Error> {
        let Interface { name, paths, pins, .. } = self;
        let _lock = bpffs::lock(&paths.bpffs)?;
        remove(&paths, &name, &pins)
    }
}

/// Takes Tollfree off every interface below `paths`, and removes what a crash left behind. Returns the interfaces.
///
/// # Errors
/// The kernel refused, or files cannot be removed.
pub fn clean(paths: &Paths) -> Result<Vec<String>, Error> {
    let mut names = Vec::new();
    if paths.bpffs.is_dir() {
        let _lock = bpffs::lock(&paths.bpffs)?;
        for directory in directories(&paths.bpffs)? {
            let Some(name) = directory.file_name().map(|name| Paths::interface(&name.to_string_lossy()))
            else {
                continue;
            };
            remove(paths, &name, &paths.pins(&name))?;
            names.push(name);
        }
    }
    // Stays where it is a mount point or somebody else uses it too.
    drop(std::fs::remove_dir(&paths.bpffs));
    names.sort();
    Ok(names)
}

fn remove(paths: &Paths, interface: &str, pins: &Pins) -> Result<(), Error> {
    if let Ok(link) = Link::open(pins.link()) {
        // Fails only where the interface is gone already.
        drop(link.detach());
    }
    remove_tree(&pins.root).map_err(Error::file("remove", &pins.root))?;
    let state = paths.state_file(interface);
    remove_file(&state).map_err(Error::file("remove", &state))
}

fn directories(path: &Path) -> Result<Vec<std::path::PathBuf>, Error> {
    match std::fs::read_dir(path) {
        Ok(entries) => Ok(entries.flatten().map(|entry| entry.path()).filter(|path| path.is_dir()).collect()),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(cause) => Err(Error::File { operation: "list", path: path.to_owned(), cause }),
    }
}

/// What a pinned link holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Linked {
    /// The program's id.
    pub program: u32,
    /// The interface's index in its namespace; 0: the interface is gone, or the link was detached.
    pub index: u32,
}

/// What our link holds, if it is pinned.
pub(crate) fn linked_program(pins: &Pins) -> Result<Option<Linked>, Error> {
    let path = pins.link();
    if !path.exists() {
        return Ok(None);
    }
    let unusable = |cause: libbpf_rs::Error| Error::Object {
        object: path.display().to_string(),
        cause: format!("{cause:#}"),
    };
    let info = Link::open(&path).and_then(|link| link.info()).map_err(unusable)?;
    let index = match info.info {
        LinkTypeInfo::Xdp(xdp) => xdp.ifindex,
        _ => 0,
    };
    Ok(Some(Linked { program: info.prog_id, index }))
}
