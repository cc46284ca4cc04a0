//! Descriptor sets from applications that mean harm: always a manifest or an error, in bounded time and memory.
#![forbid(unsafe_code)]

use proptest::prelude::*;
use prost::Message as _;
use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto,
};
use tollfree_schema::{Error, Manifest, source::DESCRIPTOR_SET_MAX};

fn field(name: &str, number: i32, r#type: Type) -> FieldDescriptorProto {
    FieldDescriptorProto {
        name: Some(name.into()),
        number: Some(number),
        label: Some(Label::Optional.into()),
        r#type: Some(r#type.into()),
        ..Default::default()
    }
}

fn message(name: &str, field: Vec<FieldDescriptorProto>) -> DescriptorProto {
    DescriptorProto { name: Some(name.into()), field, ..Default::default() }
}

fn method(name: &str, r#type: &str) -> MethodDescriptorProto {
    MethodDescriptorProto {
        name: Some(name.into()),
        input_type: Some(r#type.into()),
        output_type: Some(r#type.into()),
        ..Default::default()
    }
}

fn set(message_type: Vec<DescriptorProto>, method: Vec<MethodDescriptorProto>) -> FileDescriptorSet {
    let service = ServiceDescriptorProto { name: Some("S".into()), method, ..Default::default() };
    let file = FileDescriptorProto {
        name: Some("x.proto".into()),
        package: Some("t".into()),
        syntax: Some("proto3".into()),
        message_type,
        service: vec![service],
        ..Default::default()
    };
    FileDescriptorSet { file: vec![file] }
}

fn told(set: &FileDescriptorSet) -> String {
    Manifest::from_descriptor_set(&set.encode_to_vec()).expect_err("refused").to_string()
}

#[test]
fn errors_without_source_info_name_file_and_item() {
    let messages = vec![message("M", vec![field("a", 1, Type::Bool), field("b", 1, Type::Bool)])];
    assert_eq!(
        told(&set(messages, vec![])),
        "x.proto: field `t.M.b`: the field number 1 is already taken by `a`"
    );
    assert_eq!(
        told(&set(vec![], vec![method("Call", ".t.M")])),
        "x.proto: method `t.S.Call`: the type `t.M` is not in the descriptor set\n  \
         help: write the set with its imports: `protoc --include_imports`"
    );
    let twice = vec![message("M", vec![]), message("M", vec![])];
    assert!(told(&set(twice, vec![])).starts_with("x.proto: message `t.M`: the name is already taken"));
}

#[test]
fn names_cannot_draw_on_terminals() {
    let messages = vec![message("M\x1b[2J\n", vec![])];
    assert_eq!(told(&set(messages, vec![])), "x.proto: message: M\\u{1b}[2J\\n is not a protobuf name");
    let messages = vec![message("M", vec![field("", 1, Type::Bool)])];
    assert_eq!(told(&set(messages, vec![])), "x.proto: field of `t.M`: (empty) is not a protobuf name");
}

#[test]
fn messages_may_contain_themselves() {
    let mut own = field("own", 1, Type::Message);
    own.type_name = Some(".t.M".into());
    let manifest = Manifest::from_descriptor_set(
        &set(vec![message("M", vec![own])], vec![method("Call", ".t.M")]).encode_to_vec(),
    );
    assert_eq!(manifest.expect("ordinary protobuf").services[0].methods[0].request.body[0].kind, "t.M");
}

#[test]
fn deep_nesting_is_an_error_not_a_stack_overflow() {
    // Built by hand: prost's own encoder would recurse.
    let mut bytes = Vec::new();
    for _ in 0..20_000 {
        let mut outer = vec![0x1a];
        prost::encoding::encode_varint(bytes.len() as u64, &mut outer);
        outer.append(&mut bytes);
        bytes = outer;
    }
    let mut file = vec![0x22];
    prost::encoding::encode_varint(bytes.len() as u64, &mut file);
    file.append(&mut bytes);
    let mut set = vec![0x0a];
    prost::encoding::encode_varint(file.len() as u64, &mut set);
    set.append(&mut file);
    assert!(matches!(Manifest::from_descriptor_set(&set), Err(Error::NotADescriptorSet(_))));
}

#[test]
fn few_bytes_cannot_ask_for_much_memory() {
    // One message with many fields, and many methods that take it.
    let fields = (1..5_000).map(|number| field(&format!("f{number}"), number, Type::Bool)).collect();
    let methods = (0..5_000).map(|number| method(&format!("M{number}"), ".t.M")).collect();
    let told_fields = told(&set(vec![message("M", fields)], methods));
    assert!(told_fields.contains("more than 65536 fields and enum values together"), "{told_fields}");

    // One enum with many values, and many fields of its type.
    let value = |number| EnumValueDescriptorProto {
        name: Some(format!("V{number}")),
        number: Some(number),
        options: None,
    };
    let values = EnumDescriptorProto {
        name: Some("E".into()),
        value: (0..10_000).map(value).collect(),
        ..Default::default()
    };
    let mut fields: Vec<_> =
        (1..2_000).map(|number| field(&format!("f{number}"), number, Type::Enum)).collect();
    for field in &mut fields {
        field.type_name = Some(".t.E".into());
    }
    let mut many = set(vec![message("M", fields)], vec![]);
    many.file[0].enum_type.push(values);
    assert!(told(&many).contains("more than 65536"));

    // Names that nesting multiplies.
    let inner = (0..10_000).map(|number| message(&format!("N{number}"), vec![])).collect();
    let outer = DescriptorProto { name: Some("M".repeat(100_000)), nested_type: inner, ..Default::default() };
    assert!(told(&set(vec![outer], vec![])).contains("is not a protobuf name"));

    let error = Manifest::from_descriptor_set(&vec![0; DESCRIPTOR_SET_MAX + 1]).expect_err("too large");
    assert!(matches!(error, Error::TooLarge { .. }));
}

#[test]
fn problems_are_told_up_to_a_limit() {
    let messages = (0..1000).map(|_| message("M", vec![])).collect();
    assert!(told(&set(messages, vec![])).lines().count() <= 50);
}

/// Any descriptor of the shapes that matter here, with names and types that now and then exist.
fn any_set() -> impl Strategy<Value = FileDescriptorSet> {
    let name = || "[A-C]|[a-c]{0,2}|\\PC{0,3}";
    let type_name = || proptest::option::of("\\.t\\.[A-C]|[a-z.]{0,4}");
    let field =
        (name(), any::<i8>(), 0..5i32, -1..20i32, type_name(), proptest::option::of(-1..3i32), any::<bool>())
            .prop_map(|(name, number, label, r#type, type_name, oneof_index, optional)| {
                FieldDescriptorProto {
                    name: Some(name),
                    number: Some(number.into()),
                    label: Some(label),
                    r#type: Some(r#type),
                    type_name,
                    oneof_index,
                    proto3_optional: Some(optional),
                    ..Default::default()
                }
            });
    let message = (name(), proptest::collection::vec(field, 0..4))
        .prop_map(|(name, field)| DescriptorProto { name: Some(name), field, ..Default::default() });
    let message = message.prop_recursive(3, 8, 2, |inner| {
        (inner.clone(), proptest::collection::vec(inner, 0..2))
            .prop_map(|(outer, nested_type)| DescriptorProto { nested_type, ..outer })
    });
    let method = (name(), type_name()).prop_map(|(name, r#type)| method(&name, &r#type.unwrap_or_default()));
    (proptest::collection::vec(message, 0..3), proptest::collection::vec(method, 0..3))
        .prop_map(|(messages, methods)| set(messages, methods))
}

proptest! {
    #[test]
    fn any_bytes_are_a_manifest_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        if let Err(error) = Manifest::from_descriptor_set(&bytes) {
            prop_assert!(!error.to_string().is_empty());
        }
    }

    #[test]
    fn any_descriptors_are_a_manifest_or_an_error(set in any_set()) {
        match Manifest::from_descriptor_set(&set.encode_to_vec()) {
            Ok(manifest) => {
                let json = manifest.to_json().expect("JSON");
                prop_assert_eq!(Manifest::from_json(&json).expect("reads what it wrote"), manifest);
            }
            Err(error) => prop_assert!(!error.to_string().is_empty()),
        }
    }

    #[test]
    fn a_valid_set_with_bytes_changed_is_a_manifest_or_an_error(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = HASH.to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = Manifest::from_descriptor_set(&bytes);
        let _ = Manifest::from_descriptor_set(&bytes[..cut.index(bytes.len())]);
    }
}

/// `schemas/hash.proto`, flat options included, without its imports.
const HASH: &[u8] = b"\n\xda\x01\n\nhash.proto\x12\x04demo\x1a\x16tollfree/options.proto\"=\n\x0bHashRequest\x12\x1a\n\
\x04user\x18\x01 \x01(\tB\x06\x9a\xe1\x18\x02\x08\x0fR\x04user\x12\x12\n\x04data\x18\x02 \x01(\x0cR\x04data\".\n\x0cHashResponse\
\x12\x1e\n\x06digest\x18\x01 \x01(\x0cB\x06\x9a\xe1\x18\x02\x10 R\x06digest27\n\x04Hash\x12/\n\x06Sha256\x12\x11.demo.HashRequest\
\x1a\x12.demo.HashResponseb\x06proto3";

#[test]
fn the_set_that_is_changed_is_valid() {
    let manifest = Manifest::from_descriptor_set(HASH).expect("valid");
    assert_eq!(manifest.services[0].methods[0].request.flat_len, 16);
}
