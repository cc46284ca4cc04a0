//! Parsing `.proto` files, with `tollfree/options.proto` built in.

use std::path::{Path, PathBuf};

use miette::Diagnostic as _;
use protox::file::{ChainFileResolver, File, FileResolver, GoogleFileResolver, IncludeFileResolver};

use crate::error::{Error, Fault, Position, Problem};
use crate::manifest::Manifest;
use crate::names::Text;
use crate::source;

/// The name under which Tollfree's options are imported.
pub const OPTIONS_NAME: &str = "tollfree/options.proto";

/// Tollfree's options, for `protoc` and `buf`, which have to be given the file.
pub const OPTIONS_PROTO: &str = include_str!("../../../schemas/tollfree/options.proto");

/// Parsed and checked files.
pub(crate) struct Parsed {
    pub manifest: Manifest,
    /// What is allowed but unwise.
    pub warnings: Vec<Problem>,
    /// The encoded set with imports, Tollfree's options kept, source positions dropped.
    pub descriptor_set: Vec<u8>,
    /// The same for code generation: comments kept, custom options dropped.
    pub descriptors: prost_types::FileDescriptorSet,
    /// Every file read.
    pub paths: Vec<PathBuf>,
}

/// Finds [`OPTIONS_NAME`], in front of any copy in the include folders: an old one would be misread.
struct OptionsResolver;

impl FileResolver for OptionsResolver {
    fn open_file(&self, name: &str) -> Result<File, protox::Error> {
        if name == OPTIONS_NAME {
            File::from_source(name, OPTIONS_PROTO)
        } else {
            Err(protox::Error::file_not_found(name))
        }
    }
}

/// Parses `files`, searching `includes` for imports, and the folder of each file that is in none of them.
pub(crate) fn parse(files: &[PathBuf], includes: &[PathBuf]) -> Result<Parsed, Error> {
    let includes = search_path(files, includes);
    let mut resolver = ChainFileResolver::new();
    resolver.add(OptionsResolver);
    for include in &includes {
        resolver.add(IncludeFileResolver::new(include.clone()));
    }
    resolver.add(GoogleFileResolver::new());
    let mut compiler = protox::Compiler::with_file_resolver(resolver);
    compiler.include_imports(true).include_source_info(true);
    for file in files {
        // protox would say "not in any include path".
        std::fs::File::open(file).map_err(|source| Error::Read { path: file.clone(), source })?;
        compiler.open_file(file).map_err(|error| problem(&error, file, &includes))?;
    }

    let paths: Vec<PathBuf> = compiler.files().filter_map(|file| file.path().map(Path::to_owned)).collect();
    let texts: Vec<Text> = compiler
        .files()
        .filter_map(|file| {
            let path = file.path()?;
            // Only for carets: without the text, errors have line and column still.
            let text = std::fs::read_to_string(path).ok()?;
            Some(Text { name: file.name().to_owned(), path: path.display().to_string(), text })
        })
        .collect();
    let (manifest, warnings) = source::manifest(&compiler.encode_file_descriptor_set(), &texts)?;
    let descriptors = compiler.file_descriptor_set();
    let descriptor_set = compiler.include_source_info(false).encode_file_descriptor_set();
    Ok(Parsed { manifest, warnings, descriptor_set, descriptors, paths })
}

fn search_path(files: &[PathBuf], includes: &[PathBuf]) -> Vec<PathBuf> {
    let mut search = includes.to_vec();
    for file in files {
        if !search.iter().any(|include| file.starts_with(include)) {
            let parent = file.parent().filter(|parent| !parent.as_os_str().is_empty());
            search.push(parent.unwrap_or(Path::new(".")).to_owned());
        }
    }
    search
}

/// A parser's error in our form.
fn problem(error: &protox::Error, asked: &Path, includes: &[PathBuf]) -> Error {
    let path = error.file().map_or_else(
        || asked.to_owned(),
        |name| {
            let found = includes.iter().map(|include| include.join(name)).find(|path| path.exists());
            found.unwrap_or_else(|| PathBuf::from(name))
        },
    );
    let at = std::fs::read_to_string(&path).ok().and_then(|text| {
        let label = error.labels().and_then(|mut labels| labels.next());
        match label {
            Some(label) => position(&text, label.offset(), label.len()),
            // What is missing at the end of the file has no label.
            None if error.is_parse() => position(&text, text.trim_end().len(), 1),
            None => None,
        }
    });
    let mut reason = error.to_string();
    if let Some(help) = error.help() {
        reason = format!("{reason} ({help})");
    }
    if reason.contains("'tollfree.Flat'") {
        reason.push_str("; it takes `max_len` or `fixed_len`, both numbers");
    }
    Problem { file: path.display().to_string(), at, item: String::new(), fault: Fault::Protobuf(reason) }
        .into()
}

fn position(text: &str, offset: usize, len: usize) -> Option<Position> {
    let before = text.get(..offset)?;
    let start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let line = text.get(start..)?.lines().next().unwrap_or_default();
    let column = before.get(start..)?.chars().count();
    let rest = line.chars().count().saturating_sub(column).max(1);
    let width = text.get(offset..offset + len).map_or(1, |label| label.chars().count()).clamp(1, rest);
    Some(Position {
        line: u32::try_from(before.matches('\n').count()).ok()?.checked_add(1)?,
        column: u32::try_from(column).ok()?.checked_add(1)?,
        width: u32::try_from(width).ok()?,
        text: Some(line.to_owned()),
    })
}
