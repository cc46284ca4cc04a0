//! The eBPF back end in the running kernel, by `BPF_PROG_TEST_RUN`: the policy alone, with stages that only say which
//! of them was reached.

use super::Outcome;
use super::calls::{Call, NOW_NS, agreed};
use crate::{Compiled, Verdict};
use aya::maps::{Array, HashMap, Map, PerCpuArray, PerCpuValues, ProgramArray};
use aya::programs::{TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, util::nr_cpus};
use object::write::{Object, Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};
use std::mem::offset_of;
use tollfree_wire::maps::{CallContext, LayoutKey, Stage};
use tollfree_wire::{Code, Header, Kind, Reason, SessionEntry};

const SESSION: u32 = 5;
const ENTRY: usize = size_of::<SessionEntry>();

pub struct Kernel {
    policy: Ebpf,
    /// Kept, because their programs are in the policy's array.
    _stages: Ebpf,
}

pub fn possible() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("loading programs needs CAP_BPF; run as root".into());
    }
    Ebpf::load(&stages()).map_err(|error| error.to_string())?;
    Ok(())
}

/// What the stages return.
const DELIVERED: u32 = 2;
const REJECTED: u32 = 3;
const DROPPED: u32 = 4;

/// An object with one program per stage, which returns its number.
fn stages() -> Vec<u8> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let section = object.add_section(Vec::new(), "license".into(), SectionKind::Data);
    object.append_section_data(section, b"GPL\0", 1);
    let section = object.add_section(Vec::new(), "xdp".into(), SectionKind::Text);
    for (at, (name, result)) in
        (0..).zip([("deliver", DELIVERED), ("reject", REJECTED), ("dropped", DROPPED)])
    {
        let mut code = vec![0xb7, 0, 0, 0];
        code.extend(result.to_le_bytes());
        code.extend([0x95, 0, 0, 0, 0, 0, 0, 0]);
        object.append_section_data(section, &code, 8);
        object.add_symbol(Symbol {
            name: name.into(),
            value: at * 16,
            size: 16,
            kind: SymbolKind::Text,
            scope: SymbolScope::Dynamic,
            weak: false,
            section: SymbolSection::Section(section),
            flags: SymbolFlags::None,
        });
    }
    object.write().unwrap()
}

fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> &'a mut Xdp {
    ebpf.program_mut(name).unwrap().try_into().unwrap()
}

impl Kernel {
    pub fn load(compiled: &Compiled) -> Result<Kernel, String> {
        let object = compiled.object.as_ref().ok_or("not placed in XDP")?;
        let mut policy = Ebpf::load(object).map_err(|error| format!("{error:?}"))?;
        program(&mut policy, "tf_policy").load().map_err(|error| format!("{error:?}"))?;
        let mut stages = Ebpf::load(&stages()).map_err(|error| format!("{error:?}"))?;
        if let Some(map) = policy.map_mut("tf_stages") {
            let mut slots = ProgramArray::try_from(map).unwrap();
            for (name, stage) in
                [("deliver", Stage::Deliver), ("reject", Stage::Reject), ("dropped", Stage::Drop)]
            {
                let program = program(&mut stages, name);
                program.load().map_err(|error| format!("{error:?}"))?;
                slots.set(stage as u32, program.fd().unwrap(), 0).unwrap();
            }
        }
        let mut layouts =
            HashMap::<_, [u32; 2], u32>::try_from(policy.map_mut("tf_layouts").unwrap()).unwrap();
        for ((method, layout), known) in agreed() {
            assert_eq!((offset_of!(LayoutKey, method), offset_of!(LayoutKey, layout)), (0, 4));
            layouts.insert([method, layout], known, 0).unwrap();
        }
        Ok(Kernel { policy, _stages: stages })
    }

    /// Fills the tables from a dump.
    pub fn fill(&mut self, compiled: &Compiled, tables: &[Vec<(String, String)>]) {
        for (spec, entries) in compiled.tables.iter().zip(tables) {
            let map = self.policy.map_mut(&spec.name).unwrap();
            for (key, value) in entries {
                let (key, value) = (spec.parse_key(key).unwrap(), spec.parse_value(value).unwrap());
                insert(map, &key, &value);
            }
        }
    }

    pub fn judge(&mut self, compiled: &Compiled, call: &Call, offset: usize) -> Outcome {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now_ns = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
        let last_seen = (now_ns + call.last_seen_ns).saturating_sub(NOW_NS);
        let tracked = self.policy.map("tf_sessions").is_some();
        let mut entry = [0u64; ENTRY / 8];
        entry[offset_of!(SessionEntry, last_seen_ns) / 8] = last_seen;
        entry[offset_of!(SessionEntry, idle_ns) / 8] = call.idle_ns;
        if tracked {
            let map = self.policy.map_mut("tf_sessions").unwrap();
            Array::<_, [u64; ENTRY / 8]>::try_from(map).unwrap().set(SESSION, entry, 0).unwrap();
        }
        let context = [offset as u32, SESSION, u32::MAX, u32::MAX, 0, 0];
        assert_eq!((offset_of!(CallContext, code), offset_of!(CallContext, reason)), (8, 12));
        const { assert!(size_of::<CallContext>() == 24) };
        let contexts = PerCpuValues::try_from(vec![context; nr_cpus().unwrap()]).unwrap();
        let mut scratch =
            PerCpuArray::<_, [u32; 6]>::try_from(self.policy.map_mut("tf_call").unwrap()).unwrap();
        scratch.set(0, contexts, 0).unwrap();

        let header = Header {
            method: call.method,
            layout: call.layout,
            flat_len: call.flat.len() as u16,
            ..Header::new(Kind::Request)
        };
        let mut packet = vec![0; offset];
        packet.extend(zerocopy::IntoBytes::as_bytes(&header));
        packet.extend(&call.flat);
        packet.resize(offset + size_of::<Header>() + header.flat_span(), 0);
        let options = TestRunOptions { data_in: Some(&packet), ..TestRunOptions::default() };
        let result = program(&mut self.policy, "tf_policy").test_run(options).unwrap().return_value;

        let scratch = PerCpuArray::<_, [u32; 6]>::try_from(self.policy.map("tf_call").unwrap()).unwrap();
        let contexts = scratch.get(&0, 0).unwrap();
        let noted = contexts.iter().find(|noted| noted[3] != u32::MAX);
        let reason = |noted: &[u32; 6]| Reason::from_index(noted[3] as usize).unwrap();
        let verdict = match (result, noted) {
            (DELIVERED, None) => Verdict::Send,
            (DROPPED, Some(noted)) => Verdict::Drop(reason(noted)),
            (REJECTED, Some(noted)) => Verdict::Reject(Code::from_wire(noted[2] as u8), reason(noted)),
            other => panic!("neither: {other:?}"),
        };
        let mut admitted = 0;
        if tracked {
            let map =
                Array::<_, [u64; ENTRY / 8]>::try_from(self.policy.map("tf_sessions").unwrap()).unwrap();
            let after = map.get(&SESSION, 0).unwrap();
            admitted = after[offset_of!(SessionEntry, calls) / 8];
            let seen = after[offset_of!(SessionEntry, last_seen_ns) / 8];
            assert_eq!(seen != last_seen, admitted > 0, "the time is noted with each admitted call");
        }
        let tables = compiled.tables.iter().map(|spec| {
            let map = self.policy.map(&spec.name).unwrap();
            let mut entries: Vec<(String, String)> = dump(map, spec.key_size, spec.value_size)
                .into_iter()
                .map(|(key, value)| (spec.format_key(&key), spec.format_value(&value)))
                .collect();
            entries.sort();
            entries
        });
        Outcome { verdict, tables: tables.collect(), admitted }
    }
}

/// aya wants sizes at compile time: those of the tables that the generator knows.
macro_rules! sizes {
    ($run:ident($map:expr, $key:expr, $value:expr $(, $more:expr)*)) => {
        match ($key, $value) {
            (33, 4) => $run::<33, 4>($map $(, $more)*),
            (4, 8) => $run::<4, 8>($map $(, $more)*),
            (1, 4) => $run::<1, 4>($map $(, $more)*),
            (8, 4) => $run::<8, 4>($map $(, $more)*),
            (4, 4) => $run::<4, 4>($map $(, $more)*),
            (8, 8) => $run::<8, 8>($map $(, $more)*),
            (6, 8) => $run::<6, 8>($map $(, $more)*),
            other => panic!("no table has sizes {other:?}"),
        }
    };
}

fn insert(map: &mut Map, key: &[u8], value: &[u8]) {
    fn run<const K: usize, const V: usize>(map: &mut Map, key: &[u8], value: &[u8]) {
        let mut map = HashMap::<_, [u8; K], [u8; V]>::try_from(map).unwrap();
        let (key, value): ([u8; K], [u8; V]) = (key.try_into().unwrap(), value.try_into().unwrap());
        map.insert(key, value, 0).unwrap();
    }
    sizes!(run(map, key.len(), value.len(), key, value))
}

fn dump(map: &Map, key: u32, value: u32) -> Vec<(Vec<u8>, Vec<u8>)> {
    fn run<const K: usize, const V: usize>(map: &Map) -> Vec<(Vec<u8>, Vec<u8>)> {
        let map = HashMap::<_, [u8; K], [u8; V]>::try_from(map).unwrap();
        map.iter().map(|entry| entry.map(|(key, value)| (key.to_vec(), value.to_vec())).unwrap()).collect()
    }
    sizes!(run(map, key, value))
}
