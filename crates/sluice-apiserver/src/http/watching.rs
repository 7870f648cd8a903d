//! The HTTP side of a watch.

use futures::{StreamExt, stream};
use http::{HeaderValue, Response, header};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;

use super::{
    negotiate::{Accepted, Format},
    read::Selection,
    respond::{Answer, BoxError, View},
    service::{Inner, Ready},
};
use crate::{
    status::Status,
    watch::{WatchOptions, Watcher},
};

/// A stream of events as a chunked answer; each burst of lines is one chunk.
pub(super) fn watch(api: &Inner, rq: &mut Ready) -> Result<Answer, Status> {
    let options = WatchOptions::read(&rq.query, api.watch_list)?;
    let selection = Selection::read(rq)?.named(rq.target.name.as_deref());
    // Events are JSON lines, whatever else was acceptable.
    let view = View { accepted: Accepted { format: Format::Json, ..rq.view.accepted }, ..rq.view };
    let watcher =
        Watcher::new(&api.store, rq.target.rt, rq.target.namespace.clone(), selection, view, options);
    let permit = rq.permit.take();
    let lines = stream::unfold((watcher, permit), |(mut watcher, permit)| async move {
        let burst = watcher.next().await?;
        Some((Ok::<_, BoxError>(Frame::data(burst)), (watcher, permit)))
    });
    let shutdown = api.shutdown.clone();
    let lines = lines.take_until(async move { shutdown.cancelled().await });
    let mut response = Response::new(BodyExt::boxed_unsync(StreamBody::new(lines)));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, private"));
    Ok(Answer::Raw(response))
}
