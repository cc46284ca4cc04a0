//! `test-vm`: the programs and every policy of the standard library before another kernel's verifier: Debian's 6.1, the
//! oldest that Tollfree promises, booted in QEMU without hardware support from an initramfs of a few files.
//!
//! What it needs and has not is named, and the test counts as skipped. The kernel's package is downloaded and unpacked into
//! `target/vm`, never installed.

use crate::process::{answer, cargo, root, run as execute, target_dir};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// How long the guest may take. Emulated it is twenty times slower than its host.
const LIMIT: Duration = Duration::from_secs(600);
/// The guest's last word, before its exit status.
const VERDICT: &str = "GUEST-RC=";
/// What the host must have, and the Debian packages that bring it.
const TOOLS: [(&str, &str, &str); 3] = [
    ("qemu-system-x86_64", "--version", "qemu-system-x86"),
    ("busybox", "--help", "busybox-static"),
    ("dpkg", "--version", "dpkg"),
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
    let policies = initramfs(&image)?;
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

/// Writes the guest's files; says how many policies are among them.
fn initramfs(image: &Path) -> Result<usize> {
    let mut archive = Archive::create(image)?;
    for folder in ["bin", "dev", "proc", "sys", "data", "tmp", "run"] {
        archive.folder(Path::new(folder))?;
    }
    let busybox = which("busybox").context("busybox is gone")?;
    archive.file(Path::new("bin/busybox"), &busybox)?;
    let tollfree = target_dir().join("debug/tollfree");
    // Without its debug information it is a tenth as long, and the guest unpacks it into memory.
    let stripped = image.with_file_name("tollfree");
    execute(Command::new("strip").arg("-o").arg(&stripped).arg(&tollfree))?;
    archive.file(Path::new("bin/tollfree"), &stripped)?;
    for library in libraries(&tollfree)? {
        archive.file(library.strip_prefix("/").unwrap_or(&library), &library)?;
    }
    archive.file(Path::new("data/tollfree.bpf.o"), &root().join("target/ebpf/tollfree.bpf.o"))?;
    let schema = image.with_file_name("shop.json");
    execute(
        Command::new(&tollfree)
            .args(["schema", "compile"])
            .arg(root().join("schemas/shop.proto"))
            .arg("--out")
            .arg(&schema),
    )?;
    archive.file(Path::new("data/shop.json"), &schema)?;
    let mut policies = 0;
    let mut arguments = String::new();
    for folder in ["policies/std", "policies/cookbook"] {
        let mut files: Vec<PathBuf> =
            fs::read_dir(root().join(folder))?.flatten().map(|entry| entry.path()).collect();
        files.sort();
        for file in
            files.iter().filter(|file| file.extension().is_some_and(|extension| extension == "policy"))
        {
            let name = file.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            archive.file(&Path::new("data").join(&name), file)?;
            arguments.push_str(&format!(" --policy /data/{name}"));
            policies += 1;
        }
    }
    let init = format!(
        "#!/bin/busybox sh\n\
         /bin/busybox mount -t proc proc /proc; /bin/busybox mount -t sysfs sys /sys\n\
         /bin/busybox mount -t devtmpfs dev /dev; /bin/busybox mount -t bpf bpf /sys/fs/bpf\n\
         echo \"kernel $(/bin/busybox uname -r)\"\n\
         ulimit -l unlimited\n\
         /bin/tollfree program verify --object /data/tollfree.bpf.o --schema /data/shop.json{arguments}\n\
         echo \"{VERDICT}$?\"\n\
         /bin/busybox poweroff -f\n"
    );
    archive.bytes(Path::new("init"), init.as_bytes(), 0o100_755)?;
    archive.finish()?;
    Ok(policies)
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

fn which(program: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// The shared libraries that a program needs.
fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let said = answer("ldd", &[program]).context("ldd does not say what the tollfree binary needs")?;
    let paths = said.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(paths.map(PathBuf::from).collect())
}

/// A cpio archive in the format that the kernel unpacks ("newc").
struct Archive {
    out: std::io::BufWriter<fs::File>,
    folders: BTreeSet<PathBuf>,
    inode: u32,
    length: usize,
}

impl Archive {
    fn create(path: &Path) -> Result<Archive> {
        let file = fs::File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let out = std::io::BufWriter::new(file);
        Ok(Archive { out, folders: BTreeSet::new(), inode: 0, length: 0 })
    }

    /// A folder, and those it is in, unless they are there already.
    fn folder(&mut self, name: &Path) -> Result<()> {
        let above: Vec<PathBuf> =
            name.ancestors().filter(|path| !path.as_os_str().is_empty()).map(PathBuf::from).collect();
        for folder in above.into_iter().rev() {
            if self.folders.insert(folder.clone()) {
                self.entry(&folder, &[], 0o040_755)?;
            }
        }
        Ok(())
    }

    fn file(&mut self, name: &Path, from: &Path) -> Result<()> {
        let bytes = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
        let mode = 0o100_000 | fs::metadata(from)?.permissions().mode() & 0o777;
        self.bytes(name, &bytes, mode)
    }

    fn bytes(&mut self, name: &Path, bytes: &[u8], mode: u32) -> Result<()> {
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

    fn finish(mut self) -> Result<()> {
        self.entry(Path::new("TRAILER!!!"), &[], 0)?;
        self.out.flush().context("cannot write the initramfs")
    }
}
