//! Where judging stands while an external authoriser is asked.

/// A call half judged: what [`crate::Program::resume`] goes on with.
#[derive(Clone, Debug)]
pub struct Paused {
    pub(super) element: usize,
}
