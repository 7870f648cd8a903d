//! The two workloads of Antrea's controller, `networkpolicy_controller_perf_test.go` in pkg/controller/networkpolicy.
//!
//! Published there: 25,000 namespaces in 5.8 to 6.4 s with 1.5 to 1.7 GB; one namespace in 10.66 s with 1,157 MB. Pods
//! have random addresses there and distinct ones here, because one address is one pod's.

use sluice_engine::Scope;
use sluice_model::{Action, Object};

use super::{Instance, Size};
use crate::make::{
    PodSpec, PolicyMaker, kubernetes_rule, labels, matching, mix, namespace, own_pods, pod, token,
};

const NODES: u64 = 1_000;

/// `TestInitXLargeScaleWithSmallNamespaces`: each namespace has two pods of each of two apps, a policy that denies all
/// in both directions, and one policy per app that admits the app to itself.
pub(crate) fn small_namespaces(size: Size) -> Instance {
    const APPS: [(&str, &str); 2] = [("app-1", "scale-1"), ("app-2", "scale-2")];
    let count = size.of(25_000, 4);
    let name = move |n: usize| token(size.seed, n as u64, 10);
    let namespaces = (0..count).map(move |n| namespace(&name(n), labels([("app", &*name(n))])));
    let pods = (0..count * 4).map(move |n| {
        Object::Pod(pod(PodSpec {
            namespace: &name(n / 4),
            name: &format!("pod{}", n % 4 + 1),
            number: n,
            node: (mix(size.seed, n as u64) % NODES) as usize,
            labels: labels([APPS[n % 4 / 2]]),
            ports: &[],
        }))
    });
    let policies = (0..count).flat_map(move |n| {
        let space = name(n);
        let deny = PolicyMaker::kubernetes(&space, "default-deny-all", matching([]));
        let apps = (1..).zip(APPS).map(|(number, app)| {
            PolicyMaker::kubernetes(&space, &format!("np-{number}"), matching([app]))
                .ingress(Action::Allow, kubernetes_rule(vec![own_pods([app])], vec![]))
        });
        let all: Vec<Object> =
            std::iter::once(deny).chain(apps).map(|p| p.in_ingress().in_egress().object()).collect();
        all
    });
    Instance {
        scope: Scope::Cluster,
        objects: Box::new(namespaces.chain(pods).chain(policies)),
        ports: vec![80],
    }
}

/// `TestInitXLargeScaleWithOneNamespace`: every policy selects all pods of the one namespace and admits all of them.
pub(crate) fn one_namespace(size: Size, scope: Scope) -> Instance {
    const APP: (&str, &str) = ("app-1", "scale-1");
    let count = size.of(10_000, 20);
    let spaces = std::iter::once_with(|| namespace("scale", labels([("app", "scale")])));
    let pods = (0..count).map(move |n| {
        Object::Pod(pod(PodSpec {
            namespace: "scale",
            name: &format!("pod-{}", token(size.seed, n as u64, 10)),
            number: n,
            node: (mix(size.seed, n as u64) % NODES) as usize,
            labels: labels([APP]),
            ports: &[],
        }))
    });
    let policies = (0..count).map(move |n| {
        PolicyMaker::kubernetes("scale", &format!("np-{}", token(size.seed, n as u64, 10)), matching([APP]))
            .ingress(Action::Allow, kubernetes_rule(vec![own_pods([APP])], vec![]))
            .in_egress()
            .object()
    });
    Instance { scope, objects: Box::new(spaces.chain(pods).chain(policies)), ports: vec![80] }
}

/// A node that has pods at every scale.
pub(crate) fn node_of_first_pod(size: Size) -> Scope {
    Scope::Node(crate::make::node_name((mix(size.seed, 0) % NODES) as usize).into())
}
