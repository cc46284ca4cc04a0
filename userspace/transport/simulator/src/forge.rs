//! Packets of a peer that has a session and its key, and sends whatever it likes: well-formed, signed, and wrong in every way
//! that bytes decide. A fuzzer chooses the bytes, or a world's random numbers do.

use tollfree_wire::header::{FLAGS_KNOWN, FLAT_MAX, METHOD_CONTROL, NO_DEADLINE};
use tollfree_wire::session::{Guard, Role};
use tollfree_wire::tag::tag;
use tollfree_wire::{Cursor, Header, Kind};
use zerocopy::IntoBytes;

/// Bytes that decide. When there are none left, every choice is the first.
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// Decides by these.
    pub fn new(bytes: &'a [u8]) -> Choices<'a> {
        Choices(bytes)
    }

    /// Whether there are none left.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// A byte.
    pub fn byte(&mut self) -> u8 {
        let [first, rest @ ..] = self.0 else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number of as many bytes as asked for.
    pub fn number(&mut self, bytes: u32) -> u64 {
        (0..bytes).fold(0, |number, _| number << 8 | u64::from(self.byte()))
    }

    /// True in one of so many cases.
    pub fn one_in(&mut self, cases: u8) -> bool {
        self.byte() % cases == cases - 1
    }

    /// One of these.
    pub fn one_of<T: Copy>(&mut self, these: &[T]) -> T {
        these[usize::from(self.byte()) % these.len()]
    }
}

/// The longest body of a forged packet: what fits a packet beside the longest flat block.
const BODY_MAX: u64 = 1472 - 56 - FLAT_MAX as u64;

/// A packet by the holder of a session, `guard` being its own view of it. `last` is the sequence it last used.
pub fn forge(choices: &mut Choices<'_>, guard: &Guard, last: &mut u64) -> Vec<u8> {
    use Kind::{Ack, Close, Reject, Request, Response};
    let kinds: &[Kind] = match guard.role {
        role if role == Role::Client as u8 => &[Request, Request, Request, Request, Ack, Ack, Ack, Close],
        _ => &[Response, Response, Response, Response, Ack, Ack, Reject, Close],
    };
    let mut header = Header::new(choices.one_of(kinds));
    if choices.one_in(32) {
        header.kind = choices.byte() % 9;
    }
    if header.kind == Close as u8 && !choices.one_in(4) {
        header.kind = Ack as u8;
    }
    header.flags =
        choices.one_of(&[0, 0, 0, 1, 2, 3, FLAGS_KNOWN]) | choices.byte() & choices.byte() & FLAGS_KNOWN;
    header.status = choices.byte() % 20;
    header.session = guard.peer_index;
    header.method = choices.one_of(&[7, 7, 7, METHOD_CONTROL, 8]);
    // Few slots and few uses, so that packets meet.
    let slot = if choices.one_in(8) { choices.byte() } else { choices.byte() % 4 };
    let used = if choices.one_in(16) { choices.number(7) } else { choices.number(1) % 6 };
    header.call = used << 8 | u64::from(slot);
    *last = match choices.byte() {
        0 => choices.number(8),
        1..4 => last.wrapping_sub(choices.number(1)),
        _ => last.wrapping_add(1),
    };
    header.sequence = *last;
    header.deadline_us = choices.one_of(&[NO_DEADLINE, NO_DEADLINE, 0, 1, 1_000_000]);
    header.layout = choices.number(1) as u32;
    let body_len = contents(choices, &mut header);
    let mut flat = [0; FLAT_MAX];
    flat[..usize::from(header.flat_len)].fill(choices.byte());
    let flat = &flat[..header.flat_span()];
    header.tag = tag(guard.key, &header, Cursor::new(flat)).unwrap_or(0);
    if choices.one_in(64) {
        header.tag ^= 1;
    }
    let mut packet = [header.as_bytes(), flat].concat();
    let body = packet.len();
    packet.resize(body + body_len, 0x5a);
    if header.kind == Ack as u8 {
        for byte in packet[body..].iter_mut().take(24) {
            *byte = choices.byte();
        }
        // An acknowledged fragment is one that was sent, mostly.
        if !choices.one_in(4) {
            packet[body..].iter_mut().take(8).skip(1).for_each(|byte| *byte = 0);
        }
    }
    packet
}

/// What the packet carries; returns the bytes of its body.
fn contents(choices: &mut Choices<'_>, header: &mut Header) -> usize {
    if header.kind == Kind::Ack as u8 {
        header.message_len = choices.one_of(&[16, 16, 16, 24, 32, 40, 48, 0, 15, 17]);
        return header.message_len as usize;
    }
    if choices.one_in(2) {
        header.flat_len = choices.one_of(&[0, 0, 16, 21, FLAT_MAX as u16]);
        header.message_len = choices.one_of(&[0, 1, 100, BODY_MAX as u32]);
        return header.message_len as usize;
    }
    let size = match choices.byte() {
        0..64 => 1 + choices.number(1),
        _ => BODY_MAX - choices.number(1) % 4,
    } as u32;
    header.fragments = choices.one_of(&[2, 3, 8, 40, 40, 300, 12_000, u16::MAX]);
    let last = 1 + choices.number(2) as u32 % size;
    header.fragment = match choices.byte() {
        0..8 => choices.number(2) as u16,
        8..16 => header.fragments - 1,
        _ => choices.number(1) as u16 % 48,
    } % header.fragments;
    header.message_len = size * u32::from(header.fragments - 1) + last;
    let body_len = if header.fragment == header.fragments - 1 { last } else { size };
    if header.fragment == 0 {
        header.flat_len = choices.one_of(&[0, 16, 21]);
    }
    if choices.one_in(16) {
        header.message_len = header.message_len.wrapping_add(choices.number(3) as u32);
    }
    body_len as usize
}
