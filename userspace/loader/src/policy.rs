//! Swapping policies: prepared completely beside the one in force, then put into the slot in one step.

use crate::attach::{program, shared_loader};
use crate::maps::describe;
use crate::paths::{remove_file, remove_tree};
use crate::{Error, Interface, State, bpffs, error};
use libbpf_rs::{MapCore, MapHandle, MapType, ObjectBuilder, ProgramHandle};
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::path::Path;
use std::sync::Mutex;
use tollfree_wire::maps::Stage;

/// The program of a policy object.
const PROGRAM: &str = "tf_policy";

/// A table of a policy, as the kernel sees it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct TableInfo {
    /// Its name, also the map's in the object.
    pub name: String,
    /// Bytes of a key.
    pub key_size: u32,
    /// Bytes of a value.
    pub value_size: u32,
    /// Entries it can have.
    pub capacity: u32,
}

impl Interface {
    /// Puts a policy into force and returns its generation. Packets are judged by the old policy or by the new one,
    /// never by none. Tables of the same name and type keep their entries. `meta` is kept in the state for whoever
    /// asks [`Interface::status`].
    ///
    /// # Errors
    /// The object is not usable or the kernel refuses it. The policy in force before stays so, with its tables.
    pub fn apply_policy(
        &mut self,
        object: &[u8],
        tables: &[TableInfo],
        meta: serde_json::Value,
    ) -> Result<u64, Error> {
        let _lock = bpffs::lock(&self.paths.bpffs)?;
        let mut state = State::read(&self.paths, &self.name)?.unwrap_or_default();
        let kinds = check_object(object, tables)?;
        let result = self.swap(object, tables, &kinds, &mut state, meta);
        // Left there only by a failure.
        let staging = self.pins.staging();
        remove_tree(&staging).map_err(Error::file("remove", &staging))?;
        result
    }

    fn swap(
        &mut self,
        object: &[u8],
        tables: &[TableInfo],
        kinds: &HashMap<String, MapType>,
        state: &mut State,
        meta: serde_json::Value,
    ) -> Result<u64, Error> {
        let (kept, staging) = (self.pins.tables(), self.pins.staging());
        remove_tree(&staging).map_err(Error::file("remove", &staging))?;
        for directory in [&kept, &staging] {
            std::fs::create_dir_all(directory).map_err(Error::file("create", directory))?;
        }
        let pins = &self.pins;
        let loader = self.loader.get_or_insert_with(|| shared_loader(pins));
        for table in tables {
            let name = intern(&table.name);
            let in_force = kept.join(name);
            let path = if keeps(&in_force, table, kinds.get(name)) { in_force } else { staging.join(name) };
            loader.map_pin_path(name, path);
        }
        let mut ebpf = loader.load(object).map_err(|cause| Error::Object {
            object: "the policy object".to_owned(),
            cause: error::chain(&cause),
        })?;
        let policy = program(&mut ebpf, PROGRAM)?;
        let fresh = staging.join("policy");
        policy.pin(&fresh).map_err(|cause| Error::Object {
            object: "the policy object".to_owned(),
            cause: error::chain(&cause),
        })?;

        // From here on nothing depends on the policy any more. What can still fail is undone.
        let before = ProgramHandle::from_pinned_path(self.pins.policy()).ok();
        let fd = policy.fd().map_err(|cause| Error::Object {
            object: "the policy object".to_owned(),
            cause: error::chain(&cause),
        })?;
        self.set_policy_slot(Some(fd.as_fd()))?;
        let old = std::mem::replace(
            state,
            State {
                generation: state.generation + 1,
                tables: tables.to_vec(),
                policy: meta,
                ..state.clone()
            },
        );
        if let Err(error) = state.write(&self.paths, &self.name) {
            *state = old;
            // The error that led here is the one to report.
            drop(self.set_policy_slot(before.as_ref().map(AsFd::as_fd)));
            return Err(error);
        }
        self.settle(tables)?;
        Ok(state.generation)
    }

    /// Moves what was staged to where it is looked for, and removes tables that no policy uses any more.
    fn settle(&self, tables: &[TableInfo]) -> Result<(), Error> {
        let (kept, staging) = (self.pins.tables(), self.pins.staging());
        let fresh = staging.join("policy");
        std::fs::rename(&fresh, self.pins.policy()).map_err(Error::file("rename", &fresh))?;
        for table in tables {
            let path = staging.join(&table.name);
            if path.exists() {
                std::fs::rename(&path, kept.join(&table.name)).map_err(Error::file("rename", &path))?;
            }
        }
        let used: HashSet<&str> = tables.iter().map(|table| table.name.as_str()).collect();
        for name in self.tables()?.iter().filter(|name| !used.contains(name.as_str())) {
            let path = kept.join(name);
            remove_file(&path).map_err(Error::file("remove", &path))?;
        }
        Ok(())
    }

    /// Takes the policy out: every call is delivered from now on. Its tables go with it.
    ///
    /// # Errors
    /// The kernel refused, or files cannot be removed.
    pub fn clear_policy(&mut self) -> Result<(), Error> {
        let _lock = bpffs::lock(&self.paths.bpffs)?;
        let state = State::read(&self.paths, &self.name)?.unwrap_or_default();
        self.set_policy_slot(None)?;
        let (policy, tables) = (self.pins.policy(), self.pins.tables());
        remove_file(&policy).map_err(Error::file("remove", &policy))?;
        remove_tree(&tables).map_err(Error::file("remove", &tables))?;
        let generation = state.generation + 1;
        State { generation, tables: Vec::new(), policy: serde_json::Value::Null, ..state }
            .write(&self.paths, &self.name)
    }

    fn set_policy_slot(&self, program: Option<BorrowedFd<'_>>) -> Result<(), Error> {
        let slot = (Stage::Policy as u32).to_ne_bytes();
        match program {
            Some(program) => self.stages.set(&slot, &program.as_raw_fd().to_ne_bytes()),
            None => self.stages.remove(&slot).map(|_| ()),
        }
    }
}

/// Whether the table in force has the type that the new policy wants, so that its entries stay.
fn keeps(pin: &Path, table: &TableInfo, kind: Option<&MapType>) -> bool {
    let TableInfo { name: _, key_size, value_size, capacity } = table;
    MapHandle::from_pinned_path(pin).is_ok_and(|map| {
        kind.is_none_or(|kind| map.map_type() == *kind)
            && (map.key_size(), map.value_size(), map.max_entries()) == (*key_size, *value_size, *capacity)
    })
}

/// Checks what the object says of its maps against what they will be, since aya takes a pin for what the object says.
/// Returns the tables' map types.
fn check_object(object: &[u8], tables: &[TableInfo]) -> Result<HashMap<String, MapType>, Error> {
    let mut kinds = HashMap::new();
    let unusable = |cause: String| Error::Object { object: "the policy object".to_owned(), cause };
    let open = crate::verify::silently(|| ObjectBuilder::default().open_memory(object))
        .map_err(|cause| unusable(format!("{cause:#}")))?;
    if !open.progs().any(|program| program.name() == PROGRAM) {
        return Err(unusable(format!("it has no program {PROGRAM}")));
    }
    for map in open.maps() {
        let name = map.name().to_string_lossy().into_owned();
        if crate::maps::check_definition(&map).map_err(unusable)? {
            continue;
        }
        let found = (map.map_type(), map.key_size(), map.value_size(), map.max_entries());
        let Some(table) = tables.iter().find(|table| table.name == name) else {
            return Err(unusable(format!("its map {name} is neither shared nor a table of the policy")));
        };
        if name.is_empty() || name.contains(['/', '.']) || name == "policy" {
            return Err(unusable(format!("a table cannot be called {name:?}")));
        }
        let TableInfo { name: _, key_size, value_size, capacity } = table;
        if (found.1, found.2, found.3) != (*key_size, *value_size, *capacity) {
            return Err(unusable(format!(
                "its table {name} has {}, but is described as {}",
                describe(found.0, found.1, found.2, found.3),
                describe(found.0, *key_size, *value_size, *capacity)
            )));
        }
        kinds.insert(name, found.0);
    }
    Ok(kinds)
}

/// A table's name for as long as the process lives: the loader, which is kept, wants to borrow it that long. Names
/// come from policies that an operator wrote, so there are few, and each is kept once.
fn intern(name: &str) -> &'static str {
    static NAMES: Mutex<Option<HashSet<&'static str>>> = Mutex::new(None);
    let mut names = NAMES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let names = names.get_or_insert_with(HashSet::new);
    if let Some(known) = names.get(name) {
        return known;
    }
    let name: &'static str = Box::leak(name.to_owned().into_boxed_str());
    names.insert(name);
    name
}
