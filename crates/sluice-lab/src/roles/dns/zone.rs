//! What the name server knows, as the lab writes it, and the names that follow from it by the Kubernetes DNS
//! specification 1.1.0.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// Seconds that an answer may be remembered.
const TTL: u32 = 5;

/// The zone file.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Zone {
    /// `cluster.local`.
    pub(crate) domain: String,
    /// Namespaces that exist, so that an empty one is told from a wrong one.
    pub(crate) namespaces: Vec<String>,
    pub(crate) services: Vec<Service>,
    /// Names outside the cluster domain with fixed addresses.
    #[serde(default)]
    pub(crate) hosts: BTreeMap<String, Vec<IpAddr>>,
    /// Where everything else is asked; without any it is refused.
    #[serde(default)]
    pub(crate) upstreams: Vec<SocketAddr>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Service {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// Empty for a headless service.
    pub(crate) cluster_ips: Vec<IpAddr>,
    pub(crate) ports: Vec<Port>,
    /// Of a headless service: those that are ready (or all, if it publishes those that are not).
    pub(crate) endpoints: Vec<Endpoint>,
    /// `spec.externalName`.
    #[serde(default)]
    pub(crate) external_name: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Port {
    /// Empty if the only port has no name; then it has no SRV record either.
    pub(crate) name: String,
    /// `tcp` or `udp`.
    pub(crate) protocol: String,
    pub(crate) port: u16,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    pub(crate) address: IpAddr,
    pub(crate) hostname: Option<String>,
}

/// Record types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    A,
    Aaaa,
    Cname,
    Ptr,
    Soa,
    Srv,
    Txt,
    Any,
    Other,
}

impl Kind {
    const NUMBERS: [(Self, u16); 8] = [
        (Self::A, 1),
        (Self::Cname, 5),
        (Self::Soa, 6),
        (Self::Ptr, 12),
        (Self::Txt, 16),
        (Self::Aaaa, 28),
        (Self::Srv, 33),
        (Self::Any, 255),
    ];

    pub(super) fn from_number(number: u16) -> Self {
        Self::NUMBERS.iter().find(|(_, known)| *known == number).map_or(Self::Other, |(kind, _)| *kind)
    }

    pub(super) fn number(self) -> u16 {
        Self::NUMBERS.iter().find(|(kind, _)| *kind == self).map_or(0, |(_, number)| *number)
    }
}

/// A resource record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) name: String,
    pub(super) ttl: u32,
    pub(super) data: Data,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Data {
    Address(IpAddr),
    Name(String),
    Alias(String),
    Service { port: u16, target: String },
    Text(String),
    Start { server: String, contact: String },
}

impl Data {
    pub(super) fn kind(&self) -> Kind {
        match self {
            Self::Address(IpAddr::V4(_)) => Kind::A,
            Self::Address(IpAddr::V6(_)) => Kind::Aaaa,
            Self::Name(_) => Kind::Ptr,
            Self::Alias(_) => Kind::Cname,
            Self::Service { .. } => Kind::Srv,
            Self::Text(_) => Kind::Txt,
            Self::Start { .. } => Kind::Soa,
        }
    }
}

impl Record {
    pub(super) fn start_of(origin: &str) -> Self {
        let data =
            Data::Start { server: format!("ns.dns.{origin}"), contact: format!("hostmaster.{origin}") };
        Self { name: origin.to_owned(), ttl: TTL, data }
    }
}

/// What a name stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Answer {
    Records(Vec<Record>),
    /// The name exists, without such a record; with the zone's origin.
    NoData(String),
    /// The name does not exist; with the zone's origin.
    NoName(String),
    /// Not ours.
    Elsewhere,
    /// There is no zone to answer from.
    Failure,
}

impl Answer {
    pub(super) fn failure() -> Self {
        Self::Failure
    }
}

/// A zone, indexed by name.
#[derive(Debug)]
pub(super) struct Names {
    domain: String,
    records: HashMap<String, Vec<Data>>,
    /// Names without records that have names below them: they exist (RFC 8020).
    branches: HashSet<String>,
    upstreams: Vec<SocketAddr>,
}

impl Names {
    pub(super) fn of(zone: &Zone) -> Self {
        let domain = zone.domain.to_ascii_lowercase();
        let mut names = Self {
            domain: domain.clone(),
            records: HashMap::new(),
            branches: HashSet::new(),
            upstreams: zone.upstreams.clone(),
        };
        names.add(format!("dns-version.{domain}"), Data::Text("1.1.0".to_owned()));
        for kind in ["svc", "pod"] {
            names.branch(&format!("{kind}.{domain}"));
            for namespace in &zone.namespaces {
                names.branch(&format!("{namespace}.{kind}.{domain}"));
            }
        }
        for service in &zone.services {
            names.service(service);
        }
        for (host, addresses) in &zone.hosts {
            for address in addresses {
                names.add(host.trim_end_matches('.').to_ascii_lowercase(), Data::Address(*address));
            }
        }
        names
    }

    pub(super) fn upstreams(&self) -> &[SocketAddr] {
        &self.upstreams
    }

    /// Answers a question about a name in lower case without its final dot.
    pub(super) fn lookup(&self, name: &str, kind: Kind) -> Answer {
        let records: &[Data] = self.records.get(name).map_or(&[], Vec::as_slice);
        let pod = self.pod_address(name);
        let wanted: Vec<Record> = records
            .iter()
            .chain(&pod)
            .filter(|data| kind == Kind::Any || data.kind() == kind || data.kind() == Kind::Cname)
            .map(|data| Record { name: name.to_owned(), ttl: TTL, data: data.clone() })
            .collect();
        if !wanted.is_empty() {
            return Answer::Records(wanted);
        }
        let exists = !records.is_empty() || pod.is_some() || self.branches.contains(name);
        if name == self.domain && kind == Kind::Soa {
            return Answer::Records(vec![Record::start_of(&self.domain)]);
        }
        match self.origin(name) {
            _ if exists => Answer::NoData(self.origin(name).unwrap_or(name).to_owned()),
            Some(origin) => Answer::NoName(origin.to_owned()),
            None => Answer::Elsewhere,
        }
    }

    fn origin(&self, name: &str) -> Option<&str> {
        let below = name.strip_suffix(self.domain.as_str())?;
        (below.is_empty() || below.ends_with('.')).then_some(self.domain.as_str())
    }

    /// `10-42-0-5.NAMESPACE.pod.DOMAIN`: the address that the name itself spells.
    fn pod_address(&self, name: &str) -> Option<Data> {
        let below = name.strip_suffix(self.domain.as_str())?.strip_suffix(".pod.")?;
        let (spelled, namespace) = below.split_once('.')?;
        if !self.branches.contains(&format!("{namespace}.pod.{}", self.domain)) {
            return None;
        }
        let address = spelled.replace('-', ".").parse::<IpAddr>();
        let address = address.or_else(|_| spelled.replace('-', ":").parse::<IpAddr>());
        address.ok().map(Data::Address)
    }

    fn service(&mut self, service: &Service) {
        let name = format!("{}.{}.svc.{}", service.name, service.namespace, self.domain).to_ascii_lowercase();
        if let Some(external) = &service.external_name {
            self.add(name, Data::Alias(external.trim_end_matches('.').to_ascii_lowercase()));
            return;
        }
        self.branch(&name);
        for address in &service.cluster_ips {
            self.add(name.clone(), Data::Address(*address));
            self.add(reverse(*address), Data::Name(name.clone()));
        }
        let mut targets = vec![name.clone()];
        if service.cluster_ips.is_empty() {
            targets.clear();
            for endpoint in &service.endpoints {
                let own = endpoint.hostname.clone().unwrap_or_else(|| spelled(endpoint.address));
                let own = format!("{own}.{name}");
                self.add(name.clone(), Data::Address(endpoint.address));
                self.add(own.clone(), Data::Address(endpoint.address));
                self.add(reverse(endpoint.address), Data::Name(own.clone()));
                if !targets.contains(&own) {
                    targets.push(own);
                }
            }
        }
        for port in service.ports.iter().filter(|port| !port.name.is_empty()) {
            let place = format!("_{}._{}.{name}", port.name, port.protocol.to_ascii_lowercase());
            for target in &targets {
                self.add(place.clone(), Data::Service { port: port.port, target: target.clone() });
            }
        }
    }

    fn add(&mut self, name: String, data: Data) {
        if let Some((_, parent)) = name.split_once('.')
            && self.origin(parent).is_some()
        {
            let parent = parent.to_owned();
            self.branch(&parent);
        }
        let records = self.records.entry(name).or_default();
        if !records.contains(&data) {
            records.push(data);
        }
    }

    /// Notes that a name and those above it exist.
    fn branch(&mut self, name: &str) {
        let mut rest = name;
        while self.origin(rest).is_some() && self.branches.insert(rest.to_owned()) {
            match rest.split_once('.') {
                Some((_, parent)) => rest = parent,
                None => return,
            }
        }
    }
}

fn spelled(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string().replace('.', "-"),
        IpAddr::V6(address) => address.to_string().replace(':', "-"),
    }
}

fn reverse(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => {
            let [a, b, c, d] = address.octets();
            format!("{d}.{c}.{b}.{a}.in-addr.arpa")
        }
        IpAddr::V6(address) => {
            let nibbles = address.octets().into_iter().rev().flat_map(|byte| [byte & 15, byte >> 4]);
            nibbles.map(|nibble| format!("{nibble:x}.")).collect::<String>() + "ip6.arpa"
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let port = |name: &str| Port { name: name.to_owned(), protocol: "TCP".to_owned(), port: 8080 };
        let endpoint = |address: &str, hostname: Option<&str>| Endpoint {
            address: address.parse().unwrap(),
            hostname: hostname.map(str::to_owned),
        };
        Names::of(&Zone {
            domain: "cluster.local".to_owned(),
            namespaces: vec!["default".to_owned(), "empty".to_owned()],
            services: vec![
                Service {
                    namespace: "default".to_owned(),
                    name: "web".to_owned(),
                    cluster_ips: vec!["10.43.0.7".parse().unwrap(), "fd00:43::7".parse().unwrap()],
                    ports: vec![port("http"), port("")],
                    ..Service::default()
                },
                Service {
                    namespace: "default".to_owned(),
                    name: "db".to_owned(),
                    ports: vec![port("sql")],
                    endpoints: vec![endpoint("10.42.0.5", Some("db-0")), endpoint("10.42.1.6", None)],
                    ..Service::default()
                },
                Service {
                    namespace: "default".to_owned(),
                    name: "far".to_owned(),
                    external_name: Some("example.org".to_owned()),
                    ..Service::default()
                },
            ],
            hosts: BTreeMap::from([("outside.example".to_owned(), vec!["203.0.113.10".parse().unwrap()])]),
            upstreams: Vec::new(),
        })
    }

    fn ask(name: &str, kind: Kind) -> String {
        match names().lookup(name, kind) {
            Answer::Records(records) => records
                .iter()
                .map(|record| match &record.data {
                    Data::Address(address) => address.to_string(),
                    Data::Name(name) | Data::Alias(name) | Data::Text(name) => name.clone(),
                    Data::Service { port, target } => format!("{port} {target}"),
                    Data::Start { server, .. } => server.clone(),
                })
                .collect::<Vec<_>>()
                .join(", "),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn names_follow_the_specification() {
        for (name, kind, expected) in [
            ("web.default.svc.cluster.local", Kind::A, "10.43.0.7"),
            ("web.default.svc.cluster.local", Kind::Aaaa, "fd00:43::7"),
            ("web.default.svc.cluster.local", Kind::Txt, "NoData(\"cluster.local\")"),
            ("_http._tcp.web.default.svc.cluster.local", Kind::Srv, "8080 web.default.svc.cluster.local"),
            ("_tcp.web.default.svc.cluster.local", Kind::Srv, "NoData(\"cluster.local\")"),
            ("7.0.43.10.in-addr.arpa", Kind::Ptr, "web.default.svc.cluster.local"),
            ("db.default.svc.cluster.local", Kind::A, "10.42.0.5, 10.42.1.6"),
            ("db-0.db.default.svc.cluster.local", Kind::A, "10.42.0.5"),
            ("10-42-1-6.db.default.svc.cluster.local", Kind::A, "10.42.1.6"),
            (
                "_sql._tcp.db.default.svc.cluster.local",
                Kind::Srv,
                "8080 db-0.db.default.svc.cluster.local, 8080 10-42-1-6.db.default.svc.cluster.local",
            ),
            ("5.0.42.10.in-addr.arpa", Kind::Ptr, "db-0.db.default.svc.cluster.local"),
            ("far.default.svc.cluster.local", Kind::A, "example.org"),
            ("10-42-9-9.default.pod.cluster.local", Kind::A, "10.42.9.9"),
            ("10-42-9-9.nowhere.pod.cluster.local", Kind::A, "NoName(\"cluster.local\")"),
            ("fd00-42--9.default.pod.cluster.local", Kind::Aaaa, "fd00:42::9"),
            ("dns-version.cluster.local", Kind::Txt, "1.1.0"),
            ("default.svc.cluster.local", Kind::A, "NoData(\"cluster.local\")"),
            ("empty.svc.cluster.local", Kind::A, "NoData(\"cluster.local\")"),
            ("cluster.local", Kind::Soa, "ns.dns.cluster.local"),
            ("none.default.svc.cluster.local", Kind::A, "NoName(\"cluster.local\")"),
            ("outside.example", Kind::A, "203.0.113.10"),
            ("outside.example", Kind::Aaaa, "NoData(\"outside.example\")"),
            ("example.org", Kind::A, "Elsewhere"),
            ("notcluster.local", Kind::A, "Elsewhere"),
        ] {
            assert_eq!(ask(name, kind), expected, "{name} {kind:?}");
        }
        let v6 = "7.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.3.4.0.0.0.0.d.f.ip6.arpa";
        assert_eq!(ask(v6, Kind::Ptr), "web.default.svc.cluster.local");
    }
}
