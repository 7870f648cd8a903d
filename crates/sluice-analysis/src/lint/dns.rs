//! Pods that may send something but cannot ask DNS (SL1021).

use std::collections::BTreeMap;

use sluice_addr::{BitSet, PortRange, Protocol};
use sluice_model::Direction;
use sluice_report::Code;
use sluice_selector::{LabelSelector, Operator, Requirement};

use super::Lint;
use super::legs::{Leg, Region};

/// Where DNS is asked.
pub(super) const PORTS: [(Protocol, u16); 2] = [(Protocol::UDP, 53), (Protocol::TCP, 53)];

/// The labels of CoreDNS and kube-dns as distributions ship them.
const DNS_LABELS: [(&str, [&str; 2]); 2] =
    [("k8s-app", ["kube-dns", "coredns"]), ("app.kubernetes.io/name", ["coredns", "kube-dns"])];

/// The label of the node-local cache.
const NODE_LOCAL: (&str, &str) = ("k8s-app", "node-local-dns");

/// Who answers DNS in the cluster.
pub(super) struct Servers {
    /// The pods.
    pub(super) pods: BitSet,
    /// The cache on each node.
    cache: BitSet,
    /// Do pods ask the cache and nobody else?
    cache_is_in_use: bool,
}

impl Servers {
    pub(super) fn find(lint: &Lint<'_>) -> Self {
        let present = &lint.present;
        let mut pods = BitSet::new();
        for (key, values) in DNS_LABELS {
            let values = values.iter().map(|value| (*value).into()).collect();
            let requirement = Requirement { key: key.into(), operator: Operator::In, values };
            let selector = LabelSelector { match_expressions: vec![requirement], ..LabelSelector::default() };
            pods.or_with(&present.pods.matching(&selector));
        }
        for service in lint.world.services.values().filter(|service| &*service.namespace == "kube-system") {
            if service.ports.iter().any(|port| (port.protocol, port.port) == PORTS[0]) {
                pods.or_with(&present.backends(service));
            }
        }
        let cache = lint.options.node_local_dns.iter().fold(BitSet::new(), |mut all, address| {
            all.or_with(&present.address(*address));
            all
        });
        let (key, value) = NODE_LOCAL;
        let mut running = lint.world.pods.values().filter(|pod| pod.host_network && !pod.finished);
        let cache_is_in_use = running.any(|pod| pod.labels.get(key) == Some(value));
        Servers { pods, cache, cache_is_in_use }
    }
}

/// What pods of one policy cannot do.
#[derive(Default)]
struct Cut {
    both: BitSet,
    only_tcp: BitSet,
}

pub(super) fn find(lint: &mut Lint<'_>) {
    if !lint.judges_presence {
        return;
    }
    let servers = Servers::find(lint);
    let [udp, tcp] =
        PORTS.map(|(protocol, port)| lint.traffic.destinations(protocol, PortRange::single(port)));
    // a pod that resolves over one of its addresses resolves
    let (mut isolated, mut asks, mut asks_by_tcp) = (BitSet::new(), BitSet::new(), BitSet::new());
    let mut blamed: Vec<(usize, BitSet)> = Vec::new();
    for group in &lint.groups[Direction::Egress as usize] {
        let leg = Leg { policies: &lint.policies, direction: Direction::Egress, group };
        let allows = |peers: BitSet, traffic: &BitSet| {
            let judged = leg.judge(Region::of(peers.and(&group.points), traffic.clone()), &|_, _| true, None);
            judged.is_none_or(|judged| !judged.allowed.is_empty())
        };
        let targets = match (servers.cache_is_in_use, servers.pods.is_empty()) {
            (true, _) => servers.cache.clone(),
            (false, false) => servers.pods.or(&servers.cache),
            (false, true) => lint.present.everywhere(),
        };
        if allows(targets.clone(), &udp) {
            asks.or_with(&group.ends);
            if allows(targets, &tcp) {
                asks_by_tcp.or_with(&group.ends);
            }
        } else if !allows(lint.present.everywhere(), &lint.traffic.all()) {
            continue; // a pod that may send nothing at all has nothing to resolve
        }
        isolated.or_with(&group.ends);
        let speaking = group.policies.iter().find(|policy| !lint.policies[**policy].is_bare());
        if let Some(policy) = speaking.or(group.policies.first()) {
            blamed.push((*policy, group.ends.clone()));
        }
    }
    let whole = |ends: &BitSet| lint.present.whole_pods(ends);
    let cannot_ask = isolated.andnot(&whole(&asks)).andnot(&servers.pods);
    let cannot_by_tcp = isolated.andnot(&whole(&asks_by_tcp)).andnot(&servers.pods).andnot(&cannot_ask);
    let mut cuts: BTreeMap<usize, Cut> = BTreeMap::new();
    for (policy, ends) in blamed {
        let cut = cuts.entry(policy).or_default();
        cut.both.or_with(&ends.and(&cannot_ask));
        cut.only_tcp.or_with(&ends.and(&cannot_by_tcp));
    }
    let whom = match (servers.cache_is_in_use, servers.pods.is_empty()) {
        (true, _) => "the node-local DNS cache".to_owned(),
        (false, false) => format!("the DNS servers, {}", lint.present.describe(&servers.pods)),
        (false, true) => "any DNS server".to_owned(),
    };
    for (policy, cut) in cuts {
        report(lint, policy, &cut, &whom, &servers);
    }
}

fn report(lint: &mut Lint<'_>, policy: usize, cut: &Cut, whom: &str, servers: &Servers) {
    let hint = match servers.cache_is_in_use {
        true => {
            "allow egress to the cache's address (169.254.20.10) on UDP and TCP 53: a rule for the DNS pods does not match it"
        }
        false => "allow egress to the DNS pods (namespace kube-system, k8s-app: kube-dns) on UDP and TCP 53",
    };
    if !cut.both.is_empty() {
        let message = format!(
            "{} may send, but not ask {whom}: names do not resolve",
            lint.present.describe(&cut.both)
        );
        lint.add(Code::SL1021, policy, "spec.egress", message, Some(hint.into()));
    }
    if !cut.only_tcp.is_empty() {
        let message = format!(
            "{} may ask {whom} by UDP only: answers that are too long for UDP fail",
            lint.present.describe(&cut.only_tcp)
        );
        lint.add(Code::SL1021, policy, "spec.egress", message, Some("allow TCP 53 beside UDP 53".into()));
    }
}
