//! Rust code for a schema: prost's messages, their flat blocks, and a client and a server for every service.
//!
//! Generated code is thin: what can be written once is in the `tollfree` crate.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Write as _;
use std::path::PathBuf;
use std::sync::Arc;

use prost::Message as _;
use prost_build::Module;

use crate::document::document;
use crate::layout::{Field, FieldKind, Layout};
use crate::parse::{OPTIONS_NAME, Parsed, parse};
use crate::{Error, Manifest, method_id};

/// What was generated from a set of files.
#[derive(Clone, Debug)]
pub struct Generated {
    /// Source text by file name, such as `demo.rs`: one file for each protobuf package.
    pub sources: BTreeMap<String, String>,
    /// The same schema's manifest.
    pub manifest: Manifest,
    /// Every `.proto` file read, imports included.
    pub inputs: Vec<PathBuf>,
}

/// Generates Rust code for `.proto` files; `includes` as in [`Manifest::from_proto`].
///
/// # Errors
/// What is wrong with the files, by file, line and field.
pub fn generate(files: &[PathBuf], includes: &[PathBuf]) -> Result<Generated, Error> {
    let Parsed { manifest, warnings: _, descriptor_set, mut descriptors, paths } = parse(files, includes)?;
    expressible(&manifest)?;
    descriptors.file.retain(|file| file.name() != OPTIONS_NAME && file.package() != "google.protobuf");
    for file in &mut descriptors.file {
        document(file);
    }
    let layouts = manifest
        .methods()
        .flat_map(|method| [&method.request, &method.response])
        .map(|layout| (layout.message.clone(), layout.clone()))
        .collect();
    let stubs = Stubs { layouts, done: HashSet::new(), descriptor_set: slim(&descriptor_set)?.into() };

    let mut config = prost_build::Config::new();
    config.prost_path("::tollfree::codegen::prost").service_generator(Box::new(stubs));
    let requests = descriptors
        .file
        .into_iter()
        .map(|file| (Module::from_protobuf_package_name(file.package()), file))
        .collect();
    let modules = config.generate(requests).map_err(|error| Error::Generate(error.to_string()))?;
    let sources = modules.into_iter().map(|(module, text)| (module.to_file_name_or("_"), text)).collect();
    Ok(Generated { sources, manifest, inputs: paths })
}

/// Refuses what is good protobuf but would not compile in Rust, while there is still something helpful to say.
fn expressible(manifest: &Manifest) -> Result<(), Error> {
    let foreign = |layout: &&Layout| {
        layout.message.starts_with("google.protobuf.") && layout.message != "google.protobuf.Empty"
    };
    for service in &manifest.services {
        let mut names: BTreeMap<String, &str> = BTreeMap::new();
        for method in &service.methods {
            if let Some(layout) = [&method.request, &method.response].into_iter().find(foreign) {
                return Err(Error::Generate(format!(
                    "{} takes or returns `{}` itself; put it into a message of your own, which can have flat fields",
                    method.path, layout.message
                )));
            }
            let name = heck::ToSnakeCase::to_snake_case(method.name.as_str());
            if let Some(other) = names.insert(name.clone(), &method.path) {
                return Err(Error::Generate(format!(
                    "{other} and {} would both be called `{name}`; rename one",
                    method.path
                )));
            }
        }
    }
    Ok(())
}

/// The descriptor set without the files that only define options: a daemon knows them, and they are most of the bytes.
fn slim(descriptor_set: &[u8]) -> Result<Vec<u8>, Error> {
    #[derive(Clone, PartialEq, prost::Message)]
    struct Files {
        #[prost(bytes = "vec", repeated, tag = "1")]
        file: Vec<Vec<u8>>,
    }
    #[derive(Clone, PartialEq, prost::Message)]
    struct Name {
        #[prost(string, tag = "1")]
        name: String,
    }
    let mut files = Files::decode(descriptor_set).map_err(Error::NotADescriptorSet)?;
    files.file.retain(|file| {
        Name::decode(file.as_slice())
            .is_ok_and(|Name { name }| name != OPTIONS_NAME && name != "google/protobuf/descriptor.proto")
    });
    Ok(files.encode_to_vec())
}

/// Writes what prost does not.
struct Stubs {
    layouts: BTreeMap<String, Layout>,
    /// Messages whose flat block has been written: several methods may share one.
    done: HashSet<String>,
    descriptor_set: Arc<[u8]>,
}

impl prost_build::ServiceGenerator for Stubs {
    fn generate(&mut self, service: prost_build::Service, buf: &mut String) {
        for method in &service.methods {
            for (rust, proto) in [
                (&method.input_type, &method.input_proto_type),
                (&method.output_type, &method.output_proto_type),
            ] {
                let proto = proto.trim_start_matches('.');
                if let Some(layout) = self.layouts.get(proto)
                    && !is_foreign(rust)
                    && self.done.insert(proto.to_owned())
                {
                    buf.push_str(&message(rust, layout));
                }
            }
        }
        buf.push_str(&client(&service));
        buf.push_str(&server(&service));
    }

    fn finalize_package(&mut self, _package: &str, buf: &mut String) {
        let bytes = self.descriptor_set.escape_ascii();
        buf.push_str(&format!(
            "/// The schema as an encoded `FileDescriptorSet`: what clients and servers tell the daemon.\n\
             pub const DESCRIPTOR_SET: &[u8] = b\"{bytes}\";\n"
        ));
    }
}

/// Whether the user's crate may not implement traits for the type.
fn is_foreign(rust: &str) -> bool {
    rust.starts_with("::") || rust == "()"
}

/// A type as seen from a module below the one it is named for.
fn from_below(rust: &str) -> String {
    if is_foreign(rust) { rust.to_owned() } else { format!("super::{rust}") }
}

/// The `tollfree::Message` of a message.
fn message(rust: &str, layout: &Layout) -> String {
    let Layout { message, fingerprint, flat_len, fields, body: _ } = layout;
    let (mut take, mut put) = (String::new(), String::new());
    for field in fields {
        take.push_str(&take_field(field));
        put.push_str(&put_field(field));
    }
    let (block, too_long, view) = if fields.is_empty() {
        ("_block", String::new(), "")
    } else {
        (
            "block",
            format!(
                "let too_long = |field: &str, error: ::tollfree::codegen::flat::TooLong| {{
                    ::tollfree::Status::invalid_argument(format!(
                        \"field `{{field}}` of `{message}` has {{}} bytes; the schema allows {{}}\",
                        error.length, error.max_len,
                    ))
                }};"
            ),
            "let view = ::tollfree::codegen::flat::FlatView(block);",
        )
    };
    format!(
        "impl ::tollfree::Message for {rust} {{
            const LAYOUT: u32 = {fingerprint:#010x};
            const FLAT_LEN: usize = {flat_len};
            fn take_flat(&mut self, {block}: &mut [u8]) -> ::core::result::Result<(), ::tollfree::Status> {{
                {too_long}
                {take}
                ::core::result::Result::Ok(())
            }}
            fn put_flat(&mut self, {block}: &[u8]) {{
                {view}
                {put}
            }}
        }}\n"
    )
}

/// Moves a field into the block.
fn take_field(field: &Field) -> String {
    const FLAT: &str = "::tollfree::codegen::flat";
    let Field { name, number: _, kind, offset, width: _, fingerprint: _ } = field;
    let value = format!("::core::mem::take(&mut self.{})", crate::document::rust_field(name));
    let error = format!("map_err(|error| too_long({name:?}, error))?;\n");
    match kind {
        FieldKind::Bool => format!("{FLAT}::put(block, {offset}, &[u8::from({value})]).{error}"),
        FieldKind::U32
        | FieldKind::U64
        | FieldKind::I32
        | FieldKind::I64
        | FieldKind::F32
        | FieldKind::F64
        | FieldKind::Enum { .. } => {
            format!("{FLAT}::put(block, {offset}, &{value}.to_le_bytes()).{error}")
        }
        FieldKind::String { max_len } => {
            format!("{FLAT}::put_bytes(block, {offset}, {max_len}, {value}.as_bytes()).{error}")
        }
        FieldKind::Bytes { max_len } => {
            format!("{FLAT}::put_bytes(block, {offset}, {max_len}, &{value}).{error}")
        }
        // Empty is protobuf's default and stands for zeros.
        FieldKind::Fixed { len } => format!(
            "{{
                let value = {value};
                if !value.is_empty() && value.len() != {len} {{
                    let error = {FLAT}::TooLong {{ length: value.len(), max_len: {len} }};
                    return ::core::result::Result::Err(too_long({name:?}, error));
                }}
                {FLAT}::put(block, {offset}, &value).{error}
            }}"
        ),
    }
}

/// Sets a field from the block.
fn put_field(field: &Field) -> String {
    let Field { name, number: _, kind, offset, width: _, fingerprint: _ } = field;
    let read = match kind {
        FieldKind::Bool => format!("bool({offset}).unwrap_or_default()"),
        FieldKind::U32 => format!("u32({offset}).unwrap_or_default()"),
        FieldKind::U64 => format!("u64({offset}).unwrap_or_default()"),
        FieldKind::I32 | FieldKind::Enum { .. } => format!("i32({offset}).unwrap_or_default()"),
        FieldKind::I64 => format!("i64({offset}).unwrap_or_default()"),
        FieldKind::F32 => format!("f32({offset}).unwrap_or_default()"),
        FieldKind::F64 => format!("f64({offset}).unwrap_or_default()"),
        FieldKind::String { max_len } => format!("str({offset}, {max_len}).unwrap_or_default().into()"),
        FieldKind::Bytes { max_len } => format!("bytes({offset}, {max_len}).unwrap_or_default().into()"),
        FieldKind::Fixed { len } => format!("fixed({offset}, {len}).unwrap_or_default().into()"),
    };
    format!("self.{} = view.{read};\n", crate::document::rust_field(name))
}

/// Doc comment lines from the `.proto` file, or `otherwise`.
fn docs(comments: &prost_build::Comments, otherwise: &str) -> String {
    let mut text = String::new();
    let comments = prost_build::Comments { leading_detached: Vec::new(), ..comments.clone() };
    comments.append_with_indent(0, &mut text);
    if text.is_empty() { format!("/// {otherwise}\n") } else { text }
}

fn full_name(service: &prost_build::Service) -> String {
    if service.package.is_empty() {
        service.proto_name.clone()
    } else {
        format!("{}.{}", service.package, service.proto_name)
    }
}

/// The name of a service's module, such as `hash_client`.
fn module(service: &prost_build::Service, role: &str) -> String {
    format!("{}_{role}", heck::ToSnakeCase::to_snake_case(service.proto_name.as_str()))
}

/// The name of a server's type for a method's responses, such as `WatchStream`.
fn stream_type(method: &str) -> String {
    let mut letters = method.chars();
    let first = letters.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(letters).chain("Stream".chars()).collect()
}

fn client(service: &prost_build::Service) -> String {
    let full = full_name(service);
    let mut methods = String::new();
    for method in &service.methods {
        let path = format!("/{full}/{}", method.proto_name);
        let (request, response) = (from_below(&method.input_type), from_below(&method.output_type));
        let (request, into) = if method.client_streaming {
            (format!("::tollfree::IntoStreamingRequest<Message = {request}>"), "into_streaming_request")
        } else {
            (format!("::core::convert::Into<::tollfree::Request<{request}>>"), "into")
        };
        let response =
            if method.server_streaming { format!("::tollfree::Streaming<{response}>") } else { response };
        let call = match (method.client_streaming, method.server_streaming) {
            (false, false) => "call",
            (false, true) => "server_streaming",
            (true, false) => "client_streaming",
            (true, true) => "streaming",
        };
        let errors = if method.server_streaming {
            "The status the call ended with, where it did before its response began."
        } else {
            "The status the call ended with, where not OK."
        };
        let _ = write!(
            methods,
            "{docs}///\n/// # Errors\n/// {errors}
            pub async fn {name}(
                &self,
                request: impl {request},
            ) -> ::core::result::Result<::tollfree::Response<{response}>, ::tollfree::Status> {{
                const METHOD: ::tollfree::MethodInfo = ::tollfree::MethodInfo {{ path: {path:?}, id: {id:#010x} }};
                self.channel.{call}(METHOD, request.{into}()).await
            }}\n",
            docs = docs(&method.comments, &format!("Calls `{path}`.")),
            name = method.name,
            id = method_id(&path),
        );
    }
    // Here and below `dead_code`: a program usually is on one side of a service only.
    format!(
        "/// Calling `{full}`.
        pub mod {module} {{
            #![allow(dead_code, clippy::allow_attributes)]
            {docs}#[derive(Clone, Debug)]
            pub struct {name}Client {{
                channel: ::tollfree::Channel,
            }}
            impl {name}Client {{
                /// A client that calls through `channel`.
                pub fn new(channel: ::tollfree::Channel) -> Self {{
                    Self {{ channel: channel.describe(super::DESCRIPTOR_SET) }}
                }}
                {methods}
            }}
        }}\n",
        module = module(service, "client"),
        docs = docs(&service.comments, &format!("A client of `{full}`.")),
        name = service.name.trim_start_matches("r#"),
    )
}

fn server(service: &prost_build::Service) -> String {
    let full = full_name(service);
    let name = service.name.trim_start_matches("r#");
    let (mut methods, mut infos, mut arms) = (String::new(), String::new(), String::new());
    for method in &service.methods {
        let path = format!("/{full}/{}", method.proto_name);
        let id = method_id(&path);
        let (mut request, mut response) = (from_below(&method.input_type), from_below(&method.output_type));
        if method.client_streaming {
            request = format!("::tollfree::Streaming<{request}>");
        }
        if method.server_streaming {
            let stream = stream_type(&method.proto_name);
            let _ = write!(
                methods,
                "/// The responses to `{path}`.
                type {stream}: ::tollfree::codegen::Stream<
                    Item = ::core::result::Result<{response}, ::tollfree::Status>,
                > + ::core::marker::Send + 'static;\n",
            );
            response = format!("Self::{stream}");
        }
        let dispatch = match (method.client_streaming, method.server_streaming) {
            (false, false) => "dispatch",
            (false, true) => "dispatch_server_streaming",
            (true, false) => "dispatch_client_streaming",
            (true, true) => "dispatch_streaming",
        };
        let _ = write!(
            methods,
            "{docs}fn {handler}(
                &self,
                request: ::tollfree::Request<{request}>,
            ) -> impl ::core::future::Future<
                Output = ::core::result::Result<::tollfree::Response<{response}>, ::tollfree::Status>,
            > + ::core::marker::Send;\n",
            docs = docs(&method.comments, &format!("Handles `{path}`.")),
            handler = method.name,
        );
        let _ = write!(infos, "::tollfree::MethodInfo {{ path: {path:?}, id: {id:#010x} }},");
        let _ = write!(
            arms,
            "{id:#010x} => ::tollfree::{dispatch}(info, flat, body, move |request| async move {{
                self.inner.{handler}(request).await
            }}),",
            handler = method.name,
        );
    }
    // A service without methods uses none of what its call is given.
    let call = if service.methods.is_empty() {
        "fn call(
            self: ::std::sync::Arc<Self>,
            info: ::tollfree::CallInfo,
            _flat: &[u8],
            _body: &[u8],
        ) -> ::tollfree::HandlerFuture {
            ::tollfree::unimplemented(info)
        }"
        .to_owned()
    } else {
        format!(
            "fn call(
                self: ::std::sync::Arc<Self>,
                info: ::tollfree::CallInfo,
                flat: &[u8],
                body: &[u8],
            ) -> ::tollfree::HandlerFuture {{
                match info.method {{
                    {arms}
                    _ => ::tollfree::unimplemented(info),
                }}
            }}"
        )
    };
    format!(
        "/// Offering `{full}`.
        pub mod {module} {{
            #![allow(dead_code, clippy::allow_attributes)]
            {docs}pub trait {trait_name}: ::core::marker::Send + ::core::marker::Sync + 'static {{
                {methods}
            }}
            /// Makes a service of an implementation of [`{trait_name}`].
            #[derive(Debug)]
            pub struct {name}Server<T> {{
                inner: ::std::sync::Arc<T>,
            }}
            impl<T: {trait_name}> {name}Server<T> {{
                /// The service that `inner` implements.
                pub fn new(inner: T) -> Self {{
                    Self::from_arc(::std::sync::Arc::new(inner))
                }}
                /// The same, where others hold the implementation, too.
                pub fn from_arc(inner: ::std::sync::Arc<T>) -> Self {{
                    Self {{ inner }}
                }}
            }}
            impl<T> ::core::clone::Clone for {name}Server<T> {{
                fn clone(&self) -> Self {{
                    Self {{ inner: ::std::sync::Arc::clone(&self.inner) }}
                }}
            }}
            impl<T: {trait_name}> ::tollfree::Service for {name}Server<T> {{
                const NAME: &'static str = {full:?};
                const DESCRIPTOR_SET: &'static [u8] = super::DESCRIPTOR_SET;
                const METHODS: &'static [::tollfree::MethodInfo] = &[{infos}];
                {call}
            }}
        }}\n",
        module = module(service, "server"),
        docs = docs(&service.comments, &format!("What a server of `{full}` does.")),
        trait_name = service.name,
    )
}
