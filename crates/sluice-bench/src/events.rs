//! Single changes at the size of a large cluster, each with its flush.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use sluice_addr::Cidr;
use sluice_engine::Engine;
use sluice_model::{Object, ObjectDelta, Pod};
use sluice_plan::{Changes, PlanDelta};

use crate::BenchError;
use crate::make::mix;
use crate::measure::{Measure, Unit, quantile};
use crate::shape::Size;
use crate::shape::cluster::{Cluster, EDITABLE, Edit, other_tier, team, tier_of};

/// A pod of another node appears whose labels another pod of its namespace has.
pub(crate) const POD_ARRIVES: &str = "pod arrives, known class";
/// It goes.
pub(crate) const POD_LEAVES: &str = "pod leaves, known class";
/// A pod of another node takes the labels of another app of its namespace.
pub(crate) const POD_RELABELLED: &str = "pod changes labels, known class";
/// A pod appears that rules can tell from every other.
pub(crate) const POD_OF_NEW_CLASS: &str = "pod arrives, new class";
/// A pod appears on this node, like one that is here.
pub(crate) const LOCAL_POD_ARRIVES: &str = "local pod arrives";
/// It goes.
pub(crate) const LOCAL_POD_LEAVES: &str = "local pod leaves";
/// A policy in force on this node has another port.
pub(crate) const PORT_EDITED: &str = "policy edited, port";
/// A policy in force on this node has other peers.
pub(crate) const PEER_EDITED: &str = "policy edited, peers";
/// A policy in force on this node goes.
pub(crate) const POLICY_DELETED: &str = "policy deleted";
/// It comes back.
pub(crate) const POLICY_ADDED: &str = "policy added";
/// A policy changes that selects no pod of this node.
pub(crate) const IDLE_POLICY_EDITED: &str = "policy edited, not in force here";
/// The label of a namespace changes that rules look at.
pub(crate) const NAMESPACE_RELABELLED: &str = "namespace changes labels";

/// One CIDR joins the largest set that rules in force look at, or another leaves it. The event carries the whole object.
pub(crate) const SET_EDITED: &str = "set edit, one CIDR of 54,566";

/// How often each change is made.
const ROUNDS: usize = 3_000;
/// And how often at least, however long it takes.
const LEAST: usize = 8;

/// What was observed of one kind of change.
#[derive(Default)]
struct Observed {
    times: Vec<f64>,
    /// What part of the time that each change may take was used.
    used: Vec<f64>,
    elements: usize,
    /// How many made a class.
    new_classes: usize,
}

impl Observed {
    fn merge(&mut self, other: Observed) {
        self.times.extend(other.times);
        self.used.extend(other.used);
        self.elements = self.elements.max(other.elements);
        self.new_classes += other.new_classes;
    }

    /// Fails if too many of the changes were not what their name says.
    fn of_known_classes(self) -> Result<Self, BenchError> {
        let (new, all) = (self.new_classes, self.times.len());
        let as_named = new * 100 <= all;
        as_named
            .then_some(self)
            .ok_or_else(|| BenchError::Empty(format!("of {all} changes {new} made a class")))
    }

    /// As [`Observed::of_known_classes`].
    fn of_new_classes(self) -> Result<Self, BenchError> {
        let (new, all) = (self.new_classes, self.times.len());
        let as_named = new * 10 >= all * 9;
        as_named.then_some(self).ok_or_else(|| BenchError::Empty(format!("of {all} pods {new} made a class")))
    }

    fn measure(self, name: &str) -> Measure {
        let mut used = self.used;
        used.sort_by(f64::total_cmp);
        Measure {
            elements: Some(self.elements),
            used: Some(quantile(&used, 0.99)),
            ..Measure::new(name, Unit::Seconds, self.times)
        }
    }
}

struct Bench<'e> {
    engine: &'e mut Engine,
    cluster: Cluster,
    /// Namespaces that have pods here, and whose policies are in force.
    active: Vec<usize>,
    local: Vec<usize>,
    budget: Duration,
    seed: u64,
    /// Number of the next pod that the cluster does not have.
    next: usize,
}

/// Makes a change; returns how many elements of the plan are others.
fn change(engine: &mut Engine, delta: ObjectDelta, observed: &mut Observed) -> usize {
    let start = Instant::now();
    engine.apply(delta);
    let delta = engine.flush();
    let time = start.elapsed().as_secs_f64();
    let elements = delta.as_ref().map_or(0, elements);
    observed.times.push(time);
    observed.used.push(time / (elements as f64 * 1e-6).max(1e-3));
    observed.elements = observed.elements.max(elements);
    observed.new_classes += usize::from(delta.is_some_and(|delta| !delta.classes.upserts.is_empty()));
    elements
}

/// Every kind of change. The engine is as before afterwards.
pub(crate) fn run(engine: &mut Engine, size: Size, budget: Duration) -> Result<Vec<Measure>, BenchError> {
    let cluster = Cluster::large(size);
    let local = cluster.local(0);
    let active: BTreeSet<usize> = local.iter().map(|pod| cluster.namespace_of(*pod)).collect();
    let next = cluster.pods();
    let active: Vec<usize> = active.into_iter().collect();
    let mut bench = Bench { engine, cluster, active, local, budget, seed: size.seed ^ 0xe7e, next };
    let mut measures = Vec::new();
    measures.extend(bench.known_pods()?);
    measures.push(bench.relabelled_pods()?);
    measures.push(bench.new_classes()?);
    measures.extend(bench.local_pods());
    measures.extend(bench.edits()?);
    measures.push(bench.namespaces());
    Ok(measures)
}

/// One CIDR of a very large set comes and goes, at every place of its list. The engine is as before afterwards.
pub(crate) fn set_edits(engine: &mut Engine, seed: u64, budget: Duration) -> Result<Measure, BenchError> {
    let sets = engine.world().sets.values();
    let largest = sets.max_by_key(|set| set.nets.len()).filter(|set| !set.nets.is_empty()).cloned();
    let largest = largest.ok_or_else(|| BenchError::Empty("no set has members".into()))?;
    let mut observed = Observed::default();
    let end = Instant::now() + budget;
    for number in 0..ROUNDS {
        if number >= LEAST && Instant::now() > end {
            break;
        }
        let at = mix(seed, number as u64) as usize % largest.nets.len();
        let mut edited = largest.clone();
        if number % 2 == 0 {
            edited.nets.remove(at);
        } else {
            let spare = u32::try_from(number).expect("few rounds") | 203 << 24;
            edited.nets.insert(at, Cidr::host(Ipv4Addr::from_bits(spare).into()));
        }
        for set in [edited, largest.clone()] {
            let elements = change(engine, ObjectDelta::Upsert(Object::NetworkSet(set)), &mut observed);
            if elements == 0 || elements > 16 {
                return Err(BenchError::Empty(format!("one CIDR changed {elements} elements of the plan")));
            }
        }
    }
    Ok(observed.measure(SET_EDITED))
}

impl Bench<'_> {
    /// Makes `rounds` of changes; each round says which ones, and all of a round are timed apart.
    fn observe<const N: usize>(
        &mut self,
        mut round: impl FnMut(&mut Self, usize) -> [ObjectDelta; N],
    ) -> [Observed; N] {
        let mut observed = std::array::from_fn(|_| Observed::default());
        let end = Instant::now() + self.budget;
        for number in 0..ROUNDS {
            if number >= LEAST && Instant::now() > end {
                break;
            }
            for (delta, observed) in round(self, number).into_iter().zip(&mut observed) {
                change(self.engine, delta, observed);
            }
        }
        observed
    }

    fn choose<T: Copy>(&self, from: &[T], salt: u64, number: usize) -> T {
        from[(mix(self.seed ^ salt, number as u64) % from.len() as u64) as usize]
    }

    /// A pod that does not exist, on another node, like the one with this number.
    fn twin(&mut self, of: usize, node: usize) -> Pod {
        let original = self.cluster.pod(of);
        let (space, number) = (self.cluster.namespace_of(of), self.next);
        self.next += 1;
        let app = self.app_of(of);
        let mut twin = self.cluster.pod_like(number, space, app, tier_of(app), node);
        twin.labels = original.labels;
        twin
    }

    fn app_of(&self, pod: usize) -> usize {
        let space = self.cluster.namespace_of(pod);
        (pod - self.cluster.pods_of(space).start) / crate::shape::cluster::REPLICAS
    }

    /// A pod of another node; half of the time of a namespace whose policies are in force here.
    fn remote(&self, salt: u64, number: usize) -> usize {
        let draw = mix(self.seed ^ salt, number as u64) as usize;
        let pods = match number % 2 {
            0 => 0..self.cluster.pods(),
            _ => self.cluster.pods_of(self.choose(&self.active, salt ^ 1, number)),
        };
        let pod = pods.start + draw % pods.len();
        if self.local.binary_search(&pod).is_ok() {
            pods.start + (pod + 1 - pods.start) % pods.len()
        } else {
            pod
        }
    }

    fn known_pods(&mut self) -> Result<[Measure; 2], BenchError> {
        let [arrives, leaves] = self.observe(|bench, number| {
            let pod = bench.twin(bench.remote(1, number), 1);
            come_and_go(pod)
        });
        Ok([arrives.of_known_classes()?.measure(POD_ARRIVES), leaves.measure(POD_LEAVES)])
    }

    fn relabelled_pods(&mut self) -> Result<Measure, BenchError> {
        let [mut there, back] = self.observe(|bench, number| {
            let pod = bench.cluster.pod(bench.remote(2, number));
            let pods = bench.cluster.pods_of(bench.cluster.namespace_of(bench.remote(2, number)));
            let other = pods.start + mix(bench.seed, number as u64) as usize % pods.len();
            let mut changed = pod.clone();
            let other = bench.cluster.pod(other);
            changed.labels = other.labels;
            changed.named_ports = other.named_ports;
            [upsert(changed), upsert(pod)]
        });
        there.merge(back);
        Ok(there.of_known_classes()?.measure(POD_RELABELLED))
    }

    fn new_classes(&mut self) -> Result<Measure, BenchError> {
        let [arrives, _leaves] = self.observe(|bench, number| {
            let space = bench.choose(&bench.active, 3, number);
            let app = bench.app_of(bench.cluster.pods_of(space).start + 5 * (number % 4));
            let pod = bench.cluster.odd_pod(bench.next, space, app, 1);
            bench.next += 1;
            come_and_go(pod)
        });
        Ok(arrives.of_new_classes()?.measure(POD_OF_NEW_CLASS))
    }

    fn local_pods(&mut self) -> [Measure; 2] {
        let [arrives, leaves] = self.observe(|bench, number| {
            let pod = bench.twin(bench.choose(&bench.local, 4, number), 0);
            come_and_go(pod)
        });
        [arrives.measure(LOCAL_POD_ARRIVES), leaves.measure(LOCAL_POD_LEAVES)]
    }

    fn edits(&mut self) -> Result<Vec<Measure>, BenchError> {
        let editable = |cluster: &Cluster, spaces: &mut dyn Iterator<Item = usize>| -> Vec<usize> {
            let of = |space| cluster.policies_of(space).start + EDITABLE;
            spaces.filter(|space| cluster.policies_of(*space).len() > EDITABLE).map(of).collect()
        };
        let here = editable(&self.cluster, &mut self.active.iter().copied());
        let mut others = (0..self.cluster.namespaces()).filter(|space| !self.active.contains(space));
        let idle = editable(&self.cluster, &mut others);
        if here.is_empty() {
            return Err(BenchError::Empty("no policy that can be edited is in force".into()));
        }
        let policy = |bench: &Self, number, edit| {
            ObjectDelta::Upsert(Object::Policy(bench.cluster.edited_policy(number, edit)))
        };
        let mut measures = Vec::new();
        let [mut there, back] = self.observe(|bench, number| {
            let which = bench.choose(&here, 5, number);
            let port = 1_024 + (mix(7, number as u64) % 50_000) as u16;
            [policy(bench, which, Edit::Port(port)), policy(bench, which, Edit::None)]
        });
        there.merge(back);
        measures.push(there.measure(PORT_EDITED));
        let [mut there, back] = self.observe(|bench, number| {
            let which = bench.choose(&here, 6, number);
            [policy(bench, which, Edit::Peer(other_tier(0, number))), policy(bench, which, Edit::None)]
        });
        there.merge(back);
        measures.push(there.measure(PEER_EDITED));
        let [gone, back] = self.observe(|bench, number| {
            let which = bench.cluster.policy(bench.choose(&here, 7, number));
            [ObjectDelta::Delete(which.key.clone()), ObjectDelta::Upsert(Object::Policy(which))]
        });
        measures.extend([gone.measure(POLICY_DELETED), back.measure(POLICY_ADDED)]);
        if !idle.is_empty() {
            let [mut there, back] = self.observe(|bench, number| {
                let which = bench.choose(&idle, 8, number);
                [policy(bench, which, Edit::Peer(other_tier(0, number))), policy(bench, which, Edit::None)]
            });
            there.merge(back);
            measures.push(there.measure(IDLE_POLICY_EDITED));
        }
        Ok(measures)
    }

    fn namespaces(&mut self) -> Measure {
        let [mut there, back] = self.observe(|bench, number| {
            let space = bench.choose(&bench.active, 9, number);
            let label = |team| ObjectDelta::Upsert(bench.cluster.namespace(space, team));
            [label(team(space + 1 + number % 11)), label(team(space))]
        });
        there.merge(back);
        there.measure(NAMESPACE_RELABELLED)
    }
}

fn upsert(pod: Pod) -> ObjectDelta {
    ObjectDelta::Upsert(Object::Pod(pod))
}

fn come_and_go(pod: Pod) -> [ObjectDelta; 2] {
    let key = Object::Pod(pod.clone()).key();
    [upsert(pod), ObjectDelta::Delete(key)]
}

/// How many entries of the plan's maps a delta changes; a leg that is new counts all of its own.
fn elements(delta: &PlanDelta) -> usize {
    fn of<K: Ord, V>(changes: &Changes<K, V>) -> usize {
        changes.upserts.len() + changes.removals.len()
    }
    let legs: usize = delta.legs.upserts.values().map(|leg| leg.exceptions.len()).sum();
    let exceptions: usize = delta.exceptions.values().map(of).sum();
    legs + exceptions
        + of(&delta.legs)
        + of(&delta.functions)
        + of(&delta.classes)
        + of(&delta.hosts)
        + of(&delta.ranges)
        + of(&delta.endpoints)
        + of(&delta.nodes)
}
