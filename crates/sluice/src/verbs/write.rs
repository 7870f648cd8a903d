//! apply and delete.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use super::{api, api_of, called, connect, found, names, wait};
use crate::args::{Apply, Delete, DryRun, WriteFlags};
use crate::exit::Exit;
use crate::input;

/// Our name in managedFields.
const FIELD_MANAGER: &str = "sluice";
/// How often an object that is to go is looked for.
const LOOK: Duration = Duration::from_millis(100);
/// What an API answers that has no server-side apply.
const UNSUPPORTED_MEDIA_TYPE: u16 = 415;

/// How objects are written.
#[derive(Debug)]
pub(crate) struct Writing {
    dry_run: DryRun,
    manager: String,
    force: bool,
    /// Whether the server is asked to apply; switched off once it has said that it cannot.
    by_server: AtomicBool,
}

impl Writing {
    /// As the command line says.
    pub(crate) fn new(flags: &WriteFlags) -> Self {
        let (dry_run, manager) = (flags.dry_run, flags.field_manager.clone());
        Writing { dry_run, manager, force: flags.force_conflicts, by_server: AtomicBool::new(true) }
    }

    /// Into our own API, which merges.
    pub(crate) fn merging() -> Self {
        let by_server = AtomicBool::new(false);
        Writing { dry_run: DryRun::None, manager: FIELD_MANAGER.into(), force: false, by_server }
    }

    fn patch(&self) -> PatchParams {
        let field_manager = Some(self.manager.clone());
        PatchParams { field_manager, dry_run: self.dry_run == DryRun::Server, ..PatchParams::default() }
    }
}

/// ` (dry run)`, as kubectl marks what was not done.
pub(crate) fn mark(dry_run: DryRun) -> &'static str {
    match dry_run {
        DryRun::None => "",
        DryRun::Client => " (dry run)",
        DryRun::Server => " (server dry run)",
    }
}

/// `sluice apply`: creates what is not there and changes what is. All objects are read before the first is written.
pub(crate) async fn apply(command: Apply) -> anyhow::Result<Exit> {
    let objects = input::values(&command.files, &command.target.namespace())?;
    let client = connect(&command.target).await?;
    let writing = Writing::new(&command.write);
    let mut written = Vec::new();
    for object in &objects {
        let done = apply_object(&client, object, &writing).await?;
        println!("{} {}{}", done.name, done.what, mark(command.write.dry_run));
        written.push(done);
    }
    match command.write.patience() {
        Some(limit) => wait::programmed(&client, &written, limit).await,
        None => Ok(Exit::Yes),
    }
}

/// What `apply_object` did.
pub(crate) struct Applied {
    /// `networkpolicy.networking.k8s.io/name`.
    pub(crate) name: String,
    /// `networkpolicies.networking.k8s.io`.
    pub(crate) resource: String,
    /// created, configured or unchanged.
    pub(crate) what: &'static str,
    /// The resourceVersion that the object has now; 0 where it was only pretended.
    pub(crate) revision: u64,
}

/// Creates or changes one object: by server-side apply where the API has it, else by a merge.
pub(crate) async fn apply_object(
    client: &Client,
    object: &Value,
    writing: &Writing,
) -> anyhow::Result<Applied> {
    let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (api_version, kind) = (text("/apiVersion"), text("/kind"));
    let (name, namespace) = (text("/metadata/name"), text("/metadata/namespace"));
    let found = found(client, &api_version, &kind).await?;
    let (resource, label) = names(&found, &name);
    let namespace = if namespace.is_empty() { "default" } else { &namespace };
    let api = api(client, &found, namespace);
    let parsed: DynamicObject = serde_json::from_value(object.clone()).with_context(|| label.clone())?;
    let strict = |error: kube::Error| anyhow::Error::new(error).context(label.clone());
    let existing = api.get_opt(&name).await.map_err(strict)?;
    if writing.dry_run == DryRun::Client {
        let what = if existing.is_some() { "configured" } else { "created" };
        return Ok(Applied { name: label, resource, what, revision: 0 });
    }
    let now = match by_server(&api, &name, &parsed, writing).await.map_err(strict)? {
        Some(now) => now,
        None if existing.is_some() => {
            api.patch(&name, &writing.patch(), &Patch::Merge(object)).await.map_err(strict)?
        }
        None => {
            let field_manager = Some(writing.manager.clone());
            let params = PostParams { field_manager, dry_run: writing.dry_run == DryRun::Server };
            match api.create(&params, &parsed).await {
                // somebody was faster: a controller gives every namespace an account
                Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => {
                    api.patch(&name, &writing.patch(), &Patch::Merge(object)).await.map_err(strict)?
                }
                created => created.map_err(strict)?,
            }
        }
    };
    let what = match existing.map(|object| object.resource_version()) {
        None => "created",
        Some(version) if version == now.resource_version() => "unchanged",
        Some(_) => "configured",
    };
    let revision = now.resource_version().and_then(|v| v.parse().ok()).unwrap_or(0);
    Ok(Applied { name: label, resource, what, revision })
}

/// Server-side apply; `None` where the API does not have it.
async fn by_server(
    api: &Api<DynamicObject>,
    name: &str,
    object: &DynamicObject,
    writing: &Writing,
) -> Result<Option<DynamicObject>, kube::Error> {
    if !writing.by_server.load(Ordering::Relaxed) {
        return Ok(None);
    }
    let params = PatchParams { force: writing.force, ..writing.patch() };
    match api.patch(name, &params, &Patch::Apply(object)).await {
        Ok(object) => Ok(Some(object)),
        Err(kube::Error::Api(status)) if status.code == UNSUPPORTED_MEDIA_TYPE => {
            writing.by_server.store(false, Ordering::Relaxed);
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// `sluice delete`.
pub(crate) async fn delete(command: Delete) -> anyhow::Result<Exit> {
    let client = connect(&command.target).await?;
    let mut gone: Vec<(Api<DynamicObject>, String, String)> = Vec::new();
    if !command.files.is_empty() {
        let objects = input::values(&command.files, &command.target.namespace())?;
        for object in objects.iter().rev() {
            let text = |path: &str| object.pointer(path).and_then(Value::as_str).unwrap_or_default();
            let name = text("/metadata/name");
            let label = format!("{}/{name}", text("/kind").to_lowercase());
            gone.push((api_of(&client, object).await?, name.to_owned(), label));
        }
    } else {
        let Some(resource) = &command.resource else {
            bail!(
                "name a resource and an object (sluice delete networkpolicy full-isolation), or files with -f"
            )
        };
        let found = called(&client, resource).await?;
        let api = api(&client, &found, &command.target.namespace());
        let names = match (&command.name, &command.selector) {
            (Some(name), None) => vec![name.clone()],
            (None, Some(selector)) => {
                let list = api.list(&ListParams::default().labels(selector)).await?;
                list.items.iter().map(ResourceExt::name_any).collect()
            }
            _ => bail!("name an object (sluice delete {resource} NAME), or a selector with -l"),
        };
        let kind = found.resource.kind.to_lowercase();
        gone.extend(names.into_iter().map(|name| (api.clone(), name.clone(), format!("{kind}/{name}"))));
    }
    let params = DeleteParams { dry_run: command.dry_run == DryRun::Server, ..DeleteParams::default() };
    for (api, name, label) in &gone {
        if command.dry_run != DryRun::Client {
            api.delete(name, &params).await.with_context(|| label.clone())?;
        }
        println!("{label} deleted{}", mark(command.dry_run));
    }
    if !command.wait || command.dry_run != DryRun::None {
        return Ok(Exit::Yes);
    }
    let began = Instant::now();
    for (api, name, label) in &gone {
        while api.get_opt(name).await.with_context(|| label.clone())?.is_some() {
            if command.timeout.is_some_and(|limit| !limit.is_zero() && began.elapsed() > limit) {
                eprintln!("{label} is still there");
                return Ok(Exit::Undecided);
            }
            tokio::time::sleep(LOOK).await;
        }
    }
    Ok(Exit::Yes)
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use http::{Request, Response};
    use kube::client::Body;
    use serde_json::json;

    use super::*;

    /// What was asked: method, path with query, media type.
    type Asked = Arc<Mutex<Vec<(String, String, String)>>>;

    /// An API that has no object yet, takes what is applied, and refuses what somebody else owns.
    fn api(owned: bool) -> (Client, Asked) {
        let asked = Asked::default();
        let heard = asked.clone();
        let service = tower::service_fn(move |request: Request<Body>| {
            let heard = heard.clone();
            async move {
                let media = request.headers().get("content-type").and_then(|m| m.to_str().ok()).unwrap_or("");
                let (method, uri) = (request.method().to_string(), request.uri().to_string());
                heard.lock().expect("not poisoned").push((method.clone(), uri.clone(), media.to_owned()));
                let status = |code: u16, reason: &str| {
                    let body = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "reason": reason, "message": reason});
                    (code, body)
                };
                let (code, body) = match method.as_str() {
                    "GET" => status(404, "NotFound"),
                    "PATCH" if owned && !uri.contains("force=true") => status(409, "Conflict"),
                    _ => (200, json!({"metadata": {"name": "p", "resourceVersion": "7"}})),
                };
                let response =
                    Response::builder().status(code).body(Body::from(body.to_string().into_bytes()));
                response.map_err(tower::BoxError::from)
            }
        });
        (Client::new(service, "default"), asked)
    }

    fn flags(more: &[&str]) -> WriteFlags {
        #[derive(clap::Parser)]
        struct Line {
            #[command(flatten)]
            write: WriteFlags,
        }
        <Line as clap::Parser>::parse_from([&["x"], more].concat()).write
    }

    async fn written(owned: bool, more: &[&str]) -> (Result<Applied, String>, Vec<(String, String, String)>) {
        let (client, asked) = api(owned);
        let policy = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "p", "namespace": "shop"}, "spec": {"podSelector": {}}});
        let done = apply_object(&client, &policy, &Writing::new(&flags(more))).await;
        let asked = asked.lock().expect("not poisoned").clone();
        (done.map_err(|error| format!("{error:#}")), asked)
    }

    #[tokio::test]
    async fn where_the_api_can_it_applies_and_the_fields_are_ours() {
        let (done, asked) = written(false, &[]).await;
        let done = done.expect("applied");
        assert_eq!((done.what, done.revision), ("created", 7));
        let (method, uri, media) = &asked[1];
        assert_eq!(
            (asked.len(), method.as_str(), media.as_str()),
            (2, "PATCH", "application/apply-patch+yaml")
        );
        assert!(
            uri.contains("/namespaces/shop/networkpolicies/p?") && uri.contains("fieldManager=sluice"),
            "{uri}"
        );
        assert!(!uri.contains("force") && !uri.contains("dryRun"), "{uri}");
    }

    #[tokio::test]
    async fn what_somebody_else_owns_is_taken_by_force_only() {
        let (done, asked) = written(true, &[]).await;
        assert!(done.is_err_and(|error| error.contains("Conflict")), "a conflict is no reason to merge");
        assert_eq!(asked.len(), 2);
        let (done, asked) = written(true, &["--force-conflicts", "--field-manager", "me"]).await;
        assert!(done.is_ok());
        assert!(asked[1].1.contains("force=true") && asked[1].1.contains("fieldManager=me"), "{asked:?}");
    }

    #[tokio::test]
    async fn a_dry_run_asks_the_server_or_nobody() {
        let (_, asked) = written(false, &["--dry-run=server"]).await;
        assert!(asked[1].1.contains("dryRun=All"), "{asked:?}");
        let (done, asked) = written(false, &["--dry-run"]).await;
        assert_eq!((done.expect("said").what, asked.len()), ("created", 1), "{asked:?}");
    }
}
