//! What policies in the engine do besides letting calls pass: responses for their handlers, delays, texts, lost calls.

use crate::support::{App, Host, plain};
use std::time::{Duration, Instant};
use tollfree_engine::{Command, Side};
use tollfree_ring::VerdictAt;
use tollfree_wire::Code;

const HASH: &str = "demo.Hash";
const SIDES: [Side; 2] = [Side::Client, Side::Server];
/// Counts what it lets through, and what comes back.
const COUNTING: &str = "state:\n    asked: u64\n    ended: u64\n\
    count_it()\n\
    count_it():\n\
    \x20   request:\n        add(asked, 1)\n        send(rpc)\n\
    \x20   response:\n        add(ended, 1)\n        send(rpc)\n";

fn hosts() -> (Host, Host, App, App) {
    let server = Host::start(&[]);
    let client = Host::start(&[(HASH, server.address)]);
    let (service, caller) =
        (server.attach("service", &plain(), &[HASH]), client.attach("caller", &plain(), &[]));
    (server, client, service, caller)
}

fn cell(host: &Host, side: Side, name: &'static str) -> String {
    host.ask(|reply| {
        let run = move |state: Option<&mut tollfree_policy::State>| {
            reply(state.and_then(|state| state.table_get(name, "").ok().flatten()).unwrap_or_default());
        };
        Command::Tables(side, Box::new(run))
    })
}

#[test]
fn every_call_let_through_has_one_response_however_it_ends() {
    let (server, client, mut service, mut caller) = hosts();
    server.policy(Side::Server, COUNTING, &plain());
    client.policy(Side::Client, COUNTING, &plain());
    // Answered, failed, cancelled, too late, and its service gone.
    for (cookie, status) in [(1, Code::Ok), (2, Code::NotFound)] {
        caller.call(cookie, "alice", b"x", Some(Duration::from_secs(5)));
        let request = service.next();
        service.respond(request.call, status, b"y");
        assert_eq!(caller.next().status, status);
    }
    caller.call(3, "alice", b"x", None);
    service.next();
    caller.cancel(3);
    caller.next();
    caller.call(4, "alice", b"x", Some(Duration::from_millis(100)));
    service.next();
    assert_eq!(caller.next().status, Code::DeadlineExceeded);
    caller.call(5, "alice", b"x", Some(Duration::from_secs(5)));
    std::thread::sleep(Duration::from_millis(50));
    server.handle.send(Command::Detach(service.id)).unwrap();
    assert_eq!(caller.next().status, Code::Unavailable);
    let until = Instant::now() + Duration::from_secs(5);
    while cell(&server, Side::Server, "ended") != "5" && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(5));
    }
    for (host, side) in [(&server, Side::Server), (&client, Side::Client)] {
        assert_eq!(
            (cell(host, side, "asked"), cell(host, side, "ended")),
            ("5".into(), "5".into()),
            "{side:?}"
        );
    }
}

#[test]
fn calls_are_held_and_refused_in_a_policys_own_words() {
    let (server, _client, mut service, mut caller) = hosts();
    let policy = "f()\nf():\n    match get(rpc, 'user'):\n        'slow' => delay(80ms)\n        'no' => reject(ABORTED, 'not today')\n        _ => send(rpc)\n    send(rpc)\n";
    server.policy(Side::Server, policy, &plain());
    caller.call(1, "no", b"", None);
    let refused = caller.next();
    assert_eq!((refused.status, refused.at, refused.text()), (Code::Aborted, VerdictAt::Engine, "not today"));
    let started = Instant::now();
    caller.call(2, "slow", b"a body", None);
    let request = service.next();
    assert!(started.elapsed() >= Duration::from_millis(80) && request.body == b"a body");
    // A call that is cancelled while it is held never runs.
    caller.call(3, "slow", b"", None);
    std::thread::sleep(Duration::from_millis(20));
    caller.cancel(3);
    assert!(service.next_within(Duration::from_millis(150)).is_none_or(|told| told.call == request.call));
    assert_eq!(server.status().calls_delayed, 0);
}

/// Holds what has come back for alice.
const HOLDING: &str = "hold()\nhold():\n    request:\n        send(rpc)\n    response:\n        match status:\n\
    \x20           OK => delay(300ms)\n            _ => pass\n        send(rpc)\n";

#[test]
fn answers_are_held_at_either_end_and_on_one_host() {
    for (apart, side) in [false, true].into_iter().flat_map(|apart| SIDES.map(|side| (apart, side))) {
        let server = Host::start(&[]);
        let client = Host::start(&[(HASH, server.address)]);
        let serving = if apart { &server } else { &client };
        let mut service = serving.attach("service", &plain(), &[HASH]);
        let mut caller = client.attach("caller", &plain(), &[]);
        if side == Side::Server { serving } else { &client }.policy(side, HOLDING, &plain());
        // One packet, and many.
        for (cookie, len) in [(1, 10), (2, 300_000)] {
            let body: Vec<u8> = (0..len).map(|at: u32| at as u8).collect();
            caller.call(cookie, "alice", b"x", None);
            let request = service.next();
            let answered = Instant::now();
            service.respond(request.call, Code::Ok, &body);
            let response = caller.next();
            assert!(answered.elapsed() >= Duration::from_millis(300), "{side:?}, apart {apart}");
            assert_eq!((response.status, response.call), (Code::Ok, cookie));
            assert!(response.body == body);
        }
        // What is not held does not wait, and comes as it was.
        caller.call(3, "alice", b"x", None);
        let request = service.next();
        service.respond(request.call, Code::NotFound, b"nothing");
        let response = caller.next();
        assert_eq!((response.status, response.at), (Code::NotFound, VerdictAt::Application));
        assert_eq!((serving.status().calls_open, client.status().calls_open), (0, 0));
    }
}

#[test]
fn a_held_answer_outlives_its_service_but_not_its_deadline() {
    for side in SIDES {
        let (server, client, mut service, mut caller) = hosts();
        if side == Side::Server { &server } else { &client }.policy(side, HOLDING, &plain());
        let mut answer = |caller: &mut App, cookie, deadline| {
            caller.call(cookie, "alice", b"x", deadline);
            let request = service.next();
            service.respond(request.call, Code::Ok, b"an answer");
        };
        answer(&mut caller, 1, Some(Duration::from_millis(40)));
        assert_eq!(caller.next().status, Code::DeadlineExceeded, "{side:?}");
        answer(&mut caller, 2, None);
        std::thread::sleep(Duration::from_millis(30));
        caller.cancel(2);
        assert_eq!(caller.next().status, Code::Cancelled, "{side:?}");
        assert!(caller.next_within(Duration::from_millis(20)).is_none(), "{side:?}: nothing comes behind");
        let held = || server.status().calls_delayed + client.status().calls_delayed;
        let until = Instant::now() + Duration::from_secs(5);
        while held() > 0 && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_eq!(held(), 0, "{side:?}: nobody waits for it");
        answer(&mut caller, 3, None);
        std::thread::sleep(Duration::from_millis(30));
        server.handle.send(Command::Detach(service.id)).unwrap();
        assert_eq!((caller.next().body, server.status().calls_open), (b"an answer".to_vec(), 0), "{side:?}");
    }
}

#[test]
fn a_policys_timeout_ends_calls_whose_answers_it_holds() {
    let policy = "f()\nf():\n    request:\n        timeout(60ms)\n        send(rpc)\n    response:\n        delay(5s)\n        send(rpc)\n";
    for apart in [false, true] {
        let server = Host::start(&[]);
        let client = Host::start(&[(HASH, server.address)]);
        let serving = if apart { &server } else { &client };
        let mut service = serving.attach("service", &plain(), &[HASH]);
        let mut caller = client.attach("caller", &plain(), &[]);
        serving.policy(Side::Server, policy, &plain());
        caller.call(1, "alice", b"x", None);
        let request = service.next();
        service.respond(request.call, Code::Ok, b"an answer");
        let ended = caller.next();
        assert_eq!((ended.status, ended.at), (Code::DeadlineExceeded, VerdictAt::Engine), "apart {apart}");
        assert_eq!(serving.status().calls_delayed, 0, "apart {apart}");
    }
}
