//! Policies of every length: what the compiler puts in XDP, the verifier accepts, however long and however deep.

use super::{Call, Judge, compiled, method};
use crate::differential::Random;
use crate::differential::kernel::{self, Kernel};
use crate::{Options, Place, Source, Verdict, compile};
use std::fmt::Write as _;
use tollfree_schema::{FieldKind, Manifest, Method, Service};

/// Values, and arms that cover them.
const VALUES: &[(&str, &[&str])] = &[
    ("get(rpc, 'a') * 3 + get(rpc, 'b')", &["1..100", "5 | 7 | 1000000000000", "_"]),
    ("get(rpc, 'c') - get(rpc, 'd')", &["-5..5", "_"]),
    ("get(rpc, 'user')", &["'a*'", "'bob'", "_"]),
    ("get(rpc, 'other') == get(rpc, 'user')", &["true", "_"]),
    ("get(rules, get(rpc, 'user'))", &["ALLOW", "DENY", "_"]),
    ("get(notes, get(rpc, 'other'), get(rpc, 'a'))", &["'x*'", "'yes'", "_"]),
    ("add(sums, hash(get(rpc, 'user'), get(rpc, 'mac')), 3)", &["1..10", "_"]),
    ("take(buckets, get(rpc, 'user'), 100/s)", &["true", "_"]),
    ("get(cell) > 7 and get(rpc, 'flag')", &["true", "_"]),
    ("method", &["'Admin*'", "_"]),
    ("get(peer, 'address')", &["'10.0.0.0/8'", "'fe80::/10'", "_"]),
    ("get(peer, 'identity') == get(rpc, 'user')", &["true", "_"]),
];

/// A chain of elements, each of which is a tree of matches so deep.
fn policy(random: &mut Random, elements: usize, depth: usize) -> String {
    let mut text = String::from(
        "state:\n    rules: table(string(40) -> ALLOW | DENY)\n    notes: table(string(40), u64 -> string(40), evict = lru)\n\
         \x20   sums: table(u64 -> u64)\n    buckets: table(string(40) -> bucket, evict = lru)\n    total: counter\n    cell: u64 = 3\n\n",
    );
    let chain: Vec<String> = (0..elements).map(|at| format!("e{at}()")).collect();
    let _ = writeln!(text, "{}\n", chain.join(" -> "));
    for at in 0..elements {
        let _ = writeln!(text, "e{at}():");
        tree(random, &mut text, depth, 1, &mut 0);
        text.push('\n');
    }
    text
}

fn tree(random: &mut Random, text: &mut String, depth: usize, indent: usize, names: &mut usize) {
    let pad = "    ".repeat(indent);
    *names += 1;
    let name = format!("v{names}");
    if depth == 0 {
        let exit =
            *random.pick(&["send(rpc)", "send(rpc)", "send(rpc)", "send(rpc)", "drop()", "reject(ABORTED)"]);
        let _ = writeln!(text, "{pad}{exit}");
        return;
    }
    let (value, arms) = *random.pick(VALUES);
    match random.below(6) {
        0 => drop(writeln!(text, "{pad}set(notes, get(rpc, 'user'), 1, get(rpc, 'other'))")),
        1 => drop(writeln!(text, "{pad}set(rpc, 'out', size)")),
        2 => drop(writeln!(text, "{pad}add(total, 1)")),
        _ => {}
    }
    let _ = writeln!(text, "{pad}{name} = {value}");
    let _ = writeln!(text, "{pad}match {name}:");
    for (at, arm) in arms.iter().enumerate() {
        let guard = if at + 1 < arms.len() && random.below(4) == 0 { " if get(rpc, 'out') != 9" } else { "" };
        let _ = writeln!(text, "{pad}    {arm}{guard} =>");
        tree(random, text, depth - 1, indent + 2, names);
    }
}

#[test]
fn what_is_placed_in_xdp_verifies() {
    if let Err(why) = kernel::possible() {
        println!("skipped: {why}");
        return;
    }
    for (seed, (elements, depth)) in (0..).zip([(1, 1), (4, 2), (10, 3), (60, 2), (8, 4), (64, 1)]) {
        let text = policy(&mut Random::new(seed), elements, depth);
        let mut judge = Judge::new(&text).unwrap();
        let started = std::time::Instant::now();
        let object = judge.compiled.object.clone().unwrap();
        let mut ebpf = aya::Ebpf::load(&object).unwrap();
        let mut programs = 0;
        for (name, program) in ebpf.programs_mut() {
            let program: &mut aya::programs::Xdp = program.try_into().unwrap();
            program.load().unwrap_or_else(|error| panic!("{name}: {error:?}"));
            let verified = program.info().unwrap().verified_instruction_count().unwrap_or(0);
            assert!(verified < 1_000_000, "{name}: {verified}");
            println!("  {name}: {verified} looked at");
            programs += 1;
        }
        println!(
            "{elements} elements, depth {depth}: {} in XDP, {} instructions in {programs} programs, {:?}",
            judge.compiled.in_xdp,
            judge.compiled.instructions,
            started.elapsed()
        );
        // It runs, too, through all its parts.
        judge.run(&Call { method: "Text", texts: &[("user", "alice")], ..Call::default() });
        judge.run(&Call { method: "Calc", ..Call::default() });
    }
}

#[test]
fn long_chains_go_on_in_other_programs() {
    let text = policy(&mut Random::new(1), 40, 3)
        .replace("drop()", "send(rpc)")
        .replace("reject(ABORTED)", "send(rpc)");
    let Some(mut judge) = Judge::new(&text) else { return };
    assert_eq!(judge.compiled.in_xdp, 40);
    assert!(crate::emit_asm(&judge.compiled).contains("tf_policy_1:"));
    let call = Call { method: "Text", texts: &[("user", "alice")], ..Call::default() };
    assert_eq!(judge.run(&call).verdict, Verdict::Send);
    // The last element is reached.
    let text = text.replace("e39()\n", "e39() -> last()\n") + "last():\n    reject(NOT_FOUND)\n";
    let Some(mut judge) = Judge::new(&text) else { return };
    assert!(matches!(judge.run(&call).verdict, Verdict::Reject(tollfree_wire::Code::NotFound, _)));
}

#[test]
fn an_element_too_long_for_xdp_says_so() {
    let text = policy(&mut Random::new(3), 3, 8);
    let compiled = compiled(&text);
    let long = compiled.explain.elements.iter().find(|element| element.place == Place::Engine).unwrap();
    assert!(long.why.contains("instructions for one method"), "{}", long.why);
}

#[test]
fn schemas_of_any_size_verify_or_say_why_not() {
    if let Err(why) = kernel::possible() {
        println!("skipped: {why}");
        return;
    }
    let text = "f()\nf():\n    match get(rules, get(rpc, 'user')):\n        ALLOW => send(rpc)\n        DENY | NONE => drop()\n";
    for methods in [100, 700, 3000] {
        let fields: Vec<(String, FieldKind)> = (0..5)
            .map(|at| (format!("field{at}"), FieldKind::U32))
            .chain([("user".to_owned(), FieldKind::String { max_len: 16 })])
            .collect();
        let fields: Vec<(&str, FieldKind)> =
            fields.iter().map(|(name, kind)| (name.as_str(), kind.clone())).collect();
        let methods: Vec<Method> = (0..methods)
            // In seven places.
            .map(|at| method("t.T", &format!("M{at}"), &fields[at % 6..], &fields[..at % 5]))
            .collect();
        let count = methods.len();
        let schema = Manifest { services: vec![Service { name: "t.T".into(), methods }] };
        let source = Source { name: "test.policy", text };
        let compiled = compile(&source, &schema, Options::default()).unwrap();
        println!("{count} methods: {} instructions", compiled.instructions);
        if compiled.object.is_some() {
            Kernel::load(&compiled).unwrap_or_else(|why| panic!("{count} methods: {why}"));
        } else {
            assert_eq!(
                compiled.explain.elements[0].why,
                "the schema has more methods than one XDP program can tell apart"
            );
        }
        assert!(compiled.object.is_some() || count > 1000, "{count} methods");
    }
}
