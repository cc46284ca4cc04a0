//! The engine's back end: a policy as flat lists of steps that are walked once per call, in safe Rust and without
//! allocation (but for a table's new entries, and for calls that wait for an authoriser).
//!
//! It judges exactly as the eBPF back end does; a differential test holds the two together.

mod answer;
mod call;
mod changes;
mod code;
mod compile;
mod crypt;
mod evaluate;
mod log;
mod outcome;
mod pause;
mod program;
mod random;
mod registers;
mod retry;
mod shape;
mod state;
mod steps;
mod tables;
mod view;

pub use answer::Answered;
pub use call::{CallView, PeerView, ResponseView, Start, Tracked};
pub use changes::Change;
pub use log::LogLine;
pub use outcome::{Eject, Outcome, Route, Verdict};
pub use pause::Paused;
pub use program::Program;
pub(crate) use program::SLOTS_MAX;
pub use state::State;
