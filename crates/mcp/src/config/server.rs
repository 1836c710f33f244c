//! One server of the configuration, checked.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::Duration,
};

use http::{HeaderName, HeaderValue, Uri, header};

use super::{environment, expand::expand, file::Entry, secret::Secret};

/// Longest timeout that a file may ask for.
const MAX_TIMEOUT: f64 = 3600.0;

/// Headers that the protocol sets itself.
const RESERVED_HEADERS: &[&str] = &[
    "accept",
    "connection",
    "content-length",
    "content-type",
    "host",
    "last-event-id",
    "mcp-protocol-version",
    "mcp-session-id",
    "transfer-encoding",
];

/// A server.
#[derive(Debug, Clone, PartialEq)]
pub struct ServerConfig {
    /// How to reach it.
    pub endpoint: Endpoint,
    /// Whether to connect to it.
    pub enabled: bool,
    /// Longest time of a call that doesn't say.
    pub timeout: Duration,
    /// The only tools that may be called; `None`: all.
    pub allowed_tools: Option<Vec<String>>,
}

/// How to reach a server.
#[derive(Debug, Clone, PartialEq)]
pub enum Endpoint {
    /// A process of ours, spoken to through its standard input and output.
    Stdio {
        /// The program: a path, or a name to be found in `PATH`.
        command: String,
        /// Its arguments, as they are: no shell sees them.
        args: Vec<String>,
        /// Variables beside the few that every server gets.
        env: BTreeMap<String, Secret>,
        /// Its working directory; `None`: ours.
        cwd: Option<PathBuf>,
    },
    /// A server that speaks streamable HTTP.
    Http {
        /// Its address.
        url: String,
        /// Sent with each request.
        headers: BTreeMap<String, Secret>,
    },
}

impl Endpoint {
    /// `stdio` or `http`.
    #[must_use]
    pub fn transport(&self) -> &'static str {
        match self {
            Self::Stdio { .. } => "stdio",
            Self::Http { .. } => "http",
        }
    }
}

/// What holds where an entry says nothing, and what it is read with.
pub struct Defaults<'a> {
    pub timeout: Duration,
    pub folder: &'a Path,
    pub variables: &'a dyn Fn(&str) -> Option<String>,
}

impl ServerConfig {
    pub(super) fn new(entry: Entry, defaults: &Defaults<'_>) -> Result<Self, String> {
        let enabled = entry.enabled.unwrap_or(true);
        let timeout = entry.timeout.map(|seconds| timeout("timeout", seconds)).transpose()?;
        let allowed_tools = entry.allowed_tools.clone();
        let literal = |text: &str| Ok(text.to_owned());
        let variables = |text: &str| expand(text, defaults.variables);
        // A server that isn't used needs no variables.
        let value: &Values<'_> = if enabled { &variables } else { &literal };
        let endpoint = match transport(&entry)? {
            "stdio" => stdio(entry, defaults.folder, value)?,
            _ => http(entry, value, enabled)?,
        };
        Ok(Self { endpoint, enabled, timeout: timeout.unwrap_or(defaults.timeout), allowed_tools })
    }
}

type Values<'a> = dyn Fn(&str) -> Result<String, String> + 'a;

fn transport(entry: &Entry) -> Result<&'static str, String> {
    match (entry.transport.as_deref(), &entry.command, &entry.url) {
        (Some("sse"), ..) => Err("transport sse was replaced by streamable HTTP and is not supported: \
            use transport http with the server's streamable address, which often ends in /mcp"
            .into()),
        (Some("stdio"), ..) => Ok("stdio"),
        (Some("http" | "streamable-http" | "streamable_http" | "streamableHttp"), ..) => Ok("http"),
        (Some(other), ..) => Err(format!("unknown transport {other:?}: use stdio or http")),
        (None, Some(_), None) => Ok("stdio"),
        (None, None, Some(_)) => Ok("http"),
        (None, Some(_), Some(_)) => Err("command and url together: say transport stdio or http, and keep one".into()),
        (None, None, None) => Err("it needs command (transport stdio) or url (transport http)".into()),
    }
}

fn stdio(entry: Entry, folder: &Path, value: &Values<'_>) -> Result<Endpoint, String> {
    misplaced("stdio", &[("url", entry.url.is_some()), ("headers", entry.headers.is_some())])?;
    let command = value(&entry.command.ok_or("transport stdio needs command")?)?;
    if command.trim().is_empty() {
        return Err("command is empty".into());
    }
    let args = entry.args.unwrap_or_default().iter().map(|text| value(text)).collect::<Result<Vec<_>, _>>()?;
    let mut env = BTreeMap::new();
    for (name, text) in entry.env.map(|env| env.0).unwrap_or_default() {
        environment::check(&name)?;
        env.insert(name.clone(), Secret::new(value(&text).map_err(|problem| format!("env: {name}: {problem}"))?));
    }
    let texts = args.iter().map(String::as_str).chain(env.values().map(Secret::reveal)).chain([command.as_str()]);
    if texts.into_iter().any(|text| text.contains('\0')) {
        return Err("a NUL character in command, args or env".into());
    }
    // A path with a folder in it would else depend on where the server was started.
    let command = if command.contains('/') { folder.join(&command).to_string_lossy().into_owned() } else { command };
    let cwd = entry.cwd.map(|cwd| value(&cwd)).transpose()?.map(|cwd| folder.join(cwd));
    Ok(Endpoint::Stdio { command, args, env, cwd })
}

fn http(entry: Entry, value: &Values<'_>, enabled: bool) -> Result<Endpoint, String> {
    let fields = [
        ("command", entry.command.is_some()),
        ("args", entry.args.is_some()),
        ("env", entry.env.is_some()),
        ("cwd", entry.cwd.is_some()),
    ];
    misplaced("http", &fields)?;
    let text = entry.url.ok_or("transport http needs url")?;
    let url = value(&text)?;
    // Without its variables it is no address yet.
    if enabled {
        check_address(&url, &text)?;
    }
    let mut headers = BTreeMap::new();
    for (name, text) in entry.headers.map(|headers| headers.0).unwrap_or_default() {
        let fits = HeaderName::try_from(name.as_str()).map_err(|_| format!("headers: {name:?} is no header name"))?;
        if RESERVED_HEADERS.contains(&fits.as_str()) {
            return Err(format!("headers: {name} is set by the protocol itself"));
        }
        let text = value(&text).map_err(|problem| format!("headers: {name}: {problem}"))?;
        HeaderValue::try_from(text.as_str()).map_err(|_| format!("headers: {name}: not a value of a header"))?;
        if headers.insert(fits.as_str().to_owned(), Secret::new(text)).is_some() {
            return Err(format!("headers: {name} comes twice"));
        }
    }
    Ok(Endpoint::Http { url, headers })
}

/// Checks an address; `shown` is what an error may show of it.
fn check_address(url: &str, shown: &str) -> Result<(), String> {
    let scheme = url.split_once("://").map_or("", |(scheme, _)| scheme);
    if !["http", "https"].iter().any(|http| scheme.eq_ignore_ascii_case(http)) {
        return Err(format!("url {shown:?}: it must begin with http:// or https://"));
    }
    let url: Uri = url.parse().map_err(|error| format!("url {shown:?}: {error}"))?;
    if url.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err(format!(
            "url: a user or password in it is not supported: use the header {}",
            header::AUTHORIZATION
        ));
    }
    Ok(())
}

fn misplaced(transport: &str, fields: &[(&str, bool)]) -> Result<(), String> {
    match fields.iter().find(|(_, present)| *present) {
        Some((field, _)) => Err(format!("{field} does not go with transport {transport}")),
        None => Ok(()),
    }
}

/// A server's name begins the names of its tools, and `__` ends it there.
pub fn check_name(name: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
    if name.is_empty() || name.len() > 64 || !name.bytes().all(fits) {
        return Err("the name must be 1 to 64 letters, digits, - or _".into());
    }
    if name.contains("__") || name.ends_with('_') {
        return Err("the name must not hold __ nor end in _, which separates it from a tool's name".into());
    }
    Ok(())
}

/// A time that a file gives in seconds.
pub fn timeout(name: &str, seconds: f64) -> Result<Duration, String> {
    if seconds > 0.0 && seconds <= MAX_TIMEOUT {
        return Ok(Duration::from_secs_f64(seconds));
    }
    Err(format!("{name} is {seconds}: it must be above 0 and at most {MAX_TIMEOUT} seconds"))
}
