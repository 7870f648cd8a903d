//! Service: defaults, validation, and the allocation of cluster addresses and node ports.

use std::{
    collections::HashSet,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use rand::Rng;
use serde_json::{Value, json};

use super::{
    FieldError, for_each, list, names,
    pod::{is_port, out_of_range},
    set_default, text, with_child,
};

/// Node ports that may be allocated (kubernetes-api 7).
const NODE_PORTS: std::ops::RangeInclusive<u16> = 30_000..=32_767;

/// The ranges from which cluster addresses are taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServiceRanges {
    /// IPv4 network and prefix length.
    pub v4: (Ipv4Addr, u8),
    /// IPv6 network and prefix length; services are single-stack IPv4 without it.
    pub v6: Option<(Ipv6Addr, u8)>,
}

impl Default for ServiceRanges {
    fn default() -> Self {
        ServiceRanges {
            v4: (Ipv4Addr::new(10, 43, 0, 0), 16),
            v6: Some((Ipv6Addr::new(0xfd00, 0x10, 0x43, 0, 0, 0, 0, 0), 112)),
        }
    }
}

impl ServiceRanges {
    /// The first usable address, which the `kubernetes` service gets.
    pub fn first(&self) -> IpAddr {
        IpAddr::V4(Ipv4Addr::from_bits(self.v4.0.to_bits() + 1))
    }

    fn contains(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(a) => {
                let host = 32 - u32::from(self.v4.1);
                u64::from(a.to_bits()) >> host == u64::from(self.v4.0.to_bits()) >> host
            }
            IpAddr::V6(a) => self.v6.is_some_and(|(net, len)| {
                len == 0 || a.to_bits() >> (128 - len) == net.to_bits() >> (128 - len)
            }),
        }
    }

    /// The n-th address of a family's range, counted from the network address.
    fn nth(&self, v6: bool, n: u32) -> Option<IpAddr> {
        if v6 {
            self.v6.map(|(net, _)| IpAddr::V6(Ipv6Addr::from_bits(net.to_bits() + u128::from(n))))
        } else {
            Some(IpAddr::V4(Ipv4Addr::from_bits(self.v4.0.to_bits().checked_add(n)?)))
        }
    }

    /// How many addresses may be handed out; the first and the last of the range are not.
    fn size(&self, v6: bool) -> u32 {
        let host = if v6 { 128 - self.v6.map_or(128, |r| r.1) } else { 32 - self.v4.1 };
        (1_u32 << host.min(16)).saturating_sub(2)
    }
}

pub(super) fn default(service: &mut Value) {
    with_child(service, "spec", |spec| {
        set_default(spec, "type", json!("ClusterIP"));
        set_default(spec, "sessionAffinity", json!("None"));
        let kind = text(spec, "type").to_string();
        if kind != "ExternalName" {
            set_default(spec, "internalTrafficPolicy", json!("Cluster"));
        }
        if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
            set_default(spec, "externalTrafficPolicy", json!("Cluster"));
        }
        if kind == "LoadBalancer" {
            set_default(spec, "allocateLoadBalancerNodePorts", json!(true));
        }
        if text(spec, "sessionAffinity") == "ClientIP" {
            set_default(spec, "sessionAffinityConfig", json!({"clientIP": {"timeoutSeconds": 10_800}}));
        }
        for_each(spec, "ports", |port| {
            set_default(port, "protocol", json!("TCP"));
            if let Some(number) = port.get("port").cloned() {
                set_default(port, "targetPort", number);
            }
        });
    });
    with_child(service, "status", |s| set_default(s, "loadBalancer", json!({})));
}

pub(super) fn validate(old: Option<&Value>, new: &Value, errors: &mut Vec<FieldError>) {
    let spec = new.get("spec").unwrap_or(&Value::Null);
    let kind = text(spec, "type");
    if !["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"].contains(&kind) {
        errors.push(FieldError::not_supported(
            "spec.type",
            &json!(kind),
            &["ClusterIP", "ExternalName", "LoadBalancer", "NodePort"],
        ));
    }
    if !["ClientIP", "None"].contains(&text(spec, "sessionAffinity")) {
        errors.push(FieldError::not_supported(
            "spec.sessionAffinity",
            &json!(text(spec, "sessionAffinity")),
            &["ClientIP", "None"],
        ));
    }
    let headless = text(spec, "clusterIP") == "None";
    if kind == "ExternalName" && text(spec, "externalName").is_empty() {
        errors.push(FieldError::required("spec.externalName", ""));
    }
    if list(spec, "ports").is_empty() && !headless && kind != "ExternalName" {
        errors.push(FieldError::required("spec.ports", ""));
    }
    validate_ports(spec, kind, errors);
    let before = old.map(|o| (text_at(o, "/spec/clusterIP"), text_at(o, "/spec/type")));
    if let Some((ip, old_kind)) = before
        && !ip.is_empty()
        && old_kind != "ExternalName"
        && kind != "ExternalName"
        && ip != text(spec, "clusterIP")
    {
        errors.push(FieldError::invalid(
            "spec.clusterIPs[0]",
            &json!([text(spec, "clusterIP")]),
            "may not change once set",
        ));
    }
}

fn text_at<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or("")
}

fn validate_ports(spec: &Value, kind: &str, errors: &mut Vec<FieldError>) {
    let ports = list(spec, "ports");
    let (mut seen_names, mut seen_ports) = (HashSet::new(), HashSet::new());
    for (i, port) in ports.iter().enumerate() {
        let path = format!("spec.ports[{i}]");
        let name = text(port, "name");
        if name.is_empty() {
            if ports.len() > 1 {
                errors.push(FieldError::required(format!("{path}.name"), ""));
            }
        } else if let Err(e) = names::dns_label(name) {
            errors.push(FieldError::invalid(format!("{path}.name"), &json!(name), e));
        } else if !seen_names.insert(name) {
            errors.push(FieldError::duplicate(format!("{path}.name"), &json!(name)));
        }
        let number = port.get("port").unwrap_or(&Value::Null);
        if !is_port(number) {
            errors.push(out_of_range(format!("{path}.port"), number));
        }
        match port.get("targetPort") {
            Some(Value::String(target)) => {
                if let Err(e) = names::port_name(target) {
                    errors.push(FieldError::invalid(format!("{path}.targetPort"), &json!(target), e));
                }
            }
            Some(target) if !is_port(target) => {
                errors.push(out_of_range(format!("{path}.targetPort"), target));
            }
            _ => {}
        }
        let protocol = text(port, "protocol");
        if !["SCTP", "TCP", "UDP"].contains(&protocol) {
            errors.push(FieldError::not_supported(
                format!("{path}.protocol"),
                &json!(protocol),
                &["SCTP", "TCP", "UDP"],
            ));
        }
        if !seen_ports.insert((number.as_i64(), protocol)) {
            errors.push(FieldError::duplicate(&path, &json!({"port": number, "protocol": protocol})));
        }
        let node_port = port.get("nodePort").and_then(Value::as_i64).unwrap_or(0);
        if node_port != 0 && !matches!(kind, "NodePort" | "LoadBalancer") {
            errors.push(FieldError::forbidden(
                format!("{path}.nodePort"),
                "may not be used when `type` is 'ClusterIP'",
            ));
        }
    }
}

/// Keeps what the old state had allocated and the new one, already defaulted, leaves out, as upstream does
/// on update.
pub(crate) fn carry_allocations(old: &Value, new: &mut Value) {
    let kind = text_at(new, "/spec/type").to_string();
    if kind == "ExternalName" {
        if let Some(spec) = new.get_mut("spec").and_then(Value::as_object_mut)
            && text_at(old, "/spec/type") != "ExternalName"
        {
            spec.retain(|k, _| {
                !matches!(k.as_str(), "clusterIP" | "clusterIPs" | "ipFamilies" | "ipFamilyPolicy")
            });
        }
        return;
    }
    let Some(old_spec) = old.get("spec") else { return };
    with_child(new, "spec", |spec| {
        for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
            if let Some(value) = old_spec.get(field) {
                set_default(spec, field, value.clone());
            }
        }
        if matches!(kind.as_str(), "NodePort" | "LoadBalancer") {
            for_each(spec, "ports", |port| {
                let same = |p: &&Value| {
                    p.get("port") == port.get("port") && p.get("protocol") == port.get("protocol")
                };
                if let Some(n) = list(old_spec, "ports").iter().find(same).and_then(|p| p.get("nodePort")) {
                    set_default(port, "nodePort", n.clone());
                }
            });
        }
    });
}

/// Gives a service the addresses and node ports that it needs and does not have. `others` are all other
/// services; the caller makes sure that they do not change before the write.
pub(crate) fn allocate(
    service: &mut Value,
    others: &[Value],
    ranges: &ServiceRanges,
) -> Result<(), Vec<FieldError>> {
    let mut errors = Vec::new();
    let kind = text_at(service, "/spec/type").to_string();
    if kind == "ExternalName" {
        return Ok(());
    }
    let taken: HashSet<IpAddr> = others
        .iter()
        .flat_map(|s| s.pointer("/spec/clusterIPs").and_then(Value::as_array).into_iter().flatten())
        .filter_map(|ip| ip.as_str()?.parse().ok())
        .collect();
    with_child(service, "spec", |spec| {
        allocate_addresses(spec, &taken, ranges, &mut errors);
        if matches!(kind.as_str(), "NodePort" | "LoadBalancer")
            && spec.get("allocateLoadBalancerNodePorts") != Some(&json!(false))
        {
            allocate_node_ports(spec, others, &mut errors);
        }
    });
    if errors.is_empty() { Ok(()) } else { Err(errors) }
}

fn allocate_addresses(
    spec: &mut Value,
    taken: &HashSet<IpAddr>,
    ranges: &ServiceRanges,
    errors: &mut Vec<FieldError>,
) {
    let asked: Vec<String> = match spec.get("clusterIPs").and_then(Value::as_array) {
        Some(ips) if !ips.is_empty() => ips.iter().filter_map(|i| i.as_str().map(String::from)).collect(),
        _ => Some(text(spec, "clusterIP")).filter(|s| !s.is_empty()).map(String::from).into_iter().collect(),
    };
    let headless = asked.first().is_some_and(|a| a == "None");
    if text(spec, "clusterIP") != asked.first().map_or("", String::as_str)
        && !text(spec, "clusterIP").is_empty()
    {
        errors.push(FieldError::invalid(
            "spec.clusterIPs",
            &json!(asked),
            "first value must match `clusterIP`",
        ));
        return;
    }
    let families = families(spec, &asked, ranges);
    let mut addresses = Vec::new();
    for (i, v6) in families.iter().enumerate() {
        if headless {
            break;
        }
        match asked.get(i) {
            Some(wanted) => match wanted.parse::<IpAddr>() {
                Ok(ip) if !ranges.contains(ip) || ip.is_ipv6() != *v6 => errors.push(FieldError::invalid(
                    "spec.clusterIPs",
                    &json!(asked),
                    "failed to allocate IP: the provided IP is not in the valid range",
                )),
                Ok(ip) if taken.contains(&ip) => errors.push(FieldError::invalid(
                    "spec.clusterIPs",
                    &json!(asked),
                    format!("failed to allocate IP {ip}: provided IP is already allocated"),
                )),
                Ok(ip) => addresses.push(ip.to_string()),
                Err(_) => errors.push(FieldError::invalid(
                    format!("spec.clusterIPs[{i}]"),
                    &json!(wanted),
                    "must be a valid IP address",
                )),
            },
            None => match free_address(*v6, taken, ranges) {
                Some(ip) => addresses.push(ip.to_string()),
                None => {
                    errors.push(FieldError::forbidden("spec.clusterIPs", "no address of the range is free"))
                }
            },
        }
    }
    let addresses = if headless { vec!["None".to_string()] } else { addresses };
    let policy = if families.len() == 2 { "RequireDualStack" } else { "SingleStack" };
    let Some(map) = spec.as_object_mut() else { return };
    if let Some(first) = addresses.first() {
        map.insert("clusterIP".into(), json!(first));
        map.insert("clusterIPs".into(), json!(addresses));
    }
    let names: Vec<_> = families.iter().map(|v6| if *v6 { "IPv6" } else { "IPv4" }).collect();
    map.insert("ipFamilies".into(), json!(names));
    set_default(spec, "ipFamilyPolicy", json!(policy));
}

/// Which families a service has, `true` for IPv6: as asked, else by its addresses, else IPv4.
fn families(spec: &Value, asked: &[String], ranges: &ServiceRanges) -> Vec<bool> {
    let mut out: Vec<bool> = list(spec, "ipFamilies").iter().map(|f| f.as_str() == Some("IPv6")).collect();
    if out.is_empty() {
        out = asked.iter().filter_map(|a| a.parse::<IpAddr>().ok()).map(|a| a.is_ipv6()).collect();
    }
    if out.is_empty() {
        out.push(false);
    }
    let dual = matches!(text(spec, "ipFamilyPolicy"), "PreferDualStack" | "RequireDualStack");
    if dual && out.len() == 1 && (out[0] || ranges.v6.is_some()) {
        out.push(!out[0]);
    }
    out.truncate(if text(spec, "ipFamilyPolicy") == "SingleStack" { 1 } else { 2 });
    out
}

fn free_address(v6: bool, taken: &HashSet<IpAddr>, ranges: &ServiceRanges) -> Option<IpAddr> {
    let size = ranges.size(v6);
    if size == 0 {
        return None;
    }
    let start = rand::rng().random_range(0..size);
    (0..size)
        .filter_map(|i| ranges.nth(v6, 1 + (start + i) % size))
        // The first address is the `kubernetes` service's.
        .find(|ip| !taken.contains(ip) && *ip != ranges.first())
}

fn allocate_node_ports(spec: &mut Value, others: &[Value], errors: &mut Vec<FieldError>) {
    let used = |s: &Value| -> Vec<(i64, String)> {
        list(s, "ports")
            .iter()
            .filter_map(|p| Some((p.get("nodePort")?.as_i64()?, text(p, "protocol").to_string())))
            .collect()
    };
    let mut taken: HashSet<(i64, String)> =
        others.iter().filter_map(|o| o.get("spec")).flat_map(used).collect();
    let Some(ports) = spec.get_mut("ports").and_then(Value::as_array_mut) else { return };
    for (i, port) in ports.iter_mut().enumerate() {
        let protocol = text(port, "protocol").to_string();
        let asked = port.get("nodePort").and_then(Value::as_i64).unwrap_or(0);
        let field = format!("spec.ports[{i}].nodePort");
        if asked != 0 {
            if !u16::try_from(asked).is_ok_and(|p| NODE_PORTS.contains(&p)) {
                errors.push(FieldError::invalid(
                    field,
                    &json!(asked),
                    "provided port is not in the valid range. The range of valid ports is 30000-32767",
                ));
            } else if !taken.insert((asked, protocol)) {
                errors.push(FieldError::invalid(field, &json!(asked), "provided port is already allocated"));
            }
            continue;
        }
        let start = rand::rng().random_range(NODE_PORTS);
        let span = u32::from(NODE_PORTS.end() - NODE_PORTS.start()) + 1;
        let offset = u32::from(start - NODE_PORTS.start());
        let free = (0..span)
            .map(|n| i64::from(u32::from(*NODE_PORTS.start()) + (offset + n) % span))
            .find(|p| !taken.contains(&(*p, protocol.clone())));
        match (free, port.as_object_mut()) {
            (Some(p), Some(map)) => {
                map.insert("nodePort".into(), json!(p));
                taken.insert((p, protocol));
            }
            _ => errors.push(FieldError::forbidden(field, "no node port is free")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(spec: Value) -> Value {
        let mut s = json!({"metadata": {"name": "s"}, "spec": spec});
        default(&mut s);
        s
    }

    fn fields(old: Option<&Value>, new: &Value) -> Vec<String> {
        let mut errors = Vec::new();
        validate(old, new, &mut errors);
        errors.into_iter().map(|e| e.field).collect()
    }

    #[test]
    fn addresses_and_node_ports() {
        let ranges = ServiceRanges { v4: (Ipv4Addr::new(10, 43, 0, 0), 29), ..ServiceRanges::default() };
        let mut others = Vec::new();
        for _ in 0..5 {
            let mut s = service(json!({"type": "NodePort", "ports": [{"port": 80}]}));
            allocate(&mut s, &others, &ranges).unwrap();
            others.push(s);
        }
        let distinct: HashSet<_> = others.iter().map(|s| s["spec"]["clusterIP"].to_string()).collect();
        assert_eq!(distinct.len(), 5, "six hosts less the first");
        let ports: HashSet<_> =
            others.iter().map(|s| s["spec"]["ports"][0]["nodePort"].to_string()).collect();
        assert_eq!(ports.len(), 5);
        let mut full = service(json!({"ports": [{"port": 80}]}));
        assert!(allocate(&mut full, &others, &ranges).is_err());
        let mut first = service(json!({"clusterIP": "10.43.0.1", "ports": [{"port": 443}]}));
        allocate(&mut first, &others, &ranges).unwrap();
        assert_eq!(first["spec"]["clusterIPs"], json!(["10.43.0.1"]));
        let mut outside = service(json!({"clusterIP": "10.44.0.1", "ports": [{"port": 443}]}));
        assert!(allocate(&mut outside, &[], &ranges).is_err());
        let mut twice = service(json!({"clusterIP": "10.43.0.1", "ports": [{"port": 443}]}));
        assert!(allocate(&mut twice, &[first], &ranges).is_err());
    }

    #[test]
    fn families_follow_the_policy() {
        let ranges = ServiceRanges::default();
        let mut dual = service(json!({"ipFamilyPolicy": "PreferDualStack", "ports": [{"port": 80}]}));
        allocate(&mut dual, &[], &ranges).unwrap();
        assert_eq!(dual["spec"]["ipFamilies"], json!(["IPv4", "IPv6"]));
        assert_eq!(dual["spec"]["clusterIPs"].as_array().unwrap().len(), 2);
        let mut headless = service(json!({"clusterIP": "None"}));
        allocate(&mut headless, &[], &ranges).unwrap();
        assert_eq!(headless["spec"]["clusterIPs"], json!(["None"]));
        assert!(fields(None, &headless).is_empty());
        let mut v6 = service(json!({"ipFamilies": ["IPv6"], "ports": [{"port": 80}]}));
        allocate(&mut v6, &[], &ranges).unwrap();
        assert!(v6["spec"]["clusterIP"].as_str().unwrap().starts_with("fd00:10:43:"));
    }

    #[test]
    fn refusals_and_immutability() {
        assert_eq!(fields(None, &service(json!({}))), ["spec.ports"]);
        let s = service(json!({"type": "X", "ports": [{"port": 0}, {"port": 1, "name": "a"}]}));
        assert_eq!(
            fields(None, &s),
            ["spec.type", "spec.ports[0].name", "spec.ports[0].port", "spec.ports[0].targetPort"]
        );
        let mut old = service(json!({"ports": [{"port": 80}]}));
        allocate(&mut old, &[], &ServiceRanges::default()).unwrap();
        let mut new = service(json!({"ports": [{"port": 81}]}));
        carry_allocations(&old, &mut new);
        assert_eq!(new["spec"]["clusterIP"], old["spec"]["clusterIP"]);
        assert!(fields(Some(&old), &new).is_empty());
        new["spec"]["clusterIP"] = json!("10.43.9.9");
        assert_eq!(fields(Some(&old), &new), ["spec.clusterIPs[0]"]);
    }
}
