//! The nftables backend: apply, resync, counters.

use std::collections::{BTreeMap, BTreeSet};

use sluice_model::ObjectKey;
use sluice_netlink::nft::{self, Chain, Expr, Family, Object, Rule, Table, Verdict};
use sluice_netlink::{Error as Netlink, Socket};
use sluice_plan::{Cause, Plan};

use crate::compile::{Site, compile, function_chain};
use crate::error::Error;
use crate::layout::TABLE;

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
    /// The chain, which now drops.
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
        let current = match self.current.take() {
            Some(table) => table,
            None => self.read_back()?.unwrap_or_else(|| Table::new(Family::Inet, TABLE)),
        };
        self.reach(current, compile(plan, site), plan)
    }

    /// Reads the kernel's state back and repairs what differs from `plan`. Never flushes.
    pub fn resync(&mut self, plan: &Plan, site: &Site) -> Result<Programmed, Error> {
        let current = self.read_back()?.unwrap_or_else(|| Table::new(Family::Inet, TABLE));
        self.current = None;
        let done = self.reach(current, compile(plan, site), plan)?;
        if done.changed {
            self.repairs += 1;
        }
        Ok(done)
    }

    /// What each counted rule has counted.
    pub fn counters(&mut self) -> Result<Vec<RuleCount>, Error> {
        Ok(self.read_back()?.map(|table| rule_counts(&table)).unwrap_or_default())
    }

    fn reach(&mut self, mut current: Table, mut desired: Table, plan: &Plan) -> Result<Programmed, Error> {
        let mut done = Programmed::default();
        for _ in 0..ATTEMPTS {
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
                Err(Netlink::Refused { refusals, .. }) => {
                    let before = done.quarantined.len();
                    for refusal in &refusals {
                        if let Some(chain) = chain_of(&desired, &refusal.object) {
                            let objects = objects_behind(plan, &chain);
                            desired.chains.insert(chain.clone(), quarantine());
                            done.quarantined.push(Quarantined {
                                chain,
                                reason: refusal.to_string(),
                                objects,
                            });
                        }
                    }
                    if done.quarantined.len() == before {
                        return Err(Error::Program(Netlink::Refused { refusals, committed: 0 }));
                    }
                    // earlier transactions of the same change may have been committed
                    current = self.read_back()?.unwrap_or_else(|| Table::new(Family::Inet, TABLE));
                }
                Err(error) => return Err(Error::Program(error)),
            }
        }
        Err(Error::Program(Netlink::Interrupted { operation: "quarantine of refused chains".into() }))
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

/// The chain that a refusal is about: the chain itself, or the one that looks into a refused set.
fn chain_of(desired: &Table, object: &Object) -> Option<String> {
    match object {
        Object::Chain(chain) | Object::Rule(chain, _) => Some(chain.clone()),
        Object::Set(set) | Object::Element(set, _) => desired
            .chains
            .iter()
            .find(|(_, chain)| chain.rules.iter().any(|r| r.exprs.iter().any(|e| e.set() == Some(set))))
            .map(|(name, _)| name.clone()),
        Object::Batch | Object::Table | Object::OldRules(_) => None,
    }
    .filter(|name| desired.chains.get(name).is_some_and(|c| c.base.is_none() && *c != quarantine()))
}

fn quarantine() -> Chain {
    let drop = Rule::new([Expr::Counter, Expr::Verdict(Verdict::Drop)]);
    Chain::regular(vec![drop.comment("quarantined: the kernel refused this chain")])
}

/// The policies whose rules are in a function chain.
fn objects_behind(plan: &Plan, chain: &str) -> BTreeSet<ObjectKey> {
    let mut names: BTreeMap<String, BTreeSet<ObjectKey>> = BTreeMap::new();
    for function in plan.functions.values() {
        let outcomes = function.rows.iter().map(|r| &r.outcome).chain([&function.otherwise]);
        let objects = outcomes.filter_map(|o| match &o.cause {
            Cause::Rule(rule) => Some(rule.object.clone()),
            Cause::TierDefault(_) | Cause::Profile(_) => None,
        });
        names.entry(function_chain(function)).or_default().extend(objects);
    }
    names.remove(chain).unwrap_or_default()
}
