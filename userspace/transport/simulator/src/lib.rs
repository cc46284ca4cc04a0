//! A world of hosts with transports and a bad network between them, in virtual time, decided by a seed alone.
//!
//! The transport's tests and `cargo xtask sim` live in it. Everything here goes through the transport's public surface, as an
//! engine does; nothing of it is part of any program that serves calls.
#![forbid(unsafe_code)]

pub mod random;
pub mod world;

pub use random::Random;
pub use world::{MS, Network, World, pattern};
