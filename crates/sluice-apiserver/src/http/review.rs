//! Reviews: questions about oneself, answered and not stored (kubernetes-api 7).

use http::StatusCode;
use serde_json::{Value, json};

use super::{
    decode::{self, BodyFormat},
    respond::Answer,
    service::{Inner, Ready},
    write::{set, text},
};
use crate::{auth::Attributes, status::Status, time};

/// POST of a review.
pub(super) fn answer(api: &Inner, rq: &Ready) -> Result<Answer, Status> {
    let rt = rq.target.rt;
    let mut review = decode::decode(BodyFormat::of(rq.content_type.as_deref())?, &rq.body)?.value;
    if !review.is_object() || text(&review, "/kind").is_some_and(|k| k != rt.kind) {
        return Err(Status::bad_request(format!("the body must be a {}", rt.kind)));
    }
    set(&mut review, "apiVersion", json!(rt.api_version()));
    set(&mut review, "kind", json!(rt.kind));
    set(&mut review, "metadata", json!({"creationTimestamp": time::rfc3339(time::now())}));
    let status = match rt.kind {
        "SelfSubjectReview" => {
            json!({"userInfo": {"username": rq.identity.user, "groups": rq.identity.groups}})
        }
        _ => access(api, rq, &review)?,
    };
    set(&mut review, "status", status);
    Ok(Answer::Object { code: StatusCode::CREATED, rt, value: review })
}

fn access(api: &Inner, rq: &Ready, review: &Value) -> Result<Value, Status> {
    if review.pointer("/spec/nonResourceAttributes").is_some_and(|v| !v.is_null()) {
        // Everything outside the resources is discovery, which everybody identified may read.
        let verb = text(review, "/spec/nonResourceAttributes/verb").unwrap_or("");
        return Ok(json!({"allowed": verb == "get" || rq.identity.is_in(crate::auth::MASTERS)}));
    }
    if review.pointer("/spec/resourceAttributes").is_none_or(Value::is_null) {
        return Err(Status::bad_request(
            "exactly one of spec.resourceAttributes and spec.nonResourceAttributes must be given",
        ));
    }
    let field = |name: &str| text(review, &format!("/spec/resourceAttributes/{name}")).unwrap_or("");
    let what = Attributes {
        verb: field("verb"),
        group: field("group"),
        resource: field("resource"),
        subresource: field("subresource"),
        namespace: field("namespace"),
        name: field("name"),
    };
    Ok(match api.may(&rq.identity, &what) {
        Ok(reason) => json!({"allowed": true, "reason": reason}),
        Err(reason) => json!({"allowed": false, "reason": reason}),
    })
}
