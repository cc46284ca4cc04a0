//! A small assembler for eBPF: instructions with labels, and the places where maps are named.

mod disassembly;
mod tidy;

use crate::diagnostics::Span;

/// A register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reg(u8);

/// Results, and where calls return.
pub(super) const R0: Reg = Reg(0);
/// First argument; lost in calls, like the following four.
pub(super) const R1: Reg = Reg(1);
pub(super) const R2: Reg = Reg(2);
pub(super) const R3: Reg = Reg(3);
pub(super) const R4: Reg = Reg(4);
pub(super) const R5: Reg = Reg(5);
/// Kept over calls, like the following three.
pub(super) const R6: Reg = Reg(6);
pub(super) const R7: Reg = Reg(7);
pub(super) const R8: Reg = Reg(8);
pub(super) const R9: Reg = Reg(9);
/// The frame pointer; the stack is below it.
pub(super) const FP: Reg = Reg(10);

/// How many bytes a load or store moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    B = 0x10,
    H = 0x08,
    W = 0x00,
    Dw = 0x18,
}

impl Size {
    pub(super) fn bytes(self) -> usize {
        match self {
            Size::B => 1,
            Size::H => 2,
            Size::W => 4,
            Size::Dw => 8,
        }
    }

    /// The size of so many bytes; `None` where no load or store has it.
    pub(super) fn of(bytes: usize) -> Option<Size> {
        [Size::B, Size::H, Size::W, Size::Dw].into_iter().find(|size| size.bytes() == bytes)
    }
}

/// An arithmetic operation on 64 bits; unsigned but for the last. What is divided by 0 becomes 0, its remainder is it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Alu {
    Add = 0x00,
    Sub = 0x10,
    Mul = 0x20,
    Div = 0x30,
    Or = 0x40,
    And = 0x50,
    Lsh = 0x60,
    Rsh = 0x70,
    Neg = 0x80,
    Mod = 0x90,
    Xor = 0xa0,
    Mov = 0xb0,
    Arsh = 0xc0,
}

/// A condition; comparisons are unsigned but for the last four.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cond {
    Eq = 0x10,
    Gt = 0x20,
    Ge = 0x30,
    Ne = 0x50,
    Lt = 0xa0,
    Le = 0xb0,
    Sgt = 0x60,
    Sge = 0x70,
    Slt = 0xc0,
    Sle = 0xd0,
}

/// A helper of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Helper {
    MapLookup = 1,
    MapUpdate = 2,
    MapDelete = 3,
    KtimeNs = 5,
    Random = 7,
    TailCall = 12,
    KtimeCoarseNs = 160,
}

/// A place in the program that jumps can name before it is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

const CLASS_LD: u8 = 0x00;
const CLASS_LDX: u8 = 0x01;
const CLASS_STX: u8 = 0x03;
const CLASS_JMP: u8 = 0x05;
const CLASS_JMP32: u8 = 0x06;
const CLASS_ALU64: u8 = 0x07;
const MODE_MEM: u8 = 0x60;
const MODE_ATOMIC: u8 = 0xc0;
const SOURCE_REG: u8 = 0x08;
const JA: u8 = CLASS_JMP;
const CALL: u8 = CLASS_JMP | 0x80;
const EXIT: u8 = CLASS_JMP | 0x90;
const LD_IMM64: u8 = CLASS_LD | 0x18;

/// An instruction as text, and how many words of eight bytes it has. `map` is the name of the map that it loads.
pub(super) fn disassemble(
    at: usize,
    word: &[u8; 8],
    next: Option<&[u8; 8]>,
    map: Option<&str>,
) -> (String, usize) {
    disassembly::instruction(at, word, next, map)
}

#[derive(Clone, Copy, Debug)]
struct Insn {
    opcode: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// The program is longer than jumps reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooFar;

#[derive(Debug, Default)]
struct LabelState {
    at: Option<usize>,
    referenced: bool,
}

/// A program under construction. What no instruction before it leads to is left out, for the verifier refuses programs
/// with code that nothing reaches. Jumps go forwards only.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    /// Nothing leads here: the last instruction was a jump or an exit, and no label has been bound since.
    closed: bool,
    insns: Vec<Insn>,
    labels: Vec<LabelState>,
    /// Instructions for the sake of one register.
    set_up: Option<tidy::SetUp>,
    /// Jumps, and where they go.
    jumps: Vec<(usize, Label)>,
    /// Instructions that load a map's address, and the map's index.
    maps: Vec<(usize, usize)>,
    /// From which instruction on which part of the source is being executed.
    lines: Vec<(usize, Span)>,
}

/// A finished program. Instructions are where they were, or further ahead: see [`Code::moved`].
#[derive(Debug)]
pub(super) struct Code {
    pub bytes: Vec<u8>,
    /// Bytes from the start, and the index of the map whose address is loaded there.
    pub maps: Vec<(u64, usize)>,
    /// Instruction index and source, with rising indices.
    pub lines: Vec<(usize, Span)>,
    /// By the place of an instruction while the program was made: where it is now, or the next one that was not left out.
    pub moved: Vec<usize>,
}

impl Assembler {
    pub(super) fn label(&mut self) -> Label {
        self.labels.push(LabelState::default());
        Label(self.labels.len() - 1)
    }

    /// The label is here.
    pub(super) fn bind(&mut self, label: Label) {
        self.labels[label.0].at = Some(self.insns.len());
        self.closed &= !self.is_referenced(label);
    }

    /// All instructions so far, from `start` on, only set up this register: they are left out where nothing else uses it.
    pub(super) fn set_up(&mut self, register: Reg, start: usize) {
        self.set_up = Some(tidy::SetUp { register, at: start..self.insns.len() });
    }

    /// Whether any jump has gone to this label.
    pub(super) fn is_referenced(&self, label: Label) -> bool {
        self.labels[label.0].referenced
    }

    /// Whether what is emitted next can be reached.
    pub(super) fn is_open(&self) -> bool {
        !self.closed
    }

    /// Instructions so far; one that loads 64 bits counts twice, as the kernel counts.
    pub(super) fn len(&self) -> usize {
        self.insns.len()
    }

    /// What follows comes from this part of the source.
    pub(super) fn line(&mut self, span: &Span) {
        if !self.closed {
            self.lines.push((self.insns.len(), span.clone()));
        }
    }

    fn push(&mut self, opcode: u8, dst: Reg, src: Reg, offset: i16, immediate: i32) {
        if self.closed {
            return;
        }
        self.insns.push(Insn { opcode, registers: src.0 << 4 | dst.0, offset, immediate });
    }

    pub(super) fn alu(&mut self, op: Alu, dst: Reg, immediate: i32) {
        self.push(CLASS_ALU64 | op as u8, dst, R0, 0, immediate);
    }

    pub(super) fn alu_reg(&mut self, op: Alu, dst: Reg, src: Reg) {
        self.push(CLASS_ALU64 | SOURCE_REG | op as u8, dst, src, 0, 0);
    }

    pub(super) fn mov(&mut self, dst: Reg, immediate: i32) {
        self.alu(Alu::Mov, dst, immediate);
    }

    pub(super) fn mov_reg(&mut self, dst: Reg, src: Reg) {
        self.alu_reg(Alu::Mov, dst, src);
    }

    /// Any 64 bits, in one instruction or two.
    pub(super) fn constant(&mut self, dst: Reg, value: u64) {
        match i32::try_from(value as i64) {
            Ok(small) => self.mov(dst, small),
            Err(_) => {
                self.push(LD_IMM64, dst, R0, 0, value as u32 as i32);
                self.push(0, R0, R0, 0, (value >> 32) as i32);
            }
        }
    }

    /// The address of a map, filled in when the object is loaded.
    pub(super) fn map(&mut self, dst: Reg, map: usize) {
        if self.closed {
            return;
        }
        self.maps.push((self.insns.len(), map));
        self.push(LD_IMM64, dst, R0, 0, 0);
        self.push(0, R0, R0, 0, 0);
    }

    pub(super) fn load(&mut self, size: Size, dst: Reg, base: Reg, offset: i16) {
        self.push(CLASS_LDX | MODE_MEM | size as u8, dst, base, offset, 0);
    }

    pub(super) fn store(&mut self, size: Size, base: Reg, offset: i16, src: Reg) {
        self.push(CLASS_STX | MODE_MEM | size as u8, base, src, offset, 0);
    }

    /// R0 is lost. There is an instruction for this, but LLVM's tools could not read it for years, and the verifier
    /// knows more about what registers store.
    pub(super) fn store_imm(&mut self, size: Size, base: Reg, offset: i16, immediate: i32) {
        self.mov(R0, immediate);
        self.store(size, base, offset, R0);
    }

    /// Adds to 64 bits in memory, atomically; what was there before is in `src` then.
    pub(super) fn atomic_fetch_add(&mut self, base: Reg, offset: i16, src: Reg) {
        const FETCH: i32 = 1;
        self.push(CLASS_STX | MODE_ATOMIC | Size::Dw as u8, base, src, offset, Alu::Add as i32 | FETCH);
    }

    fn jump_to(&mut self, label: Label) {
        if self.closed {
            return;
        }
        self.labels[label.0].referenced = true;
        self.jumps.push((self.insns.len(), label));
    }

    pub(super) fn jump(&mut self, label: Label) {
        self.jump_to(label);
        self.push(JA, R0, R0, 0, 0);
        self.closed = true;
    }

    /// Jumps if the register and the sign-extended immediate compare so.
    pub(super) fn jump_if(&mut self, cond: Cond, reg: Reg, immediate: i32, label: Label) {
        self.jump_to(label);
        self.push(CLASS_JMP | cond as u8, reg, R0, 0, immediate);
    }

    /// The same on the low 32 bits.
    pub(super) fn jump_if32(&mut self, cond: Cond, reg: Reg, immediate: u32, label: Label) {
        self.jump_to(label);
        self.push(CLASS_JMP32 | cond as u8, reg, R0, 0, immediate as i32);
    }

    /// Jumps if the register and these 64 bits compare so; `spare` is lost where they take a register.
    pub(super) fn jump_if_constant(&mut self, cond: Cond, reg: Reg, value: u64, spare: Reg, label: Label) {
        match i32::try_from(value as i64) {
            Ok(immediate) => self.jump_if(cond, reg, immediate, label),
            Err(_) => {
                self.constant(spare, value);
                self.jump_if_reg(cond, reg, spare, label);
            }
        }
    }

    pub(super) fn jump_if_reg(&mut self, cond: Cond, left: Reg, right: Reg, label: Label) {
        self.jump_to(label);
        self.push(CLASS_JMP | SOURCE_REG | cond as u8, left, right, 0, 0);
    }

    pub(super) fn call(&mut self, helper: Helper) {
        self.push(CALL, R0, R0, 0, helper as i32);
    }

    pub(super) fn exit(&mut self) {
        self.push(EXIT, R0, R0, 0, 0);
        self.closed = true;
    }

    /// Fills in the jumps.
    pub(super) fn finish(self) -> Result<Code, TooFar> {
        let Assembler { insns, labels, closed: _, jumps, maps, lines, set_up } = self;
        let mut targets = vec![None; insns.len()];
        for (from, label) in jumps {
            targets[from] = Some(labels.get(label.0).and_then(|state| state.at).ok_or(TooFar)?);
        }
        let tidy::Tidy { targets, kept, moved } = tidy::tidy(&insns, targets, set_up.as_ref())?;
        let mut bytes = Vec::with_capacity(insns.len() * 8);
        for (at, Insn { opcode, registers, offset, immediate }) in insns.iter().enumerate() {
            if !kept[at] {
                continue;
            }
            let distance = |to: usize| i16::try_from(moved[to] - moved[at] - 1).map_err(|_| TooFar);
            let offset = targets[at].map_or(Ok(*offset), distance)?;
            bytes.extend([*opcode, *registers]);
            bytes.extend(offset.to_le_bytes());
            bytes.extend(immediate.to_le_bytes());
        }
        let maps = maps.into_iter().filter(|(at, _)| kept[*at]);
        let maps = maps.map(|(at, map)| (moved[at] as u64 * 8, map)).collect();
        let mut placed: Vec<(usize, Span)> = Vec::new();
        for (at, span) in lines {
            // An instruction has one line: the last that was named.
            placed.pop_if(|(before, _)| *before == moved[at]);
            placed.push((moved[at], span));
        }
        placed.retain(|(at, _)| *at < bytes.len() / 8);
        Ok(Code { bytes, maps, lines: placed, moved })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_find_their_labels() {
        let mut asm = Assembler::default();
        let end = asm.label();
        let next = asm.label();
        asm.jump_if(Cond::Eq, R1, 0, end);
        asm.constant(R0, 0x1_0000_0002);
        asm.jump(next);
        asm.bind(next);
        asm.bind(end);
        asm.exit();
        let code = asm.finish().unwrap();
        assert_eq!(code.bytes.len(), 4 * 8, "the jump to the next instruction is gone");
        assert_eq!(code.bytes[..8], [0x15, 1, 2, 0, 0, 0, 0, 0]);
        assert_eq!(code.bytes[8..24], [0x18, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0]);
    }

    #[test]
    fn jumps_to_jumps_go_where_those_go() {
        let mut asm = Assembler::default();
        let [hop, far] = [asm.label(), asm.label()];
        asm.jump_if(Cond::Eq, R1, 0, hop);
        asm.mov(R0, 1);
        asm.exit();
        asm.bind(hop);
        asm.line(&(0..1));
        asm.jump(far);
        asm.bind(far);
        asm.line(&(2..3));
        asm.mov(R0, 2);
        asm.exit();
        let code = asm.finish().unwrap();
        assert_eq!(code.bytes.len(), 5 * 8, "the jump that was only passed is gone");
        assert_eq!(code.bytes[..8], [0x15, 1, 2, 0, 0, 0, 0, 0]);
        assert_eq!(code.lines, [(3, 2..3)]);
        assert_eq!(code.moved, [0, 1, 2, 3, 3, 4, 5]);
    }

    #[test]
    fn what_sets_up_a_register_goes_where_nothing_uses_it() {
        for used in [false, true] {
            let mut asm = Assembler::default();
            let end = asm.label();
            asm.mov(R0, 0);
            let start = asm.len();
            asm.map(R1, 0);
            asm.jump_if(Cond::Eq, R1, 0, end);
            asm.mov_reg(R9, R1);
            asm.set_up(R9, start);
            asm.map(R1, 1);
            if used {
                asm.store(Size::B, R9, 0, R0);
            }
            asm.bind(end);
            asm.exit();
            let code = asm.finish().unwrap();
            let maps: Vec<usize> = code.maps.iter().map(|(_, map)| *map).collect();
            assert_eq!(maps, if used { vec![0, 1] } else { vec![1] });
            assert_eq!(code.bytes.len() / 8, if used { 9 } else { 4 });
        }
    }
}
