//! The engine's back end: a policy as a small tree that is walked once per call, in safe Rust and without allocation
//! (but for a table's new entries).
//!
//! It judges exactly as the eBPF back end does; a differential test holds the two together.

mod call;
mod outcome;
mod pause;
mod program;
mod state;

pub use call::{CallView, PeerView, ResponseView, Start, Tracked};
pub use outcome::{Answered, Eject, Outcome, Route, Verdict};
pub use pause::Paused;
pub use program::Program;
pub(crate) use program::SLOTS_MAX;
pub use state::{Change, LogLine, State};
