//! Two back ends, one meaning: random policies judge random calls on random tables in the engine, in the kernel (where
//! that is allowed) and by a reference that walks the text's tree and shares no code with either.

mod calls;
mod generate;
pub(crate) mod kernel;
mod reference;

use crate::{
    CallView, Compiled, Options, PeerView, Source, Start, State, TableSpec, Tracked, Verdict, compile,
};
use calls::{Call, schema};
pub(crate) use generate::Random;
use tollfree_wire::maps::LayoutKey;

/// What a back end made of a call, and of the tables and the session.
#[derive(Debug, PartialEq, Eq)]
struct Outcome {
    verdict: Verdict,
    tables: Vec<Vec<(String, String)>>,
    admitted: u64,
}

fn policy(random: &mut Random) -> (String, Compiled) {
    let text = generate::policy(random);
    let source = Source { name: "random.policy", text: &text };
    match compile(&source, &schema(), Options::default()) {
        Ok(compiled) => (text, compiled),
        Err(diagnostics) => panic!("the generator wrote what does not compile:\n{text}\n{diagnostics}"),
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
    state
}

fn dump(compiled: &Compiled, state: &State) -> Vec<Vec<(String, String)>> {
    compiled.tables.iter().map(|table| state.table_dump(&table.name).unwrap()).collect()
}

fn in_engine(compiled: &Compiled, state: &mut State, call: &Call) -> Outcome {
    let mut tracked = Tracked { last_seen_ns: call.last_seen_ns, idle_ns: call.idle_ns, calls: 0 };
    let mut view = CallView {
        method: call.method,
        layout: call.layout,
        flat: &mut call.flat.clone(),
        size: call.flat.len() as u32,
        deadline_ns: None,
        port: 0,
        session: Some(&mut tracked),
        now_ns: calls::NOW_NS,
        peer: &PeerView::default(),
        metadata: &[],
        backends: &[],
        start: Start::Chain,
    };
    let verdict = compiled.program.judge(state, &mut view).verdict;
    Outcome { verdict, tables: dump(compiled, state), admitted: tracked.calls }
}

#[test]
fn the_engine_does_what_the_text_says() {
    let mut verdicts = std::collections::BTreeMap::<String, usize>::new();
    for seed in 0..600 {
        let mut random = Random::new(seed);
        let (text, compiled) = policy(&mut random);
        let entries = fill(&mut random, &compiled.tables);
        let mut state = engine_state(&compiled, &entries);
        let mut reference = reference::Reference::new(&text, &compiled.tables, &dump(&compiled, &state));
        for _ in 0..20 {
            let call = calls::random(&mut random);
            let engine = in_engine(&compiled, &mut state, &call);
            let expected = reference.judge(&call);
            assert_eq!(engine, expected, "seed {seed}, {call:?}\n{text}");
            *verdicts.entry(format!("{:?}", engine.verdict)).or_default() += 1;
        }
    }
    // A test that only ever sees one verdict shows nothing.
    assert!(verdicts.len() == 5, "{verdicts:?}");
    println!("{verdicts:?}");
}

#[test]
fn the_kernel_does_what_the_engine_does() {
    if let Err(why) = kernel::possible() {
        println!("skipped: {why}");
        return;
    }
    let mut judged = 0;
    for seed in 0..60 {
        let mut random = Random::new(seed);
        let (text, compiled) = policy(&mut random);
        let mut kernel =
            kernel::Kernel::load(&compiled).unwrap_or_else(|error| panic!("seed {seed}: {error}\n{text}"));
        let entries = fill(&mut random, &compiled.tables);
        let mut state = engine_state(&compiled, &entries);
        kernel.fill(&compiled, &dump(&compiled, &state));
        for _ in 0..25 {
            let call = calls::random(&mut random);
            let engine = in_engine(&compiled, &mut state, &call);
            let offset = [42, 46, 62, 66][random.below(4)];
            let outcome = kernel.judge(&compiled, &call, offset);
            assert_eq!(outcome, engine, "seed {seed}, {call:?}\n{text}");
            judged += 1;
        }
    }
    println!("{judged} calls judged alike");
}
