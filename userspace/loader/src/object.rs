//! What a policy's object is made of, checked before any of it reaches the kernel.

use crate::Error;
use crate::load::Loaded;
use crate::maps::{Definition, describe};
use crate::policy::{TableInfo, unusable};
use libbpf_rs::{MapCore, MapFlags, MapType};
use std::collections::HashMap;
use std::os::fd::AsRawFd;
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
    /// Checks what the object says of its maps against what they will be: one that is there already is not asked.
    pub fn check(parsed: &aya_obj::Object, tables: &[TableInfo]) -> Result<Object, Error> {
        let mut found = Object { programs: parsed.programs.keys().cloned().collect(), ..Object::default() };
        found.programs.sort();
        if !found.programs.iter().any(|name| name == PROGRAM) {
            return Err(unusable(format!("it has no program {PROGRAM}")));
        }
        if let Some(stranger) = found.programs.iter().find(|name| *name != PROGRAM && part(name).is_none()) {
            return Err(unusable(format!("its program {stranger} is no part of a policy")));
        }
        let is_xdp = |program: &aya_obj::Program| {
            matches!(program.section, aya_obj::ProgramSection::Xdp { frags: false, .. })
        };
        if let Some((other, _)) = parsed.programs.iter().find(|(_, program)| !is_xdp(program)) {
            return Err(unusable(format!("its program {other} is not an XDP program of single buffers")));
        }
        for (name, map) in &parsed.maps {
            found.take(name, map.into(), tables)?;
        }
        Ok(found)
    }

    fn take(&mut self, name: &str, map: Definition, tables: &[TableInfo]) -> Result<(), Error> {
        if crate::maps::check_definition(name, map).map_err(unusable)? {
            return Ok(());
        }
        let Definition { kind, key, value, capacity: entries } = map;
        if let Some(table) = tables.iter().find(|table| table.name == name) {
            if name.is_empty() || name.contains(['/', '.']) || name == "policy" || name == "own" {
                return Err(unusable(format!("a table cannot be called {name:?}")));
            }
            let TableInfo { key_size, value_size, capacity, .. } = table;
            if (key, value, entries) != (*key_size, *value_size, *capacity) {
                return Err(unusable(format!(
                    "its table {name} has {}, but is described as {}",
                    describe(kind, key, value, entries),
                    describe(kind, *key_size, *value_size, *capacity)
                )));
            }
            self.kinds.insert(name.to_owned(), kind);
            return Ok(());
        }
        let fits = match (name, kind) {
            (DECISIONS, MapType::Array) => value >= 4 && entries == SESSION_SLOTS,
            (SCRATCH, MapType::PercpuArray) => entries == 1,
            (GENERATION, MapType::Array) => value == 8 && entries == 1,
            (_, MapType::ProgArray) if self.parts.is_none() => {
                self.parts = Some(name.to_owned());
                true
            }
            _ => return Err(unusable(format!("its map {name} is neither shared nor a table of the policy"))),
        };
        if !fits {
            let found = describe(kind, key, value, entries);
            return Err(unusable(format!("its map {name} has {found}")));
        }
        self.own.push(name.to_owned());
        Ok(())
    }

    /// Fills the slots by which the policy's parts go on in one another.
    pub fn join_parts(&self, loaded: &Loaded) -> Result<(), Error> {
        let Some(map) = self.parts.as_ref().and_then(|parts| loaded.maps.get(parts)) else { return Ok(()) };
        for name in &self.programs {
            let Some(slot) = part(name) else { continue };
            let fd = loaded.program(name)?.as_raw_fd();
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
