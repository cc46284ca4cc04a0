//! Messages up to the longest there are, from application to application, on one host and between two.

use crate::support::wire::Wire;
use crate::support::{App, Host, Message, plain};
use crate::{HASH, two_hosts};
use std::collections::VecDeque;
use std::time::Duration;
use tollfree_ring::DaemonOp;
use tollfree_wire::Code;
use tollfree_wire::header::MESSAGE_MAX;

const LONGEST: usize = MESSAGE_MAX as usize;

/// Bytes that tell where they belong.
fn body(len: usize, seed: u32) -> Vec<u8> {
    (0..len as u32 / 4).flat_map(|at| (at.wrapping_mul(0x9e37_79b1) ^ seed).to_le_bytes()).collect()
}

/// What comes next; long messages take their time where everything is a debug build.
fn next(app: &mut App) -> Message {
    app.next_within(Duration::from_secs(120)).expect("a long message arrives")
}

/// Waits until there is room for one more answer; what arrives meanwhile is kept.
fn make_room(app: &mut App, arrived: &mut VecDeque<Message>) {
    while app.port.alloc(LONGEST as u32).map(|span| app.port.free(span)).is_none() {
        arrived.extend(app.next_within(Duration::from_millis(10)));
    }
}

fn there_and_back(service: &mut App, caller: &mut App) {
    let asked = body(LONGEST, 1);
    caller.call(1, "alice", &asked, None);
    let request = next(service);
    assert_eq!((request.op, request.status), (DaemonOp::Request, Code::Ok));
    assert!(request.body == asked, "the request arrives as it left");
    let answered = body(LONGEST, 2);
    service.respond(request.call, Code::Ok, &answered);
    let response = next(caller);
    assert_eq!((response.op, response.status), (DaemonOp::Response, Code::Ok), "{}", response.body.len());
    assert!(response.body == answered, "the response arrives as it left");
}

#[test]
fn sixteen_mebibytes_go_there_and_back_on_one_host() {
    let host = Host::start(&[]);
    let (mut service, mut caller) =
        (host.attach("service", &plain(), &[HASH]), host.attach("caller", &plain(), &[]));
    for _ in 0..2 {
        there_and_back(&mut service, &mut caller);
    }
    let mut both = host.attach("both", &plain(), &[]);
    there_and_back(&mut service, &mut both);
}

#[test]
fn sixteen_mebibytes_go_there_and_back_between_hosts() {
    let (server, client) = two_hosts();
    let (mut service, mut caller) =
        (server.attach("service", &plain(), &[HASH]), client.attach("caller", &plain(), &[]));
    there_and_back(&mut service, &mut caller);
    assert_eq!((server.status().calls_open, client.status().calls_open), (0, 0));
}

#[test]
fn sixteen_mebibytes_go_there_and_back_over_a_wire_that_loses_packets() {
    let server = Host::start(&[]);
    let wire = Wire::to(&server);
    let client = Host::start(&[(HASH, wire.address)]);
    let mut packets = 0u32;
    wire.filter(move |_| {
        packets = packets.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        packets >> 8 > (1 << 24) / 100
    });
    let (mut service, mut caller) =
        (server.attach("service", &plain(), &[HASH]), client.attach("caller", &plain(), &[]));
    there_and_back(&mut service, &mut caller);
}

/// Nine: more than the service's rings take, and what may wait for it besides.
#[test]
fn nine_long_messages_at_once_wait_for_each_other() {
    for remote in [false, true] {
        let (server, client) = two_hosts();
        let callers = if remote { &client } else { &server };
        let mut service = server.attach("service", &plain(), &[HASH]);
        let mut apps = ["one", "another", "a third"].map(|name| callers.attach(name, &plain(), &[]));
        for app in &mut apps {
            for cookie in 0..3 {
                app.call(cookie, "alice", &body(LONGEST, cookie as u32), None);
            }
        }
        // It reads nothing for a while: everything that can be full is.
        std::thread::sleep(Duration::from_millis(500));
        let mut arrived = VecDeque::new();
        for _ in 0..9 {
            make_room(&mut service, &mut arrived);
            let request = arrived.pop_front().unwrap_or_else(|| next(&mut service));
            assert_eq!(request.body.len(), LONGEST, "remote: {remote}");
            service.respond(request.call, Code::Ok, &request.body);
        }
        for app in &mut apps {
            for _ in 0..3 {
                let response = next(app);
                assert_eq!(response.status, Code::Ok, "remote: {remote}");
                assert!(response.body == body(LONGEST, response.call as u32), "remote: {remote}");
            }
        }
        assert_eq!((server.status().calls_open, client.status().calls_open), (0, 0));
    }
}

#[test]
fn an_application_that_dies_within_a_long_message_leaves_nothing_behind() {
    for remote in [false, true] {
        let (server, client) = two_hosts();
        let callers = if remote { &client } else { &server };
        let mut service = server.attach("service", &plain(), &[HASH]);
        let mut caller = callers.attach("caller", &plain(), &[]);
        caller.call(1, "alice", &body(LONGEST, 1), None);
        let request = next(&mut service);
        caller.call(2, "alice", &body(LONGEST, 2), None);
        service.respond(request.call, Code::Ok, &request.body);
        // In the middle of an answer to it and of a request of its own.
        callers.handle.send(tollfree_engine::Command::Detach(caller.id)).unwrap();
        drop(caller);
        let mut other = callers.attach("another", &plain(), &[]);
        other.call(1, "alice", b"short", Some(Duration::from_secs(60)));
        let request = loop {
            let message = next(&mut service);
            if message.op == DaemonOp::Request && message.body == b"short" {
                break message;
            }
        };
        service.respond(request.call, Code::Ok, b"");
        assert_eq!(next(&mut other).status, Code::Ok, "remote: {remote}");
        for host in [&server, &client] {
            for _ in 0..200 {
                if host.status().calls_open == 0 {
                    break;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            assert_eq!(host.status().calls_open, 0, "remote: {remote}");
        }
    }
}

#[test]
fn responses_that_nobody_reads_are_refused_once_they_fill_what_there_is_for_them() {
    let host = Host::start(&[]);
    let mut service = host.attach("service", &plain(), &[HASH]);
    let mut caller = host.attach("caller", &plain(), &[]);
    const CALLS: u64 = 10;
    for cookie in 0..CALLS {
        caller.call(cookie, "alice", b"", None);
        let request = next(&mut service);
        make_room(&mut service, &mut VecDeque::new());
        service.respond(request.call, Code::Ok, &body(LONGEST, 3));
    }
    let statuses: Vec<Code> = (0..CALLS).map(|_| next(&mut caller).status).collect();
    assert_eq!(statuses[..8], [Code::Ok; 8], "{statuses:?}");
    assert_eq!(statuses[8..], [Code::ResourceExhausted; 2], "{statuses:?}");
}
