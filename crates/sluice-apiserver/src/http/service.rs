//! [`Api`]: one request from the wire or from this process to one answer.

use std::{
    convert::Infallible,
    future::Future,
    panic::AssertUnwindSafe,
    pin::Pin,
    sync::{Arc, RwLock},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::FutureExt;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::upgrade::OnUpgrade;
use serde_json::Value;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{
    delete,
    negotiate::{Format, negotiate},
    pods,
    query::Query,
    read,
    respond::{Answer, Body, BoxError, View, render, status_response},
    review,
    route::{Route, Target, route},
    special, watching, write,
};
use crate::{
    admission::{Admission, service::ServiceRanges},
    auth::{self, Attributes, Identity},
    openapi::OpenApi,
    resource,
    runtime::PodRuntime,
    status::Status,
    store::{Key, Store},
    table::IncludeObject,
};

/// Limits of kubernetes-api 12.
const MAX_BODY: usize = 3 * 1024 * 1024;
const MAX_URL: usize = 16 * 1024;
const READS: usize = 400;
const WRITES: usize = 200;
const WATCHES: usize = 10_000;
const STREAMS: usize = 500;
const REQUEST_TIME: Duration = Duration::from_secs(60);

/// What an [`Api`] is made of.
pub struct ApiConfig {
    /// Where objects are.
    pub store: Store,
    /// Defaults and validation.
    pub admission: Arc<dyn Admission>,
    /// What runs behind pods.
    pub runtime: Arc<dyn PodRuntime>,
    /// Service address ranges.
    pub ranges: ServiceRanges,
    /// Whether WatchList is offered; off to test clients' fallback.
    pub watch_list: bool,
    /// `host:port` as clients reach the server.
    pub server_address: String,
    /// Ends every watch and stream.
    pub shutdown: CancellationToken,
}

/// The API as a cloneable service: in-process callers and the listener use the same one.
#[derive(Clone)]
pub struct Api {
    inner: Arc<Inner>,
    /// Who calls, if the request does not say.
    identity: Option<Identity>,
}

/// What all requests share.
pub(crate) struct Inner {
    pub(crate) store: Store,
    pub(crate) admission: Arc<dyn Admission>,
    runtime: RwLock<Arc<dyn PodRuntime>>,
    pub(crate) ranges: ServiceRanges,
    pub(crate) openapi: OpenApi,
    pub(crate) server_address: String,
    pub(crate) shutdown: CancellationToken,
    pub(crate) watch_list: bool,
    reads: Arc<Semaphore>,
    writes: Arc<Semaphore>,
    watches: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl Inner {
    /// What runs behind pods.
    pub(crate) fn runtime(&self) -> Arc<dyn PodRuntime> {
        self.runtime.read().unwrap_or_else(std::sync::PoisonError::into_inner).clone()
    }

    fn node_of_pod(&self, namespace: &str, name: &str) -> Option<String> {
        let pods = resource::find("", "v1", "pods")?;
        let pod = self.store.get(&Key::new(pods, namespace, name))?;
        pod.fields.iter().find(|(f, _)| *f == "spec.nodeName").map(|(_, v)| v.clone())
    }
}

/// A request that was routed, identified, authorized and read.
pub(crate) struct Ready {
    pub(crate) target: Target,
    pub(crate) method: Method,
    pub(crate) query: Query,
    pub(crate) headers: HeaderMap,
    pub(crate) content_type: Option<String>,
    pub(crate) body: Bytes,
    pub(crate) identity: Identity,
    pub(crate) view: View,
    pub(crate) warnings: Vec<String>,
    pub(crate) upgrade: Option<OnUpgrade>,
    /// Held by streams that outlive the answer.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

impl Api {
    /// An API without a listener; requests need an identity (see [`Api::with_identity`]).
    pub fn new(config: ApiConfig) -> Api {
        let ApiConfig { store, admission, runtime, ranges, watch_list, server_address, shutdown } = config;
        let inner = Inner {
            store,
            admission,
            runtime: RwLock::new(runtime),
            ranges,
            openapi: OpenApi::new(),
            server_address,
            shutdown,
            watch_list,
            reads: Arc::new(Semaphore::new(READS)),
            writes: Arc::new(Semaphore::new(WRITES)),
            watches: Arc::new(Semaphore::new(WATCHES)),
            streams: Arc::new(Semaphore::new(STREAMS)),
        };
        Api { inner: Arc::new(inner), identity: None }
    }

    /// The same API, called by this identity. This is how in-process callers, such as a `kube::Client` over
    /// this service, get in.
    #[must_use]
    pub fn with_identity(&self, identity: Identity) -> Api {
        Api { inner: self.inner.clone(), identity: Some(identity) }
    }

    /// Replaces what runs behind pods.
    pub fn set_runtime(&self, runtime: Arc<dyn PodRuntime>) {
        *self.inner.runtime.write().unwrap_or_else(std::sync::PoisonError::into_inner) = runtime;
    }

    /// The store behind this API.
    pub fn store(&self) -> &Store {
        &self.inner.store
    }

    /// A request from this process, with JSON in and out; a failure is the API's Status.
    pub async fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, Status> {
        let media = if method == "PATCH" { "application/merge-patch+json" } else { "application/json" };
        let bytes = body.map(super::respond::serialise).unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::CONTENT_TYPE, media)
            .body(Full::new(bytes))
            .map_err(|e| Status::bad_request(e.to_string()))?;
        let response = self.respond(request).await;
        let code = response.status();
        let bytes =
            response.into_body().collect().await.map_err(|e| Status::internal(e.to_string()))?.to_bytes();
        let value: Value = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
        if code.is_success() { Ok(value) } else { Err(Status::from_value(code, &value)) }
    }

    /// Answers one request; every error and every panic becomes a Status.
    pub async fn respond<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: hyper::body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let identity = request.extensions().get::<Identity>().cloned().or_else(|| self.identity.clone());
        let accept = negotiated_header(request.headers());
        let format = negotiate(accept.as_deref()).map_or(Format::Json, |a| a.format);
        let head = request.method() == Method::HEAD;
        let work = AssertUnwindSafe(self.handle(request, identity)).catch_unwind();
        let mut response = match tokio::time::timeout(REQUEST_TIME, work).await {
            Ok(Ok(Ok(response))) => response,
            Ok(Ok(Err(status))) => status_response(&status, format),
            Ok(Err(_panic)) => {
                tracing::error!("a request panicked");
                status_response(&Status::internal("this request could not be handled"), format)
            }
            Err(_elapsed) => status_response(
                &Status::timeout("the server was unable to return a response in the time allotted"),
                format,
            ),
        };
        if head {
            *response.body_mut() = super::respond::full(Bytes::new());
        }
        response
    }

    async fn handle<B>(
        &self,
        request: Request<B>,
        identity: Option<Identity>,
    ) -> Result<Response<Body>, Status>
    where
        B: hyper::body::Body<Data = Bytes> + Send,
        B::Error: Into<BoxError>,
    {
        let inner = &*self.inner;
        if request.uri().path_and_query().map_or(0, |p| p.as_str().len()) > MAX_URL {
            return Err(Status::error(StatusCode::URI_TOO_LONG, "RequestURITooLong", "the URL is too long"));
        }
        let query = Query::parse(request.uri().query())?;
        let accept = negotiated_header(request.headers());
        let target = match route(request.uri().path())? {
            Route::NonResource(path) => {
                if identity.is_none() && !special::is_public(&path) {
                    return Err(Status::unauthorized());
                }
                return special::answer(
                    inner,
                    request.method(),
                    &path,
                    &query,
                    accept.as_deref().unwrap_or(""),
                );
            }
            Route::Resource(target) => target,
        };
        let identity = impersonated(request.headers(), identity.ok_or_else(Status::unauthorized)?)?;
        let watch = query.flag("watch")?;
        let verb = target.verb(request.method(), watch)?;
        check_served(&target, verb)?;
        let permit = inner.admit(&target, verb)?;
        // Errors before this point are JSON; a log is text whatever is accepted.
        let accepted = match target.subresource {
            Some("log" | "exec" | "attach" | "portforward") => super::negotiate::Accepted::JSON,
            _ => negotiate(accept.as_deref())?,
        };
        let include = IncludeObject::parse(query.get("includeObject").unwrap_or(""))
            .ok_or_else(|| Status::bad_request("includeObject must be None, Metadata or Object"))?;
        let view = View { accepted, include };
        let (mut parts, body) = request.into_parts();
        let mut ready = Ready {
            target,
            method: parts.method,
            query,
            content_type: header_text(&parts.headers, header::CONTENT_TYPE).map(String::from),
            headers: parts.headers,
            body: Bytes::new(),
            identity,
            view,
            warnings: Vec::new(),
            upgrade: parts.extensions.remove::<OnUpgrade>(),
            permit: Some(permit),
        };
        authorize_target(inner, &ready, verb)?;
        if matches!(ready.method, Method::POST | Method::PUT | Method::PATCH | Method::DELETE) {
            ready.body = read_body(body).await?;
        }
        let answer = inner.dispatch(&mut ready, verb).await?;
        let mut response = render(answer, view);
        add_warnings(&mut response, &ready.warnings);
        Ok(response)
    }
}

impl Inner {
    /// One of the places for requests in flight (kubernetes-api 12).
    fn admit(&self, target: &Target, verb: &str) -> Result<OwnedSemaphorePermit, Status> {
        let places = match (target.subresource, verb) {
            (Some("log" | "exec" | "attach" | "portforward"), _) => &self.streams,
            (_, "watch") => &self.watches,
            (_, "get" | "list") => &self.reads,
            _ => &self.writes,
        };
        places.clone().try_acquire_owned().map_err(|_| Status::too_many_requests())
    }

    async fn dispatch(&self, rq: &mut Ready, verb: &str) -> Result<Answer, Status> {
        match rq.target.subresource {
            Some("log") => return pods::log(self, rq).await,
            Some("exec") => return pods::exec(self, rq).await,
            Some("attach") => return pods::attach(self, rq).await,
            Some("portforward") => return pods::port_forward(self, rq).await,
            Some("binding") => return pods::bind(self, rq).await,
            _ => {}
        }
        if !rq.target.rt.stored() {
            return review::answer(self, rq);
        }
        match verb {
            "get" => read::get(self, rq).await,
            "list" => read::list(self, rq).await,
            "watch" => watching::watch(self, rq),
            "create" => write::create(self, rq).await,
            "update" => write::update(self, rq).await,
            "patch" => write::patch(self, rq).await,
            "delete" => delete::delete(self, rq).await,
            "deletecollection" => delete::delete_collection(self, rq).await,
            _ => Err(Status::method_not_allowed()),
        }
    }
}

/// Whether the registry offers this verb here.
fn check_served(target: &Target, verb: &str) -> Result<(), Status> {
    let served = match target.subresource {
        Some(name) => target.rt.subresource(name).is_some_and(|s| s.verbs.contains(&verb)),
        // An object is not created at its own URL, nor a collection updated.
        None => match verb {
            "create" => target.rt.allows(verb) && target.name.is_none(),
            "update" | "patch" => target.rt.allows(verb) && target.name.is_some(),
            _ => target.rt.allows(verb),
        },
    };
    if served { Ok(()) } else { Err(Status::method_not_allowed()) }
}

/// Judges the request as it was routed.
pub(crate) fn authorize_target(api: &Inner, rq: &Ready, verb: &str) -> Result<(), Status> {
    authorize_name(api, rq, verb, rq.target.name())
}

/// Judges a request on an object whose name came with the body.
pub(crate) fn authorize_name(api: &Inner, rq: &Ready, verb: &str, name: &str) -> Result<(), Status> {
    let target = &rq.target;
    let what = Attributes {
        verb,
        group: target.rt.group,
        resource: target.rt.plural,
        subresource: target.subresource.unwrap_or(""),
        namespace: target.ns(),
        name,
    };
    auth::authorize(&rq.identity, &what, |ns, pod| api.node_of_pod(ns, pod))
        .map(|_| ())
        .map_err(|why| Status::forbidden(target.rt, name, why))
}

impl Inner {
    /// The answer of a SelfSubjectAccessReview.
    pub(crate) fn may(&self, who: &Identity, what: &Attributes<'_>) -> Result<&'static str, String> {
        auth::authorize(who, what, |ns, pod| self.node_of_pod(ns, pod))
    }
}

/// `Impersonate-*` headers, from `system:masters` only (kubernetes-api 11).
fn impersonated(headers: &HeaderMap, identity: Identity) -> Result<Identity, Status> {
    let Some(user) = header_text(headers, "impersonate-user") else {
        if headers.keys().any(|k| k.as_str().starts_with("impersonate-")) {
            return Err(Status::bad_request("Impersonate-User is missing"));
        }
        return Ok(identity);
    };
    if !identity.is_in(auth::MASTERS) {
        let users = "users is forbidden";
        return Err(Status::error(
            StatusCode::FORBIDDEN,
            "Forbidden",
            format!(
                "{users}: User \"{}\" cannot impersonate resource \"users\" in API group \"\" at the cluster scope",
                identity.user
            ),
        ));
    }
    let groups: Vec<&str> =
        headers.get_all("impersonate-group").iter().filter_map(|v| v.to_str().ok()).collect();
    Ok(Identity::new(user, &groups))
}

fn header_text(headers: &HeaderMap, name: impl header::AsHeaderName) -> Option<&str> {
    headers.get(name).and_then(|v| v.to_str().ok())
}

/// All Accept headers together.
fn negotiated_header(headers: &HeaderMap) -> Option<String> {
    let all: Vec<&str> = headers.get_all(header::ACCEPT).iter().filter_map(|v| v.to_str().ok()).collect();
    (!all.is_empty()).then(|| all.join(","))
}

async fn read_body<B>(body: B) -> Result<Bytes, Status>
where
    B: hyper::body::Body<Data = Bytes> + Send,
    B::Error: Into<BoxError>,
{
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(e) if e.is::<http_body_util::LengthLimitError>() => {
            Err(Status::too_large(format!("Request entity too large: limit is {MAX_BODY}")))
        }
        Err(_) => Err(Status::bad_request("the body could not be read")),
    }
}

/// Warnings as headers; upstream cuts at 256 characters each and 4 KiB together.
fn add_warnings(response: &mut Response<Body>, warnings: &[String]) {
    let mut total = 0;
    let mut seen = Vec::new();
    for warning in warnings {
        if seen.contains(&warning) {
            continue;
        }
        seen.push(warning);
        let text: String = warning
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect::<String>()
            .replace('\\', "\\\\")
            .replace('"', "\\\"");
        let value = format!("299 - \"{text}\"");
        total += value.len();
        if total > 4_096 {
            return;
        }
        if let Ok(value) = HeaderValue::from_bytes(value.as_bytes()) {
            response.headers_mut().append(header::WARNING, value);
        }
    }
}

impl<B> tower::Service<Request<B>> for Api
where
    B: hyper::body::Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let api = self.clone();
        Box::pin(async move { Ok(api.respond(request).await) })
    }
}
