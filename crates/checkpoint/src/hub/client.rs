//! Requests to the hub.

use std::path::Path;
use std::time::Duration;

use hf_hub::api::sync::ApiBuilder;
use hf_hub::{Cache, Repo, RepoType};
use ureq::Agent;
use ureq::config::RedirectAuthHeaders;
use ureq::http::{Response, header};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Body, BodyReader};

use super::plan::Listing;
use super::{HubError, HubOptions, Reference};

const CONNECT: Duration = Duration::from_secs(15);
/// A connection that stays silent for so long is given up, and the transfer resumed on a new one.
const SILENCE: Duration = Duration::from_secs(60);
/// Most bytes of a list of files.
const MAX_LISTING: u64 = 64 << 20;

/// A hub, as far as one repository is concerned.
pub(super) struct Client {
    agent: Agent,
    endpoint: String,
    repo: Repo,
    reference: Reference,
    token: Option<String>,
}

/// A hub and the commit to take files of: a branch may move on between two files.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) client: &'a Client,
    pub(super) commit: &'a str,
}

impl Source<'_> {
    pub(super) fn get(&self, file: &str, from: u64) -> Result<Transfer, HubError> {
        self.client.get(self.commit, file, from)
    }
}

/// The answer to a request for (the rest of) a file.
pub(super) struct Transfer {
    /// Where in the file the body starts.
    pub(super) start: u64,
    pub(super) body: BodyReader<'static>,
    pub(super) url: String,
}

impl Client {
    pub(super) fn new(reference: &Reference, options: &HubOptions) -> Result<Self, HubError> {
        let mut tls = TlsConfig::builder();
        if let Some(file) = &options.authorities {
            tls = tls.root_certs(authorities(file)?);
        }
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .user_agent(concat!("vllm-mlx/", env!("CARGO_PKG_VERSION")))
            // A compressed answer cannot be resumed.
            .accept_encoding("identity")
            // Large files are answered with a redirect to another host, which has no business with the token.
            .redirect_auth_headers(RedirectAuthHeaders::SameHost)
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .tls_config(tls.build())
            .build();
        let repo = Repo::with_revision(reference.repo.clone(), RepoType::Model, reference.revision.clone());
        let endpoint = match &options.endpoint {
            Some(endpoint) => endpoint.trim_end_matches('/').to_owned(),
            None => public_endpoint(&repo)?,
        };
        if !endpoint.starts_with("http://") && !endpoint.starts_with("https://") {
            return Err(HubError::Options(format!("HF_ENDPOINT is {endpoint}; wanted an http:// or https:// address")));
        }
        Ok(Self {
            agent: Agent::new_with_config(agent),
            endpoint,
            repo,
            reference: reference.clone(),
            token: options.token.clone(),
        })
    }

    /// The repository's files, with sizes and hashes.
    pub(super) fn list(&self) -> Result<Listing, HubError> {
        let url = format!("{}/api/{}?blobs=true", self.endpoint, self.repo.api_url());
        let mut response = self.send(&url, 0)?;
        if response.status() != 200 {
            return Err(self.refused(&response, url));
        }
        let answer = |what: String| HubError::Answer { url: url.clone(), what };
        let body = response.body_mut().with_config().limit(MAX_LISTING).read_to_vec();
        let body = body.map_err(|e| HubError::Network { url: url.clone(), what: e.to_string() })?;
        let json = serde_json::from_slice(&body).map_err(|e| answer(format!("the answer is not JSON ({e})")))?;
        Listing::from_answer(&json).map_err(|what| answer(format!("the answer {what}")))
    }

    /// Asks for a file of a commit from byte `from` on.
    fn get(&self, commit: &str, file: &str, from: u64) -> Result<Transfer, HubError> {
        let path: String = file.bytes().map(escape).collect();
        let url = format!("{}/{}/resolve/{commit}/{path}", self.endpoint, self.repo.url());
        let mut response = self.send(&url, from)?;
        if response.status() == 416 && from > 0 {
            response = self.send(&url, 0)?;
        }
        let start = match response.status().as_u16() {
            200 => 0,
            206 => content_start(&response).ok_or_else(|| HubError::Answer {
                url: url.clone(),
                what: "a part without a Content-Range".to_owned(),
            })?,
            _ => return Err(self.refused(&response, url)),
        };
        if start != 0 && start != from {
            let what = format!("asked for bytes from {from}, the answer starts at {start}");
            return Err(HubError::Answer { url, what });
        }
        Ok(Transfer { start, body: response.into_body().into_reader(), url })
    }

    fn send(&self, url: &str, from: u64) -> Result<Response<Body>, HubError> {
        let mut request = self.agent.get(url);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        if from > 0 {
            request = request.header(header::RANGE, format!("bytes={from}-"));
        }
        request.call().map_err(|e| HubError::Network { url: url.to_owned(), what: e.to_string() })
    }

    fn refused(&self, response: &Response<Body>, url: String) -> HubError {
        let repo = self.reference.repo.clone();
        let code = response.headers().get("x-error-code").and_then(|code| code.to_str().ok());
        let not_found = || HubError::NotFound { repo: repo.clone(), revision: self.reference.revision.clone() };
        match (response.status().as_u16(), code) {
            (404, Some("EntryNotFound")) => HubError::Status { url, status: 404 },
            (404, _) | (401, Some("RepoNotFound")) => not_found(),
            (401, _) | (403, _) if self.token.is_none() => HubError::NeedsToken { repo },
            (401, _) | (403, _) => HubError::Forbidden { repo },
            // Busy or broken: worth another attempt.
            (status @ (408 | 429 | 500..), _) => HubError::Network { url, what: format!("the hub answered {status}") },
            (status, _) => HubError::Status { url, status },
        }
    }
}

/// The hub that `hf-hub` knows by default, read off an address that it makes.
fn public_endpoint(repo: &Repo) -> Result<String, HubError> {
    let api = ApiBuilder::from_cache(Cache::new(std::env::temp_dir())).with_progress(false).build();
    let url = api.map_err(|e| HubError::Options(format!("no hub client: {e}")))?.repo(repo.clone()).url("");
    let tail = format!("/{}/resolve/", repo.url());
    let end = url.find(&tail).unwrap_or(url.len());
    Ok(url[..end].to_owned())
}

fn authorities(file: &Path) -> Result<RootCerts, HubError> {
    let pem = std::fs::read(file).map_err(HubError::cache(file))?;
    let certificates: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(HubError::Options(format!("{}: holds no certificates in PEM form", file.display())));
    }
    Ok(RootCerts::new_with_certs(&certificates))
}

/// `5` of `Content-Range: bytes 5-9/10`.
fn content_start(response: &Response<Body>) -> Option<u64> {
    let range = response.headers().get(header::CONTENT_RANGE)?.to_str().ok()?;
    range.strip_prefix("bytes ")?.split('-').next()?.trim().parse().ok()
}

/// A byte of a file name in a URL's path.
fn escape(byte: u8) -> String {
    if byte.is_ascii_alphanumeric() || b"/-_.~".contains(&byte) {
        return char::from(byte).to_string();
    }
    format!("%{byte:02X}")
}
