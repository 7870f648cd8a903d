//! The 48 datapath cases of the Kubernetes end-to-end tests (semantics 6) by packets: every pair of pods, every probe.
//!
//! All pods are on one node, so that both legs of each connection are judged by its tables.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod harness;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use harness::capture::Network;
use harness::objects::{node_scope, plan_of};
use harness::{Cluster, NODE, sandboxed};
use sluice_model::PodKey;
use sluice_netlink::{Protocol, conntrack};
use sluice_testkit::e2e::{Grid, Place, Probe, cases, full_grid};

/// Tags begin where the kernel's own packets have nothing like them.
const FIRST_TAG: u32 = 0x51ce_0000;
/// How long a packet that must not come is waited for after all others have come.
const QUIET: Duration = Duration::from_millis(60);
/// How long a packet that should come may take.
const LIMIT: Duration = Duration::from_secs(2);

#[test]
fn all_48_cases_by_packets() {
    sandboxed("all_48_cases_by_packets", || {
        let cluster = Cluster::with_pods(9);
        let network = Network::new(&cluster);
        let mut nft = cluster.nft();
        let mut tracked = cluster.node.socket(Protocol::Netfilter);
        let (mut tag, mut observed, mut passed) = (FIRST_TAG, 0, 0);
        for (number, case) in cases().into_iter().enumerate() {
            // the pods of the row for most cases, all nine for every sixth: the evaluator and the engine run both on all
            let places: Vec<Place> = if number % 6 == 0 { full_grid() } else { case.pods.clone() };
            let mut grids = [0, 1]
                .map(|family| Grid::new(&places, Some(NODE), |index| cluster.pods[index].addresses[family]));
            for (step, state) in &case.steps {
                grids.iter_mut().for_each(|grid| grid.step(step));
                for grid in &grids {
                    let keys: Vec<PodKey> = places
                        .iter()
                        .map(|(namespace, name)| PodKey::new(namespace.to_string(), name.to_string()))
                        .collect();
                    let plan = plan_of(&grid.world, node_scope());
                    assert_eq!(nft.apply(&plan, &cluster.site(&keys)).unwrap().quarantined, []);
                    conntrack::delete_matching(&mut tracked, &conntrack::Filter::default()).unwrap();
                    let mut tags: BTreeMap<u32, Probe> = BTreeMap::new();
                    for probe in grid.probes(state) {
                        tag += 1;
                        network.open(&probe.flow, tag, 64);
                        tags.insert(tag, probe);
                    }
                    let expected: BTreeSet<u32> =
                        tags.iter().filter(|(_, probe)| probe.allowed).map(|(tag, _)| *tag).collect();
                    let mut heard = network.listen(&expected, QUIET, LIMIT);
                    // a machine under load may lose a packet; one that is dropped by rule is lost again
                    for lost in expected.difference(&heard) {
                        network.open(&tags[lost].flow, *lost, 64);
                    }
                    if !expected.is_subset(&heard) {
                        heard.extend(network.listen(&expected, QUIET, LIMIT));
                    }
                    for (tag, probe) in &tags {
                        assert_eq!(
                            heard.contains(tag),
                            probe.allowed,
                            "case {} ({}), {step}: {probe:?}",
                            case.number,
                            case.name
                        );
                        observed += 1;
                        passed += usize::from(probe.allowed);
                    }
                }
            }
        }
        println!("{observed} connections observed, {passed} passed");
        assert!(observed > 2_000 && passed > observed / 4 && passed < observed);
    });
}
