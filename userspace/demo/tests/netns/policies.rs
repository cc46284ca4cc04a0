//! Policies of every kind on running daemons: split between XDP and engine, decided per session, answered in the driver,
//! at both sides, gone back to, swapped under traffic.

use super::Outcome;
use super::support::{World, stubs};
use anyhow::Context;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tollfree::{Code, VerdictAt};
use tollfree_demo::host::Family;
use tollfree_demo::source_root;

/// The client's hosts by name, for policies of the server.
const IDENTITIES: &str = "[[identity]]\naddress = \"10.77.0.0/24\"\nname = \"somebody\"\n\
    [[identity]]\naddress = \"10.77.0.1\"\nname = \"frontend\"\nnamespace = \"shop\"\nlabels = { app = \"web\" }\n";

/// Refuses mallory in the driver and slows bob down in the engine.
const SPLIT: &str = "\
firewall() -> slow()
firewall():
    match get(rpc, 'user'):
        'mallory' => reject(PERMISSION_DENIED)
        _ => send(rpc)
slow():
    request:
        match get(rpc, 'user'):
            'bob' => delay(150ms)
            'carol' => reject(RESOURCE_EXHAUSTED, 'carol has had enough')
            _ => send(rpc)
        send(rpc)
";

/// Only the frontend may call, which is decided once per session.
const FRONTEND: &str = "\
who()
who():
    match get(peer, 'identity'):
        'frontend' => send(rpc)
        _ => reject(UNAUTHENTICATED)
";

/// The same with a name that nobody has.
const BACKEND: &str = "\
who()
who():
    match get(peer, 'identity'):
        'backend' => send(rpc)
        _ => reject(UNAUTHENTICATED)
";

impl World {
    /// Writes a policy to a file of the server's and applies it there.
    pub fn apply(&self, text: &str) -> anyhow::Result<serde_json::Value> {
        let cli = &self.hosts.server.cli;
        cli.apply_policy(&self.policy_file(text)?, &source_root().join("schemas/hash.proto"))
    }

    pub fn policy_file(&self, text: &str) -> anyhow::Result<PathBuf> {
        let file = self.hosts.server.cli.state.join("test.policy");
        std::fs::write(&file, text)?;
        Ok(file)
    }
}

fn with_identities() -> anyhow::Result<Option<World>> {
    let Some(mut world) = World::without_daemons()? else { return Ok(None) };
    world.hosts.server.settings = IDENTITIES.to_owned();
    world.start(Family::V4)?;
    Ok(Some(world))
}

#[tokio::test]
async fn what_the_driver_leaves_of_a_chain_the_engine_judges() -> Outcome {
    let Some(world) = World::with_service(Family::V4)? else { return Ok(()) };
    let applied = world.apply(SPLIT)?;
    assert_eq!(applied[0]["place"], "xdp", "{applied}");
    world.hash("alice", b"x").await?;

    let status = world.hash("mallory", b"x").await.unwrap_err();
    assert_eq!((status.code(), status.verdict_at()), (Code::PermissionDenied, VerdictAt::Driver));
    let status = world.hash("carol", b"x").await.unwrap_err();
    assert_eq!((status.code(), status.verdict_at()), (Code::ResourceExhausted, VerdictAt::Engine));
    assert_eq!(status.message(), "carol has had enough");
    let started = Instant::now();
    world.hash("bob", b"x").await?;
    assert!(started.elapsed() >= Duration::from_millis(150), "held for {:?}", started.elapsed());
    // Long messages too: the generation is that of their first fragment.
    world.hash("alice", &vec![7; 100_000]).await?;
    Ok(())
}

#[tokio::test]
async fn a_policy_that_xdp_cannot_run_at_all_is_judged_in_the_engine() -> Outcome {
    let Some(world) = World::with_service(Family::V4)? else { return Ok(()) };
    let applied = world.apply("f()\nf():\n    log(get(rpc, 'user'))\n    match get(rpc, 'user'):\n        'mallory' => reject(PERMISSION_DENIED)\n        _ => send(rpc)\n")?;
    assert_eq!(applied[0]["place"], "engine", "{applied}");
    world.hash("alice", b"x").await?;
    let status = world.hash("mallory", b"x").await.unwrap_err();
    assert_eq!((status.code(), status.verdict_at()), (Code::PermissionDenied, VerdictAt::Engine));
    // Lines of policies reach the log by and by.
    let written = || std::fs::read_to_string(world.hosts.server.log());
    for _ in 0..100 {
        if written()?.contains("mallory") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let log = written()?;
    assert!(log.contains("alice") && log.contains("mallory"), "{log}");
    Ok(())
}

#[tokio::test]
async fn identities_are_decided_per_session_before_its_first_call() -> Outcome {
    let Some(mut world) = with_identities()? else { return Ok(()) };
    world.apply(FRONTEND)?;
    // A session that opens under the policy, and one that was open when it changed.
    world.hash("alice", b"x").await?;
    world.apply(BACKEND)?;
    let status = world.hash("alice", b"x").await.unwrap_err();
    assert_eq!((status.code(), status.verdict_at()), (Code::Unauthenticated, VerdictAt::Driver));
    let server = &world.hosts.server.cli;
    server.run(&["policy", "rollback"])?;
    world.hash("alice", b"x").await?;
    assert_eq!(server.status()?.xdp("undecided"), 0, "every call found what was decided for its session");

    // Another daemon finds the policy in force and decides anew.
    world.service = None;
    world.hosts.server.kill_daemon();
    world.hosts.server.start_daemon(Family::V4, &[])?;
    world.service = Some(world.hosts.server.start_service()?);
    let mut last = Ok(());
    for _ in 0..20 {
        last = world.hash("alice", b"after").await;
        if last.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    last?;
    Ok(())
}

#[tokio::test]
async fn the_driver_answers_what_the_policy_knows() -> Outcome {
    let Some(world) = World::with_service(Family::V4)? else { return Ok(()) };
    world.apply("known()\nknown():\n    match get(rpc, 'user'):\n        'cache' => answer()\n        _ => send(rpc)\n")?;
    world.hash("alice", b"x").await?;
    let before = world.hosts.server.cli.status()?;
    let client = stubs::newer::hash_client::HashClient::new(world.channel().await?);
    let request = stubs::newer::HashRequest { user: "cache".into(), ..Default::default() };
    let response = client.sha256(tollfree::Request::new(request)).await?;
    assert_eq!(response.get_ref().digest, [0; 32], "an answer of zeros");
    let after = world.hosts.server.cli.status()?;
    assert!(after.xdp("policy_answer") > before.xdp("policy_answer"), "{:?}", after.xdp);
    Ok(())
}

#[tokio::test]
async fn a_file_comes_into_force_at_both_sides_and_goes_back_as_it_came() -> Outcome {
    let Some(world) = World::with_service(Family::V4)? else { return Ok(()) };
    world.firewall(&[("alice", "ALLOW")])?;
    let both = "here() at server\nthere() at client\n\
        here():\n    match get(rpc, 'user'):\n        'alice' => reject(ABORTED)\n        _ => send(rpc)\n\
        there():\n    send(rpc)\n";
    let applied = world.apply(both)?;
    let sides: Vec<&str> =
        applied.as_array().context("a list")?.iter().filter_map(|one| one["at"].as_str()).collect();
    assert_eq!(sides, ["server", "client"]);
    assert_eq!(world.hash("alice", b"x").await.unwrap_err().code(), Code::Aborted);

    // What fails changes nothing.
    let (server, file) =
        (&world.hosts.server.cli, world.policy_file("f()\nf():\n    route('elsewhere')\n    send(rpc)\n")?);
    let schema = source_root().join("schemas/hash.proto");
    let refused = server.apply_policy(&file, &schema).unwrap_err().to_string();
    assert!(refused.contains("sends calls to backends (elsewhere)"), "{refused}");
    assert_eq!(world.hash("alice", b"x").await.unwrap_err().code(), Code::Aborted);

    // The firewall and its table.
    server.run(&["policy", "rollback"])?;
    world.hash("alice", b"x").await?;
    assert_eq!(world.hash("bob", b"x").await.unwrap_err().code(), Code::PermissionDenied);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_is_lost_or_judged_by_neither_policy_while_they_are_swapped() -> Outcome {
    let Some(world) = World::with_service(Family::V4)? else { return Ok(()) };
    let world = Arc::new(world);
    // Each refuses mallory in XDP and carol in the engine, with words of its own.
    let policies: Vec<String> =
        ["first", "second"].iter().map(|name| SPLIT.replace("carol has had enough", name)).collect();
    world.apply(&policies[0])?;
    world.hash("alice", b"warm").await?;
    let done = Arc::new(AtomicBool::new(false));
    let calling = tokio::spawn({
        let (world, done) = (world.clone(), done.clone());
        async move {
            let mut calls = 0u32;
            while !done.load(Ordering::Relaxed) {
                world.hash("alice", b"steady").await.map_err(|status| format!("alice: {status}"))?;
                let refused = world.hash("carol", b"x").await;
                match refused {
                    Err(status) if status.code() == Code::ResourceExhausted => {
                        assert!(["first", "second"].contains(&status.message()), "{status}");
                    }
                    other => return Err(format!("carol: {other:?}")),
                }
                let refused = world.hash("mallory", b"x").await;
                if !matches!(&refused, Err(status) if status.code() == Code::PermissionDenied) {
                    return Err(format!("mallory: {refused:?}"));
                }
                calls += 3;
            }
            Ok::<u32, String>(calls)
        }
    });
    let swapping = world.clone();
    let swapped = tokio::task::spawn_blocking(move || {
        for round in 0..40 {
            swapping.apply(&policies[round % 2])?;
        }
        anyhow::Ok(())
    })
    .await?;
    done.store(true, Ordering::Relaxed);
    let calls = calling.await?.map_err(anyhow::Error::msg)?;
    swapped?;
    println!("{calls} calls over 40 swaps");
    assert!(calls > 0);
    Ok(())
}
