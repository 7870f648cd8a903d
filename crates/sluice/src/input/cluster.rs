//! The objects of a live cluster.

use anyhow::Context;
use sluice_cluster::Resource;
use sluice_kinds::LoadedObject;
use sluice_model::{ObjectDelta, World};
use sluice_report::Finding;

use super::{Input, services, workloads};
use crate::resolve;

/// Everything that an answer about a cluster is made of. What policy sees must be readable; of workloads and ways in, who may
/// not list a kind is told and does without.
pub(super) async fn read(client: &kube::Client) -> anyhow::Result<Input> {
    let (mut world, findings, mut objects) = listed(client).await?;
    let owners = beside(client, sluice_cluster::WORKLOADS, "those without pods are not seen").await;
    for object in &owners {
        // what is noteworthy about a template was said when its pods were read
        if let Some(object) = sluice_kinds::to_model(&object.value, None).object {
            world.apply(ObjectDelta::Upsert(object));
        }
    }
    objects.extend(owners);
    workloads::collapse(&objects, &mut world);
    let ways = beside(client, sluice_cluster::ENTRANCES, "what comes in by them is not seen").await;
    let entrances = services::entrances(&ways, "default");
    let placed = resolve::place_cluster(world);
    Ok(Input { placed, findings, entrances, objects, broken: 0 })
}

/// Everything that policy can see in a cluster.
pub(crate) async fn world_of(client: &kube::Client) -> anyhow::Result<(World, Vec<Finding>)> {
    let (world, findings, _) = listed(client).await?;
    Ok((world, findings))
}

/// As [`world_of`], with the objects as they are served.
async fn listed(client: &kube::Client) -> anyhow::Result<(World, Vec<Finding>, Vec<LoadedObject>)> {
    let lists = sluice_cluster::RESOURCES.iter().map(|resource| async move {
        sluice_cluster::snapshot(client.clone(), resource)
            .await
            .with_context(|| format!("cannot list {}", resource.full_name()))
    });
    let mut world = World::default();
    let (mut findings, mut kept) = (Vec::new(), Vec::new());
    for objects in futures::future::try_join_all(lists).await?.into_iter().flatten() {
        for object in objects {
            let converted = sluice_kinds::to_model(&object, None);
            findings.extend(converted.findings);
            if let Some(object) = converted.object {
                world.apply(ObjectDelta::Upsert(object));
            }
            kept.extend(LoadedObject::served(object));
        }
    }
    Ok((world, findings, kept))
}

/// The objects of kinds that policy does not see; a kind that may not be listed is told with what that means.
async fn beside(client: &kube::Client, resources: &[Resource], without: &str) -> Vec<LoadedObject> {
    let lists = resources
        .iter()
        .map(|resource| async move { (resource, sluice_cluster::snapshot(client.clone(), resource).await) });
    let mut objects = Vec::new();
    for (resource, list) in futures::future::join_all(lists).await {
        match list {
            Ok(found) => objects.extend(found.into_iter().flatten().filter_map(LoadedObject::served)),
            Err(error) => {
                let error = anyhow::Error::new(error);
                eprintln!("warning: cannot list {}: {error:#}; {without}", resource.full_name());
            }
        }
    }
    objects
}
