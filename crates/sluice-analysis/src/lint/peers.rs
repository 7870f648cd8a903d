//! Peers that match nothing, or not what they look like (SL1011–SL1014, SL1016–SL1018, SL2204).

use sluice_addr::BitSet;
use sluice_model::{Action, ClusterPeer, EntityRule, KubernetesPeer, Policy, RuleBody};
use sluice_report::Code;
use sluice_selector::{LabelSelector, Selector};

use super::compiled::{cluster_peer, kubernetes_peer};
use super::spelling::{Unknown, calico_contradiction, calico_unknown, contradiction, unknown};
use super::{Found, Lint, RuleAt, names, toward};

pub(super) fn find(lint: &mut Lint<'_>) {
    let mut found = Vec::new();
    for at in lint.rules() {
        let policy = lint.policies[at.policy].policy;
        match &at.rule.rule.body {
            RuleBody::Kubernetes { peers: Some(peers), .. } => {
                kubernetes(lint, &at, policy, peers, &mut found);
            }
            RuleBody::Cluster { peers, .. } => cluster(lint, &at, peers, &mut found),
            RuleBody::Calico(rule) => {
                for (field, side) in [("source", &rule.source), ("destination", &rule.destination)] {
                    calico(lint, &at, field, side, &mut found);
                }
            }
            RuleBody::Kubernetes { peers: None, .. } | RuleBody::Unreadable => {}
        }
    }
    lint.extend(found);
}

fn kubernetes(
    lint: &Lint<'_>,
    at: &RuleAt<'_, '_>,
    policy: &Policy,
    peers: &[KubernetesPeer],
    found: &mut Vec<Found>,
) {
    let list = at.peers_field();
    for (number, peer) in peers.iter().enumerate() {
        let field = format!("{list}[{number}]");
        let KubernetesPeer::Selectors { pods, namespaces } = peer else { continue };
        if let Some(one) = selectors(lint, at, &field, policy, pods.as_ref(), namespaces.as_ref()) {
            found.push(one);
        }
        found.extend(namespaces.as_ref().and_then(|selector| imitation(lint, at, &field, selector)));
    }
    for (number, pair) in peers.windows(2).enumerate() {
        found.extend(extra_dash(lint, at, policy, list, number, pair));
    }
}

/// One peer of selectors: why it matches nothing, if so. The most telling reason is told.
fn selectors(
    lint: &Lint<'_>,
    at: &RuleAt<'_, '_>,
    field: &str,
    policy: &Policy,
    pods: Option<&LabelSelector>,
    namespaces: Option<&LabelSelector>,
) -> Option<Found> {
    for (name, selector) in [("podSelector", pods), ("namespaceSelector", namespaces)] {
        if let Some(why) = selector.and_then(contradiction) {
            let message = format!("the peer can match no pod, present or future: {why}");
            let hint = "take one of the conditions out";
            return Some(at.found(Code::SL1014, &format!("{field}.{name}"), message, hint));
        }
    }
    if !lint.judges_presence {
        return None;
    }
    let own = &policy.key.namespace;
    let present = &lint.present;
    if !present.labelled(own, namespaces, pods).is_empty() {
        return None;
    }
    if let (Some(pods), None) = (pods, namespaces) {
        let elsewhere = present.pods.matching(pods);
        if !elsewhere.is_empty() {
            let message = format!(
                "podSelector alone looks in namespace {own:?} only, where no pod matches; elsewhere it would match {}",
                present.describe(&elsewhere)
            );
            let hint = "add a namespaceSelector to the same peer (without a dash before it)";
            return Some(at.found(Code::SL1011, field, message, hint));
        }
    }
    if let Some((name, absent)) = namespaces.and_then(|selector| names::absent_namespace(lint, selector)) {
        let field = format!("{field}.namespaceSelector");
        let message = format!("namespace {absent:?} does not exist: {name} matches nothing now");
        return Some(at.found(Code::SL2204, &field, message, "check the namespace's name"));
    }
    let unknown = namespaces
        .and_then(|selector| unknown(selector, &present.namespaces, "namespace with pods"))
        .or_else(|| unknown(pods?, &present.pods, "pod"));
    Some(nothing(at, field, "the peer", unknown))
}

/// SL1016 where a label is nearly right, else SL1018.
fn nothing(at: &RuleAt<'_, '_>, field: &str, what: &str, unknown: Option<Unknown>) -> Found {
    match unknown {
        Some(Unknown { sentence, nearly: Some(nearly) }) => {
            let message = format!("{what} matches no pod now: {sentence}");
            at.found(Code::SL1016, field, message, &format!("did you mean {nearly:?}?"))
        }
        Some(Unknown { sentence, nearly: None }) => {
            at.found(Code::SL1018, field, format!("{what} matches nothing now: {sentence}"), "")
        }
        None => at.found(Code::SL1018, field, format!("{what} matches nothing now"), ""),
    }
}

/// Two list items of which one has only a namespaceSelector and the other only a podSelector: perhaps meant as one.
fn extra_dash(
    lint: &Lint<'_>,
    at: &RuleAt<'_, '_>,
    policy: &Policy,
    list: &str,
    number: usize,
    pair: &[KubernetesPeer],
) -> Option<Found> {
    let (pods, namespaces) = match pair {
        [
            KubernetesPeer::Selectors { pods: Some(pods), namespaces: None },
            KubernetesPeer::Selectors { pods: None, namespaces: Some(namespaces) },
        ]
        | [
            KubernetesPeer::Selectors { pods: None, namespaces: Some(namespaces) },
            KubernetesPeer::Selectors { pods: Some(pods), namespaces: None },
        ] => (pods, namespaces),
        _ => return None,
    };
    // `{}` would add nothing as part of one peer, so nobody means it so
    if pods.is_all() {
        return None;
    }
    let present = &lint.present;
    let either = pair.iter().fold(BitSet::new(), |all, peer| {
        all.or(&kubernetes_peer(present, policy, at.rule.rule.action, peer))
    });
    let both = present.labelled(&policy.key.namespace, Some(namespaces), Some(pods));
    let counts = match lint.judges_presence {
        true => format!(
            ": {} now; as one peer they would match {}",
            present.describe(&either),
            present.count_pods(&both)
        ),
        false => String::new(),
    };
    let message = format!(
        "two peers: every pod of the selected namespaces, and every pod of namespace {:?} that podSelector matches{counts}",
        policy.key.namespace
    );
    let hint = "if both conditions should hold, take out the dash before the second selector";
    Some(at.found(Code::SL1012, &format!("{list}[{}]", number + 1), message, hint))
}

/// A namespace label whose value is the namespace's name, but which anybody who may label the namespace can set (SL1017).
fn imitation(lint: &Lint<'_>, at: &RuleAt<'_, '_>, field: &str, selector: &LabelSelector) -> Option<Found> {
    if at.rule.rule.action != Action::Allow {
        return None;
    }
    let (key, value) = selector.match_labels.iter().find(|(key, value)| {
        !key.ends_with("kubernetes.io/metadata.name") && lint.world.namespaces.contains_key(*value)
    })?;
    let mut labelled = lint.world.namespaces.values().filter(|n| n.labels.get(key) == Some(&**value));
    if !labelled.all(|namespace| namespace.name == *value) {
        return None;
    }
    let message = format!(
        "label {key:?} stands for the name of namespace {value:?}, but whoever may label a namespace can set it on another"
    );
    let hint = format!("select kubernetes.io/metadata.name: {value}, which the API server sets");
    Some(at.found(Code::SL1017, &format!("{field}.namespaceSelector"), message, &hint))
}

fn cluster(lint: &Lint<'_>, at: &RuleAt<'_, '_>, peers: &[ClusterPeer], found: &mut Vec<Found>) {
    for (number, peer) in peers.iter().enumerate() {
        let field = format!("{}[{number}]", at.peers_field());
        let unknown = match peer {
            ClusterPeer::Pods { namespaces, pods } => {
                for selector in [Some(namespaces), pods.as_ref()].into_iter().flatten() {
                    if let Some(why) = contradiction(selector) {
                        let message = format!("the peer can match no pod, present or future: {why}");
                        found.push(at.found(Code::SL1014, &field, message, "take one of the conditions out"));
                    }
                }
                if let Some((name, absent)) = names::absent_namespace(lint, namespaces) {
                    let message = format!("namespace {absent:?} does not exist: {name} matches nothing now");
                    found.push(at.found(Code::SL2204, &field, message, "check the namespace's name"));
                    continue;
                }
                found.extend(imitation(lint, at, &field, namespaces));
                unknown(namespaces, &lint.present.namespaces, "namespace with pods")
                    .or_else(|| unknown(pods.as_ref()?, &lint.present.pods, "pod"))
            }
            ClusterPeer::Networks(_) | ClusterPeer::Nodes(_) => None,
            // what names resolve to is not known before somebody asks
            ClusterPeer::DomainNames(_) => continue,
        };
        let needs = match peer {
            ClusterPeer::Nodes(_) => !lint.world.nodes.is_empty(),
            _ => lint.judges_presence,
        };
        if needs && cluster_peer(&lint.present, at.rule.rule.action, peer).is_empty() {
            found.push(nothing(at, &field, "the peer", unknown));
        }
    }
}

/// One side of a Calico rule.
fn calico(lint: &Lint<'_>, at: &RuleAt<'_, '_>, field: &str, side: &EntityRule, found: &mut Vec<Found>) {
    let policy = lint.policies[at.policy].policy;
    if let Some(why) = side.selector.as_ref().and_then(calico_contradiction) {
        let message = format!("the selector can match nothing, present or future: {why}");
        let path = format!("{field}.selector");
        found.push(at.found(Code::SL1014, &path, message, "take one of the conditions out"));
        return;
    }
    let has_selector =
        side.selector.is_some() || side.namespace_selector.is_some() || side.service_accounts.is_some();
    if !lint.judges_presence || !has_selector || side.service.is_some() {
        return;
    }
    if !lint.present.side(policy, at.rule.rule.action, side).is_empty() {
        return;
    }
    if names::find_in_side(lint, at, field, side, found) {
        return;
    }
    let in_namespaces = || match side.namespace_selector.as_ref()? {
        sluice_model::NamespaceScope::Global => None,
        sluice_model::NamespaceScope::Matching(selector) => {
            calico_unknown(&selector.with_key_prefix("pcns."), &lint.present.calico, "pod")
        }
    };
    let unknown = side
        .selector
        .as_ref()
        .filter(|selector| **selector != Selector::All)
        .and_then(|selector| calico_unknown(selector, &lint.present.calico, "pod"))
        .or_else(in_namespaces);
    let what = format!("the rule's {field} ({})", toward(at.direction));
    found.push(nothing(at, field, &what, unknown));
}
