//! From a body to what the engine computes, in stages: parsing, fetching images and videos, preparing.

use super::{ApiError, App, blocking, chat::ChatRequest, media::Media};

/// A body that was understood.
pub trait WithMedia {
    /// The images and videos in it.
    fn media(&mut self) -> Option<&mut Media>;
}

impl WithMedia for ChatRequest {
    fn media(&mut self) -> Option<&mut Media> {
        Some(&mut self.media)
    }
}

/// A body that was understood, and is ready to be computed.
pub struct Staged<R, P> {
    pub request: R,
    pub prepared: P,
}

/// Parses and prepares a request off the async workers, in one go where it has no media; those are fetched in between.
pub async fn staged<R: WithMedia + Send + 'static, P: Send + 'static>(
    app: &App,
    parse: impl FnOnce() -> Result<R, ApiError> + Send + 'static,
    prepare: impl FnOnce(&mut R) -> Result<P, ApiError> + Send + 'static,
) -> Result<Staged<R, P>, ApiError> {
    let done = move |mut request: R| {
        let prepared = prepare(&mut request)?;
        Ok(Staged { request, prepared })
    };
    let first = blocking(move || {
        let mut request = parse()?;
        let waits = request.media().is_some_and(|media| !media.is_empty());
        Ok(if waits { Err((request, done)) } else { Ok(done(request)?) })
    });
    match first.await? {
        Ok(staged) => Ok(staged),
        Err((mut request, done)) => {
            if let Some(media) = request.media() {
                let none = || ApiError::engine("this server has nothing to read images with");
                media.load(app.loader.as_deref().ok_or_else(none)?).await?;
            }
            blocking(move || done(request)).await
        }
    }
}
