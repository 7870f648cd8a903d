//! The policy that isolates a namespace, and what stays open beside it.

use std::collections::BTreeSet;
use std::str::FromStr;
use std::sync::Arc;

use serde::Serialize;
use sluice_addr::{Cidr, PortRange, Protocol};
use sluice_model::{Action, Direction, ObjectKey, Pod, PodKey, World, decide};
use sluice_report::{ConnectionChange, EndGroup};
use sluice_selector::LabelSelector;

use super::advice::{Suggestion, Work};
use super::draft::{Draft, DraftRule, Form, Peer, PodSet, Ports, Scope};
use super::surroundings::{dns, families, outside};
use super::workload::{named, of_namespace, siblings};
use crate::diff::diff;
use crate::snapshot::Snapshot;

/// The label of objects that Sluice made for people.
const MANAGED_BY: (&str, &str) = ("app.kubernetes.io/managed-by", "sluice");

/// `app.kubernetes.io/name` (or `app`) of the usual ingress controllers, and of the usual scrapers.
const INGRESS_CONTROLLERS: [&str; 9] = [
    "ingress-nginx",
    "rke2-ingress-nginx",
    "nginx-ingress",
    "traefik",
    "contour",
    "envoy",
    "haproxy-ingress",
    "kong",
    "istio-ingressgateway",
];
const SCRAPERS: [&str; 3] = ["prometheus", "vmagent", "grafana-agent"];

/// What an isolated namespace keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Keep {
    /// Names: the cluster's DNS.
    Dns,
    /// Connections inside the namespace.
    Namespace,
    /// What the ingress controller brings in.
    IngressController,
    /// Scrapes of metrics.
    Metrics,
    /// The Kubernetes API.
    KubernetesApi,
    /// Everything outside the cluster that the pods open.
    Outside,
}

impl Keep {
    /// Every item.
    pub const ALL: [Keep; 6] = [
        Keep::Dns,
        Keep::Namespace,
        Keep::IngressController,
        Keep::Metrics,
        Keep::KubernetesApi,
        Keep::Outside,
    ];

    /// The word for it.
    pub fn word(self) -> &'static str {
        match self {
            Keep::Dns => "dns",
            Keep::Namespace => "namespace",
            Keep::IngressController => "ingress-controller",
            Keep::Metrics => "metrics",
            Keep::KubernetesApi => "kubernetes-api",
            Keep::Outside => "outside",
        }
    }
}

impl FromStr for Keep {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let words = Keep::ALL.map(Keep::word).join(", ");
        Keep::ALL
            .into_iter()
            .find(|keep| keep.word() == text)
            .ok_or_else(|| format!("{text:?} is nothing that can be kept; write one of {words}"))
    }
}

/// Somebody who may enter an isolated namespace.
#[derive(Clone, Debug, PartialEq)]
pub enum Guest {
    /// All pods of a namespace.
    Namespace(Arc<str>),
    /// The pods of the workload of one pod.
    Workload(PodKey),
    /// Addresses.
    Cidr(Cidr),
}

/// How a namespace is isolated.
#[derive(Clone, Debug, PartialEq)]
pub struct IsolateOptions {
    /// Close what enters.
    pub ingress: bool,
    /// Close what leaves.
    pub egress: bool,
    /// What stays open.
    pub keep: Vec<Keep>,
    /// Who may enter.
    pub guests: Vec<Guest>,
}

impl Default for IsolateOptions {
    /// Both directions; names and the namespace itself are kept.
    fn default() -> Self {
        IsolateOptions {
            ingress: true,
            egress: true,
            keep: vec![Keep::Dns, Keep::Namespace],
            guests: Vec::new(),
        }
    }
}

/// A connection that stays open because another policy admits it: a new NetworkPolicy cannot close it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct StillOpen {
    /// The ends and what is open between them.
    #[serde(flatten)]
    pub connection: ConnectionChange,
    /// The rules that admit it, with their position where it is known.
    pub by: Vec<String>,
}

/// What isolating a namespace means.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Isolation {
    /// The policy and what it changes.
    pub suggestion: Suggestion,
    /// What other policies keep open. While it is not empty the namespace is not isolated.
    pub still_open: Vec<StillOpen>,
    /// Pods of the namespace that no policy of pods reaches, because they use the network of their node.
    pub not_affected: Vec<String>,
    /// Services of the namespace with a port on every node: clients outside the cluster, who may be cut off.
    pub services: Vec<String>,
}

/// The NetworkPolicy that isolates a namespace; `None` if neither it nor a pod of it is known.
pub fn isolate_namespace(
    snapshot: &Snapshot,
    namespace: &str,
    options: &IsolateOptions,
) -> Option<Isolation> {
    let world = snapshot.world();
    let own: Arc<str> = namespace.into();
    if !world.namespaces.contains_key(&own) && of_namespace(world, &own).next().is_none() {
        return None;
    }
    let mut work = Work::new(snapshot);
    let (mut ingress, mut egress) = (Vec::new(), Vec::new());
    let keeps: BTreeSet<Keep> = options.keep.iter().copied().collect();
    for keep in keeps {
        for (direction, rule) in kept(&mut work, world, &own, keep) {
            match direction {
                Direction::Ingress => ingress.push(rule),
                Direction::Egress => egress.push(rule),
            }
        }
    }
    let guests: Vec<Peer> = options.guests.iter().filter_map(|guest| peer_of(world, guest)).collect();
    if !guests.is_empty() {
        ingress.push(allow(guests, None));
    }
    let every_pod = PodSet { scope: Scope::One(own.clone()), pods: LabelSelector::all() };
    let mut draft = Draft {
        form: Form::Kubernetes,
        name: "isolation".into(),
        subject: every_pod,
        ingress: options.ingress.then_some(ingress),
        egress: options.egress.then_some(egress),
    };
    work.free_name(&mut draft);
    let policy = draft.policy()?;
    let key = policy.key.clone();
    let posture = match (options.ingress, options.egress) {
        (true, true) => "what enters and what leaves",
        (true, false) => "what enters",
        (false, true) => "what leaves",
        (false, false) => return None,
    };
    let kept_words: Vec<&str> = options.keep.iter().map(|keep| keep.word()).collect();
    let mut explanation = format!("isolates namespace {namespace}: closes {posture}");
    if !kept_words.is_empty() {
        explanation.push_str(&format!("; keeps {}", kept_words.join(", ")));
    }
    work.accept(policy, explanation.clone(), &[MANAGED_BY]);
    let after = work.snapshot();
    let alone = snapshot.with_world(only(&work.world, &key));
    let is_own = |end: &EndGroup| end.pods.iter().any(|pod| &*pod.namespace == namespace);
    let still_open: Vec<StillOpen> = diff(&alone, &after)
        .changes
        .into_iter()
        .filter(|change| !change.gained.is_empty() && (is_own(&change.from) || is_own(&change.to)))
        .map(|connection| StillOpen { by: admitted_by(&work.world, &own, &connection), connection })
        .collect();
    if !still_open.is_empty() {
        let by: BTreeSet<&String> = still_open.iter().flat_map(|open| &open.by).collect();
        let by: Vec<&str> = by.into_iter().take(3).map(String::as_str).collect();
        let what: BTreeSet<String> = still_open
            .iter()
            .map(|open| format!("{} to {}", open.connection.from, open.connection.to))
            .collect();
        let what: Vec<String> = what.into_iter().take(3).collect();
        work.warn(format!(
            "the namespace is not isolated: other policies keep open {} (by {}); edit these, or deny before them with a \
             ClusterNetworkPolicy of tier Admin",
            what.join(", "),
            by.join(", ")
        ));
    }
    let not_affected = of_namespace(world, &own).filter(|pod| pod.host_network && !pod.finished);
    let not_affected: Vec<String> = not_affected.map(|pod| pod.key.to_string()).collect();
    let services = world.services.values().filter(|service| {
        options.ingress
            && service.namespace == own
            && service.ports.iter().any(|port| port.node_port.is_some())
    });
    let services = services.map(|service| format!("{}/{}", service.namespace, service.name)).collect();
    let mut suggestion = work.finish_with(&after, explanation);
    let opened: BTreeSet<String> =
        suggestion.opens().map(|row| format!("{} to {}", row.from, row.to)).collect();
    if !opened.is_empty() {
        let opened: Vec<String> = opened.into_iter().take(3).collect();
        suggestion.warnings.push(format!(
            "what is kept opens what is closed now: {}; leave it out if that is not meant",
            opened.join(", ")
        ));
    }
    Some(Isolation { suggestion, still_open, not_affected, services })
}

fn allow(peers: Vec<Peer>, ports: Option<Vec<Ports>>) -> DraftRule {
    DraftRule { action: Action::Allow, peers: Some(peers), ports }
}

/// The rules of one kept item.
fn kept(work: &mut Work<'_>, world: &World, own: &Arc<str>, keep: Keep) -> Vec<(Direction, DraftRule)> {
    let inside = || Peer::Pods(PodSet { scope: Scope::One(own.clone()), pods: LabelSelector::all() });
    match keep {
        Keep::Dns => {
            let dns = dns(world);
            if !dns.found {
                work.warn("no DNS Service is among the objects; kube-dns in kube-system is assumed".into());
            }
            vec![(Direction::Egress, allow(dns.peers, Some(dns.ports)))]
        }
        Keep::Namespace => vec![
            (Direction::Ingress, allow(vec![inside()], None)),
            (Direction::Egress, allow(vec![inside()], None)),
        ],
        Keep::IngressController => entering(work, world, &INGRESS_CONTROLLERS, "ingress controller"),
        Keep::Metrics => entering(work, world, &SCRAPERS, "scraper of metrics"),
        Keep::KubernetesApi => api(work, world),
        Keep::Outside => vec![(Direction::Egress, allow(outside(world, &families(world)), None))],
    }
}

/// Pods that are known by the name of their software. Those that use the host's network come from their nodes' addresses.
fn entering(work: &mut Work<'_>, world: &World, names: &[&str], what: &str) -> Vec<(Direction, DraftRule)> {
    let is_one = |pod: &&Pod| {
        let label = |key| pod.labels.get(key).is_some_and(|value| names.contains(&value));
        label("app.kubernetes.io/name") || label("app")
    };
    let mut peers: Vec<Peer> = Vec::new();
    let mut add = |peer: Peer| {
        if !peers.contains(&peer) {
            peers.push(peer);
        }
    };
    for pod in world.pods.values().filter(is_one).filter(|pod| !pod.finished) {
        if pod.host_network {
            pod.addresses.iter().for_each(|address| add(super::draft::host_block(*address)));
        } else {
            add(Peer::Pods(named(world, &siblings(world, pod)).set));
        }
    }
    if peers.is_empty() {
        work.warn(format!("no {what} was found among the pods: nothing is kept for it"));
        return Vec::new();
    }
    vec![(Direction::Ingress, allow(peers, None))]
}

/// The addresses and ports behind Service default/kubernetes.
fn api(work: &mut Work<'_>, world: &World) -> Vec<(Direction, DraftRule)> {
    let slices =
        || world.slices.values().filter(|s| &*s.namespace == "default" && &*s.service == "kubernetes");
    let peers: Vec<Peer> = slices()
        .flat_map(|slice| &slice.endpoints)
        .flat_map(|endpoint| &endpoint.addresses)
        .map(|address| super::draft::host_block(*address))
        .collect();
    let ports: BTreeSet<Ports> = slices()
        .flat_map(|slice| &slice.ports)
        .filter_map(|port| Some(Ports::new(Protocol::TCP, Some(PortRange::single(port.port?)))))
        .collect();
    if peers.is_empty() || ports.is_empty() {
        work.warn(
            "no EndpointSlice of Service default/kubernetes is among the objects: the API is not kept".into(),
        );
        return Vec::new();
    }
    vec![(Direction::Egress, allow(peers, Some(ports.into_iter().collect())))]
}

fn peer_of(world: &World, guest: &Guest) -> Option<Peer> {
    Some(match guest {
        Guest::Namespace(name) => {
            Peer::Pods(PodSet { scope: Scope::One(name.clone()), pods: LabelSelector::all() })
        }
        Guest::Workload(key) => Peer::Pods(named(world, &siblings(world, world.pods.get(key)?)).set),
        Guest::Cidr(cidr) => Peer::Block { cidr: *cidr, except: Vec::new() },
    })
}

/// The objects without the policies that could select pods of the namespace, but for one. Those of other namespaces stay: they
/// judge the other ends, and what is alike on both sides costs nothing to compare.
fn only(world: &World, key: &ObjectKey) -> World {
    let mut alone = world.clone();
    alone
        .policies
        .retain(|own, _| own == key || !(own.namespace.is_empty() || own.namespace == key.namespace));
    alone.isolations.clear();
    alone
}

/// The rules by which the namespace's own end of a connection lets it pass.
fn admitted_by(world: &World, own: &Arc<str>, connection: &ConnectionChange) -> Vec<String> {
    let decision = decide(world, &connection.witness.flow);
    let legs = decision.legs().filter(|leg| leg.pod.namespace == *own);
    let rules: BTreeSet<String> =
        legs.filter_map(|leg| leg.deciding_rule()).map(ToString::to_string).collect();
    match rules.is_empty() {
        true => decision.legs().filter_map(|leg| leg.deciding_rule()).map(ToString::to_string).collect(),
        false => rules.into_iter().collect(),
    }
}
