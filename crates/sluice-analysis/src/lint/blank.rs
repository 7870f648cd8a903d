//! What is left blank and means all or nothing (SL1001, SL1002, SL1006, SL1013).

use sluice_addr::{BitSet, Cidr};
use sluice_model::{Action, CalicoRule, ClusterPeer, Direction, KubernetesPeer, RuleBody};
use sluice_report::Code;

use super::{Found, Lint, RuleAt};

pub(super) fn find(lint: &mut Lint<'_>) {
    let mut found = Vec::new();
    let exposed = exposed(lint);
    for at in lint.rules().filter(|at| at.rule.rule.action == Action::Allow) {
        found.extend(everyone(&at).or_else(|| every_port(&at)));
        found.extend(pods_only(lint, &at, &exposed));
    }
    let opened = Direction::BOTH.map(|direction| opened(lint, direction));
    for number in 0..lint.policies.len() {
        found.extend(nothing_allowed(lint, number, &opened));
    }
    lint.extend(found);
}

/// A rule without any condition (SL1001).
fn everyone(at: &RuleAt<'_, '_>) -> Option<Found> {
    let blank = match &at.rule.rule.body {
        RuleBody::Kubernetes { peers: None, ports: None } => true,
        RuleBody::Calico(rule) => **rule == CalicoRule::default(),
        RuleBody::Kubernetes { .. } | RuleBody::Cluster { .. } | RuleBody::Unreadable => false,
    };
    if !blank {
        return None;
    }
    let (who, hint) = match at.direction {
        Direction::Ingress => {
            ("everyone, inside the cluster and outside, connects to", "name the peers in from")
        }
        Direction::Egress => (
            "connections to everywhere, inside the cluster and outside, are open from",
            "name the peers in to",
        ),
    };
    let message = format!("the rule has no condition: {who} the selected pods on every port and protocol");
    Some(at.found(Code::SL1001, "", message, hint))
}

/// A rule without ports toward more than named pods (SL1006).
fn every_port(at: &RuleAt<'_, '_>) -> Option<Found> {
    let is_wide = |cidr: &Cidr| !cidr.is_host();
    let wide = match &at.rule.rule.body {
        RuleBody::Kubernetes { peers: Some(peers), ports: None } => peers.iter().any(|peer| match peer {
            KubernetesPeer::IpBlock { cidr, .. } => is_wide(cidr),
            KubernetesPeer::Selectors { pods, namespaces } => {
                pods.is_none() && namespaces.as_ref().is_some_and(|selector| selector.is_all())
            }
        }),
        RuleBody::Cluster { peers, protocols: None } => peers.iter().any(|peer| match peer {
            ClusterPeer::Networks(cidrs) => cidrs.iter().any(is_wide),
            ClusterPeer::Pods { .. } | ClusterPeer::Nodes(_) | ClusterPeer::DomainNames(_) => false,
        }),
        RuleBody::Calico(rule) => {
            let nets = rule.source.nets.iter().chain(&rule.destination.nets);
            rule.protocol.is_none() && rule.not_protocol.is_none() && nets.into_iter().any(is_wide) && {
                let lists = [&rule.source.ports, &rule.destination.ports, &rule.destination.not_ports];
                lists.iter().all(|list| list.is_empty()) && rule.destination.service.is_none()
            }
        }
        RuleBody::Kubernetes { .. } | RuleBody::Cluster { .. } | RuleBody::Unreadable => false,
    };
    let message = "the rule names no ports: it opens every port and every protocol, ICMP included";
    wide.then(|| at.found(Code::SL1006, "", message.to_owned(), "list the ports that are needed"))
}

/// The pods behind each Service that has node ports, by its name.
fn exposed(lint: &Lint<'_>) -> Vec<(String, BitSet)> {
    let services = lint.world.services.values();
    let exposed = services.filter(|service| service.ports.iter().any(|port| port.node_port.is_some()));
    let backends = exposed
        .map(|service| (format!("{}/{}", service.namespace, service.name), lint.present.backends(service)));
    backends.filter(|(_, ends)| !ends.is_empty()).collect()
}

/// `podSelector: {}` or `namespaceSelector: {}` as "everyone", for pods that clients outside use (SL1013).
fn pods_only(lint: &Lint<'_>, at: &RuleAt<'_, '_>, exposed: &[(String, BitSet)]) -> Option<Found> {
    let RuleBody::Kubernetes { peers: Some(peers), .. } = &at.rule.rule.body else { return None };
    let is_blank = |peer: &KubernetesPeer| match peer {
        KubernetesPeer::IpBlock { .. } => false,
        KubernetesPeer::Selectors { pods, namespaces } => {
            pods.as_ref().is_none_or(|s| s.is_all()) && namespaces.as_ref().is_none_or(|s| s.is_all())
        }
    };
    let subject = &lint.policies[at.policy].subject;
    if at.direction != Direction::Ingress || !peers.iter().all(is_blank) {
        return None;
    }
    let (service, behind) = exposed.iter().find(|(_, behind)| behind.intersects(subject))?;
    let behind = behind.and(subject);
    let admits_outside =
        lint.policies.iter().filter(|policy| policy.subject.intersects(&behind)).any(|policy| {
            policy.rules(Direction::Ingress).unwrap_or_default().iter().any(|rule| {
                let outside = |points: &BitSet| lint.present.only_ranges(points).next().is_some();
                rule.rule.action == Action::Allow && rule.terms.iter().any(|term| outside(&term.peers))
            })
        });
    if admits_outside {
        return None;
    }
    let whose = match peers
        .iter()
        .any(|peer| matches!(peer, KubernetesPeer::Selectors { namespaces: Some(_), .. }))
    {
        true => "of all namespaces",
        false => "of this namespace",
    };
    let message = format!(
        "an empty selector admits the pods {whose} and nobody outside the cluster, but NodePort clients come to {} through Service \
         {service}",
        lint.present.describe(&behind)
    );
    let hint = "to admit everyone leave from out; to admit clients outside add an ipBlock";
    Some(at.found(Code::SL1013, at.peers_field(), message, hint))
}

/// A direction without rules, where nothing else opens anything and the policy does not look like a floor for others (SL1002).
fn nothing_allowed(lint: &Lint<'_>, number: usize, opened: &[BitSet; 2]) -> Vec<Found> {
    let policy = &lint.policies[number];
    let in_force = policy.is_kubernetes() || policy.is_calico();
    let mut found = Vec::new();
    for direction in Direction::BOTH {
        if !in_force || policy.rules(direction).is_none_or(|rules| !rules.is_empty()) {
            continue;
        }
        if policy.tier_default == sluice_model::TierDefault::Pass {
            continue;
        }
        let cut = policy.subject.andnot(&opened[direction as usize]);
        // a floor that others build on closes the pods for which nobody has built yet; that is what it is for
        let is_floor = policy.is_bare() && cut != policy.subject;
        if is_floor || (lint.judges_presence && cut.is_empty()) {
            continue;
        }
        let whom = match lint.judges_presence {
            true => format!(" for {}", lint.present.describe(&cut)),
            false => String::new(),
        };
        let message = format!(
            "the policy has {direction} in its types and no {direction} rule, which denies all {direction}{whom}"
        );
        let hint = format!("add {direction} rules, or take the direction out of the types");
        found.push(Found {
            code: Code::SL1002,
            policy: number,
            path: "spec".into(),
            position: policy.policy.position.clone(),
            message,
            hint: Some(hint),
        });
    }
    found
}

/// The ends for which some rule opens something in a direction.
fn opened(lint: &Lint<'_>, direction: Direction) -> BitSet {
    let opens = |rule: &super::CompiledRule<'_>| {
        matches!(rule.rule.action, Action::Allow | Action::Pass) && !rule.terms.is_empty()
    };
    let policies = lint.policies.iter();
    let opening = policies.filter(|policy| policy.rules(direction).unwrap_or_default().iter().any(opens));
    opening.fold(BitSet::new(), |mut all, policy| {
        all.or_with(&policy.subject);
        all
    })
}
