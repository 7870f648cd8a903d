//! What the controllers have seen of the API: the last state of every object, and who owns whom.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::Arc,
};

use serde_json::Value;

use crate::resource::{self, ResourceType};

/// A served kind, by its place in the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Kind(usize);

impl Kind {
    /// Every kind whose objects are stored.
    pub(super) fn stored() -> impl Iterator<Item = Kind> {
        resource::all().iter().enumerate().filter(|(_, rt)| rt.stored()).map(|(i, _)| Kind(i))
    }

    /// A kind that the controllers know by name.
    pub(super) fn of(group: &str, kind: &str) -> Kind {
        Kind::find(group, kind).expect("the controllers' own kinds are in the registry")
    }

    /// The kind with this group and name, in any version.
    pub(super) fn find(group: &str, kind: &str) -> Option<Kind> {
        resource::all().iter().position(|rt| rt.group == group && rt.kind == kind).map(Kind)
    }

    pub(super) fn rt(self) -> &'static ResourceType {
        &resource::all()[self.0]
    }

    /// Group and kind.
    pub(super) fn name(self) -> (&'static str, &'static str) {
        (self.rt().group, self.rt().kind)
    }

    /// The URL of an object, or of a collection if `name` is empty; across namespaces if `namespace` is.
    pub(super) fn path(self, namespace: &str, name: &str, subresource: &str) -> String {
        let rt = self.rt();
        let mut path = String::from(if rt.group.is_empty() { "/api/" } else { "/apis/" });
        path.push_str(&rt.api_version());
        if rt.namespaced && !namespace.is_empty() {
            path.push_str("/namespaces/");
            path.push_str(namespace);
        }
        for part in [rt.plural, name, subresource].into_iter().filter(|p| !p.is_empty()) {
            path.push('/');
            path.push_str(part);
        }
        path
    }

    /// Whether decisions need more of this kind than its metadata.
    pub(super) fn whole(self) -> bool {
        matches!(
            self.name(),
            ("", "Pod" | "Node" | "Namespace" | "Service") | ("discovery.k8s.io", "EndpointSlice")
        )
    }
}

/// One object's name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ObjectRef {
    pub(super) kind: Kind,
    pub(super) namespace: String,
    pub(super) name: String,
}

impl ObjectRef {
    pub(super) fn new(kind: Kind, namespace: &str, name: &str) -> ObjectRef {
        ObjectRef { kind, namespace: namespace.to_string(), name: name.to_string() }
    }

    pub(super) fn of(kind: Kind, object: &Value) -> ObjectRef {
        ObjectRef::new(kind, text(object, "/metadata/namespace"), text(object, "/metadata/name"))
    }
}

/// What a reflector saw.
#[derive(Debug)]
pub(super) enum Change {
    /// Everything there is of a kind.
    Replaced(Kind, Vec<Value>),
    /// An object is new or different.
    Applied(Kind, Value),
    /// An object is gone.
    Deleted(Kind, Value),
}

/// An object that is different now.
#[derive(Debug, Clone)]
pub(super) struct Touched {
    pub(super) object: ObjectRef,
    pub(super) old: Option<Arc<Value>>,
    pub(super) new: Option<Arc<Value>>,
}

/// The last seen state of everything.
#[derive(Debug, Default)]
pub(super) struct World {
    objects: HashMap<Kind, BTreeMap<(String, String), Arc<Value>>>,
    by_uid: HashMap<String, ObjectRef>,
    dependents: HashMap<String, BTreeSet<ObjectRef>>,
}

impl World {
    /// Takes a change in and says what became different.
    pub(super) fn apply(&mut self, change: Change) -> Vec<Touched> {
        match change {
            Change::Applied(kind, object) => {
                vec![self.set(ObjectRef::of(kind, &object), Some(Arc::new(object)))]
            }
            Change::Deleted(kind, object) => vec![self.set(ObjectRef::of(kind, &object), None)],
            Change::Replaced(kind, objects) => {
                let mut touched = Vec::new();
                let present: BTreeSet<(String, String)> = objects
                    .iter()
                    .map(|o| {
                        (text(o, "/metadata/namespace").to_string(), text(o, "/metadata/name").to_string())
                    })
                    .collect();
                let gone: Vec<ObjectRef> = self
                    .objects
                    .get(&kind)
                    .into_iter()
                    .flat_map(BTreeMap::keys)
                    .filter(|key| !present.contains(*key))
                    .map(|(namespace, name)| ObjectRef::new(kind, namespace, name))
                    .collect();
                touched.extend(gone.into_iter().map(|object| self.set(object, None)));
                for object in objects {
                    let reference = ObjectRef::of(kind, &object);
                    let same = self.get(&reference).is_some_and(|old| {
                        old["metadata"]["resourceVersion"] == object["metadata"]["resourceVersion"]
                    });
                    if !same {
                        touched.push(self.set(reference, Some(Arc::new(object))));
                    }
                }
                touched
            }
        }
    }

    fn set(&mut self, object: ObjectRef, new: Option<Arc<Value>>) -> Touched {
        let of_kind = self.objects.entry(object.kind).or_default();
        let key = (object.namespace.clone(), object.name.clone());
        let old = match &new {
            Some(new) => of_kind.insert(key, new.clone()),
            None => of_kind.remove(&key),
        };
        if let Some(old) = &old {
            let uid = text(old, "/metadata/uid");
            if self.by_uid.get(uid) == Some(&object) {
                self.by_uid.remove(uid);
            }
            for owner in owner_uids(old) {
                if let Some(dependents) = self.dependents.get_mut(owner) {
                    dependents.remove(&object);
                    if dependents.is_empty() {
                        self.dependents.remove(owner);
                    }
                }
            }
        }
        if let Some(new) = &new {
            self.by_uid.insert(text(new, "/metadata/uid").to_string(), object.clone());
            for owner in owner_uids(new) {
                self.dependents.entry(owner.to_string()).or_default().insert(object.clone());
            }
        }
        Touched { object, old, new }
    }

    pub(super) fn get(&self, object: &ObjectRef) -> Option<Arc<Value>> {
        self.objects.get(&object.kind)?.get(&(object.namespace.clone(), object.name.clone())).cloned()
    }

    /// All objects of a kind, by namespace and name.
    pub(super) fn list(&self, kind: Kind) -> impl Iterator<Item = &Value> {
        self.objects.get(&kind).into_iter().flat_map(BTreeMap::values).map(|o| &**o)
    }

    /// The objects of a kind in one namespace, by name.
    pub(super) fn list_in<'a>(&'a self, kind: Kind, namespace: &'a str) -> impl Iterator<Item = &'a Value> {
        self.objects
            .get(&kind)
            .into_iter()
            .flat_map(move |objects| objects.range((namespace.to_string(), String::new())..))
            .take_while(move |((ns, _), _)| ns == namespace)
            .map(|(_, o)| &**o)
    }

    pub(super) fn has_uid(&self, uid: &str) -> bool {
        self.by_uid.contains_key(uid)
    }

    pub(super) fn find_uid(&self, uid: &str) -> Option<&ObjectRef> {
        self.by_uid.get(uid)
    }

    /// Objects that name this uid as an owner.
    pub(super) fn dependents(&self, uid: &str) -> impl Iterator<Item = &ObjectRef> {
        self.dependents.get(uid).into_iter().flatten()
    }

    pub(super) fn is_terminating(&self, namespace: &str) -> bool {
        self.get(&ObjectRef::new(Kind::of("", "Namespace"), "", namespace))
            .is_some_and(|ns| ns["metadata"]["deletionTimestamp"].is_string())
    }
}

/// Uids of the owners of an object.
pub(super) fn owner_uids(object: &Value) -> impl Iterator<Item = &str> {
    items(object, "/metadata/ownerReferences").iter().map(|owner| text(owner, "/uid"))
}

/// The text at a JSON pointer, empty if there is none.
pub(super) fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The list at a JSON pointer, empty if there is none.
pub(super) fn items<'a>(object: &'a Value, pointer: &str) -> &'a [Value] {
    object.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// Whether a condition has this status.
pub(super) fn has_condition(object: &Value, kind: &str, status: &str) -> bool {
    items(object, "/status/conditions").iter().any(|c| c["type"] == kind && c["status"] == status)
}
