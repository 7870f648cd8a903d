//! The agent's attachment socket as a [`PodNetwork`].

use std::os::fd::AsFd;

use futures::future::BoxFuture;
use sluice_agent::AttachSocket;

use super::{AttachRequest, Attached, DetachRequest, PodNetwork, chain};
use crate::LabError;

impl PodNetwork for AttachSocket {
    fn attach(&self, request: AttachRequest) -> BoxFuture<'_, Result<Attached, LabError>> {
        let socket = self.clone();
        Box::pin(async move {
            let AttachRequest { namespace, name, uid, container_id, netns, interface } = request;
            let pod = format!("pod {namespace}/{name}");
            let message = sluice_agent::AttachRequest { namespace, name, uid, container_id, interface };
            let attached = tokio::task::spawn_blocking(move || socket.attach(&message, netns.as_fd())).await;
            match attached {
                Ok(Ok(reply)) => Ok(Attached { addresses: reply.addresses }),
                Ok(Err(error)) => Err(LabError::Network { object: pod, message: chain(&error) }),
                Err(error) => Err(LabError::Network { object: pod, message: error.to_string() }),
            }
        })
    }

    fn detach(&self, request: DetachRequest) -> BoxFuture<'_, Result<(), LabError>> {
        let socket = self.clone();
        Box::pin(async move {
            let DetachRequest { namespace, name, container_id, interface, .. } = request;
            let pod = format!("pod {namespace}/{name}");
            let message = sluice_agent::DetachRequest { container_id, interface };
            match tokio::task::spawn_blocking(move || socket.detach(&message)).await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(error)) => Err(LabError::Network { object: pod, message: chain(&error) }),
                Err(error) => Err(LabError::Network { object: pod, message: error.to_string() }),
            }
        })
    }
}
