//! The floor under every remote call: one packet to the other end of a veth pair and back, both ends spinning, with
//! nothing but a backend in between. Prints one line of JSON; times are round trips in microseconds.
//!
//! Usage, as root: `pingpong [afxdp|udp] [native|generic] [ipv4|ipv6] [bytes=64] [rounds=100000] [outstanding=1]`

#[path = "../tests/support/mod.rs"]
mod support;

use std::{
    error::Error,
    net::{IpAddr, SocketAddr},
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};
use support::{
    PORT,
    bpf::{Attach, Redirect},
    net::{End, pair},
};
use tollfree_nic::{
    Nic, Peer, TxError,
    afxdp::{AfXdp, Config},
    udp::Udp,
};

type Failure = Box<dyn Error + Send + Sync>;

const USAGE: &str =
    "usage: pingpong [afxdp|udp] [native|generic] [ipv4|ipv6] [bytes=N] [rounds=N] [outstanding=N]";
/// A reply that has not come by then was lost.
const LOST: Duration = Duration::from_secs(1);

#[derive(Clone, Copy)]
struct Options {
    udp: bool,
    attach: Attach,
    ipv6: bool,
    bytes: usize,
    rounds: usize,
    outstanding: usize,
}

impl Options {
    fn parse() -> Result<Options, Failure> {
        let mut options = Options {
            udp: false,
            attach: Attach::Native,
            ipv6: false,
            bytes: 64,
            rounds: 100_000,
            outstanding: 1,
        };
        for argument in std::env::args().skip(1) {
            match argument.split_once('=') {
                Some(("bytes", n)) => options.bytes = n.parse()?,
                Some(("rounds", n)) => options.rounds = n.parse()?,
                Some(("outstanding", n)) => options.outstanding = n.parse()?,
                None if argument == "afxdp" => options.udp = false,
                None if argument == "udp" => options.udp = true,
                None if argument == "native" => options.attach = Attach::Native,
                None if argument == "generic" => options.attach = Attach::Generic,
                None if argument == "ipv4" => options.ipv6 = false,
                None if argument == "ipv6" => options.ipv6 = true,
                _ => return Err(format!("{argument}: {USAGE}").into()),
            }
        }
        let Options { bytes, rounds, outstanding, .. } = options;
        match bytes >= 8 && rounds > 0 && (1..=64).contains(&outstanding) {
            true => Ok(options),
            false => {
                Err("bytes must be at least 8, rounds at least 1 and outstanding between 1 and 64".into())
            }
        }
    }

    fn address(&self, end: &End) -> IpAddr {
        let text = if self.ipv6 { end.v6 } else { end.v4 };
        text.parse().expect("the support module's addresses are addresses")
    }

    fn peer(&self, end: &End) -> Peer {
        SocketAddr::new(self.address(end), PORT).into()
    }
}

fn main() -> Result<(), Failure> {
    let options = Options::parse()?;
    let Some((a, b)) = pair(1) else { return Ok(()) };
    let (stop, start) = (AtomicBool::new(false), std::sync::Barrier::new(2));
    std::thread::scope(|scope| {
        let echo = scope.spawn(|| {
            let result = at(&b, 1, &options, &start, |nic| reflect(nic, &stop), |nic| reflect(nic, &stop));
            stop.store(true, Ordering::Relaxed);
            result
        });
        let to = options.peer(&b);
        let asked = at(
            &a,
            0,
            &options,
            &start,
            |nic| ask(nic, &to, &options, &stop),
            |nic| ask(nic, &to, &options, &stop),
        );
        stop.store(true, Ordering::Relaxed);
        echo.join().map_err(|_| "the echoing thread panicked")??;
        report(&options, asked?);
        Ok(())
    })
}

/// Opens the backend at one end, on a core of its own if there are enough, and runs `afxdp` or `udp` with it.
fn at<T>(
    end: &End,
    core: usize,
    options: &Options,
    start: &std::sync::Barrier,
    afxdp: impl FnOnce(&mut AfXdp) -> Result<T, Failure>,
    udp: impl FnOnce(&mut Udp) -> Result<T, Failure>,
) -> Result<T, Failure> {
    end.enter();
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() > core) {
        let mut cores = rustix::thread::CpuSet::new();
        cores.set(core);
        rustix::thread::sched_setaffinity(None, &cores)?;
    }
    if options.udp {
        let opened = Udp::bind(SocketAddr::new(options.address(end), PORT));
        start.wait();
        return udp(&mut opened?);
    }
    let opened =
        Redirect::attach(end.interface, options.attach).map_err(Failure::from).and_then(|redirect| {
            let nic = AfXdp::open(Config::new(end.interface), &mut |queue, socket| {
                redirect.register(queue, socket)
            })?;
            Ok((nic, redirect))
        });
    start.wait();
    let (mut nic, _redirect) = opened?;
    afxdp(&mut nic)
}

/// Sends everything back until told to stop.
fn reflect(nic: &mut impl Nic, stop: &AtomicBool) -> Result<(), Failure> {
    let mut packets: Vec<(Peer, Vec<u8>)> = vec![(Peer::default(), Vec::new()); 64];
    while !stop.load(Ordering::Relaxed) {
        let mut count = 0;
        nic.receive(packets.len(), &mut |packet| {
            let (from, payload) = &mut packets[count];
            *from = packet.from;
            payload.clear();
            payload.extend_from_slice(packet.payload);
            count += 1;
        })?;
        for (to, payload) in &packets[..count] {
            match nic.transmit(0, to, payload.len(), &mut |bytes| bytes.copy_from_slice(payload)) {
                Ok(()) | Err(TxError::Full | TxError::Unreachable) => {}
                Err(TxError::Failed(error)) => return Err(error.into()),
            }
        }
        if count > 0 {
            nic.flush()?;
        }
    }
    Ok(())
}

/// What [`ask`] measured.
struct Measured {
    /// Round trips in nanoseconds.
    trips: Vec<u64>,
    lost: usize,
    elapsed: Duration,
    /// How long it took to find the way to the other end.
    resolved: Option<Duration>,
}

/// Keeps packets under way, each carrying the time it was sent at, and notes when they are back.
fn ask(nic: &mut impl Nic, to: &Peer, options: &Options, stop: &AtomicBool) -> Result<Measured, Failure> {
    let warm_up = (options.rounds / 10).max(options.outstanding);
    let mut trips = Vec::with_capacity(options.rounds + warm_up + options.outstanding);
    let (epoch, mut lost, mut under_way) = (Instant::now(), 0, 0);
    let (mut last, mut measured_from, mut resolved) = (epoch, None, None);
    while trips.len() < options.rounds + warm_up {
        if stop.load(Ordering::Relaxed) {
            return Err("the other end gave up".into());
        }
        let mut sent = false;
        while under_way < options.outstanding {
            let now = epoch.elapsed().as_nanos() as u64;
            let result = nic.transmit(0, to, options.bytes, &mut |bytes| {
                bytes.fill(0);
                bytes[..8].copy_from_slice(&now.to_ne_bytes());
            });
            match result {
                Ok(()) => (under_way, sent) = (under_way + 1, true),
                Err(TxError::Full) => break,
                Err(TxError::Unreachable) if last.elapsed() < 10 * LOST => {
                    std::thread::sleep(Duration::from_millis(1));
                    nic.tick(0);
                }
                Err(error) => return Err(error.into()),
            }
        }
        if sent {
            resolved.get_or_insert_with(|| epoch.elapsed());
            nic.flush()?;
            last = Instant::now();
        }
        let got = nic.receive(64, &mut |packet| {
            if let Some(Ok(at)) = packet.payload.get(..8).map(TryInto::try_into) {
                trips.push((epoch.elapsed().as_nanos() as u64).saturating_sub(u64::from_ne_bytes(at)));
            }
        })?;
        under_way = under_way.saturating_sub(got);
        match got {
            0 if last.elapsed() > LOST => {
                lost += under_way;
                (under_way, last) = (0, Instant::now());
                if lost > 100 {
                    return Err("no replies come back".into());
                }
            }
            0 => {}
            _ => last = Instant::now(),
        }
        if measured_from.is_none() && trips.len() >= warm_up {
            measured_from = Some(Instant::now());
        }
    }
    let elapsed = measured_from.unwrap_or(epoch).elapsed();
    trips.drain(..warm_up);
    Ok(Measured { trips, lost, elapsed, resolved })
}

fn report(options: &Options, measured: Measured) {
    let Measured { mut trips, lost, elapsed, resolved } = measured;
    let resolved = resolved.unwrap_or_default().as_secs_f64() * 1e3;
    trips.sort_unstable();
    let at = |share: f64| trips[((trips.len() - 1) as f64 * share) as usize] as f64 / 1000.0;
    let Options { udp, attach, ipv6, bytes, outstanding, .. } = options;
    let backend = if *udp { "udp" } else { "afxdp" };
    let attach = if *udp { "none".to_owned() } else { format!("{attach:?}").to_lowercase() };
    println!(
        "{{\"bench\":\"pingpong\",\"backend\":\"{backend}\",\"attach\":\"{attach}\",\"ipv6\":{ipv6},\"bytes\":{bytes},\
         \"outstanding\":{outstanding},\"rounds\":{},\"lost\":{lost},\"min_us\":{:.3},\"p50_us\":{:.3},\"p99_us\":{:.3},\
         \"p999_us\":{:.3},\"per_second\":{:.0},\"resolved_ms\":{resolved:.1}}}",
        trips.len(),
        at(0.0),
        at(0.5),
        at(0.99),
        at(0.999),
        trips.len() as f64 / elapsed.as_secs_f64()
    );
}
