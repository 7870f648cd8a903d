//! Opening one leg: the policy of the least kind that lets a connection pass where it is denied.

use std::sync::Arc;

use sluice_addr::Flow;
use sluice_model::{Action, Direction, LegReason, ObjectKey, Order, PodKey, Policy, World, decide};

use super::advice::Work;
use super::draft::{Draft, DraftRule, Form, Peer, PodSet, Ports};

/// What a leg is asked to let pass.
#[derive(Clone, Debug)]
pub(super) struct Opening {
    /// The pods whose leg it is.
    pub(super) subject: PodSet,
    pub(super) direction: Direction,
    /// The other ends, the best way to say it first.
    pub(super) peers: Vec<Vec<Peer>>,
    /// `None` is every protocol and port.
    pub(super) ports: Option<Vec<Ports>>,
    /// The wish for a name.
    pub(super) name: String,
}

/// The place in the order where a leg ended in a denial.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Denial {
    pub(super) pod: PodKey,
    pub(super) direction: Direction,
    /// The tier, and the order of the rule that denies; `None` where it is the tier's default action.
    pub(super) tier: Arc<str>,
    pub(super) order: Option<Order>,
    /// The object that denies, or the policies that make the tier take part.
    pub(super) by: Vec<ObjectKey>,
}

/// Where a connection is denied by policies; `None` if it is not, or if no policy decides it.
pub(super) fn denial(world: &World, flow: &Flow) -> Option<Denial> {
    let decision = decide(world, flow);
    let leg = decision.denying_leg()?;
    let (tier, order, by) = match &leg.reason {
        LegReason::Rule(rule) => {
            // a ProjectIsolation stands for policies that are not stored (semantics 8.2)
            let policy = match world.policies.get(&rule.object) {
                Some(policy) => policy.clone(),
                None => world.enforced().into_iter().find(|policy| policy.key == rule.object)?,
            };
            (policy.tier.clone(), Some(policy.order), vec![rule.object.clone()])
        }
        LegReason::TierDefault { tier, policies } => {
            (tier.clone(), None, policies.iter().map(|policy| policy.object.clone()).collect())
        }
        LegReason::Profile { .. } => return None,
    };
    Some(Denial { pod: leg.pod.clone(), direction: leg.direction, tier, order, by })
}

impl Denial {
    /// The kinds that can open the leg, the least first.
    fn forms(&self) -> Vec<Form> {
        let mut forms = Vec::new();
        if &*self.tier == "default" {
            forms.push(Form::Kubernetes);
        }
        if let ("kube-admin" | "kube-baseline", Some(order)) = (&*self.tier, self.order) {
            // just before the rule that denies; at priority 0 nothing is before it but by name
            let priority = (order.value().ceil() - 1.0).clamp(0.0, 1000.0);
            forms.push(Form::Cluster { admin: &*self.tier == "kube-admin", priority: priority as u16 });
        }
        let order = self.order.map(|order| match order.value() {
            value if value.is_finite() => value - 1.0,
            _ => Order::KUBERNETES.value(),
        });
        forms.push(Form::Calico { tier: self.tier.clone(), order });
        forms
    }

    /// The objects that deny, for a sentence.
    pub(super) fn causes(&self) -> String {
        let names: Vec<String> = self.by.iter().take(3).map(ToString::to_string).collect();
        names.join(", ")
    }
}

/// Finds a policy that lets `flow` pass the leg that denies it, takes it into the work and says whether there is one.
pub(super) fn open(
    work: &mut Work<'_>,
    flow: &Flow,
    denial: &Denial,
    opening: &Opening,
    purpose: &str,
) -> bool {
    for peers in &opening.peers {
        for form in denial.forms() {
            let rule =
                DraftRule { action: Action::Allow, peers: Some(peers.clone()), ports: opening.ports.clone() };
            let name = name_in(&form, &opening.name);
            let subject = opening.subject.clone();
            let mut draft = Draft::of(form.clone(), name, subject, opening.direction, vec![rule]);
            work.free_name(&mut draft);
            let Some(policy) = draft.policy() else { continue };
            let key = work.try_policy(&policy);
            if self::denial(&work.world, flow).as_ref().map(|d| (&d.pod, d.direction))
                == Some((&denial.pod, denial.direction))
            {
                work.retract(&key);
                continue;
            }
            note_form(work, denial, &form, &policy);
            work.accept(policy, purpose.to_owned(), &[]);
            return true;
        }
    }
    false
}

/// Why it is not a Kubernetes NetworkPolicy.
fn note_form(work: &mut Work<'_>, denial: &Denial, form: &Form, policy: &Policy) {
    if *form == Form::Kubernetes {
        return;
    }
    let reason = match &*denial.tier {
        "default" if denial.order.is_some_and(|order| order <= Order::KUBERNETES) => format!(
            "{} denies at order {} of tier default, before every NetworkPolicy",
            denial.causes(),
            denial.order.map_or(0.0, Order::value)
        ),
        "default" => "a Kubernetes NetworkPolicy cannot name this connection".to_owned(),
        tier if is_after_default(&work.world, tier) => format!(
            "{} denies in tier {tier}, after the tier of NetworkPolicies; a NetworkPolicy would isolate pods that none selects",
            denial.causes()
        ),
        tier => format!("{} denies in tier {tier}, before the tier of NetworkPolicies", denial.causes()),
    };
    work.warn(format!(
        "no Kubernetes NetworkPolicy can open this: {reason}; {} {} stands before it",
        policy.key.kind.written(),
        policy.key.name
    ));
}

fn is_after_default(world: &World, tier: &str) -> bool {
    let tiers = world.tiers();
    let place = |name: &str| tiers.iter().position(|tier| &*tier.name == name);
    place(tier) > place("default")
}

/// Calico's API wants the tier before the names of policies outside tier `default`.
fn name_in(form: &Form, name: &str) -> String {
    match form {
        Form::Calico { tier, .. } if &**tier != "default" => format!("{tier}.{name}"),
        Form::Calico { .. } | Form::Kubernetes | Form::Cluster { .. } => name.to_owned(),
    }
}

/// A name that the API takes, from words of the objects.
pub(super) fn object_name(words: &[&str]) -> String {
    let joined = words.join("-").to_lowercase();
    let mut name = String::new();
    for c in joined.chars() {
        match c {
            'a'..='z' | '0'..='9' => name.push(c),
            _ if !name.is_empty() && !name.ends_with('-') => name.push('-'),
            _ => {}
        }
    }
    name.truncate(56);
    let name = name.trim_end_matches('-');
    if name.is_empty() { "suggested".to_owned() } else { name.to_owned() }
}
