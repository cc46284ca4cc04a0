//! Loads and attaches the XDP programs, owns their pins, swaps policies and reads counters.
//!
//! Everything of an interface lives below one bpffs directory: maps, link and programs. The kernel keeps it running
//! without any process of ours, so a daemon's death does not open the firewall, and any process may [`Interface::open`]
//! it again.
//!
//! Not here: what policies mean (they come as ready objects), AF_XDP sockets themselves, and the daemon.

mod attach;
mod bench;
mod bpffs;
mod capability;
mod device;
mod error;
mod interface;
mod load;
mod maps;
mod object;
mod own;
mod paths;
mod policy;
mod recover;
mod sessions;
mod state;
mod sys;
mod tables;
mod verify;

pub use attach::{AttachOptions, DEFAULT_PORTS};
pub use bench::{Bench, Ran};
pub use capability::missing_capabilities;
pub use device::{Attached, Mode, attached};
pub use error::Error;
pub use interface::{Interface, Status, clean};
pub use own::DecisionsMap;
pub use paths::Paths;
pub use policy::{NewPolicy, Prepared, TableInfo};
pub use state::State;
pub use tables::{Entry, Table};
pub use verify::{ProgramReport, verify};
