//! Staged policies and their preview: semantics 3.8.

use sluice_model::{Kind, StagedAction, World};

use crate::text::{check, expect, world};

const PODS: &str = "
    ns x
    pod x/a 10.0.0.1 pod=a
    pod x/b 10.0.0.2 pod=b
";

fn preview(objects: &str) -> World {
    world(&format!("{PODS}{objects}")).preview()
}

fn judge(world: &World, verdict: &str) {
    expect(world, &Default::default(), &format!("T80 x/a -> x/b: {verdict}"));
}

#[test]
fn set_and_learn_create_or_replace() {
    for action in ["staged", "staged=Set", "staged=Learn"] {
        judge(&preview(&format!("gnp p {action} I[deny]")), "DENY");
        judge(&preview(&format!("np x/p {action} I[deny]")), "DENY");
        // replaces the enforced object of that kind, namespace and name
        judge(&preview(&format!("gnp p I[deny]\n gnp p {action} I[allow]")), "ALLOW");
        judge(&preview(&format!("np x/p I[deny]\n np x/p {action} I[allow]")), "ALLOW");
        // and no other: not another kind, namespace or name
        judge(&preview(&format!("gnp p I[deny]\n np x/p {action} I[pass]")), "DENY");
        judge(&preview(&format!("gnp p I[deny]\n gnp q {action} I[allow]")), "DENY");
    }
    judge(&preview("knp x{b} I[pod=a] @name=p\n sknp x{b} I[] @action=Set @name=p"), "DENY");
    judge(&preview("knp x{b} I[] @name=p\n sknp x{b} I[pod=a] @action=Learn @name=p"), "ALLOW");
    // a Kubernetes policy is not replaced by a Calico one of the same name
    judge(&preview("knp x{b} I[] @name=p\n np x/p staged I[log]"), "DENY");
}

#[test]
fn delete_and_ignore() {
    judge(&preview("gnp p I[deny]\n gnp p staged=Delete I[]"), "ALLOW");
    judge(&preview("knp x{b} I[] @name=p\n sknp x{b} @action=Delete @name=p"), "ALLOW");
    judge(&preview("gnp p I[deny]\n gnp q staged=Delete I[]"), "DENY");
    judge(&preview("gnp p I[deny]\n gnp p staged=Ignore I[allow]"), "DENY");
    judge(&preview("gnp p staged=Ignore I[deny]"), "ALLOW");
}

#[test]
fn staged_policies_change_no_verdict_by_themselves() {
    check(
        &format!("{PODS} sknp x{{b}} I[] @name=p\n gnp q staged I[deny]\n np x/r staged=Delete I[]"),
        "T80 x/a -> x/b: ALLOW",
    );
    // the enforced object goes on
    check(&format!("{PODS} gnp p I[deny]\n gnp p staged=Delete I[]"), "T80 x/a -> x/b: DENY");
    // nor does a staged policy make its tier take part, known or not
    check(
        &format!("{PODS} tier t 5 Deny\n gnp p tier=t staged I[]\n gnp q tier=u staged I[]"),
        "T80 x/a -> x/b: ALLOW",
    );
}

#[test]
fn a_preview_holds_no_staged_policy_and_is_its_own_preview() {
    let world = preview("gnp p I[allow]\n gnp p staged I[deny]\n np x/q staged=Ignore I[deny]");
    assert_eq!(world.preview(), world);
    let kinds: Vec<Kind> = world.policies.keys().map(|key| key.kind).collect();
    assert_eq!(kinds, [Kind::GlobalNetworkPolicy]);
    let policy = world.policies.values().next().unwrap();
    assert_eq!(policy.staged, None::<StagedAction>);
    // its rules are still where they were written
    assert_eq!(policy.ingress.as_ref().unwrap()[0].reference.object.kind, Kind::StagedGlobalNetworkPolicy);
}
