//! Our .proto files have the wire format of the published package.
//!
//! `smg_wire.txt` is that package's, as `tests/python/smg_wire.py` prints it of the installed one; an end-to-end test compares the two
//! (`tests/tests/smg_wire.rs`), this one the file with our descriptors.

use prost::Message as _;
use prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldDescriptorProto, FileDescriptorSet, field_descriptor_proto::Type,
};
use vllm_grpc_proto::smg::DESCRIPTORS;

const PUBLISHED: &str = include_str!("smg_wire.txt");

#[test]
fn services_messages_and_fields_are_the_published_ones() {
    let ours = lines(DESCRIPTORS);
    let published: Vec<&str> = PUBLISHED.lines().filter(|line| !line.starts_with('#')).collect();
    let missing: Vec<&&str> = published.iter().filter(|line| !ours.iter().any(|our| our == *line)).collect();
    let surplus: Vec<&String> = ours.iter().filter(|line| !published.contains(&line.as_str())).collect();
    assert!(missing.is_empty() && surplus.is_empty(), "not ours: {missing:#?}\nnot published: {surplus:#?}");
    assert!(published.len() > 300, "{} lines are too few to be the package", published.len());
}

/// A line for each method, field and enum value: all that decides what is on the wire.
fn lines(descriptors: &[u8]) -> Vec<String> {
    let set = FileDescriptorSet::decode(descriptors).expect("a descriptor set");
    let mut lines = Vec::new();
    for file in &set.file {
        let package = file.package();
        for service in &file.service {
            for method in &service.method {
                let stream = if method.server_streaming() { "stream " } else { "" };
                let (input, output) = (&method.input_type()[1..], &method.output_type()[1..]);
                lines.push(format!("rpc {package}.{}/{}({input}) {stream}{output}", service.name(), method.name()));
            }
        }
        file.message_type.iter().for_each(|message| message_lines(package, message, &mut lines));
        file.enum_type.iter().for_each(|values| enum_lines(package, values, &mut lines));
    }
    lines.sort_unstable();
    lines
}

fn message_lines(scope: &str, message: &DescriptorProto, lines: &mut Vec<String>) {
    let name = format!("{scope}.{}", message.name());
    lines.push(format!("message {name}"));
    lines.extend(message.field.iter().map(|field| field_line(&name, message, field)));
    message.nested_type.iter().for_each(|nested| message_lines(&name, nested, lines));
    message.enum_type.iter().for_each(|values| enum_lines(&name, values, lines));
}

/// `field <message> <number> [repeated|optional|oneof <its name>] <type> <name>`.
fn field_line(message_name: &str, message: &DescriptorProto, field: &FieldDescriptorProto) -> String {
    let label = match (field.label() as i32, field.proto3_optional(), field.oneof_index) {
        (3, ..) => "repeated ".to_owned(),
        (_, true, _) => "optional ".to_owned(),
        (_, false, Some(of)) => format!("oneof {} ", message.oneof_decl[usize::try_from(of).expect("an index")].name()),
        _ => String::new(),
    };
    let kind = match field.r#type() {
        Type::Message | Type::Enum => field.type_name()[1..].to_owned(),
        scalar => scalar.as_str_name().trim_start_matches("TYPE_").to_lowercase(),
    };
    format!("field {message_name} {} {label}{kind} {}", field.number(), field.name())
}

fn enum_lines(scope: &str, values: &EnumDescriptorProto, lines: &mut Vec<String>) {
    let name = format!("{scope}.{}", values.name());
    lines.extend(values.value.iter().map(|value| format!("value {name} {} {}", value.number(), value.name())));
}
