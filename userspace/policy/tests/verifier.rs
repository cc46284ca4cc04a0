//! The kernel's verifier accepts what the compiler puts in XDP, of every policy that comes with Tollfree, through aya and
//! through libbpf.

use std::path::{Path, PathBuf};
use tollfree_policy::{Options, Side, Source, compile, sides};
use tollfree_schema::Manifest;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policies").join(name)
}

fn policies(name: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder(name)).unwrap().map(|entry| entry.unwrap().path());
    let mut paths: Vec<_> = entries.filter(|path| path.extension().is_some_and(|e| e == "policy")).collect();
    paths.sort();
    paths
}

#[test]
fn the_kernel_accepts_every_policy() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: loading a program needs CAP_BPF");
        return;
    }
    let schema = Manifest::from_proto(&[folder("../schemas/shop.proto")], &[folder("../schemas")]).unwrap();
    let mut objects = 0;
    for path in policies("std").into_iter().chain(policies("cookbook")) {
        let text = std::fs::read_to_string(&path).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let source = Source { name: &name, text: &text };
        if !sides(&source).contains(&Side::Server) {
            continue;
        }
        let options = Options { side: Some(Side::Server), ..Options::default() };
        let compiled =
            compile(&source, &schema, options).unwrap_or_else(|diagnostics| panic!("{diagnostics}"));
        print!("{}", compiled.explain);
        let Some(object) = &compiled.object else { continue };
        let mut ebpf = aya::Ebpf::load(object).unwrap_or_else(|error| panic!("{name}: {error}"));
        for (part, program) in ebpf.programs_mut() {
            let program: &mut aya::programs::Xdp = program.try_into().unwrap();
            program.load().unwrap_or_else(|error| panic!("{name}, {part}: {error:?}"));
        }
        let open = libbpf_rs::ObjectBuilder::default().open_memory(object).unwrap();
        drop(open.load().unwrap_or_else(|error| panic!("{name}: {error:#}")));
        objects += 1;
    }
    println!("{objects} objects");
    assert!(objects > 10, "{objects}");
}
