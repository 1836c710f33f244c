//! Bytes to samples.
//!
//! A file is decoded packet by packet and each packet mixed down at once, so that what is held is the one channel that is
//! given back, whatever the number of channels and however long the file says it is.

mod edits;
mod error;
mod gather;
mod limits;
mod opus;
mod source;

pub use error::DecodeError;
pub use limits::Limits;

use std::{
    io::{ErrorKind, Read, Seek},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::LazyLock,
};

use symphonia::core::{
    codecs::{
        CodecParameters,
        audio::{AudioDecoder, AudioDecoderOptions, CODEC_ID_NULL_AUDIO, well_known::CODEC_ID_OPUS},
        registry::CodecRegistry,
    },
    errors::Error,
    formats::{FormatOptions, FormatReader, Track, TrackType, probe::Hint},
    io::MediaSourceStream,
    meta::MetadataOptions,
    packet::Packet,
};

use crate::Sound;
use gather::Gather;
use source::Source;

/// Reads a sound file of any format there is: WAV (PCM, float, A-law, µ-law, ADPCM), MP3, FLAC, Ogg (Vorbis, Opus), WebM and
/// Matroska, MP4 (AAC-LC, ALAC), bare AAC. It is told by its bytes; `hint`, an extension or a media type, only decides where they
/// leave a choice.
///
/// The samples are the mean of all channels at the file's own rate, and finite. What the encoder has put before and behind the
/// sound is cut off where the file says how much that is.
///
/// # Errors
/// See [`DecodeError`]. A file is [truncated](DecodeError::Truncated) if it has less than it says: by as little as a sample in
/// WAV and FLAC, and by more than its last packets elsewhere, for an MP3 that was cut anywhere is played everywhere. A file that
/// doesn't say how long it is (a recording that was never finished, or is sent as it is made) is as long as it is. Packets that
/// can't be decoded are left out, unless they are most of them.
pub fn decode(
    source: impl Read + Seek + Send + Sync + 'static,
    hint: Option<&str>,
    limits: &Limits,
) -> Result<Sound, DecodeError> {
    contained(Source::new(source)?, hint, None, limits)
}

/// [`decode`] and [`resample`](crate::resample) in one: the same samples, but those at the file's own rate are never held all at
/// once. Half an hour of 48 kHz that is wanted at 16 kHz takes 115 MB instead of 460.
///
/// # Errors
/// As [`decode`].
///
/// # Panics
/// If `rate` is 0.
pub fn decode_at(
    rate: u32,
    source: impl Read + Seek + Send + Sync + 'static,
    hint: Option<&str>,
    limits: &Limits,
) -> Result<Sound, DecodeError> {
    assert!(rate > 0, "a rate of 0");
    contained(Source::new(source)?, hint, Some(rate), limits)
}

/// Decoders of untrusted bytes by others: what they didn't foresee is the file's fault, not the server's.
fn contained(source: Source, hint: Option<&str>, rate: Option<u32>, limits: &Limits) -> Result<Sound, DecodeError> {
    if source.length() == 0 {
        return Err(DecodeError::Empty);
    }
    let trouble = source.trouble();
    let heard = catch_unwind(AssertUnwindSafe(|| read(source, hint, rate, limits)))
        .unwrap_or_else(|_| Err(DecodeError::Damaged("its decoder gave up on it".into())));
    match trouble.take() {
        Some(error) => Err(DecodeError::Io(error)),
        None => heard,
    }
}

fn read(mut source: Source, hint: Option<&str>, rate: Option<u32>, limits: &Limits) -> Result<Sound, DecodeError> {
    let leads = edits::leads(&mut source)?;
    let mut reader = open(source, hint)?;
    let mut voice = Voice::of(&*reader)?;
    let mut gather = Gather::new(voice.stated, rate, limits);
    let mut lead = leads.iter().find(|(track, _)| *track == voice.track).map(|&(_, seconds)| seconds);
    // Opus's decoder leaves out what its header says: the edit list says it once more.
    lead = lead.filter(|_| voice.tick.is_some());
    loop {
        let packet = match reader.next_packet() {
            Ok(Some(packet)) => packet,
            Ok(None) => break,
            // The end in the middle of something. Whether that is too early, the stated length says.
            Err(Error::IoError(error)) if error.kind() == ErrorKind::UnexpectedEof => break,
            // Another file begins behind this one (chained Ogg).
            Err(Error::ResetRequired) => {
                voice = Voice::of(&*reader)?;
                gather.forget_stated();
                continue;
            }
            Err(error) => return Err(fault(error)),
        };
        if packet.track_id != voice.track {
            continue;
        }
        let lead = *lead.get_or_insert_with(|| voice.lead(&packet));
        match voice.decoder.decode(&packet) {
            Ok(buffer) => gather.add(&buffer, lead)?,
            Err(Error::DecodeError(what)) => gather.skip(what),
            Err(Error::IoError(error)) if error.kind() == ErrorKind::UnexpectedEof => {
                gather.skip("a packet ends too early")
            }
            Err(Error::ResetRequired) => voice.decoder.reset(),
            Err(error) => return Err(fault(error)),
        }
    }
    gather.finish()
}

/// The container's reader.
fn open(source: Source, hint: Option<&str>) -> Result<Box<dyn FormatReader>, DecodeError> {
    let mut told = Hint::new();
    if let Some(hint) = hint {
        if hint.contains('/') {
            // Without parameters: `audio/webm;codecs=opus`.
            told.mime_type(hint.split(';').next().unwrap_or(hint).trim());
        } else {
            told.with_extension(hint.trim_start_matches('.'));
        }
    }
    let stream = MediaSourceStream::new(Box::new(source), Default::default());
    let probe = symphonia::default::get_probe();
    probe.probe(&told, stream, FormatOptions::default(), MetadataOptions::default()).map_err(|error| match error {
        Error::Unsupported(what) if what.starts_with("core (probe)") => DecodeError::NotAudio,
        // A part that every such file has: an MP4 that was cut lacks its table of contents.
        Error::Unsupported(what) if what.contains("missing") => DecodeError::Damaged(what.to_owned()),
        Error::IoError(error) if error.kind() == ErrorKind::UnexpectedEof => {
            DecodeError::Damaged("it ends within its header".into())
        }
        error => fault(error),
    })
}

/// The track that is listened to.
struct Voice {
    track: u32,
    decoder: Box<dyn AudioDecoder>,
    /// How much of it there should be.
    stated: Option<Stated>,
    /// Seconds a tick of its packets' times, if what lies before the beginning is known by these alone.
    tick: Option<f64>,
}

/// What a file says of its length.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Stated {
    seconds: f64,
    /// To the sample.
    exact: bool,
}

impl Voice {
    /// The first track with sound, or the one that the file prefers.
    fn of(reader: &dyn FormatReader) -> Result<Self, DecodeError> {
        let track = reader.default_track(TrackType::Audio).or_else(|| reader.first_track(TrackType::Audio));
        let track = track.ok_or(DecodeError::NoTrack)?;
        let Some(CodecParameters::Audio(params)) = &track.codec_params else { return Err(DecodeError::NoTrack) };
        let container = reader.format_info().short_name;
        if params.codec == CODEC_ID_NULL_AUDIO || CODECS.get_audio_decoder(params.codec).is_none() {
            return Err(DecodeError::Unsupported(format!(
                "the {container} file's audio is of a codec that isn't read here"
            )));
        }
        let decoder = CODECS.make_audio_decoder(params, &AudioDecoderOptions::default()).map_err(fault)?;
        // Opus's own header says it to the sample.
        let tick = track.time_base.filter(|_| params.codec != CODEC_ID_OPUS);
        let tick = tick.map(|base| f64::from(base.numer.get()) / f64::from(base.denom.get()));
        Ok(Self { track: track.id, decoder, stated: stated(reader, track), tick })
    }

    /// Seconds that lie before the beginning, by the first packet's time (Matroska's codec delay).
    fn lead(&self, first: &Packet) -> f64 {
        match self.tick {
            Some(tick) if first.pts.is_negative() && first.trim_start.get() == 0 => -(first.pts.get() as f64) * tick,
            _ => 0.0,
        }
    }
}

fn stated(reader: &dyn FormatReader, track: &Track) -> Option<Stated> {
    /// Data that a writer who couldn't know its length says it has: 2³¹ − 1 bytes, with or without the header's.
    const ENDLESS: u64 = 0x7FFF_F000;

    let container = reader.format_info().short_name;
    let params = track.codec_params.as_ref()?.audio()?;
    if let Some(frames) = track.num_frames.filter(|&frames| frames > 0) {
        if container == "wave" {
            let channels = params.channels.as_ref().map_or(1, |channels| channels.count() as u64);
            let bits = u64::from(params.bits_per_coded_sample.or(params.bits_per_sample).unwrap_or(8));
            if frames.saturating_mul(channels).saturating_mul(bits) / 8 >= ENDLESS {
                return None;
            }
        }
        let seconds = frames as f64 / f64::from(params.sample_rate?);
        return Some(Stated { seconds, exact: matches!(container, "wave" | "flac") });
    }
    // A length of the whole file is that of its longest track.
    let info = reader.media_info();
    let (base, ticks) = (info.time_base?, info.duration?);
    let seconds = ticks.get() as f64 * f64::from(base.numer.get()) / f64::from(base.denom.get());
    (reader.tracks().len() == 1 && seconds > 0.0).then_some(Stated { seconds, exact: false })
}

static CODECS: LazyLock<CodecRegistry> = LazyLock::new(|| {
    let mut codecs = CodecRegistry::new();
    symphonia::default::register_enabled_codecs(&mut codecs);
    codecs.register_audio_decoder::<opus::Opus>();
    codecs
});

/// What a reader or decoder found wrong, if not the end of the file.
fn fault(error: Error) -> DecodeError {
    match error {
        Error::DecodeError(what) | Error::LimitError(what) => DecodeError::Damaged(what.to_owned()),
        Error::Unsupported(what) => DecodeError::Unsupported(format!("the audio can't be read: {what}")),
        error => DecodeError::Damaged(error.to_string()),
    }
}
