//! Where an interface's pins and state are.

use std::path::{Path, PathBuf};

/// The two directories that Tollfree owns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// Pins: on a BPF file system, mounted where it is missing.
    pub bpffs: PathBuf,
    /// State files: `<ifname>.json`.
    pub state: PathBuf,
}

impl Default for Paths {
    fn default() -> Paths {
        Paths { bpffs: "/sys/fs/bpf/tollfree".into(), state: "/run/tollfree".into() }
    }
}

impl Paths {
    /// The state file of an interface.
    pub(crate) fn state_file(&self, interface: &str) -> PathBuf {
        self.state.join(format!("{interface}.json"))
    }

    /// The pins of an interface.
    pub(crate) fn pins(&self, interface: &str) -> Pins {
        // bpffs allows no dots in names, interfaces do (VLANs have one); `~` is free in neither's practice.
        Pins { root: self.bpffs.join(interface.replace('.', "~")) }
    }

    /// The interface whose pins are in a directory of this name.
    pub(crate) fn interface(directory: &str) -> String {
        directory.replace('~', ".")
    }
}

/// The files below an interface's directory.
#[derive(Clone, Debug)]
pub(crate) struct Pins {
    /// The directory.
    pub root: PathBuf,
}

impl Pins {
    /// The link that keeps the root program attached.
    pub fn link(&self) -> PathBuf {
        self.root.join("link")
    }

    /// The policy in force.
    pub fn policy(&self) -> PathBuf {
        self.root.join("policy")
    }

    /// A shared map, by its name.
    pub fn map(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// One of our programs, by its name.
    pub fn program(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    /// The tables of the policy in force.
    pub fn tables(&self) -> PathBuf {
        self.root.join("tables")
    }

    /// The tables that only the policy before the one in force had.
    pub fn before(&self) -> PathBuf {
        self.root.join("before")
    }

    /// The maps that the policy in force has to itself.
    pub fn own(&self) -> PathBuf {
        self.root.join("own")
    }

    /// The maps that a policy has to itself whose pins are not in their places yet.
    pub fn staged_own(&self) -> PathBuf {
        self.staging().join("own")
    }

    /// The program of a policy that judges already.
    pub fn staged_policy(&self) -> PathBuf {
        self.staging().join("policy")
    }

    /// Is there while pins of this generation's policy are on their way.
    pub fn staged_generation(&self, generation: u64) -> PathBuf {
        self.staging().join(generation.to_string())
    }

    /// Pins of a policy that judges already, on their way to their places.
    pub fn staging(&self) -> PathBuf {
        self.root.join("staging")
    }
}

/// Removes a directory of pins and everything in it.
pub(crate) fn remove_tree(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Removes one file, if it is there.
pub(crate) fn remove_file(path: &Path) -> std::io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
