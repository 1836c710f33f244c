//! Every package we link must have a permissive licence.

use anyhow::{Result, bail};

use super::workspace::Workspace;

/// SPDX identifiers. A `WITH` exception only ever gives more freedom, so it doesn't matter.
const PERMISSIVE: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-1-Clause",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "CDLA-Permissive-2.0",
    "ISC",
    "MIT",
    "MIT-0",
    "NCSA",
    "Unicode-3.0",
    "Unicode-DFS-2016",
    "Unlicense",
    "Zlib",
    "bzip2-1.0.6",
];

/// Packages with another licence, that licence, and why they may stay.
const EXCEPTIONS: &[(&[&str], &str, &str)] = &[
    (
        &["option-ext"],
        "MPL-2.0",
        "comes with hf-hub (by dirs); its terms cover changes to its own one file, and we change nothing",
    ),
    (
        &[
            "symphonia",
            "symphonia-bundle-flac",
            "symphonia-bundle-mp3",
            "symphonia-codec-aac",
            "symphonia-codec-adpcm",
            "symphonia-codec-alac",
            "symphonia-codec-pcm",
            "symphonia-codec-vorbis",
            "symphonia-common",
            "symphonia-core",
            "symphonia-format-isomp4",
            "symphonia-format-mkv",
            "symphonia-format-ogg",
            "symphonia-format-riff",
            "symphonia-metadata",
        ],
        "MPL-2.0",
        "vllm-audio's decoders; its terms cover changes to its own files, and we change nothing",
    ),
    (
        &["language-tokenizer"],
        "",
        "comes with misaki-rs; its file names no licence by SPDX, but is the WTFPL, which allows all",
    ),
];

pub fn check(workspace: &Workspace) -> Result<()> {
    let faults: Vec<String> = workspace
        .packages
        .iter()
        .filter(|(name, package)| !package.member && !permitted(name, package.licence.as_deref().unwrap_or("")))
        .map(|(name, package)| format!("{name}: {}", package.licence.as_deref().unwrap_or("no licence")))
        .collect();
    if !faults.is_empty() {
        bail!("not a permissive licence:\n  {}\nThe list is in xtask/src/ci/licences.rs", faults.join("\n  "));
    }
    Ok(())
}

fn permitted(package: &str, licence: &str) -> bool {
    EXCEPTIONS.iter().any(|(names, known, _)| names.contains(&package) && *known == licence) || is_permissive(licence)
}

/// Whether an SPDX expression leaves a choice of permissive licences only. The old `A/B` means `A OR B`.
fn is_permissive(expression: &str) -> bool {
    let spaced = expression.replace('(', " ( ").replace(')', " ) ").replace('/', " OR ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let mut rest = words.as_slice();
    !rest.is_empty() && either(&mut rest) && rest.is_empty()
}

fn either(words: &mut &[&str]) -> bool {
    let mut permissive = both(words);
    while words.first() == Some(&"OR") {
        *words = &words[1..];
        permissive |= both(words);
    }
    permissive
}

fn both(words: &mut &[&str]) -> bool {
    let mut permissive = one(words);
    while words.first() == Some(&"AND") {
        *words = &words[1..];
        permissive &= one(words);
    }
    permissive
}

fn one(words: &mut &[&str]) -> bool {
    let Some((&word, rest)) = words.split_first() else { return false };
    *words = rest;
    if word == "(" {
        let inner = either(words);
        let closed = words.first() == Some(&")");
        *words = words.get(1..).unwrap_or_default();
        return inner && closed;
    }
    if words.first() == Some(&"WITH") {
        *words = words.get(2..).unwrap_or_default();
    }
    PERMISSIVE.contains(&word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_of_permissive_licences_is_enough() {
        let cases = [
            ("MIT", true),
            ("MIT OR Apache-2.0", true),
            ("MIT/Apache-2.0", true),
            ("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT", true),
            ("GPL-3.0 OR MIT", true),
            ("(MIT OR GPL-3.0) AND Unicode-3.0", true),
            ("MIT AND GPL-3.0", false),
            ("(MIT AND GPL-3.0) OR LGPL-2.1", false),
            ("GPL-3.0", false),
            ("MPL-2.0", false),
            ("", false),
            ("(MIT", false),
            ("MIT Apache-2.0", false),
        ];
        for (expression, wanted) in cases {
            assert_eq!(is_permissive(expression), wanted, "{expression}");
        }
    }
}
