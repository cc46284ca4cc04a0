//! From encoded descriptors to layouts: checks every rule of flat fields and reports each breach with its place.
//!
//! The bytes may come from an application at run time, so nothing here trusts them: sizes are bounded, names checked,
//! types looked up and never followed.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use prost::Message as _;

use crate::descriptor::{self, File, FileSet, OPTION_NUMBER};
use crate::error::{Error, Fault, Problem, Problems};
use crate::fields::{Symbol, Symbols, body_kind, kind};
use crate::layout::{BLOCK_DEFAULT, BLOCK_MAX, BodyField, FieldKind, Layout, Member, method_id};
use crate::manifest::{Manifest, Method, Service, Streaming};
use crate::names::{
    FULL_NAME_MAX, Found, Text, bare, indexed, is_name, messages, position, printable, scope,
};

/// Most bytes of descriptors accepted from an application: those that generated code embeds are a few hundred bytes for
/// each service.
pub const DESCRIPTOR_SET_MAX: usize = 256 << 10;

/// Most bytes of a file of descriptors: those that `protoc` and `buf` write hold every import and comment.
pub const DESCRIPTOR_FILE_MAX: usize = 64 << 20;

/// Most fields, and enum values in flat fields, of all messages and all methods' requests and responses together. A
/// message may be every method's request and an enum every field's type, so the bytes alone bound nothing.
const FIELDS_MAX: usize = 1 << 16;

/// Problems reported at once.
const PROBLEMS_MAX: usize = 50;

/// Builds the manifest of an encoded `FileDescriptorSet`; also what is allowed but unwise.
pub(crate) fn manifest(bytes: &[u8], texts: &[Text]) -> Result<(Manifest, Vec<Problem>), Error> {
    let set = FileSet::decode(bytes).map_err(Error::NotADescriptorSet)?;
    let mut reader =
        Reader { texts, symbols: HashMap::new(), layouts: HashMap::new(), problems: Vec::new(), fields: 0 };
    for file in &set.file {
        reader.collect(file);
    }
    if !reader.problems.is_empty() {
        // Names are what everything else is told by.
        return Err(Error::Invalid(Problems(reader.problems)));
    }
    for file in &set.file {
        reader.lay_out(file);
    }
    let manifest = reader.services(&set);
    if !reader.problems.is_empty() {
        return Err(Error::Invalid(Problems(reader.problems)));
    }
    let used: HashSet<&str> = manifest
        .methods()
        .flat_map(|method| [method.request.message.as_str(), method.response.message.as_str()])
        .collect();
    for file in &set.file {
        reader.warn(file, &used);
    }
    Ok((manifest, reader.problems))
}

struct Reader<'a> {
    texts: &'a [Text],
    symbols: Symbols<'a>,
    /// By the same names.
    layouts: HashMap<String, Layout>,
    problems: Vec<Problem>,
    /// Counts towards [`FIELDS_MAX`].
    fields: usize,
}

impl<'a> Reader<'a> {
    fn report(&mut self, file: &File, path: &[i32], item: String, fault: Fault) {
        if self.problems.len() < PROBLEMS_MAX {
            let text = self.texts.iter().find(|text| text.name == file.name);
            let at = position(file, path, text);
            let file = text.map_or_else(|| printable(&file.name), |text| text.path.clone());
            self.problems.push(Problem { file, at, item, fault });
        }
    }

    /// First pass: every name, so that references can be resolved in any order.
    fn collect(&mut self, file: &'a File) {
        let package = &file.package;
        if package.len() > FULL_NAME_MAX || !(package.is_empty() || package.split('.').all(is_name)) {
            self.report(file, &[2], "package".to_owned(), Fault::Name(printable(package)));
            return;
        }
        for (index, item) in indexed(&file.r#enum) {
            self.add(
                file,
                &[5, index],
                format!("{}.{}", scope(file), item.name),
                &item.name,
                Symbol::Enum(item),
            );
        }
        for Found { name, message, path } in messages(file) {
            for (index, item) in indexed(&message.r#enum) {
                let path = [path.as_slice(), &[4, index]].concat();
                self.add(file, &path, format!("{name}.{}", item.name), &item.name, Symbol::Enum(item));
            }
            self.add(file, &path, name, &message.name, Symbol::Message(message));
        }
    }

    fn add(&mut self, file: &File, path: &[i32], full: String, short: &str, symbol: Symbol<'a>) {
        let kind = match symbol {
            Symbol::Message(_) => "message",
            Symbol::Enum(_) => "enum",
        };
        if !is_name(short) || full.len() > FULL_NAME_MAX {
            self.report(file, path, kind.to_owned(), Fault::Name(printable(short)));
            return;
        }
        match self.symbols.entry(full) {
            Entry::Vacant(entry) => drop(entry.insert(symbol)),
            Entry::Occupied(entry) => {
                let full = entry.key().clone();
                let item = format!("{kind} `{}`", bare(&full));
                self.report(file, path, item, Fault::DuplicateName("another file or message".to_owned()));
            }
        }
    }

    /// Second pass: the layout of every message, used by a method or not.
    fn lay_out(&mut self, file: &File) {
        let options = file.options.as_ref().and_then(|options| options.flat_block_max);
        let limit = match options.map(|max| (max, u16::try_from(max))) {
            None => BLOCK_DEFAULT,
            Some((_, Ok(max @ 1..=BLOCK_MAX))) => max,
            Some((max, _)) => {
                self.report(file, &[8, OPTION_NUMBER], "file option".to_owned(), Fault::BlockMax(max));
                BLOCK_MAX
            }
        };
        for found in messages(file) {
            let is_entry = found.message.options.as_ref().is_some_and(|options| options.map_entry);
            if !is_entry {
                let layout = self.layout(file, &found, limit);
                self.layouts.insert(found.name, layout);
            }
        }
    }

    fn layout(&mut self, file: &File, found: &Found<'_>, limit: u16) -> Layout {
        let Found { name: full, message, path } = found;
        let full = bare(full);
        let (mut flat, mut body) = (Vec::new(), Vec::new());
        let mut numbers: HashMap<i32, usize> = HashMap::new();
        let mut names: HashMap<&str, usize> = HashMap::new();
        for (index, (place, field)) in indexed(&message.field).enumerate() {
            let path = [path.as_slice(), &[2, place]].concat();
            let item = || format!("field `{full}.{}`", field.name);
            if !is_name(&field.name) {
                self.report(file, &path, format!("field of `{full}`"), Fault::Name(printable(&field.name)));
                continue;
            }
            let number = match u32::try_from(field.number) {
                Ok(number @ 1..=0x1fff_ffff) => number,
                _ => {
                    self.report(file, &path, item(), Fault::Descriptor(field.number));
                    continue;
                }
            };
            if let Some(other) = numbers.insert(field.number, index) {
                let other = message.field[other].name.clone();
                self.report(file, &path, item(), Fault::DuplicateNumber(number, other));
                continue;
            }
            if names.insert(&field.name, index).is_some() {
                self.report(file, &path, item(), Fault::DuplicateName("the same message".to_owned()));
                continue;
            }
            let values = match self.symbols.get(&field.type_name) {
                Some(Symbol::Enum(item)) => item.value.len(),
                _ => 0,
            };
            if let Err(fault) = self.spend(1 + values) {
                self.report(file, &path, item(), fault);
                break;
            }
            let name = field.name.clone();
            match field.options.as_ref().and_then(|options| options.flat) {
                Some(_) if file.syntax != "proto3" => {
                    let syntax = if file.syntax.is_empty() { "proto2" } else { &file.syntax };
                    self.report(file, &path, item(), Fault::Syntax(printable(syntax)));
                }
                Some(option) => match kind(&self.symbols, message, field, option) {
                    Ok(kind) => flat.push(Member { name, number, kind }),
                    Err(fault) => self.report(file, &path, item(), fault),
                },
                None => match body_kind(&self.symbols, field) {
                    Ok(kind) => body.push(BodyField { name, number, kind }),
                    Err(fault) => self.report(file, &path, item(), fault),
                },
            }
        }
        body.sort_by_key(|field| field.number);
        let mut layout = Layout::new(full, flat, limit).unwrap_or_else(|too_long| {
            let at = message.field.iter().position(|field| field.name == too_long.field);
            let place = at.and_then(|at| i32::try_from(at).ok()).unwrap_or_default();
            let item = format!("field `{full}.{}`", too_long.field);
            self.report(file, &[path.as_slice(), &[2, place]].concat(), item, Fault::Block(too_long));
            Layout::default()
        });
        layout.body = body;
        layout
    }

    /// Counts fields and enum values.
    fn spend(&mut self, fields: usize) -> Result<(), Fault> {
        self.fields = self.fields.saturating_add(fields);
        if self.fields > FIELDS_MAX { Err(Fault::TooManyFields(FIELDS_MAX)) } else { Ok(()) }
    }

    /// Third pass: services and their methods' ids.
    fn services(&mut self, set: &FileSet) -> Manifest {
        let mut manifest = Manifest::default();
        let mut ids: HashMap<u32, String> = HashMap::new();
        let mut names: HashMap<String, ()> = HashMap::new();
        for file in &set.file {
            for (place, service) in indexed(&file.service) {
                let path = [6, place];
                if !is_name(&service.name) {
                    self.report(file, &path, "service".to_owned(), Fault::Name(printable(&service.name)));
                    continue;
                }
                let name = bare(&format!("{}.{}", scope(file), service.name)).to_owned();
                if names.insert(name.clone(), ()).is_some() {
                    let fault = Fault::DuplicateName("another file".to_owned());
                    self.report(file, &path, format!("service `{name}`"), fault);
                    continue;
                }
                let mut methods = Vec::new();
                for (place, method) in indexed(&service.method) {
                    let path = [6, path[1], 2, place];
                    let found = self.method(&name, method, &mut ids);
                    match found {
                        Ok(method) => methods.push(method),
                        Err(fault) => {
                            let item = format!("method `{name}.{}`", printable(&method.name));
                            self.report(file, &path, item, fault);
                        }
                    }
                }
                manifest.services.push(Service { name, methods });
            }
        }
        manifest
    }

    /// Last pass, where nothing is wrong: flat fields that nobody reads, and holes.
    fn warn(&mut self, file: &File, used: &HashSet<&str>) {
        for Found { name, message, path } in messages(file) {
            let is_used = used.is_empty() || used.contains(bare(&name));
            let fields = self.layouts.get(&name).map(|layout| layout.fields.clone()).unwrap_or_default();
            let mut end = 0;
            for field in fields {
                let place = indexed(&message.field).find(|(_, other)| other.name == field.name);
                let place = place.map(|(place, _)| place).unwrap_or_default();
                let path = [path.as_slice(), &[2, place]].concat();
                let item = format!("field `{}.{}`", bare(&name), field.name);
                if !is_used {
                    self.report(file, &path, item, Fault::Unused(bare(&name).to_owned()));
                } else if field.offset > end {
                    self.report(file, &path, item, Fault::Padding(field.offset - end));
                }
                end = field.end();
            }
        }
    }

    fn method(
        &mut self,
        service: &str,
        method: &descriptor::Method,
        ids: &mut HashMap<u32, String>,
    ) -> Result<Method, Fault> {
        let descriptor::Method { name, input, output, client_streaming, server_streaming } = method;
        if !is_name(name) {
            return Err(Fault::Name(printable(name)));
        }
        let path = format!("/{service}/{name}");
        let id = method_id(&path);
        if id == 0 {
            return Err(Fault::ZeroId);
        }
        if let Some(other) = ids.insert(id, path.clone()) {
            return Err(if other == path {
                Fault::DuplicateName("the same service".to_owned())
            } else {
                Fault::DuplicateId { id, other }
            });
        }
        let layout =
            |name: &str| self.layouts.get(name).ok_or_else(|| Fault::Unresolved(printable(bare(name))));
        let size = |layout: &Layout| {
            let Layout { message: _, fingerprint: _, flat_len: _, fields, body } = layout;
            let values = |field: &crate::Field| match &field.kind {
                FieldKind::Enum { values } => values.len(),
                _ => 0,
            };
            1 + body.len() + fields.iter().map(|field| 1 + values(field)).sum::<usize>()
        };
        self.spend(size(layout(input)?) + size(layout(output)?))?;
        let layout = |name: &str| {
            self.layouts.get(name).cloned().ok_or_else(|| Fault::Unresolved(printable(bare(name))))
        };
        Ok(Method {
            name: name.clone(),
            path,
            id,
            streaming: Streaming::new(*client_streaming, *server_streaming),
            request: layout(input)?,
            response: layout(output)?,
        })
    }
}
