//! Kubernetes NetworkPolicy (semantics 2), and Calico's staged form of it (3.8).

use std::sync::Arc;

use serde_json::Value;
use sluice_addr::{Cidr, PortRange, Protocol, has_host_bits};
use sluice_model::{
    Action, Direction, HostUse, KubernetesPeer, KubernetesPort, Object, Order, Policy, PortMatch, Rule,
    RuleBody, StagedAction, Subject,
};
use sluice_report::Code;

use super::{Reader, Unreadable};
use crate::field::{Field, shown};
use crate::names::port_name_problems;

/// Reads the object; `None` if its subject cannot be read, because any other reading would isolate pods that nobody
/// named (7.3).
pub(super) fn network_policy(reader: &mut Reader<'_>, root: &Field<'_>) -> Option<Object> {
    let spec = root.get("spec");
    if let Err(wrong) = spec.object() {
        reader.wrong_type(Code::SL2013, &wrong);
        return None;
    }
    let staged = super::calico::staged(reader, &spec).ok()?;
    if staged == Some(StagedAction::Delete) {
        return super::calico::deletion(reader, &spec);
    }
    let subject = reader.label_selector(&spec.get("podSelector")).ok()?;
    let types = policy_types(reader, &spec);
    let mut rules = |direction: Direction| {
        let field = spec.get(rules_field(direction));
        if types.contains(&direction) {
            return Some(read_rules(reader, &field, direction));
        }
        if let Err(wrong) = field.items() {
            reader.wrong_type(Code::SL2013, &wrong);
        } else if has_rules(field.value) {
            let message =
                format!("policyTypes does not name {}: these rules have no effect", type_name(direction));
            reader.find(Code::SL1005, &field.path, message, Some("add it to policyTypes"));
        }
        None
    };
    let (ingress, egress) = (rules(Direction::Ingress), rules(Direction::Egress));
    Some(Object::Policy(Arc::new(Policy {
        key: reader.key.clone(),
        tier: "default".into(),
        order: Order::KUBERNETES,
        subject: Subject::Kubernetes(subject),
        ingress,
        egress,
        host: HostUse::Normal,
        staged,
        position: reader.position(""),
    })))
}

fn rules_field(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress",
        Direction::Egress => "egress",
    }
}

/// A direction as `policyTypes` writes it.
pub(super) fn type_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "Ingress",
        Direction::Egress => "Egress",
    }
}

/// The directions of a `types` or `policyTypes` list that was written. Entries that cannot be read are dropped, and if
/// none is left it is both directions (7.3). `None` if the list is absent or empty.
pub(super) fn written_types(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Vec<Direction>> {
    let items = match field.items() {
        Ok(items) if items.is_empty() => return None,
        Ok(items) => items,
        Err(wrong) => {
            reader.wrong_type(Code::SL2013, &wrong);
            return Some(Direction::BOTH.to_vec());
        }
    };
    let mut types = Vec::new();
    for item in items {
        match item.value.as_str().and_then(|text| Direction::BOTH.into_iter().find(|d| type_name(*d) == text))
        {
            Some(direction) if types.contains(&direction) => {
                let message = format!("{} is listed twice; it counts once", type_name(direction));
                reader.find(Code::SL2206, &item.path, message, None);
            }
            Some(direction) => types.push(direction),
            None => {
                let message = format!("expected Ingress or Egress, found {}", shown(item.value));
                reader.find(
                    Code::SL2013,
                    &item.path,
                    message,
                    Some("the entry is dropped; without any, both count"),
                );
            }
        }
    }
    Some(if types.is_empty() { Direction::BOTH.to_vec() } else { types })
}

fn policy_types(reader: &mut Reader<'_>, spec: &Field<'_>) -> Vec<Direction> {
    let written = written_types(reader, &spec.get("policyTypes"));
    written.unwrap_or_else(|| match has_rules(spec.get("egress").value) {
        true => Direction::BOTH.to_vec(),
        false => vec![Direction::Ingress],
    })
}

/// Whether a list of rules has one. A list that cannot be read stands for rules: closed, not open.
pub(crate) fn has_rules(rules: &Value) -> bool {
    match rules {
        Value::Null => false,
        Value::Array(rules) => !rules.is_empty(),
        _ => true,
    }
}

fn read_rules(reader: &mut Reader<'_>, field: &Field<'_>, direction: Direction) -> Vec<Rule> {
    let items = field.items().unwrap_or_else(|wrong| {
        reader.wrong_type(Code::SL2013, &wrong);
        Vec::new()
    });
    items.iter().map(|item| read_rule(reader, item, direction)).collect()
}

fn read_rule(reader: &mut Reader<'_>, field: &Field<'_>, direction: Direction) -> Rule {
    let reference = reader.rule_ref(&field.path);
    let body = match field.value {
        // null is an empty rule in the API's decoder: it allows everything (2.2)
        Value::Null | Value::Object(_) => {
            if field.is_null() {
                let message = "null is read as the empty rule, which allows everything";
                reader.find(Code::SL2206, &field.path, message, Some("write {}"));
            }
            let peers = match direction {
                Direction::Ingress => "from",
                Direction::Egress => "to",
            };
            RuleBody::Kubernetes {
                ports: entries(reader, &field.get("ports"), read_port),
                peers: entries(reader, &field.get(peers), read_peer),
            }
        }
        _ => {
            reader.wrong_type(Code::SL2013, &field.wrong_type("an object"));
            RuleBody::Unreadable
        }
    };
    Rule { action: Action::Allow, body, reference }
}

/// The readable entries of `from`, `to` or `ports`; `None` if the list is absent or empty, which means everything. An
/// entry that cannot be read allows nothing, also if no other is left.
fn entries<T>(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    read: fn(&mut Reader<'_>, &Field<'_>) -> Result<T, Unreadable>,
) -> Option<Vec<T>> {
    match field.items() {
        Ok(items) if items.is_empty() => None,
        Ok(items) => Some(items.iter().filter_map(|item| read(reader, item).ok()).collect()),
        Err(wrong) => {
            reader.wrong_type(Code::SL2013, &wrong);
            Some(Vec::new())
        }
    }
}

fn read_peer(reader: &mut Reader<'_>, field: &Field<'_>) -> Result<KubernetesPeer, Unreadable> {
    if let Err(wrong) = field.object() {
        reader.wrong_type(Code::SL2001, &wrong);
        return Err(Unreadable);
    }
    let (block, pods, namespaces) =
        (field.get("ipBlock"), field.get("podSelector"), field.get("namespaceSelector"));
    let selects = !pods.is_null() || !namespaces.is_null();
    match (block.is_null(), selects) {
        (true, false) => {
            let hint = "podSelector: {} is every pod of the namespace; leave the list out to mean everyone";
            reader.find(Code::SL2001, &field.path, "must specify a peer", Some(hint));
            Err(Unreadable)
        }
        (false, true) => {
            let hint = "write two list items to mean either";
            reader.find(
                Code::SL2002,
                &field.path,
                "may not specify both ipBlock and another peer",
                Some(hint),
            );
            Err(Unreadable)
        }
        (false, false) => read_ip_block(reader, &block),
        (true, true) => {
            let mut read = |field: &Field<'_>| match field.is_null() {
                true => Ok(None),
                false => reader.label_selector(field).map(Some),
            };
            let (pods, namespaces) = (read(&pods), read(&namespaces));
            Ok(KubernetesPeer::Selectors { pods: pods?, namespaces: namespaces? })
        }
    }
}

fn read_ip_block(reader: &mut Reader<'_>, field: &Field<'_>) -> Result<KubernetesPeer, Unreadable> {
    let cidr = read_cidr(reader, &field.get("cidr"), |text| text.parse());
    let except = field.get("except").items().map_err(|wrong| {
        reader.wrong_type(Code::SL2004, &wrong);
        Unreadable
    });
    let cidr = cidr?;
    let mut read = Ok(Vec::new());
    for item in except? {
        let inner = read_cidr(reader, &item, |text| text.parse()).and_then(|inner| {
            if cidr.contains_cidr(inner) && cidr != inner {
                return Ok(inner);
            }
            let message = format!("{inner} must be a strict subset of cidr {cidr}");
            reader.find(Code::SL2004, &item.path, message, None);
            Err(Unreadable)
        });
        match (&mut read, inner) {
            (Ok(list), Ok(inner)) => list.push(inner),
            _ => read = Err(Unreadable),
        }
    }
    Ok(KubernetesPeer::IpBlock { cidr, except: read? })
}

/// A CIDR, with a warning where its spelling is normalised (2.2).
pub(super) fn read_cidr(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    parse: fn(&str) -> Result<Cidr, sluice_addr::AddrError>,
) -> Result<Cidr, Unreadable> {
    let text = match field.text() {
        Ok(text) => text.unwrap_or_default(),
        Err(wrong) => {
            reader.wrong_type(Code::SL2003, &wrong);
            return Err(Unreadable);
        }
    };
    let cidr = parse(text).map_err(|error| {
        let hint = sluice_addr::parse_ip(text).is_ok().then_some("a CIDR has a prefix length: 10.0.0.1/32");
        reader.find(Code::SL2003, &field.path, error.to_string(), hint);
        Unreadable
    })?;
    let respelled = match text.contains(':') {
        // an IPv6 address has many spellings of one meaning; only a change of family or of bits is noteworthy
        true => cidr.family() == sluice_addr::Family::V4,
        false => text.split('/').next() != Some(cidr.base().to_string().as_str()),
    };
    if respelled || has_host_bits(text) {
        reader.find(Code::SL2206, &field.path, format!("{text:?} is read as {cidr}"), None);
    }
    Ok(cidr)
}

fn read_port(reader: &mut Reader<'_>, field: &Field<'_>) -> Result<KubernetesPort, Unreadable> {
    if field.is_null() {
        let message = "null is read as the empty entry, which is every TCP port";
        reader.find(Code::SL2206, &field.path, message, Some("write {protocol: TCP}"));
    }
    let mut invalid = |path: &str, message: String, hint: Option<&str>| {
        reader.find(Code::SL2005, path, message, hint);
        Unreadable
    };
    field.object().map_err(|wrong| invalid(&wrong.path, wrong.to_string(), None))?;
    let protocol = field.get("protocol");
    let protocol = match protocol.value {
        Value::Null => Protocol::TCP,
        Value::String(text) if text == "TCP" => Protocol::TCP,
        Value::String(text) if text == "UDP" => Protocol::UDP,
        Value::String(text) if text == "SCTP" => Protocol::SCTP,
        other => {
            let message = format!("unknown protocol {}: use TCP, UDP or SCTP", shown(other));
            return Err(invalid(&protocol.path, message, None));
        }
    };
    let (port, end) = (field.get("port"), field.get("endPort"));
    let number =
        |field: &Field<'_>| field.value.as_i64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
    let port = match port.value {
        Value::Null if end.is_null() => PortMatch::Any,
        Value::Null => {
            return Err(invalid(
                &end.path,
                "endPort may not be specified when port is not specified".into(),
                None,
            ));
        }
        Value::String(_) if !end.is_null() => {
            return Err(invalid(
                &end.path,
                "endPort may not be specified when port is non-numeric".into(),
                None,
            ));
        }
        Value::String(name) => {
            if let Some(problem) = port_name_problems(name).first() {
                let numeric = name.bytes().all(|b| b.is_ascii_digit());
                let hint = numeric.then_some("a number must not be quoted");
                return Err(invalid(&port.path, format!("port name {}: {problem}", shown(port.value)), hint));
            }
            PortMatch::Named(name.as_str().into())
        }
        _ => {
            let Some(first) = number(&port) else {
                let message = format!("{}: must be between 1 and 65535, inclusive", shown(port.value));
                return Err(invalid(&port.path, message, None));
            };
            let last = match end.is_null() {
                true => Some(first),
                false => number(&end),
            };
            let range = last.and_then(|last| PortRange::new(first, last).ok());
            let Some(range) = range else {
                let message =
                    format!("endPort {}: must be a port that is not below {first}", shown(end.value));
                return Err(invalid(&end.path, message, None));
            };
            PortMatch::Range(range)
        }
    };
    Ok(KubernetesPort { protocol, port })
}
