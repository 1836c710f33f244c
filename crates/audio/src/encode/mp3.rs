//! MP3, constant bit rate.

use rusty_mp3::{
    Mp3Encode, Mp3Encoder, Mp3EncoderConfig,
    encode::lametag::{DECODER_DELAY, ENCODER_DELAY},
    encoder_header,
    header::{FrameHeader, MpegVersion},
};

use super::EncodeError;
use crate::Format;

/// The rates there are.
pub(super) const RATES: [u32; 9] = [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000];

/// kbit/s of one channel, which nobody tells from the original: above 32 kHz, and up to 24 kHz.
const WIDE: u32 = 96;
const NARROW: u32 = 64;

/// A stream. No frame borrows bits from the one before it, for the latter has been sent. There is no frame in front that says how
/// long it is and what to cut off: the sound comes 44 ms late at 24 kHz, as in every MP3 without it.
pub(super) struct Mp3 {
    encoder: Mp3Encode,
    header: FrameHeader,
    /// Less than a frame.
    pending: Vec<f32>,
}

impl Mp3 {
    pub fn new(rate: u32) -> Result<Self, EncodeError> {
        let header = encoder_header(rate, 1, kbps(rate)).map_err(failed)?;
        Ok(Self { encoder: Mp3Encode::new(), header, pending: Vec::new() })
    }

    pub fn push(&mut self, samples: &[f32]) -> Result<Vec<u8>, EncodeError> {
        self.pending.extend_from_slice(samples);
        let pending = std::mem::take(&mut self.pending);
        let frames = pending.chunks_exact(self.header.version.samples_per_frame());
        self.pending.extend_from_slice(frames.remainder());
        let mut bytes = Vec::new();
        for frame in frames {
            bytes.extend(self.encoder.encode_frame(&self.header, &[frame], None).map_err(failed)?);
        }
        Ok(bytes)
    }

    /// Silence, until the last sample has gone through the delays of the encoder and a decoder.
    pub fn finish(mut self) -> Result<Vec<u8>, EncodeError> {
        let frame = self.header.version.samples_per_frame();
        let rest = (self.pending.len() + ENCODER_DELAY + DECODER_DELAY).next_multiple_of(frame);
        self.push(&vec![0.0; rest - self.pending.len()])
    }
}

/// A file: its first frame says how long it is and what to cut off.
pub(super) fn whole(samples: &[f32], rate: u32) -> Result<Vec<u8>, EncodeError> {
    let mut encoder = Mp3Encoder::new(Mp3EncoderConfig { bitrate_kbps: kbps(rate), vbr_quality: None });
    encoder.push_pcm_f32(samples, 1, rate).map_err(failed)?;
    encoder.finish();
    let mut bytes = Vec::new();
    while let Ok(frame) = encoder.next_packet() {
        bytes.extend(frame);
    }
    Ok(bytes)
}

fn kbps(rate: u32) -> u32 {
    match encoder_header(rate, 1, 0).map(|header| header.version) {
        Ok(MpegVersion::V1) => WIDE,
        _ => NARROW,
    }
}

fn failed(reason: rusty_mp3::Error) -> EncodeError {
    EncodeError::Failed { format: Format::Mp3, reason: reason.to_string() }
}
