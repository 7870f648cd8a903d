//! Connecting to an API by kubeconfig.

use std::path::{Path, PathBuf};
use std::time::Duration;

use http::{HeaderValue, Response};
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};
use tower::util::MapResponseLayer;

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig cannot be read.
    #[error("cannot read kubeconfig {path}")]
    Kubeconfig {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: kube::config::KubeconfigError,
    },
    /// No kubeconfig was named and none was found.
    #[error(
        "no cluster: neither KUBECONFIG, ~/.kube/config nor a service account was found; name manifests with -f or set KUBECONFIG"
    )]
    None(#[source] kube::config::InferConfigError),
    /// The address of the API is no URL.
    #[error("{0:?} is no URL of an API; write https://HOST:PORT")]
    Server(String),
    /// The client cannot be made.
    #[error("cannot make a client for the API")]
    Client(#[source] kube::Error),
}

/// Which API, and as whom; kubectl's flags with kubectl's meaning. What is not given comes from the kubeconfig.
#[derive(Clone, Debug, Default)]
pub struct Access {
    /// The kubeconfig, or several as `KUBECONFIG` lists them. Without it what the environment says is used: KUBECONFIG,
    /// ~/.kube/config, the service account.
    pub kubeconfig: Option<PathBuf>,
    /// The context in it.
    pub context: Option<String>,
    /// The cluster in it.
    pub cluster: Option<String>,
    /// The user in it.
    pub user: Option<String>,
    /// The URL of the API.
    pub server: Option<String>,
    /// The bearer token to show.
    pub token: Option<String>,
    /// The user to act as.
    pub act_as: Option<String>,
    /// The groups to act as.
    pub act_as_groups: Vec<String>,
    /// The uid to act as.
    pub act_as_uid: Option<String>,
    /// How long a request may take.
    pub timeout: Option<Duration>,
    /// Told every warning that the API sends along with an answer (a deprecated version, a field that it does not know).
    pub on_warning: Option<fn(&str)>,
}

impl Access {
    /// A client for the API.
    pub async fn client(&self) -> Result<Client, ConnectError> {
        let config = self.config().await?;
        let Some(tell) = self.on_warning else {
            return Client::try_from(config).map_err(ConnectError::Client);
        };
        let layer = MapResponseLayer::new(move |response: Response<_>| {
            for warning in response.headers().get_all("warning").iter().filter_map(warning_text) {
                tell(&warning);
            }
            response
        });
        let builder = ClientBuilder::try_from(config).map_err(ConnectError::Client)?;
        Ok(builder.with_layer(&layer).build())
    }

    /// The namespace of the context; `None` if none is stated, or there is no kubeconfig.
    pub fn namespace(&self) -> Option<String> {
        let kubeconfig = match self.files().ok()? {
            Some(kubeconfig) => kubeconfig,
            None => Kubeconfig::read().ok()?,
        };
        let context = self.context.as_ref().or(kubeconfig.current_context.as_ref())?;
        let named = kubeconfig.contexts.iter().find(|named| named.name == *context)?;
        named.context.as_ref()?.namespace.clone().filter(|namespace| !namespace.is_empty())
    }

    /// The names in a list of the kubeconfig: `contexts`, `clusters` or `users`. None where there is no kubeconfig.
    pub fn names_in(&self, list: &str) -> Vec<String> {
        let read = match self.files() {
            Ok(Some(kubeconfig)) => Some(kubeconfig),
            Ok(None) => Kubeconfig::read().ok(),
            Err(_) => None,
        };
        let Some(kubeconfig) = read else { return Vec::new() };
        match list {
            "contexts" => kubeconfig.contexts.into_iter().map(|named| named.name).collect(),
            "clusters" => kubeconfig.clusters.into_iter().map(|named| named.name).collect(),
            "users" => kubeconfig.auth_infos.into_iter().map(|named| named.name).collect(),
            _ => Vec::new(),
        }
    }

    async fn config(&self) -> Result<Config, ConnectError> {
        let options = KubeConfigOptions {
            context: self.context.clone(),
            cluster: self.cluster.clone(),
            user: self.user.clone(),
        };
        let chooses = options.context.is_some() || options.cluster.is_some() || options.user.is_some();
        let shown = || self.kubeconfig.clone().unwrap_or_else(|| "~/.kube/config".into());
        let failed = |source| ConnectError::Kubeconfig { path: shown(), source };
        let mut config = match self.files()? {
            Some(kubeconfig) => Config::from_custom_kubeconfig(kubeconfig, &options).await.map_err(failed)?,
            None if chooses => Config::from_kubeconfig(&options).await.map_err(failed)?,
            None => Config::infer().await.map_err(ConnectError::None)?,
        };
        if let Some(server) = &self.server {
            config.cluster_url = server.parse().map_err(|_| ConnectError::Server(server.clone()))?;
        }
        let who = &mut config.auth_info;
        if let Some(token) = &self.token {
            who.token = Some(token.clone().into());
        }
        who.impersonate = self.act_as.clone().or(who.impersonate.take());
        who.impersonate_uid = self.act_as_uid.clone().or(who.impersonate_uid.take());
        if !self.act_as_groups.is_empty() {
            who.impersonate_groups = Some(self.act_as_groups.clone());
        }
        if self.timeout.is_some() {
            (config.connect_timeout, config.read_timeout) = (self.timeout, self.timeout);
        }
        Ok(config)
    }

    /// The named kubeconfigs, merged as kubectl does.
    fn files(&self) -> Result<Option<Kubeconfig>, ConnectError> {
        let Some(named) = &self.kubeconfig else { return Ok(None) };
        let mut merged: Option<Kubeconfig> = None;
        for path in std::env::split_paths(named.as_os_str()).filter(|path| !path.as_os_str().is_empty()) {
            let failed = |source| ConnectError::Kubeconfig { path: path.clone(), source };
            let next = Kubeconfig::read_from(&path).map_err(failed)?;
            merged = Some(match merged {
                Some(first) => first.merge(next).map_err(failed)?,
                None => next,
            });
        }
        Ok(merged)
    }
}

/// The text of a warning: `299 - "text"`, with quotes and backslashes escaped.
fn warning_text(header: &HeaderValue) -> Option<String> {
    let quoted = header.to_str().ok()?.splitn(3, ' ').nth(2)?.trim().strip_prefix('"')?;
    let (mut text, mut letters) = (String::new(), quoted.chars());
    while let Some(letter) = letters.next() {
        match letter {
            '"' => return Some(text),
            '\\' => text.extend(letters.next()),
            other => text.push(other),
        }
    }
    None
}

/// A client by the kubeconfig at `path`, or by what the environment says (KUBECONFIG, ~/.kube/config, service account).
pub async fn client_from_kubeconfig(path: Option<&Path>) -> Result<Client, ConnectError> {
    Access { kubeconfig: path.map(Path::to_owned), ..Access::default() }.client().await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_read_as_the_api_writes_them() {
        for (header, text) in [
            (r#"299 - "unknown field \"spec.foo\"""#, Some("unknown field \"spec.foo\"")),
            (r#"299 - "a" "Mon, 01 Jan 2024 00:00:00 GMT""#, Some("a")),
            ("299 - text", None),
            (r#"299 - "never ends"#, None),
            ("", None),
        ] {
            let header = HeaderValue::from_str(header).expect("a header");
            assert_eq!(warning_text(&header).as_deref(), text);
        }
    }

    #[test]
    fn the_namespace_is_that_of_the_context() {
        let folder = tempfile::tempdir().expect("a folder");
        let write = |name: &str, contexts: &str| {
            let path = folder.path().join(name);
            let text = format!(
                "apiVersion: v1\nkind: Config\ncurrent-context: a\nclusters: []\nusers: []\ncontexts: {contexts}\n"
            );
            std::fs::write(&path, text).expect("written");
            path
        };
        let one = write("one", "[{name: a, context: {cluster: c, user: u, namespace: shop}}]");
        let two = write("two", "[{name: b, context: {cluster: c, user: u, namespace: money}}]");
        let both = std::env::join_paths([&one, &two]).expect("a list");
        let of = |kubeconfig: PathBuf, context: Option<&str>| {
            let context = context.map(str::to_owned);
            Access { kubeconfig: Some(kubeconfig), context, ..Access::default() }.namespace()
        };
        assert_eq!(of(one, None).as_deref(), Some("shop"));
        assert_eq!(of(both.into(), Some("b")).as_deref(), Some("money"));
        assert_eq!(of(two, None), None);
        assert_eq!(of(folder.path().join("none"), None), None);
    }
}
