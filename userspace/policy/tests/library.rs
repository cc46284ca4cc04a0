//! The policies that come with Tollfree do what their tests say, and are as short as they claim to be; the examples of
//! the language's reference compile.

use std::path::{Path, PathBuf};
use tollfree_policy::testing::{self, TestFile, Where};
use tollfree_policy::{Options, Source, compile, sides};
use tollfree_schema::Manifest;

/// Lines, comments aside, that AppNet needs for the same, and that ours may have at most.
const STANDARD: [(&str, usize); 26] = [
    ("acl", 20),
    ("admission_control", 28),
    ("allow_methods", 20),
    ("authorization", 20),
    ("bandwidth_limit", 18),
    ("cache", 29),
    ("cidr_deny", 20),
    ("circuit_breaker", 22),
    ("concurrency_limit", 18),
    ("default_deny", 14),
    ("encrypt", 20),
    ("fault", 15),
    ("logging", 14),
    ("metrics", 14),
    ("mirror", 14),
    ("mutation", 14),
    ("null", 14),
    ("power_of_two", 28),
    ("rate_limit", 18),
    ("retry", 14),
    ("round_robin", 16),
    ("session_tracker", 14),
    ("size_limit", 14),
    ("sticky", 16),
    ("timeout", 14),
    ("weighted", 16),
];

/// Lines of a cookbook's recipe.
const RECIPE_MAX: usize = 12;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies").join(name)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn policies(name: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder(name)).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "policy")).collect();
    paths.sort();
    paths
}

fn shop() -> Manifest {
    let schema = folder("../schemas/shop.proto");
    Manifest::from_proto(&[schema], &[folder("../schemas")]).unwrap()
}

fn lines(text: &str) -> usize {
    text.lines().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#')).count()
}

/// Runs a policy's tests; returns what is wrong.
fn failures(path: &Path, schema: &Manifest) -> Vec<String> {
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let text = read(path);
    let test = TestFile::parse(&read(&path.with_extension("test")))
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    assert_eq!(test.schema, "../../schemas/shop.proto", "{name}");
    let report = match testing::run(&Source { name: &name, text: &text }, &test, schema, Where::Engine) {
        Ok(report) => report,
        Err(failure) => return vec![format!("{name}: {failure}")],
    };
    let cases = report.cases.iter();
    let wrong =
        cases.flat_map(|case| case.wrong.iter().map(|wrong| format!("{name}: {}: {wrong}", case.name)));
    wrong.chain(report.tables.iter().map(|wrong| format!("{name}: {wrong}"))).collect()
}

#[test]
fn the_standard_library_does_what_it_says() {
    let schema = shop();
    let paths = policies("std");
    let names: Vec<String> =
        paths.iter().map(|path| path.file_stem().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(names, STANDARD.map(|(name, _)| name), "every policy has a limit of lines");
    let wrong: Vec<String> = paths.iter().flat_map(|path| failures(path, &schema)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for (path, (name, most)) in paths.iter().zip(STANDARD) {
        let text = read(path);
        assert!(text.starts_with('#'), "{name} says what it is for");
        assert!(lines(&text) <= most, "{name} has {} lines, at most {most} are allowed", lines(&text));
    }
}

#[test]
fn the_cookbook_does_what_it_says() {
    let schema = shop();
    let paths = policies("cookbook");
    assert_eq!(paths.len(), 20);
    let wrong: Vec<String> = paths.iter().flat_map(|path| failures(path, &schema)).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    for path in &paths {
        let text = read(path);
        assert!(text.starts_with('#'), "{} says what it is for", path.display());
        assert!(lines(&text) <= RECIPE_MAX, "{} has {} lines", path.display(), lines(&text));
    }
}

#[test]
fn every_example_of_the_reference_compiles() {
    let reference = read(&folder("README.md"));
    let schema = shop();
    let mut examples = 0;
    for block in reference.split("```policy\n").skip(1) {
        let text = block.split("```").next().unwrap();
        let line = reference[..text.as_ptr() as usize - reference.as_ptr() as usize].lines().count() + 1;
        let name = format!("README.md, the example in line {line}");
        let source = Source { name: &name, text };
        let mut all = sides(&source);
        if all.is_empty() {
            all.push(tollfree_policy::Side::Server);
        }
        for side in all {
            let options = Options { side: Some(side), ..Options::default() };
            compile(&source, &schema, options).unwrap_or_else(|mistakes| panic!("{name}:\n{mistakes}"));
        }
        examples += 1;
    }
    assert!(examples >= 10, "{examples} examples");
}
