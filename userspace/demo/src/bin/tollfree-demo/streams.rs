//! Streams next to tonic's over TCP: the same service and client of both libraries, between the same two namespaces, taking
//! turns.

use crate::stage::Stage;
use crate::tables::{Output, median, table};
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::{
    net::{Ipv4Addr, SocketAddr},
    process::{Command, ExitCode},
    time::Duration,
};
use tollfree_demo::{
    cli::Programs,
    host::{Family, Host, Place},
    interrupt, netns,
    process::run as execute,
    streams::Outcome,
};

/// What to measure.
#[derive(clap::Args)]
pub struct Options {
    /// Bytes in a message's payload
    #[arg(long, value_delimiter = ',', default_values_t = [64, 4096])]
    bytes: Vec<usize>,
    /// Streams at once
    #[arg(long, value_delimiter = ',', default_values_t = [1])]
    streams: Vec<usize>,
    /// Which kinds: server, client, bidirectional, ping-pong
    #[arg(long, value_delimiter = ',', default_values_t = ["server", "client", "bidirectional", "ping-pong"].map(str::to_owned))]
    kinds: Vec<String>,
    /// How long each turn takes, in seconds
    #[arg(long, default_value_t = 1.0)]
    seconds: f64,
    /// How often each of the two has its turn
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// How to print the outcome
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// One row: the same streams.
#[derive(Serialize)]
struct Row {
    kind: String,
    bytes: usize,
    streams: usize,
    /// Round by round.
    tollfree: Vec<Outcome>,
    tonic: Vec<Outcome>,
    /// Tollfree's messages over tonic's, the median of the rounds'.
    ratio: f64,
}

const TCP_PORT: u16 = 5202;
const START_LIMIT: Duration = Duration::from_secs(10);

/// Measures.
///
/// # Errors
/// When something cannot be started or measured.
pub fn run(options: &Options) -> Result<ExitCode> {
    let programs = Programs::find()?;
    if !programs.path("streams").is_file() {
        bail!("{} is not built; run `cargo xtask perf streams`", programs.path("streams").display());
    }
    let mut stage = Stage::set(Place::Namespaces, &programs)?;
    let hosts = &mut stage.hosts;
    if let (Some(client), Some(server)) = (hosts.client.namespace(), hosts.server.namespace()) {
        // TCP has a cable of its own, with every offload, so that XDP does not slow it.
        netns::connect_for_tcp((client, 1), (server, 2))?;
    }
    hosts.separate();
    hosts.server.start_daemon(Family::V4, &[])?;
    hosts.client.start_daemon(Family::V4, &[("demo.Feed", hosts.server.engine(Family::V4))])?;
    let _service = hosts.server.start_serving("streams", &["serve"], "demo.Feed")?;
    let tcp = SocketAddr::from((Ipv4Addr::new(10, 78, 0, 2), TCP_PORT));
    let mut tonic = hosts.server.spawn("streams", &["serve-tonic", &tcp.to_string()])?;
    let listens = || hosts.client.cli.inside(|| Ok(std::net::TcpStream::connect(tcp)?)).is_ok();
    tonic.until("listening", START_LIMIT, listens)?;

    let mut rows = Vec::new();
    for &bytes in &options.bytes {
        for &streams in &options.streams {
            for kind in &options.kinds {
                let mut row = Row {
                    kind: kind.clone(),
                    bytes,
                    streams,
                    tollfree: Vec::new(),
                    tonic: Vec::new(),
                    ratio: 0.0,
                };
                for _ in 0..options.rounds.max(1) {
                    interrupt::check()?;
                    let turn = |arm: &[&str]| turn(&hosts.client, arm, kind, bytes, streams, options.seconds);
                    row.tollfree.push(turn(&["run"])?);
                    row.tonic.push(turn(&["run-tonic", &tcp.to_string()])?);
                }
                let pairs = row.tollfree.iter().zip(&row.tonic);
                row.ratio = median(pairs.map(|(ours, theirs)| ours.per_second / theirs.per_second))
                    .unwrap_or_default();
                rows.push(row);
            }
        }
    }
    match options.output {
        Output::Json => println!("{}", serde_json::to_string(&rows)?),
        Output::Table => print(options, &rows),
    }
    Ok(ExitCode::SUCCESS)
}

/// One turn of one arm.
fn turn(
    client: &Host,
    arm: &[&str],
    kind: &str,
    bytes: usize,
    streams: usize,
    seconds: f64,
) -> Result<Outcome> {
    let mut command: Command = client.app("streams");
    command.args(arm).args(["--kind", kind]);
    command.arg("--bytes").arg(bytes.to_string()).arg("--streams").arg(streams.to_string());
    command.arg("--seconds").arg(seconds.to_string());
    let output = client.cli.inside(|| execute(&mut command)).context("a turn failed")?;
    Outcome::parse(&String::from_utf8_lossy(&output.stdout))
}

fn print(options: &Options, rows: &[Row]) {
    let mut shown = table(&[
        "streams",
        "kind",
        "message",
        "Tollfree /s",
        "tonic /s",
        "ratio",
        "Tollfree p50 / p99 µs",
        "tonic p50 / p99 µs",
    ]);
    for Row { kind, bytes, streams, tollfree, tonic, ratio } in rows {
        let rate = |arm: &[Outcome]| {
            format!("{:.0}", median(arm.iter().map(|outcome| outcome.per_second)).unwrap_or_default())
        };
        let times = |arm: &[Outcome]| {
            let of = |pick: fn(&Outcome) -> Option<f64>| {
                arm.iter()
                    .all(|outcome| pick(outcome).is_some())
                    .then(|| median(arm.iter().filter_map(pick)).unwrap_or_default())
            };
            let (p50, p99) = (of(|outcome| outcome.p50_us), of(|outcome| outcome.p99_us));
            p50.zip(p99).map_or(String::new(), |(p50, p99)| format!("{p50:.1} / {p99:.1}"))
        };
        shown.add_row([
            streams.to_string(),
            kind.clone(),
            format!("{bytes} B"),
            rate(tollfree),
            rate(tonic),
            format!("{ratio:.2}"),
            times(tollfree),
            times(tonic),
        ]);
    }
    println!(
        "{} turns of {} s each, taken in turn; medians. Each host has one core. tonic: over TCP, on a cable of its own.",
        options.rounds, options.seconds
    );
    println!("{shown}");
}
