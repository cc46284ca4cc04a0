//! Answering in place: the frame that came in goes out again with its ends swapped, cut to a base header and, where the
//! answer has one, a flat block.

use crate::packet;
use aya_ebpf::helpers::bpf_xdp_adjust_tail;
use aya_ebpf::programs::XdpContext;
use tollfree_wire::checksum::Checksum;
use tollfree_wire::frame::{Ethernet, Ipv4, Ipv6, PROTOCOL_UDP, Udp, Vlan};
use tollfree_wire::header::FLAT_MAX;
use tollfree_wire::{Cursor, Header};
use zerocopy::{FromBytes, Immutable, IntoBytes};

/// The bit of a MAC address's first byte that marks a group of hosts.
const GROUP: u8 = 1;
/// "Don't fragment", alone in the flags and offset field of IPv4.
const DONT_FRAGMENT: u16 = 0x4000;
/// Hops an answer may take.
const HOPS: u8 = 64;
/// Bytes of UDP header and base header.
const UDP_LEN: usize = size_of::<Udp>() + size_of::<Header>();

/// The padded flat block of an answer: words of a map's value.
#[derive(Clone, Copy)]
pub struct Flat<'a> {
    words: &'a [u64; WORDS_MAX],
    span: usize,
}

/// Words of the longest flat block.
const WORDS_MAX: usize = FLAT_MAX / size_of::<u64>();

impl<'a> Flat<'a> {
    /// An answer without.
    pub const NONE: Flat<'static> = Flat { words: &[0; WORDS_MAX], span: 0 };

    /// The first `span` of these bytes, which are aligned to eight; at most all of them.
    #[inline(always)]
    pub fn new(bytes: &'a [u8; FLAT_MAX], span: usize) -> Flat<'a> {
        // SAFETY: as many bytes; map values are aligned to eight, and the answer's flat block is eight behind its start.
        let words = unsafe { &*bytes.as_ptr().cast::<[u64; WORDS_MAX]>() };
        Flat { words, span: if span > FLAT_MAX { FLAT_MAX } else { span } }
    }

    /// A cursor at its first word.
    #[inline(always)]
    pub fn cursor(self) -> Cursor<'a> {
        let start = self.words.as_ptr().cast::<u8>();
        // SAFETY: the words are readable for 'a; nobody else writes this CPU's answer while the program runs.
        unsafe { Cursor::from_raw(start, start.wrapping_add(FLAT_MAX)) }
    }

    /// Writes it to the frame, from `at` on, and returns `sum` with it added.
    #[inline(always)]
    fn write(self, ctx: &XdpContext, at: usize, mut sum: Checksum) -> Option<Checksum> {
        let mut done = 0;
        while done < self.span && done < FLAT_MAX {
            let word = self.words[done / size_of::<u64>()];
            let place = packet::place::<u64>(ctx, at + done)?;
            // SAFETY: `place` checked that the word lies in the frame.
            unsafe { store(place, word) };
            sum = sum.word(word as u32).word((word >> 32) as u32);
            done += size_of::<u64>();
        }
        Some(sum)
    }
}

/// A frame as it leaves, from the network header on.
#[derive(Clone, Copy)]
#[repr(C, packed)]
struct Datagram<Ip> {
    ip: Ip,
    udp: Udp,
    header: Header,
}

/// Makes the frame at hand an answer to its sender that consists of `answer` and `flat`. `offset` is where the request's
/// base header starts; the four values it can have tell the headers before it. `None`: no answer can be sent.
#[inline(always)]
pub fn turn_around(ctx: &XdpContext, offset: u32, answer: &Header, flat: Flat<'_>) -> Option<()> {
    const ETHERNET: usize = size_of::<Ethernet>();
    const TAGGED: usize = ETHERNET + size_of::<Vlan>();
    const V4: usize = size_of::<Ipv4>() + size_of::<Udp>();
    const V6: usize = size_of::<Ipv6>() + size_of::<Udp>();
    const V4_PLAIN: usize = ETHERNET + V4;
    const V4_TAGGED: usize = TAGGED + V4;
    const V6_PLAIN: usize = ETHERNET + V6;
    const V6_TAGGED: usize = TAGGED + V6;
    refuse_groups(ctx)?;
    match offset as usize {
        V4_PLAIN => answer_v4::<ETHERNET>(ctx, answer, flat),
        V4_TAGGED => answer_v4::<TAGGED>(ctx, answer, flat),
        V6_PLAIN => answer_v6::<ETHERNET>(ctx, answer, flat),
        V6_TAGGED => answer_v6::<TAGGED>(ctx, answer, flat),
        _ => None,
    }
}

#[inline(always)]
fn answer_v4<const LINK: usize>(ctx: &XdpContext, answer: &Header, flat: Flat<'_>) -> Option<()> {
    cut::<Datagram<Ipv4>>(ctx, LINK, flat.span)?;
    swap_hosts(ctx)?;
    let at = packet::place::<Datagram<Ipv4>>(ctx, LINK)?;
    // SAFETY: `place` checked that the whole datagram lies in the frame; any bytes are a valid `Ipv4`.
    let request = unsafe { load(&raw const (*at).ip) };
    let mut ip = Ipv4 {
        version_ihl: 0x45,
        dscp_ecn: request.dscp_ecn & !0b11,
        total_len: ((size_of::<Ipv4>() + UDP_LEN + flat.span) as u16).to_be(),
        identification: 0,
        flags_offset: DONT_FRAGMENT.to_be(),
        ttl: HOPS,
        protocol: PROTOCOL_UDP,
        checksum: 0,
        source: request.destination,
        destination: request.source,
    };
    let words: [u32; 5] = zerocopy::transmute!(ip);
    ip.checksum = Checksum::default()
        .word(words[0])
        .word(words[1])
        .word(words[2])
        .word(words[3])
        .word(words[4])
        .finish();
    // SAFETY: as above.
    let udp = unsafe { load(&raw const (*at).udp) };
    // Without a checksum: IPv4 allows it, and the tag says more.
    let udp = swap_ports(udp, flat.span);
    // SAFETY: as above.
    unsafe { store(&raw mut (*at).ip, ip) };
    // SAFETY: as above.
    unsafe { store(&raw mut (*at).udp, udp) };
    // SAFETY: as above.
    unsafe { store(&raw mut (*at).header, *answer) };
    flat.write(ctx, LINK + size_of::<Datagram<Ipv4>>(), Checksum::default())?;
    Some(())
}

#[inline(always)]
fn answer_v6<const LINK: usize>(ctx: &XdpContext, answer: &Header, flat: Flat<'_>) -> Option<()> {
    cut::<Datagram<Ipv6>>(ctx, LINK, flat.span)?;
    swap_hosts(ctx)?;
    let at = packet::place::<Datagram<Ipv6>>(ctx, LINK)?;
    // SAFETY: `place` checked that the whole datagram lies in the frame; any bytes are a valid `Ipv6`.
    let request = unsafe { load(&raw const (*at).ip) };
    let ip = Ipv6 {
        payload_len: ((UDP_LEN + flat.span) as u16).to_be(),
        hop_limit: HOPS,
        source: request.destination,
        destination: request.source,
        ..request
    };
    // SAFETY: as above.
    let udp = unsafe { load(&raw const (*at).udp) };
    let mut udp = swap_ports(udp, flat.span);
    let sum = flat.write(ctx, LINK + size_of::<Datagram<Ipv6>>(), checksum_v6(&ip, &udp, answer))?;
    udp.checksum = sum.finish_udp();
    let at = packet::place::<Datagram<Ipv6>>(ctx, LINK)?;
    // SAFETY: as above.
    unsafe { store(&raw mut (*at).ip, ip) };
    // SAFETY: as above.
    unsafe { store(&raw mut (*at).udp, udp) };
    // SAFETY: as above.
    unsafe { store(&raw mut (*at).header, *answer) };
    Some(())
}

/// Makes the frame as long as its link header, a `T` and `span` bytes. The packet's old pointers are void afterwards.
#[inline(always)]
fn cut<T>(ctx: &XdpContext, link: usize, span: usize) -> Option<()> {
    let length = ctx.data_end().wrapping_sub(ctx.data());
    let change = (link + size_of::<T>() + span).wrapping_sub(length) as i32;
    // SAFETY: the context is the kernel's; an impossible change is refused by the kernel.
    let result = unsafe { bpf_xdp_adjust_tail(ctx.ctx, change) };
    (result == 0).then_some(())
}

/// `None` for a frame to a group of hosts: an answer to it would have a group for its sender.
#[inline(always)]
fn refuse_groups(ctx: &XdpContext) -> Option<()> {
    let at = packet::place::<Ethernet>(ctx, 0)?;
    // SAFETY: `place` checked that the header lies in the frame; any bytes are valid.
    let Ethernet { destination, .. } = unsafe { load(at) };
    (destination[0] & GROUP == 0).then_some(())
}

/// Swaps the MAC addresses.
#[inline(always)]
fn swap_hosts(ctx: &XdpContext) -> Option<()> {
    let at = packet::place::<Ethernet>(ctx, 0)?;
    // SAFETY: `place` checked that the header lies in the frame; any bytes are valid.
    let Ethernet { destination, source, ethertype } = unsafe { load(at) };
    // SAFETY: as above.
    unsafe { store(at, Ethernet { destination: source, source: destination, ethertype }) };
    Some(())
}

/// The answer's UDP header, without checksum, for a flat block of `span` bytes.
#[inline(always)]
fn swap_ports(request: Udp, span: usize) -> Udp {
    Udp {
        source: request.destination,
        destination: request.source,
        length: ((UDP_LEN + span) as u16).to_be(),
        checksum: 0,
    }
}

/// IPv6 demands a UDP checksum: over addresses, length, protocol, UDP header and payload. Here all but the flat block.
#[inline(always)]
fn checksum_v6(ip: &Ipv6, udp: &Udp, header: &Header) -> Checksum {
    let [s0, s1, s2, s3] = ip.source;
    let [d0, d1, d2, d3] = ip.destination;
    let mut sum = Checksum::default().word(s0).word(s1).word(s2).word(s3).word(d0).word(d1).word(d2).word(d3);
    sum = sum.pair(udp.length, (PROTOCOL_UDP as u16).to_be());
    sum = sum.pair(udp.source, udp.destination).pair(udp.length, 0);
    let words: [u32; size_of::<Header>() / 4] = zerocopy::transmute!(*header);
    let mut index = 0;
    while index < words.len() {
        sum = sum.word(words[index]);
        index += 1;
    }
    sum
}

/// Reads from the packet as if aligned: BPF would otherwise go byte by byte, and the kernel allows it where we run.
///
/// # Safety
/// `at` must point to a readable `T` in the packet.
#[inline(always)]
unsafe fn load<T: FromBytes>(at: *const T) -> T {
    // SAFETY: the caller's; alignment as explained above.
    unsafe { core::ptr::read(at) }
}

/// Writes to the packet as if aligned, as [`load`] reads.
///
/// # Safety
/// `at` must point to a writable `T` in the packet.
#[inline(always)]
unsafe fn store<T: IntoBytes + Immutable>(at: *mut T, value: T) {
    // SAFETY: the caller's; alignment as explained above.
    unsafe { core::ptr::write(at, value) };
}
