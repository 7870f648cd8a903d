use std::io;
use std::path::PathBuf;

/// What can go wrong in the lab. A variant names the operation and its object; the cause is the source.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LabError {
    /// The machine refuses user namespaces to ordinary users.
    #[error("the lab needs a user namespace, which this machine refuses ({reason}).\n  hint: {remedy}")]
    UserNamespaces {
        /// What was refused, with the kernel's answer.
        reason: String,
        /// The command that allows it, or the alternative.
        remedy: String,
    },
    /// The process that holds the lab's namespaces could not be started, or has gone.
    #[error("the lab's namespaces: {operation}")]
    Enclave {
        /// What was attempted.
        operation: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A pod's sandbox could not be built, or refused a request.
    #[error("sandbox {id}: {message}")]
    Sandbox {
        /// The sandbox.
        id: String,
        /// What happened, with the remedy where it can be guessed.
        message: String,
    },
    /// A file or directory of the lab.
    #[error("{operation} {}", path.display())]
    File {
        /// What was attempted, for example `create`.
        operation: &'static str,
        /// The path.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A request to the Kubernetes API failed.
    #[error("{operation}")]
    Api {
        /// What was attempted.
        operation: String,
        /// The cause.
        #[source]
        source: Box<kube::Error>,
    },
    /// The pod's network could not be set up or removed.
    #[error("network of {object}: {message}")]
    Network {
        /// The pod, node or link.
        object: String,
        /// What happened.
        message: String,
    },
    /// An object or argument that the lab cannot use.
    #[error("{0}")]
    Invalid(String),
}

impl LabError {
    pub(crate) fn enclave(operation: impl Into<String>, source: impl Into<io::Error>) -> Self {
        Self::Enclave { operation: operation.into(), source: source.into() }
    }

    pub(crate) fn sandbox(id: &str, message: impl Into<String>) -> Self {
        Self::Sandbox { id: id.to_owned(), message: message.into() }
    }

    pub(crate) fn file(
        operation: &'static str,
        path: impl Into<PathBuf>,
        source: impl Into<io::Error>,
    ) -> Self {
        Self::File { operation, path: path.into(), source: source.into() }
    }

    pub(crate) fn api(operation: impl Into<String>, source: kube::Error) -> Self {
        Self::Api { operation: operation.into(), source: Box::new(source) }
    }
}
