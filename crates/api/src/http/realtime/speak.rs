//! An answer's text, said sentence by sentence while it is still being written.

use std::sync::Arc;

use tokio::sync::mpsc;
use vllm_speech::sentences::SentenceStream;

use super::{conversation::Spoken, settings::Settings};
use crate::{http::ApiError, speech::ServedSpeaker};

/// Sentences that may wait to be said: more make the model wait.
const SENTENCES: usize = 64;

/// A piece of speech.
#[derive(Debug)]
pub struct Said {
    /// Samples at the output's rate.
    pub samples: Vec<f32>,
    /// The text they say ends with these, and how long they last.
    pub spoken: Spoken,
}

/// Says what it is given.
pub struct Speaker {
    sentences: SentenceStream,
    queue: Option<mpsc::Sender<String>>,
    said: mpsc::Receiver<Result<Said, ApiError>>,
}

impl Speaker {
    /// Begins to wait for text.
    pub fn start(model: Arc<ServedSpeaker>, settings: &Settings) -> Self {
        let (queue, mut waiting) = mpsc::channel::<String>(SENTENCES);
        let (out, said) = mpsc::channel(4);
        let (voice, speed, rate) = (settings.voice.clone(), settings.speed, settings.output.rate());
        tokio::spawn(async move {
            while let Some(sentence) = waiting.recv().await {
                if let Err(error) = say(&model, sentence, voice.as_deref(), speed, rate, &out).await {
                    // Whoever listens is told, or is gone.
                    let _ = out.send(Err(error)).await;
                    return;
                }
            }
        });
        Self { sentences: SentenceStream::default(), queue: Some(queue), said }
    }

    /// Takes more text.
    pub async fn push(&mut self, text: &str) {
        for sentence in self.sentences.push(text) {
            self.send(sentence).await;
        }
    }

    /// The text is over.
    pub async fn finish(&mut self) {
        if let Some(rest) = std::mem::take(&mut self.sentences).finish() {
            self.send(rest).await;
        }
        self.queue = None;
    }

    async fn send(&self, sentence: String) {
        if let Some(queue) = &self.queue {
            // If it has failed, that comes out on the other side.
            let _ = queue.send(sentence).await;
        }
    }

    /// The next piece; `None` when all has been said. Nothing is lost if this is dropped.
    pub async fn next(&mut self) -> Option<Result<Said, ApiError>> {
        self.said.recv().await
    }
}

/// Says a sentence into `out`.
async fn say(
    model: &Arc<ServedSpeaker>,
    sentence: String,
    voice: Option<&str>,
    speed: f32,
    rate: u32,
    out: &mpsc::Sender<Result<Said, ApiError>>,
) -> Result<(), ApiError> {
    let bytes = sentence.len();
    let mut speech = model.say(sentence, voice, speed).await?;
    let from = speech.rate();
    let mut resampler = (from != rate).then(|| vllm_audio::Resampler::new(from, rate));
    let mut first = true;
    while let Some(samples) = speech.next().await {
        let samples = samples?;
        let seconds = samples.len() as f64 / f64::from(from);
        let samples = match &mut resampler {
            Some(resampler) => resampler.push(&samples),
            None => samples,
        };
        let spoken = Spoken { bytes: if std::mem::take(&mut first) { bytes } else { 0 }, seconds };
        if out.send(Ok(Said { samples, spoken })).await.is_err() {
            return Ok(());
        }
    }
    if let Some(resampler) = &mut resampler {
        let rest = Said { samples: resampler.finish(), spoken: Spoken { bytes: 0, seconds: 0.0 } };
        let _ = out.send(Ok(rest)).await;
    }
    Ok(())
}
