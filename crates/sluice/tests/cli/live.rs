//! Verbs and watches against the embedded API: what is written, what is only said, and what goes on.

use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::cluster::Cluster;
use crate::{sluice, text};

/// A command that goes on; ended when dropped.
struct Watching {
    child: Child,
    lines: BufReader<ChildStdout>,
}

impl Watching {
    fn start(cluster: &Cluster, arguments: &[&str]) -> Watching {
        let mut command = sluice();
        command.args(arguments).arg("--kubeconfig").arg(cluster.kubeconfig());
        Watching::of(command)
    }

    fn of(mut command: Command) -> Watching {
        let mut child =
            command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().expect("the binary runs");
        let lines = BufReader::new(child.stdout.take().expect("its output"));
        Watching { child, lines }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.lines.read_line(&mut line).expect("a line");
        line
    }

    /// Ends it by a signal; its exit code.
    fn ended_by(mut self, signal: Signal) -> Option<i32> {
        kill_process(Pid::from_child(&self.child), signal).expect("a signal");
        self.child.wait().expect("its end").code()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const POLICY: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: closed, namespace: shop, labels: {made: here}}\nspec: {podSelector: {}, policyTypes: [Ingress, Egress]}\n";

#[test]
fn a_dry_run_writes_nothing() {
    let cluster = Cluster::start();
    let names = || text(&cluster.ask(&["get", "netpol", "-n", "shop", "-o", "name"], "").stdout);
    let before = names();
    for (how, said) in [
        ("--dry-run", "networkpolicy.networking.k8s.io/closed created (dry run)\n"),
        ("--dry-run=client", "networkpolicy.networking.k8s.io/closed created (dry run)\n"),
        ("--dry-run=server", "networkpolicy.networking.k8s.io/closed created (server dry run)\n"),
    ] {
        let output = cluster.ask(&["apply", how, "-f", "-"], POLICY);
        assert_eq!(text(&output.stdout), said, "{}", text(&output.stderr));
    }
    assert_eq!(names(), before);
    // what the API remarks is told
    let odd = POLICY.replace("podSelector", "nonsense: 1, podSelector");
    let output = cluster.ask(&["apply", "--dry-run=server", "-f", "-"], &odd);
    assert!(
        text(&output.stderr).contains("warning: unknown field \"spec.nonsense\""),
        "{}",
        text(&output.stderr)
    );
    // what the API refuses is refused in a dry run of the server
    let bad = POLICY.replace("[Ingress, Egress]", "[Sideways]");
    assert_eq!(cluster.ask(&["apply", "--dry-run=server", "-f", "-"], &bad).status.code(), Some(2));
    let isolated = cluster.ask(&["isolate", "ns", "shop", "--dry-run=server"], "");
    assert_eq!(isolated.status.code(), Some(0), "{}", text(&isolated.stderr));
    assert!(text(&isolated.stderr).contains(" created (server dry run)\n"), "{}", text(&isolated.stderr));
    let deleted = cluster.ask(&["delete", "netpol", "db", "-n", "shop", "--dry-run"], "");
    assert_eq!(text(&deleted.stdout), "networkpolicy/db deleted (dry run)\n");
    assert_eq!(names(), before);
}

#[test]
fn what_is_applied_is_written_once_and_waited_for() {
    let cluster = Cluster::start();
    let apply = || text(&cluster.ask(&["apply", "-f", "-"], POLICY).stdout);
    assert_eq!(apply(), "networkpolicy.networking.k8s.io/closed created\n");
    assert_eq!(apply(), "networkpolicy.networking.k8s.io/closed unchanged\n");
    // no agent will ever say that it is in a kernel
    let output = cluster.ask(&["apply", "-f", "-", "--wait", "--timeout", "1s"], POLICY);
    assert_eq!(output.status.code(), Some(3), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("not programmed after 1 s"), "{}", text(&output.stderr));
}

#[test]
fn objects_are_chosen_by_labels_and_fields() {
    let cluster = Cluster::start();
    let get = |more: &[&str]| {
        let output = cluster.ask(&[&["get", "pods", "-n", "shop"], more].concat(), "");
        text(&output.stdout) + &text(&output.stderr)
    };
    assert_eq!(get(&["-l", "app=db", "-o", "name"]), "pod/db\n");
    assert_eq!(get(&["--field-selector", "metadata.name=backup", "-o", "name"]), "pod/backup\n");
    let table = get(&["-l", "app in (db)", "--no-headers", "--show-labels"]);
    assert_eq!(table.lines().count(), 1, "{table}");
    assert!(table.starts_with("db ") && table.trim_end().ends_with("app=db"), "{table}");
    assert!(get(&[]).starts_with("NAME "), "a table has a head");
    assert_eq!(
        get(&["-o", "jsonpath={range .items[*]}{.metadata.name} {.metadata.labels.app}{\"\\n\"}{end}"]),
        "backup backup\ndb db\n"
    );
    assert_eq!(
        get(&["-o", "custom-columns=NAME:.metadata.name,IP:.status.podIP"]),
        "NAME     IP\nbackup   <none>\ndb       <none>\n"
    );
    let by_app = get(&["--sort-by", "{.metadata.labels.app}", "--no-headers"]);
    assert!(by_app.starts_with("backup "), "{by_app}");
    assert!(get(&["-o", "table"]).contains("\"table\" is no form"));
    let unknown = cluster.ask(&["get", "podz"], "");
    assert!(text(&unknown.stderr).contains("did you mean pods?"), "{}", text(&unknown.stderr));
    let gone = cluster.ask(&["delete", "pods", "-n", "shop", "-l", "app=db"], "");
    assert_eq!(text(&gone.stdout), "pod/db deleted\n", "{}", text(&gone.stderr));
    assert_eq!(get(&["-o", "name"]), "pod/backup\n", "delete waits until it is gone");
}

#[test]
fn a_watch_tells_what_changes() {
    let cluster = Cluster::start();
    let mut watching = Watching::start(&cluster, &["get", "netpol", "-n", "shop", "-o", "name", "--watch"]);
    let mut known = [watching.line(), watching.line()];
    known.sort();
    assert_eq!(known, ["networkpolicy/db\n", "networkpolicy/nobody\n"]);
    cluster.ask(&["apply", "-f", "-"], POLICY);
    assert_eq!(watching.line(), "networkpolicy/closed\n");
    cluster.ask(&["delete", "netpol", "closed", "-n", "shop"], "");
    assert_eq!(watching.line(), "networkpolicy/closed   (deleted)\n");
}

#[test]
fn claims_are_judged_again_when_the_cluster_changes() {
    let cluster = Cluster::start();
    let folder = tempfile::tempdir().expect("a folder");
    let claims = folder.path().join("claims.yaml");
    std::fs::write(&claims, crate::cluster::CLAIM).expect("written");
    let claims = claims.to_str().expect("UTF-8");
    let mut watching = Watching::start(&cluster, &["verify", claims, "--watch", "-o", "json"]);
    let state = |line: &str| -> String {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("no JSON: {line}"));
        assert_eq!(value["kind"], "ClaimResults");
        value["claims"][0]["result"]["state"].as_str().expect("a state").to_owned()
    };
    let first = state(&watching.line());
    cluster.ask(&["delete", "netpol", "db", "-n", "shop"], "");
    let second = state(&watching.line());
    assert_ne!(first, second);
    cluster.ask(&["apply", "-f", "-"], crate::cluster::OBJECTS);
    assert_eq!(state(&watching.line()), first);
    assert_eq!(watching.ended_by(Signal::INT), Some(130));
    let piped = cluster.ask(&["verify", "-", "--watch"], crate::cluster::CLAIM);
    assert_eq!(piped.status.code(), Some(2));
}

/// A file that is half written is no answer and no end.
#[test]
fn claims_are_judged_again_when_a_file_changes() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| std::fs::write(folder.path().join(name), text).expect("written");
    write("claims.yaml", crate::cluster::CLAIM);
    write("objects.yaml", crate::cluster::OBJECTS);
    let mut command = sluice();
    command.args(["verify", "claims.yaml", "--watch", "-f", "objects.yaml"]).current_dir(folder.path());
    let mut watching = Watching::of(command);
    assert!(watching.line().starts_with("holds "));
    watching.line(); // its reason
    write("objects.yaml", "kind: [");
    let open = crate::cluster::OBJECTS
        .replace("matchLabels: {app: db}}, ingress", "matchLabels: {app: none}}, ingress");
    write("objects.yaml", &open);
    let line = watching.line();
    assert!(line.starts_with("does not hold "), "{line}");
    assert_eq!(watching.ended_by(Signal::TERM), Some(143));
}

#[test]
fn an_isolation_is_written_when_it_is_confirmed() {
    let cluster = Cluster::start();
    let names = || text(&cluster.ask(&["get", "netpol", "-n", "shop", "-o", "name"], "").stdout);
    let before = names();
    let asked = cluster.ask(&["isolate", "ns", "shop"], "");
    assert_eq!(asked.status.code(), Some(2), "nobody is there to answer");
    assert!(text(&asked.stderr).contains("say --yes"), "{}", text(&asked.stderr));
    assert_eq!(names(), before);
    let waits = cluster.ask(&["isolate", "ns", "shop", "--yes", "--wait", "--timeout", "1s"], "");
    assert_eq!(waits.status.code(), Some(3), "{}", text(&waits.stderr));
    assert!(names().contains("networkpolicy/isolation"), "{}", names());
    let closed = cluster.ask(&["can", "kube-system/x", "shop/backup", "--port", "80/TCP"], "");
    assert_eq!(closed.status.code(), Some(2), "{}", text(&closed.stdout));
    let closed = cluster.ask(&["can", "192.0.2.1", "shop/backup", "--port", "80/TCP"], "");
    assert_eq!(closed.status.code(), Some(1), "{}", text(&closed.stdout));
}

#[test]
fn names_of_a_cluster_are_offered() {
    let cluster = Cluster::start();
    let kubeconfig = cluster.kubeconfig().to_str().expect("UTF-8");
    let offered = |words: &[&str]| {
        crate::complete::offered(&[&[words[0], "--kubeconfig", kubeconfig], &words[1..]].concat())
    };
    assert_eq!(offered(&["can", "shop/b"]), ["shop/backup"]);
    assert_eq!(offered(&["reach", "-n", "sh"]), ["shop"]);
    assert_eq!(offered(&["logs", "-n", "shop", "d"]), ["db"]);
    assert_eq!(offered(&["get", "-n", "shop", "networkpolicies", "no"]), ["nobody"]);
}

#[test]
fn a_cluster_without_agents_is_looked_at_and_found_silent() {
    let cluster = Cluster::start();
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n";
    assert!(cluster.ask(&["apply", "-f", "-"], node).status.success());
    let status = cluster.ask(&["status"], "");
    assert_eq!(status.status.code(), Some(3), "{}", text(&status.stderr));
    assert!(text(&status.stdout).contains("? silent"), "{}", text(&status.stdout));
    let mut watching = Watching::start(&cluster, &["status", "--watch", "-o", "json"]);
    assert!(watching.line().contains("\"node\":\"n1\""));
    assert!(cluster.ask(&["apply", "-f", "-"], &node.replace("n1", "n2")).status.success());
    assert!(watching.line().contains("\"node\":\"n2\""));
    let check = cluster.ask(&["check", "--only-cluster", "-o", "yaml"], "");
    let check: Value = serde_yaml_ng::from_slice(&check.stdout).expect("YAML");
    assert_eq!(check["kind"], "Preflight");
    let rights = check["items"].as_array().expect("items").iter().find(|item| item["name"] == "rights");
    assert_eq!(rights.expect("an item")["state"], "ready");
}
