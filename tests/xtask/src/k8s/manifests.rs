//! Rendered manifests, and edits of them. JSON values and pointers: no types of Kubernetes, whose schema is checked
//! elsewhere.

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// Everything that an overlay renders to.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Manifests(Vec<Value>);

/// What a missing value is taken for.
const NOTHING: Value = Value::Null;

/// The value at a JSON pointer; null where there is none.
pub(crate) fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    value.pointer(pointer).unwrap_or(&NOTHING)
}

/// The text at a JSON pointer; empty where there is none.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    at(value, pointer).as_str().unwrap_or_default()
}

/// The list at a JSON pointer; empty where there is none.
pub(crate) fn list<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    at(value, pointer).as_array().map_or(&[], Vec::as_slice)
}

/// `Kind/name`.
pub(crate) fn title(object: &Value) -> String {
    format!("{}/{}", text(object, "/kind"), name(object))
}

/// The name of an object.
pub(crate) fn name(object: &Value) -> &str {
    text(object, "/metadata/name")
}

/// A name without the hash that Kustomize appends to a generated one.
pub(crate) fn base_name(name: &str) -> &str {
    match name.rsplit_once('-') {
        Some((base, hash)) if is_hash(hash) => base,
        _ => name,
    }
}

/// Ten characters without vowels, `1` and `l`: how Kustomize writes a hash.
pub(crate) fn is_hash(text: &str) -> bool {
    text.len() == 10 && text.bytes().all(|byte| b"bcdfghkmt2456789".contains(&byte))
}

/// Whether an object has this name, hash or not. A name that ends with a hyphen is the beginning of one.
fn is_called(object: &Value, wanted: &str) -> bool {
    let name = name(object);
    name == wanted
        || base_name(name) == wanted
        || (wanted.ends_with('-') && name.starts_with(wanted))
}

impl Manifests {
    /// Reads a stream of YAML documents.
    pub(crate) fn parse(yaml: &str) -> Result<Self> {
        serde_saphyr::from_multiple(yaml)
            .map(Self)
            .context("the rendered manifests are not YAML")
    }

    pub(crate) fn all(&self) -> &[Value] {
        &self.0
    }

    pub(crate) fn of_kind<'a>(&'a self, kind: &'a str) -> impl Iterator<Item = &'a Value> {
        self.0
            .iter()
            .filter(move |object| text(object, "/kind") == kind)
    }

    /// The object of this kind and name, hash or not.
    pub(crate) fn find<'a>(&'a self, kind: &'a str, wanted: &str) -> Option<&'a Value> {
        self.of_kind(kind).find(|object| is_called(object, wanted))
    }

    /// Whatever runs pods.
    pub(crate) fn workloads(&self) -> Vec<Workload<'_>> {
        let kinds = ["Deployment", "StatefulSet", "Job", "CronJob", "DaemonSet"];
        let runs_pods = |object: &&Value| kinds.contains(&text(object, "/kind"));
        self.0
            .iter()
            .filter(runs_pods)
            .map(|object| Workload { object })
            .collect()
    }

    /// Carries out an edit; fails where there is nothing to edit.
    pub(crate) fn edit(&mut self, edit: &Edit) -> Result<()> {
        match edit {
            Edit::Set(kind, name, pointer, value) => {
                let value = serde_json::from_str(value).context("the new value is not JSON")?;
                self.place(kind, name, pointer, Some(value))
            }
            Edit::Remove(kind, name, pointer) => self.place(kind, name, pointer, None),
            Edit::Replace(kind, name, pointer, old, new) => {
                let object = self.find_mut(kind, name)?;
                let Some(Value::String(text)) = object.pointer_mut(pointer) else {
                    bail!("{kind}/{name} has no text at {pointer}");
                };
                if !text.contains(old) {
                    bail!("{kind}/{name} has no {old:?} at {pointer}");
                }
                *text = text.replace(old, new);
                Ok(())
            }
            Edit::Drop(kind, name) => {
                let gone = self.find_mut(kind, name)?.clone();
                self.0.retain(|object| *object != gone);
                Ok(())
            }
            Edit::Add(object) => {
                self.0
                    .push(serde_json::from_str(object).context("the new object is not JSON")?);
                Ok(())
            }
        }
    }

    fn find_mut(&mut self, kind: &str, wanted: &str) -> Result<&mut Value> {
        let found = self
            .0
            .iter_mut()
            .find(|object| text(object, "/kind") == kind && is_called(object, wanted));
        found.with_context(|| format!("there is no {kind}/{wanted}"))
    }

    /// Puts a value, or nothing, at a pointer whose parent is there. `-` appends to a list.
    fn place(&mut self, kind: &str, name: &str, pointer: &str, value: Option<Value>) -> Result<()> {
        let (parent, key) = pointer
            .rsplit_once('/')
            .context("a pointer begins with /")?;
        let key = key.replace("~1", "/");
        let object = self.find_mut(kind, name)?;
        match (object.pointer_mut(parent), value) {
            (Some(Value::Object(map)), Some(value)) => {
                map.insert(key, value);
            }
            (Some(Value::Object(map)), None) if map.contains_key(&key) => {
                map.remove(&key);
            }
            (Some(Value::Array(list)), Some(value)) if key == "-" => list.push(value),
            (Some(Value::Array(list)), value) => {
                let index: usize = key.parse().context("a list has numbers")?;
                match value {
                    Some(value) => *list.get_mut(index).context("there is no such entry")? = value,
                    None if index < list.len() => drop(list.remove(index)),
                    None => bail!("{kind}/{name} has nothing at {pointer}"),
                }
            }
            _ => bail!("{kind}/{name} has nothing at {pointer}"),
        }
        Ok(())
    }
}

/// Something that runs pods.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Workload<'a> {
    pub(crate) object: &'a Value,
}

impl<'a> Workload<'a> {
    pub(crate) fn name(self) -> &'a str {
        name(self.object)
    }

    pub(crate) fn title(self) -> String {
        title(self.object)
    }

    pub(crate) fn is(self, kind: &str) -> bool {
        text(self.object, "/kind") == kind
    }

    pub(crate) fn pod(self) -> &'a Value {
        at(self.object, "/spec/template/spec")
    }

    pub(crate) fn labels(self) -> &'a Value {
        at(self.object, "/spec/template/metadata/labels")
    }

    pub(crate) fn containers(self) -> impl Iterator<Item = &'a Value> + use<'a> {
        let pod = self.pod();
        list(pod, "/initContainers")
            .iter()
            .chain(list(pod, "/containers"))
    }

    /// The first container: the workload's own program.
    pub(crate) fn container(self) -> &'a Value {
        at(self.pod(), "/containers/0")
    }

    /// The program of this workspace that it runs.
    pub(crate) fn program(self) -> Option<&'a str> {
        let image = text(self.container(), "/image");
        let (_, after) = image.rsplit_once("commerce-mesh/")?;
        after.split(['@', ':']).next()
    }

    /// The number of a container's port, by number or name.
    pub(crate) fn port(self, wanted: &Value) -> Option<u64> {
        let mut ports = self
            .containers()
            .flat_map(|container| list(container, "/ports"));
        if let Some(number) = wanted.as_u64() {
            return Some(number);
        }
        let named = ports.find(|port| at(port, "/name") == wanted)?;
        at(named, "/containerPort").as_u64()
    }

    /// The volume that holds a path, and what is left of the path below its mount.
    pub(crate) fn volume_of<'p>(self, path: &'p str) -> Option<(&'a Value, &'p str)> {
        let (mount, below) = self.mount_of(path)?;
        let named = |volume: &&Value| at(volume, "/name") == at(mount, "/name");
        Some((list(self.pod(), "/volumes").iter().find(named)?, below))
    }

    /// The mount that a path lies below, and what is left of the path.
    pub(crate) fn mount_of<'p>(self, path: &'p str) -> Option<(&'a Value, &'p str)> {
        let mut mounts = list(self.container(), "/volumeMounts").iter();
        mounts.find_map(|mount| {
            let below = path.strip_prefix(text(mount, "/mountPath"))?;
            Some((mount, below.strip_prefix('/')?))
        })
    }
}

/// A change of rendered manifests: what a careless hand would do. Values and objects are JSON.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Edit {
    /// Kind, name, pointer, value.
    Set(&'static str, &'static str, &'static str, &'static str),
    /// Kind, name, pointer.
    Remove(&'static str, &'static str, &'static str),
    /// Kind, name, pointer to a text, part of it, what stands there instead.
    Replace(
        &'static str,
        &'static str,
        &'static str,
        &'static str,
        &'static str,
    ),
    /// Kind, name.
    Drop(&'static str, &'static str),
    /// An object.
    Add(&'static str),
}

#[cfg(test)]
mod tests {
    use super::*;

    const YAML: &str = "\
kind: ConfigMap
metadata: {name: a-config-2bt7g5m9kd}
data:
  a.toml: |
    listen = 1
---
kind: Service
metadata: {name: a}
spec: {ports: [{name: grpc, port: 1}]}
";

    #[test]
    fn objects_are_found_with_and_without_their_hash() {
        let manifests = Manifests::parse(YAML).unwrap();
        assert_eq!(manifests.all().len(), 2);
        let config = manifests.find("ConfigMap", "a-config").unwrap();
        assert_eq!(name(config), "a-config-2bt7g5m9kd");
        assert!(manifests.find("Service", "b").is_none());
        assert_eq!(base_name("product-migrate"), "product-migrate");
    }

    #[test]
    fn edits_change_what_they_name_and_fail_where_it_is_not() {
        let mut manifests = Manifests::parse(YAML).unwrap();
        let edits = [
            Edit::Set("Service", "a", "/spec/clusterIP", "\"None\""),
            Edit::Set("Service", "a", "/spec/ports/-", "{\"port\": 2}"),
            Edit::Replace("ConfigMap", "a-config", "/data/a.toml", "= 1", "= 2"),
            Edit::Remove("Service", "a", "/spec/ports/0"),
        ];
        for edit in &edits {
            manifests.edit(edit).unwrap();
        }
        let service = manifests.find("Service", "a").unwrap();
        assert_eq!(at(service, "/spec/ports/0/port"), 2);
        let config = manifests.find("ConfigMap", "a-config").unwrap();
        assert_eq!(text(config, "/data/a.toml"), "listen = 2\n");
        manifests.edit(&Edit::Drop("Service", "a")).unwrap();
        for wrong in [
            Edit::Drop("Service", "a"),
            Edit::Remove("ConfigMap", "a-config", "/data/b"),
            Edit::Replace("ConfigMap", "a-config", "/data/a.toml", "= 3", ""),
            Edit::Set("ConfigMap", "a-config", "/none/b", "1"),
        ] {
            assert!(manifests.edit(&wrong).is_err(), "{wrong:?}");
        }
    }
}
