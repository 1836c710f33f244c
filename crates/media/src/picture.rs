//! What was decoded.

use std::{fmt, sync::Arc};

use sha2::{Digest, Sha256};
use vllm_platform::ContentHash;

/// An image, upright, without transparency. Cheap to clone.
#[derive(Clone, PartialEq, Eq)]
pub struct Picture {
    width: u32,
    height: u32,
    // Not `Arc<[u8]>`, into which the pixels would have to be copied.
    pixels: Arc<Vec<u8>>,
    hash: ContentHash,
}

impl Picture {
    /// Takes [height, width, 3]: red, green, blue.
    ///
    /// # Panics
    /// If there are more or fewer numbers than that.
    #[must_use]
    pub fn from_rgb(width: u32, height: u32, pixels: impl Into<Vec<u8>>) -> Self {
        let pixels = Arc::new(pixels.into());
        assert_eq!(pixels.len() as u64, u64::from(width) * u64::from(height) * 3, "{width}×{height} pixels");
        let mut hasher = Sha256::new();
        hasher.update(width.to_le_bytes());
        hasher.update(height.to_le_bytes());
        hasher.update(&*pixels);
        let mut hash = [0; 16];
        hash.copy_from_slice(&hasher.finalize()[..16]);
        Self { width, height, pixels, hash: ContentHash(hash) }
    }

    /// Columns.
    #[must_use]
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Rows.
    #[must_use]
    pub fn height(&self) -> u32 {
        self.height
    }

    /// [height, width, 3]: red, green, blue.
    #[must_use]
    pub fn pixels(&self) -> &[u8] {
        &self.pixels
    }

    /// Of its size and pixels, whatever file they came in.
    #[must_use]
    pub fn hash(&self) -> ContentHash {
        self.hash
    }
}

impl fmt::Debug for Picture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Picture({}×{}, {})", self.width, self.height, self.hash)
    }
}

/// A picture of a video.
#[derive(Debug, Clone, PartialEq)]
pub struct Frame {
    /// What is seen.
    pub picture: Picture,
    /// Seconds from the video's start.
    pub at: f64,
}

/// Pictures of a video, in order: those that were sampled, not all that it has.
#[derive(Debug, Clone, PartialEq)]
pub struct Video {
    /// At least one.
    pub frames: Vec<Frame>,
}
