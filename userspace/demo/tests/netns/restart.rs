//! Daemons killed while policies of their engines are in force: the next ones judge by them from the first call on.

use super::Outcome;
use super::support::World;
use std::time::Duration;
use tollfree::{Code, Status, VerdictAt};
use tollfree_demo::host::Family;
use tollfree_demo::source_root;

/// Refuses mallory at the client, in its engine.
const LEAVING: &str = "out() at client\nout():\n    match get(rpc, 'user'):\n        'mallory' => reject(ABORTED, 'not from here')\n\
    \x20       _ => send(rpc)\n";
/// Refuses carol at the server. The log keeps it out of XDP.
const ARRIVING: &str = "come()\ncome():\n    log(get(rpc, 'user'))\n    match get(rpc, 'user'):\n\
    \x20       'carol' => reject(PERMISSION_DENIED, 'not in here')\n        _ => send(rpc)\n";

impl World {
    /// The first word on a call that is not of a peer that has gone.
    async fn settled(&self, user: &str) -> Result<(), Status> {
        let mut last = Ok(());
        for _ in 0..40 {
            last = self.hash(user, b"x").await;
            let passing = [Code::Unavailable, Code::Unimplemented, Code::DeadlineExceeded];
            match &last {
                Err(status) if passing.contains(&status.code()) => {}
                _ => break,
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        last
    }

    fn restart_server(&mut self) -> anyhow::Result<()> {
        self.service = None;
        self.hosts.server.kill_daemon();
        self.hosts.server.start_daemon(Family::V4, &[])?;
        self.service = Some(self.hosts.server.start_service()?);
        Ok(())
    }

    fn restart_client(&mut self) -> anyhow::Result<()> {
        self.hosts.client.kill_daemon();
        let engine = self.hosts.server.engine(Family::V4);
        self.hosts.client.start_daemon(Family::V4, &[("demo.Hash", engine)])
    }
}

#[tokio::test]
async fn policies_of_both_engines_outlive_their_daemons() -> Outcome {
    let Some(mut world) = World::with_service(Family::V4)? else { return Ok(()) };
    let schema = source_root().join("schemas/hash.proto");
    world.apply(ARRIVING)?;
    world.hosts.client.cli.apply_policy(&world.policy_file(LEAVING)?, &schema)?;
    let judged = async |world: &World| {
        world.settled("alice").await?;
        let status = world.settled("carol").await.unwrap_err();
        assert_eq!((status.code(), status.verdict_at()), (Code::PermissionDenied, VerdictAt::Engine));
        assert_eq!(status.message(), "not in here");
        let status = world.settled("mallory").await.unwrap_err();
        assert_eq!((status.code(), status.message()), (Code::Aborted, "not from here"));
        Ok::<(), Status>(())
    };
    judged(&world).await?;
    world.restart_server()?;
    judged(&world).await?;
    world.restart_client()?;
    judged(&world).await?;

    // The way back leads from the engine to XDP, over a crash.
    world.firewall(&[("alice", "ALLOW")])?;
    world.apply(ARRIVING)?;
    world.restart_server()?;
    judged(&world).await?;
    world.hosts.server.cli.run(&["policy", "rollback"])?;
    let status = world.settled("carol").await.unwrap_err();
    assert_eq!((status.code(), status.verdict_at()), (Code::PermissionDenied, VerdictAt::Driver));
    Ok(())
}

#[tokio::test]
async fn a_policy_that_xdp_has_lost_is_put_in_force_again() -> Outcome {
    let Some(mut world) = World::with_service(Family::V4)? else { return Ok(()) };
    world.apply("f()\nf():\n    match get(rpc, 'user'):\n        'carol' => reject(ABORTED)\n        _ => send(rpc)\n")?;
    let server = &mut world.hosts.server;
    world.service = None;
    server.kill_daemon();
    // As when the interface has been made anew: pins and programs are gone.
    server.cli.run(&["iface", "detach", tollfree_demo::netns::INTERFACE])?;
    server.start_daemon(Family::V4, &[])?;
    world.service = Some(world.hosts.server.start_service()?);
    let status = world.settled("carol").await.unwrap_err();
    assert_eq!((status.code(), status.verdict_at()), (Code::Aborted, VerdictAt::Driver));

    // What was cleared while no daemon ran stays so.
    world.service = None;
    world.hosts.server.kill_daemon();
    let interface = tollfree_demo::netns::INTERFACE;
    world.hosts.server.cli.run(&["policy", "clear", "--iface", interface])?;
    world.hosts.server.start_daemon(Family::V4, &[])?;
    world.service = Some(world.hosts.server.start_service()?);
    world.settled("carol").await?;
    Ok(())
}

#[tokio::test]
async fn a_side_that_is_closed_refuses_every_call() -> Outcome {
    let Some(mut world) = World::with_service(Family::V4)? else { return Ok(()) };
    world.apply(ARRIVING)?;
    world.service = None;
    world.hosts.server.kill_daemon();
    // As an older daemon's text would be that this one does not understand.
    let record = world.hosts.server.cli.state.join("policies.json");
    let text = std::fs::read_to_string(&record)?;
    std::fs::write(&record, text.replace("log(get(rpc, 'user'))", "lug(get(rpc, 'user'))"))?;
    world.hosts.server.start_daemon(Family::V4, &[])?;
    world.service = Some(world.hosts.server.start_service()?);
    for user in ["alice", "carol"] {
        let status = world.settled(user).await.unwrap_err();
        assert_eq!((status.code(), status.verdict_at()), (Code::FailedPrecondition, VerdictAt::Engine));
    }
    world.hosts.server.cli.run(&["policy", "clear"])?;
    world.settled("carol").await?;
    Ok(())
}
