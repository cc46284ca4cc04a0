//! What policies reach on running daemons beyond one verdict in one place: tables that engine and driver share, programs in
//! several parts, keys at both ends, dry runs, chains for one interface, metadata, and what a refusal in the driver says.

use super::support::{PATIENCE, World, stubs};
use super::{Outcome, limited};
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use tollfree::{Code, Request, Response, Server, Status, VerdictAt};
use tollfree_demo::host::Family;
use tollfree_demo::netns::INTERFACE;
use tollfree_demo::source_root;
use tollfree_demo::stubs::{HashRequest, hash_client::HashClient};

#[tokio::test]
async fn what_the_engine_learns_from_responses_the_driver_judges_by() -> Outcome {
    let Some(world) = World::with_service(Family::V4)? else { return Ok(()) };
    let applied = world.apply(
        "learn()\nstate:\n    answered: table(string(15) -> u64, capacity = 1024)\n\
         learn():\n    request:\n        match get(answered, get(rpc, 'user')):\n\
         \x20           Some(times) if times >= 2 => reject(RESOURCE_EXHAUSTED, 'twice is enough')\n\
         \x20           _ => send(rpc)\n    response:\n        add(answered, get(request, 'user'), 1)\n",
    )?;
    assert_eq!(applied[0]["place"], "xdp", "{applied}");
    let server = &world.hosts.server.cli;
    let tables: serde_json::Value =
        serde_json::from_str(&server.run(&["policy", "table", "list", "-o", "json"])?)?;
    assert_eq!(tables[0]["place"], "both", "{tables}");

    for user in ["alice", "bob"] {
        let mut passed = 0;
        let status = loop {
            match world.hash(user, b"x").await {
                Ok(()) => passed += 1,
                Err(status) => break status,
            }
        };
        // The response goes out before the write to the map: a call may slip through in between.
        assert!((2..=4).contains(&passed), "{passed} calls of {user} got through");
        assert_eq!((status.code(), status.verdict_at()), (Code::ResourceExhausted, VerdictAt::Driver));
        assert_eq!(status.message(), "twice is enough");
    }
    // What people write goes to both, too.
    server.set("answered", "alice", "0")?;
    world.hash("alice", b"x").await?;
    assert!(server.run(&["policy", "table", "get", "answered", "bob"])?.trim().parse::<u64>()? >= 2);
    Ok(())
}

#[tokio::test]
async fn a_program_in_several_parts_judges_by_all_of_them() -> Outcome {
    let Some(world) = World::with_service(Family::V4)? else { return Ok(()) };
    const ELEMENTS: usize = 24;
    let chain: Vec<String> = (0..ELEMENTS).map(|at| format!("e{at}()")).collect();
    let mut text = format!("{}\n", chain.join(" -> "));
    for element in 0..ELEMENTS {
        let _ = write!(text, "e{element}():\n    match get(rpc, 'user'):\n");
        for user in 0..120 {
            let _ = writeln!(text, "        'u{element}-{user}' => reject(ABORTED, 'by element {element}')");
        }
        text.push_str("        _ => send(rpc)\n");
    }
    let file = world.policy_file(&text)?;
    let schema = source_root().join("schemas/hash.proto");
    let (file, schema) = (file.display().to_string(), schema.display().to_string());
    let server = &world.hosts.server.cli;
    let listing = server.run(&["policy", "explain", &file, "--schema", &schema, "--emit", "asm"])?;
    assert!(listing.contains("tf_policy_1"), "the policy has become too short for this test");
    let applied = world.apply(&text)?;
    assert_eq!(applied[0]["place"], "xdp", "{applied}");
    world.hash("alice", b"x").await?;
    for element in [0, 7, ELEMENTS - 1] {
        let status = world.hash(&format!("u{element}-119"), b"x").await.unwrap_err();
        assert_eq!((status.code(), status.verdict_at()), (Code::Aborted, VerdictAt::Driver));
        assert_eq!(status.message(), format!("by element {element}"));
    }
    // Swapped for a short one and back, with calls after each.
    world.apply("f()\nf():\n    send(rpc)\n")?;
    world.hash("u0-0", b"x").await?;
    server.run(&["policy", "rollback"])?;
    assert_eq!(world.hash("u0-0", b"x").await.unwrap_err().code(), Code::Aborted);
    Ok(())
}

/// A catalog that notes what reaches it.
struct Catalog(Arc<Mutex<Vec<Vec<u8>>>>);

impl stubs::shop::catalog_server::Catalog for Catalog {
    async fn get(
        &self,
        _request: Request<stubs::shop::ProductRequest>,
    ) -> Result<Response<stubs::shop::Product>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn list(
        &self,
        _request: Request<stubs::shop::ListRequest>,
    ) -> Result<Response<stubs::shop::ProductList>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn put(
        &self,
        request: Request<stubs::shop::PutRequest>,
    ) -> Result<Response<stubs::shop::Done>, Status> {
        if let Ok(mut seen) = self.0.lock() {
            seen.push(request.into_inner().supplier);
        }
        Ok(Response::new(stubs::shop::Done::default()))
    }

    async fn admin_reindex(
        &self,
        _request: Request<stubs::shop::AdminRequest>,
    ) -> Result<Response<stubs::shop::Done>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn admin_purge(
        &self,
        _request: Request<stubs::shop::AdminRequest>,
    ) -> Result<Response<stubs::shop::Done>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

#[tokio::test]
async fn a_field_is_encrypted_where_it_leaves_and_decrypted_where_it_arrives() -> Outcome {
    let Some(mut world) = World::without_daemons()? else { return Ok(()) };
    let keys = "[keys]\nshop = \"000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f\"\n";
    world.hosts.server.settings = keys.to_owned();
    world.hosts.client.settings = keys.to_owned();
    world.start(Family::V4)?;
    let seen = Arc::new(Mutex::new(Vec::new()));
    let service = stubs::shop::catalog_server::CatalogServer::new(Catalog(seen.clone()));
    let socket = world.hosts.server.app_socket();
    let serving = tokio::spawn(async move { Server::builder().add_service(service).serve(socket).await });
    world.wait_for_service("shop.Catalog").await?;
    let put = async || {
        let client = stubs::shop::catalog_client::CatalogClient::new(world.channel().await?);
        let request = stubs::shop::PutRequest { supplier: b"a secret".to_vec(), ..Default::default() };
        client.put(limited(request)).await.map(drop)
    };
    let root = source_root();
    let (policy, schema) = (root.join("policies/std/encrypt.policy"), root.join("schemas/shop.proto"));
    let last = || seen.lock().ok().and_then(|seen| seen.last().cloned()).unwrap_or_default();

    world.hosts.client.cli.apply_policy(&policy, &schema)?;
    put().await?;
    let sealed = last();
    assert_eq!(sealed.len(), b"a secret".len() + 48, "what the wire carries");
    assert!(!sealed.windows(8).any(|part| part == b"a secret"), "{sealed:?}");
    put().await?;
    assert_ne!(last(), sealed, "a nonce for each call");

    world.hosts.server.cli.apply_policy(&policy, &schema)?;
    put().await?;
    assert_eq!(last(), b"a secret");

    // Who does not encrypt is not let in.
    world.hosts.client.cli.run(&["policy", "clear", "--at", "client"])?;
    let status = put().await.unwrap_err();
    assert_eq!((status.code(), status.verdict_at()), (Code::Unauthenticated, VerdictAt::Engine));
    assert_eq!(status.message(), "the field was not encrypted with our key");
    serving.abort();
    Ok(())
}

#[tokio::test]
async fn a_chain_in_audit_counts_what_it_would_refuse_and_lets_it_through() -> Outcome {
    let Some(world) = World::with_service(Family::V4)? else { return Ok(()) };
    let policy = |how: &str| {
        format!(
            "deny(){how}\ndeny():\n    match get(rpc, 'user'):\n        'mallory' => reject(PERMISSION_DENIED, 'not you')\n\
             \x20       _ => send(rpc)\n"
        )
    };
    let applied = world.apply(&policy(" audit"))?;
    assert_eq!(applied[0]["place"], "xdp", "{applied}");
    world.hash("alice", b"x").await?;
    let before = world.hosts.server.cli.status()?;
    assert_eq!(before.xdp("policy_audit"), 0, "{:?}", before.xdp);
    for _ in 0..3 {
        world.hash("mallory", b"x").await?;
    }
    let after = world.hosts.server.cli.status()?;
    // Packets are counted: a request that is sent again, as under load, counts again, and is let through again.
    let delivered = after.xdp("delivered") - before.xdp("delivered");
    assert!((3..=delivered).contains(&after.xdp("policy_audit")), "{:?}", after.xdp);
    assert_eq!(after.xdp("policy_reject"), before.xdp("policy_reject"));
    // And then in earnest.
    world.apply(&policy(""))?;
    assert_eq!(world.hash("mallory", b"x").await.unwrap_err().message(), "not you");
    Ok(())
}

#[tokio::test]
async fn a_chain_is_in_force_on_its_interface_only() -> Outcome {
    let Some(world) = World::with_service(Family::V4)? else { return Ok(()) };
    let policy = |interface: &str| {
        format!(
            "here() on {interface}\nhere():\n    match get(rpc, 'user'):\n        'mallory' => reject(ABORTED)\n        _ => send(rpc)\n"
        )
    };
    world.apply(&policy("elsewhere0"))?;
    world.hash("mallory", b"x").await?;
    world.apply(&policy(INTERFACE))?;
    let status = world.hash("mallory", b"x").await.unwrap_err();
    assert_eq!((status.code(), status.verdict_at()), (Code::Aborted, VerdictAt::Driver));
    world.hash("alice", b"x").await?;
    Ok(())
}

#[tokio::test]
async fn a_policy_reads_the_metadata_of_calls_from_other_hosts() -> Outcome {
    let Some(world) = World::with_service(Family::V4)? else { return Ok(()) };
    let applied = world.apply(
        "tenants()\ntenants():\n    match get(metadata, 'tenant'):\n        'red' => send(rpc)\n\
         \x20       Some(_) => reject(PERMISSION_DENIED, 'another tenant')\n        NONE => reject(UNAUTHENTICATED, 'no tenant')\n",
    )?;
    assert_eq!(applied[0]["place"], "engine", "{applied}");
    let call = async |tenant: Option<&str>, data: &[u8]| {
        let mut request = Request::new(HashRequest { user: "alice".into(), data: data.to_vec() });
        request.set_timeout(PATIENCE);
        if let Some(tenant) = tenant {
            request.metadata_mut().insert("tenant", tenant.parse().expect("printable"));
        }
        HashClient::new(world.channel().await?).sha256(request).await.map(drop)
    };
    call(Some("red"), b"x").await?;
    // In several packets, too: the metadata is in front.
    call(Some("red"), &vec![7; 100_000]).await?;
    for (tenant, code, why) in
        [(Some("blue"), Code::PermissionDenied, "another tenant"), (None, Code::Unauthenticated, "no tenant")]
    {
        let status = call(tenant, b"x").await.unwrap_err();
        assert_eq!((status.code(), status.verdict_at()), (code, VerdictAt::Engine));
        assert_eq!(status.message(), why);
    }
    Ok(())
}

#[tokio::test]
async fn a_refusal_in_the_driver_says_why() -> Outcome {
    for family in [Family::V4, Family::V6] {
        let Some(world) = World::with_service(family)? else { return Ok(()) };
        let longest = "because ".repeat(16);
        world.apply(&format!(
            "f()\nf():\n    match get(rpc, 'user'):\n        'mallory' => reject(PERMISSION_DENIED, 'mallory is not welcome: öäü')\n\
             \x20       'trudy' => reject(ABORTED, '{longest}')\n        'eve' => reject(ABORTED)\n        _ => send(rpc)\n"
        ))?;
        // Opens the session.
        world.hash("alice", b"x").await?;
        let before = world.hosts.server.cli.status()?;
        for (user, said) in [
            ("mallory", "mallory is not welcome: öäü"),
            ("trudy", &*longest),
            ("eve", "refused by the server's policy, in its network driver"),
            ("mallory", "mallory is not welcome: öäü"),
        ] {
            let status = world.hash(user, b"x").await.unwrap_err();
            assert_eq!(status.verdict_at(), VerdictAt::Driver, "{status:?}");
            assert_eq!(status.message(), said);
        }
        let after = world.hosts.server.cli.status()?;
        assert_eq!(after.xdp("delivered"), before.xdp("delivered"), "the engine has not heard of them");
    }
    Ok(())
}
