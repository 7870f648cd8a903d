//! Policies whose meaning depends on the enforcer (semantics 5): SL2302, SL2303, SL2304, SL2305. SL2301 stands with the
//! other findings about CIDRs.

use std::net::IpAddr;

use sluice_addr::{BitSet, PortRange};
use sluice_model::{Action, ClusterPeer, Direction, KubernetesPeer, NamespaceScope, RuleBody};
use sluice_report::Code;
use sluice_selector::{Labels, Selector};

use super::legs::{Group, Leg, Region};
use super::{Found, Lint, RuleAt};

pub(super) fn find(lint: &mut Lint<'_>) {
    let mut found = Vec::new();
    let backends = node_port_backends(lint);
    for at in lint.rules() {
        found.extend(own_node(lint, &at));
        found.extend(client_address(lint, &at, &backends));
        found.extend(negative_namespaces(&at));
    }
    lint.extend(found);
    if lint.judges_presence {
        hairpins(lint);
    }
}

/// An egress rule that means to keep pods from their own node (SL2302).
fn own_node(lint: &Lint<'_>, at: &RuleAt<'_, '_>) -> Option<Found> {
    if at.direction != Direction::Egress {
        return None;
    }
    let own = |excluded: &dyn Fn(IpAddr) -> bool| {
        let nodes = lint.world.nodes.values().filter(|node| node.status_addresses().any(excluded));
        let pods = lint.present.pods_of(&lint.policies[at.policy].subject);
        let node =
            nodes.into_iter().find(|node| pods.iter().any(|pod| pod.node.as_ref() == Some(&node.name)))?;
        Some(node.name.clone())
    };
    let denies = matches!(at.rule.rule.action, Action::Deny);
    let (field, node) = match &at.rule.rule.body {
        RuleBody::Kubernetes { peers, .. } => {
            peers.iter().flatten().enumerate().find_map(|(n, peer)| match peer {
                KubernetesPeer::IpBlock { except, .. } if !except.is_empty() => {
                    let node = own(&|address| except.iter().any(|cidr| cidr.contains(address)))?;
                    Some((format!("to[{n}].ipBlock.except"), node))
                }
                KubernetesPeer::IpBlock { .. } | KubernetesPeer::Selectors { .. } => None,
            })?
        }
        RuleBody::Cluster { peers, .. } if denies => {
            peers.iter().enumerate().find_map(|(n, peer)| match peer {
                ClusterPeer::Networks(cidrs) => {
                    let node = own(&|address| cidrs.iter().any(|cidr| cidr.contains(address)))?;
                    Some((format!("to[{n}].networks"), node))
                }
                ClusterPeer::Nodes(selector) => {
                    let node = lint.world.nodes.values().find(|node| selector.matches(&node.labels))?;
                    Some((format!("to[{n}].nodes"), node.name.clone()))
                }
                ClusterPeer::Pods { .. } | ClusterPeer::DomainNames(_) => None,
            })?
        }
        RuleBody::Calico(rule) if denies && !rule.destination.nets.is_empty() => {
            let node = own(&|address| rule.destination.nets.iter().any(|cidr| cidr.contains(address)))?;
            ("destination.nets".to_owned(), node)
        }
        RuleBody::Calico(_) | RuleBody::Cluster { .. } | RuleBody::Unreadable => return None,
    };
    let message = format!(
        "the rule keeps pods from node {node}, which runs some of them; here it holds, some enforcers always let a pod reach its \
         own node"
    );
    Some(at.found(
        Code::SL2302,
        &field,
        message,
        "do not rely on it elsewhere; protect the node's ports on the node",
    ))
}

/// The pods behind Services with node ports that may be entered at another node than the pod's.
fn node_port_backends(lint: &Lint<'_>) -> Vec<(String, BitSet)> {
    let services = lint.world.services.values();
    let exposed = services.filter(|service| {
        !service.external_local && service.ports.iter().any(|port| port.node_port.is_some())
    });
    exposed
        .map(|service| (format!("{}/{}", service.namespace, service.name), lint.present.backends(service)))
        .collect()
}

/// An ingress rule that tells outside clients apart by address, for pods behind a NodePort or load balancer (SL2303).
fn client_address(lint: &Lint<'_>, at: &RuleAt<'_, '_>, backends: &[(String, BitSet)]) -> Option<Found> {
    if at.direction != Direction::Ingress {
        return None;
    }
    let subject = &lint.policies[at.policy].subject;
    let (service, _) = backends.iter().find(|(_, ends)| ends.intersects(subject))?;
    let narrow = at.rule.rule.body.cidrs().into_iter().find(|cidr| {
        let held = lint.present.cidr(*cidr);
        let of_family = lint.present.family(cidr.family());
        let outside = |points: &BitSet| lint.present.only_ranges(points).count();
        cidr.prefix() > 0 && outside(&held) > 0 && outside(&held) < outside(of_family)
    })?;
    let message = format!(
        "{narrow} is compared with the address on the packet; clients that come through Service {service} at another node show \
         that node's address"
    );
    let hint = "set externalTrafficPolicy: Local on the Service, so that the client's own address arrives";
    Some(at.found(Code::SL2303, "", message, hint))
}

/// A namespaceSelector that an entity without namespace would satisfy (SL2305).
fn negative_namespaces(at: &RuleAt<'_, '_>) -> Option<Found> {
    let RuleBody::Calico(rule) = &at.rule.rule.body else { return None };
    [("source", &rule.source), ("destination", &rule.destination)].into_iter().find_map(|(field, side)| {
        let Some(NamespaceScope::Matching(selector)) = &side.namespace_selector else { return None };
        let is_negative = *selector != Selector::All && selector.matches(&Labels::new());
        if !is_negative {
            return None;
        }
        let message = format!(
            "{selector} is also true where there is no namespace; here it matches pods and NetworkSets of namespaces only, Calico \
             matches host endpoints and GlobalNetworkSets too"
        );
        let hint = "name the namespaces that are meant, with has(…), == or in";
        Some(at.found(Code::SL2305, &format!("{field}.namespaceSelector"), message, hint))
    })
}

/// Pods that one leg lets reach themselves through their Service and the other does not (SL2304).
fn hairpins(lint: &mut Lint<'_>) {
    let both = &lint.groups;
    let group_of = |groups: &[Group]| -> Vec<Option<usize>> {
        let mut of = vec![None; lint.present.ends.len()];
        for (number, group) in groups.iter().enumerate() {
            group.ends.iter().for_each(|end| of[end] = Some(number));
        }
        of
    };
    let of = [group_of(&both[0]), group_of(&both[1])];
    let mut found: Vec<(usize, usize, String)> = Vec::new();
    for slice in lint.world.slices.values() {
        let service = format!("{}/{}", slice.namespace, slice.service);
        let ports = slice.ports.iter().filter_map(|port| Some((port.protocol, port.port?)));
        let traffic = ports.fold(BitSet::new(), |all, (protocol, port)| {
            all.or(&lint.traffic.destinations(protocol, PortRange::single(port)))
        });
        let addresses = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
        for end in
            addresses.filter_map(|address| lint.present.only_pods(&lint.present.address(*address)).first())
        {
            let legs = Direction::BOTH.map(|direction| {
                let side = direction as usize;
                let group = &both[side][of[side][end]?];
                let leg = Leg { policies: &lint.policies, direction, group };
                let itself = Region::of(BitSet::from_iter([end]), traffic.clone());
                let judged = leg.judge(itself, &|_, _| true, None)?;
                Some((!judged.allowed.is_empty(), *group.policies.first()?))
            });
            // only where a rule of one leg names the pod is there a sign that it speaks to itself
            if let [Some((ingress, first)), Some((egress, second))] = legs
                && ingress != egress
            {
                found.push((if ingress { second } else { first }, end, service.clone()));
            }
        }
    }
    found.sort();
    let mut reported = Vec::new();
    for (policy, end, service) in found {
        if reported.contains(&policy) {
            continue;
        }
        reported.push(policy);
        let message = format!(
            "pod {} may reach itself through Service {service} by one of its legs only; here both are judged and it is denied, some \
             enforcers let it through",
            lint.present.ends[end].pod.key
        );
        let hint = "allow the pods of the Service in both directions, if they call themselves";
        lint.add(Code::SL2304, policy, "spec", message, Some(hint.into()));
    }
}
