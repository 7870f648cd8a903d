//! The core: one thread that owns engine, dataplane and network, and handles one event after the other.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use sluice_cluster::{Event as ClusterEvent, POLICY_RESOURCES, RESOURCES, Resource};
use sluice_dataplane::{HostSite, Nft, Quarantined, Site, Surroundings};
use sluice_engine::{Engine, Scope};
use sluice_model::{Interface, Kind, Object, ObjectDelta, ObjectKey, Pod, PodKey};
use sluice_netlink::Socket;
use sluice_network::attach::Prepared;
use sluice_network::identity::AttachmentId;
use sluice_report::{Code, Finding, NodePolicyState, NotProgrammed, Severity, State};
use tokio::sync::{mpsc, watch};

use crate::attach::{Answer, AttachReply, AttachRequest, DetachRequest, Job};
use crate::config::AgentConfig;
use crate::limits::{of_host_endpoints, unmet};
use crate::node::{NodeFacts, NodeNetwork};
use crate::run::AgentError;

/// Most events that are taken together before the kernel is programmed.
const BATCH: usize = 4096;

/// CNI code "try again later".
const TRY_AGAIN: u32 = 11;
/// CNI code "internal".
const INTERNAL: u32 = 999;

/// Everything that can happen to an agent.
pub(crate) enum Event {
    /// The API said something.
    Cluster(ClusterEvent),
    /// A runtime asks for an attachment, or for one to be undone.
    Job(Job),
    /// Compare the kernel with what it should hold, and repair it.
    Resync,
    /// Judge live flows again: packets that were under way during the last change may have left entries.
    Sweep,
    /// The node's interfaces or addresses have changed.
    Links,
}

/// What leaves the core for the API.
pub(crate) struct Reports {
    /// The node's state.
    pub(crate) state: watch::Sender<Option<NodePolicyState>>,
    /// The node's annotations.
    pub(crate) annotations: watch::Sender<Option<BTreeMap<String, String>>>,
    /// Asks for a [`Event::Sweep`] a moment later.
    pub(crate) sweep: mpsc::Sender<Duration>,
}

/// How long packets may be under way when a change is committed.
const IN_FLIGHT: Duration = Duration::from_millis(30);

pub(crate) struct Core {
    config: AgentConfig,
    engine: Engine,
    dataplane: Nft,
    conntrack: Socket,
    network: NodeNetwork,
    reports: Reports,
    /// Resources whose first list is not complete yet.
    unsynced: BTreeSet<&'static Resource>,
    /// Per resource, the highest version seen.
    revisions: BTreeMap<String, u64>,
    /// The same as it was when the kernel last took everything.
    programmed: BTreeMap<String, u64>,
    /// Per object, what is noteworthy about it.
    findings: BTreeMap<ObjectKey, Vec<Finding>>,
    /// Objects of a resource named since its list began.
    nodes: BTreeMap<Arc<str>, NodeFacts>,
    /// The pods of this node as the API has them.
    pods: BTreeMap<PodKey, Pod>,
    /// The attached pods.
    attached: BTreeMap<PodKey, Attached>,
    /// The node's interfaces, as last read; empty while no host endpoint asks for them.
    interfaces: Vec<Interface>,
    /// Requests that came before everything was in sync.
    waiting: Vec<Job>,
    quarantined: Vec<Quarantined>,
    nodes_changed: bool,
    services_changed: bool,
    site_changed: bool,
    report_due: bool,
}

/// A pod that is connected.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Attached {
    id: AttachmentId,
    uid: String,
    interface: String,
    addresses: Vec<IpAddr>,
}

/// An attachment between its two halves: policy for it is being programmed.
struct Pending {
    prepared: Prepared,
    key: PodKey,
    answer: Answer,
}

impl Core {
    pub(crate) fn open(config: AgentConfig, reports: Reports) -> Result<Self, AgentError> {
        let netfilter = || -> Result<Socket, AgentError> {
            let fd = config
                .namespaces
                .open_netlink(sluice_network::netns::NetnsRef::Node, sluice_network::netns::NETLINK_NETFILTER)
                .map_err(AgentError::Namespace)?;
            Socket::adopt(fd, sluice_netlink::Protocol::Netfilter).map_err(AgentError::Netlink)
        };
        let (dataplane, conntrack) = (Nft::new(netfilter()?), netfilter()?);
        let (network, entries) = NodeNetwork::open(&config)?;
        let attached = entries
            .into_iter()
            .filter_map(|entry| {
                let pod = entry.reservation.pod?;
                let attached = Attached {
                    id: entry.reservation.attachment,
                    uid: pod.uid,
                    interface: entry.reservation.host_interface.to_string(),
                    addresses: entry.reservation.addresses,
                };
                Some((PodKey::new(pod.namespace, pod.name), attached))
            })
            .collect();
        Ok(Core {
            // every Namespace is watched: a pod of one that is not there is closed (semantics 3.7)
            engine: Engine::new(Scope::Node(config.node.clone())).with_complete_namespaces(),
            config,
            dataplane,
            conntrack,
            network,
            reports,
            unsynced: RESOURCES.iter().collect(),
            revisions: BTreeMap::new(),
            programmed: BTreeMap::new(),
            findings: BTreeMap::new(),
            nodes: BTreeMap::new(),
            pods: BTreeMap::new(),
            attached,
            interfaces: Vec::new(),
            waiting: Vec::new(),
            quarantined: Vec::new(),
            nodes_changed: true,
            services_changed: true,
            site_changed: true,
            report_due: false,
        })
    }

    /// Handles events until the channel closes. The kernel is left as it is.
    pub(crate) fn run(mut self, mut events: mpsc::Receiver<Event>) {
        let mut batch = Vec::new();
        loop {
            let taken = events.blocking_recv_many(&mut batch, BATCH);
            if taken == 0 {
                return;
            }
            let mut jobs = Vec::new();
            for event in batch.drain(..) {
                match event {
                    Event::Cluster(event) => self.observe(event),
                    Event::Job(job) => jobs.push(job),
                    Event::Resync => self.resync(),
                    Event::Sweep => self.sweep(),
                    Event::Links => {} // settling looks at them
                }
            }
            if self.unsynced.is_empty() {
                jobs.splice(0..0, self.waiting.drain(..));
                self.settle(jobs);
            } else {
                self.waiting.extend(jobs);
            }
        }
    }

    fn observe(&mut self, event: ClusterEvent) {
        match event {
            ClusterEvent::ResyncBegin(resource) => {
                self.engine.resync_begin(resource.model);
                if resource.model == Kind::Node {
                    self.nodes.clear();
                }
                if resource.model == Kind::Pod {
                    self.pods.clear();
                }
            }
            ClusterEvent::Upsert { resource, object, revision } => {
                self.saw(resource, revision);
                self.upsert(resource, &object);
            }
            ClusterEvent::Delete { resource, object, revision } => {
                self.saw(resource, revision);
                self.delete(resource, &object);
            }
            ClusterEvent::ResyncEnd(resource, revision) => {
                self.engine.resync_end(resource.model);
                self.saw(resource, revision);
                self.unsynced.remove(resource);
                self.nodes_changed |= resource.model == Kind::Node;
            }
            ClusterEvent::Revision(resource, revision) => self.saw(resource, revision),
            ClusterEvent::NotServed(resource) => {
                if self.unsynced.remove(resource) {
                    tracing::info!(resource = %resource.full_name(), "the API does not serve this resource");
                }
            }
        }
    }

    fn saw(&mut self, resource: &'static Resource, revision: u64) {
        let highest = self.revisions.entry(resource.full_name()).or_default();
        if revision > *highest {
            *highest = revision;
            self.engine.observe(&resource.full_name(), revision);
            // a change of the plan is reported with it; a bookmark of a policy kind is worth a report of its own
            self.report_due |= POLICY_RESOURCES.contains(&resource.model);
        }
    }

    fn upsert(&mut self, resource: &'static Resource, value: &Value) {
        let converted = sluice_kinds::to_model(value, None);
        let key = key_of(resource, value);
        let mut findings = converted.findings;
        findings.extend(converted.object.iter().flat_map(unmet));
        if findings.is_empty() {
            self.findings.remove(&key);
        } else {
            self.findings.insert(key.clone(), findings);
        }
        match resource.model {
            Kind::Node => {
                let facts = NodeFacts::of(value);
                if self.nodes.get(&key.name) != Some(&facts) {
                    self.nodes.insert(key.name.clone(), facts);
                    self.nodes_changed = true;
                }
            }
            Kind::Service | Kind::EndpointSlice => self.services_changed = true,
            _ => {}
        }
        match converted.object {
            Some(Object::Pod(pod)) => self.upsert_pod(pod),
            Some(object) => self.engine.apply(ObjectDelta::Upsert(object)),
            // an object that has no effect may have had one before
            None => self.engine.apply(ObjectDelta::Delete(key)),
        }
    }

    /// A local pod's addresses are those that this agent gave it, from the moment of their assignment (semantics 1.9); the API
    /// follows later.
    fn upsert_pod(&mut self, mut pod: Pod) {
        if pod.node.as_ref() == Some(&self.config.node) && !pod.host_network {
            self.pods.insert(pod.key.clone(), pod.clone());
            match self.attached.get(&pod.key).filter(|a| *a.uid == *pod.uid) {
                Some(attached) => pod.addresses.clone_from(&attached.addresses),
                None => pod.addresses.clear(),
            }
        }
        self.engine.apply(ObjectDelta::Upsert(Object::Pod(pod)));
    }

    fn delete(&mut self, resource: &'static Resource, value: &Value) {
        let key = key_of(resource, value);
        self.findings.remove(&key);
        match resource.model {
            Kind::Node => self.nodes_changed |= self.nodes.remove(&key.name).is_some(),
            Kind::Service | Kind::EndpointSlice => self.services_changed = true,
            Kind::Pod => drop(self.pods.remove(&PodKey::new(key.namespace.clone(), key.name.clone()))),
            _ => {}
        }
        self.engine.apply(ObjectDelta::Delete(key));
    }

    /// Brings the kernel to what has been observed: network first, then policy, then the second half of attachments.
    fn settle(&mut self, jobs: Vec<Job>) {
        self.settle_network();
        let mut pending = Vec::new();
        for job in jobs {
            match job {
                Job::Attach(request, netns, answer) => pending.extend(self.prepare(&request, &netns, answer)),
                Job::Detach(request, answer) => self.detach(&request, answer),
            }
        }
        let programmed = self.program();
        for one in pending {
            match &programmed {
                Ok(()) => self.complete(one),
                Err(error) => self.give_up(one, error),
            }
        }
        if std::mem::take(&mut self.report_due) {
            self.report();
        }
    }

    fn settle_network(&mut self) {
        if std::mem::take(&mut self.nodes_changed) {
            match self.network.update_nodes(&self.nodes) {
                Ok(Some(annotations)) => drop(self.reports.annotations.send(Some(annotations))),
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(error = %chain(&error), "the overlay is not as it should be");
                    self.nodes_changed = true;
                }
            }
            self.site_changed = true;
        }
        if std::mem::take(&mut self.services_changed)
            && let Err(error) = self.network.update_services(self.engine.world())
        {
            tracing::warn!(error = %chain(&error), "Service addresses are not as they should be");
            self.services_changed = true;
        }
    }

    /// Programs the plan if it or the attachments changed, then cuts what the new plan denies.
    fn program(&mut self) -> Result<(), String> {
        let delta = self.engine.flush();
        self.look_at_interfaces();
        if delta.is_none() && !self.site_changed {
            self.programmed.clone_from(&self.revisions);
            return Ok(());
        }
        self.site_changed = false;
        let site = self.site();
        match self.dataplane.apply(self.engine.plan(), &site) {
            Ok(done) => {
                self.programmed.clone_from(&self.revisions);
                self.quarantined = done.quarantined;
                self.report_due = true;
                if done.changed {
                    self.sweep();
                    let _ = self.reports.sweep.try_send(IN_FLIGHT);
                }
                Ok(())
            }
            Err(error) => {
                self.site_changed = true; // try again with the next event
                let text = chain(&error);
                tracing::error!(error = %text, "the kernel does not hold the plan");
                Err(text)
            }
        }
    }

    fn sweep(&mut self) {
        // flows that the node itself sends are not policed, from whichever of its addresses
        let around = self.surroundings();
        let live = self.config.live_flows;
        match live.after_change(&mut self.conntrack, self.engine.plan(), &around) {
            Ok(revoked) if revoked.cut > 0 => {
                tracing::info!(
                    judged = revoked.judged,
                    cut = revoked.cut,
                    "live flows that are now denied were cut"
                );
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(error = %chain(&error), "live flows were not judged again"),
        }
    }

    fn resync(&mut self) {
        if !self.unsynced.is_empty() {
            return;
        }
        let site = self.site();
        match self.dataplane.resync(self.engine.plan(), &site) {
            Ok(done) if done.changed => {
                tracing::warn!(
                    messages = done.messages,
                    "somebody had changed table inet sluice; it was repaired"
                );
                self.report_due = true;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(error = %chain(&error), "the kernel state could not be compared"),
        }
        self.nodes_changed = true;
        self.services_changed = true;
    }

    fn site(&self) -> Site {
        Site {
            interfaces: self.attached.iter().map(|(key, a)| (key.clone(), a.interface.clone())).collect(),
            nodes: self.nodes.values().flat_map(|n| n.addresses.iter().copied()).collect(),
            overlay_port: self.network.overlay_port(),
            host: Some(self.host_site()),
        }
    }

    fn host_site(&self) -> HostSite {
        HostSite {
            node: self.config.node.clone(),
            interfaces: self.interfaces.clone(),
            failsafes: self.config.failsafes.clone(),
            wireguard_ports: sluice_model::Circumstances::default().wireguard_ports,
        }
    }

    /// Reads the node's interfaces where a host endpoint asks for them.
    fn look_at_interfaces(&mut self) {
        if self.engine.plan().host_endpoints.is_empty() {
            return;
        }
        match self.network.interfaces() {
            Ok(interfaces) if interfaces != self.interfaces => {
                self.interfaces = interfaces;
                self.site_changed = true;
            }
            Ok(_) => {}
            Err(error) => tracing::warn!(error = %chain(&error), "the node's interfaces cannot be read"),
        }
    }

    /// What live flows are judged by beside the plan.
    fn surroundings(&mut self) -> Surroundings {
        let local = self.network.local_addresses();
        if self.engine.plan().host_endpoints.is_empty() {
            return Surroundings { local, ..Surroundings::default() };
        }
        let routes = self.network.routes().unwrap_or_else(|error| {
            tracing::warn!(error = %chain(&error), "the node's routes cannot be read");
            Vec::new()
        });
        Surroundings { local, host: Some(self.host_site()), routes }
    }

    fn prepare(&mut self, request: &AttachRequest, netns: &OwnedFd, answer: Answer) -> Option<Pending> {
        let key = PodKey::new(request.namespace.as_str(), request.name.as_str());
        let Some(pod) = self.pods.get(&key).filter(|p| *p.uid == *request.uid).cloned() else {
            // the watch will bring it; asking again is quicker than waiting here
            answer.refused(
                TRY_AGAIN,
                format!("pod {key} with uid {} is not known on this node yet", request.uid),
            );
            return None;
        };
        let prepared = match self.network.prepare(request, netns.as_fd()) {
            Ok(prepared) => prepared,
            Err(error) => {
                answer.refused(error.cni_code(), chain(&error));
                return None;
            }
        };
        let attachment = &prepared.attachment;
        let attached = Attached {
            id: attachment.id.clone(),
            uid: request.uid.clone(),
            interface: attachment.host_interface.to_string(),
            addresses: attachment.addresses.clone(),
        };
        self.attached.insert(key.clone(), attached);
        self.site_changed = true;
        self.upsert_pod(pod);
        Some(Pending { prepared, key, answer })
    }

    fn complete(&mut self, pending: Pending) {
        let Pending { prepared, key, answer } = pending;
        match self.network.complete(prepared) {
            Ok(attachment) => answer.attached(AttachReply {
                addresses: attachment.addresses,
                host_interface: attachment.host_interface.to_string(),
                mtu: attachment.mtu,
            }),
            Err(error) => {
                self.forget(&key);
                answer.refused(error.cni_code(), chain(&error));
            }
        }
    }

    fn give_up(&mut self, pending: Pending, error: &str) {
        self.forget(&pending.key);
        self.network.abort(pending.prepared);
        pending.answer.refused(TRY_AGAIN, format!("the pod's policy is not in the kernel: {error}"));
    }

    fn detach(&mut self, request: &DetachRequest, answer: Answer) {
        match self.network.detach(request) {
            Ok(released) => {
                let key = self
                    .attached
                    .iter()
                    .find(|(_, a)| Some(&a.id) == released.as_ref())
                    .map(|(k, _)| k.clone());
                if let Some(key) = key {
                    self.forget(&key);
                }
                answer.detached();
            }
            Err(error) => answer.refused(INTERNAL, chain(&error)),
        }
    }

    /// The pod is no longer connected: its addresses are nobody's.
    fn forget(&mut self, key: &PodKey) {
        self.attached.remove(key);
        self.site_changed = true;
        if let Some(pod) = self.pods.get(key).cloned() {
            self.upsert_pod(pod);
        }
    }

    fn report(&mut self) {
        let in_force = |key: &ObjectKey| key.kind.is_enforced_policy();
        let policies = self.engine.policy_keys().filter(in_force).count();
        // only these can select host endpoints
        let of_hosts = self.engine.policy_keys().filter(|key| key.kind == Kind::GlobalNetworkPolicy);
        let of_hosts = of_hosts.filter_map(|key| self.engine.policy(&key));
        let (world, node) = (self.engine.world(), &self.config.node);
        let mut not_programmed: Vec<NotProgrammed> = self
            .findings
            .values()
            .flatten()
            .filter(|finding| finding.code.severity() == Severity::Error)
            .cloned()
            .chain(of_host_endpoints(world, of_hosts, node, &self.interfaces))
            .map(|finding| NotProgrammed { state: finding.code.state(), finding })
            .collect();
        for one in &self.quarantined {
            for object in &one.objects {
                let finding = Finding {
                    code: Code::SL3001,
                    object: object.clone(),
                    path: "spec".into(),
                    position: None,
                    message: one.reason.clone(),
                    hint: None,
                };
                not_programmed.push(NotProgrammed { state: State::Quarantined, finding });
            }
        }
        let broken: BTreeSet<&ObjectKey> = not_programmed.iter().map(|n| &n.finding.object).collect();
        let state = NodePolicyState {
            generation: self.engine.plan().generation,
            revisions: self.programmed.clone(),
            endpoints: self.attached.keys().map(ToString::to_string).collect(),
            policies: policies
                - broken.iter().filter(|k| in_force(k) && self.engine.policy(k).is_some()).count(),
            not_programmed,
            repairs: self.dataplane.repairs(),
        };
        let _ = self.reports.state.send(Some(state));
    }
}

fn key_of(resource: &Resource, value: &Value) -> ObjectKey {
    let text = |field: &str| value.pointer(field).and_then(Value::as_str).unwrap_or_default();
    ObjectKey::new(resource.model, text("/metadata/namespace"), text("/metadata/name"))
}

/// An error with its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        line.push_str(": ");
        line.push_str(&cause.to_string());
        source = cause.source();
    }
    line
}
