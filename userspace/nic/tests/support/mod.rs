//! What tests and measurements of AF_XDP need around them: two network namespaces with a veth pair between them, and
//! an XDP program that hands our packets over. No files, no names that outlive the process.

pub mod bpf;
pub mod net;

/// Packets to this UDP port are ours.
pub const PORT: u16 = 7400;
