//! What runs where, what may be moved, and what may not.

use super::compiled;
use crate::{Compiled, Home, Place};

fn places(compiled: &Compiled) -> Vec<(&str, Place)> {
    compiled.explain.elements.iter().map(|element| (element.name.as_str(), element.place)).collect()
}

fn why<'a>(compiled: &'a Compiled, name: &str) -> &'a str {
    &compiled.explain.elements.iter().find(|element| element.name == name).unwrap().why
}

const FIREWALL: &str = "firewall():\n    match get(rules, get(rpc, 'user')):\n        ALLOW => send(rpc)\n        DENY | NONE => drop()\n";

fn with_firewall(before: &str) -> Compiled {
    compiled(&format!(
        "state:\n    rules: table(string(16) -> ALLOW | DENY)\n    seen: table(string(16) -> u64)\n\nbefore() -> firewall()\n{before}{FIREWALL}"
    ))
}

#[test]
fn a_chain_keeps_its_order() {
    let compiled = with_firewall("before():\n    log(get(rpc, 'user'))\n    send(rpc)\n");
    assert_eq!(places(&compiled), [("before", Place::Engine), ("firewall", Place::Engine)]);
    assert!(compiled.object.is_none());
    assert_eq!(why(&compiled, "before"), "writes to the log, which the engine keeps");
    assert_eq!(why(&compiled, "firewall"), "comes after before(), which is in the engine");
}

#[test]
fn a_text_that_some_methods_lack_is_matched_where_it_is_changed() {
    let compiled = compiled(
        "f()\nf():\n    name = get(rpc, 'user')\n    match name:\n        'alice' => set(rpc, 'user', 'bob')\n\
         \x20       _ => pass\n    send(rpc)\n",
    );
    assert_eq!(places(&compiled), [("f", Place::XdpIngress)], "{}", why(&compiled, "f"));
}

#[test]
fn what_nobody_notices_is_moved_ahead() {
    // Metadata keeps the first element in the engine; it never refuses, and leaves no trace.
    let compiled = with_firewall(
        "before():\n    match get(metadata, 'x'):\n        'y' => send(rpc)\n        _ => send(rpc)\n",
    );
    assert_eq!(places(&compiled), [("firewall", Place::XdpIngress), ("before", Place::Engine)]);
    assert_eq!(compiled.in_xdp, 1);
    assert!(why(&compiled, "firewall").ends_with("moved ahead of before(), which does not notice"));
    // Both refuse, with the same verdict.
    let compiled = with_firewall(
        "before():\n    match get(metadata, 'x'):\n        'y' => send(rpc)\n        _ => drop()\n",
    );
    assert_eq!(compiled.in_xdp, 1);
}

#[test]
fn what_somebody_would_notice_is_not_moved() {
    for (before, what) in [
        (
            "match get(metadata, 'x'):\n        'y' => send(rpc)\n        _ => reject(ABORTED)\n",
            "the verdict would be another",
        ),
        ("set(rpc, 'user', get(metadata, 'x'))\n    send(rpc)\n", "the firewall reads what is written"),
        ("log(get(metadata, 'x'))\n    send(rpc)\n", "fewer lines would be in the log"),
        ("add(seen, get(rpc, 'user'), 1)\n    log(1)\n    send(rpc)\n", "fewer calls would be counted"),
        (
            "match ask('opa'):\n        true => send(rpc)\n        _ => send(rpc)\n",
            "fewer questions would be asked",
        ),
    ] {
        let compiled = with_firewall(&format!("before():\n    {before}"));
        assert_eq!(compiled.in_xdp, 0, "{what}: {}", compiled.explain);
    }
    // A response would meet the two in another order.
    let compiled = with_firewall(
        "before():\n    request:\n        match get(metadata, 'x'):\n            'y' => send(rpc)\n            _ => send(rpc)\n    response:\n        log(1)\n",
    );
    assert_eq!(compiled.in_xdp, 0);
}

#[test]
fn tables_are_where_their_users_are() {
    let text = "state:\n    rules: table(string(16) -> ALLOW | DENY)\n    bad: table(string(16) -> u64)\n    seen: counter\n\nf() -> g()\n\
                f():\n    request:\n        add(seen, 1)\n        match get(bad, get(rpc, 'user')):\n            0..10 => send(rpc)\n            NONE => send(rpc)\n            _ => drop()\n\
                \x20   response:\n        add(bad, get(request, 'user'), 1)\n\
                g():\n    match get(rules, get(metadata, 'x')):\n        ALLOW => send(rpc)\n        DENY | NONE => drop()\n";
    let compiled = compiled(text);
    assert_eq!(places(&compiled), [("f", Place::XdpIngress), ("g", Place::Engine)], "{}", compiled.explain);
    let homes: Vec<(&str, Home)> =
        compiled.tables.iter().map(|table| table.name.as_str()).zip(compiled.homes.iter().copied()).collect();
    assert_eq!(homes, [("rules", Home::Engine), ("bad", Home::Both), ("seen", Home::Xdp)]);
    assert_eq!(compiled.shared, [1]);
    let response = compiled.explain.elements[0].response.as_ref().unwrap();
    assert_eq!((response.place, &response.tables_written[..]), (Place::Engine, &["bad".to_owned()][..]));
}

#[test]
fn handlers_that_write_one_table_share_a_place() {
    let text = "state:\n    n: u64 = 5\n\nf()\nf():\n    request:\n        match get(n):\n            0 => drop()\n            _ =>\n                add(n, -1)\n                send(rpc)\n\
                \x20   response:\n        add(n, 1)\n";
    let compiled = compiled(text);
    assert_eq!(compiled.in_xdp, 0);
    assert_eq!(why(&compiled, "f"), "changes n, which its response handler uses in the engine");
}

#[test]
fn what_a_response_handler_is_to_see_the_engine_ends() {
    let text = "f() -> g()\nf():\n    request:\n        send(rpc)\n    response:\n        log(status)\ng():\n    match get(rpc, 'user'):\n        'x' => reject(ABORTED)\n        _ => send(rpc)\n";
    let kept = compiled(text);
    assert_eq!(places(&kept), [("f", Place::XdpIngress), ("g", Place::Engine)]);
    assert!(why(&kept, "g").contains("the response handler of f() before it"), "{}", kept.explain);
    // What is dropped has no response, and what comes first is not seen.
    assert_eq!(compiled(&text.replace("reject(ABORTED)", "drop()")).in_xdp, 2);
    assert_eq!(compiled(&text.replace("f() -> g()", "g() -> f()")).in_xdp, 2);
    assert_eq!(compiled(&text.replace("f() -> g()", "f() for Calc\ng() for Text")).in_xdp, 2);
}

#[test]
fn a_long_run_is_decided_as_one() {
    let text = "f() -> g() -> h()\nf():\n    match get(peer, 'label.app'):\n        'web' => send(rpc)\n        _ => drop()\n\
                g():\n    match method:\n        'Admin*' => drop()\n        _ => send(rpc)\n\
                h():\n    match get(rpc, 'user'):\n        'x' => drop()\n        _ => send(rpc)\n";
    let compiled = compiled(text);
    assert_eq!(
        places(&compiled),
        [("f", Place::Session), ("g", Place::XdpIngress), ("h", Place::XdpIngress)]
    );
    assert_eq!(compiled.decisions.as_ref().map(crate::Decisions::value_size), Some(16));
    let client = text.replace("h()\nf", "h() at client\nf");
    assert!(super::compiled(&client).decisions.is_none());
}

#[test]
fn assembly_names_elements_lines_and_maps() {
    let compiled = with_firewall("before():\n    send(rpc)\n");
    let assembly = crate::emit_asm(&compiled);
    for part in [
        "tf_policy:",
        "; element firewall()",
        "9: match get(rules, get(rpc, 'user')):",
        "map[rules]",
        "call bpf_map_lookup_elem",
    ] {
        assert!(assembly.contains(part), "{part}\n{assembly}");
    }
    assert!(!assembly.contains(".word"), "{assembly}");
}
