//! What host endpoints let pass between two ends, as exact sets (semantics 3.10).
//!
//! The rows of the path table, computed from the plan. Of the way of a connection the objects tell the nodes, not the interfaces:
//! every interface that could be on it is asked, and what all of them answer alike is known, whichever it is. What they
//! disagree about is not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{Family, PortRange};
use sluice_model::{Circumstances, Direction, Failsafe, InterfaceMatch, PodKey, Stage};
use sluice_plan::{Cause, ClassId, HostEndpoint, Plan, StageLegs, Verdict};

use crate::passage::Passage;
use crate::snapshot::{Place, Snapshot};
use crate::transport::TransportSet;

/// Where one end of a connection is, and its class.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct End {
    pub(crate) class: ClassId,
    /// A contested address is at each of its owners.
    pub(crate) at: Vec<At>,
}

/// Where an end may be.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum At {
    /// At a pod, which may be nameless, on its node if that is known.
    Pod(Option<PodKey>, Option<Arc<str>>),
    Node(Arc<str>),
    Outside,
}

/// What passes all host endpoints, and what one of them stops, wherever the connection goes. Of the rest it is not known.
#[derive(Clone, Debug)]
pub(crate) struct Passing {
    through: TransportSet,
    stopped: TransportSet,
}

/// What is allowed between two ends, with what host endpoints say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// What is allowed.
    pub allowed: TransportSet,
    /// What policies of pods allow and a host endpoint may stop: that depends on the interfaces that it passes.
    pub unknown: TransportSet,
}

impl Passing {
    /// What is left of a set that policies of pods allow.
    pub(crate) fn settle(&self, allowed: &TransportSet) -> Settled {
        let left = allowed.subtract(&self.stopped);
        Settled { allowed: left.intersect(&self.through), unknown: left.subtract(&self.through) }
    }

    /// What holds for each of several.
    fn all(each: impl Iterator<Item = Passing>) -> Option<Passing> {
        each.reduce(|all, one| Passing {
            through: all.through.intersect(&one.through),
            stopped: all.stopped.intersect(&one.stopped),
        })
    }

    /// Of what is asked one after the other one may stop it.
    fn then(self, next: Passing) -> Passing {
        Passing { through: self.through.intersect(&next.through), stopped: self.stopped.union(&next.stopped) }
    }
}

impl Snapshot {
    /// What is allowed from one address to another, host endpoints included, in default circumstances. Where neither end is a
    /// pod it says what no policy of pods judges.
    pub fn settled(&self, from: &Place, to: &Place) -> Settled {
        let passage = self.passage(from.address, to.address);
        let allowed = self.allowed_on(&passage);
        let Some(passing) = self.passing(&passage, from.address, to.address) else {
            let unknown = TransportSet::none(allowed.family());
            return Settled { allowed: TransportSet::clone(&allowed), unknown };
        };
        // what is settled before policy never meets a host endpoint (semantics 1.2)
        let always = passage.always().intersect(&allowed);
        let Settled { allowed, unknown } = passing.settle(&allowed.subtract(&always));
        Settled { allowed: allowed.union(&always), unknown }
    }

    /// What host endpoints let pass between two addresses; `None` where none is asked.
    pub(crate) fn passing(&self, passage: &Passage, from: IpAddr, to: IpAddr) -> Option<Arc<Passing>> {
        if self.plan().host_endpoints.is_empty() || passage.is_open() {
            return None;
        }
        // which pods claim an address matters where several do: else all pods of a node share what is known
        let is_contested = [from, to].iter().any(|address| self.owners_of(*address).len() > 1);
        let [from_end, to_end] = [self.end(from, is_contested)?, self.end(to, is_contested)?];
        self.passing_between(Family::of(from), from_end, to_end)
    }

    /// As [`Snapshot::passing`], for ends that need not be there.
    pub(crate) fn passing_between(&self, family: Family, from: End, to: End) -> Option<Arc<Passing>> {
        if self.plan().host_endpoints.is_empty() {
            return None;
        }
        let key = (family, from, to);
        if let Some(known) = self.memo.known_passing(&key) {
            return Some(known);
        }
        let passing = Arc::new(passing(self.plan(), family, &key.1, &key.2));
        self.memo.keep_passing(key, passing.clone());
        Some(passing)
    }

    pub(crate) fn end(&self, address: IpAddr, with_names: bool) -> Option<End> {
        let class = self.plan().class_of(address)?;
        let at = match (self.owners_of(address), self.plan().nodes.get(&address)) {
            ([], Some(node)) => vec![At::Node(node.clone())],
            ([], None) => vec![At::Outside],
            (owners, _) => {
                let name = |pod: &PodKey| with_names.then(|| pod.clone());
                owners.iter().map(|owner| At::Pod(name(&owner.pod), owner.node.clone())).collect()
            }
        };
        Some(End { class, at })
    }
}

/// What the host endpoints of a plan let pass between two ends.
pub(crate) fn passing(plan: &Plan, family: Family, from: &End, to: &End) -> Passing {
    Journey::new(plan, family, from, to).judge()
}

/// What a connection meets on one side of a node.
#[derive(Clone, Copy)]
enum Side<'p> {
    Pod,
    Process,
    Interface(Option<&'p HostEndpoint>),
}

/// An end on a node; `None` for one outside.
type Spot<'p> = Option<(&'p str, Side<'p>)>;

struct Journey<'p> {
    plan: &'p Plan,
    family: Family,
    from: &'p End,
    to: &'p End,
    failsafes: [TransportSet; 2],
    neighbours: TransportSet,
}

/// What a stage says to each transport.
struct Words {
    denied: TransportSet,
    allowed_by_rule: TransportSet,
}

impl<'p> Journey<'p> {
    fn new(plan: &'p Plan, family: Family, from: &'p End, to: &'p End) -> Self {
        // by default they hold for every other end
        let set = |list: &[Failsafe]| {
            let ports = list.iter().filter(|failsafe| failsafe.net.is_none());
            ports.fold(TransportSet::none(family), |all, failsafe| {
                let port = PortRange::single(failsafe.port);
                all.union(&TransportSet::of(family, failsafe.protocol, Some(port)))
            })
        };
        let failsafes = Circumstances::default().failsafes;
        let neighbours = match family {
            Family::V4 => TransportSet::none(family),
            Family::V6 => TransportSet::icmp_types(family, &[(130, 136), (143, 143)]),
        };
        let failsafes = [set(&failsafes.inbound), set(&failsafes.outbound)];
        Journey { plan, family, from, to, failsafes, neighbours }
    }

    fn judge(&self) -> Passing {
        let mut nodes: BTreeSet<&str> = self.plan.host_endpoints.values().map(|e| &*e.node).collect();
        nodes.insert(""); // stands for every node without host endpoints
        let spots = |at: &'p At| -> Vec<Spot<'p>> {
            match at {
                At::Pod(_, Some(node)) => vec![Some((node, Side::Pod))],
                At::Pod(_, None) => nodes.iter().map(|node| Some((*node, Side::Pod))).collect(),
                At::Node(node) => vec![Some((node, Side::Process))],
                At::Outside => vec![None],
            }
        };
        let mut all: Option<Passing> = None;
        for from in &self.from.at {
            for to in &self.to.at {
                let same_pod = matches!((from, to), (At::Pod(Some(a), _), At::Pod(Some(b), _)) if a == b);
                let targets = spots(to);
                let ways = spots(from).into_iter().flat_map(|from| targets.iter().map(move |to| (from, *to)));
                let ways = ways.filter(|(from, to)| !same_pod || from.map(|f| f.0) == to.map(|t| t.0));
                let ways = ways.map(|(from, to)| self.way(from, to));
                // whose interface a packet of a contested address meets is not known, so that the strictest holds (semantics 1.9)
                if let Some(passing) = Passing::all(ways) {
                    all = Some(match all {
                        Some(before) => before.then(passing),
                        None => passing,
                    });
                }
            }
        }
        all.unwrap_or_else(|| self.nothing_in_the_way())
    }

    fn nothing_in_the_way(&self) -> Passing {
        Passing { through: TransportSet::all(self.family), stopped: TransportSet::none(self.family) }
    }

    fn way(&self, from: Spot<'p>, to: Spot<'p>) -> Passing {
        match (from, to) {
            (Some((source, entry)), Some((target, exit))) if source == target => {
                self.cross(entry, exit, self.every(source))
            }
            (Some((source, entry)), Some((target, exit))) => {
                self.leave(source, entry).then(self.enter(target, exit))
            }
            (Some((source, entry)), None) => self.leave(source, entry),
            (None, Some((target, exit))) => self.enter(target, exit),
            (None, None) => self.nothing_in_the_way(),
        }
    }

    fn leave(&self, node: &str, entry: Side<'p>) -> Passing {
        self.by_any_interface(node, |exit, every| self.cross(entry, exit, every))
    }

    fn enter(&self, node: &str, exit: Side<'p>) -> Passing {
        self.by_any_interface(node, |entry, every| self.cross(entry, exit, every))
    }

    fn of_node(&self, node: &str) -> impl Iterator<Item = &'p HostEndpoint> {
        self.plan.host_endpoints.values().filter(move |endpoint| *endpoint.node == *node)
    }

    /// The `*` host endpoint of a node, which also stands at pod interfaces.
    fn every(&self, node: &str) -> Option<&'p HostEndpoint> {
        self.of_node(node).find(|endpoint| endpoint.interface == InterfaceMatch::Every)
    }

    /// What is known whichever interface of the node it is.
    fn by_any_interface(
        &self,
        node: &str,
        cross: impl Fn(Side<'p>, Option<&'p HostEndpoint>) -> Passing,
    ) -> Passing {
        let every = self.every(node);
        let mut by_name: BTreeMap<&Arc<str>, &HostEndpoint> = BTreeMap::new();
        let mut sides = vec![every];
        // an address leads to the first host endpoint that names it, so that a later one needs one of its own
        let mut addresses: BTreeSet<IpAddr> = BTreeSet::new();
        for endpoint in self.of_node(node) {
            match &endpoint.interface {
                InterfaceMatch::Named(name) => drop(by_name.entry(name).or_insert(endpoint)),
                InterfaceMatch::ByAddress => {
                    let before = addresses.len();
                    addresses.extend(&endpoint.addresses);
                    if addresses.len() > before {
                        sides.push(Some(endpoint));
                    }
                }
                InterfaceMatch::Every => {}
            }
        }
        sides.extend(by_name.into_values().map(Some));
        let each = sides.into_iter().map(|endpoint| cross(Side::Interface(endpoint), every));
        Passing::all(each).unwrap_or_else(|| self.nothing_in_the_way())
    }

    /// The row of the path table that fits, but for the legs of pods.
    fn cross(&self, entry: Side<'p>, exit: Side<'p>, every: Option<&'p HostEndpoint>) -> Passing {
        let all = TransportSet::all(self.family);
        let mut stopped = TransportSet::none(self.family);
        let inbound = match entry {
            Side::Interface(endpoint) => endpoint,
            Side::Pod => every,
            Side::Process => None,
        };
        if let Some(endpoint) = inbound {
            let early: &[Stage] = match entry {
                Side::Interface(_) => &[Stage::Untracked, Stage::PreDnat],
                Side::Pod | Side::Process => &[Stage::PreDnat],
            };
            let (denied, allowed, _) = self.early(endpoint, Direction::Ingress, early);
            let later = match (entry, exit) {
                (Side::Interface(_), Side::Process) => Some(Stage::Normal),
                // normal policies never apply between a pod and its own node
                (_, Side::Process) => None,
                (_, Side::Pod | Side::Interface(_)) => Some(Stage::Forward),
            };
            // an Allow of an early stage skips the later one of its interface; a failsafe does not skip forward
            let asked = all.subtract(&denied).subtract(&allowed);
            stopped = later.map_or(denied.clone(), |stage| {
                denied.union(&self.late(endpoint, Direction::Ingress, stage).intersect(&asked))
            });
        }
        let outbound = match (entry, exit) {
            (_, Side::Interface(endpoint)) => endpoint,
            (Side::Pod, Side::Pod) => every,
            (_, Side::Pod | Side::Process) => None,
        };
        if let Some(endpoint) = outbound {
            let denied = match entry {
                Side::Process => {
                    let (denied, allowed, failsafe) =
                        self.early(endpoint, Direction::Egress, &[Stage::Untracked]);
                    let decided = denied.union(&allowed).union(&failsafe);
                    denied.union(&self.late(endpoint, Direction::Egress, Stage::Normal).subtract(&decided))
                }
                Side::Pod | Side::Interface(_) => self.late(endpoint, Direction::Egress, Stage::Forward),
            };
            stopped = stopped.union(&denied);
        }
        Passing { through: all.subtract(&stopped), stopped }
    }

    fn failsafe(&self, direction: Direction) -> &TransportSet {
        match direction {
            Direction::Ingress => &self.failsafes[0],
            Direction::Egress => &self.failsafes[1],
        }
    }

    /// What early stages deny, what a rule of them allows, and what passes them because it is a failsafe.
    fn early(
        &self,
        endpoint: &HostEndpoint,
        direction: Direction,
        stages: &[Stage],
    ) -> (TransportSet, TransportSet, TransportSet) {
        let none = || TransportSet::none(self.family);
        let (mut denied, mut allowed, mut safe) = (none(), none(), none());
        // the talk of a link about its own addresses passes, as ARP does
        let mut open = TransportSet::all(self.family).subtract(&self.neighbours);
        for legs in stages.iter().filter_map(|stage| endpoint.stages(direction).of(*stage)) {
            safe = safe.union(&self.failsafe(direction).intersect(&open));
            open = open.subtract(&safe);
            let words = self.words(legs, direction);
            denied = denied.union(&words.denied.intersect(&open));
            allowed = allowed.union(&words.allowed_by_rule.intersect(&open));
            open = open.subtract(&denied).subtract(&allowed);
        }
        (denied, allowed, safe)
    }

    /// What a late stage denies.
    fn late(&self, endpoint: &HostEndpoint, direction: Direction, stage: Stage) -> TransportSet {
        let Some(legs) = endpoint.stages(direction).of(stage) else {
            return TransportSet::none(self.family);
        };
        let denied = self.words(legs, direction).denied;
        match stage {
            // failsafes never stand before forward, and neighbour discovery is never forwarded
            Stage::Forward => denied,
            Stage::Untracked | Stage::PreDnat | Stage::Normal => {
                denied.subtract(self.failsafe(direction)).subtract(&self.neighbours)
            }
        }
    }

    fn words(&self, legs: &StageLegs, direction: Direction) -> Words {
        let (own, peer) = match direction {
            Direction::Ingress => (self.to.class, self.from.class),
            Direction::Egress => (self.from.class, self.to.class),
        };
        let function = self.plan.classes.get(&own).and_then(|ground| {
            let leg = legs.leg(own, *ground);
            self.plan.functions.get(&self.plan.function(leg, peer)?)
        });
        // a plan names no class, leg or function that it does not have; were it so, nothing would be known to pass
        let Some(function) = function else {
            let (denied, allowed_by_rule) = (TransportSet::all(self.family), TransportSet::none(self.family));
            return Words { denied, allowed_by_rule };
        };
        let by_rule = |outcome: &sluice_plan::Outcome| {
            outcome.verdict == Verdict::Allow && matches!(outcome.cause, Cause::Rule(_))
        };
        Words {
            denied: TransportSet::decided_by(self.family, function, |o| o.verdict == Verdict::Deny),
            allowed_by_rule: TransportSet::decided_by(self.family, function, by_rule),
        }
    }
}
