//! Staged policies (semantics 3.8).

use super::read;

fn staged(kind: &str, spec: &str) -> String {
    read(&format!(
        "apiVersion: projectcalico.org/v3\nkind: {kind}\nmetadata: {{name: s, namespace: m}}\nspec: {spec}\n"
    ))
}

#[test]
fn staged_policies_are_read_as_what_they_stage() {
    for (kind, spec, expected) in [
        (
            "StagedNetworkPolicy",
            "{ingress: [{action: Deny}]}",
            "tier default order inf subject all() staged Set\ningress: Deny all @4",
        ),
        (
            "StagedGlobalNetworkPolicy",
            "{stagedAction: Learn, order: 5, namespaceSelector: has(a), doNotTrack: true, applyOnForward: true, egress: [{action: Allow}]}",
            "tier default order 5 subject all() namespaces has(a) untracked staged Learn\negress: Allow all @4",
        ),
        (
            "StagedKubernetesNetworkPolicy",
            "{stagedAction: Ignore, podSelector: {matchLabels: {a: b}}, egress: [{to: [{podSelector: {}}]}]}",
            "tier default order 1000 subject a=b staged Ignore\ningress: \negress: Allow [pods <none>] : any @4",
        ),
        (
            "StagedNetworkPolicy",
            "{stagedAction: Delete}",
            "tier default order inf subject all() staged Delete",
        ),
        (
            "StagedNetworkPolicy",
            "{stagedAction: Delete, tier: t, selector: '', types: [], ingress: null}",
            "tier t order inf subject all() staged Delete",
        ),
        (
            "StagedKubernetesNetworkPolicy",
            "{stagedAction: Delete, podSelector: {}}",
            "tier default order 1000 subject <none> staged Delete",
        ),
        (
            "StagedNetworkPolicy",
            "{stagedAction: Delete, order: 5}",
            "no effect\nSL2009 spec.order@4 spec fields, except tier, must be empty if stagedAction is Delete",
        ),
        (
            "StagedGlobalNetworkPolicy",
            "{stagedAction: Delete, types: [Ingress]}",
            "no effect\nSL2009 spec.types@4 spec fields, except tier, must be empty if stagedAction is Delete",
        ),
        (
            "StagedKubernetesNetworkPolicy",
            "{stagedAction: Delete, policyTypes: [Ingress]}",
            "no effect\nSL2009 spec.policyTypes@4 spec fields, except tier, must be empty if stagedAction is Delete",
        ),
        (
            "StagedNetworkPolicy",
            "{stagedAction: Drop, ingress: [{action: Deny}]}",
            "no effect\nSL2013 spec.stagedAction@4 expected Set, Delete, Learn or Ignore, found \"Drop\"",
        ),
        // a GlobalNetworkPolicy's rules, staged or not, name the namespace of a Service
        (
            "StagedGlobalNetworkPolicy",
            "{ingress: [{action: Allow, source: {services: {name: s}}}]}",
            "tier default order inf subject all() staged Set\ningress: Allow unreadable @4\nSL2009 spec.ingress[0].source.services@4 a GlobalNetworkPolicy must specify the service's namespace",
        ),
    ] {
        assert_eq!(staged(kind, spec), expected, "{kind} {spec}");
    }
    let stored = read(
        "apiVersion: crd.projectcalico.org/v1\nkind: StagedKubernetesNetworkPolicy\nmetadata: {name: knp.default.s, namespace: m}\nspec: {podSelector: {}, policyTypes: [Ingress]}\n",
    );
    assert_eq!(stored, "tier default order 1000 subject <none> staged Set\ningress:");
}

/// Such an object can stand in storage, where no loader has looked at types.
#[test]
fn an_empty_value_of_another_type_is_not_nothing() {
    let value = serde_json::json!({
        "apiVersion": "projectcalico.org/v3",
        "kind": "StagedGlobalNetworkPolicy",
        "metadata": {"name": "s"},
        "spec": {"stagedAction": "Delete", "selector": {}},
    });
    let converted = crate::to_model(&value, None);
    let said: Vec<String> =
        converted.findings.iter().map(|found| format!("{} {}", found.code, found.path)).collect();
    assert_eq!((converted.object.is_none(), said), (true, vec!["SL2009 spec.selector".to_owned()]));
}
