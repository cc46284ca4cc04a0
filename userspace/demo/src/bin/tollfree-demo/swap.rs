//! Swapping policies under traffic: how long it takes from a policy's text to its effect in a running daemon, and whether
//! any call is lost or judged by neither policy meanwhile.

use crate::stage::Stage;
use crate::tables::table;
use anyhow::{Context, Result, bail};
use serde_json::Value;
use std::cell::{Cell, RefCell};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::rc::Rc;
use std::time::{Duration, Instant};
use tollfree::{Channel, Code, Request};
use tollfree_demo::cli::Programs;
use tollfree_demo::host::{Family, Place};
use tollfree_demo::stubs::{HashRequest, hash_client::HashClient};
use tollfree_demo::{interrupt, process::run as execute, source_root};

/// What to measure.
#[derive(clap::Args)]
pub struct Options {
    /// How often the policy is swapped
    #[arg(long, default_value_t = 300)]
    swaps: usize,
    /// Pause between two swaps, in ms
    #[arg(long, default_value_t = 5)]
    pause_ms: u64,
    /// Callers at once
    #[arg(long, default_value_t = 4)]
    callers: usize,
}

/// One policy in two versions that differ in what mallory is told. Everything else is let through. The second element
/// runs in the engine, so that every call is judged by both parts of a policy.
fn policy(version: usize) -> String {
    let [code, text] = VERSIONS[version % 2];
    format!(
        "firewall() -> late()\n\
         firewall():\n    match get(rpc, 'user'):\n        'mallory' => reject({code})\n        _ => send(rpc)\n\
         late():\n    log_of = float(size)\n    match log_of < 0.0:\n        true => drop()\n        _ => send(rpc)\n\
         # {text}\n"
    )
}

/// What mallory is told by each version.
const VERSIONS: [[&str; 2]; 2] = [["PERMISSION_DENIED", "even"], ["RESOURCE_EXHAUSTED", "odd"]];
const CODES: [Code; 2] = [Code::PermissionDenied, Code::ResourceExhausted];

/// When which version was given, and when its apply was answered.
#[derive(Clone, Copy)]
struct Swap {
    given: Instant,
    done: Option<Instant>,
}

/// What is counted.
#[derive(Default)]
struct Seen {
    calls: u64,
    lost: u64,
    misjudged: u64,
    /// From a text's being given to the first answer by it, in µs.
    effect_us: Vec<f64>,
}

/// Measures.
///
/// # Errors
/// When hosts cannot be had, or a policy is refused.
pub fn run(options: &Options) -> Result<ExitCode> {
    let programs = Programs::find()?;
    let mut stage = Stage::set(Place::Namespaces, &programs)?;
    let hosts = &mut stage.hosts;
    hosts.server.start_daemon(Family::V4, &[])?;
    hosts.client.start_daemon(Family::V4, &[("demo.Hash", hosts.server.engine(Family::V4))])?;
    let _service = hosts.server.start_service()?;

    let schema = source_root().join("schemas/hash.proto");
    let compiled = execute(Command::new(programs.path("tollfree")).args(["schema", "compile"]).arg(&schema))?;
    let manifest: Value = serde_json::from_slice(&compiled.stdout).context("the schema is no JSON")?;
    let manifest = manifest.to_string();
    let mut daemon = Admin::connect(&hosts.server.cli.state.join("admin.sock"))?;
    daemon.apply(&request(0, &manifest)?)?;

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let socket = hosts.client.app_socket();
    let (seen, apply_us) = tokio::task::LocalSet::new().block_on(&runtime, async {
        let state = Rc::new(State::new());
        let mut callers = Vec::new();
        for number in 0..options.callers.max(1) {
            let channel = Channel::connect(&socket).await?;
            callers.push(tokio::task::spawn_local(call(channel, number % 2 == 0, state.clone())));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
        let pause = Duration::from_millis(options.pause_ms);
        let mut apply_us = Vec::new();
        for version in 1..=options.swaps {
            interrupt::check()?;
            let request = request(version, &manifest)?;
            let mut admin = daemon;
            let given = Instant::now();
            state.swaps.borrow_mut().push(Swap { given, done: None });
            // The daemon's answer is waited for elsewhere: calls go on meanwhile.
            let answered = tokio::task::spawn_blocking(move || (admin.apply(&request), admin)).await?;
            daemon = answered.1;
            answered.0?;
            if let Some(swap) = state.swaps.borrow_mut().last_mut() {
                swap.done = Some(Instant::now());
            }
            apply_us.push(given.elapsed().as_secs_f64() * 1e6);
            tokio::time::sleep(pause).await;
        }
        state.over.set(true);
        for caller in callers {
            caller.await??;
        }
        anyhow::Ok((state.seen.take(), apply_us))
    })?;
    report(options, seen, apply_us)
}

struct State {
    /// Of versions 0, 1, 2 …; version 0 was in force from the start.
    swaps: RefCell<Vec<Swap>>,
    seen: RefCell<Seen>,
    over: Cell<bool>,
    /// The newest version that an answer has shown.
    shown: Cell<usize>,
}

impl State {
    fn new() -> State {
        let start = Swap { given: Instant::now(), done: Some(Instant::now()) };
        let swaps = RefCell::new(vec![start]);
        State { swaps, seen: RefCell::default(), over: Cell::new(false), shown: Cell::new(0) }
    }

    /// The versions that may judge a call of this time: those given before its end, from the last one on whose apply was
    /// answered before its beginning.
    fn possible(&self, began: Instant, ended: Instant) -> std::ops::RangeInclusive<usize> {
        let swaps = self.swaps.borrow();
        let first = swaps.iter().rposition(|swap| swap.done.is_some_and(|done| done <= began)).unwrap_or(0);
        let last = swaps.iter().rposition(|swap| swap.given <= ended).unwrap_or(0);
        first..=last
    }

    fn judged(&self, mallory: bool, began: Instant, result: Result<(), Code>) {
        let ended = Instant::now();
        let mut seen = self.seen.borrow_mut();
        seen.calls += 1;
        let code = match result {
            Ok(()) if !mallory => return,
            Ok(()) => {
                seen.misjudged += 1;
                return;
            }
            Err(code) => code,
        };
        if !mallory || !CODES.contains(&code) {
            seen.lost += 1;
            return;
        }
        let possible = self.possible(began, ended);
        let Some(version) = possible.clone().find(|version| CODES[version % 2] == code) else {
            seen.misjudged += 1;
            return;
        };
        let newest = *possible.end();
        if CODES[newest % 2] == code && newest > self.shown.get() && version == newest {
            self.shown.set(newest);
            let given = self.swaps.borrow()[newest].given;
            seen.effect_us.push((ended - given).as_secs_f64() * 1e6);
        }
    }
}

/// Calls until it is over, one call at a time.
async fn call(channel: Channel, mallory: bool, state: Rc<State>) -> Result<()> {
    let client = HashClient::new(channel);
    let user = if mallory { "mallory" } else { "alice" };
    while !state.over.get() {
        let mut request = Request::new(HashRequest { user: user.into(), data: b"x".to_vec() });
        request.set_timeout(Duration::from_secs(10));
        let began = Instant::now();
        let result = client.sha256(request).await;
        state.judged(mallory, began, result.map(drop).map_err(|status| status.code()));
    }
    Ok(())
}

/// What `tollfree policy apply` sends to a daemon, to put a version in force.
fn request(version: usize, manifest: &str) -> Result<String> {
    let text = serde_json::to_string(&policy(version))?;
    let with = format!(r#"{{"name":"swap.policy","text":{text},"manifest":{manifest},"at":null}}"#);
    Ok(format!(r#"{{"op":"policy_apply","with":{with}}}"#) + "\n")
}

/// A connection to a daemon's socket for commands: what `tollfree policy apply` does, without starting a program each time.
struct Admin(BufReader<UnixStream>);

impl Admin {
    fn connect(path: &Path) -> Result<Admin> {
        let stream =
            UnixStream::connect(path).with_context(|| format!("cannot connect to {}", path.display()))?;
        Ok(Admin(BufReader::new(stream)))
    }

    fn apply(&mut self, request: &str) -> Result<()> {
        self.0.get_mut().write_all(request.as_bytes())?;
        let mut answer = String::new();
        self.0.read_line(&mut answer)?;
        let answer: Value = serde_json::from_str(&answer).context("the daemon's answer is no JSON")?;
        if answer.get("ok").is_none() {
            bail!("the daemon refused the policy: {answer}");
        }
        Ok(())
    }
}

fn report(options: &Options, mut seen: Seen, mut apply_us: Vec<f64>) -> Result<ExitCode> {
    let mut rows = table(&["from the policy's text", "p50 µs", "p90 µs", "p99 µs", "most µs"]);
    for (what, times) in
        [("to the daemon's word", &mut apply_us), ("to the first call judged by it", &mut seen.effect_us)]
    {
        times.sort_by(f64::total_cmp);
        let at =
            |part: f64| times.get(((times.len() as f64 - 1.0) * part) as usize).copied().unwrap_or(f64::NAN);
        let mut row = vec![what.to_owned()];
        row.extend([0.5, 0.9, 0.99, 1.0].map(|part| format!("{:.0}", at(part))));
        rows.add_row(row);
    }
    println!("{rows}");
    let Seen { calls, lost, misjudged, effect_us } = &seen;
    println!(
        "{} swaps under {calls} calls of {} callers: {lost} calls lost, {misjudged} judged by neither policy; {} swaps were \
         seen by a call before the next.",
        options.swaps,
        options.callers,
        effect_us.len()
    );
    Ok(if *lost == 0 && *misjudged == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
