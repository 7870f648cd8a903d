//! Observed flows.

use sluice_analysis::suggest::{RecordOptions, suggest_from_records};
use sluice_model::decide;
use sluice_report::FlowQuestion;

use crate::{applied, flow, shown, single, snapshot, world};

const PODS: &str = "
    node node-1 192.168.0.1 10.42.0.0/24
    shop/web-5c-a 10.42.0.1 app=web owner=StatefulSet/web
    shop/web-5c-b 10.42.0.2 app=web owner=StatefulSet/web
    shop/api 10.42.0.3 app=api
    shop/db 10.42.0.4 app=db
    ops/client 10.42.0.9 app=client
    kube-system/dns 10.42.0.53 k8s-app=kube-dns
";

const SERVICES: &str = "
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec: {clusterIP: 10.43.0.10, selector: {k8s-app: kube-dns}, ports: [{name: dns, port: 53, protocol: UDP}]}
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop}
spec: {clusterIP: 10.43.0.20, selector: {app: api}, ports: [{name: http, port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: api-1, namespace: shop, labels: {kubernetes.io/service-name: api}}
addressType: IPv4
endpoints: [{addresses: [10.42.0.3]}]
ports: [{name: http, port: 8080}]
";

fn records(text: &str) -> Vec<FlowQuestion> {
    let line = |line: &str| -> Option<FlowQuestion> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [from, to, protocol, port] = words.as_slice() else { return None };
        Some(FlowQuestion {
            id: None,
            from: (*from).into(),
            to: (*to).into(),
            protocol: (*protocol).into(),
            port: port.parse().ok(),
            source_port: None,
            type_: None,
            code: None,
        })
    };
    text.lines().filter_map(line).collect()
}

#[test]
fn every_workload_gets_what_it_was_seen_to_do_and_names() {
    let world = world(PODS, &[SERVICES]);
    let snapshot = snapshot(&world);
    // through the Service, by address, by the name of a pod that is gone
    let records = records(
        "shop/web-5c-a 10.43.0.20 TCP 80
         10.42.0.2 shop/api TCP 8081
         shop/web-5c-zz 203.0.113.9 TCP 443
         shop/api shop/db TCP 5432",
    );
    let options =
        RecordOptions { outside: vec!["203.0.113.0/24".parse().unwrap()], ..RecordOptions::default() };
    let advice = suggest_from_records(&snapshot, &records, &options);
    let suggestion = single(&advice);
    assert_eq!(advice.notes, Vec::<String>::new());
    let names: Vec<&str> = suggestion.policies.iter().map(|own| &*own.policy.key.name).collect();
    assert_eq!(names, ["api-observed", "db-observed", "web-observed"]);
    let web = suggestion.yaml().split("---\n").last().unwrap().to_owned();
    assert_eq!(
        web,
        "# what shop/statefulset/web was seen to do
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: web-observed
  namespace: shop
spec:
  podSelector:
    matchLabels:
      app: web
  policyTypes:
    - Ingress
    - Egress
  egress:
    - to:
        - ipBlock:
            cidr: 203.0.113.0/24
      ports:
        - protocol: TCP
          port: 443
    - to:
        - podSelector:
            matchLabels:
              app: api
      ports:
        - protocol: TCP
          port: 8080
          endPort: 8081
    - to:
        - namespaceSelector:
            matchLabels:
              kubernetes.io/metadata.name: kube-system
          podSelector:
            matchLabels:
              k8s-app: kube-dns
      ports:
        - protocol: UDP
          port: 53
        - protocol: TCP
          port: 53
"
    );
    let after = applied(&world, suggestion);
    for (asked, expected) in [
        ("TCP 10.42.0.1:1 -> 10.42.0.3:8080", true),
        ("TCP 10.42.0.2:1 -> 10.42.0.3:8081", true),
        ("TCP 10.42.0.2:1 -> 10.42.0.3:8082", false),
        ("TCP 10.42.0.1:1 -> 203.0.113.77:443", true),
        ("TCP 10.42.0.1:1 -> 198.51.100.1:443", false),
        ("TCP 10.42.0.3:1 -> 10.42.0.4:5432", true),
        ("TCP 10.42.0.1:1 -> 10.42.0.4:5432", false),
        ("UDP 10.42.0.4:1 -> 10.42.0.53:53", true),
        ("TCP 10.42.0.9:1 -> 10.42.0.3:8080", false),
        ("TCP 10.42.0.9:1 -> 10.42.0.53:80", true),
    ] {
        assert_eq!(decide(&after, &flow(asked)).is_allowed(), expected, "{asked}");
    }
    assert_eq!(suggestion.opens().count(), 0, "{}", shown(&suggestion.changes));
}

#[test]
fn what_cannot_be_read_is_said() {
    let world = world(PODS, &[SERVICES]);
    let snapshot = snapshot(&world);
    let records = records(
        "shop/web-5c-a shop/gone TCP 80
         shop/web-5c-a shop/api ICMP -
         shop/web-5c-a 10.43.0.20 TCP 81
         shop/web-5c-a shop/api TCP -
         198.51.100.1 198.51.100.2 TCP 80",
    );
    let advice = suggest_from_records(&snapshot, &records, &RecordOptions::default());
    assert!(advice.alternatives.is_empty());
    for (note, part) in advice.notes.iter().zip([
        "no record names a workload",
        "record 1 is left out: no pod or workload \"shop/gone\"",
        "record 2 is left out: a Kubernetes NetworkPolicy cannot name ICMP",
        "record 3 is left out: Service shop/api has no port 81/TCP",
        "record 4 is left out: TCP needs a port",
    ]) {
        assert!(note.contains(part), "{note} / {part}");
    }
    assert_eq!(advice.notes.len(), 5);
}

#[test]
fn an_observed_flow_that_another_policy_denies_is_said() {
    let deny = "
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: no-db}
spec: {order: 1, selector: app == 'db', types: [Ingress], ingress: [{action: Deny}]}
";
    let world = world(PODS, &[SERVICES, deny]);
    let advice = suggest_from_records(
        &snapshot(&world),
        &records("shop/api shop/db TCP 5432"),
        &RecordOptions::default(),
    );
    assert!(
        advice.notes[0].contains("was observed and is denied by another policy even so"),
        "{:?}",
        advice.notes
    );
}
