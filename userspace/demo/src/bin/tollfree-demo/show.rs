//! The demo: a real file, line by line, through a firewall, and everything that is claimed about it checked.

use crate::stage::Stage;
use crate::tables;
use anyhow::{Context, Result, bail};
use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
};
use tollfree_demo::{
    cli::{Programs, Snapshot},
    host::{Family, Hosts, PORT, Place},
    interrupt, leftovers,
    process::Process,
    report::Report,
    source_root,
    tcp::Conversation,
};

/// What to show.
#[derive(clap::Args)]
pub struct Options {
    /// The file to send [default: the GPL that every Debian has, or else this clone's Cargo.lock]
    #[arg(long, value_name = "PATH")]
    file: Option<PathBuf>,
    /// The `udp` backend on loopback, with the policy in the engine
    #[arg(long)]
    udp: bool,
}

/// A file that every Debian has.
const DEFAULT_FILE: &str = "/usr/share/common-licenses/GPL-3";
/// The service that is called.
const SERVICE: &str = "demo.Hash";
/// Verdicts of XDP, as `file-client` names the place.
const IN_DRIVER: &str = "driver (XDP)";
/// Verdicts of an engine.
const IN_ENGINE: &str = "engine";
/// Any port that is not Tollfree's.
const TCP_PORT: u16 = 7777;

/// A user, what the table says of them, and whether calls in their name get through.
struct User {
    name: &'static str,
    entry: Option<&'static str>,
    allowed: bool,
}

const USERS: [User; 3] = [
    User { name: "alice", entry: Some("ALLOW"), allowed: true },
    User { name: "mallory", entry: Some("DENY"), allowed: false },
    User { name: "nobody", entry: None, allowed: false },
];

/// One user's calls over one protocol, and what moved on the server's host meanwhile.
pub struct Run {
    /// Over what.
    pub family: Family,
    /// What the client says.
    pub report: Report,
    /// By how much the engine's receive counter moved.
    pub engine_received: u64,
    /// By how much XDP's count of policy rejects moved.
    pub xdp_rejects: u64,
}

/// Shows it.
///
/// # Errors
/// When it cannot be shown; what is shown and not as it should be gives an exit code.
pub fn run(options: &Options) -> Result<ExitCode> {
    let file = file(options.file.as_deref())?;
    let programs = Programs::find()?;
    let mut demo = if options.udp { Demo::on_loopback(&programs)? } else { Demo::in_namespaces(&programs)? };
    let outcome = demo.run(&file);
    // Guards first, so that what comes after is about a machine that is clean again.
    let Demo { findings, .. } = demo;
    outcome?;
    if findings.is_empty() {
        println!("\nEverything matched.");
        return Ok(ExitCode::SUCCESS);
    }
    println!("\nNot everything is as it should be:");
    for finding in findings {
        println!("  {finding}");
    }
    Ok(ExitCode::FAILURE)
}

fn file(chosen: Option<&Path>) -> Result<PathBuf> {
    let file = match chosen {
        Some(file) => file.to_owned(),
        None if Path::new(DEFAULT_FILE).is_file() => DEFAULT_FILE.into(),
        None => source_root().join("Cargo.lock"),
    };
    let length = std::fs::metadata(&file).with_context(|| format!("cannot read {}", file.display()))?.len();
    if length == 0 {
        bail!("{} is empty; choose a file with lines in it", file.display());
    }
    Ok(file)
}

struct Demo {
    hosts: Hosts,
    xdp: bool,
    /// What is not as it should be.
    findings: Vec<String>,
    _lock: Option<leftovers::Lock>,
}

impl Demo {
    fn in_namespaces(programs: &Programs) -> Result<Demo> {
        let Stage { mut hosts, swept, lock, .. } = Stage::set(Place::Namespaces, programs)?;
        for what in swept {
            println!("removed what an earlier run left behind: {what}");
        }
        println!("Two hosts: the network namespaces tf-client and tf-server, connected by a veth pair.");
        if hosts.separate() {
            println!("Each has one core, which its daemon and its application share.");
        }
        Ok(Demo { hosts, xdp: true, findings: Vec::new(), _lock: Some(lock) })
    }

    fn on_loopback(programs: &Programs) -> Result<Demo> {
        let folder = std::env::temp_dir().join(format!("tollfree-demo-{}", std::process::id()));
        let hosts = Hosts::create(&Place::Loopback(PORT), &folder, Path::new("/nonexistent"), programs)?;
        println!("Without XDP: the udp backend on loopback, with the policy in the server's engine.");
        println!("As root, `cargo xtask demo` runs the same firewall in the network driver.");
        Ok(Demo { hosts, xdp: false, findings: Vec::new(), _lock: None })
    }

    fn run(&mut self, file: &Path) -> Result<()> {
        let mut tcp = self.start_tcp()?;
        self.check_tcp(&mut tcp, "before XDP is attached")?;
        let mut runs = Vec::new();
        let (before, mut after) = self.start_server(Family::V4)?;
        for family in [Family::V4, Family::V6] {
            // On loopback a daemon listens on one address, so the other family needs other daemons.
            if !self.xdp && family == Family::V6 {
                after = self.start_server(family)?.0;
            }
            let _service = self.hosts.server.start_service()?;
            let engine = self.hosts.server.engine(family);
            self.hosts.client.start_daemon(family, &[(SERVICE, engine)])?;
            println!("\n{} lines of {} over {}:", count_lines(file)?, file.display(), family.name());
            for user in &USERS {
                let run = self.send(file, family, user, &mut after)?;
                self.judge(user, &run);
                runs.push(run);
            }
            self.check_tcp(&mut tcp, "while calls run")?;
        }
        let status = self.hosts.server.cli.status()?;
        println!("\n{}", tables::calls(&runs, self.policy_at()));
        if self.xdp {
            println!("{}", tables::counters(&before, &status));
            println!("XDP mode in force on the server: {}.", status.mode.as_deref().unwrap_or("unknown"));
        } else {
            println!("XDP is not in use: every verdict was taken in the server's engine.");
        }
        self.hosts.client.detach()?;
        self.hosts.server.detach()?;
        self.check_tcp(&mut tcp, "after XDP was detached")
    }

    /// The server's daemon with the firewall in force, and its counters.
    fn start_server(&mut self, family: Family) -> Result<(Snapshot, Snapshot)> {
        let server = &mut self.hosts.server;
        server.start_daemon(family, &[])?;
        let root = source_root();
        let applied = server
            .cli
            .apply_policy(&root.join("policies/firewall.policy"), &root.join("schemas/hash.proto"))?;
        for User { name, entry, .. } in &USERS {
            if let Some(value) = entry {
                server.cli.set("firewall_rules", name, value)?;
            }
        }
        // One side: the firewall has one chain.
        let instructions = applied.pointer("/0/instructions").and_then(serde_json::Value::as_u64);
        let instructions =
            instructions.context("`tollfree policy apply -o json` does not say how many instructions")?;
        match self.xdp {
            true => println!(
                "policies/firewall.policy is in force on the server: {instructions} eBPF instructions in XDP."
            ),
            false => println!("policies/firewall.policy is in force in the server's engine."),
        }
        let status = server.cli.status()?;
        Ok((status.clone(), status))
    }

    /// One user sends the whole file.
    fn send(&self, file: &Path, family: Family, user: &User, last: &mut Snapshot) -> Result<Run> {
        let label = format!("{} ({})", user.name, user.entry.unwrap_or("not in the table"));
        let client = &self.hosts.client;
        // The first user's first calls agree on a session and on the layout; their packets are nobody's verdict.
        let warm_up = if user.allowed { "20" } else { "0" };
        let mut command = client.app("file-client");
        command.arg("--file").arg(file).args(["--user", user.name, "--warm-up", warm_up, "--label", &label]);
        let output = client.cli.state.join("report.json");
        let target =
            std::fs::File::create(&output).with_context(|| format!("cannot write {}", output.display()))?;
        let before = self.hosts.server.cli.status()?;
        let mut process = client
            .cli
            .inside(|| Process::spawn("file-client", command.stdout(target).stderr(Stdio::inherit())))?;
        let status = process.wait()?;
        let text =
            std::fs::read_to_string(&output).with_context(|| format!("cannot read {}", output.display()))?;
        // With a report, failed calls are findings like others.
        if !status.success() && text.is_empty() {
            bail!("file-client ended with {status} for {}{}", user.name, self.logs());
        }
        let report = Report::parse(&text)?;
        *last = self.hosts.server.cli.status()?;
        Ok(Run {
            family,
            report,
            engine_received: last.received.saturating_sub(before.received),
            xdp_rejects: last.xdp("policy_reject").saturating_sub(before.xdp("policy_reject")),
        })
    }

    fn judge(&mut self, user: &User, run: &Run) {
        let Run { family, report, engine_received, xdp_rejects } = run;
        let mut wrong = |what: String| {
            self.findings.push(format!("{} over {}: {what}", user.name, family.name()));
        };
        for (how, count) in &report.failed {
            wrong(format!("{count} calls failed: {how}"));
        }
        if report.mismatched > 0 {
            wrong(format!("{} digests differ from the local ones", report.mismatched));
        }
        let (expected, got) =
            if user.allowed { ("allowed", report.allowed) } else { ("rejected", report.rejected()) };
        if got != report.calls {
            wrong(format!("{got} of {} calls were {expected}", report.calls));
        }
        if user.allowed {
            return;
        }
        let place = if self.xdp { IN_DRIVER } else { IN_ENGINE };
        let there = report.rejected.get(place).copied().unwrap_or(0);
        if there != report.calls {
            wrong(format!("{there} of {} calls were rejected in the {place}", report.calls));
        }
        if self.xdp && *engine_received != 0 {
            wrong(format!("the server's engine received {engine_received} packets of rejected calls"));
        }
        if self.xdp && *xdp_rejects < report.calls {
            wrong(format!("XDP counted {xdp_rejects} rejects for {} calls", report.calls));
        }
    }

    /// Where the policy judges, as `file-client` names it.
    fn policy_at(&self) -> &'static str {
        if self.xdp { IN_DRIVER } else { IN_ENGINE }
    }

    fn start_tcp(&self) -> Result<Option<Conversation>> {
        let (Some(server), Some(client)) = (self.hosts.server.namespace(), self.hosts.client.namespace())
        else {
            return Ok(None);
        };
        let address = SocketAddr::new(self.hosts.server.address(Family::V4), TCP_PORT);
        Conversation::start(server, client, address).map(Some)
    }

    fn check_tcp(&self, tcp: &mut Option<Conversation>, when: &str) -> Result<()> {
        interrupt::check()?;
        if let (Some(tcp), Some(client)) = (tcp, self.hosts.client.namespace()) {
            let messages = tcp.check(client).with_context(|| format!("TCP {when}"))?;
            println!(
                "Ordinary TCP {when}: works ({messages} messages on the old connection, and a new one)."
            );
        }
        Ok(())
    }

    fn logs(&self) -> String {
        let hosts = [("client", &self.hosts.client), ("server", &self.hosts.server)];
        let tails = hosts.map(|(name, host)| {
            let tail = tollfree_demo::process::tail(&host.log(), 1000);
            if tail.is_empty() { String::new() } else { format!("\nthe {name}'s daemon said:\n{tail}") }
        });
        tails.concat()
    }
}

fn count_lines(file: &Path) -> Result<usize> {
    let contents = std::fs::read(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(contents.split_inclusive(|byte| *byte == b'\n').count())
}
