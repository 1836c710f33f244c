//! Who asks: a name for a client's key that tells nobody the key.

use std::sync::{Arc, LazyLock};

use axum::http::{HeaderMap, header};
use sha2::{Digest as _, Sha256};

/// Of this process only, so that a name in a log can't be looked up in a table of hashed keys.
static SALT: LazyLock<String> = LazyLock::new(crate::random::hex_id);

/// A name for the key in `Authorization: Bearer` or `x-api-key`; the same for the same key as long as the process
/// lives. `None` without a key.
pub fn identity(headers: &HeaderMap) -> Option<Arc<str>> {
    let bearer = headers.get(header::AUTHORIZATION).and_then(|value| {
        let (scheme, key) = value.as_bytes().split_at_checked(b"bearer ".len())?;
        scheme.eq_ignore_ascii_case(b"bearer ").then_some(key)
    });
    let key = bearer.or_else(|| headers.get("x-api-key").map(|value| value.as_bytes()))?.trim_ascii();
    if key.is_empty() {
        return None;
    }
    let digest = Sha256::new().chain_update(SALT.as_bytes()).chain_update(key).finalize();
    Some(digest[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>().into())
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn of(name: &'static str, value: &'static str) -> Option<Arc<str>> {
        identity(&HeaderMap::from_iter([(name.parse().unwrap(), HeaderValue::from_static(value))]))
    }

    #[test]
    fn a_key_has_one_name_that_does_not_show_it() {
        let name = of("authorization", "Bearer secret").unwrap();
        assert!(!name.contains("secret"));
        assert_eq!(of("authorization", "bearer secret").as_ref(), Some(&name));
        assert_eq!(of("x-api-key", "secret").as_ref(), Some(&name));
        assert_ne!(of("x-api-key", "Secret").unwrap(), name);
        for (header, value) in [("authorization", "Basic secret"), ("authorization", "Bearer "), ("x-api-key", " ")] {
            assert_eq!(of(header, value), None, "{header}: {value}");
        }
    }
}
