//! Ends of questions by name, and addresses for pods that have none yet.

use std::collections::BTreeSet;
use std::net::IpAddr;

use anyhow::{Context, bail};
use sluice_addr::{AddrSet, Cidr, Family, Protocol, Transport};
use sluice_model::{NetworkSet, Pod, PodKey, World};

/// The ranges that pods without addresses are taken to be in: the defaults of RKE2 and k3s, and one for IPv6.
const POD_RANGES: [&str; 2] = ["10.42.0.0/16", "fd00:10:42::/56"];

/// The world with an address of each family for every pod that has none, and what that leaves open.
pub(crate) struct Placed {
    /// The world.
    pub(crate) world: World,
    /// Pods whose addresses are assumed.
    pub(crate) assumed: BTreeSet<PodKey>,
    /// CIDRs of policies that hold some pod addresses and not others: a verdict on an assumed address may hang on them.
    pub(crate) splitting: Vec<Cidr>,
}

/// Gives pods without addresses one of each family.
pub(crate) fn place(mut world: World) -> Placed {
    let ranges: Vec<Cidr> = POD_RANGES.iter().filter_map(|r| r.parse().ok()).collect();
    let taken: BTreeSet<IpAddr> = world.pods.values().flat_map(|p| p.addresses.iter().copied()).collect();
    let mut assumed = BTreeSet::new();
    let mut next = [2u128, 2u128];
    for pod in world.pods.values_mut() {
        if pod.host_network || pod.finished || !pod.addresses.is_empty() {
            continue;
        }
        for (range, next) in ranges.iter().zip(&mut next) {
            while let Some(address) = nth(*range, *next) {
                *next += 1;
                if !taken.contains(&address) {
                    pod.addresses.push(address);
                    break;
                }
            }
        }
        assumed.insert(pod.key.clone());
    }
    let splitting = if assumed.is_empty() { Vec::new() } else { splitting_cidrs(&world, &ranges) };
    Placed { world, assumed, splitting }
}

fn nth(range: Cidr, n: u128) -> Option<IpAddr> {
    let address = match range.base() {
        IpAddr::V4(base) => {
            IpAddr::from((u32::from(base).checked_add(u32::try_from(n).ok()?)?).to_be_bytes())
        }
        IpAddr::V6(base) => IpAddr::from((u128::from(base).checked_add(n)?).to_be_bytes()),
    };
    range.contains(address).then_some(address)
}

/// CIDRs of policies and sets that cut a pod range in two.
fn splitting_cidrs(world: &World, ranges: &[Cidr]) -> Vec<Cidr> {
    let mut cidrs: BTreeSet<Cidr> =
        world.sets.values().flat_map(|s: &NetworkSet| s.nets.iter().copied()).collect();
    for policy in world.policies.values() {
        for rule in [&policy.ingress, &policy.egress].into_iter().flatten().flatten() {
            cidrs.extend(rule.body.cidrs());
        }
    }
    cidrs
        .into_iter()
        .filter(|cidr| {
            let set = AddrSet::from_cidrs([*cidr]);
            ranges.iter().any(|range| {
                let range = AddrSet::from_cidrs([*range]);
                set.intersects(&range) && !set.is_superset(&range)
            })
        })
        .collect()
}

/// One end of a question.
#[derive(Clone, Debug)]
pub(crate) struct End {
    /// As typed.
    pub(crate) name: String,
    /// Its addresses: of one pod, of all pods of a workload, or the one given.
    pub(crate) addresses: Vec<IpAddr>,
    /// The pods behind it.
    pub(crate) pods: Vec<PodKey>,
}

/// Finds an end: `namespace/pod`, `namespace/kind/name`, `pod` in the default namespace, an address, a CIDR (its first address
/// and its last stand for it where a single verdict is asked).
pub(crate) fn end(world: &World, text: &str, namespace: &str) -> anyhow::Result<End> {
    if let Ok(address) = sluice_addr::parse_ip(text) {
        let pods = owners(world, address);
        return Ok(End { name: text.into(), addresses: vec![address], pods });
    }
    if let Ok(cidr) = text.parse::<Cidr>() {
        let mut addresses = vec![cidr.first()];
        if cidr.last() != cidr.first() {
            addresses.push(cidr.last());
        }
        return Ok(End { name: text.into(), addresses, pods: Vec::new() });
    }
    let parts: Vec<&str> = text.split('/').collect();
    let pods: Vec<&Pod> = match parts.as_slice() {
        [name] => world.pods.get(&PodKey::new(namespace, *name)).into_iter().collect(),
        [namespace, name] => world.pods.get(&PodKey::new(*namespace, *name)).into_iter().collect(),
        [namespace, kind, name] => world.pods.values().filter(|p| is_of(p, namespace, kind, name)).collect(),
        _ => bail!("{text:?} names no end; write namespace/pod, namespace/kind/name, an address or a CIDR"),
    };
    if pods.is_empty() {
        bail!("no pod or workload {text:?} is known{}", nearest(world, text));
    }
    Ok(End {
        name: text.into(),
        addresses: pods.iter().flat_map(|p| p.live_addresses().iter().copied()).collect(),
        pods: pods.iter().map(|p| p.key.clone()).collect(),
    })
}

fn owners(world: &World, address: IpAddr) -> Vec<PodKey> {
    world.pods.values().filter(|p| p.live_addresses().contains(&address)).map(|p| p.key.clone()).collect()
}

/// A workload's pod: by owner (`Deployment web`), or the template itself (`deployment/web`).
fn is_of(pod: &Pod, namespace: &str, kind: &str, name: &str) -> bool {
    let kind = kind.to_lowercase();
    let kind = kind.strip_suffix('s').unwrap_or(&kind);
    let template = format!("{kind}/{name}");
    *pod.key.namespace == *namespace
        && (pod.key.name.to_lowercase() == template
            || (kind == "pod" && *pod.key.name == *name)
            || pod.workload.as_deref().is_some_and(|w| {
                let mut words = w.split([' ', '/']);
                words.next().is_some_and(|k| k.eq_ignore_ascii_case(kind)) && words.next_back() == Some(name)
            }))
}

fn nearest(world: &World, text: &str) -> String {
    let name = text.rsplit('/').next().unwrap_or(text);
    match world.pods.keys().find(|k| *k.name == *name) {
        Some(key) => format!("; did you mean {key}?"),
        None => String::new(),
    }
}

/// `80/TCP`, `53/UDP`, `8080`, `ICMP`, `47`: protocol and destination port.
pub(crate) fn protocol_and_port(text: &str) -> anyhow::Result<(Protocol, Option<u16>)> {
    let parse_protocol = |text: &str| {
        let upper =
            if text.eq_ignore_ascii_case("icmpv6") { "ICMPv6".to_owned() } else { text.to_uppercase() };
        upper.parse::<Protocol>().with_context(|| format!("{text:?} is no protocol"))
    };
    let (port, protocol) = match text.split_once('/') {
        Some((port, protocol)) => (Some(port), parse_protocol(protocol)?),
        None if text.parse::<u16>().is_ok_and(|n| n > 255) => (Some(text), Protocol::TCP),
        None => match parse_protocol(text) {
            Ok(protocol) if !protocol.has_ports() => (None, protocol),
            Ok(_) => bail!("{text} needs a port: write 80/{}", text.to_uppercase()),
            Err(_) => bail!("{text:?} is neither port/protocol (80/TCP) nor a protocol without ports (ICMP)"),
        },
    };
    let port = port.map(|p| p.parse::<u16>().with_context(|| format!("{p:?} is no port"))).transpose()?;
    match (port, protocol.has_ports()) {
        (Some(_), false) => bail!("{protocol} has no ports"),
        _ => Ok((protocol, port)),
    }
}

/// The transport of a question. ICMP without a type is an echo request.
pub(crate) fn transport(
    family: Family,
    protocol: Protocol,
    port: Option<u16>,
    source_port: Option<u16>,
    icmp: (Option<u8>, Option<u8>),
) -> anyhow::Result<Transport> {
    let echo = match family {
        Family::V4 => 8,
        Family::V6 => 128,
    };
    if protocol.is_icmp() {
        return Ok(Transport::Icmp { type_: icmp.0.unwrap_or(echo), code: icmp.1.unwrap_or(0) });
    }
    if protocol.has_ports() {
        let destination = port.with_context(|| format!("{protocol} needs a port"))?;
        return Ok(Transport::Ports { protocol, source: source_port.unwrap_or(40_000), destination });
    }
    Ok(Transport::Other(protocol))
}
