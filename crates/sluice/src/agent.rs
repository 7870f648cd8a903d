//! `sluice agent`: the node agent as a process of its own.

use std::sync::Arc;

use sluice_agent::{AgentConfig, LiveFlows};
use sluice_network::netns::{DirectNamespaces, Namespaces};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::args::Agent;
use crate::exit::Exit;

/// Runs the agent until SIGTERM or SIGINT. Enforcement stays in place.
pub(crate) async fn run(command: Agent) -> anyhow::Result<Exit> {
    let namespaces: Arc<dyn Namespaces> = match &command.broker {
        Some(path) => Arc::new(sluice_lab::BrokerClient::connect(path, &command.node)?),
        None => Arc::new(DirectNamespaces::new()),
    };
    let failsafes = command.failsafes();
    let config = AgentConfig {
        node: command.node.as_str().into(),
        kubeconfig: command.kubeconfig,
        namespaces,
        socket: command.socket,
        state: command.state,
        cluster_cidrs: command.cluster_cidrs,
        service_cidrs: command.service_cidrs,
        service_proxy: command.service_proxy,
        live_flows: if command.revoke_established { LiveFlows::Cut } else { LiveFlows::Keep },
        failsafes,
    };
    let stop = CancellationToken::new();
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let signals = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        signals.cancel();
    });
    sluice_agent::run(config, stop).await?;
    Ok(Exit::Yes)
}
