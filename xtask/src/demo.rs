//! `cargo xtask demo`: prepares the machine, builds, and becomes `tollfree-demo`, which does the showing.

use crate::{
    build_ebpf,
    process::{become_command, cargo, is_root, run as execute, target_dir},
    setup::{self, Scope},
};
use anyhow::Result;
use std::{path::PathBuf, process::Command};

/// What to show.
#[derive(clap::Args)]
pub struct Options {
    /// The file to send, line by line [default: one that is on every Debian]
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// The `udp` backend on loopback, with the policy in the engine; needs no privilege, so it is what others than root get
    #[arg(long)]
    udp: bool,
}

/// Builds what the demo needs and runs it; returns only where that fails.
///
/// # Errors
/// Where the machine is not ready, something does not build, or the demo cannot be started.
pub fn run(options: &Options) -> Result<()> {
    let Options { file, udp } = options;
    let udp = *udp || !is_root();
    let mut demo = prepare(udp)?;
    demo.arg("demo");
    if let Some(file) = file {
        demo.arg("--file").arg(file);
    }
    if udp {
        demo.arg("--udp");
    }
    Err(become_command(&mut demo))
}

/// Builds everything `tollfree-demo` starts, optimised, and returns the command that starts it.
///
/// # Errors
/// Where the machine is not ready or something does not build.
pub fn prepare(udp: bool) -> Result<Command> {
    setup::run(if udp { Scope::Userspace } else { Scope::WithEbpf })?;
    if !udp {
        build_ebpf::run()?;
    }
    execute(cargo().args(["build", "--release", "--bins", "-p", "tollfree-cli", "-p", "tollfree-demo"]))?;
    Ok(Command::new(target_dir().join("release/tollfree-demo")))
}
