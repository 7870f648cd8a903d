//! Which node an address is local to (semantics 1.5).

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use rustc_hash::FxHashMap;
use sluice_plan::{Changes, Plan};

/// Who says that an address is a node's, in the order of precedence: the Node before the pods that use its network.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Witness {
    Node { node: Arc<str> },
    Pod { namespace: Arc<str>, name: Arc<str>, node: Arc<str> },
}

impl Witness {
    fn node(&self) -> &Arc<str> {
        match self {
            Witness::Node { node } | Witness::Pod { node, .. } => node,
        }
    }
}

/// The addresses of nodes.
#[derive(Debug, Default)]
pub(crate) struct NodeAddresses {
    witnesses: FxHashMap<IpAddr, BTreeSet<Witness>>,
    touched: Vec<IpAddr>,
}

impl NodeAddresses {
    pub(crate) fn add(&mut self, address: IpAddr, witness: Witness) {
        self.witnesses.entry(address).or_default().insert(witness);
        self.touched.push(address);
    }

    pub(crate) fn remove(&mut self, address: IpAddr, witness: &Witness) {
        if let Some(witnesses) = self.witnesses.get_mut(&address) {
            witnesses.remove(witness);
            if witnesses.is_empty() {
                self.witnesses.remove(&address);
            }
            self.touched.push(address);
        }
    }

    /// Brings the plan's nodes up to date.
    pub(crate) fn publish(&mut self, plan: &mut Plan, changes: &mut Changes<IpAddr, Arc<str>>) {
        for address in std::mem::take(&mut self.touched) {
            match self.witnesses.get(&address).and_then(BTreeSet::first).map(Witness::node) {
                Some(node) => {
                    if plan.nodes.get(&address) != Some(node) {
                        plan.nodes.insert(address, node.clone());
                        changes.upserts.insert(address, node.clone());
                    }
                }
                None => {
                    if plan.nodes.remove(&address).is_some() {
                        changes.removals.insert(address);
                    }
                }
            }
        }
    }
}
