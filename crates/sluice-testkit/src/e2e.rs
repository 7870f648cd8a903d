//! The 48 datapath cases of the Kubernetes end-to-end tests (semantics 6), as data: run them against whatever judges.
#![allow(clippy::unwrap_used, reason = "a mistake in the table fails the test")]

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{Flow, Protocol, Transport};
use sluice_model::*;
use sluice_selector::Labels;

use crate::notation::{kubernetes_policy, split_outside};

const CASES: &str = include_str!("e2e_cases.txt");

/// A pod of the grid: namespace and name, one letter each.
pub type Place = (char, char);

/// One row of the table.
#[derive(Clone, Debug)]
pub struct Case {
    /// Its number, from 1.
    pub number: usize,
    /// Its name.
    pub name: &'static str,
    /// The pods of its row.
    pub pods: Vec<Place>,
    /// What is done, and what holds then.
    pub steps: Vec<(&'static str, &'static str)>,
}

/// A connection with what the table says of it.
#[derive(Clone, Debug)]
pub struct Probe {
    /// The pod that opens it.
    pub source: Place,
    /// The pod that is asked.
    pub destination: Place,
    /// The connection.
    pub flow: Flow,
    /// Does it pass?
    pub allowed: bool,
}

/// All cases, in order.
pub fn cases() -> Vec<Case> {
    let rows = CASES.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    rows.map(|row| {
        let columns: Vec<&str> = row.split(" | ").map(str::trim).collect();
        let [number, name, pods, policies, expectation] = columns.as_slice() else { panic!("{row:?}") };
        let (steps, states): (Vec<_>, Vec<_>) =
            (policies.split(" ⇒ ").collect(), expectation.split(" ⇒ ").collect());
        assert_eq!(steps.len(), states.len(), "{row:?}");
        Case {
            number: number.parse().unwrap(),
            name,
            pods: pods.split(' ').map(place).collect(),
            steps: steps.into_iter().map(str::trim).zip(states).collect(),
        }
    })
    .collect()
}

/// The nine pods of the full grid.
pub fn full_grid() -> Vec<Place> {
    ['x', 'y', 'z'].iter().flat_map(|ns| ['a', 'b', 'c'].map(|name| (*ns, name))).collect()
}

/// The pods of a case and the policies so far.
#[derive(Clone, Debug)]
pub struct Grid {
    /// The objects.
    pub world: World,
    /// Where each pod is.
    pub addresses: BTreeMap<Place, IpAddr>,
}

impl Grid {
    /// The pods at these places, each at the address that `address_of` gives to its place in the list.
    pub fn new(places: &[Place], node: Option<&str>, address_of: impl Fn(usize) -> IpAddr) -> Self {
        let mut world = World::default();
        let mut addresses = BTreeMap::new();
        for namespace in ['x', 'y', 'z'] {
            let labels = Labels::from_iter([("kubernetes.io/metadata.name", namespace.to_string())]);
            world.apply(ObjectDelta::Upsert(Object::Namespace(Namespace {
                name: namespace.to_string().into(),
                labels,
                annotations: Labels::default(),
            })));
        }
        for (index, &(namespace, name)) in places.iter().enumerate() {
            let address = address_of(index);
            addresses.insert((namespace, name), address);
            let mut named_ports = Vec::new();
            for port in [80, 81] {
                for (protocol, suffix) in
                    [(Protocol::TCP, "tcp"), (Protocol::UDP, "udp"), (Protocol::SCTP, "sctp")]
                {
                    named_ports.push(NamedPort {
                        name: format!("serve-{port}-{suffix}").into(),
                        protocol,
                        port,
                    });
                }
            }
            world.apply(ObjectDelta::Upsert(Object::Pod(Pod {
                key: PodKey::new(namespace.to_string(), name.to_string()),
                uid: "".into(),
                labels: Labels::from_iter([("pod", name.to_string())]),
                service_account: "default".into(),
                node: node.map(Into::into),
                host_network: false,
                addresses: vec![address],
                named_ports,
                finished: false,
                deleting: false,
                workload: None,
            })));
        }
        Grid { world, addresses }
    }

    /// One step of the column "policies": policies, `+ policy`, `= policy` (replaces the first), `label …`, `delete`.
    pub fn step(&mut self, text: &str) {
        if text == "delete" {
            self.world.policies.clear();
            return;
        }
        if let Some(rest) = text.strip_prefix("label ") {
            let (who, label) = rest.split_once(' ').unwrap();
            let (key, value) = label.split_once('=').unwrap();
            let mut letters = who.chars();
            let namespace: Arc<str> = letters.next().unwrap().to_string().into();
            match letters.next() {
                Some(name) => {
                    let pod = self.world.pods.get_mut(&PodKey::new(namespace, name.to_string())).unwrap();
                    pod.labels = pod.labels.with(key, value);
                }
                None => {
                    let namespace = self.world.namespaces.get_mut(&namespace).unwrap();
                    namespace.labels = namespace.labels.with(key, value);
                }
            }
            return;
        }
        let (text, first) = match (text.strip_prefix("+ "), text.strip_prefix("= ")) {
            (Some(rest), _) => (rest, self.world.policies.len()),
            (_, Some(rest)) => (rest, 0),
            _ => (text, 0),
        };
        for (n, policy) in split_outside(text, ';').iter().enumerate() {
            let address_of = |pod: &str| self.addresses[&place(pod)];
            let policy = kubernetes_policy(&format!("{policy} @name=p{}", first + n), &address_of);
            self.world.apply(ObjectDelta::Upsert(Object::Policy(Arc::new(policy))));
        }
    }

    /// Every pair of different pods with each probe of a state of the column "expectation".
    pub fn probes(&self, state: &str) -> Vec<Probe> {
        let mut found = Vec::new();
        for group in state.split(". ") {
            let (probe, entries) = match group.split_once(": ") {
                Some((probe, entries)) => (probe.trim(), entries),
                None => ("T80", group),
            };
            for probe in probe.split(", ") {
                for (&source, &from) in &self.addresses {
                    for (&destination, &to) in self.addresses.iter().filter(|(place, _)| **place != source) {
                        let flow = Flow { source: from, destination: to, transport: transport(probe) };
                        let allowed = expected(entries, source, destination);
                        found.push(Probe { source, destination, flow, allowed });
                    }
                }
            }
        }
        found
    }
}

fn place(text: &str) -> Place {
    let mut letters = text.chars();
    (letters.next().unwrap(), letters.next().unwrap())
}

fn transport(probe: &str) -> Transport {
    let protocol = match &probe[..1] {
        "T" => Protocol::TCP,
        "U" => Protocol::UDP,
        "S" => Protocol::SCTP,
        _ => panic!("unknown probe {probe:?}"),
    };
    Transport::Ports { protocol, source: 40000, destination: probe[1..].parse().unwrap() }
}

/// Everything ✓, then the entries from left to right override.
fn expected(entries: &str, source: Place, destination: Place) -> bool {
    let fits = |pattern: &str, place: Place| match pattern {
        "*" => true,
        _ => match pattern.strip_suffix("/*") {
            Some(namespace) => namespace.starts_with(place.0),
            None => self::place(pattern) == place,
        },
    };
    let mut verdict = true;
    for entry in entries.split(';').map(str::trim).filter(|entry| *entry != "all ✓") {
        let (sign, pair) = entry.split_once(' ').unwrap_or_else(|| panic!("unknown entry {entry:?}"));
        let (from, to) = pair.split_once('→').unwrap();
        if fits(from, source) && fits(to, destination) {
            verdict = match sign {
                "✓" => true,
                "✗" => false,
                _ => panic!("unknown sign in {entry:?}"),
            };
        }
    }
    verdict
}
