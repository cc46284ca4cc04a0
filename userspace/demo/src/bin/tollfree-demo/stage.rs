//! Two hosts for one run, where no other run is.

use anyhow::Result;
use std::path::{Path, PathBuf};
use tollfree_demo::cli::Programs;
use tollfree_demo::host::{Hosts, Place};
use tollfree_demo::leftovers;

/// The hosts, and what keeps others away from them.
pub struct Stage {
    pub hosts: Hosts,
    /// For files of the run; goes with the hosts.
    pub folder: PathBuf,
    /// What an earlier run had left behind.
    pub swept: Vec<String>,
    /// The last to go.
    pub lock: leftovers::Lock,
}

impl Stage {
    /// Removes what an earlier run has left, and makes hosts at a place that is named by this prefix.
    ///
    /// # Errors
    /// When another run is under way, or hosts cannot be had.
    pub fn set(place: fn(String) -> Place, programs: &Programs) -> Result<Stage> {
        let lock = leftovers::Lock::take()?;
        let swept = leftovers::sweep(&lock)?;
        let prefix = leftovers::DEMO;
        let folder = Path::new(leftovers::FOLDER).join(prefix);
        let bpffs = Path::new(leftovers::BPFFS).join(prefix);
        let hosts = Hosts::create(&place(prefix.to_owned()), &folder, &bpffs, programs)?;
        Ok(Stage { hosts, folder, swept, lock })
    }
}
