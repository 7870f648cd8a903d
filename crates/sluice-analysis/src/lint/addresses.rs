//! CIDRs that hold something else than their author may think (SL1033, SL1034, SL1036, SL2206, SL2301).

use std::net::IpAddr;

use sluice_addr::{BitSet, Cidr, Family};
use sluice_model::{Action, ClusterPeer, Kind, KubernetesPeer, Node, ObjectKey, RuleBody};
use sluice_report::Code;

use super::{Found, Lint, RuleAt};

/// A CIDR as written, with its field and what is excepted from it.
struct Written<'r> {
    field: String,
    cidr: Cidr,
    except: &'r [Cidr],
}

pub(super) fn find(lint: &mut Lint<'_>) {
    let nodes: Vec<(IpAddr, &str)> = lint
        .world
        .nodes
        .values()
        .flat_map(|node: &Node| node.status_addresses().map(|address| (address, &*node.name)))
        .collect();
    let services: Vec<(IpAddr, String)> = lint
        .world
        .services
        .values()
        .flat_map(|s| {
            s.cluster_ips.iter().map(move |address| (*address, format!("{}/{}", s.namespace, s.name)))
        })
        .collect();
    let mut found = Vec::new();
    for at in lint.rules() {
        for written in written(&at) {
            found.extend(holds(lint, &at, &written, &nodes, &services));
        }
        found.extend(one_family(lint, &at));
    }
    lint.extend(found);
    contested(lint);
}

fn written<'r>(at: &RuleAt<'_, 'r>) -> Vec<Written<'r>> {
    let list = at.peers_field();
    match &at.rule.rule.body {
        RuleBody::Kubernetes { peers, .. } => {
            let peers = peers.iter().flatten().enumerate();
            let blocks = peers.filter_map(|(n, peer)| match peer {
                KubernetesPeer::IpBlock { cidr, except } => {
                    Some(Written { field: format!("{list}[{n}].ipBlock"), cidr: *cidr, except })
                }
                KubernetesPeer::Selectors { .. } => None,
            });
            blocks.collect()
        }
        RuleBody::Cluster { peers, .. } => {
            let networks = peers.iter().enumerate().filter_map(|(n, peer)| match peer {
                ClusterPeer::Networks(cidrs) => Some((n, cidrs)),
                ClusterPeer::Pods { .. } | ClusterPeer::Nodes(_) | ClusterPeer::DomainNames(_) => None,
            });
            let each = networks.flat_map(|(n, cidrs)| {
                cidrs.iter().enumerate().map(move |(m, cidr)| Written {
                    field: format!("{list}[{n}].networks[{m}]"),
                    cidr: *cidr,
                    except: &[],
                })
            });
            each.collect()
        }
        RuleBody::Calico(rule) => {
            let sides = [("source", &rule.source), ("destination", &rule.destination)];
            let each = sides.into_iter().flat_map(|(field, side)| {
                side.nets.iter().enumerate().map(move |(n, cidr)| Written {
                    field: format!("{field}.nets[{n}]"),
                    cidr: *cidr,
                    except: &side.not_nets,
                })
            });
            each.collect()
        }
        RuleBody::Unreadable => Vec::new(),
    }
}

fn holds(
    lint: &Lint<'_>,
    at: &RuleAt<'_, '_>,
    written: &Written<'_>,
    nodes: &[(IpAddr, &str)],
    services: &[(IpAddr, String)],
) -> Option<Found> {
    let Written { field, cidr, except } = written;
    let within =
        |address: &IpAddr| cidr.contains(*address) && !except.iter().any(|one| one.contains(*address));
    let pods = lint.present.only_pods(&lint.present.cidr(*cidr).andnot(&lint.present.any_cidr(except)));
    if cidr.is_host() {
        let pod = lint.present.pods_of(&pods);
        if let [pod, ..] = pod.as_slice() {
            let message = format!(
                "{cidr} is the address of pod {} now; a pod has another address after every restart",
                pod.key
            );
            return Some(at.found(Code::SL1033, field, message, "select the pod by its labels"));
        }
    }
    let held_nodes: Vec<&str> =
        nodes.iter().filter(|(address, _)| within(address)).map(|(_, name)| *name).collect();
    if pods.is_empty() && held_nodes.is_empty() {
        // a range that also holds much else is not meant for Services
        let least = match cidr.family() {
            Family::V4 => 12,
            Family::V6 => 64,
        };
        let (_, service) = services.iter().find(|(address, _)| cidr.prefix() >= least && within(address))?;
        let message = format!(
            "{cidr} holds the address of Service {service}; policies see the pod's address behind it, so the rule never \
             matches that traffic"
        );
        return Some(at.found(Code::SL1034, field, message, "select the Service's pods by their labels"));
    }
    // only Calico's own enforcers read its kinds, and all of them as Sluice does
    if matches!(at.rule.rule.body, RuleBody::Calico(_)) || cidr.is_host() {
        return None;
    }
    let mut what = Vec::new();
    if !pods.is_empty() {
        what.push(lint.present.describe(&pods));
    }
    if let [node, more @ ..] = held_nodes.as_slice() {
        let rest = if more.is_empty() { String::new() } else { format!(" and {} more", more.len()) };
        what.push(format!("node {node}{rest}"));
    }
    let message = format!(
        "{cidr} holds the addresses of {}; here it matches them, some enforcers match no pod or node by CIDR",
        what.join(" and of ")
    );
    let hint = match at.rule.rule.action {
        Action::Allow => "except the cluster's ranges, and admit pods by selectors",
        Action::Deny | Action::Pass | Action::Log => "name pods by selectors",
    };
    Some(at.found(Code::SL2301, field, message, hint))
}

/// Everywhere, but in one family only, for pods that have both (SL1036).
fn one_family(lint: &Lint<'_>, at: &RuleAt<'_, '_>) -> Option<Found> {
    if !at.rule.rule.body.cidrs().iter().any(|cidr| cidr.prefix() == 0) {
        return None;
    }
    let mut all: Vec<Written<'_>> = written(at);
    all.retain(|written| written.cidr.prefix() == 0);
    let [only] = all.as_slice() else { return None };
    if at.rule.rule.action != Action::Allow {
        return None;
    }
    let missing = match only.cidr.family() {
        Family::V4 => Family::V6,
        Family::V6 => Family::V4,
    };
    let policy = &lint.policies[at.policy];
    let of_family = policy.subject.and(lint.present.family(missing));
    let concerned: BitSet =
        of_family.iter().filter(|end| lint.present.ends[*end].address.is_some()).collect();
    if concerned.is_empty() {
        return None;
    }
    // another rule of the policy may name the other family
    let outside = |points: &BitSet| lint.present.only_ranges(points).any(|range| range.family() == missing);
    let named_elsewhere =
        policy.rules(at.direction).unwrap_or_default().iter().any(|rule| {
            rule.rule.action == Action::Allow && rule.terms.iter().any(|term| outside(&term.peers))
        });
    if named_elsewhere {
        return None;
    }
    let message = format!(
        "{} is every {} address and no {missing} address: for {} everything outside stays closed over {missing}",
        only.cidr,
        only.cidr.family(),
        lint.present.describe(&concerned)
    );
    let hint = format!("add {} if it is meant, or say in the policy that it is not", Cidr::all(missing));
    Some(at.found(Code::SL1036, &only.field, message, &hint))
}

/// Addresses that several live pods claim (semantics 1.9).
fn contested(lint: &mut Lint<'_>) {
    let mut claims = Vec::new();
    for (address, claimants) in &lint.present.contested {
        let pods = lint.present.pods_of(claimants);
        for pod in &pods {
            let others: Vec<String> =
                pods.iter().filter(|other| other.key != pod.key).map(|other| other.key.to_string()).collect();
            claims.push((pod.key.clone(), *address, others.join(", ")));
        }
    }
    for (pod, address, others) in claims {
        let key = ObjectKey::new(Kind::Pod, pod.namespace, pod.name);
        let message = format!(
            "{others} claims {address} too: until one of them is gone, no rule that allows matches it by selector"
        );
        lint.add_about(Code::SL2206, key, "status.podIPs", None, message, None);
    }
}
