//! TLS: certificates that can be renewed while the server runs.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
};

use anyhow::{Context as _, bail};
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use sha2::{Digest as _, Sha256};
use tokio_rustls::TlsAcceptor;

/// Where certificates are. All files are PEM.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    /// The server's certificate, with those between it and its root after it.
    pub certificate: PathBuf,
    /// Its private key; may be the same file.
    pub key: PathBuf,
    /// Certificates of which every client must have one's signature.
    pub client_roots: Option<PathBuf>,
    /// What is spoken inside.
    pub alpn: Alpn,
}

/// What client and server agree to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alpn {
    /// HTTP/1.1.
    Http,
    /// HTTP/2, as gRPC wants it.
    Grpc,
}

/// A way to answer handshakes.
#[derive(Debug, Clone)]
pub struct TlsSettings {
    config: Arc<ServerConfig>,
    /// Of all files: tells whether they have changed.
    digest: [u8; 32],
}

/// What handshakes are answered with, from time to time with something new.
#[derive(Debug)]
pub struct Tls(RwLock<TlsSettings>);

impl Tls {
    /// Answers with these.
    #[must_use]
    pub fn new(settings: TlsSettings) -> Self {
        Self(RwLock::new(settings))
    }

    /// From the next handshake on, answers with these. Returns whether they are others than before.
    pub fn set(&self, settings: TlsSettings) -> bool {
        let mut current = self.0.write().unwrap_or_else(PoisonError::into_inner);
        let changed = current.digest != settings.digest;
        // Equal ones would only forget the sessions that can be resumed.
        if changed {
            *current = settings;
        }
        changed
    }

    pub(super) fn acceptor(&self) -> TlsAcceptor {
        let current = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(&current.config).into()
    }
}

impl TlsFiles {
    /// Reads the files and checks that they belong together.
    ///
    /// # Errors
    /// With the file's name.
    pub fn read(&self) -> anyhow::Result<TlsSettings> {
        let mut digest = Sha256::new();
        let mut read = |path: &Path| {
            let pem = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
            digest.update((pem.len() as u64).to_le_bytes());
            digest.update(&pem);
            anyhow::Ok(pem)
        };
        let chain = certificates(&self.certificate, &read(&self.certificate)?)?;
        let key = private_key(&self.key, &read(&self.key)?)?;
        let provider = Arc::new(ring::default_provider());
        let builder =
            ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
        let builder = match &self.client_roots {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let mut roots = RootCertStore::empty();
                for root in certificates(path, &read(path)?)? {
                    roots.add(root).with_context(|| format!("{}: a certificate is unusable", path.display()))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let files = || format!("{} and {} don't go together", self.certificate.display(), self.key.display());
        let mut config = builder.with_single_cert(chain, key).with_context(files)?;
        config.alpn_protocols = vec![match self.alpn {
            Alpn::Http => b"http/1.1".to_vec(),
            Alpn::Grpc => b"h2".to_vec(),
        }];
        Ok(TlsSettings { config: Arc::new(config), digest: digest.finalize().into() })
    }
}

fn certificates(path: &Path, pem: &[u8]) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let chain = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    let chain = chain.with_context(|| format!("{} is not PEM", path.display()))?;
    if chain.is_empty() {
        bail!("{} has no certificate: it must be PEM, with BEGIN CERTIFICATE", path.display());
    }
    Ok(chain)
}

fn private_key(path: &Path, pem: &[u8]) -> anyhow::Result<PrivateKeyDer<'static>> {
    if String::from_utf8_lossy(pem).contains("ENCRYPTED") {
        bail!("{} is encrypted: the server needs the key without a password", path.display());
    }
    PrivateKeyDer::from_pem_slice(pem)
        .map_err(|_| anyhow::anyhow!("{} has no private key: it must be PEM, with BEGIN PRIVATE KEY", path.display()))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    /// A certificate and its key, as PEM.
    fn made(name: &str) -> (String, String) {
        let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
        (made.cert.pem(), made.signing_key.serialize_pem())
    }

    fn files(folder: &TempDir, certificate: &str, key: &str, roots: Option<&str>) -> TlsFiles {
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        TlsFiles {
            certificate: write("cert.pem", certificate),
            key: write("key.pem", key),
            client_roots: roots.map(|roots| write("roots.pem", roots)),
            alpn: Alpn::Http,
        }
    }

    #[test]
    fn files_that_go_together_and_files_that_do_not() {
        let folder = TempDir::new().unwrap();
        let ((cert, key), (_, other)) = (made("a"), made("b"));
        let both = format!("{key}{cert}");
        let encrypted = key.replace("PRIVATE", "ENCRYPTED PRIVATE");
        let cases: [(&str, &str, Option<&str>, Option<&str>); 8] = [
            (&cert, &key, None, None),
            (&both, &both, None, None),
            (&cert, &key, Some(&cert), None),
            (&cert, &key, Some(&key), Some("roots.pem has no certificate")),
            (&key, &key, None, Some("cert.pem has no certificate")),
            (&cert, &cert, None, Some("key.pem has no private key")),
            (&cert, &encrypted, None, Some("key.pem is encrypted")),
            (&cert, &other, None, Some("key.pem don't go together")),
        ];
        for (certificate, key, roots, wrong) in cases {
            match (files(&folder, certificate, key, roots).read(), wrong) {
                (Ok(_), None) => {}
                (Err(error), Some(wrong)) => assert!(error.to_string().contains(wrong), "{error}"),
                (result, wrong) => panic!("{wrong:?} wanted: {result:?}"),
            }
        }
        let missing =
            TlsFiles { certificate: "/no/such".into(), key: "/no/such".into(), client_roots: None, alpn: Alpn::Http };
        assert_eq!(missing.read().unwrap_err().to_string(), "cannot read /no/such");
    }

    #[test]
    fn only_new_files_change_anything() {
        let folder = TempDir::new().unwrap();
        let ((cert, key), (other_cert, other_key)) = (made("a"), made("a"));
        let first = files(&folder, &cert, &key, None).read().unwrap();
        let tls = Tls::new(first.clone());
        assert!(!tls.set(files(&folder, &cert, &key, None).read().unwrap()));
        assert!(Arc::ptr_eq(&tls.0.read().unwrap().config, &first.config));
        assert!(tls.set(files(&folder, &other_cert, &other_key, None).read().unwrap()));
        assert!(!Arc::ptr_eq(&tls.0.read().unwrap().config, &first.config));
    }
}
