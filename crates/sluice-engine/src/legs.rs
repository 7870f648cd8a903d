//! Subjects: which policies apply to an endpoint, and what each leg does with each class.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use sluice_addr::Family;
use sluice_model::{Direction, Kind, Policy, Subject as Selects, Tier, World};
use sluice_plan::{Cause, FunctionId, Ground, Leg, Outcome, PortFunction, TierStage, Verdict};
use sluice_selector::Selector;

use crate::classes::ClassKey;
use crate::compose::{Stage, Step, compose};
use crate::criterion::{Answers, CriterionId};
use crate::entity::PodView;
use crate::identity::{Classes, Identity};
use crate::lower::{LoweredPolicy, LoweredRule};

/// The name under which [`Cause::Profile`] speaks of pods' profiles. The namespace is left out, so that pods of all
/// namespaces share functions.
pub const POD_PROFILE: &str = "kns";

/// The tiers in order, each with its enforced policies in order (semantics 1.2, 3.6).
pub(crate) fn enforced(world: &World) -> Vec<(Tier, Vec<Arc<Policy>>)> {
    let staged = |policy: &Policy| {
        matches!(
            policy.key.kind,
            Kind::StagedGlobalNetworkPolicy | Kind::StagedNetworkPolicy | Kind::StagedKubernetesNetworkPolicy
        )
    };
    let of = |tier: &Tier| {
        let mut policies = world.policies_of_tier(&tier.name);
        policies.retain(|policy| !staged(policy) && policy.host.concerns_pods()); // semantics 3.8, 1.2
        policies
    };
    world.tiers().into_iter().map(|tier| (of(&tier), tier)).map(|(policies, tier)| (tier, policies)).collect()
}

/// Whom a policy selects, over the labels of semantics 1.4.
pub(crate) struct SubjectMatch<'p> {
    policy: &'p Policy,
    /// For Calico policies all selectors in one.
    calico: Option<Selector>,
}

impl<'p> SubjectMatch<'p> {
    pub(crate) fn new(policy: &'p Policy) -> Self {
        let calico = match &policy.subject {
            Selects::Kubernetes(_) | Selects::Cluster { .. } => None,
            Selects::Calico { selector, namespace_selector, service_account_selector } => {
                Some(Selector::and(
                    [
                        Some(selector.clone()),
                        namespace_selector.as_ref().map(|s| s.with_key_prefix("pcns.")),
                        service_account_selector.as_ref().map(|s| s.with_key_prefix("pcsa.")),
                    ]
                    .into_iter()
                    .flatten()
                    .filter(|selector| *selector != Selector::All),
                ))
            }
        };
        SubjectMatch { policy, calico }
    }

    pub(crate) fn selects(&self, view: &PodView<'_>) -> bool {
        let namespace = &self.policy.key.namespace;
        (namespace.is_empty() || *namespace == view.pod.key.namespace)
            && match (&self.policy.subject, &self.calico) {
                (Selects::Kubernetes(selector), _) => selector.matches(&view.pod.labels),
                (Selects::Cluster { namespaces, pods }, _) => {
                    namespaces.matches(&view.namespace_labels)
                        && pods.as_ref().is_none_or(|selector| selector.matches(&view.pod.labels))
                }
                (Selects::Calico { .. }, Some(selector)) => selector.matches(&view.calico_labels),
                (Selects::Calico { .. }, None) => unreachable!("built in new"),
            }
    }
}

/// The policies that apply to an endpoint in one direction, by tier; and the answers about its own address in each
/// family, restricted to what those policies ask. Equal keys have equal legs.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LegKey {
    direction: Direction,
    /// Indices of a tier and of its policies that apply.
    stages: Vec<(usize, Vec<usize>)>,
    own: [Answers; 2],
    profile: Verdict,
}

/// The place of a leg among the different ones of a flush. Equal legs have one number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct LegNumber(pub(crate) usize);

/// Policy that applies to some endpoint, lowered; and the legs built from it so far.
pub(crate) struct Legs<'a> {
    tiers: &'a [(Tier, Vec<Arc<Policy>>)],
    lowered: &'a HashMap<(usize, usize), LoweredPolicy>,
    classes: &'a Classes,
    /// The different legs so far, and the number of each.
    numbers: HashMap<Arc<Leg>, LegNumber>,
    legs: Vec<Arc<Leg>>,
    built: BTreeMap<LegKey, LegNumber>,
    /// The functions that the built legs use.
    pub(crate) functions: BTreeMap<FunctionId, Arc<PortFunction>>,
}

impl<'a> Legs<'a> {
    pub(crate) fn new(
        tiers: &'a [(Tier, Vec<Arc<Policy>>)],
        lowered: &'a HashMap<(usize, usize), LoweredPolicy>,
        classes: &'a Classes,
    ) -> Self {
        let (numbers, legs) = (HashMap::new(), Vec::new());
        Legs { tiers, lowered, classes, numbers, legs, built: BTreeMap::new(), functions: BTreeMap::new() }
    }

    /// The leg of an endpoint that the policies `applies` select; `own` answers about its address of each family,
    /// `profile` is what happens where no tier decides.
    pub(crate) fn leg(
        &mut self,
        direction: Direction,
        applies: &[(usize, usize)],
        own: &[Answers; 2],
        profile: Verdict,
        identity: &mut Identity,
    ) -> LegNumber {
        let mut stages: Vec<(usize, Vec<usize>)> = Vec::new();
        let mut asked: BTreeSet<CriterionId> = BTreeSet::new();
        for &(tier, index) in applies {
            let lowered = &self.lowered[&(tier, index)];
            if lowered.policy.rules(direction).is_none() {
                continue;
            }
            asked.extend(lowered.rules(direction).iter().flat_map(|rule| rule.own.uses()));
            match stages.last_mut() {
                Some((last, policies)) if *last == tier => policies.push(index),
                _ => stages.push((tier, vec![index])),
            }
        }
        let key = LegKey {
            direction,
            stages,
            own: own.each_ref().map(|answers| answers.restricted(&asked)),
            profile,
        };
        if let Some(number) = self.built.get(&key) {
            return *number;
        }
        let leg = Arc::new(self.build(&key, identity));
        let number = *self.numbers.entry(leg.clone()).or_insert_with(|| {
            self.legs.push(leg);
            LegNumber(self.legs.len() - 1)
        });
        self.built.insert(key, number);
        number
    }

    /// The different legs, by number.
    pub(crate) fn finished(&self) -> &[Arc<Leg>] {
        &self.legs
    }

    fn build(&mut self, key: &LegKey, identity: &mut Identity) -> Leg {
        let candidates = Family::BOTH.map(|family| self.candidates(key, family));
        let asked: [BTreeSet<CriterionId>; 2] = candidates.each_ref().map(|stages| {
            stages.iter().flat_map(|s| s.rules.iter().flat_map(|rule| rule.peer.uses())).collect()
        });
        let profile = Outcome { verdict: key.profile, cause: Cause::Profile(POD_PROFILE.into()) };
        let mut known: HashMap<(Family, Answers), FunctionId> = HashMap::new();
        let mut function_of = |family: Family, peer: Answers| match known.get(&(family, peer.clone())) {
            Some(id) => *id,
            None => {
                let stages: Vec<Stage> = candidates[family as usize]
                    .iter()
                    .map(|stage| stage.against(&peer, &key.own[family as usize]))
                    .collect();
                let (id, function) = identity.function(compose(&stages, &profile, family));
                self.functions.insert(id, function);
                known.insert((family, peer), id);
                id
            }
        };
        let base = Ground::ALL.map(|ground| function_of(ground.family, Answers::default()));
        let mut exceptions = BTreeMap::new();
        for (class, ClassKey { ground, answers }) in &self.classes.keys {
            let id = function_of(ground.family, answers.restricted(&asked[ground.family as usize]));
            if id != base[ground.index()] {
                exceptions.insert(*class, id);
            }
        }
        let stage = |(tier, policies): &(usize, Vec<usize>)| TierStage {
            tier: self.tiers[*tier].0.name.clone(),
            default_action: self.tiers[*tier].0.default_action,
            policies: policies.iter().map(|index| self.tiers[*tier].1[*index].reference()).collect(),
        };
        Leg { tiers: key.stages.iter().map(stage).collect(), base, exceptions }
    }

    /// The rules that match the subject's own side in connections of one family.
    fn candidates(&self, key: &LegKey, family: Family) -> Vec<Candidates<'a>> {
        let own = &key.own[family as usize];
        let lowered: &'a HashMap<(usize, usize), LoweredPolicy> = self.lowered;
        key.stages
            .iter()
            .map(|(tier, policies)| Candidates {
                tier: &self.tiers[*tier].0,
                rules: policies
                    .iter()
                    .flat_map(|index| lowered[&(*tier, *index)].rules(key.direction))
                    .filter(|rule| rule.of_family(family) && rule.own.holds(own.facts(rule.action)))
                    .collect(),
            })
            .collect()
    }
}

struct Candidates<'a> {
    tier: &'a Tier,
    rules: Vec<&'a LoweredRule>,
}

impl Candidates<'_> {
    fn against(&self, peer: &Answers, own: &Answers) -> Stage {
        let matching = self.rules.iter().filter(|rule| rule.peer.holds(peer.facts(rule.action)));
        let steps = matching.map(|rule| Step {
            action: rule.action,
            transports: rule.transports(peer.facts(rule.action), own.facts(rule.action)),
            reference: rule.reference.clone(),
        });
        Stage {
            tier: self.tier.name.clone(),
            default_action: self.tier.default_action,
            steps: steps.filter(|step| !step.transports.is_empty()).collect(),
        }
    }
}
