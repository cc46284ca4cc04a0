//! `cargo xtask perf`: a call's latency next to that of a bare AF_XDP ping-pong, in one interleaved run; and `cargo xtask perf
//! goodput`: what large messages reach over a bad cable, next to TCP; `cargo xtask perf policies`: what each policy of the
//! standard library costs a call; `cargo xtask perf swap`: how soon a policy has effect; and `cargo xtask perf streams`: messages
//! of streams next to tonic's.

use crate::{
    build_ebpf,
    demo::prepare,
    process::{become_command, cargo, is_root, run as execute, target_dir},
};
use anyhow::{Result, bail};
use std::{ffi::OsString, process::Command};

/// What to measure, and for how long.
#[derive(clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Options {
    #[command(subcommand)]
    what: Option<What>,
    /// How often each of the two is measured, in turn
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Let the scheduler place daemons and applications; otherwise each host has one core
    #[arg(long)]
    unpinned: bool,
}

#[derive(clap::Subcommand)]
enum What {
    /// Large messages over a cable that loses some, next to TCP's; options as `tollfree-demo goodput --help` says
    #[command(disable_help_flag = true)]
    Goodput {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// What each policy of the standard library costs a call, in the driver and in the engine
    Policies {
        #[arg(short, long, default_value = "table", value_parser = ["table", "json"])]
        output: String,
    },
    /// Streams of small messages next to tonic's over TCP; options as `tollfree-demo streams --help` says
    #[command(disable_help_flag = true)]
    Streams {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
    /// Policies swapped under traffic: from text to effect, calls lost, calls judged by neither; options as `tollfree-demo
    /// swap --help` says
    #[command(disable_help_flag = true)]
    Swap {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        arguments: Vec<OsString>,
    },
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
    if let Some(What::Policies { output }) = &options.what {
        build_ebpf::run()?;
        execute(cargo().args(["build", "--release", "-p", "tollfree-loader", "--example", "policy_cost"]))?;
        let measure = target_dir().join("release/examples/policy_cost");
        return Err(become_command(Command::new(measure).arg(output)));
    }
    let mut perf = prepare(false)?;
    execute(cargo().args(["build", "--release", "-p", "tollfree-nic", "--examples"]))?;
    match &options.what {
        Some(What::Streams { arguments }) => {
            let tonic =
                ["build", "--release", "-p", "tollfree-demo", "--features", "tonic", "--bin", "streams"];
            execute(cargo().args(tonic))?;
            return Err(become_command(perf.arg("streams").args(arguments)));
        }
        Some(What::Goodput { arguments }) => {
            return Err(become_command(perf.arg("goodput").args(arguments)));
        }
        Some(What::Swap { arguments }) => return Err(become_command(perf.arg("swap").args(arguments))),
        Some(What::Policies { .. }) | None => {}
    }
    perf.arg("perf").arg("--rounds").arg(options.rounds.to_string());
    if options.unpinned {
        perf.arg("--unpinned");
    }
    Err(become_command(&mut perf))
}
