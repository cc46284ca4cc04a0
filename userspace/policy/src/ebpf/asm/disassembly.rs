//! Instructions as text, in the notation of `bpftool` and `llvm-objdump`.

use super::{
    CALL, CLASS_ALU64, CLASS_JMP, CLASS_JMP32, CLASS_LDX, CLASS_STX, EXIT, JA, LD_IMM64, MODE_ATOMIC,
    SOURCE_REG,
};

/// An instruction as text, and how many words it has.
pub(super) fn instruction(
    at: usize,
    word: &[u8; 8],
    next: Option<&[u8; 8]>,
    map: Option<&str>,
) -> (String, usize) {
    let [opcode, registers, offset_low, offset_high, immediate @ ..] = *word;
    let (dst, src) = (registers & 0xf, registers >> 4);
    let offset = i16::from_le_bytes([offset_low, offset_high]);
    let immediate = i32::from_le_bytes(immediate);
    let target = at as i64 + 1 + i64::from(offset);
    let right = if opcode & SOURCE_REG == 0 { immediate.to_string() } else { format!("r{src}") };
    let text = match opcode {
        LD_IMM64 => {
            let high = next.and_then(|next| next.last_chunk()).map_or(0, |high| u32::from_le_bytes(*high));
            let value = u64::from(high) << 32 | u64::from(immediate as u32);
            let text = match map {
                Some(map) => format!("r{dst} = map[{map}]"),
                None => format!("r{dst} = {value:#x} ll"),
            };
            return (text, 2);
        }
        JA => format!("goto {target}"),
        CALL => format!("call {}", helper(immediate)),
        EXIT => "exit".into(),
        _ => match opcode & 0x07 {
            CLASS_LDX => format!("r{dst} = *({} *)(r{src} {offset:+})", size(opcode)),
            CLASS_STX if opcode & 0xe0 == MODE_ATOMIC => {
                let fetch = if immediate & 1 == 0 { "" } else { "fetch " };
                format!("lock {fetch}*({} *)(r{dst} {offset:+}) += r{src}", size(opcode))
            }
            CLASS_STX => format!("*({} *)(r{dst} {offset:+}) = r{src}", size(opcode)),
            CLASS_ALU64 => alu(opcode, dst, &right),
            CLASS_JMP => format!("if r{dst} {} {right} goto {target}", condition(opcode)),
            CLASS_JMP32 => format!("if w{dst} {} {} goto {target}", condition(opcode), immediate as u32),
            _ => format!(".word {:#018x}", u64::from_le_bytes(*word)),
        },
    };
    (text, 1)
}

fn alu(opcode: u8, dst: u8, right: &str) -> String {
    let sign = match opcode & 0xf0 {
        0x00 => "+",
        0x10 => "-",
        0x20 => "*",
        0x30 => "/",
        0x40 => "|",
        0x50 => "&",
        0x60 => "<<",
        0x70 => ">>",
        0x80 => return format!("r{dst} = -r{dst}"),
        0x90 => "%",
        0xa0 => "^",
        0xb0 => "",
        _ => "s>>",
    };
    format!("r{dst} {sign}= {right}")
}

fn condition(opcode: u8) -> &'static str {
    match opcode & 0xf0 {
        0x10 => "==",
        0x20 => ">",
        0x30 => ">=",
        0x50 => "!=",
        0x60 => "s>",
        0x70 => "s>=",
        0xa0 => "<",
        0xb0 => "<=",
        0xc0 => "s<",
        _ => "s<=",
    }
}

fn size(opcode: u8) -> &'static str {
    match opcode & 0x18 {
        0x00 => "u32",
        0x08 => "u16",
        0x10 => "u8",
        _ => "u64",
    }
}

fn helper(number: i32) -> String {
    let name = match number {
        1 => "bpf_map_lookup_elem",
        2 => "bpf_map_update_elem",
        3 => "bpf_map_delete_elem",
        5 => "bpf_ktime_get_ns",
        7 => "bpf_get_prandom_u32",
        12 => "bpf_tail_call",
        other => return format!("{other}"),
    };
    name.into()
}
