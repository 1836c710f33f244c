//! Names of prefixes.

use std::fmt;

use sha2::{Digest, Sha256};
use vllm_platform::TokenId;

use crate::MediaMark;

/// Names a prefix by all of its tokens: the hash of a block is taken over the hash of the prefix before it and the
/// block's own tokens and the media that some of them stand for, so that equal hashes mean equal sequences from the first
/// token on.
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

    /// [`extend`](Self::extend) for tokens of which `media` (from the first token on) stand for vectors.
    #[must_use]
    pub fn extend_with_media(&self, tokens: &[TokenId], media: &[MediaMark]) -> Self {
        if media.is_empty() {
            return self.extend(tokens);
        }
        let mut hasher = Sha256::new();
        hasher.update(self.0);
        for token in tokens {
            hasher.update(token.to_le_bytes());
        }
        let number = |number: usize| (number as u64).to_le_bytes();
        for MediaMark { start, len, key, first } in media {
            hasher.update(number(*start));
            hasher.update(number(*len));
            hasher.update(key.0);
            hasher.update(number(*first));
        }
        hasher.update(number(media.len()));
        // A length that is no multiple of four: never what a block of text is hashed from.
        hasher.update([0]);
        Self::of(hasher)
    }

    /// Its first 64 bits: the name by which other processes are told of a block. A cache has far too few blocks for two of
    /// them to meet in it, and nothing is ever shared by this name.
    #[must_use]
    pub fn short(&self) -> u64 {
        self.0.iter().take(8).fold(0, |number, &byte| number << 8 | u64::from(byte))
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
    use vllm_platform::ContentHash;

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

    #[test]
    fn names_of_text_are_what_they_always_were() {
        // Or folders on SSDs would be of no use any more.
        let text = BlockHash::root(None).extend(&[1, 2, 3]);
        assert_eq!(text.to_string(), "ee5447bfd2e15e87a00d74107a878fbb");
        assert_eq!(text.short(), 0xee54_47bf_d2e1_5e87);
        assert_eq!(BlockHash::root(None).extend_with_media(&[1, 2, 3], &[]), text);
    }

    #[test]
    fn hashes_depend_on_what_the_tokens_show() {
        let root = BlockHash::root(None);
        let mark = |start, len, key, first| MediaMark { start, len, key: ContentHash([key; 16]), first };
        let lists: [&[MediaMark]; 9] = [
            &[],
            &[mark(0, 2, 1, 0)],
            &[mark(1, 2, 1, 0)],
            &[mark(0, 3, 1, 0)],
            &[mark(0, 2, 2, 0)],
            &[mark(0, 2, 1, 1)],
            &[mark(0, 1, 1, 0), mark(2, 1, 1, 0)],
            &[mark(0, 1, 1, 0), mark(2, 1, 2, 0)],
            &[mark(0, 1, 1, 0), mark(2, 1, 1, 2)],
        ];
        let mut seen: Vec<BlockHash> = lists.iter().map(|media| root.extend_with_media(&[5; 3], media)).collect();
        seen.push(root.extend_with_media(&[], lists[1]));
        let count = seen.len();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), count);
    }
}
