//! What is attached to a network interface, ours or not.

use crate::{Error, sys};
use libbpf_rs::query::{LinkInfoIter, LinkTypeInfo};
use libbpf_rs::{ProgramHandle, Xdp, XdpFlags};
use rustix::net::{AddressFamily, SocketType, netdevice, socket};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, OwnedFd};

/// Where an XDP program runs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// In the driver, before the kernel spends anything on the packet.
    #[default]
    Native,
    /// In the network stack, on any interface, slower.
    Generic,
}

impl std::fmt::Display for Mode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Mode::Native => "native",
            Mode::Generic => "generic",
        })
    }
}

/// An XDP program on an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Attached {
    /// The program's id.
    pub id: u32,
    /// The program's name, as far as we may know it.
    pub program: String,
    /// The mode in force.
    pub mode: Mode,
}

/// The interface's index.
pub(crate) fn index(interface: &str) -> Result<u32, Error> {
    let missing = || Error::NoInterface { interface: interface.to_owned() };
    // The kernel knows names of up to 15 bytes.
    if interface.is_empty() || interface.len() > 15 || interface.contains('/') {
        return Err(missing());
    }
    let query = |cause: rustix::io::Errno| Error::Query {
        operation: "find the index",
        interface: interface.to_owned(),
        cause: cause.to_string(),
    };
    let any = socket(AddressFamily::UNIX, SocketType::DGRAM, None).map_err(query)?;
    match netdevice::name_to_index(&any, interface) {
        Ok(index) => Ok(index),
        Err(rustix::io::Errno::NODEV | rustix::io::Errno::NXIO) => Err(missing()),
        Err(cause) => Err(query(cause)),
    }
}

/// What is attached to the interface, in either mode.
///
/// # Errors
/// [`Error::NoInterface`], or the kernel does not answer.
pub fn attached(interface: &str) -> Result<Option<Attached>, Error> {
    let index = index(interface)?;
    let failed = |cause: String| Error::Query {
        operation: "read the XDP programs",
        interface: interface.to_owned(),
        cause,
    };
    let nobody = nobody().map_err(|cause| failed(cause.to_string()))?;
    let found = Xdp::new(nobody.as_fd())
        .query(index as i32, XdpFlags::NONE)
        .map_err(|cause| failed(cause.to_string()))?;
    let (id, mode) = match (found.drv_prog_id, found.skb_prog_id, found.hw_prog_id) {
        (0, 0, 0) => return Ok(None),
        (0, 0, hardware) => (hardware, Mode::Native),
        (0, generic, _) => (generic, Mode::Generic),
        (native, ..) => (native, Mode::Native),
    };
    Ok(Some(Attached { id, program: program_name(id), mode }))
}

fn program_name(id: u32) -> String {
    let name = ProgramHandle::from_prog_id(id).map(|program| program.name().to_string_lossy().into_owned());
    name.ok().filter(|name| !name.is_empty()).unwrap_or_else(|| "without a name".to_owned())
}

/// Somebody else's program that was detached, so that it can come back if ours does not get attached.
#[derive(Debug)]
pub(crate) struct Displaced {
    index: u32,
    mode: Mode,
    /// `None` where a link held it: links do not come back.
    program: Option<ProgramHandle>,
}

/// Detaches a program that is not ours, whether a link holds it or not.
pub(crate) fn displace(interface: &str, foreign: &Attached) -> Result<Displaced, Error> {
    let index = index(interface)?;
    let failed = |cause: String| Error::Query {
        operation: "detach the foreign XDP program",
        interface: interface.to_owned(),
        cause,
    };
    let held = LinkInfoIter::default().find(|link| {
        link.prog_id == foreign.id && matches!(&link.info, LinkTypeInfo::Xdp(xdp) if xdp.ifindex == index)
    });
    if let Some(link) = held {
        let link = sys::link_by_id(link.id).map_err(|cause| failed(cause.to_string()))?;
        sys::link_detach(link.as_fd()).map_err(|cause| failed(cause.to_string()))?;
        return Ok(Displaced { index, mode: foreign.mode, program: None });
    }
    let program = ProgramHandle::from_prog_id(foreign.id).ok();
    let nobody = nobody().map_err(|cause| failed(cause.to_string()))?;
    Xdp::new(nobody.as_fd())
        .detach(index as i32, flags(foreign.mode))
        .map_err(|cause| failed(cause.to_string()))?;
    Ok(Displaced { index, mode: foreign.mode, program })
}

impl Displaced {
    /// Attaches it again.
    pub fn restore(self) {
        let Displaced { index, mode, program } = self;
        if let Some(program) = program {
            // Nothing better can be done if this fails too; the error that led here is what gets reported.
            drop(Xdp::new(program.as_fd()).attach(index as i32, flags(mode)));
        }
    }
}

fn flags(mode: Mode) -> XdpFlags {
    match mode {
        Mode::Native => XdpFlags::DRV_MODE,
        Mode::Generic => XdpFlags::SKB_MODE,
    }
}

/// libbpf's queries want some descriptor to be built with, and do not look at it.
fn nobody() -> std::io::Result<OwnedFd> {
    Ok(std::fs::File::open("/dev/null")?.into())
}
