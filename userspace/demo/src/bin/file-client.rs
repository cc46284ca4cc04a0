//! Sends a file, line by line, as `Hash/Sha256` calls of one user, and compares every digest with one of its own.
//! Prints one line of JSON: what became of the calls. A policy's refusal is an answer; a call that failed otherwise, or a
//! digest that differs, gives exit status 1.
#![forbid(unsafe_code)]

use anyhow::{Context, Result};
use clap::Parser;
use hdrhistogram::Histogram;
use indicatif::{ProgressBar, ProgressState, ProgressStyle};
use std::{
    fmt::Write,
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};
use tollfree::{Channel, Code, Request, VerdictAt};
use tollfree_demo::{
    digest,
    report::Report,
    stubs::{HashRequest, hash_client::HashClient},
};

#[derive(Parser)]
#[command(about = "Sends a file line by line to the hash service", version)]
struct Arguments {
    /// The daemon's socket
    #[arg(long, default_value_os_t = tollfree::default_socket())]
    socket: PathBuf,
    /// The file
    #[arg(long)]
    file: PathBuf,
    /// On whose behalf
    #[arg(long)]
    user: String,
    /// Calls to make first, neither timed nor counted
    #[arg(long, default_value_t = 0)]
    warm_up: usize,
    /// Give a call up after this many ms
    #[arg(long, default_value_t = 5000)]
    timeout_ms: u64,
    /// Label of the progress bar
    #[arg(long, default_value = "")]
    label: String,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let Arguments { socket, file, user, warm_up, timeout_ms, label } = Arguments::parse();
    let contents = std::fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
    let lines: Vec<&[u8]> = contents.split_inclusive(|byte| *byte == b'\n').collect();
    let client = HashClient::new(Channel::connect(&socket).await?);
    let request = |line: &[u8]| {
        let mut request = Request::new(HashRequest { user: user.clone(), data: line.to_vec() });
        request.set_timeout(Duration::from_millis(timeout_ms));
        request
    };
    for line in lines.iter().cycle().take(if lines.is_empty() { 0 } else { warm_up }) {
        // Whether it is allowed does not matter here.
        let _ = client.sha256(request(line)).await;
    }

    let style = "{prefix:24} [{bar:36}] {human_pos}/{human_len} lines, {rate}";
    let rate = |state: &ProgressState, out: &mut dyn Write| {
        // A bar that cannot be drawn is no reason to stop.
        let _ = write!(out, "{:.0}/s", state.per_sec());
    };
    let style = ProgressStyle::with_template(style)?.with_key("rate", rate);
    let bar = ProgressBar::new(lines.len() as u64).with_style(style);
    bar.set_prefix(label);
    let mut report = Report { user: user.clone(), calls: lines.len() as u64, ..Report::default() };
    let mut durations = Histogram::<u64>::new_with_bounds(1, 60_000_000_000, 3)?;
    for line in &lines {
        let request = request(line);
        let started = Instant::now();
        let result = client.sha256(request).await;
        durations.saturating_record(started.elapsed().as_nanos() as u64);
        match result {
            Ok(response) if response.get_ref().digest == digest(line) => report.allowed += 1,
            Ok(_) => report.mismatched += 1,
            Err(status) if status.code() == Code::PermissionDenied => {
                *report.rejected.entry(place(status.verdict_at()).to_owned()).or_default() += 1;
            }
            Err(status) => {
                *report.failed.entry(format!("{}: {}", status.code(), status.message())).or_default() += 1;
            }
        }
        bar.inc(1);
    }
    bar.finish();

    let micros = |quantile| durations.value_at_quantile(quantile) as f64 / 1000.0;
    if !lines.is_empty() {
        (report.p50_us, report.p99_us) = (micros(0.5), micros(0.99));
    }
    println!("{}", serde_json::to_string(&report)?);
    let as_it_should_be = report.failed.is_empty() && report.mismatched == 0;
    Ok(if as_it_should_be { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn place(verdict_at: VerdictAt) -> &'static str {
    match verdict_at {
        VerdictAt::None => "this process",
        VerdictAt::Driver => "driver (XDP)",
        VerdictAt::Engine => "engine",
        VerdictAt::Application => "application",
        VerdictAt::Transport => "transport",
    }
}
