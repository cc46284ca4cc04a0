//! The tables of the policy in force, as bytes. What the bytes mean is the policy compiler's business.

use crate::maps::SharedMap;
use crate::{Error, Interface};
use libbpf_rs::{MapCore, MapFlags, MapHandle, MapType};

/// A key and its value.
pub type Entry = (Vec<u8>, Vec<u8>);

impl Interface {
    /// The names of the tables, sorted.
    ///
    /// # Errors
    /// The pins cannot be listed.
    pub fn tables(&self) -> Result<Vec<String>, Error> {
        let folder = self.pins.tables();
        let entries = match std::fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(cause) => return Err(Error::File { operation: "list", path: folder, cause }),
        };
        let mut names: Vec<String> =
            entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect();
        names.sort();
        Ok(names)
    }

    fn table(&self, name: &str) -> Result<SharedMap, Error> {
        let known = self.tables()?;
        if !known.iter().any(|one| one == name) {
            return Err(Error::NoTable { interface: self.name.clone(), table: name.to_owned(), known });
        }
        let map = MapHandle::from_pinned_path(self.pins.tables().join(name)).map_err(|cause| Error::Map {
            operation: "open",
            map: name.to_owned(),
            interface: self.name.clone(),
            cause: cause.to_string(),
        })?;
        Ok(SharedMap { interface: self.name.clone(), name: name.to_owned(), map })
    }

    /// Sets an entry.
    ///
    /// # Errors
    /// No such table, a wrong size, a full table, or a counter, which is only added to.
    pub fn table_set(&self, table: &str, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let map = self.table(table)?;
        check(table, "key", map.map.key_size(), key)?;
        check(table, "value", map.map.value_size(), value)?;
        if is_counter(&map.map) {
            return Err(Error::Counter { table: table.to_owned() });
        }
        map.set(key, value)
    }

    /// An entry's value, if there is one; of a counter the sum over all CPUs.
    ///
    /// # Errors
    /// No such table, or a wrong size.
    pub fn table_get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let map = self.table(table)?;
        check(table, "key", map.map.key_size(), key)?;
        get(&map, key)
    }

    /// Removes an entry; whether there was one. A counter starts again at 0.
    ///
    /// # Errors
    /// No such table, a wrong size, or a cell, which always has a value.
    pub fn table_delete(&self, table: &str, key: &[u8]) -> Result<bool, Error> {
        let map = self.table(table)?;
        check(table, "key", map.map.key_size(), key)?;
        match map.map.map_type() {
            MapType::Array => Err(Error::Cell { table: table.to_owned() }),
            MapType::PercpuArray => {
                let cpus = libbpf_rs::num_possible_cpus().map_err(map.failed("update"))?;
                let zeros = vec![vec![0; map.map.value_size() as usize]; cpus];
                map.map.update_percpu(key, &zeros, MapFlags::ANY).map_err(map.failed("update"))?;
                Ok(true)
            }
            _ => map.remove(key),
        }
    }

    /// Every entry. Entries that change meanwhile may be missing.
    ///
    /// # Errors
    /// No such table, or the kernel refused a lookup.
    pub fn table_dump(&self, table: &str) -> Result<Vec<Entry>, Error> {
        let map = self.table(table)?;
        let mut entries = Vec::new();
        for key in map.map.keys() {
            if let Some(value) = get(&map, &key)? {
                entries.push((key, value));
            }
        }
        Ok(entries)
    }
}

/// Whether each CPU has numbers of its own in it.
pub(crate) fn is_counter(map: &MapHandle) -> bool {
    matches!(map.map_type(), MapType::PercpuArray | MapType::PercpuHash | MapType::LruPercpuHash)
}

fn get(map: &SharedMap, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
    if !is_counter(&map.map) {
        return map.get(key);
    }
    let values = map.map.lookup_percpu(key, MapFlags::ANY).map_err(map.failed("read"))?;
    Ok(values.map(sum))
}

/// The sum of what the CPUs have.
pub(crate) fn sum(values: Vec<Vec<u8>>) -> Vec<u8> {
    let numbers = values.iter().filter_map(|value| bytemuck::try_pod_read_unaligned::<u64>(value).ok());
    numbers.fold(0u64, u64::saturating_add).to_ne_bytes().to_vec()
}

/// A table that is written while calls run: held open, so that a write is one system call.
#[derive(Debug)]
pub struct Table(SharedMap);

impl Table {
    pub(crate) fn new(interface: &str, name: &str, map: &MapHandle) -> Result<Table, Error> {
        let map = MapHandle::try_from(map).map_err(|cause| Error::Map {
            operation: "open",
            map: name.to_owned(),
            interface: interface.to_owned(),
            cause: cause.to_string(),
        })?;
        Ok(Table(SharedMap { interface: interface.to_owned(), name: name.to_owned(), map }))
    }

    /// Sets an entry.
    ///
    /// # Errors
    /// A full table, or bytes of another size.
    pub fn set(&self, key: &[u8], value: &[u8]) -> Result<(), Error> {
        check(&self.0.name, "key", self.0.map.key_size(), key)?;
        check(&self.0.name, "value", self.0.map.value_size(), value)?;
        self.0.set(key, value)
    }

    /// Removes an entry; whether there was one.
    ///
    /// # Errors
    /// The kernel refused it.
    pub fn delete(&self, key: &[u8]) -> Result<bool, Error> {
        check(&self.0.name, "key", self.0.map.key_size(), key)?;
        self.0.remove(key)
    }

    /// Removes every entry.
    ///
    /// # Errors
    /// The kernel refused it.
    pub fn clear(&self) -> Result<(), Error> {
        let keys: Vec<Vec<u8>> = self.0.map.keys().collect();
        keys.iter().try_for_each(|key| self.0.remove(key).map(drop))
    }
}

fn check(table: &str, part: &'static str, wanted: u32, bytes: &[u8]) -> Result<(), Error> {
    if bytes.len() == wanted as usize {
        return Ok(());
    }
    Err(Error::Size { table: table.to_owned(), part, wanted, found: bytes.len() })
}
