//! Attaching to interfaces, in every way it can go wrong, and what stays in the kernel when the process is gone.

mod common;

use common::packet::{Packet, SERVER, STACKS, sessions};
use common::{Action, IFACE, ip, sandbox, test_policy};
use std::process::{Command, Stdio};
use tollfree_loader::{AttachOptions, Error, Interface, Mode, attached, clean};

/// Attaches a program that is not Tollfree's by netlink, as `ip` does: the test policy, an XDP program like any other.
fn attach_foreign(sandbox: &common::Sandbox) {
    let mut directory = sandbox.paths.bpffs.clone().into_os_string();
    directory.push("-foreign");
    let directory = std::path::PathBuf::from(directory);
    mounted(sandbox);
    std::fs::create_dir_all(&directory).unwrap();
    let mut ebpf =
        aya::EbpfLoader::new().load(&std::fs::read(common::built("test-policy.bpf.o")).unwrap()).unwrap();
    let program: &mut aya::programs::Xdp = ebpf.program_mut("tf_policy").unwrap().try_into().unwrap();
    program.load().unwrap();
    let pin = directory.join("program");
    program.pin(&pin).unwrap();
    ip(&format!("link set dev {IFACE} xdpdrv pinned {}", pin.display()));
    std::fs::remove_dir_all(&directory).unwrap();
}

/// Attaching mounts bpffs where it is missing; some tests need it before.
fn mounted(sandbox: &common::Sandbox) {
    sandbox.attach().detach().unwrap();
}

#[test]
fn native_mode_is_the_default_and_in_force() {
    let Some(sandbox) = sandbox() else { return };
    assert_eq!(Mode::default(), Mode::Native);
    let interface = sandbox.attach();
    let status = interface.status().unwrap();
    assert_eq!((status.mode, status.port, status.generation), (Some(Mode::Native), common::PORT, 0));
    assert_eq!(Interface::list(&sandbox.paths).unwrap(), [IFACE]);
    interface.detach().unwrap();
    assert_eq!(attached(IFACE).unwrap(), None);
    assert!(Interface::list(&sandbox.paths).unwrap().is_empty());
    assert!(matches!(Interface::open(&sandbox.paths, IFACE), Err(Error::NotAttached { .. })));
}

#[test]
fn generic_mode_is_there_for_those_who_ask() {
    let Some(sandbox) = sandbox() else { return };
    let interface = Interface::attach(&sandbox.paths, "lo", sandbox.options(Mode::Generic)).unwrap();
    assert_eq!(interface.status().unwrap().mode, Some(Mode::Generic));
    let again = Interface::attach(&sandbox.paths, "lo", sandbox.options(Mode::Native)).unwrap_err();
    assert!(matches!(again, Error::OtherMode { .. }), "{again}");
    assert_eq!(interface.status().unwrap().mode, Some(Mode::Generic));
}

#[test]
fn an_interface_without_native_mode_says_so() {
    let Some(sandbox) = sandbox() else { return };
    let error = Interface::attach(&sandbox.paths, "lo", sandbox.options(Mode::Native)).unwrap_err();
    assert!(matches!(error, Error::NoNative { .. }), "{error}");
    assert_eq!(error.to_string().lines().count(), 1);
    assert!(Interface::list(&sandbox.paths).unwrap().is_empty(), "pins are left");
    assert!(!sandbox.paths.bpffs.join("lo").exists(), "pins are left");
}

#[test]
fn too_large_an_mtu_says_so() {
    let Some(sandbox) = sandbox() else { return };
    ip("link set tf1 mtu 9000");
    let error = Interface::attach(&sandbox.paths, IFACE, sandbox.options(Mode::Native)).unwrap_err();
    assert!(matches!(error, Error::Mtu { .. }), "{error}");
}

#[test]
fn a_missing_interface_is_named() {
    let Some(sandbox) = sandbox() else { return };
    for name in ["nosuch0", "", "name-that-is-too-long", "../tf0"] {
        let error = Interface::attach(&sandbox.paths, name, sandbox.options(Mode::Native)).unwrap_err();
        assert!(matches!(error, Error::NoInterface { .. }), "{error}");
    }
    assert!(matches!(Interface::open(&sandbox.paths, "nosuch0"), Err(Error::NoInterface { .. })));
}

#[test]
fn missing_capabilities_are_named() {
    use rustix::thread::{CapabilitySet, capabilities, set_capabilities};
    let Some(sandbox) = sandbox() else { return };
    let held = capabilities(None).unwrap();
    let mut fewer = held;
    fewer.effective.remove(CapabilitySet::SYS_ADMIN | CapabilitySet::BPF);
    // Capabilities belong to the thread, so other tests keep theirs.
    set_capabilities(None, fewer).unwrap();
    let error = Interface::attach(&sandbox.paths, IFACE, sandbox.options(Mode::Native)).unwrap_err();
    set_capabilities(None, held).unwrap();
    assert!(
        matches!(&error, Error::Capability { capabilities, .. } if capabilities == &["CAP_BPF"]),
        "{error}"
    );
    assert!(error.to_string().contains("udp"), "{error}");
}

#[test]
fn a_missing_object_is_named() {
    let Some(sandbox) = sandbox() else { return };
    let object = sandbox.paths.state.join("nothing.o");
    let options = AttachOptions { object: &object, ..sandbox.options(Mode::Native) };
    let error = Interface::attach(&sandbox.paths, IFACE, options).unwrap_err();
    assert!(error.to_string().contains("nothing.o"), "{error}");
    std::fs::write(&object, "not an ELF file").unwrap();
    let error = Interface::attach(&sandbox.paths, IFACE, options).unwrap_err();
    assert!(matches!(error, Error::Object { .. }), "{error}");
    assert_eq!(attached(IFACE).unwrap(), None);
    assert!(!sandbox.paths.bpffs.join(IFACE).exists(), "pins are left");
}

#[test]
fn a_foreign_program_stays_unless_forced() {
    let Some(sandbox) = sandbox() else { return };
    attach_foreign(&sandbox);
    let foreign = attached(IFACE).unwrap().unwrap();
    let error = Interface::attach(&sandbox.paths, IFACE, sandbox.options(Mode::Native)).unwrap_err();
    assert!(matches!(error, Error::Foreign { .. }), "{error}");
    assert!(error.to_string().contains("tf_policy"), "{error}");
    assert_eq!(attached(IFACE).unwrap().unwrap(), foreign);

    let force = AttachOptions { force: true, ..sandbox.options(Mode::Native) };
    let interface = Interface::attach(&sandbox.paths, IFACE, force).unwrap();
    assert_eq!(interface.status().unwrap().mode, Some(Mode::Native));
    assert_ne!(attached(IFACE).unwrap().unwrap().id, foreign.id);
}

#[test]
fn a_foreign_program_comes_back_when_ours_cannot_be_attached() {
    let Some(sandbox) = sandbox() else { return };
    attach_foreign(&sandbox);
    let foreign = attached(IFACE).unwrap().unwrap();
    // A state directory that is a file: the last step fails.
    let mut paths = sandbox.paths.clone();
    paths.state = sandbox.paths.state.join("file");
    std::fs::write(&paths.state, "").unwrap();
    let force = AttachOptions { force: true, ..sandbox.options(Mode::Native) };
    Interface::attach(&paths, IFACE, force).unwrap_err();
    assert_eq!(attached(IFACE).unwrap().unwrap(), foreign);
}

#[test]
fn a_foreign_link_gives_way_to_force() {
    let Some(sandbox) = sandbox() else { return };
    let code = std::fs::read(common::built("test-policy.bpf.o")).unwrap();
    let mut ebpf = aya::EbpfLoader::new().load(&code).unwrap();
    let program: &mut aya::programs::Xdp = ebpf.program_mut("tf_policy").unwrap().try_into().unwrap();
    program.load().unwrap();
    program.attach(IFACE, aya::programs::XdpMode::Driver).unwrap();
    let error = Interface::attach(&sandbox.paths, IFACE, sandbox.options(Mode::Native)).unwrap_err();
    assert!(matches!(error, Error::Foreign { .. }), "{error}");
    let force = AttachOptions { force: true, ..sandbox.options(Mode::Native) };
    let interface = Interface::attach(&sandbox.paths, IFACE, force).unwrap();
    assert_eq!(interface.status().unwrap().mode, Some(Mode::Native));
}

#[test]
fn attaching_again_keeps_policy_and_tables_and_forgets_sessions() {
    let Some(sandbox) = sandbox() else { return };
    let mut interface = sandbox.attach();
    let (object, tables) = test_policy();
    let meta = serde_json::value::to_raw_value(&serde_json::json!({"file": "a.policy"})).unwrap();
    interface.apply_policy(&object, &tables, &meta).unwrap();
    interface.table_set("rules", &[1, 0, 0, 0], &[2, 0, 0, 0]).unwrap();
    for entry in sessions() {
        interface.session_insert(&entry).unwrap();
    }
    let before = attached(IFACE).unwrap().unwrap();
    let again = sandbox.attach();
    let after = attached(IFACE).unwrap().unwrap();
    assert_ne!(before.id, after.id);
    assert_eq!(again.status().unwrap().generation, 1);
    assert_eq!(again.status().unwrap().policy.get(), meta.get());
    assert_eq!(again.table_get("rules", &[1, 0, 0, 0]).unwrap(), Some(vec![2, 0, 0, 0]));
    assert!(again.session_get(SERVER).unwrap().is_none());
    again.session_insert(&sessions()[0]).unwrap();
    let (action, _) = sandbox.program("tf_root").run(&Packet::request(STACKS[0], 1, 0).frame());
    assert_eq!(action, Action::Tx, "the policy still judges");
}

/// How things stand when a process is killed while it applies a policy, before and after the state names that, or while it
/// takes one out of force.
#[test]
fn what_a_killed_process_had_begun_is_taken_back_or_brought_to_its_end() {
    let Some(sandbox) = sandbox() else { return };
    let mut interface = sandbox.attach();
    let (object, tables) = test_policy();
    let meta = serde_json::value::to_raw_value("a.policy").unwrap();
    interface.apply_policy(&object, &tables, &meta).unwrap();
    interface.table_set("rules", &[7, 0, 0, 0], &[1, 0, 0, 0]).unwrap();
    let pins = sandbox.paths.bpffs.join(IFACE);
    let judges = |interface: &Interface| {
        interface.session_insert(&sessions()[0]).unwrap();
        let root = sandbox.program("tf_root");
        assert_eq!(root.run(&Packet::request(STACKS[0], 1, 0).frame()).0, Action::Tx, "the policy judges");
        assert_eq!(interface.table_get("rules", &[7, 0, 0, 0]).unwrap(), Some(vec![1, 0, 0, 0]));
        assert!(!pins.join("staging").exists());
    };
    judges(&interface);

    // Something else is in the slot, and generation 2 never came into the state.
    let stages = libbpf_rs::MapHandle::from_pinned_path(pins.join("tf_stages")).unwrap();
    let slot = (tollfree_wire::maps::Stage::Policy as u32).to_ne_bytes();
    let delete = |map: &libbpf_rs::MapHandle| libbpf_rs::MapCore::delete(map, &slot).unwrap();
    delete(&stages);
    std::fs::create_dir_all(pins.join("staging/own")).unwrap();
    std::fs::create_dir_all(pins.join("staging/2")).unwrap();
    judges(&sandbox.attach());

    // The state has generation 1, but its pins were not in their places yet.
    std::fs::create_dir_all(pins.join("staging/own")).unwrap();
    std::fs::create_dir_all(pins.join("staging/1")).unwrap();
    std::fs::rename(pins.join("policy"), pins.join("staging/policy")).unwrap();
    std::fs::rename(pins.join("tables/rules"), pins.join("staging/rules")).unwrap();
    delete(&stages);
    judges(&sandbox.attach());

    // It was taken out of force, but the state says that it still is.
    delete(&stages);
    std::fs::remove_file(pins.join("policy")).unwrap();
    let status = sandbox.attach().status().unwrap();
    assert_eq!((status.policy.get(), status.generation), ("null", 2));
    assert_eq!((status.policy_before.get(), status.tables), (meta.get(), Vec::new()));
}

#[test]
fn a_pin_of_another_shape_is_refused() {
    let Some(sandbox) = sandbox() else { return };
    drop(sandbox.attach());
    let pin = sandbox.paths.bpffs.join(IFACE).join("tf_layouts");
    std::fs::remove_file(&pin).unwrap();
    let options = libbpf_rs::libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_rs::libbpf_sys::bpf_map_create_opts>() as _,
        ..Default::default()
    };
    let mut other =
        libbpf_rs::MapHandle::create(libbpf_rs::MapType::Hash, Some("tf_layouts"), 4, 4, 8, &options)
            .unwrap();
    other.pin(&pin).unwrap();
    let error = Interface::open(&sandbox.paths, IFACE).unwrap_err();
    assert!(matches!(error, Error::PinMismatch { .. }), "{error}");
    let error = Interface::attach(&sandbox.paths, IFACE, sandbox.options(Mode::Native)).unwrap_err();
    assert!(matches!(error, Error::PinMismatch { .. }), "{error}");
    assert_eq!(clean(&sandbox.paths).unwrap(), [IFACE]);
    drop(sandbox.attach());
}

#[test]
fn the_trace_flavour_attaches_and_judges_alike() {
    let Some(sandbox) = sandbox() else { return };
    let object = common::built("tollfree-trace.bpf.o");
    let options = AttachOptions { object: &object, ..sandbox.options(Mode::Native) };
    let interface = Interface::attach(&sandbox.paths, IFACE, options).unwrap();
    interface.session_insert(&sessions()[0]).unwrap();
    let (action, _) = sandbox.program("tf_root").run(&Packet::request(STACKS[0], 0, 0).frame());
    assert_eq!(action, Action::Drop, "there is no engine");
    drop(sandbox.attach());
}

#[test]
fn pins_without_an_interface_are_replaced() {
    let Some(sandbox) = sandbox() else { return };
    drop(sandbox.attach());
    ip("link del tf0");
    ip("link add tf0 type veth peer name tf1");
    ip("link set tf0 up");
    assert_eq!(Interface::open(&sandbox.paths, IFACE).unwrap().status().unwrap().mode, None);
    assert_eq!(sandbox.attach().status().unwrap().mode, Some(Mode::Native));
}

/// Run by the test below in a process of its own; does nothing otherwise.
#[test]
fn child_that_attaches_and_dies() {
    let Ok(arguments) = std::env::var("TOLLFREE_TEST_CHILD") else { return };
    let (bpffs, state) = arguments.split_once(' ').unwrap();
    let paths = tollfree_loader::Paths { bpffs: bpffs.into(), state: state.into() };
    let object = common::built("tollfree.bpf.o");
    let options = AttachOptions { mode: Mode::Native, force: false, ports: common::PORTS, object: &object };
    let mut interface = Interface::attach(&paths, IFACE, options).unwrap();
    interface.session_insert(&sessions()[0]).unwrap();
    let (object, tables) = test_policy();
    interface.apply_policy(&object, &tables, serde_json::value::RawValue::NULL).unwrap();
    std::process::abort();
}

#[test]
fn the_death_of_the_process_does_not_open_the_firewall() {
    let Some(sandbox) = sandbox() else { return };
    let status = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child_that_attaches_and_dies", "--nocapture"])
        .env(
            "TOLLFREE_TEST_CHILD",
            format!("{} {}", sandbox.paths.bpffs.display(), sandbox.paths.state.display()),
        )
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(!status.success(), "the child was to abort");
    let interface = Interface::open(&sandbox.paths, IFACE).unwrap();
    assert_eq!(interface.status().unwrap().mode, Some(Mode::Native));
    let root = sandbox.program("tf_root");
    let call = |verdict| root.run(&Packet::request(STACKS[0], verdict, 0).frame()).0;
    assert_eq!(call(1), Action::Tx, "the policy still rejects");
    assert_eq!(call(2), Action::Drop, "the policy still drops");
    assert_eq!(call(0), Action::Drop, "and what it admits has nowhere to go");
}
