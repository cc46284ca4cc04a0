//! Packets that nobody should send, against daemons that are at work: each is counted under its reason, none is
//! delivered, and calls go on.

use crate::{
    Outcome,
    stranger::{Datagram, Engine, Stranger},
    support::World,
};
use anyhow::{Context, Result};
use std::time::Duration;
use tollfree::{Message, Service};
use tollfree_demo::{
    host::{Family, Hosts},
    stubs::{HashRequest, HashResponse, hash_server},
};
use tollfree_wire::{Header, Kind, Reason};
use zerocopy::IntoBytes;

/// Waits until XDP on the server has counted `count` more packets under a reason than `before`.
fn expect_counted(hosts: &Hosts, name: &str, reason: Reason, before: u64, count: u64) -> Result<()> {
    let mut now = before;
    for _ in 0..100 {
        now = hosts.server.cli.status()?.xdp(reason.name());
        if now >= before + count {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    anyhow::bail!("{name}: XDP counted {} under {reason}, expected {count}", now - before)
}

fn counted(hosts: &Hosts, reason: Reason) -> Result<u64> {
    Ok(hosts.server.cli.status()?.xdp(reason.name()))
}

/// A base header alone, changed.
fn header(edit: impl FnOnce(&mut Header)) -> Vec<u8> {
    let mut header = Header::new(Kind::Request);
    edit(&mut header);
    header.as_bytes().to_vec()
}

#[tokio::test]
async fn malformed_packets_are_counted_by_name_and_calls_go_on() -> Outcome {
    let Some(mut world) = World::with_service(Family::V4)? else { return Ok(()) };
    world.hash("alice", b"before").await?;
    let stranger = Stranger::new(&world.hosts.client, &world.hosts.server)?;

    let whole = header(|h| h.session = 0x1234_5678);
    let truncations: Vec<&[u8]> = (2..whole.len()).map(|length| &whole[..length]).collect();
    let before = counted(&world.hosts, Reason::Truncated)?;
    for payload in &truncations {
        stranger.send(&Datagram::new(payload))?;
    }
    expect_counted(&world.hosts, "every truncation", Reason::Truncated, before, truncations.len() as u64)?;

    let cases: &[(&str, Vec<u8>, Reason)] = &[
        ("no payload", Vec::new(), Reason::ForeignUdp),
        (
            "another protocol on our port",
            b"GET / HTTP/1.1\r\nHost: somewhere else\r\n".repeat(3),
            Reason::ForeignUdp,
        ),
        ("wrong magic", header(|h| h.magic ^= 1), Reason::ForeignUdp),
        ("wrong version", header(|h| h.version = 2), Reason::BadVersion),
        ("kind 0", header(|h| h.kind = 0), Reason::BadKind),
        ("kind 255", header(|h| h.kind = 255), Reason::BadKind),
        ("unknown flags", header(|h| h.flags = 0x80), Reason::BadFlags),
        ("flat block over the limit", header(|h| h.flat_len = 193), Reason::BadFlatLength),
        ("flat block that is not there", header(|h| h.flat_len = 8), Reason::Truncated),
        ("fragment past the count", header(|h| (h.fragment, h.fragments) = (3, 3)), Reason::BadFragment),
        ("no fragments", header(|h| h.fragments = 0), Reason::BadFragment),
        ("message longer than its packet", header(|h| h.message_len = 9), Reason::BadLength),
        (
            "message over the limit",
            header(|h| (h.message_len, h.fragments) = (u32::MAX, 9)),
            Reason::BadLength,
        ),
        ("a session that never was", whole.clone(), Reason::UnknownSession),
    ];
    for (name, payload, reason) in cases {
        let before = counted(&world.hosts, *reason)?;
        stranger.send(&Datagram::new(payload))?;
        expect_counted(&world.hosts, name, *reason, before, 1)?;
    }

    let lower: &[(&str, Datagram<'_>, Reason)] = &[
        ("UDP length past IP's", Datagram { extra_length: 100, ..Datagram::new(&whole) }, Reason::BadLength),
        ("IPv4 options", Datagram { options: &[1, 1, 1, 1], ..Datagram::new(&whole) }, Reason::IpOptions),
        ("an IP fragment", Datagram { more_fragments: true, ..Datagram::new(&whole) }, Reason::IpFragment),
        ("another port", Datagram { port: 53, ..Datagram::new(&whole) }, Reason::Passed),
    ];
    for (name, datagram, reason) in lower {
        let before = counted(&world.hosts, *reason)?;
        stranger.send(datagram)?;
        expect_counted(&world.hosts, name, *reason, before, 1)?;
    }

    still_well(&mut world).await
}

/// A handler for the name of the method only.
struct Nobody;

impl hash_server::Hash for Nobody {
    async fn sha256(
        &self,
        _request: tollfree::Request<HashRequest>,
    ) -> Result<tollfree::Response<HashResponse>, tollfree::Status> {
        Err(tollfree::Status::internal("never called"))
    }
}

#[tokio::test]
async fn spoofed_and_replayed_packets_are_counted_by_name_and_calls_go_on() -> Outcome {
    let Some(mut world) = World::with_service(Family::V4)? else { return Ok(()) };
    world.hash("alice", b"before").await?;
    let stranger = Stranger::new(&world.hosts.client, &world.hosts.server)?;

    // A session of our own, so that packets can be right in all but one thing.
    // From a port that is not one of the daemon's on that host.
    let from = (world.hosts.client.address(Family::V4), 7500).into();
    let client = world.hosts.client.namespace().context("the client's host has no namespace")?;
    let mut engine = Engine::new(client, from, world.hosts.server.engine(Family::V4))?;
    let method = <hash_server::HashServer<Nobody> as Service>::METHODS[0].id;
    let mut flat = [0; HashRequest::FLAT_LEN];
    flat[..6].copy_from_slice(b"\x05alice");
    engine.call(method, HashRequest::LAYOUT, &flat)?;
    let request = engine.last_request()?;
    let port = engine.port()?;

    let mut forged = request.clone();
    forged[56 + 1] = b'A';
    let cases: &[(&str, Vec<u8>, u16, Reason)] = &[
        ("the same packet again", request.clone(), port, Reason::Replayed),
        ("a session's packet from another port", request.clone(), port + 1, Reason::WrongPeer),
        ("another user in the flat block", forged, port, Reason::BadTag),
        (
            "a response to a server",
            engine.signed(|h| h.kind = Kind::Response as u8)?,
            port,
            Reason::WrongKind,
        ),
        (
            "a session's packet with the tag of none",
            header(|h| {
                h.session = engine.guard.map_or(0, |guard| guard.peer_index);
            }),
            port,
            Reason::BadTag,
        ),
        (
            "another generation of the session",
            engine.signed(|h| h.session ^= 1 << 31)?,
            port,
            Reason::UnknownSession,
        ),
    ];
    let received = world.hosts.server.cli.status()?.received;
    for (name, payload, source_port, reason) in cases {
        let before = counted(&world.hosts, *reason)?;
        stranger.send(&Datagram { source_port: *source_port, ..Datagram::new(payload) })?;
        expect_counted(&world.hosts, name, *reason, before, 1)?;
    }
    assert_eq!(world.hosts.server.cli.status()?.received, received, "some of that reached the engine");

    // Right in everything, and of a message whose first fragment was never seen.
    world.firewall(&[("alice", "ALLOW")])?;
    let mut late = engine.signed(|h| (h.fragment, h.fragments, h.message_len) = (1, 2, 60))?;
    late.extend([0; 30]);
    let before = counted(&world.hosts, Reason::NotAdmitted)?;
    engine.send(&late)?;
    expect_counted(&world.hosts, "a later fragment alone", Reason::NotAdmitted, before, 1)?;

    still_well(&mut world).await
}

/// Both daemons run, and calls by old and new connections work.
async fn still_well(world: &mut World) -> Outcome {
    for host in [&mut world.hosts.client, &mut world.hosts.server] {
        host.daemon().context("no daemon")?.check()?;
    }
    for user in ["alice", "bob"] {
        if let Err(status) = world.hash(user, b"after").await {
            assert_eq!(status.code(), tollfree::Code::PermissionDenied, "{status:?}");
        }
    }
    world.hash("alice", b"after").await?;
    Ok(())
}
