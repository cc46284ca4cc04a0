//! Tollfree's wire format, normatively described in [`WIRE.md`](https://github.com/tollfree/tollfree/blob/main/userspace/wire/WIRE.md).
//!
//! One decoder serves the XDP programs, the engine and the tests: what the kernel accepts and what user space
//! accepts cannot drift apart. Also here: everything both sides of the kernel boundary must lay out alike, such as
//! map names, keys and values.
//!
//! Not here: I/O, clocks, allocation. Nothing in this crate panics on any input.
#![no_std]
#![cfg_attr(target_arch = "bpf", feature(asm_experimental_arch))]

#[cfg(target_endian = "big")]
compile_error!("Tollfree packets are little-endian and read in place; big-endian hosts are not supported");

#[cfg(any(test, feature = "std"))]
extern crate std;

pub mod checksum;
pub mod code;
pub mod cursor;
pub mod flat;
pub mod frame;
pub mod header;
pub mod maps;
pub mod metadata;
pub mod reason;
pub mod replay;
pub mod session;
pub mod spec;
pub mod tag;

pub use code::Code;
pub use cursor::Cursor;
pub use frame::{Frame, Refusal};
pub use header::{Header, Kind, Packet};
pub use metadata::Metadata;
pub use reason::Reason;
pub use replay::Replay;
pub use session::SessionEntry;
