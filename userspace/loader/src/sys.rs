//! The two BPF commands that neither library offers: getting hold of another process's link and detaching it.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const BPF_LINK_GET_FD_BY_ID: libc::c_long = 30;
const BPF_LINK_DETACH: libc::c_long = 34;

/// The head of `union bpf_attr` as far as these commands read it.
#[repr(C)]
struct Attributes {
    first: u32,
    rest: [u32; 3],
}

fn bpf(command: libc::c_long, first: u32) -> io::Result<libc::c_long> {
    let attributes = Attributes { first, rest: [0; 3] };
    // SAFETY: the kernel reads as many bytes of the struct as it is told, and writes none for these commands.
    let result =
        unsafe { libc::syscall(libc::SYS_bpf, command, &raw const attributes, size_of::<Attributes>()) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Opens the link with this id.
pub(crate) fn link_by_id(id: u32) -> io::Result<OwnedFd> {
    let fd = bpf(BPF_LINK_GET_FD_BY_ID, id)?;
    // SAFETY: the kernel has just made this descriptor for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Detaches a link, whoever else holds it.
pub(crate) fn link_detach(link: BorrowedFd<'_>) -> io::Result<()> {
    bpf(BPF_LINK_DETACH, link.as_raw_fd() as u32).map(|_| ())
}
