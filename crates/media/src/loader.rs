//! From where a client says to what a model sees.

use std::{
    fmt,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};
use tokio::{sync::Semaphore, task::spawn_blocking};

use crate::{
    FetchPolicy, Limits, MediaError, MediaErrorKind, Picture, Remembered, Sampling, Source, Video, decode_picture,
    decode_video,
    fetch::{Fetcher, Folder},
    limits::check_bytes,
    recent::{Decoded, Key, Recent},
    video::check_frames,
};

/// Of so many files, each of which may be one that is just being decoded, one at a time is.
const LANES: usize = 64;

/// Fetches and decodes pictures and videos.
///
/// What it has decoded it remembers for a while by the SHA-256 of the file, so that a picture that comes with each turn of a
/// conversation is decoded once. An address is asked each time it comes, though: what it has may have changed.
///
/// ```
/// use vllm_media::{FetchPolicy, Limits, Loader, MediaErrorKind, Source};
///
/// # tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
/// let loader = Loader::new(&FetchPolicy::default(), Limits::default(), 64 << 20)?;
/// let gif = "data:image/gif;base64,R0lGODdhAQABAIAAAP8AAP///ywAAAAAAQABAAACAkQBADs=";
/// let picture = loader.picture(&Source::parse(gif)?).await?;
/// assert_eq!(picture.pixels(), [255, 0, 0]);
///
/// let error = loader.picture(&Source::parse("https://example.com/a.png")?).await.unwrap_err();
/// assert_eq!(error.kind, MediaErrorKind::Forbidden);
/// # Ok::<_, vllm_media::MediaError>(())
/// # })?;
/// # Ok::<_, Box<dyn std::error::Error>>(())
/// ```
pub struct Loader {
    fetcher: Fetcher,
    folder: Option<Arc<Folder>>,
    limits: Arc<Limits>,
    decoding: Arc<Semaphore>,
    lanes: [tokio::sync::Mutex<()>; LANES],
    recent: Mutex<Recent>,
}

impl Loader {
    /// A loader that remembers up to `remembered` bytes of pixels.
    ///
    /// # Errors
    /// [`MediaErrorKind::Invalid`] for a domain that can't be one, and for a folder that isn't there.
    pub fn new(policy: &FetchPolicy, limits: Limits, remembered: usize) -> Result<Self, MediaError> {
        Ok(Self {
            fetcher: Fetcher::new(policy)?,
            folder: policy.local_root.as_deref().map(Folder::new).transpose()?.map(Arc::new),
            decoding: Arc::new(Semaphore::new(limits.decodes.max(1))),
            limits: Arc::new(limits),
            lanes: [const { tokio::sync::Mutex::const_new(()) }; LANES],
            recent: Mutex::new(Recent::new(remembered)),
        })
    }

    /// The picture at `source`.
    ///
    /// # Errors
    /// [`MediaErrorKind::Forbidden`] for a place from which nothing may be read, [`MediaErrorKind::Unreachable`] and
    /// [`MediaErrorKind::Timeout`] if it can't be had from there; then as [`decode_picture`].
    pub async fn picture(&self, source: &Source) -> Result<Picture, MediaError> {
        let bytes = self.bytes("picture", source, self.limits.image_bytes).await?;
        let decoded = self.decoded(bytes, None, |bytes, limits| decode_picture(bytes, limits).map(Decoded::Picture));
        match decoded.await? {
            Decoded::Picture(picture) => Ok(picture),
            Decoded::Video(_) => unreachable!("a video under a picture's key"),
        }
    }

    /// The frames of the video at `source`.
    ///
    /// # Errors
    /// As [`Self::picture`], and [`decode_video`].
    pub async fn video(&self, source: &Source, sampling: &Sampling) -> Result<Video, MediaError> {
        let bytes = self.bytes("video", source, self.limits.video_bytes).await?;
        let chosen = *sampling;
        let decode = move |bytes: &[u8], limits: &Limits| decode_video(bytes, &chosen, limits).map(Decoded::Video);
        match self.decoded(bytes, Some(sampling), decode).await? {
            Decoded::Video(video) => Ok(video),
            Decoded::Picture(_) => unreachable!("a picture under a video's key"),
        }
    }

    /// The video whose frames are at `sources`, all of them, `fps` a second; 2 if not given.
    ///
    /// # Errors
    /// As [`Self::picture`], and [`Video::from_frames`].
    pub async fn frames(&self, sources: &[Source], fps: Option<f64>) -> Result<Video, MediaError> {
        check_frames(sources.len(), &self.limits)?;
        let mut pictures = Vec::with_capacity(sources.len());
        for source in sources {
            pictures.push(self.picture(source).await?);
        }
        Video::from_frames(pictures, fps, &self.limits)
    }

    /// The schemes of addresses that it may read from.
    #[must_use]
    pub fn schemes(&self) -> Vec<&'static str> {
        let network: &[_] = if self.fetcher.may_fetch() { &["http", "https"] } else { &[] };
        let files: &[_] = if self.folder.is_some() { &["file"] } else { &[] };
        [network, &["data"], files].concat()
    }

    /// What it remembers.
    #[must_use]
    pub fn remembered(&self) -> Remembered {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).counts()
    }

    /// Forgets all that it remembers.
    pub fn forget(&self) {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    async fn bytes(&self, what: &'static str, source: &Source, allowed: usize) -> Result<Bytes, MediaError> {
        match source {
            Source::Bytes(bytes) => {
                check_bytes(what, bytes.len(), allowed)?;
                Ok(bytes.clone())
            }
            Source::Url(url) => self.fetcher.fetch(what, url, allowed, self.limits.fetch_time).await,
            Source::Path(path) => self.file(what, path, allowed).await,
        }
    }

    async fn file(&self, what: &'static str, path: &Path, allowed: usize) -> Result<Bytes, MediaError> {
        let Some(folder) = self.folder.clone() else {
            let message = "files of the server can't be read: it was started without --allowed-local-media-path";
            return Err(MediaError::new(MediaErrorKind::Forbidden, message));
        };
        let path = path.to_owned();
        blocking(move || folder.read(what, &path, allowed)).await
    }

    /// What a file is, remembered or decoded.
    async fn decoded(
        &self,
        bytes: Bytes,
        sampling: Option<&Sampling>,
        decode: impl FnOnce(&[u8], &Limits) -> Result<Decoded, MediaError> + Send + 'static,
    ) -> Result<Decoded, MediaError> {
        let hashed = bytes.clone();
        let file: [u8; 32] = blocking(move || Ok(Sha256::digest(&hashed).into())).await?;
        let key = Key { file, sampling: sampling.map(Into::into) };
        // Whoever comes with the same file while it is decoded waits, and then finds it.
        let _lane = self.lanes[usize::from(file[0]) % LANES].lock().await;
        if let Some(decoded) = self.recent.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(decoded);
        }
        // Kept by the work itself: whoever asked may be gone before it is done.
        let Ok(permit) = self.decoding.clone().acquire_owned().await else { unreachable!("never closed") };
        let limits = self.limits.clone();
        let decoded = blocking(move || {
            let decoded = decode(&bytes, &limits);
            drop(permit);
            decoded
        });
        let decoded = decoded.await?;
        self.recent.lock().unwrap_or_else(PoisonError::into_inner).insert(key, decoded.clone());
        Ok(decoded)
    }
}

impl fmt::Debug for Loader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loader")
            .field("limits", &self.limits)
            .field("remembered", &self.remembered())
            .finish_non_exhaustive()
    }
}

/// Runs what takes long where nobody waits for it.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, MediaError> + Send + 'static,
) -> Result<T, MediaError> {
    spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(MediaError::new(MediaErrorKind::Unsupported, format!("reading it was broken off: {error}")))
    })
}
