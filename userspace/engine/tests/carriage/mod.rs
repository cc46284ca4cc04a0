//! Transport blocks between whole engines: what a policy file says of its methods is what happens on the wire.

use crate::support::wire::{Seen, Wire};
use crate::support::{App, Host};
use std::time::Duration;
use tollfree_engine::Side;
use tollfree_ring::DaemonOp;
use tollfree_schema::{Manifest, method_id};
use tollfree_wire::header::{FLAG_CANCEL, HEADER_LEN};
use tollfree_wire::{Code, Kind};

const KV: &str = "demo.Kv";
const GET: &str = "/demo.Kv/GET";
const SET: &str = "/demo.Kv/SET";
const BLOCK: &str = include_str!("../../../../policies/paper/transport.policy");

fn kv() -> Manifest {
    let schemas = concat!(env!("CARGO_MANIFEST_DIR"), "/../../schemas");
    Manifest::from_proto(&[format!("{schemas}/kv.proto").into()], &[]).unwrap()
}

struct Hosts {
    server: Host,
    client: Host,
    wire: Wire,
    service: App,
    caller: App,
}

/// Two hosts with a wire between them and a layout agreed on for both methods.
fn hosts() -> Hosts {
    let server = Host::start(&[]);
    let wire = Wire::to(&server);
    let client = Host::start(&[(KV, wire.address)]);
    let service = server.attach("store", &kv(), &[KV]);
    let caller = client.attach("caller", &kv(), &[]);
    Hosts { server, client, wire, service, caller }
}

impl Hosts {
    fn call(&mut self, path: &str, cookie: u64, deadline: Option<Duration>) {
        self.caller.call_method(path, cookie, b"\x05alice", b"value", deadline);
    }

    /// Calls and is answered.
    fn round(&mut self, path: &str, cookie: u64) {
        self.call(path, cookie, Some(Duration::from_secs(5)));
        let request = self.service.next();
        self.service.respond(request.call, Code::Ok, b"done");
        assert_eq!(self.caller.next().status, Code::Ok);
    }
}

/// Loses the first request of a method that is not a question about its layout.
fn lose_first(wire: &Wire, path: &str) {
    let (method, mut lost) = (method_id(path), false);
    wire.filter(move |packet| {
        let first = packet.kind == Kind::Request && packet.header.method == method && !lost;
        lost |= first;
        !first
    });
}

/// How many packets of a kind and method there are, cancellations aside.
fn count(seen: &[Seen], path: &str, kind: Kind) -> usize {
    let wanted = |packet: &&Seen| {
        packet.kind == kind && packet.method == method_id(path) && packet.flags & FLAG_CANCEL == 0
    };
    seen.iter().filter(wanted).count()
}

#[test]
fn the_papers_transport_block_works_between_two_hosts() {
    let mut hosts = hosts();
    hosts.server.carry(Side::Server, BLOCK, &kv());
    hosts.client.carry(Side::Client, BLOCK, &kv());
    hosts.round(GET, 1);
    hosts.round(SET, 2);

    hosts.wire.seen();
    hosts.round(GET, 3);
    let seen = hosts.wire.seen();
    assert_eq!(seen.len(), 2, "a request and a response, no acknowledgement: {seen:?}");
    assert_eq!(
        seen[0].payload_len,
        HEADER_LEN + 48 + b"value".len(),
        "nothing but headers and the call's own bytes"
    );

    lose_first(&hosts.wire, GET);
    hosts.call(GET, 4, Some(Duration::from_millis(300)));
    assert_eq!(hosts.caller.next().status, Code::DeadlineExceeded);
    assert_eq!(count(&hosts.wire.seen(), GET, Kind::Request), 1, "not sent again");

    lose_first(&hosts.wire, SET);
    hosts.round(SET, 5);
    assert!(count(&hosts.wire.seen(), SET, Kind::Request) > 1, "sent again");
    assert!(
        hosts.service.next_within(Duration::from_millis(20)).is_none_or(|told| told.op != DaemonOp::Request)
    );
}

#[test]
fn ordered_requests_reach_the_service_in_order_although_the_first_is_lost() {
    let mut hosts = hosts();
    hosts.client.carry(Side::Client, BLOCK, &kv());
    hosts.round(SET, 1);
    lose_first(&hosts.wire, SET);
    for cookie in 2..12 {
        hosts.caller.call_method(SET, cookie, b"\x05alice", &cookie.to_le_bytes(), None);
    }
    for cookie in 2..12u64 {
        let request = hosts.service.next();
        assert_eq!(request.body, cookie.to_le_bytes());
        hosts.service.respond(request.call, Code::Ok, b"");
    }
    for _ in 2..12 {
        assert_eq!(hosts.caller.next().status, Code::Ok);
    }
}

#[test]
fn a_body_that_is_corrupted_on_the_wire_never_arrives() {
    let mut hosts = hosts();
    let checked = "match rpc-schema:\n    _ => reliable() -> checksum()\n";
    hosts.server.carry(Side::Server, checked, &kv());
    hosts.round(SET, 1);
    hosts.wire.corrupt_next(Kind::Request);
    hosts.round(SET, 2);
    assert_eq!(hosts.server.reason("bad_checksum"), 1);
    hosts.wire.corrupt_next(Kind::Response);
    hosts.round(SET, 3);
    assert_eq!(hosts.client.reason("bad_checksum"), 1);
}

#[test]
fn one_hosts_block_is_enough_and_takes_effect_while_calls_run() {
    let mut hosts = hosts();
    hosts.round(GET, 1);
    hosts.call(GET, 2, None);
    let under_way = hosts.service.next();
    hosts.server.carry(Side::Server, BLOCK, &kv());
    hosts.service.respond(under_way.call, Code::Ok, b"");
    assert_eq!(hosts.caller.next().status, Code::Ok);
    hosts.round(GET, 3);
    lose_first(&hosts.wire, GET);
    hosts.call(GET, 4, Some(Duration::from_millis(300)));
    assert_eq!(hosts.caller.next().status, Code::DeadlineExceeded, "unreliable now");

    hosts.server.carry(Side::Server, "match rpc-schema:\n    SET => reliable() -> timeout(50ms)\n", &kv());
    hosts.wire.filter(|_| true);
    hosts.round(GET, 5);
    hosts.call(SET, 6, None);
    assert_eq!(hosts.caller.next().status, Code::DeadlineExceeded, "after the timeout that the server names");
    assert_eq!(hosts.server.status().sessions.len(), 1, "earlier sessions have ended");
}

#[test]
fn a_timeout_holds_without_a_wire_too() {
    let host = Host::start(&[]);
    host.carry(Side::Server, "match rpc-schema:\n    _ => reliable() -> timeout(50ms)\n", &kv());
    let (mut service, mut caller) = (host.attach("store", &kv(), &[KV]), host.attach("caller", &kv(), &[]));
    caller.call_method(GET, 1, b"\x05alice", b"", None);
    assert_eq!(service.next().op, DaemonOp::Request);
    assert_eq!(caller.next().status, Code::DeadlineExceeded);
}
