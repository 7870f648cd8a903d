//! How other enforcers read the same objects (semantics 5), and on which of these points a claim depends.

use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{AddrSet, Cidr};
use sluice_model::{
    ClusterPeer, EntityRule, KubernetesPeer, NamespaceScope, Object, ObjectDelta, Policy, Rule, RuleBody,
    World,
};
use sluice_report::{Claim, ClaimEnd, ClaimState, Expect};
use sluice_selector::{Labels, Selector};

use crate::judge::state_of;
use crate::snapshot::Snapshot;

/// How the points on which enforcers differ are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) cidrs: Cidrs,
    pub(crate) own_node: OwnNode,
    pub(crate) negative: Negative,
}

/// Which addresses a CIDR of a policy matches (SL2301).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cidrs {
    /// Every one, as semantics 1.3 says.
    Everything,
    /// No pod's.
    NoPods,
    /// No pod's and no node's.
    NoPodsNoNodes,
}

/// A pod that speaks to its own node (SL2302).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnNode {
    /// Its egress leg decides, as semantics 1.5 says.
    Judged,
    /// It always may.
    Always,
}

/// What a `namespaceSelector` that an absent label satisfies matches (SL2305).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Negative {
    /// What has a namespace only, as semantics 3.4 says.
    Namespaced,
    /// GlobalNetworkSets and host endpoints too.
    WithoutNamespaceToo,
}

impl Reading {
    /// The law's.
    pub(crate) const LAW: Reading =
        Reading { cidrs: Cidrs::Everything, own_node: OwnNode::Judged, negative: Negative::Namespaced };

    /// Other enforcers', and what depends on the point if the result differs. Of one code the first that differs is told.
    pub(crate) const OTHERS: [(Reading, &str, &str); 4] = [
        (Reading { cidrs: Cidrs::NoPods, ..Self::LAW }, "SL2301", "ipBlock matching pod addresses (SL2301)"),
        (
            Reading { cidrs: Cidrs::NoPodsNoNodes, ..Self::LAW },
            "SL2301",
            "ipBlock matching pod and node addresses (SL2301)",
        ),
        (
            Reading { own_node: OwnNode::Always, ..Self::LAW },
            "SL2302",
            "policy between a pod and its own node (SL2302)",
        ),
        (
            Reading { negative: Negative::WithoutNamespaceToo, ..Self::LAW },
            "SL2305",
            "a negative namespaceSelector matching only what has a namespace (SL2305)",
        ),
    ];

    /// The objects in which the policies say literally what this reading takes them to say; `None` if as they are.
    pub(crate) fn applied(self, world: &World) -> Option<World> {
        if self.negative == Negative::WithoutNamespaceToo {
            return Some(with_global_twins(world));
        }
        let pods = world.pods.values().filter(|p| !p.host_network).flat_map(|p| p.live_addresses());
        let nodes = world.nodes.values().flat_map(|n| &n.addresses);
        let host_network =
            world.pods.values().filter(|p| p.host_network && !p.finished).flat_map(|p| &p.addresses);
        let unmatched: Vec<IpAddr> = match self.cidrs {
            Cidrs::Everything => return None,
            Cidrs::NoPods => pods.copied().collect(),
            Cidrs::NoPodsNoNodes => pods.chain(nodes).chain(host_network).copied().collect(),
        };
        let unmatched = AddrSet::from_cidrs(unmatched.into_iter().map(Cidr::host));
        let mut read = world.clone();
        for policy in world.policies.values() {
            let mut policy = Policy::clone(policy);
            for rule in [&mut policy.ingress, &mut policy.egress].into_iter().flatten().flatten() {
                without(rule, &unmatched);
            }
            read.apply(ObjectDelta::Upsert(Object::Policy(Arc::new(policy))));
        }
        Some(read)
    }
}

/// Beside every rule with a negative `namespaceSelector` one that matches what has no namespace.
fn with_global_twins(world: &World) -> World {
    let mut read = world.clone();
    for policy in world.policies.values() {
        let mut policy = Policy::clone(policy);
        for rules in [&mut policy.ingress, &mut policy.egress].into_iter().flatten() {
            let twins = |rule: &Rule| global_twins(rule).into_iter();
            *rules = rules.iter().flat_map(|rule| [rule.clone()].into_iter().chain(twins(rule))).collect();
        }
        read.apply(ObjectDelta::Upsert(Object::Policy(Arc::new(policy))));
    }
    read
}

fn global_twins(rule: &Rule) -> Vec<Rule> {
    let RuleBody::Calico(calico) = &rule.body else { return Vec::new() };
    let is_read_so = [is_negative(&calico.source), is_negative(&calico.destination)];
    let choices = [[true, false], [false, true], [true, true]];
    let possible = choices.iter().filter(|choice| (0..2).all(|side| !choice[side] || is_read_so[side]));
    possible
        .map(|choice| {
            let mut twin = calico.clone();
            for (side, chosen) in [&mut twin.source, &mut twin.destination].into_iter().zip(choice) {
                if *chosen {
                    side.namespace_selector = Some(NamespaceScope::Global);
                }
            }
            Rule { body: RuleBody::Calico(twin), ..rule.clone() }
        })
        .collect()
}

/// Does its `namespaceSelector` match where no label is?
fn is_negative(side: &EntityRule) -> bool {
    match &side.namespace_selector {
        Some(NamespaceScope::Matching(Selector::All | Selector::Global)) => false,
        Some(NamespaceScope::Matching(selector)) => selector.matches(&Labels::default()),
        Some(NamespaceScope::Global) | None => false,
    }
}

fn without(rule: &mut Rule, unmatched: &AddrSet) {
    match &mut rule.body {
        RuleBody::Kubernetes { peers: Some(peers), .. } => {
            for peer in peers {
                if let KubernetesPeer::IpBlock { cidr, except } = peer {
                    except.extend(unmatched.intersect(&AddrSet::from_cidrs([*cidr])).to_cidrs());
                }
            }
        }
        RuleBody::Calico(calico) => {
            for side in [&mut calico.source, &mut calico.destination] {
                side_without(side, unmatched);
            }
        }
        RuleBody::Cluster { peers, .. } => {
            for peer in peers {
                if let ClusterPeer::Networks(cidrs) = peer {
                    *cidrs = AddrSet::from_cidrs(cidrs.iter().copied()).subtract(unmatched).to_cidrs();
                }
            }
        }
        RuleBody::Kubernetes { peers: None, .. } | RuleBody::Unreadable => {}
    }
}

fn side_without(side: &mut EntityRule, unmatched: &AddrSet) {
    let rest = |nets: &[Cidr]| AddrSet::from_cidrs(nets.iter().copied()).subtract(unmatched).to_cidrs();
    if !side.nets.is_empty() {
        side.nets = rest(&side.nets);
        if side.nets.is_empty() {
            // an empty list is an absent criterion; this side matches nothing instead
            let nothing = Selector::Not(Box::new(Selector::All));
            side.selector = Some(Selector::and(side.selector.take().into_iter().chain([nothing])));
        }
    }
    side.not_nets = rest(&side.not_nets);
}

/// The points on which a claim's state depends.
pub(crate) fn depends_on(snapshot: &Snapshot, claim: &Claim, state: ClaimState) -> Vec<String> {
    let mut found: Vec<(&str, String)> = Vec::new();
    for (index, (reading, code, sentence)) in Reading::OTHERS.iter().enumerate() {
        let told = found.iter().any(|(known, _)| known == code);
        if told || !is_in_question(snapshot, claim, *reading) {
            continue;
        }
        if state_of(snapshot.under_other(index), claim) != state {
            found.push((code, (*sentence).to_owned()));
        }
    }
    let mut sentences: Vec<String> = found.into_iter().map(|(_, sentence)| sentence).collect();
    if behind_nodes(snapshot, claim).is_some_and(|seen| state_of(snapshot, &seen) != state) {
        sentences.push("the address that clients of a NodePort or load balancer show (SL2303)".into());
    }
    sentences
}

/// The claim as it stands if clients from outside show a node's address, as those of a node port may (semantics 1.6); `None` if
/// nobody outside is asked about, or no Service has a node port that shows it. A pod that reaches itself through a Service (SL2304) is no
/// connection that a claim asks about.
fn behind_nodes(snapshot: &Snapshot, claim: &Claim) -> Option<Claim> {
    let has_node_port = |service: &sluice_model::Service| {
        !service.external_local && service.ports.iter().any(|p| p.node_port.is_some())
    };
    let is_outside = |end: &ClaimEnd| matches!(end, ClaimEnd::Outside);
    if !claim.from.iter().any(is_outside)
        || snapshot.world().nodes.is_empty()
        || !snapshot.world().services.values().any(has_node_port)
    {
        return None;
    }
    let from = claim.from.iter().map(|end| match end {
        ClaimEnd::Outside => ClaimEnd::Nodes(sluice_selector::LabelSelector::all()),
        other => other.clone(),
    });
    Some(Claim { from: from.collect(), ..claim.clone() })
}

/// Can the reading change anything at all? Saves compiling the objects anew.
fn is_in_question(snapshot: &Snapshot, claim: &Claim, reading: Reading) -> bool {
    let world = snapshot.world();
    if reading.negative == Negative::WithoutNamespaceToo {
        return world.policies.values().any(|policy| {
            let mut rules = [&policy.ingress, &policy.egress].into_iter().flatten().flatten();
            rules.any(|rule| !global_twins(rule).is_empty())
        });
    }
    match (reading.cidrs, reading.own_node) {
        (Cidrs::Everything, OwnNode::Judged) => false,
        (Cidrs::Everything, OwnNode::Always) => !world.nodes.is_empty() && may_end_at_node(world, claim),
        _ => snapshot.ground().is_named(world, claim.future_pods),
    }
}

/// May a connection of the claim go to an address of a node?
fn may_end_at_node(world: &World, claim: &Claim) -> bool {
    let nodes = || {
        let of_pods = world.pods.values().filter(|pod| pod.host_network).flat_map(|pod| &pod.addresses);
        world.nodes.values().flat_map(|node| &node.addresses).chain(of_pods)
    };
    claim.expect == Expect::ReachOnly
        || claim.to.iter().any(|end| match end {
            ClaimEnd::Cidr { cidr, .. } => nodes().any(|address| cidr.contains(*address)),
            ClaimEnd::Outside => false,
            ClaimEnd::Pods { .. } => world.pods.values().any(|pod| pod.host_network),
            ClaimEnd::Nodes(_) | ClaimEnd::Service { .. } => true,
        })
}
