//! Connecting to an API by kubeconfig.

use std::path::{Path, PathBuf};

use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Client, Config};

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
    /// The client cannot be made.
    #[error("cannot make a client for the API")]
    Client(#[source] kube::Error),
}

/// A client by the kubeconfig at `path`, or by what the environment says (KUBECONFIG, ~/.kube/config, service account).
pub async fn client_from_kubeconfig(path: Option<&Path>) -> Result<Client, ConnectError> {
    let config = match path {
        Some(path) => {
            let error = |source| ConnectError::Kubeconfig { path: path.to_owned(), source };
            let kubeconfig = Kubeconfig::read_from(path).map_err(error)?;
            Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.map_err(error)?
        }
        None => Config::infer().await.map_err(ConnectError::None)?,
    };
    Client::try_from(config).map_err(ConnectError::Client)
}
