//! Every error a schema's author can get, with its exact place.
#![forbid(unsafe_code)]

use std::fs;

use tempfile::TempDir;
use tollfree_schema::{Error, Fault, Manifest, codegen, lint};

const HEAD: &str = "syntax = \"proto3\";\npackage t;\nimport \"tollfree/options.proto\";\n";
const SERVICE: &str = "service S { rpc Call(M) returns (M); }\n";

/// What the author of `text` is told, with `x.proto` for the file's path.
fn told(text: &str) -> Result<Manifest, String> {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("x.proto");
    fs::write(&file, text).expect("a temporary file");
    let prefix = format!("{}/", folder.path().display());
    Manifest::from_proto(&[file], &[]).map_err(|error| error.to_string().replace(&prefix, ""))
}

/// The first line of what is told about a message `M` with these lines in it, whose first is line 6 of the file.
fn message(lines: &str) -> String {
    let text = format!("{HEAD}{SERVICE}message M {{\n{lines}\n}}\n");
    first_line(&text)
}

fn first_line(text: &str) -> String {
    let told = told(text).expect_err("refused");
    told.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn an_error_shows_the_line_the_reason_and_what_to_do() {
    let text = format!(
        "{HEAD}{SERVICE}message M {{\n  uint32 a = 1;\n\tstring user = 2 [(tollfree.flat) = {{}}];\n}}\n"
    );
    assert_eq!(
        told(&text).expect_err("refused"),
        "x.proto:7:2: field `t.M.user`: a flat string field needs `max_len`\n  \
         |\n7 | \tstring user = 2 [(tollfree.flat) = {}];\n  | \t^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^\n  \
         help: write `[(tollfree.flat) = { max_len: 15 }]`, with the bytes the longest value has"
    );
}

#[test]
fn flat_fields() {
    for (lines, expected) in [
        ("string a = 1 [(tollfree.flat) = {}];", "6:1: field `t.M.a`: a flat string field needs `max_len`"),
        ("\n  bytes a = 1 [(tollfree.flat) = {}];", "7:3: field `t.M.a`: a flat bytes field needs `max_len`"),
        (
            "string a = 1 [(tollfree.flat) = { max_len: 0 }];",
            "6:1: field `t.M.a`: `max_len` is 0, but must be from 1 to 255",
        ),
        (
            "string a = 1 [(tollfree.flat) = { max_len: 256 }];",
            "6:1: field `t.M.a`: `max_len` is 256, but must be from 1 to 255",
        ),
        (
            "bytes a = 1 [(tollfree.flat) = { fixed_len: 0 }];",
            "6:1: field `t.M.a`: `fixed_len` is 0, but must be from 1 to 192",
        ),
        (
            "bytes a = 1 [(tollfree.flat) = { fixed_len: 193 }];",
            "6:1: field `t.M.a`: `fixed_len` is 193, but must be from 1 to 192",
        ),
        (
            "bytes a = 1 [(tollfree.flat) = { fixed_len: 4 max_len: 4 }];",
            "6:1: field `t.M.a`: `max_len` and `fixed_len` exclude each other",
        ),
        (
            "string a = 1 [(tollfree.flat) = { fixed_len: 4 }];",
            "6:1: field `t.M.a`: `fixed_len` means nothing on a flat string",
        ),
        (
            "uint32 a = 1 [(tollfree.flat) = { max_len: 4 }];",
            "6:1: field `t.M.a`: `max_len` means nothing on a flat integer",
        ),
        (
            "repeated uint32 a = 1 [(tollfree.flat) = {}];",
            "6:1: field `t.M.a`: a repeated field cannot be flat",
        ),
        ("map<string, string> a = 1 [(tollfree.flat) = {}];", "6:1: field `t.M.a`: a map cannot be flat"),
        (
            "oneof which {\n  uint32 a = 1 [(tollfree.flat) = {}];\n}",
            "7:3: field `t.M.a`: a field of the oneof `which` cannot be flat",
        ),
        (
            "optional uint32 a = 1 [(tollfree.flat) = {}];",
            "6:1: field `t.M.a`: an optional or required field cannot be flat: the flat block has no room for presence",
        ),
        ("M a = 1 [(tollfree.flat) = {}];", "6:1: field `t.M.a`: a message or group cannot be flat"),
        (
            "string a = 1 [(tollfree.flat) = { max_len: 99 }];\n  string b = 2 [(tollfree.flat) = { max_len: 28 }];",
            "7:3: field `t.M.b`: flat field `b` ends at byte 129, but a flat block has at most 128 bytes",
        ),
        (
            "message N {\n  string a = 1 [(tollfree.flat) = {}];\n}",
            "7:3: field `t.M.N.a`: a flat string field needs `max_len`",
        ),
        // Options protobuf itself refuses.
        (
            "string a = 1 [(tollfree.flat) = { max_length: 9 }];",
            "6:15: invalid value of type 'tollfree.Flat' for option '(tollfree.flat)'; it takes `max_len` or `fixed_len`, both numbers",
        ),
        (
            "string a = 1 [(tollfree.flatt) = {}];",
            "6:15: 'tollfree.flatt' resolves to 'tollfree.flatt', which is not defined (The innermost scope is searched first in name resolution. Consider using a leading '.' (i.e., '.tollfree.flatt') to start from the outermost scope.)",
        ),
    ] {
        assert_eq!(message(lines), format!("x.proto:{expected}"), "{lines}");
    }
}

#[test]
fn every_problem_is_told_at_once() {
    let lines = "string a = 1 [(tollfree.flat) = {}];\nrepeated bool b = 2 [(tollfree.flat) = {}];";
    let told = told(&format!("{HEAD}{SERVICE}message M {{\n{lines}\n}}\n")).expect_err("refused");
    assert!(
        told.contains("x.proto:6:1: field `t.M.a`") && told.contains("x.proto:7:1: field `t.M.b`"),
        "{told}"
    );
}

#[test]
fn files_and_services() {
    for (text, expected) in [
        (
            "syntax = \"proto3\";\nmessage M {",
            "2:12: expected a message field, oneof, reserved range, enum, message, option or '}', but reached end of file",
        ),
        ("syntax = \"proto3\";\nimport \"not/there.proto\";\n", "2:1: import 'not/there.proto' not found"),
        (
            "syntax = \"proto3\";\nmessage M {}\nservice S {\n  rpc A(N) returns (M);\n}\n",
            "4:9: name 'N' is not defined",
        ),
        (
            "syntax = \"proto3\";\npackage t;\nmessage M {}\nservice S {\n  rpc M22949(M) returns (M);\n  rpc M824404(M) returns (M);\n}\n",
            "6:3: method `t.S.M824404`: its id 0xe5e7fd83 is already taken by `/t.S/M22949`",
        ),
        (
            "syntax = \"proto3\";\npackage t;\nmessage M {}\nservice S {\n  rpc aIhAhXS(M) returns (M);\n}\n",
            "5:3: method `t.S.aIhAhXS`: its id would be 0, which is kept for control messages",
        ),
        (
            "syntax = \"proto3\";\nimport \"tollfree/options.proto\";\noption (tollfree.flat_block_max) = 193;\n",
            "3:1: file option: `tollfree.flat_block_max` is 193, but must be from 1 to 192",
        ),
        (
            "syntax = \"proto2\";\nimport \"tollfree/options.proto\";\nmessage M {\n  optional bool a = 1 [(tollfree.flat) = {}];\n}\n",
            "4:3: field `M.a`: flat fields need proto3, this file is proto2",
        ),
    ] {
        assert_eq!(first_line(text), format!("x.proto:{expected}"), "{text}");
    }
}

#[test]
fn a_file_may_raise_the_limit_to_192_bytes() {
    let with = |max_len: u32| {
        format!(
            "{HEAD}option (tollfree.flat_block_max) = 192;\n{SERVICE}\
             message M {{ string a = 1 [(tollfree.flat) = {{ max_len: {max_len} }}]; }}\n"
        )
    };
    let manifest = told(&with(191)).expect("fits");
    assert_eq!(manifest.services[0].methods[0].request.flat_len, 192);
    let told = told(&with(192)).expect_err("refused");
    assert!(told.contains("ends at byte 193, but a flat block has at most 192 bytes"), "{told}");
    assert!(!told.contains("flat_block_max) = 192"), "raising the limit again is no help: {told}");
}

#[test]
fn a_file_without_options_works() {
    let manifest =
        told("syntax = \"proto3\";\nservice S { rpc A(M) returns (M); }\nmessage M { string a = 1; }\n");
    let manifest = manifest.expect("ordinary protobuf");
    let method = &manifest.services[0].methods[0];
    assert_eq!((method.path.as_str(), method.request.flat_len, method.request.fingerprint), ("/S/A", 0, 0));
}

#[test]
fn a_missing_file_is_named() {
    let error = Manifest::from_proto(&["not/there.proto".into()], &[]).expect_err("nothing there");
    assert!(matches!(error, Error::Read { .. }));
    assert!(error.to_string().starts_with("cannot read not/there.proto: "), "{error}");
}

#[test]
fn a_well_known_type_as_request_is_refused_for_stubs() {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("x.proto");
    let text = "syntax = \"proto3\";\nimport \"google/protobuf/timestamp.proto\";\n\
                service S { rpc A(google.protobuf.Timestamp) returns (google.protobuf.Timestamp); }\n";
    fs::write(&file, text).expect("a temporary file");
    let error = codegen::generate(&[file], &[]).expect_err("a foreign type");
    assert!(
        error.to_string().contains("/S/A takes or returns `google.protobuf.Timestamp` itself"),
        "{error}"
    );
}

#[test]
fn warnings_name_flat_fields_nobody_reads_and_holes() {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("x.proto");
    let fields = "bool a = 1 [(tollfree.flat) = {}];\n  uint64 b = 2 [(tollfree.flat) = {}];";
    let nested = "message N {\n  bool c = 1 [(tollfree.flat) = {}];\n}";
    fs::write(&file, format!("{HEAD}{SERVICE}message M {{\n  {fields}\n}}\n{nested}\n"))
        .expect("a temporary file");
    let warnings = lint::check(&[file], &[]).expect("valid");
    let faults: Vec<_> = warnings
        .iter()
        .map(|problem| (problem.at.as_ref().expect("has source info").line, problem.fault.clone()))
        .collect();
    assert_eq!(faults, [(7, Fault::Padding(7)), (10, Fault::Unused("t.N".into()))]);
}
