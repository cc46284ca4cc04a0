//! The `afxdp` backend: rings shared with the driver, one socket and one set of frames per receive queue.
//!
//! The root XDP program decides which packets come here; entering the sockets into its map is the business of the
//! `register` callback. Packets to send are written in place into frames, headers included, because the kernel's
//! network stack is not involved: the way to each peer is asked of the kernel's tables by a thread of its own.

mod queue;
mod setup;
mod wakeup;

use crate::{
    Counters, Error, Frames, Nic, Received, TxError,
    headers::{HEADERS_MAX, Incoming},
    paths::{Link, Paths},
};
use queue::{FRAME_BYTES, Queue};
use rustix::event::epoll;
use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
};
use tollfree_wire::frame::{Peer, Ports};

/// Bytes of IPv6 and UDP headers: what an interface's MTU must carry besides the payload.
const IP_HEADERS: usize = 48;
/// The shortest payload worth having: a base header and the longest flat block.
const PAYLOAD_MIN: usize = tollfree_wire::header::HEADER_LEN + tollfree_wire::header::FLAT_MAX;

/// How to open an [`AfXdp`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The interface's name.
    pub interface: String,
    /// Our UDP ports: 7400 and the 15 after it by default.
    pub ports: Ports,
    /// Frames of 4 KiB per queue, half of them for receiving: 4096 by default, 64 to 65536.
    pub frames: u32,
    /// How many queues to serve, from queue 0 on: all of the interface's by default. Packets that arrive on a queue
    /// not served are left to the kernel by the XDP program.
    pub queues: Option<u32>,
    /// The longest payload of one packet in bytes: by default what the interface's MTU allows over IPv6.
    pub max_payload: Option<usize>,
    /// Whether the driver may, must or must not share the frames with the hardware.
    pub binding: Binding,
}

impl Config {
    /// The defaults for an interface.
    pub fn new(interface: &str) -> Config {
        Config {
            interface: interface.to_owned(),
            ports: Ports { first: 7400, count: 16 },
            frames: 4096,
            queues: None,
            max_payload: None,
            binding: Binding::Auto,
        }
    }
}

/// What to ask of the driver.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Binding {
    /// Zero-copy if the driver can, otherwise copying.
    #[default]
    Auto,
    /// Copying, which works with every driver.
    Copy,
    /// Zero-copy, or an error.
    ZeroCopy,
}

/// What the driver agreed to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    /// The kernel copies each packet between its buffers and our frames.
    Copy,
    /// The hardware reads and writes our frames.
    ZeroCopy,
}

/// The AF_XDP sockets of one interface.
pub struct AfXdp {
    queues: Vec<Queue>,
    ports: Ports,
    paths: Paths,
    /// Readable when one of several queues is.
    epoll: Option<OwnedFd>,
    /// The queue to receive from first, so that none starves.
    next: usize,
    max_payload: usize,
    /// While the interface is down: the sentence that says so.
    down: Option<String>,
    counters: Counters,
}

impl AfXdp {
    /// Opens the interface in the calling thread's network namespace. `register` enters each queue's socket into the
    /// XDP program's map; its error text ends up in [`Error::Register`].
    pub fn open(
        config: Config,
        register: &mut dyn FnMut(u32, BorrowedFd<'_>) -> Result<(), String>,
    ) -> Result<AfXdp, Error> {
        let Config { interface, ports, frames, queues, max_payload, binding } = config;
        let unusable = |problem: String| Error::Interface { interface: interface.clone(), problem };
        let link = Link::by_name(&interface).map_err(|error| unusable(error.to_string()))?;
        let max_payload = payload_limit(&interface, link.mtu, max_payload)?;
        if !(64..=65_536).contains(&frames) {
            let problem = format!("is {frames}, but must be between 64 and 65536");
            return Err(Error::Setting { interface, setting: "frames", problem });
        }
        let there =
            xdp::nic::NicIndex(link.index).queue_counts().map_or(1, |counts| counts.rx_count()).max(1);
        let wanted = queues.unwrap_or(there);
        if wanted == 0 || wanted > there {
            let problem = format!("is {wanted}, but the interface has {there}");
            return Err(Error::Setting { interface, setting: "queues", problem });
        }
        let paths = Paths::new(&interface, link.index)?;
        let mut opened = Vec::with_capacity(wanted as usize);
        for number in 0..wanted {
            let queue = Queue::open(&interface, link.index, number, frames, binding)?;
            register(number, queue.fd()).map_err(|problem| Error::Register {
                interface: interface.clone(),
                queue: number,
                problem,
            })?;
            opened.push(queue);
        }
        let epoll = if opened.len() > 1 {
            Some(watch(&opened).map_err(|error| unusable(format!("epoll failed: {error}")))?)
        } else {
            None
        };
        Ok(AfXdp {
            queues: opened,
            ports,
            paths,
            epoll,
            next: 0,
            max_payload,
            down: None,
            counters: Counters::default(),
        })
    }

    /// What the driver agreed to, for all queues.
    pub fn mode(&self) -> Mode {
        if self.queues.iter().all(|queue| queue.mode() == Mode::ZeroCopy) {
            Mode::ZeroCopy
        } else {
            Mode::Copy
        }
    }

    /// How many queues are served.
    pub fn queues(&self) -> u32 {
        self.queues.len() as u32
    }
}

fn payload_limit(interface: &str, mtu: u32, wanted: Option<usize>) -> Result<usize, Error> {
    let limit = (mtu as usize).saturating_sub(IP_HEADERS).min(FRAME_BYTES - HEADERS_MAX);
    let (setting, problem) = match wanted {
        _ if limit < PAYLOAD_MIN => {
            ("mtu", format!("is {mtu}, but must be at least {}", PAYLOAD_MIN + IP_HEADERS))
        }
        Some(wanted) if !(PAYLOAD_MIN..=limit).contains(&wanted) => {
            ("max_payload", format!("is {wanted}, but must be between {PAYLOAD_MIN} and {limit} (MTU {mtu})"))
        }
        wanted => return Ok(wanted.unwrap_or(limit)),
    };
    Err(Error::Setting { interface: interface.to_owned(), setting, problem })
}

fn watch(queues: &[Queue]) -> io::Result<OwnedFd> {
    let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
    for (number, queue) in queues.iter().enumerate() {
        epoll::add(&epoll, queue.fd(), epoll::EventData::new_u64(number as u64), epoll::EventFlags::IN)?;
    }
    Ok(epoll)
}

impl Nic for AfXdp {
    const VERIFIED: bool = true;

    fn max_payload(&self) -> usize {
        self.max_payload
    }

    fn ports(&self) -> u16 {
        self.ports.count
    }

    fn receive(&mut self, budget: usize, sink: &mut dyn FnMut(Received<'_>)) -> Result<usize, Error> {
        let AfXdp { queues, paths, next, max_payload, counters, .. } = self;
        let (mut taken, count) = (0, queues.len());
        for turn in 0..count {
            let queue = &mut queues[(*next + turn) % count];
            taken += queue.receive(budget - taken, &mut |incoming| match incoming {
                Some(incoming) if incoming.payload.len() <= *max_payload => {
                    counters.rx_packets += 1;
                    counters.rx_bytes += incoming.payload.len() as u64;
                    paths.seen(&incoming.from, &incoming.back);
                    let Incoming { from, payload, marked, .. } = incoming;
                    sink(Received { from, payload, marked });
                }
                _ => counters.rx_dropped += 1,
            })?;
            if taken >= budget {
                break;
            }
        }
        *next = (*next + 1) % count;
        Ok(taken)
    }

    fn transmit(
        &mut self,
        from: u16,
        to: &Peer,
        len: usize,
        fill: &mut dyn FnMut(&mut [u8]),
    ) -> Result<(), TxError> {
        if len > self.max_payload {
            return Err(Error::Oversize { len, limit: self.max_payload }.into());
        }
        let source = self.ports.first + from;
        let template = if self.down.is_some() { None } else { self.paths.lookup(to) };
        let Some(template) = template else {
            self.counters.tx_unreachable += 1;
            return Err(TxError::Unreachable);
        };
        // A peer's packets keep to one queue, so that they stay in order.
        let queue = match self.queues.len() {
            1 => 0,
            count => BuildHasherDefault::<DefaultHasher>::default().hash_one(to) as usize % count,
        };
        if !self.queues[queue].transmit(template, source, len, fill)? {
            self.counters.tx_full += 1;
            return Err(TxError::Full);
        }
        self.counters.tx_packets += 1;
        self.counters.tx_bytes += len as u64;
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Error> {
        for queue in &mut self.queues {
            match queue.flush() {
                Ok(()) => {}
                // It may come back, and then goes on where it stopped: no reason to end.
                Err(error @ Error::Down { .. }) => self.down = Some(error.to_string()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn fd(&self) -> BorrowedFd<'_> {
        match &self.epoll {
            Some(epoll) => epoll.as_fd(),
            None => self.queues[0].fd(),
        }
    }

    fn counters(&self) -> Counters {
        let mut frames = Frames::default();
        let (mut kicks, mut rx_missed) = (0, 0);
        for queue in &self.queues {
            frames.add(queue.frames());
            kicks += queue.kicks();
            rx_missed += queue.missed();
        }
        Counters { frames, kicks, rx_missed, ..self.counters }
    }

    fn why_unreachable(&self, peer: &Peer) -> Option<&str> {
        self.down.as_deref().or_else(|| self.paths.problem(peer))
    }

    fn tick(&mut self, _now_ns: u64) {
        self.paths.tick();
        for queue in &mut self.queues {
            queue.tick();
        }
        if self.down.take().is_some() {
            // Finds out whether it still is. Other errors come again at the engine's next flush.
            let _ = self.flush();
        }
    }
}
