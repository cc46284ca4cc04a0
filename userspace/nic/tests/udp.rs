//! The `udp` backend over the loopback interface: no privileges needed.

use std::{
    net::{Ipv6Addr, SocketAddr, UdpSocket},
    time::{Duration, Instant},
};
use tollfree_nic::{
    Error, Nic, Peer, TxError,
    udp::{BATCH, Config, Udp},
};

fn open(listen: &str) -> Udp {
    Udp::bind(listen.parse().unwrap()).unwrap()
}

fn peer(of: &Udp) -> Peer {
    of.local_addr().into()
}

fn send(nic: &mut Udp, to: &Peer, payload: &[u8]) -> Result<(), TxError> {
    nic.transmit(0, to, payload.len(), &mut |bytes| bytes.copy_from_slice(payload))
}

/// Receives until `count` packets are there.
fn gather(nic: &mut Udp, count: usize) -> Vec<(Peer, Vec<u8>)> {
    let deadline = Instant::now() + Duration::from_secs(5);
    let mut packets = Vec::new();
    while packets.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} packets arrived", packets.len());
        nic.receive(count - packets.len(), &mut |packet| {
            packets.push((packet.from, packet.payload.to_vec()))
        })
        .unwrap();
    }
    packets
}

fn assert_accounted(nic: &Udp) {
    assert_eq!(nic.counters().frames.missing(), 0, "{:?}", nic.counters());
}

fn there_and_back(listen: &str) {
    let (mut a, mut b) = (open(listen), open(listen));
    let (to_a, to_b) = (peer(&a), peer(&b));
    send(&mut a, &to_b, b"question").unwrap();
    assert_eq!(a.counters().frames.tx, 1);
    a.flush().unwrap();
    assert_eq!(gather(&mut b, 1), [(to_a, b"question".to_vec())]);
    send(&mut b, &to_a, b"answer").unwrap();
    b.flush().unwrap();
    assert_eq!(gather(&mut a, 1), [(to_b, b"answer".to_vec())]);
    assert_accounted(&a);
    assert_accounted(&b);
}

fn marks_are_told(listen: &str) {
    let mut nic = open(listen);
    let sender = UdpSocket::bind(listen).unwrap();
    for class in [0b11u8, 0b10] {
        match listen.contains('[') {
            true => rustix::net::sockopt::set_ipv6_tclass(&sender, class.into()).unwrap(),
            false => rustix::net::sockopt::set_ip_tos(&sender, class).unwrap(),
        }
        sender.send_to(b"packet", nic.local_addr()).unwrap();
        let mut marked = None;
        let deadline = Instant::now() + Duration::from_secs(5);
        while marked.is_none() && Instant::now() < deadline {
            nic.receive(1, &mut |packet| marked = Some(packet.marked)).unwrap();
        }
        assert_eq!(marked, Some(class == 0b11));
    }
}

#[test]
fn congestion_marks_are_told() {
    marks_are_told("127.0.0.1:0");
    if has_ipv6() {
        marks_are_told("[::1]:0");
    }
}

fn has_ipv6() -> bool {
    let there = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)).is_ok();
    if !there {
        println!("skipped: this host has no IPv6 loopback");
    }
    there
}

#[test]
fn ipv4_there_and_back() {
    there_and_back("127.0.0.1:0");
}

#[test]
fn ipv6_there_and_back() {
    if has_ipv6() {
        there_and_back("[::1]:0");
    }
}

#[test]
fn an_unspecified_ipv6_socket_serves_ipv4_too() {
    if !has_ipv6() {
        return;
    }
    let (mut six, mut four) = (open("[::]:0"), open("127.0.0.1:0"));
    let to_six = SocketAddr::from(([127, 0, 0, 1], six.local_addr().port())).into();
    send(&mut four, &to_six, b"hello").unwrap();
    four.flush().unwrap();
    let [(from, _)] = gather(&mut six, 1).try_into().unwrap();
    assert_eq!(from, peer(&four), "an IPv4 peer has one form, whatever the socket");
    send(&mut six, &from, b"back").unwrap();
    six.flush().unwrap();
    assert_eq!(gather(&mut four, 1), [(to_six, b"back".to_vec())]);
}

#[test]
fn an_ipv4_socket_says_that_it_cannot_reach_ipv6() {
    let mut nic = open("127.0.0.1:0");
    let to = "[::1]:7400".parse::<SocketAddr>().unwrap().into();
    let error = send(&mut nic, &to, b"x").unwrap_err();
    assert!(matches!(error, TxError::Failed(Error::Family { .. })), "{error}");
    assert!(error.to_string().contains("[::1]:7400"), "{error}");
}

#[test]
fn batches_keep_order_and_content() {
    let (mut a, mut b) = (open("127.0.0.1:0"), open("127.0.0.1:0"));
    let to_b = peer(&b);
    for round in 0..3u32 {
        // More than a batch: the backend flushes by itself when its buffers run out.
        let count = BATCH as u32 * 2 + 5;
        for number in 0..count {
            let payload = vec![number as u8; 8 + (number * 11 % 1400) as usize];
            send(&mut a, &to_b, &payload).unwrap();
        }
        a.flush().unwrap();
        for (number, (_, payload)) in (0..count).zip(gather(&mut b, count as usize)) {
            let expected = vec![number as u8; 8 + (number * 11 % 1400) as usize];
            assert_eq!(payload, expected, "round {round}, packet {number}");
        }
    }
    let (sent, got) = (a.counters(), b.counters());
    assert_eq!((sent.tx_packets, sent.tx_bytes), (got.rx_packets, got.rx_bytes));
    assert!(sent.kicks < sent.tx_packets / 16, "one system call carries many: {sent:?}");
    assert_accounted(&a);
}

#[test]
fn the_budget_bounds_a_receive() {
    let (mut a, mut b) = (open("127.0.0.1:0"), open("127.0.0.1:0"));
    let to_b = peer(&b);
    for _ in 0..10 {
        send(&mut a, &to_b, b"x").unwrap();
    }
    a.flush().unwrap();
    let mut seen = 0;
    assert_eq!(b.receive(3, &mut |_| seen += 1).unwrap(), 3);
    assert_eq!(seen, 3);
    assert_eq!(gather(&mut b, 7).len(), 7);
    assert_eq!(b.receive(64, &mut |_| {}).unwrap(), 0);
}

#[test]
fn oversize_is_refused_when_sent_and_dropped_when_received() {
    let mut a = open("127.0.0.1:0");
    let listen = "127.0.0.1:0".parse().unwrap();
    let mut small = Udp::open(Config { max_payload: 100, ..Config::new(listen) }).unwrap();
    let too_long = vec![7; a.max_payload() + 1];
    let to_small = peer(&small);
    let error = send(&mut a, &to_small, &too_long).unwrap_err();
    assert!(matches!(error, TxError::Failed(Error::Oversize { len: 1473, limit: 1472 })), "{error}");
    for len in [100, 101, 99] {
        send(&mut a, &to_small, &vec![1; len]).unwrap();
    }
    a.flush().unwrap();
    let lengths: Vec<_> = gather(&mut small, 2).iter().map(|(_, payload)| payload.len()).collect();
    assert_eq!(lengths, [100, 99]);
    assert_eq!(small.counters().rx_dropped, 1);
}

#[test]
fn one_bad_destination_does_not_hold_up_the_others() {
    let (mut a, mut b) = (open("127.0.0.1:0"), open("127.0.0.1:0"));
    let to_b = peer(&b);
    // Bound to loopback, so the kernel refuses to send abroad.
    let abroad = "192.0.2.1:7400".parse::<SocketAddr>().unwrap().into();
    for to in [to_b, abroad, to_b] {
        send(&mut a, &to, b"x").unwrap();
    }
    a.flush().unwrap();
    assert_eq!(gather(&mut b, 2).len(), 2);
    assert_eq!(a.counters().tx_failed, 1);
    assert_accounted(&a);
}

#[test]
fn a_taken_address_is_named() {
    let a = open("127.0.0.1:0");
    let error = Udp::bind(a.local_addr()).err().unwrap().to_string();
    assert!(error.contains(&a.local_addr().to_string()), "{error}");
}
