//! Ends that nobody planned: a killed agent changes no verdict, a killed lab leaves nothing behind.

use std::time::Duration;

use crate::support::{Up, eventually, ignored, no_lab, processes_with, sluice};

/// Sends SIGKILL.
fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("a signal");
}

#[test]
fn a_killed_lab_leaves_nothing_behind() {
    if let Some(reason) = no_lab() {
        return ignored(&reason);
    }
    let mut lab = Up::start(&["-f", "examples/isolation/pods.yaml"]);
    let state = lab
        .kubeconfig
        .ancestors()
        .find(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("lab-")));
    let state = state.expect("the lab's folder").to_owned();
    let marker = state.display().to_string();
    assert!(!processes_with(&marker).is_empty(), "no agent runs");
    kill(lab.child.id());
    lab.child.wait().expect("its end");
    let gone = eventually(Duration::from_secs(10), || processes_with(&marker).is_empty().then_some(()));
    assert!(gone.is_some(), "still there: {:?}", processes_with(&marker));
    // the folder of a dead lab goes when the next one starts
    Up::start(&[]).interrupt();
    assert!(!state.exists(), "{} is left", state.display());
}

#[test]
fn a_killed_agent_changes_no_verdict() {
    if let Some(reason) = no_lab() {
        return ignored(&reason);
    }
    let lab =
        Up::start(&["-f", "examples/isolation/pods.yaml", "-f", "examples/isolation/full-isolation.yaml"]);
    let own = sluice().display().to_string();
    let address = eventually(Duration::from_secs(30), || {
        let pods = lab.succeed(&own, &["get", "pods", "-n", "isolated-ns", "-o", "wide"]);
        if pods.matches("Running").count() < 2 {
            return None;
        }
        let row = pods.lines().find(|l| l.starts_with("debian-pod-1") && l.contains("Running"))?.to_owned();
        row.split_whitespace().find(|c| c.starts_with("10.42.")).map(str::to_owned)
    })
    .expect("a running pod with an address");
    // ping needs no program of the host's: bash's own /dev/tcp would not do for sh, so the probe is our binary's exec of sh with
    // a redirection that fails at once when it is answered (refused) and hangs when it is dropped
    let dropped = || {
        let script = format!("timeout 1 bash -c 'exec 3<>/dev/tcp/{address}/8080'; echo code $?");
        let output =
            lab.succeed(&own, &["exec", "-n", "isolated-ns", "debian-pod-2", "--", "/bin/sh", "-c", &script]);
        output.contains("code 124")
    };
    let isolated = eventually(Duration::from_secs(20), || dropped().then_some(()));
    assert!(isolated.is_some(), "the policy does not come into force");
    let folder = lab.kubeconfig.ancestors().nth(2).expect("the lab's folder").display().to_string();
    let agents = || -> Vec<u32> {
        let is_agent = |pid: &u32| {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).contains("\0agent\0")
        };
        processes_with(&folder).into_iter().filter(is_agent).collect()
    };
    let first = agents();
    assert_eq!(first.len(), 2, "one agent per node");
    for agent in &first {
        kill(*agent);
    }
    assert!(dropped(), "without agents the pod is open");
    let restarted = eventually(Duration::from_secs(20), || {
        let now = agents();
        (now.len() == 2 && now.iter().all(|pid| !first.contains(pid))).then_some(())
    });
    assert!(restarted.is_some(), "the agents are not started again");
    assert!(dropped(), "a new agent opens the pod");
    // the new agents took the kernel's state over and go on from it
    lab.succeed(&own, &["delete", "-f", "examples/isolation/full-isolation.yaml"]);
    let open = eventually(Duration::from_secs(20), || (!dropped()).then_some(()));
    assert!(open.is_some(), "the new agents do not follow changes");
    lab.interrupt();
}
