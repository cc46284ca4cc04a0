//! From files on disk to files on disk, as build scripts and `tollfree schema compile` do it.
#![forbid(unsafe_code)]

use std::fs;
use std::path::Path;

use tempfile::TempDir;
use tollfree_schema::{Manifest, build::Builder, codegen};

fn write(folder: &Path, name: &str, text: &str) {
    let file = folder.join(name);
    fs::create_dir_all(file.parent().expect("in the folder")).expect("a temporary folder");
    fs::write(file, text).expect("a temporary file");
}

#[test]
fn imports_are_found_in_include_folders_and_packages_get_files_of_their_own() {
    let folder = TempDir::new().expect("a temporary folder");
    let flat = "[(tollfree.flat) = { max_len: 15 }]";
    write(
        folder.path(),
        "shared/common/user.proto",
        &format!(
            "syntax = \"proto3\"; package common; import \"tollfree/options.proto\";\n\
             message User {{ string name = 1 {flat}; }}\n"
        ),
    );
    write(
        folder.path(),
        "api/shop.proto",
        "syntax = \"proto3\"; package shop.v1; import \"common/user.proto\";\n\
         service Shop { rpc Enter(common.User) returns (common.User); rpc Leave(common.User) returns (common.User); }\n",
    );
    let builder =
        Builder::new().include(folder.path().join("shared")).out_dir(folder.path().join("out/rust"));
    let manifest = builder.compile(&[folder.path().join("api/shop.proto")]).expect("valid");
    assert_eq!(
        manifest.methods().map(|method| method.path.as_str()).collect::<Vec<_>>(),
        ["/shop.v1.Shop/Enter", "/shop.v1.Shop/Leave"]
    );
    assert_eq!(manifest.services[0].methods[0].request.fields[0].name, "name");

    let shop =
        fs::read_to_string(folder.path().join("out/rust/shop.v1.rs")).expect("one file for each package");
    let common =
        fs::read_to_string(folder.path().join("out/rust/common.rs")).expect("one file for each package");
    assert!(syn::parse_file(&shop).is_ok() && syn::parse_file(&common).is_ok());
    assert_eq!(shop.matches("impl ::tollfree::Message for super::super::common::User").count(), 1, "{shop}");
    assert!(shop.contains("::tollfree::Request<super::super::super::common::User>"), "{shop}");
}

#[test]
fn the_same_folder_needs_no_include_and_an_old_copy_of_the_options_does_no_harm() {
    let folder = TempDir::new().expect("a temporary folder");
    write(folder.path(), "tollfree/options.proto", "syntax = \"proto3\"; package tollfree;");
    write(
        folder.path(),
        "a.proto",
        "syntax = \"proto3\"; import \"tollfree/options.proto\"; import \"b.proto\";\n\
         service S { rpc A(B) returns (B); }",
    );
    write(
        folder.path(),
        "b.proto",
        "syntax = \"proto3\"; import \"tollfree/options.proto\"; message B { bool b = 1 [(tollfree.flat) = {}]; }",
    );
    let manifest = Manifest::from_proto(&[folder.path().join("a.proto")], &[]).expect("valid");
    assert_eq!(manifest.services[0].methods[0].request.flat_len, 1);
}

#[test]
fn an_error_in_an_imported_file_names_that_file() {
    let folder = TempDir::new().expect("a temporary folder");
    write(folder.path(), "a.proto", "syntax = \"proto3\"; import \"b.proto\";");
    write(
        folder.path(),
        "b.proto",
        "syntax = \"proto3\"; import \"tollfree/options.proto\";\nmessage B {\n  bytes b = 1 [(tollfree.flat) = {}];\n}",
    );
    let error = Manifest::from_proto(&[folder.path().join("a.proto")], &[]).expect_err("refused").to_string();
    let expected = format!("{}:3:3: field `B.b`:", folder.path().join("b.proto").display());
    assert!(error.starts_with(&expected), "{error}");
}

#[test]
fn a_descriptor_file_gives_the_same_manifest_as_its_sources() {
    let folder = TempDir::new().expect("a temporary folder");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../schemas/hash.proto");
    let set = protox::Compiler::new([file.parent().expect("a folder")])
        .expect("protox starts")
        .include_imports(true)
        .include_source_info(true)
        .open_file(&file)
        .expect("valid")
        .encode_file_descriptor_set();
    let path = folder.path().join("hash.binpb");
    fs::write(&path, set).expect("a temporary file");
    let manifest = Manifest::from_descriptor_file(&path).expect("as protoc writes it");
    assert_eq!(manifest, Manifest::from_proto(&[file], &[]).expect("valid"));
}

#[test]
fn methods_that_rust_cannot_tell_apart_are_refused() {
    let folder = TempDir::new().expect("a temporary folder");
    let text =
        "syntax = \"proto3\"; message M {} service S { rpc GET(M) returns (M); rpc Get(M) returns (M); }";
    write(folder.path(), "a.proto", text);
    let error = codegen::generate(&[folder.path().join("a.proto")], &[]).expect_err("refused").to_string();
    assert_eq!(error, "cannot generate Rust code: /S/GET and /S/Get would both be called `get`; rename one");
}
