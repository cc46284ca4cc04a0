//! Hosts for a test, and the stubs of several releases.

use anyhow::{Context, Result, bail};
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};
use tollfree::{Channel, Request, Status};
use tollfree_demo::{
    cli::Programs,
    digest,
    host::{Family, Hosts, Place},
    leftovers, netns,
    process::{Process, run},
    source_root,
    stubs::{HashRequest, hash_client::HashClient},
};

/// How long a call may take on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// Stubs that differ from [`tollfree_demo::stubs`].
pub mod stubs {
    pub mod newer {
        include!(concat!(env!("OUT_DIR"), "/newer/demo.rs"));
    }
    pub mod older {
        include!(concat!(env!("OUT_DIR"), "/older/demo.rs"));
    }
    pub mod wrong {
        include!(concat!(env!("OUT_DIR"), "/wrong/demo.rs"));
    }
    pub mod kv {
        include!(concat!(env!("OUT_DIR"), "/kv/demo.rs"));
    }
    pub mod shop {
        include!(concat!(env!("OUT_DIR"), "/shop/shop.rs"));
    }
}

/// A client's and a server's host, with daemons and a hash service.
pub struct World {
    /// Dropped first: it hangs on the server's daemon.
    pub service: Option<Process>,
    pub hosts: Hosts,
    prefix: String,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl World {
    /// Hosts without anything on them; `None`, with the reason said, where they cannot be had.
    pub fn without_daemons() -> Result<Option<World>> {
        if let Some(why) = cannot() {
            println!("skipped: {why}");
            return Ok(None);
        }
        let programs = match Programs::find() {
            Ok(programs) => programs,
            Err(why) => {
                println!("skipped: {why}");
                return Ok(None);
            }
        };
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let prefix = format!("{}{}-{number}", leftovers::TEST, std::process::id());
        let folder = Path::new(leftovers::FOLDER).join(&prefix);
        let bpffs = Path::new(leftovers::BPFFS).join(&prefix);
        let hosts = Hosts::create(&Place::Namespaces(prefix.clone()), &folder, &bpffs, &programs)?;
        Ok(Some(World { service: None, hosts, prefix }))
    }

    /// Hosts with daemons that reach each other over `family`, and a hash service.
    pub fn with_service(family: Family) -> Result<Option<World>> {
        let Some(mut world) = World::without_daemons()? else { return Ok(None) };
        world.start(family)?;
        Ok(Some(world))
    }

    pub fn start(&mut self, family: Family) -> Result<()> {
        self.hosts.server.start_daemon(family, &[])?;
        let engine = self.hosts.server.engine(family);
        self.hosts
            .client
            .start_daemon(family, &[("demo.Hash", engine), ("demo.Kv", engine), ("shop.Catalog", engine)])?;
        self.service = Some(self.hosts.server.start_service()?);
        Ok(())
    }

    /// Puts the firewall in force on the server, with these rules.
    pub fn firewall(&self, rules: &[(&str, &str)]) -> Result<()> {
        let (root, cli) = (source_root(), &self.hosts.server.cli);
        cli.apply_policy(&root.join("policies/firewall.policy"), &root.join("schemas/hash.proto"))?;
        rules.iter().try_for_each(|(user, verdict)| cli.set("firewall_rules", user, verdict))
    }

    /// A new connection to the client's daemon.
    pub async fn channel(&self) -> Result<Channel, Status> {
        Channel::connect(self.hosts.client.app_socket()).await
    }

    /// One call on a connection of its own; the digest is compared with the local one.
    pub async fn hash(&self, user: &str, data: &[u8]) -> Result<(), Status> {
        self.hash_on(self.channel().await?, user, data).await
    }

    /// One call on this connection.
    pub async fn hash_on(&self, channel: Channel, user: &str, data: &[u8]) -> Result<(), Status> {
        let mut request = Request::new(HashRequest { user: user.into(), data: data.to_vec() });
        request.set_timeout(PATIENCE);
        let response = HashClient::new(channel).sha256(request).await?;
        assert_eq!(response.get_ref().digest, digest(data), "{} bytes", data.len());
        Ok(())
    }

    /// Waits until an application on the server's host serves this.
    pub async fn wait_for_service(&self, name: &str) -> Result<()> {
        for _ in 0..200 {
            if self.hosts.server.cli.status()?.serves.iter().any(|served| served == name) {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("nobody serves {name}")
    }

    /// Everything that a killed test would leave behind.
    pub fn places(&self) -> Vec<PathBuf> {
        let namespaces = ["client", "server"].map(|host| format!("{}/{}-{host}", netns::FOLDER, self.prefix));
        let folders = [leftovers::FOLDER, leftovers::BPFFS].map(|parent| format!("{parent}/{}", self.prefix));
        let processes = self.service.iter().map(|service| format!("/proc/{}", service.id()));
        namespaces.into_iter().chain(folders).chain(processes).map(PathBuf::from).collect()
    }
}

/// Why there can be no hosts here, where there can't.
fn cannot() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root: network namespaces, XDP and AF_XDP".into());
    }
    if !source_root().join("target/ebpf/tollfree.bpf.o").is_file() {
        return Some("the XDP programs are not built; `cargo xtask build-ebpf` does that".into());
    }
    // Root in a container may have neither.
    let probe = format!("{}{}-probe", leftovers::TEST, std::process::id());
    static PROBED: std::sync::Mutex<Option<Option<String>>> = std::sync::Mutex::new(None);
    let Ok(mut probed) = PROBED.lock() else { return None };
    probed
        .get_or_insert_with(|| {
            let made =
                run(Command::new("ip").args(["netns", "add", &probe])).context("no network namespaces here");
            let removed = made.and_then(|_| run(Command::new("ip").args(["netns", "del", &probe])));
            removed.err().map(|error| format!("{error:#}"))
        })
        .clone()
}
