//! Flags of `serve` on who may ask, how much, and how: keys, limits, origins, certificates.

use std::{
    env, fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use clap::Args;

use super::args::{at_least_one, seconds};
use crate::{
    http::{KeyRing, Origins, Rate, Rules},
    listener::{Alpn, ConnectionLimits, Tls, TlsFiles, TlsSettings},
};

/// Variables with keys, separated by commas.
const KEY_VARIABLES: [&str; 2] = ["VLLM_API_KEY", "VLLM_MLX_API_KEY"];

/// The flags whose changes hold after a SIGHUP. Certificates are read again from where they were.
pub const LIVE: [&str; 6] = ["api-key", "api-key-file", "cors-origins", "log-level", "rate-limit", "rate-limit-tokens"];

/// Who may ask, and how.
#[derive(Clone, Args)]
pub struct AccessArgs {
    /// Answer only to this key (can be given several times; also: VLLM_API_KEY; others can see a command's flags, so better a file)
    #[arg(long, value_name = "KEY")]
    api_key: Vec<String>,
    /// Answer to the keys in this file: one a line, its owner's name before it if wanted
    #[arg(long, value_name = "FILE")]
    api_key_file: Vec<PathBuf>,
    /// Most requests a minute of one key, or of one address where no keys are wanted; 0: any number
    #[arg(long, value_name = "N", default_value_t = 0)]
    rate_limit: u64,
    /// Most tokens a minute, of prompts and answers together; 0: any number
    #[arg(long, value_name = "N", default_value_t = 0)]
    rate_limit_tokens: u64,
    /// Origins whose pages may use this server from a browser, e.g. http://localhost:3000; *: all
    #[arg(long, value_name = "ORIGIN", alias = "allowed-origins")]
    cors_origins: Vec<String>,
    /// Longest body of a request, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 32, value_parser = at_least_one)]
    max_body_mb: usize,
    /// Longest time for a request's head, and for its body, to come in; idle connections are closed after it; 0: for ever
    #[arg(long, value_name = "SECONDS", default_value_t = 60.0, value_parser = seconds)]
    read_timeout: f64,
    /// Most connections at once; more have to wait
    #[arg(long, value_name = "N", default_value_t = ConnectionLimits::default().count, value_parser = at_least_one)]
    max_connections: usize,
    /// Serve HTTPS with this certificate (PEM; the chain after it)
    #[arg(long, value_name = "FILE")]
    ssl_certfile: Option<PathBuf>,
    /// Its private key [default: in the same file]
    #[arg(long, value_name = "FILE", requires = "ssl_certfile")]
    ssl_keyfile: Option<PathBuf>,
    /// Only talk to clients that have a certificate of one of these
    #[arg(long, value_name = "FILE", requires = "ssl_certfile")]
    ssl_ca_certs: Option<PathBuf>,
}

/// As far as it may be seen.
impl std::fmt::Debug for AccessArgs {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("AccessArgs").field("api_key", &self.api_key.len()).finish_non_exhaustive()
    }
}

impl AccessArgs {
    /// Reads keys and origins.
    ///
    /// # Errors
    /// If one isn't what it should be; so too below.
    pub fn rules(&self) -> anyhow::Result<Rules> {
        let mut keys = KeyRing::default();
        for key in &self.api_key {
            keys.add(None, key).context("--api-key")?;
        }
        for name in KEY_VARIABLES {
            let value = env::var(name).unwrap_or_default();
            for key in value.split(',').map(str::trim).filter(|key| !key.is_empty()) {
                keys.add(None, key).context(name)?;
            }
        }
        for path in &self.api_key_file {
            let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
            keys.add_lines(&text).with_context(|| path.display().to_string())?;
        }
        let mut origins = Origins::default();
        for list in &self.cors_origins {
            // A list in JSON, as vLLM has it, has commas of its own.
            let separator = if list.starts_with('[') { '\0' } else { ',' };
            for origin in list.split(separator) {
                origins.add(origin.trim()).context("--cors-origins")?;
            }
        }
        let rate = Rate { requests: self.rate_limit, tokens: self.rate_limit_tokens };
        Ok(Rules { keys, rate, origins })
    }

    /// Reads certificates, if the server is to have any.
    pub fn tls_settings(&self) -> anyhow::Result<Option<TlsSettings>> {
        self.tls_files().map(|files| files.read()).transpose()
    }

    /// Where certificates are, if the server is to have any.
    pub fn tls_files(&self) -> Option<TlsFiles> {
        let certificate = self.ssl_certfile.as_ref()?;
        let key: &Path = self.ssl_keyfile.as_ref().unwrap_or(certificate);
        let (certificate, client_roots) = (certificate.clone(), self.ssl_ca_certs.clone());
        Some(TlsFiles { certificate, key: key.to_owned(), client_roots, alpn: Alpn::Http })
    }

    /// The same, for a listener.
    pub fn tls(&self) -> anyhow::Result<Option<Arc<Tls>>> {
        Ok(self.tls_settings()?.map(|settings| Arc::new(Tls::new(settings))))
    }

    /// Longest body, in bytes.
    pub fn body_limit(&self) -> usize {
        self.max_body_mb.saturating_mul(1 << 20)
    }

    /// How long a body may take.
    pub fn read_timeout(&self) -> Option<std::time::Duration> {
        super::serve::duration(self.read_timeout)
    }

    /// What connections may take.
    pub fn connections(&self) -> ConnectionLimits {
        ConnectionLimits { count: self.max_connections, head: self.read_timeout() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        access: AccessArgs,
    }

    fn rules(flags: &[&str]) -> Result<Rules, String> {
        let cli = <Cli as clap::Parser>::try_parse_from(["serve"].iter().chain(flags));
        let one_line = |error: anyhow::Error| format!("{error:#}");
        cli.map_err(|error| error.to_string())?.access.rules().map_err(one_line)
    }

    #[test]
    fn keys_add_up() {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("keys");
        fs::write(&path, "alice one\n").unwrap();
        let path = path.to_str().unwrap();
        let keys = rules(&["--api-key", "two", "--api-key=three", "--api-key-file", path]).unwrap().keys;
        assert_eq!(keys.len(), 3);
        assert_eq!(keys.owner(b"one").as_deref(), Some("alice"));
        assert!(keys.owner(b"two").is_some() && keys.owner(b"three").is_some());
    }

    #[test]
    fn origins_in_every_form() {
        let one_by_one = rules(&["--cors-origins", "http://a", "--cors-origins", "http://b"]).unwrap();
        for flags in [["--cors-origins", "http://a, http://b"], ["--allowed-origins", r#"["http://a","http://b"]"#]] {
            assert_eq!(rules(&flags).unwrap(), one_by_one, "{flags:?}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_without_the_key() {
        let cases: [(&[&str], &str); 4] = [
            (&["--api-key", ""], "--api-key: an API key is empty"),
            (
                &["--api-key", "hunter 2"],
                "--api-key: an API key has spaces or letters beyond ASCII: it must be of ASCII's visible characters",
            ),
            (&["--api-key-file", "/no/such"], "cannot read /no/such: No such file or directory (os error 2)"),
            (
                &["--cors-origins", "example.com"],
                "--cors-origins: \"example.com\" is no origin: use * for all, or a scheme and a host, as \
                 https://chat.example.com or http://localhost:3000",
            ),
        ];
        for (flags, wanted) in cases {
            assert_eq!(rules(flags).unwrap_err(), wanted, "{flags:?}");
        }
        assert!(rules(&["--ssl-keyfile", "key.pem"]).is_err(), "a key without a certificate");
    }
}
