//! A claim about a random world.

use serde::{Deserialize, Serialize};
use sluice_addr::Flow;
use sluice_model::{Object, World};
use sluice_report::{Claim, ClaimEnd};
use sluice_testkit::{Case, Situation};

/// A claim, the objects that it is about, what is asked beside it, and objects that come later.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Claimed {
    pub(crate) claim: Claim,
    pub(crate) situation: Situation,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) later: Vec<Object>,
}

impl Claimed {
    pub(crate) fn new(claim: Claim, world: &World, flows: Vec<Flow>) -> Self {
        Claimed { claim, situation: Situation::new(world, flows), later: Vec::new() }
    }
}

impl Case for Claimed {
    fn is_possible(&self) -> bool {
        let ends = [&self.claim.from, &self.claim.to];
        let named = |end: &ClaimEnd| match end {
            ClaimEnd::Service { namespace, name } => !namespace.is_empty() && !name.is_empty(),
            ClaimEnd::Pods { namespaces, pods } => [namespaces, pods].into_iter().all(|selector| {
                selector.match_expressions.iter().all(|e| {
                    let listed = matches!(
                        e.operator,
                        sluice_selector::Operator::In | sluice_selector::Operator::NotIn
                    );
                    !e.key.is_empty() && e.values.is_empty() != listed
                })
            }),
            ClaimEnd::Outside | ClaimEnd::Nodes(_) | ClaimEnd::Cidr { .. } => true,
        };
        self.situation.is_possible()
            && sluice_testkit::are_possible(&self.later)
            && !self.claim.namespace.is_empty()
            && ends.into_iter().all(|end| !end.is_empty() && end.iter().all(named))
    }
}
