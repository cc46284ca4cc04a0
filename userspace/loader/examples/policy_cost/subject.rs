//! What is measured: a policy, compiled, with tables that let its request through.

use std::path::{Path, PathBuf};
use tollfree_policy::testing::TestFile;
use tollfree_policy::{Compiled, Options, Side, Source, compile, sides};
use tollfree_schema::{Layout, Manifest, Method};

/// Rates of the library, and what they are replaced by: so that every call of a measurement passes, as the first ones of
/// a second do.
const RATES: [(&str, &str); 3] =
    [("(10/s", "(1_000_000_000/s"), ("(1000/s", "(1_000_000_000/s"), ("(10MiB/s", "(100GiB/s")];
/// What requests say.
const FIELDS: [(&str, &str); 3] =
    [("user", "alice"), ("product", "tea"), ("supplier", "every byte has its room")];

/// One side's chains of a policy.
pub struct Subject<'s> {
    pub name: String,
    /// Without comments and blank ones.
    pub lines: usize,
    pub compiled: Compiled,
    /// Entries: table, key, value.
    pub entries: Vec<[String; 3]>,
    pub method: &'s Method,
    pub identity: String,
    /// The request's flat block.
    pub flat: Vec<u8>,
}

/// A file below `policies/`.
pub fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies").join(name)
}

/// The schema that the library is written for.
pub fn schema() -> Manifest {
    let schemas = folder("../schemas");
    Manifest::from_proto(&[schemas.join("shop.proto")], &[schemas]).expect("the schema is good")
}

/// The standard library, and the pair of elements that has a target of its own: each policy's sides, in the order in which
/// a call meets them.
pub fn all(schema: &Manifest) -> Vec<Vec<Subject<'_>>> {
    let entries = std::fs::read_dir(folder("std")).expect("policies/std").flatten().map(|entry| entry.path());
    let mut paths: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "policy")).collect();
    paths.sort();
    let mut policies: Vec<_> =
        paths.iter().map(|path| load(path, &path.with_extension("test"), schema)).collect();
    // It reads the list that `acl` has.
    policies.push(load(&folder("firewall.policy"), &folder("std/acl.test"), schema));
    policies
}

/// A policy's sides, each measured by the first call of the policy's tests.
fn load<'s>(policy: &Path, test: &Path, schema: &'s Manifest) -> Vec<Subject<'s>> {
    let read =
        |path: &Path| std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let test = TestFile::parse(&read(test)).unwrap_or_else(|mistake| panic!("{}: {mistake}", test.display()));
    let case = test.cases.first().expect("a test has a case");
    let path = format!("/{}", case.method);
    let method =
        schema.methods().find(|method| method.path == path).expect("the schema has the test's method");

    let mut text = read(policy);
    let code = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let lines = text.lines().filter(code).count();
    for (rate, enough) in RATES {
        text = text.replace(rate, enough);
    }
    let stem = policy.file_stem().unwrap_or_default().to_string_lossy();
    let source = Source { name: &stem, text: &text };
    let mut sides = sides(&source);
    sides.sort_by_key(|side| *side == Side::Server);
    let one = |side: &Side| {
        let options = Options { side: Some(*side), ..Options::default() };
        let mut compiled = compile(&source, schema, options).unwrap_or_else(|mistakes| panic!("{mistakes}"));
        compiled.program.set_keys(|_| Some([7; 32]));
        let name = if sides.len() > 1 { format!("{stem} at {side}") } else { stem.to_string() };
        let entries = test.tables.iter().flat_map(|(table, entries)| {
            entries.iter().map(move |(key, value)| [table.clone(), key.clone(), value.clone()])
        });
        Subject {
            name,
            lines,
            compiled,
            entries: entries.collect(),
            method,
            identity: case.peer.identity.clone().unwrap_or_default(),
            flat: flat(&method.request),
        }
    };
    sides.iter().map(one).collect()
}

/// A request's flat block with those of [`FIELDS`] that it has.
fn flat(layout: &Layout) -> Vec<u8> {
    let mut flat = vec![0; usize::from(layout.flat_len)];
    for (name, text) in FIELDS {
        if let Some(field) = layout.field(name) {
            let room = &mut flat[usize::from(field.offset)..][..=text.len()];
            room[0] = text.len() as u8;
            room[1..].copy_from_slice(text.as_bytes());
        }
    }
    flat
}
