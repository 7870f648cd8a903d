//! One rule of a Calico policy (semantics 3.4, 3.5). A criterion that cannot be read makes the whole rule unreadable:
//! dropping it would widen the rule.

use std::sync::Arc;

use serde_json::Value;
use sluice_addr::{Cidr, Family, PortRange, Protocol, parse_host_or_cidr};
use sluice_model::{
    Action, CalicoRule, Direction, EntityRule, IcmpMatch, NamespaceScope, PortMatch, Rule, RuleBody,
    ServiceAccountMatch,
};
use sluice_report::Code;
use sluice_selector::Selector;

use super::network_policy::read_cidr;
use super::{Reader, Unreadable};
use crate::field::{Field, shown};

/// Reads one rule of a direction.
pub(super) fn read_rule(reader: &mut Reader<'_>, field: &Field<'_>, direction: Direction) -> Rule {
    if !field.value.is_object() {
        reader.wrong_type(Code::SL2013, &field.wrong_type("an object"));
        return deny_all(reader, field);
    }
    let action = match field.get("action").value.as_str() {
        Some("Allow") => Action::Allow,
        Some("Deny") => Action::Deny,
        Some("Pass") => Action::Pass,
        Some("Log") => {
            let message = "evaluation goes on as Log says, but this version writes no log record";
            reader.find(Code::SL2206, &field.get("action").path, message, None);
            Action::Log
        }
        _ => {
            let action = field.get("action");
            let message = format!("expected Allow, Deny, Log or Pass, found {}", shown(action.value));
            reader.find(Code::SL2013, &action.path, message, Some("the rule denies everything"));
            return deny_all(reader, field);
        }
    };
    let http = field.get("http");
    if !http.is_null() {
        let outcome = match action {
            Action::Allow | Action::Log => "matches nothing",
            Action::Deny | Action::Pass => "denies all traffic",
        };
        let message = format!("HTTP match is not enforced; the rule {outcome}");
        reader.find(Code::SL2101, &http.path, message, Some("match ports, and leave HTTP to a proxy"));
    }
    read_annotations(reader, &field.get("metadata"));
    let body = match read_body(reader, field, direction) {
        Ok(rule) => RuleBody::Calico(Box::new(rule)),
        Err(Unreadable) => RuleBody::Unreadable,
    };
    Rule { action, body, reference: reader.rule_ref(&field.path) }
}

/// Annotations of a rule match nothing (3.4): one that cannot be read costs only itself.
fn read_annotations(reader: &mut Reader<'_>, metadata: &Field<'_>) {
    let annotations = metadata.get("annotations");
    let entries = metadata.object().and_then(|()| annotations.entries());
    let wrong: Vec<_> = match entries {
        Ok(entries) => entries
            .iter()
            .filter(|(_, value)| !value.value.is_string())
            .map(|(_, value)| value.wrong_type("a string"))
            .collect(),
        Err(wrong) => vec![wrong],
    };
    for wrong in wrong {
        reader.find(Code::SL2206, &wrong.path, format!("{wrong}: it is left out"), None);
    }
}

/// The rule that stands for one whose action is not known.
pub(super) fn deny_all(reader: &Reader<'_>, field: &Field<'_>) -> Rule {
    Rule { action: Action::Deny, body: RuleBody::Unreadable, reference: reader.rule_ref(&field.path) }
}

fn read_body(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    direction: Direction,
) -> Result<CalicoRule, Unreadable> {
    // every criterion is read, so that every problem is reported
    let ip_version = ip_version(reader, &field.get("ipVersion"));
    let protocol = protocol(reader, &field.get("protocol"));
    let not_protocol = self::protocol(reader, &field.get("notProtocol"));
    let icmp = icmp(reader, &field.get("icmp"), protocol);
    let not_icmp = self::icmp(reader, &field.get("notICMP"), protocol);
    let source = entity(reader, &field.get("source"), protocol, direction == Direction::Ingress);
    let destination = entity(reader, &field.get("destination"), protocol, direction == Direction::Egress);
    let rule = CalicoRule {
        ip_version: ip_version?,
        protocol: protocol?,
        not_protocol: not_protocol?,
        icmp: icmp?,
        not_icmp: not_icmp?,
        source: source?,
        destination: destination?,
    };
    family_conflict(reader, field, &rule)?;
    let ported = [&rule.source, &rule.destination].iter().any(|side| side.service.is_some())
        && !rule.destination.ports.is_empty()
        && direction == Direction::Egress;
    if ported {
        let message = "cannot specify ports with a service selector";
        reader.find(Code::SL2009, &field.at(&["destination", "ports"]).path, message, None);
        return Err(Unreadable);
    }
    // semantics 3.4: an HTTP criterion that is not matched must not widen the rule
    if field.get("http").is_null() { Ok(rule) } else { Err(Unreadable) }
}

/// Protocol against `ipVersion` (SL2008), and families that exclude each other (SL2206).
fn family_conflict(reader: &mut Reader<'_>, field: &Field<'_>, rule: &CalicoRule) -> Result<(), Unreadable> {
    for (name, protocol) in [("protocol", rule.protocol), ("notProtocol", rule.not_protocol)] {
        let wanted = match protocol {
            Some(Protocol::ICMP) => Family::V4,
            Some(Protocol::ICMPV6) => Family::V6,
            _ => continue,
        };
        if rule.ip_version.is_some_and(|family| family != wanted) {
            let message =
                format!("{name} {} needs ipVersion {}", protocol.unwrap_or(Protocol::ICMP), wanted.version());
            reader.find(Code::SL2008, &field.get("ipVersion").path, message, None);
            return Err(Unreadable);
        }
    }
    let lists =
        [&rule.source.nets, &rule.source.not_nets, &rule.destination.nets, &rule.destination.not_nets];
    let mut families = lists.into_iter().flatten().map(|cidr| cidr.family());
    let first = families.next();
    if families.any(|family| Some(family) != first) {
        let message = "CIDRs of both families in one rule: a list without a CIDR of the packet's family matches nothing";
        reader.find(Code::SL2206, &field.path, message, Some("write one rule per family"));
    }
    let implied = match rule.protocol {
        Some(Protocol::ICMP) => Some(Family::V4),
        Some(Protocol::ICMPV6) => Some(Family::V6),
        _ => None,
    };
    let named = [
        ("source.nets", &rule.source.nets),
        ("source.notNets", &rule.source.not_nets),
        ("destination.nets", &rule.destination.nets),
        ("destination.notNets", &rule.destination.not_nets),
    ];
    if let Some(family) = rule.ip_version.or(implied) {
        for (name, list) in named {
            if !list.is_empty() && list.iter().all(|cidr| cidr.family() != family) {
                let message = format!("no CIDR of the rule's family {family}: the rule matches nothing");
                reader.find(Code::SL2206, &format!("{}.{name}", field.path), message, None);
            }
        }
    }
    Ok(())
}

fn ip_version(reader: &mut Reader<'_>, field: &Field<'_>) -> Result<Option<Family>, Unreadable> {
    match field.value {
        Value::Null => Ok(None),
        Value::Number(n) if n.as_i64() == Some(4) => Ok(Some(Family::V4)),
        Value::Number(n) if n.as_i64() == Some(6) => Ok(Some(Family::V6)),
        other => {
            reader.find(Code::SL2008, &field.path, format!("expected 4 or 6, found {}", shown(other)), None);
            Err(Unreadable)
        }
    }
}

fn protocol(reader: &mut Reader<'_>, field: &Field<'_>) -> Result<Option<Protocol>, Unreadable> {
    let read = match field.value {
        Value::Null => return Ok(None),
        Value::String(text) => text.parse().ok(),
        Value::Number(n) => n.as_u64().and_then(|n| u8::try_from(n).ok()).filter(|n| *n > 0).map(Protocol),
        _ => None,
    };
    read.map(Some).ok_or_else(|| {
        let message = format!(
            "unknown protocol {}: use TCP, UDP, SCTP, UDPLite, ICMP, ICMPv6 or 1-255",
            shown(field.value)
        );
        reader.find(Code::SL2005, &field.path, message, None);
        Unreadable
    })
}

type ReadProtocol = Result<Option<Protocol>, Unreadable>;

fn icmp(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    protocol: ReadProtocol,
) -> Result<Option<IcmpMatch>, Unreadable> {
    if field.is_null() {
        return Ok(None);
    }
    let name = field.path.rsplit('.').next().unwrap_or_default().to_owned();
    let mut invalid = |path: &str, message: String| {
        reader.find(Code::SL2008, path, message, None);
        Unreadable
    };
    field.object().map_err(|wrong| invalid(&wrong.path, wrong.to_string()))?;
    if matches!(protocol, Ok(protocol) if !protocol.is_some_and(Protocol::is_icmp)) {
        return Err(invalid(&field.path, format!("{name} requires protocol ICMP or ICMPv6")));
    }
    let mut byte = |part: &str| {
        let part = field.get(part);
        match part.value {
            Value::Null => Ok(None),
            other => match other.as_u64().and_then(|n| u8::try_from(n).ok()) {
                Some(n) => Ok(Some(n)),
                None => Err(invalid(&part.path, format!("expected 0 to 255, found {}", shown(other)))),
            },
        }
    };
    let (type_, code) = (byte("type"), byte("code"));
    match (type_?, code?) {
        (Some(type_), code) => Ok(Some(IcmpMatch { type_, code })),
        (None, Some(_)) => Err(invalid(&field.path, "code needs type".to_owned())),
        (None, None) => {
            reader.find(Code::SL2206, &field.path, format!("{name} is empty and counts as not given"), None);
            Ok(None)
        }
    }
}

/// One side of a rule. `services_allowed` is true for ingress `source` and egress `destination` (3.4).
fn entity(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    protocol: ReadProtocol,
    services_allowed: bool,
) -> Result<EntityRule, Unreadable> {
    if let Err(wrong) = field.object() {
        reader.wrong_type(Code::SL2013, &wrong);
        return Err(Unreadable);
    }
    let nets = nets(reader, &field.get("nets"));
    let not_nets = self::nets(reader, &field.get("notNets"));
    let selector = criterion(reader, &field.get("selector"), Selector::parse);
    let not_selector = criterion(reader, &field.get("notSelector"), Selector::parse);
    let namespaces = criterion(reader, &field.get("namespaceSelector"), Selector::parse_namespace_selector);
    let service_accounts = service_accounts(reader, &field.get("serviceAccounts"));
    let ports = ports(reader, &field.get("ports"), protocol);
    let not_ports = self::ports(reader, &field.get("notPorts"), protocol);
    let service = service(reader, field, services_allowed);
    Ok(EntityRule {
        nets: nets?,
        not_nets: not_nets?,
        selector: selector?,
        not_selector: not_selector?,
        namespace_selector: namespaces?.map(|selector| match selector {
            Selector::Global => NamespaceScope::Global,
            matching => NamespaceScope::Matching(matching),
        }),
        service_accounts: service_accounts?,
        ports: ports?,
        not_ports: not_ports?,
        service: service?,
    })
}

/// A selector criterion; one that is written but empty counts as not given.
fn criterion(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    parse: fn(&str) -> Result<Selector, sluice_selector::SelectorError>,
) -> Result<Option<Selector>, Unreadable> {
    if field.value.as_str() == Some("") {
        reader.find(Code::SL2206, &field.path, "an empty selector counts as not given", Some("write all()"));
    }
    reader.selector_with(field, parse)
}

fn nets(reader: &mut Reader<'_>, field: &Field<'_>) -> Result<Vec<Cidr>, Unreadable> {
    list(reader, field, 256, |reader, item| read_cidr(reader, item, parse_host_or_cidr))
}

/// As [`Reader::list`]; in Calico's kinds an empty list is none.
fn list<T>(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    accepted: usize,
    read: impl FnMut(&mut Reader<'_>, &Field<'_>) -> Result<T, Unreadable>,
) -> Result<Vec<T>, Unreadable> {
    let all = reader.list(field, accepted, read)?;
    if all.is_empty() && !field.is_null() {
        reader.find(Code::SL2206, &field.path, "an empty list counts as not given", None);
    }
    Ok(all)
}

fn service_accounts(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
) -> Result<Option<ServiceAccountMatch>, Unreadable> {
    if field.is_null() {
        return Ok(None);
    }
    if let Err(wrong) = field.object() {
        reader.wrong_type(Code::SL2013, &wrong);
        return Err(Unreadable);
    }
    let names = list(reader, &field.get("names"), usize::MAX, |reader, item| match item.text() {
        Ok(Some(name)) => Ok(Arc::<str>::from(name)),
        Ok(None) => {
            reader.find(Code::SL2013, &item.path, "expected a string, found null", None);
            Err(Unreadable)
        }
        Err(wrong) => {
            reader.wrong_type(Code::SL2013, &wrong);
            Err(Unreadable)
        }
    });
    let selector = criterion(reader, &field.get("selector"), Selector::parse);
    let found = ServiceAccountMatch { names: names?, selector: selector? };
    if found.names.is_empty() && found.selector.is_none() {
        let message = "serviceAccounts has neither names nor selector and counts as not given";
        reader.find(Code::SL2206, &field.path, message, None);
        return Ok(None);
    }
    Ok(Some(found))
}

fn ports(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    protocol: ReadProtocol,
) -> Result<Vec<PortMatch>, Unreadable> {
    let ports = list(reader, field, 50, read_port)?;
    // a protocol that cannot be read has its own finding
    let (false, Ok(protocol)) = (ports.is_empty(), protocol) else { return Ok(ports) };
    let numeric = ports.iter().any(|port| matches!(port, PortMatch::Range(_)));
    let numbers_allowed = matches!(protocol, Some(Protocol::TCP | Protocol::UDP | Protocol::SCTP));
    if numeric && !numbers_allowed {
        let message = "rules with numeric ports must set protocol to TCP, UDP or SCTP";
        reader.find(Code::SL2007, &field.path, message, Some("add protocol: TCP to the rule"));
        return Err(Unreadable);
    }
    if let Some(protocol) = protocol
        && !protocol.has_ports()
    {
        reader.find(Code::SL2007, &field.path, format!("protocol {protocol} has no ports"), None);
        return Err(Unreadable);
    }
    Ok(ports)
}

/// A number, `"lo:hi"`, or a name.
fn read_port(reader: &mut Reader<'_>, field: &Field<'_>) -> Result<PortMatch, Unreadable> {
    let port = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0 && text.len() <= 5);
    let is_name = |text: &str| {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        (1..=128).contains(&text.len()) && text.bytes().all(allowed)
    };
    let read = match field.value {
        Value::Number(n) => n
            .as_u64()
            .and_then(|n| u16::try_from(n).ok())
            .filter(|n| *n > 0)
            .map(|n| PortMatch::Range(n.into())),
        Value::String(text) => match text.split_once(':') {
            Some((first, last)) => match (port(first), port(last)) {
                (Some(first), Some(last)) => PortRange::new(first, last).ok().map(PortMatch::Range),
                _ => None,
            },
            None if text.bytes().all(|b| b.is_ascii_digit()) => {
                port(text).map(|n| PortMatch::Range(n.into()))
            }
            None if is_name(text) => Some(PortMatch::Named(text.as_str().into())),
            None => None,
        },
        _ => None,
    };
    read.ok_or_else(|| {
        let message = format!("expected 1 to 65535, \"lo:hi\" or a port name, found {}", shown(field.value));
        reader.find(Code::SL2005, &field.path, message, None);
        Unreadable
    })
}

/// Namespace and name of a Service.
type ServiceName = (Arc<str>, Arc<str>);

/// `services` of one side, which excludes most other criteria of it (3.9).
fn service(
    reader: &mut Reader<'_>,
    side: &Field<'_>,
    allowed: bool,
) -> Result<Option<ServiceName>, Unreadable> {
    let field = side.get("services");
    if field.is_null() {
        return Ok(None);
    }
    let excluded = ["selector", "notSelector", "namespaceSelector", "serviceAccounts", "nets", "notNets"];
    let written = |name: &&str| match side.get(name).value {
        Value::Null => false,
        Value::String(text) => !text.is_empty(),
        Value::Array(items) => !items.is_empty(),
        _ => true,
    };
    let global = super::calico::is_global(reader.key.kind);
    let (name, namespace) = (field.get("name").nonempty(), field.get("namespace").nonempty());
    let message = if field.object().is_err() {
        field.wrong_type("an object").to_string()
    } else if let Err(wrong) = field.get("namespace").text() {
        // the policy's own namespace would be another Service
        format!("namespace: {wrong}")
    } else if !allowed {
        "services is allowed only in the source of ingress and the destination of egress rules".to_owned()
    } else if name.is_none() {
        "must specify a service name".to_owned()
    } else if global && namespace.is_none() {
        "a GlobalNetworkPolicy must specify the service's namespace".to_owned()
    } else if let Some(other) = excluded.iter().find(|name| written(name)) {
        format!("cannot specify {other} and services on the same side of a rule")
    } else if written(&"notPorts") && side.path.ends_with("destination") {
        "cannot specify notPorts with a service selector".to_owned()
    } else {
        let namespace = namespace.map_or_else(|| reader.key.namespace.clone(), Arc::from);
        return Ok(Some((namespace, name.unwrap_or_default().into())));
    };
    reader.find(Code::SL2009, &field.path, message, None);
    Err(Unreadable)
}
