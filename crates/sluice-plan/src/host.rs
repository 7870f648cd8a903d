//! Host endpoints in a plan: which legs stand at which stage of which interface (semantics 3.10).

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sluice_model::{Direction, Interface, InterfaceMatch, Stage};

use crate::plan::{ClassId, Ground, LegId, Plan};

/// A HostEndpoint of a node in the plan's scope.
///
/// Failsafes are a setting of nodes and no policy, so that no plan holds them; whoever runs one is told them
/// ([`sluice_model::Circumstances::failsafes`]).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostEndpoint {
    /// The node.
    pub node: Arc<str>,
    /// The interfaces of the node that it asks for; [`Plan::host_endpoint_on`] says whether it gets them.
    pub interface: InterfaceMatch,
    /// `expectedIPs`: what an interface must hold one of where none is named.
    pub addresses: Vec<IpAddr>,
    /// What stands before connections that come in by the interface.
    pub ingress: HostStages,
    /// What stands before connections that go out by the interface.
    pub egress: HostStages,
}

/// The stages of one direction of a host endpoint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStages {
    /// Before connection tracking; `None` if no policy takes part, or if it is not supported there (SL2103).
    pub untracked: Option<StageLegs>,
    /// Before translation of the destination; `None` if no policy takes part. Never in egress.
    pub pre_dnat: Option<StageLegs>,
    /// Traffic of the node itself. Where no policy takes part the profiles decide.
    pub normal: StageLegs,
    /// Traffic that the node forwards; `None` if no policy takes part: everything passes.
    pub forward: Option<StageLegs>,
}

/// What a stage does: the leg by the class of the address on the host endpoint's own side (the destination in ingress, the
/// source in egress), which may be any address. The leg then looks at the other address, as a pod's does.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct StageLegs {
    /// The leg of each class that [`StageLegs::exceptions`] does not name, by [`Ground::index`].
    pub base: [LegId; 4],
    /// The classes with another leg than the one of their ground: some rule asks about the own side.
    pub exceptions: BTreeMap<ClassId, LegId>,
}

impl StageLegs {
    /// The leg for connections whose own side is an address of a class with this ground.
    pub fn leg(&self, class: ClassId, ground: Ground) -> LegId {
        self.exceptions.get(&class).copied().unwrap_or(self.base[ground.index()])
    }

    /// Every leg that the stage may use.
    pub fn legs(&self) -> impl Iterator<Item = LegId> {
        self.base.iter().chain(self.exceptions.values()).copied()
    }

    pub(crate) fn map(&self, leg: impl Fn(&LegId) -> LegId, class: impl Fn(&ClassId) -> ClassId) -> Self {
        StageLegs {
            base: self.base.each_ref().map(&leg),
            exceptions: self.exceptions.iter().map(|(c, l)| (class(c), leg(l))).collect(),
        }
    }
}

impl HostStages {
    /// The stage's legs, if it stands there.
    pub fn of(&self, stage: Stage) -> Option<&StageLegs> {
        match stage {
            Stage::Untracked => self.untracked.as_ref(),
            Stage::PreDnat => self.pre_dnat.as_ref(),
            Stage::Normal => Some(&self.normal),
            Stage::Forward => self.forward.as_ref(),
        }
    }

    /// The stages that stand there, in the order in which a connection may meet them.
    pub fn all(&self) -> impl Iterator<Item = (Stage, &StageLegs)> {
        [Stage::Untracked, Stage::PreDnat, Stage::Normal, Stage::Forward]
            .into_iter()
            .filter_map(|stage| Some((stage, self.of(stage)?)))
    }

    pub(crate) fn map(&self, change: impl Fn(&StageLegs) -> StageLegs) -> Self {
        HostStages {
            untracked: self.untracked.as_ref().map(&change),
            pre_dnat: self.pre_dnat.as_ref().map(&change),
            normal: change(&self.normal),
            forward: self.forward.as_ref().map(&change),
        }
    }
}

impl HostEndpoint {
    /// The stages of one direction.
    pub fn stages(&self, direction: Direction) -> &HostStages {
        match direction {
            Direction::Ingress => &self.ingress,
            Direction::Egress => &self.egress,
        }
    }

    /// Every leg that it may use.
    pub fn legs(&self) -> impl Iterator<Item = LegId> {
        let both = self.ingress.all().chain(self.egress.all());
        both.flat_map(|(_, legs)| legs.legs())
    }

    fn asks_for(&self, interface: &Interface) -> bool {
        match &self.interface {
            InterfaceMatch::Named(name) => *name == interface.name,
            InterfaceMatch::ByAddress => {
                interface.addresses.iter().any(|address| self.addresses.contains(address))
            }
            InterfaceMatch::Every => false,
        }
    }
}

impl Plan {
    /// The host endpoint that is active on an interface of a node: the bytewise first that asks for it, else the one
    /// for every interface.
    pub fn host_endpoint_on(&self, node: &str, interface: &Interface) -> Option<(&Arc<str>, &HostEndpoint)> {
        let asking = self.host_endpoints.iter().find(|(_, e)| *e.node == *node && e.asks_for(interface));
        asking.or_else(|| self.host_endpoint_on_every(node))
    }

    /// The active `*` host endpoint of a node, which also stands at pod interfaces.
    pub fn host_endpoint_on_every(&self, node: &str) -> Option<(&Arc<str>, &HostEndpoint)> {
        let mut all = self.host_endpoints.iter();
        all.find(|(_, endpoint)| *endpoint.node == *node && endpoint.interface == InterfaceMatch::Every)
    }
}
