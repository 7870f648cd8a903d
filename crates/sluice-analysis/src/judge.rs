//! Claims judged (semantics 8.3).
//!
//! Ends that no policy can tell apart are judged once: pods are grouped by what applies to them and by their class as a peer.

use std::collections::{BTreeMap, HashMap};
use std::rc::Rc;

use sluice_addr::{Family, Flow};
use sluice_model::ObjectDelta;
use sluice_plan::{ClassId, Subject};
use sluice_report::{Claim, ClaimEnd, ClaimResult, ClaimState, Expect};

use crate::claim::{Ports, asked_families, listed, ports_at};
use crate::ends::{destinations, is_member, sources};
use crate::future;
use crate::passage::{Passage, not_judged};
use crate::portability::depends_on;
use crate::reason::{Causes, admission, because, denials};
use crate::snapshot::{Place, Snapshot};
use crate::transport::TransportSet;
use crate::witness::{Shown, are_pair, note};

/// Judges a claim on a snapshot.
pub fn judge_claim(snapshot: &Snapshot, claim: &Claim) -> ClaimResult {
    let mut result = with_host_endpoints(snapshot, claim, judge(snapshot, claim));
    if result.state != ClaimState::Undecided {
        result.depends_on = depends_on(snapshot, claim, result.state);
        result.stated_reason_wrong =
            !claim.stated_reason.is_empty() && is_same_without_reason(snapshot, claim, result.state);
    }
    result
}

/// Host endpoints can only deny more than the policies of pods do, and the plan does not hold them yet: what they could change is
/// asked of the evaluator, or undecided (semantics 1.11).
fn with_host_endpoints(snapshot: &Snapshot, claim: &Claim, result: ClaimResult) -> ClaimResult {
    let names_others = |end: &ClaimEnd| !matches!(end, ClaimEnd::Pods { .. } | ClaimEnd::Service { .. });
    let concerned = claim.from.iter().chain(&claim.to).any(names_others) || claim.expect == Expect::ReachOnly;
    if snapshot.world().host_endpoints.is_empty() || !(concerned || snapshot.has_forward_stages()) {
        return result;
    }
    let shown = result.witness.as_ref().filter(|witness| witness.allowed);
    let is_shown = shown.is_some_and(|witness| snapshot.can(&witness.flow) == sluice_report::Answer::Allow);
    let stands = match (result.state, claim.expect) {
        (ClaimState::Undecided | ClaimState::Vacuous, _) | (ClaimState::Fails, Expect::Allow) => true,
        (ClaimState::Holds, Expect::Deny) => true,
        (ClaimState::Holds, Expect::Allow) => false,
        // something must be allowed, or the packet that refutes must
        (ClaimState::Holds | ClaimState::Fails, _) => is_shown,
    };
    if stands {
        return result;
    }
    let missing = "which interfaces the connections pass, and so what the HostEndpoints on them do";
    ClaimResult {
        state: ClaimState::Undecided,
        witness: None,
        reason: format!("by the policies of pods it {}; host endpoints could change that", result.state),
        missing: vec![missing.into()],
        ..result
    }
}

/// The state alone.
pub(crate) fn state_of(snapshot: &Snapshot, claim: &Claim) -> ClaimState {
    judge(snapshot, claim).state
}

fn judge(snapshot: &Snapshot, claim: &Claim) -> ClaimResult {
    let present = judge_present(snapshot, claim);
    // a packet between present pods refutes a claim about all pods too
    if !claim.future_pods || present.state == ClaimState::Fails {
        return present;
    }
    future::judge(snapshot, claim, present)
}

/// Judges a claim about the pods that are there.
pub(crate) fn judge_present(snapshot: &Snapshot, claim: &Claim) -> ClaimResult {
    let mut tally = Tally::default();
    for family in asked_families(claim) {
        judge_family(snapshot, claim, *family, &mut tally);
    }
    tally.result(snapshot, claim)
}

/// Removing the stated objects leaves the result unchanged: they are not the cause.
fn is_same_without_reason(snapshot: &Snapshot, claim: &Claim, state: ClaimState) -> bool {
    let mut world = snapshot.world().clone();
    for key in &claim.stated_reason {
        world.apply(ObjectDelta::Delete(key.clone()));
    }
    state_of(&snapshot.with_world(world), claim) == state
}

/// What the pairs of a claim showed.
#[derive(Default)]
struct Tally {
    any_pair: bool,
    /// A connection of the question that is allowed.
    allowed: Option<Shown>,
    /// A connection of the question that is denied.
    denied: Option<Shown>,
    /// A connection that must not be allowed and is.
    beyond: Option<Shown>,
    /// Why connections are denied, and why they are allowed.
    denials: Causes,
    admissions: Causes,
}

/// Places that policy cannot tell apart. Nodes and outside addresses stand alone.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Kind {
    subjects: Vec<Subject>,
    class: Option<ClassId>,
    alone: Option<Place>,
    /// Is it a member of the claim's `to`?
    target: bool,
    /// What the claim's ports are there.
    ports: Ports,
}

fn grouped<'p>(snapshot: &Snapshot, claim: &Claim, places: &'p [Place]) -> BTreeMap<Kind, Vec<&'p Place>> {
    let mut groups: BTreeMap<Kind, Vec<&Place>> = BTreeMap::new();
    for place in places {
        let owners = snapshot.owners_of(place.address);
        // a contested address stands alone too: it is inside no pod (semantics 1.9)
        let alone =
            (owners.len() != 1 || snapshot.plan().nodes.contains_key(&place.address)).then(|| place.clone());
        let kind = Kind {
            subjects: owners.iter().map(|owner| owner.subject).collect(),
            class: snapshot.plan().class_of(place.address),
            alone,
            target: claim.expect == Expect::ReachOnly && is_member(snapshot, &claim.to, place),
            ports: ports_at(claim, place.pod.as_ref().and_then(|key| snapshot.world().pods.get(key))),
        };
        groups.entry(kind).or_default().push(place);
    }
    groups.values_mut().for_each(|group| group.sort());
    groups
}

/// A group of pods, cut by whether they run on the node that owns the other end: the law tells these apart (semantics 1.5).
fn cut<'p>(snapshot: &Snapshot, pods: &[&'p Place], other: &[&Place]) -> Vec<Vec<&'p Place>> {
    let Some(node) = other.first().and_then(|place| snapshot.plan().nodes.get(&place.address)) else {
        return vec![pods.to_vec()];
    };
    let (own, rest): (Vec<&Place>, Vec<&Place>) = pods.iter().copied().partition(|place| {
        snapshot.owners_of(place.address).iter().any(|owner| owner.node.as_ref() == Some(node))
    });
    [own, rest].into_iter().filter(|part| !part.is_empty()).collect()
}

fn judge_family(snapshot: &Snapshot, claim: &Claim, family: Family, tally: &mut Tally) {
    let targets = destinations(snapshot, claim, family);
    let sources = sources(snapshot, claim, family, &targets);
    let sources = grouped(snapshot, claim, &sources);
    let targets = grouped(snapshot, claim, &targets);
    let mut question = Question::new(claim, family);
    for from in sources.values() {
        for (kind, to) in &targets {
            for from in cut(snapshot, from, to) {
                for to in cut(snapshot, to, &from) {
                    let ends =
                        Ends { sources: &from, targets: &to, are_meant: kind.target, ports: &kind.ports };
                    judge_pair(snapshot, &mut question, ends, tally);
                }
            }
        }
    }
}

/// The connections that a claim is about, of one family.
struct Question<'c> {
    claim: &'c Claim,
    family: Family,
    not_judged: TransportSet,
    /// Answers by what decides and what is asked: many pairs share them.
    known: HashMap<(Passage, Ports), Rc<Answer>>,
}

/// What a passage says to a question.
struct Answer {
    /// What is asked and allowed, and what is asked and denied.
    good: TransportSet,
    denied: TransportSet,
    /// What is allowed beyond the listed.
    more: TransportSet,
}

impl<'c> Question<'c> {
    fn new(claim: &'c Claim, family: Family) -> Self {
        Question { claim, family, not_judged: not_judged(family), known: HashMap::new() }
    }

    fn answer(&mut self, snapshot: &Snapshot, from: &Place, to: &Place, ports: &Ports) -> Rc<Answer> {
        let key = (snapshot.passage(from.address, to.address), ports.clone());
        if let Some(known) = self.known.get(&key) {
            return known.clone();
        }
        let passage = &key.0;
        let allowed = snapshot.allowed_on(passage);
        let listed = listed(self.claim, ports, self.family);
        // everything listed that opens a connection which policy judges
        let asked = listed.subtract(&self.not_judged);
        // pods never send encapsulated packets, whatever policies say (semantics 1.7); a claim that lists nothing is not
        // about them
        let asked = match passage.encapsulation().filter(|_| self.claim.ports.is_empty()) {
            Some(dropped) => asked.subtract(&dropped),
            None => asked,
        };
        let answer = Rc::new(Answer {
            good: allowed.intersect(&asked),
            denied: asked.subtract(&allowed),
            more: allowed.subtract(&listed).subtract(&self.not_judged),
        });
        self.known.insert(key, answer.clone());
        answer
    }
}

/// Ends of which every pair is judged alike.
#[derive(Clone, Copy)]
struct Ends<'e> {
    sources: &'e [&'e Place],
    targets: &'e [&'e Place],
    /// Are the targets members of the claim's `to`?
    are_meant: bool,
    ports: &'e Ports,
}

fn judge_pair(snapshot: &Snapshot, question: &mut Question<'_>, ends: Ends<'_>, tally: &mut Tally) {
    let pair =
        ends.targets.iter().find_map(|to| Some((*ends.sources.iter().find(|from| are_pair(from, to))?, *to)));
    let Some((from, to)) = pair else { return };
    tally.any_pair = true;
    let answer = question.answer(snapshot, from, to, ends.ports);
    let show = |slot: &mut Option<Shown>, set: &TransportSet, allowed| {
        note(slot, snapshot, ends.sources, ends.targets, set, allowed);
    };
    show(&mut tally.allowed, &answer.good, true);
    match question.claim.expect {
        Expect::Allow => show(&mut tally.denied, &answer.denied, false),
        Expect::Deny => show(&mut tally.beyond, &answer.good, true),
        Expect::AllowOnly => show(&mut tally.beyond, &answer.more, true),
        Expect::ReachOnly if !ends.are_meant => show(&mut tally.beyond, &answer.good, true),
        Expect::ReachOnly => {}
    }
    let example = |set: &TransportSet| {
        let transport = set.example(snapshot.preferred_ports())?;
        Some(Flow { source: from.address, destination: to.address, transport })
    };
    if let Some(flow) = example(&answer.denied) {
        tally.denials.add(|| denials(snapshot, &flow));
    }
    if let Some(flow) = example(&answer.good) {
        tally.admissions.add(|| vec![admission(snapshot, &flow)]);
    }
}

impl Tally {
    fn result(self, snapshot: &Snapshot, claim: &Claim) -> ClaimResult {
        let refuted = |shown: &Shown, allowed, more: &str| {
            format!("{}{more}: {}", shown.witness(), because(snapshot, &shown.flow, allowed))
        };
        let (denials, admissions) = (self.denials.sentence(), self.admissions.sentence());
        let with = |sentence: &str, causes: &str| match causes {
            "" => sentence.to_owned(),
            causes => format!("{sentence}: {causes}"),
        };
        let refutation = match claim.expect {
            Expect::Allow => self.denied.map(|w| (refuted(&w, false, ""), w)),
            Expect::Deny | Expect::ReachOnly => self.beyond.map(|w| (refuted(&w, true, ""), w)),
            Expect::AllowOnly => self.beyond.map(|w| (refuted(&w, true, ", which is not listed"), w)),
        };
        let (state, shown, reason) = match (refutation, claim.expect, self.allowed) {
            _ if !self.any_pair => {
                (ClaimState::Vacuous, None, "there is no pair of ends to ask about".to_owned())
            }
            (Some((reason, shown)), _, _) => (ClaimState::Fails, Some(shown), reason),
            (None, Expect::Allow, shown) => {
                (ClaimState::Holds, shown, with("every connection of the question is allowed", &admissions))
            }
            (None, Expect::Deny, _) => {
                (ClaimState::Holds, None, with("no connection of the question is allowed", &denials))
            }
            (None, Expect::AllowOnly, None) => {
                (ClaimState::Vacuous, None, with("nothing at all is allowed", &denials))
            }
            (None, Expect::AllowOnly, shown) => {
                (ClaimState::Holds, shown, with("only what is listed is allowed", &admissions))
            }
            (None, Expect::ReachOnly, None) => {
                (ClaimState::Vacuous, None, with("nothing at all is reachable", &denials))
            }
            (None, Expect::ReachOnly, shown) => {
                (ClaimState::Holds, shown, with("nothing else is reachable", &denials))
            }
        };
        ClaimResult {
            state,
            witness: shown.map(|shown| shown.witness()),
            reason,
            missing: Vec::new(),
            depends_on: Vec::new(),
            stated_reason_wrong: false,
        }
    }
}
