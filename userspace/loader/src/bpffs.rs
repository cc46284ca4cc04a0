//! The BPF file system: mounted where it is missing, and locked while an interface changes.

use crate::Error;
use rustix::fs::{FlockOperation, Mode, OFlags, flock, open, statfs};
use rustix::mount::{MountFlags, mount};
use std::os::fd::OwnedFd;
use std::path::Path;

const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
/// Where everybody mounts it.
const USUAL: &str = "/sys/fs/bpf";

/// Makes sure that `path` is a directory on a BPF file system.
pub(crate) fn ensure(path: &Path) -> Result<(), Error> {
    let usual = path.starts_with(USUAL);
    if usual {
        mount_on(Path::new(USUAL))?;
    }
    std::fs::create_dir_all(path).map_err(Error::file("create", path))?;
    if !usual && !is_mounted(path) {
        mount_on(path)?;
    }
    Ok(())
}

/// Whether `path` is on a BPF file system.
pub(crate) fn is_mounted(path: &Path) -> bool {
    statfs(path).is_ok_and(|stat| stat.f_type as u64 == BPF_FS_MAGIC)
}

fn mount_on(path: &Path) -> Result<(), Error> {
    if is_mounted(path) {
        return Ok(());
    }
    // Two processes that both find it missing would hide each other's pins: the directory below is the lock.
    let _lock = lock(path)?;
    if is_mounted(path) {
        return Ok(());
    }
    mount("bpf", path, "bpf", MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC, None)
        .map_err(|cause| Error::Bpffs { path: path.to_owned(), cause: cause.into() })
}

/// Waits until no other process changes what is in the directory; unlocks when dropped.
pub(crate) fn lock(directory: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let locked = open(directory, flags, Mode::empty())
        .and_then(|fd| flock(&fd, FlockOperation::LockExclusive).map(|()| fd));
    locked.map_err(|cause| Error::File { operation: "lock", path: directory.to_owned(), cause: cause.into() })
}
