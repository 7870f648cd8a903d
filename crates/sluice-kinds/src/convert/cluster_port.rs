//! Protocols and ports of ClusterNetworkPolicies, and `ports` of the APIs before it (semantics 4, 8.1).

use serde_json::Value;
use sluice_addr::{PortRange, Protocol};
use sluice_model::{ClusterProtocol, KubernetesPort, PortMatch};
use sluice_report::Code;

use super::cluster_policy::{Dialect, NotOne, known_members, one_member};
use super::{Reader, Unreadable};
use crate::field::{Field, shown};

/// Reads one entry of `protocols` or `ports`.
pub(super) fn read_port(
    reader: &mut Reader<'_>,
    field: &Field<'_>,
    dialect: Dialect,
) -> Result<ClusterProtocol, Unreadable> {
    let known: &[&str] = match dialect {
        Dialect::Cluster => &["tcp", "udp", "sctp", "destinationNamedPort"],
        Dialect::Admin | Dialect::Baseline => &["portNumber", "portRange", "namedPort"],
    };
    let (name, member) = member(reader, field, known, "protocol")?;
    let of = |protocol, port| Ok(ClusterProtocol::Port(KubernetesPort { protocol, port }));
    match name {
        "tcp" => of(Protocol::TCP, destination_port(reader, &member)?),
        "udp" => of(Protocol::UDP, destination_port(reader, &member)?),
        "sctp" => of(Protocol::SCTP, destination_port(reader, &member)?),
        "portNumber" => {
            known_members(reader, &member, &["protocol", "port"], Code::SL2011)?;
            let (protocol, port) = (protocol(reader, &member), number(reader, &member.get("port")));
            of(protocol?, PortMatch::Range(port?.into()))
        }
        "portRange" => {
            known_members(reader, &member, &["protocol", "start", "end"], Code::SL2011)?;
            let (protocol, ports) = (protocol(reader, &member), range(reader, &member));
            of(protocol?, ports?)
        }
        _ => match member.nonempty() {
            Some(name) => Ok(ClusterProtocol::Named(name.into())),
            None => {
                let message = format!("expected the name of a container port, found {}", shown(member.value));
                reader.find(Code::SL2011, &member.path, message, None);
                Err(Unreadable)
            }
        },
    }
}

fn member<'a, 'k>(
    reader: &mut Reader<'_>,
    field: &Field<'a>,
    known: &[&'k str],
    what: &str,
) -> Result<(&'k str, Field<'a>), Unreadable> {
    one_member(field, known).map_err(|problem| {
        let message = match problem {
            NotOne::None => format!("no known {what}"),
            NotOne::Unknown(name) => format!("unknown {what} {name:?}"),
            NotOne::Several => format!("exactly one of {} must be set", known.join(", ")),
        };
        reader.find(Code::SL2011, &field.path, message, None);
        Unreadable
    })
}

/// `destinationPort` of `tcp`, `udp` or `sctp`; absent = every port of the protocol.
fn destination_port(reader: &mut Reader<'_>, field: &Field<'_>) -> Result<PortMatch, Unreadable> {
    known_members(reader, field, &["destinationPort"], Code::SL2011)?;
    let port = field.get("destinationPort");
    if port.is_null() {
        let message = "no destinationPort: every port of the protocol; the API refuses this";
        reader.find(Code::SL2206, &field.path, message, Some("write the range 1 to 65535"));
        return Ok(PortMatch::Any);
    }
    let (name, inner) = member(reader, &port, &["number", "range"], "port")?;
    match name {
        "number" => Ok(PortMatch::Range(number(reader, &inner)?.into())),
        _ => {
            known_members(reader, &inner, &["start", "end"], Code::SL2011)?;
            range(reader, &inner)
        }
    }
}

/// `start` and `end`, of which the first is the lower one.
fn range(reader: &mut Reader<'_>, field: &Field<'_>) -> Result<PortMatch, Unreadable> {
    let (start, end) = (number(reader, &field.get("start")), number(reader, &field.get("end")));
    let (start, end) = (start?, end?);
    match PortRange::new(start, end) {
        Ok(range) if start < end => Ok(PortMatch::Range(range)),
        _ => {
            reader.find(Code::SL2005, &field.path, format!("start {start} is not below end {end}"), None);
            Err(Unreadable)
        }
    }
}

fn number(reader: &mut Reader<'_>, field: &Field<'_>) -> Result<u16, Unreadable> {
    let number = field.value.as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
    number.ok_or_else(|| {
        reader.find(
            Code::SL2005,
            &field.path,
            format!("expected 1 to 65535, found {}", shown(field.value)),
            None,
        );
        Unreadable
    })
}

/// `protocol` of the older APIs; absent = TCP.
fn protocol(reader: &mut Reader<'_>, field: &Field<'_>) -> Result<Protocol, Unreadable> {
    let field = field.get("protocol");
    match field.value {
        Value::Null => Ok(Protocol::TCP),
        Value::String(text) if text == "TCP" => Ok(Protocol::TCP),
        Value::String(text) if text == "UDP" => Ok(Protocol::UDP),
        Value::String(text) if text == "SCTP" => Ok(Protocol::SCTP),
        other => {
            let message = format!("unknown protocol {}: use TCP, UDP or SCTP", shown(other));
            reader.find(Code::SL2005, &field.path, message, None);
            Err(Unreadable)
        }
    }
}
