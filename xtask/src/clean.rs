//! `cargo xtask clean`: what a demo, a test or a measurement left behind when it was killed, and on request the builds.

use crate::process::{cargo, run as execute, target_dir};
use anyhow::Result;
use std::process::Command;

/// What to remove.
#[derive(clap::Args)]
pub struct Options {
    /// Also everything that was built
    #[arg(long)]
    builds: bool,
}

/// Removes namespaces, pins, sockets and processes of ours, and nothing else.
///
/// # Errors
/// Where something does not go away.
pub fn run(options: &Options) -> Result<()> {
    // Who left something behind was built.
    let built = ["release", "debug"].map(|profile| target_dir().join(profile).join("tollfree-demo"));
    if let Some(demo) = built.iter().find(|path| path.exists()) {
        execute(Command::new(demo).arg("clean"))?;
    }
    if options.builds {
        execute(cargo().arg("clean"))?;
        execute(cargo().args(["clean", "--manifest-path=ebpf/Cargo.toml"]))?;
    }
    Ok(())
}
