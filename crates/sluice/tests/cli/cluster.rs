//! Questions about a cluster: the embedded API over HTTPS, without a kernel's help.

use std::path::Path;

use sluice_apiserver::{Running, Server, ServerConfig};
use tokio::runtime::Runtime;

use crate::{run, text};

pub(crate) const OBJECTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: backup, namespace: shop, labels: {app: backup}}
spec: {containers: [{name: c, image: i}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db, namespace: shop, labels: {app: db}}
spec: {containers: [{name: c, image: i}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: db, namespace: shop}
spec: {podSelector: {matchLabels: {app: db}}, ingress: [{from: [{podSelector: {matchLabels: {app: backup}}}], ports: [{port: 5432}]}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nobody, namespace: shop}
spec: {podSelector: {matchLabels: {app: gone}}, policyTypes: [Ingress]}
";

/// An API with the objects, as long as it is held.
pub(crate) struct Cluster {
    runtime: Runtime,
    running: Option<Running>,
    folder: tempfile::TempDir,
}

impl Cluster {
    pub(crate) fn start() -> Cluster {
        let runtime = Runtime::new().expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder");
        let config = ServerConfig::new(folder.path().join("api"));
        let running = runtime.block_on(Server::start(config)).expect("a server");
        let cluster = Cluster { runtime, running: Some(running), folder };
        let applied = cluster.ask(&["apply", "-f", "-"], OBJECTS);
        assert!(applied.status.success(), "{}", text(&applied.stderr));
        cluster
    }

    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.running.as_ref().expect("it runs").kubeconfig
    }

    pub(crate) fn ask(&self, arguments: &[&str], input: &str) -> std::process::Output {
        let kubeconfig = self.kubeconfig().to_str().expect("UTF-8");
        run(&[arguments, &["--kubeconfig", kubeconfig]].concat(), input)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            self.runtime.block_on(running.stop());
        }
    }
}

#[test]
fn a_cluster_is_asked_as_manifests_are() {
    let cluster = Cluster::start();
    let output = cluster.ask(&["can", "shop/backup", "shop/db", "--port", "5432/TCP"], "");
    assert_eq!(output.status.code(), Some(0), "{}{}", text(&output.stdout), text(&output.stderr));
    let output = cluster.ask(&["can", "shop/backup", "shop/db", "--port", "80/TCP", "-q"], "");
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(1), ""));
    let output = cluster.ask(&["reach", "--to", "shop/db", "-o", "csv"], "");
    assert!(
        text(&output.stdout).contains("\"shop/backup\",\"shop/db\",\"IPv4\",\"TCP 5432\""),
        "{}{}",
        text(&output.stdout),
        text(&output.stderr)
    );
}

pub(crate) const CLAIM: &str = "
apiVersion: sluice.dev/v1alpha1
kind: ConnectivityClaim
metadata: {name: only-backup}
spec:
  text: only the backup reaches the database
  from: [{namespaceSelector: {}}]
  to: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: shop}}, podSelector: {matchLabels: {app: db}}}]
  ports: [{protocol: TCP, port: 5432}]
  expect: AllowOnly
";

/// Each command without -f, against the same API.
#[test]
fn every_question_can_be_asked_of_a_cluster() {
    let cluster = Cluster::start();
    let folder = cluster.folder.path().join("evidence");
    let folder = folder.to_str().expect("UTF-8");
    let policy = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: closed, namespace: shop}\nspec: {podSelector: {}, policyTypes: [Ingress, Egress]}\n";
    let flow = "{\"from\":\"shop/backup\",\"to\":\"shop/db\",\"protocol\":\"TCP\",\"port\":5432}\n";
    for (arguments, input, code, expected) in [
        (vec!["verify", "-"], CLAIM, 0, "holds"),
        (vec!["eval", "--flows", "-"], flow, 0, "\"verdict\":\"Allow\""),
        (vec!["explain", "shop/backup", "shop/db", "--port", "80/TCP"], "", 1, "NetworkPolicy shop/db"),
        (vec!["reach", "--exposure", "shop/db"], "", 0, "shop/db"),
        (vec!["lint"], "", 1, "NetworkPolicy shop/nobody"),
        (vec!["suggest", "shop/backup", "shop/db", "--port", "80/TCP"], "", 0, "kind: NetworkPolicy"),
        (vec!["isolate", "ns", "shop", "--dry-run"], "", 0, "kind: NetworkPolicy"),
        (vec!["diff", "-"], policy, 1, "closed"),
        (vec!["diff", "cluster", "cluster"], "", 0, ""),
        (vec!["dump"], "", 0, "shop/db"),
        (vec!["evidence", "-", "--out", folder], CLAIM, 0, "evidence.json"),
    ] {
        let output = cluster.ask(&arguments, input);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {out}{err}");
        assert!(out.contains(expected), "{arguments:?}: {out}{err}");
    }
    let checked = run(&["evidence", "check", folder], "");
    assert_eq!(checked.status.code(), Some(0), "{}", text(&checked.stdout));
    let bundle = std::fs::read_to_string(format!("{folder}/evidence.json")).expect("the bundle");
    assert!(bundle.contains("\"namespacesAreComplete\": true"), "a cluster has all its namespaces");
}

#[test]
fn a_context_says_the_namespace_and_flags_say_who_asks() {
    let cluster = Cluster::start();
    let config = std::fs::read_to_string(cluster.kubeconfig()).expect("a kubeconfig");
    let mut config: serde_json::Value = serde_yaml_ng::from_str(&config).expect("YAML");
    config["contexts"][0]["context"]["namespace"] = "shop".into();
    let path = cluster.folder.path().join("shop.kubeconfig");
    std::fs::write(&path, config.to_string()).expect("written");
    let path = path.to_str().expect("UTF-8");
    let get = run(&["get", "pods", "--kubeconfig", path], "");
    assert!(text(&get.stdout).contains("db"), "{}{}", text(&get.stdout), text(&get.stderr));
    let can = run(&["can", "shop/backup", "db", "--port", "5432/TCP", "--kubeconfig", path], "");
    assert_eq!(can.status.code(), Some(0), "{}{}", text(&can.stdout), text(&can.stderr));
    // nobody may act as somebody without rights and still read
    let stranger = run(&["get", "pods", "--kubeconfig", path, "--as", "stranger"], "");
    assert_eq!(stranger.status.code(), Some(2), "{}", text(&stranger.stdout));
    let nowhere = run(
        &["get", "pods", "--kubeconfig", path, "--server", "https://127.0.0.1:1", "--request-timeout", "2s"],
        "",
    );
    assert_eq!(nowhere.status.code(), Some(2));
    let none = run(&["get", "pods", "--kubeconfig", path, "--context", "none"], "");
    assert_eq!(none.status.code(), Some(2));
    assert!(text(&none.stderr).starts_with("error: cannot read kubeconfig"), "{}", text(&none.stderr));
}

#[test]
fn codes_are_explained_offline_and_colours_are_chosen() {
    let page = run(&["help", "sl1021"], "");
    assert!(
        page.status.success() && text(&page.stdout).starts_with("# SL1021: egress is isolated without DNS")
    );
    assert!(text(&run(&["help", "reach"], "").stdout).contains("--exposure"));
    assert_eq!(run(&["help", "SL9999"], "").status.code(), Some(2));
    let pods = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: shop}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: b, namespace: shop}\n";
    let coloured = run(&["can", "shop/a", "shop/b", "-f", "-", "--color", "always"], pods);
    assert!(text(&coloured.stdout).starts_with("\u{1b}["), "{}", text(&coloured.stdout));
    assert!(!text(&run(&["can", "shop/a", "shop/b", "-f", "-"], pods).stdout).contains('\u{1b}'));
}

#[test]
fn a_plugin_of_kubectl_is_called_by_kubectls_name() {
    let folder = tempfile::tempdir().expect("a folder");
    let link = folder.path().join("kubectl-sluice");
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sluice"), &link).expect("a link");
    let help = std::process::Command::new(&link).args(["can", "--help"]).output().expect("it runs");
    assert!(text(&help.stdout).contains("Usage: kubectl sluice can"), "{}", text(&help.stdout));
}
