//! What an object asks for and this agent cannot put into force: said, never silently left out (semantics 7.1).

use sluice_model::{
    Bindings, ClusterPeer, HostEndpoint, HostUse, Inactive, Interface, Kind, Object, ObjectKey, Policy, Rule,
    RuleBody, World,
};
use sluice_report::{Code, Finding};

/// The findings about one object.
pub(crate) fn unmet(object: &Object) -> Vec<Finding> {
    match object {
        Object::Policy(policy) => of_policy(policy),
        Object::Namespace(_)
        | Object::HostEndpoint(_)
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

/// The findings about host endpoints of a node with these interfaces (semantics 3.10), in a world with these policies,
/// which are looked at only where they matter.
pub(crate) fn of_host_endpoints(
    world: &World,
    policies: impl Iterator<Item = Policy>,
    node: &str,
    interfaces: &[Interface],
) -> Vec<Finding> {
    let bindings = Bindings::new(world.host_endpoints.values(), node, interfaces);
    let key = |host: &HostEndpoint| ObjectKey::new(Kind::HostEndpoint, "", host.name.clone());
    let mut found = Vec::new();
    for (host, why) in bindings.inactive() {
        let message = match why {
            Inactive::NoInterface => "no interface of its node is the one that it asks for".to_owned(),
            Inactive::Overtaken { by } => format!("host endpoint {by} has its interfaces, by its name"),
        };
        found.push(finding(key(host), Code::SL1015, "spec.interfaceName", &message, &host.position));
    }
    if let Some(every) = bindings.every() {
        let labels = world.calico_host_labels(every);
        let mut untracked: Vec<Policy> = policies
            .filter(|policy| {
                policy.host == HostUse::Untracked
                    && policy.key.kind.is_enforced_policy()
                    && policy.selects_host(&labels)
            })
            .collect();
        untracked.sort_by(|one, other| one.key.cmp(&other.key));
        for policy in untracked {
            let message = format!("doNotTrack of {} is not supported for interfaceName \"*\"", policy.key);
            found.push(finding(key(every), Code::SL2103, "spec.interfaceName", &message, &every.position));
        }
    }
    found
}

fn of_policy(policy: &Policy) -> Vec<Finding> {
    if !policy.key.kind.is_enforced_policy() {
        return Vec::new();
    }
    let mut found = Vec::new();
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
        let names = r#"{"apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "c"}, "spec": {"tier": "Admin", "priority": 1, "subject": {"namespaces": {}},
            "egress": [{"action": "Accept", "to": [{"domainNames": ["example.com"]}]}]}}"#;
        assert_eq!(said(names), ["SL2102 spec.egress[0]"]);
        let plain = r#"{"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "p", "namespace": "a"}, "spec": {"podSelector": {}}}"#;
        assert!(said(plain).is_empty());
    }

    #[test]
    fn host_endpoints_without_interface_and_untracked_policies_of_all_are_said() {
        let mut world = World::default();
        let mut put = |json: serde_json::Value| {
            let object = sluice_kinds::to_model(&json, None).object.expect("an object");
            assert!(unmet(&object).is_empty());
            world.apply(sluice_model::ObjectDelta::Upsert(object));
        };
        for (name, interface) in [("a", "eth0"), ("b", "eth0"), ("c", "eth7"), ("d", "*")] {
            put(serde_json::json!({"apiVersion": "projectcalico.org/v3", "kind": "HostEndpoint",
                "metadata": {"name": name, "labels": {"at": name}},
                "spec": {"node": "n1", "interfaceName": interface}}));
        }
        put(serde_json::json!({"apiVersion": "projectcalico.org/v3", "kind": "GlobalNetworkPolicy",
            "metadata": {"name": "g"}, "spec": {"doNotTrack": true, "applyOnForward": true,
            "selector": "has(at)", "ingress": [{"action": "Deny"}]}}));
        let eth0 = Interface { name: "eth0".into(), addresses: Vec::new() };
        let said = |node| {
            let policies = world.policies.values().map(|policy| (**policy).clone());
            let found = of_host_endpoints(&world, policies, node, std::slice::from_ref(&eth0));
            found.iter().map(|f| format!("{} {}", f.code, f.object.name)).collect::<Vec<_>>()
        };
        assert_eq!(said("n1"), ["SL1015 b", "SL1015 c", "SL2103 d"]);
        assert!(said("n2").is_empty());
    }
}
