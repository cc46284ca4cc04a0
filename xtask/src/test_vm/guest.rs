//! What the guest has: BusyBox, the command-line tool, every policy, tests that need a kernel, and the kernel's modules that
//! these need.

use super::VERDICT;
use super::archive::Archive;
use crate::process::{answer, cargo, root, run as execute, shown, target_dir};
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The tests that run there: a package, and a test of its.
const TESTS: [(&str, &str); 3] =
    [("tollfree-nic", "afxdp"), ("tollfree-loader", "attach"), ("tollfree-loader", "policy")];
/// The objects that they load, by where they were built: their places are compiled into the tests.
const OBJECTS: [&str; 4] =
    ["tollfree.bpf.o", "tollfree-trace.bpf.o", "test-policy.bpf.o", "test-policy-wide.bpf.o"];
/// The kernel's modules that the tests need, those first that others need; below its `kernel` folder.
const MODULES: [&str; 6] = [
    "net/llc/llc.ko",
    "net/802/stp.ko",
    "net/802/garp.ko",
    "net/802/mrp.ko",
    "net/8021q/8021q.ko",
    "drivers/net/veth.ko",
];

/// Writes the guest's files; says how many policies are among them. `kernel` is the unpacked package.
pub fn write(image: &Path, kernel: &Path) -> Result<usize> {
    let mut archive = Archive::create(image)?;
    for folder in ["bin", "dev", "proc", "sys", "data", "tmp", "run"] {
        archive.folder(Path::new(folder))?;
    }
    archive.file(Path::new("bin/busybox"), &which("busybox").context("busybox is gone")?)?;
    let ip = which("ip").context("ip is gone")?;
    let mut shared = libraries(&ip)?;
    archive.file(Path::new("bin/ip"), &ip)?;
    let tollfree = target_dir().join("debug/tollfree");
    let mut programs = vec![("tollfree", tollfree.clone())];
    for (package, test) in TESTS {
        programs.push((test, built_test(package, test)?));
    }
    for (name, program) in &programs {
        // Without its debug information it is a tenth as long, and the guest unpacks it into memory.
        let stripped = image.with_file_name(name);
        execute(Command::new("strip").arg("-o").arg(&stripped).arg(program))?;
        archive.file(&Path::new("bin").join(name), &stripped)?;
        shared.extend(libraries(program)?);
    }
    archive.folder(inside(&root().join("userspace/loader")))?;
    for object in OBJECTS {
        let object = root().join("target/ebpf").join(object);
        archive.file(inside(&object), &object)?;
    }
    for library in shared {
        archive.file(inside(&library), &library)?;
    }
    for module in MODULES {
        let name = Path::new(module).file_name().unwrap_or_default();
        archive.file(&Path::new("modules").join(name), &find_module(kernel, module)?)?;
    }
    let (policies, arguments) = policies(&mut archive, &tollfree, image)?;
    archive.bytes(Path::new("init"), init(&arguments).as_bytes(), 0o100_755)?;
    archive.finish()?;
    Ok(policies)
}

/// Puts the programs, the schema and the policies there; how many policies, and how the tool is told of them.
fn policies(archive: &mut Archive, tollfree: &Path, image: &Path) -> Result<(usize, String)> {
    archive.file(Path::new("data/tollfree.bpf.o"), &root().join("target/ebpf/tollfree.bpf.o"))?;
    let schema = image.with_file_name("shop.json");
    execute(
        Command::new(tollfree)
            .args(["schema", "compile"])
            .arg(root().join("schemas/shop.proto"))
            .arg("--out")
            .arg(&schema),
    )?;
    archive.file(Path::new("data/shop.json"), &schema)?;
    let mut count = 0;
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
            count += 1;
        }
    }
    Ok((count, arguments))
}

/// What the guest does. Nothing is skipped there: it has all that the tests need.
fn init(arguments: &str) -> String {
    let modules = MODULES.map(|module| module.rsplit('/').next().unwrap_or(module)).join(" ");
    let tests = TESTS.map(|(_, test)| test).join(" ");
    format!(
        "#!/bin/busybox sh\n\
         export PATH=/bin\n\
         busybox mount -t proc proc /proc; busybox mount -t sysfs sys /sys\n\
         busybox mount -t devtmpfs dev /dev; busybox mount -t bpf bpf /sys/fs/bpf\n\
         echo \"kernel $(busybox uname -r)\"\n\
         ulimit -l unlimited\n\
         failed=0\n\
         tollfree program verify --object /data/tollfree.bpf.o --schema /data/shop.json{arguments} || failed=1\n\
         for module in {modules}; do busybox insmod /modules/$module || failed=1; done\n\
         for test in {tests}; do\n\
         $test --test-threads=1 --nocapture >/tmp/said 2>&1 || failed=1\n\
         busybox cat /tmp/said\n\
         busybox grep -q skipped: /tmp/said && failed=1\n\
         done\n\
         echo \"{VERDICT}$failed\"\n\
         busybox poweroff -f\n"
    )
}

/// A test of a package, built.
fn built_test(package: &str, test: &str) -> Result<PathBuf> {
    let mut build = cargo();
    build.args(["test", "--no-run", "--message-format=json", "-p", package, "--test", test]);
    println!("$ {}", shown(&build));
    let output = build.stderr(Stdio::inherit()).output().context("cannot start cargo")?;
    let mut artifacts = output.stdout.split(|byte| *byte == b'\n').filter_map(|line| {
        let message: serde_json::Value = serde_json::from_slice(line).ok()?;
        (message["target"]["name"] == test).then(|| message["executable"].as_str().map(PathBuf::from))?
    });
    artifacts.next_back().with_context(|| format!("cargo does not say where the test {test} of {package} is"))
}

/// A path of this host as the archive has it: without the root.
fn inside(path: &Path) -> &Path {
    path.strip_prefix("/").unwrap_or(path)
}

fn find_module(kernel: &Path, module: &str) -> Result<PathBuf> {
    let releases = fs::read_dir(kernel.join("lib/modules")).context("the kernel's package has no modules")?;
    let mut found = releases.flatten().map(|release| release.path().join("kernel").join(module));
    found.find(|path| path.is_file()).with_context(|| format!("the kernel's package has no {module}"))
}

fn which(program: &str) -> Option<PathBuf> {
    let paths = std::env::var_os("PATH")?;
    std::env::split_paths(&paths).map(|folder| folder.join(program)).find(|path| path.is_file())
}

/// The shared libraries that a program needs.
fn libraries(program: &Path) -> Result<BTreeSet<PathBuf>> {
    let said = answer("ldd", &[program])
        .with_context(|| format!("ldd does not say what {} needs", program.display()))?;
    let paths = said.split_whitespace().filter(|word| word.starts_with('/'));
    Ok(paths.map(PathBuf::from).collect())
}
