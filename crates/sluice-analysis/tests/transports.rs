//! Sets of transports against brute force: members are as each operation says, for every kind of transport.

#![allow(clippy::unwrap_used)]

use rand::rngs::StdRng;
use rand::seq::IndexedRandom;
use rand::{Rng, SeedableRng};
use serde::{Deserialize, Serialize};
use sluice_addr::{Family, PortRange, PortSet, Protocol, Transport};
use sluice_analysis::TransportSet;
use sluice_plan::{Cause, Outcome, PortFunction, Row, TransportMatch, Verdict};
use sluice_testkit::{Case, Seeds, hold};

const CASES: u64 = 400;
const EDGES: [u16; 9] = [0, 1, 22, 79, 80, 81, 8080, 65534, 65535];
const TYPES: [u8; 6] = [0, 1, 8, 128, 254, 255];

fn ports(rng: &mut StdRng) -> PortSet {
    let range = |rng: &mut StdRng| {
        let (a, b) = (*EDGES.choose(rng).unwrap(), *EDGES.choose(rng).unwrap());
        PortRange::new(a.min(b), a.max(b)).unwrap()
    };
    (0..rng.random_range(1..=2)).map(|_| range(rng)).collect()
}

fn protocol(rng: &mut StdRng) -> Protocol {
    let all = [
        Protocol::TCP,
        Protocol::UDP,
        Protocol::SCTP,
        Protocol::UDPLITE,
        Protocol::ICMP,
        Protocol::ICMPV6,
        Protocol(4),
        Protocol(47),
        Protocol(255),
    ];
    *all.choose(rng).unwrap()
}

fn span(rng: &mut StdRng) -> (u8, u8) {
    let (a, b) = (*TYPES.choose(rng).unwrap(), *TYPES.choose(rng).unwrap());
    (a.min(b), a.max(b))
}

fn row(rng: &mut StdRng) -> TransportMatch {
    match rng.random_range(0..10) {
        0 => TransportMatch::Any,
        1..3 => TransportMatch::Protocol(protocol(rng)),
        3 => TransportMatch::NotProtocol(protocol(rng)),
        4..8 => TransportMatch::Ports {
            protocol: *Protocol::WITH_PORTS.as_slice().choose(rng).unwrap(),
            sources: if rng.random_bool(0.5) { PortSet::all() } else { ports(rng) },
            destinations: ports(rng),
        },
        _ => TransportMatch::Icmp {
            protocol: *[Protocol::ICMP, Protocol::ICMPV6].choose(rng).unwrap(),
            types: span(rng),
            codes: span(rng),
        },
    }
}

fn function(rng: &mut StdRng) -> PortFunction {
    let outcome = |rng: &mut StdRng| Outcome {
        verdict: if rng.random_bool(0.5) { Verdict::Allow } else { Verdict::Deny },
        cause: Cause::Profile("kns".into()),
    };
    let rows =
        (0..rng.random_range(0..6)).map(|_| Row { transport: row(rng), outcome: outcome(rng) }).collect();
    PortFunction { rows, otherwise: outcome(rng), logs: Vec::new() }
}

/// Every pair of edges, every kind of ICMP at the edges, and every other protocol.
fn all_transports(family: Family) -> Vec<(Protocol, Transport)> {
    let mut all = Vec::new();
    for protocol in Protocol::WITH_PORTS {
        for source in EDGES {
            for destination in EDGES {
                all.push((protocol, Transport::Ports { protocol, source, destination }));
            }
        }
    }
    for type_ in TYPES {
        for code in TYPES {
            all.push((Protocol::icmp_of(family), Transport::Icmp { type_, code }));
        }
    }
    for number in 0..=255 {
        let protocol = Protocol(number);
        if !protocol.has_ports() && protocol != Protocol::icmp_of(family) {
            all.push((protocol, Transport::Other(protocol)));
        }
    }
    all
}

/// Functions of one family.
#[derive(Serialize, Deserialize)]
struct Functions {
    family: Family,
    functions: Vec<PortFunction>,
}

impl Case for Functions {
    fn is_possible(&self) -> bool {
        let is_full = |row: &Row| match &row.transport {
            TransportMatch::Ports { sources, destinations, .. } => {
                !sources.is_empty() && !destinations.is_empty()
            }
            TransportMatch::Icmp { types, codes, .. } => types.0 <= types.1 && codes.0 <= codes.1,
            TransportMatch::Any | TransportMatch::Protocol(_) | TransportMatch::NotProtocol(_) => true,
        };
        self.functions.iter().all(|function| function.rows.iter().all(is_full))
    }
}

impl Functions {
    fn random(seed: u64, count: usize) -> Self {
        let rng = &mut StdRng::seed_from_u64(seed);
        let family = Family::BOTH[usize::from(seed % 2 == 1)];
        Functions { family, functions: (0..count).map(|_| function(rng)).collect() }
    }

    fn sets(&self) -> Vec<TransportSet> {
        self.functions.iter().map(|function| TransportSet::allowed_by(self.family, function)).collect()
    }
}

#[test]
fn allowed_by_is_the_function() {
    for seed in &Seeds::of_run(2 * CASES) {
        hold("transports", seed, &Functions::random(seed, 1), |case| {
            for (function, set) in case.functions.iter().zip(case.sets()) {
                for (protocol, transport) in all_transports(case.family) {
                    let allowed = function.decide(protocol, &transport).0.verdict == Verdict::Allow;
                    let family = case.family;
                    assert_eq!(set.contains(&transport), allowed, "{family}: {transport:?}\n{function:?}");
                }
            }
        });
    }
}

#[test]
fn operations_are_those_of_sets() {
    for seed in &Seeds::of_run(CASES) {
        hold("transports", seed, &Functions::random(seed, 2), |case| {
            let sets = case.sets();
            let [a, b] = sets.as_slice() else { return };
            let (both, either, only_a) = (a.intersect(b), a.union(b), a.subtract(b));
            for (_, t) in all_transports(case.family) {
                let (in_a, in_b) = (a.contains(&t), b.contains(&t));
                assert_eq!(both.contains(&t), in_a && in_b, "{t:?}");
                assert_eq!(either.contains(&t), in_a || in_b, "{t:?}");
                assert_eq!(only_a.contains(&t), in_a && !in_b, "{t:?}");
            }
            // exact also beyond the sampled transports
            assert!(only_a.intersect(b).is_empty());
            assert!(either.subtract(a).subtract(b).is_empty());
            assert!(a.subtract(&both.union(&only_a)).is_empty());
            assert_eq!(a.is_all(), TransportSet::all(case.family).subtract(a).is_empty());
        });
    }
}

#[test]
fn an_example_is_a_member_and_exists_iff_the_set_is_not_empty() {
    let preferred = [(Protocol::TCP, 22), (Protocol::UDP, 80)];
    let (seeds, mut empty) = (Seeds::of_run(CASES), 0);
    for seed in &seeds {
        empty += hold("transports", seed, &Functions::random(seed, 1), |case| {
            let mut empty = 0;
            for set in case.sets() {
                match set.example(&preferred) {
                    Some(example) => assert!(set.contains(&example), "{example:?}"),
                    None => {
                        assert!(set.is_empty());
                        empty += 1;
                    }
                }
                let usual = Transport::Ports { protocol: Protocol::TCP, source: 40_000, destination: 22 };
                if set.contains(&usual) {
                    assert_eq!(set.example(&preferred), Some(usual));
                }
            }
            empty
        });
    }
    assert!(empty > 0 && empty < CASES || !seeds.are_many());
}

#[test]
fn listed_protocols_and_ports() {
    let range = PortRange::new(80, 443).unwrap();
    let set = TransportSet::of(Family::V4, Protocol::TCP, Some(range));
    for (port, inside) in [(79, false), (80, true), (443, true), (444, false)] {
        assert_eq!(set.contains(&Transport::tcp(1, port)), inside);
        assert!(!set.contains(&Transport::udp(1, port)));
    }
    // a claim lists "ICMP" for both families; each has its own
    let icmp = TransportSet::of(Family::V6, Protocol::ICMP, None);
    assert!(!icmp.contains(&Transport::Icmp { type_: 128, code: 0 }));
    assert!(icmp.contains(&Transport::Other(Protocol::ICMP)));
}
