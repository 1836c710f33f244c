//! Media, fetched and decoded.

use std::time::Instant;

use axum::http::StatusCode;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use vllm_media::{Loader, MediaError, MediaErrorKind};

use super::{
    part::{Given, MediaPart},
    taken::Media,
};
use crate::{http::ApiError, vision::Medium};

/// Fetches and decodings of one request that are under way at once; the loader bounds those of all requests.
const AT_ONCE: usize = 8;

impl Media {
    /// Fetches and decodes all of them.
    ///
    /// # Errors
    /// 4xx naming the part that can't be had.
    pub async fn load(&mut self, loader: &Loader) -> Result<(), ApiError> {
        if self.parts.is_empty() {
            return Ok(());
        }
        let start = Instant::now();
        let (sampling, frames) = (self.options.sampling, self.frames);
        let one = |part: &MediaPart| {
            let given = part.given.clone();
            async move {
                let medium = match given {
                    Given::Image { source, detail } => Medium::Image(loader.picture(&source).await?, detail),
                    Given::Video { source, sampling: own } => {
                        let sampling = own.or(sampling).over(frames);
                        Medium::Video(loader.video(&source, &sampling).await?)
                    }
                    Given::Frames { sources, sampling: own } => {
                        let sampling = own.or(sampling).over(frames);
                        if let Some(most) = sampling.max_frames.filter(|&most| most < sources.len()) {
                            let message = format!("the video has {} frames: {most} are allowed", sources.len());
                            return Err(MediaError::new(MediaErrorKind::TooLarge, message));
                        }
                        Medium::Video(loader.frames(&sources, sampling.fps).await?)
                    }
                };
                Ok(medium)
            }
        };
        let indexed = self.parts.iter().enumerate().map(|(index, part)| {
            let load = one(part);
            async move { load.await.map_err(|error| (index, error)) }
        });
        let loaded = stream::iter(indexed.collect::<Vec<_>>()).buffered(AT_ONCE).try_collect::<Vec<Medium>>().await;
        self.loaded = loaded.map_err(|(index, error)| self.error(index, &error))?;
        self.took = Some((start, Instant::now()));
        Ok(())
    }

    /// Number `index`, decoded.
    ///
    /// # Errors
    /// 500 before it was [loaded](Self::load).
    pub fn loaded(&self, index: usize) -> Result<&Medium, ApiError> {
        self.loaded.get(index).ok_or_else(|| ApiError::engine("an image of the request was not loaded"))
    }

    /// What is said of number `index` if it can't be had.
    #[must_use]
    pub fn error(&self, index: usize, error: &MediaError) -> ApiError {
        media_error(self.parts.get(index).map_or("messages", |part| &part.at), error)
    }

    /// When they were fetched and decoded, if there were some.
    #[must_use]
    pub fn took(&self) -> Option<(Instant, Instant)> {
        self.took
    }
}

/// What is said of what stands at `at` if it can't be had.
pub fn media_error(at: &str, error: &MediaError) -> ApiError {
    let (status, code) = match error.kind {
        MediaErrorKind::Invalid => (StatusCode::BAD_REQUEST, "invalid_media"),
        MediaErrorKind::Unsupported => (StatusCode::BAD_REQUEST, "unsupported_media"),
        MediaErrorKind::TooLarge => (StatusCode::PAYLOAD_TOO_LARGE, "media_too_large"),
        MediaErrorKind::Forbidden => (StatusCode::BAD_REQUEST, "media_forbidden"),
        MediaErrorKind::Unreachable => (StatusCode::BAD_REQUEST, "media_unreachable"),
        MediaErrorKind::Timeout => (StatusCode::REQUEST_TIMEOUT, "media_timeout"),
    };
    ApiError::new(status, code, format!("{at}: {}", error.message)).with_param(at)
}
