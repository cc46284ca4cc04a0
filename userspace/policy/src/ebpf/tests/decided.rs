//! What is decided per session.

use super::calls::{DROPPED, to};
use super::{Judge, compiled};
use crate::differential::kernel::SESSION;
use crate::{PeerView, Place, Verdict};
use tollfree_wire::maps;
use tollfree_wire::{Code, Reason};

const SHORT: [&str; 3] = ["AdminA", "AdminB", "Get"];

#[test]
fn rejects_say_why() {
    let long = "x".repeat(128);
    let text = format!(
        "who() -> f()\nwho():\n    match get(peer, 'identity'):\n        'alice' => send(rpc)\n\
         \x20       'bob' => reject(ABORTED, 'not bob')\n        Some(_) => reject(ABORTED, 'nor you')\n\
         \x20       NONE => reject(PERMISSION_DENIED)\n\
         f():\n    match method:\n        'AdminA' => reject(ABORTED, '{long}')\n\
         \x20       'AdminB' => reject(INTERNAL, 'exactly 16 bytes')\n\
         \x20       _ =>\n            match size > 0:\n                true => reject(INTERNAL)\n                false => send(rpc)\n"
    );
    let Some(mut judge) = Judge::new(&text) else { return };
    let decisions = judge.compiled.decisions.clone().unwrap();
    for (identity, said) in [
        (Some("bob"), [Some("not bob"); 3]),
        (Some("eve"), [Some("nor you"); 3]),
        (None, [None; 3]),
        (Some("alice"), [Some(&*long), Some("exactly 16 bytes"), None]),
        (Some("bob"), [Some("not bob"); 3]),
    ] {
        let peer = PeerView { identity, ..PeerView::default() };
        let value = [&SESSION.to_ne_bytes()[..], &decisions.decide(&peer, 4700)].concat();
        judge.kernel.put(maps::DECISIONS, &SESSION.to_ne_bytes(), &value);
        let found = SHORT.map(|method| judge.run(&to(method)));
        assert!(
            found.iter().all(|ran| matches!(ran.verdict, Verdict::Reject(..))),
            "{identity:?}: {found:?}"
        );
        assert_eq!(found.each_ref().map(|ran| ran.why.as_deref()), said, "{identity:?}");
    }
}

#[test]
fn what_does_not_depend_on_the_message_is_decided_once() {
    let text = "f() -> g() -> h()\n\
                f():\n    match get(peer, 'identity'):\n        'alice' => send(rpc)\n        Some(_) => reject(PERMISSION_DENIED)\n\
                \x20       NONE => drop()\n\
                g():\n    match method:\n        'Admin*' => reject(ABORTED)\n        _ => send(rpc)\n\
                h():\n    match get(peer, 'label.app'):\n        'web' => drop()\n        NONE => send(rpc)\n        _ => send(rpc)\n";
    let compiled = compiled(text);
    assert!(
        compiled.explain.elements.iter().all(|element| element.place == Place::Session),
        "{}",
        compiled.explain
    );
    let Some(mut judge) = Judge::new(text) else { return };
    let undecided = Verdict::Reject(Code::Unavailable, Reason::Undecided);
    assert_eq!(judge.run(&to("Get")).verdict, undecided);
    let decisions = judge.compiled.decisions.clone().unwrap();
    let web = [("label.app".to_owned(), "web".to_owned())];
    let denied = Verdict::Reject(Code::PermissionDenied, Reason::PolicyReject);
    let aborted = Verdict::Reject(Code::Aborted, Reason::PolicyReject);
    for (identity, named, expected) in [
        (Some("alice"), &[][..], [aborted, aborted, Verdict::Send]),
        (Some("alice"), &web[..], [aborted, aborted, DROPPED]),
        (Some("bob"), &[], [denied; 3]),
        (None, &[], [DROPPED; 3]),
    ] {
        let peer = PeerView { identity, named, ..PeerView::default() };
        let value = [&SESSION.to_ne_bytes()[..], &decisions.decide(&peer, 4700)].concat();
        assert_eq!(value.len(), decisions.value_size());
        judge.kernel.put(maps::DECISIONS, &SESSION.to_ne_bytes(), &value);
        assert_eq!(SHORT.map(|method| judge.run(&to(method)).verdict), expected, "{identity:?} {named:?}");
    }
    let other = [&(SESSION + 4096).to_ne_bytes()[..], &decisions.decide(&PeerView::default(), 0)].concat();
    judge.kernel.put(maps::DECISIONS, &SESSION.to_ne_bytes(), &other);
    assert_eq!(judge.run(&to("Get")).verdict, undecided, "another session's");
}
