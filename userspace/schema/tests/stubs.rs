//! Generated stubs, compiled: the golden files of `golden.rs` against the application library.
#![forbid(unsafe_code)]

use std::path::Path;

use tollfree::{Code, Message, Service};
use tollfree_schema::Manifest;

#[deny(missing_docs)]
mod demo {
    include!("golden/demo.rs");
}

#[deny(missing_docs)]
mod every {
    include!("golden/every.rs");
}

#[test]
fn every_kind_of_field_arrives() {
    use every::outer::{Inner, Level};
    let sent = every::Outer {
        ratio: 0.5,
        exact: -0.25,
        signed: -3,
        fixed: -4,
        mask: u32::MAX,
        total: u64::MAX,
        digest: b"12345".to_vec(),
        ..Default::default()
    };
    let mut block = [0; <every::Outer as Message>::FLAT_LEN];
    let mut rest = sent.clone();
    rest.take_flat(&mut block).expect("fits");
    assert_eq!(rest, every::Outer::default());
    rest.put_flat(&block);
    assert_eq!(rest, sent);

    let sent = Inner { r#type: "ab".into(), level: Level::High.into(), self_: true, camel_case: vec![1] };
    let mut block = [0; <Inner as Message>::FLAT_LEN];
    let mut rest = sent.clone();
    rest.take_flat(&mut block).expect("fits");
    rest.put_flat(&block);
    assert_eq!(rest, sent);
}

#[test]
fn the_embedded_set_gives_the_same_manifest() {
    let schemas = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas");
    let files = ["hash.proto", "kv.proto", "feed.proto"].map(|name| schemas.join(name));
    let embedded = Manifest::from_descriptor_set(demo::DESCRIPTOR_SET).expect("the stubs' own set");
    assert_eq!(embedded, Manifest::from_proto(&files, &[]).expect("valid"));
}

#[test]
fn stubs_and_manifest_agree() {
    let manifest = Manifest::from_descriptor_set(demo::DESCRIPTOR_SET).expect("the stubs' own set");
    let hash = &manifest.service("demo.Hash").expect("in the file").methods[0];
    assert_eq!(<demo::HashRequest as Message>::LAYOUT, hash.request.fingerprint());
    assert_eq!(<demo::HashRequest as Message>::FLAT_LEN, usize::from(hash.request.flat_len));
    type Server = demo::hash_server::HashServer<Hasher>;
    assert_eq!((<Server as Service>::METHODS[0].path, Server::METHODS[0].id), (hash.path.as_str(), hash.id));
}

struct Hasher;

impl demo::hash_server::Hash for Hasher {
    async fn sha256(
        &self,
        request: tollfree::Request<demo::HashRequest>,
    ) -> Result<tollfree::Response<demo::HashResponse>, tollfree::Status> {
        Ok(tollfree::Response::new(demo::HashResponse { digest: request.into_inner().data }))
    }
}

#[test]
fn flat_fields_travel_in_the_block_alone() {
    let sent = demo::SetRequest { user: "alice".into(), key: "k".into(), value: vec![7; 3], ttl_ms: 9 };
    let mut block = [0; <demo::SetRequest as Message>::FLAT_LEN];
    let mut rest = sent.clone();
    rest.take_flat(&mut block).expect("short enough");
    assert_eq!(rest, demo::SetRequest { value: vec![7; 3], ..Default::default() });
    assert_eq!(
        (&block[..6], &block[16..18], &block[48..]),
        (&b"\x05alice"[..], &b"\x01k"[..], &9u64.to_le_bytes()[..])
    );

    let mut received = demo::SetRequest { user: "mallory".into(), ..rest.clone() };
    received.put_flat(&block);
    assert_eq!(received, sent, "the body cannot say otherwise");
    received.put_flat(&block[..48]);
    assert_eq!(received.ttl_ms, 0, "an older peer's block does not have it");
}

#[test]
fn a_value_too_long_is_refused_by_name() {
    let mut request = demo::HashRequest { user: "x".repeat(16), data: Vec::new() };
    let status = request.take_flat(&mut [0; 16]).expect_err("16 bytes in a field of 15");
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.message(), "field `user` of `demo.HashRequest` has 16 bytes; the schema allows 15");

    let mut response = demo::HashResponse { digest: vec![1; 31] };
    assert_eq!(response.take_flat(&mut [0; 32]).expect_err("not 32 bytes").code(), Code::InvalidArgument);
}
