//! Images and videos that the user of a command names: their own files, and what they ask to be fetched.

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::runtime::Runtime;
use vllm_media::{FetchPolicy, Limits, Loader, Source};

use super::media_args::FileArgs;
use crate::{http::Sampling, model::ServedModel, vision::Medium};

/// Reads them.
#[derive(Debug)]
pub struct Files {
    loader: Loader,
    runtime: Runtime,
}

impl Files {
    /// May read all that the user may, and fetch from any host with a public address.
    ///
    /// # Errors
    /// If there can be no threads for it.
    pub fn new() -> anyhow::Result<Self> {
        let policy = FetchPolicy {
            allowed_domains: vec!["*".to_owned()],
            local_root: Some("/".into()),
            ..FetchPolicy::default()
        };
        let loader = Loader::new(&policy, Limits::default(), 0)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        Ok(Self { loader, runtime })
    }

    /// Those of a command line, images first.
    ///
    /// # Errors
    /// If one can't be read, or the model doesn't take it.
    pub fn open(&self, model: &ServedModel, args: &FileArgs) -> anyhow::Result<Vec<Medium>> {
        let images = args.image.iter().map(|file| self.image(model, file));
        let videos = args.video.iter().map(|file| self.video(model, file, args.frames.sampling()));
        images.chain(videos).collect()
    }

    /// An image.
    ///
    /// # Errors
    /// As above.
    pub fn image(&self, model: &ServedModel, file: &str) -> anyhow::Result<Medium> {
        let (images, _) = model.media();
        if !images {
            bail!("{file}: this model takes text only");
        }
        let picture = self.runtime.block_on(self.loader.picture(&source(file)?));
        Ok(Medium::Image(picture.with_context(|| file.to_owned())?, vllm_media::Detail::Auto))
    }

    /// A video.
    ///
    /// # Errors
    /// As above.
    pub fn video(&self, model: &ServedModel, file: &str, sampling: Sampling) -> anyhow::Result<Medium> {
        let (_, videos) = model.media();
        if !videos {
            bail!("{file}: this model takes no videos");
        }
        let video = self.runtime.block_on(self.loader.video(&source(file)?, &sampling.over(model.frames())));
        Ok(Medium::Video(video.with_context(|| file.to_owned())?))
    }
}

/// Paths are those of the working folder, as everywhere on a command line.
fn source(file: &str) -> anyhow::Result<Source> {
    Ok(match Source::parse(file)? {
        Source::Path(path) => Source::Path(std::path::absolute(path)?),
        other => other,
    })
}

/// Content of a message that shows media and then says `text`.
#[must_use]
pub fn content(text: &str, media: &[Medium]) -> Value {
    if media.is_empty() {
        return Value::String(text.to_owned());
    }
    let parts = media.iter().map(|medium| match medium {
        Medium::Image(..) => json!({ "type": "image" }),
        Medium::Video(_) => json!({ "type": "video" }),
    });
    parts.chain([json!({ "type": "text", "text": text })]).collect()
}
