//! A variable keeps its value, whatever becomes of the field or the entry that it was read from.

use super::calls::{self, schema};
use super::{Both, Random, Reference, dump, engine_state, fill, in_engine, kernel};
use crate::{Clock, Options, Source, Start, compile};

/// Calls that each policy judges.
const CALLS: usize = 200;

const POLICIES: [&str; 4] = [
    "a()
state:
    seen: table(u32 -> u64, capacity = 4)
    users: table(string(32) -> u64, capacity = 4)
a():
    level = get(rpc, 'level')
    user = get(rpc, 'user')
    set(rpc, 'level', level + 1)
    set(rpc, 'user', 'somebody')
    add(seen, level, get(rpc, 'level'))
    set(users, user, 7)
    match user:
        'alice' => drop()
        Some(known) if starts_with(known, 'b') => reject(ABORTED)
        _ => send(rpc)
",
    "a()
state:
    names: table(bool -> string(12), capacity = 4)
    last: table(string(12) -> u64, capacity = 8)
a():
    flag = get(rpc, 'flag')
    name = get(names, flag)
    set(names, flag, 'other')
    delete(rpc, 'flag')
    set(last, name, 1)
    match name:
        Some(old) if old == 'other' and not flag => drop()
        Some(_) if flag => reject(ABORTED)
        _ => send(rpc)
",
    "a()
state:
    macs: table(fixed(6) -> u64, capacity = 8)
    tokens: table(bytes(7) -> u64, capacity = 8)
a():
    mac = get(rpc, 'mac')
    token = get(rpc, 'token')
    match get(rpc, 'token'):
        Some(short) =>
            delete(rpc, 'token')
            delete(rpc, 'mac')
            set(tokens, short, 3)
        NONE => pass
    set(macs, mac, 4)
    add(tokens, token, 1)
",
    "a()
state:
    deltas: table(i32 -> i64, capacity = 8)
a():
    match get(rpc, 'delta'):
        Some(delta) if delta < 0 =>
            set(rpc, 'delta', 5)
            match get(rpc, 'delta'):
                5 => add(deltas, delta, delta)
                _ => drop()
            send(rpc)
        1..100 => reject(ABORTED)
        _ => send(rpc)
",
];

#[test]
fn a_variable_keeps_its_value() {
    let in_kernel = kernel::possible().is_ok();
    for (seed, text) in (0..).zip(POLICIES) {
        let mut random = Random::new(seed);
        let source = Source { name: "kept.policy", text };
        let compiled =
            compile(&source, &schema(), Options { clock: Clock::Fixed(calls::NOW_NS), ..Options::default() })
                .unwrap_or_else(|error| panic!("{error}"));
        assert!(compiled.object.is_some(), "{}", compiled.explain);
        let entries = fill(&mut random, &compiled.tables);
        let mut both = in_kernel.then(|| Both::new(&compiled, &entries).unwrap());
        let mut state = engine_state(&compiled, &entries);
        let mut reference = Reference::new(text, &compiled.tables, &dump(&compiled, &state));
        for _ in 0..CALLS {
            let call = calls::random(&mut random);
            let engine = in_engine(&compiled, &mut state, &call, Start::Chain, None);
            assert_eq!(engine, reference.judge(&call, None), "{call:?}\n{text}");
            if let Some(both) = &mut both {
                assert_eq!(both.judge(&call), engine, "{call:?}\n{text}");
            }
        }
    }
}
