//! From encoded descriptors to layouts: checks every rule of flat fields and reports each breach with its place.
//!
//! The bytes may come from an application at run time, so nothing here trusts them: sizes are bounded, names checked,
//! types looked up and never followed.

use std::collections::{HashMap, HashSet, hash_map::Entry};

use prost::Message as _;

use crate::descriptor::{Enum, Field, File, FileSet, Flat, Message};
use crate::error::{Error, Fault, Position, Problem, Problems};
use crate::layout::{BLOCK_DEFAULT, BLOCK_MAX, BodyField, FieldKind, Layout, Member, method_id};
use crate::manifest::{Manifest, Method, Service};

/// Most bytes of descriptors accepted from an application.
pub const DESCRIPTOR_SET_MAX: usize = 1 << 20;

/// Most fields, and enum values in flat fields, of all messages and all methods' requests and responses together. A
/// message may be every method's request and an enum every field's type, so the bytes alone bound nothing.
const FIELDS_MAX: usize = 1 << 16;

/// Most characters of a name in a `.proto` file.
const NAME_MAX: usize = 128;

/// Most characters of a full name, package included: nesting multiplies names.
const FULL_NAME_MAX: usize = 512;

/// Problems reported at once.
const PROBLEMS_MAX: usize = 50;

/// The text of a `.proto` file, for carets.
pub(crate) struct Text {
    /// The name under which descriptors know it.
    pub name: String,
    /// The path its author knows it by.
    pub path: String,
    /// What it says.
    pub text: String,
}

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

/// What a full type name stands for.
enum Symbol<'a> {
    Message(&'a Message),
    Enum(&'a Enum),
}

struct Reader<'a> {
    texts: &'a [Text],
    /// By full name, with the leading dot that references have.
    symbols: HashMap<String, Symbol<'a>>,
    /// By the same names.
    layouts: HashMap<String, Layout>,
    problems: Vec<Problem>,
    /// Counts towards [`FIELDS_MAX`].
    fields: usize,
}

/// A message with its full name (leading dot) and its path in the descriptor.
struct Found<'a> {
    name: String,
    message: &'a Message,
    path: Vec<i32>,
}

/// All messages of a file, parents first. One whose name is refused comes without what is nested in it.
fn messages(file: &File) -> Vec<Found<'_>> {
    fn found<'a>(scope: &str, message: &'a Message, path: Vec<i32>) -> Found<'a> {
        let name = if is_name(&message.name) { format!("{scope}.{}", message.name) } else { String::new() };
        Found { name, message, path }
    }
    let scope = scope(file);
    let mut all: Vec<Found<'_>> =
        indexed(&file.message).map(|(index, message)| found(&scope, message, vec![4, index])).collect();
    let mut next = 0;
    while let Some(Found { name, message, path }) = all.get(next) {
        next += 1;
        if !name.is_empty() && name.len() <= FULL_NAME_MAX {
            let nested: Vec<_> = indexed(&message.nested)
                .map(|(index, message)| found(name, message, [path.as_slice(), &[3, index]].concat()))
                .collect();
            all.extend(nested);
        }
    }
    all
}

/// The package as a prefix of full names: `.demo`, or nothing.
fn scope(file: &File) -> String {
    if file.package.is_empty() { String::new() } else { format!(".{}", file.package) }
}

/// Items with their index as descriptors count it.
fn indexed<T>(items: &[T]) -> impl Iterator<Item = (i32, &T)> {
    (0i32..).zip(items)
}

fn is_name(name: &str) -> bool {
    let mut chars = name.chars();
    name.len() <= NAME_MAX
        && chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_')
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
                self.report(file, &[8, 50707], "file option".to_owned(), Fault::BlockMax(max));
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
                Some(option) => match self.kind(message, field, option) {
                    Ok(kind) => flat.push(Member { name, number, kind }),
                    Err(fault) => self.report(file, &path, item(), fault),
                },
                None => match self.body_kind(field) {
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

    /// What a flat field holds.
    fn kind(&self, message: &Message, field: &Field, option: Flat) -> Result<FieldKind, Fault> {
        let target = self.symbols.get(&field.type_name);
        if field.label == REPEATED {
            let is_map = matches!(target, Some(Symbol::Message(entry))
                if entry.options.as_ref().is_some_and(|options| options.map_entry));
            return Err(if is_map { Fault::Map } else { Fault::Repeated });
        }
        if field.proto3_optional || field.label == REQUIRED {
            return Err(Fault::Optional);
        }
        if let Some(index) = field.oneof_index {
            let oneof = usize::try_from(index).ok().and_then(|index| message.oneof.get(index));
            return Err(Fault::Oneof(oneof.map(|oneof| printable(&oneof.name)).unwrap_or_default()));
        }
        let Flat { max_len, fixed_len } = option;
        let (kind, name) = match field.r#type {
            9 => return Ok(FieldKind::String { max_len: string_len("string field", option)? }),
            12 => {
                return match fixed_len {
                    Some(_) if max_len.is_some() => Err(Fault::BothLengths),
                    Some(len) => fixed(len),
                    None => Ok(FieldKind::Bytes { max_len: string_len("bytes field", option)? }),
                };
            }
            14 => match target {
                Some(Symbol::Enum(item)) => (enum_kind(item)?, "enum"),
                _ => return Err(Fault::Unresolved(printable(bare(&field.type_name)))),
            },
            10 | 11 => return Err(Fault::Message),
            1 => (FieldKind::F64, "double"),
            2 => (FieldKind::F32, "float"),
            3 | 16 | 18 => (FieldKind::I64, "integer"),
            4 | 6 => (FieldKind::U64, "integer"),
            5 | 15 | 17 => (FieldKind::I32, "integer"),
            7 | 13 => (FieldKind::U32, "integer"),
            8 => (FieldKind::Bool, "bool"),
            other => return Err(Fault::Descriptor(other)),
        };
        match (max_len, fixed_len) {
            (Some(_), _) => Err(Fault::Lengthless { option: "max_len", kind: name }),
            (_, Some(_)) => Err(Fault::Lengthless { option: "fixed_len", kind: name }),
            (None, None) => Ok(kind),
        }
    }

    /// A body field's type in words; its target must be in the set, or no stub could be generated from it.
    fn body_kind(&self, field: &Field) -> Result<String, Fault> {
        let Some(name) = usize::try_from(field.r#type).ok().and_then(|number| PROTOBUF_TYPES.get(number))
        else {
            return Err(Fault::Descriptor(field.r#type));
        };
        let name = match (*name, self.symbols.get(&field.type_name)) {
            ("message" | "group", Some(Symbol::Message(_))) | ("enum", Some(Symbol::Enum(_))) => {
                bare(&field.type_name)
            }
            ("message" | "group" | "enum", _) => {
                return Err(Fault::Unresolved(printable(bare(&field.type_name))));
            }
            (name, _) => name,
        };
        Ok(if field.label == REPEATED { format!("repeated {name}") } else { name.to_owned() })
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
        method: &crate::descriptor::Method,
        ids: &mut HashMap<u32, String>,
    ) -> Result<Method, Fault> {
        let crate::descriptor::Method { name, input, output, client_streaming, server_streaming } = method;
        if !is_name(name) {
            return Err(Fault::Name(printable(name)));
        }
        if *client_streaming || *server_streaming {
            return Err(Fault::Streaming);
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
        Ok(Method { name: name.clone(), path, id, request: layout(input)?, response: layout(output)? })
    }
}

const REQUIRED: i32 = 2;
const REPEATED: i32 = 3;

/// `FieldDescriptorProto.Type`, by number.
const PROTOBUF_TYPES: [&str; 19] = [
    "double", "double", "float", "int64", "uint64", "int32", "fixed64", "fixed32", "bool", "string", "group",
    "message", "bytes", "uint32", "enum", "sfixed32", "sfixed64", "sint32", "sint64",
];

fn string_len(kind: &'static str, option: Flat) -> Result<u8, Fault> {
    match option {
        Flat { max_len: Some(max), fixed_len: None } => {
            u8::try_from(max).ok().filter(|max| *max > 0).ok_or(Fault::MaxLen(max))
        }
        Flat { max_len: Some(_), fixed_len: Some(_) } => Err(Fault::BothLengths),
        Flat { max_len: None, fixed_len: Some(_) } => {
            Err(Fault::Lengthless { option: "fixed_len", kind: "string" })
        }
        Flat { max_len: None, fixed_len: None } => Err(Fault::NoMaxLen(kind)),
    }
}

fn fixed(len: u32) -> Result<FieldKind, Fault> {
    match u8::try_from(len) {
        Ok(fits) if fits > 0 && u16::from(fits) <= BLOCK_MAX => Ok(FieldKind::Fixed { len: fits }),
        _ => Err(Fault::FixedLen(len)),
    }
}

fn enum_kind(item: &Enum) -> Result<FieldKind, Fault> {
    if let Some(value) = item.value.iter().find(|value| !is_name(&value.name)) {
        return Err(Fault::Name(printable(&value.name)));
    }
    Ok(FieldKind::Enum {
        values: item.value.iter().map(|value| (value.name.clone(), value.number)).collect(),
    })
}

/// A full name without its leading dot.
fn bare(name: &str) -> &str {
    name.strip_prefix('.').unwrap_or(name)
}

/// A name for people: descriptors may hold anything, terminals should not.
fn printable(name: &str) -> String {
    let mut text: String = name.escape_debug().take(80).collect();
    if text.is_empty() {
        text.push_str("(empty)");
    }
    text
}

/// Where `path` is in the file, or the nearest thing around it that has a place.
fn position(file: &File, path: &[i32], text: Option<&Text>) -> Option<Position> {
    let locations = &file.source.as_ref()?.location;
    let find = |path: &[i32]| locations.iter().find(|location| location.path == path);
    let span = (1..=path.len()).rev().find_map(|len| find(path.get(..len)?))?.span.as_slice();
    let (line, start, end) = match *span {
        [line, start, end] => (line, start, Some(end)),
        [line, start, _, _] => (line, start, None),
        _ => return None,
    };
    let line = u32::try_from(line).ok()?;
    let start = u32::try_from(start).ok()?;
    let text = text.and_then(|text| text.text.lines().nth(line as usize)).map(str::to_owned);
    let line_end = || text.as_ref().and_then(|text| u32::try_from(text.trim_end().chars().count()).ok());
    let end = end.and_then(|end| u32::try_from(end).ok()).or_else(line_end).unwrap_or(start);
    Some(Position {
        line: line.saturating_add(1),
        column: start.saturating_add(1),
        width: end.saturating_sub(start).max(1),
        text,
    })
}
