//! What the evaluator says about how it came to a verdict.

use sluice_model::{Criterion, LegReason, TierOutcome, Verdict};

use crate::text::{decision, world};

const PODS: &str = "
    ns x
    ns y
    pod x/a 10.0.0.1 app=a
    pod y/b 10.0.0.2 app=b
";

fn shown(objects: &str, question: &str) -> String {
    decision(&world(&format!("{PODS}{objects}")), question).to_string()
}

#[test]
fn sentences() {
    for (objects, question, expected) in [
        (
            "",
            "T80 x/a -> y/b",
            "ALLOW
  egress of x/a: ALLOW: no policy selects the pod for egress
  ingress of y/b: ALLOW: no policy selects the pod for ingress",
        ),
        (
            "knp y{} I[ns=x : T81 | pod=c : T82] @name=in",
            "T80 x/a -> y/b",
            "DENY
  egress of x/a: ALLOW: no policy selects the pod for egress
  ingress of y/b: DENY: no rule of tier default allows it; the pod is selected by NetworkPolicy y/in; nearest: Allow \
             NetworkPolicy y/in spec.ingress[0] does not match by port",
        ),
        (
            "knp y{} I[ns=x] @name=in",
            "T80 x/a -> y/b",
            "ALLOW
  egress of x/a: ALLOW: no policy selects the pod for egress
  ingress of y/b: ALLOW: NetworkPolicy y/in spec.ingress[0]",
        ),
        (
            "gnp stop E[allow proto=UDP dst.sel=<app == 'c'>; deny]",
            "T80 x/a -> 8.8.8.8",
            "DENY
  egress of x/a: DENY: GlobalNetworkPolicy stop spec.egress[1]; nearest: Allow GlobalNetworkPolicy stop spec.egress[0] \
             does not match by protocol, destination selector",
        ),
        (
            "gnp go E[pass]",
            "T80 x/a -> 8.8.8.8",
            "ALLOW
  egress of x/a: ALLOW: no tier decides, so it is allowed",
        ),
        ("", "T80 10.0.0.1 -> 10.0.0.1", "ALLOW\n  the connection stays inside one pod"),
        ("", "T80 8.8.8.8 -> 9.9.9.9", "ALLOW\n  neither end is a pod"),
    ] {
        assert_eq!(shown(objects, question), expected, "{objects} {question}");
    }
}

#[test]
fn the_trace_holds_every_tier_policy_and_rule_that_was_looked_at() {
    let w = world(&format!(
        "{PODS}
         tier early 5 Pass
         tier skipped 6 Deny
         gnp e1 tier=early order=1 I[deny src.nets=9.9.9.9]
         gnp e2 tier=early order=2 I[log; pass; deny]
         gnp e3 tier=early order=3 I[deny]
         gnp other tier=skipped sel=<app == 'z'> I[deny]
         knp y{{}} I[pod=c] @name=k
         gnp late I[allow; deny]"
    ));
    let decision = decision(&w, "T80 x/a -> y/b");
    let leg = decision.ingress.unwrap();
    assert_eq!(leg.verdict, Verdict::Allow);
    let shape: Vec<String> = leg
        .tiers
        .iter()
        .map(|tier| {
            let policies: Vec<String> = tier
                .policies
                .iter()
                .map(|policy| {
                    let rules = policy.rules.iter().map(|rule| if rule.matched() { '1' } else { '.' });
                    format!("{}:{}", policy.policy.object.name, rules.collect::<String>())
                })
                .collect();
            format!("{} {}", tier.tier, policies.join(" "))
        })
        .collect();
    assert_eq!(shape, ["early e1:. e2:11", "default k:. late:1"]);
    assert!(matches!(&leg.tiers[0].outcome, TierOutcome::Passed(rule) if &*rule.path == "spec.ingress[1]"));
    assert!(matches!(&leg.reason, LegReason::Rule(rule) if &*rule.object.name == "late"));
    assert_eq!(leg.tiers[0].policies[0].rules[0].misses, [Criterion::SourceNets]);
    assert_eq!(leg.tiers[1].policies[0].rules[0].misses, [Criterion::Peer]);
}

#[test]
fn a_default_deny_names_every_policy_that_made_the_tier_take_part() {
    let w = world(&format!("{PODS} gnp g I[]\n knp y{{}} I[] @name=k1\n knp y{{app=b}} I[] @name=k2"));
    let leg = decision(&w, "T80 x/a -> y/b").ingress.unwrap();
    let LegReason::TierDefault { tier, policies } = &leg.reason else { panic!("{leg}") };
    let names: Vec<&str> = policies.iter().map(|policy| &*policy.object.name).collect();
    assert_eq!((&**tier, names), ("default", vec!["k1", "k2", "g"]));
    assert_eq!(leg.nearest_miss(), None);
}

#[test]
fn every_criterion_is_named_when_it_fails() {
    for (rule, question, expected) in [
        ("allow v=6", "T80 x/a -> y/b", Criterion::Family),
        ("allow proto=UDP", "T80 x/a -> y/b", Criterion::Protocol),
        ("allow proto=ICMP icmp=0", "icmp8/0 x/a -> y/b", Criterion::Icmp),
        ("allow src.nets=10.9.0.0/16", "T80 x/a -> y/b", Criterion::SourceNets),
        ("allow dst.nets=10.9.0.0/16", "T80 x/a -> y/b", Criterion::DestinationNets),
        ("allow src.sel=<app == 'z'>", "T80 x/a -> y/b", Criterion::SourceSelector),
        ("allow dst.sel=<app == 'z'>", "T80 x/a -> y/b", Criterion::DestinationSelector),
        ("allow proto=TCP src.ports=1", "T80 x/a -> y/b", Criterion::SourcePorts),
        ("allow proto=TCP dst.ports=1", "T80 x/a -> y/b", Criterion::DestinationPorts),
        ("allow src.svc=x/none", "T80 x/a -> y/b", Criterion::SourceService),
        ("allow dst.svc=x/none", "T80 x/a -> y/b", Criterion::DestinationService),
        ("allow unreadable", "T80 x/a -> y/b", Criterion::Unreadable),
    ] {
        let w = world(&format!("{PODS} gnp p sel=<app == 'b'> I[{rule}]"));
        let leg = decision(&w, question).ingress.unwrap();
        assert_eq!(leg.nearest_miss().unwrap().misses, [expected], "{rule}");
    }
}
