//! Network interfaces by name: whether there is such a one, before anything else is tried.

use anyhow::{Result, bail};
use nix::net::if_::{if_nameindex, if_nametoindex};
use std::path::{Path, PathBuf};

/// The index of the interface of this name in this network namespace.
pub fn index(name: &str) -> Option<u32> {
    if_nametoindex(name).ok()
}

/// Refuses a name that no interface has.
///
/// # Errors
/// Names the interfaces there are.
pub fn require(name: &str) -> Result<()> {
    if index(name).is_some() {
        return Ok(());
    }
    let known: Vec<String> = if_nameindex()
        .iter()
        .flat_map(|all| all.iter())
        .map(|interface| interface.name().to_string_lossy().into_owned())
        .collect();
    bail!("there is no network interface {name} here; there are {}", known.join(", "));
}

/// One of the interface's attributes, such as `mtu` or `operstate`, where sysfs shows this network namespace.
pub fn attribute(name: &str, attribute: &str) -> Option<String> {
    read(&folder(name)?, attribute)
}

/// How many receive queues it has, where sysfs shows this network namespace.
pub fn receive_queues(name: &str) -> Option<usize> {
    let entries = std::fs::read_dir(folder(name)?.join("queues")).ok()?.flatten();
    Some(entries.filter(|entry| entry.file_name().to_string_lossy().starts_with("rx-")).count())
}

/// sysfs shows the namespace it was mounted in, which need not be ours: the index tells.
fn folder(name: &str) -> Option<PathBuf> {
    let ours = index(name)?;
    let folder = Path::new("/sys/class/net").join(name);
    (read(&folder, "ifindex")?.parse() == Ok(ours)).then_some(folder)
}

fn read(folder: &Path, attribute: &str) -> Option<String> {
    std::fs::read_to_string(folder.join(attribute)).ok().map(|text| text.trim().to_owned())
}
