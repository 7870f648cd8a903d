//! Policies that select nothing (SL1014, SL1015, SL1016, SL1042).

use sluice_model::{Policy, Subject};
use sluice_report::Code;

use super::spelling::{Unknown, calico_contradiction, calico_unknown, contradiction, unknown};
use super::{Lint, is_cluster_wide};

pub(super) fn find(lint: &mut Lint<'_>) {
    for number in 0..lint.policies.len() {
        let policy = lint.policies[number].policy;
        if let Some((path, why)) = contradicts(policy) {
            let message = format!("the policy can select no pod, present or future: {why}");
            lint.add(Code::SL1014, number, path, message, Some("take one of the conditions out".into()));
            continue;
        }
        let compiled = &lint.policies[number];
        if !lint.judges_presence || !compiled.subject.is_empty() || !compiled.hosts.is_empty() {
            continue;
        }
        select_nothing(lint, number, policy);
    }
}

/// The field of the policy's subject and why it contradicts itself.
fn contradicts(policy: &Policy) -> Option<(&'static str, String)> {
    match &policy.subject {
        Subject::Kubernetes(selector) => Some(("spec.podSelector", contradiction(selector)?)),
        Subject::Calico { selector, namespace_selector, service_account_selector } => {
            let fields = [
                ("spec.selector", Some(selector)),
                ("spec.namespaceSelector", namespace_selector.as_ref()),
                ("spec.serviceAccountSelector", service_account_selector.as_ref()),
            ];
            fields.into_iter().find_map(|(path, selector)| Some((path, calico_contradiction(selector?)?)))
        }
        Subject::Cluster { namespaces, pods } => {
            let namespaces = contradiction(namespaces).map(|why| ("spec.subject", why));
            namespaces.or_else(|| Some(("spec.subject.pods.podSelector", contradiction(pods.as_ref()?)?)))
        }
    }
}

fn select_nothing(lint: &mut Lint<'_>, number: usize, policy: &Policy) {
    let (path, in_hosts_network) = match &policy.subject {
        Subject::Kubernetes(_) => ("spec.podSelector", host_network_pods(lint, policy)),
        Subject::Calico { .. } => ("spec.selector", host_network_pods(lint, policy)),
        Subject::Cluster { .. } => ("spec.subject", host_network_pods(lint, policy)),
    };
    if in_hosts_network > 0 {
        let message = format!(
            "it matches only pods of the host's network ({in_hosts_network} now): such a pod is its node, and no policy of pods \
             applies to it"
        );
        let hint = "use a GlobalNetworkPolicy and a HostEndpoint for node traffic";
        return lint.add(Code::SL1042, number, path, message, Some(hint.into()));
    }
    let own = &policy.key.namespace;
    let place = if own.is_empty() { String::new() } else { format!(" of namespace {own:?}") };
    if !own.is_empty() && lint.present.namespace(own).is_empty() {
        let message = format!("the policy selects no pod now: namespace {own:?} has none");
        return lint.add(Code::SL1015, number, path, message, None);
    }
    match unknown_in_subject(lint, policy) {
        Some(Unknown { sentence, nearly: Some(nearly) }) => {
            let message = format!("the policy selects no pod now: {sentence}");
            lint.add(Code::SL1016, number, path, message, Some(format!("did you mean {nearly:?}?")));
        }
        unknown => {
            let why = unknown
                .map_or_else(|| format!("no pod{place} satisfies the selector"), |unknown| unknown.sentence);
            let message = format!("the policy selects no pod now: {why}");
            let hint = match is_cluster_wide(policy.key.kind) {
                true => "compare it with the labels of the pods and namespaces",
                false => {
                    "compare it with the labels of the namespace's pods; a policy selects in its own namespace only"
                }
            };
            lint.add(Code::SL1015, number, path, message, Some(hint.into()));
        }
    }
}

fn unknown_in_subject(lint: &Lint<'_>, policy: &Policy) -> Option<Unknown> {
    match &policy.subject {
        Subject::Kubernetes(selector) => unknown(selector, &lint.present.pods, "pod"),
        Subject::Calico { selector, namespace_selector, .. } => {
            calico_unknown(selector, &lint.present.calico, "pod").or_else(|| {
                let selector = namespace_selector.as_ref()?.with_key_prefix("pcns.");
                calico_unknown(&selector, &lint.present.calico, "pod")
            })
        }
        Subject::Cluster { namespaces, pods } => {
            unknown(namespaces, &lint.present.namespaces, "namespace with pods")
                .or_else(|| unknown(pods.as_ref()?, &lint.present.pods, "pod"))
        }
    }
}

/// How many pods of the host's network the selectors of the subject would match.
fn host_network_pods(lint: &Lint<'_>, policy: &Policy) -> usize {
    let own = &policy.key.namespace;
    let pods = lint.world.pods.values().filter(|pod| pod.host_network && !pod.finished);
    let matched = pods.filter(|pod| match &policy.subject {
        Subject::Kubernetes(selector) => pod.key.namespace == *own && selector.matches(&pod.labels),
        Subject::Cluster { namespaces, pods } => {
            namespaces.matches(&lint.world.namespace_labels(&pod.key.namespace))
                && pods.as_ref().is_none_or(|selector| selector.matches(&pod.labels))
        }
        Subject::Calico { selector, namespace_selector, service_account_selector } => {
            let labels = lint.world.calico_labels(pod);
            let with = |selector: &Option<sluice_selector::Selector>, prefix| {
                selector.as_ref().is_none_or(|selector| selector.with_key_prefix(prefix).matches(&labels))
            };
            (own.is_empty() || pod.key.namespace == *own)
                && selector.matches(&labels)
                && with(namespace_selector, "pcns.")
                && with(service_account_selector, "pcsa.")
        }
    });
    matched.count()
}
