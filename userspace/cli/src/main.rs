//! `tollfree`: the daemon and the commands that steer it.
//!
//! Each command is a function in `commands`; `daemon` is what `tollfree run` keeps running. Results go to the standard
//! output, the log and errors to the standard error; `exit` says what the exit codes mean.
#![forbid(unsafe_code)]

mod admin;
mod args;
mod commands;
mod daemon;
mod exit;
mod input;
mod interfaces;
mod mirror;
mod netdev;
mod output;
mod paths;
mod privilege;
mod xdp;

use anyhow::Result;
use args::{Cli, Command};
use clap::Parser;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr(cli.verbose, matches!(cli.command, Command::Run(_)));
    let output = cli.command.output().unwrap_or_default();
    match dispatch(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => exit::report(&error, output),
    }
}

fn dispatch(cli: Cli) -> Result<()> {
    let Cli { state_dir, bpffs, verbose: _, command } = cli;
    if let Command::Run(run) = command {
        return commands::run::run(&run, state_dir, bpffs);
    }
    let place = paths::Places::new(state_dir, bpffs);
    match command {
        Command::Run(_) => Ok(()),
        Command::Check(check) => commands::check::run(&check, &place),
        Command::Status(output) => commands::status::run(output, &place),
        Command::Iface(command) => commands::iface::run(command, &place),
        Command::Policy(command) => commands::policy::run(command, &place),
        Command::Schema(command) => commands::schema::run(command),
        Command::Program(command) => commands::program::run(command),
        Command::Clean(output) => commands::clean::run(output, &place),
    }
}

/// The daemon tells what it does; commands only what goes wrong. `-v` and `RUST_LOG` ask for more.
fn log_to_stderr(verbose: u8, daemon: bool) {
    let level = match (verbose, daemon) {
        (0, true) => "info",
        (0, false) => "warn",
        (1, _) => "debug",
        _ => "trace",
    };
    let filter = EnvFilter::try_from_default_env()
        // Netlink's parser warns of every attribute that is newer than itself.
        .unwrap_or_else(|_| EnvFilter::new(format!("warn,netlink_packet_route=error,tollfree={level}")));
    let log = tracing_subscriber::fmt().with_writer(std::io::stderr).with_env_filter(filter);
    log.with_target(false).with_ansi(rustix::termios::isatty(std::io::stderr())).init();
}
