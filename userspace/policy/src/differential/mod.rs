//! Two back ends, one meaning: random policies judge random calls on random tables in the engine, in the kernel (where
//! that is allowed) and by a reference that walks the text's tree and shares no code with either but the parser. They
//! must come to the same verdict, flat block, answer, tables and session.
//!
//! What differs by nature is kept out of it: chances are 0% or 100%, tables that evict are never full, the clock stands
//! still, buckets cost less than the time is long. What only the engine does (responses, floats, metadata, effects) is
//! held against the reference alone.
//!
//! `TOLLFREE_DIFF_CASES` says how many calls are to be judged by each test, `TOLLFREE_DIFF_SEED` with which policy to
//! start.

mod calls;
mod generate;
mod kept;
pub(crate) mod kernel;
mod layout;
mod random;
mod reference;

use crate::engine::{Change, Outcome};
use crate::{
    CallView, Clock, Compiled, Home, Options, PeerView, ResponseView, Source, Start, State, TableSpec,
    Tracked, Verdict, compile, notation,
};
use calls::{Call, METADATA, NOW_NS, PEERS, PORT, Response, schema};
use generate::For;
use kernel::{Kernel, Packet, SESSION};
pub(crate) use random::Random;
use reference::Reference;
use std::collections::BTreeMap;
use tollfree_wire::Reason;
use tollfree_wire::header::NO_DEADLINE;
use tollfree_wire::maps::{self, LayoutKey};

/// Calls that one policy judges.
const CALLS: usize = 25;

/// What became of a call, of the tables and of the session.
#[derive(Clone, Debug, PartialEq)]
struct Judged {
    verdict: Verdict,
    /// Of the message at hand, afterwards.
    flat: Vec<u8>,
    /// Layout and flat block.
    answer: Option<(u32, Vec<u8>)>,
    tables: Vec<Vec<(String, String)>>,
    admitted: u64,
    audited: u32,
    effects: String,
}

impl Judged {
    /// Without what nobody sees: the message of a call that goes no further. An element that ends calls may have been moved
    /// ahead of one that changes them.
    fn observable(mut self) -> Judged {
        if self.verdict != Verdict::Send {
            self.flat.clear();
        }
        self
    }
}

fn effects(delay_ns: u64, timeout_ns: Option<u64>, route: Option<(String, Option<u64>)>) -> String {
    format!("delay {delay_ns}, timeout {timeout_ns:?}, route {route:?}")
}

fn number_from(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable}={text} is not a number")))
}

/// Runs `judge` for one policy after the other until enough calls were judged; says how many.
fn cases(default: usize, mut judge: impl FnMut(u64) -> usize) -> usize {
    let wanted = number_from("TOLLFREE_DIFF_CASES").map_or(default, |cases| cases as usize);
    let first = number_from("TOLLFREE_DIFF_SEED").unwrap_or(0);
    let mut judged = 0;
    let mut seed = first;
    while judged < wanted {
        judged += judge(seed);
        seed += 1;
    }
    println!("{judged} calls by the policies of seeds {first} to {}", seed - 1);
    judged
}

/// The policy of a seed; `None` where it keeps too much at the same time.
fn policy(random: &mut Random, to: For) -> Option<(String, Compiled)> {
    let text = generate::policy(random, to);
    let source = Source { name: "random.policy", text: &text };
    let options = Options { xdp: to == For::BothBackEnds, clock: Clock::Fixed(NOW_NS), ..Options::default() };
    match compile(&source, &schema(), options) {
        Ok(compiled) => Some((text, compiled)),
        Err(diagnostics) => {
            let report = diagnostics.to_string();
            let expected = report.matches("values at the same time").count();
            assert_eq!(
                report.matches("Error").count(),
                expected,
                "the generator wrote what does not compile:\n{report}\n{text}"
            );
            None
        }
    }
}

fn fill(random: &mut Random, specs: &[TableSpec]) -> Vec<(usize, String, String)> {
    let mut entries = Vec::new();
    for (at, spec) in specs.iter().enumerate() {
        for _ in 0..random.below(4) {
            entries.push((at, calls::key_text(random, &spec.key), calls::value_text(random, &spec.value)));
        }
    }
    entries
}

/// The engine's state with these entries, as far as there is room.
fn engine_state(compiled: &Compiled, entries: &[(usize, String, String)]) -> State {
    let mut state = compiled.program.new_state();
    for (table, key, value) in entries {
        let _ = state.table_set(&compiled.tables[*table].name, key, value);
    }
    for (key, known) in calls::agreed() {
        state.layout_insert(LayoutKey { method: key.0, layout: key.1 }, known);
    }
    state.take_changes(|_| {});
    state
}

fn dump(compiled: &Compiled, state: &State) -> Vec<Vec<(String, String)>> {
    compiled.tables.iter().map(|table| state.table_dump(&table.name).unwrap()).collect()
}

/// Runs the engine's program on a request, from somewhere in the chain on, or on what answered it.
fn in_engine(
    compiled: &Compiled,
    state: &mut State,
    call: &Call,
    start: Start,
    response: Option<&Response>,
) -> Judged {
    let mut tracked = Tracked { last_seen_ns: call.last_seen_ns, idle_ns: call.idle_ns, calls: 0 };
    let peer = PEERS[call.peer];
    let text = |text: &'static str| (!text.is_empty()).then_some(text);
    let mut flat = call.flat.clone();
    let mut view = CallView {
        method: call.method,
        layout: call.layout,
        flat: &mut flat,
        size: call.flat.len() as u32 + call.body_len,
        deadline_ns: call.deadline_us.map(|us| u64::from(us) * 1000),
        port: PORT,
        session: Some(&mut tracked),
        now_ns: NOW_NS,
        peer: &PeerView {
            address: notation::address(peer.address).unwrap(),
            identity: text(peer.identity),
            namespace: text(peer.namespace),
            token: peer.token,
            named: &calls::named(call.peer),
            sessions: 1,
        },
        metadata: &METADATA,
        backends: &[],
        start,
    };
    let flat = match response {
        None => {
            compiled.program.judge(state, &mut view);
            flat
        }
        Some(response) => {
            let mut flat = response.flat.clone();
            let mut answered = ResponseView {
                status: response.status,
                layout: response.layout,
                size: flat.len() as u32,
                flat: &mut flat,
                latency_ns: response.latency_ns,
                backend: response.backend,
                attempt: 1,
                ended_at: None,
            };
            compiled.program.judge_response(state, &mut view, &mut answered);
            flat
        }
    };
    let Outcome { verdict, delay_ns, timeout_ns, route, audited, .. } = *state.outcome();
    let route = route.map(|route| (compiled.program.selectors()[route.selector].clone(), route.index));
    Judged {
        verdict,
        flat,
        answer: state.answer().map(|answer| (answer.layout, answer.flat.to_vec())),
        tables: dump(compiled, state),
        admitted: tracked.calls,
        audited,
        effects: effects(delay_ns, timeout_ns, route),
    }
}

/// A policy's object in the kernel, and the engine behind it for the elements that are not in it.
struct Both<'a> {
    compiled: &'a Compiled,
    kernel: Kernel,
    engine: State,
}

impl<'a> Both<'a> {
    fn new(compiled: &'a Compiled, entries: &[(usize, String, String)]) -> Result<Both<'a>, String> {
        let mut kernel = Kernel::load(compiled)?;
        let engine = engine_state(compiled, entries);
        kernel.fill(compiled, &dump(compiled, &engine));
        kernel.set_port(PORT);
        kernel.set_generation(7);
        Ok(Both { compiled, kernel, engine })
    }

    fn judge(&mut self, call: &Call) -> Judged {
        let Both { compiled, kernel, engine } = self;
        let peer = PEERS[call.peer];
        let address = notation::address(peer.address).unwrap();
        kernel.set_peer(peer.identity, peer.namespace);
        kernel.set_session(address, call.last_seen_ns, call.idle_ns);
        if let Some(decisions) = &compiled.decisions {
            let text = |text: &'static str| (!text.is_empty()).then_some(text);
            let view = PeerView {
                address,
                identity: text(peer.identity),
                namespace: text(peer.namespace),
                ..PeerView::default()
            };
            let value = [&SESSION.to_ne_bytes()[..], &decisions.decide(&view, PORT)].concat();
            kernel.put(maps::DECISIONS, &SESSION.to_ne_bytes(), &value);
        }
        let audited = |kernel: &Kernel| {
            kernel.sum(maps::REASONS, &(Reason::PolicyAudit.index() as u32).to_ne_bytes()) as u32
        };
        let audited_before = audited(kernel);
        let ran = kernel.run(&Packet {
            method: call.method,
            layout: call.layout,
            flat: &call.flat,
            message_len: call.body_len,
            deadline_us: call.deadline_us.unwrap_or(NO_DEADLINE),
            offset: call.offset,
        });
        let mut judged = Judged {
            verdict: ran.verdict,
            flat: ran.flat,
            answer: ran.answer,
            tables: Vec::new(),
            admitted: kernel.admitted(),
            audited: audited(kernel) - audited_before,
            effects: effects(0, None, None),
        };
        if ran.generation != 0 && ran.verdict == Verdict::Send {
            let mut call = Call { flat: judged.flat.clone(), ..call.clone() };
            // What the tracker in the kernel has noted, one in the engine sees.
            if judged.admitted > 0 {
                call.last_seen_ns = NOW_NS;
            }
            let rest = in_engine(compiled, engine, &call, Start::AfterXdp, None);
            judged = Judged {
                admitted: judged.admitted + rest.admitted,
                audited: judged.audited + rest.audited,
                ..rest
            };
        }
        Judged { tables: self.tables(), ..judged }
    }

    /// What answered a call, which only the engine sees.
    fn judge_response(&mut self, call: &Call, response: &Response) -> Judged {
        let judged = in_engine(self.compiled, &mut self.engine, call, Start::AfterXdp, Some(response));
        Judged { tables: self.tables(), ..judged }
    }

    /// Each table from where it is used, when what is to be written through has been.
    fn tables(&mut self) -> Vec<Vec<(String, String)>> {
        let Both { compiled, kernel, engine } = self;
        engine.take_changes(|change| match change {
            Change::Entry { table, key, value } => kernel.write(&compiled.tables[table], key, value),
            Change::All { .. } => panic!("too many changes by one call"),
        });
        let tables = compiled.tables.iter().zip(&compiled.homes).map(|(spec, home)| match home {
            Home::Xdp => kernel.dump(spec),
            Home::Engine => engine.table_dump(&spec.name).unwrap(),
            Home::Both => {
                let entries = engine.table_dump(&spec.name).unwrap();
                assert_eq!(entries, kernel.dump(spec), "written through");
                entries
            }
        });
        tables.collect()
    }
}

/// How often there was which verdict.
type Verdicts = BTreeMap<String, usize>;

fn count(verdicts: &mut Verdicts, judged: &Judged) {
    *verdicts.entry(format!("{:?}", judged.verdict)).or_default() += 1;
}

#[test]
fn the_engine_does_what_the_text_says() {
    let mut verdicts = Verdicts::new();
    cases(5_000, |seed| {
        let mut random = Random::new(seed);
        let Some((text, compiled)) = policy(&mut random, For::TheEngine) else { return 0 };
        let entries = fill(&mut random, &compiled.tables);
        let mut state = engine_state(&compiled, &entries);
        let mut reference = Reference::new(&text, &compiled.tables, &dump(&compiled, &state));
        for _ in 0..CALLS {
            let mut call = calls::random(&mut random);
            let engine = in_engine(&compiled, &mut state, &call, Start::Chain, None);
            let expected = reference.judge(&call, None);
            assert_eq!(engine, expected, "seed {seed}, {call:?}\n{text}");
            count(&mut verdicts, &engine);
            if engine.verdict == Verdict::Send {
                call.flat = engine.flat;
                let response = calls::response(&mut random, &call);
                let engine = in_engine(&compiled, &mut state, &call, Start::Chain, Some(&response));
                let expected = reference.judge(&call, Some(&response));
                assert_eq!(engine, expected, "seed {seed}, {call:?}, {response:?}\n{text}");
            }
        }
        CALLS
    });
    // A test that only ever sees one verdict shows nothing.
    assert!(verdicts.len() >= 7, "{verdicts:?}");
    println!("{verdicts:?}");
}

#[test]
fn the_kernel_does_what_the_engine_and_the_text_say() {
    if let Err(why) = kernel::possible() {
        println!("skipped: {why}");
        return;
    }
    let mut verdicts = Verdicts::new();
    let (mut whole, mut policies) = (0, 0);
    cases(2_000, |seed| {
        let mut random = Random::new(seed);
        let Some((text, compiled)) = policy(&mut random, For::BothBackEnds) else { return 0 };
        if compiled.object.is_none() {
            return 0;
        }
        let entries = fill(&mut random, &compiled.tables);
        let mut both = Both::new(&compiled, &entries)
            .unwrap_or_else(|error| panic!("seed {seed}: {error}\n{text}\n{}", compiled.explain));
        policies += 1;
        whole += usize::from(compiled.in_xdp == compiled.program.elements().len());
        let mut state = engine_state(&compiled, &entries);
        let mut reference = Reference::new(&text, &compiled.tables, &dump(&compiled, &state));
        for _ in 0..CALLS {
            let mut call = calls::random(&mut random);
            let engine = in_engine(&compiled, &mut state, &call, Start::Chain, None);
            let expected = reference.judge(&call, None);
            assert_eq!(
                engine.clone().observable(),
                expected.observable(),
                "engine and text, seed {seed}, {call:?}\n{text}"
            );
            let kernel = both.judge(&call);
            let explain = &compiled.explain;
            assert_eq!(kernel, engine, "kernel and engine, seed {seed}, {call:?}\n{text}\n{explain}");
            count(&mut verdicts, &engine);
            if compiled.program.has_response() && engine.verdict == Verdict::Send {
                call.flat = engine.flat;
                let response = calls::response(&mut random, &call);
                let engine = in_engine(&compiled, &mut state, &call, Start::Chain, Some(&response));
                let expected = reference.judge(&call, Some(&response));
                assert_eq!(engine, expected, "engine and text, seed {seed}, {call:?}, {response:?}\n{text}");
                let split = both.judge_response(&call, &response);
                assert_eq!(
                    split, engine,
                    "split and engine, seed {seed}, {call:?}, {response:?}\n{text}\n{explain}"
                );
            }
        }
        CALLS
    });
    println!("{verdicts:?}, {whole} of {policies} policies as a whole in XDP");
}
