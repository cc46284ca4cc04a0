//! `cargo xtask sim`: builds the transport's simulator and becomes it.

use crate::process::{become_command, cargo, run as execute, target_dir};
use anyhow::Result;
use std::{ffi::OsString, process::Command};

/// What the simulator is told; `--help` is its own.
#[derive(clap::Args)]
#[command(disable_help_flag = true)]
pub struct Options {
    /// See `cargo xtask sim --help`
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    arguments: Vec<OsString>,
}

/// Worlds that a run of all tests lives through.
pub const SEEDS_IN_TESTS: &str = "8000";

/// Builds the simulator, as quick as a release and with every assertion, and runs it; returns only where that fails.
///
/// # Errors
/// Where it does not build or cannot be started.
pub fn run(options: &Options) -> Result<()> {
    execute(&mut build())?;
    Err(become_command(simulator().args(&options.arguments)))
}

/// The command that builds the simulator.
pub fn build() -> Command {
    let mut cargo = cargo();
    cargo.args(["build", "--quiet", "--locked", "--profile=checked", "-p", "tollfree-simulator"]);
    cargo
}

/// The command that starts it.
pub fn simulator() -> Command {
    Command::new(target_dir().join("checked/tollfree-simulator"))
}
