//! kubectl against the server, with every version at hand that issue and specification name.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use crate::support::{TestServer, node, start, start_with};
use serde_json::{Value, json};

/// kubectl binaries: the one on PATH and its versioned neighbours from 1.30 on.
fn kubectls() -> Vec<PathBuf> {
    let Some(path) = std::env::var_os("PATH") else { return Vec::new() };
    let Some(main) = std::env::split_paths(&path).map(|d| d.join("kubectl")).find(|p| p.is_file()) else {
        return Vec::new();
    };
    let mut out = vec![main.clone()];
    if let Ok(real) = main.canonicalize()
        && let Some(directory) = real.parent()
    {
        out.extend(
            ["1.30", "1.31", "1.32", "1.33"]
                .map(|v| directory.join(format!("kubectl.{v}")))
                .into_iter()
                .filter(|p| p.is_file()),
        );
    }
    out
}

struct Kubectl<'a> {
    binary: &'a Path,
    server: &'a TestServer,
}

impl Kubectl<'_> {
    fn command(&self, line: &str) -> Command {
        let mut command = Command::new(self.binary);
        command
            .arg("--kubeconfig")
            .arg(&self.server.running.kubeconfig)
            .arg("--cache-dir")
            .arg(self.server.directory.path().join("cache"))
            .args(line.split(' '))
            .stdin(Stdio::null());
        command
    }

    fn run(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// Standard output of a command that must succeed.
    fn ok(&self, line: &str) -> String {
        let out = self.run(line);
        let text = String::from_utf8_lossy(&out.stdout).into_owned();
        assert!(
            out.status.success(),
            "{} {line}\n{text}{}",
            self.binary.display(),
            String::from_utf8_lossy(&out.stderr)
        );
        text
    }

    /// Standard error of a command that must fail.
    fn fails(&self, line: &str) -> String {
        let out = self.run(line);
        assert!(!out.status.success(), "{line} succeeded: {}", String::from_utf8_lossy(&out.stdout));
        String::from_utf8_lossy(&out.stderr).into_owned()
    }

    fn file(&self, name: &str, content: &str) -> String {
        let path = self.server.directory.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }
}

const PODS: &str = r#"
apiVersion: v1
kind: Namespace
metadata: {name: isolated-ns}
---
apiVersion: v1
kind: Pod
metadata: {name: debian-pod-1, namespace: isolated-ns, labels: {app: debian1}}
spec:
  containers:
  - {name: debian, image: "debian:12", command: ["/bin/sh", "-c", "sleep infinity"]}
---
apiVersion: v1
kind: Pod
metadata: {name: debian-pod-2, namespace: isolated-ns, labels: {app: debian2}}
spec:
  containers:
  - {name: debian, image: "debian:12", command: ["/bin/sh", "-c", "sleep infinity"]}
"#;

const SMALL: &str = r#"
apiVersion: v1
kind: ConfigMap
metadata: {name: settings, namespace: isolated-ns}
data: {a: b}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: isolated-ns}
spec: {selector: {app: debian1}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: robot, namespace: isolated-ns}
"#;

const POLICY: &str = r#"
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: full-isolation, namespace: isolated-ns}
spec:
  podSelector: {}
  policyTypes: [Ingress, Egress]
  ingress: []
  egress:
  - to: [{ipBlock: {cidr: 0.0.0.0/0}}]
"#;

const GLOBAL: &str = r#"
apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: deny-all}
spec: {selector: all(), types: [Ingress, Egress], ingress: [], egress: []}
"#;

/// What a sandbox manager would report.
async fn make_ready(server: &TestServer, name: &str, ip: &str) {
    let api = server.admin();
    let base = format!("/api/v1/namespaces/isolated-ns/pods/{name}");
    until(server, &base, |pod| pod["spec"]["nodeName"].is_string()).await;
    let now = "2026-01-02T03:04:05Z";
    let status = json!({"status": {
        "phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}],
        "conditions": [{"type": "Ready", "status": "True"}],
        "containerStatuses": [{"name": "debian", "ready": true, "restartCount": 0, "image": "debian:12", "imageID": "",
                               "started": true, "state": {"running": {"startedAt": now}}}],
    }});
    api.call("PATCH", &format!("{base}/status"), Some(&status)).await.unwrap();
}

async fn scenario(k: &Kubectl<'_>) {
    let (pods, policy, global) =
        (k.file("pods.yaml", PODS), k.file("policy.yaml", POLICY), k.file("global.yaml", GLOBAL));
    let out = k.ok(&format!("apply -f {pods}"));
    assert!(
        out.contains("namespace/isolated-ns created") && out.contains("pod/debian-pod-2 created"),
        "{out}"
    );
    let out = k.ok(&format!("apply -f {pods}"));
    assert_eq!(out.matches("unchanged").count(), 3, "{out}");

    make_ready(k.server, "debian-pod-1", "10.42.0.2").await;
    make_ready(k.server, "debian-pod-2", "10.42.0.3").await;
    let out = k.ok("wait -n isolated-ns --for=condition=Ready pod --all --timeout=20s");
    assert_eq!(out.matches("condition met").count(), 2, "{out}");
    let out = k.ok("get pods -n isolated-ns -o wide");
    assert!(out.contains("NOMINATED NODE") && out.contains("10.42.0.3") && out.contains("node-1"), "{out}");
    assert!(out.contains("1/1") && out.contains("Running"), "{out}");
    assert!(k.ok("get po -A").contains("isolated-ns"));
    let out = k.ok("get pods -n isolated-ns -l app=debian1 -o name");
    assert_eq!(out.trim(), "pod/debian-pod-1");
    let out = k.ok(
        "get pods -n isolated-ns --field-selector spec.nodeName=node-1 -o jsonpath={.items[*].status.podIP}",
    );
    assert_eq!(out, "10.42.0.2 10.42.0.3");
    let out: Value = serde_json::from_str(&k.ok("get pod debian-pod-1 -n isolated-ns -o json")).unwrap();
    assert_eq!(out["kind"], "Pod");
    assert!(k.ok("get pods -n isolated-ns -o yaml --chunk-size=1").contains("debian-pod-2"));
    let out = k.ok("describe pod debian-pod-1 -n isolated-ns");
    assert!(out.contains("debian:12") && out.contains("10.42.0.2"), "{out}");

    // Policies of both kinds: created, unchanged, changed, described.
    let out = k.ok(&format!("apply -f {policy} -f {global}"));
    assert_eq!(out.matches("created").count(), 2, "{out}");
    let out = k.ok(&format!("apply -f {policy} -f {global}"));
    assert_eq!(out.matches("unchanged").count(), 2, "{out}");
    let changed = k.file("policy.yaml", &POLICY.replace("0.0.0.0/0", "10.0.0.0/8"));
    assert!(k.ok(&format!("apply -f {changed}")).contains("configured"));
    let changed = k.file("global.yaml", &GLOBAL.replace("selector: all()", "order: 1, selector: all()"));
    assert!(k.ok(&format!("apply -f {changed}")).contains("configured"));
    assert!(k.ok("get netpol -n isolated-ns").contains("POD-SELECTOR"));
    assert!(k.ok("get networkpolicies -n isolated-ns -o yaml").contains("networking.k8s.io/v1"));
    assert!(k.ok("get gnp deny-all -o jsonpath={.spec.order}").contains('1'));
    assert!(k.ok("describe netpol full-isolation -n isolated-ns").contains("10.0.0.0/8"));
    let out = k.ok("describe gnp deny-all");
    assert!(out.contains("Selector:") && out.contains("all()"), "{out}");
    assert!(k.ok("describe ns isolated-ns").contains("Active"));
    assert!(k.ok("describe node node-1").contains("node-1"));

    // Streams.
    assert_eq!(k.ok("exec -n isolated-ns debian-pod-1 -- echo hello there"), "hello there\n");
    let out = k.run("exec -n isolated-ns debian-pod-1 -- exit 3");
    assert_eq!(out.status.code(), Some(3), "{}", String::from_utf8_lossy(&out.stderr));
    assert!(String::from_utf8_lossy(&out.stderr).contains("leaving"));
    let mut child = k.command("exec -i -n isolated-ns debian-pod-1 -- cat");
    let mut child = child.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"through stdin").unwrap();
    assert_eq!(child.wait_with_output().unwrap().stdout, b"through stdin");
    assert!(k.fails("exec -n isolated-ns debian-pod-1 -- nonsense").contains("no program"));
    assert_eq!(k.ok("logs -n isolated-ns debian-pod-1 --tail=1"), "three\n");
    assert!(k.ok("logs -n isolated-ns debian-pod-1 -f").starts_with("one debian"));

    // Edits.
    assert!(k.ok("label pod debian-pod-1 -n isolated-ns tier=back").contains("labeled"));
    assert!(k.ok("annotate pod debian-pod-1 -n isolated-ns note=x").contains("annotated"));
    assert!(k.ok("label pod debian-pod-1 -n isolated-ns tier-").contains("unlabeled"));
    for (kind, patch) in [
        ("strategic", r#"{"metadata":{"labels":{"p":"1"}}}"#),
        ("merge", r#"{"metadata":{"labels":{"p":"2"}}}"#),
        ("json", r#"[{"op":"replace","path":"/metadata/labels/p","value":"3"}]"#),
    ] {
        assert!(
            k.ok(&format!("patch pod debian-pod-1 -n isolated-ns --type={kind} -p {patch}"))
                .contains("patched")
        );
    }
    assert_eq!(k.ok("get pod debian-pod-1 -n isolated-ns -o jsonpath={.metadata.labels.p}"), "3");
    let settings = k.file("settings.yaml", SMALL);
    assert_eq!(k.ok(&format!("create -f {settings}")).matches("created").count(), 3);
    assert!(k.ok("get cm settings -n isolated-ns").contains("settings"));
    assert!(k.ok("get svc web -n isolated-ns").contains("10.43."));
    assert!(k.fails(&format!("create -f {settings}")).contains("already exists"));
    assert!(k.fails("get pod nobody -n isolated-ns").contains(r#"pods "nobody" not found"#));
    assert!(k.fails("get deployments").contains("doesn't have a resource type"));
    k.ok("create configmap literal -n isolated-ns --from-literal=a=b");
    k.ok("create service clusterip plain -n isolated-ns --tcp=80:8080");
    k.ok("create serviceaccount machine -n isolated-ns");
    k.ok("create namespace extra");
    k.ok("delete namespace extra --timeout=30s");
    assert!(k.ok("auth whoami").contains("system:masters"));
    assert_eq!(k.ok("auth can-i create pods").trim(), "yes");
    assert!(k.ok("api-resources").contains("globalnetworkpolicies"));
    assert!(k.ok("version").contains("v1.33.0+sluice"));
    assert!(k.ok("explain networkpolicy.spec.podSelector").contains("podSelector"));
    assert!(k.run("get --raw /readyz").stdout.starts_with(b"ok"));

    // Bad input: one clear error, nothing applied.
    let typo =
        k.file("typo.yaml", &POLICY.replace("ingress: []", "ingres: []").replace("full-isolation", "typo"));
    let error = k.fails(&format!("apply -f {typo}"));
    assert!(error.contains("ingres"), "{error}");
    assert!(k.fails("get netpol typo -n isolated-ns").contains("not found"));
    let bad =
        k.file("bad.yaml", &POLICY.replace("0.0.0.0/0", "10.0.0.0/99").replace("full-isolation", "bad"));
    let error = k.fails(&format!("apply -f {bad}"));
    assert!(error.contains("spec.egress[0].to[0].ipBlock.cidr"), "{error}");

    // Deletion: graceful with a kubelet's last word, forced, by file; kubectl waits by itself.
    k.ok(&format!("delete -f {changed}"));
    assert!(k.ok("get gnp").is_empty());
    let mut waiting =
        k.command("wait -n isolated-ns --for=delete pod/debian-pod-2 --timeout=20s").spawn().unwrap();
    let delete = k.command("delete pod debian-pod-2 -n isolated-ns").stdout(Stdio::null()).spawn().unwrap();
    finish_pod(k.server, "debian-pod-2").await;
    assert!(waiting.wait().unwrap().success() && delete.wait_with_output().unwrap().status.success());
    k.ok("delete pod debian-pod-1 -n isolated-ns --force");
    k.ok("delete netpol --all -n isolated-ns");
    assert!(k.ok("get pods -n isolated-ns").is_empty());
    k.ok("delete cm,svc,sa --all -n isolated-ns");
    k.ok("create configmap left -n isolated-ns --from-literal=a=b");
    k.ok("delete namespace isolated-ns --timeout=30s");
    assert!(k.fails("get ns isolated-ns").contains("not found"));
}

/// Waits until a pod is as wanted.
async fn until(server: &TestServer, path: &str, wanted: impl Fn(&Value) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut revisions = server.running.api.store().subscribe();
    loop {
        revisions.mark_unchanged();
        if wanted(&server.admin().call("GET", path, None).await.unwrap()) {
            return;
        }
        tokio::time::timeout(deadline - Instant::now(), revisions.changed()).await.unwrap().unwrap();
    }
}

/// The kubelet's part: once a pod is marked, end it with grace period 0.
async fn finish_pod(server: &TestServer, name: &str) {
    let path = format!("/api/v1/namespaces/isolated-ns/pods/{name}");
    until(server, &path, |pod| pod["metadata"]["deletionTimestamp"].is_string()).await;
    let options = json!({"gracePeriodSeconds": 0, "preconditions": {}});
    server.admin().call("DELETE", &path, Some(&options)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_hand_scenario_with_every_kubectl() {
    let all = kubectls();
    if all.is_empty() {
        println!("ignored (no kubectl)");
        return;
    }
    for binary in &all {
        let server = start_with(true).await;
        server.admin().call("POST", "/api/v1/nodes", Some(&node("node-1"))).await.unwrap();
        let started = Instant::now();
        scenario(&Kubectl { binary, server: &server }).await;
        println!("{}: {:?}", binary.display(), started.elapsed());
        server.running.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn get_watch_shows_changes_as_they_happen() {
    let all = kubectls();
    let Some(binary) = all.first() else {
        println!("ignored (no kubectl)");
        return;
    };
    let server = start().await;
    let k = Kubectl { binary, server: &server };
    let mut child = k.command("get configmaps -w --no-headers");
    let mut child = child.stdout(Stdio::piped()).spawn().unwrap();
    let lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let (send, mut seen) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || lines.map_while(Result::ok).for_each(|l| drop(send.send(l))));
    let api = server.admin();
    let path = "/api/v1/namespaces/default/configmaps";
    let (mut n, mut shown) = (0, String::new());
    // kubectl connects at its own time; whenever that is, a change made after it must show.
    while !shown.contains("watched-") {
        n += 1;
        api.call("POST", path, Some(&crate::support::config_map(&format!("watched-{n}"), "v")))
            .await
            .unwrap();
        if let Ok(Some(line)) = tokio::time::timeout(Duration::from_millis(500), seen.recv()).await {
            shown = line;
        }
        assert!(n < 60, "nothing shown");
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
