//! Loading objects for the verifier's sake only: through aya and through libbpf, so that neither's habits are taken
//! for the kernel's rules.

use crate::error::chain;
use aya::programs::{ProgramError, Xdp};
use libbpf_rs::{ObjectBuilder, PrintLevel, set_print};
use serde::Serialize;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What became of one program with one loader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ProgramReport {
    /// The object's label, as given.
    pub object: String,
    /// The program's name; empty where the object could not even be opened.
    pub name: String,
    /// `aya` or `libbpf`.
    pub loader: &'static str,
    /// Instructions as the kernel translated them, 8 bytes each.
    pub instructions: u32,
    /// Instructions that the verifier walked through; 0 where the kernel does not say.
    pub verified: u32,
    /// Bytes of machine code; 0 without a JIT compiler.
    pub jited: u32,
    /// Whether the kernel accepted it.
    pub ok: bool,
    /// On failure: the error and the verifier's whole log.
    pub log: String,
}

/// Loads every XDP program of every object, given as label and content, with both loaders, and unloads it again.
/// Attaches and pins nothing.
pub fn verify(objects: &[(String, Vec<u8>)]) -> Vec<ProgramReport> {
    let mut reports = Vec::new();
    for (label, content) in objects {
        with_aya(label, content, &mut reports);
        with_libbpf(label, content, &mut reports);
    }
    reports
}

fn failure(object: &str, name: &str, loader: &'static str, log: String) -> ProgramReport {
    ProgramReport {
        object: object.to_owned(),
        name: name.to_owned(),
        loader,
        instructions: 0,
        verified: 0,
        jited: 0,
        ok: false,
        log,
    }
}

fn with_aya(label: &str, content: &[u8], reports: &mut Vec<ProgramReport>) {
    const LOADER: &str = "aya";
    let mut ebpf = match aya::EbpfLoader::new().load(content) {
        Ok(ebpf) => ebpf,
        Err(cause) => return reports.push(failure(label, "", LOADER, chain(&cause))),
    };
    let mut names: Vec<String> = ebpf.programs().map(|(name, _)| name.to_owned()).collect();
    names.sort();
    for name in names {
        let Some(program) = ebpf.program_mut(&name) else { continue };
        let loaded =
            <&mut Xdp>::try_from(program).and_then(|program| program.load().and_then(|()| program.info()));
        reports.push(match loaded {
            Ok(info) => ProgramReport {
                instructions: info.size_translated().unwrap_or(0) / 8,
                verified: info.verified_instruction_count().unwrap_or(0),
                jited: info.size_jitted(),
                ok: true,
                ..failure(label, &name, LOADER, String::new())
            },
            Err(ProgramError::LoadError { io_error, verifier_log }) => {
                failure(label, &name, LOADER, format!("{io_error}\n{verifier_log}"))
            }
            Err(cause) => failure(label, &name, LOADER, chain(&cause)),
        });
    }
}

/// One program at a time, so that a refused one does not hide the others.
fn with_libbpf(label: &str, content: &[u8], reports: &mut Vec<ProgramReport>) {
    const LOADER: &str = "libbpf";
    let printing = Printing::capture();
    let mut names: Vec<String> = match ObjectBuilder::default().open_memory(content) {
        Ok(open) => open.progs().map(|program| program.name().to_string_lossy().into_owned()).collect(),
        Err(cause) => {
            return reports.push(failure(label, "", LOADER, format!("{cause:#}\n{}", printing.take())));
        }
    };
    names.sort();
    for name in names {
        let report = load_one(content, &name).map(|info| ProgramReport {
            ok: true,
            ..info.unwrap_or_else(|| failure(label, &name, LOADER, String::new()))
        });
        let said = printing.take();
        reports.push(match report {
            Ok(report) => ProgramReport { object: label.to_owned(), name, ..report },
            Err(cause) => failure(label, &name, LOADER, format!("{cause:#}\n{said}")),
        });
    }
}

fn load_one(content: &[u8], name: &str) -> libbpf_rs::Result<Option<ProgramReport>> {
    let mut open = ObjectBuilder::default().open_memory(content)?;
    for mut program in open.progs_mut() {
        let wanted = program.name() == name;
        program.set_autoload(wanted);
    }
    let object = open.load()?;
    let Some(program) = object.progs().find(|program| program.name() == name) else { return Ok(None) };
    let id = libbpf_rs::Program::id_from_fd(program.as_fd())?;
    // aya reads the numbers of programs of any origin, by id.
    let info = aya::programs::loaded_programs().flatten().find(|info| info.id() == id);
    Ok(info.map(|info| ProgramReport {
        instructions: info.size_translated().unwrap_or(0) / 8,
        verified: info.verified_instruction_count().unwrap_or(0),
        jited: info.size_jitted(),
        ..failure("", name, "libbpf", String::new())
    }))
}

/// libbpf prints to one callback per process; whoever holds this has it to themselves.
struct Printing {
    _turn: MutexGuard<'static, ()>,
    before: Option<(PrintLevel, libbpf_rs::PrintCallback)>,
}

static TURN: Mutex<()> = Mutex::new(());
static SAID: Mutex<String> = Mutex::new(String::new());

impl Printing {
    fn capture() -> Printing {
        let turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let before = set_print(Some((PrintLevel::Info, |_, text| {
            SAID.lock().unwrap_or_else(PoisonError::into_inner).push_str(&text);
        })));
        Printing { _turn: turn, before }
    }

    fn take(&self) -> String {
        std::mem::take(&mut SAID.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Printing {
    fn drop(&mut self) {
        self.take();
        set_print(self.before);
    }
}

/// Runs something of libbpf's whose errors come back as values, without its remarks on stderr.
pub(crate) fn silently<T>(run: impl FnOnce() -> T) -> T {
    let _printing = Printing::capture();
    run()
}
