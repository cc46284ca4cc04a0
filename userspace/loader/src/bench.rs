//! Trying programs without an interface: the root program and a policy in the kernel, attached to nothing and pinned
//! nowhere, and packets run through them by `BPF_PROG_TEST_RUN`. It goes when dropped.

use crate::maps::{SHARED, check_definition};
use crate::object::{PROGRAM, part};
use crate::own::set_generation;
use crate::tables::{is_counter, sum};
use crate::{Entry, Error};
use libbpf_rs::{
    MapCore, MapFlags, MapHandle, MapType, Object, ObjectBuilder, OpenObject, ProgramInput, ProgramMut,
};
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};
use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use tollfree_wire::Reason;
use tollfree_wire::maps::{DECISIONS, GENERATION, REASONS, SCRATCH, SOCKETS, STAGES, Stage};

/// Room that an answer may need more than the packet it answers.
const GROWTH: usize = 512;

/// The programs of an interface that is none.
#[derive(Debug)]
pub struct Bench {
    root: Object,
    /// Shared ones, and those of the policy.
    maps: HashMap<String, MapHandle>,
    policy: Option<Object>,
    /// What packets are redirected to; nobody reads it.
    _socket: OwnedFd,
}

/// What became of a packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ran {
    /// The program's return value: `XDP_DROP` is 1, `XDP_PASS` 2, `XDP_TX` 3, `XDP_REDIRECT` 4.
    pub action: u32,
    /// The frame as it was left.
    pub frame: Vec<u8>,
    /// What was counted meanwhile, and how often.
    pub reasons: Vec<(Reason, u64)>,
}

impl Bench {
    /// Loads the interface's programs from `object`, the file that [`crate::Interface::attach`] takes too.
    ///
    /// # Errors
    /// The file cannot be read, the kernel refuses a program, or the process may not load any.
    pub fn load(object: &Path) -> Result<Bench, Error> {
        let named = |cause: String| Error::Object { object: object.display().to_string(), cause };
        let failed = |cause: libbpf_rs::Error| named(format!("{cause:#}"));
        let code = std::fs::read(object).map_err(Error::file("read", object))?;
        let root = crate::verify::silently(|| {
            let open = ObjectBuilder::default().open_memory(&code).map_err(failed)?;
            for map in open.maps() {
                check_definition(&map.name().to_string_lossy(), (&map).into()).map_err(named)?;
            }
            open.load().map_err(failed)
        })?;
        let maps = handles(&root).map_err(failed)?;
        let socket = socket_with(AddressFamily::XDP, SocketType::RAW, SocketFlags::CLOEXEC, None)
            .map_err(|cause| named(format!("no AF_XDP socket to redirect to: {cause}")))?;
        let bench = Bench { root, maps, policy: None, _socket: socket };
        bench.set(SOCKETS, &0u32.to_ne_bytes(), &bench._socket.as_raw_fd().to_ne_bytes())?;
        for (stage, name) in crate::attach::STAGES {
            bench.stage(stage, &bench.root, name)?;
        }
        Ok(bench)
    }

    /// Puts a policy in force. Tables that the one before has too, by name and shape, keep what is in them.
    ///
    /// # Errors
    /// The object is unusable, or the kernel refuses it.
    pub fn policy(&mut self, object: &[u8], generation: u64) -> Result<(), Error> {
        let failed = |cause: libbpf_rs::Error| crate::policy::unusable(format!("{cause:#}"));
        let policy = crate::verify::silently(|| {
            let mut open = ObjectBuilder::default().open_memory(object).map_err(failed)?;
            self.share(&mut open).map_err(failed)?;
            open.load().map_err(failed)
        })?;
        self.maps.retain(|name, _| SHARED.iter().any(|shape| shape.name == name));
        self.maps.extend(handles(&policy).map_err(failed)?);
        if let Some(map) = self.maps.get(GENERATION) {
            set_generation(map, generation)?;
        }
        let parts =
            self.maps.iter().find(|(name, map)| *name != STAGES && map.map_type() == MapType::ProgArray);
        for program in policy.progs() {
            let slot = program.name().to_str().and_then(part);
            if let (Some(slot), Some((name, _))) = (slot, parts) {
                self.set(name, &slot.to_ne_bytes(), &program.as_fd().as_raw_fd().to_ne_bytes())?;
            }
        }
        self.stage(Stage::Policy, &policy, PROGRAM)?;
        self.policy = Some(policy);
        Ok(())
    }

    /// Gives an object that is about to be loaded the maps there are: those of the root program, and the tables of the
    /// policy before.
    fn share(&self, open: &mut OpenObject) -> libbpf_rs::Result<()> {
        for mut map in open.maps_mut() {
            let name = map.name().to_string_lossy().into_owned();
            let own = matches!(name.as_str(), DECISIONS | GENERATION | SCRATCH);
            let shape = (map.map_type(), map.key_size(), map.value_size(), map.max_entries());
            let same = |known: &&MapHandle| {
                (known.map_type(), known.key_size(), known.value_size(), known.max_entries()) == shape
            };
            let parts = shape.0 == MapType::ProgArray && name != STAGES;
            if let Some(known) = self.maps.get(&name).filter(same).filter(|_| !own && !parts) {
                map.reuse_fd(known.as_fd())?;
            }
        }
        Ok(())
    }

    fn stage(&self, stage: Stage, object: &Object, name: &str) -> Result<(), Error> {
        let program = object.progs().find(|program| program.name() == name);
        let program = program.ok_or_else(|| Error::Object {
            object: "the object".to_owned(),
            cause: format!("it has no program {name}"),
        })?;
        self.set(STAGES, &(stage as u32).to_ne_bytes(), &program.as_fd().as_raw_fd().to_ne_bytes())
    }

    /// Runs the root program on a frame, as if it had arrived on queue 0.
    ///
    /// # Errors
    /// The kernel does not run it.
    pub fn run(&mut self, frame: &[u8]) -> Result<Ran, Error> {
        let before = self.reasons()?;
        let mut out = vec![0; frame.len() + GROWTH];
        let input =
            ProgramInput { data_in: Some(frame), data_out: Some(&mut out), ..ProgramInput::default() };
        let root: Option<ProgramMut<'_>> =
            self.root.progs_mut().find(|program| program.name() == crate::attach::ROOT);
        let ran = root.map(|root| {
            let output = root.test_run(input)?;
            Ok((output.return_value, output.data.map_or(0, |data| data.len())))
        });
        let (action, length) = ran
            .unwrap_or_else(|| Err(libbpf_rs::Error::from_raw_os_error(libc::ENOENT)))
            .map_err(|cause| self.failed("run the programs on the", "packet")(cause))?;
        out.truncate(length);
        let counted = self.reasons()?.into_iter().zip(before).enumerate();
        let counted = counted.filter_map(|(index, (now, before))| {
            let more = now.saturating_sub(before);
            Reason::from_index(index).filter(|_| more > 0).map(|reason| (reason, more))
        });
        Ok(Ran { action, frame: out, reasons: counted.collect() })
    }

    fn reasons(&self) -> Result<Vec<u64>, Error> {
        let count = |index: usize| {
            let value = self.get(REASONS, &(index as u32).to_ne_bytes())?;
            Ok(value.and_then(|value| value.first_chunk().copied()).map_or(0, u64::from_ne_bytes))
        };
        (0..Reason::COUNT).map(count).collect()
    }

    /// Whether the programs in force have this map.
    pub fn has(&self, map: &str) -> bool {
        self.maps.contains_key(map)
    }

    /// An entry's value, if there is one; where each CPU has its own, their sum.
    ///
    /// # Errors
    /// No such map, or the kernel refuses the lookup.
    pub fn get(&self, name: &str, key: &[u8]) -> Result<Option<Vec<u8>>, Error> {
        let map = self.map(name)?;
        if is_counter(map) {
            let values = map.lookup_percpu(key, MapFlags::ANY).map_err(self.failed("read", name))?;
            return Ok(values.map(sum));
        }
        map.lookup(key, MapFlags::ANY).map_err(self.failed("read", name))
    }

    /// Sets an entry; where each CPU has its own, the first one's, and all others' to zeros.
    ///
    /// # Errors
    /// No such map, a full one, or bytes of another size.
    pub fn set(&self, name: &str, key: &[u8], value: &[u8]) -> Result<(), Error> {
        let map = self.map(name)?;
        let done = if is_counter(map) {
            libbpf_rs::num_possible_cpus().and_then(|cpus| {
                let mut values = vec![vec![0; map.value_size() as usize]; cpus];
                if let Some(first) = values.first_mut() {
                    *first = value.to_vec();
                }
                map.update_percpu(key, &values, MapFlags::ANY)
            })
        } else {
            map.update(key, value, MapFlags::ANY)
        };
        done.map_err(self.failed("update", name))
    }

    /// Removes an entry, if it is there.
    ///
    /// # Errors
    /// No such map, or the kernel refuses it.
    pub fn delete(&self, name: &str, key: &[u8]) -> Result<(), Error> {
        match self.map(name)?.delete(key) {
            Err(cause) if cause.kind() == libbpf_rs::ErrorKind::NotFound => Ok(()),
            done => done.map_err(self.failed("delete from", name)),
        }
    }

    /// Every entry of a map.
    ///
    /// # Errors
    /// No such map, or the kernel refuses a lookup.
    pub fn entries(&self, name: &str) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        for key in self.map(name)?.keys() {
            if let Some(value) = self.get(name, &key)? {
                entries.push((key, value));
            }
        }
        Ok(entries)
    }

    fn map(&self, name: &str) -> Result<&MapHandle, Error> {
        self.maps.get(name).ok_or_else(|| Error::Map {
            operation: "find",
            map: name.to_owned(),
            interface: NOWHERE.to_owned(),
            cause: "the programs have none of this name".to_owned(),
        })
    }

    fn failed(&self, operation: &'static str, map: &str) -> impl FnOnce(libbpf_rs::Error) -> Error + use<> {
        let map = map.to_owned();
        move |cause| Error::Map { operation, map, interface: NOWHERE.to_owned(), cause: format!("{cause:#}") }
    }
}

/// The interface, in errors.
const NOWHERE: &str = "the test bench";

fn handles(object: &Object) -> libbpf_rs::Result<HashMap<String, MapHandle>> {
    object
        .maps()
        .map(|map| Ok((map.name().to_string_lossy().into_owned(), MapHandle::try_from(&map)?)))
        .collect()
}
