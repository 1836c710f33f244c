//! When the frames of an animation are shown, without decoding them: so that it is known which ones are wanted before
//! any takes memory.

use std::{io::Cursor, iter, time::Duration};

use gif::DecodeOptions;

use super::layers::chunks;
use crate::{MediaError, MediaErrorKind};

/// Shorter delays than this mean "as fast as you can", which every browser takes for [`UNHURRIED`].
const TOO_FAST: Duration = Duration::from_millis(11);
const UNHURRIED: Duration = Duration::from_millis(100);

/// Frames of an animation. A file of nothing but the smallest ones has many times more, for each of which we'd remember a
/// number.
const MAX_TOTAL: usize = 100_000;

/// How long each frame stands. At least one.
pub(super) struct Delays(Vec<Duration>);

impl Delays {
    /// # Errors
    /// For none, and too many.
    fn new(format: &str, delays: impl Iterator<Item = Result<Duration, MediaError>>) -> Result<Self, MediaError> {
        let mut known = vec![];
        for delay in delays {
            if known.len() == MAX_TOTAL {
                let message = format!("this {format} has too many frames: {MAX_TOTAL} are allowed");
                return Err(MediaError::new(MediaErrorKind::TooLarge, message));
            }
            let delay = delay?;
            known.push(if delay < TOO_FAST { UNHURRIED } else { delay });
        }
        if known.is_empty() {
            return Err(MediaError::new(MediaErrorKind::Invalid, format!("this {format} has no frames")));
        }
        Ok(Self(known))
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Frames a second, on average.
    pub fn fps(&self) -> f64 {
        self.0.len() as f64 / self.0.iter().sum::<Duration>().as_secs_f64()
    }

    /// When each frame comes, in seconds from the first.
    pub fn starts(&self) -> impl Iterator<Item = f64> {
        self.0.iter().scan(Duration::ZERO, |at, delay| {
            let start = *at;
            *at += *delay;
            Some(start.as_secs_f64())
        })
    }

    pub fn of_gif(bytes: &[u8]) -> Result<Self, MediaError> {
        let mut options = DecodeOptions::new();
        options.skip_frame_decoding(true);
        let damaged = |error| MediaError::new(MediaErrorKind::Invalid, format!("this GIF can't be read: {error}"));
        let mut decoder = options.read_info(Cursor::new(bytes)).map_err(damaged)?;
        let mut next = || decoder.next_frame_info().map(|frame| Some(frame?.delay)).map_err(damaged).transpose();
        Self::new("GIF", iter::from_fn(|| next().map(|delay| Ok(Duration::from_millis(10) * u32::from(delay?)))))
    }

    pub fn of_png(bytes: &[u8]) -> Result<Self, MediaError> {
        // A chunk: length, name, data, checksum.
        let mut rest = bytes.get(8..).unwrap_or_default();
        let mut announced = 0;
        let chunks = iter::from_fn(|| {
            let (length, named) = rest.split_first_chunk()?;
            let (name, data) = named.split_first_chunk::<4>()?;
            let length = u32::from_be_bytes(*length) as usize;
            rest = data.get(length.saturating_add(4)..).unwrap_or_default();
            Some((name, data))
        });
        let data = chunks.filter_map(|(name, data)| {
            if name == b"acTL" {
                announced = data.first_chunk().map_or(0, |frames| u32::from_be_bytes(*frames)) as usize;
            }
            (name == b"fcTL").then_some(data)
        });
        let delays = data.map_while(|data| {
            // Sequence number, size and place, then the delay as a fraction of a second; a denominator of 0 means 100.
            let &[a, b, c, d] = data.get(20..24)? else { return None };
            let [numerator, denominator] = [[a, b], [c, d]].map(u16::from_be_bytes);
            let denominator = if denominator == 0 { 100 } else { denominator };
            Some(Ok(Duration::from_secs(1) * u32::from(numerator) / u32::from(denominator)))
        });
        let delays = Self::new("PNG", delays)?;
        if delays.len() < announced {
            let message = format!("this PNG is truncated: it has {} of {announced} frames", delays.len());
            return Err(MediaError::new(MediaErrorKind::Invalid, message));
        }
        Ok(delays)
    }

    pub fn of_webp(bytes: &[u8]) -> Result<Self, MediaError> {
        let frames = chunks(bytes.get(12..).unwrap_or_default()).filter(|(name, _)| name == b"ANMF");
        let delays = frames.map_while(|(_, frame)| {
            // Place and size, of 3 bytes each, then milliseconds.
            let &[a, b, c] = frame.get(12..15)? else { return None };
            Some(Ok(Duration::from_millis(u32::from_le_bytes([a, b, c, 0]).into())))
        });
        Self::new("WebP", delays)
    }
}
