//! Tools, and which of them a request is offered.

use serde_json::{Map, Value};

/// What stands between the name of a server and that of its tool.
const SEPARATOR: &str = "__";

/// A tool of a connected server.
#[derive(Debug, Clone, PartialEq)]
pub struct ToolDefinition {
    /// Its name here: `SERVER__TOOL`.
    pub name: String,
    /// The server it belongs to.
    pub server: String,
    /// Its name there.
    pub tool: String,
    /// What it does, in its server's words; may be empty.
    pub description: String,
    /// JSON schema of its arguments, always an object.
    pub parameters: Map<String, Value>,
}

/// `SERVER__TOOL`.
pub fn full_name(server: &str, tool: &str) -> String {
    format!("{server}{SEPARATOR}{tool}")
}

/// Server and tool of a full name. The names of servers don't hold the separator, so that there is one way only.
pub fn split_name(name: &str) -> Option<(&str, &str)> {
    name.split_once(SEPARATOR).filter(|(server, tool)| !server.is_empty() && !tool.is_empty())
}

/// Whether a tool's name can be offered to a model: what the protocol recommends.
pub fn is_usable(tool: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"_-./".contains(&byte);
    (1..=128).contains(&tool.len()) && tool.bytes().all(fits)
}

/// Which tools a request wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Selection {
    /// All tools of all servers that are connected.
    #[default]
    All,
    /// These servers' only.
    Of(Vec<ServerTools>),
}

/// Tools of one server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerTools {
    /// Its name in the configuration.
    pub server: String,
    /// Names of tools as the server has them; `None`: all.
    pub tools: Option<Vec<String>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_apart_in_one_way() {
        let cases = [
            ("fs__read", Some(("fs", "read"))),
            ("fs__read__all", Some(("fs", "read__all"))),
            ("fs___read", Some(("fs", "_read"))),
            ("a_b__c", Some(("a_b", "c"))),
            ("fs_read", None),
            ("fs__", None),
            ("__read", None),
            ("", None),
        ];
        for (name, wanted) in cases {
            assert_eq!(split_name(name), wanted, "{name}");
            if let Some((server, tool)) = wanted {
                assert_eq!(full_name(server, tool), name);
            }
        }
    }
}
