//! `build-ebpf`: compiles the XDP programs into `target/ebpf`.
//!
//! The programs have a workspace, lockfile and toolchain of their own ([`crate::toolchain`] finds the latter).

use crate::process::root;
use crate::toolchain::{BPF_LINKER, Compiler, has_linker};
use anyhow::{Context, Result, bail};
use std::{env, fs, path::Path, process::Command};

/// The objects: file name, binary in `ebpf/`, and cargo features.
const OBJECTS: [(&str, &str, &str); 4] = [
    ("tollfree.bpf.o", "tollfree", ""),
    ("tollfree-trace.bpf.o", "tollfree", "trace"),
    // For the loader's tests.
    ("test-policy.bpf.o", "test-policy", ""),
    ("test-policy-wide.bpf.o", "test-policy", "wide"),
];

/// Builds every object.
///
/// # Errors
/// Says what is missing of the toolchain and how to get it, or that the compiler failed.
pub fn run() -> Result<()> {
    let Some(compiler) = Compiler::find() else {
        bail!(
            "no compiler here can build `core` for BPF; `cargo xtask setup` installs rustc-web and rust-web-src on \
             Debian, elsewhere: rustup toolchain install nightly --component rust-src"
        );
    };
    if !has_linker() {
        bail!(
            "bpf-linker {BPF_LINKER} is not on the PATH; cargo install bpf-linker --version {BPF_LINKER} --locked"
        );
    }
    eprintln!("building the XDP programs with {compiler}");
    let output = root().join("target/ebpf");
    fs::create_dir_all(&output).with_context(|| format!("cannot create {}", output.display()))?;
    for (name, binary, features) in OBJECTS {
        let built = build(compiler, binary, features)?;
        let object = output.join(name);
        // Renamed into place: whoever loads it meanwhile finds the old object or the new one.
        let fresh = output.join(format!(".{name}.{}", std::process::id()));
        fs::copy(&built, &fresh).with_context(|| format!("cannot copy {}", built.display()))?;
        fs::rename(&fresh, &object).with_context(|| format!("cannot write {}", object.display()))?;
        println!("{}", relative(&object).display());
    }
    Ok(())
}

fn build(compiler: Compiler, binary: &str, features: &str) -> Result<std::path::PathBuf> {
    const TARGET: &str = "bpfel-unknown-none";
    let target_dir = root().join("target/ebpf-build");
    let mut cargo = match compiler {
        Compiler::Debian => {
            let mut cargo = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
            cargo.env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
            cargo
        }
        Compiler::Nightly => {
            let mut cargo = Command::new("rustup");
            cargo.args(["run", "nightly", "cargo"]).env_remove("RUSTC");
            cargo
        }
    };
    cargo.args(["build", "--quiet", "--release", "--locked", "-Z", "build-std=core", "--target", TARGET]);
    cargo.args(["--bin", binary]);
    if !features.is_empty() {
        cargo.args(["--features", features]);
    }
    // What the cargo that runs us has set is meant for the host's crates.
    cargo
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER");
    // Without BTF, libbpf cannot open the object and aya cannot find the maps.
    cargo.env("RUSTFLAGS", "-C link-arg=--btf -C debuginfo=2");
    cargo.env("CARGO_TARGET_DIR", &target_dir).current_dir(root().join("ebpf"));
    let status = cargo.status().context("cannot run cargo for the XDP programs")?;
    if !status.success() {
        bail!("the XDP programs did not compile (cargo, in ebpf/: {status})");
    }
    Ok(target_dir.join(TARGET).join("release").join(binary))
}

fn relative(path: &Path) -> &Path {
    path.strip_prefix(root()).unwrap_or(path)
}
