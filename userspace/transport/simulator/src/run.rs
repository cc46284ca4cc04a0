//! Many seeds on many threads, and what came of them.

use crate::scenario::{Scenario, Settings};
use crate::trace::Trace;
use std::any::Any;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use tollfree_transport::Counters;

/// What the hosts of some worlds have counted, of what tells how far a simulation got.
#[derive(Clone, Copy, Debug, Default)]
#[expect(missing_docs, reason = "the names say it")]
pub struct Counted {
    pub calls: u64,
    pub packets: u64,
    pub packets_resent: u64,
    pub replies_repeated: u64,
    pub requests_expired: u64,
    pub resets_believed: u64,
    pub calls_dead: u64,
}

impl Counted {
    fn add(&mut self, other: &Counted) {
        let Counted {
            calls,
            packets,
            packets_resent,
            replies_repeated,
            requests_expired,
            resets_believed,
            calls_dead,
        } = other;
        self.calls += calls;
        self.packets += packets;
        self.packets_resent += packets_resent;
        self.replies_repeated += replies_repeated;
        self.requests_expired += requests_expired;
        self.resets_believed += resets_believed;
        self.calls_dead += calls_dead;
    }
}

impl From<Counters> for Counted {
    fn from(counters: Counters) -> Counted {
        Counted {
            calls: counters.calls_made,
            packets: counters.packets_sent,
            packets_resent: counters.packets_resent,
            replies_repeated: counters.replies_repeated,
            requests_expired: counters.requests_expired,
            resets_believed: counters.resets_believed,
            calls_dead: counters.calls_dead,
        }
    }
}

/// What worlds have come to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Worlds lived through to the end.
    pub seeds: u64,
    /// What their hosts have counted.
    pub counted: Counted,
    /// The failure with the lowest seed.
    pub failure: Option<Failure>,
}

/// A world in which something did not hold.
#[derive(Clone, Debug)]
pub struct Failure {
    /// Its seed.
    pub seed: u64,
    /// What did not hold.
    pub what: String,
    /// What happened last, where that was asked for.
    pub trace: Vec<String>,
}

/// Lives through the world of one seed; `keep` lines of what happened last are in the failure.
///
/// # Errors
/// What did not hold.
pub fn one(seed: u64, settings: &Settings, keep: usize) -> Result<Counted, Failure> {
    let mut scenario = Scenario::new(seed, settings);
    scenario.world.trace = (keep > 0).then(|| Trace::new(keep));
    let outcome = catch_unwind(AssertUnwindSafe(|| scenario.run()));
    let world = &scenario.world;
    match outcome {
        Ok(()) => {
            let mut counted = Counted::default();
            for counters in world.counters() {
                counted.add(&counters.into());
            }
            Ok(counted)
        }
        Err(panic) => {
            let trace = world.trace.iter().flat_map(Trace::lines).map(str::to_owned).collect();
            Err(Failure { seed, what: text(panic), trace })
        }
    }
}

/// Lives through the worlds of many seeds, on `threads` threads, until one fails. `progress` is told how many are done.
pub fn many(
    seeds: Range<u64>,
    settings: &Settings,
    threads: usize,
    progress: &(dyn Fn(u64) + Sync),
) -> Summary {
    let (next, failed, done) = (AtomicU64::new(seeds.start), AtomicU64::new(u64::MAX), AtomicU64::new(0));
    let summary = Mutex::new(Summary::default());
    std::thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(|| {
                loop {
                    // In order, so that the lowest seed that fails is found on every machine.
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds.end || seed > failed.load(Ordering::Relaxed) {
                        return;
                    }
                    let outcome = one(seed, settings, 0);
                    progress(done.fetch_add(1, Ordering::Relaxed) + 1);
                    let Ok(mut summary) = summary.lock() else { return };
                    summary.seeds += 1;
                    match outcome {
                        Ok(counted) => summary.counted.add(&counted),
                        Err(failure) => {
                            failed.fetch_min(seed, Ordering::Relaxed);
                            if summary.failure.as_ref().is_none_or(|first| seed < first.seed) {
                                summary.failure = Some(failure);
                            }
                        }
                    }
                }
            });
        }
    });
    summary.into_inner().unwrap_or_default()
}

fn text(panic: Box<dyn Any + Send>) -> String {
    match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => panic.downcast::<&str>().map_or_else(|_| "a panic".to_owned(), |text| text.to_string()),
    }
}
