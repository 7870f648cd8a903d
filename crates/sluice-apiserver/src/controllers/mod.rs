//! The built-in controllers (kubernetes-api 13), clients of the API like any other.
//!
//! ```text
//! one reflector per kind ──Change──▶ World ──touches──▶ work queue ──▶ decide (pure) ─▶ Requests ─▶ API
//!   (list, then watch)                 ▲                   ▲   └─ failed work waits, then comes again
//!                                      └── their writes come back as changes ┘
//! ```
//! Invariants: one task owns the [`World`] and takes every decision; nothing is decided before every kind was
//! listed once, since an owner that was not listed yet must not look deleted; work is named by an object and
//! looks at the present state, so doing it twice is harmless. Nothing polls: timers only delay what failed.

mod client;
mod endpoint_slice;
mod garbage;
mod namespace;
mod pod_cidr;
mod reflector;
mod scheduler;
mod world;

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    pin::Pin,
    time::Duration,
};

use futures::future::join_all;
use serde_json::{Value, json};
use tokio::{
    sync::{mpsc, oneshot},
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

pub use client::ClientError;
pub use pod_cidr::ClusterCidr;

use crate::{
    auth::{Identity, MASTERS},
    http::Api,
};
use client::{Client, Request};
use world::{Change, Kind, ObjectRef, Touched, World, text};

/// What the controllers need to know.
#[derive(Debug)]
pub struct Config {
    /// Ranges from which nodes get their pod CIDRs, one per family, in the order of `spec.podCIDRs`.
    pub cluster_cidrs: Vec<ClusterCidr>,
    /// Told once when every kind was listed and the controllers begin to act (`/readyz`).
    pub synced: Option<oneshot::Sender<()>>,
}

/// Changes that wait for the decisions; a full channel makes the reflectors wait.
const QUEUED_CHANGES: usize = 512;
/// Pieces of work under way at once, so that their writes share commits of the store.
const AT_ONCE: usize = 32;
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LAST_RETRY: Duration = Duration::from_secs(30);

/// One piece of work, in the order in which they are taken.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Work {
    /// Give a node its pod CIDRs.
    PodCidr { node: String },
    /// Give a namespace its default service account.
    ServiceAccount { namespace: String },
    /// Find a node for a pod.
    Bind { namespace: String, pod: String },
    /// Make the slices of a service what its pods are.
    Slices { namespace: String, service: String },
    /// Judge the owners of an object.
    Collect(ObjectRef),
    /// Do what the finalizers of a deleted owner ask for.
    Finalize(ObjectRef),
    /// Empty a terminating namespace.
    Namespace { name: String },
}

type Job = Pin<Box<dyn Future<Output = Result<(), ClientError>> + Send>>;

/// Runs the controllers until the token is cancelled.
pub async fn run(api: Api, config: Config, token: CancellationToken) {
    let client = Client::new(api.with_identity(Identity::new("system:sluice-controllers", &[MASTERS])));
    let (changes, mut inbox) = mpsc::channel(QUEUED_CHANGES);
    let mut reflectors = JoinSet::new();
    let mut unsynced = BTreeSet::new();
    for kind in Kind::stored() {
        unsynced.insert(kind);
        reflectors.spawn(reflector::reflect(client.clone(), kind, changes.clone()));
    }
    drop(changes);
    let mut controllers = Controllers {
        client,
        world: World::default(),
        pod_cidrs: pod_cidr::Allocator::new(config.cluster_cidrs),
        placement: scheduler::Placement::default(),
        queue: BTreeSet::new(),
    };
    let mut synced = config.synced;
    let mut waiting = Waiting::default();
    loop {
        if controllers.queue.is_empty() || !unsynced.is_empty() {
            tokio::select! {
                () = token.cancelled() => break,
                change = inbox.recv() => match change {
                    Some(change) => controllers.absorb(change, &mut unsynced),
                    // Every reflector ended, which they do only when they are aborted.
                    None => break,
                },
                () = waiting.due(), if unsynced.is_empty() => controllers.queue.extend(waiting.take_due()),
            }
        }
        while let Ok(change) = inbox.try_recv() {
            controllers.absorb(change, &mut unsynced);
        }
        if !unsynced.is_empty() {
            continue;
        }
        if let Some(synced) = synced.take() {
            tracing::debug!("controllers have synced");
            // Nobody has to be interested.
            let _ = synced.send(());
        }
        let batch: Vec<Work> = (0..AT_ONCE).map_while(|_| controllers.queue.pop_first()).collect();
        let jobs: Vec<Job> = batch.iter().map(|work| controllers.job(work)).collect();
        let results = tokio::select! {
            () = token.cancelled() => break,
            results = join_all(jobs) => results,
        };
        for (work, result) in batch.into_iter().zip(results) {
            match result {
                Ok(()) => waiting.succeeded(&work),
                Err(error) => {
                    controllers.failed(&work);
                    waiting.failed(work, &error);
                }
            }
        }
    }
    reflectors.shutdown().await;
}

/// Everything that decisions depend on.
struct Controllers {
    client: Client,
    world: World,
    pod_cidrs: pod_cidr::Allocator,
    placement: scheduler::Placement,
    queue: BTreeSet<Work>,
}

impl Controllers {
    fn absorb(&mut self, change: Change, unsynced: &mut BTreeSet<Kind>) {
        if let Change::Replaced(kind, _) = &change {
            unsynced.remove(kind);
        }
        for touched in self.world.apply(change) {
            self.placement.observe(&touched);
            self.pod_cidrs.observe(&touched);
            self.queue.extend(work_for(&self.world, &touched));
            if touched.object.kind.name() == ("", "Node") && scheduler::may_take_more(&touched) {
                self.queue.extend(self.placement.waiting());
            }
        }
    }

    /// A decision whose write failed is forgotten, so that it is taken anew.
    fn failed(&mut self, work: &Work) {
        match work {
            Work::Bind { namespace, pod } => self.placement.forget(namespace, pod),
            Work::PodCidr { node } => self.pod_cidrs.forget(node),
            _ => {}
        }
    }

    /// Decides now; the returned future only carries the decision out.
    fn job(&mut self, work: &Work) -> Job {
        let client = self.client.clone();
        let requests = match work {
            Work::PodCidr { node } => self.pod_cidrs.decide(&self.world, node),
            Work::ServiceAccount { namespace } => default_service_account(&self.world, namespace),
            Work::Bind { namespace, pod } => self.placement.decide(&self.world, namespace, pod),
            Work::Slices { namespace, service } => endpoint_slice::decide(&self.world, namespace, service),
            Work::Finalize(owner) => garbage::finalize(&self.world, owner),
            Work::Collect(object) => {
                let dependent = self.world.get(object);
                let object = object.clone();
                return Box::pin(async move {
                    match dependent {
                        Some(dependent) => garbage::collect(&client, &object, &dependent).await,
                        None => Ok(()),
                    }
                });
            }
            Work::Namespace { name } => {
                let name = name.clone();
                return Box::pin(async move { namespace::empty(&client, &name).await });
            }
        };
        Box::pin(async move { client.send_all(requests).await })
    }
}

/// What has to be looked at after a change.
fn work_for(world: &World, touched: &Touched) -> Vec<Work> {
    let mut work = garbage::work_for(world, touched);
    let object = &touched.object;
    let (namespace, name) = (object.namespace.clone(), object.name.clone());
    let deleting = |value: &Value| value["metadata"]["deletionTimestamp"].is_string();
    match object.kind.name() {
        ("", "Namespace") => match &touched.new {
            Some(new) if !deleting(new) => work.push(Work::ServiceAccount { namespace: name }),
            // Its own conditions change it, too: only the first sight of its end begins the emptying.
            Some(_) if !touched.old.as_deref().is_some_and(deleting) => work.push(Work::Namespace { name }),
            _ => {}
        },
        ("", "Node") if touched.new.is_some() => work.push(Work::PodCidr { node: name }),
        ("", "Pod") => {
            work.extend(endpoint_slice::services_of_pod(world, touched));
            if touched.new.as_deref().is_some_and(scheduler::is_unplaced) {
                work.push(Work::Bind { namespace, pod: name });
            }
        }
        ("", "Service") => work.push(Work::Slices { namespace, service: name }),
        ("", "ServiceAccount") if touched.new.is_none() => work.push(Work::ServiceAccount { namespace }),
        ("discovery.k8s.io", "EndpointSlice") => work.extend(endpoint_slice::service_of_slice(touched)),
        _ => {}
    }
    if object.kind.rt().namespaced && world.is_terminating(&object.namespace) {
        work.push(Work::Namespace { name: object.namespace.clone() });
    }
    work
}

fn default_service_account(world: &World, namespace: &str) -> Vec<Request> {
    let accounts = Kind::of("", "ServiceAccount");
    let wanted = world.get(&ObjectRef::new(Kind::of("", "Namespace"), "", namespace)).is_some_and(|ns| {
        text(&ns, "/status/phase") != "Terminating" && ns["metadata"]["deletionTimestamp"].is_null()
    });
    if !wanted || world.get(&ObjectRef::new(accounts, namespace, "default")).is_some() {
        return Vec::new();
    }
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": namespace}});
    vec![Request::create(accounts, namespace, account)]
}

/// Failed work and when it comes again.
#[derive(Default)]
struct Waiting {
    failures: HashMap<Work, u32>,
    by_time: BTreeMap<Instant, Vec<Work>>,
}

impl Waiting {
    fn succeeded(&mut self, work: &Work) {
        self.failures.remove(work);
    }

    fn failed(&mut self, work: Work, error: &ClientError) {
        let failures = self.failures.entry(work.clone()).or_default();
        *failures = failures.saturating_add(1);
        // A conflict only means that the world is behind; its change is on its way.
        if *failures > 5 || !error.is_race() {
            tracing::warn!(?work, %error, failures = *failures, "controller work failed; it will be tried again");
        }
        let delay = FIRST_RETRY.saturating_mul(1 << (*failures - 1).min(16)).min(LAST_RETRY);
        self.by_time.entry(Instant::now() + delay).or_default().push(work);
    }

    /// Resolves when the earliest work is due; never if there is none.
    async fn due(&self) {
        match self.by_time.first_key_value() {
            Some((at, _)) => sleep_until(*at).await,
            None => std::future::pending().await,
        }
    }

    fn take_due(&mut self) -> Vec<Work> {
        let later = self.by_time.split_off(&(Instant::now() + Duration::from_nanos(1)));
        std::mem::replace(&mut self.by_time, later).into_values().flatten().collect()
    }
}

#[cfg(test)]
mod tests;
