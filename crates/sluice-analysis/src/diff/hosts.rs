//! Host endpoints of both plans: which of them decide otherwise than before.
//!
//! Whose connections that concerns depends on interfaces, which no plan knows; so it is told and no row made of it.

use std::collections::BTreeSet;
use std::sync::Arc;

use sluice_addr::Family;
use sluice_model::{Direction, Stage};
use sluice_plan::{Cause, FunctionId, Ground, HostEndpoint, Outcome, Plan, StageLegs, Verdict};

use super::classes::{JointClass, JointClasses};
use super::legs::JointLeg;
use crate::transport::TransportSet;

const STAGES: [Stage; 4] = [Stage::Untracked, Stage::PreDnat, Stage::Normal, Stage::Forward];

/// A sentence for each host endpoint that came, went, or decides otherwise.
pub(super) fn changed(old: &Plan, new: &Plan, classes: &JointClasses<'_>) -> Vec<String> {
    let names: BTreeSet<&Arc<str>> = old.host_endpoints.keys().chain(new.host_endpoints.keys()).collect();
    let hosts = Hosts { old, new, classes };
    let tell = |name: &&Arc<str>| {
        let what = match (old.host_endpoints.get(*name), new.host_endpoints.get(*name)) {
            (Some(_), None) => "is gone",
            (None, Some(_)) => "is new",
            (Some(was), Some(now)) if hosts.differ(was, now) => "decides otherwise than before",
            (Some(_), Some(_)) | (None, None) => return None,
        };
        Some(format!("HostEndpoint {name} {what}: what that opens or closes depends on its interface"))
    };
    names.iter().filter_map(tell).collect()
}

struct Hosts<'p, 'c> {
    old: &'p Plan,
    new: &'p Plan,
    classes: &'c JointClasses<'p>,
}

impl Hosts<'_, '_> {
    fn differ(&self, was: &HostEndpoint, now: &HostEndpoint) -> bool {
        let place = |e: &HostEndpoint| (e.node.clone(), e.interface.clone(), e.addresses.clone());
        let mut stages = Direction::BOTH.into_iter().flat_map(|direction| {
            STAGES.map(|stage| (was.stages(direction).of(stage), now.stages(direction).of(stage)))
        });
        place(was) != place(now)
            || stages.any(|stage| match stage {
                (None, None) => false,
                (Some(was), Some(now)) => self.legs_differ(was, now),
                (Some(_), None) | (None, Some(_)) => true,
            })
    }

    fn legs_differ(&self, was: &StageLegs, now: &StageLegs) -> bool {
        let by_ground = Ground::ALL.map(|g| (was.base[g.index()], now.base[g.index()]));
        let named: BTreeSet<JointClass> =
            was.exceptions.keys().flat_map(|class| self.classes.of_old(*class)).collect();
        let named =
            named.into_iter().chain(now.exceptions.keys().flat_map(|class| self.classes.of_new(*class)));
        let of_class = named.filter_map(|class| {
            let ground = self.classes.ground(class)?;
            Some((was.leg(class.0, ground), now.leg(class.1, ground)))
        });
        let legs: BTreeSet<JointLeg> = by_ground.into_iter().chain(of_class).collect();
        legs.into_iter().any(|leg| self.leg_differs(leg))
    }

    fn leg_differs(&self, leg: JointLeg) -> bool {
        let (Some(was), Some(now)) = (self.old.legs.get(&leg.0), self.new.legs.get(&leg.1)) else {
            return true;
        };
        let mut bases = Ground::ALL.into_iter().map(|g| (g.family, was.base[g.index()], now.base[g.index()]));
        let named = was.exceptions.keys().flat_map(|class| self.classes.of_old(*class));
        let named = named.chain(now.exceptions.keys().flat_map(|class| self.classes.of_new(*class)));
        let mut exceptions = named.filter_map(|class| {
            let ground = self.classes.ground(class)?;
            Some((ground.family, was.function(class.0, ground), now.function(class.1, ground)))
        });
        let differs =
            |(family, was, now)| self.meaning(self.old, was, family) != self.meaning(self.new, now, family);
        bases.any(differs) || exceptions.any(differs)
    }

    /// What a function denies, and what it allows so that later stages are skipped.
    fn meaning(&self, plan: &Plan, function: FunctionId, family: Family) -> Option<[TransportSet; 2]> {
        let function = plan.functions.get(&function)?;
        let is_allowed = |outcome: &Outcome| outcome.verdict == Verdict::Allow;
        let by_rule = |outcome: &Outcome| is_allowed(outcome) && matches!(outcome.cause, Cause::Rule(_));
        Some([
            TransportSet::decided_by(family, function, is_allowed),
            TransportSet::decided_by(family, function, by_rule),
        ])
    }
}
