//! `tollfree check`: everything that has to be right on a host, one line each, with what to do where it is not.

use crate::args::Check;
use crate::daemon::config::{Backend, Config, XdpMode};
use crate::exit::Exit;
use crate::netdev::Features;
use crate::output::{Show, count};
use crate::paths::Places;
use crate::{interfaces, paths, privilege};
use anyhow::Result;
use rustix::fs::{StatVfsMountFlags, statfs};
use rustix::process::{Resource, getrlimit};
use serde::Serialize;
use std::net::UdpSocket;
use std::path::Path;

/// Oldest kernel on which the programs are known to verify.
const KERNEL_OLDEST: (u32, u32) = (6, 1);
/// `BPF_FS_MAGIC`
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
/// The largest MTU at which a veth runs native XDP.
const VETH_MTU_MAX: u32 = 3506;
/// Locked memory that one queue's packet buffers take without CAP_IPC_LOCK, in bytes.
const MEMLOCK_WANTED: u64 = 64 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Ok,
    Warning,
    Failed,
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct Finding {
    /// `common`, or the backend that needs it.
    scope: &'static str,
    check: &'static str,
    verdict: Verdict,
    found: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<String>,
}

#[derive(Debug, Serialize)]
struct Report {
    /// Whether the backend asked for can run here; `udp` where none was.
    ok: bool,
    udp: bool,
    afxdp: bool,
    checks: Vec<Finding>,
}

/// Runs every check. Fails where the backend that the configuration or `--iface` asks for cannot run.
pub fn run(check: &Check, places: &Places) -> Result<()> {
    let Check { interface, config, object, output } = check;
    let config = config.as_deref().map(Config::read).transpose()?;
    let interface = interface.clone().or_else(|| config.as_ref()?.interface.clone());
    let object = object.as_deref().or_else(|| config.as_ref()?.object.as_deref());

    let mut checks = vec![kernel(), state_directory(places)];
    checks.push(udp_port(config.as_ref()));
    checks.extend([capabilities(), bpffs(), jit(), memlock(), af_xdp(), programs(object)]);
    if let Some(name) = &interface {
        let generic = config.as_ref().is_some_and(|config| config.mode == XdpMode::Generic);
        checks.extend(interface_checks(name, generic));
    }

    let works = |scopes: &[&str]| {
        !checks.iter().any(|finding| scopes.contains(&finding.scope) && finding.verdict == Verdict::Failed)
    };
    let (udp, afxdp) = (works(&["common", "udp"]), works(&["common", "afxdp"]));
    let wants_afxdp =
        interface.is_some() || config.as_ref().is_some_and(|config| config.backend == Backend::Afxdp);
    let report = Report { ok: if wants_afxdp { afxdp } else { udp }, udp, afxdp, checks };
    output.print(&report)?;
    if report.ok { Ok(()) } else { Err(Exit::Reported.into()) }
}

impl Show for Report {
    fn text(&self) -> String {
        let mut text = String::new();
        for (scope, title) in [("common", "this host"), ("udp", "backend udp"), ("afxdp", "backend afxdp")] {
            text.push_str(&format!("{title}\n"));
            for finding in self.checks.iter().filter(|finding| finding.scope == scope) {
                let mark = match finding.verdict {
                    Verdict::Ok => "√",
                    Verdict::Warning => "‼",
                    Verdict::Failed => "×",
                };
                text.push_str(&format!("  {mark} {}: {}\n", finding.check, finding.found));
                if let Some(hint) = &finding.hint {
                    text.push_str(&format!("      hint: {hint}\n"));
                }
            }
        }
        let says = |works: bool| if works { "can run" } else { "cannot run" };
        text.push_str(&format!("\nbackend udp {}, backend afxdp {}\n", says(self.udp), says(self.afxdp)));
        text
    }
}

fn finding(scope: &'static str, check: &'static str, verdict: Verdict, found: impl Into<String>) -> Finding {
    Finding { scope, check, verdict, found: found.into(), hint: None }
}

impl Finding {
    fn hint(self, hint: impl Into<String>) -> Finding {
        Finding { hint: Some(hint.into()), ..self }
    }
}

fn kernel() -> Finding {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    let version: (u32, u32) = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    if version >= KERNEL_OLDEST {
        return finding("common", "kernel", Verdict::Ok, release);
    }
    let (major, minor) = KERNEL_OLDEST;
    finding("common", "kernel", Verdict::Warning, release)
        .hint(format!("the XDP programs are tested on {major}.{minor} and newer; backend udp does not mind"))
}

fn state_directory(places: &Places) -> Finding {
    let path = &places.state;
    // The nearest directory that exists is where the missing ones would be made.
    let existing = path.ancestors().find(|ancestor| ancestor.exists()).unwrap_or(Path::new("/"));
    let writable = rustix::fs::access(existing, rustix::fs::Access::WRITE_OK).is_ok();
    let found = path.display().to_string();
    match writable {
        true => finding("common", "state directory", Verdict::Ok, format!("{found} is writable")),
        false => finding("common", "state directory", Verdict::Failed, format!("{found} is not writable"))
            .hint("run as root, or name a directory of yours with --state-dir or `state_dir`"),
    }
}

fn udp_port(config: Option<&Config>) -> Finding {
    let listen = config.map_or_else(|| Config::default().listen(), Config::listen);
    match UdpSocket::bind(listen) {
        Ok(_) => finding("udp", "port", Verdict::Ok, format!("{listen} is free")),
        Err(error) => finding("udp", "port", Verdict::Warning, format!("{listen}: {error}"))
            .hint("a running daemon holds its port; another program's can be avoided with `listen`"),
    }
}

fn capabilities() -> Finding {
    let missing = privilege::missing(privilege::AFXDP);
    if missing.is_empty() {
        let held: Vec<&str> = privilege::AFXDP.iter().map(|capability| capability.name()).collect();
        return finding("afxdp", "capabilities", Verdict::Ok, held.join(", "));
    }
    finding("afxdp", "capabilities", Verdict::Failed, format!("{} missing", missing.join(", ")))
        .hint("run as root, or grant them: setcap cap_net_admin,cap_bpf,cap_perfmon,cap_net_raw+ep $(command -v tollfree)")
}

fn bpffs() -> Finding {
    let mount = Path::new("/sys/fs/bpf");
    match statfs(mount) {
        Ok(found) if i128::from(found.f_type) & 0xffff_ffff == i128::from(BPF_FS_MAGIC) => {
            let read_only = rustix::fs::statvfs(mount)
                .is_ok_and(|found| found.f_flag.contains(StatVfsMountFlags::RDONLY));
            match read_only {
                false => finding("afxdp", "bpffs", Verdict::Ok, format!("mounted on {}", mount.display())),
                true => {
                    finding("afxdp", "bpffs", Verdict::Failed, format!("{} is read-only", mount.display()))
                        .hint(format!("mount -o remount,rw {}", mount.display()))
                }
            }
        }
        _ if rustix::process::geteuid().is_root() => {
            finding("afxdp", "bpffs", Verdict::Ok, "not mounted; `tollfree iface attach` mounts it")
        }
        _ => finding("afxdp", "bpffs", Verdict::Failed, format!("not mounted on {}", mount.display()))
            .hint(format!("as root: mount -t bpf bpf {}", mount.display())),
    }
}

fn jit() -> Finding {
    match std::fs::read_to_string("/proc/sys/net/core/bpf_jit_enable") {
        Ok(text) if text.trim() == "0" => finding("afxdp", "BPF JIT", Verdict::Warning, "off")
            .hint("XDP programs are interpreted; as root: sysctl net.core.bpf_jit_enable=1"),
        Ok(_) => finding("afxdp", "BPF JIT", Verdict::Ok, "on"),
        Err(_) => finding("afxdp", "BPF JIT", Verdict::Ok, "not to be seen from here"),
    }
}

fn memlock() -> Finding {
    let lock = rustix::thread::CapabilitySet::IPC_LOCK;
    if rustix::thread::capabilities(None).is_ok_and(|sets| sets.effective.contains(lock)) {
        return finding("afxdp", "locked memory", Verdict::Ok, "not limited (CAP_IPC_LOCK)");
    }
    match getrlimit(Resource::Memlock).current {
        None => finding("afxdp", "locked memory", Verdict::Ok, "not limited"),
        Some(bytes) if bytes >= MEMLOCK_WANTED => {
            finding("afxdp", "locked memory", Verdict::Ok, format!("{} MiB", bytes >> 20))
        }
        Some(bytes) => finding("afxdp", "locked memory", Verdict::Warning, format!("{} KiB", bytes >> 10))
            .hint("packet buffers may not fit; raise it (ulimit -l unlimited), grant CAP_IPC_LOCK, or lower `frames`"),
    }
}

fn af_xdp() -> Finding {
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
    match socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None) {
        Ok(_) => finding("afxdp", "AF_XDP sockets", Verdict::Ok, "the kernel has them"),
        Err(rustix::io::Errno::PERM | rustix::io::Errno::ACCESS) => {
            finding("afxdp", "AF_XDP sockets", Verdict::Failed, "not allowed").hint("grant CAP_NET_RAW")
        }
        Err(error) => finding("afxdp", "AF_XDP sockets", Verdict::Failed, error.to_string())
            .hint("this kernel is built without CONFIG_XDP_SOCKETS"),
    }
}

fn programs(object: Option<&Path>) -> Finding {
    let path = match paths::object(object) {
        Ok(path) => path,
        Err(error) => {
            return finding("afxdp", "XDP programs", Verdict::Failed, "not found").hint(error.to_string());
        }
    };
    if !privilege::missing(privilege::ATTACH).is_empty() {
        let found = format!("{} (not loaded: no privilege)", path.display());
        return finding("afxdp", "XDP programs", Verdict::Ok, found);
    }
    let reports = match std::fs::read(&path) {
        Ok(bytes) => tollfree_loader::verify(&[(path.display().to_string(), bytes)]),
        Err(error) => {
            let found = format!("{}: {error}", path.display());
            return finding("afxdp", "XDP programs", Verdict::Failed, found);
        }
    };
    match reports.iter().find(|report| !report.ok) {
        None => {
            let programs = reports.iter().filter(|report| report.loader == "aya").count() as u64;
            let found = format!("{}: the kernel takes {}", path.display(), count(programs, "program"));
            finding("afxdp", "XDP programs", Verdict::Ok, found)
        }
        Some(report) => {
            let found = format!("{}: the kernel refuses {}", path.display(), report.name);
            finding("afxdp", "XDP programs", Verdict::Failed, found).hint(
                "`tollfree program verify` shows the verifier's log; `cargo xtask build-ebpf` builds anew",
            )
        }
    }
}

fn interface_checks(name: &str, generic: bool) -> Vec<Finding> {
    if let Err(error) = interfaces::require(name) {
        return vec![finding("afxdp", "interface", Verdict::Failed, error.to_string())];
    }
    let mut findings = Vec::new();
    let state = interfaces::attribute(name, "operstate").unwrap_or_else(|| "state unknown".into());
    let mut found = format!("{name}, {state}");
    if let Some(queues) = interfaces::receive_queues(name) {
        found.push_str(&format!(", {}", count(queues as u64, "receive queue")));
    }
    findings.push(match state.as_str() {
        "down" => {
            finding("afxdp", "interface", Verdict::Failed, found).hint(format!("ip link set {name} up"))
        }
        _ => finding("afxdp", "interface", Verdict::Ok, found),
    });
    findings.push(native(name, generic));
    if let Some(finding) = mtu(name, generic) {
        findings.push(finding);
    }
    findings.push(foreign(name));
    findings
}

fn native(name: &str, generic: bool) -> Finding {
    match Features::of(interfaces::index(name).unwrap_or(0)) {
        Ok(features) if features.native() => {
            let copies = if features.zero_copy() { "AF_XDP without copies" } else { "AF_XDP with copies" };
            finding("afxdp", "native XDP", Verdict::Ok, format!("{name}'s driver has it, {copies}"))
        }
        Ok(_) if generic => finding(
            "afxdp",
            "native XDP",
            Verdict::Ok,
            format!("{name}'s driver has none; generic mode is asked for"),
        ),
        Ok(_) => finding("afxdp", "native XDP", Verdict::Failed, format!("{name}'s driver has none"))
            .hint("set mode = \"generic\" (slower), or use another interface or backend udp"),
        Err(error) => finding("afxdp", "native XDP", Verdict::Warning, format!("not known: {error}"))
            .hint(format!("`tollfree iface attach {name}` will tell")),
    }
}

/// A veth with large frames takes native XDP only up to a page.
fn mtu(name: &str, generic: bool) -> Option<Finding> {
    let mtu: u32 = interfaces::attribute(name, "mtu")?.parse().ok()?;
    if generic || mtu <= VETH_MTU_MAX {
        return None;
    }
    let found = finding("afxdp", "MTU", Verdict::Warning, mtu.to_string());
    Some(found.hint(format!(
        "many drivers run native XDP only up to {VETH_MTU_MAX}: ip link set {name} mtu {VETH_MTU_MAX}"
    )))
}

fn foreign(name: &str) -> Finding {
    match tollfree_loader::attached(name) {
        Ok(None) => finding("afxdp", "other XDP programs", Verdict::Ok, "none attached"),
        Ok(Some(attached)) if attached.program.starts_with("tf_") => {
            finding("afxdp", "other XDP programs", Verdict::Ok, "none; Tollfree is attached")
        }
        Ok(Some(attached)) => {
            let found = format!("{} (id {}) is attached to {name}", attached.program, attached.id);
            finding("afxdp", "other XDP programs", Verdict::Failed, found)
                .hint("detach it, or replace it: `tollfree iface attach --force`, `force = true`")
        }
        Err(error) => finding("afxdp", "other XDP programs", Verdict::Warning, error.to_string()),
    }
}
