//! What RKE2 and Rancher have put into a cluster, seen in its objects.

use serde_json::Value;

use super::Item;

/// The policies that RKE2 writes with its CIS profile.
const CIS: &str = "default-network-policy";
/// The label by which Rancher says of which project a namespace is.
const PROJECT: &str = "/metadata/labels/field.cattle.io~1projectId";
/// The policy that Rancher writes into every namespace of an isolated project.
const ISOLATION: &str = "np-default";

/// What is known of the distribution and of project isolation; nothing where there is neither.
pub(super) fn items(version: &str, namespaces: &[Value], policies: &[Value]) -> Vec<Item> {
    let text = |object: &Value, path: &str| {
        object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let named = |name: &str| -> Vec<String> {
        let called = policies.iter().filter(|policy| text(policy, "/metadata/name") == name);
        called.map(|policy| text(policy, "/metadata/namespace")).collect()
    };
    let mut items = Vec::new();
    if version.contains("+rke2") {
        let detail = match named(CIS) {
            found if found.is_empty() => "no CIS profile: no policy of RKE2 isolates a namespace".to_owned(),
            found => format!("CIS profile: {CIS} is in {}", found.join(", ")),
        };
        items.push(Item::ready("RKE2", detail));
    }
    let of_projects: Vec<String> = namespaces
        .iter()
        .filter(|namespace| namespace.pointer(PROJECT).is_some())
        .map(|namespace| text(namespace, "/metadata/name"))
        .collect();
    if !of_projects.is_empty() {
        let isolated = named(ISOLATION);
        let count = of_projects.len();
        let detail = match isolated.iter().filter(|name| of_projects.contains(name)).count() {
            0 => format!("{count} namespaces of projects, project isolation is off"),
            on => format!("{count} namespaces of projects, {on} of them isolated by {ISOLATION}"),
        };
        items.push(Item::ready("Rancher", detail));
    }
    items
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::items;

    #[test]
    fn what_rke2_and_rancher_wrote_is_told() {
        let namespace =
            |name: &str| json!({"metadata": {"name": name, "labels": {"field.cattle.io/projectId": "p-1"}}});
        let policy =
            |namespace: &str, name: &str| json!({"metadata": {"namespace": namespace, "name": name}});
        let told = |version: &str, namespaces: &[_], policies: &[_]| -> Vec<String> {
            items(version, namespaces, policies).into_iter().map(|item| item.detail).collect()
        };
        assert!(told("v1.32.1", &[json!({"metadata": {"name": "a"}})], &[]).is_empty());
        assert_eq!(
            told(
                "v1.32.1+rke2r1",
                &[namespace("a"), namespace("b")],
                &[policy("a", "np-default"), policy("kube-system", "default-network-policy")]
            ),
            [
                "CIS profile: default-network-policy is in kube-system",
                "2 namespaces of projects, 1 of them isolated by np-default"
            ]
        );
        assert_eq!(
            told("v1", &[namespace("a")], &[]),
            ["1 namespaces of projects, project isolation is off"]
        );
    }
}
