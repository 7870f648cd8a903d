//! HostEndpoint (semantics 3.10).

use std::net::IpAddr;
use std::sync::Arc;

use serde_json::Value;
use sluice_addr::Protocol;
use sluice_model::{HostEndpoint, InterfaceMatch, NamedPort, Object};
use sluice_report::Code;

use super::Reader;
use super::calico::stored_labels;
use super::pod::read_address;
use crate::field::Field;
use crate::names::is_interface_name;

/// Reads the object; `None` without a node, or without an interface that it could mean (7.3). An address, profile or
/// port that cannot be read is left out: host endpoints deny by default, so nothing opens.
pub(super) fn host_endpoint(reader: &mut Reader<'_>, root: &Field<'_>) -> Option<Object> {
    let labels = stored_labels(reader, root);
    let spec = root.get("spec");
    if let Err(wrong) = spec.object() {
        reader.wrong_type(Code::SL2013, &wrong);
        return None;
    }
    let mut listed = |name: &str| {
        spec.get(name).items().unwrap_or_else(|wrong| {
            reader.wrong_type(Code::SL2013, &wrong);
            Vec::new()
        })
    };
    let (addresses, profiles, ports) = (listed("expectedIPs"), listed("profiles"), listed("ports"));
    let addresses: Vec<_> = addresses.iter().filter_map(|item| address(reader, item)).collect();
    let profiles = profiles.iter().filter_map(|item| profile(reader, item)).collect();
    let named_ports = ports.iter().filter_map(|item| port(reader, item)).collect();
    let node = required(reader, &spec.get("node"), "no node has been specified");
    let name = spec.get("interfaceName");
    let interface = match name.value {
        Value::String(text) if text == "*" => Some(InterfaceMatch::Every),
        Value::String(text) if !text.is_empty() => Some(InterfaceMatch::Named(text.as_str().into())),
        Value::Null | Value::String(_) if !addresses.is_empty() => Some(InterfaceMatch::ByAddress),
        _ => {
            required(reader, &name, "no interface or expected IPs have been specified");
            None
        }
    };
    if let Some(InterfaceMatch::Named(text)) = &interface
        && !is_interface_name(text)
    {
        let message =
            format!("no interface can be named {text:?}: at most 15 letters, digits, `_`, `.` and `-`");
        reader.find(Code::SL2206, &name.path, message, None);
    }
    Some(Object::HostEndpoint(HostEndpoint {
        name: reader.key.name.clone(),
        labels,
        node: node?,
        interface: interface?,
        expected_addresses: addresses,
        profiles,
        named_ports,
        position: reader.position(""),
    }))
}

/// A name without which the object has no effect.
fn required(reader: &mut Reader<'_>, field: &Field<'_>, missing: &str) -> Option<Arc<str>> {
    match field.text() {
        Ok(Some(text)) if !text.is_empty() => Some(text.into()),
        Ok(_) => {
            reader.find(Code::SL2009, &field.path, missing, Some("the HostEndpoint has no effect"));
            None
        }
        Err(wrong) => {
            reader.wrong_type(Code::SL2013, &wrong);
            None
        }
    }
}

fn address(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<IpAddr> {
    if matches!(field.text(), Ok(None | Some(""))) {
        reader.find(Code::SL2003, &field.path, "an empty address is left out", None);
    }
    read_address(reader, field)
}

fn profile(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<Arc<str>> {
    let name = field.nonempty().map(Arc::from);
    if name.is_none() {
        reader.wrong_type(Code::SL2013, &field.wrong_type("the name of a profile"));
    }
    name
}

fn port(reader: &mut Reader<'_>, field: &Field<'_>) -> Option<NamedPort> {
    let protocol = match field.get("protocol").value {
        Value::String(text) => text.parse().ok(),
        Value::Number(n) => n.as_u64().and_then(|n| u8::try_from(n).ok()).map(Protocol),
        _ => None,
    };
    let protocol = protocol.filter(|protocol: &Protocol| protocol.has_ports());
    let number = field.get("port").value.as_u64().and_then(|n| u16::try_from(n).ok()).filter(|n| *n > 0);
    match (field.get("name").nonempty(), protocol, number) {
        (Some(name), Some(protocol), Some(port)) => Some(NamedPort { name: name.into(), protocol, port }),
        _ => {
            let message = "the port has no name, protocol and number 1 to 65535 and is left out";
            reader.find(Code::SL2005, &field.path, message, None);
            None
        }
    }
}
