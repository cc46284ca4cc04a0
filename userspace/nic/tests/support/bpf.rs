//! The smallest XDP program that serves: UDP to our port goes to the queue's socket, everything else passes. Put
//! together by hand, so that tests of this crate need neither the XDP toolchain nor a loader.

use super::PORT;
use std::{
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;
const LINK_CREATE: libc::c_long = 28;
const MAP_TYPE_XSKMAP: u32 = 17;
const PROG_TYPE_XDP: u32 = 6;
const ATTACH_TYPE_XDP: u32 = 37;
const QUEUES: u32 = 16;

/// How the program is attached.
#[derive(Clone, Copy, Debug)]
pub enum Attach {
    /// In the driver.
    Native = 1 << 2,
    /// In the network stack.
    Generic = 1 << 1,
}

/// The program on an interface; it goes when this is dropped.
pub struct Redirect {
    sockets: OwnedFd,
    _program: OwnedFd,
    _link: OwnedFd,
}

impl Redirect {
    /// Loads the program and attaches it to an interface of the calling thread's namespace.
    pub fn attach(interface: &str, attach: Attach) -> io::Result<Redirect> {
        let name = std::ffi::CString::new(interface)?;
        // SAFETY: the name ends in zero.
        let index = unsafe { libc::if_nametoindex(name.as_ptr()) };
        let sockets = bpf(
            MAP_CREATE,
            &mut Attributes::new().u32(0, MAP_TYPE_XSKMAP).u32(4, 4).u32(8, 4).u32(12, QUEUES),
        )?;
        let code = program(sockets.as_raw_fd());
        let license = c"GPL";
        let mut log = vec![0u8; 1 << 16];
        let load = Attributes::new()
            .u32(0, PROG_TYPE_XDP)
            .u32(4, code.len() as u32)
            .u64(8, code.as_ptr() as u64)
            .u64(16, license.as_ptr() as u64)
            .u32(24, 1)
            .u32(28, log.len() as u32)
            .u64(32, log.as_mut_ptr() as u64);
        let program = bpf(PROG_LOAD, &mut { load }).map_err(|error| {
            io::Error::new(
                error.kind(),
                format!("{error}: {}", String::from_utf8_lossy(&log).trim_matches('\0')),
            )
        })?;
        let link = Attributes::new()
            .u32(0, program.as_raw_fd() as u32)
            .u32(4, index)
            .u32(8, ATTACH_TYPE_XDP)
            .u32(12, attach as u32);
        let link = bpf(LINK_CREATE, &mut { link })?;
        Ok(Redirect { sockets, _program: program, _link: link })
    }

    /// Enters a socket: what the backend's `register` callback is for.
    pub fn register(&self, queue: u32, socket: BorrowedFd<'_>) -> Result<(), String> {
        let value = socket.as_raw_fd() as u32;
        let update = Attributes::new()
            .u32(0, self.sockets.as_raw_fd() as u32)
            .u64(8, std::ptr::from_ref(&queue) as u64)
            .u64(16, std::ptr::from_ref(&value) as u64);
        call(MAP_UPDATE, &mut { update }).map(|_| ()).map_err(|error| error.to_string())
    }
}

/// `union bpf_attr`.
#[repr(C, align(8))]
struct Attributes([u8; 128]);

impl Attributes {
    fn new() -> Attributes {
        Attributes([0; 128])
    }

    fn u32(mut self, at: usize, value: u32) -> Attributes {
        self.0[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        self
    }

    fn u64(mut self, at: usize, value: u64) -> Attributes {
        self.0[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        self
    }
}

fn call(command: libc::c_long, attributes: &mut Attributes) -> io::Result<i32> {
    let size = size_of::<Attributes>();
    // SAFETY: the kernel reads `size` bytes; the pointers in there lead to what the callers keep alive.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attributes, size) };
    i32::try_from(result).ok().filter(|fd| *fd >= 0).ok_or_else(io::Error::last_os_error)
}

fn bpf(command: libc::c_long, attributes: &mut Attributes) -> io::Result<OwnedFd> {
    let fd = call(command, attributes)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// One instruction.
fn op(code: u8, destination: u8, source: u8, offset: i16, immediate: i32) -> u64 {
    let [offset_low, offset_high] = offset.to_le_bytes();
    let [a, b, c, d] = immediate.to_le_bytes();
    u64::from_le_bytes([code, source << 4 | destination, offset_low, offset_high, a, b, c, d])
}

/// ```text
/// data = ctx->data; end = ctx->data_end;
/// if data + 42 > end || ethertype != IPv4 goto six
/// if protocol != UDP || port != ours goto pass
/// redirect: return bpf_redirect_map(&sockets, ctx->rx_queue_index, XDP_PASS)
/// six: the same for IPv6
/// pass: return XDP_PASS
/// ```
fn program(sockets: i32) -> Vec<u64> {
    const LOAD_W: u8 = 0x61;
    const LOAD_H: u8 = 0x69;
    const LOAD_B: u8 = 0x71;
    const MOVE: u8 = 0xbf;
    const MOVE_IMMEDIATE: u8 = 0xb7;
    const ADD: u8 = 0x07;
    const GREATER: u8 = 0x2d;
    const NOT_EQUAL: u8 = 0x55;
    const EQUAL: u8 = 0x15;
    const CALL: u8 = 0x85;
    const EXIT: u8 = 0x95;
    const REDIRECT_MAP: i32 = 51;
    const XDP_PASS: i32 = 2;
    let port = i32::from(PORT.to_be());
    vec![
        op(LOAD_W, 6, 1, 0, 0),
        op(LOAD_W, 7, 1, 4, 0),
        op(LOAD_W, 2, 1, 16, 0),
        op(MOVE, 8, 6, 0, 0),
        op(ADD, 8, 0, 0, 42),
        op(GREATER, 8, 7, 18, 0), // -> pass
        op(LOAD_H, 3, 6, 12, 0),
        op(NOT_EQUAL, 3, 0, 9, 0x0008), // -> six
        op(LOAD_B, 3, 6, 23, 0),
        op(NOT_EQUAL, 3, 0, 14, 17), // -> pass
        op(LOAD_H, 3, 6, 36, 0),
        op(NOT_EQUAL, 3, 0, 12, port), // -> pass
        // redirect:
        op(0x18, 1, 1, 0, sockets),
        op(0, 0, 0, 0, 0),
        op(MOVE_IMMEDIATE, 3, 0, 0, XDP_PASS),
        op(CALL, 0, 0, 0, REDIRECT_MAP),
        op(EXIT, 0, 0, 0, 0),
        // six:
        op(NOT_EQUAL, 3, 0, 6, 0xdd86), // -> pass
        op(ADD, 8, 0, 0, 20),
        op(GREATER, 8, 7, 4, 0), // -> pass
        op(LOAD_B, 3, 6, 20, 0),
        op(NOT_EQUAL, 3, 0, 2, 17), // -> pass
        op(LOAD_H, 3, 6, 56, 0),
        op(EQUAL, 3, 0, -12, port), // -> redirect
        // pass:
        op(MOVE_IMMEDIATE, 0, 0, 0, XDP_PASS),
        op(EXIT, 0, 0, 0, 0),
    ]
}
