//! What each policy of the standard library costs a call, in the driver and in the engine: `cargo xtask perf policies`
//! runs this, and `perf/README.md` says what the columns mean.
//!
//! The least of several rounds each: others' work on the machine only adds.

#[path = "../../tests/common/mod.rs"]
mod common;
mod driver;
mod engine;
mod subject;

use driver::Driver;
use std::collections::BTreeSet;
use subject::Subject;

/// The most that the firewall with the session tracker may cost above the root program alone, in ns.
const FIREWALL_NS: u32 = 60;
/// The most that an element of the library may cost in the engine, in ns.
const ENGINE_NS: f64 = 100.0;

/// One line of the table.
#[derive(serde::Serialize)]
struct Line {
    policy: String,
    lines: usize,
    places: String,
    /// eBPF instructions; 0: nothing runs in the driver.
    instructions: usize,
    /// Above the delivering stage alone; `None` where nothing runs in the driver.
    driver_ns: Option<u32>,
    engine_ns: f64,
}

fn main() {
    let json = std::env::args().any(|argument| argument == "json");
    let Some(sandbox) = common::sandbox() else { std::process::exit(1) };
    pin();
    let schema = subject::schema();
    let mut driver = Driver::new(&sandbox);
    let mut lines = Vec::new();
    let mut deliver_ns = u32::MAX;
    for sides in subject::all(&schema) {
        // The second side gets what the first has made of it.
        let mut flat = sides.first().map(|side| side.flat.clone()).unwrap_or_default();
        for subject in sides {
            eprint!("\r{:<28}", subject.name);
            let engine_ns = engine::measure(&subject, &mut flat);
            let cost = driver.measure(&subject);
            deliver_ns = cost.as_ref().map_or(deliver_ns, |cost| deliver_ns.min(cost.stage_ns));
            lines.push(line(subject, cost.map(|cost| cost.above_ns), engine_ns));
        }
    }
    eprint!("\r{:<28}\r", "");
    if json {
        println!("{}", serde_json::to_string_pretty(&lines).expect("plain data"));
    } else {
        show(&lines, deliver_ns);
    }
}

/// Keeps this thread, and with it what the root program leaves for the stages, on one CPU.
fn pin() {
    let mut one = rustix::thread::CpuSet::new();
    one.set(rustix::thread::sched_getcpu());
    rustix::thread::sched_setaffinity(None, &one).expect("a thread may stay where it is");
}

fn line(subject: Subject<'_>, driver_ns: Option<u32>, engine_ns: f64) -> Line {
    let Subject { name, lines, compiled, .. } = subject;
    let places: BTreeSet<String> =
        compiled.explain.elements.iter().map(|one| one.place.to_string()).collect();
    Line {
        policy: name,
        lines,
        places: places.into_iter().collect::<Vec<_>>().join(" + "),
        instructions: compiled.instructions,
        driver_ns,
        engine_ns,
    }
}

fn show(lines: &[Line], deliver_ns: u32) {
    println!("policy                lines  place                 instructions  driver ns  engine ns");
    for Line { policy, lines, places, instructions, driver_ns, engine_ns } in lines {
        let driver = driver_ns.map_or_else(|| "-".to_owned(), |ns| ns.to_string());
        let instructions = if *instructions > 0 { instructions.to_string() } else { "-".to_owned() };
        println!("{policy:<20} {lines:>6}  {places:<20} {instructions:>13} {driver:>10} {engine_ns:>10.0}");
    }
    println!("\ndelivering without a policy, and what the kernel adds to each run: {deliver_ns} ns");
    let kept = |kept: bool| if kept { "kept" } else { "missed" };
    if let Some(Line { driver_ns: Some(ns), .. }) = lines.iter().find(|line| line.policy == "firewall") {
        println!(
            "firewall and session tracker in the driver: at most {FIREWALL_NS} ns: {}",
            kept(*ns <= FIREWALL_NS)
        );
    }
    let slow = lines.iter().filter(|line| line.engine_ns > ENGINE_NS);
    let slow: Vec<String> = slow.map(|line| format!("{} {:.0}", line.policy, line.engine_ns)).collect();
    println!("any policy in the engine: at most {ENGINE_NS} ns: {}", kept(slow.is_empty()));
    if !slow.is_empty() {
        println!("  above: {}", slow.join(", "));
    }
}
