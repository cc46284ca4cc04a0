//! `cargo xtask`: one verb for everything a contributor runs. Each subcommand is one file.
//!
//! Not here: the demo and the measurement themselves. Those are programs of `userspace/demo`; xtask prepares the
//! machine, builds, and becomes them. So xtask has next to no dependencies and is there in seconds.
#![forbid(unsafe_code)]

mod build_ebpf;
mod clean;
mod demo;
mod perf;
mod process;
mod setup;
mod sim;
mod test;
mod test_output;
mod test_vm;
mod toolchain;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Sets up, builds, shows, tests and measures Tollfree", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Find, and where allowed install, the packages and the BPF toolchain
    Setup,
    /// Build the XDP programs into target/ebpf
    BuildEbpf,
    /// Two hosts, a firewall in the NIC's driver, and a file sent through it
    Demo(demo::Options),
    /// Format, lints, documentation and every test that can run here
    Test,
    /// The programs, the standard library's policies and the `afxdp` backend on Debian's 6.1, in QEMU
    TestVm,
    /// A call next to a bare AF_XDP ping-pong, interleaved
    Perf(perf::Options),
    /// Simulated worlds of hosts and bad networks, in which the transport must be right
    Sim(sim::Options),
    /// Remove what an interrupted demo, test or measurement left behind
    Clean(clean::Options),
}

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<ExitCode> {
    // Paths below are relative to the clone.
    std::env::set_current_dir(process::root())?;
    match command {
        Command::Setup => setup::run(setup::Scope::Everything)?,
        Command::BuildEbpf => build_ebpf::run()?,
        Command::Demo(options) => demo::run(&options)?,
        Command::Test => return test::run(),
        Command::TestVm => return test_vm::run(),
        Command::Perf(options) => perf::run(&options)?,
        Command::Sim(options) => sim::run(&options)?,
        Command::Clean(options) => clean::run(&options)?,
    }
    Ok(ExitCode::SUCCESS)
}
