//! Which versions of a message understand each other.
#![forbid(unsafe_code)]

use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;
use tollfree_schema::{
    BindRequest, Compat, FieldKind, Layout, Manifest, Member, Streaming, layout, lint, method_id,
};

/// The manifest of a service whose only method takes and returns a message with these fields.
fn manifest(fields: &str) -> Manifest {
    let folder = TempDir::new().expect("a temporary folder");
    let file = folder.path().join("x.proto");
    let text = format!(
        "syntax = \"proto3\"; package t; import \"tollfree/options.proto\";\n\
         service S {{ rpc Call(M) returns (M); }}\nenum E {{ NONE = 0; SOME = 1; }}\nmessage M {{ {fields} }}\n"
    );
    fs::write(&file, text).expect("a temporary file");
    Manifest::from_proto(&[file], &[]).expect("valid")
}

fn request(fields: &str) -> Layout {
    manifest(fields).services[0].methods[0].request.clone()
}

const USER: &str = "string user = 1 [(tollfree.flat) = { max_len: 15 }];";
const COUNT: &str = "uint32 count = 3 [(tollfree.flat) = {}];";

#[test]
fn the_matrix() {
    let ours = request(&format!("{USER} {COUNT} bytes data = 4;"));
    let same = |theirs: String, expected: Result<Compat, &str>| {
        let told = ours.compatible(&request(&theirs)).map_err(|error| error.to_string());
        assert_eq!(told, expected.map_err(str::to_owned), "{theirs}");
    };
    same(format!("{USER} {COUNT} bytes data = 4;"), Ok(Compat::Same));
    same(format!("{USER} {COUNT} string more = 5;"), Ok(Compat::Same));
    same(USER.into(), Ok(Compat::TheirsIsOlder));
    same(String::new(), Ok(Compat::TheirsIsOlder));
    same(format!("{USER} {COUNT} bool last = 9 [(tollfree.flat) = {{}}];"), Ok(Compat::TheirsIsNewer));
    same(
        format!("string user = 1 [(tollfree.flat) = {{ max_len: 31 }}]; {COUNT}"),
        Err("field `user` of `t.M` is `user = 1` (string of at most 15 bytes, flat, at byte 0) here and \
             `user = 1` (string of at most 31 bytes, flat, at byte 0) at the peer"),
    );
    same(
        format!("{USER} bool inserted = 2 [(tollfree.flat) = {{}}]; {COUNT}"),
        Err("field `inserted` of `t.M` is `count = 3` (uint32, flat, at byte 16) here and \
             `inserted = 2` (bool, flat, at byte 16) at the peer"),
    );
    same(
        COUNT.into(),
        Err("field `user` of `t.M` is `user = 1` (string of at most 15 bytes, flat, at byte 0) here and \
             `count = 3` (uint32, flat, at byte 0) at the peer"),
    );
    same(
        format!("{USER} uint32 count = 3;"),
        Err("field `count` of `t.M` is `count = 3` (uint32, flat, at byte 16) here and \
             `count = 3` (uint32, in the body) at the peer"),
    );
    same(
        format!("{USER} {COUNT} uint32 data = 4 [(tollfree.flat) = {{}}];"),
        Err("field `data` of `t.M` is `data = 4` (bytes, in the body) here and \
             `data = 4` (uint32, flat, at byte 20) at the peer"),
    );
}

#[test]
fn prefix_fingerprints_are_those_of_the_shorter_layouts() {
    let long = request(&format!("{USER} {COUNT} bool last = 9 [(tollfree.flat) = {{}}];"));
    let shorter = [String::new(), USER.into(), format!("{USER} {COUNT}")].map(|fields| request(&fields));
    let mut expected: Vec<_> = shorter.iter().map(|layout| (layout.fingerprint(), layout.flat_len)).collect();
    expected.push((long.fingerprint(), long.flat_len));
    assert_eq!(long.prefix_fingerprints().collect::<Vec<_>>(), expected);
    assert_eq!(expected.iter().map(|(_, len)| *len).collect::<Vec<_>>(), [0, 16, 20, 21]);
    assert_eq!(expected[0].0, 0, "no flat fields");
}

#[test]
fn enum_values_are_not_in_the_fingerprint() {
    let kind = |values: &[(&str, i32)]| FieldKind::Enum {
        values: values.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect(),
    };
    let layout = |kind| {
        let members = vec![Member { name: "e".into(), number: 1, kind }];
        Layout::new("t.M", members, layout::BLOCK_DEFAULT).expect("fits")
    };
    assert_eq!(layout(kind(&[("A", 0)])).fingerprint, layout(kind(&[("A", 0), ("B", 1)])).fingerprint);
}

#[test]
fn method_ids_are_fnv_1a() {
    // From the reference implementation's published vectors.
    assert_eq!(method_id(""), 0x811c_9dc5);
    assert_eq!(method_id("a"), 0xe40c_292c);
    assert_eq!(method_id("foobar"), 0xbf9c_f968);
}

#[test]
fn lint_tells_breakages_and_lets_additions_pass() {
    let old = manifest(&format!("{USER} E e = 2 [(tollfree.flat) = {{}}]; bytes data = 4; int32 n = 6;"));
    let breakages = |fields: &str| {
        lint::against(&old, &manifest(fields)).iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let e = "E e = 2 [(tollfree.flat) = {}];";
    assert_eq!(
        breakages(&format!("{USER} {e} {COUNT} bytes data = 4; int64 n = 6; bool more = 7;")),
        [""; 0]
    );
    assert_eq!(
        breakages(&format!("{USER} bytes data = 4; int32 n = 6;")),
        ["/t.S/Call: flat field `e` of `t.M` is gone: policies that read it no longer compile"]
    );
    assert_eq!(
        breakages(&format!("{USER} {e} bytes data = 4; sint32 n = 6;")),
        ["/t.S/Call: field 6 of `t.M` was `int32 n` and is now `sint32 n`: give the new one its own number"]
    );
    assert_eq!(
        breakages(&format!("{USER} {e} uint32 data = 4 [(tollfree.flat) = {{}}];")),
        [
            "/t.S/Call: field `data` of `t.M` was `data = 4` (bytes, in the body) and is now `data = 4` (uint32, flat, \
          at byte 20): flat fields are append-only, so keep it and give new ones higher numbers"
        ]
    );
    let mut renumbered = old.clone();
    let request = &mut renumbered.services[0].methods[0].request;
    let FieldKind::Enum { values } = &mut request.fields[1].kind else { panic!("an enum") };
    values[1].1 = 2;
    values.remove(0);
    assert_eq!(
        lint::against(&old, &renumbered).iter().map(ToString::to_string).collect::<Vec<_>>(),
        [
            "/t.S/Call: value `NONE` of flat field `e` was 0 and is now gone",
            "/t.S/Call: value `SOME` of flat field `e` was 1 and is now 2"
        ]
    );
    let gone = lint::against(&old, &Manifest::default());
    assert_eq!(gone[0].to_string(), "service `t.S` is gone: its callers get UNIMPLEMENTED");
}

#[test]
fn a_manifest_edited_by_hand_is_refused() {
    let json = manifest(USER).to_json().expect("JSON");
    assert!(Manifest::from_json(&json).is_ok());
    let error = Manifest::from_json(&json.replace("\"offset\": 0", "\"offset\": 4")).expect_err("edited");
    assert!(error.to_string().contains("`t.M` was edited by hand"), "{error}");
    let error = Manifest::from_json(&json.replace("\"services\"", "\"service\"")).expect_err("unknown key");
    assert!(error.to_string().starts_with("not a layout manifest"), "{error}");
}

#[test]
fn a_method_that_begins_to_stream_is_another_method() {
    let service = |output: &str| {
        let folder = TempDir::new().expect("a temporary folder");
        let file = folder.path().join("x.proto");
        let text = format!(
            "syntax = \"proto3\"; package t; message M {{}} service S {{ rpc Call(M) returns ({output}); }}"
        );
        fs::write(&file, text).expect("a temporary file");
        Manifest::from_proto(&[file], &[]).expect("valid")
    };
    let (one, many) = (service("M"), service("stream M"));
    assert_eq!(many.services[0].methods[0].streaming, Streaming::Server);
    let json = many.to_json().expect("JSON");
    assert!(
        json.contains("\"streaming\": \"server\"") && !one.to_json().expect("JSON").contains("streaming")
    );
    assert_eq!(Manifest::from_json(&json).expect("its own"), many);

    let told = BindRequest::new(&one.services[0].methods[0]).check(&many.services[0].methods[0]);
    assert_eq!(
        told.map_err(|mismatch| mismatch.to_string()),
        Err("the method is server-streaming here and unary at the peer".to_owned())
    );
    let broken: Vec<_> = lint::against(&one, &many).iter().map(ToString::to_string).collect();
    assert_eq!(
        broken,
        [
            "/t.S/Call was unary and is server-streaming: peers that run would wait for what never comes; give it a new name"
        ]
    );
}

fn kind() -> impl Strategy<Value = FieldKind> {
    prop_oneof![
        Just(FieldKind::Bool),
        Just(FieldKind::U32),
        Just(FieldKind::I64),
        Just(FieldKind::F64),
        (1..20u8).prop_map(|max_len| FieldKind::String { max_len }),
        (1..20u8).prop_map(|max_len| FieldKind::Bytes { max_len }),
        (1..20u8).prop_map(|len| FieldKind::Fixed { len }),
    ]
}

fn any_layout() -> impl Strategy<Value = Layout> {
    proptest::collection::btree_map(1..1000u32, ("[a-z]{1,8}", kind()), 0..8).prop_map(|fields| {
        let members =
            fields.into_iter().map(|(number, (name, kind))| Member { name, number, kind }).collect();
        Layout::new("t.M", members, layout::BLOCK_MAX).expect("8 fields of at most 20 bytes fit")
    })
}

proptest! {
    #[test]
    fn a_bind_request_arrives_as_it_was_sent(request in any_layout(), response in any_layout(), client: bool, server: bool) {
        let streaming = Streaming::new(client, server);
        let bind = BindRequest { path: "/t.S/Call".into(), streaming, request, response };
        prop_assert_eq!(BindRequest::decode(&bind.encode()).expect("our own"), bind);
    }

    #[test]
    fn any_bytes_are_a_bind_request_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = BindRequest::decode(&bytes);
    }

    #[test]
    fn fields_are_aligned_and_never_overlap(layout in any_layout()) {
        let mut end = 0;
        for field in &layout.fields {
            prop_assert!(field.offset >= end && field.offset % field.kind.align() == 0);
            end = field.end();
        }
        prop_assert_eq!(layout.flat_len, end);
    }

    #[test]
    fn a_layout_is_compatible_with_each_of_its_prefixes(layout in any_layout(), keep in 0..8usize) {
        let mut older = layout.clone();
        older.fields.truncate(keep);
        let expected = if older.fields.len() == layout.fields.len() { Compat::Same } else { Compat::TheirsIsOlder };
        prop_assert_eq!(layout.compatible(&older), Ok(expected));
    }
}
