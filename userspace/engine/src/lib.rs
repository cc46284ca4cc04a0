//! The engine: one poll loop that ties application rings, policy, transport and a packet backend together.
//!
//! A turn of the loop takes a bounded amount of work from every side: descriptors from each application, packets from
//! the NIC, timers, commands. Nothing in a turn blocks, and in the steady state nothing allocates; when there is
//! nothing to do the loop spins briefly, then yields, then sleeps until a file descriptor or a timer wakes it.
//!
//! What the parts know of each other: `transport` holds sessions and calls as numbers, `ring` holds bytes, `nic` holds
//! frames. The engine maps one's tokens to the other's spans. Not here: sockets for control, files, eBPF. The owner of
//! the engine speaks to it through a [`Handle`], and it mirrors sessions to the kernel through a [`Driver`].
#![forbid(unsafe_code)]

mod accepted;
mod answers;
mod apps;
mod arrive;
mod bindings;
mod body;
mod calls;
mod carriage;
mod clients;
mod command;
mod config;
mod core;
mod delay;
mod driver;
mod ending;
mod exchange;
mod frames;
mod gate;
mod hosting;
mod identity;
mod inbound;
mod local;
mod log;
mod outbound;
mod poll;
mod remote;
#[cfg(test)]
mod simulation;
mod slab;
mod streams;
mod verdict;
mod wait;
mod window;

pub use apps::AppId;
pub use carriage::TooMany;
pub use command::{
    AppStatus, Attach, Command, Gone, Handle, Reply, SessionStatus, Side, Status, Stopped, TablesFn,
};
pub use config::{Config, Waiting};
pub use driver::{Driver, NoDriver};
pub use gate::{Below, Policy, Written};
pub use identity::{Identities, Identity, Network};
pub use poll::{Engine, Error};
