//! Whatever the text, the compiler answers: with a policy or with a report that can be shown.

use proptest::prelude::*;
use tollfree_policy::{Options, Side, Source, compile, emit_ir, format, sides};
use tollfree_schema::{FieldKind, Layout, Manifest, Member, Method, Service, method_id};

const POLICIES: [&str; 6] = [
    include_str!("golden/clean.policy"),
    include_str!("../../../policies/paper/firewall.policy"),
    include_str!("../../../policies/paper/transport.policy"),
    include_str!("../../../policies/firewall.policy"),
    "a() -> session_tracker() at client\nstate:\n    t: table(string(31) -> u64, capacity = 9)\na():\n    request:\n        \
     u = get(rpc, 'user')\n        match get(t, u):\n            Some(n) =>\n                set(t, u, 3)\n                \
     send(rpc)\n            NONE => drop()\n",
    "a()\na():\n    match get(rpc, 'level'):\n        1|2 => send(rpc)\n        Some(x) => set(seen, x, ON)\n        \
     NONE => delete(seen, 7)\n    reject(ABORTED)\n",
];

const TOKENS: [&str; 108] = [
    "a",
    "b",
    "user",
    "rpc",
    "get",
    "set",
    "delete",
    "match",
    "send",
    "drop",
    "reject",
    "state",
    "table",
    "string",
    "u64",
    "capacity",
    "request",
    "response",
    "at",
    "server",
    "NONE",
    "Some",
    "_",
    "ALLOW",
    "DENY",
    "(",
    ")",
    ":",
    ",",
    "|",
    "->",
    "=>",
    "=",
    "-",
    "'user'",
    "'level'",
    "12",
    "0x",
    "\n",
    "\n    ",
    "\n        ",
    " ",
    "session_tracker",
    "#",
    "for",
    "on",
    "audit",
    "client",
    "kv.Store",
    "/",
    "GET",
    "*",
    ".",
    "..",
    "==",
    "!=",
    "<",
    "<=",
    "+",
    "%",
    "not",
    "and",
    "or",
    "if",
    "true",
    "1.5",
    "10%",
    "5ms",
    "100/s",
    "4KiB",
    "add",
    "take",
    "chance",
    "random",
    "hash",
    "starts_with",
    "as_u64",
    "as_i64",
    "float",
    "backends",
    "ask",
    "encrypt",
    "decrypt",
    "log",
    "delay",
    "timeout",
    "route",
    "mirror",
    "eject",
    "retry",
    "answer",
    "pass",
    "counter",
    "bucket",
    "evict",
    "lru",
    "method",
    "service",
    "status",
    "latency",
    "now",
    "size",
    "deadline",
    "peer",
    "'address'",
    "'10.0.0.0/8'",
    "'a*'",
    "(((",
];

fn schema() -> Manifest {
    let fields = vec![
        Member { name: "user".into(), number: 1, kind: FieldKind::String { max_len: 31 } },
        Member { name: "level".into(), number: 2, kind: FieldKind::U32 },
    ];
    let path = "/kv.Store/GET".to_owned();
    let request = Layout::new("kv.GetRequest", fields, 192).unwrap();
    let method = Method {
        name: "GET".into(),
        id: method_id(&path),
        path,
        streaming: tollfree_schema::Streaming::Unary,
        request,
        response: Layout::default(),
    };
    Manifest { services: vec![Service { name: "kv.Store".into(), methods: vec![method] }] }
}

fn answers(text: &str) {
    let source = Source { name: "p", text };
    for side in [None, Some(Side::Server), Some(Side::Client)] {
        let options = Options { side, interface: Some("eth0"), ..Options::default() };
        if let Err(diagnostics) = emit_ir(&source, &schema(), options) {
            assert!(!diagnostics.list().is_empty() && diagnostics.list().len() <= 20);
            assert!(!diagnostics.render(true).is_empty());
            assert!(diagnostics.to_json().is_array());
            continue;
        }
        let compiled = compile(&source, &schema(), options).expect("what is understood compiles");
        assert_eq!(side.unwrap_or(compiled.side), compiled.side);
    }
    if let Ok(text) = format(&source) {
        assert_eq!(format(&Source { name: "p", text: &text }).as_deref().ok(), Some(text.as_str()));
        assert!(sides(&source).len() <= 2);
    }
}

#[test]
fn depth_has_a_limit() {
    answers(&format!("a()\na():\n    x = {}1{}", "get(t, ".repeat(10_000), ")".repeat(10_000)));
    let nested: String = (1..2000).map(|depth| format!("{}match x:\n", " ".repeat(depth))).collect();
    answers(&format!("a()\na():\n{nested}"));
    answers(&format!("a(){}", " -> a()".repeat(20_000)));
    for (before, again, after) in [
        ("(", "(", ""),
        ("not ", "not ", "true"),
        ("- ", "- ", "x"),
        ("1", " + 1", ""),
        ("x", " and x", ""),
        ("f(x", ", f(x", ""),
        ("(1", " + (1", ""),
    ] {
        answers(&format!("a()\na():\n    x = {before}{}{after}\n    send(rpc)", again.repeat(5_000)));
        answers(&format!(
            "a()\na():\n    match 1:\n        _ if {before}{}{after} => pass",
            again.repeat(5_000)
        ));
    }
}

/// Where one of these takes long, something is compared with everything before it.
#[test]
fn long_texts_take_no_longer_per_line() {
    const LINES: usize = 5_000;
    let lines = |line: fn(usize) -> String| (0..LINES).map(line).collect::<String>();
    let arms = |subject: &str, arms: String| {
        format!("a()\na():\n    match {subject}:\n{arms}        _ => send(rpc)\n")
    };
    answers(&arms("get(rpc, 'user')", lines(|n| format!("        'user {n}' => drop()\n"))));
    answers(&arms("get(rpc, 'user')", lines(|n| format!("        'u{n}' if size > {n} => drop()\n"))));
    answers(&arms("get(names, get(rpc, 'user'))", lines(|n| format!("        NAME{n} => drop()\n"))));
    answers(&arms("get(rpc, 'user')", lines(|_| "        'user' => drop()\n".into())));
    answers(&format!("a()\na():\n{}", lines(|n| format!("    x{n} = get(t, 'k{n}')\n"))));
    answers(&format!("a()\na():\n{}", lines(|n| format!("    x{n} = get(rpc, 'no{n}')\n"))));
    answers(&lines(|n| format!("a{n}() -> b()\n")));
    answers(&format!("a0()\n{}", lines(|n| format!("a{n}():\n    set(t{n}, 1)\n"))));
    answers(&lines(|_| "$ é\n".into()));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn on_any_text(text in "\\PC{0,80}") { answers(&text); }

    #[test]
    fn on_token_soup(tokens in proptest::collection::vec(0..TOKENS.len(), 0..80)) {
        let text: Vec<&str> = tokens.into_iter().map(|token| TOKENS[token]).collect();
        answers(&text.join(" "));
        answers(&text.concat());
    }

    #[test]
    fn on_mutations(
        policy in 0..POLICIES.len(),
        edits in proptest::collection::vec((any::<prop::sample::Index>(), 0..4u8, 0..TOKENS.len(), any::<char>()), 1..6),
    ) {
        let mut chars: Vec<char> = POLICIES[policy].chars().collect();
        for (at, edit, token, c) in edits {
            let at = at.index(chars.len().max(1)).min(chars.len());
            match edit {
                0 => { chars.truncate(at); }
                1 => { if at < chars.len() { chars.remove(at); } }
                2 => chars.insert(at, c),
                _ => { chars.splice(at..at, TOKENS[token].chars()); }
            }
        }
        answers(&chars.into_iter().collect::<String>());
    }
}
