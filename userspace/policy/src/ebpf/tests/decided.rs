//! What is decided per session.

use super::calls::{DROPPED, to};
use super::{Judge, compiled};
use crate::differential::kernel::SESSION;
use crate::{PeerView, Place, Verdict};
use tollfree_wire::maps;
use tollfree_wire::{Code, Reason};

const SHORT: [&str; 3] = ["AdminA", "AdminB", "Get"];

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
