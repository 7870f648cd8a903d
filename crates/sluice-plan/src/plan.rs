//! The Plan itself and its simulator.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sluice_addr::{AddrRange, Family};
use sluice_model::{Direction, PodKey, RuleRef, TierDefault};

use crate::function::PortFunction;
use crate::host::HostEndpoint;

/// A peer class: all addresses that the active policies cannot tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClassId(pub u32);

/// One direction of a subject class: all endpoint addresses to which the same policies apply in the same way share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LegId(pub u32);

/// An interned port function.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct FunctionId(pub u32);

/// The highest resourceVersion that went into a plan, per kind of object (`networkpolicies.networking.k8s.io`).
pub type Revisions = BTreeMap<Arc<str>, u64>;

/// Policy for a set of endpoints, compiled.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// Grows by one with every delta; stored with the kernel state.
    pub generation: u64,
    /// What the plan was computed from.
    pub revisions: Revisions,
    /// The local endpoints.
    #[serde(with = "serde_endpoints")]
    pub endpoints: BTreeMap<PodKey, Endpoint>,
    /// The host endpoints of the nodes in scope, by name.
    pub host_endpoints: BTreeMap<Arc<str>, HostEndpoint>,
    /// What applies to endpoints and to stages of host endpoints, by direction.
    pub legs: BTreeMap<LegId, Leg>,
    /// The port functions that legs refer to.
    pub functions: BTreeMap<FunctionId, Arc<PortFunction>>,
    /// The classes that addresses have, each with its ground.
    pub classes: BTreeMap<ClassId, Ground>,
    /// The class of each pod address.
    pub hosts: BTreeMap<IpAddr, ClassId>,
    /// The class of every other address, by the first address of each range: disjoint, covering both families whole. A
    /// pod address lies in a range too; there [`Plan::hosts`] wins.
    pub ranges: BTreeMap<IpAddr, Span>,
    /// Which node owns an address, for the rules of semantics 1.5.
    pub nodes: BTreeMap<IpAddr, Arc<str>>,
}

/// A range of addresses without its first one, and their class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Span {
    /// The last address.
    pub last: IpAddr,
    /// The class of all of them.
    pub class: ClassId,
}

/// What is known of a class without any policy: its family, and whether its addresses are pods'.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ground {
    /// The family of all its addresses.
    pub family: Family,
    /// Are they addresses of pods? If not, they are everything else.
    pub pod: bool,
}

impl Ground {
    /// Every ground.
    pub const ALL: [Ground; 4] = [
        Ground { family: Family::V4, pod: false },
        Ground { family: Family::V4, pod: true },
        Ground { family: Family::V6, pod: false },
        Ground { family: Family::V6, pod: true },
    ];

    /// Its place in [`Ground::ALL`].
    pub fn index(self) -> usize {
        let family = match self.family {
            Family::V4 => 0,
            Family::V6 => 2,
        };
        family + usize::from(self.pod)
    }
}

/// A local endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The pod's uid, which tells it from a successor of the same name.
    pub uid: Arc<str>,
    /// The node it runs on, if known.
    pub node: Option<Arc<str>>,
    /// Its addresses, each with its subject. Normally one per family with the same subject.
    pub addresses: Vec<(IpAddr, Subject)>,
}

/// What applies to an endpoint's address: equal subjects are one subject class.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Subject {
    /// Connections that enter it.
    pub ingress: LegId,
    /// Connections that leave it.
    pub egress: LegId,
}

impl Subject {
    /// The leg of one direction.
    pub fn leg(self, direction: Direction) -> LegId {
        match direction {
            Direction::Ingress => self.ingress,
            Direction::Egress => self.egress,
        }
    }
}

/// One direction of a subject: a total function from peer class to port function. It is sparse: most classes are of no
/// concern to most legs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Leg {
    /// The tiers that take part, in order, with the policies that apply. For explanation only.
    pub tiers: Arc<[TierStage]>,
    /// The function of each class that [`Leg::exceptions`] does not name, by [`Ground::index`].
    pub base: [FunctionId; 4],
    /// The classes with another function than the one of their ground.
    pub exceptions: BTreeMap<ClassId, FunctionId>,
}

impl Leg {
    /// The function of a class with this ground.
    pub fn function(&self, class: ClassId, ground: Ground) -> FunctionId {
        self.exceptions.get(&class).copied().unwrap_or(self.base[ground.index()])
    }

    /// Every function that the leg may use.
    pub fn functions(&self) -> impl Iterator<Item = FunctionId> {
        self.base.iter().chain(self.exceptions.values()).copied()
    }
}

/// One tier of a leg.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct TierStage {
    /// The tier's name.
    pub tier: Arc<str>,
    /// What happens where none of its rules decides.
    pub default_action: TierDefault,
    /// Its policies that apply here, in order.
    pub policies: Vec<RuleRef>,
}

impl Plan {
    /// The class of an address; `None` only in a plan that violates its invariants.
    pub fn class_of(&self, address: IpAddr) -> Option<ClassId> {
        if let Some(class) = self.hosts.get(&address) {
            return Some(*class);
        }
        self.span_of(address).map(|(_, span)| span.class)
    }

    /// The range that an address lies in, whoever owns it.
    pub fn span_of(&self, address: IpAddr) -> Option<(IpAddr, Span)> {
        let (first, span) = self.ranges.range(..=address).next_back()?;
        (Family::of(*first) == Family::of(address) && address <= span.last).then_some((*first, *span))
    }

    /// The ranges with their classes, in order.
    pub fn spans(&self) -> impl Iterator<Item = (AddrRange, ClassId)> {
        self.ranges.iter().filter_map(|(first, span)| {
            // a span that mixes families is a violation that `check` reports
            Some((AddrRange::new(*first, span.last).ok()?, span.class))
        })
    }

    /// What a leg does with a class; `None` only in a plan that violates its invariants.
    pub fn function(&self, leg: LegId, class: ClassId) -> Option<FunctionId> {
        Some(self.legs.get(&leg)?.function(class, *self.classes.get(&class)?))
    }

    /// The subjects of all endpoint addresses, each once.
    pub fn subjects(&self) -> BTreeSet<Subject> {
        self.endpoints.values().flat_map(|endpoint| endpoint.addresses.iter().map(|(_, s)| *s)).collect()
    }
}

/// Endpoints as a list, because formats such as JSON know only text as keys.
mod serde_endpoints {
    use std::collections::BTreeMap;

    use serde::de::{Deserialize, Deserializer};
    use serde::ser::Serializer;
    use sluice_model::PodKey;

    use super::Endpoint;

    pub(super) fn serialize<S: Serializer>(
        endpoints: &BTreeMap<PodKey, Endpoint>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(endpoints)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeMap<PodKey, Endpoint>, D::Error> {
        Ok(Vec::<(PodKey, Endpoint)>::deserialize(deserializer)?.into_iter().collect())
    }
}
