//! What becomes of a call.

use super::pause::Paused;
use std::sync::Arc;
use tollfree_wire::{Code, Reason};

/// What becomes of a call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Verdict {
    /// Every element sent it on.
    #[default]
    Send,
    /// Forget it without an answer.
    Drop(Reason),
    /// Answer with a status.
    Reject(Code, Reason),
    /// Answer OK with [`crate::State::answer`].
    Answer,
    /// Make the call once more: the attempts and the budget allow it.
    Retry,
    /// Ask this one of [`crate::Program::authorisers`], then go on with [`crate::Program::resume`].
    Ask(u16),
}

/// Which backend a call is to go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Route {
    /// One of [`crate::Program::selectors`].
    pub selector: usize,
    /// Which of its backends, counted from 0 and beyond the last from 0 again; `None`: the next in turn.
    pub index: Option<u64>,
}

/// A backend that is to be left alone for a while.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Eject {
    /// For how long.
    pub duration_ns: u64,
    /// Not where more than so many of a million of its group would be out.
    pub max_ppm: u64,
}

/// A verdict, and what is to be done besides.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// The verdict.
    pub verdict: Verdict,
    /// What `reject(CODE, 'why')` says.
    pub why: Option<Arc<str>>,
    /// The element that ended the call, counted along the whole chain; `None` where every element sent it on.
    pub element: Option<usize>,
    /// Hold it for so long before it goes on.
    pub delay_ns: u64,
    /// It has at most so long left.
    pub timeout_ns: Option<u64>,
    /// Where to send it.
    pub route: Option<Route>,
    /// Where to send copies whose answers nobody waits for: [`Outcome::mirrors`].
    pub mirror: u64,
    /// Leave the backend that answered alone.
    pub eject: Option<Eject>,
    /// How often an element in a dry run would have refused the call.
    pub audited: u32,
    /// Where judging stands while [`Verdict::Ask`] is under way.
    pub paused: Option<Box<Paused>>,
}

impl Outcome {
    /// The selectors in [`Outcome::mirror`].
    pub fn mirrors(&self) -> impl Iterator<Item = usize> + use<> {
        let mirror = self.mirror;
        (0..64).filter(move |bit| mirror >> bit & 1 != 0)
    }
}

impl Verdict {
    /// The verdict of a method or layout that the policy was not compiled for.
    pub(super) const UNKNOWN: Verdict = Verdict::Reject(Code::FailedPrecondition, Reason::UnknownLayout);
}
