//! The verifier accepts every program, through both loaders; and its log is not lost when it does not.

mod common;

use common::{built, corrupted, sandbox};
use tollfree_loader::verify;

#[test]
fn every_program_loads_through_aya_and_libbpf() {
    let Some(_sandbox) = sandbox() else { return };
    let objects = ["tollfree.bpf.o", "test-policy.bpf.o"]
        .map(|name| (name.to_owned(), std::fs::read(built(name)).unwrap()));
    let reports = verify(&objects);
    for report in &reports {
        println!(
            "{:20} {:10} {:6} {:5} instructions, {:6} verified, {:6} bytes of machine code",
            report.object, report.name, report.loader, report.instructions, report.verified, report.jited
        );
        assert!(report.ok, "{} {} {}\n{}", report.object, report.name, report.loader, report.log);
        assert!(report.instructions > 0);
    }
    assert_eq!(reports.len(), 2 * 6);
}

#[test]
fn a_refusal_comes_with_the_verifiers_log() {
    let Some(_sandbox) = sandbox() else { return };
    let object = corrupted(std::fs::read(built("test-policy.bpf.o")).unwrap());
    let reports = verify(&[("broken".to_owned(), object), ("nonsense".to_owned(), b"nonsense".to_vec())]);
    assert_eq!(reports.len(), 4);
    for report in reports {
        assert!(!report.ok && !report.log.is_empty(), "{report:?}");
    }
}
