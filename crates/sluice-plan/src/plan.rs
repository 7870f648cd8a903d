//! The Plan itself and its simulator.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sluice_addr::AddrRange;
use sluice_model::{Direction, PodKey, RuleRef, TierDefault};

use crate::function::PortFunction;

/// A peer class: all addresses that the active policies cannot tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ClassId(pub u32);

/// A subject class: all endpoint addresses to which the same policies apply in the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SubjectId(pub u32);

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
    /// What applies to endpoints.
    pub subjects: BTreeMap<SubjectId, Arc<Subject>>,
    /// The port functions that legs refer to.
    pub functions: BTreeMap<FunctionId, Arc<PortFunction>>,
    /// The class of each pod address.
    pub hosts: BTreeMap<IpAddr, ClassId>,
    /// The class of every other address: sorted, disjoint, covering both families whole. A pod address lies in a range
    /// too; there [`Plan::hosts`] wins.
    #[serde(with = "serde_ranges")]
    pub ranges: Vec<(AddrRange, ClassId)>,
    /// Which node owns an address, for the rules of semantics 1.5.
    pub nodes: BTreeMap<IpAddr, Arc<str>>,
}

/// A local endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// The pod's uid, which tells it from a successor of the same name.
    pub uid: Arc<str>,
    /// The node it runs on, if known.
    pub node: Option<Arc<str>>,
    /// Its addresses, each with its subject. Normally one per family with the same subject.
    pub addresses: Vec<(IpAddr, SubjectId)>,
}

/// What applies to an endpoint's address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Subject {
    /// Connections that enter it.
    pub ingress: Leg,
    /// Connections that leave it.
    pub egress: Leg,
}

impl Subject {
    /// The leg of one direction.
    pub fn leg(&self, direction: Direction) -> &Leg {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }
}

/// One direction of a subject: a total function from peer class to port function.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Leg {
    /// The tiers that take part, in order, with the policies that apply. For explanation only.
    pub tiers: Vec<TierStage>,
    /// The function of each class.
    pub functions: BTreeMap<ClassId, FunctionId>,
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
        let index = self.ranges.partition_point(|(range, _)| range.last() < address);
        self.ranges.get(index).filter(|(range, _)| range.contains(address)).map(|(_, class)| *class)
    }
}

/// Ranges as `[first, last, class]`.
mod serde_ranges {
    use std::net::IpAddr;

    use serde::de::{Deserialize, Deserializer, Error};
    use serde::ser::Serializer;
    use sluice_addr::AddrRange;

    use super::ClassId;

    pub(super) fn serialize<S: Serializer>(
        ranges: &[(AddrRange, ClassId)],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(ranges.iter().map(|(range, class)| (range.first(), range.last(), class)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<(AddrRange, ClassId)>, D::Error> {
        let ranges = Vec::<(IpAddr, IpAddr, ClassId)>::deserialize(deserializer)?;
        let range =
            |(first, last, class)| Ok((AddrRange::new(first, last).map_err(D::Error::custom)?, class));
        ranges.into_iter().map(range).collect()
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
