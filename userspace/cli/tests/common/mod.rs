//! Runs the built binary and looks at what it says.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// What the binary did.
pub struct Run {
    pub code: i32,
    pub out: String,
    pub err: String,
}

impl Run {
    /// Its standard output as JSON.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}{}", self.out, self.err))
    }
}

impl From<Output> for Run {
    fn from(output: Output) -> Run {
        let text = |bytes| String::from_utf8(bytes).unwrap();
        Run { code: output.status.code().unwrap_or(-1), out: text(output.stdout), err: text(output.stderr) }
    }
}

/// The binary, away from this host's own daemon and pins.
pub fn binary(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tollfree"));
    command.env("TOLLFREE_STATE_DIR", home.join("state"));
    command.env("TOLLFREE_BPFFS", home.join("bpffs"));
    command.env_remove("RUST_LOG");
    command.env_remove("TOLLFREE_OBJECT");
    command
}

/// Runs it to its end.
pub fn tollfree(home: &Path, arguments: &[&str]) -> Run {
    binary(home).args(arguments).output().unwrap().into()
}

/// A file of the source tree.
pub fn source(path: &str) -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(path).display().to_string()
}

/// Writes a file into `home`.
pub fn write(home: &Path, name: &str, text: &str) -> PathBuf {
    let path = home.join(name);
    std::fs::write(&path, text).unwrap();
    path
}
