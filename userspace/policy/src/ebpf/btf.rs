//! BTF: the maps' definitions as types, which is where loaders read them from; and, per instruction, the line of the
//! policy it comes from, which `bpftool prog dump xlated` shows.

use super::asm::Code;
use super::elf::{Map, SECTION, program_name};

/// Members of a map's definition.
pub(super) const MEMBERS: usize = 5;

const MAGIC: u16 = 0xeb9f;
const VERSION: u8 = 1;
const KIND_INT: u32 = 1;
const KIND_PTR: u32 = 2;
const KIND_ARRAY: u32 = 3;
const KIND_STRUCT: u32 = 4;
const KIND_FUNC: u32 = 12;
const KIND_FUNC_PROTO: u32 = 13;
const KIND_VAR: u32 = 14;
const KIND_DATASEC: u32 = 15;
const GLOBAL: u32 = 1;
/// A column takes ten bits, a line the rest.
const COLUMN_MAX: usize = 0x3ff;
const LINE_MAX: usize = 0x3f_ffff;

/// The source, for line information.
pub(super) struct Lines<'a> {
    pub name: &'a str,
    pub text: &'a str,
}

pub(super) struct Btf {
    /// Section `.BTF`.
    pub types: Vec<u8>,
    /// Section `.BTF.ext`.
    pub lines: Vec<u8>,
}

#[derive(Default)]
struct Builder {
    types: Vec<u8>,
    count: u32,
    strings: Vec<u8>,
}

impl Builder {
    fn string(&mut self, text: &str) -> u32 {
        let at = self.strings.len() as u32;
        self.strings.extend(text.bytes().filter(|byte| *byte != 0));
        self.strings.push(0);
        at
    }

    /// Adds a type and returns its id.
    fn add(&mut self, name: u32, kind: u32, members: u32, size_or_type: u32, rest: &[u32]) -> u32 {
        let words = [name, kind << 24 | members, size_or_type];
        for word in words.iter().chain(rest) {
            self.types.extend(word.to_le_bytes());
        }
        self.count += 1;
        self.count
    }

    /// A pointer to an array of so many: how a number is written in a map's definition.
    fn number(&mut self, integer: u32, value: u32) -> u32 {
        let array = self.add(0, KIND_ARRAY, 0, 0, &[integer, integer, value]);
        self.add(0, KIND_PTR, 0, array, &[])
    }
}

pub(super) fn encode(parts: &[&Code], maps: &[Map], source: &Lines<'_>) -> Btf {
    let mut builder = Builder::default();
    builder.string("");
    let name = builder.string("int");
    let signed_32_bits = 1 << 24 | 32;
    let integer = builder.add(name, KIND_INT, 0, 4, &[signed_32_bits]);
    let prototype = builder.add(0, KIND_FUNC_PROTO, 0, integer, &[]);
    let functions: Vec<u32> = (0..parts.len())
        .map(|part| {
            let name = builder.string(&program_name(part));
            builder.add(name, KIND_FUNC, GLOBAL, prototype, &[])
        })
        .collect();

    let members =
        ["type", "key_size", "value_size", "max_entries", "map_flags"].map(|name| builder.string(name));
    let mut entries = Vec::new();
    let size = 8 * MEMBERS as u32;
    for (at, map) in (0u32..).zip(maps) {
        let Map { name, kind, key_size, value_size, max_entries, flags } = map;
        let mut fields = Vec::new();
        for (index, (member, value)) in
            members.iter().zip([kind, key_size, value_size, max_entries, flags]).enumerate()
        {
            let number = builder.number(integer, *value);
            fields.extend([*member, number, index as u32 * 64]);
        }
        let definition = builder.add(0, KIND_STRUCT, MEMBERS as u32, size, &fields);
        let name = builder.string(name);
        let variable = builder.add(name, KIND_VAR, 0, definition, &[GLOBAL]);
        entries.extend([variable, at * size, size]);
    }
    if !maps.is_empty() {
        let name = builder.string(".maps");
        builder.add(name, KIND_DATASEC, maps.len() as u32, maps.len() as u32 * size, &entries);
    }
    let lines = line_info(&mut builder, parts, source, &functions);

    let Builder { types, strings, .. } = builder;
    let mut bytes = Vec::new();
    bytes.extend(MAGIC.to_le_bytes());
    bytes.extend([VERSION, 0]);
    for word in [24, 0, types.len() as u32, types.len() as u32, strings.len() as u32] {
        bytes.extend(word.to_le_bytes());
    }
    bytes.extend(types);
    bytes.extend(strings);
    Btf { types: bytes, lines }
}

fn line_info(builder: &mut Builder, parts: &[&Code], source: &Lines<'_>, functions: &[u32]) -> Vec<u8> {
    let section = builder.string(SECTION);
    let file = builder.string(source.name);
    let mut records: Vec<[u32; 4]> = Vec::new();
    let mut known: Vec<(usize, u32)> = Vec::new();
    let mut function_records: Vec<[u32; 2]> = Vec::new();
    let mut start = 0;
    for (code, function) in parts.iter().zip(functions) {
        function_records.push([start, *function]);
        // The kernel wants a line for the first instruction.
        let first = (0, 0..0);
        let lines = code.lines.first().is_none_or(|(at, _)| *at > 0).then_some(&first);
        for (at, span) in lines.into_iter().chain(&code.lines) {
            let before = source.text.get(..span.start).unwrap_or_default();
            let line = before.matches('\n').count();
            let head = before.rfind('\n').map_or(0, |at| at + 1);
            let text = match known.iter().find(|(known, _)| *known == line) {
                Some((_, text)) => *text,
                None => {
                    let rest = source.text.get(head..);
                    let text = rest.and_then(|rest| rest.lines().next()).unwrap_or_default();
                    let text = builder.string(text.trim());
                    known.push((line, text));
                    text
                }
            };
            let column = (before.len() - head + 1).min(COLUMN_MAX);
            let place = (line + 1).min(LINE_MAX) << 10 | column;
            records.push([start + *at as u32 * 8, file, text, place as u32]);
        }
        start += code.bytes.len() as u32;
    }
    let mut functions: Vec<u32> = vec![8, section, function_records.len() as u32];
    functions.extend(function_records.iter().flatten());
    let mut lines: Vec<u32> = vec![16, section, records.len() as u32];
    lines.extend(records.iter().flatten());
    let (functions_len, lines_len) = (functions.len() as u32 * 4, lines.len() as u32 * 4);
    let mut bytes = Vec::new();
    bytes.extend(MAGIC.to_le_bytes());
    bytes.extend([VERSION, 0]);
    for word in [24, 0, functions_len, functions_len, lines_len] {
        bytes.extend(word.to_le_bytes());
    }
    for word in functions.into_iter().chain(lines) {
        bytes.extend(word.to_le_bytes());
    }
    bytes
}
