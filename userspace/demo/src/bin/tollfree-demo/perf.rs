//! A call's latency next to that of a bare AF_XDP ping-pong: both over a veth pair, on the same machine, taking turns, because
//! two runs of the same program differ by more than the difference one looks for.

use crate::stage::Stage;
use crate::tables::table;
use anyhow::{Context, Result, bail};
use std::{
    path::Path,
    process::{Command, ExitCode},
};
use tollfree_demo::{
    cli::Programs,
    host::{Family, Place},
    interrupt,
    process::run as execute,
    report::Report,
};

/// How long to measure.
#[derive(clap::Args)]
pub struct Options {
    /// How often each of the two is measured, in turn
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Let the scheduler place daemons and applications; otherwise each host has one core, its daemon and application
    /// sharing it
    #[arg(long)]
    unpinned: bool,
}

/// Lines in the file that is sent: calls in a round.
const CALLS: usize = 5_000;
/// Bytes in a line.
const LINE: usize = 64;

/// Measures.
///
/// # Errors
/// When either side cannot be measured.
pub fn run(options: &Options) -> Result<ExitCode> {
    let programs = Programs::find()?;
    let pingpong = programs.path("examples/pingpong");
    if !pingpong.is_file() {
        bail!("{} is not built; run `cargo xtask perf`", pingpong.display());
    }
    let mut stage = Stage::set(Place::Namespaces, &programs)?;
    let hosts = &mut stage.hosts;
    let pinned = !options.unpinned && hosts.separate();
    hosts.server.start_daemon(Family::V4, &[])?;
    hosts.client.start_daemon(Family::V4, &[("demo.Hash", hosts.server.engine(Family::V4))])?;
    let _service = hosts.server.start_service()?;

    let file = stage.folder.join("lines");
    let line = [&[b'x'; LINE - 1][..], b"\n"].concat();
    std::fs::write(&file, line.repeat(CALLS)).with_context(|| format!("cannot write {}", file.display()))?;

    let mut rounds = table(&["round", "call p50 µs", "call p99 µs", "bare AF_XDP ping-pong p50 µs", "ratio"]);
    let mut measured = Vec::new();
    for round in 1..=options.rounds.max(1) {
        interrupt::check()?;
        let mut client = hosts.client.app("file-client");
        client.arg("--file").arg(&file).args(["--user", "alice", "--warm-up", "500"]);
        let output = hosts.client.cli.inside(|| execute(&mut client))?;
        let report = Report::parse(&String::from_utf8_lossy(&output.stdout))?;
        if report.allowed != report.calls {
            bail!("only {} of {} calls succeeded: {:?}", report.allowed, report.calls, report.failed);
        }
        let bare = pingpong_p50(&pingpong)?;
        let ratio = report.p50_us / bare;
        rounds.add_row([
            round.to_string(),
            format!("{:.2}", report.p50_us),
            format!("{:.2}", report.p99_us),
            format!("{bare:.2}"),
            format!("{ratio:.1}"),
        ]);
        measured.push((report.p50_us, bare));
    }
    let cores = if pinned { "each host has one core" } else { "all share all cores" };
    println!("Calls carry {LINE} bytes, one outstanding; daemons and applications wait adaptively; {cores}.");
    println!("{rounds}");
    let best = |pick: fn(&(f64, f64)) -> f64| measured.iter().map(pick).fold(f64::INFINITY, f64::min);
    let (call, bare) = (best(|round| round.0), best(|round| round.1));
    println!(
        "Best of {} rounds: a call {call:.2} µs, a bare ping-pong {bare:.2} µs, ratio {:.1}.",
        measured.len(),
        call / bare
    );
    Ok(ExitCode::SUCCESS)
}

/// The ping-pong's own p50, in µs, between two ends of its own.
fn pingpong_p50(program: &Path) -> Result<f64> {
    let arguments =
        ["afxdp", "native", &format!("bytes={LINE}"), &format!("rounds={CALLS}")].map(str::to_owned);
    let output = execute(Command::new(program).args(arguments))?;
    let text = String::from_utf8_lossy(&output.stdout);
    let value: Option<serde_json::Value> = serde_json::from_str(text.trim()).ok();
    value
        .and_then(|value| value.get("p50_us")?.as_f64())
        .with_context(|| format!("the ping-pong prints no p50 but: {}", text.trim()))
}
