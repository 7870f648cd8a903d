//! ProjectIsolation as the ordinary policies that it stands for (semantics 8.2).
//!
//! Membership is decided here, namespace by namespace, and the policies name namespaces by
//! `kubernetes.io/metadata.name`: a namespace whose label and annotation disagree is in no project, and a selector over
//! the project label could not say so.
//!
//! - *Default*: per isolated namespace one Kubernetes NetworkPolicy `project-isolation` that admits the namespaces of
//!   the project and of the system project.
//! - *Enforced*: per project one ClusterNetworkPolicy `project-isolation.<project>`, tier Admin, priority 900: Pass for
//!   those namespaces, Deny for all other pods.
//! - `allowNodes` is a peer that lists every address of every node, those of the overlay included, as host CIDRs: a
//!   node that speaks to a pod elsewhere shows its overlay address, which a `nodes` peer would not match.
//! - With `egress` the same peers hold for egress, and DNS besides: pods labelled `k8s-app: kube-dns` of namespace
//!   `kube-system`, port 53 by UDP and TCP.
//! - NodePorts, load balancers and hostPorts get nothing of their own.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluice_addr::{Cidr, PortRange, Protocol};
use sluice_selector::{LabelSelector, Operator, Requirement};

use crate::object::*;
use crate::rule::*;
use crate::world::{ObjectDelta, World};

mod followed;

pub use followed::FollowedProjects;

/// The label that the API always sets to a namespace's name.
const NAMESPACE_NAME: &str = "kubernetes.io/metadata.name";
/// The one ProjectIsolation that counts.
const THE_ISOLATION: &str = "default";
const POLICY_NAME: &str = "project-isolation";
const PRIORITY: f64 = 900.0;

/// The policies that a ProjectIsolation stands for, and what was noticed about namespaces.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ProjectPolicies {
    /// By key, in order. They are policies like any other; no object is stored for them.
    pub policies: BTreeMap<ObjectKey, Arc<Policy>>,
    /// By namespace, in order.
    pub notices: Vec<ProjectNotice>,
}

/// Something about a namespace that its owner should know.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ProjectNotice {
    /// Label and annotation name different projects, so the namespace is in none.
    Disagreement {
        /// The namespace.
        namespace: Arc<str>,
        /// The label's value, if it is there.
        label: Option<Arc<str>>,
        /// The annotation's value.
        annotation: Arc<str>,
    },
    /// The namespace is in no project: neither isolated nor admitted to one.
    NoProject {
        /// The namespace.
        namespace: Arc<str>,
    },
}

impl ProjectPolicies {
    /// What the world's ProjectIsolation stands for; nothing if there is none.
    pub fn of(world: &World) -> Self {
        let taken = |key: &ObjectKey| world.policies.contains_key(key);
        Self::of_parts(&world.isolations, world.namespaces.values(), world.nodes.values(), taken)
    }

    /// The same where a world's namespaces and policies are kept elsewhere; `taken` as for [`ProjectPolicies::new`].
    pub fn of_parts<'w>(
        isolations: &BTreeMap<Arc<str>, ProjectIsolation>,
        namespaces: impl IntoIterator<Item = &'w Namespace>,
        nodes: impl Iterator<Item = &'w Node>,
        taken: impl Fn(&ObjectKey) -> bool,
    ) -> Self {
        match isolations.get(THE_ISOLATION) {
            Some(isolation) => Self::new(isolation, namespaces.into_iter(), nodes, taken),
            None => Self::default(),
        }
    }

    /// What `isolation` stands for among these namespaces and nodes.
    ///
    /// The result depends on nothing else, so a caller that follows changes asks again when a Namespace, a Node (only
    /// with `allowNodes`), the isolation, or a stored policy named like one of these changes, and takes the difference
    /// ([`ProjectPolicies::changes_from`]). The cost is that of one pass over namespaces and nodes, and of the name
    /// lists of the policies; mode Off costs nothing.
    ///
    /// `taken` says whether a stored policy has a key. A policy made here then gets a name that no API stores, and
    /// both hold.
    pub fn new<'w>(
        isolation: &ProjectIsolation,
        namespaces: impl Iterator<Item = &'w Namespace>,
        nodes: impl Iterator<Item = &'w Node>,
        taken: impl Fn(&ObjectKey) -> bool,
    ) -> Self {
        if *isolation.name != *THE_ISOLATION || isolation.mode == IsolationMode::Off {
            return Self::default();
        }
        let mut projects = Projects::default();
        let mut notices = Vec::new();
        for namespace in namespaces {
            let (placed, notice) = place(isolation, namespace);
            projects.insert(namespace.name.clone(), &placed);
            notices.extend(notice);
        }
        let author = Author { isolation, nodes: addresses_of(isolation, nodes), taken: &taken };
        let made = projects.isolated.keys().flat_map(|project| policies_of(&author, &projects, project));
        let policies = made.map(|policy| (policy.key.clone(), Arc::new(policy))).collect();
        notices.sort();
        ProjectPolicies { policies, notices }
    }

    /// The changes that lead from the policies of `before` to these.
    pub fn changes_from(&self, before: &Self) -> Vec<ObjectDelta> {
        let gone = before.policies.keys().filter(|key| !self.policies.contains_key(*key));
        let new = self.policies.iter().filter(|(key, policy)| before.policies.get(*key) != Some(*policy));
        gone.map(|key| ObjectDelta::Delete(key.clone()))
            .chain(new.map(|(_, policy)| ObjectDelta::Upsert(Object::Policy(policy.clone()))))
            .collect()
    }
}

/// Names of namespaces, in order.
type Names = BTreeSet<Arc<str>>;

/// The addresses of nodes that an isolation admits, in order.
fn addresses_of<'w>(isolation: &ProjectIsolation, nodes: impl Iterator<Item = &'w Node>) -> Vec<Cidr> {
    let addresses: BTreeSet<Cidr> = match isolation.allow_nodes {
        true => nodes.flat_map(|node| &node.addresses).map(|address| Cidr::host(*address)).collect(),
        false => BTreeSet::new(),
    };
    addresses.into_iter().collect()
}

/// The policies of one project.
fn policies_of(author: &Author<'_>, projects: &Projects, project: &Arc<str>) -> Vec<Policy> {
    let Some(members) = projects.isolated.get(project) else { return Vec::new() };
    let mut admitted = projects.members.get(project).cloned().unwrap_or_default();
    admitted.extend(projects.system.iter().cloned());
    match author.isolation.mode {
        IsolationMode::Off => Vec::new(),
        IsolationMode::Default => {
            members.iter().map(|namespace| author.kubernetes(namespace, &admitted)).collect()
        }
        IsolationMode::Enforced => vec![author.cluster(project, members, &admitted)],
    }
}

/// Where a namespace is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Placed {
    project: Option<Arc<str>>,
    /// Is it part of the system project?
    system: bool,
    /// Is it to be isolated?
    isolated: bool,
}

fn place(isolation: &ProjectIsolation, namespace: &Namespace) -> (Placed, Option<ProjectNotice>) {
    let project = project_of(isolation, namespace);
    let found = project.as_ref().ok().cloned().flatten();
    let is = |one: &ProjectMatch| match one {
        ProjectMatch::Project(value) => found.as_ref() == Some(value),
        ProjectMatch::Namespace(one) => *one == namespace.name,
        ProjectMatch::Namespaces(selector) => selector.matches(&namespace.labels),
    };
    let system = isolation.system_project.as_ref().is_some_and(is);
    let isolated = found.is_some() && !system && !isolation.exempt.iter().any(is);
    let notice = match project {
        Ok(None) if !system => Some(ProjectNotice::NoProject { namespace: namespace.name.clone() }),
        Ok(_) => None,
        Err(notice) => Some(notice),
    };
    (Placed { project: found, system, isolated }, notice)
}

/// Which namespaces are in which project.
#[derive(Clone, Debug, Default)]
struct Projects {
    /// Every member of a project, exempt ones included.
    members: BTreeMap<Arc<str>, Names>,
    /// The members that are to be isolated.
    isolated: BTreeMap<Arc<str>, Names>,
    system: Names,
}

impl Projects {
    fn insert(&mut self, namespace: Arc<str>, placed: &Placed) {
        if placed.system {
            self.system.insert(namespace.clone());
        }
        let Some(project) = &placed.project else { return };
        if placed.isolated {
            self.isolated.entry(project.clone()).or_default().insert(namespace.clone());
        }
        self.members.entry(project.clone()).or_default().insert(namespace);
    }

    fn remove(&mut self, namespace: &str, placed: &Placed) {
        self.system.remove(namespace);
        let Some(project) = &placed.project else { return };
        for names in [&mut self.members, &mut self.isolated] {
            if let Some(own) = names.get_mut(project) {
                own.remove(namespace);
                if own.is_empty() {
                    names.remove(project);
                }
            }
        }
    }
}

/// The project of a namespace: its label, unless the annotation of the same name says another. Rancher writes the
/// annotation as `<cluster>:<project>`.
fn project_of(
    isolation: &ProjectIsolation,
    namespace: &Namespace,
) -> Result<Option<Arc<str>>, ProjectNotice> {
    let key = &isolation.project_key;
    let label: Option<Arc<str>> = namespace.labels.get(key).map(Arc::from);
    let Some(annotation) = namespace.annotations.get(key) else {
        return Ok(label.filter(|value| !value.is_empty()));
    };
    let said = annotation.rsplit_once(':').map_or(annotation, |(_, project)| project);
    match &label {
        Some(value) if **value == *said && !said.is_empty() => Ok(label),
        None if said.is_empty() => Ok(None),
        _ => Err(ProjectNotice::Disagreement {
            namespace: namespace.name.clone(),
            label,
            annotation: annotation.into(),
        }),
    }
}

/// What the policies of one isolation have in common.
struct Author<'a> {
    isolation: &'a ProjectIsolation,
    /// The addresses of nodes that are admitted.
    nodes: Vec<Cidr>,
    taken: &'a dyn Fn(&ObjectKey) -> bool,
}

impl Author<'_> {
    fn key(&self, kind: Kind, namespace: &str, name: &str) -> ObjectKey {
        let key = ObjectKey::new(kind, namespace, name);
        match (self.taken)(&key) {
            true => ObjectKey::new(kind, namespace, format!("{name}:{THE_ISOLATION}")),
            false => key,
        }
    }

    /// Mode Default, for one namespace.
    fn kubernetes(&self, namespace: &str, admitted: &Names) -> Policy {
        let key = self.key(Kind::KubernetesNetworkPolicy, namespace, POLICY_NAME);
        let mut peers = vec![KubernetesPeer::Selectors { pods: None, namespaces: Some(named(admitted)) }];
        let host = |cidr: &Cidr| KubernetesPeer::IpBlock { cidr: *cidr, except: Vec::new() };
        peers.extend(self.nodes.iter().map(host));
        let admit = RuleBody::Kubernetes { peers: Some(peers), ports: None };
        let dns = RuleBody::Kubernetes {
            peers: Some(vec![KubernetesPeer::Selectors {
                pods: Some(dns_pods()),
                namespaces: Some(dns_namespace()),
            }]),
            ports: Some(dns_ports().into()),
        };
        Policy {
            tier: "default".into(),
            order: Order::KUBERNETES,
            subject: Subject::Kubernetes(LabelSelector::all()),
            ingress: Some(self.rules(&key, Direction::Ingress, [(Action::Allow, admit.clone())])),
            egress: self
                .isolation
                .egress
                .then(|| self.rules(&key, Direction::Egress, [(Action::Allow, admit), (Action::Allow, dns)])),
            host: HostUse::Normal,
            staged: None,
            position: self.isolation.position.clone(),
            key,
        }
    }

    /// Mode Enforced, for the isolated namespaces of one project.
    fn cluster(&self, project: &str, members: &Names, admitted: &Names) -> Policy {
        let name = format!("{POLICY_NAME}.{project}");
        let key = self.key(Kind::KubernetesClusterNetworkPolicy, "", &name);
        let to = |peers, protocols| RuleBody::Cluster { peers, protocols };
        let pods = |namespaces, pods| vec![ClusterPeer::Pods { namespaces, pods }];
        let mut own = vec![(Action::Pass, to(pods(named(admitted), None), None))];
        if !self.nodes.is_empty() {
            own.push((Action::Pass, to(vec![ClusterPeer::Networks(self.nodes.clone())], None)));
        }
        let others = (Action::Deny, to(pods(LabelSelector::all(), None), None));
        let dns_protocols = dns_ports().map(ClusterProtocol::Port).into();
        let dns = (Action::Pass, to(pods(dns_namespace(), Some(dns_pods())), Some(dns_protocols)));
        let ingress = own.iter().cloned().chain([others.clone()]);
        let egress = own.iter().cloned().chain([dns, others]);
        Policy {
            tier: "kube-admin".into(),
            order: Order::new(Some(PRIORITY)),
            subject: Subject::Cluster { namespaces: named(members), pods: None },
            ingress: Some(self.rules(&key, Direction::Ingress, ingress)),
            egress: self.isolation.egress.then(|| self.rules(&key, Direction::Egress, egress)),
            host: HostUse::Normal,
            staged: None,
            position: self.isolation.position.clone(),
            key,
        }
    }

    fn rules(
        &self,
        key: &ObjectKey,
        direction: Direction,
        bodies: impl IntoIterator<Item = (Action, RuleBody)>,
    ) -> Vec<Rule> {
        let rule = |(n, (action, body))| Rule {
            action,
            body,
            reference: RuleRef {
                object: key.clone(),
                path: format!("spec.{direction}[{n}]").into(),
                position: self.isolation.position.clone(),
            },
        };
        bodies.into_iter().enumerate().map(rule).collect()
    }
}

fn named(namespaces: &Names) -> LabelSelector {
    LabelSelector {
        match_labels: BTreeMap::new(),
        match_expressions: vec![Requirement {
            key: NAMESPACE_NAME.into(),
            operator: Operator::In,
            values: namespaces.iter().cloned().collect(),
        }],
    }
}

fn dns_namespace() -> LabelSelector {
    LabelSelector::of([(NAMESPACE_NAME, "kube-system")])
}

fn dns_pods() -> LabelSelector {
    LabelSelector::of([("k8s-app", "kube-dns")])
}

fn dns_ports() -> [KubernetesPort; 2] {
    let port = PortMatch::Range(PortRange::single(53));
    [Protocol::UDP, Protocol::TCP].map(|protocol| KubernetesPort { protocol, port: port.clone() })
}
