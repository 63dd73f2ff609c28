//! gRPC reflection: the messages of [`super::proto`] described, so that `grpcurl` and its like can ask.

use prost_types::field_descriptor_proto::{Label, Type};
use prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
    FileDescriptorProto, FileDescriptorSet, MessageOptions, MethodDescriptorProto,
    ServiceDescriptorProto,
};
use tonic_reflection::server::{Builder, Error};

use super::http::{Handler, handler};

const UNITS: [(&str, i32); 8] = [
    ("UNKNOWN", 0),
    ("SECOND", 1),
    ("MINUTE", 2),
    ("HOUR", 3),
    ("DAY", 4),
    ("MONTH", 5),
    ("YEAR", 6),
    ("WEEK", 7),
];

/// Version 1 of the protocol, and the one before it, which most clients speak.
pub(super) fn handlers() -> Result<[Handler; 2], Error> {
    let builder = || Builder::configure().register_file_descriptor_set(files());
    let v1 = handler(builder().build_v1()?);
    let v1alpha = handler(builder().build_v1alpha()?);
    Ok([v1, v1alpha])
}

fn files() -> FileDescriptorSet {
    FileDescriptorSet {
        file: vec![
            google(
                "duration",
                vec![message("Duration", &["seconds:1 int64", "nanos:2 int32"])],
            ),
            google(
                "wrappers",
                vec![message("UInt64Value", &["value:1 uint64"])],
            ),
            google("struct", structs()),
            units(),
            base(),
            common(),
            service(),
        ],
    }
}

fn google(name: &str, messages: Vec<DescriptorProto>) -> FileDescriptorProto {
    file(
        &format!("google/protobuf/{name}.proto"),
        "google.protobuf",
        &[],
        messages,
    )
}

fn structs() -> Vec<DescriptorProto> {
    let mut entry = message(
        "FieldsEntry",
        &["key:1 string", "value:2 .google.protobuf.Value"],
    );
    entry.options = Some(MessageOptions {
        map_entry: Some(true),
        ..MessageOptions::default()
    });
    let mut of = message("Struct", &["fields:1 []google.protobuf.Struct.FieldsEntry"]);
    of.nested_type.push(entry);
    let value = &[
        "number_value:2 double",
        "string_value:3 string",
        "bool_value:4 bool",
    ];
    vec![of, message("Value", value)]
}

fn units() -> FileDescriptorProto {
    let mut file = file(
        "envoy/type/v3/ratelimit_unit.proto",
        "envoy.type.v3",
        &[],
        Vec::new(),
    );
    // It has no week.
    file.enum_type
        .push(enumeration("RateLimitUnit", &UNITS[..7]));
    file
}

fn base() -> FileDescriptorProto {
    let header = message("HeaderValue", &["key:1 string", "value:2 string"]);
    file(
        "envoy/config/core/v3/base.proto",
        "envoy.config.core.v3",
        &[],
        vec![header],
    )
}

fn common() -> FileDescriptorProto {
    const OF: &str = "envoy.extensions.common.ratelimit.v3";
    let mut descriptor = message(
        "RateLimitDescriptor",
        &[
            "entries:1 []envoy.extensions.common.ratelimit.v3.RateLimitDescriptor.Entry",
            "limit:2 .envoy.extensions.common.ratelimit.v3.RateLimitDescriptor.RateLimitOverride",
            "hits_addend:3 .google.protobuf.UInt64Value",
            "is_negative_hits:4 bool",
        ],
    );
    descriptor.nested_type = vec![
        message("Entry", &["key:1 string", "value:2 string"]),
        message(
            "RateLimitOverride",
            &[
                "requests_per_unit:1 uint32",
                "unit:2 =envoy.type.v3.RateLimitUnit",
            ],
        ),
    ];
    file(
        "envoy/extensions/common/ratelimit/v3/ratelimit.proto",
        OF,
        &[
            "envoy/type/v3/ratelimit_unit.proto",
            "google/protobuf/wrappers.proto",
        ],
        vec![descriptor],
    )
}

fn service() -> FileDescriptorProto {
    const OF: &str = "envoy.service.ratelimit.v3";
    let request = message(
        "RateLimitRequest",
        &[
            "domain:1 string",
            "descriptors:2 []envoy.extensions.common.ratelimit.v3.RateLimitDescriptor",
            "hits_addend:3 uint32",
        ],
    );
    let mut response = message(
        "RateLimitResponse",
        &[
            "overall_code:1 =envoy.service.ratelimit.v3.RateLimitResponse.Code",
            "statuses:2 []envoy.service.ratelimit.v3.RateLimitResponse.DescriptorStatus",
            "response_headers_to_add:3 []envoy.config.core.v3.HeaderValue",
            "request_headers_to_add:4 []envoy.config.core.v3.HeaderValue",
            "raw_body:5 bytes",
            "dynamic_metadata:6 .google.protobuf.Struct",
        ],
    );
    let mut limit = message(
        "RateLimit",
        &[
            "requests_per_unit:1 uint32",
            "unit:2 =envoy.service.ratelimit.v3.RateLimitResponse.RateLimit.Unit",
            "name:3 string",
        ],
    );
    limit.enum_type.push(enumeration("Unit", &UNITS));
    let status = message(
        "DescriptorStatus",
        &[
            "code:1 =envoy.service.ratelimit.v3.RateLimitResponse.Code",
            "current_limit:2 .envoy.service.ratelimit.v3.RateLimitResponse.RateLimit",
            "limit_remaining:3 uint32",
            "duration_until_reset:4 .google.protobuf.Duration",
        ],
    );
    response.nested_type = vec![limit, status];
    let codes = [("UNKNOWN", 0), ("OK", 1), ("OVER_LIMIT", 2)];
    response.enum_type.push(enumeration("Code", &codes));
    let mut file = file(
        "envoy/service/ratelimit/v3/rls.proto",
        OF,
        &[
            "envoy/config/core/v3/base.proto",
            "envoy/extensions/common/ratelimit/v3/ratelimit.proto",
            "google/protobuf/duration.proto",
            "google/protobuf/struct.proto",
        ],
        vec![request, response],
    );
    file.service.push(ServiceDescriptorProto {
        name: some("RateLimitService"),
        method: vec![MethodDescriptorProto {
            name: some("ShouldRateLimit"),
            input_type: some(".envoy.service.ratelimit.v3.RateLimitRequest"),
            output_type: some(".envoy.service.ratelimit.v3.RateLimitResponse"),
            ..MethodDescriptorProto::default()
        }],
        options: None,
    });
    file
}

fn some(text: &str) -> Option<String> {
    Some(text.to_owned())
}

fn file(
    name: &str,
    package: &str,
    imports: &[&str],
    messages: Vec<DescriptorProto>,
) -> FileDescriptorProto {
    FileDescriptorProto {
        name: some(name),
        package: some(package),
        dependency: imports.iter().map(ToString::to_string).collect(),
        message_type: messages,
        syntax: some("proto3"),
        ..FileDescriptorProto::default()
    }
}

fn enumeration(name: &str, values: &[(&str, i32)]) -> EnumDescriptorProto {
    let value = |(name, number): &(&str, i32)| EnumValueDescriptorProto {
        name: some(name),
        number: Some(*number),
        options: None,
    };
    EnumDescriptorProto {
        name: some(name),
        value: values.iter().map(value).collect(),
        ..EnumDescriptorProto::default()
    }
}

/// Fields as `name:number type`; a type is a scalar's name, `.message`, `[]message` (several of it) or
/// `=enumeration`.
fn message(name: &str, fields: &[&str]) -> DescriptorProto {
    DescriptorProto {
        name: some(name),
        field: fields.iter().filter_map(|text| field(text)).collect(),
        ..DescriptorProto::default()
    }
}

fn field(text: &str) -> Option<FieldDescriptorProto> {
    let (name, rest) = text.split_once(':')?;
    let (number, of) = rest.split_once(' ')?;
    let (kind, named) = match of {
        "string" => (Type::String, None),
        "bytes" => (Type::Bytes, None),
        "bool" => (Type::Bool, None),
        "double" => (Type::Double, None),
        "int32" => (Type::Int32, None),
        "int64" => (Type::Int64, None),
        "uint32" => (Type::Uint32, None),
        "uint64" => (Type::Uint64, None),
        _ => match of.strip_prefix('=') {
            Some(named) => (Type::Enum, Some(named)),
            None => (Type::Message, Some(of.trim_start_matches(['.', '[', ']']))),
        },
    };
    let label = if of.starts_with("[]") {
        Label::Repeated
    } else {
        Label::Optional
    };
    Some(FieldDescriptorProto {
        name: some(name),
        number: Some(number.parse().ok()?),
        label: Some(label.into()),
        r#type: Some(kind.into()),
        type_name: named.map(|named| format!(".{named}")),
        ..FieldDescriptorProto::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_that_is_named_is_described() {
        let files = files();
        let mut known = Vec::new();
        let mut named = Vec::new();
        for file in &files.file {
            let package = format!(".{}", file.package());
            known.extend(
                file.enum_type
                    .iter()
                    .map(|one| format!("{package}.{}", one.name())),
            );
            for message in &file.message_type {
                walk(message, &package, &mut known, &mut named);
            }
        }
        assert!(named.len() > 10, "{named:?}");
        for name in named {
            assert!(known.contains(&name), "{name}");
        }
    }

    fn walk(of: &DescriptorProto, at: &str, known: &mut Vec<String>, named: &mut Vec<String>) {
        let name = format!("{at}.{}", of.name());
        known.extend(
            of.enum_type
                .iter()
                .map(|one| format!("{name}.{}", one.name())),
        );
        named.extend(of.field.iter().filter_map(|field| field.type_name.clone()));
        for nested in &of.nested_type {
            walk(nested, &name, known, named);
        }
        known.push(name);
    }
}
