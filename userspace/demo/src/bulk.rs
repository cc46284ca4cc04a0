//! What the two arms of a goodput measurement share: how much is sent, and what came of it.

use anyhow::{Context, Result};
use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// What to send.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Load {
    /// Bytes in a message
    #[arg(long, default_value_t = 65_536)]
    pub bytes: usize,
    /// Messages under way at once
    #[arg(long, default_value_t = 8)]
    pub outstanding: usize,
    /// For how long, in seconds
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
}

impl Load {
    /// For how long.
    pub fn time(&self) -> Duration {
        Duration::from_secs_f64(self.seconds.clamp(0.01, 3600.0))
    }
}

/// What came of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Messages sent and acknowledged by the application at the other end.
    pub messages: u64,
    /// Messages that ended otherwise.
    pub failed: u64,
    /// Their bytes over the time, in Mbit/s.
    pub mbit_s: f64,
    /// From before a message is written until its acknowledgement was read: the median, in µs.
    pub p50_us: f64,
    /// What 99 of 100 messages did not exceed, in µs.
    pub p99_us: f64,
}

impl Outcome {
    /// Sums up.
    pub fn new(load: &Load, durations: &Histogram<u64>, failed: u64, took: Duration) -> Outcome {
        let messages = durations.len();
        let micros = |quantile| durations.value_at_quantile(quantile) as f64 / 1000.0;
        Outcome {
            messages,
            failed,
            mbit_s: messages as f64 * load.bytes as f64 * 8.0 / took.as_secs_f64() / 1e6,
            p50_us: if messages > 0 { micros(0.5) } else { 0.0 },
            p99_us: if messages > 0 { micros(0.99) } else { 0.0 },
        }
    }

    /// Reads what a sender printed.
    ///
    /// # Errors
    /// When that is something else.
    pub fn parse(text: &str) -> Result<Outcome> {
        serde_json::from_str(text.trim())
            .with_context(|| format!("the sender printed no outcome but {text:?}"))
    }
}

/// Durations in ns, up to an hour.
pub fn durations() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, 3_600_000_000_000, 3)?)
}
