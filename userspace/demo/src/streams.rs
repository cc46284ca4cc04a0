//! What came of a turn of streaming.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

/// What came of a turn.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Messages that arrived; of a conversation, those that came back.
    pub messages: u64,
    /// The same, a second.
    pub per_second: f64,
    /// From before a message is written until it is back: the median, in µs; where each waits for the last.
    pub p50_us: Option<f64>,
    /// What 99 of 100 did not exceed, in µs.
    pub p99_us: Option<f64>,
}

impl Outcome {
    /// Reads what a client printed.
    ///
    /// # Errors
    /// When that is something else.
    pub fn parse(text: &str) -> Result<Outcome> {
        serde_json::from_str(text.trim())
            .with_context(|| format!("the client printed no outcome but {text:?}"))
    }
}
