//! Pictures, prompts with pictures, and encoders that wait for the test.

#![allow(dead_code, reason = "each test file needs some of it")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};

use vllm_platform::{
    ContentHash, Features, MediaSpan, MemoryInfo, Result, SpanGrid, VisionEncoder, VisionInfo, VisionInput,
    testing::{FakeVision, FakeVisionConfig, FakeVisionProbe},
};
use vllm_scheduler::{
    FeatureOrigin, FeatureSource, Request, RequestMedia, VisionConfig, VisionEngine, VisionHandle, Wake,
};

/// The token that holds the place of a picture's features.
pub const PAD: u32 = 60;

pub fn key(number: u8) -> ContentHash {
    ContentHash([number; 16])
}

/// Two rows of patches, `tokens` in all.
pub fn picture(number: u8, tokens: usize) -> VisionInput {
    let patches = (0..tokens * 4).map(|i| f32::from(number) + i as f32 / 100.0).collect();
    VisionInput { patches, patch_len: 4, grids: vec![[2, tokens / 2]] }
}

pub fn features(number: u8, tokens: usize) -> Features {
    FakeVision::new(FakeVisionConfig::default()).answer(&picture(number, tokens))
}

pub fn start(fake: FakeVisionConfig, config: VisionConfig) -> (VisionHandle, Arc<FakeVisionProbe>) {
    let (sender, probe) = channel();
    let make = move || {
        let encoder = FakeVision::new(fake);
        sender.send(encoder.probe()).unwrap();
        Ok(Box::new(encoder) as Box<_>)
    };
    (VisionEngine::start(make, config).unwrap(), probe.recv().unwrap())
}

/// An encoder that waits for a word before each picture.
struct Gated {
    encoder: FakeVision,
    go: Receiver<()>,
}

impl VisionEncoder for Gated {
    fn info(&self) -> &VisionInfo {
        self.encoder.info()
    }

    fn memory(&self) -> Result<MemoryInfo> {
        self.encoder.memory()
    }

    fn encode(&mut self, input: &VisionInput, pause: &mut dyn FnMut()) -> Result<Features> {
        // Once nobody can give it any more, it goes without.
        while let Err(std::sync::mpsc::RecvTimeoutError::Timeout) = self.go.recv_timeout(Duration::from_millis(1)) {
            pause();
        }
        self.encoder.encode(input, pause)
    }
}

/// An engine whose encoder waits for a message before each picture, or for the sender's end.
pub fn gated(fake: FakeVisionConfig, config: VisionConfig) -> (VisionHandle, Arc<FakeVisionProbe>, Sender<()>) {
    let (sender, probe) = channel();
    let (go, gate) = channel();
    let make = move || {
        let encoder = FakeVision::new(fake);
        sender.send(encoder.probe()).unwrap();
        Ok(Box::new(Gated { encoder, go: gate }) as Box<_>)
    };
    (VisionEngine::start(make, config).unwrap(), probe.recv().unwrap(), go)
}

pub fn source(vision: &VisionHandle, number: u8, tokens: usize) -> Arc<dyn FeatureSource> {
    vision.features(key(number), tokens, move || picture(number, tokens))
}

/// Polls until there is an answer.
pub fn wait(source: &dyn FeatureSource) -> std::result::Result<Arc<Features>, String> {
    let (sender, woken) = channel();
    let wake: Wake = Arc::new(move || {
        let _ = sender.send(());
    });
    loop {
        if let Some(answer) = source.poll(&wake) {
            return answer;
        }
        woken.recv_timeout(Duration::from_secs(20)).expect("it is woken when there is an answer");
    }
}

/// Polls once, and is not told when there is news.
pub fn peek(source: &dyn FeatureSource) -> Option<std::result::Result<Arc<Features>, String>> {
    let wake: Wake = Arc::new(|| ());
    source.poll(&wake)
}

/// A source that counts how often it was asked.
#[derive(Debug)]
pub struct Counted {
    pub source: Arc<dyn FeatureSource>,
    pub polls: Arc<AtomicU64>,
}

impl FeatureSource for Counted {
    fn poll(&self, wake: &Wake) -> Option<std::result::Result<Arc<Features>, String>> {
        self.polls.fetch_add(1, Relaxed);
        self.source.poll(wake)
    }

    fn origin(&self) -> Option<FeatureOrigin> {
        self.source.origin()
    }
}

/// A source without an engine: the answer is there at once.
#[derive(Debug)]
pub struct AtOnce(pub std::result::Result<Arc<Features>, String>);

impl FeatureSource for AtOnce {
    fn poll(&self, _wake: &Wake) -> Option<std::result::Result<Arc<Features>, String>> {
        Some(self.0.clone())
    }
}

/// How the tokens of pictures stand in the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Plain,
    /// On two axes, in two rows.
    Grid,
    /// They see each other.
    Bidirectional,
}

/// Adds a picture to a request's prompt.
pub fn show(request: &mut Request, number: u8, tokens: usize, kind: Kind, features: Arc<dyn FeatureSource>) {
    let grid = (kind == Kind::Grid).then_some(SpanGrid { columns: tokens.div_ceil(2), time: 0, continues: false });
    let bidirectional = kind == Kind::Bidirectional;
    let span = MediaSpan { start: request.prompt.len(), len: tokens, first: 0, grid, bidirectional, features: None };
    request.prompt.extend(vec![PAD; tokens]);
    request.media.push(RequestMedia { span, key: key(number), features });
}

/// Waits for something another thread will do soon.
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(20), "never happened: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
