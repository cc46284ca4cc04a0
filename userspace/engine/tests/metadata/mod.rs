//! What policies read of metadata: at both ends, on one host and between two, of requests and in handlers of responses.

use crate::support::{App, Host, plain};
use std::time::Duration;
use tollfree_engine::Side;
use tollfree_ring::VerdictAt;
use tollfree_wire::{Code, metadata};

const HASH: &str = "demo.Hash";
const SIDES: [Side; 2] = [Side::Client, Side::Server];

/// A metadata block.
fn said(entries: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    metadata::encode(entries.iter().map(|(key, value)| (*key, value.as_bytes())), &mut block).unwrap();
    block
}

/// A client's and a server's host, which may be one.
struct Pair {
    client: Host,
    server: Option<Host>,
    caller: App,
    service: App,
}

impl Pair {
    fn new(apart: bool) -> Pair {
        let server = apart.then(|| Host::start(&[]));
        let routes: Vec<_> = server.iter().map(|server| (HASH, server.address)).collect();
        let client = Host::start(&routes);
        let service = server.as_ref().unwrap_or(&client).attach("service", &plain(), &[HASH]);
        let caller = client.attach("caller", &plain(), &[]);
        Pair { client, server, caller, service }
    }

    fn policy(&self, side: Side, text: &str) {
        let host = self.server.as_ref().filter(|_| side == Side::Server).unwrap_or(&self.client);
        host.policy(side, text, &plain());
    }

    /// The status of a call that the service answers, if it hears of it.
    fn status(&mut self, block: &[u8]) -> (Code, VerdictAt) {
        let body = vec![7; 5000];
        self.caller.call_saying(1, block, &body);
        loop {
            if let Some(request) = self.service.next_within(Duration::from_millis(1)) {
                assert_eq!(request.body, [block, &body].concat(), "metadata and message arrive as they were");
                self.service.respond(request.call, Code::Ok, b"");
            }
            if let Some(answer) = self.caller.next_within(Duration::from_millis(1)) {
                return (answer.status, answer.at);
            }
        }
    }
}

#[test]
fn requests_are_judged_by_it_at_either_end() {
    let policy = "tenants()\ntenants():\n    match get(metadata, 'tenant'):\n        'red' => send(rpc)\n\
                  \x20       _ => reject(PERMISSION_DENIED)\n";
    for (apart, side) in [false, true].into_iter().flat_map(|apart| SIDES.map(|side| (apart, side))) {
        let mut pair = Pair::new(apart);
        pair.policy(side, policy);
        let ok = (Code::Ok, VerdictAt::None);
        let denied = (Code::PermissionDenied, VerdictAt::Engine);
        for (entries, expected) in [
            (&[("tenant", "red")][..], ok),
            (&[("trace", "1"), ("tenant", "red")], ok),
            (&[("tenant", "blue"), ("tenant", "red")], denied),
            (&[("trace", "1")], denied),
        ] {
            assert_eq!(pair.status(&said(entries)), expected, "{side:?}, apart {apart}, {entries:?}");
        }
    }
}

#[test]
fn handlers_of_responses_read_what_the_request_said() {
    let policy = "tenants()\ntenants():\n    request:\n        send(rpc)\n    response:\n        match get(metadata, 'tenant'):\n\
                  \x20           'red' => send(rpc)\n            _ => reject(ABORTED)\n";
    for (apart, side) in [false, true].into_iter().flat_map(|apart| SIDES.map(|side| (apart, side))) {
        let mut pair = Pair::new(apart);
        pair.policy(side, policy);
        for (tenant, status) in [("red", Code::Ok), ("blue", Code::Aborted), ("red", Code::Ok)] {
            let block = said(&[("tenant", tenant)]);
            assert_eq!(pair.status(&block).0, status, "{side:?}, apart {apart}, {tenant}");
        }
    }
}

#[test]
fn an_application_that_changes_it_after_it_was_judged_changes_nothing() {
    let policy = "tenants()\ntenants():\n    match get(metadata, 'tenant'):\n        'red' => delay(60ms)\n\
                  \x20       _ => drop()\n    send(rpc)\n";
    let [red, gray] = ["red", "ash"].map(|tenant| said(&[("tenant", tenant)]));
    for (apart, side) in [(false, Side::Client), (false, Side::Server), (true, Side::Client)] {
        let mut pair = Pair::new(apart);
        pair.policy(side, policy);
        // The first call opens the session, so that the second leaves as soon as it may.
        assert_eq!(pair.status(&red).0, Code::Ok);
        let body = pair.caller.call_saying(2, &red, b"message");
        std::thread::sleep(Duration::from_millis(20));
        assert!(pair.caller.port.write(body, 0, &gray));
        let request = pair.service.next();
        assert_eq!(request.body, [&red[..], b"message"].concat(), "{side:?}, apart {apart}");
    }
}

#[test]
fn what_is_malformed_ends_the_call() {
    let policy =
        "f()\nf():\n    match get(metadata, 'tenant'):\n        'red' => send(rpc)\n        _ => send(rpc)\n";
    let red = said(&[("tenant", "red")]);
    for (apart, side) in [(false, Side::Client), (false, Side::Server), (true, Side::Client)] {
        let mut pair = Pair::new(apart);
        pair.policy(side, policy);
        for block in [&b""[..], b"\x01", &red[..red.len() - 1], &[0xff; 40]] {
            pair.caller.call_saying(1, block, b"");
            let answer = pair.caller.next();
            assert_eq!(answer.status, Code::InvalidArgument, "{side:?}: {}", answer.text());
            assert!(answer.text().contains("the metadata"), "{}", answer.text());
        }
        assert_eq!(pair.status(&red).0, Code::Ok);
    }
}

#[test]
fn a_policy_that_comes_while_a_call_is_held_reads_what_the_call_said() {
    let mut pair = Pair::new(false);
    pair.policy(Side::Client, "hold()\nhold():\n    delay(60ms)\n    send(rpc)\n");
    pair.caller.call_saying(1, &said(&[("tenant", "blue")]), b"message");
    std::thread::sleep(Duration::from_millis(20));
    let policy = "tenants()\ntenants():\n    match get(metadata, 'tenant'):\n        'blue' => reject(PERMISSION_DENIED)\n\
                  \x20       _ => send(rpc)\n";
    pair.policy(Side::Server, policy);
    assert_eq!(pair.caller.next().status, Code::PermissionDenied);
}
