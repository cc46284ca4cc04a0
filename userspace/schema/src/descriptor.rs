//! The parts of `google/protobuf/descriptor.proto` that layouts depend on, with Tollfree's options as ordinary fields.
//!
//! `prost_types` drops custom options and a reflection pool trusts its input more than an application's bytes deserve.
//! These mirrors keep the options, ignore everything else, and decode any bytes within prost's recursion limit.

/// Extension number of `tollfree.flat` and `tollfree.flat_block_max`, as in `tollfree/options.proto`; below as a tag.
pub(crate) const OPTION_NUMBER: i32 = 50707;

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct FileSet {
    #[prost(message, repeated, tag = "1")]
    pub file: Vec<File>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct File {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub package: String,
    #[prost(message, repeated, tag = "4")]
    pub message: Vec<Message>,
    #[prost(message, repeated, tag = "5")]
    pub r#enum: Vec<Enum>,
    #[prost(message, repeated, tag = "6")]
    pub service: Vec<Service>,
    #[prost(message, optional, tag = "8")]
    pub options: Option<FileOptions>,
    #[prost(message, optional, tag = "9")]
    pub source: Option<SourceInfo>,
    #[prost(string, tag = "12")]
    pub syntax: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct FileOptions {
    #[prost(uint32, optional, tag = "50707")]
    pub flat_block_max: Option<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Message {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, repeated, tag = "2")]
    pub field: Vec<Field>,
    #[prost(message, repeated, tag = "3")]
    pub nested: Vec<Message>,
    #[prost(message, repeated, tag = "4")]
    pub r#enum: Vec<Enum>,
    #[prost(message, optional, tag = "7")]
    pub options: Option<MessageOptions>,
    #[prost(message, repeated, tag = "8")]
    pub oneof: Vec<Oneof>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct MessageOptions {
    #[prost(bool, tag = "7")]
    pub map_entry: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Oneof {
    #[prost(string, tag = "1")]
    pub name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Field {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(int32, tag = "3")]
    pub number: i32,
    #[prost(int32, tag = "4")]
    pub label: i32,
    #[prost(int32, tag = "5")]
    pub r#type: i32,
    #[prost(string, tag = "6")]
    pub type_name: String,
    #[prost(message, optional, tag = "8")]
    pub options: Option<FieldOptions>,
    #[prost(int32, optional, tag = "9")]
    pub oneof_index: Option<i32>,
    #[prost(bool, tag = "17")]
    pub proto3_optional: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct FieldOptions {
    #[prost(message, optional, tag = "50707")]
    pub flat: Option<Flat>,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
pub(crate) struct Flat {
    #[prost(uint32, optional, tag = "1")]
    pub max_len: Option<u32>,
    #[prost(uint32, optional, tag = "2")]
    pub fixed_len: Option<u32>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Enum {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, repeated, tag = "2")]
    pub value: Vec<EnumValue>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct EnumValue {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(int32, tag = "2")]
    pub number: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Service {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(message, repeated, tag = "2")]
    pub method: Vec<Method>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Method {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub input: String,
    #[prost(string, tag = "3")]
    pub output: String,
    #[prost(bool, tag = "5")]
    pub client_streaming: bool,
    #[prost(bool, tag = "6")]
    pub server_streaming: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct SourceInfo {
    #[prost(message, repeated, tag = "1")]
    pub location: Vec<Location>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Location {
    #[prost(int32, repeated, tag = "1")]
    pub path: Vec<i32>,
    #[prost(int32, repeated, tag = "2")]
    pub span: Vec<i32>,
}
