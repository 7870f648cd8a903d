//! Claims made true.

use sluice_analysis::judge_claim;
use sluice_analysis::suggest::suggest_for_claim;
use sluice_model::Kind;
use sluice_report::{Claim, ClaimEnd, ClaimState};

use crate::common::claims_of;
use crate::{CLOSED, applied, reads_back, shown, snapshot, world};

const PODS: &str = "
    node node-1 192.168.0.1 10.42.0.0/24
    shop/web 10.42.0.1 app=web
    shop/api 10.42.0.2 app=api
    shop/db 10.42.0.3 app=db
    ops/client 10.42.0.9 app=client
";

const OPEN: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: open, namespace: shop}
spec: {podSelector: {}, ingress: [{}], egress: [{}]}
";

fn claim(spec: &str) -> Claim {
    let head =
        "apiVersion: sluice.dev/v1alpha1\nkind: ConnectivityClaim\nmetadata: {name: c, namespace: shop}\n";
    claims_of(&format!("{head}spec: {{text: sentence, families: [IPv4], {spec}}}\n")).remove(0)
}

const SHOP: &str = "{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}";

/// Every alternative as kinds and effect, after it was checked that it makes the claim true.
fn alternatives(policies: &[&str], claim: &Claim) -> Vec<(Vec<Kind>, String)> {
    let world = world(PODS, policies);
    let advice = suggest_for_claim(&snapshot(&world), claim);
    let check = |suggestion: &sluice_analysis::suggest::Suggestion| {
        let after = snapshot(&applied(&world, suggestion));
        reads_back(suggestion);
        let doubtful =
            suggestion.warnings.iter().any(|warning| warning.contains("for pods to come it is undecided"));
        let asked = Claim { future_pods: claim.future_pods && !doubtful, ..claim.clone() };
        let result = judge_claim(&after, &asked);
        assert!(result.state.holds(), "{result:?}\n{}", suggestion.yaml());
        let kinds = suggestion.policies.iter().map(|own| own.policy.key.kind).collect();
        (kinds, shown(&suggestion.changes))
    };
    let found: Vec<_> = advice.alternatives.iter().map(check).collect();
    assert!(!found.is_empty(), "{:?}", advice.notes);
    found
}

#[test]
fn allow_is_opened_where_it_is_closed_and_nothing_else() {
    let claim = claim(&format!(
        "from: [{SHOP}, podSelector: {{matchLabels: {{app: web}}}}}}], \
         to: [{SHOP}, podSelector: {{matchLabels: {{app: api}}}}}}], ports: [{{protocol: TCP, port: 8080}}], expect: Allow"
    ));
    let found = alternatives(&[CLOSED], &claim);
    let kinds = vec![Kind::KubernetesNetworkPolicy; 2];
    assert_eq!(found, [(kinds, "shop/web -> shop/api: +TCP 8080\n".to_owned())]);
    // ingress alone is closed: one policy
    let ingress = CLOSED.replace("[Ingress, Egress]", "[Ingress]");
    assert_eq!(alternatives(&[&ingress], &claim)[0].0.len(), 1);
    let holds = suggest_for_claim(&snapshot(&world(PODS, &[])), &claim);
    assert!(holds.alternatives.is_empty() && holds.notes[0].contains("holds already"), "{holds:?}");
}

#[test]
fn allow_from_the_namespaces_of_others_and_from_outside() {
    let to = format!(
        "to: [{SHOP}, podSelector: {{matchLabels: {{app: web}}}}}}], ports: [{{protocol: TCP, port: 80}}]"
    );
    let found =
        alternatives(&[CLOSED], &claim(&format!("from: [{{namespaceSelector: {{}}}}], {to}, expect: Allow")));
    // egress of the namespace's own pods is closed too, each by its own policy or by one for all
    assert!(found[0].1.contains("ops/client -> shop/web: +TCP 80\n"), "{found:?}");
    assert!(found[0].1.contains("shop/db -> shop/web: +TCP 80\n"), "{found:?}");
    assert!(!found[0].1.contains("-> shop/db"), "{found:?}");
    let found = alternatives(
        &[CLOSED],
        &claim(&format!("from: [{{outside: true}}], {to}, futurePods: false, expect: Allow")),
    );
    assert!(found[0].1.lines().all(|line| line.starts_with("outside")), "{found:?}");
}

#[test]
fn deny_is_closed_exactly_before_other_policies_and_by_isolation() {
    let claim = claim(&format!(
        "from: [{{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: ops}}}}}}], to: [{SHOP}, \
         podSelector: {{matchLabels: {{app: db}}}}}}], ports: [{{protocol: TCP, port: 5432}}], expect: Deny"
    ));
    let found = alternatives(&[], &claim);
    let kinds: Vec<Kind> = found.iter().map(|(kinds, _)| kinds[0]).collect();
    assert!(kinds.contains(&Kind::KubernetesNetworkPolicy), "{found:?}");
    assert!(kinds.contains(&Kind::KubernetesClusterNetworkPolicy), "{found:?}");
    assert_eq!(found[0].1, "ops/client -> shop/db: -TCP 5432\n");
    assert!(found.iter().all(|(_, changes)| !changes.contains('+')), "{found:?}");
    // what another NetworkPolicy admits, none can close
    let found = alternatives(&[OPEN], &claim);
    assert!(
        found.iter().all(|(kinds, changes)| kinds[0] != Kind::KubernetesNetworkPolicy
            || changes.starts_with("ops/client -> ")),
        "{found:?}"
    );
}

#[test]
fn allow_only_keeps_the_listed_ports() {
    let claim = claim(&format!(
        "from: [{{namespaceSelector: {{}}}}], to: [{SHOP}, podSelector: {{matchLabels: {{app: web}}}}}}], \
         ports: [{{protocol: TCP, port: 80}}], expect: AllowOnly"
    ));
    for policies in [&[][..], &[CLOSED][..], &[OPEN][..]] {
        let found = alternatives(policies, &claim);
        assert!(!found.is_empty(), "{policies:?}");
        for (kinds, changes) in &found {
            assert!(!changes.contains("ops/client -> shop/db"), "{kinds:?} {changes}");
        }
    }
}

#[test]
fn reach_only_isolates_what_leaves() {
    let claim = claim(&format!(
        "from: [{SHOP}, podSelector: {{matchLabels: {{app: web}}}}}}], to: [{SHOP}, podSelector: {{matchLabels: {{app: api}}}}}}], \
         expect: ReachOnly"
    ));
    let found = alternatives(&[], &claim);
    assert_eq!(found[0].0, [Kind::KubernetesNetworkPolicy]);
    assert!(found.iter().all(|(_, changes)| !changes.contains("shop/web -> shop/api")), "{found:?}");
    let found = alternatives(&[OPEN], &claim);
    assert_eq!(found[0].0, [Kind::KubernetesClusterNetworkPolicy]);
    let internet = Claim { to: vec![ClaimEnd::Outside], ..claim };
    let found = alternatives(&[OPEN], &internet);
    assert!(!found.is_empty());
    assert!(found.iter().all(|(_, changes)| !changes.contains("-> outside")), "{found:?}");
}

#[test]
fn the_reference_scenario_is_mended() {
    use crate::common::{POLICY_A, claims, snapshot};
    let before = snapshot(&[POLICY_A]);
    // 2b: only HTTP and HTTPS; 5: only the internet
    for id in ["2b", "5"] {
        let claim = claims().into_iter().find(|claim| &*claim.name == id).unwrap();
        assert_eq!(judge_claim(&before, &claim).state, ClaimState::Fails);
        let advice = suggest_for_claim(&before, &claim);
        let first = advice.alternatives.first().unwrap_or_else(|| panic!("{id}: {advice:?}"));
        assert_eq!(first.opens().count(), 0, "{id}: {}", shown(&first.changes));
        let after = sluice_analysis::Snapshot::new(applied(before.world(), first));
        assert!(judge_claim(&after, &claim).state.holds(), "{id}");
    }
}
