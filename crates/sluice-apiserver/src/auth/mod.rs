//! Who asks, and what they may do: the built-in roles of kubernetes-api 11.

mod kubeconfig;
mod pki;

use std::fmt::Write as _;

pub use kubeconfig::{Kubeconfig, write_private};
pub(crate) use pki::identity_of;
pub use pki::{AuthError, ClientCredentials, Pki};

/// The group that may do everything.
pub const MASTERS: &str = "system:masters";
/// The group of node agents; their users are `system:node:<name>`.
pub const NODES: &str = "system:nodes";
/// The group that reads everything and changes nothing.
pub const VIEW: &str = "sluice:view";
/// The group of everybody who was identified.
const AUTHENTICATED: &str = "system:authenticated";
const NODE_USER: &str = "system:node:";
const NODE_LEASES: &str = "kube-node-lease";

/// An identified client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Identity {
    /// User name.
    pub user: String,
    /// Groups, with `system:authenticated`.
    pub groups: Vec<String>,
}

impl Identity {
    /// A user in groups.
    pub fn new(user: impl Into<String>, groups: &[&str]) -> Identity {
        let mut groups: Vec<String> = groups.iter().map(|g| (*g).to_string()).collect();
        if !groups.iter().any(|g| g == AUTHENTICATED) {
            groups.push(AUTHENTICATED.into());
        }
        Identity { user: user.into(), groups }
    }

    /// The administrator: `admin` in `system:masters`.
    pub fn admin() -> Identity {
        Identity::new("admin", &[MASTERS])
    }

    /// The agent of a node.
    pub fn node(name: &str) -> Identity {
        Identity::new(format!("{NODE_USER}{name}"), &[NODES])
    }

    /// Whether the identity is in a group.
    pub fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|g| g == group)
    }

    /// The node whose agent this is.
    pub fn node_name(&self) -> Option<&str> {
        if self.is_in(NODES) { self.user.strip_prefix(NODE_USER) } else { None }
    }
}

/// What is asked for, as authorization sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes<'a> {
    /// For example `list`.
    pub verb: &'a str,
    /// API group.
    pub group: &'a str,
    /// Plural resource.
    pub resource: &'a str,
    /// Subresource, empty if none.
    pub subresource: &'a str,
    /// Namespace, empty for cluster-wide requests.
    pub namespace: &'a str,
    /// Object, empty if none or not yet known (create).
    pub name: &'a str,
}

/// Decides about a request. `node_of_pod` tells on which node a pod is, by namespace and name.
pub fn authorize(
    who: &Identity,
    what: &Attributes<'_>,
    node_of_pod: impl Fn(&str, &str) -> Option<String>,
) -> Result<&'static str, String> {
    if who.is_in(MASTERS) {
        return Ok("built-in role system:masters");
    }
    let reads = matches!(what.verb, "get" | "list" | "watch");
    let reviews = matches!(
        (what.group, what.resource),
        ("authorization.k8s.io", "selfsubjectaccessreviews")
            | ("authentication.k8s.io", "selfsubjectreviews")
    );
    if reviews && what.verb == "create" {
        return Ok("every identified user may ask about itself");
    }
    if reads && who.is_in(VIEW) {
        return Ok("built-in role sluice:view");
    }
    if let Some(node) = who.node_name()
        && (reads || node_may_write(node, what, node_of_pod))
    {
        return Ok("built-in role system:nodes");
    }
    Err(denial(who, what))
}

/// What a node agent writes: its own Node, its own NodePolicyState, its lease, its pods' state, events.
fn node_may_write(
    node: &str,
    what: &Attributes<'_>,
    node_of_pod: impl Fn(&str, &str) -> Option<String>,
) -> bool {
    let changes = matches!(what.verb, "create" | "update" | "patch");
    // The name of an object to be created is known only with its body; it is judged again then.
    let own = what.name == node || (what.verb == "create" && what.name.is_empty());
    match (what.group, what.resource, what.subresource) {
        ("", "events", "") => changes,
        ("", "nodes", "" | "status") => changes && own,
        ("sluice.dev", "nodepolicystates", "" | "status") => (changes || what.verb == "delete") && own,
        ("coordination.k8s.io", "leases", "") => {
            what.namespace == NODE_LEASES && (changes || what.verb == "delete") && own
        }
        ("", "pods", "status") => {
            matches!(what.verb, "update" | "patch")
                && node_of_pod(what.namespace, what.name).is_some_and(|n| n == node)
        }
        ("", "pods", "") => {
            what.verb == "delete" && node_of_pod(what.namespace, what.name).is_some_and(|n| n == node)
        }
        _ => false,
    }
}

/// Upstream's wording after `… is forbidden: `.
fn denial(who: &Identity, what: &Attributes<'_>) -> String {
    let mut out = format!("User \"{}\" cannot {} resource \"{}", who.user, what.verb, what.resource);
    if !what.subresource.is_empty() {
        let _ = write!(out, "/{}", what.subresource);
    }
    let _ = write!(out, "\" in API group \"{}\"", what.group);
    if what.namespace.is_empty() {
        out.push_str(" at the cluster scope");
    } else {
        let _ = write!(out, " in the namespace \"{}\"", what.namespace);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn may(who: &Identity, text: &str) -> bool {
        let p: Vec<&str> = text.split(' ').collect();
        let (resource, subresource) = p[2].split_once('/').unwrap_or((p[2], ""));
        let what = Attributes {
            verb: p[0],
            group: if p[1] == "-" { "" } else { p[1] },
            resource,
            subresource,
            namespace: p.get(3).copied().unwrap_or(""),
            name: p.get(4).copied().unwrap_or(""),
        };
        authorize(who, &what, |_, pod| (pod == "mine").then(|| "n1".into())).is_ok()
    }

    #[test]
    fn roles() {
        let (admin, node, view) = (Identity::admin(), Identity::node("n1"), Identity::new("v", &[VIEW]));
        assert!(may(&admin, "delete - pods ns p"));
        for (text, for_node, for_view) in [
            ("list - pods ns", true, true),
            ("get - pods/log ns p", true, true),
            ("create - pods/exec ns p", false, false),
            ("create networking.k8s.io networkpolicies ns", false, false),
            ("patch - pods/status ns mine", true, false),
            ("patch - pods/status ns other", false, false),
            ("delete - pods ns mine", true, false),
            ("delete - pods ns other", false, false),
            ("create - events ns", true, false),
            ("update sluice.dev nodepolicystates/status  n1", true, false),
            ("create authorization.k8s.io selfsubjectaccessreviews", true, true),
        ] {
            assert_eq!(may(&node, text), for_node, "node: {text}");
            assert_eq!(may(&view, text), for_view, "view: {text}");
        }
        let own = |name| Attributes {
            verb: "patch",
            group: "sluice.dev",
            resource: "nodepolicystates",
            subresource: "status",
            namespace: "",
            name,
        };
        assert!(authorize(&node, &own("n1"), |_, _| None).is_ok());
        let denial = authorize(&node, &own("n2"), |_, _| None).unwrap_err();
        assert_eq!(
            denial,
            "User \"system:node:n1\" cannot patch resource \"nodepolicystates/status\" in API group \"sluice.dev\" at the cluster scope"
        );
    }

    #[test]
    fn a_node_user_without_the_group_is_nobody() {
        assert_eq!(Identity::new("system:node:n1", &[]).node_name(), None);
        assert!(!may(&Identity::new("x", &[]), "list - pods ns"));
    }
}
