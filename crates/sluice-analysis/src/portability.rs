//! How other enforcers read the same objects (semantics 5), and on which of these points a claim depends.

use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{AddrSet, Cidr};
use sluice_model::{
    ClusterPeer, EntityRule, KubernetesPeer, Object, ObjectDelta, Policy, Rule, RuleBody, World,
};
use sluice_report::ClaimState;
use sluice_selector::Selector;

use crate::judge::state_of;
use crate::snapshot::Snapshot;
use sluice_report::Claim;

/// How the points on which enforcers differ are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    pub(crate) cidrs: Cidrs,
    pub(crate) own_node: OwnNode,
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

impl Reading {
    /// The law's.
    pub(crate) const LAW: Reading = Reading { cidrs: Cidrs::Everything, own_node: OwnNode::Judged };

    /// Other enforcers', and what depends on the point if the result differs. Of one code the first that differs is told.
    pub(crate) const OTHERS: [(Reading, &str, &str); 3] = [
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
    ];

    /// The objects in which the policies say literally what this reading takes them to say; `None` if as they are.
    pub(crate) fn applied(self, world: &World) -> Option<World> {
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
        if told || !is_in_question(snapshot, *reading) {
            continue;
        }
        if state_of(snapshot.under_other(index), claim) != state {
            found.push((code, (*sentence).to_owned()));
        }
    }
    found.into_iter().map(|(_, sentence)| sentence).collect()
}

/// Can the reading change anything at all? Saves compiling the objects anew.
fn is_in_question(snapshot: &Snapshot, reading: Reading) -> bool {
    match (reading.cidrs, reading.own_node) {
        (Cidrs::Everything, OwnNode::Judged) => false,
        (Cidrs::Everything, OwnNode::Always) => !snapshot.world().nodes.is_empty(),
        _ => snapshot.world().policies.values().any(|policy| {
            let mut rules = [&policy.ingress, &policy.egress].into_iter().flatten().flatten();
            rules.any(|rule| !rule.body.cidrs().is_empty())
        }),
    }
}
