//! What the contracts must state: options on every RPC, a comment on everything, a route where clients
//! may call and none where they may not.

use std::collections::BTreeSet;

use prost::Message;
use prost_reflect::{
    DescriptorPool, DynamicMessage, EnumDescriptor, FileDescriptor, MessageDescriptor,
    MethodDescriptor, Value,
    prost_types::{
        DescriptorProto, EnumDescriptorProto, EnumValueDescriptorProto, FieldDescriptorProto,
        FileDescriptorProto, FileDescriptorSet, MethodDescriptorProto, ServiceDescriptorProto,
        field_descriptor_proto::Type,
    },
};

use crate::{Violation, none, one};

/// The packages that this project writes.
const OWN: [&str; 2] = ["commerce.", "mesh."];

/// Mutations without a `request_id`, and why a repeat is harmless all the same.
const REPEATABLE: [(&str, &str); 2] = [
    (
        "ImportProducts",
        "a stream; importing the same file again changes nothing",
    ),
    ("ReceiveWebhook", "the provider numbers its events itself"),
];

/// What an RPC states.
#[derive(Clone, Default)]
struct Rpc {
    name: String,
    /// The name in `mesh.v1.Audience`.
    audience: Option<String>,
    deadline: bool,
    idempotency: Idempotency,
    /// Whether `google.api.http` gives it a route.
    routed: bool,
    request_id: bool,
}

#[derive(Clone, Copy, Default, PartialEq)]
enum Idempotency {
    #[default]
    Unstated,
    NoSideEffects,
    Idempotent,
}

fn rpcs(pool: &DescriptorPool) -> Vec<Rpc> {
    let services = pool
        .services()
        .filter(|service| own(&service.parent_file()));
    services
        .flat_map(|service| {
            service
                .methods()
                .map(|method| read(&method))
                .collect::<Vec<_>>()
        })
        .collect()
}

fn read(method: &MethodDescriptor) -> Rpc {
    let options = method.options();
    let extension = |name: &str| -> Option<Value> {
        let extension = method.parent_pool().get_extension_by_name(name)?;
        options
            .has_extension(&extension)
            .then(|| options.get_extension(&extension).into_owned())
    };
    let audience = extension("mesh.v1.audience").and_then(|value| {
        let names = method.parent_pool().get_enum_by_name("mesh.v1.Audience")?;
        Some(names.get_value(value.as_enum_number()?)?.name().to_owned())
    });
    Rpc {
        name: method.full_name().to_owned(),
        audience,
        deadline: extension("mesh.v1.deadline_ms").is_some(),
        idempotency: idempotency(&options),
        routed: extension("google.api.http").is_some(),
        request_id: method.input().get_field_by_name("request_id").is_some(),
    }
}

fn idempotency(options: &DynamicMessage) -> Idempotency {
    let value = options.get_field_by_name("idempotency_level");
    match value.and_then(|value| value.as_enum_number()) {
        Some(1) => Idempotency::NoSideEffects,
        Some(2) => Idempotency::Idempotent,
        _ => Idempotency::Unstated,
    }
}

fn unstated(rpcs: &[Rpc]) -> Vec<Violation> {
    let mut violations = Vec::new();
    for rpc in rpcs {
        let mut missing = |what: &str| violations.push(Violation::new(&rpc.name, what));
        match (rpc.audience.as_deref(), rpc.routed) {
            (None | Some("AUDIENCE_UNSPECIFIED"), _) => missing("states no audience"),
            (Some("INTERNAL"), true) => missing("is INTERNAL and has a route"),
            (Some("PUBLIC" | "OPERATOR" | "ANYONE"), false) => {
                missing("has no route for its audience");
            }
            _ => {}
        }
        if !rpc.deadline {
            missing("states no deadline");
        }
        let short = rpc.name.rsplit('.').next().unwrap_or_default();
        let repeatable = REPEATABLE.iter().any(|(name, _)| *name == short);
        match rpc.idempotency {
            Idempotency::Unstated => missing("states no idempotency_level"),
            Idempotency::Idempotent if !rpc.request_id && !repeatable => {
                missing("changes something and takes no request_id");
            }
            _ => {}
        }
    }
    violations
}

/// Names of services, RPCs, messages, fields, oneofs, enums and values without a comment.
fn uncommented(pool: &DescriptorPool) -> Vec<Violation> {
    let mut silent = Vec::new();
    for file in pool.files().filter(own) {
        let mut comments = Comments::of(&file, &mut silent);
        for service in file.services() {
            comments.want(service.path(), service.full_name());
            service
                .methods()
                .for_each(|method| comments.want(method.path(), method.full_name()));
        }
        file.messages()
            .for_each(|message| comments.message(&message));
        file.enums().for_each(|kind| comments.kind(&kind));
    }
    silent
        .iter()
        .map(|name| Violation::new(name, "has no comment"))
        .collect()
}

struct Comments<'a> {
    commented: BTreeSet<Vec<i32>>,
    silent: &'a mut Vec<String>,
}

impl Comments<'_> {
    fn of<'a>(file: &FileDescriptor, silent: &'a mut Vec<String>) -> Comments<'a> {
        let locations = file
            .file_descriptor_proto()
            .source_code_info
            .iter()
            .flat_map(|info| &info.location);
        let commented = locations.filter(|location| !location.leading_comments().trim().is_empty());
        Comments {
            commented: commented.map(|location| location.path.clone()).collect(),
            silent,
        }
    }

    fn want(&mut self, path: &[i32], name: &str) {
        if !self.commented.contains(path) {
            self.silent.push(name.to_owned());
        }
    }

    fn message(&mut self, message: &MessageDescriptor) {
        // The entry of a map is written by nobody.
        if message.is_map_entry() {
            return;
        }
        self.want(message.path(), message.full_name());
        message
            .fields()
            .for_each(|field| self.want(field.path(), field.full_name()));
        let written = message.oneofs().filter(|oneof| !oneof.is_synthetic());
        written.for_each(|oneof| self.want(oneof.path(), oneof.full_name()));
        message
            .child_messages()
            .for_each(|child| self.message(&child));
        message.child_enums().for_each(|child| self.kind(&child));
    }

    fn kind(&mut self, kind: &EnumDescriptor) {
        self.want(kind.path(), kind.full_name());
        kind.values()
            .for_each(|value| self.want(value.path(), value.full_name()));
    }
}

fn own(file: &FileDescriptor) -> bool {
    OWN.iter()
        .any(|package| file.package_name().starts_with(package))
}

fn pool() -> DescriptorPool {
    DescriptorPool::decode(proto::FILE_DESCRIPTOR_SET).expect("the descriptor set is well-formed")
}

/// A contract that states nothing and says nothing.
fn silent_pool() -> DescriptorPool {
    let named = |name: &str| Some(name.to_owned());
    let message = |name: &str| DescriptorProto {
        name: named(name),
        field: vec![FieldDescriptorProto {
            name: named("id"),
            number: Some(1),
            r#type: Some(Type::String.into()),
            ..FieldDescriptorProto::default()
        }],
        ..DescriptorProto::default()
    };
    let method = MethodDescriptorProto {
        name: named("Get"),
        input_type: named(".commerce.silent.v1.Request"),
        output_type: named(".commerce.silent.v1.Response"),
        ..MethodDescriptorProto::default()
    };
    let file = FileDescriptorProto {
        name: named("silent.proto"),
        package: named("commerce.silent.v1"),
        syntax: named("proto3"),
        message_type: vec![message("Request"), message("Response")],
        enum_type: vec![EnumDescriptorProto {
            name: named("State"),
            value: vec![EnumValueDescriptorProto {
                name: named("STATE_UNSPECIFIED"),
                number: Some(0),
                ..EnumValueDescriptorProto::default()
            }],
            ..EnumDescriptorProto::default()
        }],
        service: vec![ServiceDescriptorProto {
            name: named("Service"),
            method: vec![method],
            ..ServiceDescriptorProto::default()
        }],
        ..FileDescriptorProto::default()
    };
    DescriptorPool::decode(
        FileDescriptorSet { file: vec![file] }
            .encode_to_vec()
            .as_slice(),
    )
    .expect("the planted contract is well-formed")
}

#[test]
fn every_rpc_states_who_may_call_it_and_for_how_long() {
    let rpcs = rpcs(&pool());
    assert!(rpcs.len() > 20, "the contracts have {} RPCs", rpcs.len());
    none(&unstated(&rpcs));
}

#[test]
fn an_rpc_that_states_nothing_is_found() {
    let found: Vec<_> = unstated(&rpcs(&silent_pool()))
        .into_iter()
        .map(|violation| violation.what)
        .collect();
    assert_eq!(
        found,
        [
            "states no audience",
            "states no deadline",
            "states no idempotency_level"
        ]
    );
}

#[test]
fn a_wrong_statement_is_found() {
    let good = Rpc {
        name: "commerce.x.v1.S.Do".to_owned(),
        audience: Some("PUBLIC".to_owned()),
        deadline: true,
        idempotency: Idempotency::Idempotent,
        routed: true,
        request_id: true,
    };
    let plant = |change: fn(&mut Rpc)| {
        let mut rpc = good.clone();
        change(&mut rpc);
        unstated(&[rpc])
    };
    none(&plant(|_| {}));
    one(
        &plant(|rpc| rpc.routed = false),
        "has no route for its audience",
    );
    one(
        &plant(|rpc| rpc.audience = Some("INTERNAL".to_owned())),
        "is INTERNAL and has a route",
    );
    one(&plant(|rpc| rpc.request_id = false), "takes no request_id");
    one(&plant(|rpc| rpc.deadline = false), "states no deadline");
}

#[test]
fn everything_in_a_contract_has_a_comment() {
    none(&uncommented(&pool()));
}

#[test]
fn what_has_no_comment_is_found() {
    let found: Vec<_> = uncommented(&silent_pool())
        .into_iter()
        .map(|violation| violation.place)
        .collect();
    let expected = [
        "Service",
        "Service.Get",
        "Request",
        "Request.id",
        "Response",
        "Response.id",
        "State",
        "STATE_UNSPECIFIED",
    ];
    assert_eq!(
        found,
        expected.map(|name| format!("commerce.silent.v1.{name}"))
    );
}
