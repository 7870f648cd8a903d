//! The nftables backend: apply, resync, counters.

use std::collections::BTreeSet;

use sluice_model::{Direction, ObjectKey};
use sluice_netlink::nft::{self, Chain, Expr, Family, Object, Refusal, Rule, Table, Verdict};
use sluice_netlink::{Error as Netlink, Socket};
use sluice_plan::{Cause, Plan, PortFunction, StageLegs};

use crate::compile::{Post, Site, compile, function_chain, leg_chains};
use crate::error::Error;
use crate::host::Spot;
use crate::layout::{DISCOVERY, EGRESS, FROM_POD, INGRESS, OWN, SANE, SOURCE, TABLE, TO_NODE, TO_POD};
use crate::succession::succeed;

/// How often a change is tried again with what the kernel refused put under quarantine.
const ATTEMPTS: usize = 8;

/// The backend of one node.
#[derive(Debug)]
pub struct Nft {
    socket: Socket,
    /// What the kernel is believed to hold; `None` before the first read.
    current: Option<Table>,
    repairs: u64,
}

/// What came of programming a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Programmed {
    /// Was anything changed?
    pub changed: bool,
    /// Netlink messages sent.
    pub messages: usize,
    /// Chains that the kernel refused and that drop everything instead, with its reason and the objects behind them.
    pub quarantined: Vec<Quarantined>,
}

/// A chain that the kernel refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Quarantined {
    /// The chain, which now drops; or the set from which the refused address was left out.
    pub chain: String,
    /// The kernel's words.
    pub reason: String,
    /// The policies whose rules stand in it.
    pub objects: BTreeSet<ObjectKey>,
}

/// What one rule counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleCount {
    /// The chain.
    pub chain: String,
    /// The rule's comment: its cause.
    pub cause: String,
    /// Does the rule drop?
    pub drops: bool,
    /// Packets that reached its counter.
    pub packets: u64,
}

impl Nft {
    /// A backend over a netfilter socket of the node's namespace.
    pub fn new(socket: Socket) -> Self {
        Nft { socket, current: None, repairs: 0 }
    }

    /// The table as the kernel holds it now; `None` if there is none.
    pub fn read_back(&mut self) -> Result<Option<Table>, Error> {
        nft::read_table(&mut self.socket, Family::Inet, TABLE).map_err(Error::Read)
    }

    /// Kernel objects repaired by [`Nft::resync`] so far.
    pub fn repairs(&self) -> u64 {
        self.repairs
    }

    /// Makes the kernel hold `plan`. The first call reads what an earlier agent left and changes only what differs.
    ///
    /// What the kernel refuses is put under quarantine: its chain drops (fails closed for the endpoints that it serves), is
    /// reported, and the rest is programmed.
    pub fn apply(&mut self, plan: &Plan, site: &Site) -> Result<Programmed, Error> {
        self.reach(compile(plan, site), plan)
    }

    /// Reads the kernel's state back and repairs what differs from `plan`. Never flushes.
    pub fn resync(&mut self, plan: &Plan, site: &Site) -> Result<Programmed, Error> {
        self.current = None;
        let done = self.reach(compile(plan, site), plan)?;
        if done.changed {
            self.repairs += 1;
        }
        Ok(done)
    }

    /// What each counted rule has counted.
    pub fn counters(&mut self) -> Result<Vec<RuleCount>, Error> {
        Ok(self.read_back()?.map(|table| rule_counts(&table)).unwrap_or_default())
    }

    fn reach(&mut self, mut desired: Table, plan: &Plan) -> Result<Programmed, Error> {
        let mut done = Programmed::default();
        // what is believed may be out of date, what was read just now is not
        let believed = self.current.take();
        let mut is_read = believed.is_none();
        let mut current = match believed {
            Some(table) => table,
            None => self.held()?,
        };
        for _ in 0..ATTEMPTS {
            succeed(&current, &mut desired);
            let steps = match nft::diff(&current, &desired) {
                Ok(steps) => steps,
                Err(Netlink::Clash { objects }) => {
                    // definitions of another version: there is no way in place
                    tracing::warn!(?objects, "table of another version; it is made anew");
                    let anew = nft::Transaction::recreate(&desired);
                    let sent = nft::apply(&mut self.socket, &anew).map_err(Error::Program)?;
                    done.messages += sent.messages;
                    done.changed = true;
                    self.current = Some(desired);
                    return Ok(done);
                }
                Err(error) => return Err(Error::Program(error)),
            };
            match steps.apply(&mut self.socket) {
                Ok(sent) => {
                    done.messages += sent.messages;
                    done.changed |= !steps.is_empty();
                    self.current = Some(desired);
                    return Ok(done);
                }
                Err(Netlink::Refused { refusals, committed }) => {
                    if is_read && !done.quarantine(&mut desired, &refusals, plan) {
                        return Err(Error::Program(Netlink::Refused { refusals, committed }));
                    }
                    // somebody else changed the table, or a part of the change is in force
                    done.changed = true;
                    current = self.held()?;
                    is_read = true;
                }
                Err(error) => return Err(Error::Program(error)),
            }
        }
        Err(Error::Program(Netlink::Interrupted { operation: "quarantine of refused chains".into() }))
    }

    fn held(&mut self) -> Result<Table, Error> {
        Ok(self.read_back()?.unwrap_or_else(|| Table::new(Family::Inet, TABLE)))
    }
}

impl Programmed {
    /// Closes what the kernel refused; `false` if there is no way to close less than everything.
    fn quarantine(&mut self, desired: &mut Table, refusals: &[Refusal], plan: &Plan) -> bool {
        let before = self.quarantined.len();
        for refusal in refusals {
            let Some(chain) = close(desired, &refusal.object) else { continue };
            let objects = objects_behind(plan, &chain);
            tracing::warn!(%refusal, chain, "the kernel refused a part of the plan; it drops instead");
            self.quarantined.push(Quarantined { chain, reason: refusal.to_string(), objects });
        }
        self.quarantined.len() > before
    }
}

/// The counters of a table that was read back.
pub fn rule_counts(table: &Table) -> Vec<RuleCount> {
    let mut counts = Vec::new();
    for (name, chain) in &table.chains {
        for rule in &chain.rules {
            if let Some(counter) = rule.counter {
                counts.push(RuleCount {
                    chain: name.clone(),
                    cause: rule.comment.clone().unwrap_or_default(),
                    drops: rule.exprs.contains(&Expr::Verdict(Verdict::Drop)),
                    packets: counter.packets,
                });
            }
        }
    }
    counts
}

/// Makes that part of the table drop which an object of it is about, and names it.
///
/// An address that is taken out of a dispatch map or of the owned addresses is a pod without policy in force, which is
/// dropped. Chains and maps of a leg drop as a whole.
fn close(desired: &mut Table, object: &Object) -> Option<String> {
    let dispatch = [OWN, EGRESS, INGRESS].concat();
    let chain = match object {
        Object::Chain(chain) | Object::Rule(chain, _) => chain.clone(),
        Object::Element(set, Some(key)) if dispatch.contains(&set.as_str()) => {
            desired.sets.get_mut(set)?.elements.remove(key)?;
            return Some(set.clone());
        }
        Object::Set(set) | Object::Element(set, _) => {
            let looks_up = |rule: &Rule| rule.exprs.iter().any(|expr| expr.set() == Some(set));
            desired.chains.iter().find(|(_, chain)| chain.rules.iter().any(looks_up))?.0.clone()
        }
        Object::Batch | Object::Table | Object::OldRules(_) => return None,
    };
    let closed = quarantine();
    // the chains that every table has serve all pods: closing one of them is no way to let the rest live
    let found = desired.chains.get_mut(&chain).filter(|c| c.base.is_none() && **c != closed)?;
    if [SOURCE, DISCOVERY, SANE, FROM_POD, TO_POD, TO_NODE].contains(&chain.as_str()) {
        return None;
    }
    *found = closed;
    Some(chain)
}

fn quarantine() -> Chain {
    let drop = Rule::new([Expr::Counter, Expr::Verdict(Verdict::Drop)]);
    Chain::regular(vec![drop.comment("quarantined: the kernel refused this chain")])
}

/// The policies behind a chain: those whose rules are in a function, or all that take part in a leg or in a stage of a host
/// endpoint.
fn objects_behind(plan: &Plan, chain: &str) -> BTreeSet<ObjectKey> {
    let mut objects = BTreeSet::new();
    let is_it =
        |function: &PortFunction| Post::ALL.iter().any(|post| function_chain(*post, function) == chain);
    for function in plan.functions.values().filter(|function| is_it(function)) {
        let outcomes = function.rows.iter().map(|r| &r.outcome).chain([&function.otherwise]);
        objects.extend(outcomes.filter_map(|o| match &o.cause {
            Cause::Rule(rule) => Some(rule.object.clone()),
            Cause::TierDefault(_) | Cause::Profile(_) | Cause::NoProfile | Cause::NextStage => None,
        }));
    }
    let subjects = plan.subjects();
    let of_pods = subjects.iter().flat_map(|subject| {
        Direction::BOTH.map(|direction| (Post::Pod, direction, subject.leg(direction), false))
    });
    let of_hosts = plan.host_endpoints.iter().flat_map(|(name, endpoint)| {
        Spot::ALL.into_iter().flat_map(move |spot| {
            let is_stage = spot.chain_of(name) == chain;
            let legs = spot.legs(endpoint).into_iter().flat_map(StageLegs::legs);
            legs.map(move |leg| (spot.post(), spot.direction(), leg, is_stage))
        })
    });
    for (post, direction, id, is_stage) in of_pods.chain(of_hosts) {
        let Some(leg) = plan.legs.get(&id) else { continue };
        if is_stage || leg_chains(post, direction, leg).iter().any(|name| name == chain) {
            let policies = leg.tiers.iter().flat_map(|tier| &tier.policies);
            objects.extend(policies.map(|policy| policy.object.clone()));
        }
    }
    objects
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use sluice_netlink::Protocol;
    use sluice_netlink::nft::{SetKey, SetValue, Value};

    use super::*;

    /// Runs the test's second half in a network namespace of its own; says `ignored (reason)` where there can be none.
    fn in_namespace(name: &str, test: impl FnOnce()) {
        const INSIDE: &str = "SLUICE_DATAPLANE_UNIT_INSIDE";
        if std::env::var_os(INSIDE).is_some() {
            return test();
        }
        let exe = std::env::current_exe().unwrap();
        let output = Command::new("unshare")
            .args(["--user", "--map-root-user", "--net", "--"])
            .arg(exe)
            .args([name, "--exact", "--nocapture"])
            .env(INSIDE, "1")
            .output();
        match output {
            Err(error) => println!("{name}: ignored (no unshare program: {error})"),
            Ok(output) => {
                let (out, err) =
                    (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
                if err.contains("unshare: ") || err.contains("unshare failed") {
                    println!("{name}: ignored (user namespaces are switched off: {})", err.trim());
                    return;
                }
                assert!(output.status.success() && out.contains("1 passed"), "{out}{err}");
            }
        }
    }

    fn backend() -> Nft {
        Nft::new(Socket::open(Protocol::Netfilter).unwrap())
    }

    fn chain(rules: Vec<Rule>) -> Chain {
        Chain::regular(rules.into_iter().map(|rule| rule.canonical(Family::Inet)).collect())
    }

    /// The table of an empty plan with one leg whose function is fine and one whose function the kernel refuses.
    fn with_refused_parts() -> Table {
        let mut table = compile(&Plan::default(), &Site::default());
        let drop = || Rule::new([Expr::Counter, Expr::Verdict(Verdict::Drop)]);
        let nowhere =
            Rule::new([Expr::lookup([nft::Field::IpSaddr], "no-such-set"), Expr::Verdict(Verdict::Drop)]);
        table.chains.insert("f-good".into(), chain(vec![drop()]));
        table.chains.insert("f-bad".into(), chain(vec![nowhere]));
        let to = |chain: &str| SetValue::Verdict(Verdict::Goto(chain.into()));
        let egress = &mut table.sets.get_mut("egress4").unwrap().elements;
        for (last, chain) in [(1, "f-good"), (2, "f-bad"), (3, "no-such-chain")] {
            egress.insert(SetKey::one(Value::V4([10, 0, 0, last].into())), to(chain));
        }
        table
    }

    #[test]
    fn what_the_kernel_refuses_is_closed_and_the_rest_is_programmed() {
        let name = "backend::tests::what_the_kernel_refuses_is_closed_and_the_rest_is_programmed";
        in_namespace(name, || {
            let mut nft = backend();
            for _ in 0..2 {
                let done = nft.reach(with_refused_parts(), &Plan::default()).unwrap();
                let closed: BTreeSet<&str> = done.quarantined.iter().map(|q| q.chain.as_str()).collect();
                assert_eq!(closed, BTreeSet::from(["f-bad", "egress4"]), "{done:?}");
                assert!(done.quarantined.iter().all(|q| !q.reason.is_empty()));
                let held = nft.read_back().unwrap().unwrap();
                assert_eq!(held.chains["f-bad"], quarantine());
                assert_eq!(held.chains["f-good"], with_refused_parts().chains["f-good"]);
                let egress: Vec<_> = held.sets["egress4"].elements.keys().collect();
                assert_eq!(egress.len(), 2, "the address that leads nowhere has no policy, so it is dropped");
            }
            // Once the cause is gone the plan is in force as it should be.
            let plan = Plan::default();
            assert!(nft.apply(&plan, &Site::default()).unwrap().quarantined.is_empty());
            let held = nft.read_back().unwrap().unwrap();
            assert!(nft::diff(&held, &compile(&plan, &Site::default())).unwrap().is_empty());
        });
    }

    #[test]
    fn a_refused_chain_of_all_pods_is_an_error() {
        in_namespace("backend::tests::a_refused_chain_of_all_pods_is_an_error", || {
            let mut table = with_refused_parts();
            table.chains.insert(FROM_POD.into(), table.chains["f-bad"].clone());
            table.chains.remove("f-bad");
            table.sets.get_mut("egress4").unwrap().elements.clear();
            let mut nft = backend();
            assert!(matches!(
                nft.reach(table, &Plan::default()),
                Err(Error::Program(Netlink::Refused { .. }))
            ));
        });
    }
}
