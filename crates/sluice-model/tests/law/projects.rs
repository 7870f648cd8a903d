//! ProjectIsolation as policies: semantics 8.2.

use std::net::IpAddr;
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use sluice_model::{
    ClusterPeer, Direction, IsolationMode, Kind, KubernetesPeer, ObjectDelta, ObjectKey, Order, Pod,
    ProjectIsolation, ProjectMatch, ProjectNotice, ProjectPolicies, RuleBody, Verdict, World, decide,
};
use sluice_testkit::{Ingredients, random_flow, random_world_of};

use crate::text::{apply, check, decision, expect, world};

/// Two projects, the system project, a namespace in no project, one whose annotation disagrees with its label.
const CLUSTER: &str = "
    node n1 192.168.0.1 10.42.1.0 @cidr=10.42.1.0/24
    node n2 192.168.0.2 10.42.2.0 fd00:2:: @cidr=10.42.2.0/24,fd00:2::/64
    ns kube-system field.cattle.io/projectId=p-sys @annotation=field.cattle.io/projectId=c-1:p-sys
    ns a1 field.cattle.io/projectId=p-a @annotation=field.cattle.io/projectId=c-1:p-a
    ns a2 field.cattle.io/projectId=p-a
    ns b1 field.cattle.io/projectId=p-b @annotation=field.cattle.io/projectId=p-b
    ns lone
    ns forged field.cattle.io/projectId=p-a @annotation=field.cattle.io/projectId=c-1:p-evil
    pod kube-system/dns 10.42.1.53 k8s-app=kube-dns @node=n1
    pod kube-system/other 10.42.1.54 @node=n1
    pod a1/x 10.42.1.11 @node=n1
    pod a2/x 10.42.2.12 @node=n2
    pod b1/x 10.42.1.21 @node=n1
    pod lone/x 10.42.1.31 @node=n1
    pod forged/x 10.42.1.41 @node=n1
";

fn with(objects: &str) -> String {
    format!("{CLUSTER}{objects}")
}

#[test]
fn default_mode_admits_the_own_project_the_system_project_and_nodes() {
    check(
        &with("isolation Default nodes system=p-sys"),
        "T80 a2/x -> a1/x: ALLOW
         T80 a1/x -> a2/x: ALLOW
         T80 kube-system/other -> a1/x: ALLOW
         T80 b1/x -> a1/x: DENY
         T80 a1/x -> b1/x: DENY
         T80 8.8.8.8 -> a1/x: DENY
         T80 192.168.0.2 -> a1/x: ALLOW
         T80 10.42.2.0 -> a1/x: ALLOW
         T80 10.42.1.0 -> a2/x: ALLOW",
    );
    // the system project itself is open both ways
    check(
        &with("isolation Default system=p-sys"),
        "T80 8.8.8.8 -> kube-system/other: ALLOW\n T80 b1/x -> kube-system/other: ALLOW",
    );
    // nodes only where they are chosen; the own node always (1.5)
    check(
        &with("isolation Default system=p-sys"),
        "T80 10.42.2.0 -> a1/x: DENY\n T80 192.168.0.2 -> a1/x: DENY\n T80 192.168.0.1 -> a1/x: ALLOW",
    );
    // egress is untouched
    check(
        &with("isolation Default system=p-sys"),
        "T80 a1/x -> 8.8.8.8: ALLOW\n T80 a1/x -> kube-system/other: ALLOW",
    );
}

#[test]
fn default_mode_is_one_kubernetes_policy_in_each_such_namespace() {
    let projects = ProjectPolicies::of(&world(&with("isolation Default egress nodes system=p-sys")));
    let shown: Vec<String> = projects.policies.keys().map(ObjectKey::to_string).collect();
    assert_eq!(
        shown,
        [
            "NetworkPolicy a1/project-isolation",
            "NetworkPolicy a2/project-isolation",
            "NetworkPolicy b1/project-isolation"
        ]
    );
    for policy in projects.policies.values() {
        assert_eq!(
            (&*policy.tier, policy.order, policy.key.kind),
            ("default", Order::KUBERNETES, Kind::KubernetesNetworkPolicy)
        );
        let rules = [&policy.ingress, &policy.egress].map(|rules| rules.as_ref().unwrap().len());
        assert_eq!(rules, [1, 2], "egress holds DNS besides");
    }
}

#[test]
fn teams_can_open_what_default_mode_closes() {
    check(
        &with("isolation Default system=p-sys\n knp a1{} I[0.0.0.0/0 : T443] @name=web"),
        "T443 8.8.8.8 -> a1/x: ALLOW\n T443 b1/x -> a1/x: ALLOW\n T80 b1/x -> a1/x: DENY",
    );
}

#[test]
fn egress_with_dns() {
    check(
        &with("isolation Default egress exempt=p-sys"),
        "T80 a1/x -> a2/x: ALLOW
         T80 a1/x -> 8.8.8.8: DENY
         T80 a1/x -> lone/x: DENY
         U53 a1/x -> kube-system/dns: ALLOW
         T53 a1/x -> kube-system/dns: ALLOW
         T80 a1/x -> kube-system/dns: DENY
         U53 a1/x -> kube-system/other: DENY
         T80 a1/x -> 192.168.0.2: DENY",
    );
    check(
        &with("isolation Default egress nodes"),
        "T80 a1/x -> 192.168.0.2: ALLOW\n T80 a1/x -> 192.168.0.1: ALLOW",
    );
    check(
        &with("isolation Enforced egress exempt=p-sys"),
        "T80 a1/x -> a2/x: ALLOW
         T80 a1/x -> b1/x: DENY
         T80 a1/x -> 8.8.8.8: ALLOW
         U53 a1/x -> kube-system/dns: ALLOW
         T80 a1/x -> kube-system/dns: DENY",
    );
}

#[test]
fn enforced_mode_cannot_be_opened_and_leaves_the_outside_to_later_tiers() {
    let text = with(
        "isolation Enforced nodes system=p-sys\n knp a1{} I[namespaceSelector {}, 0.0.0.0/0] @name=open",
    );
    check(
        &text,
        "T80 a2/x -> a1/x: ALLOW
         T80 kube-system/other -> a1/x: ALLOW
         T80 b1/x -> a1/x: DENY
         T80 lone/x -> a1/x: DENY
         T80 8.8.8.8 -> a1/x: ALLOW
         T80 10.42.2.0 -> a1/x: ALLOW",
    );
    // Pass leaves the verdict to later tiers, for the own project, the system project and nodes too
    let text = with("isolation Enforced nodes system=p-sys\n knp a1{} I[] @name=close");
    check(
        &text,
        "T80 a2/x -> a1/x: DENY
         T80 kube-system/other -> a1/x: DENY
         T80 8.8.8.8 -> a1/x: DENY
         T80 10.42.2.0 -> a1/x: DENY",
    );
    // neither system nor namespaces without project are isolated
    check(&text, "T80 b1/x -> lone/x: ALLOW\n T80 b1/x -> kube-system/other: ALLOW");
}

#[test]
fn enforced_mode_is_a_cluster_policy_of_tier_admin_and_priority_900() {
    let projects = ProjectPolicies::of(&world(&with("isolation Enforced nodes system=p-sys")));
    let shown: Vec<String> = projects.policies.keys().map(ObjectKey::to_string).collect();
    assert_eq!(
        shown,
        ["ClusterNetworkPolicy project-isolation.p-a", "ClusterNetworkPolicy project-isolation.p-b"]
    );
    for policy in projects.policies.values() {
        assert_eq!((&*policy.tier, policy.order), ("kube-admin", Order::new(Some(900.0))));
        assert_eq!(policy.egress, None);
    }
    // an Admin policy of lower priority stands before it, one of higher priority behind
    let before = with("isolation Enforced\n cnp open Admin 899 ns{} I[accept ns{}]");
    check(&before, "T80 b1/x -> a1/x: ALLOW");
    check(&before.replace("899", "901"), "T80 b1/x -> a1/x: DENY");
}

#[test]
fn nobody_is_isolated_in_mode_off_or_without_the_object() {
    for isolation in ["isolation Off egress nodes", ""] {
        let w = world(&with(isolation));
        assert_eq!(ProjectPolicies::of(&w), ProjectPolicies::default());
        expect(&w, &Default::default(), "T80 b1/x -> a1/x: ALLOW");
    }
    // only the object `default` counts
    let mut w = world(&with("isolation Default"));
    let mut other = w.isolations.pop_first().unwrap().1;
    other.name = "second".into();
    w.isolations.insert(other.name.clone(), other);
    assert_eq!(ProjectPolicies::of(&w), ProjectPolicies::default());
}

#[test]
fn exempt_projects_and_namespaces_are_not_isolated() {
    check(&with("isolation Default exempt=p-a"), "T80 b1/x -> a1/x: ALLOW\n T80 a1/x -> b1/x: DENY");
    check(&with("isolation Enforced exempt=ns:a1"), "T80 b1/x -> a1/x: ALLOW\n T80 b1/x -> a2/x: DENY");
    // an exempt namespace is still of its project
    check(&with("isolation Default exempt=ns:a1"), "T80 a1/x -> a2/x: ALLOW\n T80 b1/x -> a2/x: DENY");
    // the system project may be a selector over namespaces
    check(
        &with("isolation Default system={kubernetes.io/metadata.name=lone}"),
        "T80 lone/x -> a1/x: ALLOW\n T80 kube-system/other -> a1/x: DENY\n T80 a1/x -> kube-system/other: DENY",
    );
}

#[test]
fn a_namespace_whose_label_and_annotation_disagree_is_in_no_project() {
    for isolation in ["isolation Default system=p-sys", "isolation Enforced system=p-sys"] {
        let w = world(&with(isolation));
        // neither admitted to the project that its label names, nor isolated
        expect(&w, &Default::default(), "T80 forged/x -> a1/x: DENY\n T80 b1/x -> forged/x: ALLOW");
        let notices = ProjectPolicies::of(&w).notices;
        assert_eq!(
            notices,
            [
                ProjectNotice::Disagreement {
                    namespace: "forged".into(),
                    label: Some("p-a".into()),
                    annotation: "c-1:p-evil".into()
                },
                ProjectNotice::NoProject { namespace: "lone".into() },
            ]
        );
    }
    // an annotation without its label is a disagreement too
    let w = world("ns n @annotation=field.cattle.io/projectId=c-1:p-a\n isolation Default");
    let notices = ProjectPolicies::of(&w).notices;
    assert!(matches!(&notices[..], [ProjectNotice::Disagreement { label: None, .. }]), "{notices:?}");
}

#[test]
fn no_hole_is_opened_for_ports_of_nodes() {
    // H2 to H4 of Rancher's own isolation: a Service of type NodePort opens nothing, whatever its selector
    let text = with("isolation Default nodes system=p-sys\n slice a1/web-1 web 10.42.1.11 @port=80/TCP");
    check(&text, "T80 b1/x -> a1/x: DENY\n T80 203.0.113.9 -> a1/x: DENY");
}

#[test]
fn rules_name_namespaces_not_labels() {
    let projects = ProjectPolicies::of(&world(&with("isolation Enforced nodes egress system=p-sys")));
    for rule in
        projects.policies.values().flat_map(|policy| [&policy.ingress, &policy.egress]).flatten().flatten()
    {
        let RuleBody::Cluster { peers, .. } = &rule.body else { panic!("{rule:?}") };
        for peer in peers {
            if let ClusterPeer::Pods { namespaces, .. } = peer {
                assert!(namespaces.used_keys().iter().all(|key| *key == "kubernetes.io/metadata.name"));
            }
        }
    }
}

#[test]
fn a_stored_policy_of_the_same_name_stands_beside() {
    let w = world(&with("isolation Default\n knp a1{} I[ns=b1] @name=project-isolation"));
    let names: Vec<Arc<str>> = w
        .enforced()
        .iter()
        .filter(|policy| *policy.key.namespace == *"a1")
        .map(|p| p.key.name.clone())
        .collect();
    assert_eq!(names, ["project-isolation".into(), Arc::<str>::from("project-isolation:default")]);
    expect(
        &w,
        &Default::default(),
        "T80 b1/x -> a1/x: ALLOW\n T80 a2/x -> a1/x: ALLOW\n T80 lone/x -> a1/x: DENY",
    );
}

#[test]
fn decisions_name_the_policy() {
    let leg = decision(&world(&with("isolation Enforced")), "T80 b1/x -> a1/x").ingress.unwrap();
    assert_eq!(
        leg.deciding_rule().unwrap().to_string(),
        "ClusterNetworkPolicy project-isolation.p-a spec.ingress[1]"
    );
}

#[test]
fn the_difference_of_two_results_leads_from_one_to_the_other() {
    let mut w = world(&with("isolation Default nodes system=p-sys"));
    let mut before = ProjectPolicies::default();
    // a follower that stores the derived policies as objects
    let mut follower = World::default();
    for (change, most) in [
        ("", 3),
        ("ns a3 field.cattle.io/projectId=p-a", 3),
        ("ns unrelated team=x", 0),
        ("ns a2 field.cattle.io/projectId=p-b", 4),
        ("node n3 192.168.0.3", 4),
        ("isolation Enforced system=p-sys", 6),
        ("isolation Off", 2),
    ] {
        apply(&mut w, change);
        let after = ProjectPolicies::of(&w);
        let deltas = after.changes_from(&before);
        assert!(deltas.len() <= most, "{change}: {} changes", deltas.len());
        deltas.into_iter().for_each(|delta: ObjectDelta| follower.apply(delta));
        assert_eq!(follower.policies, after.policies, "{change}");
        before = after;
    }
    assert!(follower.policies.is_empty());
}

#[test]
fn node_peers_hold_every_address_of_every_node() {
    let projects = ProjectPolicies::of(&world(&with("isolation Default nodes")));
    let policy = projects.policies.values().next().unwrap();
    let RuleBody::Kubernetes { peers: Some(peers), .. } = &policy.ingress.as_ref().unwrap()[0].body else {
        panic!("{policy:?}")
    };
    let cidrs: Vec<String> = peers
        .iter()
        .filter_map(|peer| match peer {
            KubernetesPeer::IpBlock { cidr, .. } => Some(cidr.to_string()),
            KubernetesPeer::Selectors { .. } => None,
        })
        .collect();
    assert_eq!(cidrs, ["10.42.1.0/32", "10.42.2.0/32", "192.168.0.1/32", "192.168.0.2/32", "fd00:2::/128"]);
}

/// Semantics 8.2 said once more, for worlds without other policies: does the leg of `pod` let `other` through?
fn leg_by_the_law(
    world: &World,
    isolation: &ProjectIsolation,
    pod: &Pod,
    other: IpAddr,
    outgoing: bool,
) -> bool {
    let project = |name: &str| -> Option<String> {
        let namespace = world.namespaces.get(name)?;
        let label = namespace.labels.get(&isolation.project_key)?;
        let agrees = |said: &str| said == label || said.ends_with(&format!(":{label}"));
        namespace.annotations.get(&isolation.project_key).is_none_or(agrees).then(|| label.to_owned())
    };
    let is = |name: &str, one: &ProjectMatch| match one {
        ProjectMatch::Project(value) => project(name).as_deref() == Some(value),
        ProjectMatch::Namespace(own) => **own == *name && world.namespaces.contains_key(name),
        ProjectMatch::Namespaces(selector) => {
            world.namespaces.get(name).is_some_and(|ns| selector.matches(&ns.labels))
        }
    };
    let is_system = |name: &str| isolation.system_project.as_ref().is_some_and(|one| is(name, one));
    let own = &*pod.key.namespace;
    let Some(of) = project(own).filter(|_| !is_system(own)) else { return true };
    if isolation.exempt.iter().any(|one| is(own, one)) || (outgoing && !isolation.egress) {
        return true;
    }
    let peer = world.pods.values().find(|pod| pod.live_addresses().contains(&other));
    let is_friend = |pod: &Pod| project(&pod.key.namespace) == Some(of) || is_system(&pod.key.namespace);
    let is_node = isolation.allow_nodes && world.nodes.values().any(|node| node.addresses.contains(&other));
    match (isolation.mode, peer) {
        (IsolationMode::Off, _) => true,
        (_, _) if is_node => true,
        (_, Some(peer)) if is_friend(peer) => true,
        // random worlds hold no DNS pods
        (IsolationMode::Default, _) => false,
        (IsolationMode::Enforced, peer) => peer.is_none(),
    }
}

#[test]
fn verdicts_under_isolation_are_those_of_the_sentences() {
    let (mut compared, mut denied) = ([0; 2], 0);
    for seed in 0..1_500 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut world = random_world_of(&mut rng, &Ingredients::ALL);
        let Some(isolation) = world.isolations.get("default").cloned() else { continue };
        world.policies.clear();
        world.host_endpoints.clear();
        for _ in 0..15 {
            let flow = random_flow(&mut rng, &world);
            let decision = decide(&world, &flow);
            let owners = |address| {
                world.pods.values().filter(move |pod| pod.live_addresses().contains(&address)).count()
            };
            if decision.shortcut.is_some() || owners(flow.source) > 1 || owners(flow.destination) > 1 {
                continue;
            }
            for leg in decision.legs() {
                let outgoing = leg.direction == Direction::Egress;
                let other = if outgoing { flow.destination } else { flow.source };
                let expected = leg_by_the_law(&world, &isolation, &world.pods[&leg.pod], other, outgoing);
                assert_eq!(
                    leg.verdict == Verdict::Allow,
                    expected,
                    "seed {seed}, {flow}\n{decision}\n{world:#?}"
                );
                compared[usize::from(expected)] += 1;
                denied += usize::from(!expected && isolation.mode == IsolationMode::Enforced);
            }
        }
    }
    assert!(compared.iter().all(|count| *count > 400) && denied > 100, "{compared:?}, {denied}");
}
