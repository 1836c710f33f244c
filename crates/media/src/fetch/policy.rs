//! From where media may be fetched.

use std::{net::IpAddr, path::PathBuf};

use crate::{MediaError, MediaErrorKind};

/// From where media may be fetched. By default from nowhere.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FetchPolicy {
    /// Hosts that may be asked over HTTP and HTTPS: `pictures.example.com` for this one, `*.example.com` or `.example.com` for
    /// all below `example.com`, `*` for all. An address of IPv6 stands without brackets.
    pub allowed_domains: Vec<String>,
    /// Whether a host that [`allowed_domains`](Self::allowed_domains) names by itself, not by a pattern, may be in a private
    /// network: on this machine or next to it. All others must have public addresses.
    pub allow_private_networks: bool,
    /// The folder whose files may be read, with what is below it.
    pub local_root: Option<PathBuf>,
}

/// How a host is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Allowed {
    ByPattern,
    ByName,
}

/// The hosts of a policy, in one form.
#[derive(Debug)]
pub(super) struct Domains {
    /// Without the stars: `.example.com`, or empty for all.
    patterns: Vec<String>,
    names: Vec<String>,
}

impl Domains {
    /// # Errors
    /// [`MediaErrorKind::Invalid`] for an entry that can't be a host's name, e.g. one with a path.
    pub fn new(entries: &[String]) -> Result<Self, MediaError> {
        let (mut patterns, mut names) = (vec![], vec![]);
        for entry in entries {
            let host = normal(entry.trim());
            let name = host.strip_prefix('*').unwrap_or(&host);
            let plausible = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
            // A star alone is all hosts: only as such, not as what remains of something else.
            let is_pattern = entry.trim() == "*" || name.starts_with('.') && name.len() > 1;
            if is_pattern && name.chars().all(plausible) {
                patterns.push(name.to_owned());
            } else if host.parse::<IpAddr>().is_ok() || !host.is_empty() && host.chars().all(plausible) && host != "." {
                names.push(host);
            } else {
                let message = format!("{entry} can't be allowed: give hosts like example.com, *.example.com or *");
                return Err(MediaError::new(MediaErrorKind::Invalid, message));
            }
        }
        Ok(Self { patterns, names })
    }

    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty() && self.names.is_empty()
    }

    /// Whether and how a host, as an address has it, is allowed.
    pub fn allow(&self, host: &str) -> Option<Allowed> {
        let host = normal(host.trim_start_matches('[').trim_end_matches(']'));
        if self.names.contains(&host) {
            return Some(Allowed::ByName);
        }
        let fits = |pattern: &String| host.len() > pattern.len() && host.ends_with(pattern.as_str());
        self.patterns.iter().any(fits).then_some(Allowed::ByPattern)
    }
}

/// A host's name in lower case and without the dot of the root; an address in its usual form.
fn normal(host: &str) -> String {
    match host.parse::<IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        let (name, pattern) = (Some(Allowed::ByName), Some(Allowed::ByPattern));
        let cases: [(&[&str], &str, Option<Allowed>); 18] = [
            (&[], "example.com", None),
            (&["example.com"], "example.com", name),
            (&["Example.COM."], "EXAMPLE.com.", name),
            (&["example.com"], "www.example.com", None),
            (&["example.com"], "badexample.com", None),
            (&["*.example.com"], "www.example.com", pattern),
            (&[".example.com"], "a.b.example.com", pattern),
            (&["*.example.com"], "example.com", None),
            (&["*.example.com"], ".example.com", None),
            (&["*.example.com"], "badexample.com", None),
            (&["*.example.com"], "example.com.evil.net", None),
            (&["*"], "anything", pattern),
            (&["*", "anything"], "anything", name),
            (&["127.0.0.1"], "127.0.0.1", name),
            (&["::1"], "[::1]", name),
            (&["0:0::1"], "[::1]", name),
            (&["::1"], "127.0.0.1", None),
            (&["a", "b"], "b", name),
        ];
        for (entries, host, wanted) in cases {
            let entries: Vec<String> = entries.iter().map(|&entry| entry.to_owned()).collect();
            assert_eq!(Domains::new(&entries).unwrap().allow(host), wanted, "{entries:?} {host}");
        }
    }

    #[test]
    fn entries_that_are_no_hosts() {
        for entry in [
            "",
            "https://example.com",
            "example.com/a",
            "example.com:80",
            "a b",
            "*example.com",
            "**",
            "*.",
            ".",
            "a*b",
        ] {
            assert!(Domains::new(&[entry.to_owned()]).is_err(), "{entry:?}");
        }
    }
}
