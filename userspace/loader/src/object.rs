//! What a policy's object is made of, checked before any of it reaches the kernel.

use crate::Error;
use crate::attach::program;
use crate::maps::describe;
use crate::policy::{TableInfo, unusable};
use aya::Ebpf;
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, ObjectBuilder, OpenMap};
use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use tollfree_wire::maps::{DECISIONS, GENERATION, SCRATCH};
use tollfree_wire::session::SESSION_SLOTS;

/// The program that the root program goes on in.
pub(crate) const PROGRAM: &str = "tf_policy";

/// The parts of a policy's object.
#[derive(Debug, Default)]
pub(crate) struct Object {
    /// The tables' map types.
    pub kinds: HashMap<String, MapType>,
    /// The maps that are neither shared nor tables.
    pub own: Vec<String>,
    /// Of those the one that joins the policy's parts.
    parts: Option<String>,
    /// The programs: [`PROGRAM`] and, of a policy too long for one program, `tf_policy_1` and so on.
    pub programs: Vec<String>,
}

impl Object {
    /// Checks what the object says of its maps against what they will be, since aya takes a pin for what the object says.
    pub fn check(object: &[u8], tables: &[TableInfo]) -> Result<Object, Error> {
        let open = crate::verify::silently(|| ObjectBuilder::default().open_memory(object))
            .map_err(|cause| unusable(format!("{cause:#}")))?;
        let mut found = Object {
            programs: open.progs().map(|program| program.name().to_string_lossy().into_owned()).collect(),
            ..Object::default()
        };
        if !found.programs.iter().any(|name| name == PROGRAM) {
            return Err(unusable(format!("it has no program {PROGRAM}")));
        }
        if let Some(stranger) = found.programs.iter().find(|name| *name != PROGRAM && part(name).is_none()) {
            return Err(unusable(format!("its program {stranger} is no part of a policy")));
        }
        for map in open.maps() {
            found.take(&map, tables)?;
        }
        Ok(found)
    }

    fn take(&mut self, map: &OpenMap<'_>, tables: &[TableInfo]) -> Result<(), Error> {
        let name = map.name().to_string_lossy().into_owned();
        if crate::maps::check_definition(map).map_err(unusable)? {
            return Ok(());
        }
        if let Some(table) = tables.iter().find(|table| table.name == name) {
            if name.is_empty() || name.contains(['/', '.']) || name == "policy" || name == "own" {
                return Err(unusable(format!("a table cannot be called {name:?}")));
            }
            let shape = (map.map_type(), map.key_size(), map.value_size(), map.max_entries());
            let TableInfo { key_size, value_size, capacity, .. } = table;
            if (shape.1, shape.2, shape.3) != (*key_size, *value_size, *capacity) {
                return Err(unusable(format!(
                    "its table {name} has {}, but is described as {}",
                    describe(shape.0, shape.1, shape.2, shape.3),
                    describe(shape.0, *key_size, *value_size, *capacity)
                )));
            }
            self.kinds.insert(name, shape.0);
            return Ok(());
        }
        let fits = match (name.as_str(), map.map_type()) {
            (DECISIONS, MapType::Array) => map.value_size() >= 4 && map.max_entries() == SESSION_SLOTS,
            (SCRATCH, MapType::PercpuArray) => map.max_entries() == 1,
            (GENERATION, MapType::Array) => map.value_size() == 8 && map.max_entries() == 1,
            (_, MapType::ProgArray) if self.parts.is_none() => {
                self.parts = Some(name.clone());
                true
            }
            _ => return Err(unusable(format!("its map {name} is neither shared nor a table of the policy"))),
        };
        if !fits {
            let found = describe(map.map_type(), map.key_size(), map.value_size(), map.max_entries());
            return Err(unusable(format!("its map {name} has {found}")));
        }
        self.own.push(name);
        Ok(())
    }

    /// Fills the slots by which the policy's parts go on in one another. `own` has the pins of the policy's own maps.
    pub fn join_parts(&self, own: &Path, ebpf: &mut Ebpf) -> Result<(), Error> {
        let Some(parts) = &self.parts else { return Ok(()) };
        let map =
            MapHandle::from_pinned_path(own.join(parts)).map_err(|cause| unusable(format!("{cause:#}")))?;
        for name in &self.programs {
            let Some(slot) = part(name) else { continue };
            let fd = program(ebpf, name)?.fd().map_err(|cause| unusable(crate::error::chain(&cause)))?;
            let fd = fd.as_fd().as_raw_fd();
            map.update(&slot.to_ne_bytes(), &fd.to_ne_bytes(), MapFlags::ANY)
                .map_err(|cause| unusable(format!("its part {name} finds no slot: {cause:#}")))?;
        }
        Ok(())
    }
}

/// The slot of a part of a policy, by its program's name.
pub(crate) fn part(name: &str) -> Option<u32> {
    name.strip_prefix(PROGRAM)?.strip_prefix('_')?.parse().ok()
}
