//! Claims as data: sentences about connectivity (semantics 8.3).

use std::sync::Arc;

use sluice_addr::{Cidr, Family, PortRange, Protocol};
use sluice_model::ObjectKey;
use sluice_selector::LabelSelector;

use crate::transport::TransportSet;

/// A claim as data.
#[derive(Clone, Debug, PartialEq)]
pub struct Claim {
    /// Its name.
    pub name: Arc<str>,
    /// The sentence.
    pub text: String,
    /// Sources.
    pub from: Ends,
    /// Destinations.
    pub to: Ends,
    /// Protocol and destination ports; empty = every protocol and port.
    pub ports: Vec<(Protocol, Option<PortRange>)>,
    /// What is claimed.
    pub expect: Expectation,
    /// The families asked about; empty = every family that both ends have.
    pub families: Vec<Family>,
    /// Also about pods that do not exist yet.
    pub future_pods: bool,
    /// The objects that the author believes to be the cause.
    pub stated_reason: Vec<ObjectKey>,
}

/// A union of peers.
pub type Ends = Vec<Peer>;

/// One kind of end.
#[derive(Clone, Debug, PartialEq)]
pub enum Peer {
    /// Pods by labels; an absent selector means all.
    Pods {
        /// `namespaceSelector`.
        namespaces: Option<LabelSelector>,
        /// `podSelector`.
        pods: Option<LabelSelector>,
    },
    /// Addresses.
    Addresses {
        /// `cidr`.
        cidr: Cidr,
        /// `except`.
        except: Vec<Cidr>,
    },
    /// Every address that is neither pod nor node.
    Outside,
    /// The addresses of nodes.
    Nodes(LabelSelector),
    /// The backends of a Service: namespace, name.
    Service(Arc<str>, Arc<str>),
}

/// What a claim says (semantics 8.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// Every connection is allowed.
    Allow,
    /// None is.
    Deny,
    /// None is on anything but the listed ports, and one at least on these.
    AllowOnly,
    /// Nothing but `to` is reachable from `from`.
    ReachOnly,
}

impl Claim {
    /// The families asked about.
    pub(crate) fn asked_families(&self) -> &[Family] {
        if self.families.is_empty() { &Family::BOTH } else { &self.families }
    }

    /// The listed protocols and ports.
    pub(crate) fn listed(&self, family: Family) -> TransportSet {
        if self.ports.is_empty() {
            return TransportSet::all(family);
        }
        self.ports.iter().fold(TransportSet::none(family), |all, (protocol, range)| {
            all.union(&TransportSet::of(family, *protocol, *range))
        })
    }
}
