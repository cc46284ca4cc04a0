//! What a run leaves behind that was killed before it could clean up, and how the next one removes it.

use crate::{netns, process::run};
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    fs::{self, File, TryLockError},
    io::ErrorKind,
    path::{Path, PathBuf},
    process::Command,
};

/// Prefix of the demo's namespaces: `tf-client`, `tf-server`.
pub const DEMO: &str = "tf";
/// Prefix of the tests' namespaces, before the process id: `tft123-0-client`.
pub const TEST: &str = "tft";
/// Folder of sockets, configurations and logs.
pub const FOLDER: &str = "/run/tollfree-demo";
/// Folder of pins.
pub const BPFFS: &str = "/sys/fs/bpf/tollfree-demo";

/// Held while a demo runs, so that another does not take its hosts for leftovers.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes it.
    ///
    /// # Errors
    /// When another demo runs.
    pub fn take() -> Result<Lock> {
        let path = "/run/tollfree-demo.lock";
        let file = File::create(path).with_context(|| format!("cannot write {path}"))?;
        match file.try_lock() {
            Ok(()) => Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) => bail!("another demo is running; wait for it or end it"),
            Err(TryLockError::Error(error)) => Err(error).with_context(|| format!("cannot lock {path}")),
        }
    }
}

/// Removes what dead runs have left: processes in their namespaces, the namespaces, sockets and pins. Returns what that was.
///
/// # Errors
/// When something does not go away.
pub fn sweep(_lock: &Lock) -> Result<Vec<String>> {
    let mut swept = Vec::new();
    for entry in entries(Path::new(netns::FOLDER))? {
        let name = entry.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if is_ours(&name) {
            end_processes(&name)?;
            run(Command::new("ip").args(["netns", "del", &name]))?;
            swept.push(format!("network namespace {name}"));
        }
    }
    for parent in [FOLDER, BPFFS] {
        for folder in entries(Path::new(parent))? {
            let owner = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if owner == DEMO || owner_is_dead(owner) {
                fs::remove_dir_all(&folder).with_context(|| format!("cannot remove {}", folder.display()))?;
                swept.push(folder.display().to_string());
            }
        }
        // Only goes when it is empty; a test that runs has its folder in there.
        let _ = fs::remove_dir(parent);
    }
    Ok(swept)
}

/// Removes a folder with everything in it, where it is there. A failure is said, not returned: this is for guards.
pub fn remove_folder(folder: &Path) {
    match fs::remove_dir_all(folder) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(error) => eprintln!("cannot remove {}: {error}", folder.display()),
    }
    if let Some(parent) =
        folder.parent().filter(|parent| parent.starts_with(FOLDER) || parent.starts_with(BPFFS))
    {
        // Only goes when nobody else is in there.
        let _ = fs::remove_dir(parent);
    }
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries.filter_map(|entry| Some(entry.ok()?.path())).collect()),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("cannot look into {}", folder.display())),
    }
}

/// The demo's names, and those of tests whose process has ended.
fn is_ours(name: &str) -> bool {
    let Some(prefix) = ["-client", "-server", "-cable"].iter().find_map(|role| name.strip_suffix(role))
    else {
        return false;
    };
    prefix == DEMO || owner_is_dead(prefix)
}

/// Whether this is a test's prefix and the process in it is gone.
fn owner_is_dead(prefix: &str) -> bool {
    let process = prefix.strip_prefix(TEST).and_then(|rest| rest.split('-').next());
    let id = process.and_then(|id| id.parse::<u32>().ok());
    id.is_some_and(|id| !Path::new("/proc").join(id.to_string()).exists())
}

fn end_processes(namespace: &str) -> Result<()> {
    let output = run(Command::new("ip").args(["netns", "pids", namespace]))?;
    for id in String::from_utf8_lossy(&output.stdout).split_whitespace() {
        if let Some(pid) = id.parse().ok().and_then(Pid::from_raw) {
            // It may have ended in the meantime.
            let _ = kill_process(pid, Signal::KILL);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_dead_are_swept() {
        let alive = std::process::id();
        assert!(["tf-client", "tf-server", "tf-cable"].into_iter().all(is_ours));
        assert!(is_ours("tft4294967295-3-server"), "no process has that id");
        for other in [format!("tft{alive}-0-client"), "tf-other".into(), "web-client".into(), "client".into()]
        {
            assert!(!is_ours(&other), "{other}");
        }
    }
}
