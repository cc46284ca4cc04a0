//! One queue: a socket, its four rings, and the frames that wander between them.
//!
//! Every frame is, at every moment, in exactly one place: free, with the kernel to be filled, in our hands, or on its
//! way out. A [`Packet`] is a move-only token for a frame; all of them live in fields of [`Queue`], also while a
//! caller's closure works on one, so that not even a panic in there loses a frame.

use super::{
    Binding, Mode,
    setup::{raise_budget, refusal},
    wakeup::Wakeup,
};
use crate::{
    Error, Frames,
    headers::{self, Incoming, Template},
};
use rustix::{
    io::Errno,
    net::{RecvFlags, SendFlags, sockopt, xdp::XdpOptionsFlags},
};
use std::{
    collections::VecDeque,
    io,
    os::fd::{AsRawFd, BorrowedFd},
    time::Duration,
};
use xdp::{
    CompletionRing, Packet, RingConfigBuilder, RxRing, Umem, WakableFillRing, WakableTxRing,
    libc::xdp::XdpStatistics,
    nic::NicIndex,
    slab::Slab,
    socket::{SocketError, XdpSocket, XdpSocketBuilder},
    umem::{FrameSize, UmemCfgBuilder},
};

/// Bytes of a frame that a packet may take: 4 KiB less the kernel's headroom.
pub const FRAME_BYTES: usize = 4096 - 256;
/// Packets taken from, or put into, a ring at a time.
const BATCH: usize = 64;
/// What the kernel sends per system call, unless told otherwise.
const SKB_BUDGET: u32 = 32;
/// A socket that was just closed keeps its queue for a moment: tries to bind, and the time between them.
const BIND_TRIES: u32 = 50;
const BIND_WAIT: Duration = Duration::from_millis(20);

/// Frames in our hands, at most `limit` at a time, so that a ring gives no more than asked for.
struct Batch {
    packets: VecDeque<Packet>,
    limit: usize,
}

impl Batch {
    fn new() -> Batch {
        Batch { packets: VecDeque::with_capacity(BATCH), limit: BATCH }
    }
}

impl Slab for Batch {
    fn available(&self) -> usize {
        self.limit.saturating_sub(self.packets.len())
    }

    fn len(&self) -> usize {
        self.packets.len()
    }

    fn is_empty(&self) -> bool {
        self.packets.is_empty()
    }

    fn push_front(&mut self, packet: Packet) -> Option<Packet> {
        if self.available() == 0 {
            return Some(packet);
        }
        self.packets.push_front(packet);
        None
    }

    fn pop_back(&mut self) -> Option<Packet> {
        self.packets.pop_back()
    }
}

/// One receive queue of the interface and its transmit queue.
pub struct Queue {
    // Dropped in this order: rings, then the socket, then the memory that the kernel used through it.
    rx: RxRing,
    fill: WakableFillRing,
    tx: WakableTxRing,
    completion: CompletionRing,
    fill_wakeup: Wakeup,
    tx_wakeup: Wakeup,
    received: Batch,
    reading: Option<Packet>,
    staged: Batch,
    writing: Option<Packet>,
    socket: XdpSocket,
    umem: Umem,
    interface: String,
    number: u32,
    mode: Mode,
    total: u32,
    /// Frames given to the fill ring and not received since.
    filling: u32,
    /// Frames given to the transmit ring and not completed since.
    sending: u32,
    /// Most frames for receiving; the others are for sending.
    fill_target: u32,
    /// Whether the last kick left packets in the transmit ring.
    unsent: bool,
    kicks: u64,
    /// Packets the kernel had no frame or no ring entry for, as of the last tick.
    missed: u64,
    /// Whether the interface was found removed.
    gone: bool,
}

// SAFETY: the raw pointers inside, of packets and mappings, lead to memory that `Queue` owns itself and that is as
// good in one thread as in another; there is no access without `&mut self`, except for reading counters.
unsafe impl Send for Queue {}

impl Queue {
    /// Opens queue `number` of the interface.
    pub fn open(
        interface: &str,
        index: u32,
        number: u32,
        frames: u32,
        binding: Binding,
    ) -> Result<Queue, Error> {
        let mut tries = 0;
        loop {
            match Queue::try_open(interface, index, number, frames, binding) {
                Err(Error::Busy { .. }) if tries < BIND_TRIES => {
                    tries += 1;
                    std::thread::sleep(BIND_WAIT);
                }
                result => return result,
            }
        }
    }

    fn try_open(
        interface: &str,
        index: u32,
        number: u32,
        frames: u32,
        binding: Binding,
    ) -> Result<Queue, Error> {
        let setup = |operation: &'static str, problem: String| Error::Setup {
            interface: interface.to_owned(),
            queue: number,
            operation,
            problem,
        };
        let refused = |error: SocketError| refusal(interface, number, binding, error);
        let umem = UmemCfgBuilder { frame_size: FrameSize::FourK, frame_count: frames, ..Default::default() }
            .build()
            .map_err(|error| setup("configure the packet memory", error.to_string()))?;
        let umem = Umem::map(umem).map_err(|error| setup("map the packet memory", error.to_string()))?;
        let fill_target = frames / 2;
        let (fill_count, tx_count) =
            (fill_target.next_power_of_two(), (frames - fill_target).next_power_of_two());
        let rings =
            RingConfigBuilder { rx_count: fill_count, fill_count, tx_count, completion_count: tx_count }
                .build()
                .map_err(|error| setup("configure the rings", error.to_string()))?;
        let mut builder = XdpSocketBuilder::new().map_err(refused)?;
        let (rings, mut flags) = builder.build_wakable_rings(&umem, rings).map_err(refused)?;
        match binding {
            Binding::Auto => {}
            Binding::Copy => flags.force_copy(),
            Binding::ZeroCopy => flags.force_zerocopy(),
        }
        let (Some(rx), Some(tx)) = (rings.rx_ring, rings.tx_ring) else {
            return Err(setup("set up the rings", "one is missing".into()));
        };
        let io = |operation| move |error: io::Error| setup(operation, error.to_string());
        let errno = |operation| move |error: Errno| setup(operation, error.to_string());
        raise_budget(builder.as_raw_fd(), tx_count);
        let unbound = borrow(&builder);
        let offsets = sockopt::xdp_mmap_offsets(unbound).map_err(errno("ask for the rings' layout"))?;
        let fill_wakeup = Wakeup::of_fill(unbound, &offsets).map_err(io("map the fill ring's flags"))?;
        let tx_wakeup = Wakeup::of_tx(unbound, &offsets).map_err(io("map the transmit ring's flags"))?;
        let socket = builder.bind(NicIndex(index), number, flags).map_err(refused)?;
        let options = sockopt::xdp_options(borrow(&socket)).map_err(errno("ask for the socket's mode"))?;
        let zero_copy = options.contains(XdpOptionsFlags::XDP_OPTIONS_ZEROCOPY);
        let mut queue = Queue {
            rx,
            fill: rings.fill_ring,
            tx,
            completion: rings.completion_ring,
            fill_wakeup,
            tx_wakeup,
            received: Batch::new(),
            reading: None,
            staged: Batch::new(),
            writing: None,
            socket,
            umem,
            interface: interface.to_owned(),
            number,
            mode: if zero_copy { Mode::ZeroCopy } else { Mode::Copy },
            total: frames,
            filling: 0,
            sending: 0,
            fill_target,
            unsent: false,
            kicks: 0,
            missed: 0,
            gone: false,
        };
        queue.refill()?;
        Ok(queue)
    }

    /// The socket: readable when packets wait.
    pub fn fd(&self) -> BorrowedFd<'_> {
        borrow(&self.socket)
    }

    /// What the driver agreed to.
    pub fn mode(&self) -> Mode {
        self.mode
    }

    /// System calls that made the kernel send.
    pub fn kicks(&self) -> u64 {
        self.kicks
    }

    /// Packets the kernel had no frame or no ring entry for, as of the last tick.
    pub fn missed(&self) -> u64 {
        self.missed
    }

    /// Where the frames are.
    pub fn frames(&self) -> Frames {
        let held = |batch: &Batch, one: &Option<Packet>| batch.len() as u32 + u32::from(one.is_some());
        Frames {
            total: self.total,
            free: self.umem.allocatable() as u32,
            fill: self.filling,
            rx: held(&self.received, &self.reading),
            tx: held(&self.staged, &self.writing) + self.sending,
        }
    }

    /// Hands up to `budget` packets to `sink`, `None` for one that is not to be understood.
    pub fn receive(
        &mut self,
        budget: usize,
        sink: &mut dyn FnMut(Option<Incoming<'_>>),
    ) -> Result<usize, Error> {
        let mut taken = 0;
        if self.gone {
            return Err(Error::Gone { interface: self.interface.clone() });
        }
        self.release(); // of a packet whose sink panicked
        while taken < budget {
            self.received.limit = (budget - taken).min(BATCH);
            // SAFETY: the packets stay in this struct, whose `umem` outlives them.
            let got = unsafe { self.rx.recv(&self.umem, &mut self.received) };
            self.filling -= got as u32;
            while let Some(packet) = self.received.pop_back() {
                let packet = self.reading.insert(packet);
                sink(if packet.is_continued() { None } else { headers::parse(packet) });
                self.release();
            }
            if got == 0 {
                break;
            }
            taken += got;
            self.refill()?;
        }
        Ok(taken)
    }

    fn release(&mut self) {
        if let Some(packet) = self.reading.take() {
            self.umem.free_packet(packet);
        }
    }

    /// Gives the kernel frames to fill, up to the target.
    fn refill(&mut self) -> Result<(), Error> {
        let wanted = self.fill_target.saturating_sub(self.filling) as usize;
        // SAFETY: `umem` outlives the socket: see the order of the fields.
        let given = unsafe { self.fill.enqueue(&mut self.umem, wanted, false) };
        let given = given.map_err(|source| self.failed("give frames to the kernel", source))?;
        self.filling += given as u32;
        if given > 0 && self.fill_wakeup.needed() {
            let woken = rustix::net::recv(self.fd(), &mut [0u8; 0][..], RecvFlags::DONTWAIT);
            match self.kicked("take frames", woken.map(|_| ())) {
                Ok(()) | Err(Error::Down { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Writes a packet from a UDP port into a frame and stages it; `false` if there is no room. `fill` writes the payload.
    pub fn transmit(
        &mut self,
        template: &Template,
        source_port: u16,
        len: usize,
        fill: &mut dyn FnMut(&mut [u8]),
    ) -> Result<bool, Error> {
        if self.staged.available() == 0 {
            self.enqueue()?;
        }
        if self.writing.is_none() {
            let limit = self.total - self.fill_target;
            if self.sending + self.staged.len() as u32 >= limit {
                self.reap();
                if self.sending + self.staged.len() as u32 >= limit {
                    return Ok(false);
                }
            }
            // SAFETY: the packet stays in this struct, whose `umem` outlives it.
            self.writing = unsafe { self.umem.alloc() };
        }
        let Some(packet) = &mut self.writing else { return Ok(false) };
        packet.clear();
        let whole = template.len() + len;
        packet.adjust_tail(whole as i32).map_err(|_| Error::Oversize { len, limit: FRAME_BYTES })?;
        fill(&mut packet[template.len()..]);
        template.write(source_port, packet);
        if let Some(packet) = self.writing.take() {
            // There is room: checked above.
            self.writing = self.staged.push_front(packet);
        }
        Ok(true)
    }

    /// Moves what is staged into the transmit ring.
    fn enqueue(&mut self) -> Result<(), Error> {
        let staged = self.staged.len();
        if staged == 0 {
            return Ok(());
        }
        // SAFETY: `umem` outlives the socket: see the order of the fields.
        let sent = unsafe { self.tx.send(&mut self.staged, false) };
        let sent = sent.map_err(|source| self.failed("queue packets", source))?;
        self.sending += sent as u32;
        self.unsent |= sent > 0;
        Ok(())
    }

    /// Sends what is staged, and what an earlier kick left. With [`Error::Down`] it stays queued.
    pub fn flush(&mut self) -> Result<(), Error> {
        self.enqueue()?;
        if !self.unsent {
            return Ok(());
        }
        // The kernel may stop before the ring is empty, and says so by an error although nothing is wrong. What is
        // left in the ring is still queued: it wants another kick, never another packet.
        let mut tries = self.sending / SKB_BUDGET + 2;
        while self.unsent && tries > 0 {
            tries -= 1;
            if !self.tx_wakeup.needed() {
                self.unsent = false;
                break;
            }
            self.kicks += 1;
            self.unsent = match rustix::net::send(self.fd(), &[], SendFlags::DONTWAIT) {
                Ok(_) => false,
                Err(error) => {
                    self.kicked("send", Err(error))?;
                    true
                }
            };
            self.reap();
        }
        debug_assert_eq!(self.frames().missing(), 0, "frames got lost: {:?}", self.frames());
        Ok(())
    }

    /// Takes back the frames of packets that are sent.
    fn reap(&mut self) {
        if self.sending > 0 {
            let done = self.completion.dequeue(&mut self.umem, self.sending as usize);
            self.sending -= done as u32;
        }
    }

    /// Takes back frames also when nothing is being sent, asks what the kernel had to drop, and notices when the
    /// interface is removed, which is the only error a bound socket can come by itself.
    pub fn tick(&mut self) {
        self.reap();
        self.gone |= matches!(sockopt::socket_error(self.fd()), Ok(Err(_)));
        if let Ok(statistics) = self.socket.statistics() {
            // An empty fill ring counts as a drop too; its own counter would count those packets twice.
            let XdpStatistics { rx_dropped, rx_ring_full, .. } = statistics;
            self.missed = rx_dropped + rx_ring_full;
        }
    }

    /// Sorts the errors of a wake-up call: those that mean "again, later" are none.
    fn kicked(&self, operation: &'static str, result: Result<(), Errno>) -> Result<(), Error> {
        match result {
            Ok(()) | Err(Errno::AGAIN | Errno::BUSY | Errno::NOBUFS | Errno::INTR | Errno::NOMEM) => Ok(()),
            Err(Errno::NETDOWN) => Err(Error::Down { interface: self.interface.clone() }),
            Err(Errno::NXIO | Errno::NODEV) => Err(Error::Gone { interface: self.interface.clone() }),
            Err(error) => Err(self.failed(operation, error.into())),
        }
    }

    fn failed(&self, operation: &'static str, source: io::Error) -> Error {
        Error::Queue { interface: self.interface.clone(), queue: self.number, operation, source }
    }
}

fn borrow(socket: &impl AsRawFd) -> BorrowedFd<'_> {
    // SAFETY: the descriptor is open as long as the socket (or its builder) lives, which the result borrows.
    unsafe { BorrowedFd::borrow_raw(socket.as_raw_fd()) }
}
