//! Commands and daemon on a real interface: a veth pair in a network namespace of its own. Needs root and the compiled
//! XDP programs; says so and skips where they are missing.

mod common;

use common::{Run, binary, source, write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A namespace with a veth pair, and directories that nobody else uses; all gone with the test.
struct Host {
    name: String,
    home: tempfile::TempDir,
    bpffs: PathBuf,
}

fn ip(arguments: &[&str]) -> bool {
    Command::new("ip").args(arguments).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
}

impl Host {
    fn new() -> Option<Host> {
        if !rustix::process::geteuid().is_root() {
            println!("skipped: not root");
            return None;
        }
        let object = source("target/ebpf/tollfree.bpf.o");
        if !PathBuf::from(&object).exists() {
            println!("skipped: {object} is not built");
            return None;
        }
        let name = format!("tfcli{}", std::process::id());
        let home = tempfile::tempdir().unwrap();
        let bpffs = PathBuf::from("/sys/fs/bpf").join(&name);
        let host = Host { name, home, bpffs };
        let ns = host.name.as_str();
        if !ip(&["netns", "add", ns]) {
            println!("skipped: may not make a network namespace");
            return None;
        }
        assert!(ip(&["-n", ns, "link", "add", "tfa", "type", "veth", "peer", "name", "tfb"]));
        assert!(ip(&["-n", ns, "addr", "add", "10.98.0.1/24", "dev", "tfa"]));
        assert!(ip(&["-n", ns, "link", "set", "tfa", "up"]));
        assert!(ip(&["-n", ns, "link", "set", "tfb", "up"]));
        Some(host)
    }

    fn command(&self) -> Command {
        let inner = binary(self.home.path());
        // Not `ip netns exec`: that mounts a /sys of its own, and the pins would go with it.
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/run/netns/{}", self.name)).arg(inner.get_program());
        command.env_remove("RUST_LOG").env("TOLLFREE_OBJECT", source("target/ebpf/tollfree.bpf.o"));
        command.env("TOLLFREE_STATE_DIR", self.home.path().join("state")).env("TOLLFREE_BPFFS", &self.bpffs);
        command
    }

    fn run(&self, arguments: &[&str]) -> Run {
        self.command().args(arguments).output().unwrap().into()
    }

    fn expect(&self, code: i32, arguments: &[&str]) -> Run {
        let run = self.run(arguments);
        assert_eq!(run.code, code, "{arguments:?}: {}{}", run.out, run.err);
        run
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.run(&["clean"]);
        ip(&["netns", "del", &self.name]);
        std::fs::remove_dir_all(&self.bpffs).ok();
    }
}

#[test]
fn policies_live_on_an_interface_with_and_without_a_daemon() {
    let Some(host) = Host::new() else { return };
    let (policy, schema) = (source("policies/firewall.policy"), source("schemas/hash.proto"));
    let on_pins = ["--iface", "tfa"];
    let apply = ["policy", "apply", &policy, "--schema", &schema, "--iface", "tfa"];

    let run = host.expect(1, &apply);
    assert!(run.err.contains("`tollfree iface attach tfa` does that"), "{}", run.err);
    host.expect(0, &["check", "--iface", "tfa"]);
    host.expect(0, &["iface", "attach", "tfa"]);
    host.expect(0, &apply);
    host.expect(0, &[&["policy", "table", "set", "firewall_rules", "alice", "ALLOW"][..], &on_pins].concat());
    let list = host.expect(0, &["iface", "list", "-o", "json"]).json();
    assert_eq!((&list[0]["mode"], &list[0]["generation"]), (&"native".into(), &1.into()), "{list}");

    // Refused: what was in force stays.
    let flawed = write(host.home.path(), "flawed.policy", "firewall()\n");
    host.expect(3, &["policy", "apply", flawed.to_str().unwrap(), "--schema", &schema, "--iface", "tfa"]);
    let get = ["policy", "table", "get", "firewall_rules", "alice"];
    assert_eq!(host.expect(0, &[&get[..], &on_pins].concat()).out, "ALLOW\n");

    // A daemon takes over what is in force.
    let config =
        write(host.home.path(), "c.toml", "backend = \"afxdp\"\ninterface = \"tfa\"\nwait = \"sleep\"\n");
    let mut daemon =
        host.command().arg("run").arg("--config").arg(config).stderr(Stdio::null()).spawn().unwrap();
    let ready = host.home.path().join("state/admin.sock");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !ready.exists() && Instant::now() < deadline && daemon.try_wait().unwrap().is_none() {
        std::thread::sleep(Duration::from_millis(20));
    }
    let status = host.expect(0, &["status", "-o", "json"]).json();
    assert_eq!(status["daemon"]["policies"][0]["place"], "xdp", "{status}");
    assert_eq!(host.expect(0, &get).out, "ALLOW\n");
    host.expect(0, &["policy", "table", "set", "firewall_rules", "bob", "DENY", "--iface", "tfa"]);
    let run = host.expect(1, &["iface", "detach", "tfa"]);
    assert!(run.err.contains("stop it first"), "{}", run.err);
    let pid = rustix::process::Pid::from_child(&daemon);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    assert!(daemon.wait().unwrap().success());

    // The firewall outlives it.
    let entries =
        host.expect(0, &["policy", "table", "list", "firewall_rules", "--iface", "tfa", "-o", "json"]);
    assert_eq!(entries.json().as_array().unwrap().len(), 2, "{}", entries.out);
    host.expect(0, &["policy", "clear", "--iface", "tfa"]);
    host.expect(0, &["iface", "detach", "tfa"]);
    assert_eq!(host.expect(0, &["iface", "list", "-o", "json"]).json(), serde_json::json!([]));
}

#[test]
fn programs_verify_through_both_loaders() {
    let home = tempfile::tempdir().unwrap();
    if !rustix::process::geteuid().is_root() {
        return println!("skipped: not root");
    }
    let object = source("target/ebpf/tollfree.bpf.o");
    if !PathBuf::from(&object).exists() {
        return println!("skipped: {object} is not built");
    }
    let run = common::tollfree(home.path(), &["program", "verify", "--object", &object, "-o", "json"]);
    assert_eq!(run.code, 0, "{}{}", run.out, run.err);
    let report = run.json();
    for loader in ["aya", "libbpf"] {
        let programs =
            report["programs"].as_array().unwrap().iter().filter(|program| program["loader"] == loader);
        assert!(
            programs.filter(|program| program["instructions"].as_u64() > Some(0)).count() >= 4,
            "{report}"
        );
    }
}
