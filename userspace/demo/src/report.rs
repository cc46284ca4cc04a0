//! What `file-client` tells the demo, as one line of JSON on its standard output.

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What became of one user's calls.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// The user.
    pub user: String,
    /// Calls made: the file's lines.
    pub calls: u64,
    /// Calls answered with the digest that was computed here too.
    pub allowed: u64,
    /// Calls answered with another digest.
    pub mismatched: u64,
    /// Calls that ended `PERMISSION_DENIED`, by where that was decided.
    pub rejected: BTreeMap<String, u64>,
    /// Calls that ended otherwise, by how.
    pub failed: BTreeMap<String, u64>,
    /// The median call's duration, in µs.
    pub p50_us: f64,
    /// The duration that 99 of 100 calls do not exceed, in µs.
    pub p99_us: f64,
}

impl Report {
    /// Calls that ended `PERMISSION_DENIED`.
    pub fn rejected(&self) -> u64 {
        self.rejected.values().sum()
    }

    /// Calls that ended in a way nobody wanted.
    pub fn failed(&self) -> u64 {
        self.failed.values().sum::<u64>() + self.mismatched
    }

    /// Reads what the client printed.
    ///
    /// # Errors
    /// When that is something else.
    pub fn parse(text: &str) -> Result<Report> {
        serde_json::from_str(text.trim())
            .with_context(|| format!("file-client printed no report but {text:?}"))
    }
}
