//! Random names. Not for secrets.

use std::hash::{BuildHasher, Hasher, RandomState};

/// 32 hexadecimal digits that no other call in any process is likely to return.
pub(crate) fn hex_id() -> String {
    // Every RandomState has keys of its own, from the operating system.
    let word = |salt| {
        let mut hasher = RandomState::new().build_hasher();
        hasher.write_u8(salt);
        hasher.finish()
    };
    format!("{:016x}{:016x}", word(0), word(1))
}
