//! A cluster as files: what `kubectl get -A -o yaml` leaves of 5,000 pods and 2,000 policies, and questions about it.
//!
//! Everything is read and asked by the code of the commands (`reach`, `lint`, `verify`, `eval`), from the text on disk to
//! the answer.

use std::fmt::Write as _;
use std::hint::black_box;
use std::io::{self, Cursor, Write};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail, ensure};
use sluice_addr::Family;
use sluice_analysis::{LintOptions, Matrix};
use sluice_bench::AnalysisReport;
use sluice_report::ClaimState;

use crate::ask;
use crate::eval::{self, Questions};
use crate::input::{self, Texts};

/// Namespaces at full size; each is one file.
const NAMESPACES: f64 = 100.0;
/// StatefulSets of a namespace, and pods of each.
const WORKLOADS: usize = 10;
const REPLICAS: usize = 5;
/// Policies of a namespace: one closes it, one opens names, the others open what workloads need.
const POLICIES: usize = 20;
/// Claims about the whole.
const CLAIMS: usize = 20;
/// Questions for `eval` at full size.
const FLOWS: f64 = 1_000_000.0;
const REPEATS: usize = 3;

/// A folder that is gone at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> io::Result<Self> {
        let path = std::env::temp_dir().join(format!("sluice-bench-{}", std::process::id()));
        std::fs::create_dir(&path)?;
        Ok(Folder(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // what cannot be removed is left to whoever looks after the folder for temporary files
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Writes the files, asks the questions and adds what they took to the report.
pub(super) fn measure(report: &mut AnalysisReport, scale: f64) -> anyhow::Result<()> {
    let namespaces = ((NAMESPACES * scale) as usize).max(4);
    let folder = Folder::new().context("cannot make a folder for the manifests")?;
    let mut bytes = 0;
    for space in 0..namespaces {
        let text = namespace(space, namespaces);
        bytes += text.len();
        std::fs::write(folder.0.join(format!("{}.yaml", space_name(space))), text)?;
    }
    let claims = folder.0.join("claims");
    std::fs::create_dir_all(&claims)?;
    std::fs::write(claims.join("claims.yaml"), claims_text(namespaces))?;
    let mut times: [Vec<f64>; 5] = Default::default();
    let mut found = String::new();
    for _ in 0..REPEATS {
        let asked = ask_files(&folder.0)?;
        for (all, one) in times.iter_mut().zip(asked.milliseconds) {
            all.push(one);
        }
        found = asked.found;
    }
    let pods = namespaces * WORKLOADS * REPLICAS;
    let size = format!("{pods} pods, {} policies, {:.1} MB", namespaces * POLICIES, bytes as f64 / 1e6);
    let [load, matrix, lint, claims, all] = times;
    report.add("files: read, parsed, compiled", "ms", load, None, size);
    report.add("files: matrix", "ms", matrix, None, String::new());
    report.add("files: lint", "ms", lint, None, String::new());
    report.add("files: claims", "ms", claims, None, String::new());
    report.add("files: all of it", "ms", all, Some(1_000.0), found);
    flows(report, &folder.0, scale, namespaces)
}

struct Asked {
    /// Loading, matrix, lint, claims, and all of it.
    milliseconds: [f64; 5],
    found: String,
}

fn ask_files(folder: &Path) -> anyhow::Result<Asked> {
    let start = Instant::now();
    let mut marks = vec![start];
    let texts = Texts::read(&[folder.to_owned()]);
    let (input, _) = input::from_texts(&texts, "default", true, None)?;
    let snapshot = input.placed.snapshot();
    marks.push(Instant::now());
    let matrix = Matrix::new(snapshot.plan());
    let totals = Family::BOTH.map(|family| matrix.totals(family));
    marks.push(Instant::now());
    let findings = sluice_analysis::lint(&input.placed.world, &LintOptions::default());
    marks.push(Instant::now());
    let claims = ask::claims_of(&input.objects)?;
    let states: Vec<ClaimState> =
        claims.iter().map(|claim| sluice_analysis::judge_claim(&snapshot, claim).state).collect();
    marks.push(Instant::now());
    let count = |state| states.iter().filter(|s| **s == state).count();
    let (holds, fails) = (count(ClaimState::Holds), count(ClaimState::Fails));
    let [v4, _] = black_box(totals);
    // a number for nothing would be worth nothing
    ensure!(v4.restricted > 0 && v4.closed > 0, "the policies of the files restrict nothing");
    ensure!(claims.len() == CLAIMS && holds > 0 && fails > 0, "{holds} of {} claims hold", claims.len());
    let mut milliseconds: Vec<f64> =
        marks.windows(2).map(|pair| pair[1].duration_since(pair[0]).as_secs_f64() * 1e3).collect();
    milliseconds.push(start.elapsed().as_secs_f64() * 1e3);
    Ok(Asked {
        milliseconds: milliseconds.try_into().map_err(|_| anyhow::anyhow!("five times were taken"))?,
        found: format!("{} findings, {holds} claims hold, {fails} do not", findings.len()),
    })
}

/// `eval` from JSON lines to JSON lines; the answers go to memory that is counted and dropped.
fn flows(report: &mut AnalysisReport, folder: &Path, scale: f64, namespaces: usize) -> anyhow::Result<()> {
    let count = ((FLOWS * scale) as usize).max(1_000);
    let texts = Texts::read(&[folder.to_owned()]);
    let (input, _) = input::from_texts(&texts, "default", true, None)?;
    let questions = questions(count, namespaces).into_bytes();
    let mut rates = Vec::new();
    let mut found = String::new();
    for _ in 0..REPEATS {
        let mut answers = Counted::default();
        let reader = Box::new(Cursor::new(questions.clone()));
        let start = Instant::now();
        let asked = Questions { name: "flows", namespace: "default", reader };
        eval::answer(&input.placed, asked, &mut answers)?;
        rates.push(count as f64 / start.elapsed().as_secs_f64());
        if answers.lines != count {
            bail!("{} answers to {count} questions", answers.lines);
        }
        let (asked, answered) = (questions.len() as f64 / 1e6, answers.bytes as f64 / 1e6);
        found = format!("{count} flows, {asked:.0} MB in, {answered:.0} MB out, compiling included");
    }
    report.add("eval, JSON in and out", "flows/s", rates, Some(300_000.0), found);
    Ok(())
}

#[derive(Default)]
struct Counted {
    lines: usize,
    bytes: usize,
}

impl Write for Counted {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.lines += text.iter().filter(|byte| **byte == b'\n').count();
        self.bytes += text.len();
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn space_name(space: usize) -> String {
    format!("ns-{space:03}")
}

/// Half of the ends are named, half are addresses, as flow records have them; one in eight is outside.
fn questions(count: usize, namespaces: usize) -> String {
    let mut text = String::with_capacity(count * 110);
    let end = |draw: usize| {
        let (space, workload, pod) = (draw % namespaces, draw / 7 % WORKLOADS, draw / 91 % REPLICAS);
        match draw / 3 % 8 {
            0 => format!("198.51.{}.{}", draw % 100, draw / 11 % 250),
            1..4 => address(space, workload, pod),
            _ => format!("{}/app-{workload}-{pod}", space_name(space)),
        }
    };
    for id in 0..count {
        // steps without a common divisor with what they are taken modulo
        let (from, to) = (end(id.wrapping_mul(7919)), end(id.wrapping_mul(104_729) + 5));
        let port = [80, 8080, 5432, 53, 9090][id % 5];
        let _ = writeln!(
            text,
            "{{\"id\":{id},\"from\":\"{from}\",\"to\":\"{to}\",\"protocol\":\"TCP\",\"port\":{port}}}"
        );
    }
    text
}

fn address(space: usize, workload: usize, pod: usize) -> String {
    format!("10.42.{space}.{}", 2 + workload * REPLICAS + pod)
}

fn namespace(space: usize, namespaces: usize) -> String {
    let name = space_name(space);
    let mut text = String::new();
    let team = space % 7;
    let _ = write!(
        text,
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  creationTimestamp: \"2026-11-01T10:00:00Z\"\n  labels:\n    kubernetes.io/metadata.name: {name}\n    team: team-{team}\n  name: {name}\n  uid: 1d3f7a52-0000-4000-8000-{space:012}\nspec:\n  finalizers:\n  - kubernetes\nstatus:\n  phase: Active\n"
    );
    // the pods of a namespace share a node, so that its pod CIDR holds them
    let _ = write!(
        text,
        "---\napiVersion: v1\nkind: Node\nmetadata:\n  name: node-{space:03}\nspec:\n  podCIDR: 10.42.{space}.0/24\n  podCIDRs:\n  - 10.42.{space}.0/24\nstatus:\n  addresses:\n  - address: 192.168.7.{space}\n    type: InternalIP\n"
    );
    for workload in 0..WORKLOADS {
        for pod in 0..REPLICAS {
            write_pod(&mut text, &name, space, workload, pod);
        }
    }
    write_policies(&mut text, &name, space, namespaces);
    text
}

fn write_pod(text: &mut String, name: &str, space: usize, workload: usize, pod: usize) {
    let ip = address(space, workload, pod);
    let tier = ["front", "api", "worker", "data"][workload % 4];
    let _ = write!(
        text,
        "---
apiVersion: v1
kind: Pod
metadata:
  creationTimestamp: \"2026-11-20T08:15:30Z\"
  generateName: app-{workload}-
  labels:
    app: app-{workload}
    apps.kubernetes.io/pod-index: \"{pod}\"
    controller-revision-hash: app-{workload}-6d4f9c7b5
    tier: {tier}
  name: app-{workload}-{pod}
  namespace: {name}
  ownerReferences:
  - apiVersion: apps/v1
    blockOwnerDeletion: true
    controller: true
    kind: StatefulSet
    name: app-{workload}
    uid: 5b0f2a11-0000-4000-8000-{space:012}
  resourceVersion: \"{space}{workload}{pod}\"
  uid: 7c9e6679-0000-4{workload:03}-8{pod:03}-{space:012}
spec:
  containers:
  - env:
    - name: LEVEL
      value: info
    image: registry.example/app-{workload}:1.7.2
    name: main
    ports:
    - containerPort: 8080
      name: http
      protocol: TCP
    - containerPort: 9090
      name: metrics
      protocol: TCP
    resources:
      limits:
        memory: 256Mi
      requests:
        cpu: 50m
    volumeMounts:
    - mountPath: /var/run/secrets/kubernetes.io/serviceaccount
      name: token
      readOnly: true
  nodeName: node-{space:03}
  restartPolicy: Always
  serviceAccountName: default
  volumes:
  - name: token
    projected:
      sources:
      - serviceAccountToken:
          expirationSeconds: 3607
          path: token
status:
  conditions:
  - lastTransitionTime: \"2026-11-20T08:15:34Z\"
    status: \"True\"
    type: Ready
  hostIP: 192.168.7.{space}
  phase: Running
  podIP: {ip}
  podIPs:
  - ip: {ip}
  startTime: \"2026-11-20T08:15:30Z\"
"
    );
}

fn write_policies(text: &mut String, name: &str, space: usize, namespaces: usize) {
    let open = |text: &mut String, policy: &str| {
        let _ = write!(
            text,
            "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata:\n  name: {policy}\n  namespace: {name}\n"
        );
    };
    open(text, "closed");
    text.push_str("spec:\n  podSelector: {}\n  policyTypes:\n  - Ingress\n  - Egress\n");
    open(text, "names");
    text.push_str("spec:\n  podSelector: {}\n  policyTypes:\n  - Egress\n  egress:\n  - ports:\n    - port: 53\n      protocol: UDP\n    - port: 53\n      protocol: TCP\n");
    for number in 2..POLICIES {
        let (workload, peer) = (number % WORKLOADS, (number * 3 + 1) % WORKLOADS);
        let (other, octet) = (space_name((space + number) % namespaces), (space + number) % 200);
        open(text, &format!("app-{workload}-{number}"));
        let _ = match number {
            // somebody debugged, and left it
            _ if number == 7 && space % 10 == 3 => write!(
                text,
                "spec:\n  podSelector:\n    matchLabels:\n      app: app-{workload}\n  policyTypes:\n  - Ingress\n  - Egress\n  ingress:\n  - {{}}\n  egress:\n  - {{}}\n"
            ),
            _ if number % 2 == 0 => write!(
                text,
                "spec:
  podSelector:
    matchLabels:
      app: app-{workload}
  policyTypes:
  - Ingress
  ingress:
  - from:
    - podSelector:
        matchLabels:
          app: app-{peer}
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {other}
      podSelector:
        matchExpressions:
        - key: tier
          operator: In
          values:
          - front
          - api
    ports:
    - port: 8080
      protocol: TCP
  - from:
    - namespaceSelector:
        matchLabels:
          team: team-{}
    ports:
    - port: 9090
      protocol: TCP
",
                number % 7
            ),
            _ => write!(
                text,
                "spec:
  podSelector:
    matchLabels:
      app: app-{workload}
  policyTypes:
  - Egress
  egress:
  - to:
    - podSelector:
        matchLabels:
          app: app-{peer}
    ports:
    - port: 8080
      protocol: TCP
  - to:
    - ipBlock:
        cidr: 198.51.{octet}.0/24
        except:
        - 198.51.{octet}.128/25
    ports:
    - port: 443
      protocol: TCP
  - to:
    - namespaceSelector:
        matchLabels:
          kubernetes.io/metadata.name: {other}
    ports:
    - port: 8080
      endPort: 8090
      protocol: TCP
"
            ),
        };
    }
}

/// Of each namespace named: nothing of the outside enters, or another namespace does not.
fn claims_text(namespaces: usize) -> String {
    let mut text = String::new();
    for number in 0..CLAIMS {
        let (name, other) = (space_name(number % namespaces), space_name((number * 7 + 1) % namespaces));
        let from = match number % 2 {
            0 => "- cidr: 198.51.100.0/24".to_owned(),
            _ => format!("- namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {other}}}}}"),
        };
        let _ = write!(
            text,
            "apiVersion: sluice.dev/v1alpha1\nkind: ConnectivityClaim\nmetadata:\n  name: claim-{number}\n  namespace: {name}\nspec:\n  text: claim {number}\n  from:\n  {from}\n  to:\n  - namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {name}}}}}\n  expect: Deny\n---\n"
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_cluster_of_files_answers_every_question() {
        let mut report = AnalysisReport::new(0.04);
        measure(&mut report, 0.04).expect("every question has an answer");
        assert_eq!(report.rows.len(), 6, "{}", report.table());
    }
}
