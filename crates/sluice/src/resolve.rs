//! Ends of questions by name, and addresses for pods that have none yet.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use anyhow::{Context, bail};
use sluice_addr::{AddrSet, Cidr, Family, Protocol, Transport};
use sluice_analysis::Snapshot;
use sluice_model::{Circumstances, NetworkSet, ObjectKey, Pod, PodKey, World};

use crate::nearest;

/// The ranges that pods without addresses are taken to be in: the defaults of RKE2 and k3s, and one for IPv6.
const POD_RANGES: [&str; 2] = ["10.42.0.0/16", "fd00:10:42::/56"];

/// The world with an address of each family for every pod that has none, and what that leaves open.
pub(crate) struct Placed {
    /// The world.
    pub(crate) world: World,
    /// Pods whose addresses are assumed.
    pub(crate) assumed: BTreeSet<PodKey>,
    /// Every namespace that exists is among the objects, as in what a cluster says: a pod of another one has none (semantics 1.4).
    pub(crate) namespaces_are_complete: bool,
    /// CIDRs that hold some pod addresses and not others, where an address is assumed: a verdict may hang on them
    /// (semantics 1.11).
    splitting: Vec<Splitting>,
}

/// A CIDR that cuts a pod range in two, and the policy that names it; `None` for a set, which any policy may use.
struct Splitting {
    cidr: Cidr,
    policy: Option<ObjectKey>,
}

impl Placed {
    /// In what circumstances its connections are judged.
    pub(crate) fn circumstances(&self, through_service: bool) -> Circumstances {
        Circumstances {
            through_service,
            namespaces_are_complete: self.namespaces_are_complete,
            ..Circumstances::default()
        }
    }

    /// The objects, compiled.
    pub(crate) fn snapshot(&self) -> Snapshot {
        self.snapshot_of(self.world.clone())
    }

    /// Other objects from where these come from, compiled: those of a cluster include every namespace.
    pub(crate) fn snapshot_of(&self, world: World) -> Snapshot {
        if self.namespaces_are_complete { Snapshot::of_cluster(world) } else { Snapshot::new(world) }
    }

    /// Does any verdict hang on assumed addresses?
    pub(crate) fn is_split(&self) -> bool {
        !self.splitting.is_empty()
    }

    /// The CIDR on which the word of these policies (as they display) hangs, if it does.
    pub(crate) fn split_of(&self, policies: &BTreeSet<String>) -> Option<Cidr> {
        let named = |s: &&Splitting| match &s.policy {
            Some(policy) => policies.contains(&policy.to_string()),
            None => !policies.is_empty(),
        };
        self.splitting.iter().find(named).map(|s| s.cidr)
    }

    /// One free address for each part of the pod range of a family that CIDRs tell apart: together they stand for
    /// every address that a pod may get.
    pub(crate) fn regions(&self, family: Family) -> Vec<IpAddr> {
        let range: AddrSet = AddrSet::from_cidrs(pod_ranges()).of_family(family);
        let sets: Vec<AddrSet> = self.splitting.iter().map(|s| AddrSet::from_cidrs([s.cidr])).collect();
        let taken = self.world.pods.values().flat_map(|p| &p.addresses);
        let taken = taken.chain(self.world.nodes.values().flat_map(|n| &n.addresses));
        let taken = AddrSet::from_cidrs(taken.map(|a| Cidr::host(*a)));
        distinct(range.subtract(&taken), &sets)
    }
}

fn pod_ranges() -> Vec<Cidr> {
    POD_RANGES.iter().filter_map(|r| r.parse().ok()).collect()
}

/// One address of `space` for each different way in which `sets` hold addresses of it.
fn distinct(space: AddrSet, sets: &[AddrSet]) -> Vec<IpAddr> {
    let mut all = vec![space.clone()];
    all.extend(sets.iter().map(|set| set.intersect(&space)));
    let mut seen = BTreeMap::new();
    for (range, members) in sluice_addr::partition(&all) {
        if members.contains(0) {
            seen.entry(members.iter().collect::<Vec<_>>()).or_insert(range.first());
        }
    }
    seen.into_values().collect()
}

/// Gives pods without addresses one of each family.
pub(crate) fn place(world: World) -> Placed {
    place_as(world, None)
}

/// As [`place`], for everything that a cluster holds.
pub(crate) fn place_cluster(world: World) -> Placed {
    Placed { namespaces_are_complete: true, ..place(world) }
}

/// Gives pods without addresses one of each family; a pod that has one in `known` gets the same.
pub(crate) fn place_as(mut world: World, known: Option<&World>) -> Placed {
    let ranges = pod_ranges();
    let mut taken: BTreeSet<IpAddr> = world.pods.values().flat_map(|p| p.addresses.iter().copied()).collect();
    taken.extend(known.iter().flat_map(|k| k.pods.values()).flat_map(|p| p.addresses.iter().copied()));
    let mut assumed = BTreeSet::new();
    let mut next = [2u128, 2u128];
    for pod in world.pods.values_mut() {
        if pod.host_network || pod.finished || !pod.addresses.is_empty() {
            continue;
        }
        if let Some(same) = known.and_then(|k| k.pods.get(&pod.key)).filter(|p| !p.addresses.is_empty()) {
            pod.addresses = same.addresses.clone();
            assumed.insert(pod.key.clone());
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
    Placed { world, assumed, namespaces_are_complete: false, splitting }
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
fn splitting_cidrs(world: &World, ranges: &[Cidr]) -> Vec<Splitting> {
    let mut found: BTreeSet<(Cidr, Option<ObjectKey>)> = BTreeSet::new();
    for net in world.sets.values().flat_map(|s: &NetworkSet| &s.nets) {
        found.insert((*net, None));
    }
    for policy in world.policies.values() {
        for rule in [&policy.ingress, &policy.egress].into_iter().flatten().flatten() {
            found.extend(rule.body.cidrs().into_iter().map(|cidr| (cidr, Some(policy.key.clone()))));
        }
    }
    let splits = |cidr: Cidr| ranges.iter().any(|range| range.contains_cidr(cidr) && *range != cidr);
    found
        .into_iter()
        .filter(|(cidr, _)| splits(*cidr))
        .map(|(cidr, policy)| Splitting { cidr, policy })
        .collect()
}

/// The namespaces that are known: those among the objects, and those that pods are in.
pub(crate) fn namespaces(world: &World) -> BTreeSet<String> {
    let of_pods = world.pods.keys().map(|key| key.namespace.to_string());
    world.namespaces.keys().map(ToString::to_string).chain(of_pods).collect()
}

/// One end of a question.
#[derive(Clone, Debug)]
pub(crate) struct End {
    /// As typed.
    pub(crate) name: String,
    /// Its addresses: of one pod, of all pods of a workload, of a Service's backends, or the one given. For a CIDR one of
    /// each part that the objects can tell apart.
    pub(crate) addresses: Vec<IpAddr>,
    /// The pods behind it.
    pub(crate) pods: Vec<PodKey>,
    /// The Service (namespace, name) that it is; connections to it are judged on its backends.
    pub(crate) service: Option<(String, String)>,
}

/// Finds an end: `namespace/pod`, `namespace/kind/name`, `namespace/service/name`, `node/name`, `pod` in the default
/// namespace, an address (of a Service too), a CIDR.
pub(crate) fn end(world: &World, text: &str, namespace: &str) -> anyhow::Result<End> {
    let of =
        |addresses: Vec<IpAddr>, pods: Vec<PodKey>| End { name: text.into(), addresses, pods, service: None };
    if let Ok(address) = sluice_addr::parse_ip(text) {
        let service = world.services.values().find(|s| s.cluster_ips.contains(&address));
        return match service {
            Some(service) => service_end(world, text, &service.namespace, &service.name),
            None => Ok(of(vec![address], owners(world, address))),
        };
    }
    if let Ok(cidr) = text.parse::<Cidr>() {
        return Ok(of(parts_of(world, cidr), Vec::new()));
    }
    let parts: Vec<&str> = text.split('/').collect();
    let pods: Vec<&Pod> = match parts.as_slice() {
        [name] => world.pods.get(&PodKey::new(namespace, *name)).into_iter().collect(),
        ["node", name] if !world.pods.contains_key(&PodKey::new("node", *name)) => {
            let Some(node) = world.nodes.get(*name) else {
                let hint = nearest::did_you_mean(name, world.nodes.keys().map(|name| &**name));
                bail!("no node {name:?} is known{hint}");
            };
            return Ok(of(node.status_addresses().collect(), Vec::new()));
        }
        [namespace, name] => world.pods.get(&PodKey::new(*namespace, *name)).into_iter().collect(),
        [namespace, "service" | "services" | "svc", name] => {
            return service_end(world, text, namespace, name);
        }
        [namespace, kind, name] => world.pods.values().filter(|p| is_of(p, namespace, kind, name)).collect(),
        _ => bail!("{text:?} names no end; write namespace/pod, namespace/kind/name, an address or a CIDR"),
    };
    if pods.is_empty() {
        bail!("no pod or workload {text:?} is known{}", nearest(world, text));
    }
    let addresses: Vec<IpAddr> = pods.iter().flat_map(|p| p.live_addresses().iter().copied()).collect();
    if addresses.is_empty() {
        let why = match pods.iter().all(|pod| pod.host_network) {
            true => "uses the host's network: ask about its node's address",
            false => "has finished and owns no address",
        };
        bail!("{text} {why}");
    }
    Ok(of(addresses, pods.iter().map(|p| p.key.clone()).collect()))
}

fn service_end(world: &World, text: &str, namespace: &str, name: &str) -> anyhow::Result<End> {
    if !world.services.contains_key(&(namespace.into(), name.into())) {
        let known: Vec<String> =
            world.services.keys().map(|(space, name)| format!("{space}/{name}")).collect();
        let hint = nearest::did_you_mean(&format!("{namespace}/{name}"), known.iter().map(String::as_str));
        bail!("no Service {namespace}/{name} is known{hint}");
    }
    let backends = crate::input::backends(world, namespace, name, |_, _, _| true);
    let addresses: BTreeSet<IpAddr> = backends.iter().map(|b| b.address).collect();
    let pods: BTreeSet<PodKey> = addresses.iter().flat_map(|a| owners(world, *a)).collect();
    Ok(End {
        name: text.into(),
        addresses: addresses.into_iter().collect(),
        pods: pods.into_iter().collect(),
        service: Some((namespace.to_owned(), name.to_owned())),
    })
}

/// Addresses that stand for all of a CIDR: those of pods and nodes in it, and one for each different way in which the
/// CIDRs of policies and sets hold the others.
fn parts_of(world: &World, cidr: Cidr) -> Vec<IpAddr> {
    let space = AddrSet::from_cidrs([cidr]);
    let pods = world.pods.values().flat_map(|p| p.live_addresses());
    let nodes = world.nodes.values().flat_map(|n| &n.addresses);
    let known: BTreeSet<IpAddr> = pods.chain(nodes).copied().filter(|a| cidr.contains(*a)).collect();
    let mut named: BTreeSet<Cidr> = world.sets.values().flat_map(|s| s.nets.iter().copied()).collect();
    for policy in world.policies.values() {
        for rule in [&policy.ingress, &policy.egress].into_iter().flatten().flatten() {
            named.extend(rule.body.cidrs());
        }
    }
    let sets: Vec<AddrSet> =
        named.into_iter().map(|c| AddrSet::from_cidrs([c])).filter(|set| set.intersects(&space)).collect();
    let rest = space.subtract(&AddrSet::from_cidrs(known.iter().map(|a| Cidr::host(*a))));
    let mut addresses: Vec<IpAddr> = known.into_iter().collect();
    addresses.extend(distinct(rest, &sets));
    addresses
}

fn owners(world: &World, address: IpAddr) -> Vec<PodKey> {
    world.pods.values().filter(|p| p.live_addresses().contains(&address)).map(|p| p.key.clone()).collect()
}

/// A workload's pod: by owner (`Deployment web`), or the template itself (`deployment/web`).
fn is_of(pod: &Pod, namespace: &str, kind: &str, name: &str) -> bool {
    let kind = full_kind(&kind.to_lowercase());
    let template = format!("{kind}/{name}");
    *pod.key.namespace == *namespace
        && (pod.key.name.to_lowercase() == template
            || (kind == "pod" && *pod.key.name == *name)
            || pod.workload.as_deref().is_some_and(|w| {
                let mut words = w.split([' ', '/']);
                words.next().is_some_and(|k| k.eq_ignore_ascii_case(&kind)) && words.next_back() == Some(name)
            }))
}

/// How questions can name a pod: itself, and the workload that it is of.
fn names_of(pod: &Pod) -> Vec<String> {
    let workload = pod.workload.as_deref().and_then(|workload| workload.split_once(' '));
    let workload = workload.map(|(kind, name)| {
        let name = name.rsplit('/').next().unwrap_or(name);
        format!("{}/{}/{name}", pod.key.namespace, kind.to_lowercase())
    });
    [pod.key.to_string()].into_iter().chain(workload).collect()
}

/// The kind that kubectl's short and plural names mean.
fn full_kind(kind: &str) -> String {
    match kind {
        "deploy" => "deployment",
        "sts" => "statefulset",
        "ds" => "daemonset",
        "rs" => "replicaset",
        "rc" => "replicationcontroller",
        "cj" => "cronjob",
        "po" => "pod",
        other => other.strip_suffix('s').unwrap_or(other),
    }
    .to_owned()
}

/// What may have been meant: the same name elsewhere, else what is written almost like it.
fn nearest(world: &World, text: &str) -> String {
    let name = text.rsplit('/').next().unwrap_or(text);
    let same = world.pods.values().find(|p| {
        let workload = p.workload.as_deref().and_then(|w| w.rsplit('/').next());
        *p.key.name == *name || workload == Some(name)
    });
    match same {
        Some(pod) => format!("; did you mean {}?", pod.key),
        None if world.pods.is_empty() => "; no pods and no workloads were read".into(),
        None => {
            let names: Vec<String> = world.pods.values().flat_map(names_of).collect();
            nearest::did_you_mean(text, names.iter().map(String::as_str))
        }
    }
}

/// `TCP`, `icmpv6`, `47`.
pub(crate) fn protocol(text: &str) -> anyhow::Result<Protocol> {
    let upper = if text.eq_ignore_ascii_case("icmpv6") { "ICMPv6".to_owned() } else { text.to_uppercase() };
    upper.parse::<Protocol>().with_context(|| format!("{text:?} is no protocol"))
}

/// `80/TCP`, `53/UDP`, `8080`, `ICMP`, `47`: protocol and destination port.
pub(crate) fn protocol_and_port(text: &str) -> anyhow::Result<(Protocol, Option<u16>)> {
    let (port, protocol) = match text.split_once('/') {
        Some((port, name)) => (Some(port), protocol(name)?),
        None if text.parse::<u16>().is_ok_and(|n| n > 255) => (Some(text), Protocol::TCP),
        None => match protocol(text) {
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
