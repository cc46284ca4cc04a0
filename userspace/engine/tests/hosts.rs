//! Whole engines: applications, rings, policy, transport and UDP together, without privileges.

mod carriage;
mod long;
mod metadata;
mod support;
mod verdicts;

use std::time::Duration;
use support::{Host, plain, schema};
use tollfree_engine::{Command, Gone, Side};
use tollfree_ring::{DaemonOp, VerdictAt};
use tollfree_wire::Code;

const HASH: &str = "demo.Hash";
const FIREWALL: &str = "firewall()\n\
    firewall():\n\
    \x20   user = get(rpc, 'user')\n\
    \x20   match get(firewall_rules, user):\n\
    \x20       ALLOW => send(rpc)\n\
    \x20       DENY|NONE => reject(PERMISSION_DENIED)\n";

fn two_hosts() -> (Host, Host) {
    let server = Host::start(&[]);
    let client = Host::start(&[(HASH, server.address)]);
    (server, client)
}

#[test]
fn a_call_crosses_and_its_answer_comes_back() {
    let (server, client) = two_hosts();
    let (mut service, mut caller) =
        (server.attach("service", &plain(), &[HASH]), client.attach("caller", &plain(), &[]));
    for round in 0..100u64 {
        caller.call(round, "alice", b"some bytes", Some(Duration::from_secs(5)));
        let request = service.next();
        assert_eq!((request.op, &request.body[..]), (DaemonOp::Request, &b"some bytes"[..]));
        assert_eq!(&request.flat[..6], b"\x05alice");
        service.respond(request.call, Code::Ok, &round.to_le_bytes());
        let response = caller.next();
        assert_eq!((response.op, response.status, response.call), (DaemonOp::Response, Code::Ok, round));
        assert_eq!(response.body, round.to_le_bytes());
    }
    assert_eq!((server.status().calls_open, client.status().calls_open), (0, 0));
}

#[test]
fn many_calls_are_outstanding_and_each_gets_its_own_answer() {
    let (server, client) = two_hosts();
    let (mut service, mut caller) =
        (server.attach("service", &plain(), &[HASH]), client.attach("caller", &plain(), &[]));
    const CALLS: u64 = 600; // more than a session has slots
    for cookie in 0..CALLS {
        caller.call(cookie, "alice", &cookie.to_le_bytes(), None);
    }
    for _ in 0..CALLS {
        let request = service.next();
        service.respond(request.call, Code::Ok, &request.body);
    }
    let mut seen = vec![false; CALLS as usize];
    for _ in 0..CALLS {
        let response = caller.next();
        assert_eq!(response.body, response.call.to_le_bytes());
        assert!(!std::mem::replace(&mut seen[response.call as usize], true), "answered twice");
    }
}

#[test]
fn a_mebibyte_goes_there_and_back() {
    let (server, client) = two_hosts();
    let (mut service, mut caller) =
        (server.attach("service", &plain(), &[HASH]), client.attach("caller", &plain(), &[]));
    let body: Vec<u8> = (0..1 << 20).map(|n: u32| ((n * 31) >> 3) as u8).collect();
    for cookie in 0..3 {
        caller.call(cookie, "alice", &body, Some(Duration::from_secs(20)));
        let request = service.next();
        assert!(request.body == body);
        service.respond(request.call, Code::Ok, &request.body);
        assert!(caller.next().body == body);
    }
}

#[test]
fn a_call_on_one_host_does_not_touch_the_wire() {
    let host = Host::start(&[]);
    let (mut service, mut caller) =
        (host.attach("service", &plain(), &[HASH]), host.attach("caller", &plain(), &[]));
    host.policy(Side::Server, FIREWALL, &plain());
    caller.call(1, "mallory", b"x", None);
    let refused = caller.next();
    assert_eq!((refused.status, refused.at), (Code::PermissionDenied, VerdictAt::Engine));
    host.ask(|reply| {
        let run = move |state: Option<&mut tollfree_policy::State>| {
            reply(state.unwrap().table_set("firewall_rules", "alice", "ALLOW").is_ok());
        };
        Command::Tables(Side::Server, Box::new(run))
    });
    caller.call(2, "alice", b"x", None);
    let request = service.next();
    service.respond(request.call, Code::Ok, b"y");
    assert_eq!(caller.next().body, b"y");
    assert_eq!(host.status().transmitted, 0);
}

#[test]
fn the_servers_policy_judges_calls_that_arrive() {
    let (server, client) = two_hosts();
    let (mut service, mut caller) =
        (server.attach("service", &plain(), &[HASH]), client.attach("caller", &plain(), &[]));
    assert_eq!(server.policy(Side::Server, FIREWALL, &plain()), 1);
    caller.call(1, "alice", b"", None);
    let refused = caller.next();
    assert_eq!((refused.status, refused.at), (Code::PermissionDenied, VerdictAt::Engine));
    let stopped = server.ask(|reply| Command::Policy(Side::Server, None, reply));
    assert_eq!(stopped, 2);
    caller.call(2, "alice", b"", None);
    let request = service.next();
    service.respond(request.call, Code::NotFound, b"nothing there");
    let answer = caller.next();
    assert_eq!(
        (answer.status, answer.at, answer.text()),
        (Code::NotFound, VerdictAt::Application, "nothing there")
    );
    assert_eq!(server.reason("policy_reject"), 1);
}

#[test]
fn a_tracked_session_counts_its_calls() {
    let (server, client) = two_hosts();
    let mut service = server.attach("service", &plain(), &[HASH]);
    let mut caller = client.attach("caller", &plain(), &[]);
    server.policy(Side::Server, "chain() -> session_tracker()\nchain():\n    send(rpc)\n", &plain());
    for cookie in 0..3 {
        caller.call(cookie, "alice", b"", None);
        let request = service.next();
        service.respond(request.call, Code::Ok, b"");
        assert_eq!(caller.next().status, Code::Ok);
    }
    let sessions = server.status().sessions;
    assert_eq!(sessions.iter().map(|session| session.calls).collect::<Vec<_>>(), [3]);
}

#[test]
fn the_clients_policy_judges_calls_that_leave() {
    let (server, client) = two_hosts();
    let (mut service, mut caller) =
        (server.attach("service", &plain(), &[HASH]), client.attach("caller", &plain(), &[]));
    client.policy(Side::Client, FIREWALL, &plain());
    caller.call(1, "alice", b"", None);
    assert_eq!(caller.next().status, Code::PermissionDenied);
    assert!(service.next_within(Duration::from_millis(50)).is_none());
    assert_eq!(server.status().received, 0, "nothing has left the client's host");
}

#[test]
fn what_cannot_be_served_says_why() {
    let (server, client) = two_hosts();
    let mut caller = client.attach("caller", &plain(), &[]);
    caller.call(1, "alice", b"", None);
    let refused = caller.next();
    assert_eq!(refused.status, Code::Unimplemented, "{}", refused.text());
    assert!(refused.text().contains("/demo.Hash/Sha256"), "{}", refused.text());
    drop(server);

    let lonely = Host::start(&[]);
    let mut caller = lonely.attach("caller", &plain(), &[]);
    caller.call(1, "alice", b"", None);
    let refused = caller.next();
    assert_eq!(refused.status, Code::Unavailable);
    assert!(refused.text().contains("[[route]] service = \"demo.Hash\""), "{}", refused.text());
}

#[test]
fn an_incompatible_layout_is_refused_by_the_fields_name_and_a_longer_one_works() {
    let server = Host::start(&[]);
    let client = Host::start(&[(HASH, server.address)]);
    let mut service = server.attach("service", &plain(), &[HASH]);

    let wider = schema("string user = 1 [(tollfree.flat) = { max_len: 31 }]; bytes data = 2;");
    let mut stranger = client.attach("stranger", &wider, &[]);
    stranger.call(1, "alice", b"", None);
    let refused = stranger.next();
    assert_eq!(refused.status, Code::FailedPrecondition);
    assert!(refused.text().contains("`user`"), "{}", refused.text());

    let longer = schema(
        "string user = 1 [(tollfree.flat) = { max_len: 15 }]; bytes data = 2; uint32 size = 3 [(tollfree.flat) = {}];",
    );
    let mut newer = client.attach("newer", &longer, &[]);
    newer.call(1, "alice", b"z", None);
    let request = service.next();
    assert_eq!((&request.flat[..6], &request.body[..]), (&b"\x05alice"[..], &b"z"[..]));
    service.respond(request.call, Code::Ok, b"ok");
    assert_eq!(newer.next().status, Code::Ok);
}

#[test]
fn a_user_with_two_spellings_is_refused() {
    let (server, client) = two_hosts();
    let mut service = server.attach("service", &plain(), &[HASH]);
    let mut caller = client.attach("caller", &plain(), &[]);
    caller.call_flat(1, b"\x05alicebehind her", b"", None);
    let refused = caller.next();
    assert_eq!(refused.status, Code::InvalidArgument);
    assert!(refused.text().contains("user"), "{}", refused.text());
    assert!(service.next_within(Duration::from_millis(20)).is_none());
}

#[test]
fn a_service_that_dies_ends_its_calls_and_nothing_else() {
    let (server, client) = two_hosts();
    let mut service = server.attach("service", &plain(), &[HASH]);
    let mut caller = client.attach("caller", &plain(), &[]);
    caller.call(1, "alice", b"", None);
    assert_eq!(service.next().op, DaemonOp::Request);
    server.handle.send(Command::Detach(service.id)).unwrap();
    assert_eq!(caller.next().status, Code::Unavailable);

    let mut restarted = server.attach("service", &plain(), &[HASH]);
    caller.call(2, "alice", b"", None);
    let request = restarted.next();
    restarted.respond(request.call, Code::Ok, b"");
    assert_eq!(caller.next().status, Code::Ok);
}

#[test]
fn a_corrupt_ring_costs_its_owner_the_connection_and_nobody_else() {
    let (server, client) = two_hosts();
    let mut service = server.attach("service", &plain(), &[HASH]);
    let mut liar = client.attach("liar", &plain(), &[]);
    let mut caller = client.attach("caller", &plain(), &[]);
    let outside = tollfree_ring::Span { offset: u32::MAX, len: 100 };
    let submission = tollfree_ring::Submission {
        method: 1,
        flat: outside,
        body: outside,
        ..tollfree_ring::Submission::new(tollfree_ring::AppOp::Call, 1)
    };
    liar.port.push(&submission).unwrap();
    liar.port.publish();
    assert_eq!(liar.gone.recv_timeout(Duration::from_secs(5)), Ok(Gone::Corrupt));
    caller.call(1, "alice", b"", None);
    let request = service.next();
    service.respond(request.call, Code::Ok, b"");
    assert_eq!(caller.next().status, Code::Ok);
    assert_eq!(client.status().apps.len(), 1);
}

#[test]
fn a_cancelled_call_frees_both_ends() {
    let (server, client) = two_hosts();
    let mut service = server.attach("service", &plain(), &[HASH]);
    let mut caller = client.attach("caller", &plain(), &[]);
    caller.call(1, "alice", b"", None);
    let request = service.next();
    caller.cancel(1);
    assert_eq!(caller.next().op, DaemonOp::Cancelled);
    let told = service.next();
    assert_eq!((told.op, told.call), (DaemonOp::Cancelled, request.call));
    assert_eq!((server.status().calls_open, client.status().calls_open), (0, 0));
}

#[test]
fn a_deadline_ends_a_call_that_nobody_answers() {
    let (server, client) = two_hosts();
    let mut service = server.attach("service", &plain(), &[HASH]);
    let mut caller = client.attach("caller", &plain(), &[]);
    caller.call(1, "alice", b"", Some(Duration::from_millis(50)));
    assert_eq!(service.next().op, DaemonOp::Request);
    assert_eq!(caller.next().status, Code::DeadlineExceeded);

    let mut neighbour = server.attach("neighbour", &plain(), &[]);
    neighbour.call(1, "alice", b"", Some(Duration::from_millis(50)));
    assert_eq!(neighbour.next().status, Code::DeadlineExceeded, "also without a wire");
}

#[test]
fn a_server_that_restarts_is_found_again() {
    let server = Host::start(&[]);
    let address = server.address;
    let client = Host::start(&[(HASH, address)]);
    let mut caller = client.attach("caller", &plain(), &[]);
    let mut service = server.attach("service", &plain(), &[HASH]);
    caller.call(1, "alice", b"", None);
    let request = service.next();
    service.respond(request.call, Code::Ok, b"");
    assert_eq!(caller.next().status, Code::Ok);
    server.stop();

    let server = Host::start_on(address, &[], 2);
    let mut service = server.attach("service", &plain(), &[HASH]);
    caller.call(2, "alice", b"", Some(Duration::from_secs(8)));
    let request = service.next();
    service.respond(request.call, Code::Ok, b"");
    assert_eq!(caller.next().status, Code::Ok);
}
