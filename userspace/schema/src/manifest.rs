//! The layout manifest: every service, method and layout of a schema, as one JSON file.
//!
//! The policy compiler, the engine, `tap` and the dissector read this and nothing else of a schema.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{Error, Layout, source};

/// What a schema says about the wire.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// All services, in file order.
    pub services: Vec<Service>,
}

/// One service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Full name, such as `demo.Hash`.
    pub name: String,
    /// Its methods, in file order.
    pub methods: Vec<Method>,
}

/// One method.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Method {
    /// Name in the `.proto` file, such as `Sha256`.
    pub name: String,
    /// `/demo.Hash/Sha256`, as in gRPC.
    pub path: String,
    /// The id on the wire: [`crate::method_id`] of the path.
    pub id: u32,
    /// Which sides send a sequence of messages. Left out of the JSON where neither does.
    #[serde(default, skip_serializing_if = "Streaming::is_unary")]
    pub streaming: Streaming,
    /// Layout of the request.
    pub request: Layout,
    /// Layout of the response.
    pub response: Layout,
}

/// Which sides of a method send a sequence of messages rather than one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Streaming {
    /// Neither.
    #[default]
    Unary,
    /// The client: many requests, one response.
    Client,
    /// The server: one request, many responses.
    Server,
    /// Both, independently of each other.
    Bidirectional,
}

impl Streaming {
    /// By the two labels of a `.proto` method.
    pub fn new(client: bool, server: bool) -> Self {
        match (client, server) {
            (false, false) => Self::Unary,
            (true, false) => Self::Client,
            (false, true) => Self::Server,
            (true, true) => Self::Bidirectional,
        }
    }

    /// Whether neither side streams.
    pub fn is_unary(&self) -> bool {
        *self == Self::Unary
    }
}

impl std::fmt::Display for Streaming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Unary => "unary",
            Self::Client => "client-streaming",
            Self::Server => "server-streaming",
            Self::Bidirectional => "bidirectional",
        })
    }
}

impl Manifest {
    /// Builds the manifest of an encoded `FileDescriptorSet` that an application hands over at run time, at most
    /// [`source::DESCRIPTOR_SET_MAX`] bytes. They may be hostile: time and memory are bounded.
    ///
    /// # Errors
    /// What is wrong with the set, by file, line (where the set has source info) and field.
    pub fn from_descriptor_set(bytes: &[u8]) -> Result<Self, Error> {
        if bytes.len() > source::DESCRIPTOR_SET_MAX {
            return Err(Error::TooLarge { bytes: bytes.len(), limit: source::DESCRIPTOR_SET_MAX });
        }
        Ok(source::manifest(bytes, &[])?.0)
    }

    /// Builds the manifest of a file that `protoc --include_imports -o FILE` or `buf build -o FILE` wrote, at most
    /// [`source::DESCRIPTOR_FILE_MAX`] bytes.
    ///
    /// # Errors
    /// Where the file cannot be read; what is wrong with the set, by file, line (where it has source info) and field.
    pub fn from_descriptor_file(path: &Path) -> Result<Self, Error> {
        let bytes = std::fs::read(path).map_err(|source| Error::Read { path: path.to_owned(), source })?;
        if bytes.len() > source::DESCRIPTOR_FILE_MAX {
            return Err(Error::TooLarge { bytes: bytes.len(), limit: source::DESCRIPTOR_FILE_MAX });
        }
        Ok(source::manifest(&bytes, &[])?.0)
    }

    /// Builds the manifest of `.proto` files. `includes` are searched for imports; each file's own folder is, too.
    /// `tollfree/options.proto` is always found.
    ///
    /// # Errors
    /// What is wrong with the files, by file, line and field.
    pub fn from_proto(files: &[PathBuf], includes: &[PathBuf]) -> Result<Self, Error> {
        Ok(crate::parse::parse(files, includes)?.manifest)
    }

    /// Reads a manifest written by [`Manifest::to_json`] and checks that every layout follows from its fields.
    ///
    /// # Errors
    /// Where the text is no manifest, or one that was edited by hand.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let manifest: Self = serde_json::from_str(text).map_err(Error::Json)?;
        for method in manifest.methods() {
            if method.id != crate::method_id(&method.path) {
                return Err(Error::Edited { item: method.path.clone() });
            }
            for layout in [&method.request, &method.response] {
                if layout.rebuilt().as_ref() != Ok(layout) {
                    return Err(Error::Edited { item: layout.message.clone() });
                }
            }
        }
        Ok(manifest)
    }

    /// The manifest as indented JSON, ending in a newline. The same schema always gives the same text.
    ///
    /// # Errors
    /// Never for a manifest this crate built.
    pub fn to_json(&self) -> Result<String, Error> {
        let mut text = serde_json::to_string_pretty(self).map_err(Error::Json)?;
        text.push('\n');
        Ok(text)
    }

    /// All methods of all services.
    pub fn methods(&self) -> impl Iterator<Item = &Method> {
        self.services.iter().flat_map(|service| &service.methods)
    }

    /// The service with this full name.
    pub fn service(&self, name: &str) -> Option<&Service> {
        self.services.iter().find(|service| service.name == name)
    }

    /// The method with this id.
    pub fn method(&self, id: u32) -> Option<&Method> {
        self.methods().find(|method| method.id == id)
    }
}
