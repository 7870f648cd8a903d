//! Isolating a namespace.

use sluice_analysis::suggest::{Guest, IsolateOptions, Isolation, Keep, isolate_namespace};
use sluice_model::PodKey;

use crate::{reads_back, shown, snapshot, world};

const PODS: &str = "
    node node-1 192.168.0.1 10.42.0.0/24
    shop/web 10.42.0.1 app=web
    shop/api 10.42.0.2 app=api
    ops/client 10.42.0.9 app=client
    ingress/nginx 10.42.0.8 app.kubernetes.io/name=ingress-nginx
    kube-system/dns 10.42.0.53 k8s-app=kube-dns
";

const DNS: &str = "
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system}
spec: {selector: {k8s-app: kube-dns}, ports: [{name: dns, port: 53, protocol: UDP}]}
";

const OPEN: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: np-web, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ops}}}], ports: [{port: 80}]}]
";

const NODE_PORT: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, nodePort: 30080}]}
";

fn isolated(manifests: &[&str], options: &IsolateOptions) -> Isolation {
    let isolation = isolate_namespace(&snapshot(&world(PODS, manifests)), "shop", options).unwrap();
    reads_back(&isolation.suggestion);
    isolation
}

#[test]
fn the_default_keeps_names_and_the_namespace() {
    let isolation = isolated(&[DNS, NODE_PORT], &IsolateOptions::default());
    assert_eq!(
        isolation.suggestion.yaml(),
        "# isolates namespace shop: closes what enters and what leaves; keeps dns, namespace
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata:
  name: isolation
  namespace: shop
  labels:
    app.kubernetes.io/managed-by: sluice
spec:
  podSelector: {}
  policyTypes:
    - Ingress
    - Egress
  ingress:
    - from:
        - podSelector: {}
  egress:
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
    - to:
        - podSelector: {}
"
    );
    assert!(isolation.still_open.is_empty());
    assert_eq!(isolation.suggestion.opens().count(), 0);
    let changes = shown(&isolation.suggestion.changes);
    assert!(changes.contains("ops/client -> shop/api: -"), "{changes}");
    assert!(changes.contains("shop/web -> kube-system/dns: -"), "{changes}");
    assert!(!changes.contains("shop/web -> shop/api"), "{changes}");
    assert_eq!(isolation.services, ["shop/web"]);
}

#[test]
fn with_nothing_kept_there_are_no_rules() {
    let options = IsolateOptions { keep: Vec::new(), egress: false, ..IsolateOptions::default() };
    let isolation = isolated(&[], &options);
    let yaml = isolation.suggestion.yaml();
    assert!(yaml.ends_with("spec:\n  podSelector: {}\n  policyTypes:\n    - Ingress\n"), "{yaml}");
    let changes = shown(&isolation.suggestion.changes);
    assert!(changes.contains("shop/web -> shop/api: -") && !changes.contains("-> ops/client"), "{changes}");
}

#[test]
fn what_other_policies_admit_stays_open_and_is_said() {
    let isolation = isolated(&[DNS, OPEN], &IsolateOptions::default());
    let [open] = isolation.still_open.as_slice() else { panic!("{:#?}", isolation.still_open) };
    assert_eq!(
        (open.connection.from.to_string().as_str(), open.connection.to.to_string().as_str()),
        ("ops/client", "shop/web")
    );
    assert_eq!(open.by, ["NetworkPolicy shop/np-web spec.ingress[0] (manifest.yaml:7)"]);
    assert!(isolation.suggestion.warnings[0].contains("the namespace is not isolated"));
}

#[test]
fn guests_and_what_is_kept_may_enter() {
    let options = IsolateOptions {
        keep: Keep::ALL.to_vec(),
        guests: vec![
            Guest::Namespace("ops".into()),
            Guest::Workload(PodKey::new("kube-system", "dns")),
            Guest::Cidr("203.0.113.0/24".parse().unwrap()),
        ],
        ..IsolateOptions::default()
    };
    let isolation = isolated(&[DNS], &options);
    let yaml = isolation.suggestion.yaml();
    for part in ["cidr: 203.0.113.0/24", "ingress-nginx", "0.0.0.0/0", "- 10.42.0.0/24", "- 192.168.0.1/32"] {
        assert!(yaml.contains(part), "{part}\n{yaml}");
    }
    let changes = shown(&isolation.suggestion.changes);
    assert!(!changes.contains("ops/client -> shop/web"), "{changes}");
    assert!(!changes.contains("ingress/nginx -> shop/web"), "{changes}");
    assert!(changes.contains("shop/web -> ingress/nginx: -"), "{changes}");
    // neither a scraper nor the API is among the objects
    let warnings = isolation.suggestion.warnings.join("\n");
    assert!(warnings.contains("no scraper") && warnings.contains("the API is not kept"), "{warnings}");
}

#[test]
fn a_namespace_that_nobody_knows_is_not_isolated() {
    assert_eq!(isolate_namespace(&snapshot(&world(PODS, &[])), "nowhere", &IsolateOptions::default()), None);
}

#[test]
fn words_name_what_is_kept() {
    for keep in Keep::ALL {
        assert_eq!(keep.word().parse(), Ok(keep));
    }
    assert!("all".parse::<Keep>().unwrap_err().contains("dns, namespace"));
}
