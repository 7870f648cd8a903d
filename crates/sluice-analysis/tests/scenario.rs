//! The reference scenario: what each claim is in each situation, and the packet that shows it.

#![allow(clippy::unwrap_used)]

mod common;

use common::{OUTSIDE, VARIANTS, claims, claims_of, ip, snapshot};
use sluice_addr::Transport;
use sluice_analysis::judge_claim;
use sluice_report::{Claim, ClaimResult, ClaimState, Witness};

/// H holds, F does not hold, v holds vacuously, - not asked.
const EXPECTED: [(&str, &str); 8] = [
    ("1", "FHHHH"),
    ("2a", "HHHHF"),
    ("2b", "FFFFv"),
    ("2c", "HFFFF"),
    ("3", "HHFFF"),
    ("4", "FHHHH"),
    ("5", "FFFFv"),
    ("6", "--FFH"),
];

fn letter(state: ClaimState) -> char {
    match state {
        ClaimState::Holds => 'H',
        ClaimState::Fails => 'F',
        ClaimState::Vacuous => 'v',
        ClaimState::Undecided => '?',
    }
}

fn judged(id: &str, variant: &str) -> ClaimResult {
    let claim = claims().into_iter().find(|c| &*c.name == id).unwrap();
    let (_, policies) = VARIANTS.iter().find(|(name, _)| *name == variant).unwrap();
    judge_claim(&snapshot(policies), &claim)
}

fn witness(id: &str, variant: &str) -> Witness {
    judged(id, variant).witness.unwrap()
}

#[test]
fn every_claim_in_every_situation() {
    let mut claims = claims();
    assert_eq!(claims.len(), EXPECTED.len());
    assert_table(&claims);
    // the policies select every pod of a namespace or of the cluster: pods to come change nothing
    claims.iter_mut().for_each(|claim| claim.future_pods = true);
    assert_table(&claims);
}

fn assert_table(claims: &[Claim]) {
    let snapshots = VARIANTS.map(|(_, policies)| snapshot(policies));
    for (claim, (id, expected)) in claims.iter().zip(EXPECTED) {
        assert_eq!(&*claim.name, id);
        let states = snapshots.iter().zip(expected.chars());
        let found: String = states
            .map(
                |(snapshot, asked)| {
                    if asked == '-' { '-' } else { letter(judge_claim(snapshot, claim).state) }
                },
            )
            .collect();
        assert_eq!(found, expected, "claim {id}, futurePods: {}", claim.future_pods);
    }
}

#[test]
fn every_witness_is_judged_so_by_the_evaluator() {
    let mut seen = 0;
    for (variant, policies) in VARIANTS {
        let snapshot = snapshot(policies);
        for claim in claims() {
            if let Some(witness) = judge_claim(&snapshot, &claim).witness {
                let decision = sluice_model::decide(snapshot.world(), &witness.flow);
                assert_eq!(decision.is_allowed(), witness.allowed, "{variant} {}: {witness}", claim.name);
                seen += 1;
            }
        }
    }
    assert!(seen > 20, "{seen} witnesses");
}

#[test]
fn witnesses_are_packets_that_a_person_would_send() {
    let to = |w: &Witness, port: u16| {
        matches!(w.flow.transport, Transport::Ports { destination, .. } if destination == port)
            && w.flow.protocol() == sluice_addr::Protocol::TCP
    };
    for variant in ["no policy", "A", "A + B", "A + B order 1"] {
        let ssh = witness("2b", variant);
        assert!(ssh.allowed && to(&ssh, 22), "{variant}: {ssh}");
        assert_eq!(ssh.flow.destination, ip(OUTSIDE));
    }
    for variant in ["no policy", "A"] {
        let server = witness("5", variant);
        assert!(to(&server, 8080), "{variant}: {server}");
        assert_eq!((&*server.from, &*server.to), ("isolated-ns/debian-pod-1", "other-ns/server"));
    }
    for variant in ["A + B", "A + B order 1"] {
        let node = witness("5", variant);
        assert!(node.to.starts_with("node ") && to(&node, 10250), "{variant}: {node}");
        let outside = witness("6", variant);
        assert_eq!((&*outside.from, outside.flow.destination), ("isolated-ns/debian-pod-1", ip(OUTSIDE)));
        let dns = witness("3", variant);
        assert_eq!((&*dns.to, dns.allowed), ("kube-system/dns", false));
    }
}

#[test]
fn portability_points_are_named() {
    let pods = "ipBlock matching pod addresses (SL2301)";
    let nodes = "ipBlock matching pod and node addresses (SL2301)";
    let own_node = "policy between a pod and its own node (SL2302)";
    assert_eq!(judged("3", "A").depends_on, [pods]);
    assert_eq!(judged("3", "no policy").depends_on, [""; 0]);
    // without the nodes and pods in 0.0.0.0/0 only the internet would be reachable
    assert_eq!(judged("5", "A").depends_on, [nodes]);
    assert_eq!(judged("5", "A + B").depends_on, [nodes]);
    // a pod that always reaches its own node is not cut off
    assert_eq!(judged("6", "A + C").depends_on, [own_node]);
    assert_eq!(judged("2a", "A").depends_on, [""; 0]);
}

#[test]
fn reasons_name_the_leg_and_the_policies() {
    let reason = |id, variant| judged(id, variant).reason;
    assert_eq!(
        reason("2b", "A"),
        "TCP 22 from isolated-ns/debian-pod-1 to outside 203.0.113.10 is allowed, which is not listed: at egress \
         NetworkPolicy isolated-ns/full-isolation spec.egress[0] (manifest.yaml:12) admits it"
    );
    assert_eq!(
        reason("5", "A"),
        "TCP 8080 from isolated-ns/debian-pod-1 to other-ns/server is allowed: at egress NetworkPolicy \
         isolated-ns/full-isolation spec.egress[0] (manifest.yaml:12) admits it; at ingress no policy selects the \
         destination"
    );
    assert_eq!(
        reason("1", "A"),
        "no connection of the question is allowed: at ingress NetworkPolicy isolated-ns/full-isolation selects the \
         destination and no rule of it admits it"
    );
    assert_eq!(
        reason("3", "A + B"),
        "UDP 53 from isolated-ns/debian-pod-1 to kube-system/dns is denied: at ingress GlobalNetworkPolicy deny-all \
         selects the destination and no rule of it admits it"
    );
}

#[test]
fn a_stated_reason_is_checked() {
    let claim = |reason: &str| {
        claims_of(&format!(
            r#"{{apiVersion: sluice.dev/v1alpha1, kind: ConnectivityClaim, metadata: {{name: r, namespace: isolated-ns}},
            spec: {{text: t, expect: Deny, futurePods: false,
              from: [{{namespaceSelector: {{}}}}],
              to: [{{namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: isolated-ns}}}}}}],
              statedReason: [{reason}]}}}}"#
        ))
        .remove(0)
    };
    let snapshot = snapshot(VARIANTS[2].1);
    let a = "{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, namespace: isolated-ns, name: full-isolation}";
    let b = "{apiVersion: projectcalico.org/v3, kind: GlobalNetworkPolicy, name: deny-all}";
    for (reason, wrong) in [(a, true), (b, true), (&*format!("{a}, {b}"), false)] {
        let result = judge_claim(&snapshot, &claim(reason));
        assert_eq!((result.state, result.stated_reason_wrong), (ClaimState::Holds, wrong), "{reason}");
    }
}
