//! Where things are unless told otherwise, and how the eBPF object is found.

use anyhow::{Result, bail};
use std::path::{Path, PathBuf};

/// Sockets and records of attached interfaces.
pub const STATE_DIR: &str = "/run/tollfree";
/// Pins.
pub const BPFFS: &str = "/sys/fs/bpf/tollfree";
/// The applications' socket in the state directory.
pub const APP_SOCKET: &str = "app.sock";
/// The commands' socket in the state directory.
pub const ADMIN_SOCKET: &str = "admin.sock";
/// Held by a running daemon, in the state directory.
pub const LOCK: &str = "daemon.lock";
/// Which policies are in force, in the state directory.
pub const POLICIES: &str = "policies.json";
/// Name of the file with the compiled XDP programs.
pub const OBJECT: &str = "tollfree.bpf.o";

/// Where this host keeps Tollfree's sockets, records and pins.
#[derive(Clone, Debug)]
pub struct Places {
    /// Sockets and records.
    pub state: PathBuf,
    /// Pins.
    pub bpffs: PathBuf,
}

impl Places {
    /// As told, else the defaults.
    pub fn new(state: Option<PathBuf>, bpffs: Option<PathBuf>) -> Places {
        Places {
            state: state.unwrap_or_else(|| STATE_DIR.into()),
            bpffs: bpffs.unwrap_or_else(|| BPFFS.into()),
        }
    }

    /// The socket that commands speak to.
    pub fn admin_socket(&self) -> PathBuf {
        self.state.join(ADMIN_SOCKET)
    }

    /// The same for the loader.
    pub fn loader(&self) -> tollfree_loader::Paths {
        tollfree_loader::Paths { bpffs: self.bpffs.clone(), state: self.state.clone() }
    }
}

/// Where the compiled XDP programs are: as told, else beside the binary, in the
/// `target/ebpf` that the binary was built in, or installed.
///
/// # Errors
/// When there is no such file; says where was looked and what to do.
pub fn object(told: Option<&Path>) -> Result<PathBuf> {
    if let Some(path) = told {
        if path.is_file() {
            return Ok(path.to_owned());
        }
        bail!("{} does not exist; `cargo xtask build-ebpf` builds the XDP programs", path.display());
    }
    let candidates = candidates();
    if let Some(found) = candidates.iter().find(|path| path.is_file()) {
        return Ok(found.clone());
    }
    let searched: Vec<String> = candidates.iter().map(|path| path.display().to_string()).collect();
    bail!(
        "the compiled XDP programs ({OBJECT}) are in none of {}; build them with `cargo xtask build-ebpf`, or name \
         them by --object or, for the daemon, `object`",
        searched.join(", ")
    )
}

/// Never the working directory: whoever owns that must not choose what root loads into the kernel.
fn candidates() -> Vec<PathBuf> {
    let mut candidates = Vec::new();
    if let Ok(binary) = std::env::current_exe() {
        for folder in binary.ancestors().skip(1).take(3) {
            candidates.push(folder.join(OBJECT));
            candidates.push(folder.join("ebpf").join(OBJECT));
        }
    }
    candidates.push(PathBuf::from("/usr/lib/tollfree").join(OBJECT));
    candidates
}
