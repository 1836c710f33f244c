//! An answer's text, said sentence by sentence while it is still being written.

use std::sync::Arc;

use tokio::sync::mpsc;
use vllm_audio::Resampler;
use vllm_speech::{phonemes::PhonemeError, sentences::SentenceStream};

use super::{conversation::Spoken, settings::Settings};
use crate::{
    http::{ApiError, blocking},
    speech::{ServedSpeaker, SpeakError, Speaking},
};

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
    pub fn start(model: Arc<ServedSpeaker>, settings: &Settings, client: Option<Arc<str>>) -> Self {
        let (queue, mut waiting) = mpsc::channel::<String>(SENTENCES);
        let (out, said) = mpsc::channel(4);
        let mut speaking = Speaking { voice: settings.voice.clone(), speed: settings.speed, ..Speaking::default() };
        let rate = settings.output.rate();
        tokio::spawn(async move {
            while let Some(sentence) = waiting.recv().await {
                if let Err(error) = say(&model, sentence, &speaking, (rate, client.clone()), &out).await {
                    // Whoever listens is told, or is gone.
                    let _ = out.send(Err(error)).await;
                    return;
                }
                // While one sentence is heard there is time for the next.
                speaking.soon = false;
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
        for rest in std::mem::take(&mut self.sentences).finish() {
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
    speaking: &Speaking,
    (rate, client): (u32, Option<Arc<str>>),
    out: &mpsc::Sender<Result<Said, ApiError>>,
) -> Result<(), ApiError> {
    let (bytes, speaker, speaking) = (sentence.len(), Arc::clone(model), speaking.clone());
    let plan = blocking(move || match speaker.plan(&sentence, &speaking) {
        Ok(plan) => Ok(Some(plan)),
        // A line of asterisks, say: it is part of the text, and takes no time.
        Err(SpeakError::Phonemes(PhonemeError::Nothing)) => Ok(None),
        Err(error) => Err(error.into()),
    });
    let Some(plan) = plan.await? else {
        let _ = out.send(Ok(Said { samples: Vec::new(), spoken: Spoken { bytes, seconds: 0.0 } })).await;
        return Ok(());
    };
    let mut speech = model.speak(plan, client, None)?;
    let from = model.sample_rate();
    let mut resampler = Resampler::new(from, rate);
    let mut first = true;
    while let Some(samples) = speech.next().await {
        let samples = samples?;
        let seconds = samples.len() as f64 / f64::from(from);
        let bytes = if std::mem::take(&mut first) { bytes } else { 0 };
        let said = Said { samples: resampler.push(&samples), spoken: Spoken { bytes, seconds } };
        if out.send(Ok(said)).await.is_err() {
            return Ok(());
        }
    }
    let rest = resampler.finish();
    if !rest.is_empty() {
        let _ = out.send(Ok(Said { samples: rest, spoken: Spoken { bytes: 0, seconds: 0.0 } })).await;
    }
    Ok(())
}
