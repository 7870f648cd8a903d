//! `sluice up`: a lab that stays until it is interrupted.

use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::Up;
use crate::exit::Exit;
use crate::input;
use crate::progress;
use crate::stage::Stage;
use crate::verbs;

/// Starts a lab, applies manifests, and waits for Ctrl-C.
pub(crate) async fn run(command: Up) -> anyhow::Result<Exit> {
    let objects = input::values(&command.files, "default")?;
    let stop = interrupted();
    tokio::pin!(stop);
    progress::say(&format!("starting {} nodes, the API, the agents and a host outside", command.nodes));
    let stage = tokio::select! {
        stage = Stage::start(command.nodes) => stage?,
        exit = &mut stop => return Ok(exit),
    };
    let writing = verbs::Writing::merging();
    for object in &objects {
        let done = verbs::apply_object(&stage.client, object, &writing).await?;
        eprintln!("{} {}", done.name, done.what);
    }
    if let Some(path) = &command.kubeconfig_out {
        let text = std::fs::read(&stage.kubeconfig).context("the lab's kubeconfig")?;
        write_private(path, &text).with_context(|| format!("cannot write {}", path.display()))?;
    }
    println!("{}", stage.kubeconfig.display());
    say_how_to_go_on(&stage);
    stop.await;
    stage.end().await;
    Ok(Exit::Yes)
}

/// Leaves a lab running until Ctrl-C.
pub(crate) async fn keep(stage: Stage) -> anyhow::Result<()> {
    say_how_to_go_on(&stage);
    interrupted().await;
    stage.end().await;
    Ok(())
}

fn say_how_to_go_on(stage: &Stage) {
    let path = stage.kubeconfig.display();
    eprintln!("\nThe lab is running; Ctrl-C ends it and removes everything. In another terminal:\n");
    eprintln!("  export KUBECONFIG={path}");
    eprintln!("  kubectl get pods -A -o wide              # or: sluice get pods -A -o wide");
    eprintln!("  kubectl apply -f examples/isolation/full-isolation.yaml");
    eprintln!("  sluice can isolated-ns/debian-pod-2 isolated-ns/debian-pod-1 --port 8080/TCP");
}

/// Resolves at SIGINT or SIGTERM, to what a shell expects of who ends by them.
pub(crate) async fn interrupted() -> Exit {
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => Exit::Code(130),
        _ = terminate.recv() => Exit::Code(143),
    }
}

/// Writes a file with credentials: for the owner only, and never half.
fn write_private(path: &std::path::Path, bytes: &[u8]) -> std::io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let temporary = path.with_extension("tmp");
    let mut file =
        std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(temporary, path)
}
