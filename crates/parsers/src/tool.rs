//! The tools that a model was offered.

use serde_json::Value;

/// A tool.
#[derive(Debug, Clone, PartialEq)]
pub struct Tool {
    /// Its name.
    pub name: String,
    /// JSON schema of its arguments, an object; `None` if it takes none or doesn't say.
    pub parameters: Option<Value>,
    /// Whether arguments must follow the schema to the letter.
    pub strict: bool,
}

/// All tools of a request.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Tools(pub Vec<Tool>);

impl Tools {
    /// The tool of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Tool> {
        self.0.iter().find(|tool| tool.name == name)
    }

    /// Schema of one argument of a tool.
    #[must_use]
    pub fn argument(&self, tool: &str, name: &str) -> Option<&Value> {
        self.get(tool)?.parameters.as_ref()?.get("properties")?.get(name)
    }
}
