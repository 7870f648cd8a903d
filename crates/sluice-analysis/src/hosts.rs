//! Host endpoints that may stand in the way of a connection (semantics 3.10).
//!
//! Which of them a connection meets depends on the interfaces that it passes, which the objects do not say. What all of them say
//! alike is computed beside what policies of pods say; what depends on the interface is told in words, with the host
//! endpoints that matter. They only deny more than the policies of pods do.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluice_addr::Family;
use sluice_model::{Direction, InterfaceMatch, Stage};
use sluice_plan::{Ground, HostEndpoint, HostStages, LegId, Plan, StageLegs};

use crate::snapshot::{Place, Snapshot};
use crate::transport::TransportSet;

/// How many are named in a sentence.
const NAMED: usize = 3;

/// One end of a connection, as far as it matters here.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Site {
    /// A pod, on its node if that is known.
    Pod(Option<Arc<str>>),
    Node(Arc<str>),
    Outside,
}

/// What of one host endpoint could stop a connection.
struct Spot {
    name: Arc<str>,
    /// Does it stand at pod interfaces?
    is_every: bool,
    /// Of each direction, here and below.
    untracked: [bool; 2],
    pre_dnat: bool,
    forward: [bool; 2],
    normal: [bool; 2],
}

/// The host endpoints of all nodes.
#[derive(Default)]
pub(crate) struct Spots {
    of_node: BTreeMap<Arc<str>, Vec<Spot>>,
}

impl Spots {
    pub(crate) fn new(plan: &Plan) -> Self {
        let mut spots = Spots::default();
        for (name, endpoint) in &plan.host_endpoints {
            let of = spots.of_node.entry(endpoint.node.clone()).or_default();
            of.push(Spot::new(plan, name, endpoint));
        }
        spots
    }

    /// Is there none?
    pub(crate) fn is_empty(&self) -> bool {
        self.of_node.is_empty()
    }

    /// Those that may stop a connection from one end to another: the rows of the path table.
    fn between(&self, from: &Site, to: &Site) -> BTreeSet<&Arc<str>> {
        const IN: usize = Direction::Ingress as usize;
        const OUT: usize = Direction::Egress as usize;
        let leaves = |spot: &&Spot| spot.forward[OUT];
        let mut found: BTreeSet<&Arc<str>> = BTreeSet::new();
        let (own, other) = match (from, to) {
            (Site::Pod(Some(a)), Site::Pod(Some(b)) | Site::Node(b)) => (a == b, a != b),
            (Site::Node(a), Site::Pod(Some(b)) | Site::Node(b)) => (a == b, a != b),
            // a pod without a node may be on any
            (Site::Pod(_) | Site::Node(_), Site::Pod(_) | Site::Node(_)) => (true, true),
            (Site::Outside, _) | (_, Site::Outside) => (false, true),
        };
        match from {
            Site::Pod(node) => {
                let at_pod = |spot: &&Spot| {
                    let passes_on = other || matches!(to, Site::Pod(_));
                    spot.is_every
                        && (spot.pre_dnat
                            || (passes_on && spot.forward[IN])
                            || (own && matches!(to, Site::Pod(_)) && spot.forward[OUT]))
                };
                found.extend(self.of(node.as_ref()).filter(at_pod).map(|spot| &spot.name));
                found.extend(self.of(node.as_ref()).filter(leaves).filter(|_| other).map(|spot| &spot.name));
            }
            Site::Node(node) if other => {
                let sends = |spot: &&Spot| spot.untracked[OUT] || spot.normal[OUT];
                found.extend(self.of(Some(node)).filter(sends).map(|spot| &spot.name));
            }
            Site::Node(_) | Site::Outside => {}
        }
        let arrives =
            |last: fn(&Spot) -> bool| move |spot: &&Spot| spot.untracked[IN] || spot.pre_dnat || last(spot);
        match to {
            Site::Pod(node) if other => {
                let spots = self.of(node.as_ref()).filter(arrives(|spot| spot.forward[IN]));
                found.extend(spots.map(|spot| &spot.name));
            }
            Site::Node(node) if other => {
                let spots = self.of(Some(node)).filter(arrives(|spot| spot.normal[IN]));
                found.extend(spots.map(|spot| &spot.name));
            }
            Site::Pod(_) | Site::Node(_) | Site::Outside => {}
        }
        found
    }

    /// Those of a node; of every node where it is not known.
    fn of(&self, node: Option<&Arc<str>>) -> impl Iterator<Item = &Spot> {
        self.of_node
            .iter()
            .filter(move |(name, _)| node.is_none_or(|node| node == *name))
            .flat_map(|(_, s)| s)
    }

    /// What is not known about connections between these ends because of host endpoints, as a sentence.
    pub(crate) fn doubt(&self, from: &BTreeSet<Site>, to: &BTreeSet<Site>) -> Option<String> {
        if self.is_empty() {
            return None;
        }
        let pairs = from.iter().flat_map(|from| to.iter().map(move |to| (from, to)));
        let names: BTreeSet<&Arc<str>> = pairs.flat_map(|(from, to)| self.between(from, to)).collect();
        let shown: Vec<&str> = names.iter().take(NAMED).map(|name| &***name).collect();
        let (plural, more) = match names.len() {
            0 => return None,
            1 => ("", String::new()),
            count if count > NAMED => ("s", format!(" and {} more", count - NAMED)),
            _ => ("s", String::new()),
        };
        let shown = shown.join(", ");
        Some(format!(
            "HostEndpoint{plural} {shown}{more} may deny it: that depends on the interfaces that it passes"
        ))
    }
}

impl Spot {
    fn new(plan: &Plan, name: &Arc<str>, endpoint: &HostEndpoint) -> Self {
        let both = |stands: &dyn Fn(&HostStages) -> bool| {
            Direction::BOTH.map(|direction| stands(endpoint.stages(direction)))
        };
        let denies = |stage: Option<&StageLegs>| stage.is_some_and(|legs| can_deny(plan, legs));
        Spot {
            name: name.clone(),
            is_every: endpoint.interface == InterfaceMatch::Every,
            // replies to what is not tracked need rules of their own
            untracked: both(&|stages| stages.of(Stage::Untracked).is_some()),
            pre_dnat: denies(endpoint.ingress.of(Stage::PreDnat)),
            forward: both(&|stages| denies(stages.of(Stage::Forward))),
            normal: both(&|stages| denies(stages.of(Stage::Normal))),
        }
    }
}

/// Is there a connection that a stage denies?
fn can_deny(plan: &Plan, legs: &StageLegs) -> bool {
    let legs: BTreeSet<LegId> = legs.legs().collect();
    legs.iter().any(|leg| {
        let Some(leg) = plan.legs.get(leg) else { return true };
        let by_ground = Ground::ALL.into_iter().map(|ground| (ground.family, leg.base[ground.index()]));
        let exceptions =
            leg.exceptions.iter().filter_map(|(class, f)| Some((plan.classes.get(class)?.family, *f)));
        let allows_all = |(family, function): (Family, _)| {
            plan.functions.get(&function).is_some_and(|f| TransportSet::allowed_by(family, f).is_all())
        };
        !by_ground.chain(exceptions).all(allows_all)
    })
}

impl Snapshot {
    /// The host endpoints, indexed when they are first asked for.
    pub(crate) fn spots(&self) -> &Spots {
        self.spots.get_or_init(|| Box::new(Spots::new(self.plan())))
    }

    /// What host endpoints leave of what policies of pods allow between ends that these judge alike, and what is not known of it.
    pub(crate) fn shown(
        &self,
        allowed: TransportSet,
        pairs: &[(&Place, &Place)],
    ) -> (TransportSet, Option<String>) {
        if allowed.is_empty() || self.spots().is_empty() {
            return (allowed, None);
        }
        let mut left: BTreeSet<TransportSet> = BTreeSet::new();
        let mut is_known = true;
        for (from, to) in pairs {
            let passage = self.passage(from.address, to.address);
            left.insert(match self.passing(&passage, from.address, to.address) {
                None => allowed.clone(),
                Some(passing) => {
                    let settled = passing.settle(&allowed);
                    is_known &= settled.unknown.is_empty();
                    settled.allowed.union(&settled.unknown)
                }
            });
        }
        let all = left.iter().fold(TransportSet::none(allowed.family()), |all, one| all.union(one));
        if is_known && left.len() <= 1 {
            return (all, None);
        }
        let [from, to] = [0, 1].map(|side| {
            let places = pairs.iter().map(|pair| if side == 0 { pair.0 } else { pair.1 });
            places.flat_map(|place| self.sites(place)).collect::<BTreeSet<Site>>()
        });
        (all, self.spots().doubt(&from, &to))
    }

    /// Where an end is; a contested address is at each of its owners.
    pub(crate) fn sites(&self, place: &Place) -> BTreeSet<Site> {
        let owners = self.owners_of(place.address);
        match (owners, self.plan().nodes.get(&place.address)) {
            ([], Some(node)) => BTreeSet::from([Site::Node(node.clone())]),
            ([], None) => BTreeSet::from([Site::Outside]),
            (owners, _) => owners.iter().map(|owner| Site::Pod(owner.node.clone())).collect(),
        }
    }
}
