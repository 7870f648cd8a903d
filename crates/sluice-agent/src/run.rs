//! Starting and ending an agent.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;

use kube::api::{DynamicObject, Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use sluice_cluster::{ConnectError, RESOURCES, Scope, api_resource, client_from_kubeconfig};
use sluice_netlink::{Protocol, Socket};
use sluice_network::netns::{NETLINK_ROUTE, NetnsRef};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::attach;
use crate::config::AgentConfig;
use crate::core::{Core, Event, Reports};
use crate::records;
use crate::status;

/// Events that may wait for the core.
const QUEUE: usize = 16_384;
/// How often the kernel is compared with the plan (networking 7).
const RESYNC: Duration = Duration::from_secs(60);

/// Changes of interfaces within this time are handled together.
const TOGETHER: Duration = Duration::from_millis(100);
/// `RTNLGRP_LINK`.
const RTNLGRP_LINK: u32 = 1;
/// `RTNLGRP_IPV4_IFADDR`.
const RTNLGRP_IPV4_IFADDR: u32 = 5;
/// `RTNLGRP_IPV6_IFADDR`.
const RTNLGRP_IPV6_IFADDR: u32 = 9;

/// Why an agent cannot run.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// No connection to the API.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The node's network namespace cannot be entered.
    #[error("cannot open a netlink socket in the node's network namespace")]
    Namespace(#[source] io::Error),
    /// A netlink socket cannot be used.
    #[error("cannot use a netlink socket")]
    Netlink(#[source] sluice_netlink::Error),
    /// The pod network cannot be set up.
    #[error("cannot set up the pod network")]
    Network(#[from] sluice_network::NetworkError),
    /// The socket for attachments cannot be bound.
    #[error("cannot listen at {path}")]
    Listen {
        /// Where.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Runs an agent until `stop`. Enforcement stays in the kernel when it ends, however it ends.
pub async fn run(config: AgentConfig, stop: CancellationToken) -> Result<(), AgentError> {
    let client = client_from_kubeconfig(config.kubeconfig.as_deref()).await?;
    let (events, queue) = mpsc::channel(QUEUE);
    let (state, states) = watch::channel(None);
    let (annotations, published) = watch::channel(None);
    let (sweep, sweeps) = mpsc::channel(1);
    let node = config.node.to_string();
    let listener = attach::listen(&config.socket)
        .map_err(|source| AgentError::Listen { path: config.socket.clone(), source })?;
    let links = watch_links(&config)?;
    let settings = config.clone();
    let core = Core::open(config, Reports { state, annotations, sweep })?;
    // the core blocks on netlink; it gets a thread of its own
    let core = std::thread::Builder::new()
        .name("core".into())
        .spawn(move || core.run(queue))
        .map_err(AgentError::Namespace)?;
    let mut tasks = JoinSet::new();
    for resource in RESOURCES {
        let (sender, receiver) = mpsc::channel(256);
        tasks.spawn(sluice_cluster::watch(client.clone(), resource, Scope::default(), sender));
        tasks.spawn(forward(receiver, events.clone()));
    }
    tasks.spawn(status::publish(client.clone(), node.clone(), states));
    tasks.spawn(annotate(client, node, published));
    tasks.spawn(resync(events.clone()));
    tasks.spawn(sweep_later(sweeps, events.clone()));
    let changes = events.clone();
    std::thread::Builder::new()
        .name("links".into())
        .spawn(move || tell_of_links(links, &changes))
        .map_err(AgentError::Namespace)?;
    let alive = events.clone();
    std::thread::Builder::new()
        .name("records".into())
        .spawn(move || records::write(&settings, || alive.is_closed()))
        .map_err(AgentError::Namespace)?;
    let accepting = events.clone();
    std::thread::Builder::new()
        .name("attach".into())
        .spawn(move || accept(&listener, &accepting))
        .map_err(AgentError::Namespace)?;
    stop.cancelled().await;
    // the core ends with its channel; the accepting thread ends with the process
    tasks.shutdown().await;
    drop(events);
    drop(core);
    Ok(())
}

async fn forward(mut from: mpsc::Receiver<sluice_cluster::Event>, to: mpsc::Sender<Event>) {
    while let Some(event) = from.recv().await {
        if to.send(Event::Cluster(event)).await.is_err() {
            return;
        }
    }
}

async fn resync(events: mpsc::Sender<Event>) {
    let mut clock = tokio::time::interval(RESYNC);
    clock.tick().await; // the first tick is at once, and the start compares anyway
    loop {
        clock.tick().await;
        if events.send(Event::Resync).await.is_err() {
            return;
        }
    }
}

async fn sweep_later(mut wanted: mpsc::Receiver<Duration>, events: mpsc::Sender<Event>) {
    while let Some(pause) = wanted.recv().await {
        tokio::time::sleep(pause).await;
        if events.send(Event::Sweep).await.is_err() {
            return;
        }
    }
}

/// A socket that hears of changes of the node's interfaces and addresses.
fn watch_links(config: &AgentConfig) -> Result<Socket, AgentError> {
    let fd = config.namespaces.open_netlink(NetnsRef::Node, NETLINK_ROUTE).map_err(AgentError::Namespace)?;
    let socket = Socket::adopt(fd, Protocol::Route).map_err(AgentError::Netlink)?;
    for group in [RTNLGRP_LINK, RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV6_IFADDR] {
        socket.join(group).map_err(AgentError::Netlink)?;
    }
    Ok(socket)
}

/// Tells the core of changes until it is gone, of those that come together once.
fn tell_of_links(mut socket: Socket, events: &mpsc::Sender<Event>) {
    while !events.is_closed() {
        match next_links(&mut socket) {
            Ok(true) => drop(events.blocking_send(Event::Links)),
            Ok(false) => {}
            Err(error) => {
                tracing::error!(%error, "changes of interfaces are no longer heard of at once");
                return;
            }
        }
    }
}

/// Waits for a change and what follows within a moment; `false` if none came for a while.
fn next_links(socket: &mut Socket) -> Result<bool, sluice_netlink::Error> {
    socket.set_timeout(RESYNC)?;
    if !is_heard(socket)? {
        return Ok(false);
    }
    std::thread::sleep(TOGETHER);
    socket.set_timeout(Duration::ZERO)?;
    while is_heard(socket)? {}
    Ok(true)
}

fn is_heard(socket: &mut Socket) -> Result<bool, sluice_netlink::Error> {
    match socket.receive_events() {
        // lost events are changes too
        Ok(_) | Err(sluice_netlink::Error::Overrun) => Ok(true),
        Err(sluice_netlink::Error::Timeout { .. }) => Ok(false),
        Err(error) => Err(error),
    }
}

fn accept(listener: &impl AsFd, events: &mpsc::Sender<Event>) {
    loop {
        match attach::accept(listener.as_fd()) {
            Ok(Some(job)) => {
                if events.blocking_send(Event::Job(job)).is_err() {
                    return;
                }
            }
            Ok(None) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                tracing::error!(%error, "attachments can no longer be asked for");
                return;
            }
        }
    }
}

/// Publishes the node's annotations (networking 6.1), so that peers find its tunnel.
async fn annotate(client: Client, node: String, mut news: watch::Receiver<Option<BTreeMap<String, String>>>) {
    let api: Api<DynamicObject> = Api::all_with(client, &api_resource("", "v1", "Node", "nodes"));
    while news.changed().await.is_ok() {
        loop {
            let Some(annotations) = news.borrow_and_update().clone() else { break };
            let body = json!({ "metadata": { "annotations": annotations } });
            match api.patch_status(&node, &PatchParams::default(), &Patch::Merge(&body)).await {
                Ok(_) => break,
                Err(error) => {
                    tracing::warn!(%error, "cannot publish the node's annotations");
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            }
        }
    }
}
