//! Every verdict of the XDP programs and every reason they count, on the real object, by `BPF_PROG_TEST_RUN`.

mod common;

use common::packet::{
    CLIENT, KEY, OUR_MAC, PEER_INDEX, PEER_MAC, PEER_PORT, Packet, SERVER, STACKS, Stack, sequence, sessions,
};
use common::{Action, PORT, PORTS, Program, Sandbox, sandbox, test_policy, xdp_socket};
use std::collections::BTreeSet;
use std::os::fd::{AsFd, OwnedFd};
use tollfree_loader::Interface;
use tollfree_wire::checksum::Checksum;
use tollfree_wire::frame::Frame;
use tollfree_wire::header::{FLAG_CANCEL, FLAG_RESET, MESSAGE_MAX, METHOD_CONTROL};
use tollfree_wire::maps::JUDGED;
use tollfree_wire::replay::REPLAY_SPAN;
use tollfree_wire::tag::tag;
use tollfree_wire::{Code, Cursor, Header, Kind, Reason};

/// An interface with sessions, a socket on queue 0, and the test policy.
struct Bench {
    interface: Interface,
    root: Program,
    _socket: OwnedFd,
    _sandbox: Sandbox,
}

fn bench() -> Option<Bench> {
    let sandbox = sandbox()?;
    let mut interface = sandbox.attach();
    for entry in sessions() {
        interface.session_insert(&entry).unwrap();
    }
    interface.set_addresses(&[STACKS[0].ours(), STACKS[2].ours()]).unwrap();
    let socket = xdp_socket();
    interface.register_socket(0, socket.as_fd()).unwrap();
    let (object, tables) = test_policy();
    interface.apply_policy(&object, &tables, serde_json::value::RawValue::NULL).unwrap();
    Some(Bench { interface, root: sandbox.program("tf_root"), _socket: socket, _sandbox: sandbox })
}

impl Bench {
    /// Runs the root program on a frame and wants this action, this reason counted once, and none else.
    fn expect(&self, name: &str, frame: &[u8], action: Action, reason: Reason) -> Vec<u8> {
        let before = self.interface.reasons().unwrap();
        let (found, after) = self.root.run(frame);
        let counted: Vec<&str> = self
            .interface
            .reasons()
            .unwrap()
            .iter()
            .zip(before)
            .enumerate()
            .filter(|(_, (now, before))| *now != before)
            .map(|(index, (now, before))| {
                assert_eq!(*now, before + 1, "{name}");
                Reason::from_index(index).unwrap().name()
            })
            .collect();
        assert_eq!((found, counted), (action, vec![reason.name()]), "{name}");
        // Nobody sees a frame again that no socket took.
        if action != Action::Tx && reason != Reason::NoEngine {
            assert_eq!(after, self.expected(frame, action), "{name}: the frame was changed");
        }
        after
    }

    /// The frame as it leaves the programs: where a delivered request had its tag, the engine finds how far it is judged.
    fn expected(&self, frame: &[u8], action: Action) -> Vec<u8> {
        let mut expected = frame.to_vec();
        if action != Action::Redirect {
            return expected;
        }
        let Frame { header, kind, header_offset, .. } =
            Frame::decode(&mut Cursor::new(frame), PORTS).expect("it was delivered");
        let judged = kind == Kind::Request
            && header.fragment == 0
            && header.flags & FLAG_CANCEL == 0
            && header.method != METHOD_CONTROL;
        if judged {
            let verdict = &frame[header_offset + 56..];
            let mark = match self.interface.status().unwrap().tables.as_slice() {
                [] => 0,
                _ if header.flat_len > 0 && verdict.starts_with(&[7, 0, 0, 0]) => 3,
                _ => JUDGED,
            };
            expected[header_offset + 48..header_offset + 56].copy_from_slice(&mark.to_le_bytes());
        }
        expected
    }
}

struct Row {
    name: &'static str,
    packet: fn(Stack) -> Packet,
    action: Action,
    reason: Reason,
}

const fn row(name: &'static str, packet: fn(Stack) -> Packet, action: Action, reason: Reason) -> Row {
    Row { name, packet, action, reason }
}

fn request(stack: Stack, edit: impl FnOnce(&mut Packet)) -> Packet {
    let mut packet = Packet::request(stack, 0, 0);
    edit(&mut packet);
    packet
}

fn of(stack: Stack, kind: Kind, edit: impl FnOnce(&mut Packet)) -> Packet {
    let mut packet = Packet::new(stack, kind);
    edit(&mut packet);
    packet
}

fn unknown(packet: &mut Packet) {
    packet.header.session = 0x5009;
}

const ROWS: &[Row] = &[
    row("request", |s| Packet::request(s, 0, 0), Action::Redirect, Reason::Delivered),
    row("request without flat block", |s| Packet::new(s, Kind::Request), Action::Redirect, Reason::Delivered),
    row(
        "request with the longest flat block",
        |s| request(s, |p| p.flat.resize(192, 0)),
        Action::Redirect,
        Reason::Delivered,
    ),
    row("rejected by the policy", |s| Packet::request(s, 1, 0), Action::Tx, Reason::PolicyReject),
    row("rejected with a text", |s| Packet::request(s, 1, 13), Action::Tx, Reason::PolicyReject),
    row("rejected with the longest text", |s| Packet::request(s, 1, 128), Action::Tx, Reason::PolicyReject),
    row("rejected with too long a text", |s| Packet::request(s, 1, 129), Action::Drop, Reason::TxFailed),
    row("dropped by the policy", |s| Packet::request(s, 2, 0), Action::Drop, Reason::PolicyDrop),
    row("dropped for want of a table entry", |s| Packet::request(s, 5, 1), Action::Drop, Reason::PolicyDrop),
    row("layout the policy does not know", |s| Packet::request(s, 3, 0), Action::Tx, Reason::UnknownLayout),
    row("nothing decided yet", |s| Packet::request(s, 8, 0), Action::Tx, Reason::Undecided),
    row("left to the engine", |s| Packet::request(s, 7, 0), Action::Redirect, Reason::Delivered),
    row("answered without flat block", |s| Packet::request(s, 6, 0), Action::Tx, Reason::PolicyAnswer),
    row("answered, shorter", |s| Packet::request(s, 6, 3), Action::Tx, Reason::PolicyAnswer),
    row("answered, longer", |s| Packet::request(s, 6, 192), Action::Tx, Reason::PolicyAnswer),
    row("answered with too much", |s| Packet::request(s, 6, 193), Action::Drop, Reason::TxFailed),
    row(
        "answered, of many fragments",
        |s| {
            request(s, |p| {
                p.flat[..8].copy_from_slice(&[6, 0, 0, 0, 64, 0, 0, 0]);
                (p.header.fragments, p.header.message_len) = (3, 24);
            })
        },
        Action::Tx,
        Reason::PolicyAnswer,
    ),
    row("idle session", |s| Packet::request(s, 4, 0), Action::Tx, Reason::SessionIdle),
    row(
        "reject to a group of hosts",
        |s| {
            let mut p = Packet::request(s, 1, 0);
            p.destination_mac = [0x33, 0x33, 0, 0, 0, 1];
            p
        },
        Action::Drop,
        Reason::TxFailed,
    ),
    row(
        "bind request is not judged",
        |s| {
            let mut p = Packet::request(s, 2, 0);
            p.header.method = METHOD_CONTROL;
            p
        },
        Action::Redirect,
        Reason::Delivered,
    ),
    row(
        "cancel is not judged",
        |s| of(s, Kind::Request, |p| p.header.flags = FLAG_CANCEL),
        Action::Redirect,
        Reason::Delivered,
    ),
    row("response", |s| of(s, Kind::Response, |_| {}), Action::Redirect, Reason::Delivered),
    row("reject", |s| of(s, Kind::Reject, |_| {}), Action::Redirect, Reason::Delivered),
    row("ack", |s| of(s, Kind::Ack, |_| {}), Action::Redirect, Reason::Delivered),
    row("close", |s| of(s, Kind::Close, |_| {}), Action::Redirect, Reason::Delivered),
    row("hello", |s| of(s, Kind::Hello, |_| {}), Action::Redirect, Reason::Delivered),
    row("challenge", |s| of(s, Kind::Challenge, |_| {}), Action::Redirect, Reason::Delivered),
    row("welcome", |s| of(s, Kind::Welcome, |_| {}), Action::Redirect, Reason::Delivered),
    row(
        "reset",
        |s| of(s, Kind::Close, |p| (p.header.session, p.header.flags) = (0, FLAG_RESET)),
        Action::Redirect,
        Reason::Delivered,
    ),
    row(
        "hello to another host",
        |s| of(s, Kind::Hello, |p| p.destination = s.elsewhere()),
        Action::Pass,
        Reason::Passed,
    ),
    row(
        "reset to another host",
        |s| of(s, Kind::Close, |p| (p.destination, p.header.flags) = (s.elsewhere(), FLAG_RESET)),
        Action::Pass,
        Reason::Passed,
    ),
    row("unknown session", |s| request(s, unknown), Action::Tx, Reason::UnknownSession),
    row(
        "an earlier session of this place",
        |s| request(s, |p| p.header.session ^= 0x1_0000),
        Action::Tx,
        Reason::UnknownSession,
    ),
    row("session 0", |s| request(s, |p| p.header.session = 0), Action::Tx, Reason::UnknownSession),
    row(
        "response of unknown session",
        |s| of(s, Kind::Response, unknown),
        Action::Tx,
        Reason::UnknownSession,
    ),
    row("ack of unknown session", |s| of(s, Kind::Ack, unknown), Action::Drop, Reason::UnknownSession),
    row("close of unknown session", |s| of(s, Kind::Close, unknown), Action::Drop, Reason::UnknownSession),
    row("reject of unknown session", |s| of(s, Kind::Reject, unknown), Action::Drop, Reason::UnknownSession),
    row(
        "unknown session on another host",
        |s| {
            request(s, |p| {
                unknown(p);
                p.destination = s.elsewhere();
            })
        },
        Action::Pass,
        Reason::Passed,
    ),
    row("another port", |s| request(s, |p| p.port = 53), Action::Pass, Reason::Passed),
    row("the last of our ports", |s| request(s, |p| p.port = PORT + 15), Action::Redirect, Reason::Delivered),
    row("the port behind our last", |s| request(s, |p| p.port = PORT + 16), Action::Pass, Reason::Passed),
    row("the port before our first", |s| request(s, |p| p.port = PORT - 1), Action::Pass, Reason::Passed),
    row(
        "UDP of others on our port",
        |s| request(s, |p| p.lie = |h| h.magic = 0),
        Action::Pass,
        Reason::ForeignUdp,
    ),
    row(
        "not IP",
        |s| request(s, |p| p.mangle = |f, s| f[s.ip() - 2..s.ip()].copy_from_slice(&[0x08, 0x06])),
        Action::Pass,
        Reason::Passed,
    ),
    row(
        "TCP",
        |s| request(s, |p| p.mangle = |f, s| f[s.ip() + if s.ipv6 { 6 } else { 9 }] = 6),
        Action::Pass,
        Reason::Passed,
    ),
    row(
        "two VLAN tags",
        |s| {
            request(s, |p| {
                p.mangle = |f, _| {
                    f.splice(12..12, [0x81, 0, 0, 1, 0x81, 0, 0, 2]);
                }
            })
        },
        Action::Pass,
        Reason::Passed,
    ),
    row("version", |s| request(s, |p| p.lie = |h| h.version = 2), Action::Drop, Reason::BadVersion),
    row("kind", |s| request(s, |p| p.lie = |h| h.kind = 9), Action::Drop, Reason::BadKind),
    row("flags", |s| request(s, |p| p.lie = |h| h.flags = 0x80), Action::Drop, Reason::BadFlags),
    row(
        "flat block over the limit",
        |s| request(s, |p| p.lie = |h| h.flat_len = 193),
        Action::Drop,
        Reason::BadFlatLength,
    ),
    row(
        "fragment past the count",
        |s| of(s, Kind::Request, |p| p.lie = |h| h.fragment = 1),
        Action::Drop,
        Reason::BadFragment,
    ),
    row("no fragments", |s| request(s, |p| p.lie = |h| h.fragments = 0), Action::Drop, Reason::BadFragment),
    row(
        "message over the limit",
        |s| request(s, |p| p.lie = |h| (h.message_len, h.fragments) = (MESSAGE_MAX + 1, 2)),
        Action::Drop,
        Reason::BadLength,
    ),
    row(
        "message longer than its packet",
        |s| request(s, |p| p.lie = |h| h.message_len += 1),
        Action::Drop,
        Reason::BadLength,
    ),
    row(
        "UDP and IP lengths differ",
        |s| request(s, |p| p.mangle = |f, s| f[s.header() - 3] ^= 1),
        Action::Drop,
        Reason::BadLength,
    ),
    row(
        "flat block past the end",
        |s| of(s, Kind::Request, |p| p.lie = |h| h.flat_len = 8),
        Action::Drop,
        Reason::Truncated,
    ),
    row(
        "frame ends early",
        |s| {
            request(s, |p| {
                p.mangle = |f, _| {
                    f.pop();
                }
            })
        },
        Action::Drop,
        Reason::Truncated,
    ),
    row("from another port", |s| request(s, |p| p.source_port = 7402), Action::Drop, Reason::WrongPeer),
    row(
        "from another address",
        |s| request(s, |p| p.mangle = |f, s| f[s.ip() + if s.ipv6 { 23 } else { 15 }] ^= 7),
        Action::Drop,
        Reason::WrongPeer,
    ),
    row(
        "a session of ours by number, on its way to another host",
        |s| {
            request(s, |p| {
                p.destination = s.elsewhere();
                p.source_port = 7402;
            })
        },
        Action::Pass,
        Reason::Passed,
    ),
    row(
        "UDP of others on our port, lengths that differ",
        |s| {
            request(s, |p| {
                p.lie = |h| h.magic = 0;
                p.mangle = |f, s| f[s.header() - 3] ^= 1;
            })
        },
        Action::Pass,
        Reason::ForeignUdp,
    ),
    row(
        "response to a server",
        |s| of(s, Kind::Response, |p| p.header.session = s.session(SERVER)),
        Action::Drop,
        Reason::WrongKind,
    ),
    row(
        "request to a client",
        |s| of(s, Kind::Request, |p| p.header.session = s.session(CLIENT)),
        Action::Drop,
        Reason::WrongKind,
    ),
    row("spoofed: wrong tag", |s| request(s, |p| p.lie = |h| h.tag ^= 1), Action::Drop, Reason::BadTag),
    row("spoofed: another call", |s| request(s, |p| p.lie = |h| h.call += 1), Action::Drop, Reason::BadTag),
    row(
        "spoofed: another flat block",
        |s| request(s, |p| p.mangle = |f, s| f[s.header() + 56] = 2),
        Action::Drop,
        Reason::BadTag,
    ),
    row(
        "later fragment, nothing admitted",
        |s| {
            of(s, Kind::Request, |p| {
                p.header.call = 0x1_0044;
                (p.header.fragment, p.header.fragments, p.header.message_len) = (1, 2, 100);
                p.body = vec![0; 50];
            })
        },
        Action::Drop,
        Reason::NotAdmitted,
    ),
];

/// Those only IPv4 can have.
const ROWS_V4: &[Row] = &[
    row("IP options", |s| request(s, |p| p.mangle = options::<1>), Action::Drop, Reason::IpOptions),
    row("the most IP options", |s| request(s, |p| p.mangle = options::<10>), Action::Drop, Reason::IpOptions),
    row(
        "first IP fragment",
        |s| request(s, |p| p.mangle = |f, s| f[s.ip() + 6] = 0x20),
        Action::Drop,
        Reason::IpFragment,
    ),
    row(
        "later IP fragment",
        |s| request(s, |p| p.mangle = |f, s| f[s.ip() + 7] = 4),
        Action::Pass,
        Reason::Passed,
    ),
    row(
        "IP options on another port",
        |s| {
            request(s, |p| {
                p.port = 53;
                p.mangle = options::<2>;
            })
        },
        Action::Pass,
        Reason::Passed,
    ),
    row(
        "IP options on UDP of others",
        |s| {
            request(s, |p| {
                p.lie = |h| h.magic = 0;
                p.mangle = options::<2>;
            })
        },
        Action::Pass,
        Reason::ForeignUdp,
    ),
    row(
        "IP header under 20 bytes",
        |s| request(s, |p| p.mangle = |f, s| f[s.ip()] = 0x44),
        Action::Pass,
        Reason::Passed,
    ),
];

fn options<const WORDS: u8>(frame: &mut Vec<u8>, stack: Stack) {
    frame[stack.ip()] += WORDS;
    let at = stack.ip() + 20;
    frame.splice(at..at, std::iter::repeat_n(1, 4 * usize::from(WORDS)));
}

fn rows(stack: Stack) -> impl Iterator<Item = &'static Row> {
    let v4: &[Row] = if stack.ipv6 { &[] } else { ROWS_V4 };
    ROWS.iter().chain(v4)
}

#[test]
fn every_row_of_the_table() {
    let Some(bench) = bench() else { return };
    let mut seen = BTreeSet::new();
    for stack in STACKS {
        for Row { name, packet, action, reason } in rows(stack) {
            let name = format!("{name} ({stack:?})");
            let packet = packet(stack);
            let after = bench.expect(&name, &packet.frame(), *action, *reason);
            if *action == Action::Tx {
                check_answer(&name, &packet, &after, *reason);
            }
            seen.insert(*reason);
        }
    }
    // What only the engine counts, and what has a test of its own below.
    let elsewhere = [
        Reason::Replayed,
        Reason::NoEngine,
        Reason::BadHandshake,
        Reason::StaleCall,
        Reason::DuplicateCall,
        Reason::ReassemblyLimit,
        Reason::TableFull,
        Reason::PolicyAudit,
        Reason::BadChecksum,
    ];
    let missing: Vec<&Reason> =
        Reason::ALL.iter().filter(|reason| !seen.contains(reason) && !elsewhere.contains(reason)).collect();
    assert!(missing.is_empty(), "no row for {missing:?}");
}

/// An answer is the request's frame turned around, with nothing but a header and what a policy answers with, correct
/// down to the checksums.
fn check_answer(name: &str, request: &Packet, answer: &[u8], reason: Reason) {
    let stack = request.stack;
    // Its flat block, or the text that says why.
    let (flat_len, byte) = match reason {
        Reason::PolicyAnswer => (usize::from(request.flat[4]), 7),
        Reason::PolicyReject => (usize::from(request.flat[4]), b'w'),
        _ => (0, 0),
    };
    let span = flat_len.next_multiple_of(8);
    assert_eq!(answer.len(), stack.header() + 56 + span, "{name}: length");
    assert_eq!((&answer[..6], &answer[6..12]), (&PEER_MAC[..], &OUR_MAC[..]), "{name}: MAC addresses");
    assert_eq!(answer[12..stack.ip()], request.frame()[12..stack.ip()], "{name}: VLAN and EtherType");
    let frame = Frame::decode(&mut Cursor::new(answer), PEER_PORT.into()).expect(name);
    assert_eq!(frame.source, stack.ours().into(), "{name}: source");
    assert_eq!(frame.destination, stack.peer().into(), "{name}: destination");
    assert_eq!(frame.source_port, PORT, "{name}: source port");

    let udp = stack.header() - 8;
    if stack.ipv6 {
        // Addresses, length and protocol of the pseudo-header, then everything from UDP on: sums to zero.
        let sum = Checksum::default()
            .bytes(&answer[stack.ip() + 8..stack.ip() + 40])
            .bytes(&(answer.len() as u32 - udp as u32).to_be_bytes())
            .bytes(&[0, 0, 0, 17])
            .bytes(&answer[udp..]);
        assert_ne!(answer[udp + 6..udp + 8], [0, 0], "{name}: IPv6 needs a UDP checksum");
        assert_eq!(sum.finish(), 0, "{name}: UDP checksum");
    } else {
        assert_eq!(Checksum::default().bytes(&answer[stack.ip()..udp]).finish(), 0, "{name}: IP checksum");
        assert_eq!(answer[udp + 6..udp + 8], [0, 0], "{name}: no UDP checksum");
    }

    let Header { call, sequence, .. } = request.header;
    if reason == Reason::UnknownSession {
        let asked = Frame::decode(&mut Cursor::new(&request.frame()), PORT.into()).expect(name).header;
        let expected = Header {
            flags: FLAG_RESET,
            method: asked.session,
            call,
            sequence,
            tag: asked.tag,
            ..Header::new(Kind::Close)
        };
        assert_eq!(frame.header, expected, "{name}");
        return;
    }
    let status = match reason {
        Reason::PolicyReject => Code::PermissionDenied,
        Reason::PolicyAnswer => Code::Ok,
        Reason::Undecided => Code::Unavailable,
        Reason::UnknownLayout => Code::FailedPrecondition,
        _ => Code::Unauthenticated,
    };
    let mut expected = Header {
        status: status as u8,
        flat_len: flat_len as u16,
        session: PEER_INDEX,
        method: request.header.method,
        call,
        sequence,
        layout: if reason == Reason::PolicyAnswer { 77 } else { 0 },
        ..Header::new(Kind::Reject)
    };
    let flat = &answer[stack.header() + 56..];
    let (block, padding) = flat.split_at(flat_len);
    assert!(block.iter().all(|found| *found == byte), "{name}: flat block {flat:?}");
    assert!(
        reason == Reason::PolicyAnswer || padding.iter().all(|byte| *byte == 0),
        "{name}: zeros behind it"
    );
    expected.tag = tag(KEY, &expected, Cursor::new(flat)).expect(name);
    assert_eq!(frame.header, expected, "{name}");
}

#[test]
fn a_frame_cut_anywhere_is_neither_delivered_nor_changed() {
    let Some(bench) = bench() else { return };
    for stack in STACKS {
        let frame = Packet::request(stack, 0, 0).frame();
        // The kernel takes no frame shorter than an Ethernet header.
        for length in 14..frame.len() {
            let name = format!("{length} of {} bytes ({stack:?})", frame.len());
            let (action, reason) = if length < stack.header() {
                (Action::Pass, Reason::Passed)
            } else {
                (Action::Drop, Reason::Truncated)
            };
            bench.expect(&name, &frame[..length], action, reason);
        }
        bench.expect("whole", &frame, Action::Redirect, Reason::Delivered);
    }
}

#[test]
fn a_payload_cut_anywhere_has_a_reason() {
    let Some(bench) = bench() else { return };
    for stack in STACKS {
        let frame = Packet::request(stack, 0, 0).frame();
        for payload in 0..frame.len() - stack.header() {
            let mut short = frame[..stack.header() + payload].to_vec();
            let udp_len = (8 + payload) as u16;
            let (at, ip_len) =
                if stack.ipv6 { (stack.ip() + 4, udp_len) } else { (stack.ip() + 2, udp_len + 20) };
            short[at..at + 2].copy_from_slice(&ip_len.to_be_bytes());
            let udp = stack.header() - 8;
            short[udp + 4..udp + 6].copy_from_slice(&udp_len.to_be_bytes());
            let (action, reason) = match payload {
                0..2 => (Action::Pass, Reason::ForeignUdp),
                2..72 => (Action::Drop, Reason::Truncated),
                _ => (Action::Drop, Reason::BadLength),
            };
            bench.expect(&format!("{payload} bytes ({stack:?})"), &short, action, reason);
        }
    }
}

#[test]
fn a_packet_counts_once() {
    let Some(bench) = bench() else { return };
    for stack in STACKS {
        let early = sequence();
        let frame = Packet::request(stack, 0, 0).frame();
        bench.expect("first", &frame, Action::Redirect, Reason::Delivered);
        bench.expect("again", &frame, Action::Drop, Reason::Replayed);
        let mut late = Packet::request(stack, 0, 0);
        late.header.sequence = early;
        bench.expect("late, but within the window", &late.frame(), Action::Redirect, Reason::Delivered);
        bench.expect("late and again", &late.frame(), Action::Drop, Reason::Replayed);
        let [skipped, forgotten] = [sequence(), sequence()];
        let jump = |ahead: u64, held_back: u64, what: &str, action, reason| {
            for _ in 0..ahead {
                sequence();
            }
            let next = Packet::request(stack, 0, 0).frame();
            bench.expect("far ahead", &next, Action::Redirect, Reason::Delivered);
            let mut late = Packet::request(stack, 0, 0);
            late.header.sequence = held_back;
            bench.expect(what, &late.frame(), action, reason);
        };
        jump(REPLAY_SPAN - 8, skipped, "late by the whole window", Action::Redirect, Reason::Delivered);
        jump(REPLAY_SPAN, forgotten, "too old to tell", Action::Drop, Reason::Replayed);
        // A spoofed packet must not move the window.
        let mut spoofed = Packet::request(stack, 0, 0);
        spoofed.header.sequence = u64::MAX;
        spoofed.lie = |header| header.tag ^= 1;
        bench.expect("spoofed", &spoofed.frame(), Action::Drop, Reason::BadTag);
        bench.expect("next", &Packet::request(stack, 0, 0).frame(), Action::Redirect, Reason::Delivered);
    }
}

#[test]
fn fragments_follow_their_first() {
    let Some(bench) = bench() else { return };
    for stack in STACKS {
        let fragment = |call: u64, index: u16, verdict: u32| {
            // With and without VLAN tag it is the same session, so not the same calls.
            let call = call | u64::from(stack.vlan) << 32;
            let mut packet = if index == 0 {
                Packet::request(stack, verdict, 0)
            } else {
                Packet::new(stack, Kind::Request)
            };
            packet.body = vec![index as u8; 40];
            let Header { call: c, fragment, fragments, message_len, .. } = &mut packet.header;
            (*c, *fragment, *fragments, *message_len) = (call, index, 3, 120);
            packet.frame()
        };
        let admitted = (Action::Redirect, Reason::Delivered);
        let refused = (Action::Drop, Reason::NotAdmitted);
        let expect = |name, frame: Vec<u8>, (action, reason)| bench.expect(name, &frame, action, reason);
        expect("ahead of the first", fragment(0x10a, 1, 0), refused);
        expect("the first", fragment(0x10a, 0, 0), admitted);
        expect("the second", fragment(0x10a, 1, 0), admitted);
        expect("the third", fragment(0x10a, 2, 0), admitted);
        expect("of another call", fragment(0x20a, 1, 0), refused);
        expect("a first that is dropped", fragment(0x30a, 0, 2), (Action::Drop, Reason::PolicyDrop));
        expect("the second of it", fragment(0x30a, 1, 0), refused);
        expect("a first that is rejected", fragment(0x40a, 0, 1), (Action::Tx, Reason::PolicyReject));
        expect("the second of that", fragment(0x40a, 1, 0), refused);
        expect("a later call's first", fragment(0x50a, 0, 0), admitted);
        expect("the first of an earlier one, late", fragment(0x10a, 0, 0), admitted);
        expect("the second of the later one", fragment(0x50a, 1, 0), admitted);
    }
}

#[test]
fn without_an_engine_packets_are_dropped_but_answers_go_out() {
    let Some(bench) = bench() else { return };
    bench.interface.unregister_socket(0).unwrap();
    for stack in STACKS {
        bench.expect("request", &Packet::request(stack, 0, 0).frame(), Action::Drop, Reason::NoEngine);
        bench.expect("hello", &Packet::new(stack, Kind::Hello).frame(), Action::Drop, Reason::NoEngine);
        bench.expect("refused", &Packet::request(stack, 1, 0).frame(), Action::Tx, Reason::PolicyReject);
    }
    let rejected = bench.interface.session_get(SERVER).unwrap().unwrap().rejected;
    assert_eq!(rejected, 2, "the IPv4 session's rejects, plain and tagged");
}

#[test]
fn without_a_policy_calls_are_delivered() {
    let Some(mut bench) = bench() else { return };
    bench.interface.clear_policy().unwrap();
    for stack in STACKS {
        bench.expect("request", &Packet::request(stack, 2, 0).frame(), Action::Redirect, Reason::Delivered);
    }
}

#[test]
fn a_removed_session_is_unknown() {
    let Some(bench) = bench() else { return };
    bench.interface.session_remove(SERVER).unwrap();
    assert!(bench.interface.session_get(SERVER).unwrap().is_none());
    let frame = Packet::request(STACKS[0], 0, 0).frame();
    bench.expect("request", &frame, Action::Tx, Reason::UnknownSession);
}

#[test]
fn tables_change_verdicts_at_once() {
    let Some(bench) = bench() else { return };
    let call = || Packet::request(STACKS[0], 5, 42).frame();
    bench.expect("no entry", &call(), Action::Drop, Reason::PolicyDrop);
    bench.interface.table_set("rules", &42u32.to_ne_bytes(), &1u32.to_ne_bytes()).unwrap();
    bench.expect("entry", &call(), Action::Redirect, Reason::Delivered);
    assert!(bench.interface.table_delete("rules", &42u32.to_ne_bytes()).unwrap());
    bench.expect("deleted", &call(), Action::Drop, Reason::PolicyDrop);
}
