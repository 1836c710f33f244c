//! `reasoning.encrypted_content`: the chain of thought in one string, for clients that store nothing here and hand it
//! back as it is. It hides nothing, for nothing is secret: the text stands beside it in the open.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};

/// Tells ours from those of other servers.
const MARK: &str = "vllm-mlx-1.";

/// A chain of thought as a string that nobody needs to look into.
pub fn seal(text: &str) -> String {
    format!("{MARK}{}", URL_SAFE_NO_PAD.encode(text))
}

/// What was sealed; `None` if it wasn't, or not here.
pub fn unseal(sealed: &str) -> Option<String> {
    let bytes = URL_SAFE_NO_PAD.decode(sealed.strip_prefix(MARK)?).ok()?;
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_comes_back() {
        for text in ["", "Let me see…", "ÿ\n\"quoted\""] {
            assert_eq!(unseal(&seal(text)).as_deref(), Some(text));
        }
        for foreign in ["", "gAAAAABo", "vllm-mlx-1.*", "vllm-mlx-1._w"] {
            assert_eq!(unseal(foreign), None, "{foreign}");
        }
    }
}
