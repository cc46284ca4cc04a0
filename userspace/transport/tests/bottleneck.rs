//! Senders that share one link of a certain rate and queue: how well it is used, how long its queue gets, and how fairly
//! they share it. In virtual time, without chance.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use tollfree_transport::{Config, Event, IncomingCall, NewCall, Reply, Transport};
use tollfree_wire::Code;
use tollfree_wire::frame::{Address, Peer};
use tollfree_wire::header::{HEADER_LEN, MESSAGE_MAX};
use zerocopy::IntoBytes;

const US: u64 = 1_000;
const MS: u64 = 1_000_000;
/// Ethernet, IPv4 and UDP headers, preamble and gap.
const OVERHEAD: usize = 66;

/// The link that all requests go through. Answers and acks have a free way.
#[derive(Clone, Copy)]
struct Link {
    bits_per_second: u64,
    /// Bytes that may wait.
    queue: u64,
    /// Bytes waiting from which on packets are marked; `u64::MAX`: never.
    mark: u64,
    /// One way, besides waiting, in ns.
    delay: u64,
    /// The share of packets that get lost on the way, whatever waits: in 1000.
    lost: u64,
}

/// A packet that arrives.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Arrival {
    at: u64,
    number: u64,
    from: usize,
    to: usize,
    bytes: Vec<u8>,
    marked: bool,
}

struct World {
    now: u64,
    link: Link,
    /// When the link has sent all it has now.
    free_at: u64,
    /// Senders, and the receiver as the last.
    hosts: Vec<Transport>,
    wire: BinaryHeap<Reverse<Arrival>>,
    numbers: u64,
    body_len: u32,
    /// Calls each sender keeps open, from when on.
    senders: Vec<(usize, u64)>,
    open: Vec<usize>,
    /// Bytes through the link and calls done, by sender.
    carried: Vec<u64>,
    done: Vec<u64>,
    /// How long each call took, in ns.
    took: Vec<u64>,
    dropped: u64,
    waited: (u64, u64),
    /// Until then the service has no room for requests.
    full_until: u64,
    /// What losses follow from.
    random: u64,
}

fn peer(number: usize) -> Peer {
    Peer { address: Address::v4(number as u32 + 1), port: 7400 }
}

/// The service: answers at once, where it has room.
fn serve(host: &mut Transport, now: u64, full_until: u64, calls: Vec<IncomingCall>) {
    for call in calls {
        if now < full_until {
            assert!(host.defer(now, call));
            continue;
        }
        let copy_body = &mut |_: &mut [u8]| {};
        let (status, by_engine, body_len) = (Code::Ok, false, 0);
        let reply =
            Reply { status, by_engine, layout: 0, flat: &[], metadata: false, body_len, token: 0, copy_body };
        assert!(host.respond(now, call, reply));
    }
}

impl World {
    /// Each sender keeps so many calls open, from a time on.
    fn new(link: Link, body_len: u32, senders: &[(usize, u64)]) -> World {
        let count = senders.len();
        let config = |number| Config { secret: [number as u8; 32], ..Config::default() };
        World {
            now: 1_000 * MS,
            link,
            free_at: 0,
            hosts: (0..=count).map(|number| Transport::new(config(number))).collect(),
            wire: BinaryHeap::new(),
            numbers: 0,
            body_len,
            senders: senders.to_vec(),
            open: vec![0; count],
            carried: vec![0; count],
            done: vec![0; count],
            took: Vec::new(),
            dropped: 0,
            waited: (0, 0),
            full_until: 0,
            random: 1,
        }
    }

    fn run_for(&mut self, ns: u64) {
        let end = self.now + ns;
        loop {
            self.turn();
            let starts = self.senders.iter().map(|(_, from)| 1_000 * MS + from).filter(|at| *at > self.now);
            let wire = self.wire.peek().map(|Reverse(arrival)| arrival.at);
            let timers = self.hosts.iter().filter_map(Transport::timeout);
            let next = starts.chain(wire).chain(timers).min().unwrap_or(end).max(self.now);
            if next > end {
                self.now = end;
                return;
            }
            self.now = next;
        }
    }

    fn turn(&mut self) {
        let World { now, senders, hosts, wire, open, done, took, body_len, full_until, .. } = self;
        let server = hosts.len() - 1;
        while wire.peek().is_some_and(|Reverse(arrival)| arrival.at <= *now) {
            let Some(Reverse(Arrival { from, to, bytes, marked, .. })) = wire.pop() else { break };
            let mut calls: Vec<IncomingCall> = Vec::new();
            // What the replay check drops is as good as lost.
            let _ = hosts[to].receive_marked(*now, peer(from), &bytes, marked, &mut |event| match event {
                Event::Request(request) => {
                    assert_eq!(request.body.len(), *body_len as usize);
                    calls.push(request.call);
                }
                Event::Response { token, status, verdict, .. } => {
                    assert_eq!(status, Code::Ok, "{verdict:?}");
                    took.push(*now - token);
                    done[to] += 1;
                    open[to] -= 1;
                }
                _ => {}
            });
            serve(&mut hosts[to], *now, *full_until, calls);
        }
        for (number, (calls, from)) in senders.iter().enumerate() {
            while *now >= 1_000 * MS + from && open[number] < *calls {
                let (body_len, deadline_ns) = (*body_len, u64::MAX);
                let (flat, metadata) = (&[][..], false);
                let token = *now;
                let call = NewCall { method: 1, layout: 0, flat, metadata, body_len, deadline_ns, token };
                hosts[number].call(*now, peer(server), call);
                open[number] += 1;
            }
        }
        for number in 0..self.hosts.len() {
            self.look_after(number);
        }
    }

    fn look_after(&mut self, number: usize) {
        let World {
            now,
            hosts,
            wire,
            link,
            free_at,
            numbers,
            carried,
            dropped,
            waited,
            full_until,
            random,
            ..
        } = self;
        let server = hosts.len() - 1;
        let host = &mut hosts[number];
        if host.timeout().is_some_and(|at| at <= *now) {
            let mut calls = Vec::new();
            host.handle_timeouts(*now, &mut |event| match event {
                Event::Request(request) => calls.push(request.call),
                event => assert!(!matches!(event, Event::Response { .. }), "{event:?}"),
            });
            serve(host, *now, *full_until, calls);
        }
        for _ in host.session_changes() {}
        host.transmit(*now, &mut |packet| {
            let mut bytes = packet.header.as_bytes().to_vec();
            bytes.extend_from_slice(packet.flat);
            if let tollfree_transport::Body::Inline(body) = packet.body {
                bytes.extend_from_slice(body);
            }
            bytes.resize(packet.payload_len(), 0);
            *numbers += 1;
            let mut arrival = Arrival {
                at: *now + link.delay,
                number: *numbers,
                from: number,
                to: server,
                bytes,
                marked: false,
            };
            if number == server {
                arrival.to = (0..server).find(|sender| peer(*sender) == packet.route.to).expect("a sender");
            } else {
                let wait = free_at.saturating_sub(*now);
                let waiting = wait * link.bits_per_second / 8_000_000_000;
                if waiting > link.queue {
                    *dropped += 1;
                    return Ok(());
                }
                let length = (arrival.bytes.len() + OVERHEAD) as u64;
                arrival.marked = waiting >= link.mark;
                *free_at = (*free_at).max(*now) + length * 8_000_000_000 / link.bits_per_second;
                arrival.at = *free_at + link.delay;
                carried[number] += length;
                *waited = (waited.0 + wait, waited.1 + 1);
                *random =
                    random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                if (*random >> 33) % 1000 < link.lost {
                    return Ok(());
                }
            }
            wire.push(Reverse(arrival));
            Ok(())
        });
    }

    /// Starts measuring.
    fn forget(&mut self) {
        self.carried.fill(0);
        self.done.fill(0);
        self.took.clear();
        (self.dropped, self.waited) = (0, (0, 0));
    }

    /// The share of the link that was used since, in ns spent of ns.
    fn used(&self, ns: u64) -> f64 {
        let bytes: u64 = self.carried.iter().sum();
        bytes as f64 * 8e9 / self.link.bits_per_second as f64 / ns as f64
    }

    /// The share of packets that the queue had no room for.
    fn lost(&self) -> f64 {
        self.dropped as f64 / (self.dropped + self.waited.1) as f64
    }

    /// The mean time in the queue, in µs.
    fn queue_us(&self) -> u64 {
        self.waited.0 / self.waited.1.max(1) / US
    }

    /// The smallest sender's part of the largest one's.
    fn fairness(&self) -> f64 {
        let (least, most) = (self.carried.iter().min(), self.carried.iter().max());
        *least.unwrap_or(&0) as f64 / *most.unwrap_or(&1) as f64
    }

    /// Jain's index of the senders' shares: 1 where they are equal. Of many senders, the luckiest and the unluckiest of one
    /// quarter of a second differ by chance.
    fn jain(&self) -> f64 {
        let shares = || self.carried.iter().map(|bytes| *bytes as f64);
        let squares: f64 = shares().map(|share| share * share).sum();
        shares().sum::<f64>().powi(2) / (self.carried.len() as f64 * squares)
    }

    fn report(&self, what: &str, ns: u64) {
        println!(
            "{what}: {:.1} % used, {} µs in the queue, {} dropped, shares {:?} MB, {:?} calls",
            100.0 * self.used(ns),
            self.queue_us(),
            self.dropped,
            self.carried.iter().map(|bytes| bytes / 1_000_000).collect::<Vec<_>>(),
            self.done,
        );
    }
}

/// Four Gbit/s, 50 µs there and back, a megabyte of queue.
const RACK: Link =
    Link { bits_per_second: 4_000_000_000, queue: 1 << 20, mark: u64::MAX, delay: 25 * US, lost: 0 };
/// One Gbit/s, 2 ms there and back.
const TOWN: Link =
    Link { bits_per_second: 1_000_000_000, queue: 1 << 20, mark: u64::MAX, delay: MS, lost: 0 };

#[test]
fn one_sender_uses_the_link_and_keeps_its_queue_short() {
    for (name, link, most_us) in [("rack", RACK, 300), ("town", TOWN, 800)] {
        let mut world = World::new(link, 1 << 20, &[(2, 0)]);
        world.run_for(150 * MS);
        world.forget();
        world.run_for(150 * MS);
        world.report(name, 150 * MS);
        assert!(world.used(150 * MS) > 0.85, "{name}: {}", world.used(150 * MS));
        assert!(world.queue_us() < most_us, "{name}: {} µs", world.queue_us());
    }
}

#[test]
fn two_senders_share_within_a_fifth_though_one_came_later() {
    for (name, link, settle, measure) in
        [("rack", RACK, 600 * MS, 200 * MS), ("town", TOWN, 1_500 * MS, 500 * MS)]
    {
        let mut world = World::new(link, 1 << 20, &[(2, 0), (2, 90 * MS)]);
        world.run_for(settle);
        world.forget();
        world.run_for(measure);
        world.report(name, measure);
        assert!(world.fairness() > 0.8, "{name}: {}", world.fairness());
        assert!(world.used(measure) > 0.85, "{name}: {}", world.used(measure));
    }
}

#[test]
fn messages_of_a_sender_take_turns() {
    for (name, link) in [("rack", RACK), ("town", TOWN), ("lossy", Link { lost: 10, ..RACK })] {
        let mut world = World::new(link, 1 << 20, &[(8, 0)]);
        world.run_for(300 * MS);
        world.forget();
        world.run_for(600 * MS);
        world.took.sort_unstable();
        let [half, most] = [world.took.len() / 2, world.took.len() - 1].map(|place| world.took[place] / US);
        println!("{name}: half of {} messages took {half} µs, the slowest {most}", world.took.len());
        assert!(most < 2 * half, "{name}: {most} of {half} µs");
    }
}

#[test]
fn loss_that_is_not_congestion_costs_what_is_lost_and_little_more() {
    // As much as the most that may be under way fills of the third.
    let far = Link { bits_per_second: 10_000_000_000, delay: MS, ..RACK };
    for (name, link, calls, least) in [("rack", RACK, 4, 0.9), ("town", TOWN, 8, 0.8), ("far", far, 16, 0.5)]
    {
        for lost in [1, 10, 100] {
            let mut world = World::new(Link { lost, ..link }, 1 << 20, &[(calls, 0)]);
            world.run_for(300 * MS);
            world.forget();
            world.run_for(300 * MS);
            world.report(&format!("{name}, {lost} of 1000 lost"), 300 * MS);
            assert!(world.used(300 * MS) > least, "{name}, {lost}: {}", world.used(300 * MS));
        }
    }
}

#[test]
fn marks_keep_the_queue_shorter_than_delay_does() {
    let link = Link { mark: 20_000, ..RACK };
    let mut world = World::new(link, 1 << 20, &[(2, 0), (2, 50 * MS)]);
    world.run_for(500 * MS);
    world.forget();
    world.run_for(150 * MS);
    world.report("marks", 150 * MS);
    assert!(world.fairness() > 0.8 && world.used(150 * MS) > 0.85);
    assert!(world.queue_us() < 60, "{} µs", world.queue_us());
}

#[test]
fn many_senders_into_a_shallow_queue_do_not_collapse() {
    let link = Link { queue: 100_000, ..RACK };
    let mut world = World::new(link, 256 << 10, &[(4, 0); 24]);
    world.run_for(150 * MS);
    world.forget();
    world.run_for(250 * MS);
    world.report("incast", 250 * MS);
    assert!(world.used(250 * MS) > 0.7, "{}", world.used(250 * MS));
    assert!(world.jain() > 0.9, "{}", world.jain());
}

#[test]
fn an_overflowing_queue_is_congestion_however_shallow_it_is() {
    for queue in [15_000, 30_000, 60_000] {
        for senders in [&[(4, 0)][..], &[(4, 0), (4, 20 * MS)]] {
            let mut world = World::new(Link { queue, ..RACK }, 1 << 20, senders);
            world.run_for(400 * MS);
            world.forget();
            world.run_for(600 * MS);
            world.report(&format!("{queue} bytes of queue"), 600 * MS);
            assert!(world.used(600 * MS) > 0.85, "{queue}: {}", world.used(600 * MS));
            assert!(world.lost() < 0.08, "{queue}: {}", world.lost());
            assert!(world.fairness() > 0.8, "{queue}: {}", world.fairness());
        }
    }
}

#[test]
fn the_longest_message_takes_little_more_than_the_link_needs() {
    let link = Link { bits_per_second: 10_000_000_000, queue: 4 << 20, delay: 500 * US, ..RACK };
    let mut world = World::new(link, MESSAGE_MAX, &[(1, 0)]);
    let mut took = Vec::new();
    for round in 1..=3 {
        let before = world.now;
        while world.done[0] < round {
            world.run_for(100 * US);
        }
        took.push((world.now - before) / US);
    }
    let alone = u64::from(MESSAGE_MAX) * 8 * (1472 + OVERHEAD as u64) / (1472 - HEADER_LEN as u64) / 10_000;
    println!("16 MiB over 10 Gbit/s and 1 ms: {took:?} µs; the link alone needs {alone} µs");
    assert!(took[0] < 3 * alone && took[2] < alone * 3 / 2, "{took:?}, {alone}");
}

#[test]
fn a_service_without_room_makes_its_callers_wait_and_costs_them_nothing_else() {
    for (body_len, calls) in [(64, 200), (100_000, 4), (1 << 20, 2)] {
        let mut world = World::new(RACK, body_len, &[(calls, 0), (calls, 0)]);
        world.run_for(5 * MS);
        world.full_until = world.now + 50 * MS;
        world.run_for(10 * MS); // for answers under way
        world.forget();
        world.run_for(35 * MS);
        assert_eq!(world.done, [0, 0], "{body_len} B");
        // Each waiting call asks again now and then; long ones are kept where they are.
        let carried: u64 = world.carried.iter().sum();
        println!("{body_len} B: {carried} bytes while the service had no room");
        assert!(carried < 1_000_000, "{carried}");
        world.run_for(30 * MS);
        assert!(world.done.iter().all(|done| *done >= calls as u64), "{body_len} B: {:?}", world.done);
        assert!(world.hosts[2].counters().requests_deferred > 0);
    }
}
