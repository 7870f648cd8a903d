//! Subresources of pods: binding, log, exec, attach, portforward (kubernetes-api 9).

use std::sync::Arc;

use futures::{StreamExt, TryStreamExt};
use http::{HeaderValue, Response, StatusCode, header};
use http_body_util::{BodyExt, StreamBody};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};

use super::{
    decode::{self, BodyFormat},
    respond::{Answer, Body, full},
    service::{Inner, Ready},
    write::{self, set, set_in, store_status, text},
};
use crate::{
    resource,
    runtime::{
        BoxFuture, ByteSink, ByteSource, ExecRequest, ExecSession, ExitStatus, LogRequest, PodRuntime,
        PortRequest,
    },
    status::{Cause, Status},
    store::{Batch, Key, StoreError, Write},
    stream::{self, EXEC_PROTOCOLS, PORT_FORWARD_PROTOCOLS, PortConnector},
    time,
};

const MAX_COMMAND: usize = 64 * 1024;
const RETRIES: usize = 32;

/// The pod of a stream request.
struct Pod {
    uid: String,
    value: Value,
}

fn pod(api: &Inner, rq: &Ready) -> Result<Pod, Status> {
    let key = Key::new(rq.target.rt, rq.target.ns(), rq.target.name());
    let object = api.store.get(&key).ok_or_else(|| Status::not_found(rq.target.rt, rq.target.name()))?;
    let value = object.value();
    Ok(Pod { uid: text(&value, "/metadata/uid").unwrap_or("").to_string(), value })
}

/// The container that was asked for, or the only one (kubectl's default annotation counts).
fn container(pod: &Pod, rq: &Ready) -> Result<String, Status> {
    let names = |field: &str| -> Vec<String> {
        let list = pod.value.pointer(field).and_then(Value::as_array);
        list.into_iter().flatten().filter_map(|c| Some(c.get("name")?.as_str()?.to_string())).collect()
    };
    let (main, init) = (names("/spec/containers"), names("/spec/initContainers"));
    let name = rq.target.name();
    match rq.query.get("container") {
        Some(asked) if main.iter().chain(&init).any(|c| c == asked) => Ok(asked.to_string()),
        Some(asked) => Err(Status::bad_request(format!("container {asked} is not valid for pod {name}"))),
        None => match main.as_slice() {
            [only] => Ok(only.clone()),
            several => Err(Status::bad_request(format!(
                "a container name must be specified for pod {name}, choose one of: [{}]",
                several.join(" ")
            ))),
        },
    }
}

/// Streams need a pod that was placed on a node.
fn check_placed(pod: &Pod, rq: &Ready) -> Result<(), Status> {
    if text(&pod.value, "/spec/nodeName").unwrap_or("").is_empty() {
        return Err(Status::bad_request(format!("pod {} does not have a host assigned", rq.target.name())));
    }
    Ok(())
}

/// GET pods/x/log.
pub(super) async fn log(api: &Inner, rq: &mut Ready) -> Result<Answer, Status> {
    let pod = pod(api, rq)?;
    let request = LogRequest {
        namespace: rq.target.ns().to_string(),
        pod: rq.target.name().to_string(),
        uid: pod.uid.clone(),
        container: container(&pod, rq)?,
        follow: rq.query.flag("follow")?,
        previous: rq.query.flag("previous")?,
        timestamps: rq.query.flag("timestamps")?,
        since_seconds: rq.query.number("sinceSeconds")?,
        since_time: since_time(rq)?,
        tail_lines: rq.query.number("tailLines")?,
        limit_bytes: rq.query.number("limitBytes")?,
    };
    check_placed(&pod, rq)?;
    let source = api.runtime().logs(request).await?;
    let permit = rq.permit.take();
    let shutdown = api.shutdown.clone();
    let chunks = stream::log_body(source)
        .map_err(Into::into)
        .inspect(move |_| {
            // The place among the streams is held until the log ends.
            let _ = &permit;
        })
        .take_until(async move { shutdown.cancelled().await });
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(chunks)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    Ok(Answer::Raw(response))
}

fn since_time(rq: &Ready) -> Result<Option<String>, Status> {
    let Some(since) = rq.query.get("sinceTime") else { return Ok(None) };
    if rq.query.get("sinceSeconds").is_some() {
        return Err(Status::bad_request("at most one of sinceTime or sinceSeconds may be specified"));
    }
    time::parse(since).ok_or_else(|| Status::bad_request("sinceTime is not an RFC 3339 time"))?;
    Ok(Some(since.to_string()))
}

/// GET or POST pods/x/exec.
pub(super) async fn exec(api: &Inner, rq: &mut Ready) -> Result<Answer, Status> {
    let command: Vec<String> = rq.query.all("command").map(String::from).collect();
    if command.is_empty() {
        return Err(Status::bad_request("you must specify at least one command for the container"));
    }
    if command.iter().map(String::len).sum::<usize>() > MAX_COMMAND {
        return Err(Status::bad_request("the command is too long"));
    }
    session(api, rq, command, |runtime, request| Box::pin(async move { runtime.exec(request).await })).await
}

/// GET or POST pods/x/attach.
pub(super) async fn attach(api: &Inner, rq: &mut Ready) -> Result<Answer, Status> {
    session(api, rq, Vec::new(), |runtime, request| Box::pin(async move { runtime.attach(request).await }))
        .await
}

type Starting = BoxFuture<'static, Result<ExecSession, Status>>;

async fn session(
    api: &Inner,
    rq: &mut Ready,
    command: Vec<String>,
    start: impl FnOnce(Arc<dyn PodRuntime>, ExecRequest) -> Starting,
) -> Result<Answer, Status> {
    let pod = pod(api, rq)?;
    let tty = rq.query.flag("tty")?;
    let request = ExecRequest {
        namespace: rq.target.ns().to_string(),
        pod: rq.target.name().to_string(),
        uid: pod.uid.clone(),
        container: container(&pod, rq)?,
        command,
        stdin: rq.query.flag("stdin")?,
        stdout: rq.query.flag("stdout")?,
        stderr: rq.query.flag("stderr")? && !tty,
        tty,
    };
    if !(request.stdin || request.stdout || request.stderr) {
        return Err(Status::bad_request("you must specify at least one of stdin, stdout, stderr"));
    }
    check_placed(&pod, rq)?;
    let handshake = stream::negotiate(&rq.headers, EXEC_PROTOCOLS)?;
    let upgrade = rq.upgrade.take().ok_or_else(no_upgrade)?;
    // What the runtime says comes through the stream, as from upstream's kubelet: after a refused upgrade
    // kubectl would try SPDY and report only that.
    let session = start(api.runtime(), request).await.unwrap_or_else(|s| failed(&s.message));
    let (protocol, permit, shutdown) = (handshake.protocol, rq.permit.take(), api.shutdown.clone());
    tokio::spawn(async move {
        let Ok(socket) = upgrade.await else { return };
        tokio::select! {
            () = stream::serve_exec(TokioIo::new(socket), protocol, session) => {}
            () = shutdown.cancelled() => {}
        }
        drop(permit);
    });
    Ok(Answer::Raw(switching(&handshake)))
}

/// A session that ends at once with this failure.
fn failed(why: &str) -> ExecSession {
    let (ended, exit) = tokio::sync::oneshot::channel();
    let _ = ended.send(ExitStatus::Failed(why.to_string()));
    ExecSession { stdin: None, stdout: None, stderr: None, resize: None, exit }
}

fn no_upgrade() -> Status {
    Status::bad_request("this connection cannot be upgraded: use HTTP/1.1 over a socket")
}

fn switching(handshake: &stream::Handshake) -> Response<Body> {
    handshake.response::<String>().map(|_| full(""))
}

struct PodPorts {
    runtime: Arc<dyn PodRuntime>,
    namespace: String,
    pod: String,
    uid: String,
}

impl PortConnector for PodPorts {
    fn connect(&self, port: u16) -> BoxFuture<'_, Result<(ByteSource, ByteSink), String>> {
        self.runtime.connect(PortRequest {
            namespace: self.namespace.clone(),
            pod: self.pod.clone(),
            uid: self.uid.clone(),
            port,
        })
    }
}

/// GET or POST pods/x/portforward.
pub(super) async fn port_forward(api: &Inner, rq: &mut Ready) -> Result<Answer, Status> {
    let pod = pod(api, rq)?;
    check_placed(&pod, rq)?;
    let ports = stream::parse_ports(rq.query.all("ports"))?;
    let handshake = stream::negotiate(&rq.headers, PORT_FORWARD_PROTOCOLS)?;
    let upgrade = rq.upgrade.take().ok_or_else(no_upgrade)?;
    let connector = PodPorts {
        runtime: api.runtime(),
        namespace: rq.target.ns().to_string(),
        pod: rq.target.name().to_string(),
        uid: pod.uid,
    };
    let (protocol, permit, shutdown) = (handshake.protocol, rq.permit.take(), api.shutdown.clone());
    tokio::spawn(async move {
        let Ok(socket) = upgrade.await else { return };
        tokio::select! {
            () = stream::serve_port_forward(TokioIo::new(socket), protocol, &ports, &connector) => {}
            () = shutdown.cancelled() => {}
        }
        drop(permit);
    });
    Ok(Answer::Raw(switching(&handshake)))
}

/// POST pods/x/binding: puts an unscheduled pod on a node.
pub(super) async fn bind(api: &Inner, rq: &mut Ready) -> Result<Answer, Status> {
    let rt = rq.target.rt;
    let binding = decode::decode(BodyFormat::of(rq.content_type.as_deref())?, &rq.body)?.value;
    let name = rq.target.name().to_string();
    let node = text(&binding, "/target/name").unwrap_or("").to_string();
    let kind = text(&binding, "/target/kind").unwrap_or("Node");
    if node.is_empty() || kind != "Node" {
        let cause = Cause {
            reason: "FieldValueRequired".into(),
            message: "Required value: a target of kind Node is needed".into(),
            field: "target.name".into(),
        };
        return Err(Status::invalid("", "Binding", &name, vec![cause]));
    }
    let nodes = resource::find("", "v1", "nodes").expect("nodes are in the registry");
    let dry_run = rq.query.dry_run()?;
    let key = Key::new(rt, rq.target.ns(), &name);
    for _ in 0..RETRIES {
        let current = api.store.get(&key).ok_or_else(|| Status::not_found(rt, &name))?;
        let mut pod = current.value();
        let uid = text(&binding, "/metadata/uid").unwrap_or("");
        if !uid.is_empty() && text(&pod, "/metadata/uid") != Some(uid) {
            return Err(Status::conflict(rt, &name, "the uid of the binding is another pod's"));
        }
        let placed = text(&pod, "/spec/nodeName").unwrap_or("");
        if !placed.is_empty() {
            return Err(Status::conflict(
                rt,
                &name,
                format!("pod {name} is already assigned to node \"{placed}\""),
            ));
        }
        if pod.pointer("/metadata/deletionTimestamp").is_some() {
            return Err(Status::conflict(
                rt,
                &name,
                format!("pod {name} is being deleted, cannot be assigned to a host"),
            ));
        }
        if api.store.get(&Key::new(nodes, "", &node)).is_none() {
            return Err(Status::not_found(nodes, &node));
        }
        set_in(&mut pod, "spec", "nodeName", json!(node));
        set_scheduled(&mut pod);
        if dry_run {
            break;
        }
        let write = Write { key: key.clone(), expected: Some(current.revision), value: Some(pod) };
        match api.store.commit(Batch { asserts: vec![], writes: vec![write] }).await {
            Ok(_) => break,
            Err(StoreError::Conflict { .. }) => {}
            Err(e) => return Err(store_status(&e)),
        }
    }
    let done = Status::error(StatusCode::CREATED, "", "");
    Ok(Answer::Status(done))
}

fn set_scheduled(pod: &mut Value) {
    if pod.get("status").is_none() {
        set(pod, "status", json!({}));
    }
    let Some(status) = pod.get_mut("status") else { return };
    let mut conditions: Vec<Value> =
        status.get("conditions").and_then(Value::as_array).cloned().unwrap_or_default();
    conditions.retain(|c| text(c, "/type") != Some("PodScheduled"));
    conditions.push(json!({
        "type": "PodScheduled",
        "status": "True",
        "lastProbeTime": null,
        "lastTransitionTime": time::rfc3339(time::now()),
    }));
    write::set(status, "conditions", Value::Array(conditions));
}
