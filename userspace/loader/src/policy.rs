//! Swapping policies: prepared completely beside the one in force, then put into the slot in one step. The policy
//! before, and the tables that only it had, are kept for a way back.

use crate::load::{Loaded, Source, load};
use crate::object::{Object, PROGRAM};
use crate::own::{DecisionsMap, set_generation};
use crate::paths::{Pins, remove_file, remove_tree};
use crate::state::Known;
use crate::{Error, Interface, State, Table, bpffs, error, sys};
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, ProgramHandle};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use tollfree_wire::maps::{DECISIONS, GENERATION, Stage};

/// A table of a policy, as the kernel sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TableInfo {
    /// Its name, also the map's in the object.
    pub name: String,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Entries it can have.
    pub capacity: u32,
    /// What its bytes mean, in words of whoever applies policies: entries stay only where it is the same.
    #[serde(default)]
    pub meaning: String,
    /// What a cell holds at first, `value_size` bytes; empty: zeros.
    #[serde(default)]
    pub initial: Vec<u8>,
}

/// A policy to be put into force.
#[derive(Clone, Copy, Debug)]
pub struct NewPolicy<'a> {
    /// Its object: program `tf_policy` in section `xdp`, further parts `tf_policy_1` and so on, its maps.
    pub object: &'a [u8],
    /// Its tables.
    pub tables: &'a [TableInfo],
    /// Kept in the state for whoever asks [`Interface::status`].
    pub meta: &'a RawValue,
}

/// A policy in the kernel that is not in force yet, with everything it needs. No other policy can be applied to the
/// interface while it is held. Dropping it leaves things as they were.
pub struct Prepared {
    generation: u64,
    tables: Vec<TableInfo>,
    meta: Box<RawValue>,
    state: State,
    /// The tables that come from where those of the policy before are kept.
    revived: Vec<String>,
    /// The tables and maps of its own that were made for it, and are to be pinned.
    fresh: Vec<String>,
    own: Vec<String>,
    /// Keeps the programs and maps until they are pinned.
    loaded: Loaded,
    decisions: Option<DecisionsMap>,
    interface: String,
    _lock: OwnedFd,
}

impl std::fmt::Debug for Prepared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Prepared").field("generation", &self.generation).finish_non_exhaustive()
    }
}

impl Prepared {
    /// The generation that it will have.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Where to write what is decided per session, before [`Interface::commit`]; `None`: nothing is.
    pub fn decisions(&self) -> Option<&DecisionsMap> {
        self.decisions.as_ref()
    }

    /// One of its tables, to be written while calls run.
    ///
    /// # Errors
    /// It has no such table.
    pub fn table(&self, name: &str) -> Result<Table, Error> {
        let is_table = self.tables.iter().any(|table| table.name == name);
        let Some(map) = self.loaded.maps.get(name).filter(|_| is_table) else {
            let known = self.tables.iter().map(|table| table.name.clone()).collect();
            return Err(Error::NoTable { interface: self.interface.clone(), table: name.to_owned(), known });
        };
        Table::new(&self.interface, name, map)
    }
}

/// The directory of pins that are not in their places yet. Goes when dropped.
struct Staging(PathBuf);

impl Staging {
    /// With room for the policy's own maps. What a killed process left there goes.
    fn create(pins: &Pins, generation: u64) -> Result<Staging, Error> {
        let (root, own, mark) = (pins.staging(), pins.staged_own(), pins.staged_generation(generation));
        if std::fs::create_dir(&root).is_err() {
            remove_tree(&root).map_err(Error::file("remove", &root))?;
        }
        for directory in [&own, &mark] {
            std::fs::create_dir_all(directory).map_err(Error::file("create", directory))?;
        }
        Ok(Staging(root))
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        // The next policy to be prepared tries again.
        drop(remove_tree(&self.0));
    }
}

impl Interface {
    /// Puts a policy into force and returns its generation: [`Interface::prepare`] and [`Interface::commit`].
    ///
    /// # Errors
    /// As there.
    pub fn apply_policy(
        &mut self,
        object: &[u8],
        tables: &[TableInfo],
        meta: &RawValue,
    ) -> Result<u64, Error> {
        let prepared = self.prepare(NewPolicy { object, tables, meta })?;
        self.commit(prepared)
    }

    /// Loads a policy beside the one in force, with its tables: those of the same name, type and meaning are the ones in
    /// force, with their entries.
    ///
    /// # Errors
    /// The object is not usable or the kernel refuses it. Nothing has changed then.
    pub fn prepare(&mut self, new: NewPolicy<'_>) -> Result<Prepared, Error> {
        let NewPolicy { object, tables, meta } = new;
        let lock = bpffs::lock(&self.paths.bpffs)?;
        if self.pins.staging().exists() {
            self.recover()?;
        }
        let state = Known::read(&mut self.known, &self.paths, &self.name)?;
        let parsed = aya_obj::Object::parse(object).map_err(|cause| unusable(error::chain(&cause)))?;
        let shape = Object::check(&parsed, tables)?;

        let mut kept = HashMap::new();
        let mut fresh = Vec::new();
        let mut revived = Vec::new();
        let tables: Vec<TableInfo> =
            tables.iter().filter(|table| shape.kinds.contains_key(&table.name)).cloned().collect();
        for table in &tables {
            let kind = shape.kinds.get(&table.name);
            let name = table.name.clone();
            if let Some(map) = keeps(&self.pins.tables(), &state.tables, table, kind) {
                kept.insert(name, map);
            } else if let Some(map) = keeps(&self.pins.before(), &state.tables_before, table, kind) {
                revived.push(name.clone());
                kept.insert(name, map);
            } else {
                fresh.push(name);
            }
        }
        let loaded = load(parsed, |name| match (self.shared(name), kept.remove(name)) {
            (Some(shared), _) => Source::Shared(&shared.map),
            (None, Some(map)) => Source::Kept(map),
            (None, None) => Source::Fresh,
        })?;
        for table in tables.iter().filter(|table| fresh.contains(&table.name)) {
            fill(&loaded, table)?;
        }
        let generation = state.generation + 1;
        if let Some(map) = loaded.maps.get(GENERATION) {
            set_generation(map, generation)?;
        }
        shape.join_parts(&loaded)?;
        let decisions =
            loaded.maps.get(DECISIONS).map(|map| DecisionsMap::hold(&self.name, map)).transpose()?;
        Ok(Prepared {
            generation,
            tables,
            meta: meta.to_owned(),
            state,
            revived,
            fresh,
            own: shape.own,
            loaded,
            decisions,
            interface: self.name.clone(),
            _lock: lock,
        })
    }

    /// Puts a prepared policy into force and returns its generation. Packets are judged by the old policy or by the new
    /// one, never by none.
    ///
    /// # Errors
    /// The kernel or the file system refused. The policy in force before is so again, with its tables; only where pins that
    /// were made cannot be moved to their places, or the program before cannot be opened any more, the new one stays.
    pub fn commit(&mut self, prepared: Prepared) -> Result<u64, Error> {
        // The lock comes first and so goes last: what is left of the staging directory goes while it is held.
        let Prepared { _lock, generation, tables, meta, state, revived, fresh, own, loaded, .. } = prepared;
        // What can still fail is undone.
        self.set_policy_slot(Some(loaded.program(PROGRAM)?))?;
        let after = State {
            generation,
            tables: tables.clone(),
            policy: meta,
            tables_before: state.tables,
            policy_before: state.policy,
            ..state
        };
        let staged = self.stage(generation, &loaded, &fresh, &own);
        let staged = staged.and_then(|staging| after.write(&self.paths, &self.name).map(|()| staging));
        let _staging = match staged {
            Ok(staging) => staging,
            Err(error) => {
                // The pin is still that of the policy before. The error that led here is the one to report.
                drop(
                    self.policy_in_force()
                        .and_then(|before| self.set_policy_slot(before.as_ref().map(AsFd::as_fd))),
                );
                return Err(error);
            }
        };
        Known::wrote(&mut self.known, &self.paths, &self.name, after);
        self.settle(&tables, &revived)?;
        Ok(generation)
    }

    /// Pins a policy's program, and the maps that were made for it, beside those that are looked for. It judges already:
    /// what nothing in the kernel waits for comes after that.
    fn stage(
        &self,
        generation: u64,
        loaded: &Loaded,
        tables: &[String],
        own: &[String],
    ) -> Result<Staging, Error> {
        let pins = &self.pins;
        for directory in [pins.tables(), pins.before(), pins.own()] {
            std::fs::create_dir_all(&directory).map_err(Error::file("create", &directory))?;
        }
        let staging = Staging::create(pins, generation)?;
        let pin = |object: BorrowedFd<'_>, path: PathBuf| {
            sys::pin(object, &path).map_err(Error::file("pin to", &path))
        };
        pin(loaded.program(PROGRAM)?, pins.staged_policy())?;
        for (names, directory) in [(tables, staging.0.clone()), (own, pins.staged_own())] {
            for (name, map) in names.iter().filter_map(|name| loaded.maps.get_key_value(name)) {
                pin(map.as_fd(), directory.join(name))?;
            }
        }
        Ok(staging)
    }

    /// The program in force. `None`: there is none.
    pub(crate) fn policy_in_force(&self) -> Result<Option<ProgramHandle>, Error> {
        let pin = self.pins.policy();
        match ProgramHandle::from_pinned_path(&pin) {
            Ok(program) => Ok(Some(program)),
            Err(_) if !pin.exists() => Ok(None),
            Err(cause) => Err(Error::file("open", &pin)(std::io::Error::other(cause))),
        }
    }

    /// Moves what was staged to where it is looked for, and puts the tables that only the policy before had aside.
    fn settle(&self, tables: &[TableInfo], revived: &[String]) -> Result<(), Error> {
        let Interface { pins, .. } = self;
        let (kept, before, own, staging) = (pins.tables(), pins.before(), pins.own(), pins.staging());
        rename(&pins.staged_policy(), &pins.policy())?;
        for name in names(&before)?.iter().filter(|name| !revived.contains(name)) {
            remove(&before.join(name))?;
        }
        for name in revived {
            rename(&before.join(name), &staging.join(name))?;
        }
        let used: HashSet<&str> = tables.iter().map(|table| table.name.as_str()).collect();
        for name in names(&kept)? {
            if !used.contains(name.as_str()) || staging.join(&name).exists() {
                rename(&kept.join(&name), &before.join(&name))?;
            }
        }
        let staged = pins.staged_own();
        for name in names(&own)?.iter().filter(|name| !staged.join(name).exists()) {
            remove(&own.join(name))?;
        }
        self.put_staged()
    }

    /// Moves the staged pins of tables and of the policy's own maps to their places.
    pub(crate) fn put_staged(&self) -> Result<(), Error> {
        let pins = &self.pins;
        for (from, to) in [(pins.staging(), pins.tables()), (pins.staged_own(), pins.own())] {
            for name in names(&from)?.iter().filter(|name| !from.join(name).is_dir()) {
                rename(&from.join(name), &to.join(name))?;
            }
        }
        Ok(())
    }

    /// Takes the policy out: every call is delivered from now on. Its tables are put aside, for a way back.
    ///
    /// # Errors
    /// The kernel refused, or files cannot be removed.
    pub fn clear_policy(&mut self) -> Result<(), Error> {
        let _lock = bpffs::lock(&self.paths.bpffs)?;
        let state = State::read(&self.paths, &self.name)?.unwrap_or_default();
        self.set_policy_slot(None)?;
        remove(&self.pins.policy())?;
        self.cleared(state)
    }

    /// What is left to do once no program is in the slot and none is pinned.
    pub(crate) fn cleared(&self, state: State) -> Result<(), Error> {
        let (before, own) = (self.pins.before(), self.pins.own());
        remove_tree(&own).map_err(Error::file("remove", &own))?;
        if self.pins.tables().exists() {
            remove_tree(&before).map_err(Error::file("remove", &before))?;
            rename(&self.pins.tables(), &before)?;
        }
        let after = State {
            generation: state.generation + 1,
            tables: Vec::new(),
            policy: RawValue::NULL.to_owned(),
            tables_before: state.tables,
            policy_before: state.policy,
            ..state
        };
        after.write(&self.paths, &self.name)
    }

    /// Where to write what the policy in force decides per session; `None`: nothing is, or there is no policy.
    ///
    /// # Errors
    /// The pin is not what it should be.
    pub fn decisions(&self) -> Result<Option<DecisionsMap>, Error> {
        DecisionsMap::open(&self.pins.own(), &self.name)
    }

    pub(crate) fn set_policy_slot(&self, program: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        let slot = (Stage::Policy as u32).to_ne_bytes();
        match program {
            Some(program) => self.stages.set(&slot, &program.as_raw_fd().to_ne_bytes()),
            None => self.stages.remove(&slot).map(|_| ()),
        }
    }
}

pub(crate) fn rename(from: &Path, to: &Path) -> Result<(), Error> {
    std::fs::rename(from, to).map_err(Error::file("rename", from))
}

fn remove(path: &Path) -> Result<(), Error> {
    remove_file(path).map_err(Error::file("remove", path))
}

/// The names of the pins in a directory.
fn names(directory: &Path) -> Result<Vec<String>, Error> {
    let entries = std::fs::read_dir(directory).map_err(Error::file("list", directory))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

/// The pinned table, if it has the type that the new policy wants, so that its entries stay. `known` are the tables
/// whose pins the directory has.
fn keeps(
    directory: &Path,
    known: &[TableInfo],
    table: &TableInfo,
    kind: Option<&MapType>,
) -> Option<MapHandle> {
    let TableInfo { name, key_size, value_size, capacity, meaning, initial: _ } = table;
    known.iter().find(|old| old.name == *name && old.meaning == *meaning)?;
    let map = MapHandle::from_pinned_path(directory.join(name)).ok()?;
    let same = kind.is_none_or(|kind| map.map_type() == *kind)
        && (map.key_size(), map.value_size(), map.max_entries()) == (*key_size, *value_size, *capacity);
    same.then_some(map)
}

/// Gives a new cell its first value.
fn fill(loaded: &Loaded, table: &TableInfo) -> Result<(), Error> {
    let Some(map) = loaded.maps.get(&table.name) else { return Ok(()) };
    if table.initial.iter().all(|byte| *byte == 0) {
        return Ok(());
    }
    map.update(&0u32.to_ne_bytes(), &table.initial, MapFlags::ANY).map_err(|cause| {
        unusable(format!("its cell {} cannot be given its first value: {cause:#}", table.name))
    })
}

pub(crate) fn unusable(cause: String) -> Error {
    Error::Object { object: "the policy object".to_owned(), cause }
}
