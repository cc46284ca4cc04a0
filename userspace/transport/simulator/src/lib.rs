//! A world of hosts with transports and a bad network between them, in virtual time, decided by a seed alone.
//!
//! The transport's tests and `cargo xtask sim` live in it. Everything here goes through the transport's public surface, as an
//! engine does; nothing of it is part of any program that serves calls.
//!
//! In any world, at any time: every call ends once, with the right bytes or a status; no handler runs twice; what is asked to be
//! sent is well-formed and fits; a body is asked for only while its token is in use. In the end, when the network has healed,
//! every call succeeds again, and after a quiet time nothing is held.
//!
//! [`World`] is for tests that say what happens; [`scenario`] lets a seed decide; [`hostile`] puts one transport against a peer
//! that has a session and sends what a fuzzer likes.
#![forbid(unsafe_code)]

pub mod clock;
pub mod driver;
pub mod forge;
pub mod host;
pub mod hostile;
pub mod network;
pub mod random;
pub mod run;
pub mod scenario;
pub mod trace;
pub mod world;

pub use network::Network;
pub use random::Random;
pub use run::{Failure, Summary};
pub use scenario::{Scenario, Settings};
pub use world::{MS, World, pattern};
