//! What the demo's programs and the tests in network namespaces share: hosts, daemons, and the stubs of `demo.Hash`.
//!
//! A *host* is a network namespace (or, without privileges, just a folder) with a `tollfree run` daemon in it. Everything
//! made here is held by a guard that removes it again, whatever happens.
#![forbid(unsafe_code)]

pub mod bulk;
pub mod cli;
pub mod host;
pub mod interrupt;
pub mod leftovers;
pub mod netns;
pub mod process;
pub mod report;
pub mod streams;
pub mod tcp;

/// The stubs that `build.rs` generates from `schemas/hash.proto`.
pub mod stubs {
    include!(concat!(env!("OUT_DIR"), "/demo.rs"));
}

/// The stubs that `build.rs` generates from `schemas/kv.proto`.
pub mod kv {
    include!(concat!(env!("OUT_DIR"), "/kv/demo.rs"));
}

use std::path::{Path, PathBuf};

/// Bytes that a SHA-256 digest has.
pub const DIGEST_LEN: usize = 32;

/// The digest that `demo.Hash` is to answer with.
pub fn digest(data: &[u8]) -> [u8; DIGEST_LEN] {
    use sha2::Digest;
    sha2::Sha256::digest(data).into()
}

/// The clone this was built in, for policies and schemas.
pub fn source_root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).unwrap_or(here).to_owned()
}
