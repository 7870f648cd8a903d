//! Tiers, order, profiles and staged policies: semantics 3.6 to 3.8.

use sluice_model::Circumstances;

use crate::text::{check, expect, world};

/// The policy `full-isolation` of the reference scenario: all pods of isolated-ns; no ingress, egress to IPv4.
const SCENARIO: &str = "
    ns isolated-ns
    ns other-ns
    pod isolated-ns/debian-pod-1 10.42.0.1
    pod other-ns/client 10.42.0.2
    knp isolated-ns{} I[] E[0.0.0.0/0] @name=full-isolation
";

#[test]
fn what_a_deny_all_can_override() {
    // The worked example of 3.6: isolated-ns/debian-pod-1 → outside host, TCP 443.
    for (policy, verdict) in [
        ("", "ALLOW"),
        ("gnp deny-all I[] E[]", "ALLOW"),
        ("gnp deny-all order=1 I[] E[]", "ALLOW"),
        ("gnp deny-all I[] E[deny]", "ALLOW"),
        ("gnp deny-all order=1 I[] E[deny]", "DENY"),
        ("gnp deny-all order=1000 I[] E[deny]", "DENY"),
        ("gnp g-deny order=1000 I[] E[deny]", "ALLOW"),
        ("tier security 100 Deny\n gnp deny-all tier=security I[] E[]", "DENY"),
        ("tier security 100 Deny\n gnp deny-all tier=security I[] E[deny]", "DENY"),
        // as the ClusterNetworkPolicies of both tiers would stand
        ("gnp deny-all tier=kube-admin order=5 I[] E[deny]", "DENY"),
        ("gnp deny-all tier=kube-baseline order=5 I[] E[deny]", "ALLOW"),
        ("gnp deny-all order=1 staged I[] E[deny]", "ALLOW"),
    ] {
        check(
            &format!("{SCENARIO}{policy}"),
            &format!("T443 isolated-ns/debian-pod-1 -> 8.8.8.8: {verdict}"),
        );
    }
}

#[test]
fn what_a_deny_all_without_order_and_rules_does_cut() {
    let deny_all = format!("{SCENARIO} gnp deny-all I[] E[]\n");
    check(
        &deny_all,
        "T80 8.8.8.8 -> other-ns/client: DENY
         T80 other-ns/client -> isolated-ns/debian-pod-1: DENY
         T80 other-ns/client -> 8.8.8.8: DENY",
    );
    // and all use of tier kube-baseline
    check(&format!("{deny_all} gnp b tier=kube-baseline E[allow]"), "T80 other-ns/client -> 8.8.8.8: DENY");
    // conversely an Allow without order opens what the Kubernetes policy isolates
    check(&format!("{SCENARIO} gnp open I[allow]"), "T80 8.8.8.8 -> isolated-ns/debian-pod-1: ALLOW");
}

const POD: &str = "ns x\n pod x/a 10.0.0.1 fd00::1\n";

/// What `T80 8.8.8.8 -> x/a` meets.
fn ingress(objects: &str, verdict: &str) {
    check(&format!("{POD}{objects}"), &format!("T80 8.8.8.8 -> x/a: {verdict}"));
}

#[test]
fn tiers_are_sorted_by_order_then_name() {
    let both = |first: &str, second: &str| {
        format!(
            "tier t1 {first} Deny\n tier t2 {second} Deny\n gnp a tier=t1 I[allow]\n gnp b tier=t2 I[deny]"
        )
    };
    ingress(&both("1", "2"), "ALLOW");
    ingress(&both("2", "1"), "DENY");
    ingress(&both("1", "1"), "ALLOW");
    ingress(&both("-", "5"), "DENY");
    ingress(&both("-", "-"), "ALLOW");
    ingress(&both("-1", "-1.5"), "DENY");
}

#[test]
fn the_default_action_applies_when_the_tier_takes_part_and_nothing_decided() {
    let tier = |action: &str, policy: &str| format!("tier t 5 {action}\n{policy}");
    ingress(&tier("Deny", "gnp p tier=t I[]"), "DENY");
    ingress(&tier("Deny", "gnp p tier=t I[allow src.nets=9.9.9.9]"), "DENY");
    ingress(&tier("Pass", "gnp p tier=t I[]"), "ALLOW");
    ingress(&tier("Pass", "gnp p tier=t I[deny src.nets=9.9.9.9]"), "ALLOW");
    // a tier whose policies select others, or the other direction, does not take part
    ingress(&tier("Deny", "gnp p tier=t sel=<app == 'b'> I[]"), "ALLOW");
    ingress(&tier("Deny", "gnp p tier=t E[]"), "ALLOW");
    ingress(&tier("Deny", ""), "ALLOW");
    // after Pass the next tier looks
    ingress(&tier("Pass", "gnp p tier=t I[]\n gnp q I[deny]"), "DENY");
    ingress(&tier("Deny", "gnp p tier=t I[pass]\n gnp q I[deny]"), "DENY");
    // Allow ends the leg: no later tier looks
    ingress(&tier("Deny", "gnp p tier=t I[allow]\n gnp q I[deny]"), "ALLOW");
}

#[test]
fn pass_out_of_the_last_tier_allows() {
    ingress("gnp p I[pass]", "ALLOW");
    ingress("gnp p tier=kube-baseline I[pass]", "ALLOW");
    ingress("gnp p tier=kube-baseline I[]", "ALLOW");
}

#[test]
fn policies_of_a_missing_tier_stay_enforced_after_all_tiers() {
    ingress("gnp p tier=ghost I[]", "DENY");
    ingress("gnp p tier=ghost I[allow]", "ALLOW");
    ingress("gnp p tier=ghost I[deny]\n gnp q I[allow]", "ALLOW");
    ingress("gnp p tier=ghost I[deny]\n gnp q I[pass]", "DENY");
    ingress("gnp p tier=ghost I[deny]\n gnp q tier=kube-baseline I[allow]", "ALLOW");
    // one tier per name, by name
    ingress("gnp p tier=ghost-b I[deny]\n gnp q tier=ghost-a I[allow]", "ALLOW");
    // a tier without order is still an existing one
    ingress("tier last - Pass\n gnp p tier=ghost I[deny]\n gnp q tier=last I[allow]", "ALLOW");
}

#[test]
fn policies_in_a_tier_are_sorted_by_order_then_name_namespace_kind() {
    for (first, second) in [
        ("gnp z order=1 I[allow]", "gnp a order=2 I[deny]"),
        ("gnp z order=-0.5 I[allow]", "gnp a order=0 I[deny]"),
        ("gnp z order=1 I[allow]", "gnp a I[deny]"),
        ("gnp a order=1 I[allow]", "gnp b order=1 I[deny]"),
        ("gnp a I[allow]", "gnp b I[deny]"),
        // bytewise: upper case and `-` before lower case; `a//…` before `a/x/…`
        ("gnp B I[allow]", "gnp a I[deny]"),
        ("gnp a I[allow]", "np x/a I[deny]"),
        ("np x/a I[allow]", "gnp b I[deny]"),
        // the string is compared, so `a-b/…` stands before `a/…`
        ("gnp a-b I[allow]", "gnp a I[deny]"),
        // namespace and name equal: by kind, KubernetesNetworkPolicy before NetworkPolicy
        ("knp x{} I[*] @name=p", "np x/p order=1000 I[deny]"),
        ("knp x{} I[*] @name=p", "gnp q order=1000 I[deny]"),
        ("gnp o order=1000 I[allow]", "knp x{} I[] @name=p"),
    ] {
        ingress(&format!("{first}\n{second}"), "ALLOW");
        ingress(&format!("{second}\n{first}"), "ALLOW");
        let swapped =
            format!("{first}\n{second}").replace("allow", "#").replace("deny", "allow").replace('#', "deny");
        if !swapped.contains("knp") {
            ingress(&swapped, "DENY");
        }
    }
}

#[test]
fn built_in_tiers_keep_their_values() {
    ingress("tier default 1 Pass\n gnp p I[]", "DENY");
    ingress("tier kube-admin 5 Deny\n gnp p tier=kube-admin I[]", "ALLOW");
    ingress("tier kube-baseline 5 Deny\n gnp p tier=kube-baseline I[deny]\n gnp q I[allow]", "ALLOW");
    // a user tier with order below 1,000 stands before Admin
    ingress("tier first 999 Deny\n gnp p tier=first I[allow]\n gnp q tier=kube-admin I[deny]", "ALLOW");
    ingress("tier later 1001 Deny\n gnp p tier=later I[allow]\n gnp q tier=kube-admin I[deny]", "DENY");
}

#[test]
fn profiles() {
    // a pod that nothing selects is open in both directions
    check(POD, "T80 8.8.8.8 -> x/a: ALLOW\n T80 x/a -> 8.8.8.8: ALLOW");
    // if its Namespace is known; offline every namespace that is named anywhere is
    let unknown = world("pod q/a 10.0.0.1");
    expect(&unknown, &Circumstances::default(), "T80 8.8.8.8 -> q/a: ALLOW");
    let complete = Circumstances { namespaces_are_complete: true, ..Circumstances::default() };
    expect(&unknown, &complete, "T80 8.8.8.8 -> q/a: DENY\n T80 q/a -> 8.8.8.8: DENY");
    expect(&world(POD), &complete, "T80 8.8.8.8 -> x/a: ALLOW");
}

#[test]
fn staged_policies_never_count() {
    ingress("gnp p staged I[deny]", "ALLOW");
    ingress("np x/p staged I[deny]", "ALLOW");
    // nor do they make a tier take part
    ingress("tier t 5 Deny\n gnp p tier=t staged I[allow]", "ALLOW");
    ingress("gnp p I[deny]\n gnp q order=1 staged I[allow]", "DENY");
}
