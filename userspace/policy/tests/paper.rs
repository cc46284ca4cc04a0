//! The listings of the paper, and the demo's policy: they compile as they stand and mean what they say.

use tollfree_policy::{
    CallView, Compiled, Diagnostics, KeyType, Options, PeerView, Place, Side, Source, Start, Tracked,
    ValueType, Verdict, compile,
};
use tollfree_schema::{FieldKind, Layout, Manifest, Member, Method, Service, Streaming, method_id};
use tollfree_wire::spec::MethodSpec;
use tollfree_wire::{Code, Reason};

const SECOND: u64 = 1_000_000_000;

fn policy(path: &str) -> String {
    let path = format!("{}/../../policies/{path}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn method(service: &str, name: &str, fields: &[(&str, FieldKind)]) -> Method {
    let members = fields.iter().zip(1..);
    let members =
        members.map(|((name, kind), number)| Member { name: (*name).into(), number, kind: kind.clone() });
    let path = format!("/{service}/{name}");
    Method {
        name: name.into(),
        id: method_id(&path),
        path,
        streaming: Streaming::Unary,
        request: Layout::new(format!("{name}Request"), members.collect(), 192).unwrap(),
        response: Layout::default(),
    }
}

fn schema() -> Manifest {
    let user = ("user", FieldKind::String { max_len: 31 });
    let methods = vec![method("demo.Hash", "Sha256", &[user])];
    let store = vec![method("kv.Store", "Get", &[]), method("kv.Store", "SET", &[])];
    Manifest {
        services: vec![
            Service { name: "demo.Hash".into(), methods },
            Service { name: "kv.Store".into(), methods: store },
        ],
    }
}

fn compiled(path: &str, options: Options<'_>) -> Result<Compiled, Diagnostics> {
    compile(&Source { name: path, text: &policy(path) }, &schema(), options)
}

fn flat(user: &str) -> Vec<u8> {
    let mut block = vec![0; 32];
    tollfree_wire::flat::put_bytes(&mut block, 0, 31, user.as_bytes()).unwrap();
    block
}

#[test]
fn the_firewall_compiles_and_its_table_is_inferred() {
    let compiled = compiled("paper/firewall.policy", Options::default()).unwrap();
    let [table] = compiled.tables.as_slice() else { panic!("one table: {:?}", compiled.tables) };
    assert_eq!((table.name.as_str(), &table.key), ("firewall_rules", &KeyType::String { max_len: 31 }));
    assert_eq!(table.value, ValueType::Enum { values: vec![("ALLOW".into(), 0), ("DENY".into(), 1)] });
    assert_eq!((table.key_size, table.value_size), (32, 4));
    assert!(compiled.object.is_some() && compiled.instructions > 0);
    let places: Vec<_> = compiled.explain.elements.iter().map(|e| (e.name.as_str(), e.place)).collect();
    assert_eq!(places, [("firewall", Place::XdpIngress), ("session_tracker", Place::XdpIngress)]);
    println!("{}", compiled.explain);
}

#[test]
fn the_demo_differs_in_the_answer_only() {
    for (path, denied) in [
        ("paper/firewall.policy", Verdict::Drop(Reason::PolicyDrop)),
        ("firewall.policy", Verdict::Reject(Code::PermissionDenied, Reason::PolicyReject)),
    ] {
        let program = compiled(path, Options { xdp: false, ..Options::default() }).unwrap().program;
        let mut state = program.new_state();
        state.table_set("firewall_rules", "alice", "ALLOW").unwrap();
        state.table_set("firewall_rules", "mallory", "DENY").unwrap();
        let schema = schema();
        let sha = schema.methods().next().unwrap();
        let mut tracked = Tracked { last_seen_ns: SECOND, idle_ns: 10 * SECOND, calls: 0 };
        let mut judge = |flat: &[u8], layout, now_ns| {
            let mut call = CallView {
                method: sha.id,
                layout,
                flat: &mut flat.to_vec(),
                size: flat.len() as u32,
                deadline_ns: None,
                port: 0,
                now_ns,
                session: Some(&mut tracked),
                peer: &PeerView::default(),
                metadata: &[],
                backends: &[],
                start: Start::Chain,
            };
            program.judge(&mut state, &mut call).verdict
        };
        let layout = sha.request.fingerprint;
        assert_eq!(judge(&flat("alice"), layout, 2 * SECOND), Verdict::Send);
        assert_eq!(judge(&flat("mallory"), layout, 2 * SECOND), denied);
        assert_eq!(judge(&flat("nobody"), layout, 2 * SECOND), denied);
        assert_eq!(judge(&[], 0, 2 * SECOND), denied, "a peer without the field is nobody");
        let unknown = Verdict::Reject(Code::FailedPrecondition, Reason::UnknownLayout);
        assert_eq!(judge(&flat("alice"), layout ^ 1, 2 * SECOND), unknown);
        let idle = Verdict::Reject(Code::Unauthenticated, Reason::SessionIdle);
        assert_eq!(judge(&flat("alice"), layout, 13 * SECOND), idle);
        assert_eq!(judge(&flat("alice"), layout, 12 * SECOND), Verdict::Send);
        assert_eq!(tracked, Tracked { last_seen_ns: 12 * SECOND, idle_ns: 10 * SECOND, calls: 2 });
    }
}

#[test]
fn tables_survive_a_swap() {
    let options = Options { xdp: false, ..Options::default() };
    let old = compiled("paper/firewall.policy", options).unwrap().program;
    let mut state = old.new_state();
    state.table_set("firewall_rules", "alice", "ALLOW").unwrap();
    let new = compiled("firewall.policy", options).unwrap().program;
    let mut next = new.new_state();
    next.exchange(&mut state);
    assert_eq!(next.table_get("firewall_rules", "alice").unwrap().as_deref(), Some("ALLOW"));
    assert_eq!(next.table_dump("firewall_rules").unwrap(), [("alice".to_owned(), "ALLOW".to_owned())]);
    assert!(next.table_delete("firewall_rules", "alice").unwrap());
    let error = next.table_set("rules", "alice", "ALLOW").unwrap_err().to_string();
    assert_eq!(error, r#"the policy has no table "rules" (it has firewall_rules)"#);
}

#[test]
fn the_transport_block_is_checked_and_exposed() {
    let compiled = compiled("paper/transport.policy", Options::default()).unwrap();
    let transport = &compiled.explain.transport;
    let chosen: Vec<_> = transport.iter().map(|t| (t.method.as_str(), t.modules.join(" -> "))).collect();
    assert_eq!(
        chosen,
        [("/kv.Store/Get", "unreliable".to_owned()), ("/kv.Store/SET", "reliable -> ordered".to_owned())]
    );
    assert!(compiled.object.is_none(), "nothing to run in XDP");
    assert_eq!(transport[0].spec, MethodSpec::UNRELIABLE);
    assert_eq!(transport[1].spec, MethodSpec { ordered: true, ..MethodSpec::default() });
}

#[test]
fn what_leaves_is_judged_in_the_engine() {
    let client = Options { side: Some(Side::Client), ..Options::default() };
    let compiled = compiled("firewall.policy", client).unwrap();
    assert!(compiled.object.is_none());
    assert!(compiled.explain.elements.iter().all(|element| element.place == Place::Engine));
    let json = serde_json::to_value(&compiled.explain).unwrap();
    assert_eq!(json["elements"][0]["place"], "engine");
}

#[test]
fn the_object_is_a_bpf_object_with_btf() {
    use object::{Object, ObjectSection, ObjectSymbol};
    let compiled = compiled("firewall.policy", Options::default()).unwrap();
    let bytes = compiled.object.unwrap();
    let file = object::File::parse(bytes.as_slice()).unwrap();
    assert_eq!(file.architecture(), object::Architecture::Bpf);
    let text = file.section_by_name("xdp").unwrap();
    assert_eq!(text.size() as usize, compiled.instructions * 8);
    for section in [".maps", ".BTF", ".BTF.ext", "license"] {
        assert!(file.section_by_name(section).is_some(), "{section}");
    }
    for symbol in ["tf_policy", "firewall_rules", "tf_call", "tf_stages", "tf_sessions", "tf_layouts"] {
        assert!(file.symbols().any(|known| known.name() == Ok(symbol)), "{symbol}");
    }
}

#[test]
fn the_kernel_accepts_it() {
    if !rustix::process::geteuid().is_root() {
        println!("skipped: loading a program needs CAP_BPF");
        return;
    }
    for path in ["paper/firewall.policy", "firewall.policy"] {
        let compiled = compiled(path, Options::default()).unwrap();
        let mut ebpf = aya::Ebpf::load(&compiled.object.unwrap()).unwrap();
        let program: &mut aya::programs::Xdp = ebpf.program_mut("tf_policy").unwrap().try_into().unwrap();
        program.load().unwrap_or_else(|error| panic!("{path}: {error:?}"));
        println!("{path}: {} instructions", compiled.instructions);
    }
}
