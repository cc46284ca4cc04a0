//! Tests of policies: calls written in a small file, and what must become of them, judged by the engine's evaluator on a
//! clock of its own. The format is described in `policies/README.md`.
//!
//! Not here: reading files, showing reports.

mod block;
mod calls;
mod file;
mod run;

pub use file::TestFile;
pub use run::{CaseResult, Failure, Report, run};
