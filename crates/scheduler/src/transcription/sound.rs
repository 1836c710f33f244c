//! A sound as a model is given it: spectrograms of its parts, and when each was.

use std::{ops::Range, sync::Arc};

use vllm_platform::Mel;
use vllm_speech::{
    Segment,
    mel::MelSpectrogram,
    vad::{SpeechWindow, windows},
    whisper::DecodingOptions,
};

/// A request whose sound is ready to be heard.
#[derive(Debug)]
pub(super) struct Prepared {
    /// In order of time.
    pub parts: Vec<Part>,
    pub options: Arc<DecodingOptions>,
    /// The language asked for, if the model wants to be told.
    pub language: Option<&'static str>,
    /// Seconds of the whole sound.
    pub duration: f64,
}

/// What is heard for itself.
#[derive(Debug)]
pub(super) struct Part {
    /// At least one frame.
    pub mel: Mel,
    /// Where in the sound it was; none: it is all of it.
    pub place: Option<SpeechWindow>,
}

/// Cuts sounds into parts.
#[derive(Debug)]
pub(super) struct Cutter {
    pub spectrogram: MelSpectrogram,
    /// Frames of a listener's window.
    pub window: Option<usize>,
    /// Of a transducer, in samples.
    pub max_chunk: usize,
    pub overlap: usize,
}

impl Cutter {
    /// The parts of a sound, or of its `speech`; those too short for a single frame are left out.
    ///
    /// A listener's is the whole sound; of speech, so many stretches as fill a window, so that they cost no more than one. A
    /// transducer's are as long as it may be given, and overlap where nobody said that there is a pause.
    pub fn cut(&self, sound: &[f32], speech: Option<&[Range<usize>]>) -> Vec<Part> {
        let hop = self.spectrogram.settings().hop;
        let places: Vec<Option<SpeechWindow>> = match (speech, self.window) {
            (None, Some(_)) => vec![None],
            (None, None) => chunks(sound.len(), self.max_chunk, self.overlap).map(Some).collect(),
            (Some(speech), window) => {
                let max = window.map_or(self.max_chunk, |frames| frames * hop);
                windows(speech, max).into_iter().map(Some).collect()
            }
        };
        places.into_iter().filter_map(|place| self.part(sound, place)).collect()
    }

    fn part(&self, sound: &[f32], place: Option<SpeechWindow>) -> Option<Part> {
        let hop = self.spectrogram.settings().hop;
        let samples = place.as_ref().map(|place| place.samples(sound));
        let samples = samples.as_deref().unwrap_or(sound);
        let frames = samples.len() / hop;
        if frames == 0 {
            return None;
        }
        let mel = match self.window {
            None => self.spectrogram.log_mel(samples),
            Some(window) => {
                // The last frames hear silence after the sound; of the silence itself nothing is kept.
                let mut mel = self.spectrogram.log_mel_padded(samples, window * hop);
                mel.numbers.truncate(frames * self.spectrogram.settings().bands);
                mel.numbers.shrink_to_fit();
                Mel { frames, ..mel }
            }
        };
        Some(Part { mel, place })
    }
}

/// Stretches of so many samples that are no longer than `max`, each with the end of the one before.
fn chunks(samples: usize, max: usize, overlap: usize) -> impl Iterator<Item = SpeechWindow> {
    let step = max - overlap;
    // What is no longer than an overlap after the last step is heard by the chunk before.
    let count = samples.saturating_sub(overlap).div_ceil(step).max(1);
    (0..count).map(move |index| {
        let start = index * step;
        let chunk = start..samples.min(start + max);
        SpeechWindow { stretches: vec![chunk] }
    })
}

/// Gives a segment the times that it had in the whole sound.
pub(super) fn restore(segment: &mut Segment, place: Option<&SpeechWindow>, frames_per_second: f64) {
    let Some(place) = place else { return };
    segment.seek = (place.start(segment.seek as f64 / frames_per_second) * frames_per_second).round() as usize;
    let original = |start: &mut f64, end: &mut f64| {
        *start = place.start(*start);
        *end = place.end(*end).max(*start);
    };
    original(&mut segment.start, &mut segment.end);
    segment.words.iter_mut().for_each(|word| original(&mut word.start, &mut word.end));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_overlap_and_end_with_the_sound() {
        let cases: [(usize, &[[usize; 2]]); 6] = [
            (0, &[[0, 0]]),
            (3, &[[0, 3]]),
            (10, &[[0, 10]]),
            (11, &[[0, 10], [6, 11]]),
            (16, &[[0, 10], [6, 16]]),
            (17, &[[0, 10], [6, 16], [12, 17]]),
        ];
        for (samples, wanted) in cases {
            let chunks = chunks(samples, 10, 4).flat_map(|chunk| chunk.stretches);
            assert_eq!(chunks.map(|chunk| [chunk.start, chunk.end]).collect::<Vec<_>>(), wanted, "{samples} samples");
        }
    }

    #[test]
    fn times_are_those_of_the_sound() {
        let word = |start, end| vllm_speech::Word { text: " a".into(), start, end, probability: 1.0 };
        let segment = Segment {
            id: 0,
            seek: 100,
            start: 1.0,
            end: 2.0,
            text: " a b".into(),
            tokens: vec![],
            temperature: 0.0,
            avg_logprob: 0.0,
            compression_ratio: 1.0,
            no_speech_prob: 0.0,
            words: vec![word(1.0, 1.5), word(1.5, 2.0)],
        };
        // Seconds 10 to 11.5 and 20 to 21 of a sound.
        let place = SpeechWindow { stretches: vec![160_000..184_000, 320_000..336_000] };
        let mut moved = segment.clone();
        restore(&mut moved, Some(&place), 100.0);
        assert_eq!((moved.seek, moved.start, moved.end), (1100, 11.0, 20.5));
        assert_eq!(moved.words, [word(11.0, 11.5), word(20.0, 20.5)]);
        let mut same = segment.clone();
        restore(&mut same, None, 100.0);
        assert_eq!(same, segment);
    }
}
