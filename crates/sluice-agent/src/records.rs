//! Records of connections that met Log rules, as lines of the agent's log (semantics 3.5).

use std::time::Duration;

use sluice_dataplane::{FlowRecord, hear_records};
use sluice_netlink::{Error, Protocol, Socket};
use sluice_network::netns::{NETLINK_NETFILTER, NetnsRef};

use crate::config::AgentConfig;
use crate::run::AgentError;

/// How long an agent that ends may go on hearing them, and how often it asks for records that another one still has.
const PAUSE: Duration = Duration::from_secs(5);

/// Writes records until `is_over`. Without them nothing else fails: the rules go on, and the kernel drops their records.
pub(crate) fn write(config: &AgentConfig, is_over: impl Fn() -> bool) {
    let mut is_told = false;
    while !is_over() {
        let result =
            open(config).and_then(|mut socket| hear(&mut socket, &is_over).map_err(AgentError::Netlink));
        if let Err(error) = result
            && !std::mem::replace(&mut is_told, true)
        {
            tracing::warn!(error = &error as &dyn std::error::Error, "records of Log rules are not heard");
        }
        std::thread::sleep(PAUSE);
    }
}

fn open(config: &AgentConfig) -> Result<Socket, AgentError> {
    let opened = config.namespaces.open_netlink(NetnsRef::Node, NETLINK_NETFILTER);
    let fd = opened.map_err(AgentError::Namespace)?;
    let mut socket = Socket::adopt(fd, Protocol::Netfilter).map_err(AgentError::Netlink)?;
    hear_records(&mut socket).map_err(AgentError::Netlink)?;
    socket.set_timeout(PAUSE).map_err(AgentError::Netlink)?;
    Ok(socket)
}

fn hear(socket: &mut Socket, is_over: impl Fn() -> bool) -> Result<(), Error> {
    while !is_over() {
        match socket.receive_events() {
            Ok(events) => {
                for record in events.iter().filter_map(|(kind, body)| FlowRecord::of(*kind, body)) {
                    tracing::info!(target: "sluice::flows", "{record}");
                }
            }
            Err(Error::Timeout { .. }) => {}
            Err(Error::Overrun) => tracing::warn!("records of Log rules were lost"),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
