//! `cargo xtask perf`: a call's latency next to that of a bare AF_XDP ping-pong, in one interleaved run.

use crate::{
    demo::prepare,
    process::{become_command, cargo, is_root, run as execute},
};
use anyhow::{Result, bail};

/// How long to measure.
#[derive(clap::Args)]
pub struct Options {
    /// How often each of the two is measured, in turn
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Let the scheduler place daemons and applications; otherwise each host has one core
    #[arg(long)]
    unpinned: bool,
}

/// Builds both sides of the comparison and runs it; returns only where that fails.
///
/// # Errors
/// Where this is not root, or something does not build.
pub fn run(options: &Options) -> Result<()> {
    if !is_root() {
        bail!(
            "measuring needs root: network namespaces, XDP and AF_XDP (CAP_SYS_ADMIN, CAP_BPF, CAP_NET_ADMIN)"
        );
    }
    let mut perf = prepare(false)?;
    execute(cargo().args(["build", "--release", "-p", "tollfree-nic", "--example", "pingpong"]))?;
    perf.arg("perf").arg("--rounds").arg(options.rounds.to_string());
    if options.unpinned {
        perf.arg("--unpinned");
    }
    Err(become_command(&mut perf))
}
