//! Places unscheduled pods: on the feasible node with the fewest pods, the first by name among equals.

use std::collections::{BTreeSet, HashMap};

use serde_json::{Value, json};

use super::{
    Work,
    client::Request,
    world::{Kind, ObjectRef, Touched, World, has_condition, items, text},
};

/// Pods per node, those included whose binding was sent but not seen yet.
#[derive(Debug, Default)]
pub(super) struct Placement {
    pods: HashMap<String, usize>,
    /// Pods that wait for a node, by namespace and name.
    unplaced: BTreeSet<(String, String)>,
    assumed: HashMap<(String, String), String>,
}

impl Placement {
    pub(super) fn observe(&mut self, touched: &Touched) {
        if touched.object.kind.name() != ("", "Pod") {
            return;
        }
        if touched.new.as_deref().is_none_or(|pod| !text(pod, "/spec/nodeName").is_empty()) {
            self.forget(&touched.object.namespace, &touched.object.name);
        }
        let key = (touched.object.namespace.clone(), touched.object.name.clone());
        if touched.new.as_deref().is_some_and(is_unplaced) {
            self.unplaced.insert(key);
        } else {
            self.unplaced.remove(&key);
        }
        if let Some(node) = touched.old.as_deref().and_then(occupied) {
            self.release(node);
        }
        if let Some(node) = touched.new.as_deref().and_then(occupied) {
            *self.pods.entry(node.to_string()).or_default() += 1;
        }
    }

    /// All pods that wait for a node.
    pub(super) fn waiting(&self) -> impl Iterator<Item = Work> {
        self.unplaced
            .iter()
            .map(|(namespace, pod)| Work::Bind { namespace: namespace.clone(), pod: pod.clone() })
    }

    /// The binding of this pod was seen, or failed.
    pub(super) fn forget(&mut self, namespace: &str, pod: &str) {
        if let Some(node) = self.assumed.remove(&(namespace.to_string(), pod.to_string())) {
            self.release(&node);
        }
    }

    fn release(&mut self, node: &str) {
        if let Some(count) = self.pods.get_mut(node) {
            *count = count.saturating_sub(1);
        }
    }

    pub(super) fn decide(&mut self, world: &World, namespace: &str, name: &str) -> Vec<Request> {
        let pods = Kind::of("", "Pod");
        let key = (namespace.to_string(), name.to_string());
        let Some(pod) = world.get(&ObjectRef::new(pods, namespace, name)) else { return Vec::new() };
        if !is_unplaced(&pod) || self.assumed.contains_key(&key) {
            return Vec::new();
        }
        let mut refused: Vec<&'static str> = Vec::new();
        let mut best: Option<(usize, &str)> = None;
        for node in world.list(Kind::of("", "Node")) {
            match obstacle(node, &pod) {
                Some(why) => refused.push(why),
                None => {
                    let name = text(node, "/metadata/name");
                    let candidate = (self.pods.get(name).copied().unwrap_or(0), name);
                    best = Some(best.map_or(candidate, |b| b.min(candidate)));
                }
            }
        }
        let Some((_, node)) = best else { return unschedulable(&pod, &refused) };
        *self.pods.entry(node.to_string()).or_default() += 1;
        self.assumed.insert(key, node.to_string());
        let binding = json!({
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": name, "namespace": namespace, "uid": pod["metadata"]["uid"]},
            "target": {"apiVersion": "v1", "kind": "Node", "name": node},
        });
        let mut request = Request::create(pods, namespace, binding);
        request.path = pods.path(namespace, name, "binding");
        // Bound by somebody else, or deleted: a change that says so is on its way.
        request.fine = &[404];
        vec![request]
    }
}

/// The node whose room the pod takes; finished pods take none.
fn occupied(pod: &Value) -> Option<&str> {
    let node = text(pod, "/spec/nodeName");
    (!node.is_empty() && !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")).then_some(node)
}

/// Whether this scheduler has to find a node for the pod.
pub(super) fn is_unplaced(pod: &Value) -> bool {
    text(pod, "/spec/nodeName").is_empty()
        && pod["metadata"]["deletionTimestamp"].is_null()
        && matches!(text(pod, "/spec/schedulerName"), "" | "default-scheduler")
        && items(pod, "/spec/schedulingGates").is_empty()
        && !matches!(text(pod, "/status/phase"), "Succeeded" | "Failed")
}

/// Whether a change of a node may give a waiting pod its place; heartbeats do not.
pub(super) fn may_take_more(touched: &Touched) -> bool {
    let Some(new) = touched.new.as_deref() else { return false };
    touched.old.as_deref().is_none_or(|old| {
        old["spec"] != new["spec"]
            || old["metadata"]["labels"] != new["metadata"]["labels"]
            || has_condition(old, "Ready", "True") != has_condition(new, "Ready", "True")
    })
}

/// Why the pod cannot run on the node, in upstream's words.
fn obstacle(node: &Value, pod: &Value) -> Option<&'static str> {
    if node["metadata"]["deletionTimestamp"].is_string() || !has_condition(node, "Ready", "True") {
        return Some("node(s) were not ready");
    }
    if node["spec"]["unschedulable"] == true {
        return Some("node(s) were unschedulable");
    }
    let tolerations = items(pod, "/spec/tolerations");
    let repelled = items(node, "/spec/taints")
        .iter()
        .filter(|taint| matches!(text(taint, "/effect"), "NoSchedule" | "NoExecute"))
        .any(|taint| !tolerations.iter().any(|t| tolerates(t, taint)));
    if repelled {
        return Some("node(s) had untolerated taint(s)");
    }
    let labels = &node["metadata"]["labels"];
    let selected =
        pod["spec"]["nodeSelector"].as_object().into_iter().flatten().all(|(k, v)| labels[k] == *v);
    let terms = items(
        pod,
        "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms",
    );
    if !selected || (!terms.is_empty() && !terms.iter().any(|term| term_matches(term, node))) {
        return Some("node(s) didn't match Pod's node affinity/selector");
    }
    None
}

fn tolerates(toleration: &Value, taint: &Value) -> bool {
    let key = text(toleration, "/key");
    let effect = text(toleration, "/effect");
    let exists = text(toleration, "/operator") == "Exists";
    (effect.is_empty() || effect == text(taint, "/effect"))
        && (key == text(taint, "/key") || (key.is_empty() && exists))
        && (exists || text(toleration, "/value") == text(taint, "/value"))
}

/// One term of a node affinity; its requirements are ANDed, and an empty term matches nothing.
fn term_matches(term: &Value, node: &Value) -> bool {
    let expressions = items(term, "/matchExpressions");
    let fields = items(term, "/matchFields");
    if expressions.is_empty() && fields.is_empty() {
        return false;
    }
    let name = text(node, "/metadata/name");
    expressions.iter().all(|e| requirement_holds(e, node["metadata"]["labels"][text(e, "/key")].as_str()))
        && fields.iter().all(|f| text(f, "/key") == "metadata.name" && requirement_holds(f, Some(name)))
}

fn requirement_holds(requirement: &Value, value: Option<&str>) -> bool {
    let listed = || items(requirement, "/values").iter().any(|v| v.as_str() == value && value.is_some());
    let compare = || {
        let bound = items(requirement, "/values").first()?.as_str()?.parse::<i64>().ok()?;
        Some(value?.parse::<i64>().ok()?.cmp(&bound))
    };
    match text(requirement, "/operator") {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        "Gt" => compare().is_some_and(|o| o.is_gt()),
        "Lt" => compare().is_some_and(|o| o.is_lt()),
        _ => false,
    }
}

/// Says in the pod's status why it stays Pending, once.
fn unschedulable(pod: &Value, refused: &[&'static str]) -> Vec<Request> {
    let mut reasons: Vec<(&str, usize)> = Vec::new();
    for why in refused {
        match reasons.iter_mut().find(|(known, _)| known == why) {
            Some((_, count)) => *count += 1,
            None => reasons.push((why, 1)),
        }
    }
    let reasons: Vec<String> = reasons.into_iter().map(|(why, count)| format!("{count} {why}")).collect();
    let message = if reasons.is_empty() {
        "no nodes available to schedule pods".to_string()
    } else {
        format!("0/{} nodes are available: {}.", refused.len(), reasons.join(", "))
    };
    let mut conditions = items(pod, "/status/conditions").to_vec();
    if conditions
        .iter()
        .any(|c| c["type"] == "PodScheduled" && c["status"] == "False" && c["message"] == message)
    {
        return Vec::new();
    }
    conditions.retain(|c| c["type"] != "PodScheduled");
    conditions.push(json!({
        "type": "PodScheduled",
        "status": "False",
        "reason": "Unschedulable",
        "message": message,
        "lastTransitionTime": crate::time::rfc3339(crate::time::now()),
    }));
    let patch = json!({
        "metadata": {"uid": pod["metadata"]["uid"], "resourceVersion": pod["metadata"]["resourceVersion"]},
        "status": {"conditions": conditions},
    });
    let (namespace, name) = (text(pod, "/metadata/namespace"), text(pod, "/metadata/name"));
    let mut request = Request::merge(Kind::of("", "Pod"), namespace, name, "status", patch);
    // A changed pod brings its own work.
    request.fine = &[404, 409];
    vec![request]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controllers::world::Change;

    fn node(name: &str, extra: Value) -> Value {
        let mut node = json!({
            "metadata": {"name": name, "uid": name, "labels": {"kubernetes.io/hostname": name}},
            "spec": {},
            "status": {"conditions": [{"type": "Ready", "status": "True"}]},
        });
        json_patch::merge(&mut node, &extra);
        node
    }

    fn pod(name: &str, spec: Value) -> Value {
        json!({"metadata": {"name": name, "namespace": "d", "uid": name, "resourceVersion": "1"}, "spec": spec, "status": {"phase": "Pending"}})
    }

    struct Scheduler {
        world: World,
        placement: Placement,
    }

    impl Scheduler {
        fn new(nodes: Vec<Value>, pods: Vec<Value>) -> Scheduler {
            let mut it = Scheduler { world: World::default(), placement: Placement::default() };
            it.change(Change::Replaced(Kind::of("", "Node"), nodes));
            it.change(Change::Replaced(Kind::of("", "Pod"), pods));
            it
        }

        fn change(&mut self, change: Change) {
            for touched in self.world.apply(change) {
                self.placement.observe(&touched);
            }
        }

        /// The chosen node, or the message of the condition, or nothing.
        fn decide(&mut self, pod: &str) -> String {
            let requests = self.placement.decide(&self.world, "d", pod);
            match requests.first() {
                Some(r) if r.path.ends_with("/binding") => text(&r.body, "/target/name").to_string(),
                Some(r) => text(&r.body, "/status/conditions/0/message").to_string(),
                None => String::new(),
            }
        }
    }

    #[test]
    fn pods_are_spread_over_the_nodes_in_order() {
        let pods = (0..4).map(|i| pod(&format!("p{i}"), json!({}))).collect();
        let mut s = Scheduler::new(vec![node("b", json!({})), node("a", json!({}))], pods);
        let chosen: Vec<String> = (0..4).map(|i| s.decide(&format!("p{i}"))).collect();
        assert_eq!(chosen, ["a", "b", "a", "b"]);
        assert_eq!(s.decide("p0"), "", "its binding is on the way");
        // Seen bindings count once, finished pods not at all.
        for (name, node) in [("p0", "a"), ("p1", "b"), ("p2", "a"), ("p3", "b")] {
            s.change(Change::Applied(Kind::of("", "Pod"), pod(name, json!({"nodeName": node}))));
        }
        let mut done = pod("p1", json!({"nodeName": "b"}));
        done["status"]["phase"] = json!("Succeeded");
        s.change(Change::Applied(Kind::of("", "Pod"), done));
        s.change(Change::Applied(Kind::of("", "Pod"), pod("p4", json!({}))));
        assert_eq!(s.decide("p4"), "b");
    }

    #[test]
    fn obstacles_are_honoured_and_named() {
        let gpu = || {
            node(
                "gpu",
                json!({"metadata": {"labels": {"gpu": "2"}}, "spec": {"taints": [{"key": "gpu", "effect": "NoSchedule"}]}}),
            )
        };
        let nodes = || {
            vec![
                node("a", json!({"status": {"conditions": [{"type": "Ready", "status": "False"}]}})),
                node("b", json!({"spec": {"unschedulable": true}})),
                gpu(),
                node("z", json!({})),
            ]
        };
        let tolerant = json!([{"key": "gpu", "operator": "Exists"}]);
        let affinity = |expression: Value| json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [expression]}]}}});
        let table = [
            (json!({}), "z"),
            (json!({"nodeSelector": {"gpu": "2"}, "tolerations": tolerant}), "gpu"),
            (
                json!({"affinity": affinity(json!({"key": "gpu", "operator": "Gt", "values": ["1"]})), "tolerations": tolerant}),
                "gpu",
            ),
            (
                json!({"affinity": affinity(json!({"key": "gpu", "operator": "DoesNotExist"})), "tolerations": tolerant}),
                "z",
            ),
            (json!({"nodeName": "b"}), ""),
            (json!({"schedulerName": "mine"}), ""),
            (json!({"schedulingGates": [{"name": "g"}]}), ""),
            (
                json!({"nodeSelector": {"disk": "ssd"}}),
                "0/4 nodes are available: 1 node(s) were not ready, 1 node(s) were unschedulable, 1 node(s) had untolerated taint(s), 1 node(s) didn't match Pod's node affinity/selector.",
            ),
        ];
        for (spec, expect) in table {
            let mut s = Scheduler::new(nodes(), vec![pod("p", spec.clone())]);
            assert_eq!(s.decide("p"), expect, "{spec}");
        }
        let mut s = Scheduler::new(vec![], vec![pod("p", json!({}))]);
        assert_eq!(s.decide("p"), "no nodes available to schedule pods");
    }

    #[test]
    fn the_same_reason_is_said_once() {
        let mut waiting = pod("p", json!({}));
        waiting["status"]["conditions"] = json!([{"type": "PodScheduled", "status": "False", "message": "no nodes available to schedule pods"}]);
        let mut s = Scheduler::new(vec![], vec![waiting]);
        assert_eq!(s.decide("p"), "");
    }
}
