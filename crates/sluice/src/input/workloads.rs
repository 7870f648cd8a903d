//! Pods and the workloads that own them: `ownerReferences` are followed to the top, and a template whose pods are there
//! themselves does not stand for them once more.

use std::collections::{HashMap, HashSet};

use serde_json::Value;
use sluice_kinds::LoadedObject;
use sluice_model::{PodKey, World};

/// How many owners are followed; Kubernetes has chains of two.
const MAX_CHAIN: usize = 8;

/// Namespace, kind and name.
type Id = (String, String, String);

/// Ties pods to the workloads at the top of their chains of owners, and removes the templates that other objects stand
/// for: a ReplicaSet of a Deployment, a Job of a CronJob, a workload whose pods are there.
pub(crate) fn collapse(objects: &[LoadedObject], world: &mut World) {
    let workloads: Vec<&LoadedObject> = objects.iter().filter(|o| is_workload(o)).collect();
    let owners: HashMap<Id, Option<Id>> =
        workloads.iter().map(|o| (id(o), controller(&o.namespace, &o.value))).collect();
    let mut has_pods: HashSet<Id> = HashSet::new();
    for pod in objects.iter().filter(|o| o.gvk.group.is_empty() && o.gvk.kind == "Pod") {
        let key = PodKey::new(pod.namespace.as_str(), pod.name.as_str());
        let Some(known) = world.pods.get_mut(&key) else { continue };
        let Some(owner) = controller(&pod.namespace, &pod.value) else { continue };
        if owner.1 == "Node" {
            known.workload = None; // a mirror of a static pod: the node is its place, not its workload
            continue;
        }
        let chain = chain(&owners, owner);
        let top = chain.last().filter(|(_, kind, _)| kind != "ReplicaSet");
        if let Some((namespace, kind, name)) = top {
            known.workload = Some(format!("{kind} {namespace}/{name}").into());
        }
        let finished = known.finished;
        // the next run of a CronJob is still to come; a Job that has run does not run again
        has_pods.extend(chain.into_iter().filter(|(_, kind, _)| !finished || kind == "Job"));
    }
    for workload in workloads {
        let id = id(workload);
        let owner = owners.get(&id).and_then(Option::as_ref);
        let owned = owner.is_some_and(|owner| owners.contains_key(owner));
        let idle = owner.is_some() && workload.value.pointer("/spec/replicas") == Some(&Value::from(0));
        if owned || idle || has_pods.contains(&id) {
            let template = format!("{}/{}", workload.gvk.kind.to_lowercase(), workload.name);
            world.pods.remove(&PodKey::new(workload.namespace.as_str(), template));
        }
    }
}

fn is_workload(object: &LoadedObject) -> bool {
    matches!(object.gvk.group.as_str(), "apps" | "batch") || object.gvk.kind == "ReplicationController"
}

fn id(object: &LoadedObject) -> Id {
    (object.namespace.clone(), object.gvk.kind.clone(), object.name.clone())
}

/// An owner and its owners, as far as they are known.
fn chain(owners: &HashMap<Id, Option<Id>>, owner: Id) -> Vec<Id> {
    let mut chain = vec![owner];
    while chain.len() < MAX_CHAIN
        && let Some(Some(next)) = chain.last().and_then(|last| owners.get(last))
    {
        chain.push(next.clone());
    }
    chain
}

/// The owner that controls an object.
fn controller(namespace: &str, value: &Value) -> Option<Id> {
    let owners = value.pointer("/metadata/ownerReferences")?.as_array()?;
    let owner = owners.iter().find(|o| o["controller"] == Value::Bool(true))?;
    Some((namespace.to_owned(), owner["kind"].as_str()?.to_owned(), owner["name"].as_str()?.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sluice_model::ObjectDelta;

    fn pods(text: &str) -> Vec<String> {
        let loaded = sluice_kinds::load([("t", text.as_bytes())], "n", &sluice_kinds::Limits::FILE);
        assert!(loaded.errors.is_empty(), "{:?}", loaded.errors);
        let mut world = World::default();
        for object in loaded.objects.iter().filter_map(|o| o.to_model().object) {
            world.apply(ObjectDelta::Upsert(object));
        }
        collapse(&loaded.objects, &mut world);
        let shown = world.pods.values();
        shown.map(|p| format!("{} of {}", p.key, p.workload.as_deref().unwrap_or("nothing"))).collect()
    }

    fn workload(api: &str, kind: &str, name: &str, owner: &str) -> String {
        let spec = match kind {
            "CronJob" => "{schedule: '* * * * *', jobTemplate: {spec: {template: {spec: {containers: []}}}}}",
            _ => "{selector: {}, template: {spec: {containers: []}}}",
        };
        format!(
            "apiVersion: {api}\nkind: {kind}\nmetadata: {{name: {name}, ownerReferences: {owner}}}\nspec: {spec}\n---\n"
        )
    }

    fn pod(name: &str, phase: &str, owner: &str) -> String {
        format!(
            "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, ownerReferences: {owner}}}\nstatus: {{phase: {phase}}}\n---\n"
        )
    }

    fn owned_by(api: &str, kind: &str, name: &str) -> String {
        format!("[{{apiVersion: {api}, kind: {kind}, name: {name}, uid: u, controller: true}}]")
    }

    #[test]
    fn pods_of_a_deployment_stand_for_it() {
        let text = workload("apps/v1", "Deployment", "web", "[]")
            + &workload("apps/v1", "ReplicaSet", "web-1", &owned_by("apps/v1", "Deployment", "web"))
            + &pod("web-1-x", "Running", &owned_by("apps/v1", "ReplicaSet", "web-1"));
        assert_eq!(pods(&text), ["n/web-1-x of Deployment n/web"]);
    }

    #[test]
    fn a_template_without_pods_stays_and_its_replica_sets_do_not_repeat_it() {
        let text = workload("apps/v1", "Deployment", "web", "[]")
            + &workload("apps/v1", "ReplicaSet", "web-1", &owned_by("apps/v1", "Deployment", "web"));
        assert_eq!(pods(&text), ["n/deployment/web of Deployment n/web"]);
    }

    #[test]
    fn a_cron_job_whose_runs_are_over_still_comes_again() {
        let text = workload("batch/v1", "CronJob", "c", "[]")
            + &workload("batch/v1", "Job", "c-1", &owned_by("batch/v1", "CronJob", "c"))
            + &pod("c-1-x", "Succeeded", &owned_by("batch/v1", "Job", "c-1"));
        assert_eq!(pods(&text), ["n/c-1-x of CronJob n/c", "n/cronjob/c of CronJob n/c"]);
    }

    #[test]
    fn a_mirror_of_a_static_pod_has_no_workload() {
        let text = pod("kube-proxy-node-1", "Running", &owned_by("v1", "Node", "node-1"));
        assert_eq!(pods(&text), ["n/kube-proxy-node-1 of nothing"]);
    }

    #[test]
    fn owners_in_a_circle_end() {
        let text = workload("apps/v1", "ReplicaSet", "a", &owned_by("apps/v1", "ReplicaSet", "b"))
            + &workload("apps/v1", "ReplicaSet", "b", &owned_by("apps/v1", "ReplicaSet", "a"))
            + &pod("p", "Running", &owned_by("apps/v1", "ReplicaSet", "a"));
        assert_eq!(pods(&text), ["n/p of ReplicaSet n/a"]);
    }
}
