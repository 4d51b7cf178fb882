//! JSON to message: every mistake is reported with its path and with what was expected.
//!
//! Unknown names are refused, `null` means absent, and both spellings of a name are read.

use std::collections::HashMap;

use prost_reflect::{
    DynamicMessage, FieldDescriptor, Kind, MapKey, MessageDescriptor, OneofDescriptor, Value,
};

use super::{Path, scalar, tree::Node, well_known};
use crate::{
    error::Violations,
    field::{self, WellKnown},
};

/// Walks a tree along descriptors. What is wrong goes to `violations`; the walk goes on behind it.
pub(crate) struct Reader<'a> {
    pub(crate) violations: &'a mut Violations,
}

impl Reader<'_> {
    /// Reads a message of any type; `None` where it is no message at all.
    pub(crate) fn any_message(
        &mut self,
        desc: &MessageDescriptor,
        node: Node,
        path: Path<'_>,
    ) -> Option<DynamicMessage> {
        match (field::well_known(desc), node) {
            (Some(known), node) => well_known::from_node(self, known, desc, node, path),
            (None, Node::Object(members)) => self.message(desc, members, path),
            (None, node) => {
                self.violations
                    .push(path, format!("expected an object, got {}", node.kind()));
                None
            }
        }
    }

    /// Reads the members of an object as the fields of a message.
    #[expect(
        clippy::unnecessary_wraps,
        reason = "the same shape as the other readers"
    )]
    pub(crate) fn message(
        &mut self,
        desc: &MessageDescriptor,
        members: Vec<(String, Node)>,
        path: Path<'_>,
    ) -> Option<DynamicMessage> {
        let mut message = DynamicMessage::new(desc.clone());
        // By field number: the name under which it was given first.
        let mut given: HashMap<u32, String> = HashMap::with_capacity(members.len());
        for (name, node) in members {
            let at = path.field(&name);
            let Some(field) = field::named(desc, &name) else {
                self.violations.push(at, "no such field");
                continue;
            };
            if let Some(first) = given.insert(field.number(), name.clone()) {
                self.violations
                    .push(at, format!("given twice, also as `{first}`"));
                continue;
            }
            if node == Node::Null && !takes_null(&field) {
                continue;
            }
            let rival = field
                .containing_oneof()
                .and_then(|oneof| rival(&message, &oneof));
            if let Some(rival) = rival {
                self.violations
                    .push(at, format!("only one of it and `{rival}` may be given"));
                continue;
            }
            if let Some(value) = self.field(&field, node, at) {
                message.set_field(&field, value);
            }
        }
        Some(message)
    }

    /// Reads the value of a field: a list, a map or a single value.
    pub(crate) fn field(
        &mut self,
        field: &FieldDescriptor,
        node: Node,
        path: Path<'_>,
    ) -> Option<Value> {
        if field.is_map() {
            return self.map(field, node, path);
        }
        if !field.is_list() {
            return self.single(&field.kind(), node, path);
        }
        let Node::List(items) = node else {
            self.violations
                .push(path, format!("expected an array, got {}", node.kind()));
            return None;
        };
        let kind = field.kind();
        let mut values = Vec::with_capacity(items.len());
        for (i, item) in items.into_iter().enumerate() {
            let at = path.index(i);
            if item == Node::Null && !takes_null(field) {
                self.violations.push(at, "null is not allowed in an array");
            } else {
                values.extend(self.single(&kind, item, at));
            }
        }
        Some(Value::List(values))
    }

    fn map(&mut self, field: &FieldDescriptor, node: Node, path: Path<'_>) -> Option<Value> {
        let Node::Object(members) = node else {
            self.violations
                .push(path, format!("expected an object, got {}", node.kind()));
            return None;
        };
        let kind = field.kind();
        let entry = kind
            .as_message()
            .expect("a map is a list of entry messages");
        let (key_field, value_field) = (entry.map_entry_key_field(), entry.map_entry_value_field());
        let (key_kind, value_kind) = (key_field.kind(), value_field.kind());
        let mut map = HashMap::with_capacity(members.len());
        for (name, node) in members {
            let at = path.key(&name);
            let key = match map_key(&key_kind, &name) {
                Ok(key) => key,
                Err(why) => {
                    self.violations.push(at, format!("key: {why}"));
                    continue;
                }
            };
            if node == Node::Null && !takes_null(&value_field) {
                self.violations.push(at, "null is not allowed in a map");
                continue;
            }
            let Some(value) = self.single(&value_kind, node, at) else {
                continue;
            };
            if map.insert(key, value).is_some() {
                self.violations.push(at, "the same key is given twice");
            }
        }
        Some(Value::Map(map))
    }

    fn single(&mut self, kind: &Kind, node: Node, path: Path<'_>) -> Option<Value> {
        if let Kind::Message(desc) = kind {
            return self.any_message(desc, node, path).map(Value::Message);
        }
        scalar::from_node(kind, &node)
            .map_err(|why| self.violations.push(path, why))
            .ok()
    }
}

/// The field of a oneof that is already set. A synthetic one (`optional`) has no second field.
pub(crate) fn rival(message: &DynamicMessage, oneof: &OneofDescriptor) -> Option<String> {
    let set = oneof.fields().find(|field| message.has_field(field))?;
    Some(set.json_name().to_owned())
}

/// `null` is a value of its own for `google.protobuf.Value` and `NullValue`; elsewhere it is absence.
fn takes_null(field: &FieldDescriptor) -> bool {
    match field.kind() {
        Kind::Message(desc) => field::well_known(&desc) == Some(WellKnown::Value),
        Kind::Enum(desc) => scalar::is_null_value(&desc),
        _ => false,
    }
}

fn map_key(kind: &Kind, text: &str) -> Result<MapKey, String> {
    let value = scalar::from_text(kind, text)?;
    Ok(value
        .into_map_key()
        .expect("the contract allows only keys that can be one"))
}
