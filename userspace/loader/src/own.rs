//! The maps that each policy has to itself besides its tables: they are filled before it comes into force, and go with
//! it.

use crate::Error;
use crate::policy::unusable;
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use std::path::Path;
use tollfree_wire::maps::DECISIONS;
use tollfree_wire::session::place;

/// Writes a policy's generation where it reads it.
pub(crate) fn set_generation(map: &MapHandle, generation: u64) -> Result<(), Error> {
    map.update(&0u32.to_ne_bytes(), &generation.to_ne_bytes(), MapFlags::ANY)
        .map_err(|cause| unusable(format!("its generation cannot be set: {cause:#}")))
}

/// Where a policy finds what was decided for each session.
#[derive(Debug)]
pub struct DecisionsMap {
    interface: String,
    map: MapHandle,
}

impl DecisionsMap {
    /// A hold on a map.
    pub(crate) fn hold(interface: &str, map: &MapHandle) -> Result<DecisionsMap, Error> {
        let map = MapHandle::try_from(map).map_err(failed(interface, "open"))?;
        Ok(DecisionsMap { interface: interface.to_owned(), map })
    }

    pub(crate) fn open(pins: &Path, interface: &str) -> Result<Option<DecisionsMap>, Error> {
        let path = pins.join(DECISIONS);
        if !path.exists() {
            return Ok(None);
        }
        let map = MapHandle::from_pinned_path(&path).map_err(failed(interface, "open"))?;
        Ok(Some(DecisionsMap { interface: interface.to_owned(), map }))
    }

    /// Bytes that are decided per session.
    pub fn size(&self) -> usize {
        (self.map.value_size() as usize).saturating_sub(4)
    }

    /// Writes what was decided for a session, given by its index.
    ///
    /// # Errors
    /// Another size than [`DecisionsMap::size`], or the kernel refused the update.
    pub fn set(&self, session: u32, decided: &[u8]) -> Result<(), Error> {
        let value = [&session.to_ne_bytes(), decided].concat();
        self.map
            .update(&place(session).to_ne_bytes(), &value, MapFlags::ANY)
            .map_err(failed(&self.interface, "update"))
    }

    /// A second hold on the same map.
    ///
    /// # Errors
    /// The process is out of file descriptors.
    pub fn try_clone(&self) -> Result<DecisionsMap, Error> {
        DecisionsMap::hold(&self.interface, &self.map)
    }
}

fn failed(interface: &str, operation: &'static str) -> impl FnOnce(libbpf_rs::Error) -> Error {
    let interface = interface.to_owned();
    move |cause| Error::Map { operation, map: DECISIONS.to_owned(), interface, cause: format!("{cause:#}") }
}
