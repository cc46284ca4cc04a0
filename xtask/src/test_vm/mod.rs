//! `test-vm`: another kernel, Debian's 6.1, the oldest that Tollfree promises, booted in QEMU without hardware support from
//! an initramfs of a few files. There the programs and every policy of the standard library meet the verifier, policies are
//! loaded and swapped, and the `afxdp` backend runs its tests, with VLANs, which the kernel at hand may not have.
//!
//! What it needs and has not is named, and the test counts as skipped. The kernel's package is downloaded and unpacked into
//! `target/vm`, never installed.

mod archive;
mod guest;

use crate::process::{answer, cargo, run as execute, target_dir};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// How long the guest may take. Emulated it is twenty times slower than its host.
const LIMIT: Duration = Duration::from_secs(600);
/// The guest's last word, before its exit status.
const VERDICT: &str = "GUEST-RC=";
/// What the host must have, and the Debian packages that bring it.
const TOOLS: [(&str, &str, &str); 5] = [
    ("qemu-system-x86_64", "--version", "qemu-system-x86"),
    ("busybox", "--help", "busybox-static"),
    ("dpkg", "--version", "dpkg"),
    ("ip", "-V", "iproute2"),
    ("strip", "--version", "binutils"),
];

/// Runs it.
///
/// # Errors
/// Where something does not build, no kernel can be had, or the guest says nothing.
pub fn run() -> Result<ExitCode> {
    let missing: Vec<&str> = TOOLS
        .iter()
        .filter(|(tool, flag, _)| answer(tool, &[*flag]).is_none())
        .map(|(.., package)| *package)
        .collect();
    if !missing.is_empty() {
        println!(
            "skipped: test-vm needs {0}; apt-get install --no-install-recommends {0}",
            missing.join(" ")
        );
        return Ok(ExitCode::SUCCESS);
    }
    let work = target_dir().join("vm");
    let Some(kernel) = kernel(&work)? else {
        println!(
            "skipped: test-vm needs Debian's package linux-image-amd64; apt-get update finds it on Debian 12"
        );
        return Ok(ExitCode::SUCCESS);
    };
    crate::build_ebpf::run()?;
    execute(cargo().args(["build", "--quiet", "-p", "tollfree-cli"]))?;
    let image = work.join("initramfs");
    let policies = guest::write(&image, &work.join("kernel"))?;
    println!("booting {} with {policies} policies", kernel.display());
    let started = Instant::now();
    let code = boot(&kernel, &image, &work.join("log"))?;
    println!("the guest ended after {} s with {code}", started.elapsed().as_secs());
    Ok(if code == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// The kernel, out of Debian's package; `None` where there is no such package.
fn kernel(work: &Path) -> Result<Option<PathBuf>> {
    let folder = work.join("kernel");
    if let Some(known) = find_kernel(&folder) {
        return Ok(Some(known));
    }
    let depends = answer("apt-cache", &["depends", "linux-image-amd64"]).unwrap_or_default();
    let mut packages = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
    let Some(package) = packages.find(|package| package.starts_with("linux-image-6.1.")) else {
        return Ok(None);
    };
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    execute(Command::new("apt-get").args(["-q", "download", package]).current_dir(&folder))?;
    for entry in fs::read_dir(&folder)?.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            execute(Command::new("dpkg").arg("-x").arg(&path).arg(&folder))?;
            fs::remove_file(&path)?;
        }
    }
    Ok(find_kernel(&folder))
}

fn find_kernel(folder: &Path) -> Option<PathBuf> {
    let boot = fs::read_dir(folder.join("boot")).ok()?;
    boot.flatten()
        .map(|entry| entry.path())
        .find(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-6.1.")))
}

/// Boots, prints what the guest says, and returns its exit status.
fn boot(kernel: &Path, image: &Path, log: &Path) -> Result<i32> {
    let out = fs::File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-machine", "q35", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1G"]);
    qemu.args(["-no-reboot", "-display", "none", "-nodefaults", "-serial", "stdio", "-monitor", "none"]);
    qemu.arg("-kernel").arg(kernel).arg("-initrd").arg(image);
    qemu.args(["-append", "console=ttyS0 quiet panic=-1 loglevel=4 tsc=reliable mitigations=off"]);
    let mut guest = qemu.stdin(Stdio::null()).stdout(out).spawn().context("cannot start QEMU")?;
    let until = Instant::now() + LIMIT;
    while guest.try_wait()?.is_none() {
        if Instant::now() > until {
            guest.kill()?;
            guest.wait()?;
            break;
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    let said = String::from_utf8_lossy(&fs::read(log)?).replace('\r', "");
    print!("{said}");
    let Some(code) = said.lines().rev().find_map(|line| line.strip_prefix(VERDICT)) else {
        bail!(
            "the guest ended without a verdict, or took longer than {} s; it said what is above",
            LIMIT.as_secs()
        );
    };
    code.trim().parse().with_context(|| format!("the guest's verdict is {code:?}"))
}
