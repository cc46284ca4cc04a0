//! The example schemas' manifests and stubs, byte for byte: what changes them, changes the wire or everyone's code.
//!
//! `TOLLFREE_UPDATE_GOLDEN=1 cargo test -p tollfree-schema --test golden` writes them anew; review the difference.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use tollfree::{Code, Message, Service};
use tollfree_schema::{Manifest, codegen};

#[deny(missing_docs)]
#[expect(dead_code, reason = "clients and servers are only compiled here; the demo uses them")]
mod demo {
    include!("golden/demo.rs");
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn files(names: &[&str]) -> Vec<PathBuf> {
    names.iter().map(|name| repository().join("schemas").join(name)).collect()
}

fn assert_golden(name: &str, text: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if std::env::var_os("TOLLFREE_UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, text).expect("golden files can be written");
    }
    let golden = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == text, "{} is not what is generated now:\n{text}", path.display());
}

#[test]
fn manifests() {
    for name in ["hash", "kv"] {
        let manifest =
            Manifest::from_proto(&files(&[&format!("{name}.proto")]), &[]).expect("examples are valid");
        let json = manifest.to_json().expect("manifests are JSON");
        assert_eq!(Manifest::from_json(&json).expect("reads what it wrote"), manifest);
        assert_golden(&format!("{name}.json"), &json);
    }
}

#[test]
fn stubs() {
    let generated = codegen::generate(&files(&["hash.proto", "kv.proto"]), &[]).expect("examples are valid");
    assert_eq!(generated.sources.keys().collect::<Vec<_>>(), ["demo.rs"]);
    let text = &generated.sources["demo.rs"];
    syn::parse_file(text).expect("generated code is Rust");
    assert_golden("demo.rs", text);
}

#[test]
fn the_embedded_set_gives_the_same_manifest() {
    let embedded = Manifest::from_descriptor_set(demo::DESCRIPTOR_SET).expect("the stubs' own set");
    assert_eq!(embedded, Manifest::from_proto(&files(&["hash.proto", "kv.proto"]), &[]).expect("valid"));
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
