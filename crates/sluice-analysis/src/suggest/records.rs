//! The tightest policies that allow what was observed.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use sluice_addr::{Cidr, Family, Flow, PortRange, PortSet, Protocol, Transport, parse_ip};
use sluice_model::{Action, Pod, PodKey, World};
use sluice_report::FlowQuestion;

use super::advice::{Advice, Work};
use super::draft::{Draft, DraftRule, Form, Peer, Ports};
use super::opening::object_name;
use super::surroundings::{backend_ports, backends, dns};
use super::workload::{Named, name_of, named, short_name, siblings};
use crate::snapshot::{Place, Snapshot};

/// How records become policies.
#[derive(Clone, Debug, PartialEq)]
pub struct RecordOptions {
    /// Every workload may resolve names, observed or not.
    pub dns: bool,
    /// An outside address in one of these is written as the block, not as itself.
    pub outside: Vec<Cidr>,
}

impl Default for RecordOptions {
    fn default() -> Self {
        RecordOptions { dns: true, outside: Vec::new() }
    }
}

/// More notes of one kind than these are counted, not listed.
const LISTED: usize = 10;

/// One end of a record.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    /// A workload, by name.
    Workload(String),
    Block(Cidr),
}

/// The pods of each workload, by its name.
type ByName<'w> = BTreeMap<String, Vec<&'w Pod>>;

/// What was seen of a workload.
#[derive(Default)]
struct Seen {
    pods: Vec<PodKey>,
    ingress: BTreeMap<End, BTreeSet<Ports>>,
    egress: BTreeMap<End, BTreeSet<Ports>>,
}

/// One Kubernetes NetworkPolicy for each workload that occurs in the records: both directions isolated, and allowed exactly
/// what was observed (and names). Ends are `namespace/pod`, `namespace/kind/name`, an address or a CIDR; a Service stands for
/// the pods behind it.
pub fn suggest_from_records(
    snapshot: &Snapshot,
    records: &[FlowQuestion],
    options: &RecordOptions,
) -> Advice {
    let world = snapshot.world();
    let mut workloads: BTreeMap<String, Seen> = BTreeMap::new();
    let mut notes = Notes::default();
    let mut expected: Vec<Flow> = Vec::new();
    for (n, record) in records.iter().enumerate() {
        let line = n + 1;
        let read = Observed::read(snapshot, record, options);
        let observed = match read {
            Ok(observed) => observed,
            Err(problem) => {
                notes.add(format!("record {line} is left out: {problem}"));
                continue;
            }
        };
        if let Some(assumed) = &observed.assumed {
            notes.add(assumed.clone());
        }
        for (from, to, ports) in observed.connections() {
            for (end, pods) in [from, to].into_iter().filter(|(_, pods)| !pods.is_empty()) {
                if let End::Workload(name) = end {
                    let seen = workloads.entry(name.clone()).or_default();
                    seen.pods = pods.iter().map(|pod| pod.key.clone()).collect();
                }
            }
            if let (End::Workload(name), true) = (&from.0, !from.1.is_empty()) {
                workloads
                    .entry(name.clone())
                    .or_default()
                    .egress
                    .entry(to.0.clone())
                    .or_default()
                    .insert(ports.clone());
            }
            if let (End::Workload(name), true) = (&to.0, !to.1.is_empty()) {
                workloads
                    .entry(name.clone())
                    .or_default()
                    .ingress
                    .entry(from.0.clone())
                    .or_default()
                    .insert(ports.clone());
            }
            expected.extend(example(&from.1, &from.0, &to.1, &to.0, ports));
        }
    }
    if workloads.is_empty() {
        let mut advice = Advice::none("no record names a workload that policies can select");
        advice.notes.extend(notes.listed());
        return advice;
    }
    let mut work = Work::new(snapshot);
    let mut by_name: ByName<'_> = BTreeMap::new();
    for pod in world.pods.values().filter(|pod| !pod.host_network) {
        by_name.entry(name_of(pod)).or_default().push(pod);
    }
    for (name, seen) in &workloads {
        write(&mut work, &by_name, name, seen, options);
    }
    let after = work.snapshot();
    for flow in &expected {
        if !allowed(&after, flow) {
            notes.add(format!("{flow} was observed and is denied by another policy even so"));
        }
    }
    let count = work.policies.len();
    let explanation =
        format!("allows what {} records show, by {count} workloads; nothing else", records.len());
    Advice { alternatives: vec![work.finish_with(&after, explanation)], notes: notes.listed() }
}

#[derive(Default)]
struct Notes(Vec<String>);

impl Notes {
    fn add(&mut self, note: String) {
        if !self.0.contains(&note) {
            self.0.push(note);
        }
    }

    fn listed(mut self) -> Vec<String> {
        let more = self.0.len().saturating_sub(LISTED);
        self.0.truncate(LISTED);
        if more > 0 {
            self.0.push(format!("and {more} more of these"));
        }
        self.0
    }
}

type Side<'w> = (End, Vec<&'w Pod>);

/// A record whose ends are known.
struct Observed<'w> {
    from: Vec<Side<'w>>,
    /// Destinations, each with the port that policy sees there.
    to: Vec<(Side<'w>, Ports)>,
    /// What had to be assumed about a Service.
    assumed: Option<String>,
}

impl<'w> Observed<'w> {
    fn read(snapshot: &'w Snapshot, record: &FlowQuestion, options: &RecordOptions) -> Result<Self, String> {
        let world = snapshot.world();
        let protocol: Protocol =
            record.protocol.parse().map_err(|_| format!("{:?} is no protocol", record.protocol))?;
        if ![Protocol::TCP, Protocol::UDP, Protocol::SCTP].contains(&protocol) {
            return Err(format!("a Kubernetes NetworkPolicy cannot name {protocol}"));
        }
        let port = record.port.filter(|port| *port > 0);
        let port = port.ok_or_else(|| format!("{protocol} needs a port above 0"))?;
        let ports = |port| Ports::new(protocol, Some(PortRange::single(port)));
        let from = sides(snapshot, &record.from, options)?;
        if let Some(service) = service_named(world, &record.to) {
            let pods = backends(world, &service.namespace, &service.name);
            let known = backend_ports(world, service, protocol, port).ok_or_else(|| {
                format!("Service {}/{} has no port {port}/{protocol}", service.namespace, service.name)
            })?;
            let sides = by_workload(world, &pods);
            if sides.is_empty() {
                return Err(format!("no pod is behind Service {}/{}", service.namespace, service.name));
            }
            let numbers = &known.numbers;
            let to = sides.into_iter().flat_map(|side| numbers.iter().map(move |n| (side.clone(), *n)));
            let assumed = known.assumed.clone();
            return Ok(Observed {
                assumed,
                from,
                to: to.map(|(side, number)| (side, ports(number))).collect(),
            });
        }
        let to = sides(snapshot, &record.to, options)?;
        let to = to.into_iter().map(|side| (side, ports(port))).collect();
        Ok(Observed { from, to, assumed: None })
    }

    fn connections(&self) -> impl Iterator<Item = (&Side<'w>, &Side<'w>, Ports)> {
        self.from.iter().flat_map(|from| self.to.iter().map(move |(to, ports)| (from, to, ports.clone())))
    }
}

/// A Service by one of its addresses, or as `namespace/service/name`.
fn service_named<'w>(world: &'w World, text: &str) -> Option<&'w sluice_model::Service> {
    if let Ok(address) = parse_ip(text) {
        return world.services.values().find(|service| service.cluster_ips.contains(&address));
    }
    match text.split('/').collect::<Vec<_>>().as_slice() {
        [namespace, kind, name] if matches!(kind.to_lowercase().as_str(), "service" | "services" | "svc") => {
            world.services.get(&((*namespace).into(), (*name).into()))
        }
        _ => None,
    }
}

/// What an end of a record is.
fn sides<'w>(snapshot: &'w Snapshot, text: &str, options: &RecordOptions) -> Result<Vec<Side<'w>>, String> {
    let world = snapshot.world();
    if let Ok(cidr) = text.parse::<Cidr>()
        && text.contains('/')
    {
        return Ok(vec![(End::Block(cidr), Vec::new())]);
    }
    if let Ok(address) = parse_ip(text) {
        if let Some(pod) = super::flow::owner(snapshot, address) {
            return Ok(by_workload(world, &[pod]));
        }
        let block = options.outside.iter().find(|cidr| cidr.contains(address));
        return Ok(vec![(End::Block(block.copied().unwrap_or(Cidr::host(address))), Vec::new())]);
    }
    let wanted = text.to_lowercase();
    let exact: Vec<&Pod> = world
        .pods
        .values()
        .filter(|pod| pod.key.to_string().to_lowercase() == wanted || name_of(pod).to_lowercase() == wanted)
        .collect();
    let found = if exact.is_empty() { former(world, text) } else { exact };
    if found.is_empty() {
        return Err(format!("no pod or workload {text:?} is known"));
    }
    Ok(by_workload(world, &found))
}

/// The workload of a pod that is gone: its name is the workload's and one or two random words.
fn former<'w>(world: &'w World, text: &str) -> Vec<&'w Pod> {
    let Some((namespace, mut name)) = text.split_once('/') else { return Vec::new() };
    for _ in 0..2 {
        let Some((shorter, _)) = name.rsplit_once('-') else { break };
        name = shorter;
        let pods = super::workload::of_namespace(world, &namespace.into());
        let found: Vec<&Pod> = pods.filter(|pod| pod.workload.is_some() && short_name(pod) == name).collect();
        if !found.is_empty() {
            return found;
        }
    }
    Vec::new()
}

/// Pods by workload, each with all its pods. Pods of the host's network are their nodes.
fn by_workload<'w>(world: &'w World, pods: &[&'w Pod]) -> Vec<Side<'w>> {
    let mut sides: BTreeMap<End, Vec<&Pod>> = BTreeMap::new();
    for pod in pods {
        if pod.host_network {
            for address in &pod.addresses {
                sides.insert(End::Block(Cidr::host(*address)), Vec::new());
            }
        } else {
            sides.insert(End::Workload(name_of(pod)), siblings(world, pod));
        }
    }
    sides.into_iter().collect()
}

/// A flow that the policies must allow.
fn example(from_pods: &[&Pod], from: &End, to_pods: &[&Pod], to: &End, ports: Ports) -> Option<Flow> {
    let addresses = |pods: &[&Pod], end: &End| -> Vec<IpAddr> {
        match end {
            End::Block(cidr) => vec![cidr.first()],
            End::Workload(_) => pods.iter().flat_map(|pod| pod.live_addresses().iter().copied()).collect(),
        }
    };
    let targets = addresses(to_pods, to);
    let pair = addresses(from_pods, from).into_iter().find_map(|source| {
        let same = |target: &&IpAddr| Family::of(**target) == Family::of(source) && **target != source;
        Some((source, *targets.iter().find(same)?))
    });
    let (source, destination) = pair?;
    let transport = Transport::Ports {
        protocol: ports.protocol,
        source: 40_000,
        destination: ports.range.map_or(1, PortRange::first),
    };
    Some(Flow { source, destination, transport })
}

fn allowed(snapshot: &Snapshot, flow: &Flow) -> bool {
    let place = |address| Place { name: String::new(), address, pod: None };
    snapshot.allowed(&place(flow.source), &place(flow.destination)).contains(&flow.transport)
}

fn write(work: &mut Work<'_>, by_name: &ByName<'_>, name: &str, seen: &Seen, options: &RecordOptions) {
    let world = work.before.world();
    let pods: Vec<&Pod> = seen.pods.iter().filter_map(|key| world.pods.get(key)).collect();
    let Some(first) = pods.first() else { return };
    let Named { set: subject, besides } = named(world, &pods);
    if !besides.is_empty() {
        let others: Vec<String> = besides.iter().take(3).map(ToString::to_string).collect();
        work.warn(format!(
            "no label tells {name} from {}: its policy isolates them too, with what {name} needs",
            others.join(", ")
        ));
    }
    let ingress = rules(world, by_name, &seen.ingress);
    let mut egress = rules(world, by_name, &seen.egress);
    if options.dns {
        let dns = dns(world);
        if !dns.found {
            work.warn("no DNS Service is among the objects; kube-dns in kube-system is assumed".into());
        }
        let rule = DraftRule { action: Action::Allow, peers: Some(dns.peers), ports: Some(dns.ports) };
        if !egress.contains(&rule) {
            egress.push(rule);
        }
    }
    let mut draft = Draft {
        form: Form::Kubernetes,
        name: object_name(&[&short_name(first), "observed"]),
        subject,
        ingress: Some(ingress),
        egress: Some(egress),
    };
    work.free_name(&mut draft);
    if let Some(policy) = draft.policy() {
        work.accept(policy, format!("what {name} was seen to do"), &[]);
    }
}

/// Rules that allow what was seen: peers with the same ports share one, ports that follow each other are a range.
fn rules(world: &World, by_name: &ByName<'_>, seen: &BTreeMap<End, BTreeSet<Ports>>) -> Vec<DraftRule> {
    let mut by_ports: BTreeMap<Vec<Ports>, Vec<Peer>> = BTreeMap::new();
    for (end, ports) in seen {
        let peer = match end {
            End::Block(cidr) => Peer::Block { cidr: *cidr, except: Vec::new() },
            End::Workload(name) => {
                let Some(pods) = by_name.get(name) else { continue };
                Peer::Pods(named(world, pods).set)
            }
        };
        let peers = by_ports.entry(ranges(ports)).or_default();
        if !peers.contains(&peer) {
            peers.push(peer);
        }
    }
    let rule = |(ports, peers)| DraftRule { action: Action::Allow, peers: Some(peers), ports: Some(ports) };
    by_ports.into_iter().map(rule).collect()
}

fn ranges(ports: &BTreeSet<Ports>) -> Vec<Ports> {
    let mut by_protocol: BTreeMap<Protocol, PortSet> = BTreeMap::new();
    for one in ports {
        let own = by_protocol.entry(one.protocol).or_default();
        *own = own.union(&PortSet::from_iter(one.range));
    }
    let each = |(protocol, set): (Protocol, PortSet)| {
        set.iter().map(|range| Ports::new(protocol, Some(range))).collect::<Vec<_>>()
    };
    by_protocol.into_iter().flat_map(each).collect()
}
