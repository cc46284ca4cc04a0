//! Settings of a transport.

/// Settings of a transport. Times are in ns unless their names say otherwise.
#[derive(Clone, Debug)]
pub struct Config {
    /// Bytes of base header, flat block and body that fit one packet. Sessions use the smaller of both ends'.
    pub max_payload: usize,
    /// Bytes of a packet, from the base header on, that any path carries. Longer ones, up to `max_payload`, are used where
    /// probes of that length arrive. Default 1472: what Ethernet carries behind IPv4.
    pub sure_payload: usize,
    /// UDP ports in a row that calls can leave from, at least 1. Which one follows from the peer, so that sessions are spread
    /// over the receive queues of both ends. Default 1.
    pub ports: u16,
    /// The secret both ends share; empty: sessions only prove that the peer receives what is sent to its address.
    pub psk: Vec<u8>,
    /// What cookies, nonces and session generations are made from. Random for every start of the process.
    pub secret: [u8; 32],
    /// Grows with every start of the process (seconds of wall-clock time serve well), so that peers notice a restart.
    pub epoch: u32,
    /// How long a session may be silent before the server forgets it, in ms; 0: forever. A client closes earlier.
    pub idle_ms: u32,
    /// Whether every packet has passed the XDP program, which checks session, tag and replay.
    pub verified: bool,
    /// A peer that says nothing about a call for this long is dead: the call ends `UNAVAILABLE`. Default 5 s.
    pub dead_ns: u64,
    /// The first retransmission timeout, before a round trip was measured. Default 20 ms.
    pub rto_initial_ns: u64,
    /// The shortest retransmission timeout. Default 300 µs. Where that proves hasty, as between processes that wait for
    /// cores, a session learns a longer one, up to 17 times this.
    pub rto_min_ns: u64,
    /// The longest retransmission timeout, however often it has doubled. Default 1 s.
    pub rto_max_ns: u64,
    /// Time in queues that is not taken for congestion: beyond the path's base round trip, or a quarter of that if it is
    /// longer. Default 200 µs: as much as hosts with busy cores add themselves.
    pub queue_ns: u64,
    /// Packets of long messages that one end of a session has under way at most: what a peer's receive ring takes while its
    /// process waits for a core. Default 1024, half of such a ring.
    pub most_in_flight: u32,
    /// How often a client asks after a call that the server said it works on. Default 250 ms.
    pub probe_ns: u64,
    /// Bytes of messages under reassembly, over all sessions; one peer's address gets at most half of it. Default 64 MiB.
    pub reassembly_bytes: usize,
    /// Most sessions as a server, at most [`tollfree_wire::session::SESSION_SLOTS`]. Default 3072: the rest is for the
    /// sessions this host opens itself.
    pub server_sessions: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            max_payload: 1472,
            sure_payload: 1472,
            ports: 1,
            psk: Vec::new(),
            secret: [0; 32],
            epoch: 0,
            idle_ms: 60_000,
            verified: false,
            dead_ns: 5_000_000_000,
            rto_initial_ns: 20_000_000,
            rto_min_ns: 300_000,
            rto_max_ns: 1_000_000_000,
            queue_ns: 200_000,
            most_in_flight: 1024,
            probe_ns: 250_000_000,
            reassembly_bytes: 64 << 20,
            server_sessions: 3072,
        }
    }
}
