//! Which compiler builds the XDP programs.
//!
//! The BPF target has no prebuilt `core`, so the compiler must come with its sources and accept `-Z build-std`. Two
//! pairs do: Debian's `rustc-web` with `rust-web-src`, and rustup's nightly with `rust-src`.

use crate::process::answer;
use std::{
    fmt,
    path::{Path, PathBuf},
    process::Command,
};

/// The release of bpf-linker we use: the last that links with rustc's own LLVM 22.
pub const BPF_LINKER: &str = "0.10.3";
/// The oldest rustc minor version that compiles `ebpf/` (edition 2024, and the `aya-ebpf` in its lockfile).
const OLDEST_MINOR: u32 = 90;

/// A compiler that can build `core` for BPF.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compiler {
    /// `/usr/bin/rustc` and its sources, from Debian's packages.
    Debian,
    /// rustup's nightly and its `rust-src`.
    Nightly,
}

impl Compiler {
    /// The first one that is complete.
    pub fn find() -> Option<Compiler> {
        [Compiler::Debian, Compiler::Nightly].into_iter().find(|compiler| compiler.is_complete())
    }

    fn rustc(self, argument: &[&str]) -> Option<String> {
        match self {
            Compiler::Debian => answer("/usr/bin/rustc", argument),
            Compiler::Nightly => answer("rustup", &[&["run", "nightly", "rustc"], argument].concat()),
        }
    }

    fn is_complete(self) -> bool {
        let recent = self.rustc(&["--version"]).and_then(|version| minor(&version));
        let sysroot = self.rustc(&["--print", "sysroot"]).map(PathBuf::from);
        recent.is_some_and(|minor| minor >= OLDEST_MINOR)
            && sysroot.is_some_and(|path| path.join("lib/rustlib/src/rust/library/core/Cargo.toml").exists())
    }

    /// The `cargo clippy` that goes with it, up to its own arguments, where it is installed.
    pub fn clippy(self) -> Option<Command> {
        match self {
            Compiler::Debian => Path::new("/usr/bin/cargo-clippy").exists().then(|| {
                let mut command = Command::new("/usr/bin/cargo-clippy");
                command.arg("clippy").env("RUSTC", "/usr/bin/rustc").env("RUSTC_BOOTSTRAP", "1");
                command
            }),
            Compiler::Nightly => {
                answer("rustup", &["run", "nightly", "cargo", "clippy", "--version"])?;
                let mut command = Command::new("rustup");
                command.args(["run", "nightly", "cargo", "clippy"]);
                Some(command)
            }
        }
    }
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let version = self.rustc(&["--version"]).unwrap_or_else(|| "rustc".into());
        match self {
            Compiler::Debian => write!(f, "Debian's {version}"),
            Compiler::Nightly => write!(f, "rustup's nightly {version}"),
        }
    }
}

/// Whether the right bpf-linker is on the PATH.
pub fn has_linker() -> bool {
    answer("bpf-linker", &["--version"]).is_some_and(|text| text.split(' ').next_back() == Some(BPF_LINKER))
}

/// The minor version in `rustc 1.96.0 (…)`.
fn minor(version: &str) -> Option<u32> {
    version.strip_prefix("rustc 1.")?.split('.').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read() {
        assert_eq!(minor("rustc 1.96.0 (ac68faa20 2026-05-01) (built from a source tarball)"), Some(96));
        assert_eq!(minor("rustc 1.97.0-nightly (0123 2026-06-01)"), Some(97));
        assert_eq!(minor("clang version 14"), None);
    }
}
