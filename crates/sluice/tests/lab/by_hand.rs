//! The test that a person does by hand, word for word, with kubectl and with our own verbs.

use std::process::{Child, Stdio};
use std::time::Duration;

use crate::support::{Up, eventually, has, ignored, no_lab, sluice};

const PODS: &str = "examples/isolation/pods.yaml";
const POLICY: &str = "examples/isolation/full-isolation.yaml";

/// How the steps are said.
struct Voice {
    program: String,
    is_kubectl: bool,
}

impl Voice {
    fn kubectl(program: String) -> Self {
        Voice { program, is_kubectl: true }
    }

    fn own() -> Self {
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

fn scenario(voice: &Voice) {
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
        return ignored("no /usr/bin/python3 or /usr/bin/curl on this machine; exec was not tried");
    }
    let server = voice
        .exec(&lab, "debian-pod-1", &["python3", "-m", "http.server", "8080"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the server's exec starts");
    let _server = Background(server);
    let fetch =
        || voice.exec(&lab, "debian-pod-2", &["curl", "-sS", "-m", "3", &url]).output().expect("exec runs");
    let listing = eventually(Duration::from_secs(20), || {
        let output = fetch();
        output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
    })
    .expect("the server answers");
    assert!(listing.contains("Directory listing"), "{listing}");

    say(&["apply", "-f", POLICY]);
    let timed_out = eventually(Duration::from_secs(10), || {
        let output = fetch();
        (!output.status.success()).then_some(output)
    })
    .expect("the policy comes into force");
    // curl's code for a timeout, through the API: a silent drop, not a refusal
    assert_eq!(timed_out.status.code(), Some(28), "{}", String::from_utf8_lossy(&timed_out.stderr));

    say(&["delete", "-f", POLICY]);
    let again = eventually(Duration::from_secs(20), || fetch().status.success().then_some(()));
    assert!(again.is_some(), "the server does not answer again");

    if voice.is_kubectl {
        let described = say(&["describe", "pod", "-n", "isolated-ns", "debian-pod-1"]);
        assert!(described.contains("app=debian1"), "{described}");
        for output in ["yaml", "json", "wide"] {
            assert!(say(&["get", "pods", "-n", "isolated-ns", "-o", output]).contains("debian-pod-2"));
        }
    }
    let missing = voice.exec(&lab, "debian-pod-1", &["no-such-program"]).output().expect("exec runs");
    assert!(!missing.status.success());
    let said = String::from_utf8_lossy(&missing.stderr);
    assert!(said.contains("no-such-program"), "{said}");
    let code = voice.exec(&lab, "debian-pod-1", &["/bin/sh", "-c", "exit 7"]).output().expect("exec runs");
    assert_eq!(code.status.code(), Some(7));
    lab.interrupt();
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
