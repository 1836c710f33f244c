//! FLAC: 16 bits, frames of one block each.

use flacenc::{
    bitsink::ByteSink,
    component::{BitRepr, StreamInfo},
    config, encode_fixed_size_frame,
    error::{Verified, Verify},
    source::{Fill, FrameBuf},
};

use super::{EncodeError, to_i16};
use crate::Format;

/// Samples a frame: 170 ms at 24 kHz.
const BLOCK: usize = 4096;

/// What its encoder can write.
pub(super) const FASTEST: u32 = 96_000;

pub(super) struct Flac {
    config: Verified<config::Encoder>,
    info: StreamInfo,
    block: FrameBuf,
    /// Less than a block.
    pending: Vec<i32>,
    frames: usize,
    /// Until it is sent.
    header: Option<[u8; 42]>,
}

impl Flac {
    /// `samples`: how many will come, if that is known.
    pub fn new(rate: u32, samples: Option<usize>) -> Result<Self, EncodeError> {
        let config = config::Encoder::default().into_verified().map_err(|(_, error)| failed(error))?;
        Ok(Self {
            config,
            info: StreamInfo::new(rate as usize, 1, 16).map_err(failed)?,
            block: FrameBuf::with_size(1, BLOCK).map_err(failed)?,
            pending: Vec::new(),
            frames: 0,
            header: Some(header(rate, samples.unwrap_or(0) as u64)),
        })
    }

    /// The header goes out with the first samples, or alone; a frame when it is full.
    pub fn push(&mut self, samples: &[f32]) -> Result<Vec<u8>, EncodeError> {
        let mut bytes: Vec<u8> = self.header.take().into_iter().flatten().collect();
        self.pending.extend(samples.iter().map(|&sample| i32::from(to_i16(sample))));
        let pending = std::mem::take(&mut self.pending);
        let blocks = pending.chunks_exact(BLOCK);
        self.pending.extend_from_slice(blocks.remainder());
        for block in blocks {
            self.frame(block, &mut bytes)?;
        }
        Ok(bytes)
    }

    /// The last frame may be shorter.
    pub fn finish(mut self) -> Result<Vec<u8>, EncodeError> {
        let mut bytes = self.push(&[])?;
        let rest = std::mem::take(&mut self.pending);
        if !rest.is_empty() {
            self.frame(&rest, &mut bytes)?;
        }
        Ok(bytes)
    }

    fn frame(&mut self, block: &[i32], bytes: &mut Vec<u8>) -> Result<(), EncodeError> {
        self.block.fill_interleaved(block).map_err(failed)?;
        let frame = encode_fixed_size_frame(&self.config, &self.block, self.frames, &self.info).map_err(failed)?;
        self.frames += 1;
        let mut sink = ByteSink::new();
        frame.write(&mut sink).map_err(failed)?;
        bytes.extend_from_slice(sink.as_slice());
        Ok(())
    }
}

/// The marker and the one metadata block that must be there (RFC 9639, 8.2): sizes of frames and the MD5 sum stay unknown, as
/// does a number of samples of 0.
fn header(rate: u32, samples: u64) -> [u8; 42] {
    let mut header = [0; 42];
    header[..4].copy_from_slice(b"fLaC");
    header[4..8].copy_from_slice(&[0x80, 0, 0, 34]); // the last metadata block, of 34 bytes
    header[8..10].copy_from_slice(&(BLOCK as u16).to_be_bytes());
    header[10..12].copy_from_slice(&(BLOCK as u16).to_be_bytes());
    // 20 bits of rate, 3 of channels − 1, 5 of bits − 1, 36 of samples.
    let packed = u64::from(rate) << 44 | 15 << 36 | samples & ((1 << 36) - 1);
    header[18..26].copy_from_slice(&packed.to_be_bytes());
    header
}

fn failed(reason: impl std::fmt::Debug) -> EncodeError {
    EncodeError::Failed { format: Format::Flac, reason: format!("{reason:?}") }
}
