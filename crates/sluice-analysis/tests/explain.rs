//! Explanations: the evaluator's own trace, on what a connection can see; Services; the text.

#![allow(clippy::unwrap_used)]

mod common;

use common::{POLICY_A, POLICY_B, add, ip, world};
use rand::SeedableRng;
use rand::rngs::StdRng;
use sluice_addr::{Flow, Protocol, Transport};
use sluice_analysis::{Snapshot, explain};
use sluice_model::{Circumstances, NamedPort, PodKey, World, decide_in};
use sluice_report::{Answer, Explanation};
use sluice_testkit::{Seeds, Situation, hold, random_flow, random_world, replay};

const WORLDS: u64 = 200;
const FLOWS: usize = 40;

/// How many connections are allowed, and how many denied.
fn explained(case: &Situation) -> (usize, usize) {
    let (mut allowed, mut denied) = (0, 0);
    let world = case.world();
    let snapshot = Snapshot::new(world.clone());
    for (number, flow) in case.flows.iter().enumerate() {
        let circumstances = Circumstances { through_service: number % 4 == 0, ..Circumstances::default() };
        let full = decide_in(&world, flow, &circumstances);
        assert_eq!(snapshot.decide(flow, &circumstances), full, "{flow}");
        let can = snapshot.can(flow);
        if number % 4 != 0 {
            assert_eq!(can == Answer::Allow, full.is_allowed(), "{flow}");
        }
        let explanation = explain(&snapshot, flow, &circumstances);
        let text = serde_json::to_string(&explanation).unwrap();
        assert_eq!(serde_json::from_str::<Explanation>(&text).unwrap(), explanation);
        for leg in explanation.paths.iter().flat_map(|path| &path.legs) {
            let misses = leg.tiers.iter().flat_map(|t| &t.policies).flat_map(|p| &p.rules);
            for failed in misses.flat_map(|rule| &rule.failed) {
                assert!(!failed.needs.is_empty() && !failed.found.is_empty(), "{failed:?}");
            }
        }
        *(if full.is_allowed() { &mut allowed } else { &mut denied }) += 1;
    }
    (allowed, denied)
}

#[test]
fn what_a_connection_can_see_decides_as_everything_does() {
    replay(env!("CARGO_MANIFEST_DIR"), "agreement", explained);
    let (seeds, mut allowed, mut denied) = (Seeds::of_run(WORLDS), 0, 0);
    for seed in &seeds {
        let rng = &mut StdRng::seed_from_u64(seed);
        let world = random_world(rng);
        let flows: Vec<Flow> = (0..FLOWS).map(|_| random_flow(rng, &world)).collect();
        let here = hold("agreement", seed, &Situation::new(&world, flows), explained);
        allowed += here.0;
        denied += here.1;
    }
    assert!(allowed > 1_000 && denied > 1_000 || !seeds.are_many(), "{allowed} {denied}");
}

fn text(policies: &[&str], more: &str, from: &str, to: &str, port: u16) -> String {
    let mut world = world(policies);
    if !more.is_empty() {
        add(&mut world, more);
    }
    let flow = Flow::tcp(ip(from), ip(to), port);
    explain(&Snapshot::new(world), &flow, &Circumstances::default()).text()
}

/// Compares with a file of `tests/golden`, or writes it with `UPDATE_GOLDENS=1`.
fn check(found: &str, name: &str) {
    let path = format!("{}/tests/golden/{name}.txt", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_GOLDENS").is_some() {
        std::fs::write(&path, found).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap();
    assert_eq!(found, expected, "\n{found}");
}

#[test]
fn a_denial_names_policy_rule_line_and_what_is_needed() {
    let policy = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: isolated-ns}
spec:
  podSelector: {}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {role: client}}}]
    ports: [{port: 80}]
  - from: [{ipBlock: {cidr: 192.168.0.0/16}}]
    ports: [{port: 443}]
";
    check(&text(&[], policy, "10.42.0.3", "10.42.0.2", 80), "explain-nearest");
}

#[test]
fn a_service_is_explained_at_each_backend() {
    let objects = "
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata: {name: pods, namespace: isolated-ns}
  spec: {clusterIP: 10.43.0.9, clusterIPs: [10.43.0.9], type: NodePort, ports: [{port: 80, targetPort: 8080, nodePort: 30080}]}
- apiVersion: discovery.k8s.io/v1
  kind: EndpointSlice
  metadata: {name: pods-1, namespace: isolated-ns, labels: {kubernetes.io/service-name: pods}}
  addressType: IPv4
  ports: [{port: 8080}]
  endpoints: [{addresses: [10.42.0.2]}, {addresses: [10.42.1.2]}]
";
    check(&text(&[POLICY_A, POLICY_B], objects, "10.42.0.3", "10.43.0.9", 80), "explain-service");
    check(&text(&[POLICY_A], objects, "203.0.113.10", "172.30.0.11", 30080), "explain-node-port");
    check(&text(&[POLICY_A], objects, "10.42.0.3", "10.43.0.9", 81), "explain-no-port");
}

#[test]
fn a_pod_of_a_namespace_that_a_cluster_does_not_have_is_closed() {
    let mut world = world(&[]);
    let (from, to) = (ip("203.0.113.10"), world.pods.values().next().unwrap().addresses[0]);
    let namespace = world.pods.values().next().unwrap().key.namespace.clone();
    world.namespaces.remove(&namespace);
    let flow = Flow { source: from, destination: to, transport: Transport::Other(Protocol(47)) };
    let circumstances = Circumstances::default();
    for (snapshot, expected) in
        [(Snapshot::new(world.clone()), Answer::Allow), (Snapshot::of_cluster(world.clone()), Answer::Deny)]
    {
        assert_eq!(snapshot.can(&flow), expected);
        assert_eq!(explain(&snapshot, &flow, &circumstances).verdict, expected);
    }
}

/// A Service without EndpointSlices in a namespace whose pods admit one client from outside, by its address.
fn exposed(policy: &str) -> World {
    let mut world = world(&[]);
    for key in ["debian-pod-1", "debian-pod-2"] {
        let pod = world.pods.get_mut(&PodKey::new("isolated-ns", key)).unwrap();
        pod.labels = sluice_selector::Labels::from_iter([("app", "web")]);
        let web = NamedPort { name: "web".into(), protocol: Protocol::TCP, port: 8080 };
        pod.named_ports = if key == "debian-pod-1" { vec![web] } else { vec![] };
    }
    let objects = format!(
        "
apiVersion: v1
kind: List
items:
- apiVersion: v1
  kind: Service
  metadata: {{name: web, namespace: isolated-ns}}
  spec: {{clusterIP: 10.43.0.9, externalIPs: [192.0.2.80], externalTrafficPolicy: {policy}, selector: {{app: web}},
    ports: [{{name: named, port: 80, targetPort: web, nodePort: 30080}}, {{name: number, port: 81, targetPort: 9090}}, {{name: same, port: 82}}]}}
- apiVersion: networking.k8s.io/v1
  kind: NetworkPolicy
  metadata: {{name: client, namespace: isolated-ns}}
  spec: {{podSelector: {{}}, ingress: [{{from: [{{ipBlock: {{cidr: 203.0.113.0/24}}}}]}}]}}
"
    );
    add(&mut world, &objects);
    world
}

#[test]
fn backends_without_slices_are_those_of_the_target_port() {
    let snapshot = Snapshot::new(exposed("Cluster"));
    let asked = |port| {
        let flow = Flow::tcp(ip("10.42.0.3"), ip("10.43.0.9"), port);
        let found = explain(&snapshot, &flow, &Circumstances::default());
        let to = found.paths.iter().map(|path| (path.to.clone(), path.flow.destination_port().unwrap()));
        to.collect::<Vec<_>>()
    };
    let both =
        |port| ["isolated-ns/debian-pod-1", "isolated-ns/debian-pod-2"].map(|pod| (pod.to_owned(), port));
    assert_eq!(asked(80), both(8080)[..1], "one declares the name");
    assert_eq!(asked(81), both(9090));
    assert_eq!(asked(82), both(82));
}

#[test]
fn the_client_keeps_its_address_where_nodes_serve_their_own_backends() {
    let judged = |policy, to, port| {
        let snapshot = Snapshot::new(exposed(policy));
        let flow = Flow::tcp(ip("203.0.113.10"), ip(to), port);
        let found = explain(&snapshot, &flow, &Circumstances::default());
        (
            found.verdict,
            found.paths.len(),
            [found.missing, found.paths.into_iter().flat_map(|p| p.missing).collect()].concat(),
        )
    };
    // by an external address any node may be entered
    let (verdict, paths, missing) = judged("Cluster", "192.0.2.80", 82);
    assert_eq!((verdict, paths), (Answer::Undecided, 2));
    assert_eq!(missing[0], "by which node it enters the cluster");
    assert_eq!(judged("Local", "192.0.2.80", 82), (Answer::Allow, 2, vec![]));
    // the one backend of the node port runs on node-1
    assert_eq!(judged("Cluster", "172.30.0.12", 30080), (Answer::Deny, 1, vec![]));
    assert_eq!(judged("Local", "172.30.0.11", 30080), (Answer::Allow, 1, vec![]));
    let (verdict, paths, missing) = judged("Local", "172.30.0.12", 30080);
    assert_eq!((verdict, paths), (Answer::Undecided, 0));
    assert_eq!(
        missing,
        ["Service isolated-ns/web has externalTrafficPolicy Local and no ready backend on node node-2"]
    );
}
