//! The example schemas' manifests and stubs, byte for byte: what changes them, changes the wire or everyone's code.
//!
//! `TOLLFREE_UPDATE_GOLDEN=1 cargo test -p tollfree-schema --test golden` writes them anew; review the difference.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};

use tollfree_schema::{Manifest, codegen};

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
    for name in ["hash", "kv", "feed"] {
        let manifest =
            Manifest::from_proto(&files(&[&format!("{name}.proto")]), &[]).expect("examples are valid");
        let json = manifest.to_json().expect("manifests are JSON");
        assert_eq!(Manifest::from_json(&json).expect("reads what it wrote"), manifest);
        assert_golden(&format!("{name}.json"), &json);
    }
}

#[test]
fn stubs() {
    let generated = codegen::generate(&files(&["hash.proto", "kv.proto", "feed.proto"]), &[])
        .expect("examples are valid");
    assert_eq!(generated.sources.keys().collect::<Vec<_>>(), ["demo.rs"]);
    let text = &generated.sources["demo.rs"];
    syn::parse_file(text).expect("generated code is Rust");
    assert_golden("demo.rs", text);
}

#[test]
fn stubs_for_every_kind_of_field_and_awkward_names() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/every.proto");
    let generated = codegen::generate(&[file], &[]).expect("valid");
    assert_golden("every.rs", &generated.sources["every.rs"]);
}
