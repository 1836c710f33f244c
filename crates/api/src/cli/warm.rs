//! Prompts whose beginnings are computed at the start, so that the first request that has one finds it in the prefix cache.

use std::path::Path;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use vllm_platform::TokenId;
use vllm_scheduler::{Event, Request};

use crate::{
    http::{Media, normalise_messages},
    model::{ChatPrompt, ServedModel},
};

/// Conversations of a file, as the original has it: a JSON list of lists of messages.
///
/// # Errors
/// What is wrong with the file, on one line.
pub fn read(path: &Path) -> anyhow::Result<Vec<Vec<Value>>> {
    let shown = path.display();
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {shown}"))?;
    let prompts: Vec<Vec<Value>> =
        serde_json::from_str(&text).with_context(|| format!("{shown} must hold a JSON list of lists of messages"))?;
    prompts
        .into_iter()
        .enumerate()
        .map(|(index, messages)| {
            // Text only: what stands before what a user says is instructions.
            let messages = normalise_messages(messages, &mut Media::default());
            messages.map_err(|error| anyhow::anyhow!("{shown}: prompt {index}: {}", error.message()))
        })
        .collect()
}

/// What all conversations have in common that begin as `messages` does, whatever their user says next. Blocks.
fn beginning(model: &ServedModel, messages: &[Value]) -> anyhow::Result<Vec<TokenId>> {
    let with = |text: &str| {
        let mut messages = messages.to_vec();
        let user = json!({ "role": "user", "content": text });
        match messages.last_mut() {
            Some(last) if last.get("role").is_some_and(|role| role == "user") => *last = user,
            _ => messages.push(user),
        }
        model.chat_prompt(&ChatPrompt { messages, ..ChatPrompt::default() })
    };
    // Different from their first letters on.
    let (one, other) = (with("apples")?.tokens, with("Zurich")?.tokens);
    Ok(one.into_iter().zip(other).take_while(|(a, b)| a == b).map(|(token, _)| token).collect())
}

/// Computes the beginnings, all at once; returns how many tokens they have.
///
/// # Errors
/// A prompt that the model's template refuses or its context has no room for.
pub async fn warm(model: &ServedModel, prompts: &[Vec<Value>]) -> anyhow::Result<usize> {
    let mut streams = Vec::with_capacity(prompts.len());
    let mut tokens = 0;
    for (index, messages) in prompts.iter().enumerate() {
        let prompt = beginning(model, messages).with_context(|| format!("warm prompt {index}"))?;
        ensure!(!prompt.is_empty(), "warm prompt {index}: nothing stands before what the user says");
        tokens += prompt.len();
        let request = Request { prompt, ..Request::new(format!("warm-{index}")) };
        streams.push(model.engine.submit(request).with_context(|| format!("warm prompt {index}"))?);
    }
    for mut stream in streams {
        while let Some(event) = stream.next().await {
            if let Event::Failed(failure) = event {
                bail!("a warm prompt was not computed: {failure}");
            }
        }
    }
    Ok(tokens)
}
