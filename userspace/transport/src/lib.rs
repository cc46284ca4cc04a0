//! Tollfree's transport: sessions and calls over packets that get lost, repeated, reordered and forged.
//!
//! Sans-I/O: [`Transport`] takes packets and the time, and yields packets, events and the time of its next timer. No
//! sockets, no clock, no threads, and in the steady state of calls that fit one packet each way no allocation.
//!
//! What it promises: every call ends once, with the peer's answer or a status; no request is delivered twice; memory
//! that a peer can make it hold is bounded. Not here: bodies of requests (they stay where [`Body::Source`] finds
//! them), policies, layouts.
//!
//! The way of a call that is one packet each way, which is all that most calls see, is in `fast`: begin there. Around it,
//! [`Transport::call`] gives a call its slot (`client/link`), and [`Transport::respond`] keeps the answer (`server/reply`). What
//! is in `client` and `server` besides is for when something goes wrong or a message is long.
//!
//! How a method is carried is composed from modules: see [`tollfree_wire::spec::MethodSpec`] and
//! [`Transport::set_specs`]; both ends agree on it in the handshake. What that costs in bytes (`tests/footprint.rs`
//! measures it; server figures include the slot that remembers that the call has run):
//!
//! | | request | response | open at the client | running at the server | answered |
//! |---|---:|---:|---:|---:|---:|
//! | `unreliable` | 56 | 56 | 240 | 140 | 140 |
//! | `reliable` | 56 | 56 | 515 | 140 | 300 and the reply, until its client can no longer ask for it |
//! | `ordered` | + 8 | | | + the request, while earlier ones are missing | |
//! | `checksum` | + 4 a packet | + 4 a packet | | | |
//!
//! A session with one call takes 1.4 kB at its server; there are 4095 at most.
//!
//! At most once, across a restart too, rests on one assumption: a packet is not under way for longer than its server
//! takes to restart.
#![forbid(unsafe_code)]

mod client;
mod config;
mod congestion;
mod credit;
mod event;
mod extension;
mod fast;
mod flow;
mod handshake;
mod outbox;
mod pacing;
mod path;
mod reassembly;
mod rtt;
mod sack;
mod scoreboard;
mod server;
mod session;
mod specs;
mod timers;
mod transport;
mod window;

pub use config::Config;
pub use event::{
    Blocked, Body, CallHandle, Counters, Event, Held, IncomingCall, IncomingRequest, NewCall, Reply, Route,
    SessionChange, SessionInfo, Transmit, Verdict,
};
pub use transport::Transport;
