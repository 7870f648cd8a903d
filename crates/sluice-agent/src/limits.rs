//! What an object asks for and this agent cannot put into force: said, never silently left out (semantics 7.1).

use sluice_model::{ClusterPeer, HostUse, Object, ObjectKey, Policy, Rule, RuleBody};
use sluice_report::{Code, Finding};

/// The findings about one object.
pub(crate) fn unmet(object: &Object) -> Vec<Finding> {
    match object {
        Object::HostEndpoint(host) => {
            let message =
                "host endpoints are not enforced by this version: its node's own traffic is not judged";
            vec![finding(object.key(), Code::SL2104, "spec", message, &host.position)]
        }
        Object::Policy(policy) => of_policy(policy),
        Object::Namespace(_)
        | Object::Node(_)
        | Object::ServiceAccount(_)
        | Object::Tier(_)
        | Object::NetworkSet(_)
        | Object::Service(_)
        | Object::EndpointSlice(_)
        | Object::Pod(_)
        | Object::ProjectIsolation(_)
        | Object::ResolvedName(_) => Vec::new(),
    }
}

fn of_policy(policy: &Policy) -> Vec<Finding> {
    if !policy.key.kind.is_enforced_policy() {
        return Vec::new();
    }
    let mut found = Vec::new();
    if matches!(policy.host, HostUse::PreDnat | HostUse::Untracked) {
        let message = "preDNAT and doNotTrack concern host endpoints, which are not enforced by this version";
        found.push(finding(policy.key.clone(), Code::SL2104, "spec", message, &policy.position));
    }
    let rules = [&policy.ingress, &policy.egress].into_iter().flatten().flatten();
    for rule in rules.filter(|rule| names_domains(rule)) {
        let message =
            "domainNames needs DNS watching, which this version does not have; the peer matches nothing";
        let at = &rule.reference;
        found.push(finding(policy.key.clone(), Code::SL2102, &at.path, message, &at.position));
    }
    found
}

fn names_domains(rule: &Rule) -> bool {
    match &rule.body {
        RuleBody::Cluster { peers, .. } => {
            peers.iter().any(|peer| matches!(peer, ClusterPeer::DomainNames(_)))
        }
        RuleBody::Kubernetes { .. } | RuleBody::Calico(_) | RuleBody::Unreadable => false,
    }
}

fn finding(
    object: ObjectKey,
    code: Code,
    path: &str,
    message: &str,
    position: &Option<sluice_model::Position>,
) -> Finding {
    let (path, message) = (path.into(), message.into());
    Finding { code, object, path, position: position.clone(), message, hint: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(yaml: &str) -> Vec<String> {
        let value: serde_json::Value = serde_json::from_str(yaml).expect("JSON");
        let object = sluice_kinds::to_model(&value, None).object.expect("an object");
        unmet(&object).iter().map(|f| format!("{} {}", f.code, f.path)).collect()
    }

    #[test]
    fn what_is_not_enforced_is_said() {
        let host = r#"{"apiVersion": "projectcalico.org/v3", "kind": "HostEndpoint", "metadata": {"name": "h"},
            "spec": {"node": "n1", "interfaceName": "eth0"}}"#;
        assert_eq!(said(host), ["SL2104 spec"]);
        let untracked = r#"{"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy", "metadata": {"name": "g"},
            "spec": {"doNotTrack": true, "applyOnForward": true, "selector": "all()", "ingress": [{"action": "Deny"}]}}"#;
        assert_eq!(said(untracked), ["SL2104 spec"]);
        let names = r#"{"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "c"}, "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}},
            "egress": [{"action": "Accept", "to": [{"domainNames": ["example.com"]}]}]}}"#;
        assert_eq!(said(names), ["SL2102 spec.egress[0]"]);
        let plain = r#"{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "p", "namespace": "a"}, "spec": {"podSelector": {}}}"#;
        assert!(said(plain).is_empty());
    }
}
