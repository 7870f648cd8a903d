//! The kinds of pods that selectors can tell apart.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use sluice_model::{
    ClusterPeer, ClusterProtocol, EntityRule, Kind, KubernetesPeer, Namespace, NamespaceScope, Object,
    ObjectDelta, Pod, PodKey, Policy, PortMatch, Rule, RuleBody, Subject, World,
};
use sluice_selector::{LabelSelector, Labels, Selector};

use super::addresses::Ground;
use super::domain::{Domain, Language, NAME_LABELS, combinations, fresh};
use sluice_report::{Claim, ClaimEnd, Expect};

/// Kinds that are judged at most.
const KINDS: usize = 400;

/// Combinations of labels that are looked at at most.
const COMBINATIONS: usize = 50_000;

/// Pods that all selectors answer alike.
pub(crate) struct PodKind {
    pub(crate) namespace: Arc<str>,
    /// The labels of a namespace that does not exist yet.
    pub(crate) new_namespace: Option<Labels>,
    pub(crate) labels: Labels,
    pub(crate) account: Arc<str>,
}

/// A namespace by name, with its labels if it does not exist yet.
type NamespaceKind = (Arc<str>, Option<Labels>);

/// All kinds, and what else could tell pods apart and is not enumerated.
pub(crate) struct Found {
    pub(crate) kinds: Vec<PodKind>,
    pub(crate) gaps: Vec<String>,
}

/// The kinds of pods that the claim is about; `named_by_address` if its CIDRs hold addresses that pods get. An error names what makes them too many.
pub(super) fn kinds(
    ground: &Ground,
    world: &World,
    claim: &Claim,
    named_by_address: bool,
) -> Result<Found, String> {
    let mut questions = Questions::of(world, claim);
    // what labels are read from
    let mut scratch = World {
        namespaces: world.namespaces.clone(),
        service_accounts: world.service_accounts.clone(),
        ..World::default()
    };
    let mut kinds = Vec::new();
    let mut looked_at = 0;
    for (name, new_namespace) in questions.namespaces(ground)? {
        if let Some(labels) = &new_namespace {
            let namespace =
                Namespace { name: name.clone(), labels: labels.clone(), annotations: Labels::default() };
            scratch.apply(ObjectDelta::Upsert(Object::Namespace(namespace)));
        }
        let of_namespace = scratch.namespace_labels(&name);
        let every = claim.expect == Expect::ReachOnly || named_by_address;
        let ends = || claim.from.iter().chain(&claim.to);
        if !every && !ends().any(|peer| may_name(peer, &of_namespace)) {
            continue;
        }
        let relevant: Vec<&Question> =
            questions.asked.iter().filter(|q| q.scope.holds(&name, &of_namespace)).collect();
        let mut domain = Domain::default();
        relevant.iter().for_each(|q| domain.add(&q.selector, q.language));
        let accounts = questions.accounts(world, &name);
        let mut seen: BTreeMap<Vec<bool>, PodKind> = BTreeMap::new();
        for account in &accounts {
            for labels in domain.combinations() {
                looked_at += 1;
                if looked_at > COMBINATIONS {
                    return Err(too_many(&domain));
                }
                let pod = pod(&name, labels, account);
                if !every && !ends().any(|peer| names(peer, &of_namespace, &pod)) {
                    continue;
                }
                let calico = scratch.calico_labels(&pod);
                let answers =
                    relevant.iter().map(|q| q.selector.matches(q.language.labels(&pod.labels, &calico)));
                let kind = PodKind {
                    namespace: name.clone(),
                    new_namespace: new_namespace.clone(),
                    labels: pod.labels.clone(),
                    account: account.clone(),
                };
                // the plainest pod stands for its kind
                let entry = seen.entry(answers.collect());
                let entry = entry.and_modify(|known| {
                    if kind.labels.len() < known.labels.len() {
                        known.labels = kind.labels.clone();
                        known.account = kind.account.clone();
                    }
                });
                entry.or_insert(kind);
            }
        }
        kinds.extend(seen.into_values());
        if kinds.len() > KINDS {
            return Err(too_many(&domain));
        }
    }
    Ok(Found { kinds, gaps: questions.gaps.into_iter().collect() })
}

fn too_many(domain: &Domain) -> String {
    let keys: Vec<&str> = domain.pod.keys().map(|key| &**key).collect();
    format!(
        "selectors tell more than {KINDS} kinds of pods apart (labels {}): too many to judge each",
        keys.join(", ")
    )
}

fn pod(namespace: &Arc<str>, labels: Labels, account: &Arc<str>) -> Pod {
    Pod {
        key: PodKey::new(namespace.clone(), ""),
        uid: "".into(),
        labels,
        service_account: account.clone(),
        node: None,
        host_network: false,
        addresses: Vec::new(),
        named_ports: Vec::new(),
        finished: false,
        deleting: false,
        workload: None,
    }
}

fn may_name(peer: &ClaimEnd, namespace: &Labels) -> bool {
    match peer {
        ClaimEnd::Pods { namespaces, .. } => namespaces.matches(namespace),
        ClaimEnd::Cidr { .. } | ClaimEnd::Outside | ClaimEnd::Nodes(_) | ClaimEnd::Service { .. } => false,
    }
}

fn names(peer: &ClaimEnd, namespace: &Labels, pod: &Pod) -> bool {
    may_name(peer, namespace) && matches!(peer, ClaimEnd::Pods { pods, .. } if pods.matches(&pod.labels))
}

/// The namespaces in which a selector is asked.
enum Scope {
    Any,
    Named(Arc<str>),
    Matching(LabelSelector),
}

impl Scope {
    fn holds(&self, name: &str, labels: &Labels) -> bool {
        match self {
            Scope::Any => true,
            Scope::Named(own) => **own == *name,
            Scope::Matching(selector) => selector.matches(labels),
        }
    }
}

/// One selector about pods.
struct Question {
    scope: Scope,
    language: Language,
    selector: Selector,
}

/// Everything that policies and the claim ask about pods.
#[derive(Default)]
struct Questions {
    asked: Vec<Question>,
    /// What all of them together can tell apart.
    domain: Domain,
    gaps: BTreeSet<String>,
}

impl Questions {
    fn of(world: &World, claim: &Claim) -> Self {
        let mut questions = Questions::default();
        for policy in world.policies.values().filter(|policy| is_enforced(policy)) {
            questions.ask_subject(policy);
            for rule in [&policy.ingress, &policy.egress].into_iter().flatten().flatten() {
                questions.ask_rule(policy, rule);
            }
        }
        for peer in claim.from.iter().chain(&claim.to) {
            if let ClaimEnd::Pods { namespaces, pods } = peer {
                questions.ask_pods(Scope::Matching(namespaces.clone()), Some(pods));
            }
        }
        for port in &claim.ports {
            if let PortMatch::Named(name) = &port.port {
                questions.gaps.insert(format!(
                    "the numbers that pods which do not exist yet give to port name {name:?} of the claim"
                ));
            }
        }
        // what a selector compares in part has endlessly many answers
        let Questions { asked, domain, .. } = &mut questions;
        asked.iter().for_each(|q| domain.add(&q.selector, q.language));
        for key in &questions.domain.compared_in_part {
            questions
                .gaps
                .insert(format!("a selector compares parts of label {key}, which has endlessly many values"));
        }
        for key in &questions.domain.account_labels {
            questions.gaps.insert(format!("label {key} of service accounts that do not exist yet"));
        }
        questions
    }

    fn ask_pods(&mut self, scope: Scope, pods: Option<&LabelSelector>) {
        let selector = pods.map_or(Selector::All, Selector::from);
        self.asked.push(Question { scope, language: Language::Kubernetes, selector });
    }

    fn ask_calico(&mut self, scope: Scope, selector: Selector) {
        self.asked.push(Question { scope, language: Language::Calico, selector });
    }

    fn ask_subject(&mut self, policy: &Policy) {
        let own = || match policy.key.namespace.is_empty() {
            true => Scope::Any,
            false => Scope::Named(policy.key.namespace.clone()),
        };
        match &policy.subject {
            Subject::Kubernetes(selector) => self.ask_pods(own(), Some(selector)),
            Subject::Cluster { namespaces, pods } => {
                self.ask_pods(Scope::Matching(namespaces.clone()), pods.as_ref());
            }
            Subject::Calico { selector, namespace_selector, service_account_selector } => {
                self.ask_calico(own(), selector.clone());
                if let Some(selector) = namespace_selector {
                    self.ask_calico(own(), selector.with_key_prefix("pcns."));
                }
                if let Some(selector) = service_account_selector {
                    self.ask_calico(own(), selector.with_key_prefix("pcsa."));
                }
            }
        }
    }

    fn ask_rule(&mut self, policy: &Policy, rule: &Rule) {
        match &rule.body {
            RuleBody::Kubernetes { peers, ports } => {
                for peer in peers.iter().flatten() {
                    if let KubernetesPeer::Selectors { pods, namespaces } = peer {
                        let own = || Scope::Named(policy.key.namespace.clone());
                        self.ask_pods(namespaces.clone().map_or_else(own, Scope::Matching), pods.as_ref());
                    }
                }
                let named = ports.iter().flatten().map(|port| &port.port);
                named.for_each(|port| self.note_named(policy, port));
            }
            RuleBody::Calico(rule) => {
                self.ask_side(policy, &rule.source);
                self.ask_side(policy, &rule.destination);
            }
            RuleBody::Cluster { peers, protocols } => {
                for peer in peers {
                    if let ClusterPeer::Pods { namespaces, pods } = peer {
                        self.ask_pods(Scope::Matching(namespaces.clone()), pods.as_ref());
                    }
                }
                for entry in protocols.iter().flatten() {
                    if let ClusterProtocol::Named(name) = entry {
                        self.note_named(policy, &PortMatch::Named(name.clone()));
                    }
                }
            }
            RuleBody::Unreadable => {}
        }
    }

    fn ask_side(&mut self, policy: &Policy, side: &EntityRule) {
        for selector in [&side.selector, &side.not_selector].into_iter().flatten() {
            self.ask_calico(Scope::Any, selector.clone());
        }
        if let Some(NamespaceScope::Matching(selector)) = &side.namespace_selector {
            self.ask_calico(Scope::Any, selector.with_key_prefix("pcns."));
        }
        if let Some(accounts) = &side.service_accounts {
            if !accounts.names.is_empty() {
                let names = accounts.names.iter().cloned().collect();
                self.ask_calico(Scope::Any, Selector::In("projectcalico.org/serviceaccount".into(), names));
            }
            if let Some(selector) = &accounts.selector {
                self.ask_calico(Scope::Any, selector.with_key_prefix("pcsa."));
            }
        }
        if let Some((namespace, name)) = &side.service {
            self.gaps.insert(format!(
                "which pods will be behind Service {namespace}/{name}, which {} names",
                policy.key
            ));
        }
        side.ports.iter().chain(&side.not_ports).for_each(|port| self.note_named(policy, port));
    }

    /// A pod may give any numbers to a name.
    fn note_named(&mut self, policy: &Policy, port: &PortMatch) {
        if let PortMatch::Named(name) = port {
            let gap = format!(
                "the numbers that pods which do not exist yet give to port name {name:?} of {}",
                policy.key
            );
            self.gaps.insert(gap);
        }
    }

    /// The namespaces that exist, and those that could and are told apart by selectors, with their labels.
    fn namespaces(&mut self, ground: &Ground) -> Result<Vec<NamespaceKind>, String> {
        let existing = &ground.namespaces;
        let mut domain = std::mem::take(&mut self.domain);
        let mut selectors = Vec::new();
        for question in &self.asked {
            if let Scope::Matching(selector) = &question.scope {
                selectors.push(selector);
                domain.add_namespaces(selector);
            }
        }
        let named: BTreeSet<Arc<str>> = domain.namespace_names.difference(existing).cloned().collect();
        let taken: BTreeSet<Arc<str>> = existing.union(&named).cloned().collect();
        let mut names: Vec<Arc<str>> = named.iter().cloned().collect();
        names.push(fresh("a-future-namespace", &taken));
        let mut gaps = BTreeSet::new();
        let mut all: Vec<NamespaceKind> = existing.iter().map(|name| (name.clone(), None)).collect();
        let mut looked_at = 0;
        for name in names {
            let mut seen = BTreeSet::new();
            for labels in combinations(&domain.namespace) {
                looked_at += 1;
                if looked_at > COMBINATIONS || all.len() > KINDS {
                    return Err(format!(
                        "selectors tell more than {KINDS} kinds of namespaces apart: too many to judge each"
                    ));
                }
                let labels = labels.with(NAME_LABELS[0], name.clone());
                let answers: Vec<bool> = selectors.iter().map(|s| s.matches(&labels)).collect();
                let read_by_calico: Vec<Option<String>> =
                    domain.namespace_of_calico.iter().map(|key| labels.get(key).map(str::to_owned)).collect();
                if !seen.insert((answers, read_by_calico)) {
                    continue;
                }
                match (seen.len(), named.contains(&name)) {
                    (1, _) => all.push((name.clone(), Some(labels))),
                    // several namespaces to come must not share a name
                    (number, false) => {
                        let name = fresh(&format!("{name}-{number}"), &taken);
                        let labels = labels.with(NAME_LABELS[0], name.clone());
                        all.push((name, Some(labels)));
                    }
                    (_, true) => {
                        gaps.insert(format!("the labels of namespace {name}, which does not exist"));
                    }
                }
            }
        }
        self.gaps.extend(gaps);
        self.domain = domain;
        Ok(all)
    }

    /// The service accounts that pods of a namespace may have and that selectors tell apart.
    fn accounts(&self, world: &World, namespace: &Arc<str>) -> Vec<Arc<str>> {
        let domain = &self.domain;
        let mut accounts: Vec<Arc<str>> = vec!["default".into()];
        if !domain.accounts.is_empty() || !domain.account_labels.is_empty() {
            let existing =
                world.service_accounts.keys().filter(|(ns, _)| ns == namespace).map(|(_, name)| name);
            let known: BTreeSet<Arc<str>> = existing.chain(&domain.accounts).cloned().collect();
            accounts.push(fresh("any-other", &known));
            accounts.extend(known.into_iter().filter(|name| **name != *"default"));
        }
        accounts
    }
}

/// Staged policies judge nothing (semantics 3.8).
fn is_enforced(policy: &Policy) -> bool {
    !matches!(
        policy.key.kind,
        Kind::StagedGlobalNetworkPolicy | Kind::StagedNetworkPolicy | Kind::StagedKubernetesNetworkPolicy
    )
}
