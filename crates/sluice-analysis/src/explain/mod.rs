//! Why a connection is allowed or denied.
//!
//! ```text
//!   question ──► Service translated? ──► connections as judged ──► reference evaluator on what each can see ──► reasons
//! ```
//!
//! The trace is the reference evaluator's own; nothing is argued here that it did not do.

mod lookup;
mod needs;
mod seen;
mod service;

use std::net::IpAddr;

use sluice_addr::Flow;
use sluice_model::{
    Action, Circumstances, Decision, Direction, Leg, LegReason, Pod, Policy, PolicyTrace, RuleRef, RuleTrace,
    Subject, TierDefault, TierOutcome, World,
};
use sluice_report::{
    Answer, Bystander, Explanation, LegExplanation, PathExplanation, PolicyExplanation, PolicySays,
    RuleExplanation, RulePlace, TierExplanation,
};

use crate::snapshot::Snapshot;
pub(crate) use lookup::Lookup;

/// Policies that do not apply and are asked why.
const ASKED: usize = 200;

/// Of those that select other pods, how many are named.
const NAMED: usize = 5;

/// Explains what happens to a connection: as it is if its destination is a pod, a node or an outside address; for a Service's
/// address or node port after translation, for each backend (semantics 1.6).
pub fn explain(snapshot: &Snapshot, flow: &Flow, circumstances: &Circumstances) -> Explanation {
    if let Some(explanation) = service::explain(snapshot, flow, circumstances) {
        return explanation;
    }
    let path = snapshot.path(flow, circumstances, Vec::new());
    Explanation::new(path.from.clone(), path.to.clone(), Vec::new(), vec![path])
}

impl Snapshot {
    /// Is a connection allowed? From the plan; where host endpoints could have a say, from the reference evaluator.
    pub fn can(&self, flow: &Flow) -> Answer {
        if !self.world().host_endpoints.is_empty() {
            return verdict(&self.decide(flow, &Circumstances::default()));
        }
        let allowed = self.allowed_on(&self.passage(flow.source, flow.destination));
        if allowed.contains(&flow.transport) { Answer::Allow } else { Answer::Deny }
    }

    /// The name of whoever has an address: `namespace/pod`, `node NAME`, `outside ADDRESS`.
    pub fn name_of(&self, address: IpAddr) -> String {
        let owners = self.owners_of(address);
        match (owners.first(), self.plan().nodes.get(&address)) {
            (Some(owner), _) => owner.pod.to_string(),
            (None, Some(node)) => format!("node {node}"),
            (None, None) => format!("outside {address}"),
        }
    }

    fn path(&self, flow: &Flow, circumstances: &Circumstances, steps: Vec<String>) -> PathExplanation {
        let decision = self.decide(flow, circumstances);
        PathExplanation {
            from: self.name_of(flow.source),
            to: self.name_of(flow.destination),
            steps,
            flow: *flow,
            verdict: verdict(&decision),
            clause: decision.shortcut.as_ref().map(ToString::to_string),
            legs: decision.legs().map(|leg| self.leg_explained(leg, flow)).collect(),
            stages: decision.stages.iter().map(ToString::to_string).collect(),
            missing: decision.missing.iter().map(ToString::to_string).collect(),
        }
    }

    fn leg_explained(&self, leg: &Leg, flow: &Flow) -> LegExplanation {
        let why = Why { snapshot: self, flow, direction: leg.direction };
        let (bystanders, others) = why.bystanders(leg);
        LegExplanation {
            direction: leg.direction.to_string(),
            pod: leg.pod.to_string(),
            flow: *flow,
            verdict: leg.verdict.into(),
            reason: reason(leg),
            rule: leg.deciding_rule().map(place),
            tiers: leg
                .tiers
                .iter()
                .map(|tier| TierExplanation {
                    tier: tier.tier.to_string(),
                    default_action: action_of(tier.default_action).into(),
                    policies: tier.policies.iter().map(|policy| why.policy(policy)).collect(),
                    outcome: outcome(&tier.outcome),
                })
                .collect(),
            nearest: why.nearest(leg),
            bystanders,
            others,
        }
    }
}

/// Undecided if a fact is missing and nothing denies (semantics 1.11).
fn verdict(decision: &Decision) -> Answer {
    decision.decided().map_or(Answer::Undecided, Answer::from)
}

fn place(rule: &RuleRef) -> RulePlace {
    RulePlace {
        object: rule.object.to_string(),
        path: rule.path.to_string(),
        position: rule.position.as_ref().map(ToString::to_string),
    }
}

fn action_of(default: TierDefault) -> &'static str {
    match default {
        TierDefault::Deny => "Deny",
        TierDefault::Pass => "Pass",
    }
}

fn outcome(outcome: &TierOutcome) -> String {
    match outcome {
        TierOutcome::Allowed(rule) => format!("allowed by {} {}", rule.object, rule.path),
        TierOutcome::Denied(rule) => format!("denied by {} {}", rule.object, rule.path),
        TierOutcome::Passed(rule) => format!("{} {} leaves it to the next tier", rule.object, rule.path),
        TierOutcome::DefaultDeny => "no rule decides, so it is denied".into(),
        TierOutcome::DefaultPass => "no rule decides, so the next tier looks".into(),
    }
}

fn reason(leg: &Leg) -> String {
    match &leg.reason {
        LegReason::Rule(rule) => format!("{} {}", rule.object, rule.path),
        LegReason::TierDefault { tier, policies } => {
            let mut names: Vec<String> = policies.iter().map(|policy| policy.object.to_string()).collect();
            let more = names.len().saturating_sub(NAMED);
            names.truncate(NAMED);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            format!("selected in tier {tier} by {}{more}, and no rule there allows it", names.join(", "))
        }
        LegReason::Profile { known: true, .. } if leg.tiers.is_empty() => {
            format!("no policy selects the pod for {}", leg.direction)
        }
        LegReason::Profile { known: true, .. } => "no tier decides, so it is allowed".into(),
        LegReason::Profile { namespace, known: false } => format!("namespace {namespace} is not known"),
    }
}

/// One leg's view of the reasons.
struct Why<'s> {
    snapshot: &'s Snapshot,
    flow: &'s Flow,
    direction: Direction,
}

impl Why<'_> {
    fn policy(&self, trace: &PolicyTrace) -> PolicyExplanation {
        let decided = trace.rules.iter().find(|rule| rule.matched() && rule.action != Action::Log);
        let says = match decided.map(|rule| rule.action) {
            _ if trace.rules.is_empty() => PolicySays::NoRules,
            Some(Action::Allow) => PolicySays::Admits,
            Some(Action::Deny) => PolicySays::Denies,
            Some(Action::Pass) => PolicySays::Passes,
            Some(Action::Log) | None => PolicySays::DoesNotAdmit,
        };
        let rules = trace.rules.iter().map(|rule| self.rule(&trace.policy, rule)).collect();
        PolicyExplanation { policy: place(&trace.policy), says, rules }
    }

    fn rule(&self, policy: &RuleRef, trace: &RuleTrace) -> RuleExplanation {
        let object = self.snapshot.lookup().policy(self.snapshot.world(), &policy.object);
        let of_policy = object.and_then(|policy| {
            let rules = policy.rules(self.direction)?;
            Some((policy, rules.iter().find(|rule| rule.reference == trace.rule)?))
        });
        let failed = of_policy.into_iter().flat_map(|(policy, rule)| {
            let misses = trace.misses.iter();
            misses
                .map(move |miss| needs::failed(self.snapshot, policy, rule, *miss, self.flow, self.direction))
        });
        RuleExplanation {
            rule: place(&trace.rule),
            action: trace.action.to_string(),
            failed: failed.collect(),
        }
    }

    /// The Allow rule that failed by the fewest criteria, the first of several.
    fn nearest(&self, leg: &Leg) -> Option<RuleExplanation> {
        let nearest = leg.nearest_miss()?;
        let policies = leg.tiers.iter().flat_map(|tier| &tier.policies);
        let mut holders =
            policies.filter(|policy| policy.rules.iter().any(|rule| std::ptr::eq(rule, nearest)));
        Some(self.rule(&holders.next()?.policy, nearest))
    }

    /// Policies of the pod's namespace and of cluster kinds that do not apply, and how many more there are.
    fn bystanders(&self, leg: &Leg) -> (Vec<Bystander>, usize) {
        let (world, lookup) = (self.snapshot.world(), self.snapshot.lookup());
        let of_leg = self.snapshot.owners_of(match self.direction {
            Direction::Ingress => self.flow.destination,
            Direction::Egress => self.flow.source,
        });
        let of_leg = of_leg.iter().find(|owner| owner.pod == leg.pod);
        let plan_leg =
            of_leg.and_then(|owner| self.snapshot.plan().legs.get(&owner.subject.leg(self.direction)));
        let applying: Vec<_> =
            plan_leg.into_iter().flat_map(|leg| leg.tiers.iter()).flat_map(|tier| &tier.policies).collect();
        let Some(pod) = world.pods.get(&leg.pod) else { return (Vec::new(), 0) };
        let mut named = Vec::new();
        let mut strangers = 0;
        let candidates = lookup.policies(&leg.pod.namespace).iter().chain(lookup.policies(""));
        let idle = candidates.filter(|policy| !applying.iter().any(|applies| applies.object == policy.key));
        for policy in idle.take(ASKED) {
            let (reason, is_stranger) = self.why_not(world, policy, pod);
            if is_stranger {
                strangers += 1;
            }
            if !is_stranger || strangers <= NAMED {
                named.push(Bystander { policy: policy.key.to_string(), reason });
            }
        }
        let others = lookup.count.saturating_sub(applying.len() + named.len());
        (named, others)
    }

    /// Why a policy does not apply; and whether that is because it selects other pods.
    fn why_not(&self, world: &World, policy: &Policy, pod: &Pod) -> (String, bool) {
        if !selects(world, policy, pod) {
            let wants = match &policy.subject {
                Subject::Kubernetes(selector) => format!("pods {{{selector}}}"),
                Subject::Calico { selector, .. } => format!("{selector}"),
                Subject::Cluster { namespaces, pods } => {
                    let pods = pods.iter().map(|selector| format!("pods {{{selector}}} of "));
                    format!("{}namespaces {{{namespaces}}}", pods.collect::<String>())
                }
            };
            return (format!("it selects {wants}; the pod has {{{}}}", pod.labels), true);
        }
        let reason = if !policy.key.kind.is_enforced_policy() {
            "it is staged, so it decides nothing".into()
        } else if !policy.host.concerns_pods() {
            "it is for host endpoints only".into()
        } else {
            format!("it has no say in {}", self.direction)
        };
        (reason, false)
    }
}

/// Does a policy's subject select a pod (semantics 2.1, 3.2, 4)?
pub(crate) fn selects(world: &World, policy: &Policy, pod: &Pod) -> bool {
    let namespace = &policy.key.namespace;
    if !namespace.is_empty() && *namespace != pod.key.namespace {
        return false;
    }
    match &policy.subject {
        Subject::Kubernetes(selector) => selector.matches(&pod.labels),
        Subject::Cluster { namespaces, pods } => {
            namespaces.matches(&world.namespace_labels(&pod.key.namespace))
                && pods.as_ref().is_none_or(|selector| selector.matches(&pod.labels))
        }
        Subject::Calico { selector, namespace_selector, service_account_selector } => {
            let labels = world.calico_labels(pod);
            let plain = |selector: &Option<sluice_selector::Selector>, prefix| match selector {
                Some(selector) => selector.with_key_prefix(prefix).matches(&labels),
                None => true,
            };
            selector.matches(&labels)
                && plain(namespace_selector, "pcns.")
                && plain(service_account_selector, "pcsa.")
        }
    }
}
