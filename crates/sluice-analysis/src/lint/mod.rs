//! Lint: what a policy says that its author perhaps did not mean (semantics 2.2, 5, 7.2).
//!
//! ```text
//!   World ──► Present (pods, addresses) ─┐
//!        └──► Traffic (protocols, ports) ─┴──► compiled policies ──► checks by theme ──► findings in order
//! ```
//!
//! Everything that a rule matches is a set of numbered points × a set of numbered parts of traffic, so that 2,000 policies
//! against 5,000 pods are set operations. What one object shows by itself (fields that exclude each other, bad CIDRs) is
//! found where it is read; here stand the findings that need the other objects. They speak of what is there now: a
//! policy for pods that are still to come is reported as selecting none.
//!
//! Each code has a page in docs/lint.

mod addresses;
mod blank;
mod compiled;
mod dns;
mod effect;
mod hosts;
mod labels;
mod legs;
mod names;
mod peers;
mod portability;
mod ports;
mod present;
mod projects;
mod spelling;
mod subjects;
mod tiers;
mod traffic;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{BitSet, Protocol};
use sluice_model::{Direction, Kind, ObjectKey, Policy, Position, World};
use sluice_report::{Code, Finding};

use compiled::{Compiled, CompiledRule};
use legs::Group;
use present::Present;
use traffic::Traffic;

/// What the one who asks knows beyond the objects.
#[derive(Clone, Debug)]
pub struct LintOptions {
    /// The address of a node-local DNS cache, if pods use one. [`LintOptions::default`] has the usual one; it counts only
    /// where a policy or pod shows that it is in use.
    pub node_local_dns: Vec<IpAddr>,
}

impl Default for LintOptions {
    fn default() -> Self {
        LintOptions { node_local_dns: vec![IpAddr::from([169, 254, 20, 10])] }
    }
}

/// Looks at the policies of `world` as they stand beside its pods, and returns what is noteworthy, by file and line, then
/// object, code and field.
///
/// Without any pod in `world` the checks that ask what is selected or matched now have nothing to say and say nothing
/// ([`judges_presence`]).
pub fn lint(world: &World, options: &LintOptions) -> Vec<Finding> {
    let policies = world.enforced();
    let mut lint = Lint::new(world, &policies, options);
    subjects::find(&mut lint);
    peers::find(&mut lint);
    blank::find(&mut lint);
    ports::find(&mut lint);
    addresses::find(&mut lint);
    names::find(&mut lint);
    dns::find(&mut lint);
    tiers::find(&mut lint);
    hosts::find(&mut lint);
    portability::find(&mut lint);
    projects::find(&mut lint);
    if lint.judges_presence {
        effect::find(&mut lint);
    }
    lint.in_order()
}

/// Does the world hold pods, so that what is selected and matched now can be judged?
pub fn judges_presence(world: &World) -> bool {
    world.pods.values().any(|pod| !pod.finished)
}

/// The state of one run.
struct Lint<'w> {
    world: &'w World,
    options: &'w LintOptions,
    present: Present<'w>,
    traffic: Traffic,
    /// In the order of evaluation.
    policies: Vec<Compiled<'w>>,
    /// Per direction, the ends that no rule tells apart.
    groups: [Vec<Group>; 2],
    judges_presence: bool,
    findings: Vec<Finding>,
}

/// One rule of one policy, as the checks go through them.
struct RuleAt<'l, 'w> {
    policy: usize,
    direction: Direction,
    rule: &'l CompiledRule<'w>,
}

impl<'w> Lint<'w> {
    fn new(world: &'w World, enforced: &'w [Arc<Policy>], options: &'w LintOptions) -> Self {
        let besides = dns::PORTS.into_iter().chain([(Protocol::TCP, 443)]).collect::<Vec<_>>();
        let present = Present::new(world, enforced, &options.node_local_dns);
        let traffic = Traffic::new(world, enforced, &besides);
        let policies = compiled::compile(world, enforced, &present, &traffic);
        let groups = Direction::BOTH.map(|direction| legs::groups(&present, &policies, direction));
        let judges_presence = judges_presence(world);
        Lint { world, options, present, traffic, policies, groups, judges_presence, findings: Vec::new() }
    }

    /// Every rule of every policy that concerns pods, in the order of evaluation.
    fn rules(&self) -> impl Iterator<Item = RuleAt<'_, 'w>> {
        self.policies.iter().enumerate().flat_map(|(policy, compiled)| {
            Direction::BOTH.into_iter().flat_map(move |direction| {
                let rules = compiled.rules(direction).unwrap_or_default();
                rules.iter().map(move |rule| RuleAt { policy, direction, rule })
            })
        })
    }

    /// The pods that a rule's destination ports are ports of: its subjects in ingress, its peers in egress.
    fn destinations(&self, at: &RuleAt<'_, 'w>) -> BitSet {
        match at.direction {
            Direction::Ingress => self.policies[at.policy].subject.clone(),
            Direction::Egress => {
                self.present.only_pods(&at.rule.terms.iter().fold(BitSet::new(), |mut all, term| {
                    all.or_with(&term.peers);
                    all
                }))
            }
        }
    }

    /// Per HostEndpoint the policies that select it and have a say in a direction, in the order of evaluation.
    fn of_hosts(&self, direction: Direction) -> BTreeMap<&'w str, Vec<usize>> {
        let mut of_hosts: BTreeMap<&'w str, Vec<usize>> = BTreeMap::new();
        for (number, policy) in self.policies.iter().enumerate() {
            for host in policy.hosts.iter().filter(|_| policy.rules(direction).is_some()) {
                of_hosts.entry(&host.name).or_default().push(number);
            }
        }
        of_hosts
    }

    fn add(&mut self, code: Code, policy: usize, path: &str, message: String, hint: Option<String>) {
        let position = self.policies[policy].policy.position.clone();
        self.add_at(code, policy, path.into(), position, message, hint);
    }

    fn add_at(
        &mut self,
        code: Code,
        policy: usize,
        path: Arc<str>,
        position: Option<Position>,
        message: String,
        hint: Option<String>,
    ) {
        let object = self.policies[policy].policy.key.clone();
        // nobody wrote the policies that a ProjectIsolation stands for (semantics 8.2)
        if !self.world.policies.contains_key(&object) {
            return;
        }
        self.findings.push(Finding { code, object, path, position, message, hint });
    }

    /// A finding about an object that is no policy.
    fn add_about(
        &mut self,
        code: Code,
        object: ObjectKey,
        path: &str,
        position: Option<Position>,
        message: String,
        hint: Option<String>,
    ) {
        self.findings.push(Finding { code, object, path: path.into(), position, message, hint });
    }

    fn extend(&mut self, findings: Vec<Found>) {
        for found in findings {
            let Found { code, policy, path, position, message, hint } = found;
            self.add_at(code, policy, path, position, message, hint);
        }
    }

    fn in_order(mut self) -> Vec<Finding> {
        let key = |finding: &Finding| {
            let file = finding.position.as_ref().map(|position| position.file.clone());
            let line = finding.position.as_ref().map(|position| position.line);
            (file, line, finding.object.clone(), finding.code, finding.path.clone(), finding.message.clone())
        };
        self.findings.sort_by_cached_key(key);
        self.findings.dedup();
        self.findings
    }
}

/// A finding about a policy, before it is added.
struct Found {
    code: Code,
    policy: usize,
    path: Arc<str>,
    position: Option<Position>,
    message: String,
    hint: Option<String>,
}

impl RuleAt<'_, '_> {
    /// A finding about the rule, or with `field` about a field of it.
    fn found(&self, code: Code, field: &str, message: String, hint: &str) -> Found {
        let reference = &self.rule.rule.reference;
        let path = match field {
            "" => reference.path.clone(),
            field => format!("{}.{field}", reference.path).into(),
        };
        let hint = (!hint.is_empty()).then(|| hint.to_owned());
        Found { code, policy: self.policy, path, position: reference.position.clone(), message, hint }
    }

    /// The field that holds the peers of a Kubernetes or Cluster rule.
    fn peers_field(&self) -> &'static str {
        match self.direction {
            Direction::Ingress => "from",
            Direction::Egress => "to",
        }
    }
}

/// `ingress from` or `egress to`.
fn toward(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "ingress from",
        Direction::Egress => "egress to",
    }
}

/// Is the object cluster-wide?
fn is_cluster_wide(kind: Kind) -> bool {
    kind == Kind::GlobalNetworkPolicy || is_cluster_policy(kind)
}

/// Is it of a kind whose order is a priority (semantics 4, 8.1)?
fn is_cluster_policy(kind: Kind) -> bool {
    let kinds =
        [Kind::KubernetesClusterNetworkPolicy, Kind::AdminNetworkPolicy, Kind::BaselineAdminNetworkPolicy];
    kinds.contains(&kind)
}
