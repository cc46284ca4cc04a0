//! Attaching: fill maps, load, fill slots, attach last. Attaching again replaces the programs and keeps the policy.

use crate::interface::linked_program;
use crate::maps::{SHARED, SharedMap, check_definition, check_pins};
use crate::paths::{Pins, remove_file, remove_tree};
use crate::{Error, Interface, Mode, Paths, State, bpffs, capability, device, error};
use aya::programs::links::{FdLink, PinnedLink};
use aya::programs::xdp::XdpLink;
use aya::programs::{ProgramError, Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};
use libbpf_rs::ObjectBuilder;
use std::os::fd::{AsFd, AsRawFd};
use std::path::Path;
use tollfree_wire::frame::Ports;
use tollfree_wire::maps::{self, Config, Stage};

/// Tollfree's UDP ports unless configured otherwise: enough for a hash of them to spread sessions over receive queues.
pub const DEFAULT_PORTS: Ports = Ports { first: 7400, count: 16 };

/// The program that the link holds.
pub(crate) const ROOT: &str = "tf_root";
/// The programs in the slots that are never empty.
pub(crate) const STAGES: [(Stage, &str); 4] = [
    (Stage::Deliver, "tf_deliver"),
    (Stage::Reject, "tf_reject"),
    (Stage::Drop, "tf_drop"),
    (Stage::Answer, "tf_respond"),
];

/// How to attach.
#[derive(Clone, Copy, Debug)]
pub struct AttachOptions<'a> {
    /// Native unless someone asks for generic; there is no falling back.
    pub mode: Mode,
    /// Detach another's XDP program instead of refusing.
    pub force: bool,
    /// Tollfree's UDP ports on this host, usually [`DEFAULT_PORTS`].
    pub ports: Ports,
    /// The object with the programs: `tollfree.bpf.o`.
    pub object: &'a Path,
}

impl Interface {
    /// Attaches Tollfree to an interface. Where it is attached already, the programs are replaced without a gap, the
    /// policy and its tables stay, and the sessions, which belong to an engine that is gone, are forgotten.
    ///
    /// # Errors
    /// One sentence each for: no such interface, missing capabilities, a foreign program, no native XDP. On failure
    /// the interface is as before, but for a foreign program that a link held and `force` detached.
    pub fn attach(paths: &Paths, interface: &str, options: AttachOptions<'_>) -> Result<Interface, Error> {
        let AttachOptions { mode, force, ports, object } = options;
        let index = device::index(interface)?;
        let capabilities = capability::missing_capabilities();
        if !capabilities.is_empty() {
            return Err(Error::Capability { interface: interface.to_owned(), capabilities });
        }
        let code = std::fs::read(object).map_err(Error::file("read", object))?;
        bpffs::ensure(&paths.bpffs)?;
        let _lock = bpffs::lock(&paths.bpffs)?;

        let pins = paths.pins(interface);
        let attachment =
            Attachment { paths, interface, pins: &pins, index, mode, ports, object, code: &code };
        let linked = linked_program(&pins)?.filter(|linked| linked.index != 0);
        let running = device::attached(interface)?;
        match (linked, running) {
            (Some(linked), Some(running)) if linked.program == running.id => {
                if running.mode != mode {
                    return Err(Error::OtherMode {
                        interface: interface.to_owned(),
                        current: running.mode,
                        wanted: mode,
                    });
                }
                attachment.replace()?;
            }
            (Some(_), _) => {
                return Err(Error::OtherNamespace { interface: interface.to_owned(), path: pins.root });
            }
            (None, Some(foreign)) if !force => {
                return Err(Error::Foreign {
                    interface: interface.to_owned(),
                    program: foreign.program,
                    id: foreign.id,
                });
            }
            (None, running) => attachment.begin(running.as_ref())?,
        }
        let interface = Interface::open(paths, interface)?;
        interface.recover()?;
        interface.sessions_clear()?;
        Ok(interface)
    }
}

/// What is to be attached where.
struct Attachment<'a> {
    paths: &'a Paths,
    interface: &'a str,
    pins: &'a Pins,
    index: u32,
    mode: Mode,
    ports: Ports,
    object: &'a Path,
    code: &'a [u8],
}

impl Attachment<'_> {
    /// Attaches where nothing of ours is. Whatever fails, no pin stays behind.
    fn begin(&self, foreign: Option<&device::Attached>) -> Result<(), Error> {
        // Pins without a live link are what a crash or a deleted interface left.
        self.discard()?;
        std::fs::create_dir_all(&self.pins.root).map_err(Error::file("create", &self.pins.root))?;
        let result = self.load().and_then(|mut ebpf| {
            self.fill(&mut ebpf)?;
            let displaced = foreign.map(|foreign| device::displace(self.interface, foreign)).transpose()?;
            let attached = self.link(&mut ebpf).and_then(|()| self.state().write(self.paths, self.interface));
            if attached.is_err() {
                // Detaches, so that what was displaced finds room. The first error is the one to report.
                drop(self.discard());
                if let Some(displaced) = displaced {
                    displaced.restore();
                }
            }
            attached
        });
        if result.is_err() {
            // The first error is the one to report.
            drop(self.discard());
        }
        result
    }

    /// Replaces the programs of an interface that is ours, keeping its maps and so its policy.
    fn replace(&self) -> Result<(), Error> {
        check_pins(self.pins)?;
        let before = State::read(self.paths, self.interface)?;
        // Everything that can fail for the object's sake fails here, before anything has changed.
        let mut ebpf = self.load()?;
        for (_, name) in STAGES {
            program(&mut ebpf, name)?;
        }
        program(&mut ebpf, ROOT)?;
        let link = PinnedLink::from_pin(self.pins.link())
            .map_err(|cause| self.failed(&cause))
            .map(FdLink::from)
            .and_then(|link| XdpLink::try_from(link).map_err(|cause| self.failed(&cause)))?;
        self.fill(&mut ebpf)?;
        let root = loaded(&mut ebpf, ROOT)?;
        root.attach_to_link(link).map_err(|cause| self.failed(&cause))?;
        self.pin(&mut ebpf)?;
        let State { mode, port, ports, object, .. } = self.state();
        State { mode, port, ports, object, ..before.unwrap_or_default() }.write(self.paths, self.interface)
    }

    fn state(&self) -> State {
        let Ports { first, count } = self.ports;
        State {
            mode: self.mode,
            port: first,
            ports: count,
            object: self.object.to_owned(),
            ..State::default()
        }
    }

    fn load(&self) -> Result<Ebpf, Error> {
        let unusable = |cause| Error::Object { object: self.object.display().to_string(), cause };
        // The trace flavour has maps that libbpf does not open; it is built from the same source as the other.
        let opened = crate::verify::silently(|| ObjectBuilder::default().open_memory(self.code));
        for map in opened.iter().flat_map(|open| open.maps()) {
            check_definition(&map.name().to_string_lossy(), (&map).into()).map_err(unusable)?;
        }
        let mut loader = shared_loader(self.pins);
        loader.load(self.code).map_err(|cause| unusable(error::chain(&cause)))
    }

    /// Fills the maps, loads the programs and fills the slots.
    fn fill(&self, ebpf: &mut Ebpf) -> Result<(), Error> {
        check_pins(self.pins)?;
        let config = Config { ports: self.ports, reserved: [0; 2] };
        let map = |name| SharedMap::open(self.pins, self.interface, name);
        map(maps::CONFIG)?.set(&0u32.to_ne_bytes(), bytemuck::bytes_of(&config))?;
        program(ebpf, ROOT)?;
        let stages = map(maps::STAGES)?;
        for (stage, name) in STAGES {
            let program = program(ebpf, name)?;
            let fd = program.fd().map_err(|cause| self.failed(&cause))?.as_fd().as_raw_fd();
            stages.set(&(stage as u32).to_ne_bytes(), &fd.to_ne_bytes())?;
        }
        Ok(())
    }

    /// Attaches the root program, and pins link and programs.
    fn link(&self, ebpf: &mut Ebpf) -> Result<(), Error> {
        let mode = match self.mode {
            Mode::Native => XdpMode::Driver,
            Mode::Generic => XdpMode::Skb,
        };
        self.pin(ebpf)?;
        let root = loaded(ebpf, ROOT)?;
        let id = root.attach_to_if_index(self.index, mode).map_err(|cause| self.refused(cause))?;
        let link = root.take_link(id).map_err(|cause| self.failed(&cause))?;
        let link = FdLink::try_from(link).map_err(|cause| self.failed(&cause))?;
        link.pin(self.pins.link()).map_err(|cause| self.failed(&cause))?;
        Ok(())
    }

    /// Pins the programs under their names, in place of those pinned before.
    fn pin(&self, ebpf: &mut Ebpf) -> Result<(), Error> {
        for name in STAGES.map(|(_, name)| name).into_iter().chain([ROOT]) {
            let path = self.pins.program(name);
            remove_file(&path).map_err(Error::file("remove", &path))?;
            loaded(ebpf, name)?.pin(&path).map_err(|cause| self.failed(&cause))?;
        }
        Ok(())
    }

    fn discard(&self) -> Result<(), Error> {
        remove_tree(&self.pins.root).map_err(Error::file("remove", &self.pins.root))?;
        let state = self.paths.state_file(self.interface);
        remove_file(&state).map_err(Error::file("remove", &state))
    }

    fn failed(&self, cause: &dyn std::error::Error) -> Error {
        Error::Attach { interface: self.interface.to_owned(), mode: self.mode, cause: error::chain(cause) }
    }

    /// Why the kernel did not attach, where its error number says so.
    fn refused(&self, cause: ProgramError) -> Error {
        let interface = self.interface.to_owned();
        let ProgramError::SyscallError(call) = &cause else { return self.failed(&cause) };
        match (call.io_error.raw_os_error(), self.mode) {
            (Some(libc::EOPNOTSUPP), Mode::Native) => Error::NoNative { interface },
            (Some(libc::ERANGE), Mode::Native) => Error::Mtu { interface },
            _ => self.failed(&cause),
        }
    }
}

/// A loader that puts the shared maps where an interface has them.
pub(crate) fn shared_loader(pins: &Pins) -> EbpfLoader<'static> {
    let mut loader = EbpfLoader::new();
    for shape in SHARED {
        loader.map_pin_path(shape.name, pins.map(shape.name));
    }
    loader
}

/// A program of the object, loaded into the kernel if it was not.
pub(crate) fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, Error> {
    let program = loaded(ebpf, name)?;
    if program.fd().is_err() {
        program.load().map_err(|cause| verifier_error(name, cause))?;
    }
    Ok(program)
}

pub(crate) fn loaded<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp, Error> {
    let missing = |cause: String| Error::Object { object: "the object".to_owned(), cause };
    let program = ebpf.program_mut(name).ok_or_else(|| missing(format!("it has no program {name}")))?;
    program.try_into().map_err(|_| missing(format!("its program {name} is not an XDP program")))
}

/// The verifier's refusal with its whole log.
pub(crate) fn verifier_error(name: &str, cause: ProgramError) -> Error {
    match cause {
        ProgramError::LoadError { io_error, verifier_log } => Error::Verifier {
            program: name.to_owned(),
            cause: io_error.to_string(),
            log: verifier_log.to_string(),
        },
        other => {
            Error::Verifier { program: name.to_owned(), cause: error::chain(&other), log: String::new() }
        }
    }
}
