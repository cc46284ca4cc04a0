//! Names and comments of generated code: every item gets a doc comment, so that crates which demand them can include
//! generated code as it is.

use prost_types::source_code_info::Location;
use prost_types::{DescriptorProto, EnumDescriptorProto, FileDescriptorProto};

/// A field's name as prost writes it in Rust.
pub(crate) fn rust_field(name: &str) -> String {
    let name = heck::ToSnakeCase::to_snake_case(name);
    match name.as_str() {
        "as" | "break" | "const" | "continue" | "else" | "enum" | "false" | "fn" | "for" | "if" | "impl"
        | "in" | "let" | "loop" | "match" | "mod" | "move" | "mut" | "pub" | "ref" | "return" | "static"
        | "struct" | "trait" | "true" | "type" | "unsafe" | "use" | "where" | "while" | "dyn"
        | "abstract" | "become" | "box" | "do" | "final" | "macro" | "override" | "priv" | "typeof"
        | "unsized" | "virtual" | "yield" | "async" | "await" | "try" | "gen" => format!("r#{name}"),
        "_" | "super" | "self" | "extern" | "crate" => format!("{name}_"),
        digit if digit.starts_with(|c: char| c.is_numeric()) => format!("_{name}"),
        _ => name,
    }
}

/// Gives every message, field, oneof, enum and value without a comment one.
pub(crate) fn document(file: &mut FileDescriptorProto) {
    let mut comments = Vec::new();
    for (index, message) in (0..).zip(&file.message_type) {
        describe(message, &[4, index], &mut comments);
    }
    for (index, item) in (0..).zip(&file.enum_type) {
        describe_enum(item, &[5, index], &mut comments);
    }
    let locations = &mut file.source_code_info.get_or_insert_default().location;
    for (path, comment) in comments {
        match locations.iter_mut().find(|location| location.path == path) {
            Some(location) if location.leading_comments.is_some() || location.trailing_comments.is_some() => {
            }
            Some(location) => location.leading_comments = Some(comment),
            None => {
                locations.push(Location { path, leading_comments: Some(comment), ..Location::default() });
            }
        }
    }
}

fn describe(message: &DescriptorProto, path: &[i32], out: &mut Vec<(Vec<i32>, String)>) {
    let at = |kind: i32, index: i32| [path, &[kind, index]].concat();
    out.push((path.to_vec(), format!(" The message `{}`.", message.name())));
    for (index, field) in (0..).zip(&message.field) {
        out.push((at(2, index), format!(" The field `{}`.", field.name())));
    }
    for (index, oneof) in (0..).zip(&message.oneof_decl) {
        out.push((at(8, index), format!(" One of the fields of `{}`.", oneof.name())));
    }
    for (index, nested) in (0..).zip(&message.nested_type) {
        describe(nested, &at(3, index), out);
    }
    for (index, item) in (0..).zip(&message.enum_type) {
        describe_enum(item, &at(4, index), out);
    }
}

fn describe_enum(item: &EnumDescriptorProto, path: &[i32], out: &mut Vec<(Vec<i32>, String)>) {
    out.push((path.to_vec(), format!(" The enum `{}`.", item.name())));
    for (index, value) in (0..).zip(&item.value) {
        out.push(([path, &[2, index]].concat(), format!(" The value `{}`.", value.name())));
    }
}
