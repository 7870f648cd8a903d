//! The two workloads of Felix's calculation graph, `calc_graph_bench_test.go` in felix/calc.
//!
//! Published: 250,000 endpoints with tag policies in 3.4 s with 375 MB; 100,000 isolated customers in 6.9 s with 402 MB
//! of heap (projectcalico/calico pull requests 7869 and 11866). Felix's profiles of namespaces have no rules there and
//! deny; a pod's profile here allows, as on a Kubernetes node.

use sluice_addr::{PortRange, Protocol};
use sluice_engine::Scope;
use sluice_model::{Action, EntityRule, Object, PortMatch};

use super::{Instance, Size};
use crate::make::{
    PodSpec, PolicyMaker, from_source, labels, namespace, node_name, pod, selected, to_destination, token,
};

const LOCAL: usize = 0;
const REMOTE: usize = 1;

/// The labels that serve as tags. Some stand twice, so that they are more frequent.
const TAGS: [&str; 31] = [
    "FOO_BAR",
    "FOO_BAR",
    "BIFF_BOP",
    "calico/FizzBuzz",
    "calico/BoffBip",
    "calico/Bazzle",
    "calico/Razzle",
    "calico/DoopDeeDoo",
    "calico/SOME_LABEL",
    "calico/BORED_NOW",
    "MyMarkerLabel",
    "xFOO_BAR",
    "xBIFF_BOP",
    "xcalico/FizzBuzz",
    "xcalico/BoffBip",
    "xcalico/Bazzle",
    "xcalico/Razzle",
    "xcalico/DoopDeeDoo",
    "xcalico/SOME_LABEL",
    "xcalico/BORED_NOW",
    "yxMyMarkerLabel",
    "yxFOO_BAR",
    "yxBIFF_BOP",
    "yxcalico/FizzBuzz",
    "yxcalico/BoffBip",
    "yxcalico/Bazzle",
    "yxcalico/Razzle",
    "yxcalico/DoopDeeDoo",
    "yxcalico/SOME_LABEL",
    "yxcalico/BORED_NOW",
    "yxMyMarkerLabel",
];

/// `BenchmarkInitialSnapshot200Local250kTotal10000TagPols`: 250,000 remote endpoints and 200 local ones, each with one
/// tag and five labels that repeat every 10, 11, 20, 30 and 40 endpoints; 10,000 policies, each for the endpoints of a tag
/// and admitting five tags.
pub(crate) fn tags(size: Size) -> Instance {
    const NAMESPACES: usize = 100;
    let (remote, local) = (size.of(250_000, 400), size.of(200, 40));
    let policies = size.of(10_000, 62);
    let space = |n: usize| format!("namespace-{}", n % NAMESPACES);
    let namespaces = (0..NAMESPACES)
        .map(move |n| namespace(&space(n), labels([("kubernetes.io/metadata.name", &*space(n))])));
    let pods = (0..remote + local).map(move |n| {
        let values: Vec<(String, String)> = [10, 11, 20, 30, 40]
            .map(|every| (format!("one-in-{every}"), format!("value-{}", (n + 1) % every)))
            .into();
        let tag = (TAGS[(n + 1) % TAGS.len()], "true");
        let pairs = values.iter().map(|(k, v)| (&**k, &**v)).chain([tag]);
        Object::Pod(pod(PodSpec {
            namespace: &space(n),
            name: &format!("wep-{n}"),
            number: n,
            node: if n < remote { REMOTE } else { LOCAL },
            labels: labels(pairs),
            ports: &[],
        }))
    });
    let policies = (0..policies).map(move |n| {
        let has = |n: usize| format!("has({})", TAGS[n % TAGS.len()]);
        let policy = PolicyMaker::calico("", &format!("tag-pol-{n}"), &has(n));
        let admit =
            |policy: PolicyMaker, j| policy.ingress(Action::Allow, from_source(selected(&has(n + j))));
        (0..5).fold(policy, admit).object()
    });
    Instance {
        scope: Scope::Node(node_name(LOCAL).into()),
        objects: Box::new(namespaces.chain(pods).chain(policies)),
        ports: vec![80],
    }
}

/// `BenchmarkIsolatedCustomers100k`: 100,000 namespaces with one pod and one Calico policy each, which admits the
/// namespace's own pods and DNS; pods have 15 labels, five of them unique. 100 pods are local, spread over the namespaces.
pub(crate) fn customers(size: Size) -> Instance {
    let count = size.of(100_000, 300);
    let stride = (count / size.of(100, 30)).max(1);
    let name = |n: usize| format!("customer-{n}");
    let namespaces = (0..count).map(move |n| {
        let production = if n % 2 == 0 { "true" } else { "false" };
        let id = token(size.seed, n as u64, 20);
        let pairs =
            [("kubernetes.io/metadata.name", &*name(n)), ("namespace-id", &id), ("production", production)];
        namespace(&name(n), labels(pairs))
    });
    let pods = (0..count).map(move |n| {
        let name = name(n);
        Object::Pod(pod(PodSpec {
            namespace: &name,
            name: &format!("app-{:09x}-{:05x}", n * 7 + 3, n * 17 + 5),
            number: n,
            node: if n.is_multiple_of(stride) { LOCAL } else { REMOTE },
            labels: customer_labels(size.seed, n),
            ports: &[],
        }))
    });
    let policies = (0..count).map(move |n| {
        let name = name(n);
        let own = format!("pcns.kubernetes.io/metadata.name == '{name}'");
        let dns = EntityRule {
            nets: vec!["10.96.0.10/32".parse().expect("a CIDR")],
            ports: vec![PortMatch::Range(PortRange::single(53))],
            ..EntityRule::default()
        };
        PolicyMaker::calico(&name, "isolation", &own)
            .ingress(Action::Allow, from_source(selected(&own)))
            .egress(Action::Allow, to_destination(None, selected(&own)))
            .egress(Action::Allow, to_destination(Some(Protocol::UDP), dns))
            .object()
    });
    Instance {
        scope: Scope::Node(node_name(LOCAL).into()),
        objects: Box::new(namespaces.chain(pods).chain(policies)),
        ports: vec![53, 80],
    }
}

fn customer_labels(seed: u64, n: usize) -> sluice_selector::Labels {
    let unique = |salt: u64, length| token(seed ^ salt, n as u64, length);
    let of = |choices: &[&'static str]| choices[n % choices.len()];
    let bit = |bit: usize| if n >> bit & 1 == 0 { "0" } else { "1" };
    labels([
        ("pod-id", &*unique(1, 20)),
        ("instance-id", &unique(2, 20)),
        ("short-id", &unique(3, 10)),
        ("config-hash", &unique(4, 20)),
        ("version-tag", &unique(5, 8)),
        ("enabled", bit(0)),
        ("debug", bit(1)),
        ("canary", bit(2)),
        ("managed", bit(3)),
        ("environment", of(&["dev", "staging", "prod"])),
        ("tier", of(&["frontend", "backend", "middleware", "data"])),
        ("region", of(&["us-east", "us-west", "eu-west", "ap-south"])),
        ("team", of(&["platform", "payments", "identity", "growth", "infra"])),
        ("managed-by", "saas-controller"),
        ("tenant-id", &token(seed ^ 6, (n % 5_000) as u64, 10)),
    ])
}
