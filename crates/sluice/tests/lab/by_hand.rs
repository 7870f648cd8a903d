//! The test that a person does by hand, word for word, with kubectl and with our own verbs.

use std::process::{Child, Output, Stdio};
use std::time::Duration;

use crate::support::{Up, eventually, has, ignored, no_lab, sluice};

const PODS: &str = "examples/isolation/pods.yaml";
const POLICY: &str = "examples/isolation/full-isolation.yaml";

/// How the steps are said.
pub(crate) struct Voice {
    program: String,
    is_kubectl: bool,
}

impl Voice {
    fn kubectl(program: String) -> Self {
        Voice { program, is_kubectl: true }
    }

    pub(crate) fn own() -> Self {
        Voice { program: sluice().display().to_string(), is_kubectl: false }
    }

    fn exec(&self, lab: &Up, pod: &str, command: &[&str]) -> std::process::Command {
        let mut arguments = vec!["exec", "-n", "isolated-ns", pod, "--"];
        arguments.extend(command);
        lab.command(&self.program, &arguments)
    }
}

struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The two pods of the scenario in a lab, the first of them serving its root by HTTP.
pub(crate) struct Pair<'v> {
    voice: &'v Voice,
    pub(crate) lab: Up,
    url: String,
    _server: Background,
}

impl<'v> Pair<'v> {
    /// `None`, with a word why, where the machine has no program for it.
    pub(crate) fn start(voice: &'v Voice) -> Option<Self> {
        let lab = Up::start(&[]);
        let say = |arguments: &[&str]| lab.succeed(&voice.program, arguments);
        let applied = say(&["apply", "-f", PODS]);
        assert!(applied.contains("created"), "{applied}");
        if voice.is_kubectl {
            say(&["wait", "-n", "isolated-ns", "--for=condition=Ready", "pod", "--all", "--timeout=30s"]);
        }
        let pods = eventually(Duration::from_secs(30), || {
            let pods = say(&["get", "pods", "-n", "isolated-ns", "-o", "wide"]);
            (pods.matches("Running").count() == 2).then_some(pods)
        })
        .expect("both pods run");
        let row: Vec<&str> =
            pods.lines().find(|l| l.starts_with("debian-pod-1")).expect("a row").split_whitespace().collect();
        let address =
            row.iter().find(|c| c.starts_with("10.42.")).unwrap_or_else(|| panic!("no address: {pods}"));
        let url = format!("http://{address}:8080");
        // pods see the host's /usr; a python3 in somebody's home is hidden from them
        let on_host = |program: &str| std::path::Path::new("/usr/bin").join(program).is_file();
        if !on_host("python3") || !on_host("curl") {
            ignored("no /usr/bin/python3 or /usr/bin/curl on this machine; exec was not tried");
            return None;
        }
        let server = voice
            .exec(&lab, "debian-pod-1", &["python3", "-m", "http.server", "8080"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the server's exec starts");
        Some(Pair { voice, lab, url, _server: Background(server) })
    }

    pub(crate) fn say(&self, arguments: &[&str]) -> String {
        self.lab.succeed(&self.voice.program, arguments)
    }

    fn fetch(&self) -> Output {
        let curl = ["curl", "-sS", "-m", "3", &self.url];
        self.voice.exec(&self.lab, "debian-pod-2", &curl).output().expect("exec runs")
    }

    /// Waits for an answer of the server.
    pub(crate) fn answered(&self) -> String {
        eventually(Duration::from_secs(20), || {
            let output = self.fetch();
            output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
        })
        .expect("the server answers")
    }

    /// Waits until the server is silent.
    pub(crate) fn silenced(&self) {
        let timed_out = eventually(Duration::from_secs(10), || {
            let output = self.fetch();
            (!output.status.success()).then_some(output)
        })
        .expect("the policy comes into force");
        // curl's code for a timeout, through the API: a silent drop, not a refusal
        assert_eq!(timed_out.status.code(), Some(28), "{}", String::from_utf8_lossy(&timed_out.stderr));
    }
}

fn scenario(voice: &Voice) {
    let Some(pair) = Pair::start(voice) else { return };
    let listing = pair.answered();
    assert!(listing.contains("Directory listing"), "{listing}");
    pair.say(&["apply", "-f", POLICY]);
    pair.silenced();
    pair.say(&["delete", "-f", POLICY]);
    pair.answered();

    if voice.is_kubectl {
        let described = pair.say(&["describe", "pod", "-n", "isolated-ns", "debian-pod-1"]);
        assert!(described.contains("app=debian1"), "{described}");
        for output in ["yaml", "json", "wide"] {
            assert!(pair.say(&["get", "pods", "-n", "isolated-ns", "-o", output]).contains("debian-pod-2"));
        }
    }
    let lab = &pair.lab;
    let missing = voice.exec(lab, "debian-pod-1", &["no-such-program"]).output().expect("exec runs");
    assert!(!missing.status.success());
    let said = String::from_utf8_lossy(&missing.stderr);
    assert!(said.contains("no-such-program"), "{said}");
    let code = voice.exec(lab, "debian-pod-1", &["/bin/sh", "-c", "exit 7"]).output().expect("exec runs");
    assert_eq!(code.status.code(), Some(7));
    let Pair { lab, _server, .. } = pair;
    drop(_server);
    lab.interrupt();
}

/// A policy of each administrators' kind denies what its subject admits; a staged one denies nothing.
const CLUSTER_KINDS: [(&str, bool); 3] = [
    (
        "apiVersion: policy.networking.k8s.io/v1alpha2
kind: ClusterNetworkPolicy
metadata: {name: closed}
spec:
  tier: Admin
  priority: 10
  subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: isolated-ns}}}
  ingress:
  - action: Deny
    from: [{namespaces: {}}]
    protocols: [{tcp: {destinationPort: {number: 8080}}}]
",
        true,
    ),
    (
        "apiVersion: policy.networking.k8s.io/v1alpha1
kind: AdminNetworkPolicy
metadata: {name: closed}
spec:
  priority: 10
  subject: {namespaces: {matchLabels: {kubernetes.io/metadata.name: isolated-ns}}}
  egress:
  - action: Deny
    to: [{pods: {namespaceSelector: {}, podSelector: {matchLabels: {app: debian1}}}}]
",
        true,
    ),
    (
        "apiVersion: projectcalico.org/v3
kind: StagedGlobalNetworkPolicy
metadata: {name: closed}
spec:
  selector: all()
  order: 1
  types: [Ingress]
  ingress: [{action: Deny}]
",
        false,
    ),
];

/// Lets everything in and says so.
const LOGGED: &str = "apiVersion: projectcalico.org/v3
kind: GlobalNetworkPolicy
metadata: {name: heard}
spec:
  selector: app == 'debian1'
  types: [Ingress]
  ingress: [{action: Log}, {action: Allow}]
";

#[test]
fn a_log_rule_writes_a_line() {
    if let Some(reason) = no_lab() {
        return ignored(&reason);
    }
    let voice = Voice::own();
    let Some(pair) = Pair::start(&voice) else { return };
    pair.answered();
    assert!(!pair.lab.said().contains("heard"), "nothing is logged yet");
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("policy.yaml");
    std::fs::write(&file, LOGGED).expect("the policy is written");
    pair.say(&["apply", "--wait", "-f", &file.display().to_string()]);
    let line = eventually(Duration::from_secs(20), || {
        pair.answered();
        pair.lab.said().lines().find(|line| line.contains("heard")).map(str::to_owned)
    })
    .expect("a record of the connection");
    for part in ["sluice::flows", "TCP 10.42.", " port 8080: "] {
        assert!(line.contains(part), "{part:?} in {line}");
    }
}

#[test]
fn policies_of_every_cluster_kind() {
    if let Some(reason) = no_lab() {
        return ignored(&reason);
    }
    let voice = Voice::own();
    let Some(pair) = Pair::start(&voice) else { return };
    pair.answered();
    let folder = tempfile::tempdir().expect("a folder");
    for (text, denies) in CLUSTER_KINDS {
        let file = folder.path().join("policy.yaml");
        std::fs::write(&file, text).expect("the policy is written");
        let file = file.display().to_string();
        pair.say(&["apply", "-f", &file]);
        match denies {
            true => pair.silenced(),
            false => drop(pair.answered()),
        }
        pair.say(&["delete", "-f", &file]);
        pair.answered();
    }
}

#[test]
fn with_our_own_verbs() {
    match no_lab() {
        Some(reason) => ignored(&reason),
        None => scenario(&Voice::own()),
    }
}

#[test]
fn with_the_newest_kubectl() {
    match no_lab() {
        Some(reason) => ignored(&reason),
        None if !has("kubectl") => ignored("no kubectl"),
        None => scenario(&Voice::kubectl("kubectl".into())),
    }
}

#[test]
fn with_kubectl_1_30() {
    if let Some(reason) = no_lab() {
        return ignored(&reason);
    }
    let beside = std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())
        .map(|folder| folder.join("kubectl"))
        .filter_map(|path| std::fs::canonicalize(path).ok())
        .map(|path| path.with_file_name("kubectl.1.30"))
        .find(|path| path.is_file());
    match beside {
        Some(path) => scenario(&Voice::kubectl(path.display().to_string())),
        None => ignored("no kubectl 1.30"),
    }
}
