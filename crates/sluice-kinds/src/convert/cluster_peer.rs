//! Peers of ClusterNetworkPolicies, and the selectors of their subjects (semantics 4).

use sluice_addr::Cidr;
use sluice_model::{Action, ClusterPeer, Direction, DomainPattern};
use sluice_report::Code;
use sluice_selector::LabelSelector;

use super::cluster_policy::{Dialect, NotOne, known_members, one_member};
use super::network_policy::read_cidr;
use super::{Reader, Unreadable};
use crate::field::{Field, shown};
use crate::names::is_domain_name;

/// What decides which peers a rule may have.
#[derive(Clone, Copy, Debug)]
pub(super) struct PeerContext {
    pub(super) direction: Direction,
    pub(super) dialect: Dialect,
    pub(super) action: Action,
}

/// How many entries `networks` and `domainNames` take.
const NETWORKS: usize = 25;

/// Reads one peer.
pub(super) fn read_peer(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    context: PeerContext,
) -> Result<ClusterPeer, Unreadable> {
    let known: &[&str] = match (context.direction, context.dialect) {
        (Direction::Ingress, _) => &["namespaces", "pods"],
        (Direction::Egress, Dialect::Cluster | Dialect::Admin) => {
            &["namespaces", "pods", "networks", "nodes", "domainNames"]
        }
        (Direction::Egress, Dialect::Baseline) => &["namespaces", "pods", "networks", "nodes"],
    };
    let (name, member) = one_member(field, known).map_err(|problem| {
        let message = match problem {
            NotOne::None => "no known peer type".to_owned(),
            NotOne::Unknown(name) => format!("unknown peer type {name:?}"),
            NotOne::Several => format!("exactly one of {} must be set", known.join(", ")),
        };
        reader.find(Code::SL2011, &field.path, message, None);
        Unreadable
    })?;
    match name {
        "namespaces" => {
            Ok(ClusterPeer::Pods { namespaces: selector(reader, &member, Code::SL2011)?, pods: None })
        }
        "pods" => {
            let (namespaces, pods) = read_pods(reader, &member, Code::SL2011)?;
            Ok(ClusterPeer::Pods { namespaces, pods: Some(pods) })
        }
        "networks" => {
            let cidr =
                |reader: &mut Reader<'_>, item: &Field<'_>| read_cidr(reader, item, str::parse::<Cidr>);
            Ok(ClusterPeer::Networks(entries(reader, &member, cidr)?))
        }
        "nodes" => Ok(ClusterPeer::Nodes(selector(reader, &member, Code::SL2011)?)),
        _ => {
            let names = entries(reader, &member, read_domain)?;
            if context.action != Action::Allow {
                let message = format!("domainNames is allowed only in {} rules", context.dialect.allow());
                reader.find(Code::SL2011, &member.path, message, None);
                return Err(Unreadable);
            }
            Ok(ClusterPeer::DomainNames(names))
        }
    }
}

/// The entries of `networks` or `domainNames`: one at least.
fn entries<T>(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    read: impl Fn(&mut Reader<'_>, &Field<'_>) -> Result<T, Unreadable>,
) -> Result<Vec<T>, Unreadable> {
    let items = field.items().map_err(|wrong| {
        reader.wrong_type(Code::SL2013, &wrong);
        Unreadable
    })?;
    if items.is_empty() {
        reader.find(Code::SL2011, &field.path, "the list is empty: at least one entry is required", None);
        return Err(Unreadable);
    }
    reader.over_limit(field, items.len(), NETWORKS);
    for (n, item) in items.iter().enumerate() {
        if items[..n].iter().any(|before| before.value == item.value) {
            reader.find(Code::SL2206, &item.path, "listed twice; it counts once", None);
        }
    }
    let read: Vec<_> = items.iter().map(|item| read(reader, item)).collect();
    read.into_iter().collect()
}

/// A domain name in the one form that answers are compared with: lower case, no final dot.
fn read_domain(reader: &mut Reader<'_>, field: &Field<'_>) -> Result<DomainPattern, Unreadable> {
    let text = field.value.as_str().unwrap_or_default();
    if !is_domain_name(text) {
        let hint = "write a name of two or more labels; *. may stand only before it";
        let message = format!("{} is no domain name", shown(field.value));
        reader.find(Code::SL2011, &field.path, message, Some(hint));
        return Err(Unreadable);
    }
    let lower = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    let (wildcard, name) = match lower.strip_prefix("*.") {
        Some(rest) => (true, rest),
        None => (false, lower.as_str()),
    };
    Ok(DomainPattern { name: name.into(), wildcard })
}

/// `pods`: the selector of namespaces, absent = all, and the selector of pods, which the API requires.
pub(super) fn read_pods(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    code: Code,
) -> Result<(LabelSelector, LabelSelector), Unreadable> {
    known_members(reader, field, &["namespaceSelector", "podSelector"], code)?;
    let (namespaces, pods) = (field.get("namespaceSelector"), field.get("podSelector"));
    if pods.is_null() {
        reader.find(code, &pods.path, "required: {} means every pod of the namespaces", None);
        return Err(Unreadable);
    }
    let all = || Ok(LabelSelector::all());
    let namespaces = if namespaces.is_null() { all() } else { selector(reader, &namespaces, code) };
    let pods = selector(reader, &pods, code);
    Ok((namespaces?, pods?))
}

/// A label selector without members that this version does not know.
pub(super) fn selector(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    code: Code,
) -> Result<LabelSelector, Unreadable> {
    known_members(reader, field, &["matchLabels", "matchExpressions"], code)?;
    reader.label_selector(field)
}
