//! Services as nftables.

use std::net::IpAddr;

use sha2::{Digest, Sha256};
use sluice_addr::Family;
use sluice_netlink::nft::{
    Chain, ChainKind, CmpOp, Expr, FIB_TYPE_LOCAL, Family as TableFamily, Field, Hook, HookPoint, KeyType,
    MarkKind, NatKind, NatTarget, Policy, Rule, Set, SetKey, SetValue, Table, Value, Verdict,
};

use super::spec::{Backend, PortSpec, ServiceConfig, ServiceSpec};
use crate::masquerade::{MASQUERADE_MARK, interval_set};

/// Name of both tables.
pub const TABLE: &str = "sluice-svc";

const SERVICES: &str = "svc";
const NODE_PORTS: &str = "nodeports";
const WITHOUT_ENDPOINTS: &str = "no-endpoints";
const SERVICE_ADDRESSES: &str = "service-addresses";
const OWN_PODS: &str = "own-pods";
const DISPATCH: &str = "services";
const UNSERVED: &str = "unserved";

/// NAT of destinations; numeric because nft 1.0.6 rejects the name at output.
const DSTNAT: i32 = -100;
/// Behind the translation: what still has a Service's address was not translated.
const BEHIND_DSTNAT: i32 = -99;
const SRCNAT: i32 = 100;

/// The tables of both families, IPv4 first. With no Services they still drop what is addressed to one.
#[must_use]
pub fn tables(config: &ServiceConfig, services: &[ServiceSpec]) -> [Table; 2] {
    Family::BOTH.map(|family| Builder::new(family, config).build(services))
}

struct Builder {
    family: Family,
    saddr: Field,
    daddr: Field,
    table: Table,
}

impl Builder {
    fn new(family: Family, config: &ServiceConfig) -> Self {
        let (table_family, address, saddr, daddr) = match family {
            Family::V4 => (TableFamily::Ip, KeyType::Ipv4Addr, Field::IpSaddr, Field::IpDaddr),
            Family::V6 => (TableFamily::Ip6, KeyType::Ipv6Addr, Field::Ip6Saddr, Field::Ip6Daddr),
        };
        let mut table = Table::new(table_family, TABLE);
        let of_family = |cidrs: &[sluice_addr::Cidr]| {
            interval_set(address, cidrs.iter().copied().filter(|c| c.family() == family).collect())
        };
        let service_key = vec![address, KeyType::InetProto, KeyType::InetService];
        for (name, set) in [
            (SERVICES, Set::hash(service_key.clone()).to_verdicts()),
            (NODE_PORTS, Set::hash([KeyType::InetProto, KeyType::InetService]).to_verdicts()),
            (WITHOUT_ENDPOINTS, Set::hash(service_key)),
            (SERVICE_ADDRESSES, of_family(&config.service_cidrs)),
            (OWN_PODS, of_family(&config.pod_cidrs)),
        ] {
            table.sets.insert(name.to_owned(), set);
        }
        Self { family, saddr, daddr, table }
    }

    fn build(mut self, services: &[ServiceSpec]) -> Table {
        self.base_chains();
        for service in services {
            for port in &service.ports {
                self.service_port(service, port);
            }
        }
        self.table
    }

    fn base_chains(&mut self) {
        let service = vec![self.daddr, Field::L4Proto, Field::ThDport];
        let mut dispatch = vec![Rule::new([Expr::vmap(service.clone(), SERVICES)])];
        // A port of the loopback address would need route_localnet, which opens the node's loopback to pods.
        let loopback = match self.family {
            Family::V4 => (IpAddr::from([127, 0, 0, 0]), 8),
            Family::V6 => (IpAddr::from(std::net::Ipv6Addr::LOCALHOST), 128),
        };
        dispatch.push(Rule::new([
            Expr::Prefix { field: self.daddr, op: CmpOp::Ne, addr: loopback.0, len: loopback.1 },
            Expr::eq(Field::FibDaddrType, FIB_TYPE_LOCAL),
            Expr::vmap([Field::L4Proto, Field::ThDport], NODE_PORTS),
        ]));
        self.chain(DISPATCH, Chain::regular(dispatch));
        let unserved = vec![
            Rule::new([
                Expr::lookup(service, WITHOUT_ENDPOINTS),
                Expr::Counter,
                Expr::Verdict(Verdict::Drop),
            ])
            .comment("no ready endpoint"),
            Rule::new([
                Expr::lookup([self.daddr], SERVICE_ADDRESSES),
                Expr::Counter,
                Expr::Verdict(Verdict::Drop),
            ])
            .comment("no such service"),
        ];
        self.chain(UNSERVED, Chain::regular(unserved));
        let jump = |chain: &str| vec![Rule::new([Expr::Verdict(Verdict::Jump(chain.to_owned()))])];
        for (name, point) in [("prerouting", HookPoint::Prerouting), ("output", HookPoint::Output)] {
            self.chain(name, Chain::base(hook(point, ChainKind::Nat, DSTNAT), jump(DISPATCH)));
            let guard = hook(point, ChainKind::Filter, BEHIND_DSTNAT);
            self.chain(&format!("{name}-unserved"), Chain::base(guard, jump(UNSERVED)));
        }
        let masquerade = vec![Rule::new([
            Expr::masked(Field::Mark, MASQUERADE_MARK, MASQUERADE_MARK),
            Expr::write_mark(MarkKind::Packet, MASQUERADE_MARK, 0),
            Expr::Counter,
            Expr::Masquerade { random: false, fully_random: true },
        ])];
        let postrouting = hook(HookPoint::Postrouting, ChainKind::Nat, SRCNAT);
        self.chain("postrouting", Chain::base(postrouting, masquerade));
    }

    fn service_port(&mut self, service: &ServiceSpec, port: &PortSpec) {
        let family = self.family;
        let addresses: Vec<_> = (service.cluster_ips.iter().chain(&service.external_ips))
            .copied()
            .filter(|address| Family::of(*address) == family && !address.is_unspecified())
            .collect();
        let node_port = port.node_port.filter(|_| !addresses.is_empty());
        let backends = port.backends(family);
        let what = format!("{}/{}:{} {}", service.namespace, service.name, port.port, port.protocol.name());
        let key = |address: IpAddr| {
            SetKey::Exact(vec![address.into(), port.protocol.number().into(), port.port.into()])
        };
        if backends.is_empty() {
            // A node port without endpoints falls through to the node itself, whose stack refuses it.
            self.elements(WITHOUT_ENDPOINTS, addresses.iter().map(|a| (key(*a), SetValue::None)));
            return;
        }
        let name = short_name("svc", &[&service.namespace, &service.name, &port_identity(port)]);
        self.service_chain(&name, &what, port, &backends);
        let to = |chain: &str| SetValue::Verdict(Verdict::Goto(chain.to_owned()));
        self.elements(SERVICES, addresses.iter().map(|a| (key(*a), to(&name))));
        if let Some(node_port) = node_port {
            let external = name.replacen("svc", "ext", 1);
            // The client is outside, or a pod that knows the node: without masquerading the endpoint on another
            // node would answer it directly and from its own address.
            let rules = vec![
                Rule::new([mark()]).comment(what),
                Rule::new([Expr::Verdict(Verdict::Goto(name.clone()))]),
            ];
            self.chain(&external, Chain::regular(rules));
            let key = SetKey::Exact(vec![port.protocol.number().into(), node_port.into()]);
            self.elements(NODE_PORTS, [(key, to(&external))]);
        }
    }

    fn service_chain(&mut self, name: &str, what: &str, port: &PortSpec, backends: &[Backend]) {
        let mut spread = Set::hash([KeyType::Mark]).to_verdicts();
        for (index, backend) in (0u32..).zip(backends) {
            let chain = short_name("ep", &[name, &backend.address.to_string(), &backend.port.to_string()]);
            let rules = vec![
                // Hairpin: the pod would answer itself without anybody translating back (networking 9.4).
                Rule::new([Expr::eq(self.saddr, backend.address), mark()]),
                Rule::new([
                    Expr::eq(Field::L4Proto, port.protocol.number()),
                    Expr::Nat {
                        kind: NatKind::Dnat,
                        target: NatTarget::Fixed { addr: backend.address, port: Some(backend.port) },
                    },
                ])
                .comment(what),
            ];
            self.chain(&chain, Chain::regular(rules));
            let key = SetKey::one(Value::U32(index));
            spread.elements.insert(key, SetValue::Verdict(Verdict::Goto(chain)));
        }
        let map = name.replacen("svc", "eps", 1);
        self.table.sets.insert(map.clone(), spread);
        let count = u32::try_from(backends.len()).expect("a slice of endpoints is far below 2^32");
        let rules = vec![
            Rule::new([Expr::not_in([self.saddr], OWN_PODS), mark()]).comment(what),
            Rule::new([Expr::vmap([Field::NumgenRandom(count)], map)]),
        ];
        self.chain(name, Chain::regular(rules));
    }

    fn chain(&mut self, name: &str, chain: Chain) {
        self.table.chains.insert(name.to_owned(), chain);
    }

    /// The first Service keeps an element that two claim: the API server prevents it, files do not.
    fn elements(&mut self, set: &str, elements: impl IntoIterator<Item = (SetKey, SetValue)>) {
        let set = self.table.sets.get_mut(set).expect("Builder::new makes every fixed set");
        for (key, value) in elements {
            set.elements.entry(key).or_insert(value);
        }
    }
}

fn hook(hook: HookPoint, kind: ChainKind, priority: i32) -> Hook {
    Hook { hook, kind, priority, policy: Policy::Accept }
}

fn mark() -> Expr {
    Expr::write_mark(MarkKind::Packet, MASQUERADE_MARK, MASQUERADE_MARK)
}

fn port_identity(port: &PortSpec) -> String {
    format!("{}/{}", port.protocol.name(), port.port)
}

/// A chain's name: names of Kubernetes are longer than those of nftables, so they are hashed; the comment tells.
fn short_name(kind: &str, parts: &[&str]) -> String {
    let digest = Sha256::digest(parts.join("/").as_bytes());
    let hex: String = digest.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
    format!("{kind}-{hex}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::services::{EndpointSpec, Protocol, SessionAffinity, TrafficPolicy};

    fn endpoint(address: &str, ready: bool, terminating: bool) -> EndpointSpec {
        let address = address.parse().unwrap();
        EndpointSpec { address, port: 8080, ready, serving: true, terminating }
    }

    fn service(endpoints: &[EndpointSpec]) -> ServiceSpec {
        ServiceSpec {
            namespace: "web".into(),
            name: "api".into(),
            cluster_ips: vec!["10.43.0.7".parse().unwrap(), "fd00:43::7".parse().unwrap()],
            external_ips: vec![],
            ports: vec![PortSpec {
                name: String::new(),
                protocol: Protocol::Tcp,
                port: 80,
                node_port: Some(30080),
                endpoints: endpoints.to_vec(),
            }],
            affinity: SessionAffinity::None,
            traffic_policy: TrafficPolicy::Cluster,
            wants_load_balancer: false,
        }
    }

    fn config() -> ServiceConfig {
        ServiceConfig {
            pod_cidrs: vec!["10.42.1.0/24".parse().unwrap()],
            service_cidrs: vec!["10.43.0.0/16".parse().unwrap()],
        }
    }

    fn dnat_targets(table: &Table) -> Vec<String> {
        let mut targets: Vec<_> = table
            .chains
            .values()
            .flat_map(|chain| chain.rules.iter().flat_map(|rule| &rule.exprs))
            .filter_map(|expr| match expr {
                Expr::Nat { target: NatTarget::Fixed { addr, port }, .. } => {
                    Some(format!("{addr} {}", port.unwrap()))
                }
                _ => None,
            })
            .collect();
        targets.sort();
        targets
    }

    #[test]
    fn ready_endpoints_serve_and_terminating_ones_only_when_nothing_else_does() {
        let both = [endpoint("10.42.1.2", true, false), endpoint("10.42.2.2", false, true)];
        let [v4, v6] = tables(&config(), &[service(&both)]);
        assert_eq!(dnat_targets(&v4), ["10.42.1.2 8080"]);
        assert_eq!(v4.sets["svc"].elements.len(), 1);
        assert_eq!(v4.sets["nodeports"].elements.len(), 1);
        assert_eq!(v4.sets["no-endpoints"].elements.len(), 0);
        assert_eq!(v6.sets["no-endpoints"].elements.len(), 1, "no IPv6 endpoint");
        assert_eq!(v6.sets["nodeports"].elements.len(), 0);

        let [v4, _] = tables(&config(), &[service(&both[1..])]);
        assert_eq!(dnat_targets(&v4), ["10.42.2.2 8080"]);
        let [v4, _] = tables(&config(), &[service(&[endpoint("10.42.1.2", false, false)])]);
        assert_eq!(v4.sets["no-endpoints"].elements.len(), 1);
    }

    #[test]
    fn everything_that_is_named_exists() {
        let endpoints = [endpoint("10.42.1.2", true, false), endpoint("fd00:42::2", true, false)];
        for table in tables(&config(), &[service(&endpoints)]) {
            let exprs = || table.chains.values().flat_map(|c| c.rules.iter().flat_map(|r| &r.exprs));
            for set in exprs().filter_map(Expr::set) {
                assert!(table.sets.contains_key(set), "set {set}");
            }
            let in_rules = exprs().filter_map(|e| match e {
                Expr::Verdict(verdict) => verdict.target(),
                _ => None,
            });
            let in_maps = table.sets.values().flat_map(|set| set.elements.values()).filter_map(|v| match v {
                SetValue::Verdict(verdict) => verdict.target(),
                _ => None,
            });
            for chain in in_rules.chain(in_maps) {
                assert!(table.chains.contains_key(chain), "chain {chain}");
            }
        }
    }

    #[test]
    fn a_hundred_endpoints_are_numbered_without_a_gap() {
        let endpoints: Vec<_> = (2..102).map(|n| endpoint(&format!("10.42.1.{n}"), true, false)).collect();
        let [v4, _] = tables(&config(), &[service(&endpoints)]);
        let spread = v4.sets.iter().find(|(name, _)| name.starts_with("eps-")).unwrap().1;
        let keys: Vec<_> = spread.elements.keys().cloned().collect();
        assert_eq!(keys, (0..100u32).map(|n| SetKey::one(Value::U32(n))).collect::<Vec<_>>());
    }
}
