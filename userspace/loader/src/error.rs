//! What can go wrong with an interface's programs, in sentences that a person can act on.

use crate::Mode;
use std::path::PathBuf;

/// Why an operation failed. Nothing was changed unless the text says so.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No such interface in this network namespace.
    #[error("there is no network interface {interface}; `ip link` lists those there are")]
    NoInterface {
        /// The name asked for.
        interface: String,
    },
    /// The process may not do this.
    #[error(
        "attaching to {interface} needs {}, which this process lacks: run it as root or grant it; backend = \"udp\" works without",
        capabilities.join(", ")
    )]
    Capability {
        /// The interface asked for.
        interface: String,
        /// The capabilities that are missing, by name.
        capabilities: Vec<&'static str>,
    },
    /// The driver cannot run XDP itself.
    #[error(
        "the driver of {interface} does not run XDP programs (native mode); ask for mode generic, which is slower, or use another interface"
    )]
    NoNative {
        /// The interface.
        interface: String,
    },
    /// The driver runs XDP, but not at this MTU.
    #[error(
        "the MTU of {interface} or of its peer is too large for native XDP; lower it (veth: 3506 at most) or ask for mode generic"
    )]
    Mtu {
        /// The interface.
        interface: String,
    },
    /// Somebody else's program is attached.
    #[error(
        "{interface} already runs the XDP program {program} (id {id}), which is not Tollfree's; detach it first, or use --force to replace it"
    )]
    Foreign {
        /// The interface.
        interface: String,
        /// The program's name.
        program: String,
        /// The program's id in the kernel.
        id: u32,
    },
    /// Our programs are attached in another mode, which a link cannot change.
    #[error("{interface} is attached in {current} mode; detach it before attaching in {wanted} mode")]
    OtherMode {
        /// The interface.
        interface: String,
        /// The mode in force.
        current: Mode,
        /// The mode asked for.
        wanted: Mode,
    },
    /// The pins are another interface's.
    #[error("{path} belongs to an interface {interface} in another network namespace, or somebody replaced its program; use another bpffs directory, or run `tollfree clean` first", path = path.display())]
    OtherNamespace {
        /// The interface.
        interface: String,
        /// Its pins.
        path: PathBuf,
    },
    /// The kernel did not attach the program.
    #[error("cannot attach to {interface} in {mode} mode: {cause}")]
    Attach {
        /// The interface.
        interface: String,
        /// The mode asked for.
        mode: Mode,
        /// The kernel's or the library's words.
        cause: String,
    },
    /// Nothing of ours is attached there.
    #[error("Tollfree is not attached to {interface}")]
    NotAttached {
        /// The interface.
        interface: String,
    },
    /// A pin left by something else, or by another version.
    #[error("the pinned map {path} has {found}, but {wanted} is needed: another version left it; detach and attach again, or run `tollfree clean`", path = path.display())]
    PinMismatch {
        /// The pin.
        path: PathBuf,
        /// What it is.
        found: String,
        /// What it should be.
        wanted: String,
    },
    /// The object has no such program or map, or cannot be parsed.
    #[error("{object} is not usable: {cause}")]
    Object {
        /// Which object.
        object: String,
        /// What is wrong with it.
        cause: String,
    },
    /// The kernel refused a program.
    #[error("the kernel refused {program}: {cause}\n{log}")]
    Verifier {
        /// The program.
        program: String,
        /// The system call's error.
        cause: String,
        /// The verifier's whole log.
        log: String,
    },
    /// No such table in the policy in force.
    #[error("the policy on {interface} has no table {table}; it has {}", list(known))]
    NoTable {
        /// The interface.
        interface: String,
        /// The name asked for.
        table: String,
        /// The tables there are.
        known: Vec<String>,
    },
    /// A key or value of the wrong length.
    #[error("a {part} of table {table} has {wanted} bytes, not {found}")]
    Size {
        /// The table.
        table: String,
        /// `key` or `value`.
        part: &'static str,
        /// Bytes it must have.
        wanted: u32,
        /// Bytes given.
        found: usize,
    },
    /// A counter was to be set.
    #[error("table {table} is a counter, which policies only add to; delete its entry to start again at 0")]
    Counter {
        /// The table.
        table: String,
    },
    /// A cell was to be deleted.
    #[error("{table} is a cell, which always has a value; set it instead")]
    Cell {
        /// The cell.
        table: String,
    },
    /// A map operation failed.
    #[error("cannot {operation} map {map} of {interface}: {cause}")]
    Map {
        /// `read`, `update` and so on.
        operation: &'static str,
        /// The map.
        map: String,
        /// The interface.
        interface: String,
        /// The library's words.
        cause: String,
    },
    /// The BPF file system cannot be had.
    #[error("cannot mount the BPF file system on {path}: {cause}; mount it yourself: mount -t bpf bpf {path}", path = path.display())]
    Bpffs {
        /// Where it was to be.
        path: PathBuf,
        /// The system's error.
        cause: std::io::Error,
    },
    /// A file operation failed.
    #[error("cannot {operation} {path}: {cause}", path = path.display())]
    File {
        /// `create`, `remove` and so on.
        operation: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        cause: std::io::Error,
    },
    /// The kernel did not answer a question about the interface.
    #[error("cannot {operation} of {interface}: {cause}")]
    Query {
        /// `read the XDP programs` and so on.
        operation: &'static str,
        /// The interface.
        interface: String,
        /// The system's or library's words.
        cause: String,
    },
}

impl Error {
    /// For `map_err` on file operations.
    pub(crate) fn file(
        operation: &'static str,
        path: &std::path::Path,
    ) -> impl FnOnce(std::io::Error) -> Error {
        move |cause| Error::File { operation, path: path.to_owned(), cause }
    }
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// An error with everything that caused it, on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        cause = error.source();
    }
    text
}
