//! What `-f` takes, and what it says of what it cannot read.

use std::path::Path;
use std::process::Command;

use crate::{run, sluice, text};

const PODS: &str = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, namespace: shop}\n---\napiVersion: v1\nkind: Pod\nmetadata: {name: b, namespace: shop}\n";
const CLOSED: &str = "apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: closed, namespace: shop}\nspec: {podSelector: {}, policyTypes: [Ingress]}\n";

fn write(folder: &Path, name: &str, content: &str) {
    let path = folder.join(name);
    std::fs::create_dir_all(path.parent().expect("a parent")).expect("a folder");
    std::fs::write(path, content).expect("a file");
}

#[test]
fn folders_are_read_to_the_bottom_and_what_is_no_manifest_is_left() {
    let folder = tempfile::tempdir().expect("a folder");
    write(folder.path(), "base/deep/pods.yaml", PODS);
    write(folder.path(), "base/policy.yml", CLOSED);
    write(folder.path(), "kustomization.yaml", "resources: [base]\n");
    write(folder.path(), ".git/config.yaml", "broken: [\n");
    write(folder.path(), "notes.txt", "no manifest");
    std::os::unix::fs::symlink(folder.path(), folder.path().join("base/again")).expect("a link");
    let path = folder.path().to_str().expect("UTF-8");
    let output = run(&["can", "shop/a", "shop/b", "-f", path], "");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let warnings = text(&output.stderr);
    assert!(warnings.contains("kustomization.yaml: is no manifest"), "{warnings}");
    assert!(warnings.contains("leads in a circle"), "{warnings}");
}

#[test]
fn a_broken_document_is_told_with_its_place_and_the_others_are_judged() {
    let input = format!("kind: [\n---\n{PODS}---\n{CLOSED}");
    let output = run(&["reach", "-f", "-", "-o", "csv"], &input);
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    assert_eq!(output.status.code(), Some(2), "{err}");
    assert!(out.contains("\"shop/a\",\"shop/b\",\"IPv4\",\"nothing\""), "{out}");
    assert!(err.contains("error: -:2:") && err.contains("1 document could not be read"), "{err}");
    let strict = run(&["reach", "-f", "-", "--strict"], &input);
    assert_eq!((strict.status.code(), text(&strict.stdout).as_str()), (Some(2), ""));
}

#[test]
fn a_warning_is_an_error_if_it_is_to_be() {
    let input = format!("{PODS}spec: {{nonsense: 1}}\n");
    let relaxed = run(&["can", "shop/a", "shop/b", "-f", "-"], &input);
    assert_eq!(relaxed.status.code(), Some(0));
    assert!(text(&relaxed.stderr).contains("unknown field \"spec.nonsense\""), "{}", text(&relaxed.stderr));
    let strict = run(&["can", "shop/a", "shop/b", "-f", "-", "--strict"], &input);
    assert_eq!(strict.status.code(), Some(2), "{}", text(&strict.stdout));
}

#[test]
fn errors_are_one_line_and_say_what_to_do() {
    for (arguments, expected) in [
        (
            vec!["can", "shop/a", "m/b", "-f", "-"],
            "error: no pod or workload \"m/b\" is known; did you mean shop/b?",
        ),
        (
            vec!["isolate", "ns", "shpo", "-f", "-"],
            "error: no namespace \"shpo\" is known; did you mean shop?",
        ),
        (
            vec!["can", "shpo/a", "shop/b", "-f", "-"],
            "error: no pod or workload \"shpo/a\" is known; did you mean shop/a?",
        ),
        (
            vec!["prove", "shpo", "-f", "-"],
            "error: \"shpo\" is neither a file with claims nor a namespace; did you mean shop?",
        ),
        (
            vec!["can", "shop/a", "shop/b", "--port", "TCP", "-f", "-"],
            "error: TCP needs a port: write 80/TCP",
        ),
        (vec!["can", "shop/a", "shop/service/web", "-f", "-"], "error: no Service shop/web is known"),
        (
            vec!["verify", "/none.yaml", "-f", "-"],
            "error: cannot read /none.yaml: No such file or directory (os error 2)",
        ),
    ] {
        let output = run(&arguments, PODS);
        assert_eq!(output.status.code(), Some(2), "{arguments:?}");
        assert_eq!(text(&output.stderr).trim_end(), expected);
    }
}

#[test]
fn a_service_is_judged_on_its_backends() {
    let input = format!(
        "{PODS}  labels: {{app: b}}\nspec: {{containers: [{{name: c, image: i, ports: [{{name: http, containerPort: 8080}}]}}]}}\n---\n\
         apiVersion: v1\nkind: Service\nmetadata: {{name: web, namespace: shop}}\nspec: {{clusterIP: 10.43.0.7, selector: {{app: b}}, ports: [{{port: 80, targetPort: http}}]}}\n---\n\
         apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: p, namespace: shop}}\nspec: {{podSelector: {{}}, ingress: [{{ports: [{{port: 8080}}]}}]}}\n"
    );
    let input = input.replace(
        "metadata: {name: b, namespace: shop}\n  labels",
        "metadata:\n  name: b\n  namespace: shop\n  labels",
    );
    for to in ["shop/service/web", "10.43.0.7"] {
        let output = run(&["explain", "shop/a", to, "--port", "80/TCP", "-f", "-"], &input);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        assert_eq!(output.status.code(), Some(0), "{out}{err}");
        assert!(out.contains("port 8080"), "{out}");
    }
    let output = run(&["can", "shop/a", "shop/service/web", "--port", "81/TCP", "-f", "-"], &input);
    assert!(text(&output.stderr).contains("has no port 81/TCP; it has 80/TCP"), "{}", text(&output.stderr));
}

#[test]
fn an_ingress_brings_its_controller_as_a_source() {
    let input = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: shop}
spec: {selector: {matchLabels: {app: web}}, template: {metadata: {labels: {app: web}}, spec: {containers: [{name: c, image: i}]}}}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: i, namespace: shop}
spec: {defaultBackend: {service: {name: web, port: {number: 80}}}}
";
    let output = run(&["reach", "--from", "ingress-controller", "-o", "csv", "-f", "-"], input);
    let rows: Vec<String> = text(&output.stdout).lines().skip(1).map(str::to_owned).collect();
    assert_eq!(
        rows,
        [
            "\"ingress-controller\",\"shop/deployment/web\",\"IPv4\",\"TCP 8080\",\"\"",
            "\"ingress-controller\",\"shop/deployment/web\",\"IPv6\",\"TCP 8080\",\"\""
        ]
    );
}

#[test]
fn two_revisions_are_compared_by_what_they_allow() {
    let folder = tempfile::tempdir().expect("a folder");
    let git = |arguments: &[&str]| {
        let done = Command::new("git")
            .args(["-c", "user.name=t", "-c", "user.email=t@example.org", "-c", "init.defaultBranch=main"])
            .args(arguments)
            .current_dir(folder.path())
            .output();
        let done = match done {
            Ok(done) => done,
            Err(error) => panic!("git: {error}"),
        };
        assert!(done.status.success(), "{}", text(&done.stderr));
    };
    git(&["init", "-q"]);
    write(folder.path(), "deploy/pods.yaml", PODS);
    git(&["add", "."]);
    git(&["commit", "-qm", "pods"]);
    write(folder.path(), "deploy/policy.yaml", CLOSED);
    git(&["add", "."]);
    git(&["commit", "-qm", "policy"]);
    write(folder.path(), "deploy/policy.yaml", &format!("# a comment\n{CLOSED}"));
    let diff = |old: &str, new: &str| {
        let output = sluice().args(["diff", old, new]).current_dir(folder.path()).output().expect("it runs");
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, out, err) = diff("git:HEAD~1", "git:HEAD:deploy");
    assert_eq!(code, Some(1), "{out}{err}");
    assert!(out.contains("closed") && out.contains("newly isolated"), "{out}");
    let (code, out, err) = diff("git:HEAD:deploy", "deploy");
    assert_eq!((code, out.as_str()), (Some(0), "no connectivity change\n"), "{err}");
    let (code, _, err) = diff("git:nothing", "deploy");
    assert_eq!(code, Some(2));
    assert!(err.starts_with("error: cannot list . of git revision nothing:"), "{err}");
}

const STAGED: &str = "apiVersion: projectcalico.org/v3\nkind: StagedNetworkPolicy\nmetadata: {name: default.shut, namespace: shop}\nspec: {selector: all(), types: [Ingress], ingress: [{action: Deny}]}\n";

#[test]
fn what_staged_policies_would_do_is_a_difference() {
    let input = format!("{PODS}---\n{STAGED}");
    let output = run(&["diff", "--staged", "-f", "-"], &input);
    let out = text(&output.stdout);
    assert_eq!(output.status.code(), Some(1), "{out}{}", text(&output.stderr));
    assert!(out.contains("newly isolated   all pods"), "{out}");
    let output = run(&["diff", "--staged", "-f", "-"], PODS);
    assert_eq!((output.status.code(), text(&output.stdout).as_str()), (Some(0), "no connectivity change\n"));
    assert_eq!(text(&output.stderr), "note: no policy is staged\n");
    assert_eq!(run(&["diff"], "").status.code(), Some(2));
}

/// Two pods of one Deployment and one that is labelled otherwise by hand.
const WORKLOAD: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, namespace: shop}\nspec: {selector: {}, template: {metadata: {labels: {app: web}}, spec: {containers: []}}}\n---\n\
    apiVersion: apps/v1\nkind: ReplicaSet\nmetadata: {name: web-1, namespace: shop, ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: web, uid: d, controller: true}]}\nspec: {selector: {}, template: {spec: {containers: []}}}\n";

fn replica(name: &str, labels: &str, address: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {labels}, ownerReferences: [{{apiVersion: apps/v1, kind: ReplicaSet, name: web-1, uid: r, controller: true}}]}}\n\
         spec: {{containers: [{{name: c, image: i}}]}}\nstatus: {{phase: Running, podIP: {address}, podIPs: [{{ip: {address}}}]}}\n"
    )
}

#[test]
fn pods_are_shown_as_their_workload_unless_they_differ() {
    let policy = "---\napiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {name: p, namespace: shop}\nspec: {podSelector: {matchLabels: {debug: 'yes'}}, policyTypes: [Ingress]}\n";
    let client = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: client, namespace: other}\nspec: {containers: [{name: c, image: i}]}\nstatus: {phase: Running, podIP: 10.42.7.7, podIPs: [{ip: 10.42.7.7}]}\n";
    let alike = [
        WORKLOAD.to_owned(),
        replica("web-1-a", "{app: web}", "10.42.1.1"),
        replica("web-1-b", "{app: web}", "10.42.1.2"),
    ];
    let alike = alike.concat() + client + policy;
    let rows = |input: &str, arguments: &[&str]| -> Vec<String> {
        let output = run(&[&["reach", "-o", "csv", "-f", "-"], arguments].concat(), input);
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let cells = |line: &str| {
            line.split("\",\"").take(4).map(|c| c.trim_matches('"').to_owned()).collect::<Vec<_>>()
        };
        text(&output.stdout).lines().skip(1).map(|line| cells(line).join(" ")).collect()
    };
    let to = ["--from", "other/client", "--to", "shop/deployment/web"];
    assert_eq!(rows(&alike, &to), ["other/client shop/deployment/web IPv4 everything"]);
    let different = alike + &replica("web-1-c", "{app: web, debug: 'yes'}", "10.42.1.3");
    assert_eq!(
        rows(&different, &to),
        [
            "other/client shop/deployment/web (web-1-a, web-1-b) IPv4 everything",
            "other/client shop/deployment/web (web-1-c) IPv4 nothing"
        ]
    );
    // a pod that is asked for by name is shown by it, and --pods shows every one
    assert_eq!(
        rows(&different, &["--from", "other/client", "--to", "shop/web-1-c"]),
        ["other/client shop/web-1-c IPv4 nothing"]
    );
    assert_eq!(rows(&different, &[&to[..], &["--pods"]].concat()).len(), 3);
    // outside addresses are named as far as they were asked for
    assert_eq!(
        rows(&different, &["--from", "198.51.100.0/24", "--to", "shop/web-1-a"]),
        ["outside 198.51.100.0/24 shop/web-1-a IPv4 everything"]
    );
}
