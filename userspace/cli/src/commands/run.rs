//! `tollfree run`: reads the configuration and becomes the daemon.

use crate::args::Run;
use crate::daemon;
use anyhow::Result;
use std::path::PathBuf;

/// Runs the daemon until it is stopped.
pub fn run(run: &Run, state_dir: Option<PathBuf>, bpffs: Option<PathBuf>) -> Result<()> {
    daemon::run(daemon::configuration(run.config.as_deref(), state_dir, bpffs)?)
}
