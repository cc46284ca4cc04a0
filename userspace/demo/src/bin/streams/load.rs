//! What is streamed, and what came of it.

use clap::ValueEnum;
use futures_core::Stream;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tollfree_demo::bulk::durations;
use tollfree_demo::streams::Outcome;

/// What to stream.
#[derive(Clone, Copy, Debug, clap::Args)]
pub struct Load {
    /// Which way
    #[arg(long, value_enum)]
    pub kind: Kind,
    /// Bytes in a message's payload
    #[arg(long, default_value_t = 64)]
    pub bytes: usize,
    /// Streams at once
    #[arg(long, default_value_t = 1)]
    pub streams: usize,
    /// For how long, in seconds
    #[arg(long, default_value_t = 2.0)]
    pub seconds: f64,
}

/// Which way messages go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// From the server, as fast as the client reads
    Server,
    /// To the server, as fast as it reads
    Client,
    /// Both: each is sent back
    Bidirectional,
    /// Both, the next when the last is back
    PingPong,
}

impl Load {
    /// When it ends, from now.
    pub fn end(&self) -> Instant {
        Instant::now() + Duration::from_secs_f64(self.seconds.clamp(0.01, 3600.0))
    }
}

/// Counts messages, and how long each took.
pub struct Meter {
    started: Instant,
    messages: u64,
    durations: hdrhistogram::Histogram<u64>,
}

impl Meter {
    /// Begins now.
    pub fn start() -> anyhow::Result<Meter> {
        Ok(Meter { started: Instant::now(), messages: 0, durations: durations()? })
    }

    /// So many messages have arrived.
    pub fn count(&mut self, messages: u64) {
        self.messages += messages;
    }

    /// One is back.
    pub fn back(&mut self, took: Duration) {
        self.messages += 1;
        self.durations.saturating_record(took.as_nanos() as u64);
    }

    /// What another has counted in the same time.
    pub fn add(&mut self, other: &Meter) {
        self.messages += other.messages;
        self.durations += &other.durations;
    }

    /// Sums up.
    pub fn outcome(&self) -> Outcome {
        let micros = |quantile| self.durations.value_at_quantile(quantile) as f64 / 1000.0;
        let timed = !self.durations.is_empty();
        Outcome {
            messages: self.messages,
            per_second: self.messages as f64 / self.started.elapsed().as_secs_f64(),
            p50_us: timed.then(|| micros(0.5)),
            p99_us: timed.then(|| micros(0.99)),
        }
    }
}

/// Messages that a function makes.
pub struct Made<F>(pub F);

impl<T, F: FnMut() -> Option<T> + Unpin> Stream for Made<F> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<T>> {
        Poll::Ready((self.0)())
    }
}

/// Messages that come through a channel.
pub struct Sent<T>(pub mpsc::Receiver<T>);

impl<T> Stream for Sent<T> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<T>> {
        self.0.poll_recv(context)
    }
}
