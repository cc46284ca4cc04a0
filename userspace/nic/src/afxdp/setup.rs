//! Setting a socket up: limits raised where the kernel lets us, and what its refusals mean.

use super::Binding;
use crate::Error;
use rustix::io::Errno;
use xdp::socket::{OptName, SocketError};

/// `XDP_MAX_TX_SKB_BUDGET`, which `libc` does not have yet (Linux 6.17).
const XDP_MAX_TX_SKB_BUDGET: libc::c_int = 9;

/// Lets one system call send a whole ring of packets. Kernels before 6.17 cannot; then it takes several calls.
pub fn raise_budget(socket: libc::c_int, budget: u32) {
    // SAFETY: the option's value is `budget`, whose size is given.
    let _ = unsafe {
        libc::setsockopt(
            socket,
            libc::SOL_XDP,
            XDP_MAX_TX_SKB_BUDGET,
            std::ptr::from_ref(&budget).cast(),
            size_of::<u32>() as libc::socklen_t,
        )
    };
}

/// Says what a failure to set a socket up means.
pub fn refusal(interface: &str, queue: u32, binding: Binding, error: SocketError) -> Error {
    let interface = interface.to_owned();
    let privilege = |interface, capability, operation| Error::Privilege { interface, capability, operation };
    let setup = |interface, operation, problem| Error::Setup { interface, queue, operation, problem };
    match error {
        SocketError::SocketCreation(source) => match Errno::from_io_error(&source) {
            Some(Errno::PERM | Errno::ACCESS) => privilege(interface, "CAP_NET_RAW", "open a socket"),
            Some(Errno::AFNOSUPPORT) => {
                let problem =
                    "this kernel is built without AF_XDP (CONFIG_XDP_SOCKETS); use `backend = \"udp\"`";
                setup(interface, "open a socket", problem.into())
            }
            _ => setup(interface, "open a socket", source.to_string()),
        },
        SocketError::SetSockOpt { inner, option: OptName::UmemRegion } => {
            match Errno::from_io_error(&inner) {
                Some(Errno::PERM | Errno::NOBUFS) => {
                    privilege(interface, "CAP_IPC_LOCK (or a higher `ulimit -l`)", "lock the packet memory")
                }
                _ => setup(interface, "register the packet memory", inner.to_string()),
            }
        }
        SocketError::SetSockOpt { inner, option } | SocketError::GetSockOpt { inner, option } => {
            setup(interface, "set up the rings", format!("{option:?}: {inner}"))
        }
        SocketError::RingMap { inner, ring } => setup(interface, "map a ring", format!("{ring:?}: {inner}")),
        SocketError::Bind(source) => match Errno::from_io_error(&source) {
            Some(Errno::BUSY) => Error::Busy { interface, queue },
            Some(Errno::PERM | Errno::ACCESS) => privilege(interface, "CAP_NET_RAW", "bind to a queue"),
            Some(Errno::OPNOTSUPP | Errno::NOTSUP) if binding == Binding::ZeroCopy => {
                Error::ZeroCopy { interface }
            }
            Some(Errno::NETDOWN) => Error::Down { interface },
            Some(Errno::INVAL) => setup(
                interface,
                "bind",
                "the interface has no such queue (`ethtool -l` shows how many)".into(),
            ),
            _ => setup(interface, "bind", source.to_string()),
        },
    }
}
