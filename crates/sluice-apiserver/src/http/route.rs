//! Paths to what they name.

use http::Method;
use percent_encoding::percent_decode_str;

use crate::{
    admission::names::path_segment,
    resource::{self, ResourceType},
    status::Status,
};

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Route {
    /// `/version`, `/healthz`, …, discovery and OpenAPI: everything that is not a resource.
    NonResource(String),
    /// A resource, an object or a subresource.
    Resource(Target),
}

/// A resource, an object in it, or a subresource of that.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Target {
    /// The resource.
    pub(crate) rt: &'static ResourceType,
    /// The namespace in the path; `None` for cluster-wide kinds and for lists over all namespaces.
    pub(crate) namespace: Option<String>,
    /// The object.
    pub(crate) name: Option<String>,
    /// The subresource.
    pub(crate) subresource: Option<&'static str>,
}

impl Target {
    /// The namespace, empty if none.
    pub(crate) fn ns(&self) -> &str {
        self.namespace.as_deref().unwrap_or("")
    }

    /// The name, empty if none.
    pub(crate) fn name(&self) -> &str {
        self.name.as_deref().unwrap_or("")
    }

    /// The verb that authorization judges.
    pub(crate) fn verb(&self, method: &Method, watch: bool) -> Result<&'static str, Status> {
        Ok(match *method {
            // Upgrades arrive as GET or POST and both mean the same (kubernetes-api 9).
            Method::GET if matches!(self.subresource, Some("exec" | "attach" | "portforward")) => "create",
            Method::GET | Method::HEAD if watch && self.subresource.is_none() => "watch",
            Method::GET | Method::HEAD if self.name.is_none() => "list",
            Method::GET | Method::HEAD => "get",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if self.name.is_none() => "deletecollection",
            Method::DELETE => "delete",
            _ => return Err(Status::method_not_allowed()),
        })
    }
}

/// Resolves a path; every segment is percent-decoded once.
pub(crate) fn route(path: &str) -> Result<Route, Status> {
    let mut segments = Vec::new();
    for raw in path.trim_start_matches('/').split('/') {
        let segment = percent_decode_str(raw)
            .decode_utf8()
            .map_err(|_| Status::bad_request("the path is not UTF-8"))?
            .into_owned();
        segments.push(segment);
    }
    if segments.last().is_some_and(String::is_empty) {
        segments.pop();
    }
    let parts: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (group, version, rest) = match parts.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
        _ => return Ok(Route::NonResource(format!("/{}", parts.join("/")))),
    };
    if rest.iter().any(|s| !path_segment(s)) {
        return Err(Status::bad_request("invalid path segment"));
    }
    resource_route(group, version, rest).map(Route::Resource)
}

fn resource_route(group: &str, version: &str, rest: &[&str]) -> Result<Target, Status> {
    let find = |plural: &str| resource::find(group, version, plural);
    // `/namespaces/x/pods` is inside a namespace; `/namespaces/x/status` is about it.
    let (rt, namespace, rest) = match rest {
        ["namespaces", ns, plural, rest @ ..]
            if !(group.is_empty() && matches!(*plural, "status" | "finalize") && rest.is_empty()) =>
        {
            let rt = find(plural).filter(|rt| rt.namespaced).ok_or_else(Status::no_resource)?;
            (rt, Some((*ns).to_string()), rest)
        }
        [plural, rest @ ..] => (find(plural).ok_or_else(Status::no_resource)?, None, rest),
        [] => return Err(Status::no_resource()),
    };
    let (name, subresource) = match rest {
        [] => (None, None),
        [name] => (Some((*name).to_string()), None),
        [name, sub] => {
            let sub = rt.subresource(sub).ok_or_else(Status::no_resource)?;
            (Some((*name).to_string()), Some(sub.name))
        }
        _ => return Err(Status::no_resource()),
    };
    if rt.namespaced && namespace.is_none() && name.is_some() {
        return Err(Status::no_resource());
    }
    Ok(Target { rt, namespace, name, subresource })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(path: &str) -> Target {
        match route(path).unwrap() {
            Route::Resource(t) => t,
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn paths() {
        let t = target("/api/v1/namespaces/ns/pods/p/log");
        assert_eq!((t.rt.plural, t.ns(), t.name(), t.subresource), ("pods", "ns", "p", Some("log")));
        let t = target("/api/v1/namespaces/ns/status");
        assert_eq!((t.rt.plural, t.name(), t.subresource), ("namespaces", "ns", Some("status")));
        let t = target("/apis/projectcalico.org/v3/globalnetworkpolicies/deny-all");
        assert_eq!((t.rt.kind, t.ns(), t.name()), ("GlobalNetworkPolicy", "", "deny-all"));
        let t = target("/apis/networking.k8s.io/v1/networkpolicies");
        assert_eq!((t.namespace.clone(), t.name.clone()), (None, None));
        assert_eq!(t.verb(&Method::GET, true).unwrap(), "watch");
        assert_eq!(target("/api/v1/namespaces/%64efault/pods").ns(), "default");
        assert_eq!(route("/apis/apps/v1").unwrap(), Route::NonResource("/apis/apps/v1".into()));
        for missing in [
            "/apis/apps/v1/deployments",
            "/api/v1/pods/p",
            "/api/v1/namespaces/ns/nodes",
            "/api/v1/namespaces/ns/pods/p/eviction",
            "/api/v1/nodes/n/status/x",
        ] {
            assert_eq!(route(missing).unwrap_err().code.as_u16(), 404, "{missing}");
        }
        for bad in [
            "/api/v1/namespaces/%2e%2e/pods",
            "/api/v1/nodes/a%2fb",
            "/api/v1/nodes/a%00",
            "/api/v1/nodes/%25",
        ] {
            assert_eq!(route(bad).unwrap_err().code.as_u16(), 400, "{bad}");
        }
    }
}
