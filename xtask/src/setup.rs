//! Finds what the builds need, installs what is missing where it may, and otherwise says how.
//!
//! What is already right is never touched, and nothing is installed before it has been announced.

use crate::{
    process::{answer, cargo, is_root, run as execute, shown},
    toolchain::{BPF_LINKER, Compiler, has_linker},
};
use anyhow::{Result, bail};
use std::{path::Path, process::Command};

/// For what the machine is prepared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Building the user space.
    Userspace,
    /// Building the user space and the XDP programs.
    WithEbpf,
    /// User space, and the formatter and lints the tests use.
    UserspaceTests,
    /// Everything.
    Everything,
}

impl Scope {
    fn ebpf(self) -> bool {
        matches!(self, Scope::WithEbpf | Scope::Everything)
    }

    fn tests(self) -> bool {
        matches!(self, Scope::UserspaceTests | Scope::Everything)
    }
}

/// A package of Debian's, how to tell that what it brings is there, and why it is wanted.
struct Package {
    name: &'static str,
    is_there: fn() -> bool,
    why: &'static str,
}

const PACKAGES: &[Package] = &[
    Package { name: "gcc", is_there: || has("cc"), why: "links Rust programs, compiles libbpf" },
    Package { name: "libc6-dev", is_there: || header("stdio.h"), why: "the C library's headers" },
    Package { name: "make", is_there: || has("make"), why: "builds libbpf" },
    Package { name: "pkg-config", is_there: || has("pkg-config"), why: "finds libelf and zlib" },
    Package {
        name: "libelf-dev",
        is_there: || header("gelf.h"),
        why: "libbpf, the second loader, reads ELF",
    },
    Package { name: "zlib1g-dev", is_there: || header("zlib.h"), why: "libelf needs it" },
    Package { name: "iproute2", is_there: || has("ip"), why: "makes the demo's namespaces and veth pairs" },
];

fn has(program: &str) -> bool {
    let flag = if program == "ip" { "-V" } else { "--version" };
    answer(program, &[flag]).is_some()
}

fn header(name: &str) -> bool {
    Path::new("/usr/include").join(name).exists()
}

/// What is missing, and how it is installed.
#[derive(Default)]
struct Plan {
    /// Debian packages and why they are wanted. Root installs them, in one go.
    packages: Vec<(&'static str, &'static str)>,
    /// What the user's own rustup and cargo install, and why.
    own: Vec<(Command, &'static str)>,
}

/// Prepares the machine, or says what to do.
///
/// # Errors
/// Where something is missing that may not be installed from here, or an installation fails.
pub fn run(scope: Scope) -> Result<()> {
    let has_apt = Path::new("/etc/debian_version").exists() && has("apt-get");
    let plan = plan(scope, has_apt);
    if plan.packages.is_empty() && plan.own.is_empty() {
        println!("setup: everything is in place{}", in_use(scope));
        return Ok(());
    }

    let Plan { packages, own } = plan;
    println!("setup: to be installed:");
    for (name, why) in &packages {
        println!("  {name}: {why}");
    }
    for (command, why) in &own {
        println!("  `{}`: {why}", shown(command));
    }
    let names: Vec<&str> = packages.iter().map(|(name, _)| *name).collect();
    let mut install = apt_install(&names);
    if !names.is_empty() {
        match (is_root(), has_apt) {
            (true, true) => {
                if let Err(error) = execute(&mut command("apt-get", &["update"])) {
                    println!("setup: {error}; going on with the lists that are here");
                }
                execute(&mut install)?;
            }
            (false, true) => bail!(
                "packages are missing and only root may install them. Run\n  sudo {}\nand start again.",
                shown(&install)
            ),
            (_, false) => bail!(
                "this is not a Debian, so install with your system's package manager what corresponds to\n  {}\n\
                 and start again.",
                names.join(" ")
            ),
        }
    }
    for (mut command, _) in own {
        execute(&mut command)?;
    }
    println!("setup: done{}", in_use(scope));
    Ok(())
}

fn in_use(scope: Scope) -> String {
    match Compiler::find().filter(|_| scope.ebpf()) {
        Some(compiler) => format!("; the XDP programs' compiler: {compiler}, bpf-linker {BPF_LINKER}"),
        None => String::new(),
    }
}

fn plan(scope: Scope, has_apt: bool) -> Plan {
    let mut plan = Plan::default();
    plan.packages.extend(PACKAGES.iter().filter(|p| !(p.is_there)()).map(|p| (p.name, p.why)));
    if scope.tests() {
        for (component, verb) in [("rustfmt", "fmt"), ("clippy", "clippy")] {
            if !cargo().args([verb, "--version"]).output().is_ok_and(|output| output.status.success()) {
                let add = command("rustup", &["component", "add", component]);
                plan.own.push((add, "the tests check format and lints"));
            }
        }
    }
    if scope.ebpf() {
        plan_ebpf(scope, has_apt, &mut plan);
    }
    plan
}

fn plan_ebpf(scope: Scope, has_apt: bool, plan: &mut Plan) {
    match Compiler::find() {
        None if is_root() && has_apt && offers_compiler() => plan.packages.extend([
            ("rustc-web", "compiles the XDP programs"),
            ("rust-web-src", "the sources of core, which has no prebuilt form for BPF"),
            ("rust-web-clippy", "lints for the XDP programs"),
        ]),
        None => {
            let nightly = ["toolchain", "install", "nightly", "--profile", "minimal"];
            let components = ["--component", "rust-src", "--component", "clippy"];
            let install = command("rustup", &[&nightly[..], &components[..]].concat());
            plan.own.push((install, "compiles the XDP programs, with the sources of core"));
        }
        // Only the tests need lints; a compiler that is there stays as it is.
        Some(Compiler::Debian) if scope.tests() && Compiler::Debian.clippy().is_none() => {
            plan.packages.push(("rust-web-clippy", "lints for the XDP programs"));
        }
        Some(_) => {}
    }
    if !has_linker() {
        let mut install = command("cargo", &["install", "bpf-linker", "--version", BPF_LINKER, "--locked"]);
        // Not into our target folder, and with the default toolchain whichever one runs xtask.
        install.env_remove("CARGO_TARGET_DIR");
        plan.own.push((install, "links the XDP programs; takes a minute"));
    }
}

fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments);
    command
}

fn apt_install(packages: &[&str]) -> Command {
    let mut install = command("apt-get", &["install", "-y", "--no-install-recommends"]);
    install.args(packages).env("DEBIAN_FRONTEND", "noninteractive");
    install
}

/// Whether apt can have the compiler; a fresh image has to fetch its lists first.
fn offers_compiler() -> bool {
    let offered = || {
        answer("apt-cache", &["policy", "rustc-web"])
            .is_some_and(|text| text.contains("Candidate:") && !text.contains("Candidate: (none)"))
    };
    offered() || (execute(&mut command("apt-get", &["update"])).is_ok() && offered())
}
