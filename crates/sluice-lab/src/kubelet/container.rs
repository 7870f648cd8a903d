//! One container: its runs, one after the other.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use rustix::pipe::PipeFlags;
use tokio::net::unix::pipe;

use super::log::{ContainerLog, Stream};
use super::manifest::{Container, RestartPolicy};
use super::pod::Pod;
use super::process::{StandIn, container_process};
use super::status::{ContainerPhase, ContainerRole, Ended, restarts};
use crate::protocol::ProcessSpec;
use crate::sandbox::Process;
use crate::terminal::Terminal;

/// After the first failure a container is started again at once, then after 10 s, 20 s … 5 min.
const FIRST_DELAY: Duration = Duration::from_secs(10);
const LONGEST_DELAY: Duration = Duration::from_secs(300);
/// A run of this length clears the count of failures.
const LONG_RUN: Duration = Duration::from_secs(600);

/// One run of a container.
#[derive(Debug)]
pub(crate) struct Running {
    pub(crate) id: String,
    pub(crate) process: Process,
    pub(crate) spec: ProcessSpec,
    pub(crate) log: Arc<ContainerLog>,
    pub(crate) started: SystemTime,
    /// The writing end of its standard input, kept open for attaching clients where the manifest wants one.
    pub(crate) stdin: Mutex<Option<OwnedFd>>,
    pub(crate) stdin_once: bool,
}

/// Runs a container until it is not to be started again.
pub(crate) async fn keep_running(pod: Arc<Pod>, index: usize) -> Ended {
    let (container, role) = pod.container(index);
    let policy = match (role, pod.manifest.restart_policy(container)) {
        // "Always" is for what should stay; an init container that has succeeded is done.
        (ContainerRole::Init, RestartPolicy::Always) => RestartPolicy::OnFailure,
        (_, policy) => policy,
    };
    let mut delay = Duration::ZERO;
    loop {
        let begun = Instant::now();
        let ended = match start(&pod, index).await {
            Ok(run) => follow(&pod, index, &run).await,
            Err(ended) => ended,
        };
        if !restarts(policy, &ended) {
            pod.update(|state| {
                state.containers[index].phase = ContainerPhase::Terminated(ended.clone());
                state.containers[index].ready = false;
            });
            return ended;
        }
        if begun.elapsed() >= LONG_RUN {
            delay = Duration::ZERO;
        }
        pod.update(|state| {
            let failed = ended.reason == "StartError";
            let container = &mut state.containers[index];
            container.ready = false;
            container.restarts += 1;
            let (reason, message) = if failed {
                ("RunContainerError", ended.message.clone())
            } else {
                let name = &container.name;
                let wait = delay.as_secs();
                ("CrashLoopBackOff", format!("back-off {wait}s restarting failed container={name}"))
            };
            container.phase = ContainerPhase::Waiting { reason, message };
            container.last = Some(ended);
        });
        tokio::time::sleep(delay).await;
        delay = if delay.is_zero() { FIRST_DELAY } else { (delay * 2).min(LONGEST_DELAY) };
    }
}

async fn start(pod: &Arc<Pod>, index: usize) -> Result<Arc<Running>, Ended> {
    let (container, _) = pod.container(index);
    let id = pod.next_container_id();
    let failed = |message: String| Ended {
        code: 128,
        signal: None,
        reason: "StartError",
        message,
        started: None,
        finished: SystemTime::now(),
        id: id.clone(),
    };
    let spec = container_process(&pod.manifest, container, &pod.place()).map_err(&failed)?;
    let sandbox = pod.sandbox().ok_or_else(|| failed("the pod has no sandbox".to_owned()))?;
    let path = pod.log_path(&container.name, &id);
    let log = ContainerLog::create(&path).await.map_err(|error| failed(format!("log: {error}")))?;
    let pipe =
        || rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(format!("pipe: {error}")));
    let mut stdin = None;
    let mut readers = Vec::new();
    let mut process = if spec.terminal.is_some() {
        sandbox.spawn(spec.clone(), [None, None, None]).await
    } else {
        let (out_reader, out) = pipe()?;
        let (err_reader, err) = pipe()?;
        let input = if container.stdin { Some(pipe()?) } else { None };
        readers = vec![(Stream::Stdout, out_reader), (Stream::Stderr, err_reader)];
        let (reading, writing) = input.unzip();
        stdin = writing;
        let stdio = [reading.as_ref().map(AsFd::as_fd), Some(out.as_fd()), Some(err.as_fd())];
        sandbox.spawn(spec.clone(), stdio).await
    }
    .map_err(|error| failed(error.message))?;
    let copies = {
        let log = Arc::clone(&log);
        let terminal = process.terminal.take();
        if let Some(terminal) = &terminal
            && container.stdin
        {
            stdin = terminal.try_clone().ok();
        }
        async move {
            let sources = readers.into_iter().filter_map(|(stream, reader)| {
                pipe::Receiver::from_owned_fd(reader).ok().map(|reader| (stream, reader))
            });
            let copies = sources.map(|(stream, reader)| log.record(stream, reader));
            let terminal = async {
                if let Some(terminal) = terminal.and_then(|terminal| Terminal::new(terminal).ok()) {
                    log.record(Stream::Stdout, terminal).await;
                }
            };
            tokio::join!(futures::future::join_all(copies), terminal);
            log.end();
        }
    };
    tokio::spawn(copies);
    let run = Arc::new(Running {
        id: id.clone(),
        process,
        spec,
        log,
        started: SystemTime::now(),
        stdin: Mutex::new(stdin),
        stdin_once: container.stdin_once,
    });
    pod.update(|state| {
        let container = &mut state.containers[index];
        container.previous = container.run.replace(Arc::clone(&run));
        container.phase = ContainerPhase::Running { since: run.started, id };
    });
    Ok(run)
}

async fn follow(pod: &Arc<Pod>, index: usize, run: &Arc<Running>) -> Ended {
    let (container, _) = pod.container(index);
    let ready = async {
        // Built-in workloads say when their ports are open; of others the lab knows no more than that they run.
        if !StandIn::of(container).announces_readiness() || run.log.first_output().await {
            pod.update(|state| state.containers[index].ready = true);
        }
        std::future::pending::<()>().await;
    };
    tokio::select! {
        biased;
        () = run.ended() => {}
        () = ready => {}
    }
    run.end()
}

impl Running {
    async fn ended(&self) {
        self.process.wait().await;
    }

    /// Its end, for the status; a process that is not known to have ended was killed with its pod.
    pub(crate) fn end(&self) -> Ended {
        let (code, signal) =
            self.process.ended().map_or((137, Some(libc::SIGKILL)), |ending| (ending.code, ending.signal));
        Ended {
            code,
            signal,
            reason: if code == 0 { "Completed" } else { "Error" },
            message: String::new(),
            started: Some(self.started),
            finished: SystemTime::now(),
            id: self.id.clone(),
        }
    }
}

/// The containers of a pod in the order of its state: init containers first.
pub(crate) fn ordered(spec: &super::manifest::PodSpec) -> Vec<(Container, ContainerRole)> {
    let init = spec.init_containers.iter().map(|container| {
        let role = if container.is_sidecar() { ContainerRole::Sidecar } else { ContainerRole::Init };
        (container.clone(), role)
    });
    init.chain(spec.containers.iter().map(|container| (container.clone(), ContainerRole::Main))).collect()
}
