//! Opus in Ogg (RFC 7845).

use ogg::{PacketWriteEndInfo, PacketWriter};
use ropus::{Application, Bitrate, Channels, Encoder};

use super::EncodeError;
use crate::Format;

/// The rates there are.
pub(super) const RATES: [u32; 5] = [8_000, 12_000, 16_000, 24_000, 48_000];

/// Bits a second of one channel: speech at this rate can't be told from the original.
const BITS: u32 = 48_000;

/// Positions in the file count these, whatever the rate.
const TICKS: u64 = 48_000;

/// Packets of 20 ms: a second of them on a page at most.
const PAGE: usize = 50;

/// Which stream of the file it is: there is but one.
const SERIAL: u32 = 1;

pub(super) struct Opus {
    encoder: Encoder,
    writer: PacketWriter<'static, Vec<u8>>,
    rate: u32,
    /// Less than a frame.
    pending: Vec<f32>,
    /// Samples, without silence behind them.
    taken: u64,
    /// Samples in packets.
    encoded: u64,
    /// The encoder's delay, in ticks.
    pre_skip: u16,
    begun: bool,
}

impl Opus {
    pub fn new(rate: u32) -> Result<Self, EncodeError> {
        // Told that it is speech, it models a voice at the cost of the wave (half as many dB of agreement at this rate).
        let encoder = Encoder::builder(rate, Channels::Mono, Application::Audio)
            .bitrate(Bitrate::Bits(BITS))
            .build()
            .map_err(failed)?;
        let pre_skip = (u64::from(encoder.lookahead()) * TICKS / u64::from(rate)) as u16;
        Ok(Self {
            encoder,
            writer: PacketWriter::new(Vec::new()),
            rate,
            pending: Vec::new(),
            taken: 0,
            encoded: 0,
            pre_skip,
            begun: false,
        })
    }

    /// Whatever packets are full, on pages of their own.
    pub fn push(&mut self, samples: &[f32]) -> Result<Vec<u8>, EncodeError> {
        self.begin()?;
        self.taken += samples.len() as u64;
        self.pending.extend_from_slice(samples);
        let pending = std::mem::take(&mut self.pending);
        let frames = pending.chunks_exact(self.frame());
        self.pending.extend_from_slice(frames.remainder());
        let count = frames.len();
        for (at, frame) in frames.enumerate() {
            let page = (at + 1) % PAGE == 0 || at + 1 == count;
            let end = if page { PacketWriteEndInfo::EndPage } else { PacketWriteEndInfo::NormalPacket };
            self.packet(frame, end)?;
        }
        Ok(std::mem::take(self.writer.inner_mut()))
    }

    /// Silence, until the last sample has gone through the encoder's delay; the last position says where the sound ended.
    pub fn finish(mut self) -> Result<Vec<u8>, EncodeError> {
        self.begin()?;
        let frame = self.frame();
        let delay = u64::from(self.pre_skip) * u64::from(self.rate) / TICKS;
        let missing = ((self.taken + delay - self.encoded) as usize).next_multiple_of(frame);
        let mut rest = std::mem::take(&mut self.pending);
        rest.resize(missing, 0.0);
        for (at, part) in rest.chunks_exact(frame).enumerate() {
            let last = (at + 1) * frame == missing;
            let end = if last { PacketWriteEndInfo::EndStream } else { PacketWriteEndInfo::NormalPacket };
            self.packet(part, end)?;
        }
        Ok(std::mem::take(self.writer.inner_mut()))
    }

    /// Samples a packet.
    fn frame(&self) -> usize {
        self.rate as usize / 50
    }

    fn packet(&mut self, frame: &[f32], end: PacketWriteEndInfo) -> Result<(), EncodeError> {
        // The most that a packet of one frame can have (RFC 6716, 3.2.1), and its first byte.
        let mut packet = vec![0; 1276];
        let length = self.encoder.encode_float(frame, &mut packet).map_err(failed)?;
        packet.truncate(length);
        self.encoded += frame.len() as u64;
        // How far one is with this packet, or where the sound ends.
        let ticks = |samples: u64| samples * TICKS / u64::from(self.rate);
        let at = ticks(self.encoded).min(ticks(self.taken) + u64::from(self.pre_skip));
        self.writer.write_packet(packet, SERIAL, end, at).map_err(failed)
    }

    /// The two packets that stand in front, on a page each.
    fn begin(&mut self) -> Result<(), EncodeError> {
        if std::mem::replace(&mut self.begun, true) {
            return Ok(());
        }
        let mut head = b"OpusHead".to_vec();
        head.extend([1, 1]); // version, channels
        head.extend(self.pre_skip.to_le_bytes());
        head.extend(self.rate.to_le_bytes());
        head.extend([0; 3]); // gain, and the plain order of channels
        let maker = concat!("vllm-audio ", env!("CARGO_PKG_VERSION")).as_bytes();
        let mut tags = b"OpusTags".to_vec();
        tags.extend((maker.len() as u32).to_le_bytes());
        tags.extend(maker);
        tags.extend(0u32.to_le_bytes()); // comments
        for packet in [head, tags] {
            self.writer.write_packet(packet, SERIAL, PacketWriteEndInfo::EndPage, 0).map_err(failed)?;
        }
        Ok(())
    }
}

fn failed(reason: impl std::fmt::Display) -> EncodeError {
    EncodeError::Failed { format: Format::Opus, reason: reason.to_string() }
}
