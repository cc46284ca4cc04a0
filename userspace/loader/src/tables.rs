//! The tables of the policy in force, as bytes. What the bytes mean is the policy compiler's business.

use crate::maps::SharedMap;
use crate::{Error, Interface};
use libbpf_rs::{MapCore, MapHandle};

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
    /// No such table, a wrong size, or a full table.
    pub fn table_set(&self, table: &str, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let map = self.table(table)?;
        check(table, "key", map.map.key_size(), key)?;
        check(table, "value", map.map.value_size(), value)?;
        map.set(key, value)
    }

    /// An entry's value, if there is one.
    ///
    /// # Errors
    /// No such table, or a wrong size.
    pub fn table_get(&self, table: &str, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let map = self.table(table)?;
        check(table, "key", map.map.key_size(), key)?;
        map.get(key)
    }

    /// Removes an entry; whether there was one.
    ///
    /// # Errors
    /// No such table, or a wrong size.
    pub fn table_delete(&self, table: &str, key: &[u8]) -> Result<bool, Error> {
        let map = self.table(table)?;
        check(table, "key", map.map.key_size(), key)?;
        map.remove(key)
    }

    /// Every entry. Entries that change meanwhile may be missing.
    ///
    /// # Errors
    /// No such table, or the kernel refused a lookup.
    pub fn table_dump(&self, table: &str) -> Result<Vec<Entry>, Error> {
        let map = self.table(table)?;
        let mut entries = Vec::new();
        for key in map.map.keys() {
            if let Some(value) = map.get(&key)? {
                entries.push((key, value));
            }
        }
        Ok(entries)
    }
}

fn check(table: &str, part: &'static str, wanted: u32, bytes: &[u8]) -> Result<(), Error> {
    if bytes.len() == wanted as usize {
        return Ok(());
    }
    Err(Error::Size { table: table.to_owned(), part, wanted, found: bytes.len() })
}
