//! A bad cable: carries whole Ethernet frames between two interfaces of its namespace, and loses, repeats, delays and reorders
//! some of them, by seed. What a measurement puts between two hosts where the kernel has no netem.
//!
//! Usage, as root: `bad_cable LEFT:RIGHT … [loss=0.01] [dup=0] [reorder=0] [delay_us=0] [seed=1]`, with several pairs several
//! cables, all equally bad; or `bad_cable plain INTERFACE …`, which has an interface send and receive frames as they are
//! on a cable, not segmented, merged or given their checksums later.
//!
//! Prints `carrying` when it does, and on SIGTERM one line of JSON that says what became of frames.

use rand::{Rng, SeedableRng, rngs::SmallRng};
use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    error::Error,
    ffi::CString,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    process::ExitCode,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

/// Longer than any frame that is not segmented later.
const FRAME_MAX: usize = 9216;
/// Frames taken from one side before the other has its turn.
const BATCH: usize = 64;
/// How long a reordered frame is held back: long enough for a window's worth of others.
const HELD_BACK: Duration = Duration::from_micros(500);

static ASKED_TO_STOP: AtomicBool = AtomicBool::new(false);

/// What the cable does to frames; fractions of them.
struct Faults {
    loss: f64,
    dup: f64,
    reorder: f64,
    delay: Duration,
    seed: u64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.split_first() {
        Some((first, interfaces)) if first == "plain" => interfaces.iter().try_for_each(|name| plain(name)),
        _ => carry(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bad_cable: {error}");
            ExitCode::FAILURE
        }
    }
}

extern "C" fn stop(_signal: libc::c_int) {
    ASKED_TO_STOP.store(true, Ordering::Relaxed);
}

/// A frame that leaves later.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Later {
    at: Instant,
    number: u64,
    side: usize,
    frame: Vec<u8>,
}

#[derive(Default)]
struct Counters {
    carried: u64,
    lost: u64,
    repeated: u64,
    reordered: u64,
    /// The other side had no room.
    overflowed: u64,
}

struct Cable {
    /// Even and the odd number above it are two ends of one cable.
    sides: Vec<OwnedFd>,
    faults: Faults,
    random: SmallRng,
    later: BinaryHeap<Reverse<Later>>,
    number: u64,
    counters: Counters,
}

fn carry(arguments: &[String]) -> Result<(), Box<dyn Error>> {
    let mut faults = Faults { loss: 0.0, dup: 0.0, reorder: 0.0, delay: Duration::ZERO, seed: 1 };
    let mut sides = Vec::new();
    for argument in arguments {
        match argument.split_once('=') {
            Some(("loss", value)) => faults.loss = value.parse()?,
            Some(("dup", value)) => faults.dup = value.parse()?,
            Some(("reorder", value)) => faults.reorder = value.parse()?,
            Some(("delay_us", value)) => faults.delay = Duration::from_micros(value.parse()?),
            Some(("seed", value)) => faults.seed = value.parse()?,
            _ => {
                let (left, right) =
                    argument.split_once(':').ok_or_else(|| format!("{argument:?} is not LEFT:RIGHT"))?;
                sides.extend([socket(left)?, socket(right)?]);
            }
        }
    }
    if sides.is_empty() {
        return Err("say between which interfaces: LEFT:RIGHT".into());
    }
    // SAFETY: the handler only stores to an atomic, which is safe in a signal handler.
    unsafe { libc::signal(libc::SIGTERM, stop as *const () as libc::sighandler_t) };
    println!("carrying");
    let random = SmallRng::seed_from_u64(faults.seed);
    let (later, counters) = (BinaryHeap::new(), Counters::default());
    let mut cable = Cable { sides, faults, random, later, number: 0, counters };
    while !ASKED_TO_STOP.load(Ordering::Relaxed) {
        cable.wait()?;
        cable.turn()?;
    }
    let Counters { carried, lost, repeated, reordered, overflowed } = cable.counters;
    println!(
        "{{\"carried\":{carried},\"lost\":{lost},\"repeated\":{repeated},\"reordered\":{reordered},\"overflowed\":{overflowed}}}"
    );
    Ok(())
}

impl Cable {
    /// Until a frame arrives or one that was held back is due.
    fn wait(&self) -> io::Result<()> {
        let due = self.later.peek().map(|Reverse(later)| later.at.saturating_duration_since(Instant::now()));
        let mut polled: Vec<libc::pollfd> = self
            .sides
            .iter()
            .map(|side| libc::pollfd { fd: side.as_raw_fd(), events: libc::POLLIN, revents: 0 })
            .collect();
        let limit = due.unwrap_or(Duration::from_millis(100));
        let limit = libc::timespec { tv_sec: limit.as_secs() as _, tv_nsec: limit.subsec_nanos().into() };
        // SAFETY: the array is as long as said, the timeout lives for the call, and no signal mask is given.
        let ready = unsafe { libc::ppoll(polled.as_mut_ptr(), polled.len() as _, &limit, std::ptr::null()) };
        match ready {
            -1 if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted => {
                Err(io::Error::last_os_error())
            }
            _ => Ok(()),
        }
    }

    fn turn(&mut self) -> io::Result<()> {
        let mut buffer = [0; FRAME_MAX];
        for side in 0..self.sides.len() {
            for _ in 0..BATCH {
                let Some(length) = receive(&self.sides[side], &mut buffer)? else { break };
                self.judge(side ^ 1, &buffer[..length])?;
            }
        }
        let now = Instant::now();
        while self.later.peek().is_some_and(|Reverse(later)| later.at <= now) {
            if let Some(Reverse(Later { side, frame, .. })) = self.later.pop() {
                self.send(side, &frame)?;
            }
        }
        Ok(())
    }

    /// Decides what becomes of a frame on its way to a side.
    fn judge(&mut self, side: usize, frame: &[u8]) -> io::Result<()> {
        let Faults { loss, dup, reorder, delay, .. } = self.faults;
        if self.random.random_bool(loss) {
            self.counters.lost += 1;
            return Ok(());
        }
        let mut delay = delay;
        if self.random.random_bool(reorder) {
            self.counters.reordered += 1;
            delay += HELD_BACK;
        }
        if self.random.random_bool(dup) {
            self.counters.repeated += 1;
            self.leave(side, frame, delay)?;
        }
        self.leave(side, frame, delay)
    }

    fn leave(&mut self, side: usize, frame: &[u8], delay: Duration) -> io::Result<()> {
        if delay.is_zero() {
            return self.send(side, frame);
        }
        self.number += 1;
        let at = Instant::now() + delay;
        self.later.push(Reverse(Later { at, number: self.number, side, frame: frame.to_vec() }));
        Ok(())
    }

    fn send(&mut self, side: usize, frame: &[u8]) -> io::Result<()> {
        // SAFETY: the frame is as long as said.
        let sent = unsafe { libc::send(self.sides[side].as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0) };
        if sent >= 0 {
            self.counters.carried += 1;
            return Ok(());
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            // A full queue loses frames, as a switch does.
            Some(libc::ENOBUFS | libc::EAGAIN | libc::ENETDOWN) => {
                self.counters.overflowed += 1;
                Ok(())
            }
            _ => Err(error),
        }
    }
}

/// A frame that has arrived, if there is one.
fn receive(side: &OwnedFd, buffer: &mut [u8]) -> io::Result<Option<usize>> {
    // SAFETY: the buffer is as long as said.
    let length = unsafe {
        libc::recv(
            side.as_raw_fd(),
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            libc::MSG_TRUNC | libc::MSG_DONTWAIT,
        )
    };
    if length < 0 {
        let error = io::Error::last_os_error();
        return match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted => Ok(None),
            _ => Err(error),
        };
    }
    let length = length as usize;
    if length > buffer.len() {
        let why =
            format!("a frame of {length} bytes: have both hosts' interfaces set up with `bad_cable plain`");
        return Err(io::Error::other(why));
    }
    Ok(Some(length))
}

/// A socket for all frames that arrive at an interface, but not for those that leave by it.
fn socket(name: &str) -> Result<OwnedFd, Box<dyn Error>> {
    let wrong = |what: &str| format!("cannot {what} {name}: {}", io::Error::last_os_error());
    let c_name = CString::new(name)?;
    // SAFETY: the name ends with a zero.
    let index = unsafe { libc::if_nametoindex(c_name.as_ptr()) };
    if index == 0 {
        return Err(wrong("find the interface").into());
    }
    let protocol = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(wrong("open a packet socket for").into());
    }
    // SAFETY: a descriptor just opened, which nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    for (level, option, value) in [
        (libc::SOL_PACKET, libc::PACKET_IGNORE_OUTGOING, 1),
        (libc::SOL_SOCKET, libc::SO_RCVBUFFORCE, 4 << 20),
        (libc::SOL_SOCKET, libc::SO_SNDBUFFORCE, 4 << 20),
    ] {
        let value: libc::c_int = value;
        // SAFETY: the value is an int, as long as said.
        let set = unsafe {
            libc::setsockopt(fd, level, option, (&raw const value).cast(), size_of::<libc::c_int>() as _)
        };
        if set < 0 {
            return Err(wrong("set up a packet socket for").into());
        }
    }
    // SAFETY: all zeros is a valid sockaddr_ll.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = protocol;
    address.sll_ifindex = index as i32;
    // SAFETY: the address is as long as said.
    let bound = unsafe { libc::bind(fd, (&raw const address).cast(), size_of::<libc::sockaddr_ll>() as _) };
    if bound < 0 {
        return Err(wrong("listen at").into());
    }
    Ok(socket)
}

/// Has an interface's frames look as they do on a cable.
fn plain(name: &str) -> Result<(), Box<dyn Error>> {
    /// Checksums on both ways, TSO, GSO, GRO: `ETHTOOL_SRXCSUM` and so on, of linux/ethtool.h.
    const OFF: [(u32, &str); 5] = [
        (0x15, "receive checksums"),
        (0x17, "transmit checksums"),
        (0x1f, "TCP segmentation"),
        (0x24, "generic segmentation"),
        (0x2c, "generic receive offload"),
    ];
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error().into());
    }
    // SAFETY: a descriptor just opened, which nobody else owns.
    let socket = unsafe { OwnedFd::from_raw_fd(fd) };
    for (command, what) in OFF {
        let mut value = [command, 0];
        // SAFETY: all zeros is a valid ifreq.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (place, byte) in request.ifr_name.iter_mut().take(libc::IFNAMSIZ - 1).zip(name.bytes()) {
            *place = byte as libc::c_char;
        }
        request.ifr_ifru.ifru_data = value.as_mut_ptr().cast();
        // SAFETY: the request's name ends with a zero and its data is an `ethtool_value`, two words that live on.
        let done = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCETHTOOL as _, &mut request) };
        let error = io::Error::last_os_error();
        if done < 0 && error.raw_os_error() != Some(libc::EOPNOTSUPP) {
            return Err(format!("cannot switch off {what} of {name}: {error}").into());
        }
    }
    Ok(())
}
