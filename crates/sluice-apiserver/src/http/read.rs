//! Get and list (kubernetes-api 5).

use std::{sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{
    respond::Answer,
    service::{Inner, Ready},
    write::store_status,
};
use crate::{
    selector::{FieldSelector, LabelSelector},
    status::{Cause, Status},
    store::{self, Key, Object, StoreError},
};

/// Longest wait for a revision that does not exist yet.
const FUTURE: Duration = Duration::from_secs(3);

/// What of a collection is asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selection {
    /// By labels.
    pub(crate) labels: LabelSelector,
    /// By fields.
    pub(crate) fields: FieldSelector,
}

impl Selection {
    /// Reads `labelSelector` and `fieldSelector`; a name in the URL is a field selector too.
    pub(crate) fn read(rq: &Ready) -> Result<Selection, Status> {
        let fields = rq.query.get("fieldSelector").unwrap_or("");
        Ok(Selection {
            labels: LabelSelector::parse(rq.query.get("labelSelector").unwrap_or(""))?,
            fields: FieldSelector::parse(fields, rq.target.rt)?,
        })
    }

    /// Whether an object is selected.
    pub(crate) fn matches(&self, object: &Object) -> bool {
        self.labels.matches(&object.labels) && self.fields.matches(object)
    }

    /// The same, but only of the object with this name (a watch on an object's URL).
    pub(crate) fn named(mut self, name: Option<&str>) -> Selection {
        if let Some(name) = name {
            self.fields.pin_name(name);
        }
        self
    }

    fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }
}

/// GET of an object, or of a subresource that shows it.
pub(super) async fn get(api: &Inner, rq: &Ready) -> Result<Answer, Status> {
    let rt = rq.target.rt;
    let at = rq.query.get("resourceVersion").map_or(Ok(None), |v| parse_revision(v).map(Some))?;
    if let Some(at) = at {
        wait_for(api, at).await?;
    }
    let key = Key::new(rt, rq.target.ns(), rq.target.name());
    let object = api.store.get(&key).ok_or_else(|| Status::not_found(rt, rq.target.name()))?;
    Ok(Answer::Stored { rt, object })
}

/// Every selected object now.
pub(super) fn snapshot(
    api: &Inner,
    rq: &Ready,
    selection: &Selection,
) -> Result<(Vec<Arc<Object>>, u64), Status> {
    let resource = store::resource_id(rq.target.rt);
    let (mut objects, revision) = api
        .store
        .list(&resource, rq.target.namespace.as_deref(), None, None)
        .map_err(|e| store_status(&e))?;
    objects.retain(|o| selection.matches(o));
    Ok((objects, revision))
}

/// GET of a collection.
pub(super) async fn list(api: &Inner, rq: &Ready) -> Result<Answer, Status> {
    let rt = rq.target.rt;
    let selection = Selection::read(rq)?;
    let limit = rq.query.number::<usize>("limit")?.filter(|l| *l > 0);
    let place = place(rq);
    let (at, after) = match rq.query.get("continue") {
        Some(token) => {
            check_continue(rq)?;
            let (revision, ns, name) = read_token(token, &place)?;
            (Some(revision), Some((ns, name)))
        }
        None => (start_revision(api, rq).await?, None),
    };
    let resource = store::resource_id(rt);
    let namespace = rq.target.namespace.as_deref();
    let from = after.as_ref().map(|(ns, name)| (ns.as_str(), name.as_str()));
    let (mut objects, revision) = match api.store.list(&resource, namespace, at.filter(|a| *a > 0), from) {
        Ok(found) => found,
        Err(StoreError::Gone { .. }) => return Err(expired(api, &place, from)),
        Err(e) => return Err(store_status(&e)),
    };
    objects.retain(|o| selection.matches(o));
    let mut metadata = json!({"resourceVersion": revision.to_string()});
    if let Some(limit) = limit
        && objects.len() > limit
    {
        let rest = objects.len() - limit;
        objects.truncate(limit);
        if let Some(last) = objects.last() {
            metadata["continue"] = json!(write_token(revision, &place, &last.key.namespace, &last.key.name));
        }
        if selection.is_everything() {
            metadata["remainingItemCount"] = json!(rest);
        }
    }
    Ok(Answer::List { rt, metadata, objects })
}

/// The snapshot that `resourceVersion` and `resourceVersionMatch` ask for; `None` is the newest.
async fn start_revision(api: &Inner, rq: &Ready) -> Result<Option<u64>, Status> {
    let version = rq.query.get("resourceVersion");
    let how = rq.query.get("resourceVersionMatch");
    if rq.query.get("sendInitialEvents").is_some() {
        return Err(options_error("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    if how.is_some() && version.is_none() {
        return Err(options_error(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden unless resourceVersion is provided",
        ));
    }
    if how.is_some_and(|h| h != "Exact" && h != "NotOlderThan") {
        return Err(options_error("resourceVersionMatch", "supported values: \"Exact\", \"NotOlderThan\""));
    }
    let Some(version) = version else { return Ok(None) };
    let revision = parse_revision(version)?;
    if how == Some("Exact") && revision == 0 {
        return Err(options_error(
            "resourceVersionMatch",
            "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"",
        ));
    }
    wait_for(api, revision).await?;
    Ok((how == Some("Exact")).then_some(revision))
}

fn check_continue(rq: &Ready) -> Result<(), Status> {
    if rq.query.get("resourceVersionMatch").is_some() {
        return Err(options_error(
            "resourceVersionMatch",
            "resourceVersionMatch is forbidden when continue is provided",
        ));
    }
    if rq.query.get("resourceVersion").is_some_and(|v| v != "0") {
        return Err(Status::bad_request("specifying resource version is not allowed when using continue"));
    }
    Ok(())
}

/// 422 about list or watch options.
pub(crate) fn options_error(field: &str, why: &str) -> Status {
    let cause = Cause {
        reason: "FieldValueForbidden".into(),
        message: format!("Forbidden: {why}"),
        field: field.into(),
    };
    Status::invalid("meta.k8s.io", "ListOptions", "", vec![cause])
}

/// A resourceVersion of a query.
pub(crate) fn parse_revision(text: &str) -> Result<u64, Status> {
    text.parse().map_err(|_| {
        let cause = Cause {
            reason: "FieldValueInvalid".into(),
            message: format!("Invalid value: \"{text}\": must be a non-negative decimal number"),
            field: "resourceVersion".into(),
        };
        Status::invalid("meta.k8s.io", "ListOptions", "", vec![cause])
    })
}

/// Waits until a revision is visible, for at most three seconds.
async fn wait_for(api: &Inner, revision: u64) -> Result<(), Status> {
    let mut revisions = api.store.subscribe();
    let reached = tokio::time::timeout(FUTURE, revisions.wait_for(|r| *r >= revision)).await;
    if matches!(reached, Ok(Ok(_))) {
        return Ok(());
    }
    let message = format!("Too large resource version: {revision}, current: {}", api.store.revision());
    let mut status =
        Status::timeout(message.clone()).cause("ResourceVersionTooLarge", "Too large resource version", "");
    if let Some(d) = &mut status.details {
        d.retry_after = 1;
    }
    Err(status)
}

/// What a continue token is bound to.
fn place(rq: &Ready) -> String {
    format!("{}|{}", store::resource_id(rq.target.rt), rq.target.ns())
}

fn write_token(revision: u64, place: &str, namespace: &str, name: &str) -> String {
    let token = json!({"v": 1, "rv": revision, "place": place, "ns": namespace, "name": name});
    URL_SAFE_NO_PAD.encode(token.to_string())
}

fn read_token(token: &str, place: &str) -> Result<(u64, String, String), Status> {
    let bad = || Status::bad_request("continue key is not valid");
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| bad())?;
    let value: Value = serde_json::from_slice(&bytes).map_err(|_| bad())?;
    let text = |field: &str| value.get(field).and_then(Value::as_str).map(String::from).ok_or_else(bad);
    if value.get("v") != Some(&json!(1)) || text("place")? != place {
        return Err(bad());
    }
    // Revision 0 stands for "from the current state", after an expired token.
    let revision = value.get("rv").and_then(Value::as_u64).ok_or_else(bad)?;
    Ok((revision, text("ns")?, text("name")?))
}

/// 410; with a token that resumes behind the same object at the current state, if there was one.
fn expired(api: &Inner, place: &str, from: Option<(&str, &str)>) -> Status {
    let Some((ns, name)) = from else {
        return Status::expired(format!(
            "The resourceVersion for the provided list is too old (current: {})",
            api.store.revision()
        ));
    };
    let mut status = Status::expired(
        "The provided continue parameter is too old to display a consistent list result. You can start a new list \
         without the continue parameter, or use the continue token in this response to retrieve the remainder of \
         the results. Continuing with the provided token results in an inconsistent list - objects that were \
         created, modified, or deleted between the time the first chunk was returned and now may show up in the list.",
    );
    status.continue_token = Some(write_token(0, place, ns, name));
    status
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_bound_to_their_place() {
        let token = write_token(7, "/pods|ns", "ns", "a");
        assert_eq!(read_token(&token, "/pods|ns").unwrap(), (7, "ns".into(), "a".into()));
        assert!(read_token(&token, "/pods|other").is_err());
        for bad in ["", "x", "e30", &format!("{token}x")] {
            assert!(read_token(bad, "/pods|ns").is_err(), "{bad}");
        }
    }
}
