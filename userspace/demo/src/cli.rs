//! The `tollfree` command on one host, and what its `status` says.

use crate::{netns::Namespace, process::run};
use anyhow::{Context, Result, bail};
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

/// Where the programs are: beside the one that asks, or (for a test) one folder up.
#[derive(Clone, Debug)]
pub struct Programs(PathBuf);

impl Programs {
    /// Finds them.
    ///
    /// # Errors
    /// When they are not built: with the command that builds them.
    pub fn find() -> Result<Programs> {
        let own = std::env::current_exe().context("cannot find out where this program is")?;
        let folders = own.ancestors().skip(1).take(2);
        for folder in folders {
            if folder.join("tollfree").is_file() && folder.join("hash-service").is_file() {
                return Ok(Programs(folder.to_owned()));
            }
        }
        bail!("`tollfree` is not built; run `cargo build -p tollfree-cli -p tollfree-demo`")
    }

    /// A program by name.
    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

/// `tollfree` with one host's folders.
#[derive(Clone, Debug)]
pub struct Cli {
    /// The programs.
    pub programs: Programs,
    /// The host's namespace, where it has one.
    pub namespace: Option<Arc<Namespace>>,
    /// The host's state folder.
    pub state: PathBuf,
    /// The host's pins.
    pub bpffs: PathBuf,
    /// The one core that everything on the host runs on; all of them where `None`.
    pub core: Option<usize>,
}

impl Cli {
    /// The command with the arguments that name the host.
    pub fn command(&self) -> Command {
        let mut command = Command::new(self.programs.path("tollfree"));
        command.arg("--state-dir").arg(&self.state).arg("--bpffs").arg(&self.bpffs);
        command
    }

    /// Does something inside the host: in its namespace and on its core, if it has such. Programs started there stay
    /// there.
    ///
    /// # Errors
    /// The action's, or when the namespace cannot be entered.
    pub fn inside<T: Send>(&self, action: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        match &self.namespace {
            Some(namespace) => namespace.enter(|| {
                if let Some(core) = self.core {
                    let mut cores = CpuSet::new();
                    cores.set(core);
                    sched_setaffinity(None, &cores).context("cannot keep a host on its core")?;
                }
                action()
            }),
            None => action(),
        }
    }

    /// Runs a `tollfree` command and returns what it prints.
    ///
    /// # Errors
    /// With what the command said.
    pub fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = self.inside(|| run(self.command().args(arguments)))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Puts a policy in force.
    ///
    /// # Errors
    /// With what the command said.
    pub fn apply_policy(&self, policy: &Path, schema: &Path) -> Result<Value> {
        let output = self.inside(|| {
            run(self.command().args(["policy", "apply", "-o", "json", "--schema"]).arg(schema).arg(policy))
        })?;
        serde_json::from_slice(&output.stdout).context("`tollfree policy apply -o json` prints no JSON")
    }

    /// Sets an entry of a policy's table.
    ///
    /// # Errors
    /// With what the command said.
    pub fn set(&self, table: &str, key: &str, value: &str) -> Result<()> {
        self.run(&["policy", "table", "set", table, key, value]).map(drop)
    }

    /// What `tollfree status` says.
    ///
    /// # Errors
    /// With what the command said.
    pub fn status(&self) -> Result<Snapshot> {
        let text = self.run(&["status", "-o", "json"])?;
        let value: Value = serde_json::from_str(&text).context("`tollfree status -o json` prints no JSON")?;
        Snapshot::read(&value).with_context(|| format!("`tollfree status -o json` lacks something: {text}"))
    }
}

/// A host's counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Packets that the engine has received.
    pub received: u64,
    /// What XDP did with packets, by reason, over all interfaces of the host.
    pub xdp: BTreeMap<String, u64>,
    /// What the engine did with packets, by reason.
    pub engine: BTreeMap<String, u64>,
    /// How XDP is attached, where it is.
    pub mode: Option<String>,
    /// The services that applications here serve.
    pub serves: Vec<String>,
}

impl Snapshot {
    fn read(value: &Value) -> Option<Snapshot> {
        let daemon = value.get("daemon")?;
        let engine = daemon.get("engine")?;
        let interfaces = value.get("interfaces")?.as_array()?;
        let mut xdp = BTreeMap::new();
        for interface in interfaces {
            for (reason, count) in counts(interface.get("reasons")?) {
                *xdp.entry(reason).or_default() += count;
            }
        }
        let serves = daemon.get("apps")?.as_array()?.iter().filter_map(|app| app.get("serves")?.as_array());
        Some(Snapshot {
            received: engine.get("received")?.as_u64()?,
            xdp,
            engine: counts(engine.get("reasons")?),
            mode: interfaces.first().and_then(|one| Some(one.get("mode")?.as_str()?.to_owned())),
            serves: serves.flatten().filter_map(|name| Some(name.as_str()?.to_owned())).collect(),
        })
    }

    /// Packets with this reason at XDP.
    pub fn xdp(&self, reason: &str) -> u64 {
        self.xdp.get(reason).copied().unwrap_or(0)
    }
}

/// Counts by reason.
fn counts(value: &Value) -> BTreeMap<String, u64> {
    let pairs = value.as_object().into_iter().flatten();
    pairs.filter_map(|(name, count)| Some((name.clone(), count.as_u64()?))).collect()
}
