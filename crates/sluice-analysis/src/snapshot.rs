//! The objects at one moment with the plan of the whole cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};

use sluice_addr::{AddrRange, AddrSet, Cidr, Family, Protocol};
use sluice_engine::{Engine, Scope};
use sluice_model::{Direction, ObjectDelta, PodKey, World};
use sluice_plan::{ClassId, Plan, Subject};

use crate::explain::Lookup;
use crate::future::Ground;
use crate::hosts::Spots;
use crate::passage::Memo;
use crate::portability::Reading;

/// The objects at one moment, compiled with every pod as a local endpoint.
pub struct Snapshot {
    world: World,
    plan: Plan,
    /// Who owns an address: one pod, or several that contest it (semantics 1.9).
    owners: BTreeMap<IpAddr, Vec<Owner>>,
    reading: Reading,
    /// A namespace that is not among the objects does not exist (semantics 3.7).
    namespaces_are_complete: bool,
    pub(crate) memo: Memo,
    inside: OnceLock<AddrSet>,
    ground: OnceLock<Box<Ground>>,
    lookup: OnceLock<Box<Lookup>>,
    pub(crate) spots: OnceLock<Box<Spots>>,
    /// Well-known addresses and ports, so that witnesses are packets that somebody answers.
    landmarks: Vec<IpAddr>,
    ports: Vec<(Protocol, u16)>,
    /// The same objects read as other enforcers read them.
    others: [OnceLock<Box<Snapshot>>; Reading::OTHERS.len()],
}

/// A pod that owns an address, and what applies to it there.
#[derive(Clone, Debug)]
pub(crate) struct Owner {
    pub(crate) pod: PodKey,
    pub(crate) node: Option<Arc<str>>,
    pub(crate) subject: Subject,
}

/// One end of a connection: an address, and what it is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// What it is called: `namespace/pod`, `node NAME`, `outside ADDRESS`.
    pub name: String,
    /// The address. For a range of outside addresses, one of them.
    pub address: IpAddr,
    /// The pod, if it is one.
    pub pod: Option<PodKey>,
}

impl Snapshot {
    /// Compiles the objects of files: a namespace that is not among them may exist all the same.
    pub fn new(world: World) -> Self {
        Self::read_as(world, Reading::LAW, false)
    }

    /// Compiles all objects of a live cluster: a namespace that is not among them does not exist, so that its pods have no
    /// profile that allows (semantics 3.7).
    pub fn of_cluster(world: World) -> Self {
        Self::read_as(world, Reading::LAW, true)
    }

    /// Compiles the objects as an enforcer with this reading does.
    fn read_as(world: World, reading: Reading, namespaces_are_complete: bool) -> Self {
        let read = reading.applied(&world);
        let engine = Engine::new(Scope::Cluster);
        let mut engine = if namespaces_are_complete { engine.with_complete_namespaces() } else { engine };
        for object in read.as_ref().unwrap_or(&world).objects() {
            engine.apply(ObjectDelta::Upsert(object));
        }
        engine.flush();
        let plan = engine.plan().clone();
        Snapshot { reading, namespaces_are_complete, ..Self::from_parts(world, plan) }
    }

    /// A snapshot of objects that are compiled already; `plan` has every pod as an endpoint.
    pub fn from_parts(world: World, plan: Plan) -> Self {
        let mut owners: BTreeMap<IpAddr, Vec<Owner>> = BTreeMap::new();
        for (key, endpoint) in &plan.endpoints {
            for (address, subject) in &endpoint.addresses {
                let owner = Owner { pod: key.clone(), node: endpoint.node.clone(), subject: *subject };
                owners.entry(*address).or_default().push(owner);
            }
        }
        let ports = [(Protocol::TCP, 22), (Protocol::TCP, 80), (Protocol::TCP, 8080), (Protocol::UDP, 53)];
        Snapshot {
            world,
            plan,
            owners,
            reading: Reading::LAW,
            namespaces_are_complete: false,
            memo: Memo::default(),
            inside: OnceLock::new(),
            ground: OnceLock::new(),
            lookup: OnceLock::new(),
            spots: OnceLock::new(),
            landmarks: Vec::new(),
            ports: ports.to_vec(),
            others: Default::default(),
        }
    }

    /// Prefers these outside addresses and destination ports for witnesses.
    pub fn with_landmarks(mut self, addresses: Vec<IpAddr>, ports: Vec<(Protocol, u16)>) -> Self {
        self.landmarks = addresses;
        self.ports = ports;
        self
    }

    /// Other objects under the same reading and with the same preferences.
    pub(crate) fn with_world(&self, world: World) -> Self {
        let other = Self::read_as(world, self.reading, self.namespaces_are_complete);
        other.with_landmarks(self.landmarks.clone(), self.ports.clone())
    }

    /// The same objects under the readings of other enforcers, in the order of [`Reading::OTHERS`]. Compiled once.
    pub(crate) fn under_other(&self, index: usize) -> &Snapshot {
        self.others[index].get_or_init(|| {
            let other =
                Self::read_as(self.world.clone(), Reading::OTHERS[index].0, self.namespaces_are_complete);
            Box::new(other.with_landmarks(self.landmarks.clone(), self.ports.clone()))
        })
    }

    /// The objects.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Are all namespaces among the objects, so that others do not exist?
    pub(crate) fn namespaces_are_complete(&self) -> bool {
        self.namespaces_are_complete
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Indices over the objects, made when they are first asked for.
    pub(crate) fn lookup(&self) -> &Lookup {
        self.lookup.get_or_init(|| Box::new(Lookup::new(&self.world)))
    }

    /// Where pods are and where they may come, found out when it is first asked for.
    pub(crate) fn ground(&self) -> &Ground {
        self.ground.get_or_init(|| Box::new(Ground::new(&self.world)))
    }

    pub(crate) fn reading(&self) -> Reading {
        self.reading
    }

    /// Preferred destination ports for witnesses.
    pub fn preferred_ports(&self) -> &[(Protocol, u16)] {
        &self.ports
    }

    pub(crate) fn is_landmark(&self, address: IpAddr) -> bool {
        self.landmarks.contains(&address)
    }

    pub(crate) fn owners_of(&self, address: IpAddr) -> &[Owner] {
        self.owners.get(&address).map(Vec::as_slice).unwrap_or_default()
    }

    /// The addresses of a family that pods have, each with its pod. A contested address is there once per claimant.
    pub fn pods(&self, family: Family) -> Vec<Place> {
        self.pods_where(family, |_, _| true)
    }

    /// Those of [`Snapshot::pods`] that are asked for, which are few: only they are given names.
    pub(crate) fn pods_where(
        &self,
        family: Family,
        mut is_asked: impl FnMut(&PodKey, IpAddr) -> bool,
    ) -> Vec<Place> {
        let mut places = Vec::new();
        for (key, endpoint) in &self.plan.endpoints {
            let addresses = endpoint.addresses.iter().filter(|(a, _)| Family::of(*a) == family);
            for (address, _) in addresses.filter(|(address, _)| is_asked(key, *address)) {
                places.push(Place { name: key.to_string(), address: *address, pod: Some(key.clone()) });
            }
        }
        places
    }

    /// The addresses of all nodes.
    pub fn nodes(&self, family: Family) -> Vec<Place> {
        self.plan
            .nodes
            .iter()
            .filter(|(address, _)| Family::of(**address) == family && !self.owners.contains_key(*address))
            .map(|(address, name)| Place { name: format!("node {name}"), address: *address, pod: None })
            .collect()
    }

    /// The addresses that pods and nodes have.
    fn inside(&self) -> &AddrSet {
        self.inside.get_or_init(|| {
            let known = self.plan.hosts.keys().chain(self.plan.nodes.keys());
            AddrSet::from_cidrs(known.map(|address| Cidr::host(*address)))
        })
    }

    /// One outside address per class with all the ranges of the class. A pod or node in a range is not meant.
    pub(crate) fn outside_with_ranges(&self, family: Family) -> Vec<(Place, AddrSet)> {
        let ranges = crate::matrix::outside(&self.plan);
        let of_class = |place: Place| {
            let class = self.plan.class_of(place.address)?;
            Some((place, AddrSet::from_iter(ranges.get(&class)?.iter().copied())))
        };
        self.outside(family, None).into_iter().filter_map(of_class).collect()
    }

    /// One outside address per class, a landmark where one is in the class. `within` restricts the addresses.
    pub fn outside(&self, family: Family, within: Option<&AddrSet>) -> Vec<Place> {
        let asked = match within {
            Some(within) => within.intersect(&AddrSet::all_of(family)),
            None => AddrSet::all_of(family),
        };
        let free: Vec<AddrRange> = asked.subtract(self.inside()).iter().collect();
        let mut by_class: BTreeMap<ClassId, Vec<AddrRange>> = BTreeMap::new();
        for (span, class) in self.plan.spans().filter(|(r, _)| r.family() == family) {
            let first = free.partition_point(|range| range.last() < span.first());
            for range in free[first..].iter().take_while(|range| range.first() <= span.last()) {
                let both = (range.first().max(span.first()), range.last().min(span.last()));
                by_class.entry(class).or_default().extend(AddrRange::new(both.0, both.1));
            }
        }
        by_class
            .into_values()
            .map(AddrSet::from_iter)
            .filter_map(|addresses| {
                let landmark = self.landmarks.iter().copied().find(|a| addresses.contains(*a));
                let address = landmark.or_else(|| typical(&addresses))?;
                Some(Place { name: format!("outside {address}"), address, pod: None })
            })
            .collect()
    }

    /// The policies of one direction that apply to a place, by name, in the order of evaluation of their tiers.
    pub fn policies_of(&self, place: &Place, direction: Direction) -> BTreeSet<String> {
        let owners = self.owners_of(place.address).iter().filter(|o| Some(&o.pod) == place.pod.as_ref());
        let legs = owners.filter_map(|owner| self.plan.legs.get(&owner.subject.leg(direction)));
        legs.flat_map(|leg| leg.tiers.iter())
            .flat_map(|tier| tier.policies.iter().map(|p| p.object.to_string()))
            .collect()
    }
}

/// An address that looks like one of a host somewhere, if there is one: no loopback, no multicast, no first address of a range.
fn typical(addresses: &AddrSet) -> Option<IpAddr> {
    let usual: [IpAddr; 4] = [
        IpAddr::from([198, 51, 100, 7]),
        IpAddr::from([192, 168, 1, 10]),
        IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7]),
        IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 7]),
    ];
    let odd = ["0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/16", "fe80::/10", "ff00::/8"];
    let odd = AddrSet::from_cidrs(odd.iter().filter_map(|cidr| cidr.parse().ok()));
    usual
        .into_iter()
        .find(|address| addresses.contains(*address))
        .or_else(|| {
            let range = addresses.subtract(&odd).iter().next()?;
            let second = next(range.first()).filter(|address| range.contains(*address));
            Some(second.unwrap_or(range.first()))
        })
        .or_else(|| addresses.first())
}

/// The address after this one.
pub(crate) fn next(address: IpAddr) -> Option<IpAddr> {
    match address {
        IpAddr::V4(ip) => Some(u32::from(ip).checked_add(1)?.to_be_bytes().into()),
        IpAddr::V6(ip) => Some(u128::from(ip).checked_add(1)?.to_be_bytes().into()),
    }
}
