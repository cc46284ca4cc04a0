//! `cargo xtask demo`, `perf` and `clean` build this and become it: two hosts, the daemons on them, and what is shown.
#![forbid(unsafe_code)]

mod goodput;
mod perf;
mod show;
mod stage;
mod streams;
mod swap;
mod tables;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;
use tollfree_demo::{interrupt, leftovers};

#[derive(Parser)]
#[command(about = "Two hosts, a firewall in the NIC's driver, and calls through it", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Send a file through the firewall, as users who are allowed, denied and unknown
    Demo(show::Options),
    /// A call's latency next to that of a bare AF_XDP ping-pong, interleaved
    Perf(perf::Options),
    /// Large messages over a cable that loses some, next to TCP's, interleaved
    Goodput(goodput::Options),
    /// Streams next to tonic's over TCP, interleaved
    Streams(streams::Options),
    /// Policies swapped under traffic: how long a text takes to its effect, and what becomes of calls meanwhile
    Swap(swap::Options),
    /// Remove what a killed demo, test or measurement left behind
    Clean,
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
    interrupt::install()?;
    match command {
        Command::Demo(options) => show::run(&options),
        Command::Perf(options) => perf::run(&options),
        Command::Goodput(options) => goodput::run(&options),
        Command::Streams(options) => streams::run(&options),
        Command::Swap(options) => swap::run(&options),
        Command::Clean => {
            let swept = leftovers::sweep(&leftovers::Lock::take()?)?;
            for what in &swept {
                println!("removed: {what}");
            }
            if swept.is_empty() {
                println!("nothing was left behind");
            }
            Ok(ExitCode::SUCCESS)
        }
    }
}
