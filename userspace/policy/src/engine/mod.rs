//! The engine's back end: a policy as a small tree that is walked once per call, in safe Rust and without allocation
//! (but for a table's new entries).
//!
//! It judges exactly as the eBPF back end does; a differential test holds the two together.

mod program;
mod state;

pub(crate) use program::SLOTS_MAX;
pub use program::{CallView, Program, Tracked, Verdict};
pub use state::State;
