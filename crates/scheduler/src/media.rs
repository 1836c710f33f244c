//! Media in requests: where they stand, what names them, and where their features come from.

use std::{fmt::Debug, sync::Arc};

use vllm_platform::{ContentHash, Features, MediaSpan};

use crate::SubmitError;

/// A stretch of a prompt that stands for a picture, or for a part of one.
#[derive(Debug, Clone)]
pub struct RequestMedia {
    /// Where it stands. Its `features` are filled in by the engine.
    pub span: MediaSpan,
    /// Names what its features are: pixels, how they were processed, and the encoder that looks at them
    /// ([`VisionHandle::seen`](crate::VisionHandle::seen)). Spans of one picture have the same name.
    pub key: ContentHash,
    /// Where its features come from. Asked only if the span is not in the KV cache, and once for all spans of one name.
    pub features: Arc<dyn FeatureSource>,
}

/// Features that may have to be worked out first.
pub trait FeatureSource: Debug + Send + Sync {
    /// The features, or why there are none; `None`: not yet. The first call starts the work, and `wake` is called, on any
    /// thread, when it has ended. May be asked again after an answer, by which time the features may have been forgotten
    /// and the work starts anew.
    fn poll(&self, wake: &Wake) -> Option<Result<Arc<Features>, String>>;

    /// Where the features of the last answer came from; `None` if nobody keeps books on that.
    fn origin(&self) -> Option<FeatureOrigin> {
        None
    }
}

/// Called when there is news.
pub type Wake = Arc<dyn Fn() + Send + Sync>;

/// Where features came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FeatureOrigin {
    /// The encoder worked them out for this request.
    Encoded,
    /// The encoder was at it already, for somebody else.
    Joined,
    /// They were in memory.
    Memory,
    /// They were on the SSD.
    Ssd,
}

/// Whether media are where they can be, in a prompt of `prompt` tokens.
pub(crate) fn check(media: &[RequestMedia], prompt: usize) -> Result<(), SubmitError> {
    let mut before = 0;
    for (index, RequestMedia { span, .. }) in media.iter().enumerate() {
        let error = |what: String| Err(SubmitError::Media { index, what });
        let (start, len) = (span.start, span.len);
        if len == 0 {
            return error("stands for no token".into());
        }
        if start < before {
            return error(format!("begins at token {start}, and the one before it ends at {before}"));
        }
        if start.checked_add(len).is_none_or(|end| end > prompt) {
            return error(format!("has {len} tokens from {start} on, and the prompt has {prompt}"));
        }
        before = span.end();
    }
    Ok(())
}

/// The longest span that is computed in one step, whatever the step's limit; 0 if there is none.
pub(crate) fn longest_unsplit(media: &[RequestMedia]) -> usize {
    media.iter().filter(|m| m.span.bidirectional).map(|m| m.span.len).max().unwrap_or(0)
}
