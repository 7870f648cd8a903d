//! Which form of an answer the client wants (kubernetes-api 2).

use crate::{status::Status, table::MetaVersion};

/// Media types of answers.
pub(crate) const OFFERED: &[&str] = &["application/json", "application/yaml"];
/// Ranges read from one Accept header; the rest is not looked at.
const MAX_RANGES: usize = 64;

/// Encoding of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Format {
    /// `application/json`.
    Json,
    /// `application/yaml`.
    Yaml,
}

/// What the answer holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shape {
    /// The objects themselves.
    Object,
    /// A Table.
    Table(MetaVersion),
    /// PartialObjectMetadata or its list.
    Partial(MetaVersion),
}

/// An acceptable form.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Accepted {
    /// Encoding.
    pub(crate) format: Format,
    /// Content.
    pub(crate) shape: Shape,
}

impl Accepted {
    /// JSON objects.
    pub(crate) const JSON: Accepted = Accepted { format: Format::Json, shape: Shape::Object };
}

/// The best acceptable range: by q, then by order.
pub(crate) fn negotiate(accept: Option<&str>) -> Result<Accepted, Status> {
    let Some(accept) = accept.filter(|a| !a.trim().is_empty()) else { return Ok(Accepted::JSON) };
    let mut best: Option<(f32, Accepted)> = None;
    for range in accept.split(',').take(MAX_RANGES) {
        let Some((q, form)) = read_range(range) else { continue };
        if q > 0.0 && best.is_none_or(|(b, _)| q > b) {
            best = Some((q, form));
        }
    }
    best.map(|(_, form)| form).ok_or_else(|| Status::not_acceptable(OFFERED))
}

fn read_range(range: &str) -> Option<(f32, Accepted)> {
    let mut parts = range.split(';').map(str::trim);
    let format = match parts.next()?.to_ascii_lowercase().as_str() {
        "application/json" | "*/*" | "application/*" => Format::Json,
        "application/yaml" => Format::Yaml,
        _ => return None,
    };
    let (mut q, mut kind, mut group, mut version) = (1.0, "", "", "");
    for part in parts {
        let (key, value) = part.split_once('=').unwrap_or((part, ""));
        match key {
            "q" => q = value.parse().ok()?,
            "as" => kind = value,
            "g" => group = value,
            "v" => version = value,
            _ => {}
        }
    }
    let shape = if kind.is_empty() {
        Shape::Object
    } else {
        let version = match version {
            "v1" => MetaVersion::V1,
            "v1beta1" => MetaVersion::V1Beta1,
            _ => return None,
        };
        match (kind, group) {
            ("Table", "meta.k8s.io") => Shape::Table(version),
            ("PartialObjectMetadata" | "PartialObjectMetadataList", "meta.k8s.io") => Shape::Partial(version),
            _ => return None,
        }
    };
    Some((q, Accepted { format, shape }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectl_and_client_go_headers() {
        let n = |a: &str| negotiate(Some(a)).unwrap();
        assert_eq!(
            n("application/json;as=Table;v=v1;g=meta.k8s.io,application/json;as=Table;v=v1beta1;g=meta.k8s.io,application/json").shape,
            Shape::Table(MetaVersion::V1)
        );
        assert_eq!(n("application/vnd.kubernetes.protobuf,application/json"), Accepted::JSON);
        assert_eq!(
            n("application/vnd.kubernetes.protobuf;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json").shape,
            Shape::Partial(MetaVersion::V1)
        );
        assert_eq!(n("application/json;q=0.1, application/yaml").format, Format::Yaml);
        assert_eq!(n("*/*"), Accepted::JSON);
        assert_eq!(negotiate(None).unwrap(), Accepted::JSON);
        assert_eq!(negotiate(Some("text/html")).unwrap_err().code.as_u16(), 406);
        assert!(negotiate(Some("application/json;q=0")).is_err());
    }
}
