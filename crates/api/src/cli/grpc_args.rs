//! Flags of `serve` on gRPC: where it listens, and with which certificates.

use std::{path::PathBuf, sync::Arc};

use anyhow::{Context as _, bail};
use clap::Args;

use super::access_args::AccessArgs;
use crate::listener::{Alpn, ConnectionLimits, Listener, Tls, TlsFiles, TlsSettings};

/// Where fleets' gateways find the server.
#[derive(Debug, Clone, Args)]
pub struct GrpcArgs {
    /// Serve gRPC on this port, too; 0 takes a free one
    #[arg(long, value_name = "PORT")]
    grpc_port: Option<u16>,
    /// Address to listen on for gRPC [default: --host's]
    #[arg(long, value_name = "HOST", requires = "grpc_port")]
    grpc_host: Option<String>,
    /// Certificate for gRPC (PEM; the chain after it) [default: --ssl-certfile's]
    #[arg(long, value_name = "FILE", requires = "grpc_port")]
    grpc_tls_cert: Option<PathBuf>,
    /// Its private key [default: in the same file]
    #[arg(long, value_name = "FILE", requires = "grpc_tls_cert")]
    grpc_tls_key: Option<PathBuf>,
    /// Over gRPC, only talk to clients that have a certificate of one of these [default: --ssl-ca-certs', with its certificate]
    #[arg(long, value_name = "FILE", requires = "grpc_port")]
    grpc_tls_client_ca: Option<PathBuf>,
}

impl GrpcArgs {
    /// Reads certificates, if gRPC is to have any.
    ///
    /// # Errors
    /// If one can't be read, or clients are to show theirs to a server that has none.
    pub fn tls_settings(&self, access: &AccessArgs) -> anyhow::Result<Option<TlsSettings>> {
        if self.grpc_port.is_none() {
            return Ok(None);
        }
        let own = self.grpc_tls_cert.as_ref().map(|certificate| TlsFiles {
            certificate: certificate.clone(),
            key: self.grpc_tls_key.as_ref().unwrap_or(certificate).clone(),
            client_roots: None,
            alpn: Alpn::Grpc,
        });
        match own.or_else(|| access.tls_files()) {
            None if self.grpc_tls_client_ca.is_some() => {
                bail!("--grpc-tls-client-ca needs a certificate of the server, too: --grpc-tls-cert or --ssl-certfile")
            }
            None => Ok(None),
            Some(files) => {
                let client_roots = self.grpc_tls_client_ca.clone().or(files.client_roots);
                TlsFiles { client_roots, alpn: Alpn::Grpc, ..files }.read().map(Some)
            }
        }
    }

    /// Opens the port, if there is to be one. `host` and `port` are HTTP's.
    ///
    /// # Errors
    /// If it is HTTP's, or can't be had, or a certificate can't.
    pub async fn bind(
        &self,
        access: &AccessArgs,
        host: &str,
        port: u16,
        limits: ConnectionLimits,
    ) -> anyhow::Result<Option<(Listener, Option<Arc<Tls>>)>> {
        let Some(grpc_port) = self.grpc_port else { return Ok(None) };
        let grpc_host = self.grpc_host.as_deref().unwrap_or(host);
        if grpc_port == port && port != 0 && grpc_host == host {
            bail!("--port and --grpc-port are both {port}: HTTP and gRPC each need one of their own");
        }
        let tls = self.tls_settings(access)?.map(|settings| Arc::new(Tls::new(settings)));
        let listener = Listener::bind(grpc_host, grpc_port, tls.clone(), limits).await;
        let listener = listener.with_context(|| format!("cannot listen on {grpc_host}:{grpc_port} (--grpc-port)"))?;
        Ok(Some((listener, tls)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        access: AccessArgs,
        #[command(flatten)]
        grpc: GrpcArgs,
    }

    async fn bound(flags: &[&str]) -> Result<Option<&'static str>, String> {
        let cli = <Cli as clap::Parser>::try_parse_from(["serve"].iter().chain(flags));
        let cli = cli.map_err(|error| error.to_string())?;
        let bound = cli.grpc.bind(&cli.access, "127.0.0.1", 8000, ConnectionLimits::default()).await;
        bound.map(|bound| bound.map(|(listener, _)| listener.scheme())).map_err(|error| format!("{error:#}"))
    }

    #[tokio::test]
    async fn flags_that_go_together() {
        let folder = tempfile::TempDir::new().unwrap();
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let path = folder.path().join("both.pem");
        std::fs::write(&path, made.signing_key.serialize_pem() + &made.cert.pem()).unwrap();
        let both = path.to_str().unwrap();
        let missing = "/no/such.pem";
        type Wanted<'a> = Result<Option<&'a str>, &'a str>;
        let cases: [(&str, &[&str], Wanted<'_>); 11] = [
            ("none", &[], Ok(None)),
            ("plain", &["--grpc-port", "0"], Ok(Some("http"))),
            ("HTTP's certificate", &["--grpc-port", "0", "--ssl-certfile", both], Ok(Some("https"))),
            ("its own", &["--grpc-port", "0", "--grpc-tls-cert", both, "--grpc-tls-key", both], Ok(Some("https"))),
            (
                "clients' certificates",
                &["--grpc-port", "0", "--ssl-certfile", both, "--grpc-tls-client-ca", both],
                Ok(Some("https")),
            ),
            (
                "of clients only",
                &["--grpc-port", "0", "--grpc-tls-client-ca", both],
                Err("--grpc-tls-client-ca needs a certificate of the server, too: --grpc-tls-cert or --ssl-certfile"),
            ),
            ("HTTP's port", &["--grpc-port", "8000"], Err("--port and --grpc-port are both 8000")),
            ("no file", &["--grpc-port", "0", "--grpc-tls-cert", missing], Err("cannot read /no/such.pem")),
            (
                "no roots",
                &["--grpc-port", "0", "--grpc-tls-cert", both, "--grpc-tls-client-ca", missing],
                Err("cannot read /no/such.pem"),
            ),
            ("no port", &["--grpc-tls-cert", both], Err("--grpc-port")),
            (
                "no host",
                &["--grpc-port", "0", "--grpc-host", "no.such.invalid"],
                Err("cannot listen on no.such.invalid:0"),
            ),
        ];
        for (name, flags, wanted) in cases {
            match (bound(flags).await, wanted) {
                (Ok(found), Ok(wanted)) => assert_eq!(found, wanted, "{name}"),
                (Err(error), Err(wanted)) => assert!(error.contains(wanted), "{name}: {error}"),
                (found, wanted) => panic!("{name}: {found:?}, not {wanted:?}"),
            }
        }
    }
}
