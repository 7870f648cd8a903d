//! Kubeconfig files: private, atomic, self-contained (kubernetes-api 11).

use std::{
    fs,
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use serde_json::{Value, json};

use super::ClientCredentials;

/// What a client needs to reach the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kubeconfig {
    /// For example `https://127.0.0.1:6443`.
    pub server: String,
    /// CA certificate as PEM.
    pub ca_pem: String,
    /// User name inside the file.
    pub user: String,
    /// Client certificate and key.
    pub credentials: ClientCredentials,
}

impl Kubeconfig {
    /// The document, with embedded data and context `sluice`.
    pub fn to_value(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "sluice", "cluster": {
                "server": self.server,
                "certificate-authority-data": BASE64.encode(&self.ca_pem),
            }}],
            "users": [{"name": self.user, "user": {
                "client-certificate-data": BASE64.encode(&self.credentials.certificate_pem),
                "client-key-data": BASE64.encode(&self.credentials.key_pem),
            }}],
            "contexts": [{"name": "sluice", "context": {"cluster": "sluice", "user": self.user}}],
            "current-context": "sluice",
        })
    }

    /// Writes the file with mode 0600; a reader sees the old one or the new one.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        let text = serde_yaml_ng::to_string(&self.to_value()).map_err(io::Error::other)?;
        write_private(path, text.as_bytes())
    }
}

/// Replaces a file atomically with mode 0600.
pub fn write_private(path: &Path, content: &[u8]) -> io::Result<()> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    fs::create_dir_all(directory)?;
    let name = path.file_name().ok_or_else(|| io::Error::other("no file name"))?.to_string_lossy();
    let temporary = directory.join(format!(".{name}.{}", uuid::Uuid::new_v4()));
    let done = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temporary)
        .and_then(|mut f| f.write_all(content).and_then(|()| f.sync_all()))
        .and_then(|()| fs::rename(&temporary, path));
    if done.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    done
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn files_are_private_and_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/kubeconfig");
        write_private(&path, b"one").unwrap();
        write_private(&path, b"two").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"two");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1, "no temporary file is left");
    }
}
