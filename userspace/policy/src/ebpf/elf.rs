//! The object file: the programs in section `xdp`, its maps, their BTF, and which source line each instruction is from.

use super::asm::Code;
use super::btf::{self, Btf};
use object::write::{Object, Relocation, Symbol, SymbolSection};
use object::{
    Architecture, BinaryFormat, Endianness, RelocationFlags, SectionKind, SymbolFlags, SymbolKind,
    SymbolScope,
};

/// The name of the program to start with.
const PROGRAM: &str = "tf_policy";
/// The programs' section: what loaders tell its type by.
pub(super) const SECTION: &str = "xdp";
/// The helpers used are free for any licence; loaders want one all the same.
const LICENSE: &[u8] = b"GPL\0";
/// `R_BPF_64_64`: the address of a map in an instruction that loads 64 bits.
const R_BPF_64_64: u32 = 1;
/// Bytes of one map's definition: eight per member.
const DEFINITION: u64 = 8 * btf::MEMBERS as u64;

/// The name of a program: parts behind the first have their places in it.
pub(super) fn program_name(part: usize) -> String {
    if part == 0 { PROGRAM.into() } else { format!("{PROGRAM}_{part}") }
}

/// A map as the object declares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Map {
    pub name: String,
    /// `enum bpf_map_type`.
    pub kind: u32,
    pub key_size: u32,
    pub value_size: u32,
    pub max_entries: u32,
    pub flags: u32,
}

/// Writes the object. `None` only where the writer refuses, which it does for no input of ours.
pub(super) fn write(parts: &[&Code], maps: &[Map], source: &btf::Lines<'_>) -> Option<Vec<u8>> {
    let mut object = Object::new(BinaryFormat::Elf, Architecture::Bpf, Endianness::Little);
    let segment = || Vec::new();
    let text = object.add_section(segment(), SECTION.into(), SectionKind::Text);
    let mut starts = Vec::new();
    for (part, code) in parts.iter().enumerate() {
        let start = object.append_section_data(text, &code.bytes, 8);
        let name = program_name(part);
        object.add_symbol(symbol(&name, code.bytes.len() as u64, start, SymbolKind::Text, text));
        starts.push(start);
    }

    if !maps.is_empty() {
        let section = object.add_section(segment(), ".maps".into(), SectionKind::Data);
        object.append_section_data(section, &vec![0; maps.len() * DEFINITION as usize], 8);
        let mut symbols = Vec::new();
        for (at, map) in (0u64..).zip(maps) {
            let symbol = symbol(&map.name, DEFINITION, at * DEFINITION, SymbolKind::Data, section);
            symbols.push(object.add_symbol(symbol));
        }
        let named = parts
            .iter()
            .zip(&starts)
            .flat_map(|(code, start)| code.maps.iter().map(move |(offset, map)| (start + offset, map)));
        for (offset, map) in named {
            let relocation = Relocation {
                offset,
                symbol: *symbols.get(*map)?,
                addend: 0,
                flags: RelocationFlags::Elf { r_type: R_BPF_64_64 },
            };
            object.add_relocation(text, relocation).ok()?;
        }
    }

    let license = object.add_section(segment(), "license".into(), SectionKind::Data);
    object.append_section_data(license, LICENSE, 1);
    let Btf { types, lines } = btf::encode(parts, maps, source);
    let section = object.add_section(segment(), ".BTF".into(), SectionKind::Other);
    object.append_section_data(section, &types, 8);
    let section = object.add_section(segment(), ".BTF.ext".into(), SectionKind::Other);
    object.append_section_data(section, &lines, 8);
    object.write().ok()
}

fn symbol(name: &str, size: u64, value: u64, kind: SymbolKind, section: object::write::SectionId) -> Symbol {
    Symbol {
        name: name.into(),
        value,
        size,
        kind,
        scope: SymbolScope::Dynamic,
        weak: false,
        section: SymbolSection::Section(section),
        flags: SymbolFlags::None,
    }
}
