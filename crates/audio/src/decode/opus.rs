//! Opus for `symphonia`, which knows its containers but not the codec. The codec is `ropus`, libopus's fixed-point one in Rust.

use std::fmt;

use ropus::opus::multistream::OpusMSDecoder;
use symphonia::core::{
    audio::{AsGenericAudioBufferRef, AudioBuffer, AudioMut, AudioSpec, Channels, GenericAudioBufferRef},
    codecs::{
        CodecInfo,
        audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions, FinalizeResult, well_known::CODEC_ID_OPUS},
        registry::{RegisterableAudioDecoder, SupportedAudioCodec},
    },
    errors::{Error, Result, decode_error, unsupported_error},
    packet::PacketRef,
};

/// What Opus is always decoded at.
const RATE: u32 = 48_000;

/// 120 ms: the longest packet.
const LONGEST: usize = 5760;

/// An Opus decoder for any number of channels.
pub(super) struct Opus {
    params: AudioCodecParameters,
    decoder: OpusMSDecoder,
    channels: usize,
    /// Interleaved: what the decoder writes.
    scratch: Vec<i16>,
    buffer: AudioBuffer<i16>,
    /// Samples before the sound begins that are still to be left out.
    early: usize,
}

/// What stands in the `OpusHead` of any container (RFC 7845, 5.1).
struct Head {
    channels: usize,
    pre_skip: u16,
    /// 1/256 dB.
    gain: i16,
    streams: u8,
    coupled: u8,
    /// One a channel: which of the streams' channels it is.
    mapping: Vec<u8>,
}

impl Head {
    /// Without one (some Matroska writers leave it out), what one or two channels need.
    fn plain(channels: usize) -> Option<Self> {
        let coupled = u8::try_from(channels.checked_sub(1)?).ok().filter(|&coupled| coupled < 2)?;
        Some(Self { channels, pre_skip: 0, gain: 0, streams: 1, coupled, mapping: (0..channels as u8).collect() })
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let fixed: &[u8; 19] = bytes.first_chunk()?;
        let (channels, family) = (fixed[9] as usize, fixed[18]);
        if !fixed.starts_with(b"OpusHead") {
            return None;
        }
        let mut head = match family {
            0 => Self::plain(channels)?,
            _ => Self {
                streams: *bytes.get(19)?,
                coupled: *bytes.get(20)?,
                mapping: bytes.get(21..21 + channels)?.to_vec(),
                ..Self::plain(1)?
            },
        };
        head.channels = channels;
        // MP4 has the same fields in its own order of bytes, and its own version, which the reader leaves as they are.
        let swap = fixed[8] == 0;
        let field = |at: usize| {
            let bytes = [fixed[at], fixed[at + 1]];
            if swap { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) }
        };
        head.pre_skip = field(10);
        head.gain = field(16).cast_signed();
        Some(head)
    }
}

impl Opus {
    fn new(params: &AudioCodecParameters) -> Result<Self> {
        let layout = params.channels.clone().ok_or(Error::Unsupported("opus without a number of channels"))?;
        let head = match &params.extra_data {
            Some(bytes) => Head::read(bytes).ok_or(Error::DecodeError("the Opus header makes no sense"))?,
            None => {
                Head::plain(layout.count()).ok_or(Error::Unsupported("opus of several streams without a header"))?
            }
        };
        // A container may say otherwise than the stream: it is the stream that is decoded.
        let layout = if layout.count() == head.channels { layout } else { Channels::Discrete(head.channels as u16) };
        let (streams, coupled) = (head.streams.into(), head.coupled.into());
        let Ok(mut decoder) = OpusMSDecoder::new(RATE as i32, head.channels as i32, streams, coupled, &head.mapping)
        else {
            return unsupported_error("an Opus stream with such channels");
        };
        decoder.set_gain(head.gain.into());
        Ok(Self {
            params: params.clone(),
            decoder,
            channels: head.channels,
            scratch: vec![0; LONGEST * head.channels],
            buffer: AudioBuffer::new(AudioSpec::new(RATE, layout), LONGEST),
            early: head.pre_skip.into(),
        })
    }
}

impl AudioDecoder for Opus {
    fn reset(&mut self) {
        self.decoder.reset();
    }

    fn codec_info(&self) -> &CodecInfo {
        &Self::supported_codecs()[0].info
    }

    fn codec_params(&self) -> &AudioCodecParameters {
        &self.params
    }

    fn decode_ref(&mut self, packet: &PacketRef<'_>) -> Result<GenericAudioBufferRef<'_>> {
        self.buffer.clear();
        // An empty one would be taken for a lost one, and something made up.
        let length = i32::try_from(packet.data.len()).ok().filter(|&length| length > 0);
        let frames = length.and_then(|length| {
            self.decoder.decode(Some(packet.data), length, &mut self.scratch, LONGEST as i32, false).ok()
        });
        let Some(frames) = frames else { return decode_error("an Opus packet can't be decoded") };
        let frames = frames as usize;
        self.buffer.render_uninit(Some(frames));
        self.buffer.copy_from_slice_interleaved(&&self.scratch[..frames * self.channels]);
        let early = self.early.min(frames);
        self.early -= early;
        self.buffer.trim(early.max(packet.trim_start.get() as usize), packet.trim_end.get() as usize);
        Ok(self.buffer.as_generic_audio_buffer_ref())
    }

    fn finalize(&mut self) -> FinalizeResult {
        FinalizeResult::default()
    }

    fn last_decoded(&self) -> GenericAudioBufferRef<'_> {
        self.buffer.as_generic_audio_buffer_ref()
    }
}

impl RegisterableAudioDecoder for Opus {
    fn try_registry_new(params: &AudioCodecParameters, _: &AudioDecoderOptions) -> Result<Box<dyn AudioDecoder>> {
        Ok(Box::new(Self::new(params)?))
    }

    fn supported_codecs() -> &'static [SupportedAudioCodec] {
        const INFO: CodecInfo = CodecInfo { short_name: "opus", long_name: "Opus", profiles: &[] };
        &[SupportedAudioCodec { id: CODEC_ID_OPUS, info: INFO }]
    }
}

impl fmt::Debug for Opus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opus").field("channels", &self.channels).field("early", &self.early).finish_non_exhaustive()
    }
}
