//! `cargo xtask test`: what CI runs, in the order in which mistakes are cheapest to find.
//!
//! Tests that need a privilege find out themselves whether they have it, so one pass over the workspace runs everything
//! that can run: as root that includes the verifier, `BPF_PROG_TEST_RUN` and the network namespaces.

use crate::{
    build_ebpf,
    process::{cargo, is_root, shown, target_dir},
    setup::{self, Scope},
    sim,
    test_output::{Reader, Tally},
    toolchain::{Compiler, has_linker},
};
use anyhow::{Context, Result};
use std::{
    io::{BufRead, BufReader},
    process::{Command, ExitCode, Stdio},
    time::Instant,
};

/// Runs everything, goes on after a failure, and ends with one line that sums up.
///
/// # Errors
/// Where the machine is not ready, or a program cannot be started.
pub fn run() -> Result<ExitCode> {
    let started = Instant::now();
    setup::run(if is_root() { Scope::Everything } else { Scope::UserspaceTests })?;
    let mut tally = Tally::default();

    check(&mut tally, "format", cargo().args(["fmt", "--all", "--check"]));
    check(&mut tally, "format of ebpf", cargo().args(["fmt", "--manifest-path=ebpf/Cargo.toml", "--check"]));
    check(
        &mut tally,
        "lints",
        cargo().args([
            "clippy",
            "--locked",
            "--keep-going",
            "--workspace",
            "--all-targets",
            "--",
            "-Dwarnings",
        ]),
    );
    let mut doc = cargo();
    doc.args(["doc", "--locked", "--keep-going", "--workspace", "--no-deps"])
        .env("RUSTDOCFLAGS", "-Dwarnings");
    check(&mut tally, "documentation", &mut doc);
    ebpf(&mut tally);

    // The daemons that the tests in network namespaces start.
    check(&mut tally, "programs", cargo().args(["build", "--locked", "--workspace", "--bins"]));
    tests(&mut tally)?;
    check(&mut tally, "the simulator", &mut sim::build());
    check(&mut tally, "simulation", sim::simulator().args(["--seeds", sim::SEEDS_IN_TESTS]));

    println!();
    for (name, why) in &tally.skipped {
        println!("skipped: {name}: {why}");
    }
    for name in &tally.failed {
        println!("failed: {name}");
    }
    println!("{} minutes", started.elapsed().as_secs().div_ceil(60));
    println!("{tally}");
    Ok(if tally.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// A check counts as one test.
fn check(tally: &mut Tally, name: &str, command: &mut Command) {
    println!("\n$ {}", shown(command));
    match command.status() {
        Ok(status) if status.success() => tally.passed += 1,
        Ok(status) => failed(tally, name, &format!("ended with {status}")),
        Err(error) => failed(tally, name, &format!("cannot be started: {error}")),
    }
}

fn failed(tally: &mut Tally, name: &str, why: &str) {
    println!("{name}: {why}");
    tally.failed.push(name.to_owned());
}

fn ebpf(tally: &mut Tally) {
    let skip = |tally: &mut Tally, name: &str, why: &str| tally.skipped.push((name.into(), why.into()));
    let Some(compiler) = Compiler::find().filter(|_| has_linker()) else {
        let why = "no BPF toolchain; `cargo xtask setup` installs it";
        skip(tally, "lints of ebpf", why);
        skip(tally, "building the XDP programs", why);
        return;
    };
    match compiler.clippy() {
        Some(mut clippy) => {
            clippy.args(["--release", "--locked", "-Zbuild-std=core", "--target=bpfel-unknown-none"]);
            clippy.current_dir("ebpf").env("CARGO_TARGET_DIR", target_dir().join("ebpf-build"));
            check(tally, "lints of ebpf", clippy.args(["--", "-Dwarnings"]));
        }
        None => skip(tally, "lints of ebpf", "clippy of the XDP programs' compiler is not installed"),
    }
    println!("\nbuilding the XDP programs");
    match build_ebpf::run() {
        Ok(()) => tally.passed += 1,
        Err(error) => failed(tally, "building the XDP programs", &format!("{error:#}")),
    }
}

fn tests(tally: &mut Tally) -> Result<()> {
    let mut command = cargo();
    command.args(["test", "--locked", "--workspace", "--no-fail-fast", "--", "--show-output"]);
    println!("\n$ {}", shown(&command));
    let mut child = command.stdout(Stdio::piped()).spawn().context("cannot start `cargo test`")?;
    let mut reader = Reader::default();
    if let Some(stdout) = child.stdout.take() {
        for line in BufReader::new(stdout).split(b'\n') {
            let line = line.context("cannot read what `cargo test` prints")?;
            let line = String::from_utf8_lossy(&line);
            if reader.line(&line) {
                println!("{line}");
            }
        }
    }
    let status = child.wait().context("`cargo test` got lost")?;
    let mut counted = reader.finish();
    // A test that does not compile, or a test program that dies, has no line of its own.
    if !status.success() && counted.failed.is_empty() {
        counted.failed.push(format!("cargo test ({status})"));
    }
    tally.add(counted);
    Ok(())
}
