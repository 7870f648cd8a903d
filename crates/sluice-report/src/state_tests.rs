//! From findings to what a person reads.

use sluice_model::{Kind, ObjectKey};

use crate::{Code, Finding, InForce, Nodes, ObjectStatus, State};

fn found(code: Code, path: &str) -> Finding {
    let object = ObjectKey::new(Kind::KubernetesNetworkPolicy, "m", "p");
    Finding { code, object, path: path.into(), position: None, message: code.title().into(), hint: None }
}

#[test]
fn the_gravest_finding_is_the_reason() {
    let all = Some(Nodes { on: 3, of: 3 });
    let some = Some(Nodes { on: 2, of: 3 });
    for (findings, has_effect, nodes, state, shown) in [
        (vec![], true, all, State::Programmed, "Enforced 3/3"),
        (vec![], true, some, State::Programmed, "Programming 2/3"),
        (vec![found(Code::SL2206, "spec.egress")], true, None, State::Programmed, "Enforced"),
        (vec![found(Code::SL1015, "spec")], true, all, State::SelectsNothing, "Selects nothing"),
        (vec![found(Code::SL1041, "spec")], true, all, State::NoEffect, "No effect"),
        (vec![found(Code::SL1044, "spec")], true, all, State::Shadowed, "Shadowed"),
        // one shadowed rule does not shadow the policy
        (vec![found(Code::SL1044, "spec.ingress[0]")], true, all, State::Programmed, "Enforced 3/3"),
        (
            vec![
                found(Code::SL1041, "spec"),
                found(Code::SL2003, "spec.egress[0]"),
                found(Code::SL2101, "spec.http"),
            ],
            true,
            all,
            State::Rejected,
            "Enforced 3/3, not spec.egress[0]",
        ),
        (
            vec![found(Code::SL2101, "spec.egress[0].http")],
            true,
            some,
            State::Unsupported,
            "Programming 2/3, not spec.egress[0].http",
        ),
        (vec![found(Code::SL2012, "spec.subject")], false, all, State::Rejected, "Accepted, not enforced"),
        (vec![found(Code::SL3001, "spec")], true, all, State::Quarantined, "Accepted, not enforced"),
        (vec![found(Code::SL4001, "spec")], true, None, State::NotEvaluated, "Not evaluated"),
    ] {
        let worst = findings.iter().max_by_key(|f| f.state()).map(|f| f.code);
        let count = findings.len();
        let status = ObjectStatus::of(findings, has_effect, nodes);
        assert_eq!((status.state, status.to_string().as_str()), (state, shown));
        assert_eq!(status.reason.as_ref().map(|f| f.code), worst);
        assert_eq!(status.more.len(), count.saturating_sub(1));
        assert_eq!(
            status.in_force == InForce::Nothing,
            shown == "Accepted, not enforced" || shown == "Not evaluated"
        );
    }
}

/// The registry is sorted, without doubles, and every state can be reached by a code.
#[test]
fn the_registry_is_whole() {
    let names: Vec<&str> = Code::ALL.iter().map(|code| code.as_str()).collect();
    let mut sorted = names.clone();
    sorted.sort_unstable();
    sorted.dedup();
    assert_eq!(names, sorted);
    for state in State::ALL {
        assert!(Code::ALL.iter().any(|code| code.state() == state), "{state:?}");
    }
    assert!(State::ALL.is_sorted());
}
