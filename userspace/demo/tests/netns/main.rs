//! Real daemons in network namespaces, XDP on both ends of a veth pair, and what the newcomer is promised.
//!
//! Each test has hosts of its own. Where namespaces or XDP cannot be had it says `skipped: why`.
#![forbid(unsafe_code)]

mod hostile;
mod policies;
mod reach;
mod restart;
mod stranger;
mod support;

use std::{sync::Arc, time::Duration};
use support::{World, stubs};
use tollfree::{Code, Request, Response, Server, Status, VerdictAt};
use tollfree_demo::{digest, host::Family, tcp::Conversation};

type Outcome = anyhow::Result<()>;

#[tokio::test]
async fn a_denied_call_costs_the_servers_engine_nothing() -> Outcome {
    let Some(world) = World::with_service(Family::V4)? else { return Ok(()) };
    world.firewall(&[("alice", "ALLOW"), ("mallory", "DENY")])?;
    world.hash("alice", b"first").await?;

    let before = world.hosts.server.cli.status()?;
    for user in ["mallory", "nobody"] {
        for _ in 0..50 {
            let status = world.hash(user, b"x").await.unwrap_err();
            assert_eq!((status.code(), status.verdict_at()), (Code::PermissionDenied, VerdictAt::Driver));
        }
    }
    let after = world.hosts.server.cli.status()?;
    assert_eq!(after.received, before.received, "the engine's receive counter moved");
    assert!(after.xdp("policy_reject") - before.xdp("policy_reject") >= 100, "{:?}", after.xdp);
    assert_eq!(after.xdp("delivered"), before.xdp("delivered"), "{:?}", after.xdp);
    world.hash("alice", b"last").await?;
    Ok(())
}

#[tokio::test]
async fn ipv6_works_like_ipv4() -> Outcome {
    let Some(world) = World::with_service(Family::V6)? else { return Ok(()) };
    world.firewall(&[("alice", "ALLOW")])?;
    world.hash("alice", b"over IPv6").await?;
    let status = world.hash("nobody", b"over IPv6").await.unwrap_err();
    assert_eq!((status.code(), status.verdict_at()), (Code::PermissionDenied, VerdictAt::Driver));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_table_is_set_while_calls_run() -> Outcome {
    let Some(world) = World::with_service(Family::V4)? else { return Ok(()) };
    world.firewall(&[("alice", "ALLOW")])?;
    let world = Arc::new(world);
    world.hash("alice", b"warm").await?;

    // Traffic that must not notice.
    let calling = tokio::spawn({
        let world = world.clone();
        async move {
            let mut calls = 0u32;
            let started = std::time::Instant::now();
            while started.elapsed() < Duration::from_secs(3) {
                world.hash("alice", b"steady").await?;
                calls += 1;
            }
            Ok::<u32, Status>(calls)
        }
    });
    for (entry, allowed) in [("ALLOW", true), ("DENY", false), ("ALLOW", true)] {
        let hosts = world.clone();
        tokio::task::spawn_blocking(move || hosts.hosts.server.cli.set("firewall_rules", "bob", entry))
            .await??;
        // In force from the very next call on.
        for _ in 0..20 {
            let result = world.hash("bob", b"toggled").await;
            assert_eq!(result.is_ok(), allowed, "{entry}: {result:?}");
        }
    }
    let calls = calling.await??;
    assert!(calls > 0, "no call ran meanwhile");
    Ok(())
}

#[tokio::test]
async fn the_firewall_stays_when_the_daemon_dies() -> Outcome {
    let Some(mut world) = World::with_service(Family::V4)? else { return Ok(()) };
    world.firewall(&[("alice", "ALLOW")])?;
    world.hash("alice", b"before").await?;
    // The service stays, and attaches to the next daemon.
    world.hosts.server.kill_daemon();
    world.hosts.server.start_daemon(Family::V4, &[])?;

    // The table is as it was, with nobody having set it again; so is the service.
    let mut last = None;
    for _ in 0..20 {
        match world.hash("alice", b"after").await {
            Ok(()) => return Ok(()),
            Err(status) => last = Some(status),
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    }
    panic!("calls do not work again: {last:?}");
}

#[tokio::test]
async fn an_incompatible_client_is_told_which_field() -> Outcome {
    let Some(world) = World::with_service(Family::V4)? else { return Ok(()) };
    let client = stubs::wrong::hash_client::HashClient::new(world.channel().await?);
    let request = stubs::wrong::HashRequest { user: "alice".into(), data: b"x".to_vec() };
    let status = client.sha256(limited(request)).await.unwrap_err();
    assert_eq!(status.code(), Code::FailedPrecondition, "{status:?}");
    assert!(status.message().contains("user"), "the message does not name the field: {status:?}");
    // Who understands the service is not affected.
    world.hash("alice", b"x").await?;
    Ok(())
}

#[tokio::test]
async fn one_field_more_or_less_just_works() -> Outcome {
    let Some(world) = World::with_service(Family::V4)? else { return Ok(()) };
    let older = stubs::older::hash_client::HashClient::new(world.channel().await?);
    let request = stubs::older::HashRequest { data: b"old".to_vec() };
    assert_eq!(older.sha256(limited(request)).await?.get_ref().digest, digest(b"old"));

    // With a policy that was compiled for neither.
    world.firewall(&[("alice", "ALLOW"), ("mallory", "DENY")])?;
    let newer = stubs::newer::hash_client::HashClient::new(world.channel().await?);
    let request = |user: &str| {
        limited(stubs::newer::HashRequest { user: user.into(), data: b"new".to_vec(), priority: 7 })
    };
    assert_eq!(newer.sha256(request("alice")).await?.get_ref().digest, digest(b"new"));
    let status = newer.sha256(request("mallory")).await.unwrap_err();
    assert_eq!((status.code(), status.verdict_at()), (Code::PermissionDenied, VerdictAt::Driver));
    // Who has no user is nobody.
    let request = stubs::older::HashRequest { data: b"old".to_vec() };
    let status = older.sha256(limited(request)).await.unwrap_err();
    assert_eq!(status.code(), Code::PermissionDenied, "{status:?}");
    Ok(())
}

struct Store;

impl stubs::kv::kv_server::Kv for Store {
    async fn get(
        &self,
        request: Request<stubs::kv::GetRequest>,
    ) -> Result<Response<stubs::kv::GetResponse>, Status> {
        let key = request.into_inner().key;
        match key.strip_prefix("missing") {
            Some(_) => Err(Status::not_found(format!("no value under {key:?}"))),
            None => Ok(Response::new(stubs::kv::GetResponse { value: key.repeat(3).into_bytes() })),
        }
    }

    async fn set(
        &self,
        _request: Request<stubs::kv::SetRequest>,
    ) -> Result<Response<stubs::kv::SetResponse>, Status> {
        Ok(Response::new(stubs::kv::SetResponse { replaced: true }))
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_services_and_several_clients_share_a_daemon() -> Outcome {
    let Some(world) = World::with_service(Family::V4)? else { return Ok(()) };
    let socket = world.hosts.server.app_socket();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let serving = tokio::spawn(async move {
        let server = Server::builder().add_service(stubs::kv::kv_server::KvServer::new(Store));
        server.serve_with_shutdown(socket, async { drop(stopped.await) }).await
    });
    world.wait_for_service("demo.Kv").await?;

    let world = Arc::new(world);
    let mut clients = Vec::new();
    for number in 0..6u32 {
        let world = world.clone();
        clients.push(tokio::spawn(async move {
            let channel = world.channel().await?;
            let kv = stubs::kv::kv_client::KvClient::new(channel.clone());
            for round in 0..100u32 {
                let key = format!("{number}/{round}");
                let request = stubs::kv::GetRequest { user: "alice".into(), key: key.clone() };
                let value = kv.get(limited(request)).await?.into_inner().value;
                assert_eq!(value, key.repeat(3).into_bytes(), "somebody else's answer");
                world.hash_on(channel.clone(), "alice", key.as_bytes()).await?;
            }
            let missing = stubs::kv::GetRequest { user: "alice".into(), key: "missing".into() };
            let status = kv.get(limited(missing)).await.unwrap_err();
            assert_eq!((status.code(), status.verdict_at()), (Code::NotFound, VerdictAt::Application));
            assert!(status.message().contains("missing"), "{status:?}");
            Ok::<(), Status>(())
        }));
    }
    for client in clients {
        client.await??;
    }
    drop(stop);
    serving.await??;
    Ok(())
}

#[tokio::test]
async fn large_messages_cross_in_fragments() -> Outcome {
    let Some(world) = World::with_service(Family::V4)? else { return Ok(()) };
    world.firewall(&[("alice", "ALLOW")])?;
    for length in [1300, 1500, 64 << 10, 1 << 20] {
        let data: Vec<u8> = (0..length).map(|at: usize| (at * 31 / 8) as u8).collect();
        world.hash("alice", &data).await?;
        let status = world.hash("nobody", &data).await.unwrap_err();
        assert_eq!(status.code(), Code::PermissionDenied, "{length} bytes: {status:?}");
    }
    Ok(())
}

#[tokio::test]
async fn tcp_works_before_during_and_after() -> Outcome {
    let Some(mut world) = World::without_daemons()? else { return Ok(()) };
    let address = (world.hosts.server.address(Family::V4), 7777).into();
    let (Some(server), Some(client)) = (world.hosts.server.namespace(), world.hosts.client.namespace())
    else {
        anyhow::bail!("hosts without namespaces");
    };
    let mut tcp = Conversation::start(server, client, address)?;
    tcp.check(client)?;
    world.start(Family::V4)?;
    let check = |tcp: &mut Conversation, world: &World| {
        world.hosts.client.namespace().map(|client| tcp.check(client)).transpose()
    };
    check(&mut tcp, &world)?;
    world.hash("alice", b"meanwhile").await?;
    check(&mut tcp, &world)?;
    world.service = None;
    world.hosts.client.detach()?;
    world.hosts.server.detach()?;
    check(&mut tcp, &world)?;
    Ok(())
}

#[tokio::test]
async fn nothing_is_left_behind() -> Outcome {
    let Some(world) = World::with_service(Family::V4)? else { return Ok(()) };
    world.hash("alice", b"x").await?;
    let places = world.places();
    assert!(places.iter().all(|place| place.exists()), "{places:?}");
    drop(world);
    let left: Vec<_> = places.iter().filter(|place| place.exists()).collect();
    assert!(left.is_empty(), "{left:?}");
    Ok(())
}

fn limited<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(support::PATIENCE);
    request
}
