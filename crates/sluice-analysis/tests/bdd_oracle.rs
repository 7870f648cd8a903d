//! An oracle that shares nothing with engine, plan and transport sets: policies compiled straight from the objects to binary
//! decision diagrams over all protocols, source and destination ports, ICMP types and codes, compared with the matrix cell by cell.
//!
//! Who is at an address is asked of the objects for each pair; which of the 2^40 packets pass is one diagram.

#![allow(clippy::unwrap_used)]

use std::net::IpAddr;

use biodivine_lib_bdd::{Bdd, BddVariable, BddVariableSet};
use rand::SeedableRng;
use rand::rngs::StdRng;
use sluice_addr::{Cidr, Family, PortRange, Protocol};
use sluice_analysis::{Matrix, Snapshot, TransportSet};
use sluice_model::{
    Action, CalicoRule, ClusterPeer, ClusterProtocol, Direction, EntityRule, KubernetesPeer, KubernetesPort,
    NamespaceScope, Pod, Policy, PortMatch, Rule, RuleBody, Subject, TierDefault, World,
};
use sluice_selector::Labels;
use sluice_testkit::{Ingredients, Seeds, Situation, hold, random_world_of, replay};

const WORLDS: u64 = 60;

/// Every other world has projects and a ProjectIsolation (semantics 8.2).
fn ingredients(seed: u64) -> Ingredients {
    Ingredients { projects: seed.is_multiple_of(2), ..Ingredients::default() }
}

/// 8 bits of protocol, 16 of source port, 16 of destination port; of ICMP the destination port is type and code.
struct Space {
    set: BddVariableSet,
    bits: Vec<BddVariable>,
}

const PROTOCOL: (usize, usize) = (0, 8);
const SOURCE: (usize, usize) = (8, 16);
const DESTINATION: (usize, usize) = (24, 16);

impl Space {
    fn new() -> Self {
        let set = BddVariableSet::new_anonymous(40);
        let bits = set.variables();
        Space { set, bits }
    }

    /// The field is at most `value`.
    fn at_most(&self, (first, width): (usize, usize), value: u16) -> Bdd {
        let mut result = self.set.mk_true();
        for bit in 0..width {
            // from the least significant bit up
            let variable = self.bits[first + width - 1 - bit];
            let (zero, one) = (self.set.mk_literal(variable, false), self.set.mk_literal(variable, true));
            result = if value >> bit & 1 == 1 { zero.or(&one.and(&result)) } else { zero.and(&result) };
        }
        result
    }

    fn between(&self, field: (usize, usize), low: u16, high: u16) -> Bdd {
        let up_to = self.at_most(field, high);
        if low == 0 { up_to } else { up_to.and_not(&self.at_most(field, low - 1)) }
    }

    fn protocol(&self, protocol: Protocol) -> Bdd {
        let number = u16::from(protocol.number());
        self.between(PROTOCOL, number, number)
    }

    fn with_ports(&self) -> Bdd {
        Protocol::WITH_PORTS.iter().fold(self.set.mk_false(), |all, p| all.or(&self.protocol(*p)))
    }

    fn port(&self, field: (usize, usize), range: PortRange) -> Bdd {
        self.between(field, range.first(), range.last())
    }

    /// A set of transports as the analysis describes it.
    fn of_set(&self, set: &TransportSet, family: Family) -> Bdd {
        let mut all = self.set.mk_false();
        let named = self.with_ports().or(&self.protocol(Protocol::icmp_of(family)));
        for row in set.describe() {
            let part = match &*row.protocol {
                "other" => self.set.mk_true().and_not(&named),
                name => {
                    // no manifest can write 0, but packets can have it
                    let protocol = if name == "0" { Protocol(0) } else { name.parse().unwrap() };
                    let mut part = self.protocol(protocol);
                    for (field, ranges) in [(DESTINATION, &row.ports), (SOURCE, &row.source_ports)] {
                        if !ranges.is_empty() {
                            let any = ranges.iter().map(|(low, high)| self.between(field, *low, *high));
                            part = part.and(&any.fold(self.set.mk_false(), |all, one| all.or(&one)));
                        }
                    }
                    if !row.icmp.is_empty() {
                        let any = row.icmp.iter().map(|word| self.icmp_word(word));
                        part = part.and(&any.fold(self.set.mk_false(), |all, one| all.or(&one)));
                    }
                    part
                }
            };
            all = all.or(&part);
        }
        all
    }

    fn icmp_word(&self, word: &str) -> Bdd {
        let span = |text: &str| -> (u16, u16) {
            let (low, high) = text.split_once('-').unwrap_or((text, text));
            (low.parse().unwrap(), high.parse().unwrap())
        };
        let parts = word.split_once('/');
        let (types, codes) = parts.map_or_else(|| (span(word), (0, 255)), |(t, c)| (span(t), span(c)));
        let each =
            (types.0..=types.1).map(|t| self.between(DESTINATION, t * 256 + codes.0, t * 256 + codes.1));
        each.fold(self.set.mk_false(), |all, one| all.or(&one))
    }
}

/// One end: the pod, and the sets that hold its address.
struct End<'w> {
    address: IpAddr,
    pod: &'w Pod,
}

struct Oracle<'w> {
    world: &'w World,
    space: &'w Space,
    family: Family,
    from: End<'w>,
    to: End<'w>,
}

impl Oracle<'_> {
    fn leg(&self, direction: Direction) -> Bdd {
        let own = match direction {
            Direction::Ingress => self.to.pod,
            Direction::Egress => self.from.pod,
        };
        let set = &self.space.set;
        let (mut allowed, mut open) = (set.mk_false(), set.mk_true());
        for (tier, policies) in self.world.enforced_by_tier() {
            let applies = |policy: &&std::sync::Arc<Policy>| {
                policy.host.concerns_pods() && policy.rules(direction).is_some() && self.selects(policy, own)
            };
            let policies: Vec<_> = policies.iter().filter(applies).collect();
            if policies.is_empty() {
                continue;
            }
            let (mut here, mut passed) = (open.clone(), set.mk_false());
            for (policy, rule) in
                policies.iter().flat_map(|p| p.rules(direction).unwrap().iter().map(move |r| (p, r)))
            {
                let hit = here.and(&self.matches(policy, rule, direction));
                match (rule.action, &rule.body) {
                    (Action::Log, _) => continue,
                    (Action::Allow, _) => allowed = allowed.or(&hit),
                    (Action::Pass, RuleBody::Unreadable) | (Action::Deny, _) => {}
                    (Action::Pass, _) => passed = passed.or(&hit),
                }
                here = here.and_not(&hit);
            }
            open = match tier.default_action {
                TierDefault::Deny => passed,
                TierDefault::Pass => passed.or(&here),
            };
        }
        allowed.or(&open)
    }

    fn selects(&self, policy: &Policy, pod: &Pod) -> bool {
        let own = policy.key.namespace.is_empty() || policy.key.namespace == pod.key.namespace;
        own && match &policy.subject {
            Subject::Kubernetes(selector) => selector.matches(&pod.labels),
            Subject::Cluster { namespaces, pods } => {
                namespaces.matches(&self.world.namespace_labels(&pod.key.namespace))
                    && pods.as_ref().is_none_or(|s| s.matches(&pod.labels))
            }
            Subject::Calico { selector, namespace_selector, service_account_selector } => {
                let labels = self.world.calico_labels(pod);
                selector.matches(&labels)
                    && namespace_selector.as_ref().is_none_or(|s| s.with_key_prefix("pcns.").matches(&labels))
                    && service_account_selector
                        .as_ref()
                        .is_none_or(|s| s.with_key_prefix("pcsa.").matches(&labels))
            }
        }
    }

    fn constant(&self, holds: bool) -> Bdd {
        if holds { self.space.set.mk_true() } else { self.space.set.mk_false() }
    }

    fn matches(&self, policy: &Policy, rule: &Rule, direction: Direction) -> Bdd {
        let peer = match direction {
            Direction::Ingress => &self.from,
            Direction::Egress => &self.to,
        };
        match &rule.body {
            RuleBody::Unreadable => self.constant(matches!(rule.action, Action::Deny | Action::Pass)),
            RuleBody::Kubernetes { peers, ports } => {
                let meant = peers.as_ref().is_none_or(|peers| {
                    peers.iter().any(|one| match one {
                        KubernetesPeer::IpBlock { cidr, except } => {
                            inside(&[*cidr], peer) && !inside(except, peer)
                        }
                        KubernetesPeer::Selectors { pods, namespaces } => {
                            let namespace = namespaces
                                .as_ref()
                                .map_or(policy.key.namespace == peer.pod.key.namespace, |s| {
                                    s.matches(&self.world.namespace_labels(&peer.pod.key.namespace))
                                });
                            namespace && pods.as_ref().is_none_or(|s| s.matches(&peer.pod.labels))
                        }
                    })
                });
                self.constant(meant).and(&self.ports(ports.as_deref()))
            }
            RuleBody::Cluster { peers, protocols } => {
                let meant = peers.iter().any(|one| match one {
                    ClusterPeer::Pods { namespaces, pods } => {
                        namespaces.matches(&self.world.namespace_labels(&peer.pod.key.namespace))
                            && pods.as_ref().is_none_or(|s| s.matches(&peer.pod.labels))
                    }
                    ClusterPeer::Networks(cidrs) => inside(cidrs, peer),
                    ClusterPeer::Nodes(selector) => self.world.nodes.values().any(|node| {
                        selector.matches(&node.labels) && node.status_addresses().any(|a| a == peer.address)
                    }),
                    ClusterPeer::DomainNames(patterns) => self.world.names.values().any(|name| {
                        patterns.iter().any(|p| p.matches(&name.name))
                            && name.addresses.contains(&peer.address)
                    }),
                });
                let mut transports = self.constant(protocols.is_none());
                for entry in protocols.iter().flatten() {
                    transports = transports.or(&match entry {
                        ClusterProtocol::Port(port) => self.ports(Some(std::slice::from_ref(port))),
                        ClusterProtocol::Named(name) => {
                            let declared = self.to.pod.named_ports.iter().filter(|p| p.name == *name);
                            declared.fold(self.space.set.mk_false(), |all, p| {
                                let port = self.space.port(DESTINATION, PortRange::single(p.port));
                                all.or(&self.space.protocol(p.protocol).and(&port))
                            })
                        }
                    });
                }
                self.constant(meant).and(&transports)
            }
            RuleBody::Calico(calico) => self.calico(policy, calico),
        }
    }

    fn ports(&self, ports: Option<&[KubernetesPort]>) -> Bdd {
        let Some(ports) = ports else { return self.space.set.mk_true() };
        ports.iter().fold(self.space.set.mk_false(), |all, KubernetesPort { protocol, port }| {
            let numbers = match port {
                PortMatch::Any => self.space.set.mk_true(),
                PortMatch::Range(range) => self.space.port(DESTINATION, *range),
                PortMatch::Named(name) => {
                    let declared = &self.to.pod.named_ports;
                    let meant = declared.iter().filter(|p| p.name == *name && p.protocol == *protocol);
                    meant.fold(self.space.set.mk_false(), |all, p| {
                        all.or(&self.space.port(DESTINATION, PortRange::single(p.port)))
                    })
                }
            };
            all.or(&self.space.protocol(*protocol).and(&numbers))
        })
    }

    fn calico(&self, policy: &Policy, rule: &CalicoRule) -> Bdd {
        let family = |nets: &[Cidr]| nets.is_empty() || nets.iter().any(|net| net.family() == self.family);
        let sides = [&rule.source, &rule.destination];
        let implied = match rule.protocol {
            Some(Protocol::ICMP) => Some(Family::V4),
            Some(Protocol::ICMPV6) => Some(Family::V6),
            _ => None,
        };
        let fits = rule.ip_version.is_none_or(|wanted| wanted == self.family)
            && implied.is_none_or(|wanted| wanted == self.family)
            && sides.iter().all(|side| family(&side.nets) && family(&side.not_nets));
        let mut all = self.constant(fits);
        if let Some(protocol) = rule.protocol {
            all = all.and(&self.space.protocol(protocol));
        }
        if let Some(protocol) = rule.not_protocol {
            all = all.and_not(&self.space.protocol(protocol));
        }
        for (icmp, wanted) in [(rule.icmp, true), (rule.not_icmp, false)] {
            if let Some(icmp) = icmp {
                let first = u16::from(icmp.type_) * 256;
                let codes = icmp.code.map_or((0, 255), |code| (u16::from(code), u16::from(code)));
                let meant = self.space.between(DESTINATION, first + codes.0, first + codes.1);
                all = all.and(&self.space.protocol(Protocol::icmp_of(self.family)));
                all = if wanted { all.and(&meant) } else { all.and_not(&meant) };
            }
        }
        let source = self.side(policy, &rule.source, &self.from, SOURCE, false);
        all.and(&source).and(&self.side(policy, &rule.destination, &self.to, DESTINATION, true))
    }

    fn side(
        &self,
        policy: &Policy,
        side: &EntityRule,
        end: &End<'_>,
        field: (usize, usize),
        is_target: bool,
    ) -> Bdd {
        let holds = (side.nets.is_empty() || inside(&side.nets, end)) && !inside(&side.not_nets, end);
        // who is at the address: the pod, and sets; each with its namespace and labels
        let pod = (Some(&*end.pod.key.namespace), self.world.calico_labels(end.pod), true);
        let sets = self.world.sets.values().filter(|set| inside(&set.nets, end));
        let sets = sets.map(|set| {
            (Some(&*set.namespace).filter(|ns| !ns.is_empty()), self.world.calico_set_labels(set), false)
        });
        let entities: Vec<(Option<&str>, Labels, bool)> = sets.chain([pod]).collect();
        let own = &policy.key.namespace;
        let some = side.selector.is_some() || side.not_selector.is_some() || side.service_accounts.is_some();
        let in_scope = |(namespace, labels, _): &(Option<&str>, Labels, bool)| match &side.namespace_selector
        {
            Some(NamespaceScope::Global) => namespace.is_none(),
            Some(NamespaceScope::Matching(s)) => {
                namespace.is_some() && s.with_key_prefix("pcns.").matches(labels)
            }
            None if !own.is_empty() && some => *namespace == Some(&**own),
            None => true,
        };
        let refused = |labels: &Labels| side.not_selector.as_ref().is_some_and(|s| s.matches(labels));
        let has_account = |(_, labels, is_pod): &(Option<&str>, Labels, bool)| {
            side.service_accounts.as_ref().is_none_or(|accounts| {
                *is_pod
                    && (accounts.names.is_empty() || accounts.names.contains(&end.pod.service_account))
                    && accounts.selector.as_ref().is_none_or(|s| s.with_key_prefix("pcsa.").matches(labels))
            })
        };
        let is_meant = |entity: &(Option<&str>, Labels, bool)| {
            in_scope(entity)
                && side.selector.as_ref().is_none_or(|s| s.matches(&entity.1))
                && has_account(entity)
                && !refused(&entity.1)
        };
        let positive = side.namespace_selector.is_some()
            || side.selector.is_some()
            || side.service_accounts.is_some()
            || (!own.is_empty() && side.not_selector.is_some());
        let named_by_selector = match positive {
            true => entities.iter().any(is_meant),
            false => side.not_selector.is_none() || !entities.iter().any(|(_, labels, _)| refused(labels)),
        };
        let mut all = self.constant(holds && named_by_selector);
        if !side.ports.is_empty() || !side.not_ports.is_empty() {
            let three = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];
            let three =
                three.iter().fold(self.space.set.mk_false(), |all, p| all.or(&self.space.protocol(*p)));
            all = all.and(&three);
            let is_holder = !positive || entities.iter().any(|entity| entity.2 && is_meant(entity));
            let list = |ports: &[PortMatch]| {
                ports.iter().fold(self.space.set.mk_false(), |all, port| {
                    all.or(&match port {
                        PortMatch::Any => self.space.set.mk_true(),
                        PortMatch::Range(range) => self.space.port(field, *range),
                        PortMatch::Named(name) => {
                            let declared =
                                end.pod.named_ports.iter().filter(|p| p.name == *name && is_holder);
                            declared.fold(self.space.set.mk_false(), |all, p| {
                                let number = self.space.port(field, PortRange::single(p.port));
                                all.or(&self.space.protocol(p.protocol).and(&number))
                            })
                        }
                    })
                })
            };
            if !side.ports.is_empty() {
                all = all.and(&list(&side.ports));
            }
            all = all.and_not(&list(&side.not_ports));
        }
        if let Some((namespace, name)) = &side.service {
            let slices = self.world.slices.values();
            let mut any = self.space.set.mk_false();
            for slice in slices.filter(|s| s.namespace == *namespace && s.service == *name) {
                if !slice.endpoints.iter().any(|e| e.addresses.contains(&end.address)) {
                    continue;
                }
                if !is_target {
                    any = self.space.set.mk_true();
                }
                for (protocol, port) in slice.ports.iter().filter_map(|p| Some((p.protocol, p.port?))) {
                    let number = self.space.port(DESTINATION, PortRange::single(port));
                    any = any.or(&self.space.protocol(protocol).and(&number));
                }
            }
            all = all.and(&any);
        }
        all
    }
}

fn inside(cidrs: &[Cidr], end: &End<'_>) -> bool {
    cidrs.iter().any(|cidr| cidr.contains(end.address))
}

/// Compares the cells between pods at addresses of their own; how many, and how many of them are restricted.
fn agree(space: &Space, case: &Situation) -> (usize, usize) {
    let (mut cells, mut restricted) = (0, 0);
    let world = case.world();
    let snapshot = Snapshot::new(world.clone());
    let matrix = Matrix::new(snapshot.plan()).with_index();
    for family in Family::BOTH {
        let places = snapshot.pods(family);
        let alone = |a: IpAddr| places.iter().filter(|p| p.address == a).count() == 1;
        let pods: Vec<_> = places.iter().filter(|p| alone(p.address)).take(8).collect();
        for from in &pods {
            for to in pods.iter().filter(|to| to.pod != from.pod) {
                let end = |place: &sluice_analysis::Place| {
                    (place.address, world.pods.get(place.pod.as_ref().unwrap()).unwrap())
                };
                let ((a, source), (b, target)) = (end(from), end(to));
                let oracle = Oracle {
                    world: &world,
                    space,
                    family,
                    from: End { address: a, pod: source },
                    to: End { address: b, pod: target },
                };
                let (egress, ingress) = (oracle.leg(Direction::Egress), oracle.leg(Direction::Ingress));
                let cell = matrix.cell(matrix.group_of(a).unwrap(), matrix.group_of(b).unwrap()).unwrap();
                let what = || format!("{} -> {} {family}", from.name, to.name);
                let set = |id: Option<_>| space.of_set(matrix.set(id.unwrap()), family);
                // of protocols without ports only the protocol is looked at
                assert!(set(cell.egress).xor(&egress).is_false(), "{} egress", what());
                assert!(set(cell.ingress).xor(&ingress).is_false(), "{} ingress", what());
                let both = space.of_set(&matrix.allowed(family, cell), family);
                assert!(both.xor(&egress.and(&ingress)).is_false(), "{}", what());
                cells += 1;
                restricted += usize::from(!both.is_true() && !both.is_false());
            }
        }
    }
    (cells, restricted)
}

#[test]
fn every_cell_between_pods_is_the_diagram_of_the_policies() {
    let space = Space::new();
    replay(env!("CARGO_MANIFEST_DIR"), "agreement", |case| agree(&space, case));
    let (mut cells, mut restricted) = (0, 0);
    let seeds = Seeds::of_run(WORLDS);
    for seed in &seeds {
        let world = random_world_of(&mut StdRng::seed_from_u64(seed), &ingredients(seed));
        let here = hold("agreement", seed, &Situation::new(&world, []), |case| agree(&space, case));
        cells += here.0;
        restricted += here.1;
    }
    assert!(cells > 500 && restricted > 30 || !seeds.are_many(), "{cells} {restricted}");
}
