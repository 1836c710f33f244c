//! What a user types for a model: `org/name@revision:file`.

use super::HubError;

/// A model on the hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Reference {
    /// `org/name`.
    pub(super) repo: String,
    /// Branch, tag or commit.
    pub(super) revision: String,
    /// A GGUF file of the repository, or part of its name.
    pub(super) file: Option<String>,
}

impl Reference {
    pub(super) fn parse(model: &str, revision: Option<&str>) -> Result<Self, HubError> {
        let refuse = || HubError::NotAName { model: model.to_owned() };
        let (rest, file) = match model.split_once(':') {
            Some((rest, file)) => (rest, Some(file)),
            None => (model, None),
        };
        let (repo, at) = match rest.split_once('@') {
            Some((repo, at)) => (repo, Some(at)),
            None => (rest, None),
        };
        let (owner, name) = repo.split_once('/').ok_or_else(refuse)?;
        let revision = at.or(revision).unwrap_or("main");
        let plain = |part: &str| {
            !part.is_empty()
                && !part.starts_with(['.', '-'])
                && part.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_'))
        };
        // A branch may hold slashes; it becomes a path in the cache.
        let sound = plain(owner)
            && plain(name)
            && !name.ends_with(".gguf")
            && revision.split('/').all(plain)
            && file.is_none_or(is_plain_path);
        if !sound {
            return Err(refuse());
        }
        Ok(Self { repo: repo.to_owned(), revision: revision.to_owned(), file: file.map(str::to_owned) })
    }

    /// Whether the revision is a full commit hash.
    pub(super) fn is_commit(&self) -> bool {
        self.revision.len() == 40 && self.revision.chars().all(|c| c.is_ascii_hexdigit())
    }
}

/// Whether a file name of a repository stays inside it: relative, and without `..`.
pub(super) fn is_plain_path(path: &str) -> bool {
    !path.contains(['\\', '\0', ':']) && path.split('/').all(|part| !matches!(part, "" | "." | ".."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read_as_written() {
        let cases = [
            ("org/name", None, Some(("org/name", "main", None))),
            ("org/name", Some("v2"), Some(("org/name", "v2", None))),
            ("org/name@v1", Some("v2"), Some(("org/name", "v1", None))),
            ("org/name@refs/pr/1:Q4_K_M", None, Some(("org/name", "refs/pr/1", Some("Q4_K_M")))),
            ("org/a.b-c_d:sub/x.gguf", None, Some(("org/a.b-c_d", "main", Some("sub/x.gguf")))),
            ("name", None, None),
            ("folder/model.gguf", None, None),
            ("a/b/c", None, None),
            ("/abs/path", None, None),
            ("./here", None, None),
            ("../up", None, None),
            ("org/", None, None),
            ("org/name@../x", None, None),
            ("org/name:../x.gguf", None, None),
            ("org/na me", None, None),
            ("", None, None),
        ];
        for (model, revision, wanted) in cases {
            let found = Reference::parse(model, revision).ok();
            let found = found.as_ref().map(|r| (r.repo.as_str(), r.revision.as_str(), r.file.as_deref()));
            assert_eq!(found, wanted, "{model}");
        }
    }
}
