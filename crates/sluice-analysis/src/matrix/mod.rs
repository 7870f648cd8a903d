//! The whole cluster at once: what is allowed between all ends, by classes.
//!
//! ```text
//!   addresses ──► groups (subject, class) ──┐
//!   legs ──► base and exceptions as sets ───┴──► cell(group, group) = egress set ∩ ingress set
//! ```
//!
//! Addresses with one subject and one class are one group, so that a cell stands for many pairs. Cells are not stored: each is
//! two looks into sparse legs and one into the intersections, which are few.

mod groups;
mod legs;
mod sets;
mod totals;

use crate::fast::FastMap;
use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::Family;
use sluice_plan::{ClassId, Ground, Plan};

use crate::transport::TransportSet;
pub use groups::{Group, GroupId, Members, PodAddress};
pub(crate) use groups::{contested, free_address, outside, range_texts};
use legs::{LegIndex, LegRows};
pub use sets::SetId;
pub(crate) use sets::{FunctionSets, Sets};
pub use totals::Totals;

/// What policies allow between every pair of ends. Packets that have a rule of their own (semantics 1.7) are treated as any
/// other, and a node's way to its own pods (1.5) is said by [`Matrix::allowed_between`].
#[derive(Debug)]
pub struct Matrix<'p> {
    plan: &'p Plan,
    sets: Sets,
    legs: LegRows,
    groups: Vec<Group<'p>>,
    of_address: FastMap<IpAddr, GroupId>,
    totals: [Totals; 2],
}

/// What is allowed from one group to another, and which leg says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// What the egress leg of the source allows; `None` if it is no pod.
    pub egress: Option<SetId>,
    /// What the ingress leg of the destination allows; `None` if it is no pod.
    pub ingress: Option<SetId>,
}

impl<'p> Matrix<'p> {
    /// The matrix of a plan with every pod as an endpoint.
    pub fn new(plan: &'p Plan) -> Self {
        let mut sets = Sets::default();
        let mut legs = LegRows::new(plan, &mut sets);
        let groups = groups::groups(plan, &mut legs, &mut sets);
        let totals = Family::BOTH.map(|family| totals::count(plan, &groups, &legs, &mut sets, family));
        Matrix { plan, sets, legs, groups, of_address: FastMap::default(), totals }
    }

    /// The plan behind it.
    pub fn plan(&self) -> &'p Plan {
        self.plan
    }

    /// Every group: pods, nodes and outside ranges of both families.
    pub fn groups(&self) -> impl Iterator<Item = (GroupId, &Group<'p>)> {
        self.groups.iter().enumerate().map(|(index, group)| (GroupId::new(index), group))
    }

    /// One group.
    pub fn group(&self, id: GroupId) -> &Group<'p> {
        &self.groups[id.index()]
    }

    /// What is allowed from one group to another of the same family; `None` if they have none in common.
    pub fn cell(&self, from: GroupId, to: GroupId) -> Option<Cell> {
        let (from, to) = (self.group(from), self.group(to));
        (from.family == to.family).then(|| Cell {
            egress: from.legs.map(|(_, egress)| self.at(egress, to.class, to.ground())),
            ingress: to.legs.map(|(ingress, _)| self.at(ingress, from.class, from.ground())),
        })
    }

    fn at(&self, leg: LegIndex, class: ClassId, ground: Ground) -> SetId {
        self.legs.get(leg).at(class, ground)
    }

    /// The set with an id.
    pub fn set(&self, id: SetId) -> &Arc<TransportSet> {
        self.sets.get(id)
    }

    /// Both legs of a cell together; everything where neither end is a pod.
    pub fn allowed(&self, family: Family, cell: Cell) -> Arc<TransportSet> {
        match (cell.egress, cell.ingress) {
            (Some(egress), Some(ingress)) => match self.sets.known_meet(egress, ingress) {
                Some(known) => self.set(known).clone(),
                None => Arc::new(self.set(egress).intersect(self.set(ingress))),
            },
            (Some(one), None) | (None, Some(one)) => self.set(one).clone(),
            (None, None) => Arc::new(TransportSet::all(family)),
        }
    }

    /// What is allowed between two addresses, which may be told apart inside their groups: a node always reaches the pods that
    /// it hosts (semantics 1.5). `None` for addresses of different families or the same pod.
    pub fn allowed_between(&self, from: IpAddr, to: IpAddr) -> Option<Arc<TransportSet>> {
        let (from_id, to_id) = (self.group_of(from)?, self.group_of(to)?);
        let cell = self.cell(from_id, to_id)?;
        let family = self.group(from_id).family;
        if let (Members::Nodes(nodes), Members::Pods(pods)) =
            (&self.group(from_id).members, &self.group(to_id).members)
        {
            let node = nodes.iter().find(|(_, address)| *address == from).map(|(name, _)| name);
            let mut owners = pods.iter().filter(|pod| pod.address == to).peekable();
            let hosted = owners.peek().is_some()
                && owners.all(|pod| {
                    let endpoint = self.plan.endpoints.get(pod.key);
                    endpoint.and_then(|e| e.node.as_ref()) == node.copied()
                });
            if hosted && node.is_some() {
                return Some(Arc::new(TransportSet::all(family)));
            }
        }
        Some(self.allowed(family, cell))
    }

    /// The group of an address.
    pub fn group_of(&self, address: IpAddr) -> Option<GroupId> {
        if let Some(known) = self.of_address.get(&address) {
            return Some(*known);
        }
        let class = self.plan.class_of(address)?;
        let index = self.groups.iter().position(|group| group.class == class && group.holds(address))?;
        Some(GroupId::new(index))
    }

    /// The same with a map from every address of a pod or node to its group, for [`Matrix::group_of`] of many.
    pub fn with_index(mut self) -> Self {
        let mut index = FastMap::default();
        for (id, group) in self.groups() {
            match &group.members {
                Members::Pods(pods) => index.extend(pods.iter().map(|pod| (pod.address, id))),
                Members::Nodes(nodes) => index.extend(nodes.iter().map(|(_, address)| (*address, id))),
                Members::Outside(_) => {}
            }
        }
        self.of_address = index;
        self
    }

    /// How many pairs of pods there are of each kind, without a pod and itself.
    pub fn totals(&self, family: Family) -> Totals {
        self.totals[family as usize]
    }

    /// Groups, legs and different sets, for the curious.
    pub fn size(&self) -> (usize, usize) {
        (self.groups.len(), self.legs.len())
    }
}
