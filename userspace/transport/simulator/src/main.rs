//! `cargo xtask sim` builds this and becomes it: worlds of many seeds, and what was wrong in the first that failed.
#![forbid(unsafe_code)]

use clap::{Parser, ValueEnum};
use std::cell::RefCell;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use tollfree_simulator::run::{many, one};
use tollfree_simulator::{Failure, Settings, Summary};

#[derive(Parser)]
#[command(
    name = "cargo xtask sim",
    about = "Lives through simulated worlds and checks that the transport is right in each"
)]
struct Arguments {
    /// The first seed; alone, the only one
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How many seeds [default: 1000; with --seed 1]
    #[arg(long, value_name = "COUNT")]
    seeds: Option<u64>,
    /// Hosts in each world [default: 2 to 4, by seed]
    #[arg(long, value_parser = clap::value_parser!(u16).range(2..=200))]
    hosts: Option<u16>,
    /// Calls in each world [default: by seed and hosts]
    #[arg(long)]
    calls: Option<u64>,
    /// Fraction of packets that are lost [default: by seed]
    #[arg(long, value_parser = fraction)]
    loss: Option<f64>,
    /// Fraction of packets that arrive twice [default: by seed]
    #[arg(long, value_parser = fraction)]
    dup: Option<f64>,
    /// Fraction of packets that others overtake [default: by seed]
    #[arg(long, value_parser = fraction)]
    reorder: Option<f64>,
    /// Fraction of packets that are altered under way [default: by seed]
    #[arg(long, value_parser = fraction)]
    corrupt: Option<f64>,
    /// Whether an XDP program checks packets before the transport sees them [default: by seed]
    #[arg(long)]
    verified: Option<bool>,
    /// Only the network is bad: nobody crashes, leaps in time, floods or goes rogue
    #[arg(long)]
    calm: bool,
    /// Replay the first seed that fails and print so many lines of what happened before
    #[arg(long, value_name = "LINES", num_args = 0..=1, default_missing_value = "100")]
    trace: Option<usize>,
    /// Worlds lived through at once [default: one per core]
    #[arg(long)]
    jobs: Option<usize>,
    /// How to print the outcome
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Text,
    Json,
}

/// How often progress is shown.
const SHOW_EVERY: Duration = Duration::from_secs(5);

thread_local! {
    /// Where this thread's last panic was.
    static PLACE: RefCell<String> = const { RefCell::new(String::new()) };
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A world that fails does so by a panic, which is reported in the end.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(|place| format!("{}:{}", place.file(), place.line()));
        PLACE.set(place.unwrap_or_default());
    }));
    let settings = Settings {
        hosts: arguments.hosts.map(usize::from),
        calls: arguments.calls,
        loss: arguments.loss,
        dup: arguments.dup,
        reorder: arguments.reorder,
        corrupt: arguments.corrupt,
        verified: arguments.verified,
        calm: arguments.calm,
    };
    let first = arguments.seed.unwrap_or(0);
    let count = arguments.seeds.unwrap_or(if arguments.seed.is_some() { 1 } else { 1000 });
    let threads =
        arguments.jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into));
    let progress = Progress::new(count);
    let mut summary =
        many(first..first.saturating_add(count), &settings, threads, &|done| progress.show(done));
    let mut place = String::new();
    if let Some(Failure { seed, .. }) = summary.failure {
        // Once more on this thread: exactly the same, and now it is known where, and how it came about.
        if let Err(again) = one(seed, &settings, arguments.trace.unwrap_or(0)) {
            place = PLACE.take();
            summary.failure = Some(again);
        }
    }
    match arguments.output {
        Output::Text => print_text(&summary, &place),
        Output::Json => print_json(&summary, &place),
    }
    if summary.failure.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn fraction(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(fraction) if (0.0..=1.0).contains(&fraction) => Ok(fraction),
        _ => Err("a fraction is a number from 0 to 1, such as 0.1 for every tenth".to_owned()),
    }
}

/// Progress of a long run, on the terminal where there is one and now and then where there is not.
struct Progress {
    total: u64,
    started: Instant,
    shown: Mutex<Instant>,
}

impl Progress {
    fn new(total: u64) -> Progress {
        let now = Instant::now();
        Progress { total, started: now, shown: Mutex::new(now) }
    }

    fn show(&self, done: u64) {
        let Ok(mut shown) = self.shown.try_lock() else { return };
        if shown.elapsed() < SHOW_EVERY {
            return;
        }
        *shown = Instant::now();
        let left =
            self.started.elapsed().as_secs_f64() / done as f64 * self.total.saturating_sub(done) as f64;
        let mut terminal = std::io::stderr().lock();
        let end = if terminal.is_terminal() { "\r" } else { "\n" };
        // Where nobody listens nobody misses it.
        let _ = write!(terminal, "{done} of {} seeds, about {left:.0} s to go   {end}", self.total);
    }
}

fn print_text(summary: &Summary, place: &str) {
    let Summary { seeds, counted, failure } = summary;
    if let Some(Failure { seed, what, trace }) = failure {
        for line in trace {
            println!("{line}");
        }
        println!("seed {seed} failed at {place}: {what}");
    }
    let verdict = match failure {
        None => "none failed".to_owned(),
        Some(failure) => format!("first failure: seed {}", failure.seed),
    };
    println!(
        "{seeds} seeds, {} calls, {} packets, {} sent again; {verdict}",
        counted.calls, counted.packets, counted.packets_resent
    );
}

fn print_json(summary: &Summary, place: &str) {
    let Summary { seeds, counted, failure } = summary;
    let failure = failure.as_ref().map(|Failure { seed, what, trace }| {
        serde_json::json!({ "seed": seed, "what": what, "at": place, "trace": trace })
    });
    println!(
        "{}",
        serde_json::json!({
            "seeds": seeds,
            "calls": counted.calls,
            "packets": counted.packets,
            "packets_resent": counted.packets_resent,
            "replies_repeated": counted.replies_repeated,
            "requests_expired": counted.requests_expired,
            "resets_believed": counted.resets_believed,
            "calls_dead": counted.calls_dead,
            "failure": failure,
        })
    );
}
