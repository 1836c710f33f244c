//! Flags on images and videos.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Args;
use vllm_media::{FetchPolicy, Limits, Loader};

use super::args::{at_least_one, bytes, bytes_or_none, positive};
use crate::http::{MediaLimits, Sampling};

/// Which frames of videos are seen.
#[derive(Debug, Clone, Args)]
pub struct FrameArgs {
    /// Frames seen of each second of a video [default: as the model is used to, mostly 2]
    #[arg(long, value_name = "FPS", value_parser = positive)]
    video_fps: Option<f64>,
    /// Most frames seen of a video [default: 64]
    #[arg(long, value_name = "N", value_parser = at_least_one)]
    video_max_frames: Option<usize>,
}

impl FrameArgs {
    /// For videos that don't say.
    pub fn sampling(&self) -> Sampling {
        Sampling { fps: self.video_fps, max_frames: self.video_max_frames }
    }
}

/// From where images and videos may come, and how large they may be.
#[derive(Debug, Clone, Args)]
pub struct MediaArgs {
    #[command(flatten)]
    pub frames: FrameArgs,
    /// Hosts from which images and videos may be fetched (can be given several times, or with commas), e.g. example.com,
    /// *.example.org, * for all with public addresses [default: none, only what requests contain]
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    allowed_media_domains: Vec<String>,
    /// Let those of these hosts that are named by themselves, not by a pattern, be in a private network
    #[arg(long, requires = "allowed_media_domains")]
    allow_private_media_hosts: bool,
    /// Folder whose files requests may name, with what is below it [default: none]
    #[arg(long, value_name = "DIR")]
    allowed_local_media_path: Option<PathBuf>,
    /// Most images and videos of a prompt, e.g. image=16,video=1; with image=0,video=0 models are loaded without eyes
    #[arg(long, value_name = "LIMITS", default_value_t)]
    limit_mm_per_prompt: MediaLimits,
    /// Longest file of an image, e.g. 20M
    #[arg(long, value_name = "BYTES", default_value = "64M", value_parser = bytes)]
    max_image_bytes: u64,
    /// Longest file of a video
    #[arg(long, value_name = "BYTES", default_value = "512M", value_parser = bytes)]
    max_video_bytes: u64,
    /// Most pixels of an image, or of a frame of a video
    #[arg(long, value_name = "PIXELS", default_value_t = Limits::default().pixels, value_parser = clap::value_parser!(u64).range(1..))]
    max_image_pixels: u64,
    /// Most pixels of all frames seen of a video
    #[arg(long, value_name = "PIXELS", default_value_t = Limits::default().video_pixels, value_parser = clap::value_parser!(u64).range(1..))]
    max_video_pixels: u64,
    /// Memory for decoded images, so that those of a conversation's earlier turns are not decoded again; 0: none
    #[arg(long, value_name = "BYTES", default_value = "256M", value_parser = bytes_or_none)]
    decoded_media_cache_size: u64,
    /// Longest time to fetch an image or a video, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 30.0, value_parser = positive)]
    media_fetch_timeout: f64,
}

impl MediaArgs {
    /// Most images and videos of a prompt.
    pub fn limits(&self) -> MediaLimits {
        self.limit_mm_per_prompt
    }

    /// What reads them.
    ///
    /// # Errors
    /// If a host makes no sense, or the folder isn't there.
    pub fn loader(&self) -> anyhow::Result<Loader> {
        let policy = FetchPolicy {
            allowed_domains: self.allowed_media_domains.clone(),
            allow_private_networks: self.allow_private_media_hosts,
            local_root: self.allowed_local_media_path.clone(),
        };
        let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
        let limits = Limits {
            image_bytes: size(self.max_image_bytes),
            video_bytes: size(self.max_video_bytes),
            pixels: self.max_image_pixels,
            video_pixels: self.max_video_pixels,
            fetch_time: std::time::Duration::from_secs_f64(self.media_fetch_timeout),
            ..Limits::default()
        };
        Loader::new(&policy, limits, size(self.decoded_media_cache_size)).context("images and videos can't be read so")
    }
}

/// Files of the command's own user.
#[derive(Debug, Clone, Args)]
pub struct FileArgs {
    /// Image to look at: a file or a URL (can be given several times)
    #[arg(long, value_name = "FILE", conflicts_with = "raw")]
    pub image: Vec<String>,
    /// Video to look at: a file, a URL, or an animated image
    #[arg(long, value_name = "FILE", conflicts_with = "raw")]
    pub video: Vec<String>,
    #[command(flatten)]
    pub frames: FrameArgs,
}
