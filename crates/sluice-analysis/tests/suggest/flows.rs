//! One denied connection.

use sluice_analysis::suggest::suggest_for_flow;
use sluice_model::decide;

use crate::{CLOSED, applied, flow, shown, single, snapshot, world};

const PODS: &str = "
    node node-1 192.168.0.1 10.42.0.0/24
    shop/web-1 10.42.0.1 app=web owner=StatefulSet/web
    shop/web-2 10.42.0.2 app=web owner=StatefulSet/web
    shop/api-1 10.42.0.3 app=api tier=back
    shop/job-1 10.42.0.4 app=job tier=back
    ops/client 10.42.0.9 app=client
";

const ADMIN_DENY: &str = "
apiVersion: projectcalico.org/v3
kind: Tier
metadata: {name: security}
spec: {order: 100, defaultAction: Pass}
---
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: security.no-api}
spec:
  tier: security
  order: 10
  selector: app == 'api'
  types: [Ingress]
  ingress: [{action: Deny, protocol: TCP}]
";

const EARLY_DENY: &str = "
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: early}
spec: {order: 5, selector: app == 'api', types: [Ingress], ingress: [{action: Deny}]}
";

const LATE_DENY: &str = "
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: late}
spec: {selector: app == 'api', types: [Ingress], ingress: [{action: Deny}]}
";

#[test]
fn each_leg_that_denies_gets_the_least_policy() {
    let world = world(PODS, &[CLOSED]);
    let flow = flow("TCP 10.42.0.1:40000 -> 10.42.0.3:8080");
    let advice = suggest_for_flow(&snapshot(&world), &flow);
    let suggestion = single(&advice);
    assert_eq!(
        suggestion.yaml(),
        "# allows TCP 8080 from shop/statefulset/web to shop/api-1
# shop/statefulset/web may open TCP 8080 to shop/api-1
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: web-to-api-1
  namespace: shop
spec:
  podSelector:
    matchLabels:
      app: web
  policyTypes:
    - Egress
  egress:
    - to:
        - podSelector:
            matchLabels:
              app: api
      ports:
        - protocol: TCP
          port: 8080
---
# shop/api-1 accepts TCP 8080 from shop/statefulset/web
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: api-1-from-web
  namespace: shop
spec:
  podSelector:
    matchLabels:
      app: api
  policyTypes:
    - Ingress
  ingress:
    - from:
        - podSelector:
            matchLabels:
              app: web
      ports:
        - protocol: TCP
          port: 8080
"
    );
    // both pods of the workload, and nothing else
    assert_eq!(
        shown(&suggestion.changes),
        "shop/web-1 -> shop/api-1: +TCP 8080\nshop/web-2 -> shop/api-1: +TCP 8080\n"
    );
    assert_eq!(suggestion.warnings, Vec::<String>::new());
    assert!(decide(&applied(&world, suggestion), &flow).is_allowed());
}

#[test]
fn where_a_network_policy_cannot_open_the_kind_that_can_is_suggested() {
    for (policies, protocol, kind, warning) in [
        (
            &[CLOSED, ADMIN_DENY][..],
            "TCP 10.42.0.9:1 -> 10.42.0.3:80",
            "security.api-1-from-client",
            "before the tier",
        ),
        (
            &[EARLY_DENY][..],
            "TCP 10.42.0.9:1 -> 10.42.0.3:80",
            "api-1-from-client",
            "order 5 of tier default",
        ),
        (&[CLOSED][..], "ICMP 10.42.0.9 -> 10.42.0.3 type 8 code 0", "api-1-from-client", "cannot name"),
        (&[LATE_DENY][..], "TCP 10.42.0.9:1 -> 10.42.0.3:80", "api-1-from-client", ""),
    ] {
        let world = world(PODS, policies);
        let flow = flow(protocol);
        let advice = suggest_for_flow(&snapshot(&world), &flow);
        let suggestion = single(&advice);
        assert_eq!(&*suggestion.policies[0].policy.key.name, kind);
        assert_eq!(suggestion.policies.len(), 1);
        assert!(decide(&applied(&world, suggestion), &flow).is_allowed());
        match warning {
            "" => assert!(suggestion.warnings.is_empty(), "{:?}", suggestion.warnings),
            warning => assert!(suggestion.warnings[0].contains(warning), "{:?}", suggestion.warnings),
        }
        assert_eq!(suggestion.changes.changes.len(), 1, "{}", shown(&suggestion.changes));
        assert_eq!(suggestion.closes().count(), 0);
    }
}

#[test]
fn an_outside_address_is_named_by_itself() {
    let world = world(PODS, &[CLOSED]);
    let advice = suggest_for_flow(&snapshot(&world), &flow("UDP 10.42.0.3:1 -> 198.51.100.7:123"));
    let suggestion = single(&advice);
    assert!(suggestion.yaml().contains("cidr: 198.51.100.7/32"), "{}", suggestion.yaml());
    assert_eq!(shown(&suggestion.changes), "shop/api-1 -> outside 198.51.100.7/32: +UDP 123\n");
}

#[test]
fn pods_that_no_label_tells_apart_are_said() {
    let pods = "
        shop/a 10.42.0.1 app=x
        shop/b 10.42.0.2 app=x
        ops/c 10.42.0.3 app=c
    ";
    let world = world(pods, &[CLOSED]);
    let advice = suggest_for_flow(&snapshot(&world), &flow("TCP 10.42.0.3:1 -> 10.42.0.1:80"));
    let suggestion = single(&advice);
    assert!(
        suggestion.warnings[0].contains("no label tells shop/a from shop/b"),
        "{:?}",
        suggestion.warnings
    );
    assert_eq!(shown(&suggestion.changes), "ops/c -> shop/a: +TCP 80\nops/c -> shop/b: +TCP 80\n");
}

#[test]
fn what_needs_no_policy_and_what_none_can_open_are_said() {
    let world = world(PODS, &[CLOSED]);
    let snapshot = snapshot(&world);
    for (asked, note) in [
        ("TCP 198.51.100.7:1 -> 10.42.0.9:80", "allowed already"),
        ("4 10.42.0.9 -> 198.51.100.7", "no policy can allow it: pods may not send encapsulated packets"),
    ] {
        let advice = suggest_for_flow(&snapshot, &flow(asked));
        assert!(advice.alternatives.is_empty());
        assert!(advice.notes[0].contains(note), "{:?}", advice.notes);
    }
}
