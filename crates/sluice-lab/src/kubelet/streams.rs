//! exec, attach and logs: the API server's [`PodRuntime`] over sandboxes.

use std::os::fd::AsFd;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use rustix::pipe::PipeFlags;
use serde_json::Value;
use sluice_apiserver::runtime::{
    BoxFuture, ByteSink, ByteSource, ExecRequest, ExecSession, ExitStatus, LogRequest, PodRuntime,
    TerminalSize,
};
use sluice_apiserver::status::Status;
use tokio::net::unix::pipe;
use tokio::sync::{mpsc, oneshot};

use super::Kubelet;
use super::container::Running;
use super::log::{LogView, Stream, ago};
use super::pod::Pod;
use super::status::ContainerPhase;
use crate::protocol::ProcessSpec;
use crate::sandbox::{Process, SpawnError};
use crate::terminal::Terminal;
use crate::timestamp;

/// A program whose client has gone gets SIGHUP, and after this long SIGKILL.
const HANG_UP_LIMIT: Duration = Duration::from_secs(5);

impl PodRuntime for Kubelet {
    fn exec(&self, request: ExecRequest) -> BoxFuture<'_, Result<ExecSession, Status>> {
        Box::pin(async move {
            let pod = self.pod(&request.uid, &request.namespace, &request.pod)?;
            let run = running(&pod, &request.container)?;
            match exec(&pod, &run, &request).await {
                Ok(session) => Ok(session),
                // Told on the error stream: a refused upgrade would make clients try an older protocol first.
                Err(error) => {
                    let (sender, exit) = oneshot::channel();
                    let _ = sender.send(ExitStatus::Failed(error.message));
                    let empty = |wanted: bool| wanted.then(|| Box::pin(tokio::io::empty()) as ByteSource);
                    let sink = request.stdin.then(|| Box::pin(tokio::io::sink()) as ByteSink);
                    let (stdout, stderr) = (empty(request.stdout), empty(request.stderr && !request.tty));
                    Ok(ExecSession { stdin: sink, stdout, stderr, resize: None, exit })
                }
            }
        })
    }

    fn attach(&self, request: ExecRequest) -> BoxFuture<'_, Result<ExecSession, Status>> {
        Box::pin(async move {
            let pod = self.pod(&request.uid, &request.namespace, &request.pod)?;
            let run = running(&pod, &request.container)?;
            Ok(attach(run, &request))
        })
    }

    fn logs(&self, request: LogRequest) -> BoxFuture<'_, Result<ByteSource, Status>> {
        Box::pin(async move {
            let pod = self.pod(&request.uid, &request.namespace, &request.pod)?;
            let run = logged(&pod, &request)?;
            let since =
                match (&request.since_time, request.since_seconds) {
                    (Some(time), _) => Some(timestamp::parse(time).ok_or_else(|| {
                        Status::bad_request(format!("sinceTime {time:?} is no RFC 3339 time"))
                    })?),
                    (None, Some(seconds)) => ago(seconds),
                    (None, None) => None,
                };
            let view = LogView {
                follow: request.follow,
                timestamps: request.timestamps,
                since,
                tail: request.tail_lines,
                limit: request.limit_bytes,
            };
            Ok(Box::pin(run.log.read(view)) as ByteSource)
        })
    }

    fn pod_deleted(&self, pod: &Value, removed: bool) {
        self.seen(pod, removed);
    }
}

fn running(pod: &Pod, container: &str) -> Result<Arc<Running>, Status> {
    let run =
        pod.lock().containers.iter().find(|known| known.name == container).and_then(|known| {
            match known.phase {
                ContainerPhase::Running { .. } => known.run.clone(),
                _ => None,
            }
        });
    // The kubelet's words.
    run.ok_or_else(|| {
        Status::internal(format!("unable to upgrade connection: container not found (\"{container}\")"))
    })
}

fn logged(pod: &Pod, request: &LogRequest) -> Result<Arc<Running>, Status> {
    let LogRequest { container, pod: name, previous, .. } = request;
    let state = pod.lock();
    {
        let known = state.containers.iter().find(|known| known.name == *container).ok_or_else(|| {
            Status::bad_request(format!("container {container} is not valid for pod {name}"))
        })?;
        let run = if *previous { &known.previous } else { &known.run };
        run.clone().ok_or_else(|| match &known.phase {
            _ if *previous => Status::bad_request(format!(
                "previous terminated container \"{container}\" in pod \"{name}\" not found"
            )),
            ContainerPhase::Waiting { reason, message } => {
                let why =
                    if message.is_empty() { (*reason).to_owned() } else { format!("{reason}: {message}") };
                Status::bad_request(format!(
                    "container \"{container}\" in pod \"{name}\" is waiting to start: {why}"
                ))
            }
            _ => Status::bad_request(format!("container \"{container}\" in pod \"{name}\" has no log")),
        })
    }
}

async fn exec(pod: &Pod, run: &Running, request: &ExecRequest) -> Result<ExecSession, SpawnError> {
    let failed = |error: std::io::Error| SpawnError { message: error.to_string(), not_found: false };
    let sandbox = pod.sandbox().ok_or_else(|| failed(std::io::Error::other("the pod has no sandbox")))?;
    let mut env = run.spec.env.clone();
    if request.tty && !env.iter().any(|(name, _)| name == "TERM") {
        env.push(("TERM".to_owned(), "xterm".to_owned()));
    }
    let spec = ProcessSpec {
        argv: request.command.clone(),
        env,
        cwd: run.spec.cwd.clone(),
        terminal: request.tty.then_some((24, 80)),
        owns_group: false,
    };
    if request.tty {
        let mut process = sandbox.spawn(spec, [None, None, None]).await?;
        let terminal = process.terminal.take().ok_or_else(|| failed(std::io::Error::other("no terminal")))?;
        let copy = || terminal.try_clone().and_then(Terminal::new).map_err(failed);
        let (input, output) = (copy()?, copy()?);
        let (resize, mut sizes) = mpsc::channel::<TerminalSize>(4);
        let resizing = Terminal::new(terminal).map_err(failed)?;
        tokio::spawn(async move {
            while let Some(size) = sizes.recv().await {
                let _ = resizing.resize(size.height, size.width);
            }
        });
        return Ok(ExecSession {
            stdin: request.stdin.then(|| Box::pin(input) as ByteSink),
            stdout: request.stdout.then(|| Box::pin(output) as ByteSource),
            stderr: None,
            resize: Some(resize),
            exit: exit_of(process),
        });
    }
    let pipe = |wanted: bool| -> Result<_, SpawnError> {
        if !wanted {
            return Ok((None, None));
        }
        let (reader, writer) =
            rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|error| failed(error.into()))?;
        Ok((Some(reader), Some(writer)))
    };
    let (stdin_reader, stdin) = pipe(request.stdin)?;
    let (stdout, stdout_writer) = pipe(request.stdout)?;
    let (stderr, stderr_writer) = pipe(request.stderr)?;
    let stdio = [&stdin_reader, &stdout_writer, &stderr_writer].map(|end| end.as_ref().map(AsFd::as_fd));
    let process = sandbox.spawn(spec, stdio).await?;
    let sink = |end| pipe::Sender::from_owned_fd(end).map(|end| Box::pin(end) as ByteSink).map_err(failed);
    let source =
        |end| pipe::Receiver::from_owned_fd(end).map(|end| Box::pin(end) as ByteSource).map_err(failed);
    Ok(ExecSession {
        stdin: stdin.map(sink).transpose()?,
        stdout: stdout.map(source).transpose()?,
        stderr: stderr.map(source).transpose()?,
        resize: None,
        exit: exit_of(process),
    })
}

/// Reports the end of a process; hangs up one whose client has gone.
fn exit_of(process: Process) -> oneshot::Receiver<ExitStatus> {
    let (mut sender, receiver) = oneshot::channel();
    tokio::spawn(async move {
        tokio::select! {
            ending = process.wait() => {
                let _ = sender.send(ExitStatus::Code(ending.code));
            }
            () = sender.closed() => {
                let _ = process.signal(libc::SIGHUP, true).await;
                if tokio::time::timeout(HANG_UP_LIMIT, process.wait()).await.is_err() {
                    let _ = process.signal(libc::SIGKILL, true).await;
                }
            }
        }
    });
    receiver
}

fn attach(run: Arc<Running>, request: &ExecRequest) -> ExecSession {
    let live = |wanted: bool, stream| wanted.then(|| Box::pin(run.log.live(stream)) as ByteSource);
    let (stdout, stderr) = (live(request.stdout, Stream::Stdout), live(request.stderr, Stream::Stderr));
    let stdin = request.stdin.then(|| {
        let mut kept = run.stdin.lock().unwrap_or_else(PoisonError::into_inner);
        let end =
            if run.stdin_once { kept.take() } else { kept.as_ref().and_then(|end| end.try_clone().ok()) };
        let sink = match end {
            Some(end) if run.spec.terminal.is_some() => {
                Terminal::new(end).ok().map(|end| Box::pin(end) as ByteSink)
            }
            Some(end) => pipe::Sender::from_owned_fd(end).ok().map(|end| Box::pin(end) as ByteSink),
            None => None,
        };
        // The manifest wants no input: what is typed goes nowhere.
        sink.unwrap_or_else(|| Box::pin(tokio::io::sink()))
    });
    let (sender, exit) = oneshot::channel();
    tokio::spawn(async move {
        let ending = run.process.wait().await;
        let _ = sender.send(ExitStatus::Code(ending.code));
    });
    ExecSession { stdin, stdout, stderr, resize: None, exit }
}
