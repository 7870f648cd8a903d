//! The 48 datapath cases of the Kubernetes end-to-end tests (semantics 6), as data.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use sluice_addr::{Flow, Protocol, Transport};
use sluice_model::*;
use sluice_selector::Labels;

use crate::notation::{kubernetes_policy, split_outside};

const CASES: &str = include_str!("e2e_cases.txt");

/// A pod of the grid: namespace and name, one letter each.
type Place = (char, char);

struct Grid {
    world: World,
    addresses: BTreeMap<Place, IpAddr>,
}

impl Grid {
    fn new(places: &[Place], v6: bool) -> Self {
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
        for &(namespace, name) in places {
            let host = 10 * (namespace as u16 - 'x' as u16 + 1) + (name as u16 - 'a' as u16 + 1);
            let address: IpAddr = if v6 {
                [0xfd00, 0x10, 0, 0, 0, 0, 0, host].into()
            } else {
                [10, 42, 0, u8::try_from(host).unwrap()].into()
            };
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
                node: None,
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
    fn step(&mut self, text: &str) {
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

    /// Compares every pair of different pods with a state of the column "expectation".
    fn compare(&self, state: &str, mistakes: &mut Vec<String>) -> usize {
        let mut judged = 0;
        for group in state.split(". ") {
            let (probe, entries) = match group.split_once(": ") {
                Some((probe, entries)) => (probe.trim(), entries),
                None => ("T80", group),
            };
            for probe in probe.split(", ") {
                for (&source, &from) in &self.addresses {
                    for (&destination, &to) in self.addresses.iter().filter(|(place, _)| **place != source) {
                        let flow = Flow { source: from, destination: to, transport: transport(probe) };
                        let expected = expected(entries, source, destination);
                        let decision = decide(&self.world, &flow);
                        judged += 1;
                        if decision.is_allowed() != expected {
                            mistakes.push(format!("{source:?} → {destination:?} {probe}\n  {decision}"));
                        }
                    }
                }
            }
        }
        judged
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

#[test]
fn all_48_cases() {
    let all: Vec<Place> =
        ['x', 'y', 'z'].iter().flat_map(|ns| ['a', 'b', 'c'].map(|name| (*ns, name))).collect();
    let mut numbers = Vec::new();
    let mut judged = 0;
    let mut wrong = Vec::new();
    for row in CASES.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let columns: Vec<&str> = row.split(" | ").map(str::trim).collect();
        let [number, name, pods, policies, expectation] = columns.as_slice() else { panic!("{row:?}") };
        numbers.push(number.parse::<usize>().unwrap());
        let own: Vec<Place> = pods.split(' ').map(place).collect();
        for (places, grid_name) in [(&own, "own pods"), (&all, "full grid")] {
            for v6 in [false, true] {
                let mut grid = Grid::new(places, v6);
                let (steps, states): (Vec<_>, Vec<_>) =
                    (policies.split(" ⇒ ").collect(), expectation.split(" ⇒ ").collect());
                assert_eq!(steps.len(), states.len(), "{row:?}");
                for (step, state) in steps.iter().zip(states) {
                    grid.step(step.trim());
                    let mut mistakes = Vec::new();
                    judged += grid.compare(state, &mut mistakes);
                    for mistake in mistakes {
                        wrong.push(format!(
                            "case {number} ({name}), {grid_name}, v6: {v6}, {step}: {mistake}"
                        ));
                    }
                }
            }
        }
    }
    assert_eq!(numbers, (1..=48).collect::<Vec<_>>());
    assert!(judged > 10_000, "{judged} connections were judged");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
