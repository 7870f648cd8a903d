//! Waiting until every node has what was written in its kernel.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kube::Client;
use sluice_model::Kind;

use super::Applied;
use crate::exit::Exit;
use crate::status;

/// How often agents' reports are read.
const LOOK: Duration = Duration::from_millis(100);

/// Waits until the report of every node's agent has come to what was written; undecided if it takes longer than `limit`.
pub(crate) async fn programmed(
    client: &Client,
    written: &[Applied],
    limit: Duration,
) -> anyhow::Result<Exit> {
    let mut wanted: BTreeMap<&str, u64> = BTreeMap::new();
    // a pod is programmed when it has an address, which is not what was written
    let watched = sluice_cluster::RESOURCES.iter().filter(|resource| resource.model != Kind::Pod);
    let watched: Vec<String> = watched.map(sluice_cluster::Resource::full_name).collect();
    for object in written.iter().filter(|object| watched.contains(&object.resource)) {
        let revision = wanted.entry(&object.resource).or_default();
        *revision = object.revision.max(*revision);
    }
    let began = Instant::now();
    loop {
        let nodes = status::nodes(client).await?;
        let late: Vec<&str> =
            nodes.iter().filter(|node| !node.has(&wanted)).map(|node| node.name()).collect();
        if wanted.is_empty() || (late.is_empty() && !nodes.is_empty()) {
            return Ok(Exit::Yes);
        }
        if !limit.is_zero() && began.elapsed() > limit {
            let late = if nodes.is_empty() { "no node is known".to_owned() } else { late.join(", ") };
            eprintln!("not programmed after {} s: {late}", limit.as_secs());
            return Ok(Exit::Undecided);
        }
        tokio::time::sleep(LOOK).await;
    }
}
