//! A second opinion on the engine, by set algebra: in a small universe every rule is the set of the flows that it matches, a
//! tier is a few unions and differences, and nothing is a class. It shares no code with the engine or with `decide`.
#![allow(clippy::unwrap_used)]

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use rand::SeedableRng;
use rand::rngs::StdRng;
use sluice_addr::{Cidr, Family, Flow, Protocol, Transport};
use sluice_engine::{Engine, Scope};
use sluice_model::*;
use sluice_plan::{Simulator, Verdict};
use sluice_selector::{Labels, Selector};
use sluice_testkit::{Ingredients, Seeds, Situation, deltas_of, hold, random_world_of, replay};

const WORLDS: u64 = 60;

/// A set of flows: one bit per source × destination × transport.
#[derive(Clone, PartialEq)]
struct Flows(Vec<bool>);

impl Flows {
    fn and(&self, other: &Flows) -> Flows {
        Flows(self.0.iter().zip(&other.0).map(|(a, b)| *a && *b).collect())
    }
    fn or(&self, other: &Flows) -> Flows {
        Flows(self.0.iter().zip(&other.0).map(|(a, b)| *a || *b).collect())
    }
    fn minus(&self, other: &Flows) -> Flows {
        Flows(self.0.iter().zip(&other.0).map(|(a, b)| *a && !*b).collect())
    }
}

/// Every flow that is looked at, of one family.
struct Universe<'w> {
    world: &'w World,
    /// The policies in force, those that a ProjectIsolation stands for among them.
    enforced: Vec<Arc<Policy>>,
    family: Family,
    addresses: Vec<IpAddr>,
    transports: Vec<Transport>,
}

/// Somebody whom selectors can mean.
#[derive(Clone, Copy)]
enum Who<'w> {
    Pod(&'w Pod),
    Set(&'w NetworkSet),
    Host(&'w HostEndpoint),
}

impl<'w> Universe<'w> {
    fn new(world: &'w World, family: Family) -> Self {
        let mut addresses: BTreeSet<IpAddr> = BTreeSet::new();
        addresses.extend(world.pods.values().flat_map(|pod| &pod.addresses));
        addresses.extend(world.nodes.values().flat_map(|node| &node.addresses));
        addresses.extend(world.host_endpoints.values().flat_map(|host| &host.expected_addresses));
        addresses.extend(world.names.values().flat_map(|name| &name.addresses));
        let far = [
            "203.0.113.0",
            "203.0.113.5",
            "8.8.8.8",
            "224.0.0.1",
            "2001:db8::",
            "2001:db8::6",
            "fd99::1",
            "ff02::1",
        ];
        addresses.extend(far.map(|text| text.parse::<IpAddr>().unwrap()));
        let addresses = addresses.into_iter().filter(|address| Family::of(*address) == family).collect();
        let mut transports =
            vec![Transport::Other(Protocol(47)), Transport::Other(Protocol::icmp_of(other(family)))];
        for protocol in [Protocol::TCP, Protocol::UDP, Protocol::SCTP, Protocol::UDPLITE] {
            for destination in [53, 80, 81, 443, 8080, 9] {
                for source in [80, 40_000] {
                    transports.push(Transport::Ports { protocol, source, destination });
                }
            }
        }
        let echo = if family == Family::V4 { [8, 0] } else { [128, 129] };
        for type_ in echo {
            transports.extend([0, 3].map(|code| Transport::Icmp { type_, code }));
        }
        Universe { world, enforced: world.enforced(), family, addresses, transports }
    }

    fn flow(&self, source: usize, destination: usize, transport: usize) -> Flow {
        Flow {
            source: self.addresses[source],
            destination: self.addresses[destination],
            transport: self.transports[transport],
        }
    }

    fn protocol(&self, transport: &Transport) -> Protocol {
        match transport {
            Transport::Ports { protocol, .. } => *protocol,
            Transport::Icmp { .. } => Protocol::icmp_of(self.family),
            Transport::Other(protocol) => *protocol,
        }
    }

    fn all(&self, holds: impl Fn(usize, usize, usize) -> bool) -> Flows {
        let (n, m) = (self.addresses.len(), self.transports.len());
        let mut bits = Vec::with_capacity(n * n * m);
        for source in 0..n {
            for destination in 0..n {
                bits.extend((0..m).map(|transport| holds(source, destination, transport)));
            }
        }
        Flows(bits)
    }

    fn owners(&self, address: IpAddr) -> Vec<&'w Pod> {
        let alive = |pod: &&Pod| !pod.finished && !pod.host_network && pod.addresses.contains(&address);
        let owners: Vec<&Pod> = self.world.pods.values().filter(alive).collect();
        let lasting: Vec<&Pod> = owners.iter().copied().filter(|pod| !pod.deleting).collect();
        if lasting.is_empty() { owners } else { lasting }
    }

    /// What `asks` says of `E(a)`; of a contested address as 1.9 has it.
    fn judged(&self, address: IpAddr, action: Action, asks: impl Fn(&[Who<'w>]) -> bool) -> bool {
        let mut others: Vec<Who> = Vec::new();
        let holds = |set: &&NetworkSet| set.nets.iter().any(|net| net.contains(address));
        others.extend(self.world.sets.values().filter(holds).map(Who::Set));
        let expects = |host: &&HostEndpoint| host.expected_addresses.contains(&address);
        others.extend(self.world.host_endpoints.values().filter(expects).map(Who::Host));
        let with = |pod: Option<&'w Pod>| {
            let everybody: Vec<Who> = pod.map(Who::Pod).into_iter().chain(others.iter().copied()).collect();
            asks(&everybody)
        };
        match (self.owners(address).as_slice(), action) {
            ([], _) => with(None),
            ([pod], _) => with(Some(pod)),
            (claimants, Action::Deny) => claimants.iter().any(|pod| with(Some(pod))),
            _ => false,
        }
    }

    fn calico_labels(&self, who: Who<'w>) -> Labels {
        match who {
            Who::Pod(pod) => self.world.calico_labels(pod),
            Who::Set(set) => self.world.calico_set_labels(set),
            Who::Host(host) => {
                let forged = |key: &str| key.starts_with("pcns.") || key.starts_with("pcsa.");
                let identity =
                    ["namespace", "orchestrator", "serviceaccount"].map(|k| format!("projectcalico.org/{k}"));
                let own = host.labels.iter().filter(|(k, _)| !forged(k) && !identity.iter().any(|i| i == k));
                own.collect()
            }
        }
    }

    fn namespace_of(&self, who: Who<'w>) -> &'w str {
        match who {
            Who::Pod(pod) => &pod.key.namespace,
            Who::Set(set) => &set.namespace,
            Who::Host(_) => "",
        }
    }

    /// The flows that a rule matches.
    fn rule(&self, policy: &Policy, rule: &Rule, direction: Direction) -> Flows {
        let at = |table: Vec<bool>| move |index: usize| table[index];
        let each =
            |holds: &dyn Fn(IpAddr) -> bool| self.addresses.iter().map(|a| holds(*a)).collect::<Vec<bool>>();
        match &rule.body {
            RuleBody::Unreadable => {
                let everything = matches!(rule.action, Action::Deny | Action::Pass);
                self.all(|_, _, _| everything)
            }
            RuleBody::Kubernetes { peers, ports } => {
                let peer = at(each(&|address| {
                    peers.as_ref().is_none_or(|peers| {
                        peers.iter().any(|p| self.kubernetes_peer(policy, rule.action, p, address))
                    })
                }));
                self.all(|s, d, t| {
                    let other = if direction == Direction::Ingress { s } else { d };
                    peer(other)
                        && ports
                            .as_ref()
                            .is_none_or(|ports| ports.iter().any(|p| self.port(rule.action, p, d, t)))
                })
            }
            RuleBody::Cluster { peers, protocols } => {
                let peer =
                    at(each(&|address| peers.iter().any(|p| self.cluster_peer(rule.action, p, address))));
                self.all(|s, d, t| {
                    let other = if direction == Direction::Ingress { s } else { d };
                    peer(other)
                        && protocols.as_ref().is_none_or(|list| {
                            list.iter().any(|entry| match entry {
                                ClusterProtocol::Port(port) => self.port(rule.action, port, d, t),
                                ClusterProtocol::Named(name) => {
                                    [Protocol::TCP, Protocol::UDP, Protocol::SCTP].into_iter().any(
                                        |protocol| {
                                            let port = PortMatch::Named(name.clone());
                                            self.port(rule.action, &KubernetesPort { protocol, port }, d, t)
                                        },
                                    )
                                }
                            })
                        })
                })
            }
            RuleBody::Calico(body) => {
                let source =
                    at(each(&|address| self.calico_side(policy, rule.action, &body.source, address)));
                let destination =
                    at(each(&|address| self.calico_side(policy, rule.action, &body.destination, address)));
                let transports: Vec<bool> =
                    self.transports.iter().map(|t| self.calico_transport(body, t)).collect();
                self.all(|s, d, t| {
                    transports[t]
                        && source(s)
                        && destination(d)
                        && self.calico_ports(policy, rule.action, &body.source, s, t, true)
                        && self.calico_ports(policy, rule.action, &body.destination, d, t, false)
                })
            }
        }
    }

    fn kubernetes_peer(
        &self,
        policy: &Policy,
        action: Action,
        peer: &KubernetesPeer,
        address: IpAddr,
    ) -> bool {
        match peer {
            KubernetesPeer::IpBlock { cidr, except } => {
                cidr.contains(address) && except.iter().all(|hole| !hole.contains(address))
            }
            KubernetesPeer::Selectors { pods, namespaces } => self.judged(address, action, |everybody| {
                everybody.iter().any(|who| match who {
                    Who::Pod(pod) => {
                        let home = match namespaces {
                            None => pod.key.namespace == policy.key.namespace,
                            Some(wanted) => wanted.matches(&self.world.namespace_labels(&pod.key.namespace)),
                        };
                        home && pods.as_ref().is_none_or(|wanted| wanted.matches(&pod.labels))
                    }
                    Who::Set(_) | Who::Host(_) => false,
                })
            }),
        }
    }

    fn cluster_peer(&self, action: Action, peer: &ClusterPeer, address: IpAddr) -> bool {
        match peer {
            ClusterPeer::Pods { namespaces, pods } => self.judged(address, action, |everybody| {
                everybody.iter().any(|who| match who {
                    Who::Pod(pod) => {
                        namespaces.matches(&self.world.namespace_labels(&pod.key.namespace))
                            && pods.as_ref().is_none_or(|wanted| wanted.matches(&pod.labels))
                    }
                    Who::Set(_) | Who::Host(_) => false,
                })
            }),
            ClusterPeer::Networks(cidrs) => cidrs.iter().any(|cidr: &Cidr| cidr.contains(address)),
            ClusterPeer::Nodes(wanted) => self
                .world
                .nodes
                .values()
                .filter(|node| wanted.matches(&node.labels))
                .any(|node| node.status_addresses().any(|own| own == address)),
            ClusterPeer::DomainNames(patterns) => self
                .world
                .names
                .values()
                .filter(|resolved| patterns.iter().any(|pattern| pattern.matches(&resolved.name)))
                .any(|resolved| resolved.addresses.contains(&address)),
        }
    }

    fn port(&self, action: Action, wanted: &KubernetesPort, destination: usize, transport: usize) -> bool {
        let transport = &self.transports[transport];
        if self.protocol(transport) != wanted.protocol {
            return false;
        }
        match (&wanted.port, transport) {
            (PortMatch::Any, _) => true,
            (PortMatch::Range(range), Transport::Ports { destination, .. }) => range.contains(*destination),
            (PortMatch::Named(name), Transport::Ports { destination: port, protocol, .. }) => {
                // names of pods: those of host endpoints are for Calico's rules (semantics 2.1, 4)
                self.judged(self.addresses[destination], action, |everybody| {
                    let mut pods = everybody.iter().filter(|who| matches!(who, Who::Pod(_)));
                    pods.any(|who| names(*who, name, *protocol, *port))
                })
            }
            (PortMatch::Range(_) | PortMatch::Named(_), Transport::Icmp { .. } | Transport::Other(_)) => {
                false
            }
        }
    }

    fn calico_transport(&self, rule: &CalicoRule, transport: &Transport) -> bool {
        let protocol = self.protocol(transport);
        let lists =
            [&rule.source, &rule.destination].into_iter().flat_map(|side| [&side.nets, &side.not_nets]);
        let families =
            lists.into_iter().all(|l| l.is_empty() || l.iter().any(|net| net.family() == self.family));
        let implied = match rule.protocol {
            Some(Protocol::ICMP) => self.family == Family::V4,
            Some(Protocol::ICMPV6) => self.family == Family::V6,
            _ => true,
        };
        let fits = |m: &IcmpMatch| match transport {
            Transport::Icmp { type_, code } => {
                m.type_ == *type_ && m.code.is_none_or(|wanted| wanted == *code)
            }
            _ => false,
        };
        let icmp = matches!(transport, Transport::Icmp { .. });
        families
            && implied
            && rule.ip_version.is_none_or(|version| version == self.family)
            && rule.protocol.is_none_or(|wanted| wanted == protocol)
            && rule.not_protocol != Some(protocol)
            && rule.icmp.as_ref().is_none_or(fits)
            && rule.not_icmp.as_ref().is_none_or(|unwanted| icmp && !fits(unwanted))
    }

    /// `e` satisfies the positive criteria of a side.
    fn meant(&self, policy: &Policy, side: &EntityRule, who: Who<'w>) -> bool {
        let labels = self.calico_labels(who);
        let own = &*policy.key.namespace;
        let some = side.selector.is_some() || side.not_selector.is_some() || side.service_accounts.is_some();
        let scope = match &side.namespace_selector {
            Some(NamespaceScope::Global) => self.namespace_of(who).is_empty(),
            Some(NamespaceScope::Matching(wanted)) => {
                !self.namespace_of(who).is_empty() && wanted.with_key_prefix("pcns.").matches(&labels)
            }
            None => own.is_empty() || !some || self.namespace_of(who) == own,
        };
        let account = side.service_accounts.as_ref().is_none_or(|wanted| match who {
            Who::Pod(pod) => {
                (wanted.names.is_empty() || wanted.names.contains(&pod.service_account))
                    && wanted.selector.as_ref().is_none_or(|s| s.with_key_prefix("pcsa.").matches(&labels))
            }
            Who::Set(_) | Who::Host(_) => false,
        });
        let holds = |s: &Option<Selector>, absent: bool| s.as_ref().map_or(absent, |s| s.matches(&labels));
        scope && account && holds(&side.selector, true) && !holds(&side.not_selector, false)
    }

    fn is_positive(&self, policy: &Policy, side: &EntityRule) -> bool {
        side.namespace_selector.is_some()
            || side.selector.is_some()
            || side.service_accounts.is_some()
            || (!policy.key.namespace.is_empty() && side.not_selector.is_some())
    }

    fn calico_side(&self, policy: &Policy, action: Action, side: &EntityRule, address: IpAddr) -> bool {
        let inside = |nets: &[Cidr]| nets.iter().any(|net| net.contains(address));
        let selected = if self.is_positive(policy, side) {
            self.judged(address, action, |everybody| {
                everybody.iter().any(|who| self.meant(policy, side, *who))
            })
        } else if let Some(unwanted) = &side.not_selector {
            self.judged(address, action, |everybody| {
                everybody.iter().all(|who| !unwanted.matches(&self.calico_labels(*who)))
            })
        } else {
            true
        };
        (side.nets.is_empty() || inside(&side.nets)) && !inside(&side.not_nets) && selected
    }

    fn calico_ports(
        &self,
        policy: &Policy,
        action: Action,
        side: &EntityRule,
        address: usize,
        transport: usize,
        of_source: bool,
    ) -> bool {
        let address = self.addresses[address];
        let transport = &self.transports[transport];
        let service = side.service.as_ref().is_none_or(|(namespace, name)| {
            let mut slices = self.world.slices.values();
            slices.any(|slice| {
                slice.namespace == *namespace
                    && slice.service == *name
                    && slice.endpoints.iter().any(|endpoint| endpoint.addresses.contains(&address))
                    && (of_source
                        || slice.ports.iter().any(|port| match transport {
                            Transport::Ports { protocol, destination, .. } => {
                                port.protocol == *protocol && port.port == Some(*destination)
                            }
                            _ => false,
                        }))
            })
        });
        if side.ports.is_empty() && side.not_ports.is_empty() {
            return service;
        }
        let Transport::Ports { protocol, source, destination } = transport else { return false };
        if *protocol == Protocol::UDPLITE {
            return false;
        }
        let port = if of_source { *source } else { *destination };
        let number = |list: &[PortMatch]| {
            list.iter().any(|entry| {
                matches!(entry, PortMatch::Range(range) if range.contains(port)) || *entry == PortMatch::Any
            })
        };
        let positive = self.is_positive(policy, side);
        let named = |everybody: &[Who<'w>], list: &[PortMatch]| {
            everybody.iter().any(|who| {
                let called = list
                    .iter()
                    .any(|entry| matches!(entry, PortMatch::Named(n) if names(*who, n, *protocol, port)));
                called && (!positive || self.meant(policy, side, *who))
            })
        };
        let has_names = |list: &[PortMatch]| list.iter().any(|entry| matches!(entry, PortMatch::Named(_)));
        let wanted = side.ports.is_empty()
            || number(&side.ports)
            || (has_names(&side.ports)
                && self.judged(address, action, |everybody| named(everybody, &side.ports)));
        let unwanted = number(&side.not_ports)
            || (has_names(&side.not_ports)
                && !self.judged(address, action, |everybody| !named(everybody, &side.not_ports)));
        service && wanted && !unwanted
    }

    fn selects(&self, policy: &Policy, pod: &'w Pod) -> bool {
        let home = policy.key.namespace.is_empty() || policy.key.namespace == pod.key.namespace;
        let labels = self.calico_labels(Who::Pod(pod));
        home && match &policy.subject {
            Subject::Kubernetes(wanted) => wanted.matches(&pod.labels),
            Subject::Cluster { namespaces, pods } => {
                namespaces.matches(&self.world.namespace_labels(&pod.key.namespace))
                    && pods.as_ref().is_none_or(|wanted| wanted.matches(&pod.labels))
            }
            Subject::Calico { selector, namespace_selector, service_account_selector } => {
                let plain = |s: &Option<Selector>, prefix| {
                    s.as_ref().is_none_or(|s| s.with_key_prefix(prefix).matches(&labels))
                };
                selector.matches(&labels)
                    && plain(namespace_selector, "pcns.")
                    && plain(service_account_selector, "pcsa.")
            }
        }
    }

    /// The flows that the pod's leg allows, among those with this own address.
    fn leg(
        &self,
        pod: &'w Pod,
        own: usize,
        direction: Direction,
        matched: &impl Fn(&Policy, usize) -> Flows,
    ) -> Flows {
        let mut open = self.all(|s, d, _| if direction == Direction::Ingress { d == own } else { s == own });
        let mut allowed = self.all(|_, _, _| false);
        for tier in self.world.tiers() {
            let mut policies: Vec<_> = self.enforced.iter().filter(|p| p.tier == tier.name).collect();
            policies.retain(|p| p.host.concerns_pods() && p.rules(direction).is_some());
            policies.retain(|p| self.selects(p, pod));
            if policies.is_empty() {
                continue;
            }
            policies.sort_by_cached_key(|p| {
                (p.order, format!("{}/{}/{}", p.key.name, p.key.namespace, p.key.kind.name()))
            });
            let mut here = open;
            let mut passed = self.all(|_, _, _| false);
            for policy in policies {
                for (index, rule) in policy.rules(direction).unwrap().iter().enumerate() {
                    let hit = here.and(&matched(policy, index));
                    match (rule.action, &rule.body) {
                        (Action::Log, _) => continue,
                        (Action::Allow, _) => allowed = allowed.or(&hit),
                        (Action::Pass, RuleBody::Unreadable) | (Action::Deny, _) => {}
                        (Action::Pass, _) => passed = passed.or(&hit),
                    }
                    here = here.minus(&hit);
                }
            }
            open = match tier.default_action {
                TierDefault::Deny => passed,
                TierDefault::Pass => passed.or(&here),
            };
        }
        allowed.or(&open)
    }
}

fn other(family: Family) -> Family {
    if family == Family::V4 { Family::V6 } else { Family::V4 }
}

fn names(who: Who, name: &str, protocol: Protocol, port: u16) -> bool {
    let ports = match who {
        Who::Pod(pod) => &pod.named_ports,
        Who::Host(host) => &host.named_ports,
        Who::Set(_) => return false,
    };
    ports.iter().any(|p| *p.name == *name && p.protocol == protocol && p.port == port)
}

/// Compares every flow of the universe; how many legs were compared.
fn compare(world: &World, family: Family) -> usize {
    let universe = Universe::new(world, family);
    let mut engine = Engine::new(Scope::Cluster);
    deltas_of(world).into_iter().for_each(|delta| engine.apply(delta));
    engine.flush();
    let simulator = Simulator::new(engine.plan());
    let (n, m) = (universe.addresses.len(), universe.transports.len());
    let mut compared = 0;
    for direction in Direction::BOTH {
        let rules = universe.enforced.iter().flat_map(|policy| {
            let rules = policy.rules(direction).unwrap_or_default().iter().enumerate();
            rules.map(|(index, rule)| ((policy.key.clone(), index), universe.rule(policy, rule, direction)))
        });
        let matched: std::collections::BTreeMap<(ObjectKey, usize), Flows> = rules.collect();
        let find = |policy: &Policy, index: usize| matched[&(policy.key.clone(), index)].clone();
        for own in 0..n {
            let owners = universe.owners(universe.addresses[own]);
            let legs = owners.iter().map(|pod| universe.leg(pod, own, direction, &find));
            let Some(allowed) = legs.reduce(|a, b| a.and(&b)) else { continue };
            for peer in 0..n {
                for transport in 0..m {
                    let (s, d) = if direction == Direction::Ingress { (peer, own) } else { (own, peer) };
                    let flow = universe.flow(s, d, transport);
                    let judgement = simulator.judge(&flow);
                    let outcome = match direction {
                        Direction::Ingress => &judgement.ingress,
                        Direction::Egress => &judgement.egress,
                    };
                    let Some(outcome) = outcome else {
                        // Decided without legs: inside one pod, or node → own pod (semantics 1.2).
                        let node = world.node_of(flow.source).map(|node| &node.name);
                        let home = |pod: &&Pod| pod.node.is_some() && pod.node.as_ref() == node;
                        let inside = own == peer;
                        let two = owners.len() == 1 && universe.owners(universe.addresses[peer]) == owners;
                        let hostnet =
                            world.pods.values().any(|p| p.host_network && p.addresses.contains(&flow.source));
                        let from_home =
                            direction == Direction::Ingress && (hostnet || owners.iter().all(home));
                        let icmp = matches!(flow.transport, Transport::Other(p) if p == Protocol(4));
                        assert!(inside || two || from_home || icmp, "{flow}: no leg");
                        continue;
                    };
                    compared += 1;
                    let bit = allowed.0[(s * n + d) * m + transport];
                    assert_eq!(outcome.verdict == Verdict::Allow, bit, "{direction} {flow}: {outcome}");
                }
            }
        }
    }
    compared
}

/// Compares every flow of both families; the connections that the case names are not looked at.
fn agree(case: &Situation) -> usize {
    let world = case.world();
    Family::BOTH.map(|family| compare(&world, family)).iter().sum()
}

#[test]
fn the_engine_agrees_with_set_algebra() {
    let seeds = Seeds::of_run(WORLDS);
    let mut compared = 0;
    for seed in &seeds {
        let world = random_world_of(&mut StdRng::seed_from_u64(seed), &Ingredients::ALL);
        compared += hold("agreement", seed, &Situation::new(&world, []), agree);
    }
    seeds.report(compared);
    assert!(compared > 1_000 * usize::try_from(WORLDS).unwrap() || !seeds.are_many());
}

#[test]
fn kept_cases_agree_with_set_algebra() {
    replay(env!("CARGO_MANIFEST_DIR"), "agreement", agree);
}
