//! ClusterNetworkPolicy (semantics 4), and AdminNetworkPolicy and BaselineAdminNetworkPolicy, which are read as it (8.1).
//!
//! What is not understood closes the whole rule: an Accept then matches nothing, a Deny or Pass denies everything at its
//! place. An object without a readable subject, tier or priority has no effect.

use std::sync::Arc;

use serde_json::Value;
use sluice_model::{
    Action, ClusterPeer, Direction, HostUse, Kind, Object, Order, Policy, Rule, RuleBody, Subject,
};
use sluice_report::{Code, Severity};
use sluice_selector::LabelSelector;

use super::calico_rule::deny_all;
use super::cluster_peer::{PeerContext, read_peer, read_pods, selector};
use super::cluster_port::read_port;
use super::{Reader, Unreadable};
use crate::field::{Field, shown};

/// The three APIs that write one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Dialect {
    /// ClusterNetworkPolicy, `v1alpha2`.
    Cluster,
    /// AdminNetworkPolicy, `v1alpha1`.
    Admin,
    /// BaselineAdminNetworkPolicy, `v1alpha1`.
    Baseline,
}

impl Dialect {
    fn of(kind: Kind) -> Dialect {
        match kind {
            Kind::AdminNetworkPolicy => Dialect::Admin,
            Kind::BaselineAdminNetworkPolicy => Dialect::Baseline,
            _ => Dialect::Cluster,
        }
    }

    /// How the API writes [`Action::Allow`].
    pub(super) fn allow(self) -> &'static str {
        match self {
            Dialect::Cluster => "Accept",
            Dialect::Admin | Dialect::Baseline => "Allow",
        }
    }

    /// How many rules, peers and ports the API takes in one list.
    fn limit(self) -> usize {
        match self {
            Dialect::Cluster => 25,
            Dialect::Admin | Dialect::Baseline => 100,
        }
    }

    /// The field that names protocols and ports.
    fn ports(self) -> &'static str {
        match self {
            Dialect::Cluster => "protocols",
            Dialect::Admin | Dialect::Baseline => "ports",
        }
    }
}

/// Reads the object; `None` if it has no effect (7.3).
pub(super) fn cluster_policy(reader: &mut Reader<'_>, root: &Field<'_>) -> Option<Object> {
    let dialect = Dialect::of(reader.key.kind);
    let spec = root.get("spec");
    if let Err(wrong) = spec.object() {
        reader.wrong_type(Code::SL2013, &wrong);
        return None;
    }
    if dialect != Dialect::Cluster {
        let hint = "write it as a ClusterNetworkPolicy, policy.networking.k8s.io/v1alpha2";
        reader.find(Code::SL2207, "kind", "superseded by ClusterNetworkPolicy", Some(hint));
    }
    let tier = tier(reader, &spec, dialect);
    let order = priority(reader, &spec, dialect);
    let subject = subject(reader, &spec.get("subject"));
    let ingress = rules(reader, &spec.get("ingress"), Direction::Ingress, dialect);
    let egress = rules(reader, &spec.get("egress"), Direction::Egress, dialect);
    Some(Object::Policy(Arc::new(Policy {
        key: reader.key.clone(),
        tier: tier?.into(),
        order: order?,
        subject: subject.ok()?,
        ingress,
        egress,
        host: HostUse::Normal,
        staged: None,
        position: reader.position(""),
    })))
}

fn tier(reader: &mut Reader<'_>, spec: &Field<'_>, dialect: Dialect) -> Option<&'static str> {
    let field = spec.get("tier");
    match (dialect, field.value.as_str()) {
        (Dialect::Admin, _) | (Dialect::Cluster, Some("Admin")) => Some("kube-admin"),
        (Dialect::Baseline, _) if &*reader.key.name != "default" => {
            let message = "the one BaselineAdminNetworkPolicy must be named default";
            reader.find(Code::SL2012, "metadata.name", message, Some("the policy has no effect"));
            None
        }
        (Dialect::Baseline, _) | (Dialect::Cluster, Some("Baseline")) => Some("kube-baseline"),
        (Dialect::Cluster, _) => {
            let message = format!("expected Admin or Baseline, found {}", shown(field.value));
            reader.find(Code::SL2012, &field.path, message, Some("the policy has no effect"));
            None
        }
    }
}

fn priority(reader: &mut Reader<'_>, spec: &Field<'_>, dialect: Dialect) -> Option<Order> {
    let field = spec.get("priority");
    let number = match dialect {
        Dialect::Baseline => Some(0), // the API has one object and no field
        Dialect::Cluster | Dialect::Admin => field.value.as_i64().filter(|n| (0..=1000).contains(n)),
    };
    if number.is_none() {
        let message = format!("expected 0 to 1000, found {}", shown(field.value));
        reader.find(Code::SL2012, &field.path, message, Some("the policy has no effect"));
    }
    number.map(|n| Order::new(Some(n as f64)))
}

fn subject(reader: &mut Reader<'_>, field: &Field<'_>) -> Result<Subject, Unreadable> {
    let unreadable = |reader: &mut Reader<'_>| {
        let hint = Some("the policy has no effect");
        reader.find(Code::SL2012, &field.path, "exactly one of namespaces, pods", hint);
        Unreadable
    };
    let Ok((name, member)) = one_member(field, &["namespaces", "pods"]) else {
        return Err(unreadable(reader));
    };
    match name {
        "namespaces" => {
            Ok(Subject::Cluster { namespaces: selector(reader, &member, Code::SL2012)?, pods: None })
        }
        _ => {
            let (namespaces, pods): (LabelSelector, _) = read_pods(reader, &member, Code::SL2012)?;
            Ok(Subject::Cluster { namespaces, pods: Some(pods) })
        }
    }
}

/// The rules of a direction; `None` without any, because such a policy does not touch the direction.
fn rules(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    direction: Direction,
    dialect: Dialect,
) -> Option<Vec<Rule>> {
    let items = match field.items() {
        Ok(items) => items,
        Err(wrong) => {
            reader.wrong_type(Code::SL2013, &wrong);
            return Some(vec![deny_all(reader, field)]);
        }
    };
    reader.over_limit(field, items.len(), dialect.limit());
    let rules: Vec<Rule> = items.iter().map(|item| rule(reader, item, direction, dialect)).collect();
    Some(rules).filter(|rules| !rules.is_empty())
}

fn rule(reader: &mut Reader<'_>, field: &Field<'_>, direction: Direction, dialect: Dialect) -> Rule {
    if !field.value.is_object() {
        reader.wrong_type(Code::SL2013, &field.wrong_type("an object"));
        return deny_all(reader, field);
    }
    let action = action(reader, &field.get("action"), dialect);
    let before = reader.findings.len();
    let body = body(reader, field, direction, dialect, action).unwrap_or(RuleBody::Unreadable);
    if body == RuleBody::Unreadable {
        let outcome = match action {
            Action::Allow | Action::Log => "; the rule matches nothing",
            Action::Deny | Action::Pass => "; the rule denies all traffic",
        };
        let why =
            reader.findings[before..].iter_mut().filter(|found| found.code.severity() == Severity::Error);
        why.for_each(|found| found.message.push_str(outcome));
    }
    Rule { action, body, reference: reader.rule_ref(&field.path) }
}

/// An action that is not known counts as Deny (4).
fn action(reader: &mut Reader<'_>, field: &Field<'_>, dialect: Dialect) -> Action {
    match field.value.as_str() {
        Some("Deny") => Action::Deny,
        Some("Pass") if dialect != Dialect::Baseline => Action::Pass,
        Some(text) if text == dialect.allow() => Action::Allow,
        _ => {
            let expected = match dialect {
                Dialect::Cluster => "Accept, Deny or Pass",
                Dialect::Admin => "Allow, Deny or Pass",
                Dialect::Baseline => "Allow or Deny",
            };
            let message = format!("expected {expected}, found {}: it counts as Deny", shown(field.value));
            reader.find(Code::SL2011, &field.path, message, None);
            Action::Deny
        }
    }
}

fn body(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    direction: Direction,
    dialect: Dialect,
    action: Action,
) -> Result<RuleBody, Unreadable> {
    let peers_name = match direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    let known = ["name", "action", peers_name, dialect.ports()];
    // every part is read, so that every problem is reported
    let members = known_members(reader, field, &known, Code::SL2011);
    let name = field.get("name");
    match name.text() {
        Ok(text) if text.is_some_and(|text| text.chars().count() > 100) => {
            let message = "more than 100 characters, which the API refuses";
            reader.find(Code::SL2206, &name.path, message, None);
        }
        Ok(_) => {}
        Err(wrong) => reader.find(Code::SL2206, &name.path, format!("{wrong}: the rule has no name"), None),
    }
    let context = PeerContext { direction, dialect, action };
    let from = field.get(peers_name);
    let peers = reader.list(&from, dialect.limit(), |reader, item| read_peer(reader, item, context));
    let peers = peers.and_then(|peers| match peers.is_empty() {
        false => Ok(peers),
        true => {
            reader.find(Code::SL2011, &from.path, "no peer: at least one is required", None);
            Err(Unreadable)
        }
    });
    let ports = field.get(dialect.ports());
    let protocols = reader.list(&ports, dialect.limit(), |reader, item| read_port(reader, item, dialect));
    let protocols = protocols.and_then(|list| match (ports.is_null(), list.is_empty(), dialect) {
        (true, ..) => Ok(None),
        (false, false, _) => Ok(Some(list)),
        (false, true, Dialect::Cluster) => {
            reader.find(
                Code::SL2011,
                &ports.path,
                "no protocol: leave the list out to mean every protocol",
                None,
            );
            Err(Unreadable)
        }
        // the API accepts the empty list here
        (false, true, Dialect::Admin | Dialect::Baseline) => {
            reader.find(Code::SL2206, &ports.path, "an empty list counts as not given: every protocol", None);
            Ok(None)
        }
    });
    members?;
    let (peers, protocols) = (peers?, protocols?);
    named_ports_have_pods(reader, &ports, &peers, protocols.as_deref())?;
    Ok(RuleBody::Cluster { peers, protocols })
}

/// Only pods have named ports (4).
fn named_ports_have_pods(
    reader: &mut Reader<'_>,
    ports: &Field<'_>,
    peers: &[ClusterPeer],
    protocols: Option<&[sluice_model::ClusterProtocol]>,
) -> Result<(), Unreadable> {
    let without = peers.iter().any(|peer| !matches!(peer, ClusterPeer::Pods { .. }));
    let named = |one: &sluice_model::ClusterProtocol| matches!(one, sluice_model::ClusterProtocol::Named(_));
    match protocols.unwrap_or_default().iter().position(named) {
        Some(at) if without => {
            let path = format!("{}[{at}]", ports.path);
            let message = "a named port beside networks, nodes or domainNames, which have none";
            reader.find(Code::SL2011, &path, message, Some("write two rules"));
            Err(Unreadable)
        }
        _ => Ok(()),
    }
}

/// What is wrong with a union of which one member must be set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NotOne {
    /// No member, or no object.
    None,
    /// A member that this version does not know.
    Unknown(String),
    /// More than one.
    Several,
}

/// The one member of a union that is set: null is not set.
pub(super) fn one_member<'a, 'k>(
    field: &Field<'a>,
    known: &[&'k str],
) -> Result<(&'k str, Field<'a>), NotOne> {
    let Value::Object(entries) = field.value else { return Err(NotOne::None) };
    let set: Vec<&str> =
        entries.iter().filter(|(_, value)| !value.is_null()).map(|(name, _)| name.as_str()).collect();
    if let Some(unknown) = set.iter().find(|name| !known.contains(name)) {
        return Err(NotOne::Unknown(unknown.chars().take(64).collect()));
    }
    match set.as_slice() {
        [] => Err(NotOne::None),
        [name] => {
            let known = known.iter().find(|one| *one == name).ok_or(NotOne::None)?;
            Ok((known, field.get(known)))
        }
        _ => Err(NotOne::Several),
    }
}

/// Reports members that are not known: a later version of the API may narrow what it means by them.
pub(super) fn known_members(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    known: &[&str],
    code: Code,
) -> Result<(), Unreadable> {
    let Value::Object(entries) = field.value else {
        reader.wrong_type(code, &field.wrong_type("an object"));
        return Err(Unreadable);
    };
    let mut outcome = Ok(());
    for (name, _) in
        entries.iter().filter(|(name, value)| !value.is_null() && !known.contains(&name.as_str()))
    {
        let shown: String = name.chars().take(64).collect();
        reader.find(code, &field.path, format!("unknown member {shown:?}"), None);
        outcome = Err(Unreadable);
    }
    outcome
}
