//! Goodput over a bad cable next to TCP's: large messages, acknowledged one by one by the application at the other end, over
//! two equally bad cables of the same program, taking turns.

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
    bulk::{Load, Outcome},
    cli::{Cli, Programs},
    host::{Cable, Family, Hosts, Place},
    interrupt,
    netns::{INTERFACE, TCP_INTERFACE},
    process::{Process, run as execute},
};

/// What to measure.
#[derive(clap::Args)]
pub struct Options {
    /// Fractions of frames that the cable loses, one row of the table each
    #[arg(long, value_delimiter = ',', default_values_t = [0.0, 0.001, 0.01, 0.1])]
    loss: Vec<f64>,
    /// Fraction of frames that the cable repeats
    #[arg(long, default_value_t = 0.0)]
    dup: f64,
    /// Fraction of frames that the cable holds back by half a millisecond
    #[arg(long, default_value_t = 0.0)]
    reorder: f64,
    /// How long the cable takes, in µs each way
    #[arg(long, default_value_t = 0)]
    delay_us: u64,
    /// Bytes in a message
    #[arg(long, value_delimiter = ',', default_values_t = [65_536, 1_048_576])]
    bytes: Vec<usize>,
    /// Messages under way at once
    #[arg(long, default_value_t = 8)]
    outstanding: usize,
    /// How long each turn takes, in seconds
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// How often each of the two has its turn
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// What the cable's faults follow from
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How to print the outcome
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    output: Output,
}

/// One row: the same load on the same cable.
#[derive(Serialize)]
struct Row {
    loss: f64,
    bytes: usize,
    /// Round by round.
    tollfree: Vec<Outcome>,
    tcp: Vec<Outcome>,
    /// Tollfree's goodput over TCP's, the median of the rounds'; none where TCP got no message through.
    ratio: Option<f64>,
}

const TCP_PORT: u16 = 5201;
const START_LIMIT: Duration = Duration::from_secs(10);

/// Measures.
///
/// # Errors
/// When something cannot be started or measured.
pub fn run(options: &Options) -> Result<ExitCode> {
    if options.loss.iter().chain([&options.dup, &options.reorder]).any(|part| !(0.0..=1.0).contains(part)) {
        bail!("loss, dup and reorder are fractions from 0 to 1, such as 0.01");
    }
    let programs = Programs::find()?;
    let cable = programs.path("examples/bad_cable");
    if !cable.is_file() {
        bail!("{} is not built; run `cargo xtask perf goodput`", cable.display());
    }
    let mut stage = Stage::set(Place::Cable, &programs)?;
    let hosts = &mut stage.hosts;
    for host in [&hosts.client, &hosts.server] {
        host.cli.inside(|| execute(Command::new(&cable).args(["plain", INTERFACE, TCP_INTERFACE])))?;
    }
    hosts.separate();
    // Both arms' servers wait for the whole measurement; daemons begin on a good cable.
    let mut carrying = carry(hosts, options, 0.0)?;
    hosts.server.start_daemon(Family::V4, &[])?;
    hosts.client.start_daemon(Family::V4, &[("demo.Kv", hosts.server.engine(Family::V4))])?;
    let _service = hosts.server.start_serving("bulk", &["serve"], "demo.Kv")?;
    let tcp = SocketAddr::from((Ipv4Addr::new(10, 78, 0, 2), TCP_PORT));
    let _tcp_service = hosts.server.spawn("bulk", &["serve-tcp", &tcp.to_string()])?;

    let mut rows = Vec::new();
    for &loss in &options.loss {
        drop(carrying);
        carrying = carry(hosts, options, loss)?;
        for &bytes in &options.bytes {
            let load = Load { bytes, outstanding: options.outstanding, seconds: options.seconds };
            let mut row = Row { loss, bytes, tollfree: Vec::new(), tcp: Vec::new(), ratio: None };
            for _ in 0..options.rounds.max(1) {
                interrupt::check()?;
                row.tollfree.push(send(&hosts.client.cli, &["send".to_owned()], load)?);
                row.tcp.push(send(&hosts.client.cli, &["send-tcp".to_owned(), tcp.to_string()], load)?);
            }
            let pairs = row.tollfree.iter().zip(&row.tcp).filter(|(_, tcp)| tcp.mbit_s > 0.0);
            row.ratio = median(pairs.map(|(ours, tcp)| ours.mbit_s / tcp.mbit_s));
            rows.push(row);
        }
    }
    match options.output {
        Output::Json => println!("{}", serde_json::to_string(&rows)?),
        Output::Table => print(options, &rows),
    }
    Ok(ExitCode::SUCCESS)
}

/// Starts the cables.
fn carry(hosts: &Hosts, options: &Options, loss: f64) -> Result<Process> {
    let Some(Cable { middle, halves }) = &hosts.cable else { bail!("there is no cable") };
    let program = hosts.client.cli.programs.path("examples/bad_cable");
    let mut command = Command::new(program);
    command.args(halves.iter().map(|(left, right)| format!("{left}:{right}")));
    let Options { dup, reorder, delay_us, seed, .. } = options;
    command.args([
        format!("loss={loss}"),
        format!("dup={dup}"),
        format!("reorder={reorder}"),
        format!("delay_us={delay_us}"),
        format!("seed={seed}"),
    ]);
    let log = hosts.client.cli.state.join("cable.log");
    let mut process = middle.enter(|| Process::spawn_logged("the cable", &mut command, &log))?;
    let carries = || std::fs::read_to_string(&log).is_ok_and(|text| text.contains("carrying"));
    process.until("carrying", START_LIMIT, carries)?;
    Ok(process)
}

/// One turn of one arm.
fn send(client: &Cli, arguments: &[String], load: Load) -> Result<Outcome> {
    let Load { bytes, outstanding, seconds } = load;
    let mut command = Command::new(client.programs.path("bulk"));
    command.env("TOLLFREE_SOCKET", client.state.join("app.sock")).args(arguments);
    command.arg("--bytes").arg(bytes.to_string()).arg("--outstanding").arg(outstanding.to_string());
    command.arg("--seconds").arg(seconds.to_string());
    let output = client.inside(|| execute(&mut command)).context("a turn failed")?;
    let outcome = Outcome::parse(&String::from_utf8_lossy(&output.stdout))?;
    if outcome.failed > 0 {
        eprintln!("{} of {} messages failed", outcome.failed, outcome.failed + outcome.messages);
    }
    Ok(outcome)
}

fn print(options: &Options, rows: &[Row]) {
    let mut shown = table(&[
        "loss",
        "message",
        "Tollfree Mbit/s",
        "TCP Mbit/s",
        "ratio",
        "Tollfree p50 / p99 ms",
        "TCP p50 / p99 ms",
    ]);
    for Row { loss, bytes, tollfree, tcp, ratio } in rows {
        let of = |arm: &[Outcome], pick: fn(&Outcome) -> f64| median(arm.iter().map(pick)).unwrap_or(0.0);
        let rate = |arm: &[Outcome]| format!("{:.1}", of(arm, |outcome| outcome.mbit_s));
        let times = |arm: &[Outcome]| {
            let millis = |pick| of(arm, pick) / 1000.0;
            format!("{:.2} / {:.2}", millis(|outcome| outcome.p50_us), millis(|outcome| outcome.p99_us))
        };
        shown.add_row([
            format!("{} %", loss * 100.0),
            format!("{} KiB", bytes / 1024),
            rate(tollfree),
            rate(tcp),
            ratio.map_or("TCP got none through".to_owned(), |ratio| format!("{ratio:.2}")),
            times(tollfree),
            times(tcp),
        ]);
    }
    let congestion = std::fs::read_to_string("/proc/sys/net/ipv4/tcp_congestion_control").unwrap_or_default();
    println!(
        "{} messages under way, {} turns of {} s each, taken in turn; medians. TCP: {}, one connection, its own cable of the same kind.",
        options.outstanding,
        options.rounds,
        options.seconds,
        congestion.trim()
    );
    println!("{shown}");
}
