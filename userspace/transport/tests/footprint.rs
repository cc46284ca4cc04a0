//! What a session, a call and a packet cost beyond the application's own bytes. `--nocapture` shows the figures; the
//! bounds are what `lib.rs` states.

mod counting;

use counting::memory;
use tollfree_transport::{Config, Event, IncomingCall, NewCall, Reply, Transport};
use tollfree_wire::frame::{Address, Peer};
use tollfree_wire::header::{HEADER_LEN, Kind};
use tollfree_wire::spec::MethodSpec;
use tollfree_wire::{Code, session::SESSION_SLOTS};

const RELIABLE: u32 = 1;
const UNRELIABLE: u32 = 2;
const ORDERED: u32 = 3;
const CHECKED: u32 = 4;
const NOW: u64 = 1_000_000_000;
const BODY: usize = 64;
/// Calls that are open at once.
const OPEN: usize = 200;

fn held() -> i64 {
    memory().1
}

fn peer(number: u32) -> Peer {
    Peer { address: Address::v4(number), port: 7400 }
}

fn transport(secret: u8, sessions: usize) -> Transport {
    let config = Config { secret: [secret; 32], server_sessions: sessions, ..Config::default() };
    let mut transport = Transport::new(config);
    let reliable = MethodSpec::default();
    let specs = [
        (UNRELIABLE, MethodSpec::UNRELIABLE),
        (ORDERED, MethodSpec { ordered: true, ..reliable }),
        (CHECKED, MethodSpec { checksum: true, ..reliable }),
    ];
    transport.set_specs(NOW, &specs);
    transport
}

/// A client and a server, and what each of them holds.
struct Pair {
    client: Transport,
    server: Transport,
    held: [i64; 2],
    wire: Vec<(bool, [u8; 2048], usize)>,
    arrived: Vec<IncomingCall>,
    ended: usize,
    /// Bytes of the last request and the last response that are neither flat block nor body.
    overhead: [usize; 2],
}

impl Pair {
    fn new() -> Pair {
        Pair {
            client: transport(1, 1),
            server: transport(2, 1),
            held: [0; 2],
            wire: Vec::with_capacity(8 * OPEN),
            arrived: Vec::with_capacity(OPEN),
            ended: 0,
            overhead: [0; 2],
        }
    }

    fn call(&mut self, method: u32) {
        let before = held();
        let call = NewCall {
            method,
            layout: 1,
            flat: &[7; 24],
            metadata: false,
            body_len: BODY as u32,
            deadline_ns: u64::MAX,
            token: 1,
        };
        self.client.call(NOW, peer(2), call);
        self.held[0] += held() - before;
    }

    /// Exchanges packets until there are no more.
    fn settle(&mut self) {
        for _ in 0..6 {
            for from in [true, false] {
                let Pair { client, server, held: sums, wire, arrived, ended, overhead } = self;
                let (sender, at) = if from { (&mut *client, 0) } else { (&mut *server, 1) };
                let before = held();
                for _ in sender.session_changes() {}
                sender.transmit(NOW, &mut |packet| {
                    let mut bytes = [0; 2048];
                    let length = packet.payload_len();
                    packet.write(&mut bytes[..length], |_, _, body| body.fill(1));
                    if [Kind::Request as u8, Kind::Response as u8].contains(&packet.header.kind) {
                        overhead[at] = length - packet.flat.len() - BODY;
                    }
                    wire.push((from, bytes, length));
                    Ok(())
                });
                sums[at] += held() - before;
                for (from, bytes, length) in wire.drain(..) {
                    let (receiver, at, sender) =
                        if from { (&mut *server, 1, peer(1)) } else { (&mut *client, 0, peer(2)) };
                    let before = held();
                    let outcome = receiver.receive(NOW, sender, &bytes[..length], &mut |event| match event {
                        Event::Request(request) => arrived.push(request.call),
                        Event::Response { status, .. } => {
                            assert_eq!(status, Code::Ok);
                            *ended += 1;
                        }
                        Event::SessionUp { .. } => {}
                        other => panic!("unexpected: {other:?}"),
                    });
                    assert_eq!(outcome, Ok(()));
                    sums[at] += held() - before;
                }
            }
        }
    }

    fn answer(&mut self) {
        let before = held();
        for call in self.arrived.drain(..) {
            let copy_body = &mut |out: &mut [u8]| out.fill(2);
            let body_len = BODY as u32;
            let reply = Reply {
                status: Code::Ok,
                by_engine: false,
                layout: 0,
                flat: &[],
                metadata: false,
                body_len,
                token: 1,
                copy_body,
            };
            assert!(self.server.respond(NOW, call, reply));
        }
        self.held[1] += held() - before;
    }
}

/// Bytes per call at the client while the call is open, and at the server while it runs and once it is answered.
fn per_call(method: u32) -> ([i64; 3], [usize; 2]) {
    let mut pair = Pair::new();
    // The session, and memory for one call.
    pair.call(method);
    pair.settle();
    pair.answer();
    pair.settle();
    let [client, server] = pair.held;
    for _ in 0..OPEN {
        pair.call(method);
        pair.settle();
    }
    let open = [pair.held[0] - client, pair.held[1] - server];
    assert_eq!(pair.arrived.len(), OPEN);
    // One by one, as calls are answered: what the answers leave behind is what counts.
    for call in std::mem::take(&mut pair.arrived) {
        pair.arrived.push(call);
        pair.answer();
        pair.settle();
    }
    assert_eq!(pair.ended, OPEN + 1);
    let calls = OPEN as i64;
    ([open[0] / calls, open[1] / calls, (pair.held[1] - server) / calls], pair.overhead)
}

#[test]
fn an_unreliable_call_has_no_bytes_and_no_state_but_its_own() {
    let ways = [RELIABLE, UNRELIABLE, ORDERED, CHECKED];
    let [reliable, unreliable, ordered, checked] = ways.map(per_call);
    println!(
        "bytes per call: open at the client, running at the server, answered there; request, response overhead"
    );
    for (name, figures) in
        [("reliable", reliable), ("unreliable", unreliable), ("ordered", ordered), ("checksum", checked)]
    {
        println!("  {name:>10}: {figures:?}");
    }
    assert_eq!(unreliable.1, [HEADER_LEN; 2], "the base header and nothing else");
    assert_eq!(reliable.1, [HEADER_LEN; 2], "a reliable call of one packet needs no more");
    assert_eq!(ordered.1, [HEADER_LEN + 8, HEADER_LEN]);
    assert_eq!(checked.1, [HEADER_LEN + 4; 2]);
    let ([client, running, answered], [more_client, more_running, more_answered]) =
        (unreliable.0, reliable.0);
    // What it takes to send again is the flat block, a window and timers at the client, the reply at the server.
    assert!(client + 192 <= more_client, "{client} and {more_client}");
    assert!(answered + 100 <= more_answered, "{answered} and {more_answered}");
    assert!(running == more_running && answered == running, "an answer leaves nothing behind");
    assert!(client <= 448 && running <= 256, "{client}, {running}");
    assert!(more_client <= 1024 && more_answered <= 1024, "{more_client}, {more_answered}");
}

#[test]
fn thousands_of_sessions_hold_what_is_stated_and_no_more() {
    const SESSIONS: usize = SESSION_SLOTS as usize - 1;
    let mut server = transport(9, SESSIONS);
    let empty = held();
    let mut served = 0;
    for number in 0..SESSIONS as u32 {
        let mut client = transport(3, 1);
        let call = NewCall {
            method: RELIABLE,
            layout: 0,
            flat: &[],
            metadata: false,
            body_len: 0,
            deadline_ns: u64::MAX,
            token: 1,
        };
        client.call(NOW, peer(0), call);
        for _ in 0..4 {
            carry(&mut client, &mut server, peer(number + 1), &mut |_| {});
            carry(&mut server, &mut client, peer(0), &mut |_| served += 1);
        }
    }
    assert_eq!(server.held().sessions, SESSIONS);
    assert!(served >= SESSIONS, "each of them has a call running");
    let each = (held() - empty) / SESSIONS as i64;
    println!("{SESSIONS} sessions with a call each hold {each} bytes each at their server");
    assert!(each <= 2048, "{each} bytes per session");

    let before = held();
    let mut late = transport(4, 1);
    let call = NewCall {
        method: RELIABLE,
        layout: 0,
        flat: &[],
        metadata: false,
        body_len: 0,
        deadline_ns: u64::MAX,
        token: 1,
    };
    late.call(NOW, peer(0), call);
    for _ in 0..4 {
        carry(&mut late, &mut server, peer(9_999), &mut |_| {});
        carry(&mut server, &mut late, peer(0), &mut |_| {});
    }
    drop(late);
    assert_eq!(server.held().sessions, SESSIONS, "there is no room for one more");
    assert!(held() <= before + 4096);
}

/// Hands everything that one end has to send to the other.
fn carry(from: &mut Transport, to: &mut Transport, sender: Peer, event: &mut dyn FnMut(u32)) {
    let mut packets = Vec::new();
    for _ in from.session_changes() {}
    from.transmit(NOW, &mut |packet| {
        let mut bytes = vec![0; packet.payload_len()];
        packet.write(&mut bytes, |_, _, body| body.fill(1));
        packets.push(bytes);
        Ok(())
    });
    for bytes in packets {
        let _ = to.receive(NOW, sender, &bytes, &mut |_| event(0));
    }
}
