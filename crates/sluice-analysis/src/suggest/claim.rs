//! The smallest policies that make a claim true (semantics 8.3).

use std::collections::BTreeSet;
use std::sync::Arc;

use sluice_addr::{Family, PortRange, Protocol};
use sluice_model::{Action, Direction, Pod, PortMatch, World};
use sluice_report::{Claim, ClaimEnd, ClaimPort, ClaimState, ConnectionChange, Expect};
use sluice_selector::LabelSelector;

use super::advice::{Advice, Suggestion, Work};
use super::draft::{Draft, DraftRule, Form, NAMESPACE_NAME, Peer, PodSet, Ports, Scope, whole};
use super::opening::{Denial, Opening, denial, object_name, open};
use super::surroundings::{backends, families, node_blocks, outside, outside_now};
use super::workload::{named, siblings};
use crate::judge::state_of;
use crate::judge_claim;
use crate::snapshot::Snapshot;

/// More policies than this are no answer that a person would apply.
const MOST_POLICIES: usize = 24;

/// The smallest policies that make a claim true, the alternative that changes least first. None if it is true already, or if
/// none was found; then a note says why.
pub fn suggest_for_claim(snapshot: &Snapshot, claim: &Claim) -> Advice {
    let result = judge_claim(snapshot, claim);
    let nothing_listed = claim.expect == Expect::AllowOnly && result.state == ClaimState::Vacuous;
    if result.state.holds() && !nothing_listed {
        return Advice::none(format!("the claim {} already: {}", result.state, result.reason));
    }
    let present = Claim { future_pods: false, ..claim.clone() };
    if result.state == ClaimState::Undecided && state_of(snapshot, &present).holds() {
        return Advice::none(format!(
            "it holds for the pods that exist and is else undecided: {}",
            result.missing.join("; ")
        ));
    }
    let mut alternatives: Vec<Suggestion> = match claim.expect {
        Expect::Allow => opened(Work::new(snapshot), claim, claim).into_iter().collect(),
        Expect::Deny | Expect::ReachOnly => closed(snapshot, claim),
        Expect::AllowOnly => {
            let listed = Claim { expect: Expect::Allow, ..claim.clone() };
            let closings = if nothing_listed { vec![Vec::new()] } else { closings(snapshot.world(), claim) };
            let open = |drafts: Vec<Draft>| {
                let work = applied(snapshot, drafts)?;
                let state = state_of(&work.snapshot(), claim);
                match state {
                    ClaimState::Holds => {
                        Some(work.finish(purpose(claim))).filter(|suggestion| suggestion.opens().count() == 0)
                    }
                    ClaimState::Vacuous => opened(work, &listed, claim),
                    ClaimState::Fails | ClaimState::Undecided => None,
                }
            };
            closings.into_iter().filter_map(open).collect()
        }
    };
    // the least that is opened, then the least that is closed, then the fewest policies
    let pairs = |s: &Suggestion| {
        let of = |rows: &mut dyn Iterator<Item = &ConnectionChange>| rows.map(|row| row.pairs).sum::<u64>();
        (of(&mut s.opens()), of(&mut s.closes()), s.policies.len())
    };
    alternatives.sort_by_key(pairs);
    alternatives.dedup_by(|a, b| a.policies == b.policies);
    let notes = match alternatives.is_empty() {
        false => Vec::new(),
        true => vec![format!(
            "no set of policies was found that makes it true; it {}: {}",
            result.state, result.reason
        )],
    };
    Advice { alternatives, notes }
}

/// Does the claim hold now? If that is certain for present pods only, a warning says so.
fn settled(after: &Snapshot, claim: &Claim) -> Option<Option<String>> {
    let result = judge_claim(after, claim);
    if result.state.holds() {
        return Some(None);
    }
    let present = Claim { future_pods: false, ..claim.clone() };
    (result.state == ClaimState::Undecided && state_of(after, &present).holds()).then(|| {
        Some(format!(
            "it holds for the pods that exist; for pods to come it is undecided: {}",
            result.missing.join("; ")
        ))
    })
}

fn purpose(claim: &Claim) -> String {
    format!("makes claim {} true: {}", claim.name, claim.text)
}

/// Drafts as a work; `None` if a kind cannot say one of them.
fn applied(snapshot: &Snapshot, drafts: Vec<Draft>) -> Option<Work<'_>> {
    let mut work = Work::new(snapshot);
    for mut draft in drafts {
        work.free_name(&mut draft);
        let policy = draft.policy()?;
        let what = match (&draft.form, draft.ingress.is_some()) {
            (Form::Kubernetes, true) => format!("isolates what enters pods of {}", policy.key.namespace),
            (Form::Kubernetes, false) => format!("isolates what leaves pods of {}", policy.key.namespace),
            (_, _) => "denies before every other policy".to_owned(),
        };
        work.accept(policy, what, &[]);
    }
    Some(work)
}

// ---------------------------------------------------------------- opening

/// Opens every leg that keeps `asked` from holding, witness by witness, until `goal` holds.
fn opened(mut work: Work<'_>, asked: &Claim, goal: &Claim) -> Option<Suggestion> {
    let present = Claim { future_pods: false, ..asked.clone() };
    for _ in 0..MOST_POLICIES {
        let now = work.snapshot();
        let result = judge_claim(&now, &present);
        if result.state != ClaimState::Fails {
            break;
        }
        let flow = result.witness?.flow;
        let denial = denial(&work.world, &flow)?;
        let opening = opening(work.before, &now, asked, &denial)?;
        let what = format!("lets pass what claim {} lists", asked.name);
        if !open(&mut work, &flow, &denial, &opening, &what) {
            return None;
        }
    }
    let after = work.snapshot();
    let state = state_of(&after, goal);
    if state == ClaimState::Holds {
        return Some(work.finish_with(&after, purpose(goal)));
    }
    let now = Claim { future_pods: false, ..goal.clone() };
    if !goal.future_pods || state_of(&after, &now) != ClaimState::Holds || work.policies.is_empty() {
        return None;
    }
    work.warn("holds for the pods that exist; pods to come with other labels may still be cut off".into());
    Some(work.finish_with(&after, purpose(goal)))
}

/// What the denying leg must let pass: for the claim's own ends where their selector takes no pod that would be isolated by
/// it, else for the workload.
fn opening(before: &Snapshot, now: &Snapshot, claim: &Claim, denial: &Denial) -> Option<Opening> {
    let world = before.world();
    let (own, other) = match denial.direction {
        Direction::Ingress => (&claim.to, &claim.from),
        Direction::Egress => (&claim.from, &claim.to),
    };
    let pod = world.pods.get(&denial.pod)?;
    let stated = own.iter().find_map(|peer| match peer {
        ClaimEnd::Pods { namespaces, pods } => {
            let takes =
                namespaces.matches(&world.namespace_labels(&pod.key.namespace)) && pods.matches(&pod.labels);
            takes.then(|| pods.clone())
        }
        _ => None,
    });
    let scope = Scope::One(pod.key.namespace.clone());
    let subject = stated
        .filter(|pods| takes_only_isolated(now, pod, pods, denial))
        .map(|pods| PodSet { scope, pods })
        .unwrap_or_else(|| named(world, &siblings(world, pod)).set);
    let verb = match denial.direction {
        Direction::Ingress => "from",
        Direction::Egress => "to",
    };
    Some(Opening {
        subject,
        direction: denial.direction,
        peers: vec![peers(world, other, claim)],
        ports: ports(claim),
        name: object_name(&["claim", &claim.name, verb, &pod.key.namespace]),
    })
}

/// Do policies of the denying tier apply already to every pod that the selector takes? A pod that no policy of it selects
/// would be isolated by a new one.
fn takes_only_isolated(now: &Snapshot, pod: &Pod, pods: &LabelSelector, denial: &Denial) -> bool {
    super::workload::of_namespace(now.world(), &pod.key.namespace)
        .filter(|other| !other.host_network && pods.matches(&other.labels))
        .flat_map(|other| other.live_addresses())
        .flat_map(|address| now.owners_of(*address))
        .filter_map(|owner| now.plan().legs.get(&owner.subject.leg(denial.direction)))
        .all(|leg| leg.tiers.iter().any(|tier| tier.tier == denial.tier))
}

/// The listed ports as a rule writes them.
fn ports(claim: &Claim) -> Option<Vec<Ports>> {
    if claim.ports.is_empty() {
        return None;
    }
    let every = |protocol: Protocol| {
        // policies name ports from 1; a claim about a whole protocol does not mean port 0
        protocol.has_ports().then(|| PortRange::new(1, u16::MAX).ok()).flatten()
    };
    let all = claim.ports.iter().map(|ClaimPort { protocol, port }| match port {
        PortMatch::Any => Ports::new(*protocol, every(*protocol)),
        PortMatch::Range(range) => Ports::new(*protocol, Some(*range)),
        PortMatch::Named(name) => Ports { name: Some(name.clone()), ..Ports::new(*protocol, None) },
    });
    Some(all.collect())
}

/// The members of a claim's end as peers of a rule.
fn peers(world: &World, ends: &[ClaimEnd], claim: &Claim) -> Vec<Peer> {
    let families = asked(world, claim);
    let mut peers: Vec<Peer> = Vec::new();
    for end in ends {
        match end {
            ClaimEnd::Pods { .. } => peers.extend(pod_set(end).map(Peer::Pods)),
            ClaimEnd::Cidr { cidr, except } => {
                peers.push(Peer::Block { cidr: *cidr, except: except.clone() });
            }
            ClaimEnd::Outside => {
                peers.extend(outside_now(world, &families).unwrap_or_else(|| outside(world, &families)));
            }
            ClaimEnd::Nodes(labels) => peers.extend(node_blocks(world, labels)),
            ClaimEnd::Service { namespace, name } => {
                for pod in backends(world, namespace, name) {
                    peers.push(Peer::Pods(named(world, &siblings(world, pod)).set));
                }
            }
        }
    }
    let mut unique: Vec<Peer> = Vec::new();
    for peer in peers {
        if !unique.contains(&peer) {
            unique.push(peer);
        }
    }
    unique
}

fn asked(world: &World, claim: &Claim) -> Vec<Family> {
    if claim.families.is_empty() { families(world) } else { claim.families.clone() }
}

/// Pods of a claim as a set; a selector that names one namespace is that namespace.
fn pod_set(end: &ClaimEnd) -> Option<PodSet> {
    let ClaimEnd::Pods { namespaces, pods } = end else { return None };
    let scope = match (namespaces.match_labels.len(), namespaces.match_expressions.is_empty()) {
        (1, true) => namespaces
            .match_labels
            .iter()
            .find(|(key, _)| &***key == NAMESPACE_NAME)
            .map(|(_, name)| Scope::One(name.clone())),
        _ => None,
    };
    Some(PodSet { scope: scope.unwrap_or_else(|| Scope::Matching(namespaces.clone())), pods: pods.clone() })
}

// ---------------------------------------------------------------- closing

/// Every way to close what the claim forbids after which it holds.
fn closed(snapshot: &Snapshot, claim: &Claim) -> Vec<Suggestion> {
    let mut found = Vec::new();
    for drafts in closings(snapshot.world(), claim) {
        let Some(mut work) = applied(snapshot, drafts) else { continue };
        let after = work.snapshot();
        let Some(doubt) = settled(&after, claim) else { continue };
        doubt.into_iter().for_each(|doubt| work.warn(doubt));
        let suggestion = work.finish_with(&after, purpose(claim));
        // a Pass that stands before other denials opens what they deny
        found.extend(Some(suggestion).filter(|suggestion| suggestion.opens().count() == 0));
    }
    found
}

/// Ways to close what a claim forbids: at each end that is pods by labels, with the least kind and with one that stands
/// before all others.
fn closings(world: &World, claim: &Claim) -> Vec<Vec<Draft>> {
    let mut ways = Vec::new();
    let directions: &[Direction] = match claim.expect {
        // everything that leaves `from` is asked about, whatever its destination
        Expect::ReachOnly => &[Direction::Egress],
        Expect::Allow | Expect::Deny | Expect::AllowOnly => &Direction::BOTH,
    };
    for direction in directions {
        let (own, other) = match direction {
            Direction::Ingress => (&claim.to, &claim.from),
            Direction::Egress => (&claim.from, &claim.to),
        };
        let Some(subjects) = own.iter().map(|end| subject(world, end)).collect::<Option<Vec<_>>>() else {
            continue;
        };
        let others = peers(world, other, claim);
        let rules = isolating_rules(claim, &others);
        let isolation = subjects.iter().flat_map(|set| in_namespaces(world, set)).map(|subject| {
            Draft::of(Form::Kubernetes, name(claim, *direction), subject, *direction, rules.clone())
        });
        ways.push(isolation.collect());
        let rules = denying_rules(world, claim, other);
        for form in [
            Form::Cluster { admin: true, priority: 0 },
            Form::Calico { tier: "kube-admin".into(), order: Some(0.0) },
        ] {
            let draft = |subject: &PodSet| {
                let name = match &form {
                    Form::Calico { tier, .. } => format!("{tier}.{}", name(claim, *direction)),
                    Form::Kubernetes | Form::Cluster { .. } => name(claim, *direction),
                };
                Draft::of(form.clone(), name, subject.clone(), *direction, rules.clone())
            };
            ways.push(subjects.iter().map(draft).collect());
        }
    }
    ways.retain(|drafts: &Vec<Draft>| !drafts.is_empty() && drafts.len() <= MOST_POLICIES);
    ways
}

fn name(claim: &Claim, direction: Direction) -> String {
    object_name(&["claim", &claim.name, &direction.to_string()])
}

/// An end as the subject of a policy, if policies of pods select it.
fn subject(world: &World, end: &ClaimEnd) -> Option<PodSet> {
    match end {
        ClaimEnd::Pods { .. } => pod_set(end),
        ClaimEnd::Service { namespace, name } => {
            let pods = backends(world, namespace, name);
            let first = pods.first()?;
            let set = named(world, &siblings(world, first)).set;
            pods.iter().all(|pod| set.pods.matches(&pod.labels)).then_some(set)
        }
        ClaimEnd::Cidr { .. } | ClaimEnd::Outside | ClaimEnd::Nodes(_) => None,
    }
}

/// The same pods namespace by namespace, as NetworkPolicies need it.
fn in_namespaces(world: &World, set: &PodSet) -> Vec<PodSet> {
    let Scope::Matching(selector) = &set.scope else { return vec![set.clone()] };
    let known: BTreeSet<Arc<str>> = world
        .namespaces
        .keys()
        .cloned()
        .chain(world.pods.keys().map(|key| key.namespace.clone()))
        .filter(|name| selector.matches(&world.namespace_labels(name)))
        .collect();
    known.into_iter().map(|name| PodSet { scope: Scope::One(name), pods: set.pods.clone() }).collect()
}

/// What an isolated end still lets pass.
fn isolating_rules(claim: &Claim, others: &[Peer]) -> Vec<DraftRule> {
    let allow = |ports| DraftRule { action: Action::Allow, peers: Some(others.to_vec()), ports };
    match claim.expect {
        Expect::Allow | Expect::Deny => Vec::new(),
        Expect::AllowOnly => vec![allow(ports(claim))],
        Expect::ReachOnly => vec![allow(None)],
    }
}

/// Rules that deny what the claim forbids and leave everything else to later tiers.
fn denying_rules(world: &World, claim: &Claim, ends: &[ClaimEnd]) -> Vec<DraftRule> {
    let (outside, named): (Vec<_>, Vec<_>) =
        ends.iter().cloned().partition(|end| matches!(end, ClaimEnd::Outside));
    let named = peers(world, &named, claim);
    let every_pod = PodSet { scope: Scope::Matching(LabelSelector::all()), pods: LabelSelector::all() };
    let mut inside = vec![Peer::Pods(every_pod)];
    inside.extend(node_blocks(world, &LabelSelector::all()));
    let everywhere = |families: &[Family]| -> Vec<Peer> {
        families.iter().map(|family| Peer::Block { cidr: whole(*family), except: Vec::new() }).collect()
    };
    let rule = |action, peers: &[Peer], ports| {
        let peers = Some(peers.to_vec()).filter(|peers| !peers.is_empty());
        peers.map(|peers| DraftRule { action, peers: Some(peers), ports })
    };
    if claim.expect == Expect::ReachOnly {
        let forbidden = if outside.is_empty() { everywhere(&Family::BOTH) } else { inside };
        let rules = [rule(Action::Pass, &named, None), rule(Action::Deny, &forbidden, ports(claim))];
        return rules.into_iter().flatten().collect();
    }
    let close = |peers: &[Peer]| match claim.expect {
        Expect::AllowOnly => [rule(Action::Pass, peers, ports(claim)), rule(Action::Deny, peers, None)],
        Expect::Allow | Expect::Deny | Expect::ReachOnly => [rule(Action::Deny, peers, ports(claim)), None],
    };
    let mut rules = close(&named).to_vec();
    if !outside.is_empty() {
        // what is inside is told by labels, so that pods to come are not taken for the outside
        rules.push(rule(Action::Pass, &inside, None));
        rules.extend(close(&everywhere(&asked(world, claim))));
    }
    rules.into_iter().flatten().collect()
}
