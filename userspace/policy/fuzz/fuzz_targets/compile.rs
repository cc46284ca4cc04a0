//! Any text, as a policy: the compiler answers with a policy or with a report, the layout is stable and keeps the meaning.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;
use tollfree_policy::{Options, Side, Source, compile, emit_ir, format, sides};
use tollfree_schema::{FieldKind, Layout, Manifest, Member, Method, Service, method_id};

static SCHEMA: LazyLock<Manifest> = LazyLock::new(|| {
    let field = |name: &str, number, kind| Member { name: name.into(), number, kind };
    let fields = vec![
        field("user", 1, FieldKind::String { max_len: 31 }),
        field("level", 2, FieldKind::U32),
        field("blob", 3, FieldKind::Bytes { max_len: 40 }),
        field("load", 4, FieldKind::F64),
        field("role", 5, FieldKind::Enum { values: vec![("GUEST".into(), 0), ("ADMIN".into(), -3)] }),
    ];
    let layout = Layout::new("kv.Message", fields, 192).expect("fits");
    let method = |path: &str| Method {
        name: path.rsplit('/').next().unwrap_or_default().into(),
        path: path.into(),
        id: method_id(path),
        streaming: tollfree_schema::Streaming::Unary, request: layout.clone(),
        response: layout.clone(),
    };
    let kv =
        Service { name: "kv.Store".into(), methods: vec![method("/kv.Store/Get"), method("/kv.Store/Set")] };
    let log = Service { name: "log.Log".into(), methods: vec![method("/log.Log/Get")] };
    Manifest { services: vec![kv, log] }
});

fuzz_target!(|text: &str| {
    let source = Source { name: "fuzz", text };
    for side in [Side::Server, Side::Client] {
        let options = Options { side: Some(side), ..Options::default() };
        match compile(&source, &SCHEMA, options) {
            Ok(compiled) => assert_eq!(compiled.side, side),
            Err(diagnostics) => assert!(!diagnostics.render(false).is_empty()),
        }
    }
    let Ok(tidy) = format(&source) else { return };
    let again = Source { name: "fuzz", text: &tidy };
    assert_eq!(format(&again).as_deref().ok(), Some(tidy.as_str()));
    assert_eq!(sides(&source), sides(&again));
    let meaning = |source: &Source<'_>| emit_ir(source, &SCHEMA, Options::default()).ok();
    assert_eq!(meaning(&source), meaning(&again));
});
