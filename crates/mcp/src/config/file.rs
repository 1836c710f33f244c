//! The file's shape, before anything is checked. An unknown or repeated key is an error wherever it stands.

use std::{collections::BTreeMap, fmt, fs, io::Read as _, marker::PhantomData, path::Path};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _, MapAccess, Visitor},
};

/// Longest file.
const MAX_BYTES: u64 = 1 << 20;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Syntax {
    Json,
    Yaml,
}

impl Syntax {
    pub fn of(path: &Path) -> Self {
        let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default();
        if ["yaml", "yml"].iter().any(|yaml| extension.eq_ignore_ascii_case(yaml)) { Self::Yaml } else { Self::Json }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct File {
    servers: Option<Unique<Entry>>,
    /// What other clients call `servers`.
    #[serde(rename = "mcpServers")]
    mcp_servers: Option<Unique<Entry>>,
    pub max_tool_calls: Option<usize>,
    pub default_timeout: Option<f64>,
    #[serde(default)]
    pub allowed_high_risk_tools: Vec<String>,
}

impl File {
    pub fn servers(self) -> Result<BTreeMap<String, Entry>, String> {
        match (self.servers, self.mcp_servers) {
            (Some(_), Some(_)) => Err("servers and mcpServers mean the same: keep one".into()),
            (Some(Unique(servers)), None) | (None, Some(Unique(servers))) => Ok(servers),
            (None, None) => Err("servers (or mcpServers) is missing".into()),
        }
    }
}

/// A server.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Other clients say `type`.
    #[serde(alias = "type")]
    pub transport: Option<String>,
    pub command: Option<String>,
    pub args: Option<Vec<String>>,
    pub env: Option<Unique<String>>,
    pub cwd: Option<String>,
    pub url: Option<String>,
    pub headers: Option<Unique<String>>,
    pub enabled: Option<bool>,
    pub timeout: Option<f64>,
    pub allowed_tools: Option<Vec<String>>,
}

/// A map that refuses a key which comes twice, where serde would keep the last.
#[derive(Debug)]
pub struct Unique<V>(pub BTreeMap<String, V>);

impl<'de, V: DeserializeOwned> Deserialize<'de> for Unique<V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(UniqueVisitor(PhantomData))
    }
}

struct UniqueVisitor<V>(PhantomData<V>);

impl<'de, V: DeserializeOwned> Visitor<'de> for UniqueVisitor<V> {
    type Value = Unique<V>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Self::Value, A::Error> {
        let mut map = BTreeMap::new();
        while let Some(key) = access.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("duplicate key {key:?}")));
            }
            map.insert(key, access.next_value()?);
        }
        Ok(Unique(map))
    }
}

pub fn json(text: &str) -> Result<File, String> {
    serde_json::from_str(text).map_err(|error| error.to_string())
}

pub fn yaml(text: &str) -> Result<File, String> {
    // The error draws the place over several lines; the first says it all.
    serde_saphyr::from_str(text)
        .map_err(|error| error.to_string().lines().next().unwrap_or("not valid YAML").trim().to_owned())
}

/// The text of a file, if it is one to trust.
pub fn read(path: &Path) -> Result<String, String> {
    let file = fs::File::open(path).map_err(|error| format!("cannot be read: {error}"))?;
    let about = file.metadata().map_err(|error| format!("cannot be read: {error}"))?;
    check_writers(&about)?;
    let mut text = String::new();
    file.take(MAX_BYTES + 1).read_to_string(&mut text).map_err(|error| format!("cannot be read: {error}"))?;
    if text.len() as u64 > MAX_BYTES {
        return Err(format!("longer than {MAX_BYTES} bytes"));
    }
    Ok(text)
}

/// The file names commands: whoever writes it runs them as this user.
#[cfg(unix)]
fn check_writers(about: &fs::Metadata) -> Result<(), String> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = about.permissions().mode();
    if about.is_file() && mode & 0o002 != 0 {
        return Err(format!("every user may write it (mode {:03o}), and it names commands: chmod o-w", mode & 0o777));
    }
    Ok(())
}

#[cfg(not(unix))]
fn check_writers(_: &fs::Metadata) -> Result<(), String> {
    Ok(())
}
