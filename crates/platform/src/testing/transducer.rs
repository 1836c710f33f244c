//! A model that goes along a sound, without a model.

use std::{
    collections::HashSet,
    ops::Range,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::bursts::{bursts, word};
use crate::{
    DeviceKind, Error, HeardToken, Mel, MelScale, MelSettings, MemoryInfo, Result, TokenId, TranscriberInfo, Transducer,
};

/// What the fake is like.
#[derive(Debug, Clone)]
pub struct FakeTransducerConfig {
    /// What it listens to.
    pub mel: MelSettings,
    /// The text of each token. The longer a burst by [`word_frames`](Self::word_frames), the later among them it is.
    pub pieces: Vec<String>,
    /// Frames by which words differ.
    pub word_frames: usize,
    /// Above this a frame is loud.
    pub loud: f32,
    /// Time that each call takes.
    pub delay: Duration,
    /// Calls (counted from 0) that fail with [`Error::Step`].
    pub fail_at: HashSet<u64>,
    /// Calls that panic.
    pub panic_at: HashSet<u64>,
}

impl Default for FakeTransducerConfig {
    fn default() -> Self {
        let pieces = ["▁zero", "▁one", "▁two", "▁three", "▁four", "▁five", "▁six", "▁seven", "▁eight", "▁nine"];
        Self {
            mel: MelSettings {
                sample_rate: 16_000,
                fft: 512,
                window: 400,
                hop: 160,
                bands: 80,
                scale: MelScale::PerBand { preemphasis: 0.97 },
            },
            pieces: pieces.map(Into::into).into(),
            word_frames: 10,
            loud: 0.0,
            delay: Duration::ZERO,
            fail_at: HashSet::new(),
            panic_at: HashSet::new(),
        }
    }
}

/// What a test may read of a model that lives on another thread.
#[derive(Debug, Default)]
pub struct FakeTransducerProbe {
    /// Calls, failed ones too.
    pub calls: AtomicU64,
    /// Sounds heard.
    pub sounds: AtomicU64,
    /// Most sounds in one call.
    pub most_sounds: AtomicU64,
    /// Frames of the longest sound.
    pub longest: AtomicU64,
}

/// The model: it hears a word wherever the sound is loud for a while.
///
/// ```
/// use vllm_platform::{Mel, Transducer, testing::FakeTransducer};
///
/// let mut model = FakeTransducer::new(Default::default());
/// let mut sound = Mel { numbers: vec![-1.0; 100 * 80], frames: 100 };
/// sound.numbers[30 * 80..50 * 80].fill(1.0);
/// let heard = &model.transcribe(&[&sound], &mut || ()).unwrap()[0];
/// assert_eq!((heard[0].token, heard[0].start.as_millis(), heard[0].duration.as_millis()), (2, 300, 200));
/// ```
#[derive(Debug)]
pub struct FakeTransducer {
    config: FakeTransducerConfig,
    info: TranscriberInfo,
    probe: Arc<FakeTransducerProbe>,
}

impl FakeTransducer {
    /// A model.
    #[must_use]
    pub fn new(config: FakeTransducerConfig) -> Self {
        let info = TranscriberInfo {
            architecture: "FakeTransducer".into(),
            device: DeviceKind::Cpu,
            parameters: 0,
            weight_bytes: 0,
            quantization: "none".into(),
            mel: config.mel.clone(),
            vocab_size: config.pieces.len(),
        };
        Self { config, info, probe: Arc::default() }
    }

    /// Figures to watch from another thread.
    #[must_use]
    pub fn probe(&self) -> Arc<FakeTransducerProbe> {
        Arc::clone(&self.probe)
    }

    fn hear(&self, sound: &Mel) -> Vec<HeardToken> {
        let seconds = |frames: usize| {
            Duration::from_secs_f64((frames * self.config.mel.hop) as f64 / f64::from(self.config.mel.sample_rate))
        };
        let words = 0..self.config.pieces.len() as TokenId;
        let token = |burst: Range<usize>| HeardToken {
            token: word(&burst, self.config.word_frames, &words),
            start: seconds(burst.start),
            duration: seconds(burst.len()),
            probability: 0.9,
        };
        bursts(sound, self.config.loud).into_iter().map(token).collect()
    }
}

impl Transducer for FakeTransducer {
    fn info(&self) -> &TranscriberInfo {
        &self.info
    }

    fn pieces(&self) -> &[String] {
        &self.config.pieces
    }

    fn memory(&self) -> Result<MemoryInfo> {
        Ok(MemoryInfo { total: 1 << 30, limit: 1 << 30, active: 0, cached: 0, peak: 0 })
    }

    fn transcribe(&mut self, sounds: &[&Mel], pause: &mut dyn FnMut()) -> Result<Vec<Vec<HeardToken>>> {
        let call = self.probe.calls.fetch_add(1, Relaxed);
        self.probe.sounds.fetch_add(sounds.len() as u64, Relaxed);
        self.probe.most_sounds.fetch_max(sounds.len() as u64, Relaxed);
        let longest = sounds.iter().map(|sound| sound.frames).max().unwrap_or(0);
        self.probe.longest.fetch_max(longest as u64, Relaxed);
        pause();
        std::thread::sleep(self.config.delay);
        assert!(!self.config.panic_at.contains(&call), "the fake was told to panic at call {call}");
        if self.config.fail_at.contains(&call) {
            return Err(Error::Step(format!("the fake was told to fail at call {call}")));
        }
        if let Some(sound) = sounds.iter().find(|sound| sound.numbers.len() != sound.frames * self.config.mel.bands) {
            let (numbers, frames) = (sound.numbers.len(), sound.frames);
            return Err(Error::Step(format!("{numbers} numbers are not {frames} frames of {}", self.config.mel.bands)));
        }
        Ok(sounds.iter().map(|sound| self.hear(sound)).collect())
    }
}
