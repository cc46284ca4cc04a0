//! Judging does not allocate: by any policy of the standard library, once its tables know the keys. Counted by this test's
//! own allocator, per thread. And what judging costs.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tollfree_policy::{
    CallView, Options, PeerView, Program, ResponseView, Side, Source, Start, State, Tracked, Verdict,
    compile, sides,
};
use tollfree_schema::{FieldKind, Manifest, Method};
use tollfree_wire::Code;

/// Counts what this thread allocates.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

// SAFETY: everything is the system allocator's; counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // Fails while a thread ends, when nobody counts any more.
        let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(name)
}

fn shop() -> Manifest {
    Manifest::from_proto(&[folder("schemas/shop.proto")], &[folder("schemas")]).unwrap()
}

/// The standard library, by name.
fn library() -> Vec<(String, String)> {
    let entries = std::fs::read_dir(folder("policies/std")).unwrap().map(|entry| entry.unwrap().path());
    let mut policies: Vec<(String, String)> = entries
        .filter(|path| path.extension().is_some_and(|extension| extension == "policy"))
        .map(|path| {
            (
                path.file_stem().unwrap().to_string_lossy().into_owned(),
                std::fs::read_to_string(&path).unwrap(),
            )
        })
        .collect();
    policies.sort();
    policies
}

/// A flat block with something in each field.
fn flat(layout: &tollfree_schema::Layout) -> Vec<u8> {
    let mut flat = vec![0; usize::from(layout.flat_len)];
    for field in &layout.fields {
        let at = usize::from(field.offset);
        match field.kind {
            FieldKind::String { .. } | FieldKind::Bytes { .. } => {
                flat[at] = 3;
                flat[at + 1..at + 4].copy_from_slice(b"tea");
            }
            _ => flat[at] = 1,
        }
    }
    flat
}

/// A policy under calls of one method.
struct Bench {
    program: Program,
    state: State,
    method: Method,
    request: Vec<u8>,
    response: Vec<u8>,
    now_ns: u64,
    tracked: Tracked,
}

impl Bench {
    fn new(text: &str, side: Side, schema: &Manifest, method: &Method) -> Bench {
        let options = Options { side: Some(side), xdp: false, ..Options::default() };
        let compiled = compile(&Source { name: "std", text }, schema, options).unwrap();
        let mut program = compiled.program;
        program.set_keys(|_| Some([7; 32]));
        let state = program.new_state();
        let (request, response) = (flat(&method.request), flat(&method.response));
        let tracked = Tracked { last_seen_ns: 0, idle_ns: 1 << 40, calls: 0 };
        Bench { program, state, method: method.clone(), request, response, now_ns: 1 << 40, tracked }
    }

    /// A call, and its response where it was sent on.
    fn call(&mut self) -> Verdict {
        let Bench { program, state, method, request, response, now_ns, tracked } = self;
        // A thousand calls a second.
        *now_ns += 1_000_000;
        let peer = PeerView { identity: Some("tea"), address: [10; 16], ..PeerView::default() };
        let mut view = CallView {
            method: method.id,
            layout: method.request.fingerprint,
            size: request.len() as u32,
            flat: request,
            deadline_ns: Some(1_000_000_000),
            port: 7400,
            now_ns: *now_ns,
            session: Some(tracked),
            peer: &peer,
            metadata: &[("trace", "1")],
            backends: &[3; 8],
            start: Start::Chain,
        };
        let verdict = program.judge(state, &mut view).verdict;
        if verdict == Verdict::Send && program.has_response() {
            let mut answered = ResponseView {
                status: Code::Ok,
                layout: method.response.fingerprint,
                size: response.len() as u32,
                flat: response,
                latency_ns: 100_000,
                backend: Some(1),
                attempt: 1,
                ended_at: None,
            };
            black_box(program.judge_response(state, &mut view, &mut answered));
        }
        state.take_log(|line| {
            black_box(line.text.len());
        });
        verdict
    }
}

fn benches() -> impl Iterator<Item = (String, Bench)> {
    let schema = shop();
    library().into_iter().flat_map(move |(name, text)| {
        let sides = sides(&Source { name: &name, text: &text });
        let mut benches = Vec::new();
        for side in sides {
            for method in schema.methods() {
                let title = format!("{name} at {side}, {}", method.path);
                benches.push((title, Bench::new(&text, side, &schema, method)));
            }
        }
        benches
    })
}

#[test]
fn judging_does_not_allocate() {
    let mut judged = 0;
    for (title, mut bench) in benches() {
        for _ in 0..100 {
            bench.call();
        }
        let before = ALLOCATIONS.get();
        for _ in 0..1000 {
            bench.call();
        }
        assert_eq!(ALLOCATIONS.get() - before, 0, "{title}");
        judged += 1;
    }
    assert!(judged > 26, "{judged}");
}

/// This thread's time on a CPU: what else the machine does is not counted.
fn busy() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}

#[test]
#[ignore = "measures: cargo test --release -p tollfree-policy --test steady_state -- --ignored --nocapture"]
fn what_judging_costs() {
    for (title, mut bench) in benches() {
        const CALLS: u32 = 50_000;
        let mut best = f64::MAX;
        let verdict = bench.call();
        for _ in 0..10 {
            let start = busy();
            for _ in 0..CALLS {
                black_box(bench.call());
            }
            best = best.min((busy() - start).as_nanos() as f64 / f64::from(CALLS));
        }
        println!("{best:6.1} ns a call  {title}: first {verdict:?}");
    }
}
