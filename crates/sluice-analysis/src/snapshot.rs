//! The objects at one moment with the plan of the whole cluster.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{AddrSet, Cidr, Family, Protocol};
use sluice_engine::{Engine, Scope};
use sluice_model::{Direction, ObjectDelta, PodKey, World};
use sluice_plan::{ClassId, FunctionId, Plan};

use crate::transport::TransportSet;

/// The objects at one moment, compiled with every pod as a local endpoint.
pub struct Snapshot {
    world: World,
    plan: Plan,
    /// What each function allows, per family; functions are few and shared.
    allowed: BTreeMap<(FunctionId, Family), Arc<TransportSet>>,
    /// Well-known addresses and ports, so that witnesses are packets that somebody answers.
    landmarks: Vec<IpAddr>,
    ports: Vec<(Protocol, u16)>,
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
    /// Compiles the objects.
    pub fn new(world: World) -> Self {
        let mut engine = Engine::new(Scope::Cluster);
        for object in world.objects() {
            engine.apply(ObjectDelta::Upsert(object));
        }
        engine.flush();
        let plan = engine.plan().clone();
        Self::from_parts(world, plan)
    }

    /// A snapshot of objects that are compiled already; `plan` has every pod as an endpoint.
    pub fn from_parts(world: World, plan: Plan) -> Self {
        let mut allowed = BTreeMap::new();
        for (id, function) in &plan.functions {
            for family in Family::BOTH {
                allowed.insert((*id, family), Arc::new(TransportSet::allowed_by(family, function)));
            }
        }
        let ports = [(Protocol::TCP, 22), (Protocol::TCP, 80), (Protocol::TCP, 8080), (Protocol::UDP, 53)];
        Snapshot { world, plan, allowed, landmarks: Vec::new(), ports: ports.to_vec() }
    }

    /// Prefers these outside addresses and destination ports for witnesses.
    pub fn with_landmarks(mut self, addresses: Vec<IpAddr>, ports: Vec<(Protocol, u16)>) -> Self {
        self.landmarks = addresses;
        self.ports = ports;
        self
    }

    /// The objects.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// Preferred destination ports for witnesses.
    pub fn preferred_ports(&self) -> &[(Protocol, u16)] {
        &self.ports
    }

    /// The pods that have addresses of a family, each with its first one.
    pub fn pods(&self, family: Family) -> Vec<Place> {
        self.plan
            .endpoints
            .iter()
            .filter_map(|(key, endpoint)| {
                let (address, _) = endpoint.addresses.iter().find(|(a, _)| Family::of(*a) == family)?;
                Some(Place { name: key.to_string(), address: *address, pod: Some(key.clone()) })
            })
            .collect()
    }

    /// The addresses of all nodes.
    pub fn nodes(&self, family: Family) -> Vec<Place> {
        self.plan
            .nodes
            .iter()
            .filter(|(a, _)| Family::of(**a) == family)
            .map(|(address, name)| Place { name: format!("node {name}"), address: *address, pod: None })
            .collect()
    }

    /// One outside address per class, a landmark where one is in the class. `within` restricts the addresses.
    pub fn outside(&self, family: Family, within: Option<&AddrSet>) -> Vec<Place> {
        let inside = AddrSet::from_cidrs(
            self.plan.hosts.keys().chain(self.plan.nodes.keys()).map(|address| Cidr::host(*address)),
        );
        let mut by_class: BTreeMap<ClassId, AddrSet> = BTreeMap::new();
        for (range, class) in self.plan.ranges.iter().filter(|(r, _)| r.family() == family) {
            let mut free = AddrSet::from_iter([*range]).subtract(&inside);
            if let Some(within) = within {
                free = free.intersect(within);
            }
            if !free.is_empty() {
                let entry = by_class.entry(*class).or_insert_with(AddrSet::new);
                *entry = entry.union(&free);
            }
        }
        by_class
            .into_values()
            .filter_map(|addresses| {
                let landmark = self.landmarks.iter().copied().find(|a| addresses.contains(*a));
                let address = landmark.or_else(|| typical(&addresses))?;
                Some(Place { name: format!("outside {address}"), address, pod: None })
            })
            .collect()
    }

    /// What is allowed from one address to another, both legs together (semantics 1.2).
    pub fn allowed(&self, from: &Place, to: &Place) -> TransportSet {
        let family = Family::of(from.address);
        let mut allowed = TransportSet::all(family);
        if from.address == to.address {
            return allowed; // stays inside the pod
        }
        if let Some(leg) = self.leg(Direction::Egress, from, to.address) {
            allowed = allowed.intersect(&leg);
        }
        let own_node = to.pod.as_ref().and_then(|key| self.plan.endpoints.get(key)).is_some_and(|endpoint| {
            endpoint.node.is_some() && self.plan.nodes.get(&from.address) == endpoint.node.as_ref()
        });
        if !own_node && let Some(leg) = self.leg(Direction::Ingress, to, from.address) {
            allowed = allowed.intersect(&leg);
        }
        allowed
    }

    fn leg(&self, direction: Direction, end: &Place, peer: IpAddr) -> Option<Arc<TransportSet>> {
        let endpoint = self.plan.endpoints.get(end.pod.as_ref()?)?;
        let (_, subject) = endpoint.addresses.iter().find(|(a, _)| *a == end.address)?;
        let leg = self.plan.subjects.get(subject)?.leg(direction);
        let function = leg.functions.get(&self.plan.class_of(peer)?)?;
        self.allowed.get(&(*function, Family::of(peer))).cloned()
    }

    /// The policies without which the ends would be judged differently, by name: those of the legs' tiers.
    pub fn policies_of(&self, place: &Place, direction: Direction) -> BTreeSet<String> {
        let subject = place.pod.as_ref().and_then(|key| {
            let endpoint = self.plan.endpoints.get(key)?;
            let (_, id) = endpoint.addresses.iter().find(|(a, _)| *a == place.address)?;
            self.plan.subjects.get(id)
        });
        let tiers = subject.map(|s| s.leg(direction).tiers.as_slice()).unwrap_or_default();
        tiers.iter().flat_map(|t| t.policies.iter().map(|p| p.object.to_string())).collect()
    }
}

/// An address that looks like one of a host somewhere: not the network address of a range, not loopback or multicast where
/// there is another.
fn typical(addresses: &AddrSet) -> Option<IpAddr> {
    let usual: [IpAddr; 4] = [
        IpAddr::from([198, 51, 100, 7]),
        IpAddr::from([192, 168, 1, 10]),
        IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 7]),
        IpAddr::from([0xfd00, 0, 0, 0, 0, 0, 0, 7]),
    ];
    usual.into_iter().find(|a| addresses.contains(*a)).or_else(|| addresses.first())
}
