//! The workspace and everything it depends on, as `cargo metadata` tells it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result};
use serde_json::Value;

use crate::command;

#[derive(Debug, Default)]
pub struct Workspace {
    pub packages: BTreeMap<String, Package>,
}

#[derive(Debug, Default)]
pub struct Package {
    pub member: bool,
    pub licence: Option<String>,
    /// Names of what its library and binaries need, build scripts' needs included, tests' not.
    pub needs: BTreeSet<String>,
}

impl Workspace {
    /// Everything that a package needs, itself excluded, directly or through others.
    pub fn reach(&self, package: &str) -> BTreeSet<&str> {
        let mut reached = BTreeSet::new();
        let mut open = vec![package];
        while let Some(next) = open.pop() {
            for need in self.packages.get(next).into_iter().flat_map(|package| &package.needs) {
                if reached.insert(need.as_str()) {
                    open.push(need);
                }
            }
        }
        reached
    }
}

pub fn load() -> Result<Workspace> {
    parse(&command::output(command::cargo().args(["metadata", "--format-version=1"]))?)
}

/// Several versions of a package count as one: the rules are about names.
fn parse(metadata: &str) -> Result<Workspace> {
    let metadata: Value = serde_json::from_str(metadata).context("cargo metadata wrote something that is not JSON")?;
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let members = list(&metadata["workspace_members"]);
    let mut names = BTreeMap::new();
    let mut workspace = Workspace::default();
    for package in list(&metadata["packages"]) {
        let name = package["name"].as_str().context("a package without a name")?;
        names.insert(package["id"].to_string(), name.to_owned());
        let entry = workspace.packages.entry(name.to_owned()).or_default();
        entry.member |= members.contains(&package["id"]);
        entry.licence = package["license"].as_str().map(str::to_owned);
    }
    for node in list(&metadata["resolve"]["nodes"]) {
        let needs: Vec<String> = list(&node["deps"])
            .iter()
            .filter(|dep| list(&dep["dep_kinds"]).iter().any(|kind| kind["kind"] != "dev"))
            .filter_map(|dep| names.get(&dep["pkg"].to_string()).cloned())
            .collect();
        if let Some(package) = names.get(&node["id"].to_string()).and_then(|name| workspace.packages.get_mut(name)) {
            package.needs.extend(needs);
        }
    }
    Ok(workspace)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dev_dependencies_are_no_needs() {
        let metadata = r#"{
            "workspace_members": ["a 1"],
            "packages": [
                {"id": "a 1", "name": "a", "license": "MIT"},
                {"id": "b 1", "name": "b", "license": null},
                {"id": "c 1", "name": "c", "license": "MIT"}
            ],
            "resolve": {"nodes": [
                {"id": "a 1", "deps": [
                    {"pkg": "b 1", "dep_kinds": [{"kind": "dev"}, {"kind": null}]},
                    {"pkg": "c 1", "dep_kinds": [{"kind": "dev"}]}
                ]},
                {"id": "b 1", "deps": []},
                {"id": "c 1", "deps": []}
            ]}
        }"#;
        let workspace = parse(metadata).unwrap();
        let a = &workspace.packages["a"];
        assert_eq!(
            (a.member, a.licence.as_deref(), a.needs.iter().map(String::as_str).collect()),
            (true, Some("MIT"), vec!["b"])
        );
        assert!(!workspace.packages["b"].member);
    }
}
