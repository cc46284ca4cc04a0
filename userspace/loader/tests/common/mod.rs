//! A network namespace with a veth pair and a bpffs directory of its own per test, and running programs on packets.
#![expect(dead_code, unreachable_pub, reason = "each test file uses a part of it")]

pub mod packet;

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use tollfree_loader::{AttachOptions, Interface, Mode, Paths, TableInfo, clean, missing_capabilities};
use tollfree_wire::frame::Ports;

/// The interface that tests attach to; its peer is `tf1`.
pub const IFACE: &str = "tf0";
/// Tollfree's port in the tests.
pub const PORT: u16 = 7400;
pub const PORTS: Ports = Ports { first: PORT, count: 16 };

/// What a test has to itself. Dropping it leaves nothing behind.
pub struct Sandbox {
    pub paths: Paths,
    pub object: PathBuf,
    _state: tempfile::TempDir,
    _namespace: Namespace,
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        if let Err(error) = clean(&self.paths) {
            eprintln!("{error}");
        }
    }
}

/// A network namespace without a name, so that no other process's `ip netns` can get in the way (aya's guard gives it
/// one). It ends with the last that is in it.
struct Namespace {
    before: std::fs::File,
}

impl Namespace {
    fn enter() -> std::io::Result<Namespace> {
        let before = std::fs::File::open("/proc/thread-self/ns/net")?;
        // SAFETY: changes the network that this thread sees, and no descriptors.
        unsafe { rustix::thread::unshare_unsafe(rustix::thread::UnshareFlags::NEWNET) }?;
        Ok(Namespace { before })
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let network = Some(rustix::thread::LinkNameSpaceType::Network);
        if let Err(error) = rustix::thread::move_into_link_name_space(self.before.as_fd(), network) {
            eprintln!("cannot leave the test's network namespace: {error}");
        }
    }
}

/// A file below `target/ebpf`.
pub fn built(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target/ebpf").join(name)
}

/// A sandbox, or `None` and the printed reason for skipping the test.
pub fn sandbox() -> Option<Sandbox> {
    static COUNTER: AtomicU32 = AtomicU32::new(0);
    let missing = missing_capabilities();
    let object = built("tollfree.bpf.o");
    let reason = if !rustix::process::geteuid().is_root() {
        "needs root".to_owned()
    } else if !missing.is_empty() {
        format!("needs {}", missing.join(", "))
    } else if !object.exists() {
        "target/ebpf/tollfree.bpf.o is missing; run cargo xtask build-ebpf".to_owned()
    } else {
        match Namespace::enter() {
            Ok(namespace) => {
                // The kernel's own router solicitations would be counted among the test's packets.
                std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1")
                    .expect("IPv6 is switched off");
                for arguments in [
                    "link add tf0 type veth peer name tf1",
                    "addr add 10.77.0.2/24 dev tf0",
                    "link set tf0 up",
                    "link set tf1 up",
                ] {
                    ip(arguments);
                }
                let number = COUNTER.fetch_add(1, Ordering::Relaxed);
                let bpffs = format!("/sys/fs/bpf/tollfree-test-{}-{number}", std::process::id());
                let state = tempfile::tempdir().expect("a temporary directory");
                let paths = Paths { bpffs: bpffs.into(), state: state.path().to_owned() };
                return Some(Sandbox { paths, object, _state: state, _namespace: namespace });
            }
            Err(error) => format!("needs a network namespace: {error}"),
        }
    };
    println!("skipped: {reason}");
    None
}

/// Runs `ip` in the test's namespace.
pub fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("ip (iproute2) starts");
    assert!(status.success(), "ip {arguments}");
}

impl Sandbox {
    pub fn options(&self, mode: Mode) -> AttachOptions<'_> {
        AttachOptions { mode, force: false, ports: PORTS, object: &self.object }
    }

    pub fn attach(&self) -> Interface {
        Interface::attach(&self.paths, IFACE, self.options(Mode::Native)).expect("attaches")
    }

    /// One of our pinned programs.
    pub fn program(&self, name: &str) -> Program {
        Program::pinned(&self.paths.bpffs.join(IFACE).join(name))
    }
}

/// The test policy's object and tables.
pub fn test_policy() -> (Vec<u8>, Vec<TableInfo>) {
    (object("test-policy.bpf.o"), vec![rules(4)])
}

/// The same with a table of another type, a cell, a counter, a generation and something decided per session.
pub fn wide_policy() -> (Vec<u8>, Vec<TableInfo>) {
    let cell = |name: &str, initial: &[u8]| TableInfo {
        name: name.into(),
        key_size: 4,
        value_size: 8,
        capacity: 1,
        initial: initial.to_vec(),
        ..TableInfo::default()
    };
    let tables = vec![rules(8), cell("limit", &5u64.to_le_bytes()), cell("calls", &[])];
    (object("test-policy-wide.bpf.o"), tables)
}

fn object(name: &str) -> Vec<u8> {
    std::fs::read(built(name)).expect("built along with tollfree.bpf.o")
}

fn rules(value_size: u32) -> TableInfo {
    TableInfo { name: "rules".into(), key_size: 4, value_size, capacity: 16, ..TableInfo::default() }
}

/// The object with every `exit` made an instruction that does not exist: it opens, but the verifier refuses it.
pub fn corrupted(mut object: Vec<u8>) -> Vec<u8> {
    const EXIT: [u8; 8] = [0x95, 0, 0, 0, 0, 0, 0, 0];
    for instruction in object.chunks_exact_mut(8).filter(|instruction| *instruction == EXIT) {
        instruction[0] = 0xff;
    }
    object
}

/// An AF_XDP socket that is bound to nothing: enough for the redirect to count as possible.
pub fn xdp_socket() -> OwnedFd {
    // SAFETY: a system call without pointers.
    let fd = unsafe { libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    assert!(fd >= 0, "AF_XDP socket: {}", std::io::Error::last_os_error());
    // SAFETY: the kernel has just made this descriptor for us.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// A program in the kernel that packets can be tried on.
pub struct Program(OwnedFd);

/// `BPF_PROG_TEST_RUN`'s part of `union bpf_attr`.
#[repr(C)]
#[derive(Default)]
struct TestRun {
    program: u32,
    result: u32,
    data_size_in: u32,
    data_size_out: u32,
    data_in: u64,
    data_out: u64,
    repeat: u32,
    duration: u32,
    context: [u64; 3],
    flags: u32,
    cpu: u32,
    batch: u32,
    reserved: u32,
}

impl Program {
    pub fn pinned(path: &Path) -> Program {
        let path = std::ffi::CString::new(path.to_str().expect("UTF-8")).expect("no NUL");
        let attributes: [u64; 3] = [path.as_ptr() as u64, 0, 0];
        const BPF_OBJ_GET: libc::c_long = 7;
        // SAFETY: the kernel reads the attributes and the path, which both outlive the call.
        let fd = unsafe {
            libc::syscall(libc::SYS_bpf, BPF_OBJ_GET, &raw const attributes, size_of_val(&attributes))
        };
        assert!(fd >= 0, "{path:?}: {}", std::io::Error::last_os_error());
        // SAFETY: the kernel has just made this descriptor for us.
        Program(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }

    /// Runs it on a frame; returns the action and the frame afterwards.
    pub fn run(&self, frame: &[u8]) -> (Action, Vec<u8>) {
        let (attributes, out) = self.repeat(frame, 1);
        (action(&attributes), out)
    }

    /// Runs it on a frame so many times, each time on what the time before has left; returns the last action and ns per
    /// run.
    pub fn timed(&self, frame: &[u8], runs: u32) -> (Action, u32) {
        let (attributes, _) = self.repeat(frame, runs);
        (action(&attributes), attributes.duration)
    }

    fn repeat(&self, frame: &[u8], repeat: u32) -> (TestRun, Vec<u8>) {
        const BPF_PROG_TEST_RUN: libc::c_long = 10;
        let mut out = vec![0u8; frame.len() + 256];
        let mut attributes = TestRun {
            program: self.0.as_raw_fd() as u32,
            data_size_in: frame.len() as u32,
            data_size_out: out.len() as u32,
            data_in: frame.as_ptr() as u64,
            data_out: out.as_mut_ptr() as u64,
            repeat,
            ..TestRun::default()
        };
        // SAFETY: the kernel reads and writes the attributes and both buffers within the sizes given.
        let result = unsafe {
            libc::syscall(libc::SYS_bpf, BPF_PROG_TEST_RUN, &raw mut attributes, size_of::<TestRun>())
        };
        assert_eq!(result, 0, "BPF_PROG_TEST_RUN: {}", std::io::Error::last_os_error());
        out.truncate(attributes.data_size_out as usize);
        (attributes, out)
    }
}

fn action(ran: &TestRun) -> Action {
    match ran.result {
        1 => Action::Drop,
        2 => Action::Pass,
        3 => Action::Tx,
        4 => Action::Redirect,
        other => panic!("XDP action {other}"),
    }
}

/// What a program decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Drop,
    Pass,
    Tx,
    Redirect,
}
