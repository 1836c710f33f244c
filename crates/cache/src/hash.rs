//! Names of prefixes.

use std::fmt;

use sha2::{Digest, Sha256};
use vllm_platform::TokenId;

/// Names a prefix by all of its tokens: the hash of a block is taken over the hash of the prefix before it and the
/// block's own tokens, so that equal hashes mean equal sequences from the first token on.
///
/// 128 bits of SHA-256: nobody can make up a prompt that finds another's blocks.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockHash(pub [u8; 16]);

impl BlockHash {
    /// The empty prefix. Different salts never share anything.
    #[must_use]
    pub fn root(salt: Option<&str>) -> Self {
        let mut hasher = Sha256::new();
        hasher.update([u8::from(salt.is_some())]);
        hasher.update(salt.unwrap_or_default());
        Self::of(hasher)
    }

    /// The prefix that `tokens` more make of this one.
    #[must_use]
    pub fn extend(&self, tokens: &[TokenId]) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(self.0);
        for token in tokens {
            hasher.update(token.to_le_bytes());
        }
        Self::of(hasher)
    }

    fn of(hasher: Sha256) -> Self {
        let mut hash = [0; 16];
        hash.copy_from_slice(&hasher.finalize()[..16]);
        Self(hash)
    }
}

/// 32 hexadecimal digits.
impl fmt::Display for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for BlockHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_depend_on_salt_tokens_and_where_they_stand() {
        let roots = [None, Some(""), Some("a"), Some("b")].map(BlockHash::root);
        let mut seen: Vec<BlockHash> = roots.to_vec();
        for root in roots {
            seen.extend([
                root.extend(&[1]),
                root.extend(&[1, 2]),
                root.extend(&[2, 1]),
                root.extend(&[1]).extend(&[2]),
            ]);
        }
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
        assert_eq!(BlockHash::root(None).to_string().len(), 32);
    }
}
