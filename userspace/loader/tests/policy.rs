//! Swapping policies: atomic, tables carried over, and nothing changed by what fails.

mod common;

use common::packet::{Packet, SERVER, STACKS, sessions};
use common::{Action, IFACE, Sandbox, corrupted, sandbox, test_policy, wide_policy, xdp_socket};
use serde_json::value::RawValue;
use std::os::fd::{AsFd, OwnedFd};
use tollfree_loader::{Error, Interface, NewPolicy, TableInfo};
use tollfree_wire::maps::JUDGED;

fn ready() -> Option<(Interface, OwnedFd, Sandbox)> {
    let sandbox = sandbox()?;
    let interface = sandbox.attach();
    interface.session_insert(&sessions()[0]).unwrap();
    let socket = xdp_socket();
    interface.register_socket(0, socket.as_fd()).unwrap();
    Some((interface, socket, sandbox))
}

#[test]
fn tables_survive_a_swap_when_their_type_does() {
    let Some((mut interface, _socket, _sandbox)) = ready() else { return };
    let (key, value) = ([7, 0, 0, 0], [1, 0, 0, 0]);
    let (object, tables) = test_policy();
    assert_eq!(interface.apply_policy(&object, &tables, RawValue::NULL).unwrap(), 1);
    interface.table_set("rules", &key, &value).unwrap();
    assert_eq!(interface.apply_policy(&object, &tables, RawValue::NULL).unwrap(), 2);
    assert_eq!(interface.table_dump("rules").unwrap(), [(key.to_vec(), value.to_vec())]);

    let (object, tables) = wide_policy();
    assert_eq!(interface.apply_policy(&object, &tables, RawValue::NULL).unwrap(), 3);
    assert!(interface.table_dump("rules").unwrap().is_empty(), "another type: another table");
    interface.table_set("rules", &key, &[1; 8]).unwrap();
    assert_eq!(interface.table_get("rules", &key).unwrap(), Some(vec![1; 8]));

    // The policy before: its table was put aside, and comes back with its entries.
    let (object, tables) = test_policy();
    assert_eq!(interface.apply_policy(&object, &tables, RawValue::NULL).unwrap(), 4);
    assert_eq!(interface.table_dump("rules").unwrap(), [(key.to_vec(), value.to_vec())]);

    // The same sizes, but other words for them.
    let renamed = vec![TableInfo { meaning: "a number of another kind".into(), ..tables[0].clone() }];
    assert_eq!(interface.apply_policy(&object, &renamed, RawValue::NULL).unwrap(), 5);
    assert!(interface.table_dump("rules").unwrap().is_empty(), "another meaning: another table");
    assert_eq!(interface.apply_policy(&object, &tables, RawValue::NULL).unwrap(), 6);
    assert_eq!(interface.table_dump("rules").unwrap().len(), 1);

    interface.clear_policy().unwrap();
    assert_eq!(interface.status().unwrap().generation, 7);
    let error = interface.table_get("rules", &key).unwrap_err();
    assert!(matches!(error, Error::NoTable { .. }), "{error}");
}

#[test]
fn what_a_policy_has_to_itself_is_there_before_it_judges() {
    let Some((mut interface, _socket, sandbox)) = ready() else { return };
    let root = sandbox.program("tf_root");
    let left = || {
        let (action, frame) = root.run(&Packet::request(STACKS[0], 7, 0).frame());
        assert_eq!(action, Action::Redirect);
        u64::from_le_bytes(frame[STACKS[0].header() + 48..][..8].try_into().unwrap())
    };
    assert_eq!(left(), 0, "no policy");
    let (object, tables) = test_policy();
    interface.apply_policy(&object, &tables, RawValue::NULL).unwrap();
    assert_eq!(left(), 3, "what the smaller policy says");

    let (object, tables) = wide_policy();
    let prepared =
        interface.prepare(NewPolicy { object: &object, tables: &tables, meta: RawValue::NULL }).unwrap();
    assert_eq!(prepared.generation(), 2);
    let decisions = prepared.decisions().unwrap();
    assert_eq!(decisions.size(), 4);
    decisions.set(SERVER, &[1, 0, 0, 0]).unwrap();
    assert!(decisions.set(SERVER, &[1]).is_err(), "another size");
    assert_eq!(left(), 3, "not in force yet");
    interface.commit(prepared).unwrap();
    assert_eq!(left(), 2, "its own generation, by the cell's first value and what was decided");
    interface.decisions().unwrap().unwrap().set(SERVER, &[2, 0, 0, 0]).unwrap();
    assert_eq!(left(), JUDGED);

    // Cells and counters.
    let cell = [0; 4];
    assert_eq!(interface.table_get("limit", &cell).unwrap(), Some(5u64.to_le_bytes().to_vec()));
    assert_eq!(interface.table_get("calls", &cell).unwrap(), Some(2u64.to_le_bytes().to_vec()));
    for (error, expected) in [
        (interface.table_set("calls", &cell, &[0; 8]).unwrap_err(), "is a counter"),
        (interface.table_delete("limit", &cell).unwrap_err(), "is a cell"),
    ] {
        assert!(error.to_string().contains(expected), "{error}");
    }
    interface.table_set("limit", &cell, &6u64.to_le_bytes()).unwrap();
    interface.table_delete("calls", &cell).unwrap();
    assert_eq!(interface.table_dump("calls").unwrap(), [(cell.to_vec(), vec![0; 8])]);

    // The next generation finds the tables, but maps of its own.
    interface.apply_policy(&object, &tables, RawValue::NULL).unwrap();
    assert_eq!(interface.table_get("limit", &cell).unwrap(), Some(6u64.to_le_bytes().to_vec()));
    assert_eq!(left(), JUDGED, "the cell says 6, and nothing is decided");
}

#[test]
fn a_policy_that_was_only_prepared_leaves_no_trace() {
    let Some((mut interface, _socket, sandbox)) = ready() else { return };
    let status = |interface: &Interface| serde_json::to_value(interface.status().unwrap()).unwrap();
    let before = status(&interface);
    let (object, tables) = wide_policy();
    let new = NewPolicy { object: &object, tables: &tables, meta: RawValue::NULL };
    drop(interface.prepare(new).unwrap());
    assert_eq!(status(&interface), before);
    assert!(!sandbox.paths.bpffs.join(IFACE).join("staging").exists());
    assert_eq!(interface.apply_policy(&object, &tables, RawValue::NULL).unwrap(), 1);
}

#[test]
fn wrong_sizes_and_names_are_told() {
    let Some((mut interface, _socket, _sandbox)) = ready() else { return };
    let (object, tables) = test_policy();
    interface.apply_policy(&object, &tables, RawValue::NULL).unwrap();
    for (error, expected) in [
        (interface.table_set("rules", &[1], &[0; 4]).unwrap_err(), "a key of table rules has 4 bytes, not 1"),
        (
            interface.table_set("rules", &[1; 4], &[]).unwrap_err(),
            "a value of table rules has 4 bytes, not 0",
        ),
        (
            interface.table_get("users", &[1; 4]).unwrap_err(),
            "the policy on tf0 has no table users; it has rules",
        ),
    ] {
        assert_eq!(error.to_string(), expected);
    }
    assert!(!interface.table_delete("rules", &[1; 4]).unwrap());
}

#[test]
fn a_failed_apply_changes_nothing() {
    let Some((mut interface, _socket, sandbox)) = ready() else { return };
    let (object, tables) = test_policy();
    let [first, second] = ["first", "second"].map(|meta| serde_json::value::to_raw_value(meta).unwrap());
    interface.apply_policy(&object, &tables, &first).unwrap();
    interface.table_set("rules", &[7, 0, 0, 0], &[1, 0, 0, 0]).unwrap();
    let status = |interface: &Interface| serde_json::to_value(interface.status().unwrap()).unwrap();
    let before = status(&interface);
    let described_wrong = vec![TableInfo { capacity: 17, ..tables[0].clone() }];
    let (wide, wide_tables) = wide_policy();
    let refused = corrupted(wide);
    let attempts: [(&str, &[u8], &[TableInfo]); 5] = [
        ("no object", b"nonsense", &tables),
        ("no policy program", &std::fs::read(&sandbox.object).unwrap(), &tables),
        ("undescribed table", &object, &[]),
        ("table described wrong", &object, &described_wrong),
        ("refused by the verifier", &refused, &wide_tables),
    ];
    for (name, object, tables) in attempts {
        let error = interface.apply_policy(object, tables, &second).expect_err(name);
        assert!(matches!(error, Error::Object { .. } | Error::Verifier { .. }), "{name}: {error}");
        if name == "refused by the verifier" {
            assert!(matches!(&error, Error::Verifier { log, .. } if !log.is_empty()), "{name}: {error}");
        }
        assert_eq!(status(&interface), before, "{name}");
        assert_eq!(interface.table_get("rules", &[7, 0, 0, 0]).unwrap(), Some(vec![1, 0, 0, 0]), "{name}");
        assert!(!sandbox.paths.bpffs.join(IFACE).join("staging").exists(), "{name}");
        let root = sandbox.program("tf_root");
        assert_eq!(root.run(&Packet::request(STACKS[0], 5, 7).frame()).0, Action::Redirect, "{name}");
        assert_eq!(root.run(&Packet::request(STACKS[0], 5, 8).frame()).0, Action::Drop, "{name}");
    }
}

#[test]
fn no_packet_falls_between_two_policies() {
    let Some((mut interface, _socket, sandbox)) = ready() else { return };
    let (object, tables) = test_policy();
    interface.apply_policy(&object, &tables, RawValue::NULL).unwrap();
    let root = sandbox.program("tf_root");
    let done = std::sync::atomic::AtomicBool::new(false);
    let judged = std::thread::scope(|scope| {
        let judge = scope.spawn(|| {
            let mut judged = 0u32;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                // Both policies reject this; without any it would be delivered.
                assert_eq!(root.run(&Packet::request(STACKS[0], 1, 0).frame()).0, Action::Tx);
                judged += 1;
            }
            judged
        });
        let (wide, wide_tables) = wide_policy();
        for _ in 0..50 {
            interface.apply_policy(&wide, &wide_tables, RawValue::NULL).unwrap();
            interface.apply_policy(&object, &tables, RawValue::NULL).unwrap();
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
        judge.join().unwrap()
    });
    println!("{judged} packets over 100 swaps");
    assert_eq!(interface.status().unwrap().generation, 101);
}
