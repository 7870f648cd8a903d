//! Everything that is not a resource: version, health, metrics, discovery, OpenAPI (kubernetes-api 1).

use http::{HeaderValue, Method, Response, StatusCode, header};
use serde_json::json;

use super::{
    query::Query,
    respond::{Body, json_response, respond, serialise},
    service::Inner,
};
use crate::{
    discovery::{self, Form, Root},
    openapi::Lookup,
    status::Status,
};

/// What `/version` reports.
pub(crate) const GIT_VERSION: &str = "v1.33.0+sluice";

/// Whether a path is served without an identity (kubernetes-api 11).
pub(super) fn is_public(path: &str) -> bool {
    matches!(path, "/version" | "/healthz" | "/livez" | "/readyz")
}

/// The answer to a path outside the resources.
pub(super) fn answer(
    api: &Inner,
    method: &Method,
    path: &str,
    query: &Query,
    accept: &str,
) -> Result<Response<Body>, Status> {
    if !matches!(*method, Method::GET | Method::HEAD) {
        return Err(Status::method_not_allowed());
    }
    let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
    match parts.as_slice() {
        ["version"] => Ok(version()),
        ["healthz" | "livez"] => Ok(health(query, "", None)),
        ["readyz"] => Ok(health(query, "store", api.store.trouble())),
        ["metrics"] => Ok(metrics(api)),
        ["api"] => Ok(roots(api, Root::Api, accept)),
        ["apis"] => Ok(roots(api, Root::Apis, accept)),
        ["api", version] => group_version("", version),
        ["apis", group] => discovery::group(group)
            .map(|v| json_response(StatusCode::OK, serialise(&v)))
            .ok_or_else(Status::no_resource),
        ["apis", group, version] => group_version(group, version),
        ["openapi", "v3"] => Ok(json_response(StatusCode::OK, serialise(&api.openapi.index()))),
        ["openapi", "v3", rest @ ..] => openapi(api, &rest.join("/"), query.get("hash")),
        _ => Err(Status::no_resource()),
    }
}

fn version() -> Response<Body> {
    let value = json!({
        "major": "1",
        "minor": "33",
        "gitVersion": GIT_VERSION,
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "rustc",
        "platform": format!("{}/{}", std::env::consts::OS, std::env::consts::ARCH),
    });
    json_response(StatusCode::OK, serialise(&value))
}

fn health(query: &Query, check: &str, trouble: Option<String>) -> Response<Body> {
    let verbose = query.flag("verbose").unwrap_or(true);
    match trouble {
        Some(why) => respond(
            StatusCode::INTERNAL_SERVER_ERROR,
            "text/plain; charset=utf-8",
            format!("[-]{check} failed: {why}\nreadyz check failed\n"),
        ),
        None if verbose && !check.is_empty() => {
            respond(StatusCode::OK, "text/plain; charset=utf-8", format!("[+]{check} ok\nok"))
        }
        None => respond(StatusCode::OK, "text/plain; charset=utf-8", "ok"),
    }
}

fn metrics(api: &Inner) -> Response<Body> {
    let text = format!(
        "# HELP sluice_store_revision Revision of the last visible write.\n\
         # TYPE sluice_store_revision gauge\n\
         sluice_store_revision {}\n",
        api.store.revision()
    );
    respond(StatusCode::OK, "text/plain; version=0.0.4", text)
}

fn roots(api: &Inner, root: Root, accept: &str) -> Response<Body> {
    let form = Form::negotiate(accept);
    let body = serialise(&discovery::root(root, form, &api.server_address));
    let etag = discovery::etag(&body);
    let mut response = respond(StatusCode::OK, form.content_type(), body);
    response.headers_mut().insert(header::VARY, HeaderValue::from_static("Accept"));
    if let Ok(etag) = HeaderValue::from_str(&etag) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    response
}

fn group_version(group: &str, version: &str) -> Result<Response<Body>, Status> {
    discovery::resources(group, version)
        .map(|v| json_response(StatusCode::OK, serialise(&v)))
        .ok_or_else(Status::no_resource)
}

fn openapi(api: &Inner, path: &str, hash: Option<&str>) -> Result<Response<Body>, Status> {
    let (document, cache) = match api.openapi.lookup(path, hash) {
        Lookup::Immutable(document) => (document, "public, immutable"),
        Lookup::Current(document) => (document, "no-cache, private"),
        Lookup::Moved(url) => {
            let mut response = respond(StatusCode::MOVED_PERMANENTLY, "text/plain", "");
            if let Ok(url) = HeaderValue::from_str(&url) {
                response.headers_mut().insert(header::LOCATION, url);
            }
            return Ok(response);
        }
        Lookup::Missing => return Err(Status::no_resource()),
    };
    let mut response = json_response(StatusCode::OK, document.body.clone());
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    if let Ok(etag) = HeaderValue::from_str(&format!("\"{}\"", document.hash)) {
        response.headers_mut().insert(header::ETAG, etag);
    }
    Ok(response)
}
