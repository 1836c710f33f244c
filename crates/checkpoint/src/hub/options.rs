//! Where the hub and the cache are.

use std::fmt;
use std::path::PathBuf;

use super::HubError;

/// How to reach the hub; [`from_env`](Self::from_env) reads what every Hugging Face tool reads.
#[derive(Clone, Default)]
pub struct HubOptions {
    /// Address of the hub (`HF_ENDPOINT`); `None`: the public one.
    pub endpoint: Option<String>,
    /// Access token (`HF_TOKEN`); sent to the hub only.
    pub token: Option<String>,
    /// Root of the cache (`HF_HUB_CACHE`), which holds `models--org--name` folders.
    pub cache: Option<PathBuf>,
    /// Branch, tag or commit for ids that name none; `None`: `main`.
    pub revision: Option<String>,
    /// Use the cache only (`HF_HUB_OFFLINE`).
    pub offline: bool,
    /// PEM file of certificate authorities to trust instead of the built-in ones (`SSL_CERT_FILE`), for networks that
    /// inspect TLS.
    pub authorities: Option<PathBuf>,
}

impl HubOptions {
    /// From the environment: `HF_ENDPOINT`, `HF_TOKEN` (else the token that `hf auth login` saved), `HF_HUB_CACHE` (else
    /// `HF_HOME`, else `XDG_CACHE_HOME`, else `~/.cache`), `HF_HUB_OFFLINE`, `SSL_CERT_FILE`.
    pub fn from_env() -> Self {
        Self::from_vars(|name| std::env::var(name).ok(), std::env::home_dir())
    }

    /// [`from_env`](Self::from_env) with the variables and the home folder given; empty variables count as unset.
    pub fn from_vars(var: impl Fn(&str) -> Option<String>, home: Option<PathBuf>) -> Self {
        let var = |name: &str| var(name).map(|v| v.trim().to_owned()).filter(|v| !v.is_empty());
        let path = |name: &str| var(name).map(PathBuf::from);
        let hugging_face = path("HF_HOME")
            .or_else(|| path("XDG_CACHE_HOME").map(|cache| cache.join("huggingface")))
            .or_else(|| home.map(|home| home.join(".cache/huggingface")));
        let saved_token = || {
            let file = path("HF_TOKEN_PATH").or_else(|| Some(hugging_face.as_ref()?.join("token")))?;
            let token = std::fs::read_to_string(file).ok()?;
            Some(token.trim().to_owned()).filter(|token| !token.is_empty())
        };
        Self {
            endpoint: var("HF_ENDPOINT"),
            token: var("HF_TOKEN").or_else(|| var("HUGGING_FACE_HUB_TOKEN")).or_else(saved_token),
            cache: path("HF_HUB_CACHE")
                .or_else(|| path("HUGGINGFACE_HUB_CACHE"))
                .or_else(|| hugging_face.as_ref().map(|root| root.join("hub"))),
            revision: None,
            offline: var("HF_HUB_OFFLINE")
                .is_some_and(|v| matches!(v.to_ascii_lowercase().as_str(), "1" | "true" | "yes" | "on")),
            authorities: path("SSL_CERT_FILE").or_else(|| path("REQUESTS_CA_BUNDLE")),
        }
    }

    pub(super) fn cache_dir(&self) -> Result<PathBuf, HubError> {
        self.cache.clone().ok_or_else(|| {
            HubError::Options(
                "no cache folder for models: set HF_HUB_CACHE or HF_HOME, there is no home folder".to_owned(),
            )
        })
    }
}

impl fmt::Debug for HubOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HubOptions")
            .field("endpoint", &self.endpoint)
            .field("token", &self.token.as_ref().map(|_| "…"))
            .field("cache", &self.cache)
            .field("revision", &self.revision)
            .field("offline", &self.offline)
            .field("authorities", &self.authorities)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(vars: &[(&str, &str)]) -> HubOptions {
        let var = |name: &str| vars.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        HubOptions::from_vars(var, Some(PathBuf::from("/home/u")))
    }

    #[test]
    fn the_cache_is_where_other_tools_have_it() {
        let cases: [(&[(&str, &str)], &str); 6] = [
            (&[], "/home/u/.cache/huggingface/hub"),
            (&[("XDG_CACHE_HOME", "/x")], "/x/huggingface/hub"),
            (&[("HF_HOME", "/h"), ("XDG_CACHE_HOME", "/x")], "/h/hub"),
            (&[("HF_HUB_CACHE", "/c"), ("HF_HOME", "/h")], "/c"),
            (&[("HUGGINGFACE_HUB_CACHE", "/old"), ("HF_HOME", "/h")], "/old"),
            (&[("HF_HUB_CACHE", ""), ("HF_HOME", "/h")], "/h/hub"),
        ];
        for (vars, wanted) in cases {
            assert_eq!(options(vars).cache.as_deref(), Some(wanted.as_ref()), "{vars:?}");
        }
        let homeless = HubOptions::from_vars(|_| None, None);
        assert!(homeless.cache_dir().unwrap_err().to_string().contains("set HF_HUB_CACHE"));
    }

    #[test]
    fn the_token_comes_from_the_variable_or_the_saved_file() {
        let home = tempfile::tempdir().unwrap();
        std::fs::write(home.path().join("token"), "saved\n").unwrap();
        let root = home.path().to_str().unwrap();
        assert_eq!(options(&[("HF_HOME", root)]).token.as_deref(), Some("saved"));
        assert_eq!(options(&[("HF_HOME", root), ("HF_TOKEN", "given")]).token.as_deref(), Some("given"));
        assert_eq!(options(&[]).token, None);
    }

    #[test]
    fn offline_is_a_switch_and_debug_hides_the_token() {
        for (value, wanted) in [("1", true), ("TRUE", true), ("0", false), ("", false), ("no", false)] {
            assert_eq!(options(&[("HF_HUB_OFFLINE", value)]).offline, wanted, "{value:?}");
        }
        assert!(!format!("{:?}", options(&[("HF_TOKEN", "hf_secret")])).contains("secret"));
    }
}
