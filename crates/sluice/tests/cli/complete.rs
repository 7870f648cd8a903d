//! What a shell offers: the scripts asked as a shell asks them, and the program that kubectl asks.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::{project, run, text};

/// What bash offers for the last of these words.
pub(crate) fn offered(words: &[&str]) -> Vec<String> {
    const SCRIPT: &str = r#"
program=$1; shift
source <("$program" completion bash)
COMP_WORDS=(sluice "$@"); COMP_CWORD=$#; COMP_TYPE=9
_clap_complete_sluice sluice "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD-1]}"
printf '%s\n' "${COMPREPLY[@]}"
"#;
    let mut command = Command::new("bash");
    command.args(["--norc", "-c", SCRIPT, "bash", env!("CARGO_BIN_EXE_sluice")]).args(words);
    command.current_dir(project()).env("HOME", "/nonexistent").env_remove("KUBECONFIG");
    let output = command.output().expect("bash runs");
    assert_eq!(text(&output.stderr), "", "{words:?}");
    text(&output.stdout).lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
}

#[test]
fn commands_flags_and_values_are_offered() {
    assert_eq!(offered(&["is"]), ["isolate"]);
    assert!(offered(&["reach", "--expo"]).contains(&"--exposure".to_owned()));
    assert_eq!(offered(&["lint", "-o", "sa"]), ["sarif"]);
    assert_eq!(offered(&["help", "SL10210"]), Vec::<String>::new());
    assert_eq!(offered(&["help", "SL1021"]), ["SL1021"]);
    assert!(offered(&["get", "networkp"]).contains(&"networkpolicies.networking.k8s.io".to_owned()));
}

#[test]
fn names_come_from_the_manifests_that_are_named() {
    let after = |words: &[&str]| offered(&[&["can", "-f", "examples/shop/"], words].concat());
    assert!(after(&[""]).contains(&"shop/".to_owned()), "{:?}", after(&[""]));
    assert_eq!(after(&["shop/deployment/cata"]), ["shop/deployment/catalog"]);
    assert_eq!(after(&["shop/deployment/catalog", "payments/statefulset/v"]), ["payments/statefulset/vault"]);
    assert_eq!(offered(&["isolate", "-f", "examples/shop/", "ns", "pay"]), ["payments"]);
    assert_eq!(offered(&["reach", "-f", "examples/shop/", "-n", "mon"]), ["monitoring"]);
    let claims =
        ["suggest", "-f", "examples/shop/", "--claim", "examples/shop/claims.yaml", "--name", "front"];
    assert_eq!(offered(&claims), ["frontend-reads-the-catalog"]);
    let guests = ["isolate", "-f", "examples/shop/", "ns", "shop", "--allow-from", "ns/mon"];
    assert_eq!(offered(&guests), ["ns/monitoring"]);
}

#[test]
fn who_cannot_be_asked_is_not_waited_for_and_says_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let kubeconfig = folder.path().join("config");
    // an address of the documentation's range: nobody answers
    let config = "apiVersion: v1\nkind: Config\ncurrent-context: far\nclusters: [{name: c, cluster: {server: 'https://192.0.2.1:6443'}}]\nusers: [{name: u, user: {}}]\ncontexts: [{name: far, context: {cluster: c, user: u}}, {name: further, context: {cluster: c, user: u}}]\n";
    std::fs::write(&kubeconfig, config).expect("written");
    let path = kubeconfig.to_str().expect("UTF-8");
    let began = Instant::now();
    assert!(offered(&["can", "--kubeconfig", path, "sh"]).is_empty());
    // half a second for the answer, the rest for two starts of a process on a busy machine
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(offered(&["can", "--kubeconfig", path, "--context", "f"]), ["far", "further"]);
    assert!(offered(&["can", "-f", "/nonexistent", "sh"]).is_empty());
}

/// A folder with the program under its names as a plugin.
fn plugin() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    for name in ["kubectl-sluice", "kubectl_complete-sluice"] {
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_sluice"), folder.path().join(name)).expect("a link");
    }
    let path = folder.path().to_owned();
    (folder, path)
}

#[test]
fn kubectl_is_told_what_can_follow() {
    let (_folder, path) = plugin();
    let told = |words: &[&str]| {
        let mut command = Command::new(path.join("kubectl_complete-sluice"));
        let output =
            command.args(words).current_dir(project()).env("HOME", "/nonexistent").output().expect("it runs");
        text(&output.stdout).lines().map(str::to_owned).collect::<Vec<_>>()
    };
    let commands = told(&["ver"]);
    assert!(commands.iter().any(|line| line.starts_with("verify\t")), "{commands:?}");
    assert_eq!(
        told(&["can", "-f", "examples/shop/", "shop/deployment/cata"]),
        ["shop/deployment/catalog", ":4"]
    );
    assert!(told(&["can", "-f", "examples/shop/", "sh"]).contains(&":6".to_owned()), "a word that goes on");
    assert_eq!(told(&["can", "-f", "examples/shop/", "nothing"]), [":0"]);
}

#[test]
fn a_real_kubectl_asks_us() {
    let (_folder, folder) = plugin();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path =
        std::env::join_paths([folder].into_iter().chain(std::env::split_paths(&path))).expect("a path");
    let words = ["__complete", "sluice", "can", "-f", "examples/shop/", "shop/deployment/cata"];
    let output = Command::new("kubectl").args(words).env("PATH", path).current_dir(project()).output();
    match output {
        Ok(output) => {
            let out = text(&output.stdout);
            assert!(out.starts_with("shop/deployment/catalog\n"), "{out}{}", text(&output.stderr));
        }
        Err(_) => println!("ignored (no kubectl)"),
    }
}

/// Where to find the program a script has no say but the shell: each asks us by our variable.
#[test]
fn every_shell_has_a_script_that_asks() {
    for shell in ["bash", "elvish", "fish", "powershell", "zsh"] {
        let script = text(&run(&["completion", shell], "").stdout);
        assert!(script.contains("SLUICE_COMPLETE") && script.contains("sluice"), "{shell}: {script}");
    }
    assert_eq!(run(&["completion", "csh"], "").status.code(), Some(2));
}
