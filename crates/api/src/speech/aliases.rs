//! Short names that the original vllm-mlx knows models by, for those that are served.

/// The names, besides its own, that a model answers to: of `mlx-community/whisper-large-v3-mlx` it is `whisper-large-v3`.
#[must_use]
pub fn aliases(model: &str) -> Vec<String> {
    let folder = model.trim_end_matches('/');
    let folder = folder.rsplit(['/', '\\']).next().unwrap_or(folder).to_ascii_lowercase();
    let mut short = folder.as_str();
    for ending in ["-mlx", "-fp16", "-bf16", "-fp32"] {
        short = short.strip_suffix(ending).unwrap_or(short);
    }
    let known = match short {
        "parakeet-tdt-0.6b-v2" => Some("parakeet"),
        "parakeet-tdt-0.6b-v3" => Some("parakeet-v3"),
        "kokoro-82m" => Some("kokoro"),
        "kokoro-82m-4bit" => Some("kokoro-4bit"),
        _ => None,
    };
    let mut names: Vec<String> =
        [Some(folder.as_str()), Some(short), known].into_iter().flatten().map(Into::into).collect();
    names.dedup();
    names.retain(|name| !name.is_empty() && name != model);
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_original() {
        let cases: [(&str, &[&str]); 8] = [
            ("mlx-community/whisper-large-v3-mlx", &["whisper-large-v3-mlx", "whisper-large-v3"]),
            ("mlx-community/whisper-large-v3-turbo", &["whisper-large-v3-turbo"]),
            ("openai/whisper-small", &["whisper-small"]),
            ("mlx-community/parakeet-tdt-0.6b-v2", &["parakeet-tdt-0.6b-v2", "parakeet"]),
            ("mlx-community/parakeet-tdt-0.6b-v3", &["parakeet-tdt-0.6b-v3", "parakeet-v3"]),
            ("mlx-community/Kokoro-82M-bf16", &["kokoro-82m-bf16", "kokoro-82m", "kokoro"]),
            ("/models/whisper-tiny.en/", &["whisper-tiny.en"]),
            ("whisper", &[]),
        ];
        for (model, wanted) in cases {
            assert_eq!(aliases(model), wanted, "{model}");
        }
    }
}
