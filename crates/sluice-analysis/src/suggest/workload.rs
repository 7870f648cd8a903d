//! Workloads, and the labels that tell their pods from others.

use std::collections::BTreeMap;
use std::sync::Arc;

use sluice_model::{Pod, PodKey, World};
use sluice_selector::{LabelSelector, Operator, Requirement};

use super::draft::{PodSet, Scope};

/// Keys that people name workloads by, the best first.
const NAMES: [&str; 8] = [
    "app.kubernetes.io/name",
    "app",
    "k8s-app",
    "name",
    "app.kubernetes.io/component",
    "component",
    "app.kubernetes.io/instance",
    "tier",
];

/// Keys whose values change with every rollout or differ from pod to pod.
const VOLATILE: [&str; 8] = [
    "pod-template-hash",
    "controller-revision-hash",
    "pod-template-generation",
    "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index",
    "controller-uid",
    "batch.kubernetes.io/controller-uid",
    "batch.kubernetes.io/job-completion-index",
];

/// Most labels of one selector that are tried in every combination.
const COMBINED: usize = 3;

/// Pods as a selector names them.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Named {
    /// The namespace and the selector.
    pub(super) set: PodSet,
    /// Other pods that the selector takes too, because no label tells them apart.
    pub(super) besides: Vec<PodKey>,
}

/// The pods of a pod's workload; of a pod without one it alone.
pub(super) fn siblings<'w>(world: &'w World, pod: &'w Pod) -> Vec<&'w Pod> {
    let Some(workload) = &pod.workload else { return vec![pod] };
    of_namespace(world, &pod.key.namespace)
        .filter(|other| other.workload.as_ref() == Some(workload) && other.host_network == pod.host_network)
        .collect()
}

/// What people call a pod's workload: `shop/deployment/web`, or `shop/web-0` of a pod without one.
pub(super) fn name_of(pod: &Pod) -> String {
    let workload = pod.workload.as_deref().and_then(|workload| {
        let (kind, rest) = workload.split_once(' ')?;
        let name = rest.rsplit('/').next()?;
        Some(format!("{}/{}/{name}", pod.key.namespace, kind.to_lowercase()))
    });
    workload.unwrap_or_else(|| pod.key.to_string())
}

/// The last part of a workload's name.
pub(super) fn short_name(pod: &Pod) -> String {
    let name = name_of(pod);
    name.rsplit('/').next().unwrap_or(&name).to_owned()
}

/// All pods of a namespace that policies can select.
pub(super) fn of_namespace<'w>(
    world: &'w World,
    namespace: &Arc<str>,
) -> impl Iterator<Item = &'w Pod> + use<'w> {
    let namespace = namespace.clone();
    let first = PodKey::new(namespace.clone(), "");
    world.pods.range(first..).map(|(_, pod)| pod).take_while(move |pod| pod.key.namespace == namespace)
}

/// The fewest labels that all of `pods` (of one namespace, at least one) have and no other pod of it.
pub(super) fn named(world: &World, pods: &[&Pod]) -> Named {
    let Some(first) = pods.first() else {
        let pods = LabelSelector::all();
        return Named { set: PodSet { scope: Scope::One("".into()), pods }, besides: Vec::new() };
    };
    let namespace = &first.key.namespace;
    let others: Vec<&Pod> = of_namespace(world, namespace)
        .filter(|other| !other.host_network && !other.finished)
        .filter(|other| pods.iter().all(|pod| pod.key != other.key))
        .collect();
    let mut shared: Vec<(Arc<str>, Arc<str>)> = first
        .labels
        .iter()
        .filter(|(key, value)| is_usable(key) && pods.iter().all(|pod| pod.labels.get(key) == Some(value)))
        .map(|(key, value)| (key.into(), value.into()))
        .collect();
    shared.sort_by_key(|(key, _)| (rank(key), key.clone()));
    let wrong = |selector: &LabelSelector| others.iter().filter(|pod| selector.matches(&pod.labels)).count();
    let selector = subsets(&shared.clone())
        .map(LabelSelector::of)
        .find(|selector| wrong(selector) == 0)
        .or_else(|| by_absence(pods, &others, &shared).into_iter().min_by_key(|selector| wrong(selector)))
        .unwrap_or_else(|| LabelSelector::of(shared));
    let besides =
        others.iter().filter(|pod| selector.matches(&pod.labels)).map(|pod| pod.key.clone()).collect();
    Named { set: PodSet { scope: Scope::One(namespace.clone()), pods: selector }, besides }
}

/// A label that a selector may name: one that stays, and that Calico does not take for forged (semantics 1.4).
fn is_usable(key: &str) -> bool {
    let reserved =
        key.starts_with("pcns.") || key.starts_with("pcsa.") || key.starts_with("projectcalico.org/");
    !reserved && !VOLATILE.contains(&key)
}

fn rank(key: &str) -> usize {
    NAMES.iter().position(|name| *name == key).unwrap_or(NAMES.len())
}

/// Subsets of labels, small ones first, then all of them; never the empty one unless there is no label.
fn subsets(shared: &[(Arc<str>, Arc<str>)]) -> impl Iterator<Item = Vec<(Arc<str>, Arc<str>)>> {
    let mut found: Vec<Vec<usize>> = vec![Vec::new()];
    let mut from = 0;
    for _ in 0..COMBINED {
        let until = found.len();
        for n in from..until {
            let next = found[n].last().map_or(0, |last| last + 1);
            for index in next..shared.len() {
                let mut longer = found[n].clone();
                longer.push(index);
                found.push(longer);
            }
        }
        from = until;
    }
    found.push((0..shared.len()).collect());
    let empty = !shared.is_empty();
    found
        .into_iter()
        .filter(move |subset| !(empty && subset.is_empty()))
        .map(|subset| subset.into_iter().map(|index| shared[index].clone()).collect())
}

/// Where other pods have every label that these have: the labels, and that a key is absent.
fn by_absence(pods: &[&Pod], others: &[&Pod], shared: &[(Arc<str>, Arc<str>)]) -> Vec<LabelSelector> {
    let mut keys: BTreeMap<Arc<str>, ()> = BTreeMap::new();
    for other in others {
        let absent = |key: &str| pods.iter().all(|pod| !pod.labels.contains_key(key));
        keys.extend(
            other
                .labels
                .iter()
                .filter(|(key, _)| is_usable(key) && absent(key))
                .map(|(key, _)| (key.into(), ())),
        );
    }
    let base = LabelSelector::of(shared.iter().cloned());
    let without = |key: &Arc<str>| Requirement {
        key: key.clone(),
        operator: Operator::DoesNotExist,
        values: Vec::new(),
    };
    let mut selectors: Vec<LabelSelector> = vec![base.clone()];
    selectors.extend(
        keys.keys().map(|key| LabelSelector { match_expressions: vec![without(key)], ..base.clone() }),
    );
    if keys.len() > 1 {
        selectors.push(LabelSelector { match_expressions: keys.keys().map(without).collect(), ..base });
    }
    selectors
}

#[cfg(test)]
mod tests {
    use sluice_model::{Object, ObjectDelta};
    use sluice_selector::Labels;

    use super::*;

    fn pod(name: &str, labels: &str, workload: Option<&str>) -> Pod {
        let labels: Labels = labels.split_whitespace().filter_map(|pair| pair.split_once('=')).collect();
        Pod {
            key: PodKey::new("shop", name),
            uid: "".into(),
            labels,
            service_account: "default".into(),
            node: None,
            host_network: false,
            addresses: Vec::new(),
            named_ports: Vec::new(),
            finished: false,
            deleting: false,
            workload: workload.map(Into::into),
        }
    }

    /// Which selector names the workload of the first pod.
    fn chosen(pods: &[(&str, &str, Option<&str>)]) -> String {
        let mut world = World::default();
        for (name, labels, workload) in pods {
            world.apply(ObjectDelta::Upsert(Object::Pod(pod(name, labels, *workload))));
        }
        let first = &world.pods[&PodKey::new("shop", pods[0].0)];
        let named = named(&world, &siblings(&world, first));
        let besides: Vec<String> = named.besides.iter().map(|key| key.name.to_string()).collect();
        format!("{} {besides:?}", super::super::draft::calico_selector(&named.set.pods))
    }

    #[test]
    fn the_fewest_labels_that_no_other_pod_has() {
        let web = Some("Deployment shop/web");
        for (pods, expected) in [
            (vec![("a", "app=web pod-template-hash=1", web), ("b", "app=api", None)], "app == 'web' []"),
            (vec![("a", "z=1 app=web", web), ("b", "app=web z=2", None)], "z == '1' []"),
            (
                vec![
                    ("a", "app=web stage=x", web),
                    ("b", "app=web stage=y", None),
                    ("c", "app=api stage=x", None),
                ],
                "app == 'web' && stage == 'x' []",
            ),
            // the label in which the pods of the workload differ is not shared
            (
                vec![("a", "app=web i=1", web), ("b", "app=web i=2", web), ("c", "app=api i=1", None)],
                "app == 'web' []",
            ),
            (vec![("a", "", None), ("b", "app=web", None)], "!has(app) []"),
            (vec![("a", "app=web", None), ("b", "app=web x=1", None)], "app == 'web' && !has(x) []"),
            (vec![("a", "app=web", None), ("b", "app=web", None)], "app == 'web' [\"b\"]"),
            (vec![("a", "", None)], "all() []"),
        ] {
            assert_eq!(chosen(&pods), expected, "{pods:?}");
        }
    }
}
