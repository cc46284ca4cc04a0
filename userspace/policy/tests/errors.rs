//! What a mistake gets: every policy in `golden/` against the report beside it. `TOLLFREE_BLESS=1` writes the reports.

use std::path::{Path, PathBuf};
use tollfree_policy::{Options, Source, compile, emit_ir, sides};
use tollfree_schema::{BodyField, FieldKind, Layout, Manifest, Member, Method, Service, method_id};

fn schema() -> Manifest {
    let layout = |message: &str, fields: &[(&str, FieldKind)], body: &[&str]| {
        let members = fields.iter().zip(1..);
        let members =
            members.map(|((name, kind), number)| Member { name: (*name).into(), number, kind: kind.clone() });
        let mut layout = Layout::new(message, members.collect(), 192).unwrap();
        layout.body = body
            .iter()
            .zip(100..)
            .map(|(name, number)| BodyField { name: (*name).into(), number, kind: "string".into() })
            .collect();
        layout
    };
    let method = |path: &str, request, response| Method {
        name: path.rsplit('/').next().unwrap_or_default().into(),
        path: path.into(),
        id: method_id(path),
        streaming: tollfree_schema::Streaming::Unary,
        request,
        response,
    };
    let user = ("user", FieldKind::String { max_len: 31 });
    let level = ("level", FieldKind::U32);
    let role = ("role", FieldKind::Enum { values: vec![("GUEST".into(), 0), ("ADMIN".into(), 1)] });
    let far = ("far", FieldKind::I64);
    let blob = ("blob", FieldKind::Bytes { max_len: 32 });
    let hash = layout("demo.HashRequest", &[user.clone(), level], &["line"]);
    let get = layout("kv.GetRequest", &[user.clone(), role, ("load", FieldKind::F32), far], &[]);
    let clash = layout("kv.SetRequest", &[("far", FieldKind::U32), blob.clone()], &[]);
    let digest = layout("demo.HashReply", &[("digest", FieldKind::Fixed { len: 32 })], &[]);
    let value = layout("kv.Value", &[blob, ("hit", FieldKind::Bool)], &["rest"]);
    let cached = layout("kv.CacheRequest", &[user], &[]);
    let service = |name: &str, methods| Service { name: name.into(), methods };
    Manifest {
        services: vec![
            service("demo.Hash", vec![method("/demo.Hash/Sha256", hash, digest)]),
            service(
                "kv.Store",
                vec![
                    method("/kv.Store/Get", get, Layout::default()),
                    method("/kv.Store/Set", clash, Layout::default()),
                ],
            ),
            service("kv.Cache", vec![method("/kv.Cache/Get", cached, value)]),
        ],
    }
}

fn golden() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        files.filter(|path| path.extension().is_some_and(|ext| ext == "policy")).collect();
    files.sort();
    files
}

/// What a policy without mistakes comes to, on both sides.
fn emitted(source: &Source<'_>) -> String {
    let sides = sides(source).into_iter();
    let emit = |side| emit_ir(source, &schema(), Options { side: Some(side), ..Options::default() }).unwrap();
    sides.map(emit).collect()
}

#[test]
fn every_mistake_is_explained() {
    let mut failures = Vec::new();
    for path in golden() {
        let name = path.file_name().unwrap().to_str().unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let source = Source { name, text: &text };
        let report = match compile(&source, &schema(), Options::default()) {
            Ok(_) => emitted(&source),
            Err(diagnostics) => {
                let json = diagnostics.to_json();
                assert_eq!(json.as_array().map(Vec::len), Some(diagnostics.list().len()));
                diagnostics.render(false)
            }
        };
        let expected = path.with_extension("txt");
        if std::env::var_os("TOLLFREE_BLESS").is_some() {
            std::fs::write(&expected, &report).unwrap();
        }
        if std::fs::read_to_string(&expected).ok().as_deref() != Some(&report) {
            failures.push(report);
        }
    }
    assert!(failures.is_empty(), "reports differ; see them with TOLLFREE_BLESS=1\n{}", failures.join("\n"));
}
