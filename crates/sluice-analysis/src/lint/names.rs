//! Objects that a policy names and that are not there (SL2204).

use std::collections::BTreeSet;
use std::sync::Arc;

use sluice_model::{EntityRule, Kind, NamespaceScope, ObjectKey, RuleBody};
use sluice_report::Code;
use sluice_selector::{LabelSelector, Operator, Selector};

use super::{Found, Lint, RuleAt};

/// The label that the API server sets to a namespace's name, and the one that Calico adds.
const NAME_LABELS: [&str; 2] = ["kubernetes.io/metadata.name", "projectcalico.org/name"];

pub(super) fn find(lint: &mut Lint<'_>) {
    let mut found = Vec::new();
    for at in lint.rules() {
        if let RuleBody::Calico(rule) = &at.rule.rule.body {
            for (field, side) in [("source", &rule.source), ("destination", &rule.destination)] {
                let Some((namespace, name)) = &side.service else { continue };
                if !lint.world.services.contains_key(&(namespace.clone(), name.clone())) {
                    let message =
                        format!("Service {namespace}/{name} does not exist: the rule matches nothing now");
                    let field = format!("{field}.services");
                    found.push(at.found(
                        Code::SL2204,
                        &field,
                        message,
                        "check the Service's name and namespace",
                    ));
                }
            }
        }
    }
    lint.extend(found);
    profiles(lint);
}

/// A namespace that a selector demands by name and that is known from nothing; with the field that names it.
pub(super) fn absent_namespace(lint: &Lint<'_>, selector: &LabelSelector) -> Option<(&'static str, String)> {
    NAME_LABELS.into_iter().find_map(|key| {
        let label = selector.match_labels.get(key).map(|value| vec![value]);
        let expression = || {
            let named =
                selector.match_expressions.iter().find(|r| *r.key == *key && r.operator == Operator::In)?;
            Some(named.values.iter().collect::<Vec<_>>())
        };
        let values = label.or_else(expression)?;
        let absent = values.iter().all(|value| !is_known(lint, value));
        absent.then(|| ("the selector", values.first().map(|value| value.to_string()).unwrap_or_default()))
    })
}

/// A namespace that is known only from other objects counts as existing (semantics 1.4).
fn is_known(lint: &Lint<'_>, namespace: &str) -> bool {
    lint.world.namespaces.contains_key(namespace)
        || !lint.present.namespace(namespace).is_empty()
        || lint.world.pods.keys().any(|pod| *pod.namespace == *namespace)
        || lint.world.services.keys().any(|(of, _)| **of == *namespace)
        || lint.world.service_accounts.keys().any(|(of, _)| **of == *namespace)
        || lint.world.policies.keys().any(|policy| *policy.namespace == *namespace)
}

/// The namespaces and service accounts that one side of a Calico rule names and that are absent. Was anything said?
pub(super) fn find_in_side(
    lint: &Lint<'_>,
    at: &RuleAt<'_, '_>,
    field: &str,
    side: &EntityRule,
    found: &mut Vec<Found>,
) -> bool {
    let before = found.len();
    if let Some(NamespaceScope::Matching(selector)) = &side.namespace_selector {
        let named: Vec<&Arc<str>> = match selector {
            Selector::Equals(key, value) if NAME_LABELS.contains(&&**key) => vec![value],
            Selector::In(key, values) if NAME_LABELS.contains(&&**key) => values.iter().collect(),
            _ => Vec::new(),
        };
        if let Some(absent) = named.first().filter(|_| named.iter().all(|name| !is_known(lint, name))) {
            let message = format!("namespace {absent:?} does not exist: the selector matches nothing now");
            let field = format!("{field}.namespaceSelector");
            found.push(at.found(Code::SL2204, &field, message, "check the namespace's name"));
        }
    }
    if let Some(accounts) = &side.service_accounts {
        let known: BTreeSet<&Arc<str>> = lint.world.service_accounts.keys().map(|(_, name)| name).collect();
        let is_absent = |name: &&Arc<str>| {
            !known.contains(name) && !lint.world.pods.values().any(|pod| pod.service_account == **name)
        };
        for name in accounts.names.iter().filter(is_absent) {
            let message = format!("service account {name:?} does not exist: it matches nothing now");
            let field = format!("{field}.serviceAccounts.names");
            found.push(at.found(Code::SL2204, &field, message, "check the account's name and namespace"));
        }
    }
    found.len() > before
}

/// Profiles that a HostEndpoint names (semantics 3.7).
fn profiles(lint: &mut Lint<'_>) {
    for host in lint.world.host_endpoints.values() {
        for (number, profile) in host.profiles.iter().enumerate() {
            let namespace = profile.strip_prefix("kns.");
            let is_there = &**profile == "projectcalico-default-allow"
                || namespace.is_some_and(|namespace| is_known(lint, namespace));
            if is_there {
                continue;
            }
            let key = ObjectKey::new(Kind::HostEndpoint, "", host.name.clone());
            let message = format!("profile {profile:?} does not exist: it allows nothing");
            let hint = "projectcalico-default-allow and kns.NAMESPACE exist";
            let path = format!("spec.profiles[{number}]");
            lint.add_about(Code::SL2204, key, &path, host.position.clone(), message, Some(hint.into()));
        }
    }
}
