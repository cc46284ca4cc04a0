//! From `.proto` files to flat layouts, manifests and Rust stubs.
//!
//! ```no_run
//! // build.rs
//! fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     tollfree_schema::build::compile("schemas/hash.proto")?;
//!     Ok(())
//! }
//! ```
//!
//! Not here: values in flat blocks (`tollfree_wire::flat`), policies, what stubs call (`tollfree`).
#![forbid(unsafe_code)]

pub mod bind;
pub mod build;
pub mod codegen;
pub mod compat;
mod descriptor;
mod document;
pub mod error;
mod fields;
pub mod layout;
pub mod lint;
pub mod manifest;
mod names;
pub mod parse;
pub mod source;
pub mod validate;

pub use bind::{BindRequest, Mismatch};
pub use compat::{Compat, Incompatible};
pub use error::{Error, Fault, Position, Problem, Problems};
pub use layout::{BodyField, Field, FieldKind, Layout, Member, method_id};
pub use lint::Breakage;
pub use manifest::{Manifest, Method, Service, Streaming};
pub use validate::Malformed;
