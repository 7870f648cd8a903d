//! What workloads are made of: objects in the order in which a reader lists them, and whose pods are local.

pub(crate) mod antrea;
pub(crate) mod cluster;
pub(crate) mod felix;
pub(crate) mod production;

use sluice_engine::Scope;
use sluice_model::Object;

/// How large, and which of the many instances of that size.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Size {
    /// 1 is the published size.
    pub(crate) scale: f64,
    pub(crate) seed: u64,
}

impl Size {
    /// A count that grows with the scale; `least` keeps small instances meaningful.
    pub(crate) fn of(self, full: usize, least: usize) -> usize {
        ((full as f64 * self.scale).round() as usize).max(least)
    }
}

/// One instance of a workload. Objects are made while they are read, so that they need not be held all at once.
pub(crate) struct Instance {
    pub(crate) scope: Scope,
    pub(crate) objects: Box<dyn Iterator<Item = Object>>,
    /// Destination ports that flows are drawn from.
    pub(crate) ports: Vec<u16>,
}
