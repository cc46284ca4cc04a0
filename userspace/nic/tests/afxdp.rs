//! The `afxdp` backend across a veth pair between two network namespaces. Needs root; skipped without.

mod support;

use rustix::thread::{CapabilitySet, CapabilitySets};
use std::{
    net::{IpAddr, SocketAddr, UdpSocket},
    os::fd::BorrowedFd,
    time::{Duration, Instant},
};
use support::{
    PORT,
    bpf::{Attach, Redirect},
    net::{End, ip, pair},
};
use tollfree_nic::{
    Error, Nic, Peer, TxError,
    afxdp::{AfXdp, Binding, Config, Mode},
};

const PATIENCE: Duration = Duration::from_secs(10);

/// Runs a test on a thread of its own, because it changes namespaces.
fn isolated(test: impl FnOnce() + Send + 'static) {
    if let Err(panic) = std::thread::spawn(test).join() {
        std::panic::resume_unwind(panic);
    }
}

fn config(end: &End) -> Config {
    Config { frames: 256, ..Config::new(end.interface) }
}

/// One end's backend and its XDP program; `None`, with a note, where the kernel refuses.
fn open(end: &End, config: Config, attach: Attach) -> Option<(AfXdp, Redirect)> {
    end.enter();
    let redirect = match Redirect::attach(end.interface, attach) {
        Ok(redirect) => redirect,
        Err(error) => {
            println!("skipped: cannot attach an XDP program: {error}");
            return None;
        }
    };
    let nic = AfXdp::open(config, &mut |queue, socket| redirect.register(queue, socket));
    Some((nic.unwrap_or_else(|error| panic!("{error}")), redirect))
}

fn peer(address: &str) -> Peer {
    SocketAddr::new(address.parse::<IpAddr>().unwrap(), PORT).into()
}

fn send(nic: &mut AfXdp, to: &Peer, payload: &[u8]) -> Result<(), TxError> {
    nic.transmit(0, to, payload.len(), &mut |bytes| bytes.copy_from_slice(payload))
}

/// Sends, waiting for the way to be resolved and for room.
fn send_patiently(nic: &mut AfXdp, to: &Peer, payload: &[u8]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match send(nic, to, payload) {
            Ok(()) => return,
            Err(TxError::Full) => nic.flush().unwrap(),
            Err(TxError::Unreachable) => {
                nic.tick(0);
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(TxError::Failed(error)) => panic!("{error}"),
        }
        assert!(Instant::now() < deadline, "{to}: {:?}", nic.why_unreachable(to));
    }
}

fn gather(nic: &mut AfXdp, count: usize) -> Vec<(Peer, Vec<u8>)> {
    let deadline = Instant::now() + PATIENCE;
    let mut packets = Vec::new();
    while packets.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} arrived: {:?}", packets.len(), nic.counters());
        nic.receive(count - packets.len(), &mut |packet| {
            packets.push((packet.from, packet.payload.to_vec()))
        })
        .unwrap();
    }
    packets
}

fn readable(fd: BorrowedFd<'_>, patience_ms: i64) -> bool {
    let mut fds = [rustix::event::PollFd::from_borrowed_fd(fd, rustix::event::PollFlags::IN)];
    let timeout = rustix::event::Timespec { tv_sec: 0, tv_nsec: patience_ms * 1_000_000 };
    rustix::event::poll(&mut fds, Some(&timeout)).unwrap() > 0
}

/// No frame may be lost, and what was sent must come back.
fn assert_accounted(nic: &mut AfXdp) {
    assert_eq!(nic.counters().frames.missing(), 0, "{:?}", nic.counters());
    let deadline = Instant::now() + PATIENCE;
    while nic.counters().frames.tx > 0 {
        assert!(Instant::now() < deadline, "frames stay with the kernel: {:?}", nic.counters());
        nic.flush().unwrap();
        nic.tick(0);
    }
    let frames = nic.counters().frames;
    assert_eq!((frames.missing(), frames.rx, frames.tx), (0, 0, 0), "{frames:?}");
}

fn there_and_back(attach: Attach) {
    isolated(move || {
        let Some((a, b)) = pair(1) else { return };
        let Some((mut left, _left_program)) = open(&a, config(&a), attach) else { return };
        let Some((mut right, _right_program)) = open(&b, config(&b), attach) else { return };
        assert_eq!(left.mode(), Mode::Copy, "veth has no zero-copy");
        assert_eq!(left.max_payload(), 1452);
        for (from, to) in [(a.v4, b.v4), (a.v6, b.v6)] {
            let (to_left, to_right) = (peer(from), peer(to));
            assert!(
                matches!(send(&mut left, &to_right, b"x"), Err(TxError::Unreachable)),
                "not resolved yet"
            );
            send_patiently(&mut left, &to_right, b"question");
            left.flush().unwrap();
            assert!(readable(right.fd(), 999));
            assert_eq!(gather(&mut right, 1), [(to_left, b"question".to_vec())]);
            assert!(!readable(right.fd(), 0));
            // Who has just asked can be answered at once.
            send(&mut right, &to_left, b"answer").unwrap();
            right.flush().unwrap();
            assert_eq!(gather(&mut left, 1), [(to_right, b"answer".to_vec())]);
        }
        assert_accounted(&mut left);
        assert_accounted(&mut right);
    });
}

#[test]
fn native_there_and_back() {
    there_and_back(Attach::Native);
}

#[test]
fn generic_there_and_back() {
    there_and_back(Attach::Generic);
}

#[test]
fn batches_of_any_size_arrive_whole_and_in_order() {
    isolated(|| {
        let Some((a, b)) = pair(1) else { return };
        let Some((mut left, _left_program)) = open(&a, config(&a), Attach::Native) else { return };
        let Some((mut right, _right_program)) = open(&b, config(&b), Attach::Native) else { return };
        let longest = left.max_payload();
        let payload = |number: usize| vec![number as u8; 1 + number * 37 % longest];
        for to in [peer(b.v4), peer(b.v6)] {
            let mut number = 0;
            // More than one kick's 32 packets, and more rounds than there are frames.
            for batch in [1, 31, 32, 33, 100, 64, 128, 3].into_iter().cycle().take(64) {
                for at in number..number + batch {
                    send_patiently(&mut left, &to, &payload(at));
                }
                left.flush().unwrap();
                for (_, got) in gather(&mut right, batch) {
                    assert_eq!(got, payload(number), "packet {number}");
                    number += 1;
                }
                assert_eq!(left.counters().frames.missing(), 0);
                assert_eq!(right.counters().frames.missing(), 0);
            }
        }
        let (sent, got) = (left.counters(), right.counters());
        assert_eq!((sent.tx_packets, sent.tx_bytes), (got.rx_packets, got.rx_bytes));
        assert_eq!(got.rx_dropped, 0);
        assert_accounted(&mut left);
        assert_accounted(&mut right);
    });
}

#[test]
fn a_full_queue_says_so_and_recovers() {
    isolated(|| {
        let Some((a, b)) = pair(1) else { return };
        let Some((mut left, _left_program)) = open(&a, config(&a), Attach::Native) else { return };
        let Some((mut right, _right_program)) = open(&b, config(&b), Attach::Native) else { return };
        let to = peer(b.v4);
        send_patiently(&mut left, &to, b"first");
        let mut queued = 1;
        let error = loop {
            match send(&mut left, &to, b"more") {
                Ok(()) => queued += 1,
                Err(error) => break error,
            }
        };
        assert!(matches!(error, TxError::Full), "{error}");
        assert_eq!(queued, 128, "half of the frames are for sending");
        assert_eq!(left.counters().tx_full, 1);
        assert_eq!(left.counters().frames.missing(), 0);
        left.flush().unwrap();
        assert_eq!(gather(&mut right, queued).len(), queued);
        send_patiently(&mut left, &to, b"again");
        left.flush().unwrap();
        assert_eq!(gather(&mut right, 1)[0].1, b"again");
        assert_accounted(&mut left);
    });
}

#[test]
fn a_receiver_that_sleeps_loses_packets_but_no_frames() {
    isolated(|| {
        let Some((a, b)) = pair(1) else { return };
        let Some((mut left, _left_program)) = open(&a, config(&a), Attach::Native) else { return };
        let Some((mut right, _right_program)) = open(&b, config(&b), Attach::Native) else { return };
        let to = peer(b.v4);
        for _ in 0..1000 {
            send_patiently(&mut left, &to, &[7; 400]);
            left.flush().unwrap();
        }
        let mut got = 0;
        while right.receive(7, &mut |_| got += 1).unwrap() > 0 {
            assert_eq!(right.counters().frames.missing(), 0);
        }
        assert!((1..1000).contains(&got), "{got} received");
        right.tick(0);
        assert_eq!(right.counters().rx_missed + got, 1000, "{:?}", right.counters());
        send_patiently(&mut left, &to, b"after");
        left.flush().unwrap();
        assert_eq!(gather(&mut right, 1)[0].1, b"after", "the queue works on");
        assert_accounted(&mut left);
        assert_accounted(&mut right);
    });
}

#[test]
fn a_panic_in_a_closure_loses_no_frame() {
    isolated(|| {
        let Some((a, b)) = pair(1) else { return };
        let Some((mut left, _left_program)) = open(&a, config(&a), Attach::Native) else { return };
        let Some((mut right, _right_program)) = open(&b, config(&b), Attach::Native) else { return };
        let to = peer(b.v4);
        send_patiently(&mut left, &to, b"one");
        let filled =
            std::panic::AssertUnwindSafe(|| left.transmit(0, &to, 10, &mut |_| panic!("on purpose")));
        assert!(std::panic::catch_unwind(filled).is_err());
        assert_eq!(left.counters().frames.missing(), 0);
        send_patiently(&mut left, &to, b"two");
        left.flush().unwrap();
        let deadline = Instant::now() + PATIENCE;
        let read = std::panic::AssertUnwindSafe(|| {
            while Instant::now() < deadline {
                right.receive(1, &mut |_| panic!("on purpose")).unwrap();
            }
        });
        assert!(std::panic::catch_unwind(read).is_err());
        assert_eq!(right.counters().frames.missing(), 0);
        assert_eq!(
            gather(&mut right, 1)[0].1,
            b"two",
            "the interrupted packet was not sent, the next one was"
        );
        assert_accounted(&mut left);
        assert_accounted(&mut right);
    });
}

#[test]
fn both_queues_are_served() {
    isolated(|| {
        let Some((a, b)) = pair(2) else { return };
        let Some((mut left, _left_program)) = open(&a, config(&a), Attach::Native) else { return };
        let Some((mut right, _right_program)) = open(&b, config(&b), Attach::Native) else { return };
        assert_eq!((left.queues(), right.queues()), (2, 2));
        assert_eq!(right.counters().frames.total, 512);
        // Each peer keeps to one queue; several peers use both. The addresses all lead to the other end.
        let peers: Vec<Peer> = (10..26).map(|host| peer(&format!("10.97.0.{host}"))).collect();
        b.enter();
        for host in 10..26 {
            ip(&["address", "add", &format!("10.97.0.{host}/24"), "dev", b.interface]).unwrap();
        }
        for to in &peers {
            send_patiently(&mut left, to, b"hello");
        }
        left.flush().unwrap();
        assert!(readable(right.fd(), 999));
        assert_eq!(gather(&mut right, peers.len()).len(), peers.len());
        assert_accounted(&mut left);
        assert_accounted(&mut right);
    });
}

#[test]
fn a_vlan_is_tagged() {
    isolated(|| {
        let Some((a, b)) = pair(1) else { return };
        let Some((mut left, _left_program)) = open(&a, config(&a), Attach::Native) else { return };
        let Some((_right, _right_program)) = open(&b, config(&b), Attach::Native) else { return };
        for (end, address) in [(&a, "10.98.0.1/24"), (&b, "10.98.0.2/24")] {
            end.enter();
            let made =
                ip(&["link", "add", "link", end.interface, "name", "tfnic-vlan", "type", "vlan", "id", "42"]);
            if let Err(error) = made {
                println!("skipped: {error}");
                return;
            }
            ip(&["address", "add", address, "dev", "tfnic-vlan"]).unwrap();
            ip(&["link", "set", "tfnic-vlan", "up"]).unwrap();
        }
        // The test's program leaves tagged packets to the kernel, so that a plain socket shows what arrived.
        let socket = UdpSocket::bind(("10.98.0.2", PORT)).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        send_patiently(&mut left, &peer("10.98.0.2"), b"tagged");
        left.flush().unwrap();
        let mut bytes = [0; 64];
        let (len, from) = socket.recv_from(&mut bytes).unwrap();
        assert_eq!((&bytes[..len], from.to_string()), (&b"tagged"[..], format!("10.98.0.1:{PORT}")));
        assert_accounted(&mut left);
    });
}

#[test]
fn the_kernel_accepts_the_checksums() {
    isolated(|| {
        let Some((a, b)) = pair(1) else { return };
        let Some((mut left, _left_program)) = open(&a, config(&a), Attach::Native) else { return };
        b.enter();
        // No socket in the map here: packets pass to the kernel, which checks what AF_XDP would not.
        let Ok(_program) = Redirect::attach(b.interface, Attach::Native) else { return };
        for to in [b.v4, b.v6] {
            let socket = UdpSocket::bind((to, PORT)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            for len in [1, 2, 3, 100, 1451, 1452] {
                let payload: Vec<u8> = (0..len).map(|at| (at * 7 + len) as u8).collect();
                send_patiently(&mut left, &peer(to), &payload);
                left.flush().unwrap();
                let mut bytes = [0; 2048];
                let (got, _) = socket.recv_from(&mut bytes).unwrap();
                assert_eq!(&bytes[..got], &payload[..], "{to}, {len} bytes");
            }
        }
        assert_accounted(&mut left);
    });
}

#[test]
fn what_cannot_be_reached_is_explained() {
    isolated(|| {
        let Some((a, b)) = pair(1) else { return };
        let Some((mut left, _left_program)) = open(&a, config(&a), Attach::Native) else { return };
        let mut explain = |address: &str| {
            let (to, deadline) = (peer(address), Instant::now() + PATIENCE);
            loop {
                assert!(matches!(send(&mut left, &to, b"x"), Err(TxError::Unreachable)));
                left.tick(0);
                if let Some(problem) = left.why_unreachable(&to) {
                    return problem.to_owned();
                }
                assert!(Instant::now() < deadline, "no explanation for {address}");
                std::thread::sleep(Duration::from_millis(5));
            }
        };
        let unrouted = explain("192.0.2.1");
        assert!(unrouted.contains("192.0.2.1") && unrouted.contains("unreachable"), "{unrouted}");
        let own = explain(a.v4);
        assert!(own.contains("own address"), "{own}");
        let absent = explain("10.97.0.99");
        assert!(absent.contains("does not answer ARP") && absent.contains(a.interface), "{absent}");
        drop(b);
    });
}

#[test]
fn mistakes_are_named() {
    isolated(|| {
        let Some((a, _b)) = pair(1) else { return };
        a.enter();
        let failure =
            |config: Config| AfXdp::open(config, &mut |_, _| Ok(())).err().map(|error| error.to_string());
        let base = config(&a);
        let cases = [
            (Config { interface: "tfnic-none".into(), ..base.clone() }, "tfnic-none"),
            (Config { frames: 1, ..base.clone() }, "`frames`"),
            (Config { queues: Some(9), ..base.clone() }, "the interface has 1"),
            (Config { max_payload: Some(9000), ..base.clone() }, "`max_payload`"),
            (Config { binding: Binding::ZeroCopy, ..base.clone() }, "zero-copy"),
        ];
        for (config, expected) in cases {
            let error = failure(config.clone()).unwrap_or_else(|| panic!("{config:?} was accepted"));
            assert!(error.contains(expected), "{error}");
        }
        let refused = AfXdp::open(base.clone(), &mut |_, _| Err("no such map".into())).err().unwrap();
        assert!(matches!(&refused, Error::Register { .. }) && refused.to_string().contains("no such map"));
        let _first = AfXdp::open(base.clone(), &mut |_, _| Ok(())).unwrap();
        let second = AfXdp::open(base, &mut |_, _| Ok(())).err().unwrap();
        assert!(matches!(second, Error::Busy { queue: 0, .. }), "{second}");
    });
}

#[test]
fn a_missing_capability_is_named() {
    isolated(|| {
        let Some((a, _b)) = pair(1) else { return };
        a.enter();
        let none = CapabilitySet::empty();
        let sets = CapabilitySets { effective: none, permitted: none, inheritable: none };
        rustix::thread::set_capabilities(None, sets).unwrap();
        let error = AfXdp::open(config(&a), &mut |_, _| Ok(())).err().unwrap().to_string();
        for expected in ["CAP_NET_RAW", a.interface, "`backend = \"udp\"`"] {
            assert!(error.contains(expected), "{error}");
        }
    });
}

#[test]
fn an_interface_may_go_down_and_come_back() {
    isolated(|| {
        let Some((a, b)) = pair(1) else { return };
        let Some((mut left, _left_program)) = open(&a, config(&a), Attach::Native) else { return };
        let Some((mut right, _right_program)) = open(&b, config(&b), Attach::Native) else { return };
        let to = peer(b.v4);
        send_patiently(&mut left, &to, b"before");
        left.flush().unwrap();
        assert_eq!(gather(&mut right, 1)[0].1, b"before");
        a.enter();
        ip(&["link", "set", a.interface, "down"]).unwrap();
        send(&mut left, &to, b"kept").unwrap();
        left.flush().unwrap();
        assert!(matches!(send(&mut left, &to, b"refused"), Err(TxError::Unreachable)));
        let why = left.why_unreachable(&to).unwrap();
        assert!(why.contains(a.interface) && why.contains("down"), "{why}");
        left.tick(0);
        assert!(left.why_unreachable(&to).is_some(), "still down");
        ip(&["link", "set", a.interface, "up"]).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let mut got = Vec::new();
        while !got.contains(&b"after".to_vec()) {
            assert!(Instant::now() < deadline, "{:?} {:?}", left.counters(), right.counters());
            send_patiently(&mut left, &to, b"after");
            left.flush().unwrap();
            right.receive(64, &mut |packet| got.push(packet.payload.to_vec())).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        assert_accounted(&mut left);
        assert_accounted(&mut right);
    });
}

#[test]
fn a_removed_interface_is_noticed() {
    isolated(|| {
        let Some((a, _b)) = pair(1) else { return };
        let Some((mut left, _left_program)) = open(&a, config(&a), Attach::Native) else { return };
        left.tick(0);
        assert_eq!(left.receive(1, &mut |_| {}).unwrap(), 0);
        ip(&["link", "delete", a.interface]).unwrap();
        let deadline = Instant::now() + PATIENCE;
        let error = loop {
            assert!(Instant::now() < deadline, "nothing noticed");
            left.tick(0);
            if let Err(error) = left.receive(1, &mut |_| {}) {
                break error;
            }
        };
        assert!(matches!(&error, Error::Gone { .. }) && error.to_string().contains(a.interface), "{error}");
    });
}
