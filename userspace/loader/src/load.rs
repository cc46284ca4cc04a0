//! Brings a policy's object into the kernel. aya's parser reads it, once; its shared maps are the interface's own, held
//! open, its tables those that are to stay; nothing is pinned. Policies are swapped under traffic, and loaders that do
//! everything take twice as long: they read the object again, and find each map by its path.

use crate::Error;
use crate::error::chain;
use crate::policy::unusable;
use crate::sys::{self, NewProgram};
use aya_obj::btf::BtfFeatures;
use libbpf_rs::libbpf_sys::bpf_map_create_opts;
use libbpf_rs::{MapHandle, MapType};
use std::collections::HashMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// All that objects use of BTF is there in the kernels that Tollfree runs on, 6.1 and later.
const FEATURES: BtfFeatures = BtfFeatures::new(true, true, true, true, true, true, true, true);

/// An object in the kernel: what it holds goes with it, unless something else holds it too.
#[derive(Debug)]
pub(crate) struct Loaded {
    programs: HashMap<String, OwnedFd>,
    /// Those that were made for it, and those that stayed; not the shared ones.
    pub maps: HashMap<String, MapHandle>,
}

/// Where a map comes from.
#[derive(Debug)]
pub(crate) enum Source<'a> {
    /// It is there, and everyone's.
    Shared(&'a MapHandle),
    /// It is there, and stays.
    Kept(MapHandle),
    /// It is made.
    Fresh,
}

/// Loads an object. `find` says where each map comes from.
///
/// # Errors
/// The object is not usable, or the kernel refuses a map or a program.
pub(crate) fn load<'a>(
    mut object: aya_obj::Object,
    mut find: impl FnMut(&str) -> Source<'a>,
) -> Result<Loaded, Error> {
    let btf = object.fixup_and_sanitize_btf(&FEATURES).map_err(|cause| unusable(chain(&cause)))?;
    let btf =
        btf.map(|btf| sys::btf_load(&btf.to_bytes()).map_err(|cause| unusable(chain(&cause)))).transpose()?;
    let btf = btf.as_ref().map(AsFd::as_fd);

    let mut shared = Vec::new();
    let mut own = Vec::new();
    for (name, definition) in object.maps.drain() {
        match find(&name) {
            Source::Shared(map) => shared.push((name, definition, map)),
            Source::Kept(map) => own.push((name, definition, map)),
            Source::Fresh => {
                let map = create(&name, &definition, btf)?;
                own.push((name, definition, map));
            }
        }
    }
    let text = object.functions.keys().map(|(section, _)| *section).collect();
    let shared = shared.iter().map(|(name, definition, map)| (name, definition, *map));
    let maps = shared.chain(own.iter().map(|(name, definition, map)| (name, definition, map)));
    object
        .relocate_maps(
            maps.map(|(name, definition, map)| (name.as_str(), map.as_fd().as_raw_fd(), definition)),
            &text,
        )
        .map_err(|cause| unusable(chain(&cause)))?;
    object.relocate_calls(&text).map_err(|cause| unusable(chain(&cause)))?;

    let mut programs = HashMap::new();
    for (name, program) in &object.programs {
        let code = object.functions.get(&program.function_key());
        let code = code.ok_or_else(|| unusable(format!("its program {name} has no code")))?;
        let new = NewProgram { name, license: &program.license, code, btf };
        programs.insert(name.clone(), sys::xdp_load(&new)?);
    }
    let maps = own.into_iter().map(|(name, _, map)| (name, map)).collect();
    Ok(Loaded { programs, maps })
}

fn create(name: &str, definition: &aya_obj::Map, btf: Option<BorrowedFd<'_>>) -> Result<MapHandle, Error> {
    let mut options = bpf_map_create_opts {
        sz: size_of::<bpf_map_create_opts>() as u64,
        map_flags: definition.map_flags(),
        map_extra: definition.map_extra(),
        ..bpf_map_create_opts::default()
    };
    if let (aya_obj::Map::Btf(map), Some(btf)) = (definition, btf) {
        options.btf_fd = btf.as_raw_fd() as u32;
        options.btf_key_type_id = map.def.btf_key_type_id;
        options.btf_value_type_id = map.def.btf_value_type_id;
    }
    let kind = MapType::from(definition.map_type());
    let (key, value, entries) = (definition.key_size(), definition.value_size(), definition.max_entries());
    MapHandle::create(kind, Some(name), key, value, entries, &options)
        .map_err(|cause| unusable(format!("its map {name} cannot be made: {cause:#}")))
}

impl Loaded {
    /// A program's descriptor.
    ///
    /// # Errors
    /// The object has no such program.
    pub fn program(&self, name: &str) -> Result<BorrowedFd<'_>, Error> {
        let program = self.programs.get(name).map(AsFd::as_fd);
        program.ok_or_else(|| unusable(format!("it has no program {name}")))
    }
}
