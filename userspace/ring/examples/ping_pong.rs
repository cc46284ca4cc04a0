//! Round trips between two ends of a ring in one process, for each way of waiting: what the rings and the
//! strategy cost by themselves, without a daemon's work between. `cargo run --release -p tollfree-ring --example ping_pong`

use std::time::{Duration, Instant};
use tollfree_ring::{AppOp, DaemonOp, DeliveryHeader, Geometry, Submission, app, daemon};

const CALLS: usize = 20_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for (name, spin) in
        [("busy", Duration::MAX), ("adaptive", Duration::from_micros(50)), ("sleep", Duration::ZERO)]
    {
        let (daemon, handover) = daemon::Port::create(&Geometry::default())?;
        let app = app::Port::open(handover)?;
        let echo = std::thread::spawn(move || echo(daemon, spin));
        let mut times = call(app, spin);
        echo.join().map_err(|_| "the echoing thread panicked")?;
        times.sort_unstable();
        let at = |part: usize| times.get(times.len() * part / 1000).copied().unwrap_or_default();
        println!("{name:9} p50 {:>9.2?}  p99 {:>9.2?}  p99.9 {:>9.2?}", at(500), at(990), at(999));
    }
    Ok(())
}

fn call(mut port: app::Port, spin: Duration) -> Vec<Duration> {
    let submission = Submission { method: 1, ..Submission::new(AppOp::Call, 0) };
    let mut times = Vec::with_capacity(CALLS);
    for call in 0..CALLS as u64 {
        let start = Instant::now();
        if port.push(&Submission { call, ..submission }).is_err() {
            return times;
        }
        port.publish();
        while !matches!(port.pop(|_| ()), Ok(Some(()))) {
            if start.elapsed() < spin {
                std::thread::yield_now();
                continue;
            }
            if port.prepare_sleep() {
                wait(port.doorbell());
            }
            port.awake();
            port.drain_doorbell();
        }
        port.commit();
        times.push(start.elapsed());
    }
    times
}

fn echo(mut port: daemon::Port, spin: Duration) {
    let mut since = Instant::now();
    let mut done = 0;
    while done < CALLS {
        if let Ok(Some(submission)) = port.pop() {
            let header = DeliveryHeader {
                method: submission.method,
                ..DeliveryHeader::new(DaemonOp::Response, submission.call)
            };
            port.commit();
            if port.deliver(&header, &[], |_, _| (), 0).is_err() {
                return;
            }
            port.publish();
            (since, done) = (Instant::now(), done + 1);
        } else if since.elapsed() < spin {
            std::thread::yield_now();
        } else {
            if port.prepare_sleep() {
                wait(port.doorbell());
            }
            port.awake();
            port.drain_doorbell();
        }
    }
}

fn wait(fd: rustix::fd::BorrowedFd<'_>) {
    use rustix::event::{PollFd, PollFlags, poll};
    // An interruption is as good as a ring: the caller looks again.
    let _ = poll(&mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)], None);
}
