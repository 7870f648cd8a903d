//! Calico's policies, tiers and sets (semantics 3.1, 3.2, 3.6, 3.9).

use std::sync::Arc;

use serde_json::Value;
use sluice_addr::parse_host_or_cidr;
use sluice_model::{
    BUILT_IN_TIERS, Direction, HostUse, Kind, NetworkSet, Object, Order, Policy, Rule, StagedAction, Subject,
    Tier, TierDefault,
};
use sluice_report::Code;
use sluice_selector::{LabelSelector, Labels, Selector};

use super::calico_rule::read_rule;
use super::network_policy::{has_rules, read_cidr, type_name, written_types};
use super::{Reader, Unreadable};
use crate::field::{Field, shown};
use crate::kinds::{CALICO_STORED, Gvk};

/// Reads a GlobalNetworkPolicy or NetworkPolicy, enforced or staged; `None` if it has no effect (7.3).
pub(super) fn policy(reader: &mut Reader<'_>, root: &Field<'_>) -> Option<Object> {
    let spec = root.get("spec");
    if let Err(wrong) = spec.object() {
        reader.wrong_type(Code::SL2013, &wrong);
        return None;
    }
    let staged = staged(reader, &spec).ok()?;
    if staged == Some(StagedAction::Delete) {
        return deletion(reader, &spec);
    }
    let global = is_global(reader.key.kind);
    let subject = subject(reader, &spec, global);
    let types = types(reader, &spec, is_stored_raw(root));
    let host = if global { host_flags(reader, &spec, &types) } else { Ok(HostUse::Normal) };
    let (Ok(subject), Ok(host)) = (subject, host) else { return None };
    let mut rules = |direction: Direction| {
        let field = spec.get(rules_field(direction));
        if types.contains(&direction) {
            return Some(read_rules(reader, &field, direction));
        }
        if let Err(wrong) = field.items() {
            reader.wrong_type(Code::SL2013, &wrong);
        } else if has_rules(field.value) {
            let message = format!("types does not name {}: these rules have no effect", type_name(direction));
            reader.find(Code::SL1005, &field.path, message, Some("add it to types"));
        }
        None
    };
    let (ingress, egress) = (rules(Direction::Ingress), rules(Direction::Egress));
    let order = order(reader, &spec.get("order"));
    if ingress.iter().chain(&egress).all(Vec::is_empty) {
        let message = "a policy without rules decides nothing, at any order: it only makes the tier's default action \
                       apply to what it selects";
        let hint = "to deny, write rules with action: Deny, and an order below 1000 to stand before Kubernetes \
                    NetworkPolicies";
        reader.find(Code::SL1010, "spec", message, Some(hint));
    }
    let tier = tier_name(reader, &spec.get("tier"))?;
    Some(Object::Policy(Arc::new(Policy {
        key: reader.key.clone(),
        tier,
        order,
        subject,
        ingress,
        egress,
        host,
        staged,
        position: reader.position(""),
    })))
}

/// Whether the kind is of cluster scope: its policies select host endpoints too, and have no namespace of their own.
pub(super) fn is_global(kind: Kind) -> bool {
    matches!(kind, Kind::GlobalNetworkPolicy | Kind::StagedGlobalNetworkPolicy)
}

fn is_staged(kind: Kind) -> bool {
    matches!(
        kind,
        Kind::StagedGlobalNetworkPolicy | Kind::StagedNetworkPolicy | Kind::StagedKubernetesNetworkPolicy
    )
}

/// `stagedAction` of a staged kind (3.8). One that cannot be read leaves the object without effect.
pub(super) fn staged(reader: &mut Reader<'_>, spec: &Field<'_>) -> Result<Option<StagedAction>, Unreadable> {
    if !is_staged(reader.key.kind) {
        return Ok(None);
    }
    let field = spec.get("stagedAction");
    match field.value {
        Value::Null => Ok(Some(StagedAction::Set)),
        Value::String(text) if text == "Set" => Ok(Some(StagedAction::Set)),
        Value::String(text) if text == "Learn" => Ok(Some(StagedAction::Learn)),
        Value::String(text) if text == "Delete" => Ok(Some(StagedAction::Delete)),
        Value::String(text) if text == "Ignore" => Ok(Some(StagedAction::Ignore)),
        other => {
            let message = format!("expected Set, Delete, Learn or Ignore, found {}", shown(other));
            reader.find(Code::SL2013, &field.path, message, Some("the staged policy has no effect"));
            Err(Unreadable)
        }
    }
}

/// Fields of a staged Delete that its spec may have (3.8).
pub(crate) const DELETION_FIELDS: [&str; 2] = ["stagedAction", "tier"];

/// Whether a field of a staged policy's spec says nothing: the zero value of its own type, or null.
pub(crate) fn is_zero(field: &str, value: &Value) -> bool {
    match field {
        _ if value.is_null() => true,
        "podSelector" => value.as_object().is_some_and(|selector| selector.is_empty()),
        "ingress" | "egress" | "types" | "policyTypes" | "performanceHints" => {
            value.as_array().is_some_and(|items| items.is_empty())
        }
        "applyOnForward" | "doNotTrack" | "preDNAT" => value.as_bool() == Some(false),
        _ => value.as_str() == Some(""),
    }
}

/// A staged Delete: it names the enforced object and says nothing else (3.8).
pub(super) fn deletion(reader: &mut Reader<'_>, spec: &Field<'_>) -> Option<Object> {
    let fields = spec.value.as_object().into_iter().flatten();
    let more =
        fields.filter(|(name, value)| !DELETION_FIELDS.contains(&name.as_str()) && !is_zero(name, value));
    let more: Vec<&str> = more.map(|(name, _)| name.as_str()).collect();
    if let Some(first) = more.first() {
        let message = "spec fields, except tier, must be empty if stagedAction is Delete";
        let hint = Some("the staged policy has no effect");
        reader.find(Code::SL2009, &spec.get(first).path, message, hint);
        return None;
    }
    let kubernetes = reader.key.kind == Kind::StagedKubernetesNetworkPolicy;
    let subject = match kubernetes {
        true => Subject::Kubernetes(LabelSelector::all()),
        false => Subject::Calico {
            selector: Selector::default(),
            namespace_selector: None,
            service_account_selector: None,
        },
    };
    Some(Object::Policy(Arc::new(Policy {
        key: reader.key.clone(),
        tier: tier_name(reader, &spec.get("tier"))?,
        order: if kubernetes { Order::KUBERNETES } else { Order::LAST },
        subject,
        ingress: None,
        egress: None,
        host: HostUse::Normal,
        staged: Some(StagedAction::Delete),
        position: reader.position(""),
    })))
}

fn rules_field(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

/// Whether the object comes from Calico's storage, where the API's defaulting has not happened (3.2).
fn is_stored_raw(root: &Field<'_>) -> bool {
    Gvk::of(root.value).group == CALICO_STORED
        || root.at(&["metadata", "resourceVersion"]).nonempty().is_some()
}

fn subject(reader: &mut Reader<'_>, spec: &Field<'_>, global: bool) -> Result<Subject, Unreadable> {
    let selector = reader.selector(&spec.get("selector"));
    let namespaces = if global { reader.selector(&spec.get("namespaceSelector")) } else { Ok(None) };
    let accounts = reader.selector(&spec.get("serviceAccountSelector"));
    Ok(Subject::Calico {
        selector: selector?.unwrap_or_default(),
        namespace_selector: namespaces?,
        service_account_selector: accounts?,
    })
}

fn tier_name(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Arc<str>> {
    match field.text() {
        Ok(name) => Some(name.filter(|name| !name.is_empty()).unwrap_or("default").into()),
        Err(wrong) => {
            reader.wrong_type(Code::SL2012, &wrong);
            None
        }
    }
}

fn order(reader: &mut Reader<'_>, field: &Field<'_>) -> Order {
    if !field.is_null() && field.value.as_f64().is_none() {
        let wrong = field.wrong_type("a number");
        reader.find(Code::SL2012, &wrong.path, format!("{wrong}: read as last"), None);
    }
    Order::new(field.value.as_f64())
}

/// `types`, always with the API's defaulting, whatever way the object came (3.2).
fn types(reader: &mut Reader<'_>, spec: &Field<'_>, raw: bool) -> Vec<Direction> {
    let field = spec.get("types");
    if let Some(types) = written_types(reader, &field) {
        return types;
    }
    let types = defaulted_types(spec.get("ingress").value, spec.get("egress").value);
    if raw {
        let names: Vec<_> = types.iter().map(|direction| type_name(*direction)).collect();
        let message =
            format!("types defaulted to [{}]; a raw Calico object would be read as both", names.join(", "));
        reader.find(Code::SL2201, &field.path, message, Some("write types"));
    }
    types
}

/// The directions of a policy that names none: those it has rules for, or ingress if it has none (3.2).
pub(crate) fn defaulted_types(ingress: &Value, egress: &Value) -> Vec<Direction> {
    match (has_rules(ingress), has_rules(egress)) {
        (_, false) => vec![Direction::Ingress],
        (false, true) => vec![Direction::Egress],
        (true, true) => Direction::BOTH.to_vec(),
    }
}

/// `applyOnForward`, `preDNAT`, `doNotTrack`; combined wrongly the policy has no effect (7.3).
fn host_flags(reader: &mut Reader<'_>, spec: &Field<'_>, types: &[Direction]) -> Result<HostUse, Unreadable> {
    let mut read = |name: &str| {
        let field = spec.get(name);
        match field.value {
            Value::Null => Ok(false),
            Value::Bool(flag) => Ok(*flag),
            _ => {
                reader.wrong_type(Code::SL2009, &field.wrong_type("true or false"));
                Err(Unreadable)
            }
        }
    };
    let (forward, pre_dnat, no_track) = (read("applyOnForward"), read("preDNAT"), read("doNotTrack"));
    let (forward, pre_dnat, no_track) = (forward?, pre_dnat?, no_track?);
    let has_egress = spec.get("egress").value.as_array().is_some_and(|rules| !rules.is_empty());
    let problem = if pre_dnat && no_track {
        Some(("spec.preDNAT", "preDNAT and doNotTrack cannot both be true"))
    } else if pre_dnat && has_egress {
        Some(("spec.egress", "a preDNAT policy cannot have egress rules"))
    } else if pre_dnat && types.contains(&Direction::Egress) {
        Some(("spec.types", "a preDNAT policy cannot have type Egress"))
    } else if (pre_dnat || no_track) && !forward {
        Some(("spec.applyOnForward", "applyOnForward must be true with preDNAT or doNotTrack"))
    } else {
        None
    };
    match problem {
        Some((path, message)) => {
            reader.find(Code::SL2009, path, message, Some("the policy has no effect"));
            Err(Unreadable)
        }
        None if pre_dnat => Ok(HostUse::PreDnat),
        None if no_track => Ok(HostUse::Untracked),
        None if forward => Ok(HostUse::Forward),
        None => Ok(HostUse::Normal),
    }
}

fn read_rules(reader: &mut Reader<'_>, field: &Field<'_>, direction: Direction) -> Vec<Rule> {
    let items = match field.items() {
        Ok(items) => items,
        Err(wrong) => {
            // without rules the tier's default decides; a list that cannot be read must not leave it to that
            reader.wrong_type(Code::SL2013, &wrong);
            return vec![super::calico_rule::deny_all(reader, field)];
        }
    };
    reader.over_limit(field, items.len(), 1024);
    items.iter().map(|item| read_rule(reader, item, direction)).collect()
}

/// Reads a Tier; `None` if a part of it cannot be read (7.3).
pub(super) fn tier(reader: &mut Reader<'_>, root: &Field<'_>) -> Option<Object> {
    let spec = root.get("spec");
    let (order, action) = (spec.get("order"), spec.get("defaultAction"));
    if spec.object().is_err() || (!order.is_null() && order.value.as_f64().is_none()) {
        let wrong =
            if spec.object().is_err() { spec.wrong_type("an object") } else { order.wrong_type("a number") };
        reader.wrong_type(Code::SL2013, &wrong);
        return None;
    }
    let default_action = match action.value {
        Value::Null => TierDefault::Deny,
        Value::String(text) if text == "Deny" => TierDefault::Deny,
        Value::String(text) if text == "Pass" => TierDefault::Pass,
        other => {
            let message = format!("expected Deny or Pass, found {}", shown(other));
            reader.find(Code::SL2013, &action.path, message, None);
            return None;
        }
    };
    let tier =
        Tier { name: reader.key.name.clone(), order: Order::new(order.value.as_f64()), default_action };
    let built_in = BUILT_IN_TIERS.iter().find(|(name, ..)| *name == &*tier.name);
    let Some((name, order, default_action)) = built_in else { return Some(Object::Tier(tier)) };
    let fixed =
        Tier { name: (*name).into(), order: Order::new(Some(*order)), default_action: *default_action };
    if tier.order != fixed.order {
        let message = format!("{name} tier order must be {order}");
        reader.find(Code::SL2010, "spec.order", message, Some("the built-in value stays"));
    }
    if tier.default_action != fixed.default_action {
        let message = format!("{name} tier default action must be {default_action:?}");
        reader.find(Code::SL2010, "spec.defaultAction", message, Some("the built-in value stays"));
    }
    Some(Object::Tier(fixed))
}

/// The labels of a Calico object, with those that Calico keeps in an annotation of the stored one (API 3).
pub(super) fn stored_labels(reader: &mut Reader<'_>, root: &Field<'_>) -> Labels {
    let mut labels = reader.labels(root);
    for (key, value) in crate::admission::stored_labels(root.value) {
        labels = labels.with(key, value);
    }
    labels
}

/// Reads a NetworkSet or GlobalNetworkSet. A bad entry is left out: it never widens a rule (7.3).
pub(super) fn network_set(reader: &mut Reader<'_>, root: &Field<'_>) -> Object {
    let labels = stored_labels(reader, root);
    let spec = root.get("spec");
    if let Err(wrong) = spec.object() {
        reader.wrong_type(Code::SL2013, &wrong);
    }
    let nets = spec.get("nets");
    let items = nets.items().unwrap_or_else(|wrong| {
        reader.wrong_type(Code::SL2013, &wrong);
        Vec::new()
    });
    let nets = items.iter().filter_map(|item| read_cidr(reader, item, parse_host_or_cidr).ok()).collect();
    let (namespace, name) = (reader.key.namespace.clone(), reader.key.name.clone());
    Object::NetworkSet(NetworkSet { namespace, name, labels, nets })
}
