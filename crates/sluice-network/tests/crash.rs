//! Death at any moment, and many at once.
#![allow(clippy::unwrap_used, reason = "functions of tests")]

mod cluster;
mod harness;

use std::io::{BufRead, BufReader};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use cluster::Node;
use harness::{ANSWER, Netns, sandboxed};
use sluice_network::attach::{Network, NetworkConfig};
use sluice_network::netns::DirectNamespaces;
use sluice_network::store::Phase;

const VICTIM: &str = "SLUICE_NETWORK_VICTIM";

/// Not a test of its own: what the killed process does, over and over. Without the variable there is nothing to do.
#[test]
fn victim() {
    let Ok(arguments) = std::env::var(VICTIM) else { return };
    let [node, pod, directory] = arguments.split('\n').collect::<Vec<_>>()[..] else { panic!("three") };
    let open = |path: &str| OwnedFd::from(std::fs::File::open(path).unwrap());
    let namespaces = Arc::new(DirectNamespaces::of_node(open(node)));
    let (network, _) = Network::open(NetworkConfig::default(), namespaces, Path::new(directory)).unwrap();
    let (pod, id) = (Netns::adopt(open(pod)), cluster::id("victim"));
    println!("ready");
    loop {
        let prepared = network.prepare(&cluster::request(&id, &pod)).unwrap();
        network.complete(prepared).unwrap();
        network.detach(&id).unwrap();
    }
}

fn spawn_victim(node: &Node, pod: &Netns) -> Child {
    let path = |ns: &Netns| format!("/proc/{}/fd/{}", std::process::id(), ns.fd().as_raw_fd());
    let arguments = format!("{}\n{}\n{}", path(&node.ns), path(pod), node.directory().display());
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["victim", "--exact", "--nocapture", "--test-threads=1"])
        .env(VICTIM, arguments)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("ready")));
    child
}

#[test]
fn kill_9_at_any_moment_leaves_what_the_next_opener_repairs() {
    sandboxed("kill_9_at_any_moment_leaves_what_the_next_opener_repairs", || {
        let mut node = Node::alone();
        let survivor = node.pod("survivor");
        let before = node.everything();
        let pod = Netns::new();
        let (mut rolled_back, mut phases) = (0, std::collections::BTreeSet::new());
        for round in 0..40u32 {
            let mut child = spawn_victim(&node, &pod);
            // Another moment of the cycle, which takes some ten milliseconds, in each round.
            let moment = Instant::now() + Duration::from_micros(u64::from(round) * 977);
            while Instant::now() < moment {
                std::hint::spin_loop();
            }
            child.kill().unwrap();
            child.wait().unwrap();
            phases.extend(node.network.entries().unwrap().into_iter().map(|e| e.phase.name()));

            let recovery = node.restart();
            rolled_back += recovery.rolled_back.len();
            assert_eq!(recovery.events, []);
            assert_eq!(
                (recovery.adopted, recovery.removed_links),
                (vec![], vec![]),
                "intents know everything"
            );
            let entries = node.network.entries().unwrap();
            assert!(entries.iter().all(|e| e.phase == Phase::Committed));
            // At most the victim's complete attachment is left, which DEL removes.
            assert!(entries.len() <= 2);
            node.network.detach(&cluster::id("victim")).unwrap();
            assert_eq!(node.everything(), before, "round {round}");
            assert!(!pod.ip("-o link show").contains("eth0"), "round {round}");
        }
        println!("{rolled_back} of 40 rolled back; seen: {phases:?}");
        assert!(rolled_back > 0);
        assert!(node.ns.ping(survivor.addresses()[0], ANSWER));
        let again = node.pod("victim");
        assert!(survivor.ns.ping(again.addresses()[0], ANSWER));
    });
}

#[test]
fn a_hundred_pods_at_once_get_a_hundred_addresses() {
    sandboxed("a_hundred_pods_at_once_get_a_hundred_addresses", || {
        let node = Node::alone();
        let before = node.everything();
        let begin = Instant::now();
        let pods: Vec<_> = std::thread::scope(|scope| {
            let threads: Vec<_> = (0..100)
                .map(|n| {
                    scope.spawn({
                        let node = &node;
                        move || node.pod(&format!("p{n}"))
                    })
                })
                .collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        println!("100 pods in {:?}", begin.elapsed());
        let addresses: std::collections::BTreeSet<_> =
            pods.iter().flat_map(cluster::Pod::addresses).collect();
        assert_eq!(addresses.len(), 200);
        assert!(pods[0].ns.ping(pods[99].addresses()[0], ANSWER));
        assert_eq!(node.network.repair().unwrap(), Default::default());
        std::thread::scope(|scope| {
            for pod in &pods {
                scope.spawn(|| node.network.detach(&pod.attachment.id).unwrap().unwrap());
            }
        });
        assert_eq!(node.everything(), before);
    });
}
