//! Policies as ordered rules (semantics 2, 3).
//!
//! Two rule bodies stand side by side because the law has two: Kubernetes rules are peers × ports (2.1), Calico rules
//! are conjunctions of criteria (3.4). The engine lowers both to one form; the evaluator reads them as written.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sluice_addr::{Cidr, Family, PortRange, Protocol};
use sluice_selector::{LabelSelector, Labels, Selector};

use crate::object::{Kind, ObjectKey, Order};

/// Seen from the subject: does the connection leave it or enter it?
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Direction {
    /// The connection enters the subject.
    Ingress,
    /// The connection leaves the subject.
    Egress,
}

impl Direction {
    /// Both directions.
    pub const BOTH: [Direction; 2] = [Direction::Ingress, Direction::Egress];
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Direction::Ingress => "ingress",
            Direction::Egress => "egress",
        })
    }
}

/// What a rule does with a connection that it matches (semantics 3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Action {
    /// This leg is allowed; no later rule or tier looks.
    Allow,
    /// This leg is denied.
    Deny,
    /// The rest of the tier is skipped.
    Pass,
    /// A record is made; evaluation goes on.
    Log,
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Action::Allow => "Allow",
            Action::Deny => "Deny",
            Action::Pass => "Pass",
            Action::Log => "Log",
        })
    }
}

/// Where in a file something was written. Lines count from 1.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Position {
    /// The file as it was named by the user; `-` is standard input.
    pub file: Arc<str>,
    /// The line.
    pub line: u32,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file, self.line)
    }
}

/// The place in an object that a verdict comes from.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RuleRef {
    /// The object.
    pub object: ObjectKey,
    /// The field, e.g. `spec.egress[0]`; `spec` for the object as a whole.
    pub path: Arc<str>,
    /// Where it was written, if it came from a file.
    pub position: Option<Position>,
}

impl fmt::Display for RuleRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.object, self.path)?;
        match &self.position {
            Some(position) => write!(f, " ({position})"),
            None => Ok(()),
        }
    }
}

/// A policy of any kind that takes part in tiers.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Kind, namespace, name.
    pub key: ObjectKey,
    /// The tier's name. Kubernetes policies: `default`.
    pub tier: Arc<str>,
    /// The place in the tier. Kubernetes policies: [`Order::KUBERNETES`].
    pub order: Order,
    /// Whom it applies to.
    pub subject: Subject,
    /// The ingress rules in order; `None` if the policy has no say in that direction (`types`).
    pub ingress: Option<Vec<Rule>>,
    /// The egress rules in order; `None` if the policy has no say in that direction (`types`).
    pub egress: Option<Vec<Rule>>,
    /// How it concerns host endpoints; pods ignore policies that are not [`HostUse::Normal`] or [`HostUse::Forward`].
    pub host: HostUse,
    /// What a staged policy's preview does (semantics 3.8); `None` for enforced kinds.
    pub staged: Option<StagedAction>,
    /// Where the object was written.
    pub position: Option<Position>,
}

/// The stages of host endpoints that a policy takes part in: `applyOnForward`, `preDNAT`, `doNotTrack` (semantics 3.10).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum HostUse {
    /// No flag: traffic of the node itself.
    #[default]
    Normal,
    /// `applyOnForward`: forwarded traffic too.
    Forward,
    /// `preDNAT`: before translation, in ingress.
    PreDnat,
    /// `doNotTrack`: before connection tracking.
    Untracked,
}

impl HostUse {
    /// Does the policy apply to pods that it selects?
    pub fn concerns_pods(self) -> bool {
        matches!(self, HostUse::Normal | HostUse::Forward)
    }
}

/// `stagedAction` (semantics 3.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum StagedAction {
    /// As if the enforced object were created or replaced.
    #[default]
    Set,
    /// As Set.
    Learn,
    /// As if the enforced object were deleted.
    Delete,
    /// Nothing.
    Ignore,
}

impl Policy {
    /// The rules of one direction, `None` if the policy does not apply to it.
    pub fn rules(&self, direction: Direction) -> Option<&[Rule]> {
        match direction {
            Direction::Ingress => self.ingress.as_deref(),
            Direction::Egress => self.egress.as_deref(),
        }
    }

    /// The order of policies inside a tier: order, then bytewise by `name/namespace/kind` (semantics 3.6).
    pub fn sort_key(&self) -> (Order, String) {
        (self.order, self.key.tie_breaker())
    }

    /// Does the policy select a HostEndpoint with these labels ([`crate::World::calico_host_labels`])? Only a
    /// GlobalNetworkPolicy that speaks of neither namespaces nor service accounts does (semantics 3.2).
    pub fn selects_host(&self, labels: &Labels) -> bool {
        match &self.subject {
            Subject::Calico { selector, namespace_selector: None, service_account_selector: None } => {
                self.key.kind == Kind::GlobalNetworkPolicy && selector.matches(labels)
            }
            Subject::Calico { .. } | Subject::Kubernetes(_) | Subject::Cluster { .. } => false,
        }
    }

    /// A reference to the object as a whole.
    pub fn reference(&self) -> RuleRef {
        RuleRef { object: self.key.clone(), path: "spec".into(), position: self.position.clone() }
    }
}

/// Whom a policy applies to. A policy with a namespace selects only in it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Subject {
    /// `podSelector` of a Kubernetes NetworkPolicy: pods of the policy's namespace.
    Kubernetes(LabelSelector),
    /// `selector`, `namespaceSelector`, `serviceAccountSelector` of a Calico policy (semantics 3.2).
    Calico {
        /// `selector`; blank is `all()`.
        selector: Selector,
        /// `namespaceSelector`: then only pods are selected.
        namespace_selector: Option<Selector>,
        /// `serviceAccountSelector`: then only pods are selected.
        service_account_selector: Option<Selector>,
    },
    /// `subject` of a ClusterNetworkPolicy: pods of namespaces that match (semantics 4).
    Cluster {
        /// `namespaces`, or the `namespaceSelector` of `pods`.
        namespaces: LabelSelector,
        /// The `podSelector` of `pods`; absent = all pods.
        pods: Option<LabelSelector>,
    },
}

/// One rule of a policy.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Rule {
    /// What it does.
    pub action: Action,
    /// What it matches.
    pub body: RuleBody,
    /// Where it stands.
    pub reference: RuleRef,
}

/// What a rule matches.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum RuleBody {
    /// Peers × ports (semantics 2.1); both lists empty match everything.
    Kubernetes {
        /// `from` or `to`: ORed; `None` = every address. `Some([])` arises only where every peer was rejected (7.3) and
        /// matches nothing.
        peers: Option<Vec<KubernetesPeer>>,
        /// `ports`: ORed; `None` = every protocol and port. `Some([])` matches nothing, as above.
        ports: Option<Vec<KubernetesPort>>,
    },
    /// A conjunction of criteria (semantics 3.4).
    Calico(Box<CalicoRule>),
    /// Peers × protocols of a ClusterNetworkPolicy (semantics 4).
    Cluster {
        /// `from` or `to`, ORed.
        peers: Vec<ClusterPeer>,
        /// `protocols`, ORed; `None` = every protocol.
        protocols: Option<Vec<ClusterProtocol>>,
    },
    /// A rule that could not be read: an Allow matches nothing, a Deny or Pass denies everything (semantics 7.3).
    Unreadable,
}

impl RuleBody {
    /// Every CIDR that the rule names, wherever it stands.
    pub fn cidrs(&self) -> Vec<Cidr> {
        let mut cidrs = Vec::new();
        match self {
            RuleBody::Kubernetes { peers, .. } => {
                for peer in peers.iter().flatten() {
                    if let KubernetesPeer::IpBlock { cidr, except } = peer {
                        cidrs.push(*cidr);
                        cidrs.extend(except);
                    }
                }
            }
            RuleBody::Calico(rule) => {
                for side in [&rule.source, &rule.destination] {
                    cidrs.extend(side.nets.iter().chain(&side.not_nets));
                }
            }
            RuleBody::Cluster { peers, .. } => {
                for peer in peers {
                    if let ClusterPeer::Networks(networks) = peer {
                        cidrs.extend(networks);
                    }
                }
            }
            RuleBody::Unreadable => {}
        }
        cidrs
    }
}

/// One peer of a Kubernetes rule.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum KubernetesPeer {
    /// `ipBlock`.
    IpBlock {
        /// `cidr`.
        cidr: Cidr,
        /// `except`, each inside `cidr`.
        except: Vec<Cidr>,
    },
    /// `podSelector`, `namespaceSelector`, or both (AND). Without a namespace selector: the policy's own namespace.
    Selectors {
        /// `podSelector`; absent = all pods.
        pods: Option<LabelSelector>,
        /// `namespaceSelector`; absent = the policy's own namespace.
        namespaces: Option<LabelSelector>,
    },
}

/// One peer of a ClusterNetworkPolicy rule (semantics 4).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum ClusterPeer {
    /// `namespaces` or `pods`: pods of namespaces that match.
    Pods {
        /// The namespaces.
        namespaces: LabelSelector,
        /// The pods; absent = all of them.
        pods: Option<LabelSelector>,
    },
    /// `networks`: every address in the CIDRs.
    Networks(Vec<Cidr>),
    /// `nodes`: the addresses of matching nodes.
    Nodes(LabelSelector),
    /// `domainNames`: addresses that DNS gave for the names.
    DomainNames(Vec<DomainPattern>),
}

/// A domain name in lower case without a final dot, or with `wildcard` one or more whole labels before it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DomainPattern {
    /// The name; for `*.example.com` it is `example.com`.
    pub name: Arc<str>,
    /// Does `*.` stand before it?
    pub wildcard: bool,
}

impl DomainPattern {
    /// Does a name in lower case without a final dot match?
    pub fn matches(&self, name: &str) -> bool {
        if !self.wildcard {
            return *name == *self.name;
        }
        let labels = name.strip_suffix(&*self.name).and_then(|rest| rest.strip_suffix('.'));
        labels.is_some_and(|labels| !labels.is_empty())
    }
}

/// One entry of `protocols` in a ClusterNetworkPolicy rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClusterProtocol {
    /// `tcp`, `udp`, `sctp`: a protocol and ports; never [`PortMatch::Named`].
    Port(KubernetesPort),
    /// `destinationNamedPort`: the name at the destination pod, with the protocol declared there.
    Named(Arc<str>),
}

/// One port of a Kubernetes rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KubernetesPort {
    /// TCP, UDP or SCTP; TCP if absent.
    pub protocol: Protocol,
    /// Which ports of the protocol.
    pub port: PortMatch,
}

/// A set of ports as written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum PortMatch {
    /// Every port of the protocol.
    Any,
    /// A number or a range.
    Range(PortRange),
    /// A named port (semantics 1.8).
    Named(Arc<str>),
}

/// The criteria of a Calico rule; each that is present must hold (semantics 3.4).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct CalicoRule {
    /// `ipVersion`.
    pub ip_version: Option<Family>,
    /// `protocol`.
    pub protocol: Option<Protocol>,
    /// `notProtocol`.
    pub not_protocol: Option<Protocol>,
    /// `icmp`: type, and code if given.
    pub icmp: Option<IcmpMatch>,
    /// `notICMP`.
    pub not_icmp: Option<IcmpMatch>,
    /// `source`.
    pub source: EntityRule,
    /// `destination`.
    pub destination: EntityRule,
}

/// An ICMP type, and a code if given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IcmpMatch {
    /// `type`.
    pub type_: u8,
    /// `code`.
    pub code: Option<u8>,
}

/// One side of a Calico rule. Empty lists are absent criteria.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct EntityRule {
    /// `nets`.
    pub nets: Vec<Cidr>,
    /// `notNets`.
    pub not_nets: Vec<Cidr>,
    /// `selector`.
    pub selector: Option<Selector>,
    /// `notSelector`.
    pub not_selector: Option<Selector>,
    /// `namespaceSelector`; `global()` is its own form.
    pub namespace_selector: Option<NamespaceScope>,
    /// `serviceAccounts`; `None` where neither names nor selector are given (SL2206).
    pub service_accounts: Option<ServiceAccountMatch>,
    /// `ports`, ORed.
    pub ports: Vec<PortMatch>,
    /// `notPorts`: none of them.
    pub not_ports: Vec<PortMatch>,
    /// `services`: namespace and name.
    pub service: Option<(Arc<str>, Arc<str>)>,
}

/// The namespaces a Calico side looks at.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum NamespaceScope {
    /// `global()`: entities without a namespace.
    Global,
    /// Entities of namespaces whose labels satisfy the selector.
    Matching(Selector),
}

/// `serviceAccounts`: pods whose account is named **and** satisfies the selector.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ServiceAccountMatch {
    /// `names`; empty = any.
    pub names: Vec<Arc<str>>,
    /// `selector`; absent = any.
    pub selector: Option<Selector>,
}
