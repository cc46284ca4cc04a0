//! Where judging stands while an external authoriser is asked.

use super::code::Code;
use super::outcome::Outcome;
use super::registers::{Register, Registers};
use std::sync::Arc;

/// A call half judged: what [`crate::Program::resume`] goes on with.
#[derive(Clone, Debug)]
pub struct Paused {
    /// The program that it was judged by so far.
    pub(super) code: Arc<Code>,
    /// The element, by its place in the order in which the message meets them.
    pub(super) at: usize,
    /// The step to go on with.
    pub(super) next: u32,
    /// Where the authoriser's word goes.
    pub(super) into: Register,
    pub(super) registers: Registers,
    /// What was noted so far.
    pub(super) outcome: Outcome,
}
