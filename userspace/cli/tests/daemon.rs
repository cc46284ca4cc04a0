//! The daemon over the `udp` backend: what it makes and removes, and the commands that speak to it. No privileges.

mod common;

use common::{binary, source, tollfree, write};
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

/// A daemon that ends with its test.
struct Daemon {
    home: Option<tempfile::TempDir>,
    child: Child,
}

impl Daemon {
    /// Starts one on a port of the system's choice and waits until it is ready.
    fn start(more: &str) -> Daemon {
        Daemon::start_in(tempfile::tempdir().unwrap(), more)
    }

    /// The same where another has been.
    fn start_in(home: tempfile::TempDir, more: &str) -> Daemon {
        let mut daemon = Daemon::spawn(home, more);
        let deadline = Instant::now() + Duration::from_secs(20);
        while !(daemon.socket("app.sock").exists() && daemon.socket("admin.sock").exists()) {
            let ended = daemon.child.try_wait().unwrap().is_some();
            if ended || Instant::now() > deadline {
                let log = daemon.log();
                panic!("not ready: {log}");
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        daemon
    }

    fn spawn(home: tempfile::TempDir, more: &str) -> Daemon {
        let text = format!("listen = \"127.0.0.1:0\"\nwait = \"sleep\"\n{more}");
        let config = write(home.path(), "tollfree.toml", &text);
        let mut command = binary(home.path());
        command.arg("run").arg("--config").arg(config).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        Daemon { home: Some(home), child }
    }

    /// Ends it as a crash would; what it leaves is its successor's.
    fn kill(mut self) -> tempfile::TempDir {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        for socket in ["app.sock", "admin.sock"] {
            std::fs::remove_file(self.socket(socket)).unwrap();
        }
        self.home.take().unwrap()
    }

    /// The policies in force, as `status` shows them: side, file, place.
    fn policies(&self) -> Vec<(String, String, String)> {
        let run = tollfree(self.home(), &["status", "-o", "json"]);
        let policies = run.json()["daemon"]["policies"].as_array().unwrap().clone();
        let text = |one: &serde_json::Value, key: &str| one[key].as_str().unwrap().to_owned();
        policies.iter().map(|one| (text(one, "at"), text(one, "policy"), text(one, "place"))).collect()
    }

    fn home(&self) -> &Path {
        self.home.as_ref().unwrap().path()
    }

    fn socket(&self, name: &str) -> PathBuf {
        self.home().join("state").join(name)
    }

    fn log(&mut self) -> String {
        self.child.kill().ok();
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    /// Asks it to end; its exit code and log.
    fn stop(mut self, signal: rustix::process::Signal) -> (i32, String) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal).unwrap();
        let mut text = String::new();
        self.child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        let code = self.child.wait().unwrap().code().unwrap_or(-1);
        let left: Vec<_> = std::fs::read_dir(self.home().join("state"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.ends_with(".sock"))
            .collect();
        assert!(left.is_empty(), "{left:?}");
        (code, text)
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn it_is_ready_with_its_sockets_and_leaves_none() {
    for signal in [rustix::process::Signal::TERM, rustix::process::Signal::INT] {
        let daemon = Daemon::start("");
        let mode = |name| std::fs::metadata(daemon.socket(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("admin.sock"), mode("app.sock")), (0o600, 0o666));
        let run = tollfree(daemon.home(), &["status", "-o", "json"]);
        assert_eq!(run.code, 0, "{}", run.err);
        assert_eq!(run.json()["daemon"]["backend"], "udp");
        let run = tollfree(daemon.home(), &["status"]);
        assert!(run.out.contains("udp on 127.0.0.1:") && !run.out.contains("127.0.0.1:0\n"), "{}", run.out);
        let (code, log) = daemon.stop(signal);
        assert_eq!(code, 0, "{log}");
        assert!(log.contains("ready: ") && log.contains("stopped"), "{log}");
    }
}

#[test]
fn a_second_daemon_is_refused() {
    let daemon = Daemon::start("app_socket_mode = \"0600\"\n");
    let mode = std::fs::metadata(daemon.socket("app.sock")).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    let run = tollfree(daemon.home(), &["run"]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("another daemon (process "), "{}", run.err);
    let run = tollfree(daemon.home(), &["clean"]);
    assert_eq!(run.code, 1, "{}", run.out);
    assert!(run.err.contains("stop it first"), "{}", run.err);
}

#[test]
fn policies_and_tables_change_while_it_runs() {
    let daemon = Daemon::start("");
    let home = daemon.home();
    let schema = source("schemas/hash.proto");
    let run = tollfree(home, &["policy", "table", "list"]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("no policy is in force"), "{}", run.err);

    let apply = |file: &str| tollfree(home, &["policy", "apply", file, "--schema", &schema]);
    let run = apply(&source("policies/firewall.policy"));
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.out.contains("is in force in the engine, at the server"), "{}", run.out);

    let table = |arguments: &[&str]| {
        let mut all = vec!["policy", "table"];
        all.extend(arguments);
        tollfree(home, &all)
    };
    assert_eq!(table(&["set", "firewall_rules", "alice", "ALLOW"]).code, 0);
    let run = table(&["get", "firewall_rules", "alice"]);
    assert_eq!((run.code, run.out.as_str()), (0, "ALLOW\n"), "{}", run.err);
    let run = table(&["list", "firewall_rules", "-o", "json"]);
    assert_eq!(run.json(), serde_json::json!([{ "key": "alice", "value": "ALLOW" }]));
    let run = table(&["list", "-o", "json"]);
    assert_eq!(run.json()[0]["entries"], 1, "{}", run.out);

    let run = table(&["set", "firewall_rules", "alice", "PERHAPS"]);
    assert_eq!(run.code, 3, "{}", run.err);
    assert!(run.err.contains("values are ALLOW|DENY"), "{}", run.err);
    let run = table(&["get", "firewal_rules", "alice"]);
    assert_eq!(run.code, 3, "{}", run.err);
    assert_eq!(table(&["get", "firewall_rules", "bob"]).code, 1);

    // A swap keeps the table; a refused one keeps everything.
    assert_eq!(apply(&source("policies/paper/firewall.policy")).code, 0);
    assert_eq!(table(&["get", "firewall_rules", "alice"]).out, "ALLOW\n");
    let flawed = write(home, "flawed.policy", "firewall()\n");
    assert_eq!(apply(flawed.to_str().unwrap()).code, 3);
    assert_eq!(table(&["get", "firewall_rules", "alice"]).out, "ALLOW\n");
    assert_eq!(table(&["delete", "firewall_rules", "alice"]).code, 0);
    assert_eq!(table(&["delete", "firewall_rules", "alice"]).code, 1);

    let run = tollfree(home, &["status", "-o", "json"]);
    assert_eq!(run.json()["daemon"]["policies"][0]["place"], "engine", "{}", run.out);
    assert_eq!(tollfree(home, &["policy", "clear"]).code, 0);
    assert_eq!(tollfree(home, &["policy", "clear"]).code, 1);
}

#[test]
fn what_would_change_is_shown_and_what_was_comes_back() {
    let daemon = Daemon::start("");
    let home = daemon.home();
    let schema = source("schemas/hash.proto");
    let with = |command: &str, file: &str, more: &[&str]| {
        let mut all = vec!["policy", command, file, "--schema", &schema];
        all.extend(more);
        tollfree(home, &all)
    };
    let run = tollfree(home, &["policy", "rollback"]);
    assert!(run.code == 1 && run.err.contains("no policy was in force"), "{}", run.err);
    let firewall = source("policies/firewall.policy");
    let run = with("diff", &firewall, &[]);
    assert!(run.out.contains("element firewall new: engine") && run.out.contains("no policy"), "{}", run.out);
    assert_eq!(with("apply", &firewall, &[]).code, 0);
    assert_eq!(tollfree(home, &["policy", "table", "set", "firewall_rules", "alice", "ALLOW"]).code, 0);
    let run = with("diff", &firewall, &[]);
    assert!(run.out.contains("keeps its entries") && run.out.contains("stays as it is"), "{}", run.out);

    let text = "note() -> count_it()\nnote():\n    send(rpc)\nstate:\n    calls: counter\ncount_it():\n    add(calls, 1)\n";
    let other = write(home, "other.policy", text);
    let other = other.to_str().unwrap();
    let run = with("diff", other, &["-o", "json"]);
    let diff = &run.json()[0];
    let lost =
        diff["tables"].as_array().unwrap().iter().find(|table| table["name"] == "firewall_rules").unwrap();
    assert!(lost["kept"] == false && lost["after"].is_null(), "{diff}");
    let run = with("apply", other, &["-o", "json"]);
    assert_eq!(run.json()[0]["tables"], serde_json::json!(["calls"]), "{}", run.out);

    let run = tollfree(home, &["policy", "rollback"]);
    assert!(run.out.contains("firewall.policy is in force"), "{}{}", run.out, run.err);
    assert_eq!(tollfree(home, &["policy", "table", "get", "firewall_rules", "alice"]).out, "ALLOW\n");
    let run = tollfree(home, &["policy", "table", "get", "firewall_rules", "bob", "-o", "json"]);
    assert_eq!((run.code, run.err.as_str()), (1, ""));
    assert_eq!(run.json()["kind"], "failed");
}

#[test]
fn what_this_daemon_does_not_have_is_refused_in_a_sentence() {
    let keys = "[keys]\nnotes = \"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\"\n";
    let daemon = Daemon::start(keys);
    let [hash, feed] = ["hash", "feed"].map(|name| source(&format!("schemas/{name}.proto")));
    for (schema, body, sentence) in [
        (
            &hash,
            "match get(peer, 'token'):\n        VALID => send(rpc)\n        _ => drop()",
            "checks no tokens",
        ),
        (
            &hash,
            "match ask('door'):\n        true => send(rpc)\n        _ => drop()",
            "asks the authoriser door",
        ),
        (&hash, "mirror('shadow')\n    send(rpc)", "to backends (shadow)"),
        (
            &feed,
            "request:\n        send(rpc)\n    response:\n        delay(1ms)\n        send(rpc)",
            "it delays the responses of /demo.Feed/",
        ),
    ] {
        let file = write(daemon.home(), "needs.policy", &format!("f()\nf():\n    {body}\n"));
        let file = file.to_str().unwrap();
        let apply = ["policy", "apply", file, "--schema", schema];
        let run = tollfree(daemon.home(), &apply);
        assert!(run.code == 3 && run.err.contains(sentence), "{sentence}: {}{}", run.out, run.err);
        let run = tollfree(daemon.home(), &["policy", "check", file, "--schema", schema]);
        assert_eq!(run.code, 0, "{}", run.err);
    }
    let run = tollfree(daemon.home(), &["status", "-o", "json"]);
    assert_eq!(run.json()["daemon"]["policies"], serde_json::json!([]), "nothing came into force");
}

#[test]
fn a_policy_in_the_configuration_is_in_force_from_the_start() {
    let policy = format!(
        "[policy]\nfile = \"{}\"\nschema = \"{}\"\nat = \"client\"\n",
        source("policies/firewall.policy"),
        source("schemas/hash.proto")
    );
    let daemon = Daemon::start(&policy);
    let run = tollfree(daemon.home(), &["status", "-o", "json"]);
    assert_eq!(run.json()["daemon"]["policies"][0]["at"], "client", "{}", run.out);
    let run = tollfree(daemon.home(), &["policy", "table", "list", "--at", "client"]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.out.contains("firewall_rules"), "{}", run.out);
}

#[test]
fn what_was_in_force_is_in_force_again_after_a_crash() {
    let daemon = Daemon::start("");
    let schema = source("schemas/kv.proto");
    let apply = |daemon: &Daemon, file: &str, at: &str| {
        let run = tollfree(daemon.home(), &["policy", "apply", file, "--schema", &schema, "--at", at]);
        assert_eq!(run.code, 0, "{}", run.err);
    };
    let set = |daemon: &Daemon, user: &str, verdict: &str| {
        let run = tollfree(daemon.home(), &["policy", "table", "set", "firewall_rules", user, verdict]);
        assert_eq!(run.code, 0, "{}", run.err);
    };
    let (firewall, transport) =
        (source("policies/paper/firewall.policy"), source("policies/paper/transport.policy"));
    let open = write(daemon.home(), "open.policy", "open()\nopen():\n    send(rpc)\n");
    let open = open.to_str().unwrap().to_owned();
    apply(&daemon, &open, "server");
    apply(&daemon, &firewall, "server");
    apply(&daemon, &transport, "server");
    apply(&daemon, &open, "client");
    set(&daemon, "alice", "ALLOW");
    set(&daemon, "eve", "DENY");
    set(&daemon, "bob", "DENY");
    assert_eq!(tollfree(daemon.home(), &["policy", "table", "delete", "firewall_rules", "bob"]).code, 0);
    let before = daemon.policies();
    assert_eq!(before.len(), 2, "{before:?}");
    let carried = |daemon: &Daemon| {
        tollfree(daemon.home(), &["status", "-o", "json"]).json()["daemon"]["transport"].clone()
    };
    let blocks = carried(&daemon);

    let daemon = Daemon::start_in(daemon.kill(), "");
    assert_eq!(daemon.policies(), before);
    assert_eq!(carried(&daemon), blocks);
    let rules = tollfree(daemon.home(), &["policy", "table", "list", "firewall_rules", "-o", "json"]).json();
    let rule = |key: &str, value: &str| serde_json::json!({ "key": key, "value": value });
    assert_eq!(rules, serde_json::json!([rule("alice", "ALLOW"), rule("eve", "DENY")]), "as people set them");

    // The way back has survived, too, and is the next daemon's to find in its turn.
    let run = tollfree(daemon.home(), &["policy", "rollback"]);
    assert_eq!(run.code, 0, "{}", run.err);
    let daemon = Daemon::start_in(daemon.kill(), "");
    assert_eq!(daemon.policies()[0].1, open, "gone back");
    assert_eq!(tollfree(daemon.home(), &["policy", "rollback"]).code, 0, "and forth again");
    assert_eq!(daemon.policies()[0].1, firewall);

    // What was cleared stays so.
    for at in ["server", "client"] {
        assert_eq!(tollfree(daemon.home(), &["policy", "clear", "--at", at]).code, 0);
    }
    let daemon = Daemon::start_in(daemon.kill(), "");
    assert_eq!(daemon.policies(), []);
    let run = tollfree(daemon.home(), &["policy", "rollback"]);
    assert!(run.code == 0 && run.out.contains("paper/firewall.policy"), "{}{}", run.out, run.err);
}

#[test]
fn a_side_whose_policy_cannot_be_in_force_again_is_closed() {
    let keys = "[keys]\nshop = \"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\"\n";
    let daemon = Daemon::start(keys);
    let schema = source("schemas/shop.proto");
    let policy = std::fs::read_to_string(source("policies/std/encrypt.policy")).unwrap();
    let policy = write(daemon.home(), "encrypt.policy", &policy);
    let run = tollfree(daemon.home(), &["policy", "apply", policy.to_str().unwrap(), "--schema", &schema]);
    assert_eq!(run.code, 0, "{}", run.err);
    let before = daemon.policies();

    // Without the key nobody could keep the policy's word.
    let daemon = Daemon::start_in(daemon.kill(), "");
    let closed = daemon.policies();
    assert_eq!(closed.len(), before.len());
    assert!(closed.iter().all(|(.., place)| place == "closed"), "{closed:?}");
    let run = tollfree(daemon.home(), &["status"]);
    assert!(run.out.contains("every call is refused"), "{}", run.out);

    // With it, all is well again; a daemon that was closed has forgotten nothing.
    let daemon = Daemon::start_in(daemon.kill(), keys);
    assert_eq!(daemon.policies(), before);

    // A side can be opened by a command.
    let daemon = Daemon::start_in(daemon.kill(), "");
    for (at, ..) in &before {
        let run = tollfree(daemon.home(), &["policy", "clear", "--at", at]);
        assert_eq!(run.code, 0, "{}", run.err);
    }
    assert_eq!(daemon.policies(), []);
}

#[test]
fn a_record_that_cannot_be_understood_keeps_the_daemon_from_starting() {
    let daemon = Daemon::start("");
    let home = daemon.kill();
    std::fs::write(home.path().join("state/policies.json"), "{\"version\": 1, \"si").unwrap();
    let mut daemon = Daemon::spawn(home, "");
    let code = daemon.child.wait().unwrap().code();
    assert_eq!(code, Some(1));
    let log = daemon.log();
    assert!(
        log.contains("policies.json says which policies are in force") && log.contains("remove it"),
        "{log}"
    );
}

#[test]
fn the_last_word_holds_be_it_a_commands_or_a_changed_configurations() {
    let home = tempfile::tempdir().unwrap();
    let schema = source("schemas/hash.proto");
    let file = |name: &str, text: &str| write(home.path(), name, text).display().to_string();
    let (ours, theirs) = (
        file("ours.policy", "a()\na():\n    send(rpc)\n"),
        file("theirs.policy", "b()\nb():\n    send(rpc)\n"),
    );
    let config = format!("[policy]\nfile = {ours:?}\nschema = {schema:?}\n");
    let in_force = |daemon: &Daemon| daemon.policies().first().map(|(_, file, _)| file.clone());

    let daemon = Daemon::start_in(home, &config);
    assert_eq!(in_force(&daemon).as_deref(), Some(&*ours));
    let run = tollfree(daemon.home(), &["policy", "apply", &theirs, "--schema", &schema]);
    assert_eq!(run.code, 0, "{}", run.err);
    let daemon = Daemon::start_in(daemon.kill(), &config);
    assert_eq!(in_force(&daemon).as_deref(), Some(&*theirs), "a command came later than the configuration");
    std::fs::write(&ours, "a()\na():\n    reject(ABORTED)\n").unwrap();
    let daemon = Daemon::start_in(daemon.kill(), &config);
    assert_eq!(in_force(&daemon).as_deref(), Some(&*ours), "the configured policy has changed");
    assert_eq!(tollfree(daemon.home(), &["policy", "clear"]).code, 0);
    let daemon = Daemon::start_in(daemon.kill(), &config);
    assert_eq!(in_force(&daemon), None, "cleared");
    let daemon = Daemon::start_in(daemon.kill(), "");
    assert_eq!(in_force(&daemon), None);
    let daemon = Daemon::start_in(daemon.kill(), &config);
    assert_eq!(in_force(&daemon).as_deref(), Some(&*ours), "configured anew");
}

#[test]
fn transport_blocks_take_effect_beside_chains_and_are_shown() {
    let config = format!(
        "[policy]\nfile = \"{}\"\nschema = \"{}\"\nat = \"client\"\n",
        source("policies/paper/transport.policy"),
        source("schemas/kv.proto")
    );
    let daemon = Daemon::start(&config);
    let home = daemon.home();
    let shown = || tollfree(home, &["status", "-o", "json"]).json()["daemon"]["transport"].clone();
    let block = |at: &str| {
        serde_json::json!([
            { "at": at, "method": "/demo.Kv/GET", "carried": "unreliable()" },
            { "at": at, "method": "/demo.Kv/SET", "carried": "reliable() -> ordered()" },
        ])
    };
    assert_eq!(shown(), block("client"), "from the start");
    assert_eq!(tollfree(home, &["policy", "clear", "--at", "client"]).code, 0);
    assert_eq!(shown(), serde_json::json!([]));

    // The two listings, one after the other: neither ends the other.
    let schema = source("schemas/kv.proto");
    for file in ["policies/paper/firewall.policy", "policies/paper/transport.policy"] {
        let run = tollfree(home, &["policy", "apply", &source(file), "--schema", &schema]);
        assert_eq!(run.code, 0, "{}", run.err);
    }
    assert_eq!(shown(), block("server"));
    let run = tollfree(home, &["policy", "table", "set", "firewall_rules", "alice", "ALLOW"]);
    assert_eq!(run.code, 0, "the firewall is in force: {}", run.err);
    let flawed = write(home, "flawed.policy", "match rpc-schema:\n    GET => unreliable() -> ordered()\n");
    let run = tollfree(home, &["policy", "apply", flawed.to_str().unwrap(), "--schema", &schema]);
    assert_eq!(run.code, 3, "{}", run.out);
    assert!(run.err.contains("needs `reliable`"), "{}", run.err);
    assert_eq!(shown(), block("server"), "what was in force stays");
}

#[test]
fn nonsense_on_the_sockets_harms_nobody() {
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixStream;
    let daemon = Daemon::start("");
    let mut admin = UnixStream::connect(daemon.socket("admin.sock")).unwrap();
    admin.write_all(b"{\"op\":\"dance\"}\nnot json\n").unwrap();
    let mut answers = BufReader::new(admin.try_clone().unwrap()).lines();
    for _ in 0..2 {
        assert!(answers.next().unwrap().unwrap().starts_with("{\"error\":"));
    }
    let mut app = UnixStream::connect(daemon.socket("app.sock")).unwrap();
    app.write_all(&[0xff; 64]).unwrap();
    let mut rest = Vec::new();
    let _ = app.read_to_end(&mut rest);
    assert_eq!(tollfree(daemon.home(), &["status"]).code, 0);
}
