//! What the commands say and which exit code they end with; no privileges, no daemon.

mod common;

use common::{source, tollfree, write};
use std::path::Path;

fn home() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

#[test]
fn help_documents_commands_and_exit_codes() {
    let home = home();
    let run = tollfree(home.path(), &["--help"]);
    assert_eq!(run.code, 0, "{}", run.err);
    for word in ["run", "check", "status", "iface", "policy", "schema", "program", "clean", "Exit codes:"] {
        assert!(run.out.contains(word), "{word}: {}", run.out);
    }
    let run = tollfree(home.path(), &["policy", "table", "set", "--help"]);
    assert_eq!(run.code, 0);
    assert!(run.out.contains("--iface"), "{}", run.out);
}

#[test]
fn wrong_usage_is_2() {
    let home = home();
    for arguments in [&["polcy"][..], &["policy", "apply", "x"], &["status", "-o", "yaml"], &[]] {
        assert_eq!(tollfree(home.path(), arguments).code, 2, "{arguments:?}");
    }
}

#[test]
fn a_bad_configuration_names_file_line_and_key() {
    let home = home();
    let file = write(home.path(), "bad.toml", "backend = \"udp\"\nlisten = \"nowhere\"\n");
    let run = tollfree(home.path(), &["run", "--config", file.to_str().unwrap()]);
    assert_eq!(run.code, 3, "{}", run.err);
    assert!(run.err.starts_with(&format!("error: {}:2:10: `listen`: ", file.display())), "{}", run.err);

    let file = write(home.path(), "unknown.toml", "\n\nbackand = \"udp\"\n");
    let run = tollfree(home.path(), &["run", "--config", file.to_str().unwrap()]);
    assert_eq!(run.code, 3);
    assert!(run.err.contains("unknown.toml:3:1: unknown field `backand`"), "{}", run.err);

    let run = tollfree(home.path(), &["run", "--config", "/no/such/file.toml"]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("cannot read /no/such/file.toml: No such file"), "{}", run.err);
}

#[test]
fn a_missing_interface_is_one_sentence() {
    let home = home();
    let file = write(home.path(), "x.toml", "backend = \"afxdp\"\ninterface = \"nope0\"\n");
    let config = file.to_str().unwrap();
    for arguments in [
        &["iface", "attach", "nope0"][..],
        &["iface", "detach", "nope0"],
        &["policy", "clear", "--iface", "nope0"],
        &["policy", "table", "list", "--iface", "nope0"],
        &["run", "--config", config],
    ] {
        let run = tollfree(home.path(), arguments);
        assert_eq!(run.code, 1, "{arguments:?}: {}", run.err);
        let last = run.err.lines().last().unwrap_or_default();
        assert!(last.starts_with("error: there is no network interface nope0 here; there are "), "{last}");
    }
}

#[test]
fn without_a_daemon_commands_say_so() {
    let home = home();
    let run = tollfree(home.path(), &["policy", "table", "list"]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("no daemon answers at"), "{}", run.err);
    let run = tollfree(home.path(), &["status", "-o", "json"]);
    assert_eq!(run.code, 1);
    assert!(run.json()["daemon"].is_null());
    assert!(tollfree(home.path(), &["status"]).out.contains("no daemon answers at"));
    let run = tollfree(home.path(), &["iface", "list", "-o", "json"]);
    assert_eq!((run.code, run.json()), (0, serde_json::json!([])), "{}", run.err);
    assert_eq!(tollfree(home.path(), &["clean"]).code, 0);
}

#[test]
fn check_reports_every_backend() {
    let home = home();
    let run = tollfree(home.path(), &["check", "-o", "json"]);
    let report = run.json();
    assert_eq!(run.code, i32::from(report["ok"] != true), "{}", run.out);
    let checks: Vec<&str> =
        report["checks"].as_array().unwrap().iter().filter_map(|c| c["check"].as_str()).collect();
    for check in ["kernel", "capabilities", "bpffs", "locked memory", "XDP programs", "AF_XDP sockets"] {
        assert!(checks.contains(&check), "{checks:?}");
    }
    let run = tollfree(home.path(), &["check", "--iface", "nope0"]);
    assert_eq!(run.code, 1);
    assert!(run.out.contains("× interface: there is no network interface nope0"), "{}", run.out);
}

#[test]
fn a_schema_compiles_to_a_manifest() {
    let home = home();
    let run = tollfree(home.path(), &["schema", "compile", &source("schemas/hash.proto")]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert_eq!(run.json()["services"][0]["methods"][0]["path"], "/demo.Hash/Sha256");

    let manifest = home.path().join("hash.json");
    let run = tollfree(
        home.path(),
        &["schema", "compile", &source("schemas/hash.proto"), "--out", manifest.to_str().unwrap()],
    );
    assert_eq!(run.code, 0, "{}", run.err);
    let stubs = home.path().join("stubs");
    let run = tollfree(
        home.path(),
        &["schema", "compile", &source("schemas/hash.proto"), "--rust", stubs.to_str().unwrap()],
    );
    assert_eq!(run.code, 0, "{}", run.err);
    let text = std::fs::read_to_string(stubs.join("demo.rs")).unwrap();
    assert!(text.contains("HashClient"));

    // The manifest stands in for the schema.
    let run = tollfree(
        home.path(),
        &["policy", "check", &source("policies/firewall.policy"), "--schema", manifest.to_str().unwrap()],
    );
    assert_eq!(run.code, 0, "{}", run.err);
}

const FLAWED: &str = r#"syntax = "proto3";
package demo;
import "tollfree/options.proto";
service Hash { rpc Sha256(HashRequest) returns (HashRequest); }
message HashRequest {
  string user = 1 [(tollfree.flat) = {}];
}
"#;

#[test]
fn a_flawed_schema_is_refused_in_place() {
    let home = home();
    let file = write(home.path(), "flawed.proto", FLAWED);
    for command in ["compile", "lint"] {
        let run = tollfree(home.path(), &["schema", command, file.to_str().unwrap()]);
        assert_eq!(run.code, 3, "{}", run.err);
        assert!(run.err.contains("flawed.proto:6:"), "{}", run.err);
        assert!(run.err.contains("^^^"), "{}", run.err);
        assert!(run.err.contains("`max_len`") && run.err.contains("user"), "{}", run.err);
        assert!(run.out.is_empty());
    }
    let run = tollfree(home.path(), &["schema", "compile", "/no/such.proto"]);
    assert_eq!(run.code, 1);
    assert!(run.err.contains("cannot read /no/such.proto"), "{}", run.err);
}

#[test]
fn lint_finds_what_breaks_peers() {
    let home = home();
    let hash = source("schemas/hash.proto");
    let run = tollfree(home.path(), &["schema", "lint", &hash, "--against", &hash, "-o", "json"]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert_eq!(run.json()["ok"], true);

    let text = std::fs::read_to_string(&hash).unwrap().replace("max_len: 15", "max_len: 31");
    let changed = write(home.path(), "hash.proto", &text);
    let run = tollfree(home.path(), &["schema", "lint", changed.to_str().unwrap(), "--against", &hash]);
    assert_eq!(run.code, 3, "{}", run.err);
    assert!(run.out.contains("breaks: ") && run.out.contains("user"), "{}", run.out);
}

fn policy(home: &Path, command: &str, file: &str, more: &[&str]) -> common::Run {
    let schema = source("schemas/hash.proto");
    let mut arguments = vec!["policy", command, file, "--schema", &schema];
    arguments.extend(more);
    tollfree(home, &arguments)
}

#[test]
fn explain_shows_places_in_both_forms() {
    let home = home();
    let file = source("policies/firewall.policy");
    let run = policy(home.path(), "explain", &file, &[]);
    assert_eq!(run.code, 0, "{}", run.err);
    let header = run.out.lines().find(|line| line.starts_with("ELEMENT")).unwrap();
    let firewall = run.out.lines().find(|line| line.starts_with("firewall ")).unwrap();
    let place = header.find("PLACE").unwrap();
    assert!(firewall[place..].starts_with("XDP ingress"), "{}", run.out);
    assert!(run.out.contains("firewall_rules"), "{}", run.out);

    let run = policy(home.path(), "explain", &file, &["-o", "json"]);
    let explain = run.json();
    assert_eq!(explain["elements"][0]["name"], "firewall");
    assert_eq!(explain["elements"][0]["place"], "xdp_ingress");
    assert_eq!(explain["tables"][0]["name"], "firewall_rules");
    assert!(explain["instructions"].as_u64().unwrap() > 0);
}

#[test]
fn what_the_compiler_made_of_a_policy_is_printed() {
    let home = home();
    let file = source("policies/firewall.policy");
    let run = policy(home.path(), "explain", &file, &["--emit", "ir"]);
    assert!(run.code == 0 && run.out.contains("element firewall"), "{}{}", run.out, run.err);
    let run = policy(home.path(), "check", &file, &["--emit", "asm", "-o", "json"]);
    let emitted = run.json()["emitted"].as_str().unwrap().to_owned();
    assert!(emitted.contains("call bpf_map_lookup_elem"), "{emitted}");
}

#[test]
fn a_flawed_policy_is_refused_in_place() {
    let home = home();
    let text = "firewall()\nfirewall():\n    user = get(rpc, 'usr')\n    match get(rules, user):\n        ALLOW => send(rpc)\n        DENY|NONE => drop()\n";
    let file = write(home.path(), "flawed.policy", text);
    let file = file.to_str().unwrap();
    for command in ["check", "explain", "apply"] {
        let run = policy(home.path(), command, file, &[]);
        assert_eq!(run.code, 3, "{command}: {}", run.err);
        assert!(run.err.contains("flawed.policy:3:"), "{}", run.err);
        assert!(run.err.contains("get(rpc, 'usr')") && run.err.contains('^'), "{}", run.err);
        assert!(run.out.is_empty(), "{}", run.out);
    }
    let run = policy(home.path(), "check", file, &["-o", "json"]);
    assert_eq!(run.code, 3);
    let report = run.json();
    assert_eq!((&report["ok"], &report["errors"][0]["line"]), (&false.into(), &3.into()));
    assert!(run.err.is_empty(), "{}", run.err);
}

#[test]
fn the_paper_s_listings_have_no_mistakes() {
    let home = home();
    let run = policy(home.path(), "check", &source("policies/paper/firewall.policy"), &[]);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.out.ends_with("no mistakes\n"), "{}", run.out);
}

#[test]
fn missing_privileges_are_named() {
    let home = home();
    if rustix_is_root() {
        println!("skipped: runs as root, who lacks nothing");
        return;
    }
    let run = tollfree(home.path(), &["iface", "attach", "lo"]);
    assert_eq!(run.code, 4, "{}", run.err);
    assert!(
        run.err.contains("CAP_NET_ADMIN") && run.err.contains("udp backend works without"),
        "{}",
        run.err
    );
}

fn rustix_is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn a_policy_is_tested_by_the_file_beside_it() {
    let home = home();
    let schema = source("schemas/shop.proto");
    let policy = write(home.path(), "deny.policy", "deny()\ndeny():\n    reject(PERMISSION_DENIED)\n");
    let case = |expect: &str| {
        format!(
            "schema = {schema:?}\n[[case]]\nname = \"nobody gets through\"\nmethod = \"shop.Catalog/Get\"\n\
             expect = \"{expect}\"\n"
        )
    };
    write(home.path(), "deny.test", &case("reject PERMISSION_DENIED"));
    let arguments = ["policy", "test", policy.to_str().unwrap(), "--place", "engine"];
    let run = tollfree(home.path(), &arguments);
    assert_eq!(run.code, 0, "{}", run.err);
    assert!(run.out.ends_with("1 policy, 1 case, 0 failed\n"), "{}", run.out);

    write(home.path(), "deny.test", &case("send"));
    let run = tollfree(home.path(), &[&arguments[..], &["-o", "json"]].concat());
    assert_eq!(run.code, 1, "{}", run.err);
    let reports: serde_json::Value = serde_json::from_str(&run.out).unwrap();
    assert_eq!(reports[0]["cases"][0]["wrong"][0], "it ended reject PERMISSION_DENIED, not send");

    write(home.path(), "deny.test", "schem = 7\n");
    let run = tollfree(home.path(), &arguments);
    assert_eq!(run.code, 3, "{}", run.err);
    assert!(run.err.contains("deny.test") && run.err.contains("schem"), "{}", run.err);
}

/// Whether the XDP programs can be loaded here; says why not.
fn has_kernel(home: &Path, policy: &str) -> bool {
    let run = tollfree(home, &["policy", "test", policy, "-o", "json"]);
    let skipped = &run.json()[0]["skipped_at_xdp"];
    if let Some(why) = skipped.as_str() {
        println!("skipped: {why}");
    }
    skipped.is_null()
}

#[test]
fn every_policy_of_the_library_does_the_same_in_the_kernel_and_in_the_engine() {
    let home = home();
    let mut policies = Vec::new();
    for folder in ["policies/std", "policies/cookbook"] {
        let files = std::fs::read_dir(source(folder)).unwrap().flatten().map(|file| file.path());
        policies.extend(files.filter(|path| path.extension().is_some_and(|extension| extension == "policy")));
    }
    let policies: Vec<&str> = policies.iter().filter_map(|path| path.to_str()).collect();
    if !has_kernel(home.path(), policies[0]) {
        return;
    }
    let run = tollfree(
        home.path(),
        &[&["policy", "test", "-o", "json", "--place", "both"], &policies[..]].concat(),
    );
    assert_eq!(run.code, 0, "{}{}", run.out, run.err);
    let reports = run.json();
    let reports = reports.as_array().unwrap();
    assert_eq!(reports.len(), policies.len());
    let cases = reports.iter().flat_map(|report| report["cases"].as_array().unwrap());
    let at_xdp = cases.filter(|case| case["ran"].as_array().unwrap().contains(&"xdp".into())).count();
    assert!(at_xdp >= 40, "only {at_xdp} cases ran in the kernel");
}

#[test]
fn a_case_that_fails_in_the_kernel_says_where_and_how() {
    let home = home();
    let schema = source("schemas/shop.proto");
    let policy = "deny()\ndeny():\n    match get(rpc, 'user'):\n        'eve' => reject(PERMISSION_DENIED)\n        _ => send(rpc)\n";
    let policy = write(home.path(), "deny.policy", policy);
    let policy = policy.to_str().unwrap();
    let test = format!(
        "schema = {schema:?}\n[[case]]\nname = \"eve\"\nmethod = \"shop.Catalog/Get\"\nfields = {{ user = \"eve\" }}\n\
         expect = \"send\"\n"
    );
    write(home.path(), "deny.test", &test);
    if !has_kernel(home.path(), policy) {
        return;
    }
    let run = tollfree(home.path(), &["policy", "test", policy]);
    assert_eq!(run.code, 1, "{}", run.err);
    assert!(run.out.contains("engine+xdp"), "{}", run.out);
    assert!(run.out.contains("eve: it ended reject PERMISSION_DENIED, not send"), "{}", run.out);
    let run = tollfree(home.path(), &["policy", "test", policy, "--place", "xdp"]);
    assert!(run.out.contains("  xdp") && run.out.contains("1 case (1 at XDP), 1 failed"), "{}", run.out);
}

#[test]
fn fmt_writes_policies_in_one_way_and_check_tells() {
    let home = home();
    let policy = write(home.path(), "x.policy", "a()\na():\n  send( rpc )   # on\n");
    let name = policy.to_str().unwrap();
    let run = tollfree(home.path(), &["policy", "fmt", "--check", name]);
    assert_eq!((run.code, run.out), (1, format!("{name}: not in canonical layout\n")), "{}", run.err);
    assert_eq!(tollfree(home.path(), &["policy", "fmt", name]).code, 0);
    assert_eq!(std::fs::read_to_string(&policy).unwrap(), "a()\na():\n    send(rpc)  # on\n");
    assert_eq!(tollfree(home.path(), &["policy", "fmt", "--check", name]).code, 0);
}
