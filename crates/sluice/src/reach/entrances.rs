//! What comes in through Ingress and Gateway objects.

use std::collections::BTreeMap;

use sluice_addr::{Family, PortRange};
use sluice_analysis::{Snapshot, TransportSet};
use sluice_model::{Namespace, ObjectDelta, Pod, PodKey, World};
use sluice_report::{AllowedPorts, ReachRow};
use sluice_selector::Labels;

use super::as_end;
use crate::input::{self, Input};
use crate::resolve::{self, End, Placed};

/// What stands for a controller of Ingress and Gateway objects that is not among the objects.
pub(super) const CONTROLLER: &str = "ingress-controller";

/// What comes in through Ingress and Gateway objects, where their controller is not among the objects: it is taken for a pod
/// without labels in a namespace of its own.
pub(super) fn entered(input: &Input, to: Option<&End>, by_pod: bool) -> Vec<ReachRow> {
    if input.entrances.is_empty() || !input::controllers(&input.placed.world).is_empty() {
        return Vec::new();
    }
    let (snapshot, key) = with_controller(&input.placed);
    let mut found: BTreeMap<(PodKey, Family), TransportSet> = BTreeMap::new();
    for entrance in &input.entrances {
        let wanted = |_, number: u16, name: &str| {
            entrance.port.is_empty() || entrance.port == name || entrance.port == number.to_string()
        };
        for backend in input::backends(snapshot.world(), &entrance.namespace, &entrance.service, wanted) {
            let family = Family::of(backend.address);
            let places = snapshot.pods(family);
            let source = places.iter().find(|p| p.pod.as_ref() == Some(&key));
            let target = places.iter().find(|p| p.address == backend.address);
            let (Some(source), Some(target)) = (source, target) else { continue };
            let Some(pod) = target.pod.clone() else { continue };
            if to.is_some_and(|to| !to.addresses.contains(&target.address)) {
                continue;
            }
            let port = PortRange::single(backend.port.unwrap_or(backend.front));
            let asked = TransportSet::of(family, backend.protocol, Some(port));
            let allowed = snapshot.admitted(source, target).intersect(&asked);
            found.entry((pod, family)).and_modify(|all| *all = all.union(&allowed)).or_insert(allowed);
        }
    }
    let found = found.into_iter().map(|((pod, family), allowed)| (pod, family, allowed.describe()));
    let is_one = to.is_some_and(|to| to.pods.len() == 1);
    rows(&input.placed.world, found.collect(), by_pod || is_one)
}

fn with_controller(placed: &Placed) -> (Snapshot, PodKey) {
    let mut world = placed.world.clone();
    let namespace = Namespace {
        name: CONTROLLER.into(),
        labels: Labels::from_iter([("kubernetes.io/metadata.name", CONTROLLER)]),
        annotations: Labels::default(),
    };
    let key = PodKey::new(CONTROLLER, CONTROLLER);
    world.apply(ObjectDelta::Upsert(sluice_model::Object::Namespace(namespace)));
    world.apply(ObjectDelta::Upsert(sluice_model::Object::Pod(Pod {
        key: key.clone(),
        uid: "".into(),
        labels: Labels::default(),
        service_account: "default".into(),
        node: None,
        host_network: false,
        addresses: Vec::new(),
        named_ports: Vec::new(),
        finished: false,
        deleting: false,
        workload: None,
    })));
    (placed.snapshot_of(resolve::place(world).world), key)
}

/// One row for each workload and family; for parts of it where its pods differ.
fn rows(world: &World, found: Vec<(PodKey, Family, Vec<AllowedPorts>)>, by_pod: bool) -> Vec<ReachRow> {
    type Parts = Vec<(Vec<AllowedPorts>, Vec<PodKey>)>;
    let mut of_end: BTreeMap<(String, Family), Parts> = BTreeMap::new();
    for (pod, family, allowed) in found {
        let workload = world.pods.get(&pod).and_then(|pod| pod.workload.as_deref()).filter(|_| !by_pod);
        let end = workload.map_or_else(|| pod.to_string(), as_end);
        let parts = of_end.entry((end, family)).or_default();
        match parts.iter_mut().find(|(known, _)| *known == allowed) {
            Some((_, pods)) => pods.push(pod),
            None => parts.push((allowed, vec![pod])),
        }
    }
    let mut rows = Vec::new();
    for ((end, family), parts) in of_end {
        let alone = parts.len() == 1;
        for (allowed, pods) in parts {
            let names: Vec<&str> = pods.iter().map(|key| &*key.name).collect();
            let to = if alone { end.clone() } else { format!("{end} ({})", names.join(", ")) };
            let (from, family) = (CONTROLLER.to_owned(), family.to_string());
            rows.push(ReachRow { from, to, family, allowed, undecided: Vec::new(), witness: None });
        }
    }
    rows
}
