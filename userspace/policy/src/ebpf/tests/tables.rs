//! Tables of every kind.

use super::{Call, Judge, NOW_NS};
use crate::Verdict;

fn by(user: &str) -> Call<'_> {
    Call {
        method: "Text",
        texts: Box::leak(Box::new([("user", &*user.to_owned().leak())])),
        ..Call::default()
    }
}

#[test]
fn adding_saturates_and_gives_the_sum() {
    let text = "state:\n    hits: table(string(16) -> u64, capacity = 2)\n    n: i32 = 5\n\nf()\n\
                f():\n    set(rpc, 'out', add(hits, get(rpc, 'user'), 3))\n    add(n, -2147483648)\n";
    let Some(mut judge) = Judge::new(text) else { return };
    assert_eq!(judge.table("n"), [(String::new(), "5".into())]);
    assert_eq!(judge.number(&by("a"), "out"), 3);
    assert_eq!(judge.number(&by("a"), "out"), 6);
    judge.insert("hits", "b", "18446744073709551614");
    assert_eq!(judge.number(&by("b"), "out"), u64::MAX);
    assert_eq!(judge.number(&by("b"), "out"), u64::MAX);
    assert_eq!(judge.number(&by("c"), "out"), 0, "the table is full: no sum, and the field stays");
    let entries = [("a".to_owned(), "6".to_owned()), ("b".to_owned(), u64::MAX.to_string())];
    assert_eq!(judge.table("hits"), entries);
    assert_eq!(judge.table("n"), [(String::new(), i32::MIN.to_string())]);
}

#[test]
fn keys_have_parts_and_values_can_be_text() {
    let text = "state:\n    seen: table(string(16), method, u64 -> string(20), evict = lru)\n\nf()\n\
                f():\n    user = get(rpc, 'user')\n    known = get(seen, user, method, 7)\n\
                \x20   set(rpc, 'other', known)\n    set(seen, user, method, 7, user)\n";
    let Some(mut judge) = Judge::new(text) else { return };
    judge.run(&by("alice"));
    let entries = judge.table("seen");
    assert_eq!(entries.len(), 1, "{entries:?}");
    assert_eq!(entries[0].1, "alice");
    let ran = judge.run(&by("alice"));
    assert_eq!(&ran.flat[17..23], b"\x05alice");
    assert!(ran.flat[23..17 + 41].iter().all(|byte| *byte == 0), "zeros behind the text: {:?}", ran.flat);
}

#[test]
fn counters_count_on_every_cpu() {
    let text = "state:\n    calls: counter\n    by_user: counter(string(16), capacity = 4)\n\nf()\n\
                f():\n    add(calls, 1)\n    add(by_user, get(rpc, 'user'), 2)\n";
    let Some(mut judge) = Judge::new(text) else { return };
    for user in ["a", "b", "a"] {
        assert_eq!(judge.run(&by(user)).verdict, Verdict::Send);
    }
    assert_eq!(judge.table("calls"), [(String::new(), "3".into())]);
    assert_eq!(judge.table("by_user"), [("a".into(), "4".into()), ("b".into(), "2".into())]);
}

#[test]
fn the_longest_prefix_counts() {
    let text = "state:\n    blocked: table(cidr -> YES | NO)\n\nf()\n\
                f():\n    match get(blocked, get(peer, 'address')):\n        YES => drop()\n        NO | NONE => send(rpc)\n";
    let Some(mut judge) = Judge::new(text) else { return };
    judge.insert("blocked", "10.0.0.0/8", "YES");
    judge.insert("blocked", "10.1.0.0/16", "NO");
    for (address, dropped) in [("10.2.3.4", true), ("10.1.3.4", false), ("11.0.0.1", false)] {
        judge.kernel.set_session(crate::notation::address(address).unwrap(), 0, 0);
        let verdict = judge.run(&by("a")).verdict;
        assert_eq!(matches!(verdict, Verdict::Drop(_)), dropped, "{address}: {verdict:?}");
    }
}

#[test]
fn buckets_let_through_what_the_rate_allows() {
    let text = "state:\n    buckets: table(string(16) -> bucket, capacity = 2)\n    all: bucket\n\nf() -> g()\n\
                f():\n    match take(buckets, get(rpc, 'user'), 10/s, burst = 3):\n        true => send(rpc)\n\
                \x20       false | NONE => drop()\n\
                g():\n    match take(all, 1000/s, burst = 4, cost = 2):\n        true => send(rpc)\n\
                \x20       false => reject(RESOURCE_EXHAUSTED)\n";
    let Some(mut judge) = Judge::new(text) else { return };
    let mut verdicts = Vec::new();
    for user in ["a", "a", "b", "a", "a", "c"] {
        verdicts.push(match judge.run(&by(user)).verdict {
            Verdict::Send => 's',
            Verdict::Drop(_) => 'd',
            _ => 'r',
        });
    }
    // The second bucket has room for two; of the first, "a" has three; there is no room for "c".
    assert_eq!(verdicts.iter().collect::<String>(), "ssrrdd");
    let tenth = 100_000_000;
    let at = crate::notation::format_duration(NOW_NS + 3 * tenth);
    assert_eq!(judge.table("buckets")[0], ("a".into(), at));
}
