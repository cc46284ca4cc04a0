//! Tests of policies: calls written in a small file, and what must become of them, judged by the engine's evaluator and by
//! the programs in the kernel on a clock of their own. The format is described in `policies/README.md`.
//!
//! Not here: reading files, loading programs, showing reports.

mod block;
mod calls;
mod file;
mod kernel;
mod run;

pub use file::TestFile;
pub use kernel::{Kernel, KeyValue, Ran};
pub use run::{CaseResult, Failure, Report, Where, run};
