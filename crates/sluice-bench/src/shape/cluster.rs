//! A cluster as companies run it: namespaces of teams with apps, twelve labels a pod, and the policies that people write.
//!
//! No published generator; the sizes are those of issue reports, and each policy kind is one of the recipes that guides
//! to NetworkPolicy give. Everything is a function of an index, so that events can make any object again.

use std::sync::Arc;

use sluice_addr::{PortRange, Protocol};
use sluice_engine::Scope;
use sluice_model::{Action, EntityRule, KubernetesPeer, KubernetesPort, Object, Pod, Policy, PortMatch};
use sluice_selector::Labels;

use super::{Instance, Size};
use crate::make::{
    PodSpec, PolicyMaker, from_source, kubernetes_rule, labels, matching, mix, namespace, node, node_name,
    own_pods, pick, pod, port, to_destination, token,
};

/// Pods of one app in a namespace.
pub(crate) const REPLICAS: usize = 5;
const TIERS: [&str; 4] = ["frontend", "backend", "worker", "data"];
const TEAMS: [&str; 12] = [
    "checkout", "search", "catalog", "identity", "payments", "growth", "data", "mobile", "infra", "risk",
    "support", "media",
];
const NAMED_PORTS: [(&str, u16); 2] = [("http", 8080), ("metrics", 9090)];
/// Namespaces that others name in their rules.
const SHARED: [&str; 3] = ["kube-system", "monitoring", "ingress-nginx"];
/// Policies for the whole cluster, over and above those of namespaces.
const GLOBAL: usize = 8;

/// How pods find their node.
#[derive(Clone, Copy, Debug)]
enum Placement {
    /// One after the other: each node has pods of many namespaces.
    RoundRobin,
    /// At random, so that some nodes have more.
    Random,
}

/// A cluster: how many pods and policies each namespace has, and where pods run.
#[derive(Clone, Debug)]
pub(crate) struct Cluster {
    seed: u64,
    /// For each namespace the number of its first pod, and of its first policy; one more at the end.
    first_pod: Vec<usize>,
    first_policy: Vec<usize>,
    nodes: usize,
    placement: Placement,
}

impl Cluster {
    /// 1,000 namespaces of 100 pods and 10 policies; 110 pods to a node.
    pub(crate) fn large(size: Size) -> Self {
        let namespaces = size.of(1_000, 6);
        let pods = size.of(100_000, 6 * 4 * REPLICAS) / namespaces;
        let policies = size.of(10_000, 80) - GLOBAL;
        Cluster {
            seed: size.seed,
            first_pod: (0..=namespaces).map(|n| n * pods).collect(),
            first_policy: (0..=namespaces).map(|n| n * policies / namespaces).collect(),
            nodes: (namespaces * pods).div_ceil(110).max(2),
            placement: Placement::RoundRobin,
        }
    }

    /// 604 namespaces with 5,413 pods and 13,678 policies: a few namespaces are large and most are small, and those with
    /// many policies are not those with many pods.
    pub(crate) fn replay(size: Size) -> Self {
        let namespaces = size.of(604, 8);
        let shuffled = |rank: usize| (rank * 7 + 3) % namespaces;
        let pods = zipf(size.of(5_413, 80), namespaces, |rank| rank);
        let policies = zipf(size.of(13_678, 100) - GLOBAL, namespaces, shuffled);
        let nodes = (size.of(5_413, 80) / 90).max(2);
        Cluster {
            seed: size.seed,
            first_pod: pods,
            first_policy: policies,
            nodes,
            placement: Placement::Random,
        }
    }

    pub(crate) fn instance(self, scope: Scope) -> Instance {
        let shape = Arc::new(self);
        let each = |count: usize, make: fn(&Cluster, usize) -> Object| {
            let shape = shape.clone();
            (0..count).map(move |n| make(&shape, n))
        };
        let objects = each(shape.namespaces(), |shape, n| shape.namespace(n, TEAMS[n % TEAMS.len()]))
            .chain(each(shape.nodes, |_, n| node(n)))
            .chain(each(shape.pods(), |shape, n| Object::Pod(shape.pod(n))))
            .chain(each(shape.policies(), |shape, n| Object::Policy(shape.policy(n))))
            .chain(each(GLOBAL, |_, n| Object::Policy(global_policy(n))));
        Instance { scope, objects: Box::new(objects), ports: vec![53, 80, 443, 5432, 8080, 8443, 9090, 9095] }
    }

    pub(crate) fn namespaces(&self) -> usize {
        self.first_pod.len() - 1
    }

    pub(crate) fn pods(&self) -> usize {
        self.first_pod[self.namespaces()]
    }

    pub(crate) fn policies(&self) -> usize {
        self.first_policy[self.namespaces()]
    }

    /// The policies of a namespace, by number.
    pub(crate) fn policies_of(&self, namespace: usize) -> std::ops::Range<usize> {
        self.first_policy[namespace]..self.first_policy[namespace + 1]
    }

    /// The pods of a namespace, by number.
    pub(crate) fn pods_of(&self, namespace: usize) -> std::ops::Range<usize> {
        self.first_pod[namespace]..self.first_pod[namespace + 1]
    }

    fn node_of(&self, pod: usize) -> usize {
        match self.placement {
            Placement::RoundRobin => pod % self.nodes,
            Placement::Random => (mix(self.seed ^ 0x0de, pod as u64) % self.nodes as u64) as usize,
        }
    }

    /// The node with most pods.
    pub(crate) fn busiest(&self) -> usize {
        let mut counts = vec![0usize; self.nodes];
        (0..self.pods()).for_each(|n| counts[self.node_of(n)] += 1);
        (0..self.nodes).max_by_key(|n| (counts[*n], std::cmp::Reverse(*n))).expect("there are nodes")
    }

    /// The pods of a node, by number.
    pub(crate) fn local(&self, node: usize) -> Vec<usize> {
        (0..self.pods()).filter(|n| self.node_of(*n) == node).collect()
    }

    pub(crate) fn scope(node: usize) -> Scope {
        Scope::Node(node_name(node).into())
    }

    pub(crate) fn name(&self, namespace: usize) -> String {
        match SHARED.get(namespace) {
            Some(name) => (*name).into(),
            None => format!("{}-{namespace}", TEAMS[namespace % TEAMS.len()]),
        }
    }

    pub(crate) fn namespace_of(&self, pod: usize) -> usize {
        self.first_pod.partition_point(|first| *first <= pod) - 1
    }

    pub(crate) fn namespace(&self, n: usize, team: &str) -> Object {
        let name = self.name(n);
        let env = *pick(&["prod", "staging", "dev"], self.seed, n as u64);
        namespace(&name, labels([("kubernetes.io/metadata.name", &*name), ("team", team), ("env", env)]))
    }

    /// The pod with this number.
    pub(crate) fn pod(&self, n: usize) -> Pod {
        let space = self.namespace_of(n);
        let app = (n - self.first_pod[space]) / REPLICAS;
        self.pod_like(n, space, app, tier_of(app), self.node_of(n))
    }

    /// A pod that the cluster need not have: any app, tier and node.
    pub(crate) fn pod_like(&self, n: usize, space: usize, app: usize, tier: &str, node: usize) -> Pod {
        let namespace = self.name(space);
        let app_name = app_name(app);
        let hash = token(self.seed ^ 0x4a5, (space * 1_000 + app) as u64, 10);
        let ports = if app.is_multiple_of(2) { &NAMED_PORTS[..] } else { &NAMED_PORTS[1..] };
        pod(PodSpec {
            namespace: &namespace,
            name: &format!("{app_name}-{hash}-{}", token(self.seed ^ 0x90d, n as u64, 10)),
            number: n,
            node,
            labels: self.pod_labels(space, app, tier, &hash),
            ports,
        })
    }

    fn pod_labels(&self, space: usize, app: usize, tier: &str, hash: &str) -> Labels {
        let app_name = app_name(app);
        let team = TEAMS[space % TEAMS.len()];
        labels([
            ("app.kubernetes.io/name", &*app_name),
            ("app.kubernetes.io/instance", &format!("{app_name}-{space}")),
            ("app.kubernetes.io/version", &format!("{}.{}.{}", app % 4, space % 10, app % 7)),
            ("app.kubernetes.io/component", tier),
            ("app.kubernetes.io/part-of", team),
            ("app.kubernetes.io/managed-by", "Helm"),
            ("helm.sh/chart", &format!("{app_name}-{}.{}.0", app % 4, space % 10)),
            ("pod-template-hash", hash),
            ("app", &app_name),
            ("tier", tier),
            ("team", team),
            ("track", if app % 9 == 8 { "canary" } else { "stable" }),
        ])
    }

    /// A pod as no app has it: two rules that are in force wherever the namespace has a local pod admit it, and no other
    /// pod is admitted by both.
    pub(crate) fn odd_pod(&self, n: usize, space: usize, app: usize, node: usize) -> Pod {
        let mut pod = self.pod_like(n, space, app, "frontend", node);
        pod.labels = pod.labels.with("app.kubernetes.io/component", "data");
        pod
    }

    /// The policy with this number.
    pub(crate) fn policy(&self, n: usize) -> Arc<Policy> {
        self.edited_policy(n, Edit::None)
    }

    /// The policy with this number after an edit.
    pub(crate) fn edited_policy(&self, n: usize, edit: Edit) -> Arc<Policy> {
        let space = self.first_policy.partition_point(|first| *first <= n) - 1;
        let number = n - self.first_policy[space];
        let pods = self.first_pod[space + 1] - self.first_pod[space];
        recipe(&self.name(space), number, pods.div_ceil(REPLICAS).max(1), edit)
    }
}

/// A change that somebody makes to a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edit {
    None,
    /// Another port in the policy's rule.
    Port(u16),
    /// Another tier of pods as peers.
    Peer(&'static str),
}

fn app_name(app: usize) -> String {
    format!("app-{app}")
}

/// The tier of an app's pods.
pub(crate) fn tier_of(app: usize) -> &'static str {
    TIERS[app % TIERS.len()]
}

/// Any tier but the app's own.
pub(crate) fn other_tier(app: usize, n: usize) -> &'static str {
    TIERS[(app + 1 + n % (TIERS.len() - 1)) % TIERS.len()]
}

pub(crate) fn team(n: usize) -> &'static str {
    TEAMS[n % TEAMS.len()]
}

/// Which recipe a policy follows is its number modulo this.
const RECIPES: usize = 9;
/// The recipe whose rule admits a tier of the namespace's pods on one port; edits change either.
pub(crate) const EDITABLE: usize = 2;

fn recipe(space: &str, number: usize, apps: usize, edit: Edit) -> Arc<Policy> {
    let name = format!("policy-{number}");
    let app = app_name((number * 3 + space.len()) % apps);
    let policy = || PolicyMaker::kubernetes(space, &name, matching([("app", &*app)]));
    let shared = |namespace: &str, pods: Option<(&str, &str)>| KubernetesPeer::Selectors {
        pods: pods.map(|pair| matching([pair])),
        namespaces: Some(matching([("kubernetes.io/metadata.name", namespace)])),
    };
    let tcp = |number| vec![port(Protocol::TCP, number)];
    let allow = Action::Allow;
    match number % RECIPES {
        0 => PolicyMaker::kubernetes(space, &name, matching([])).in_ingress().in_egress(),
        1 => {
            let dns = vec![port(Protocol::UDP, 53), port(Protocol::TCP, 53)];
            let peer = shared("kube-system", Some(("app", "app-0")));
            PolicyMaker::kubernetes(space, &name, matching([]))
                .egress(allow, kubernetes_rule(vec![peer], dns))
        }
        EDITABLE => {
            let number = if let Edit::Port(number) = edit { number } else { 8080 };
            let tier = if let Edit::Peer(tier) = edit { tier } else { "frontend" };
            PolicyMaker::kubernetes(space, &name, matching([]))
                .ingress(allow, kubernetes_rule(vec![own_pods([("tier", tier)])], tcp(number)))
        }
        3 => {
            let team = KubernetesPeer::Selectors {
                pods: Some(matching([("tier", "backend")])),
                namespaces: Some(matching([("team", team(number / RECIPES + space.len()))])),
            };
            policy().ingress(allow, kubernetes_rule(vec![team], tcp(8443)))
        }
        4 => {
            let block = KubernetesPeer::IpBlock {
                cidr: "0.0.0.0/0".parse().expect("a CIDR"),
                except: vec![
                    "10.0.0.0/8".parse().expect("a CIDR"),
                    "172.16.0.0/12".parse().expect("a CIDR"),
                    "169.254.169.254/32".parse().expect("a CIDR"),
                ],
            };
            policy().egress(allow, kubernetes_rule(vec![block], tcp(443)))
        }
        5 => {
            let peer = shared("ingress-nginx", None);
            let http = KubernetesPort { protocol: Protocol::TCP, port: PortMatch::Named("http".into()) };
            policy().ingress(allow, kubernetes_rule(vec![peer], vec![http]))
        }
        6 => {
            let range = PortRange::new(9090, 9100).expect("first is below last");
            let scrape = KubernetesPort { protocol: Protocol::TCP, port: PortMatch::Range(range) };
            let peer = shared("monitoring", Some(("app", "app-1")));
            policy().ingress(allow, kubernetes_rule(vec![peer], vec![scrape]))
        }
        7 => {
            let canary = "track == 'canary' && tier in {'worker', 'data'}";
            PolicyMaker::calico(space, &name, &format!("app == '{app}'"))
                .tier("default", 500.0)
                .ingress(Action::Deny, from_source(crate::make::selected(canary)))
                .ingress(Action::Allow, from_source(crate::make::selected("tier == 'frontend'")))
        }
        _ => {
            let data = own_pods([("app.kubernetes.io/component", "data")]);
            PolicyMaker::kubernetes(space, &name, matching([]))
                .egress(allow, kubernetes_rule(vec![data], tcp(5432)))
        }
    }
    .finish()
}

/// What administrators deny everywhere.
fn global_policy(n: usize) -> Arc<Policy> {
    let nets = vec![format!("198.51.100.{}/30", n * 4).parse().expect("a CIDR")];
    let side = EntityRule { nets, ..EntityRule::default() };
    PolicyMaker::calico("", &format!("deny-outside-{n}"), "all()")
        .tier("default", n as f64)
        .egress(Action::Deny, to_destination(None, side))
        .finish()
}

/// Where each of `parts` begins if `total` is shared out as 1, 1/2, 1/3 … by rank; a part has `rank(part)`.
fn zipf(total: usize, parts: usize, rank: impl Fn(usize) -> usize) -> Vec<usize> {
    let weight = |part: usize| 1.0 / (rank(part) + 1) as f64;
    let all: f64 = (0..parts).map(weight).sum();
    let mut before = 0.0;
    let mut firsts = vec![0];
    for part in 0..parts {
        before += weight(part);
        firsts.push((total as f64 * before / all).round() as usize);
    }
    firsts
}
