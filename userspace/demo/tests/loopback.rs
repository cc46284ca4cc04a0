//! What anybody gets, without privileges: two daemons over UDP on loopback, with the firewall in the server's engine.
#![forbid(unsafe_code)]

use anyhow::Result;
use std::{path::Path, time::Duration};
use tollfree::{Channel, Code, Request, Status, VerdictAt};
use tollfree_demo::{
    cli::Programs,
    digest,
    host::{Family, Hosts, Place},
    source_root,
    stubs::{HashRequest, hash_client::HashClient},
};

async fn hash(client: &HashClient, user: &str, data: &[u8]) -> Result<(), Status> {
    let mut request = Request::new(HashRequest { user: user.into(), data: data.to_vec() });
    request.set_timeout(Duration::from_secs(10));
    let response = client.sha256(request).await?;
    assert_eq!(response.get_ref().digest, digest(data));
    Ok(())
}

#[tokio::test]
async fn the_firewall_works_without_privileges() -> Result<()> {
    let programs = match Programs::find() {
        Ok(programs) => programs,
        Err(why) => {
            println!("skipped: {why}");
            return Ok(());
        }
    };
    let process = std::process::id();
    let folder = std::env::temp_dir().join(format!("tollfree-loopback-{process}"));
    // Ports of this process's own, so that a demo or another test run does not meet them.
    let place = Place::Loopback(20_000 + (process % 10_000) as u16 * 2);
    let mut hosts = Hosts::create(&place, &folder, Path::new("/nonexistent"), &programs)?;

    for family in [Family::V4, Family::V6] {
        hosts.server.start_daemon(family, &[])?;
        let service = hosts.server.start_service()?;
        hosts.client.start_daemon(family, &[("demo.Hash", hosts.server.engine(family))])?;
        let client = HashClient::new(Channel::connect(hosts.client.app_socket()).await?);
        // The second daemon finds the policy in force that the first has left, with its table.
        if family == Family::V4 {
            hash(&client, "nobody", b"no policy yet").await?;
            let root = source_root();
            let cli = &hosts.server.cli;
            cli.apply_policy(&root.join("policies/firewall.policy"), &root.join("schemas/hash.proto"))?;
            cli.set("firewall_rules", "alice", "ALLOW")?;
        }
        hash(&client, "alice", b"allowed").await?;
        let status = hash(&client, "nobody", b"denied").await.unwrap_err();
        assert_eq!((status.code(), status.verdict_at()), (Code::PermissionDenied, VerdictAt::Engine));
        drop(service);
    }
    drop(hosts);
    assert!(!folder.exists(), "{} was left behind", folder.display());
    Ok(())
}
