//! What policies have to say to people: a bounded number of lines, so that calls cannot fill a disk or hold up the loop.

use std::fmt::Arguments;
use tracing::{info, warn};

/// Lines that are written per second; further ones are counted.
const LINES_PER_SECOND: u32 = 100;
const SECOND_NS: u64 = 1_000_000_000;

/// Writes lines of policies to the log, up to a rate.
#[derive(Debug, Default)]
pub struct PolicyLog {
    since: u64,
    lines: u32,
    lost: u64,
}

impl PolicyLog {
    /// One line.
    pub fn line(&mut self, now: u64, line: Arguments<'_>) {
        self.tell(now);
        if self.lines >= LINES_PER_SECOND {
            self.lost += 1;
            return;
        }
        self.lines += 1;
        info!(target: "tollfree::policy", "{line}");
    }

    /// So many lines were lost already.
    pub fn lost(&mut self, lines: u64) {
        self.lost = self.lost.saturating_add(lines);
    }

    /// Tells of lines that were lost, once a second.
    pub fn tell(&mut self, now: u64) {
        if now.saturating_sub(self.since) < SECOND_NS {
            return;
        }
        (self.since, self.lines) = (now, 0);
        if self.lost > 0 {
            warn!(target: "tollfree::policy", "{} more lines of policies were not written", self.lost);
            self.lost = 0;
        }
    }
}
