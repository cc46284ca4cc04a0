//! Unix sockets that appear with their permissions set and go with the daemon; and the lock that keeps a second daemon
//! out of a state directory.

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use std::fs::{File, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, PermissionsExt};
use std::path::{Path, PathBuf};
use tokio::net::UnixListener;

/// Held while a daemon runs on a state directory.
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Makes the directory where it is missing, and locks it.
    ///
    /// # Errors
    /// When another daemon holds it.
    pub fn take(state_dir: &Path) -> Result<Lock> {
        let mut builder = std::fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o755).create(state_dir);
        made.with_context(|| {
            format!(
                "cannot make the state directory {}; choose one of yours by `state_dir` or --state-dir (backend udp needs \
                 no other privilege)",
                state_dir.display()
            )
        })?;
        let path = state_dir.join(crate::paths::LOCK);
        let mut options = File::options();
        let mut file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("cannot open {}; set `state_dir` to another", path.display()))?;
        if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
            let mut pid = String::new();
            file.read_to_string(&mut pid).ok();
            bail!(
                "another daemon (process {}) runs on {}; stop it, or set `state_dir` to another",
                pid.trim(),
                state_dir.display()
            );
        }
        file.set_len(0)?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Lock { _file: file })
    }
}

/// A listening socket's file; removed when dropped.
pub struct SocketFile {
    path: PathBuf,
}

impl SocketFile {
    /// Listens on `path` with these permissions. A dead daemon's socket is replaced; anything else there is not.
    ///
    /// # Errors
    /// When something that is no socket is in the way, or the directory is not ours.
    pub fn listen(path: &Path, mode: u32) -> Result<(SocketFile, UnixListener)> {
        match std::fs::symlink_metadata(path) {
            Ok(found) if !found.file_type().is_socket() => {
                bail!("{} is in the way and is no socket; move it or set another path", path.display())
            }
            _ => {}
        }
        // Made under another name, so that it appears ready: listening, with its permissions.
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".new");
        let hidden = path.with_file_name(name);
        let cannot = || format!("cannot listen on {}", path.display());
        std::fs::remove_file(&hidden).ok();
        let listener = UnixListener::bind(&hidden).with_context(cannot)?;
        let visible = std::fs::set_permissions(&hidden, Permissions::from_mode(mode))
            .and_then(|()| std::fs::rename(&hidden, path));
        if let Err(error) = visible {
            std::fs::remove_file(&hidden).ok();
            return Err(error).with_context(cannot);
        }
        Ok((SocketFile { path: path.to_owned() }, listener))
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_daemon_per_directory() {
        let folder = tempfile::tempdir().unwrap();
        let lock = Lock::take(folder.path()).unwrap();
        let error = Lock::take(folder.path()).map(drop).unwrap_err().to_string();
        assert!(error.contains(&std::process::id().to_string()), "{error}");
        drop(lock);
        Lock::take(folder.path()).unwrap();
    }

    #[tokio::test]
    async fn a_socket_has_its_mode_and_goes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x.sock");
        let (file, _listener) = SocketFile::listen(&path, 0o600).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        drop(file);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        std::fs::write(&path, "precious").unwrap();
        assert!(SocketFile::listen(&path, 0o600).is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
    }
}
