//! The Plan itself and its simulator.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sluice_addr::{AddrRange, Flow};
use sluice_model::{Direction, PodKey, RuleRef, TierDefault};

use crate::function::{Outcome, PortFunction, Verdict};

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
    pub endpoints: BTreeMap<PodKey, Endpoint>,
    /// What applies to endpoints.
    pub subjects: BTreeMap<SubjectId, Arc<Subject>>,
    /// The port functions that legs refer to.
    pub functions: BTreeMap<FunctionId, Arc<PortFunction>>,
    /// The class of each pod address.
    pub hosts: BTreeMap<IpAddr, ClassId>,
    /// The class of every other address: sorted, disjoint, covering both families whole. A pod address lies in a range
    /// too; there [`Plan::hosts`] wins.
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

/// What a plan says about a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Both legs together.
    pub verdict: Verdict,
    /// The egress leg, if the source is an endpoint of this plan.
    pub egress: Option<Outcome>,
    /// The ingress leg, if the destination is an endpoint of this plan and the source is not its own node.
    pub ingress: Option<Outcome>,
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

    /// The endpoint and subject that own an address.
    pub fn subject_of(&self, address: IpAddr) -> Option<(&PodKey, &Endpoint, &Subject)> {
        self.endpoints.iter().find_map(|(key, endpoint)| {
            let (_, id) = endpoint.addresses.iter().find(|(own, _)| *own == address)?;
            Some((key, endpoint, self.subjects.get(id)?.as_ref()))
        })
    }

    /// The simulator: judges a connection as semantics 1.2 does, for the endpoints that this plan knows.
    pub fn judge(&self, flow: &Flow) -> Judgement {
        let source = self.subject_of(flow.source);
        let destination = self.subject_of(flow.destination);
        let own_node = |endpoint: &Endpoint, peer: IpAddr| {
            endpoint.node.is_some() && self.nodes.get(&peer) == endpoint.node.as_ref()
        };
        let egress = source
            .filter(|_| flow.source != flow.destination) // stays inside the pod (semantics 1.2)
            .and_then(|(_, _, subject)| self.judge_leg(&subject.egress, flow.destination, flow));
        let ingress = destination
            .filter(|_| flow.source != flow.destination)
            .filter(|(_, endpoint, _)| !own_node(endpoint, flow.source)) // host → own pod (semantics 1.5)
            .and_then(|(_, _, subject)| self.judge_leg(&subject.ingress, flow.source, flow));
        let denied = [&egress, &ingress].into_iter().flatten().any(|o| o.verdict == Verdict::Deny);
        Judgement { verdict: if denied { Verdict::Deny } else { Verdict::Allow }, egress, ingress }
    }

    fn judge_leg(&self, leg: &Leg, peer: IpAddr, flow: &Flow) -> Option<Outcome> {
        let function = self.functions.get(leg.functions.get(&self.class_of(peer)?)?)?;
        Some(function.decide(flow.protocol(), &flow.transport).0.clone())
    }
}
