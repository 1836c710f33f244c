//! The keys that open the server.

use std::sync::Arc;

use sha2::{Digest as _, Sha256};
use subtle::{ConditionallySelectable as _, ConstantTimeEq as _};

use crate::http::client;

/// Keys with the names of their owners. Only digests of the keys are kept.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct KeyRing(Vec<Key>);

#[derive(Debug, Clone, PartialEq)]
struct Key {
    owner: Arc<str>,
    digest: [u8; 32],
}

/// What is wrong with a key. Says where, and never the key.
#[derive(Debug, thiserror::Error)]
pub enum InvalidKey {
    /// No key at all.
    #[error("an API key is empty")]
    Empty,
    /// It could not be sent in a header, or was meant to be two.
    #[error("an API key has spaces or letters beyond ASCII: it must be of ASCII's visible characters")]
    Characters,
    /// A line of a file.
    #[error("line {line}: {problem}")]
    Line {
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        problem: Box<Self>,
    },
    /// More than a name and a key.
    #[error("must be a key, or a name and a key with a space between them")]
    Words,
    /// A file that opens the server to nobody, or to everybody.
    #[error("has no keys")]
    NoKeys,
}

impl KeyRing {
    /// Adds a key, for an owner of that name, or a nameless one of its own. Several keys of one owner are the same to the server.
    ///
    /// # Errors
    /// If it can't be a key.
    pub fn add(&mut self, owner: Option<&str>, key: &str) -> Result<(), InvalidKey> {
        if key.is_empty() {
            return Err(InvalidKey::Empty);
        }
        if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidKey::Characters);
        }
        let owner = owner.map_or_else(|| client::name_of(key.as_bytes()), Into::into);
        self.0.push(Key { owner, digest: digest(key.as_bytes()) });
        Ok(())
    }

    /// Adds the keys of a file: one a line, with its owner's name before it if wanted; `#` starts a comment line.
    ///
    /// # Errors
    /// If a line is something else, or there is no key.
    pub fn add_lines(&mut self, text: &str) -> Result<(), InvalidKey> {
        let before = self.0.len();
        for (index, line) in text.lines().enumerate() {
            let words: Vec<&str> = line.split_whitespace().collect();
            let added = match words[..] {
                [] => Ok(()),
                [first, ..] if first.starts_with('#') => Ok(()),
                [key] => self.add(None, key),
                [owner, key] => self.add(Some(owner), key),
                _ => Err(InvalidKey::Words),
            };
            added.map_err(|problem| InvalidKey::Line { line: index + 1, problem: Box::new(problem) })?;
        }
        // Whoever names a file wants the server closed: an empty one must not leave it open.
        if self.0.len() == before { Err(InvalidKey::NoKeys) } else { Ok(()) }
    }

    /// How many keys there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether the server is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The owner of a key. How long it takes doesn't tell how close a wrong key was, or which one a right key is. Of a key that was
    /// added twice, it is the last.
    #[must_use]
    pub fn owner(&self, key: &[u8]) -> Option<Arc<str>> {
        let digest = digest(key);
        let nobody = u64::MAX;
        let mut found = nobody;
        for (index, key) in (0..).zip(&self.0) {
            found.conditional_assign(&index, key.digest.ct_eq(&digest));
        }
        usize::try_from(found).ok().and_then(|found| self.0.get(found)).map(|key| Arc::clone(&key.owner))
    }
}

fn digest(key: &[u8]) -> [u8; 32] {
    Sha256::digest(key).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(text: &str) -> Result<KeyRing, String> {
        let mut ring = KeyRing::default();
        ring.add_lines(text).map_err(|error| error.to_string())?;
        Ok(ring)
    }

    #[test]
    fn keys_have_owners() {
        let ring = ring("# ours\nalice one\n\n  two \nalice\tthree\r\n  # end").unwrap();
        assert_eq!(ring.len(), 3);
        let owner = |key: &str| ring.owner(key.as_bytes());
        assert_eq!(owner("one").as_deref(), Some("alice"));
        assert_eq!(owner("three").as_deref(), Some("alice"));
        assert_eq!(owner("two"), Some(client::name_of(b"two")));
        for wrong in ["", "alice", "on", "ones", "One", "#", "alice one"] {
            assert_eq!(owner(wrong), None, "{wrong:?}");
        }
        assert_eq!(KeyRing::default().owner(b""), None);
    }

    #[test]
    fn files_that_are_no_key_files() {
        let cases = [
            ("", "has no keys"),
            ("# nothing\n\n", "has no keys"),
            ("good\na b secret", "line 2: must be a key, or a name and a key with a space between them"),
            (
                "schlüssel",
                "line 1: an API key has spaces or letters beyond ASCII: it must be of ASCII's visible characters",
            ),
        ];
        for (text, wanted) in cases {
            assert_eq!(ring(text).unwrap_err(), wanted, "{text:?}");
        }
        assert!(KeyRing::default().add(None, "").is_err());
        assert!(KeyRing::default().add(None, "a b").is_err());
    }

    #[test]
    fn nothing_shows_a_key() {
        let shown = format!("{:?}", ring("alice hunter2").unwrap());
        assert!(shown.contains("alice") && !shown.contains("hunter2"), "{shown}");
    }
}
