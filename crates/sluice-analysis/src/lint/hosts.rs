//! Policies that cut nodes off, or the cluster's own pods (SL2205).

use std::collections::BTreeMap;

use sluice_addr::{BitSet, PortRange, Protocol};
use sluice_model::{Action, CalicoRule, Direction, HostUse, RuleBody, TierDefault};
use sluice_report::Code;

use super::compiled::Compiled;
use super::dns::{PORTS, Servers};
use super::legs::{Leg, Region};
use super::{Lint, is_cluster_wide};

pub(super) fn find(lint: &mut Lint<'_>) {
    locked_out(lint);
    if lint.judges_presence {
        system_pods(lint);
    }
}

/// Policies that leave host endpoints only failsafes (semantics 3.10).
fn locked_out(lint: &mut Lint<'_>) {
    for direction in Direction::BOTH {
        let of_hosts = lint.of_hosts(direction);
        let mut closed: BTreeMap<usize, Vec<&str>> = BTreeMap::new();
        for (host, policies) in &of_hosts {
            let normal = policies.iter().filter(|number| is_normal(&lint.policies[**number]));
            if opens(normal.clone().map(|number| &lint.policies[*number]), direction) {
                continue;
            }
            for number in normal {
                let policy = &lint.policies[*number];
                if policy.tier_default == TierDefault::Deny || !policy.is_bare() {
                    closed.entry(*number).or_default().push(host);
                }
            }
        }
        for (number, hosts) in closed {
            let (plural, more) = if hosts.len() == 1 { ("", "") } else { ("s", ", …") };
            let what = match direction {
                Direction::Ingress => "traffic to the node",
                Direction::Egress => "traffic of the node",
            };
            let message = format!(
                "selects {} HostEndpoint{plural} ({}{more}); {what} is denied except failsafes",
                hosts.len(),
                hosts.first().copied().unwrap_or_default()
            );
            let hint = "restrict the selector to pods with has(projectcalico.org/namespace), or allow what nodes need first";
            lint.add(Code::SL2205, number, "spec.selector", message, Some(hint.into()));
        }
    }
}

/// Is it of the stage that judges a node's own traffic?
fn is_normal(policy: &Compiled<'_>) -> bool {
    matches!(policy.policy.host, HostUse::Normal | HostUse::Forward)
}

/// Does any rule let something through before a rule that denies everything?
fn opens<'l, 'w: 'l>(policies: impl Iterator<Item = &'l Compiled<'w>>, direction: Direction) -> bool {
    for rule in policies.flat_map(|policy| policy.rules(direction).unwrap_or_default()) {
        let is_blank = match &rule.rule.body {
            RuleBody::Calico(calico) => **calico == CalicoRule::default(),
            RuleBody::Kubernetes { .. } | RuleBody::Cluster { .. } | RuleBody::Unreadable => false,
        };
        match rule.rule.action {
            Action::Allow | Action::Pass => return true,
            Action::Deny if is_blank => return false,
            Action::Deny | Action::Log => {}
        }
    }
    false
}

/// Policies of the whole cluster that cut DNS servers from everybody, or system pods from the API server.
fn system_pods(lint: &mut Lint<'_>) {
    let servers = Servers::find(lint).pods;
    let udp = PORTS[..1].iter().fold(BitSet::new(), |all, (protocol, port)| {
        all.or(&lint.traffic.destinations(*protocol, PortRange::single(*port)))
    });
    let clients = BitSet::below(lint.present.ends.len()).andnot(&servers);
    if !clients.is_empty() {
        let message = |whom: &str| {
            format!("no pod can ask the DNS servers any more: ingress to {whom} is denied on UDP 53")
        };
        let hint =
            "allow ingress to the DNS pods on UDP and TCP 53, or leave kube-system out of the selector";
        cut(lint, Direction::Ingress, &servers, Region::of(clients, udp), &message, hint);
    }
    let (api, ports) = api_server(lint);
    let system = lint.present.namespace("kube-system");
    let message =
        |whom: &str| format!("system pods cannot reach the API server: egress of {whom} to it is denied");
    let hint = "allow egress to the API server, or leave kube-system out of the selector";
    cut(lint, Direction::Egress, &system, Region::of(api, ports), &message, hint);
}

/// The endpoints of Service default/kubernetes.
fn api_server(lint: &Lint<'_>) -> (BitSet, BitSet) {
    let (mut points, mut ports) = (BitSet::new(), BitSet::new());
    let slices = lint.world.slices.values();
    for slice in slices.filter(|slice| &*slice.namespace == "default" && &*slice.service == "kubernetes") {
        for address in slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses) {
            points.or_with(&lint.present.address(*address));
        }
        for port in slice.ports.iter().filter_map(|port| port.port) {
            ports.or_with(&lint.traffic.destinations(Protocol::TCP, PortRange::single(port)));
        }
    }
    (points, ports)
}

/// Reports the cluster-wide policies of groups among `ends` for which nothing of `question` is allowed.
fn cut(
    lint: &mut Lint<'_>,
    direction: Direction,
    ends: &BitSet,
    question: Region,
    message: &dyn Fn(&str) -> String,
    hint: &str,
) {
    if question.is_empty() || ends.is_empty() {
        return;
    }
    let mut found = Vec::new();
    for group in &lint.groups[direction as usize] {
        let concerned = group.ends.and(ends);
        let wide =
            group.policies.iter().find(|policy| is_cluster_wide(lint.policies[**policy].policy.key.kind));
        let Some(policy) = wide.filter(|_| !concerned.is_empty()) else { continue };
        let leg = Leg { policies: &lint.policies, direction, group };
        let asked = question.within(&group.points);
        if asked.is_empty() {
            continue;
        }
        if leg.judge(asked, &|_, _| true, None).is_some_and(|judged| judged.allowed.is_empty()) {
            found.push((*policy, concerned));
        }
    }
    found.sort();
    let mut policies: Vec<(usize, BitSet)> = Vec::new();
    for (policy, concerned) in found {
        match policies.last_mut() {
            Some((last, all)) if *last == policy => all.or_with(&concerned),
            _ => policies.push((policy, concerned)),
        }
    }
    for (policy, concerned) in policies {
        let text = message(&lint.present.describe(&concerned));
        lint.add(Code::SL2205, policy, "spec", text, Some(hint.into()));
    }
}
