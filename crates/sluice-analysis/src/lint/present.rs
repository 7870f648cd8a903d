//! What is there now: the pods by address and label, and all other addresses as far as anything tells them apart.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{AddrRange, BitSet, Cidr, Family, Protocol};
use sluice_model::{
    Action, DomainPattern, EntityRule, HostEndpoint, NamespaceScope, Pod, Policy, Service,
    ServiceAccountMatch, Subject, World,
};
use sluice_selector::{LabelSelector, Labels, Selector};

use super::labels::LabelIndex;
use crate::fast::{FastMap, FastSet};
use crate::snapshot::next;

/// One address of a pod, or a pod that has none yet.
pub(super) struct End<'w> {
    pub(super) pod: &'w Pod,
    pub(super) address: Option<IpAddr>,
}

/// An entity of Calico selectors that is no pod.
struct Other<'w> {
    namespace: &'w str,
    labels: Labels,
    points: BitSet,
}

/// The present state, numbered. A *point* is the other side of a connection: first the ends of pods, then ranges of all
/// other addresses that no policy splits.
pub(super) struct Present<'w> {
    pub(super) world: &'w World,
    pub(super) ends: Vec<End<'w>>,
    /// A number for the pod of each end.
    pod_of: Vec<u32>,
    /// The ends that are not the first of their pod.
    further: BitSet,
    pub(super) ranges: Vec<AddrRange>,
    /// Points per family; a pod without an address is in both.
    families: [BitSet; 2],
    by_namespace: HashMap<&'w str, BitSet>,
    by_address: Vec<(IpAddr, usize)>,
    /// The ends of an address that several live pods claim (semantics 1.9).
    pub(super) contested: BTreeMap<IpAddr, BitSet>,
    pub(super) pods: LabelIndex,
    /// Ends by the labels of their namespace.
    pub(super) namespaces: LabelIndex,
    /// Ends by the labels that Calico selectors see (semantics 1.4); empty if no policy has one.
    pub(super) calico: LabelIndex,
    others: Vec<Other<'w>>,
    hosts: Vec<(&'w HostEndpoint, Labels)>,
    /// The ends that declare a port of a name, by what it is there (semantics 1.8).
    pub(super) named_ports: HashMap<&'w str, BTreeMap<(Protocol, u16), BitSet>>,
    cidrs: RefCell<HashMap<Cidr, BitSet>>,
}

impl<'w> Present<'w> {
    /// Numbers the world.
    pub(super) fn new(world: &'w World, policies: &[Arc<Policy>], besides: &[IpAddr]) -> Self {
        let (ends, contested) = ends(world);
        let mut by_address: Vec<(IpAddr, usize)> =
            ends.iter().enumerate().filter_map(|(n, end)| Some((end.address?, n))).collect();
        by_address.sort_unstable();
        let ranges = ranges(world, policies, &by_address, besides);
        let mut pod_of: Vec<u32> = Vec::with_capacity(ends.len());
        let mut further = BitSet::new();
        for (number, end) in ends.iter().enumerate() {
            let is_further = number > 0 && std::ptr::eq(ends[number - 1].pod, end.pod);
            further.extend(is_further.then_some(number));
            pod_of.push(pod_of.last().map_or(0, |last| last + u32::from(!is_further)));
        }
        let mut present = Present {
            world,
            pod_of,
            further,
            families: [BitSet::new(), BitSet::new()],
            by_namespace: HashMap::new(),
            pods: LabelIndex::default(),
            namespaces: LabelIndex::default(),
            calico: LabelIndex::default(),
            others: Vec::new(),
            hosts: world.host_endpoints.values().map(|host| (host, world.calico_host_labels(host))).collect(),
            named_ports: HashMap::new(),
            cidrs: RefCell::default(),
            ends,
            ranges,
            by_address,
            contested,
        };
        present.index(policies);
        present.others();
        present
    }

    fn index(&mut self, policies: &[Arc<Policy>]) {
        let is_calico = |policy: &Policy| matches!(policy.subject, Subject::Calico { .. });
        let with_calico = policies.iter().any(|policy| is_calico(policy));
        for (number, end) in self.ends.iter().enumerate() {
            for port in &end.pod.named_ports {
                let named = self.named_ports.entry(&port.name).or_default();
                named.entry((port.protocol, port.port)).or_default().insert(number);
            }
            self.by_namespace.entry(&end.pod.key.namespace).or_default().insert(number);
            for family in Family::BOTH {
                if end.address.is_none_or(|address| Family::of(address) == family) {
                    self.families[family as usize].insert(number);
                }
            }
        }
        // replicas stand together and look alike
        for alike in runs(&self.ends, |a, b| a.labels == b.labels) {
            self.pods.add_all(&alike, &self.ends[alike.start].pod.labels);
        }
        let sees_same = |a: &Pod, b: &Pod| {
            a.key.namespace == b.key.namespace
                && a.service_account == b.service_account
                && a.labels == b.labels
        };
        for alike in runs(&self.ends, sees_same).filter(|_| with_calico) {
            let labels = self.world.calico_labels(self.ends[alike.start].pod);
            self.calico.add_all(&alike, &labels);
        }
        for (namespace, ends) in &self.by_namespace {
            self.namespaces.add_set(ends, &self.world.namespace_labels(namespace));
        }
        for (number, range) in self.ranges.iter().enumerate() {
            self.families[range.family() as usize].insert(self.ends.len() + number);
        }
    }

    fn others(&mut self) {
        let points = |cidrs: &mut dyn Iterator<Item = Cidr>| {
            cidrs.fold(BitSet::new(), |mut all, cidr| {
                all.or_with(&self.cidr(cidr));
                all
            })
        };
        let mut others: Vec<Other<'w>> = Vec::new();
        for set in self.world.sets.values() {
            others.push(Other {
                namespace: &set.namespace,
                labels: self.world.calico_set_labels(set),
                points: points(&mut set.nets.iter().copied()),
            });
        }
        for host in self.world.host_endpoints.values() {
            others.push(Other {
                namespace: "",
                labels: self.world.calico_host_labels(host),
                points: points(&mut host.expected_addresses.iter().copied().map(Cidr::host)),
            });
        }
        self.others = others;
    }

    /// Every point.
    pub(super) fn everywhere(&self) -> BitSet {
        BitSet::below(self.ends.len() + self.ranges.len())
    }

    /// The points of one family.
    pub(super) fn family(&self, family: Family) -> &BitSet {
        &self.families[family as usize]
    }

    /// The ends of a namespace's pods.
    pub(super) fn namespace(&self, name: &str) -> BitSet {
        self.by_namespace.get(name).cloned().unwrap_or_default()
    }

    /// The ends of pods, without the ranges.
    pub(super) fn only_pods(&self, points: &BitSet) -> BitSet {
        points.and(&BitSet::below(self.ends.len()))
    }

    /// The ranges among points.
    pub(super) fn only_ranges<'s>(&'s self, points: &'s BitSet) -> impl Iterator<Item = AddrRange> + 's {
        points.iter().filter_map(|point| self.ranges.get(point.checked_sub(self.ends.len())?)).copied()
    }

    /// The points in a CIDR, whoever owns them (semantics 1.3).
    pub(super) fn cidr(&self, cidr: Cidr) -> BitSet {
        if let Some(points) = self.cidrs.borrow().get(&cidr) {
            return points.clone();
        }
        let low = self.by_address.partition_point(|(address, _)| *address < cidr.first());
        let owned = self.by_address[low..].iter().take_while(|(address, _)| cidr.contains(*address));
        let mut owned: Vec<usize> = owned.map(|(_, end)| *end).collect();
        owned.sort_unstable();
        let low = self.ranges.partition_point(|range| range.first() < cidr.first());
        let free = self.ranges[low..].iter().take_while(|range| cidr.contains(range.last()));
        owned.extend((low..low + free.count()).map(|n| self.ends.len() + n));
        let points = BitSet::from_iter(owned);
        self.cidrs.borrow_mut().insert(cidr, points.clone());
        points
    }

    /// The points in any of the CIDRs.
    pub(super) fn any_cidr(&self, cidrs: &[Cidr]) -> BitSet {
        cidrs.iter().fold(BitSet::new(), |mut all, cidr| {
            all.or_with(&self.cidr(*cidr));
            all
        })
    }

    /// The point of one address, if it is told apart.
    pub(super) fn address(&self, address: IpAddr) -> BitSet {
        self.cidr(Cidr::host(address))
    }

    /// Pods that match a Kubernetes peer or subject; without `namespaces` those of `own`.
    pub(super) fn labelled(
        &self,
        own: &str,
        namespaces: Option<&LabelSelector>,
        pods: Option<&LabelSelector>,
    ) -> BitSet {
        let mut matched = match namespaces {
            Some(selector) => self.namespaces.matching(selector),
            None => self.namespace(own),
        };
        if let Some(selector) = pods.filter(|selector| !selector.is_all() && !matched.is_empty()) {
            matched.and_with(&self.pods.matching(selector));
        }
        matched
    }

    /// The ends that a policy's subject selects (semantics 2.1, 3.2, 4). A contested address has the policies of every
    /// claimant.
    pub(super) fn subject(&self, policy: &Policy) -> BitSet {
        let own = &policy.key.namespace;
        let mut matched = match &policy.subject {
            Subject::Kubernetes(selector) => self.labelled(own, None, Some(selector)),
            Subject::Cluster { namespaces, pods } => self.labelled("", Some(namespaces), pods.as_ref()),
            Subject::Calico { selector, namespace_selector, service_account_selector } => {
                let mut matched = self.calico.selected(selector);
                for (selector, prefix) in [(namespace_selector, "pcns."), (service_account_selector, "pcsa.")]
                {
                    if let Some(selector) = selector {
                        matched.and_with(&self.calico.selected(&selector.with_key_prefix(prefix)));
                    }
                }
                matched
            }
        };
        if !own.is_empty() && matches!(policy.subject, Subject::Calico { .. }) {
            matched.and_with(&self.namespace(own));
        }
        matched
    }

    /// The host endpoints that a policy's subject selects (semantics 3.2).
    pub(super) fn hosts(&self, policy: &Policy) -> Vec<&'w HostEndpoint> {
        match &policy.subject {
            Subject::Calico { selector, namespace_selector: None, service_account_selector: None }
                if policy.key.namespace.is_empty() =>
            {
                let selected = self.hosts.iter().filter(|(_, labels)| selector.matches(labels));
                selected.map(|(host, _)| *host).collect()
            }
            _ => Vec::new(),
        }
    }

    /// A criterion that looks at entities, on contested addresses as semantics 1.9 has it.
    pub(super) fn judged(&self, action: Action, mut points: BitSet) -> BitSet {
        for claimants in self.contested.values() {
            let holds = action == Action::Deny && points.intersects(claimants);
            points.andnot_with(claimants);
            if holds {
                points.or_with(claimants);
            }
        }
        points
    }

    /// The points that the selectors of one side of a Calico rule match (semantics 3.4), without its `nets`.
    pub(super) fn side(&self, policy: &Policy, action: Action, side: &EntityRule) -> BitSet {
        let EntityRule { selector, not_selector, namespace_selector, service_accounts, .. } = side;
        let own = &policy.key.namespace;
        let has_some = selector.is_some() || not_selector.is_some() || service_accounts.is_some();
        let positive = namespace_selector.is_some()
            || selector.is_some()
            || service_accounts.is_some()
            || (!own.is_empty() && not_selector.is_some());
        if !positive {
            let Some(unwanted) = not_selector else { return self.everywhere() };
            let known = self
                .calico
                .selected(unwanted)
                .or(&self.other_points(|other| unwanted.matches(&other.labels)));
            return self.judged(action, self.everywhere().andnot(&known));
        }
        let in_scope = |namespace: &str, labels: &Labels| match namespace_selector {
            Some(NamespaceScope::Global) => namespace.is_empty(),
            Some(NamespaceScope::Matching(wanted)) => {
                !namespace.is_empty() && wanted.with_key_prefix("pcns.").matches(labels)
            }
            None => own.is_empty() || !has_some || *namespace == **own,
        };
        let mut pods = match namespace_selector {
            Some(NamespaceScope::Global) => BitSet::new(),
            Some(NamespaceScope::Matching(wanted)) => self.calico.selected(&wanted.with_key_prefix("pcns.")),
            None if !own.is_empty() && has_some => self.namespace(own),
            None => BitSet::below(self.ends.len()),
        };
        if let Some(wanted) = selector {
            pods.and_with(&self.calico.selected(wanted));
        }
        if let Some(unwanted) = not_selector {
            pods.andnot_with(&self.calico.selected(unwanted));
        }
        if let Some(accounts) = service_accounts {
            pods.and_with(&self.accounts(accounts));
        }
        let others = self.other_points(|other| {
            in_scope(other.namespace, &other.labels)
                && selector.as_ref().is_none_or(|wanted| wanted.matches(&other.labels))
                && service_accounts.is_none()
                && !not_selector.as_ref().is_some_and(|unwanted| unwanted.matches(&other.labels))
        });
        self.judged(action, pods.or(&others))
    }

    fn accounts(&self, accounts: &ServiceAccountMatch) -> BitSet {
        let key: Arc<str> = "projectcalico.org/serviceaccount".into();
        let named = match accounts.names.is_empty() {
            true => Selector::All,
            false => Selector::In(key, accounts.names.iter().cloned().collect()),
        };
        let mut matched = self.calico.selected(&named);
        if let Some(selector) = &accounts.selector {
            matched.and_with(&self.calico.selected(&selector.with_key_prefix("pcsa.")));
        }
        matched
    }

    fn other_points(&self, holds: impl Fn(&Other<'_>) -> bool) -> BitSet {
        self.others.iter().filter(|other| holds(other)).fold(BitSet::new(), |mut all, other| {
            all.or_with(&other.points);
            all
        })
    }

    /// The addresses of matching nodes (semantics 4, `nodes`).
    pub(super) fn nodes(&self, selector: &LabelSelector) -> BitSet {
        let nodes = self.world.nodes.values().filter(|node| selector.matches(&node.labels));
        nodes.flat_map(|node| node.status_addresses()).fold(BitSet::new(), |mut all, address| {
            all.or_with(&self.address(address));
            all
        })
    }

    /// The addresses that DNS gave for names.
    pub(super) fn names(&self, patterns: &[DomainPattern]) -> BitSet {
        let names = self.world.names.values();
        let meant = names.filter(|name| patterns.iter().any(|pattern| pattern.matches(&name.name)));
        meant.flat_map(|name| &name.addresses).fold(BitSet::new(), |mut all, address| {
            all.or_with(&self.address(*address));
            all
        })
    }

    /// The pods behind a Service: by its EndpointSlices, else by its selector.
    pub(super) fn backends(&self, service: &Service) -> BitSet {
        let slices = self.world.slices.values();
        let own: Vec<_> =
            slices.filter(|s| s.namespace == service.namespace && s.service == service.name).collect();
        if own.is_empty() {
            if service.selector.is_empty() {
                return BitSet::new();
            }
            return self.labelled(
                &service.namespace,
                None,
                Some(&LabelSelector::of(
                    service.selector.iter().map(|(key, value)| (Arc::from(key), Arc::from(value))),
                )),
            );
        }
        let addresses =
            own.iter().flat_map(|slice| &slice.endpoints).flat_map(|endpoint| &endpoint.addresses);
        let points = addresses.fold(BitSet::new(), |mut all, address| {
            all.or_with(&self.address(*address));
            all
        });
        self.only_pods(&points)
    }

    /// The pods of ends, each once, in order.
    pub(super) fn pods_of(&self, ends: &BitSet) -> Vec<&'w Pod> {
        let mut pods: Vec<&Pod> = ends.iter().filter_map(|n| self.ends.get(n)).map(|end| end.pod).collect();
        pods.dedup_by(|a, b| a.key == b.key);
        pods
    }

    /// `3 pods (web/a, web/b, …)`.
    pub(super) fn describe(&self, ends: &BitSet) -> String {
        const NAMED: usize = 2;
        let mut pods: Vec<&Pod> = Vec::new();
        let own = ends.iter().map_while(|n| self.ends.get(n)).map(|end| end.pod);
        for pod in own {
            if pods.last().is_none_or(|last| last.key != pod.key) {
                pods.push(pod);
            }
            if pods.len() > NAMED {
                break;
            }
        }
        let count = self.count_pods(ends);
        let names: Vec<String> = pods.iter().take(NAMED).map(|pod| pod.key.to_string()).collect();
        let (more, plural) = (if count > NAMED { ", …" } else { "" }, if count == 1 { "" } else { "s" });
        format!("{count} pod{plural} ({}{more})", names.join(", "))
    }

    /// All ends of the pods that have some of these.
    pub(super) fn whole_pods(&self, ends: &BitSet) -> BitSet {
        if self.further.is_empty() {
            return ends.clone();
        }
        let is_of = |a: usize, b: usize| self.pod_of[a] == self.pod_of[b];
        let around = |end: usize| {
            let low = (0..end).rev().take_while(move |other| is_of(*other, end));
            let high = (end..self.ends.len()).take_while(move |other| is_of(*other, end));
            low.chain(high)
        };
        ends.iter().flat_map(around).collect()
    }

    /// How many pods have some of these ends.
    pub(super) fn count_pods(&self, ends: &BitSet) -> usize {
        let ends = self.only_pods(ends);
        let later = ends.and(&self.further);
        let is_counted = |end: &usize| {
            let mut before = (0..*end).rev().take_while(|other| self.pod_of[*other] == self.pod_of[*end]);
            before.any(|other| ends.contains(other))
        };
        ends.len() - later.iter().filter(is_counted).count()
    }
}

/// Neighbours that are alike, as ranges of ends.
fn runs<'e>(
    ends: &'e [End<'_>],
    is_like: impl Fn(&Pod, &Pod) -> bool + 'e,
) -> impl Iterator<Item = std::ops::Range<usize>> + 'e {
    let mut start = 0;
    ends.chunk_by(move |a, b| is_like(a.pod, b.pod)).map(move |alike| {
        let run = start..start + alike.len();
        start = run.end;
        run
    })
}

/// The ends of live pods, by pod; and who contests an address.
fn ends(world: &World) -> (Vec<End<'_>>, BTreeMap<IpAddr, BitSet>) {
    let mut owned: Vec<IpAddr> = world.pods.values().flat_map(|pod| pod.live_addresses()).copied().collect();
    owned.sort_unstable();
    let shared: FastSet<IpAddr> =
        owned.windows(2).filter(|pair| pair[0] == pair[1]).map(|pair| pair[0]).collect();
    let mut claims: FastMap<IpAddr, Vec<&Pod>> = FastMap::default();
    for pod in world.pods.values().filter(|_| !shared.is_empty()) {
        for address in pod.live_addresses().iter().filter(|address| shared.contains(address)) {
            claims.entry(*address).or_default().push(pod);
        }
    }
    // a pod without deletionTimestamp wins over those with one (semantics 1.9)
    let is_lost = |pod: &Pod, address: &IpAddr| {
        pod.deleting && claims.get(address).is_some_and(|owners| owners.iter().any(|other| !other.deleting))
    };
    let mut ends = Vec::new();
    let mut contested: BTreeMap<IpAddr, BitSet> = BTreeMap::new();
    for pod in world.pods.values().filter(|pod| !pod.finished && !pod.host_network) {
        if pod.addresses.is_empty() {
            ends.push(End { pod, address: None });
        }
        let mut held: Vec<&IpAddr> = pod.addresses.iter().filter(|address| !is_lost(pod, address)).collect();
        held.sort_unstable();
        held.dedup();
        for address in held {
            let several = claims.get(address).is_some_and(|owners| {
                owners.len() > 1 && owners.iter().filter(|other| !is_lost(other, address)).count() > 1
            });
            if several {
                contested.entry(*address).or_default().insert(ends.len());
            }
            ends.push(End { pod, address: Some(*address) });
        }
    }
    (ends, contested)
}

/// The addresses that are no pod's, cut wherever anything in the world tells them apart.
fn ranges(
    world: &World,
    policies: &[Arc<Policy>],
    pods: &[(IpAddr, usize)],
    besides: &[IpAddr],
) -> Vec<AddrRange> {
    let rules = policies.iter().flat_map(|policy| [&policy.ingress, &policy.egress]).flatten().flatten();
    let mut cidrs: BTreeSet<Cidr> = BTreeSet::new();
    let mut hosts: Vec<IpAddr> = besides.to_vec();
    for rule in rules {
        cidrs.extend(rule.body.cidrs());
    }
    cidrs.extend(world.sets.values().flat_map(|set| set.nets.iter().copied()));
    hosts.extend(world.nodes.values().flat_map(|node| node.addresses.iter().copied()));
    hosts.extend(world.host_endpoints.values().flat_map(|host| host.expected_addresses.iter().copied()));
    hosts.extend(world.names.values().flat_map(|name| name.addresses.iter().copied()));
    let endpoints = world.slices.values().flat_map(|slice| &slice.endpoints);
    hosts.extend(endpoints.flat_map(|endpoint| endpoint.addresses.iter().copied()));
    let is_pod = |address: &IpAddr| pods.binary_search_by(|(known, _)| known.cmp(address)).is_ok();
    cidrs.extend(hosts.into_iter().filter(|address| !is_pod(address)).map(Cidr::host));
    split(&cidrs).into_iter().filter(|range| !is_full(range, pods)).collect()
}

/// All addresses of both families, cut at both ends of each CIDR.
fn split(cidrs: &BTreeSet<Cidr>) -> Vec<AddrRange> {
    let mut ranges = Vec::new();
    for family in Family::BOTH {
        let whole = Cidr::all(family);
        let own = cidrs.iter().filter(|cidr| cidr.family() == family);
        let mut firsts: Vec<IpAddr> = own
            .flat_map(|cidr| [Some(cidr.first()), next(cidr.last())])
            .flatten()
            .chain([whole.first()])
            .collect();
        firsts.sort_unstable();
        firsts.dedup();
        let mut last = whole.last();
        let start = ranges.len();
        for first in firsts.into_iter().rev() {
            ranges.push(AddrRange::new(first, last).expect("the addresses are of one family and ascend"));
            last = previous(first).unwrap_or(first);
        }
        ranges[start..].reverse();
    }
    ranges
}

fn previous(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(ip) => Some(u32::from(ip).checked_sub(1)?.to_be_bytes().into()),
        IpAddr::V6(ip) => Some(u128::from(ip).checked_sub(1)?.to_be_bytes().into()),
    }
}

/// Do pods own every address of the range?
fn is_full(range: &AddrRange, pods: &[(IpAddr, usize)]) -> bool {
    let low = pods.partition_point(|(address, _)| *address < range.first());
    let mut owned: Vec<IpAddr> = pods[low..]
        .iter()
        .map(|(address, _)| *address)
        .take_while(|address| *address <= range.last())
        .collect();
    owned.dedup();
    let size = match (range.first(), range.last()) {
        (IpAddr::V4(first), IpAddr::V4(last)) => u128::from(u32::from(last) - u32::from(first)),
        (IpAddr::V6(first), IpAddr::V6(last)) => u128::from(last) - u128::from(first),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
            unreachable!("a range is of one family")
        }
    };
    owned.len() as u128 > size
}
