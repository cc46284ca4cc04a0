//! A cpio archive in the format that the kernel unpacks ("newc").

use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

/// An archive that is being written.
pub struct Archive {
    out: std::io::BufWriter<fs::File>,
    folders: BTreeSet<PathBuf>,
    inode: u32,
    length: usize,
}

impl Archive {
    pub fn create(path: &Path) -> Result<Archive> {
        let file = fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let out = std::io::BufWriter::new(file);
        Ok(Archive { out, folders: BTreeSet::new(), inode: 0, length: 0 })
    }

    /// A folder, and those it is in, unless they are there already.
    pub fn folder(&mut self, name: &Path) -> Result<()> {
        let above: Vec<PathBuf> =
            name.ancestors().filter(|path| !path.as_os_str().is_empty()).map(PathBuf::from).collect();
        for folder in above.into_iter().rev() {
            if self.folders.insert(folder.clone()) {
                self.entry(&folder, &[], 0o040_755)?;
            }
        }
        Ok(())
    }

    pub fn file(&mut self, name: &Path, from: &Path) -> Result<()> {
        let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        let mode = 0o100_000 | fs::metadata(from)?.permissions().mode() & 0o777;
        self.bytes(name, &bytes, mode)
    }

    pub fn bytes(&mut self, name: &Path, bytes: &[u8], mode: u32) -> Result<()> {
        if let Some(folder) = name.parent() {
            self.folder(folder)?;
        }
        self.entry(name, bytes, mode)
    }

    fn entry(&mut self, name: &Path, bytes: &[u8], mode: u32) -> Result<()> {
        let name = name.to_str().context("a file's name is not UTF-8")?;
        self.inode += 1;
        let size = u32::try_from(bytes.len()).context("a file is too long for the guest")?;
        // Inode, mode, owner, group, links, time, size, two devices twice over, length of the name, checksum.
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name.len() as u32 + 1, 0];
        let mut header = "070701".to_owned();
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        self.put(header.as_bytes())?;
        self.put(name.as_bytes())?;
        self.put(&[0])?;
        self.pad()?;
        self.put(bytes)?;
        self.pad()
    }

    fn put(&mut self, bytes: &[u8]) -> Result<()> {
        self.length += bytes.len();
        self.out.write_all(bytes).context("cannot write the initramfs")
    }

    fn pad(&mut self) -> Result<()> {
        let zeros = [0; 3];
        let gap = self.length.next_multiple_of(4) - self.length;
        self.put(&zeros[..gap])
    }

    pub fn finish(mut self) -> Result<()> {
        self.entry(Path::new("TRAILER!!!"), &[], 0)?;
        self.out.flush().context("cannot write the initramfs")
    }
}
