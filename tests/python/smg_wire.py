"""Prints the wire format of the installed smg-grpc-proto as lines: crates/grpc-proto/tests/smg_wire.txt, which says more."""

from importlib import import_module

from google.protobuf.descriptor import FieldDescriptor

SCALARS = {
    value: name.removeprefix("TYPE_").lower()
    for name, value in vars(FieldDescriptor).items()
    if name.startswith("TYPE_")
}


def field_line(field):
    if field.is_repeated:
        label = "repeated "
    elif field.containing_oneof is None:
        label = ""
    elif field.containing_oneof.name == "_" + field.name:
        label = "optional "
    else:
        label = f"oneof {field.containing_oneof.name} "
    named = field.message_type or field.enum_type
    kind = named.full_name if named else SCALARS[field.type]
    return f"field {field.containing_type.full_name} {field.number} {label}{kind} {field.name}"


def message_lines(message):
    yield f"message {message.full_name}"
    yield from map(field_line, message.fields)
    for nested in message.nested_types:
        yield from message_lines(nested)
    for values in message.enum_types:
        yield from enum_lines(values)


def enum_lines(values):
    for value in values.values:
        yield f"value {values.full_name} {value.number} {value.name}"


def file_lines(file):
    for service in file.services_by_name.values():
        for method in service.methods:
            stream = "stream " if method.server_streaming else ""
            yield f"rpc {service.full_name}/{method.name}({method.input_type.full_name}) {stream}{method.output_type.full_name}"
    for message in file.message_types_by_name.values():
        yield from message_lines(message)
    for values in file.enum_types_by_name.values():
        yield from enum_lines(values)


lines = []
for name in ("common", "mlx_engine", "vllm_engine"):
    lines.extend(file_lines(import_module(f"smg_grpc_proto.generated.{name}_pb2").DESCRIPTOR))
print("\n".join(sorted(lines)))
