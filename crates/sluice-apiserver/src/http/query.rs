//! Query parameters (kubernetes-api 4 to 6, limits of 12).

use std::borrow::Cow;

use percent_encoding::percent_decode_str;

use crate::status::Status;

const MAX_PARAMETERS: usize = 1_000;

/// The decoded query of a request, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    /// Decodes `a=b&c=d`.
    pub(crate) fn parse(text: Option<&str>) -> Result<Query, Status> {
        let mut out = Vec::new();
        for pair in text.unwrap_or("").split('&').filter(|p| !p.is_empty()) {
            if out.len() == MAX_PARAMETERS {
                return Err(Status::bad_request(format!("more than {MAX_PARAMETERS} query parameters")));
            }
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            out.push((component(key)?, component(value)?));
        }
        Ok(Query(out))
    }

    /// The first value of a parameter, if it is not empty.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// All values of a repeated parameter.
    pub(crate) fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(k, _)| k == name).map(|(_, v)| v.as_str())
    }

    /// A boolean parameter; absent is false, and present without value is true, as upstream reads it.
    pub(crate) fn flag(&self, name: &str) -> Result<bool, Status> {
        match self.0.iter().find(|(k, _)| k == name).map(|(_, v)| v.as_str()) {
            None | Some("false" | "0") => Ok(false),
            Some("" | "true" | "1") => Ok(true),
            Some(other) => {
                Err(Status::bad_request(format!("parameter {name}: \"{other}\" is not a boolean")))
            }
        }
    }

    /// A number parameter.
    pub(crate) fn number<T: std::str::FromStr>(&self, name: &str) -> Result<Option<T>, Status> {
        self.get(name)
            .map(|v| {
                v.parse().map_err(|_| {
                    Status::bad_request(format!("parameter {name}: \"{v}\" is not a number in range"))
                })
            })
            .transpose()
    }

    /// Whether `dryRun=All` is asked for; other values are refused.
    pub(crate) fn dry_run(&self) -> Result<bool, Status> {
        match self.get("dryRun") {
            None => Ok(false),
            Some("All") => Ok(true),
            Some(other) => Err(Status::invalid(
                "meta.k8s.io",
                "CreateOptions",
                "",
                vec![crate::status::Cause {
                    reason: "FieldValueNotSupported".into(),
                    message: format!("Unsupported value: \"{other}\": supported values: \"All\""),
                    field: "dryRun".into(),
                }],
            )),
        }
    }
}

fn component(text: &str) -> Result<String, Status> {
    let spaced: Cow<'_, str> = if text.contains('+') { text.replace('+', " ").into() } else { text.into() };
    percent_decode_str(&spaced)
        .decode_utf8()
        .map(Cow::into_owned)
        .map_err(|_| Status::bad_request("the query is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters() {
        let q = Query::parse(Some("a=1&command=x+y&command=%2Fz&watch&n=x&dryRun=All")).unwrap();
        assert_eq!(q.get("a"), Some("1"));
        assert_eq!(q.all("command").collect::<Vec<_>>(), ["x y", "/z"]);
        assert!(q.flag("watch").unwrap() && !q.flag("no").unwrap() && q.flag("n").is_err());
        assert!(q.number::<i64>("n").is_err() && q.number::<i64>("a").unwrap() == Some(1));
        assert!(q.dry_run().unwrap());
        assert!(Query::parse(Some("a=%ff")).is_err());
        assert!(Query::parse(Some(&"a=1&".repeat(1_001))).is_err());
        assert!(Query::parse(Some("dryRun=Some")).unwrap().dry_run().is_err());
    }
}
