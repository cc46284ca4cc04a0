//! The shared maps from user space: what they must look like, and how an interface's are opened.

use crate::Error;
use crate::paths::Pins;
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType, OpenMap};
use tollfree_wire::frame::Address;
use tollfree_wire::maps::{self, Answer, CallContext, Config, LayoutKey, PeerEntry, Stage};
use tollfree_wire::session::SESSION_SLOTS;
use tollfree_wire::{Reason, SessionEntry};

/// What a map must be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub name: &'static str,
    pub kind: MapType,
    pub key: u32,
    pub value: u32,
    pub capacity: u32,
}

const fn shape(name: &'static str, kind: MapType, key: usize, value: usize, capacity: u32) -> Shape {
    Shape { name, kind, key: key as u32, value: value as u32, capacity }
}

/// Every shared map.
pub(crate) const SHARED: [Shape; 10] = [
    shape(maps::CONFIG, MapType::Array, 4, size_of::<Config>(), 1),
    shape(maps::SESSIONS, MapType::Array, 4, size_of::<SessionEntry>(), SESSION_SLOTS),
    shape(maps::STAGES, MapType::ProgArray, 4, 4, Stage::COUNT),
    shape(maps::SOCKETS, MapType::Xskmap, 4, 4, maps::QUEUES_MAX),
    shape(maps::REASONS, MapType::PercpuArray, 4, 8, Reason::COUNT as u32),
    shape(maps::CALL, MapType::PercpuArray, 4, size_of::<CallContext>(), 1),
    shape(maps::ANSWER, MapType::PercpuArray, 4, size_of::<Answer>(), 1),
    shape(maps::PEERS, MapType::Array, 4, size_of::<PeerEntry>(), SESSION_SLOTS),
    shape(maps::LAYOUTS, MapType::Hash, size_of::<LayoutKey>(), 4, maps::LAYOUTS_MAX),
    shape(maps::ADDRESSES, MapType::Hash, size_of::<Address>(), 1, maps::ADDRESSES_MAX),
];

/// Refuses pins that are not what the programs will take them for. aya opens a pin without looking at it.
pub(crate) fn check_pins(pins: &Pins) -> Result<(), Error> {
    for shape in SHARED {
        let path = pins.map(shape.name);
        if !path.exists() {
            continue;
        }
        let map = MapHandle::from_pinned_path(&path).map_err(|cause| Error::Object {
            object: path.display().to_string(),
            cause: cause.to_string(),
        })?;
        let Shape { name: _, kind, key, value, capacity } = shape;
        if (map.map_type(), map.key_size(), map.value_size(), map.max_entries())
            != (kind, key, value, capacity)
        {
            return Err(Error::PinMismatch {
                path,
                found: describe(map.map_type(), map.key_size(), map.value_size(), map.max_entries()),
                wanted: describe(kind, key, value, capacity),
            });
        }
    }
    Ok(())
}

/// What an object says of a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Definition {
    pub kind: MapType,
    pub key: u32,
    pub value: u32,
    pub capacity: u32,
}

impl From<&OpenMap<'_>> for Definition {
    fn from(map: &OpenMap<'_>) -> Definition {
        let (kind, key) = (map.map_type(), map.key_size());
        Definition { kind, key, value: map.value_size(), capacity: map.max_entries() }
    }
}

impl From<&aya_obj::Map> for Definition {
    fn from(map: &aya_obj::Map) -> Definition {
        let (kind, key) = (MapType::from(map.map_type()), map.key_size());
        Definition { kind, key, value: map.value_size(), capacity: map.max_entries() }
    }
}

/// Whether an object's map is a shared one; `Err` if it is, but defined otherwise: aya takes a pin for what the object
/// says.
pub(crate) fn check_definition(name: &str, found: Definition) -> Result<bool, String> {
    let Some(shape) = SHARED.iter().find(|shape| name == shape.name) else { return Ok(false) };
    let Shape { name, kind, key, value, capacity } = *shape;
    let found = (found.kind, found.key, found.value, found.capacity);
    if found == (kind, key, value, capacity) {
        return Ok(true);
    }
    Err(format!(
        "its map {name} has {}, but this version uses {}",
        describe(found.0, found.1, found.2, found.3),
        describe(kind, key, value, capacity)
    ))
}

/// A map's shape in words.
pub(crate) fn describe(kind: MapType, key: u32, value: u32, capacity: u32) -> String {
    format!("type {kind:?}, {key}-byte keys, {value}-byte values and {capacity} entries")
}

/// A shared map with the names that errors need.
#[derive(Debug)]
pub(crate) struct SharedMap {
    pub interface: String,
    pub name: String,
    pub map: MapHandle,
}

impl SharedMap {
    /// Opens an interface's map by its pin.
    pub fn open(pins: &Pins, interface: &str, name: &str) -> Result<SharedMap, Error> {
        let map = MapHandle::from_pinned_path(pins.map(name)).map_err(|cause| Error::Map {
            operation: "open",
            map: name.to_owned(),
            interface: interface.to_owned(),
            cause: cause.to_string(),
        })?;
        Ok(SharedMap { interface: interface.to_owned(), name: name.to_owned(), map })
    }

    pub fn failed(&self, operation: &'static str) -> impl FnOnce(libbpf_rs::Error) -> Error {
        let (map, interface) = (self.name.clone(), self.interface.clone());
        move |cause| Error::Map { operation, map, interface, cause: format!("{cause:#}") }
    }

    pub fn set(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        self.map.update(key, value, MapFlags::ANY).map_err(self.failed("update"))
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        self.map.lookup(key, MapFlags::ANY).map_err(self.failed("read"))
    }

    /// Removes a key; whether it was there.
    pub fn remove(&self, key: &[u8]) -> Result<bool, Error> {
        match self.map.delete(key) {
            Ok(()) => Ok(true),
            Err(cause) if cause.kind() == libbpf_rs::ErrorKind::NotFound => Ok(false),
            Err(cause) => Err(self.failed("delete from")(cause)),
        }
    }
}
