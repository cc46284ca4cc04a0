//! The eBPF back end in the running kernel, by `BPF_PROG_TEST_RUN`: the policy alone, with stages that only say which
//! of them was reached.

use super::calls::agreed;
use crate::{Compiled, TableKind, TableSpec, Verdict};
use libbpf_rs::{MapCore, MapFlags, MapHandle, Object, ObjectBuilder, ProgramInput};
use object::write::{Symbol, SymbolSection};
use object::{Architecture, BinaryFormat, Endianness, SectionKind, SymbolFlags, SymbolKind, SymbolScope};
use std::collections::HashMap;
use std::mem::offset_of;
use std::os::fd::{AsFd, AsRawFd};
use tollfree_wire::frame::Address;
use tollfree_wire::maps::{self, Answer, CallContext, Config, LayoutKey, PeerEntry, Stage};
use tollfree_wire::session::Guard;
use tollfree_wire::{Code, Header, Kind, Reason, SessionEntry};
use zerocopy::IntoBytes;

/// The session of all calls.
pub const SESSION: u32 = 5;
const ENTRY: usize = size_of::<SessionEntry>();
/// What no reason is.
const NOBODY: u32 = u32::MAX;

/// What the stages return.
const DELIVERED: u32 = 2;
const REJECTED: u32 = 3;
const DROPPED: u32 = 4;
const ANSWERED: u32 = 5;

pub struct Kernel {
    policy: Object,
    maps: HashMap<String, MapHandle>,
    /// Kept, because its programs are in the policy's array.
    _stages: Object,
}

/// A request as it arrives, already checked by the root program.
#[derive(Clone, Debug)]
pub struct Packet<'a> {
    pub method: u32,
    pub layout: u32,
    pub flat: &'a [u8],
    pub message_len: u32,
    pub deadline_us: u32,
    /// Where the base header is in the frame.
    pub offset: usize,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    pub verdict: Verdict,
    /// The request's flat block.
    pub flat: Vec<u8>,
    /// The response's layout and flat block, where a policy answered.
    pub answer: Option<(u32, Vec<u8>)>,
    /// What a reject says.
    pub why: Option<String>,
    /// The generation that the engine is told.
    pub generation: u64,
}

pub fn possible() -> Result<(), String> {
    if !rustix::process::geteuid().is_root() {
        return Err("loading programs needs CAP_BPF; run as root".into());
    }
    load(&stages())?;
    Ok(())
}

fn load(object: &[u8]) -> Result<Object, String> {
    let open = ObjectBuilder::default().open_memory(object).map_err(|error| format!("{error:#}"))?;
    open.load().map_err(|error| format!("{error:#}"))
}

/// An object with one program per stage, which returns its number.
fn stages() -> Vec<u8> {
    let mut object = object::write::Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let section = object.add_section(Vec::new(), "license".into(), SectionKind::Data);
    object.append_section_data(section, b"GPL\0", 1);
    let section = object.add_section(Vec::new(), "xdp".into(), SectionKind::Text);
    let programs = [("deliver", DELIVERED), ("reject", REJECTED), ("dropped", DROPPED), ("answer", ANSWERED)];
    for (at, (name, result)) in (0..).zip(programs) {
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

impl Kernel {
    pub fn load(compiled: &Compiled) -> Result<Kernel, String> {
        let policy = load(compiled.object.as_ref().ok_or("not placed in XDP")?)?;
        let stages = load(&stages())?;
        let maps: HashMap<String, MapHandle> = policy
            .maps()
            .map(|map| (map.name().to_string_lossy().into_owned(), MapHandle::try_from(&map).unwrap()))
            .collect();
        let kernel = Kernel { policy, maps, _stages: stages };
        for (name, stage) in [
            ("deliver", Stage::Deliver),
            ("reject", Stage::Reject),
            ("dropped", Stage::Drop),
            ("answer", Stage::Answer),
        ] {
            let program = kernel._stages.progs().find(|program| program.name() == name).unwrap();
            let fd = program.as_fd().as_raw_fd().to_ne_bytes();
            kernel.put(maps::STAGES, &(stage as u32).to_ne_bytes(), &fd);
        }
        for (index, part) in kernel.parts() {
            kernel.put(crate::ebpf::PARTS, &index.to_ne_bytes(), &part.to_ne_bytes());
        }
        for ((method, layout), known) in agreed() {
            assert_eq!((offset_of!(LayoutKey, method), offset_of!(LayoutKey, layout)), (0, 4));
            kernel.put(maps::LAYOUTS, [method, layout].as_bytes(), &known.to_ne_bytes());
        }
        for table in &compiled.tables {
            if let Some(value) = table.first_value() {
                kernel.put(&table.name, &[0; 4], &value);
            }
        }
        Ok(kernel)
    }

    /// The programs that the first one goes on in, by their places.
    fn parts(&self) -> Vec<(u32, i32)> {
        let programs = self.policy.progs();
        let parts = programs.filter_map(|program| {
            let place = program.name().to_str()?.strip_prefix("tf_policy_")?.parse().ok()?;
            Some((place, program.as_fd().as_raw_fd()))
        });
        parts.collect()
    }

    /// Writes an entry, if the policy has the map.
    pub fn put(&self, map: &str, key: &[u8], value: &[u8]) {
        if let Some(map) = self.maps.get(map) {
            map.update(key, value, MapFlags::ANY).unwrap_or_else(|error| panic!("{:?}: {error}", map.name()));
        }
    }

    pub fn get(&self, map: &str, key: &[u8]) -> Option<Vec<u8>> {
        self.maps.get(map)?.lookup(key, MapFlags::ANY).unwrap()
    }

    /// A number that every CPU has for itself, in sum.
    pub fn sum(&self, map: &str, key: &[u8]) -> u64 {
        let Some(map) = self.maps.get(map) else { return 0 };
        let values = map.lookup_percpu(key, MapFlags::ANY).unwrap().unwrap_or_default();
        let values = values.iter().map(|value| u64::from_le_bytes(*value.first_chunk().unwrap()));
        values.fold(0, u64::saturating_add)
    }

    pub fn set_port(&self, port: u16) {
        assert_eq!((offset_of!(Config, ports.first), offset_of!(Config, ports.count)), (0, 2));
        self.put(maps::CONFIG, &[0; 4], [port, 1, 0, 0].as_bytes());
    }

    pub fn set_generation(&self, generation: u64) {
        self.put(maps::GENERATION, &[0; 4], &generation.to_ne_bytes());
    }

    /// Who is at the other end of the session.
    pub fn set_peer(&self, identity: &str, namespace: &str) {
        let mut entry = vec![0; size_of::<PeerEntry>()];
        entry[..4].copy_from_slice(&SESSION.to_ne_bytes());
        for (at, text) in
            [(offset_of!(PeerEntry, identity), identity), (offset_of!(PeerEntry, namespace), namespace)]
        {
            entry[at] = text.len() as u8;
            entry[at + 1..at + 1 + text.len()].copy_from_slice(text.as_bytes());
        }
        self.put(maps::PEERS, &SESSION.to_ne_bytes(), &entry);
    }

    /// The session's entry in the table that XDP keeps.
    pub fn set_session(&self, address: [u8; 16], last_seen_ns: u64, idle_ns: u64) {
        let mut entry = vec![0; ENTRY];
        let at = offset_of!(SessionEntry, guard) + offset_of!(Guard, peer);
        assert_eq!(size_of::<Address>(), address.len());
        entry[at..at + address.len()].copy_from_slice(&address);
        for (at, value) in [
            (offset_of!(SessionEntry, last_seen_ns), last_seen_ns),
            (offset_of!(SessionEntry, idle_ns), idle_ns),
        ] {
            entry[at..at + 8].copy_from_slice(&value.to_ne_bytes());
        }
        self.put(maps::SESSIONS, &SESSION.to_ne_bytes(), &entry);
    }

    /// How many calls of the session have been admitted.
    pub fn admitted(&self) -> u64 {
        let Some(entry) = self.get(maps::SESSIONS, &SESSION.to_ne_bytes()) else { return 0 };
        let at = offset_of!(SessionEntry, calls);
        u64::from_ne_bytes(*entry[at..].first_chunk().unwrap())
    }

    /// What the engine writes through.
    pub fn write(&self, spec: &TableSpec, key: &[u8], value: Option<&[u8]>) {
        match value {
            Some(value) => self.put(&spec.name, key, value),
            None => self.maps[&spec.name].delete(key).unwrap(),
        }
    }

    pub fn run(&mut self, packet: &Packet<'_>) -> Ran {
        let Packet { method, layout, flat, message_len, deadline_us, offset } = packet.clone();
        const { assert!(size_of::<CallContext>() == 24) };
        let context = [offset as u32, SESSION, NOBODY, NOBODY, 0, 0];
        let call = &self.maps[maps::CALL];
        let cpus = call.lookup_percpu(&[0; 4], MapFlags::ANY).unwrap().unwrap().len();
        let contexts = vec![context.as_bytes().to_vec(); cpus];
        call.update_percpu(&[0; 4], &contexts, MapFlags::ANY).unwrap();

        let header = Header {
            method,
            layout,
            session: SESSION,
            flat_len: flat.len() as u16,
            message_len,
            deadline_us,
            ..Header::new(Kind::Request)
        };
        let mut frame = vec![0; offset];
        frame.extend(header.as_bytes());
        frame.extend(flat);
        frame.resize(offset + size_of::<Header>() + header.flat_span(), 0);
        let mut after = vec![0; frame.len()];
        let program = self.policy.progs_mut().find(|program| program.name() == "tf_policy").unwrap();
        let input =
            ProgramInput { data_in: Some(&frame), data_out: Some(&mut after), ..ProgramInput::default() };
        let result = program.test_run(input).unwrap().return_value;

        let contexts = call.lookup_percpu(&[0; 4], MapFlags::ANY).unwrap().unwrap();
        let words = |bytes: &Vec<u8>| -> Vec<u32> {
            bytes.as_chunks::<4>().0.iter().map(|word| u32::from_ne_bytes(*word)).collect()
        };
        let contexts: Vec<Vec<u32>> = contexts.iter().map(words).collect();
        let noted = contexts.iter().find(|noted| noted[3] != NOBODY);
        let reason = |noted: &Vec<u32>| Reason::from_index(noted[3] as usize).unwrap();
        let mut why_len = 0;
        let verdict = match (result, noted) {
            (DELIVERED, None) => Verdict::Send,
            (ANSWERED, None) => Verdict::Answer,
            (DROPPED, Some(noted)) => Verdict::Drop(reason(noted)),
            (REJECTED, Some(noted)) => {
                why_len = (noted[2] >> 16) as usize;
                Verdict::Reject(Code::from_wire(noted[2] as u8), reason(noted))
            }
            other => panic!("neither: {other:?}"),
        };
        let generation = contexts.iter().map(|noted| u64::from(noted[4]) | u64::from(noted[5]) << 32).max();
        let answer = (verdict == Verdict::Answer).then(|| self.answer());
        let at = offset + size_of::<Header>();
        let flat = after[at..at + flat.len()].to_vec();
        let why = (why_len > 0).then(|| self.why(why_len));
        Ran { verdict, flat, answer, why, generation: generation.unwrap_or(0) }
    }

    /// The text of the CPU that left one; all others' are zero.
    fn why(&self, length: usize) -> String {
        let map = &self.maps[maps::ANSWER];
        let texts = map.lookup_percpu(&[0; 4], MapFlags::ANY).unwrap().unwrap();
        let at = offset_of!(Answer, flat);
        let text = texts.iter().map(|bytes| &bytes[at..]).find(|text| text[0] != 0).unwrap();
        let padded = length.next_multiple_of(8);
        assert!(text[length..padded].iter().all(|byte| *byte == 0), "zeros behind the text");
        let text = String::from_utf8(text[..length].to_vec()).unwrap();
        let blank = vec![vec![0; size_of::<Answer>()]; texts.len()];
        map.update_percpu(&[0; 4], &blank, MapFlags::ANY).unwrap();
        text
    }

    /// The answer of the CPU that gave one; all others' are zero.
    fn answer(&self) -> (u32, Vec<u8>) {
        let map = &self.maps[maps::ANSWER];
        let answers = map.lookup_percpu(&[0; 4], MapFlags::ANY).unwrap().unwrap();
        let word = |bytes: &[u8], at: usize| u32::from_ne_bytes(*bytes[at..].first_chunk().unwrap());
        let layout = |bytes: &Vec<u8>| word(bytes, offset_of!(Answer, layout));
        let answer = answers.iter().find(|bytes| layout(bytes) != 0).or(answers.first()).unwrap();
        let at = offset_of!(Answer, flat);
        let (flat, rest) = answer[at..].split_at(word(answer, offset_of!(Answer, flat_len)) as usize);
        assert!(rest.iter().all(|byte| *byte == 0), "zeros behind the flat block");
        let answer = (layout(answer), flat.to_vec());
        let blank = vec![vec![0; size_of::<Answer>()]; answers.len()];
        map.update_percpu(&[0; 4], &blank, MapFlags::ANY).unwrap();
        answer
    }

    /// A table's entries as a user sees them, by key.
    pub fn dump(&self, spec: &TableSpec) -> Vec<(String, String)> {
        let map = &self.maps[&spec.name];
        let mut entries: Vec<(String, String)> = map
            .keys()
            .filter_map(|key| {
                let value = match spec.kind {
                    TableKind::Counter => self.sum(&spec.name, &key).to_le_bytes().to_vec(),
                    _ => self.get(&spec.name, &key)?,
                };
                Some((spec.format_key(&key), spec.format_value(&value)))
            })
            .collect();
        entries.sort();
        entries
    }

    /// Fills the tables from a dump.
    pub fn fill(&mut self, compiled: &Compiled, tables: &[Vec<(String, String)>]) {
        for (spec, entries) in compiled.tables.iter().zip(tables) {
            for (key, value) in entries {
                let (key, value) = (spec.parse_key(key).unwrap(), spec.parse_value(value).unwrap());
                match spec.kind {
                    TableKind::Counter => {
                        let map = &self.maps[&spec.name];
                        let cpus = libbpf_rs::num_possible_cpus().unwrap();
                        let values = vec![value, vec![0; 8]].into_iter().chain(vec![vec![0; 8]; cpus]);
                        let values: Vec<Vec<u8>> = values.take(cpus).collect();
                        map.update_percpu(&key, &values, MapFlags::ANY).unwrap();
                    }
                    _ => self.put(&spec.name, &key, &value),
                }
            }
        }
    }
}
