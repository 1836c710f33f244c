//! Sounds for models without a model, and what is heard in them.

#![allow(dead_code)]

use std::{
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use vllm_platform::{
    Listener, ListenerInfo, Mel, MemoryInfo, Result, TextId, TextRow, TokenId, Transcriber, TranscriberInfo, WindowId,
    testing::{
        FakeListener, FakeListenerConfig, FakeListenerProbe, FakeTransducer, FakeTransducerConfig, FakeTransducerProbe,
        whisper_tokenizer,
    },
};
use vllm_scheduler::{
    Failure, SpeechText, TranscribeRequest, TranscriptEvent, TranscriptStream, TranscriptionConfig,
    TranscriptionEngine, TranscriptionHandle,
};
use vllm_speech::{
    Segment,
    whisper::{DecodingOptions, Vocabulary},
};
use vllm_text::Tokenizer;

pub const RATE: usize = 16_000;

/// A sound of so many seconds that is loud at times: (second, tenths of a second). Fakes hear the word for so many tenths.
pub fn sound(seconds: f64, bursts: &[(f64, usize)]) -> Arc<[f32]> {
    let mut samples = vec![0.0; (seconds * RATE as f64) as usize];
    for &(start, tenths) in bursts {
        let start = (start * RATE as f64) as usize;
        let burst = &mut samples[start..start + tenths * RATE / 10];
        burst.iter_mut().enumerate().for_each(|(i, sample)| *sample = 0.5 * (i as f32 * 0.17).sin());
    }
    samples.into()
}

/// A request for what is said in a sound in English.
pub fn request(sound: &Arc<[f32]>) -> TranscribeRequest {
    let options = DecodingOptions { language: Some("en".into()), ..Default::default() };
    TranscribeRequest { sound: Arc::clone(sound), options, speech: None, client: None, timeout: None }
}

pub fn vocabulary() -> SpeechText {
    Box::new(|size| {
        let tokenizer = Tokenizer::from_json_bytes(whisper_tokenizer().as_bytes(), "the fake's").unwrap();
        Vocabulary::new(Arc::new(tokenizer), size)
    })
}

pub fn listen(fake: FakeListenerConfig, config: TranscriptionConfig) -> (TranscriptionHandle, Arc<FakeListenerProbe>) {
    let (sender, probe) = mpsc::channel();
    let make = move || {
        let model = FakeListener::new(fake);
        sender.send(model.probe()).unwrap();
        Ok(Transcriber::Listener(Box::new(model)))
    };
    (TranscriptionEngine::start(make, Some(vocabulary()), config).unwrap(), probe.recv().unwrap())
}

/// A model that waits before some of its steps until it is told to go on.
struct Gated {
    model: FakeListener,
    steps: u64,
    /// At which steps it waits.
    waits: Vec<u64>,
    go: mpsc::Receiver<()>,
}

impl Listener for Gated {
    fn info(&self) -> &TranscriberInfo {
        self.model.info()
    }

    fn listener_info(&self) -> &ListenerInfo {
        self.model.listener_info()
    }

    fn memory(&self) -> Result<MemoryInfo> {
        self.model.memory()
    }

    fn encode(&mut self, windows: &[&Mel], pause: &mut dyn FnMut()) -> Result<Vec<WindowId>> {
        self.model.encode(windows, pause)
    }

    fn begin(&mut self, window: WindowId) -> Result<TextId> {
        self.model.begin(window)
    }

    fn step(&mut self, rows: &[TextRow<'_>]) -> Result<Vec<Vec<f32>>> {
        let step = self.steps;
        self.steps += 1;
        let result = self.model.step(rows);
        if self.waits.contains(&step) {
            self.go.recv().unwrap();
        }
        result
    }

    fn alignment(&mut self, window: WindowId, tokens: &[TokenId]) -> Result<Vec<f32>> {
        self.model.alignment(window, tokens)
    }

    fn end(&mut self, text: TextId) {
        self.model.end(text);
    }

    fn forget(&mut self, window: WindowId) {
        self.model.forget(window);
    }
}

/// [`listen`] with a model that waits at the end of each of `waits`, its steps, to be told to go on.
pub fn gated(
    waits: &[u64],
    config: TranscriptionConfig,
) -> (TranscriptionHandle, Arc<FakeListenerProbe>, mpsc::Sender<()>) {
    let (sender, go) = mpsc::channel();
    let model = FakeListenerConfig::default();
    let (probes, probe) = mpsc::channel();
    let waits = waits.to_vec();
    let make = move || {
        let model = FakeListener::new(model);
        probes.send(model.probe()).unwrap();
        Ok(Transcriber::Listener(Box::new(Gated { model, steps: 0, waits, go })))
    };
    (TranscriptionEngine::start(make, Some(vocabulary()), config).unwrap(), probe.recv().unwrap(), sender)
}

pub fn transduce(
    fake: FakeTransducerConfig,
    config: TranscriptionConfig,
) -> (TranscriptionHandle, Arc<FakeTransducerProbe>) {
    let (sender, probe) = mpsc::channel();
    let make = move || {
        let model = FakeTransducer::new(fake);
        sender.send(model.probe()).unwrap();
        Ok(Transcriber::Transducer(Box::new(model)))
    };
    (TranscriptionEngine::start(make, None, config).unwrap(), probe.recv().unwrap())
}

/// What became of a request.
#[derive(Debug, Default)]
pub struct Heard {
    pub language: Option<(&'static str, f32)>,
    pub segments: Vec<Segment>,
    /// Duration, tokens and windows.
    pub done: Option<(f64, usize, usize)>,
    pub failure: Option<Failure>,
}

impl Heard {
    pub fn text(&self) -> String {
        self.segments.iter().map(|segment| segment.text.as_str()).collect()
    }

    /// Checks texts, and times up to a few hundredths of a second.
    pub fn check(&self, name: &str, wanted: &[(&str, f64, f64)]) {
        assert_eq!(self.failure, None, "{name}");
        let texts: Vec<&str> = self.segments.iter().map(|segment| segment.text.as_str()).collect();
        assert_eq!(texts, wanted.iter().map(|wanted| wanted.0).collect::<Vec<_>>(), "{name}: {:?}", self.segments);
        for (index, (segment, &(text, start, end))) in self.segments.iter().zip(wanted).enumerate() {
            assert_eq!(segment.id, index, "{name}");
            let near = |found: f64, wanted: f64| (found - wanted).abs() < 0.06;
            assert!(
                near(segment.start, start) && near(segment.end, end),
                "{name}: {text} at {start}..{end}: {segment:?}"
            );
        }
    }
}

/// All that is told.
pub fn hear(mut stream: TranscriptStream) -> Heard {
    let mut heard = Heard::default();
    while let Some(event) = stream.blocking_next() {
        assert_eq!(heard.done, None, "nothing comes after the end");
        match event {
            Ok(TranscriptEvent::Language { code, probability }) => heard.language = Some((code, probability)),
            Ok(TranscriptEvent::Segment(segment)) => heard.segments.push(segment),
            Ok(TranscriptEvent::Done { duration, tokens, windows, .. }) => {
                heard.done = Some((duration, tokens, windows))
            }
            Err(failure) => heard.failure = Some(failure),
        }
    }
    assert!(heard.done.is_some() != heard.failure.is_some());
    heard
}

/// Waits for something another thread will do soon.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
