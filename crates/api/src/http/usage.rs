//! Tokens of a request, as responses, books and traces have them.

use std::ops::AddAssign;

use serde_json::{Value, json};

/// Tokens of all answers to one request; each prompt counts once.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of prompts.
    pub prompt_tokens: usize,
    /// Of these, tokens whose KV was found in the cache.
    pub cached_tokens: usize,
    /// Of the prompts' tokens, those that stand for images.
    pub image_tokens: usize,
    /// The same for videos.
    pub video_tokens: usize,
    /// Of the tokens for images and videos, those that no encoder had to look at for this request: their KV was found in the
    /// cache, or their features.
    pub cached_media_tokens: usize,
    /// Tokens generated.
    pub completion_tokens: usize,
}

impl Usage {
    /// OpenAI's `usage`. Tokens of media are only told of where there are some.
    #[must_use]
    pub fn to_json(self) -> Value {
        json!({
            "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "total_tokens": self.prompt_tokens + self.completion_tokens,
            "prompt_tokens_details": self.prompt_details(),
        })
    }

    /// What is known of the prompt's tokens.
    #[must_use]
    pub fn prompt_details(self) -> Value {
        let mut details = json!({ "cached_tokens": self.cached_tokens });
        if self.image_tokens + self.video_tokens > 0 {
            details["image_tokens"] = json!(self.image_tokens);
            details["video_tokens"] = json!(self.video_tokens);
            details["cached_media_tokens"] = json!(self.cached_media_tokens);
        }
        details
    }
}

impl AddAssign for Usage {
    fn add_assign(&mut self, other: Self) {
        self.prompt_tokens += other.prompt_tokens;
        self.cached_tokens += other.cached_tokens;
        self.image_tokens += other.image_tokens;
        self.video_tokens += other.video_tokens;
        self.cached_media_tokens += other.cached_media_tokens;
        self.completion_tokens += other.completion_tokens;
    }
}
