//! [`Server`]: the API behind TLS, with its certificates, kubeconfigs and first objects.

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    thread::JoinHandle,
    time::Duration,
};

use http::{Request, StatusCode, header};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use serde_json::{Value, json};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::oneshot,
    task::JoinHandle as Task,
};
use tokio_rustls::TlsAcceptor;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    Api, ApiConfig,
    admission::{Admission, BuiltinAdmission, service::ServiceRanges},
    auth::{AuthError, Identity, Kubeconfig, Pki, identity_of},
    controllers::{self, ClusterCidr},
    resource,
    runtime::{NoRuntime, PodRuntime},
    status::Status,
    store::{Key, Store, StoreError},
};

/// Time for the TLS handshake and the header block (kubernetes-api 12).
const HANDSHAKE: Duration = Duration::from_secs(10);
const MAX_HEADERS: usize = 64 * 1024;
const HTTP2_STREAMS: u32 = 250;
/// Time that open requests get when the server stops.
const DRAIN: Duration = Duration::from_secs(2);
/// Events go away after an hour (kubernetes-api 10).
const EVENT_LIFE: i64 = 3_600;
const EXPIRY_EVERY: Duration = Duration::from_secs(60);

/// How to run a [`Server`].
pub struct ServerConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the store and the CA are kept. Locked by this process.
    pub data_dir: PathBuf,
    /// Where the administrator's kubeconfig goes; by default into `data_dir`.
    pub kubeconfig: Option<PathBuf>,
    /// More names and addresses for the serving certificate and the Host check.
    pub names: Vec<String>,
    /// Service address ranges.
    pub ranges: ServiceRanges,
    /// Defaults and validation.
    pub admission: Arc<dyn Admission>,
    /// What runs behind pods.
    pub runtime: Arc<dyn PodRuntime>,
    /// Whether WatchList is offered.
    pub watch_list: bool,
    /// Ranges for the nodes' pod CIDRs, if the built-in controllers shall run.
    pub controllers: Option<Vec<ClusterCidr>>,
}

impl ServerConfig {
    /// A server on a free loopback port with its state in a directory.
    pub fn new(data_dir: impl Into<PathBuf>) -> ServerConfig {
        ServerConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            data_dir: data_dir.into(),
            kubeconfig: None,
            names: Vec::new(),
            ranges: ServiceRanges::default(),
            admission: Arc::new(BuiltinAdmission),
            runtime: Arc::new(NoRuntime),
            watch_list: true,
            controllers: Some(
                [("10.42.0.0/16", 24), ("fd00:10:42::/48", 64)]
                    .into_iter()
                    .filter_map(|(range, prefix)| ClusterCidr::new(range, prefix))
                    .collect(),
            ),
        }
    }
}

/// Why a server could not start or write a kubeconfig.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Certificates.
    #[error(transparent)]
    Auth(#[from] AuthError),
    /// The listening socket.
    #[error("listen on {address}: {source}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file.
    #[error("write {path}: {source}")]
    File {
        /// Which.
        path: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// One of the first objects was refused.
    #[error("create {what}: {status}")]
    Bootstrap {
        /// Kind and name.
        what: String,
        /// The API's answer.
        status: Status,
    },
}

/// Starts servers.
pub struct Server;

/// A server that listens.
pub struct Running {
    /// Where.
    pub addr: SocketAddr,
    /// The administrator's kubeconfig.
    pub kubeconfig: PathBuf,
    /// The same API in this process; requests need an identity, see [`Api::with_identity`].
    pub api: Api,
    /// Cancelling it stops the server; see [`Running::stop`].
    pub shutdown: CancellationToken,
    pki: Arc<Pki>,
    accepting: Task<()>,
    controlling: Option<Task<()>>,
    store_thread: Mutex<Option<JoinHandle<()>>>,
}

impl Server {
    /// Opens the store, makes certificates, creates the first objects, listens, and writes the
    /// administrator's kubeconfig.
    pub async fn start(config: ServerConfig) -> Result<Running, ServerError> {
        let pki = Arc::new(Pki::open(&config.data_dir.join("pki"))?);
        let (store, store_thread) = Store::open(&config.data_dir)?;
        let listen = |source| ServerError::Listen { address: config.listen, source };
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let addr = listener.local_addr().map_err(listen)?;
        let shutdown = CancellationToken::new();
        let api = Api::new(ApiConfig {
            store: store.clone(),
            admission: config.admission,
            runtime: config.runtime,
            ranges: config.ranges,
            watch_list: config.watch_list,
            server_address: addr.to_string(),
            shutdown: shutdown.clone(),
        });
        bootstrap(&api, &config.ranges, addr).await?;

        let controlling = match config.controllers {
            Some(cluster_cidrs) => {
                let (synced, ready) = oneshot::channel();
                let settings = controllers::Config { cluster_cidrs, synced: Some(synced) };
                let task = tokio::spawn(controllers::run(api.clone(), settings, shutdown.clone()));
                // Nobody is served before the controllers have seen everything (kubernetes-api 1, readyz).
                if ready.await.is_err() {
                    tracing::error!("the controllers ended before they had synced");
                }
                Some(task)
            }
            None => None,
        };
        let hosts = Hosts::new(addr, &config.names, &config.ranges);
        let tls = TlsAcceptor::from(Arc::new(pki.server_config(&hosts.names, &hosts.addresses)?));
        let accepting = tokio::spawn(accept(listener, tls, api.clone(), Arc::new(hosts), shutdown.clone()));
        tokio::spawn(expire_events(api.clone(), shutdown.clone()));
        let kubeconfig = config.kubeconfig.unwrap_or_else(|| config.data_dir.join("admin.kubeconfig"));
        let running = Running {
            addr,
            kubeconfig,
            api,
            shutdown,
            pki,
            accepting,
            controlling,
            store_thread: Mutex::new(Some(store_thread)),
        };
        running.write_kubeconfig(&Identity::admin(), &running.kubeconfig)?;
        Ok(running)
    }
}

impl Running {
    /// Writes a kubeconfig with a fresh client certificate for an identity, for example
    /// [`Identity::node`].
    pub fn write_kubeconfig(&self, identity: &Identity, path: &Path) -> Result<(), ServerError> {
        self.kubeconfig_for(identity)?
            .write(path)
            .map_err(|source| ServerError::File { path: path.display().to_string(), source })
    }

    /// The same, not written anywhere.
    pub fn kubeconfig_for(&self, identity: &Identity) -> Result<Kubeconfig, ServerError> {
        Ok(Kubeconfig {
            server: self.url(),
            ca_pem: self.pki.ca_pem().to_string(),
            user: identity.user.clone(),
            credentials: self.pki.client(identity)?,
        })
    }

    /// `https://…` of the listener.
    pub fn url(&self) -> String {
        format!("https://{}", self.addr)
    }

    /// Ends watches and streams, waits a moment for open requests, and closes the store, so that the
    /// directory can be opened again. Other clones of the [`Api`] must be gone by then.
    pub async fn stop(self) {
        self.shutdown.cancel();
        let _ = self.accepting.await;
        if let Some(task) = self.controlling {
            let _ = task.await;
        }
        let thread = self.store_thread.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        let store = self.api.store().clone();
        drop(self.api);
        drop(store);
        if let Some(thread) = thread {
            let joined = tokio::task::spawn_blocking(move || thread.join());
            if tokio::time::timeout(DRAIN, joined).await.is_err() {
                tracing::warn!("the store is still in use");
            }
        }
    }
}

/// Names and addresses under which the server is known.
struct Hosts {
    names: Vec<String>,
    addresses: Vec<IpAddr>,
}

impl Hosts {
    fn new(addr: SocketAddr, more: &[String], ranges: &ServiceRanges) -> Hosts {
        let mut names: Vec<String> =
            ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"]
                .map(String::from)
                .into();
        let mut addresses =
            vec![IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1]), ranges.first()];
        if !addr.ip().is_unspecified() && !addresses.contains(&addr.ip()) {
            addresses.push(addr.ip());
        }
        for name in more {
            match name.parse() {
                Ok(ip) => addresses.push(ip),
                Err(_) => names.push(name.clone()),
            }
        }
        Hosts { names, addresses }
    }

    /// A Host header or authority that names this server: others are DNS rebinding (kubernetes-api 11).
    fn known(&self, host: &str) -> bool {
        let bare = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
            _ => host,
        };
        let bare = bare.trim_start_matches('[').trim_end_matches(']');
        self.names.iter().any(|n| n.eq_ignore_ascii_case(bare))
            || bare.parse::<IpAddr>().is_ok_and(|ip| self.addresses.contains(&ip))
    }
}

async fn accept(
    listener: TcpListener,
    tls: TlsAcceptor,
    api: Api,
    hosts: Arc<Hosts>,
    shutdown: CancellationToken,
) {
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.cancelled() => break,
        };
        match accepted {
            Ok((socket, _)) => {
                let serving = serve(socket, tls.clone(), api.clone(), hosts.clone(), shutdown.clone());
                connections.spawn(serving);
            }
            Err(error) => {
                // Out of file descriptors: existing connections must end first.
                tracing::warn!(%error, "accept failed");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    connections.close();
    let _ = tokio::time::timeout(DRAIN, connections.wait()).await;
}

async fn serve(
    socket: TcpStream,
    tls: TlsAcceptor,
    api: Api,
    hosts: Arc<Hosts>,
    shutdown: CancellationToken,
) {
    let _ = socket.set_nodelay(true);
    let stream = match tokio::time::timeout(HANDSHAKE, tls.accept(socket)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            tracing::debug!(%error, "TLS handshake failed");
            return;
        }
        Err(_) => return,
    };
    let identity =
        stream.get_ref().1.peer_certificates().and_then(|chain| chain.first()).and_then(identity_of);
    let service = service_fn(move |mut request: Request<Incoming>| {
        let (api, hosts) = (api.clone(), hosts.clone());
        if let Some(identity) = &identity {
            request.extensions_mut().insert(identity.clone());
        }
        async move {
            let host = request.uri().authority().map(|a| a.as_str().to_string()).or_else(|| {
                request.headers().get(header::HOST).and_then(|h| h.to_str().ok()).map(String::from)
            });
            let response = if host.is_some_and(|h| hosts.known(&h)) {
                api.respond(request).await
            } else {
                crate::http::refuse(&Status::error(
                    StatusCode::MISDIRECTED_REQUEST,
                    "BadRequest",
                    "the Host header does not name this server",
                ))
            };
            Ok::<_, Infallible>(response)
        }
    });
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HANDSHAKE).max_buf_size(MAX_HEADERS);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(HTTP2_STREAMS)
        .max_header_list_size(64 * 1024)
        .keep_alive_interval(Duration::from_secs(30));
    let connection = builder.serve_connection_with_upgrades(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let result = tokio::select! {
        result = connection.as_mut() => result,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "a connection ended");
    }
}

/// Creates what is always there: namespaces, the `kubernetes` service with its endpoints, the built-in
/// tiers, default service accounts (kubernetes-api 3).
async fn bootstrap(api: &Api, ranges: &ServiceRanges, addr: SocketAddr) -> Result<(), ServerError> {
    let api = api.with_identity(Identity::new("system:apiserver", &[crate::auth::MASTERS]));
    for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
        let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        ensure(&api, "/api/v1/namespaces", object).await?;
    }
    let labels = json!({"component": "apiserver", "provider": "kubernetes"});
    let service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "kubernetes", "namespace": "default", "labels": labels},
        "spec": {
            "clusterIP": ranges.first().to_string(),
            "ports": [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": addr.port()}],
        },
    });
    replace(&api, "/api/v1/namespaces/default/services", service).await?;
    let slice = json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "kubernetes", "namespace": "default",
                     "labels": {"kubernetes.io/service-name": "kubernetes"}},
        "addressType": if addr.is_ipv4() { "IPv4" } else { "IPv6" },
        "endpoints": [{"addresses": [addr.ip().to_string()], "conditions": {"ready": true}}],
        "ports": [{"name": "https", "port": addr.port(), "protocol": "TCP"}],
    });
    replace(&api, "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", slice).await?;
    for (name, order) in [("kube-admin", 1_000), ("default", 1_000_000), ("kube-baseline", 10_000_000)] {
        // What the two Kubernetes tiers do with what they do not decide is to leave it to the next one.
        let action = if name == "default" { "Deny" } else { "Pass" };
        let object = json!({
            "apiVersion": "projectcalico.org/v3", "kind": "Tier", "metadata": {"name": name},
            "spec": {"order": order, "defaultAction": action},
        });
        ensure(&api, "/apis/projectcalico.org/v3/tiers", object).await?;
    }
    Ok(())
}

/// Creates an object unless it exists.
async fn ensure(api: &Api, collection: &str, object: Value) -> Result<(), ServerError> {
    let what = what(&object);
    match api.call("POST", collection, Some(&object)).await {
        Ok(_) => Ok(()),
        Err(status) if status.reason == "AlreadyExists" => Ok(()),
        Err(status) => Err(ServerError::Bootstrap { what, status }),
    }
}

/// Creates an object, or brings it to this state.
async fn replace(api: &Api, collection: &str, object: Value) -> Result<(), ServerError> {
    let what = what(&object);
    let name = object["metadata"]["name"].as_str().unwrap_or("").to_string();
    let done = match api.call("POST", collection, Some(&object)).await {
        Err(status) if status.reason == "AlreadyExists" => {
            api.call("PUT", &format!("{collection}/{name}"), Some(&object)).await
        }
        other => other,
    };
    done.map(|_| ()).map_err(|status| ServerError::Bootstrap { what, status })
}

fn what(object: &Value) -> String {
    format!("{} {}", object["kind"].as_str().unwrap_or(""), object["metadata"]["name"].as_str().unwrap_or(""))
}

/// Removes events that nobody touched for an hour.
async fn expire_events(api: Api, shutdown: CancellationToken) {
    let admin = api.with_identity(Identity::new("system:apiserver", &[crate::auth::MASTERS]));
    drop(api);
    let Some(events) = resource::find("", "v1", "events") else { return };
    loop {
        tokio::select! {
            () = tokio::time::sleep(EXPIRY_EVERY) => {}
            () = shutdown.cancelled() => return,
        }
        let oldest = crate::time::now() - EVENT_LIFE;
        let Ok((all, _)) = admin.store().list(&crate::store::resource_id(events), None, None, None) else {
            continue;
        };
        for event in all {
            let value = event.value();
            let touched = ["/lastTimestamp", "/series/lastObservedTime", "/metadata/creationTimestamp"]
                .iter()
                .filter_map(|p| value.pointer(p)?.as_str().and_then(crate::time::parse))
                .max();
            if touched.is_none_or(|t| t < oldest) {
                let Key { namespace, name, .. } = &event.key;
                let path = format!("/api/v1/namespaces/{namespace}/events/{name}");
                let _ = admin.call("DELETE", &path, None).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_known_hosts() {
        let addr: SocketAddr = "127.0.0.1:6443".parse().unwrap();
        let hosts = Hosts::new(addr, &["lab.example".into()], &ServiceRanges::default());
        for good in [
            "127.0.0.1:6443",
            "localhost",
            "[::1]:6443",
            "lab.example:1",
            "kubernetes.default.svc",
            "10.43.0.1",
        ] {
            assert!(hosts.known(good), "{good}");
        }
        for bad in ["evil.example", "127.0.0.2", "", "localhost.evil.example:6443"] {
            assert!(!hosts.known(bad), "{bad}");
        }
    }
}
