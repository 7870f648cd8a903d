//! The server's own certificate authority and what it signs (kubernetes-api 11).

use std::{fs, net::IpAddr, path::Path, sync::Arc, time::Duration};

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, SanType,
};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use x509_parser::prelude::{FromDer, X509Certificate};

use super::{Identity, write_private};

const CA_CERTIFICATE: &str = "ca.crt";
const CA_KEY: &str = "ca.key";
const DAY: Duration = Duration::from_secs(86_400);
/// Serving and client certificates are signed anew at every start, long before this ends.
const LEAF_DAYS: u32 = 365;
const CA_DAYS: u32 = 3_650;
/// A CA that ends sooner is replaced at start.
const RENEW_DAYS: u32 = 400;

/// Why certificates could not be made or read.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// Reading or writing a file of the CA.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// Making or signing a certificate.
    #[error("make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// Setting up TLS.
    #[error("set up TLS: {0}")]
    Tls(String),
}

/// A client certificate with its key, as PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct ClientCredentials {
    /// The certificate.
    pub certificate_pem: String,
    /// Its private key.
    pub key_pem: String,
}

impl std::fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ClientCredentials(private)")
    }
}

/// The certificate authority.
pub struct Pki {
    issuer: Issuer<'static, KeyPair>,
    ca_pem: String,
}

impl Pki {
    /// Reads the CA from a directory, or makes one there.
    pub fn open(directory: &Path) -> Result<Pki, AuthError> {
        let (certificate, key) = (directory.join(CA_CERTIFICATE), directory.join(CA_KEY));
        if let (Ok(ca_pem), Ok(key_pem)) = (fs::read_to_string(&certificate), fs::read_to_string(&key))
            && ends_after(&ca_pem, RENEW_DAYS)
        {
            let issuer = Issuer::from_ca_cert_pem(&ca_pem, KeyPair::from_pem(&key_pem)?)?;
            return Ok(Pki { issuer, ca_pem });
        }
        let key_pair = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        params.distinguished_name = name("sluice-ca", &[]);
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        valid_for(&mut params, CA_DAYS);
        let ca_pem = params.self_signed(&key_pair)?.pem();
        for (path, pem) in [(&key, key_pair.serialize_pem()), (&certificate, ca_pem.clone())] {
            write_private(path, pem.as_bytes())
                .map_err(|source| AuthError::File { path: path.display().to_string(), source })?;
        }
        Ok(Pki { issuer: Issuer::new(params, key_pair), ca_pem })
    }

    /// The CA's certificate.
    pub fn ca_pem(&self) -> &str {
        &self.ca_pem
    }

    /// A client certificate: CN = user, O = groups.
    pub fn client(&self, identity: &Identity) -> Result<ClientCredentials, AuthError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::default();
        let groups: Vec<&str> =
            identity.groups.iter().map(String::as_str).filter(|g| *g != super::AUTHENTICATED).collect();
        params.distinguished_name = name(&identity.user, &groups);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        valid_for(&mut params, LEAF_DAYS);
        let certificate = params.signed_by(&key, &self.issuer)?;
        Ok(ClientCredentials { certificate_pem: certificate.pem(), key_pem: key.serialize_pem() })
    }

    /// A TLS configuration with a fresh serving certificate for these names and addresses. Clients may
    /// come without a certificate: what they reach then is decided per request.
    pub fn server_config(&self, names: &[String], addresses: &[IpAddr]) -> Result<ServerConfig, AuthError> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names.to_vec())?;
        params.subject_alt_names.extend(addresses.iter().map(|a| SanType::IpAddress(*a)));
        params.distinguished_name = name("sluice-apiserver", &[]);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        valid_for(&mut params, LEAF_DAYS);
        let certificate = params.signed_by(&key, &self.issuer)?;

        let tls = |e: &dyn std::fmt::Display| AuthError::Tls(e.to_string());
        let ca = CertificateDer::from_pem_slice(self.ca_pem.as_bytes()).map_err(|e| tls(&e))?;
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone()).map_err(|e| tls(&e))?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .allow_unauthenticated()
            .build()
            .map_err(|e| tls(&e))?;
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(|e| tls(&e))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![certificate.der().clone(), ca],
                PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der())),
            )
            .map_err(|e| tls(&e))?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// The identity in a verified client certificate.
pub(crate) fn identity_of(certificate: &CertificateDer<'_>) -> Option<Identity> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    let subject = parsed.subject();
    let user = subject.iter_common_name().next()?.as_str().ok()?.to_string();
    let groups: Vec<&str> = subject.iter_organization().filter_map(|o| o.as_str().ok()).collect();
    Some(Identity::new(user, &groups))
}

fn name(common: &str, organizations: &[&str]) -> DistinguishedName {
    let mut out = DistinguishedName::new();
    out.push(DnType::CommonName, common);
    // A distinguished name holds one value per type here; every identity made by this server has one group.
    for organization in organizations {
        out.push(DnType::OrganizationName, *organization);
    }
    out
}

fn valid_for(params: &mut CertificateParams, days: u32) {
    let now = std::time::SystemTime::now();
    // A day back, for clocks that differ a little.
    params.not_before = (now - DAY).into();
    params.not_after = (now + DAY * days).into();
}

fn ends_after(pem: &str, days: u32) -> bool {
    let Ok(der) = CertificateDer::from_pem_slice(pem.as_bytes()) else { return false };
    let Ok((_, parsed)) = X509Certificate::from_der(&der) else { return false };
    let rest = parsed.validity().not_after.timestamp() - crate::time::now();
    rest > i64::from(days) * 86_400
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ca_is_kept_and_identities_come_back() {
        let dir = tempfile::tempdir().unwrap();
        let first = Pki::open(dir.path()).unwrap();
        let again = Pki::open(dir.path()).unwrap();
        assert_eq!(first.ca_pem(), again.ca_pem());
        for identity in [Identity::admin(), Identity::node("n1")] {
            let made = again.client(&identity).unwrap();
            let der = CertificateDer::from_pem_slice(made.certificate_pem.as_bytes()).unwrap();
            assert_eq!(identity_of(&der), Some(identity));
        }
        again.server_config(&["localhost".into()], &["127.0.0.1".parse().unwrap()]).unwrap();
    }
}
