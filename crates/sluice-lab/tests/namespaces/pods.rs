//! The sandbox manager against the embedded API.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures::future::BoxFuture;
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, PostParams};
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};
use sluice_apiserver::runtime::{ExecRequest, ExecSession, ExitStatus, LogRequest, PodRuntime, TerminalSize};
use sluice_apiserver::{Running, Server, ServerConfig};
use sluice_lab::{
    AttachRequest, Attached, ClusterConfig, DetachRequest, Kubelet, Lab, LabConfig, LabError, Node,
    PodNetwork,
};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::runtime;

/// Gives addresses without making a network; fails the first time.
#[derive(Default)]
struct Paper {
    attempts: AtomicUsize,
    detached: Mutex<Vec<String>>,
    held: Mutex<Vec<OwnedFd>>,
}

impl PodNetwork for Paper {
    fn attach(&self, request: AttachRequest) -> BoxFuture<'_, Result<Attached, LabError>> {
        let attempt = self.attempts.fetch_add(1, Ordering::Relaxed);
        self.held.lock().unwrap().push(request.netns);
        Box::pin(async move {
            if attempt == 0 {
                return Err(LabError::Network {
                    object: request.name,
                    message: "agent not ready".to_owned(),
                });
            }
            let last = u8::try_from(attempt).unwrap();
            Ok(Attached {
                addresses: vec![IpAddr::from([10, 42, 0, last]), format!("fd00:42::{last}").parse().unwrap()],
            })
        })
    }

    fn detach(&self, request: DetachRequest) -> BoxFuture<'_, Result<(), LabError>> {
        self.detached.lock().unwrap().push(request.name);
        Box::pin(async { Ok(()) })
    }
}

struct Stage {
    kubelet: Kubelet,
    client: kube::Client,
    network: Arc<Paper>,
    api: Running,
    lab: Lab,
    _parent: TempDir,
}

fn resource(kind: &str, plural: &str) -> ApiResource {
    ApiResource {
        group: String::new(),
        version: "v1".to_owned(),
        api_version: "v1".to_owned(),
        kind: kind.to_owned(),
        plural: plural.to_owned(),
    }
}

impl Stage {
    async fn start() -> Self {
        let parent = tempfile::tempdir_in("/tmp").unwrap();
        let config = LabConfig { nodes: 1, state: Some(parent.path().join("labs")), ..LabConfig::default() };
        let lab = Lab::start(&config).unwrap();
        let api = Server::start(ServerConfig::new(lab.state().join("api"))).await.unwrap();
        let kubeconfig = kube::config::Kubeconfig::read_from(&api.kubeconfig).unwrap();
        let config = kube::Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await.unwrap();
        let client = kube::Client::try_from(config).unwrap();
        let network = Arc::new(Paper::default());
        let node = &lab.nodes()[0];
        let nodes = vec![Node {
            name: node.name.clone(),
            addresses: node.addresses.clone(),
            netns: node.name.clone(),
            pod_cidrs: node.pod_cidrs.clone(),
            network: Arc::clone(&network) as Arc<dyn PodNetwork>,
        }];
        let kubelet = lab.run_pods_with(client.clone(), ClusterConfig::default(), nodes).await.unwrap();
        api.api.set_runtime(Arc::new(kubelet.clone()));
        Self { kubelet, client, network, api, lab, _parent: parent }
    }

    fn pods(&self) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), "default", &resource("Pod", "pods"))
    }

    async fn create(&self, name: &str, mut spec: Value) -> String {
        spec["nodeName"] = json!("node-1");
        for list in ["containers", "initContainers"] {
            let containers = spec.get_mut(list).and_then(Value::as_array_mut);
            for container in containers.into_iter().flatten() {
                container["image"] = container.get("image").cloned().unwrap_or(json!("debian:12"));
            }
        }
        let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec});
        let created = self.pods().create(&PostParams::default(), &serde_json::from_value(pod).unwrap()).await;
        created.unwrap().metadata.uid.unwrap()
    }

    /// Waits for a state of a pod, told by the API's watch.
    async fn until(&self, name: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let met = |pod: Option<&DynamicObject>| pod.is_some_and(|pod| condition(&pod.data["status"]));
        let limit = Duration::from_secs(20);
        let waited = tokio::time::timeout(limit, await_condition(self.pods(), name, met)).await;
        let pod = match waited {
            Ok(pod) => pod.unwrap().unwrap(),
            Err(_) => panic!("{name}: {:#}", self.pods().get(name).await.unwrap().data["status"]),
        };
        pod.data["status"].clone()
    }

    async fn ready(&self, name: &str) -> Value {
        self.until(name, |status| condition(status, "Ready") == "True").await
    }

    async fn exec(&self, name: &str, uid: &str, command: &[&str], tty: bool) -> ExecSession {
        let request = ExecRequest {
            namespace: "default".to_owned(),
            pod: name.to_owned(),
            uid: uid.to_owned(),
            container: "c".to_owned(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            stdin: true,
            stdout: true,
            stderr: !tty,
            tty,
        };
        let session = self.kubelet.exec(request).await;
        session.unwrap_or_else(|status| panic!("{}", status.message))
    }

    async fn logs(
        &self,
        name: &str,
        uid: &str,
        change: impl FnOnce(&mut LogRequest),
    ) -> Result<String, String> {
        let mut request = LogRequest {
            namespace: "default".to_owned(),
            pod: name.to_owned(),
            uid: uid.to_owned(),
            container: "c".to_owned(),
            ..LogRequest::default()
        };
        change(&mut request);
        let mut source = self.kubelet.logs(request).await.map_err(|status| status.message)?;
        let mut text = String::new();
        source.read_to_string(&mut text).await.unwrap();
        Ok(text)
    }

    async fn end(self) {
        self.kubelet.shutdown().await;
        self.api.stop().await;
    }
}

fn condition(status: &Value, kind: &str) -> String {
    let mut conditions = status["conditions"].as_array().into_iter().flatten();
    let found = conditions.rfind(|condition| condition["type"] == kind);
    found.and_then(|condition| condition["status"].as_str()).unwrap_or_default().to_owned()
}

async fn finish(session: ExecSession) -> (ExitStatus, String, String) {
    let ExecSession { stdin, stdout, stderr, exit, resize } = session;
    drop(stdin);
    let (mut out, mut err) = (String::new(), String::new());
    stdout.unwrap().read_to_string(&mut out).await.unwrap();
    if let Some(mut stderr) = stderr {
        stderr.read_to_string(&mut err).await.unwrap();
    }
    drop(resize);
    (exit.await.unwrap(), out, err)
}

pub(crate) fn a_pod_runs_and_says_so() {
    runtime().block_on(async {
        let stage = Stage::start().await;
        let uid = stage
            .create("web", json!({"containers": [{"name": "c", "command": ["/bin/sh", "-c", "echo hello; sleep infinity"]}]}))
            .await;
        let status = stage.ready("web").await;
        assert_eq!(status["phase"], "Running");
        assert_eq!(status["podIP"], "10.42.0.1");
        assert_eq!(status["podIPs"], json!([{"ip": "10.42.0.1"}, {"ip": "fd00:42::1"}]));
        assert_eq!(status["hostIP"], "172.30.0.11");
        let message = status["message"].as_str().unwrap();
        assert!(message.contains("in place of image \"debian:12\"") && message.contains("layer over"), "{message}");
        for kind in ["Initialized", "ContainersReady", "PodScheduled"] {
            assert_eq!(condition(&status, kind), "True", "{kind}");
        }
        assert!(status["containerStatuses"][0]["state"]["running"]["startedAt"].is_string(), "{status:#}");

        // exec: streams, exit code, the missing command, the container's environment.
        let session = stage.exec("web", &uid, &["sh", "-c", "cat; echo err >&2; exit 3"], false).await;
        let ExecSession { stdin, stdout, stderr, exit, .. } = session;
        let mut stdin = stdin.unwrap();
        stdin.write_all(b"typed").await.unwrap();
        drop(stdin);
        let (mut out, mut err) = (String::new(), String::new());
        stdout.unwrap().read_to_string(&mut out).await.unwrap();
        stderr.unwrap().read_to_string(&mut err).await.unwrap();
        assert_eq!((exit.await.unwrap(), out.as_str(), err.as_str()), (ExitStatus::Code(3), "typed", "err\n"));
        let missing = finish(stage.exec("web", &uid, &["no-such-tool"], false).await).await;
        let ExitStatus::Failed(message) = missing.0 else { panic!("{missing:?}") };
        assert!(message.contains("install no-such-tool on the host"), "{message}");
        let script = "cat /etc/resolv.conf; grep web /etc/hosts; hostname; echo $KUBERNETES_SERVICE_HOST";
        let (_, out, _) = finish(stage.exec("web", &uid, &["sh", "-c", script], false).await).await;
        assert_eq!(
            out,
            "nameserver 10.43.0.10\nsearch default.svc.cluster.local svc.cluster.local cluster.local\n\
             options ndots:5\n10.42.0.1\tweb\nfd00:42::1\tweb\nweb\n10.43.0.1\n"
        );

        // A terminal, its size, and the end of a client that just goes away.
        let session = stage.exec("web", &uid, &["sh", "-c", "read x; stty size; echo got $x"], true).await;
        let ExecSession { stdin, stdout, resize, exit, .. } = session;
        resize.as_ref().unwrap().send(TerminalSize { width: 90, height: 30 }).await.unwrap();
        let (mut stdin, mut stdout) = (stdin.unwrap(), stdout.unwrap());
        while resize.as_ref().unwrap().capacity() < 4 {
            tokio::task::yield_now().await;
        }
        stdin.write_all(b"word\n").await.unwrap();
        let mut out = String::new();
        stdout.read_to_string(&mut out).await.unwrap();
        assert!(out.contains("30 90") && out.contains("got word"), "{out}");
        assert_eq!(exit.await.unwrap(), ExitStatus::Code(0));
        for tty in [false, true] {
            drop(stage.exec("web", &uid, &["sh", "-c", "exec sleep 54321"], tty).await);
        }
        let count = "while grep -qs 54321 /proc/[2-9]*/cmdline /proc/[1-9][0-9]*/cmdline; do sleep 0.05; done";
        let gone = finish(stage.exec("web", &uid, &["timeout", "15", "sh", "-c", &count.replace("54321", "5432[1]")], false).await).await;
        assert_eq!(gone.0, ExitStatus::Code(0), "left behind");

        // logs
        assert_eq!(stage.logs("web", &uid, |_| ()).await.unwrap(), "hello\n");
        assert_eq!(stage.logs("web", &uid, |request| request.tail_lines = Some(0)).await.unwrap(), "");
        let stamped = stage.logs("web", &uid, |request| request.timestamps = true).await.unwrap();
        assert!(stamped.ends_with("Z hello\n") && stamped.starts_with("20"), "{stamped}");
        let previous = stage.logs("web", &uid, |request| request.previous = true).await.unwrap_err();
        assert!(previous.contains("previous terminated container"), "{previous}");
        let other = stage.logs("web", &uid, |request| request.container = "x".to_owned()).await.unwrap_err();
        assert!(other.contains("not valid"), "{other}");

        // The node is there and ready.
        let nodes: Api<DynamicObject> = Api::all_with(stage.client.clone(), &resource("Node", "nodes"));
        let node = nodes.get("node-1").await.unwrap();
        assert_eq!(condition(&node.data["status"], "Ready"), "True");
        assert_eq!(node.data["spec"]["podCIDRs"], json!(["10.42.0.0/24", "fd00:42:0:0::/64"]));
        stage.end().await;
    });
}

pub(crate) fn a_deleted_pod_ends_in_order() {
    runtime().block_on(async {
        let stage = Stage::start().await;
        let script = "trap 'echo bye; exit 0' TERM; echo up; while :; do sleep 0.05; done";
        let uid = stage
            .create("web", json!({"containers": [{"name": "c", "command": ["sh", "-c", script]}]}))
            .await;
        stage.ready("web").await;
        // The trap is set once the first line is out.
        let up = async || stage.logs("web", &uid, |_| ()).await.unwrap() == "up\n";
        while !up().await {
            tokio::task::yield_now().await;
        }
        let followed = stage.kubelet.logs(LogRequest {
            pod: "web".to_owned(),
            uid: uid.clone(),
            container: "c".to_owned(),
            follow: true,
            ..LogRequest::default()
        });
        let Ok(mut followed) = followed.await else { panic!("no log") };
        stage.pods().delete("web", &DeleteParams::default()).await.unwrap();
        let gone = await_condition(stage.pods(), "web", kube::runtime::conditions::is_deleted(&uid));
        tokio::time::timeout(Duration::from_secs(15), gone).await.expect("deleted").unwrap();
        let mut text = String::new();
        followed.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "up\nbye\n");
        assert!(stage.network.detached.lock().unwrap().contains(&"web".to_owned()));
        assert!(
            stage
                .lab
                .enclave()
                .open_socket(&format!("pod-{uid}"), libc::AF_INET, libc::SOCK_STREAM, 0)
                .is_err()
        );

        // One that does not listen is killed after its grace period.
        let deaf = json!({"terminationGracePeriodSeconds": 1, "containers": [{"name": "c",
            "command": ["sh", "-c", "trap '' TERM; while :; do sleep 1; done"]}]});
        let uid = stage.create("deaf", deaf).await;
        stage.ready("deaf").await;
        stage.pods().delete("deaf", &DeleteParams::default()).await.unwrap();
        let gone = await_condition(stage.pods(), "deaf", kube::runtime::conditions::is_deleted(&uid));
        tokio::time::timeout(Duration::from_secs(15), gone).await.expect("killed").unwrap();
        stage.end().await;
    });
}

pub(crate) fn containers_follow_the_restart_policy() {
    runtime().block_on(async {
        let stage = Stage::start().await;
        // Init containers in order, a sidecar that stays, a main container that ends: the pod succeeds.
        let spec = json!({
            "restartPolicy": "Never",
            "volumes": [{"name": "shared", "emptyDir": {}}],
            "initContainers": [
                {"name": "first", "command": ["sh", "-c", "echo one >> /data/order"], "volumeMounts": [{"name": "shared", "mountPath": "/data"}]},
                {"name": "side", "restartPolicy": "Always", "command": ["sh", "-c", "echo two >> /data/order; sleep infinity"]},
                {"name": "second", "command": ["sh", "-c", "while ! grep -q two /data/order; do sleep 0.02; done; echo three >> /data/order"]},
            ],
            "containers": [{"name": "c", "command": ["cat", "/data/order"]}],
        });
        let uid = stage.create("job", spec).await;
        let status = stage.until("job", |status| status["phase"] == "Succeeded").await;
        assert_eq!(stage.logs("job", &uid, |_| ()).await.unwrap(), "one\ntwo\nthree\n");
        let terminated = &status["containerStatuses"][0]["state"]["terminated"];
        assert_eq!((terminated["exitCode"].as_i64(), terminated["reason"].as_str()), (Some(0), Some("Completed")));

        let uid = stage.create("bad", json!({"containers": [{"name": "c", "command": ["sh", "-c", "echo run; exit 7"]}]})).await;
        let status = stage
            .until("bad", |status| status["containerStatuses"][0]["restartCount"].as_u64() >= Some(2))
            .await;
        let last = &status["containerStatuses"][0]["lastState"]["terminated"];
        assert_eq!((last["exitCode"].as_i64(), last["reason"].as_str()), (Some(7), Some("Error")));
        assert_eq!(status["containerStatuses"][0]["state"]["waiting"]["reason"], "CrashLoopBackOff");
        assert_eq!(stage.logs("bad", &uid, |request| request.previous = true).await.unwrap(), "run\n");

        stage.create("missing", json!({"restartPolicy": "Never", "containers": [{"name": "c", "command": ["no-such-tool"]}]})).await;
        let status = stage.until("missing", |status| status["phase"] == "Failed").await;
        let terminated = &status["containerStatuses"][0]["state"]["terminated"];
        assert_eq!((terminated["reason"].as_str(), terminated["exitCode"].as_i64()), (Some("StartError"), Some(128)));
        assert!(terminated["message"].as_str().unwrap().contains("install no-such-tool on the host"));
        stage.end().await;
    });
}

pub(crate) fn built_in_images_are_what_they_say() {
    runtime().block_on(async {
        let stage = Stage::start().await;
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"},
            "spec": {"clusterIP": "10.43.0.77", "ports": [{"name": "http", "port": 80}]}});
        let services: Api<DynamicObject> =
            Api::namespaced_with(stage.client.clone(), "default", &resource("Service", "services"));
        services.create(&PostParams::default(), &serde_json::from_value(service).unwrap()).await.unwrap();

        let dns =
            stage.create("dns", json!({"containers": [{"name": "c", "image": "sluice.dev/dns"}]})).await;
        let nginx =
            json!({"containers": [{"name": "c", "image": "nginx", "ports": [{"containerPort": 80}]}]});
        let nginx = stage.create("nginx", nginx).await;
        let idle =
            stage.create("idle", json!({"containers": [{"name": "c", "image": "sluice.dev/pause"}]})).await;
        for name in ["dns", "nginx", "idle"] {
            stage.ready(name).await;
        }
        assert_eq!(
            stage.pods().get("idle").await.unwrap().data["status"].get("message").and_then(Value::as_str),
            None
        );
        assert_eq!(stage.logs("idle", &idle, |_| ()).await.unwrap(), "ready\n");

        let local: IpAddr = IpAddr::from([127, 0, 0, 1]);
        let tcp = stage
            .lab
            .enclave()
            .open_socket(&format!("pod-{nginx}"), libc::AF_INET, libc::SOCK_STREAM, 0)
            .unwrap();
        rustix::net::connect(&tcp, &SocketAddr::new(local, 80)).unwrap();

        // web.default.svc.cluster.local, as a resolver would ask for it. The zone follows the API.
        let question =
            b"\x01\x02\x01\0\0\x01\0\0\0\0\0\0\x03web\x07default\x03svc\x07cluster\x05local\0\0\x01\0\x01";
        let socket = stage
            .lab
            .enclave()
            .open_socket(&format!("pod-{dns}"), libc::AF_INET, libc::SOCK_DGRAM, 0)
            .unwrap();
        let socket = UdpSocket::from(socket);
        socket.connect(SocketAddr::new(local, 53)).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        let limit = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            socket.send(question).unwrap();
            let mut answer = [0; 512];
            let length = socket.recv(&mut answer).unwrap();
            if answer[..length].ends_with(&[10, 43, 0, 77]) {
                break;
            }
            assert!(std::time::Instant::now() < limit, "{:?}", &answer[..length]);
            tokio::task::yield_now().await;
        }
        stage.end().await;
    });
}
