//! The node's report: one NodePolicyState object, written when it changed.

use std::time::Duration;

use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::json;
use sluice_cluster::api_resource;
use sluice_report::{API_VERSION, NodePolicyState};
use tokio::sync::watch;

/// Pause after a report that could not be written.
const RETRY: Duration = Duration::from_millis(500);

/// Writes every new state until the sender is gone. Latest wins: states between two writes are skipped.
pub(crate) async fn publish(
    client: Client,
    node: String,
    mut states: watch::Receiver<Option<NodePolicyState>>,
) {
    let resource = api_resource("sluice.dev", "v1alpha1", "NodePolicyState", "nodepolicystates");
    let api: Api<DynamicObject> = Api::all_with(client, &resource);
    let mut exists = false;
    while states.changed().await.is_ok() {
        loop {
            let Some(state) = states.borrow_and_update().clone() else { break };
            match write(&api, &resource, &node, &state, &mut exists).await {
                Ok(()) => break,
                Err(error) => {
                    tracing::warn!(%error, "cannot report the node's state");
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }
}

async fn write(
    api: &Api<DynamicObject>,
    resource: &kube::api::ApiResource,
    node: &str,
    state: &NodePolicyState,
    exists: &mut bool,
) -> Result<(), kube::Error> {
    if !*exists {
        let object = DynamicObject::new(node, resource);
        match api.create(&PostParams::default(), &object).await {
            Ok(_) => {}
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error),
        }
        *exists = true;
    }
    let body = json!({ "apiVersion": API_VERSION, "kind": "NodePolicyState", "status": state });
    match api.patch_status(node, &PatchParams::default(), &Patch::Merge(&body)).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 404 => {
            *exists = false; // somebody deleted it; the next attempt makes it anew
            Err(kube::Error::Api(status))
        }
        Err(error) => Err(error),
    }
}
