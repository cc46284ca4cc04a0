//! What a call is besides its numbers: method, peer, time, text; and how it ends.

use super::{Call, Judge, NOW_NS};
use crate::Verdict;
use tollfree_wire::maps;
use tollfree_wire::{Code, Reason};

pub(super) fn to(method: &str) -> Call<'_> {
    Call { method, ..Call::default() }
}

fn user<'a>(texts: &'a [(&'a str, &'a str)]) -> Call<'a> {
    Call { method: "Text", texts, ..Call::default() }
}

pub(super) const DROPPED: Verdict = Verdict::Drop(Reason::PolicyDrop);

#[test]
fn methods_match_by_name_prefix_and_scope() {
    let text = "f() -> g() for u.U\n\
                f():\n    match method:\n        'Admin*' => reject(PERMISSION_DENIED)\n        _ => send(rpc)\n\
                g():\n    drop()\n";
    let Some(mut judge) = Judge::new(text) else { return };
    let verdicts = ["Calc", "AdminA", "AdminB", "Get"].map(|method| judge.run(&to(method)).verdict);
    let denied = Verdict::Reject(Code::PermissionDenied, Reason::PolicyReject);
    // The scope is the chain's.
    assert_eq!(verdicts, [Verdict::Send, Verdict::Send, Verdict::Send, DROPPED]);
    let text = text.replace(" for u.U", "").replace("drop()", "send(rpc)");
    let Some(mut judge) = Judge::new(&text) else { return };
    let verdicts = ["Calc", "AdminA", "AdminB", "Get"].map(|method| judge.run(&to(method)).verdict);
    assert_eq!(verdicts, [Verdict::Send, denied, denied, Verdict::Send]);
}

#[test]
fn guards_are_asked_in_the_arms_order() {
    let text = "f()\nf():\n    n = get(rpc, 'a')\n    match get(rpc, 'b'):\n\
                \x20       1..10 if n > 5 => reject(ABORTED)\n        1 | 2 => drop()\n        _ if n == 3 => reject(NOT_FOUND)\n\
                \x20       _ => send(rpc)\n        NONE => send(rpc)\n";
    let text = text.replace("        NONE => send(rpc)\n", "");
    let Some(mut judge) = Judge::new(&text) else { return };
    let reject = |code| Verdict::Reject(code, Reason::PolicyReject);
    for (a, b, expected) in [
        (6, 1, reject(Code::Aborted)),
        (6, 9, reject(Code::Aborted)),
        (6, 10, Verdict::Send),
        (5, 1, DROPPED),
        (3, 2, DROPPED),
        (3, 3, reject(Code::NotFound)),
        (4, 3, Verdict::Send),
    ] {
        let call = Call { method: "Calc", numbers: &[("a", a), ("b", b)], ..Call::default() };
        assert_eq!(judge.run(&call).verdict, expected, "{a} {b}");
    }
    assert_eq!(judge.run(&to("Get")).verdict, Verdict::Send, "the fields are absent, and so is the guard");
}

#[test]
fn a_later_guard_takes_no_place_of_what_an_earlier_arm_reads() {
    // The second guard's sum is in the slot that `a` had, which `Text` does not have at all.
    let text = "f()\nf():\n    a = get(rpc, 'a')\n    set(rpc, 'a', 0)\n    match deadline:\n\
                \x20       NONE if size < 9999 =>\n            match a < 5:\n                NONE => reject(NOT_FOUND)\n                _ => reject(ABORTED)\n\
                \x20       30s if size + 1 > 0 => send(rpc)\n        _ => drop()\n";
    let Some(mut judge) = Judge::new(text) else { return };
    assert_eq!(judge.run(&Call { deadline_us: Some(30_000_000), ..to("Text") }).verdict, Verdict::Send);
    let not_found = Verdict::Reject(Code::NotFound, Reason::PolicyReject);
    assert_eq!(judge.run(&to("Text")).verdict, not_found);
}

#[test]
fn text_is_compared_up_to_its_end() {
    let text = "f()\nf():\n    user = get(rpc, 'user')\n    match user:\n\
                \x20       'root' => reject(ABORTED)\n        'adm*' => drop()\n        NONE => reject(NOT_FOUND)\n\
                \x20       _ => send(rpc)\n";
    let Some(mut judge) = Judge::new(text) else { return };
    let reject = |code| Verdict::Reject(code, Reason::PolicyReject);
    for (name, expected) in [
        ("root", reject(Code::Aborted)),
        ("roo", Verdict::Send),
        ("roots", Verdict::Send),
        ("adm", DROPPED),
        ("administrator", DROPPED),
        ("ad", Verdict::Send),
        ("", Verdict::Send),
    ] {
        assert_eq!(judge.run(&user(&[("user", name)])).verdict, expected, "{name}");
    }
    assert_eq!(judge.run(&to("Calc")).verdict, reject(Code::NotFound));
    let text = "f()\nf():\n    set(rpc, 'flag', get(rpc, 'user') == get(rpc, 'other'))\n";
    let Some(mut judge) = Judge::new(text) else { return };
    for (a, b, same) in
        [("", "", 1), ("a", "a", 1), ("a", "b", 0), ("abcdefghijk", "abcdefghijk", 1), ("a", "aa", 0)]
    {
        assert_eq!(judge.number(&user(&[("user", a), ("other", b)]), "flag"), same, "{a} {b}");
    }
}

#[test]
fn hashes_are_the_same_everywhere() {
    let text =
        "f()\nf():\n    set(rpc, 'out', hash(get(rpc, 'user'), 7, get(rpc, 'mac'), get(rpc, 'other')))\n";
    let Some(mut judge) = Judge::new(text) else { return };
    for (a, b) in [
        ("", ""),
        ("alice", "eight by"),
        ("exactly-16-bytes", "nine byte"),
        ("x", "forty bytes long, or nearly so: 39 of it"),
    ] {
        let mut hasher = crate::hash::Hasher::default();
        hasher.bytes(a.as_bytes());
        hasher.word(7);
        hasher.bytes(b"\x01\x02\x03\x04\x05\x06");
        hasher.bytes(b.as_bytes());
        let texts = [("user", a), ("mac", "\x01\x02\x03\x04\x05\x06"), ("other", b)];
        assert_eq!(judge.number(&user(&texts), "out"), hasher.finish(), "{a} {b}");
    }
}

#[test]
fn attributes_come_from_the_packet() {
    let text = "f()\nf():\n    set(rpc, 'out', size)\n    set(rpc, 'b', as_u64(deadline))\n    set(rpc, 'a', as_u64(now))\n    set(rpc, 'small', port)\n";
    let Some(mut judge) = Judge::new(text) else { return };
    judge.kernel.set_port(4700);
    let call = Call { body: 1000, deadline_us: Some(5), ..to("Calc") };
    assert_eq!(judge.number(&call, "out"), 1000 + 57);
    assert_eq!(judge.number(&call, "b"), 5000);
    assert_eq!(judge.number(&call, "a"), NOW_NS);
    assert_eq!(judge.number(&call, "small"), 4700);
    let call = Call { numbers: &[("b", 77)], ..to("Calc") };
    assert_eq!(judge.number(&call, "b"), 77, "no deadline: nothing is set");
}

#[test]
fn chance_is_never_and_always_at_its_ends() {
    for (chance, expected) in [("0%", Verdict::Send), ("100%", DROPPED)] {
        let text = format!(
            "f()\nf():\n    match chance({chance}):\n        true => drop()\n        false => send(rpc)\n"
        );
        let Some(mut judge) = Judge::new(&text) else { return };
        assert!((0..50).all(|_| judge.run(&to("Get")).verdict == expected), "{chance}");
    }
    let text = "f()\nf():\n    match chance(50%):\n        true => drop()\n        false => send(rpc)\n";
    let Some(mut judge) = Judge::new(text) else { return };
    let dropped = (0..200).filter(|_| judge.run(&to("Get")).verdict == DROPPED).count();
    assert!((50..150).contains(&dropped), "{dropped} of 200");
}

#[test]
fn a_hit_is_answered() {
    let text = "state:\n    cache: table(string(16) -> string(24), evict = lru)\n\nf() for Text\n\
                f():\n    match get(cache, get(rpc, 'user')):\n        Some(value) => answer('value', value, 'level', 9, 'hit', true)\n\
                \x20       NONE => send(rpc)\n";
    let Some(mut judge) = Judge::new(text) else { return };
    judge.insert("cache", "alice", "a value");
    assert_eq!(judge.run(&user(&[("user", "bob")])).verdict, Verdict::Send);
    let ran = judge.run(&user(&[("user", "alice")]));
    assert_eq!(ran.verdict, Verdict::Answer);
    let (layout, flat) = ran.answer.unwrap();
    let schema = super::schema();
    let response = &schema.methods().find(|method| method.name == "Text").unwrap().response;
    assert_eq!((layout, flat.len()), (response.fingerprint, usize::from(response.flat_len)));
    let at =
        |name: &str| usize::from(response.fields.iter().find(|field| field.name == name).unwrap().offset);
    assert_eq!(&flat[at("value")..][..8], b"\x07a value");
    assert_eq!(flat[at("level")], 9);
    assert_eq!(flat[at("hit")], 1);
}

#[test]
fn a_dry_run_counts_and_goes_on() {
    let text = "f() audit\ng()\nf():\n    drop()\ng():\n    reject(ABORTED)\n";
    let Some(mut judge) = Judge::new(text) else { return };
    let ran = judge.run(&to("Get"));
    assert_eq!(ran.verdict, Verdict::Reject(Code::Aborted, Reason::PolicyReject));
    assert_eq!(judge.kernel.sum(maps::REASONS, &(Reason::PolicyAudit as u32).to_ne_bytes()), 1);
}

#[test]
fn who_calls_is_asked_together_with_the_message() {
    let text = "f()\nf():\n    match get(peer, 'identity') == get(rpc, 'user'):\n        true => send(rpc)\n        false => drop()\n\
                \x20       NONE => reject(UNAUTHENTICATED)\n";
    let Some(mut judge) = Judge::new(text) else { return };
    let unknown = Verdict::Reject(Code::Unauthenticated, Reason::PolicyReject);
    assert_eq!(judge.run(&user(&[("user", "alice")])).verdict, unknown);
    judge.kernel.set_peer("alice", "prod");
    assert_eq!(judge.run(&user(&[("user", "alice")])).verdict, Verdict::Send);
    assert_eq!(judge.run(&user(&[("user", "bob")])).verdict, DROPPED);
}

#[test]
fn the_engine_is_told_which_policy_has_judged() {
    let text = "f() -> g() for Get\nf():\n    send(rpc)\ng():\n    log('seen')\n    send(rpc)\n";
    let Some(mut judge) = Judge::new(text) else { return };
    assert_eq!(judge.compiled.in_xdp, 1);
    judge.kernel.set_generation(77);
    assert_eq!(judge.run(&to("Get")).generation, 77);
    assert_eq!(judge.run(&to("Calc")).generation, 0, "the chain is not for it: there is no rest");
}

#[test]
fn variables_keep_what_was_read() {
    let text = "f()\nf():\n    user = get(rpc, 'user')\n    n = get(rpc, 'out')\n    set(rpc, 'user', 'somebody else')\n\
                \x20   set(rpc, 'out', n + 1)\n    match user:\n        'alice' if n == 7 => send(rpc)\n        NONE => reject(NOT_FOUND)\n\
                \x20       _ => drop()\n";
    let Some(mut judge) = Judge::new(text) else { return };
    let call = Call { numbers: &[("out", 7)], ..user(&[("user", "alice")]) };
    let ran = judge.run(&call);
    assert_eq!(ran.verdict, Verdict::Send);
    assert_eq!(&ran.flat[..14], b"\x0dsomebody else");
    assert_eq!(judge.number(&call, "out"), 8);
    assert_eq!(judge.run(&user(&[("user", "bob")])).verdict, DROPPED);
    let absent = Verdict::Reject(Code::NotFound, Reason::PolicyReject);
    assert_eq!(judge.run(&to("Calc")).verdict, absent, "a method without the field");
}
