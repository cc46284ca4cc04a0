//! What can be wrong with a schema, said so that its author can mend it: file, line, caret, reason, what to do.

use std::{fmt, io, path::PathBuf};

use crate::layout::{BLOCK_MAX, TooLong};

/// Why a schema was refused. `Debug` is the same sentence as `Display`: a `build.rs` that returns it prints that.
#[derive(thiserror::Error)]
pub enum Error {
    /// The schema breaks rules of protobuf or of Tollfree.
    #[error("{0}")]
    Invalid(Problems),
    /// A file could not be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Generated code could not be written.
    #[error("cannot write {}: {source}", path.display())]
    Write {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The code generator gave up.
    #[error("cannot generate Rust code: {0}")]
    Generate(String),
    /// Bytes that are no encoded `FileDescriptorSet`.
    #[error(
        "not a descriptor set ({0}); write one with `protoc --include_imports -o FILE` or `buf build -o FILE`"
    )]
    NotADescriptorSet(prost::DecodeError),
    /// More descriptor bytes than anyone's schema has.
    #[error("the descriptor set has {bytes} bytes; at most {limit} are accepted")]
    TooLarge {
        /// Bytes given.
        bytes: usize,
        /// Bytes accepted.
        limit: usize,
    },
    /// Bytes that are no bind request.
    #[error("malformed bind request: {0}")]
    Bind(String),
    /// Text that is no manifest.
    #[error("not a layout manifest ({0}); write one with `tollfree schema compile`")]
    Json(serde_json::Error),
    /// A manifest whose numbers do not follow from its fields.
    #[error(
        "the manifest's entry for `{item}` was edited by hand; write it again with `tollfree schema compile`"
    )]
    Edited {
        /// The message or method.
        item: String,
    },
}

/// Everything wrong with a schema, in file order; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(pub Vec<Problem>);

/// One thing wrong with a schema. Displays with the source line and a caret where the source is at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The `.proto` file, as it was given or imported.
    pub file: String,
    /// Where in the file, if the schema came with source positions.
    pub at: Option<Position>,
    /// What it is about, such as "field `demo.HashRequest.user`"; empty for syntax errors.
    pub item: String,
    /// What is wrong.
    pub fault: Fault,
}

/// A place in a source file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Characters to underline, at least 1.
    pub width: u32,
    /// The line itself, where the file is at hand.
    pub text: Option<String>,
}

/// A rule that a schema breaks.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "each fault is documented by its sentence")]
pub enum Fault {
    #[error("{0}")]
    Protobuf(String),
    #[error("a flat {0} needs `max_len`")]
    NoMaxLen(&'static str),
    #[error("`max_len` is {0}, but must be from 1 to 255")]
    MaxLen(u32),
    #[error("`fixed_len` is {0}, but must be from 1 to {BLOCK_MAX}")]
    FixedLen(u32),
    #[error("`max_len` and `fixed_len` exclude each other")]
    BothLengths,
    #[error("`{option}` means nothing on a flat {kind}")]
    Lengthless { option: &'static str, kind: &'static str },
    #[error("a repeated field cannot be flat")]
    Repeated,
    #[error("a map cannot be flat")]
    Map,
    #[error("a field of the oneof `{0}` cannot be flat")]
    Oneof(String),
    #[error("an optional or required field cannot be flat: the flat block has no room for presence")]
    Optional,
    #[error("flat fields need proto3, this file is {0}")]
    Syntax(String),
    #[error("a message or group cannot be flat")]
    Message,
    #[error("{0}")]
    Block(TooLong),
    #[error("`tollfree.flat_block_max` is {0}, but must be from 1 to {BLOCK_MAX}")]
    BlockMax(u32),
    #[error("the field number {0} is already taken by `{1}`")]
    DuplicateNumber(u32, String),
    #[error("the name is already taken by the one in {0}")]
    DuplicateName(String),
    #[error("its id {id:#010x} is already taken by `{other}`")]
    DuplicateId { id: u32, other: String },
    #[error("its id would be 0, which is kept for control messages")]
    ZeroId,
    #[error("no method takes or returns `{0}` itself, so this field is never in a flat block")]
    Unused(String),
    #[error("{0} unused bytes before this field, for alignment")]
    Padding(u16),
    #[error("the type `{0}` is not in the descriptor set")]
    Unresolved(String),
    #[error("the schema's messages and methods have more than {0} fields and enum values together")]
    TooManyFields(usize),
    #[error("{0} is not a protobuf name")]
    Name(String),
    #[error("{0} is not a protobuf field type or field number")]
    Descriptor(i32),
}

impl Fault {
    /// What to do about it, where there is one answer.
    pub fn help(&self) -> Option<&'static str> {
        Some(match self {
            Self::Syntax(_) => "write `syntax = \"proto3\";` at the top of the file",
            Self::NoMaxLen("bytes field") => {
                "write `[(tollfree.flat) = { max_len: 15 }]`, or `fixed_len: 32` where the length never varies"
            }
            Self::NoMaxLen(_) => {
                "write `[(tollfree.flat) = { max_len: 15 }]`, with the bytes the longest value has"
            }
            Self::MaxLen(_) | Self::FixedLen(_) => {
                "leave `tollfree.flat` out: longer values travel in the body"
            }
            Self::BothLengths => {
                "keep `fixed_len` where every value has that length, `max_len` where it varies"
            }
            Self::Lengthless { .. } => "write `[(tollfree.flat) = {}]`",
            Self::Repeated | Self::Map | Self::Message => {
                "leave `tollfree.flat` out, or copy what policies read into a field of its own"
            }
            Self::Oneof(_) => "leave `tollfree.flat` out, or move the field out of the oneof",
            Self::Optional => "drop the label: an absent flat field reads as its default",
            Self::Block(TooLong { limit, .. }) if *limit < BLOCK_MAX => {
                "shorten or drop flat fields, or write `option (tollfree.flat_block_max) = 192;` in the file"
            }
            Self::Block(_) => "shorten or drop flat fields",
            Self::DuplicateId { .. } | Self::ZeroId => {
                "rename the method or its service: ids are hashes of the path"
            }
            Self::Unresolved(_) => "write the set with its imports: `protoc --include_imports`",
            Self::Unused(_) => {
                "leave `tollfree.flat` out, or move the field to the request or response message"
            }
            Self::Padding(_) => {
                "number wide integers before narrow fields; not worth it once the schema is in use"
            }
            Self::Protobuf(_)
            | Self::BlockMax(_)
            | Self::DuplicateNumber(..)
            | Self::DuplicateName(_)
            | Self::TooManyFields(_)
            | Self::Name(_)
            | Self::Descriptor(_) => return None,
        })
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, at, item, fault } = self;
        f.write_str(file)?;
        if let Some(Position { line, column, .. }) = at {
            write!(f, ":{line}:{column}")?;
        }
        match item.as_str() {
            "" => write!(f, ": {fault}")?,
            item => write!(f, ": {item}: {fault}")?,
        }
        if let Some(Position { line, column, width, text: Some(text) }) = at {
            let margin = " ".repeat(line.to_string().len());
            let indent: String = text
                .chars()
                .take(column.saturating_sub(1) as usize)
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            let carets = "^".repeat((*width).clamp(1, 200) as usize);
            write!(f, "\n{margin} |\n{line} | {text}\n{margin} | {indent}{carets}")?;
        }
        match fault.help() {
            Some(help) => write!(f, "\n  help: {help}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            write!(f, "{}{problem}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Invalid(Problems(vec![problem]))
    }
}
