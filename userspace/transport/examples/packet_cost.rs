//! What the transport itself costs per packet: two of them joined in memory, no network, no engine.
//!
//! `cargo run --release -p tollfree-transport --example packet_cost` prints ns of one core, best of several rounds.
//! Instructions, which other load does not change: `valgrind --tool=callgrind` on the binary with `calls=2000`; subtract a
//! run with `calls=1000`. `message=BYTES` measures calls with bodies that long instead of 64 bytes.

use std::time::Instant;
use tollfree_transport::{Body, Config, Event, IncomingCall, NewCall, Reply, Transport};
use tollfree_wire::Code;
use tollfree_wire::frame::{Address, Peer};
use zerocopy::IntoBytes;

fn peer(number: u32) -> Peer {
    Peer { address: Address::v4(number), port: 7400 }
}

/// A client and a server.
struct Pair {
    ends: [Transport; 2],
    /// Packets on their way, in buffers that are used again.
    wire: Vec<(Vec<u8>, usize)>,
    arrived: Vec<IncomingCall>,
    now: u64,
    packets: u64,
    ended: u64,
}

impl Pair {
    fn new() -> Pair {
        let transport = |secret| Transport::new(Config { secret: [secret; 32], ..Config::default() });
        Pair {
            ends: [transport(1), transport(2)],
            wire: Vec::new(),
            arrived: Vec::new(),
            now: 1_000_000_000,
            packets: 0,
            ended: 0,
        }
    }

    /// Makes calls one after another, each with a body of so many bytes and an answer of 64.
    fn calls(&mut self, count: u64, body_len: u32) {
        let end = self.ended + count;
        while self.ended < end {
            let deadline_ns = self.now + 60_000_000_000;
            let call = NewCall {
                method: 9,
                layout: 2,
                flat: &[7; 21],
                metadata: false,
                body_len,
                deadline_ns,
                token: 5,
            };
            self.ends[0].call(self.now, peer(2), call);
            let before = self.ended;
            while self.ended == before {
                self.now += 10_000;
                self.carry(0);
                self.carry(1);
            }
        }
    }

    /// Carries what one end has to send to the other.
    fn carry(&mut self, from: usize) {
        let Pair { ends, wire, arrived, now, packets, ended } = self;
        for _ in ends[from].session_changes() {}
        let mut count = 0;
        ends[from].transmit(*now, &mut |packet| {
            if count == wire.len() {
                wire.push((vec![0x55; 2048], 0));
            }
            let (bytes, length) = &mut wire[count];
            count += 1;
            *length = packet.payload_len();
            let header = packet.header.as_bytes();
            let flat = header.len() + packet.flat.len();
            bytes[..header.len()].copy_from_slice(header);
            bytes[header.len()..flat].copy_from_slice(packet.flat);
            if let Body::Inline(body) = packet.body {
                bytes[flat..*length].copy_from_slice(body);
            }
            Ok(())
        });
        *packets += count as u64;
        for (bytes, length) in &wire[..count] {
            let outcome =
                ends[1 - from].receive(*now, peer(from as u32 + 1), &bytes[..*length], &mut |event| {
                    match event {
                        Event::Request(request) => arrived.push(request.call),
                        Event::Response { status, .. } => {
                            assert_eq!(status, Code::Ok);
                            *ended += 1;
                        }
                        _ => {}
                    }
                });
            assert_eq!(outcome, Ok(()));
        }
        for call in arrived.drain(..) {
            let copy_body = &mut |out: &mut [u8]| out.fill(0x66);
            let (status, by_engine, body_len) = (Code::Ok, false, 64);
            let reply = Reply {
                status,
                by_engine,
                layout: 3,
                flat: &[1; 13],
                metadata: false,
                body_len,
                token: 1,
                copy_body,
            };
            ends[1].respond(*now, call, reply);
        }
        if ends[from].timeout().is_some_and(|at| at <= *now) {
            ends[from].handle_timeouts(*now, &mut |_| {});
        }
    }
}

fn main() {
    let setting = |name: &str, default: u64| {
        let given = std::env::args().find_map(|text| Some(text.strip_prefix(name)?.to_owned()));
        given.map_or(default, |text| text.parse().expect("a number"))
    };
    let (calls, body_len) = (setting("calls=", 0), setting("message=", 64) as u32);
    let mut pair = Pair::new();
    if calls > 0 {
        return pair.calls(calls, body_len);
    }
    let (mut per_call, mut per_packet, mut packets_per_call) = (f64::MAX, f64::MAX, 0.0);
    let count = (50_000_000 / (u64::from(body_len) + 1_000)).max(20);
    for _ in 0..12 {
        let (packets, begun) = (pair.packets, Instant::now());
        pair.calls(count, body_len);
        let ns = begun.elapsed().as_nanos() as f64;
        let packets = (pair.packets - packets) as f64;
        per_call = per_call.min(ns / count as f64);
        per_packet = per_packet.min(ns / packets);
        packets_per_call = packets / count as f64;
    }
    println!(
        "{body_len} B: {per_call:.0} ns a call, both ends; {packets_per_call:.1} packets a call; {per_packet:.0} ns a packet, \
         sent and received"
    );
}
