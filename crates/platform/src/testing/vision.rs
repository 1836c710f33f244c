//! A vision encoder without a model.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::mix;
use crate::{DeviceKind, Error, Features, MemoryInfo, Result, VisionEncoder, VisionInfo, VisionInput};

/// What the fake is like.
#[derive(Debug, Clone)]
pub struct FakeVisionConfig {
    /// Numbers of a vector.
    pub width: usize,
    /// Levels of features.
    pub levels: usize,
    /// Numbers of a patch.
    pub patch_len: usize,
    /// Patches that become one vector; those of a picture must be a multiple of it.
    pub merge: usize,
    /// Slices that the work on one input is done in: so often it pauses.
    pub slices: usize,
    /// Time that each slice takes.
    pub delay: Duration,
    /// Calls (counted from 0) that fail with [`Error::Step`].
    pub fail_at: HashSet<u64>,
    /// Calls that panic.
    pub panic_at: HashSet<u64>,
    /// As [`VisionInfo::fingerprint`].
    pub fingerprint: String,
}

impl Default for FakeVisionConfig {
    fn default() -> Self {
        Self {
            width: 3,
            levels: 1,
            patch_len: 4,
            merge: 1,
            slices: 1,
            delay: Duration::ZERO,
            fail_at: HashSet::new(),
            panic_at: HashSet::new(),
            fingerprint: format!("{:064x}", 0xfe),
        }
    }
}

/// What a test may read of an encoder that lives on another thread.
#[derive(Debug, Default)]
pub struct FakeVisionProbe {
    /// Calls, failed ones too.
    pub calls: AtomicU64,
    /// Calls that have ended.
    pub ended: AtomicU64,
    /// Patches encoded.
    pub patches: AtomicU64,
    /// Times that it paused.
    pub pauses: AtomicU64,
}

/// The encoder. A vector is a hash of the patches that it is made of, and of all others of the same picture.
///
/// ```
/// use vllm_platform::{VisionEncoder, VisionInput, testing::FakeVision};
///
/// let mut encoder = FakeVision::new(Default::default());
/// let input = VisionInput { patches: vec![0.5; 6 * 4], patch_len: 4, grids: vec![[2, 3]] };
/// let features = encoder.encode(&input, &mut || ()).unwrap();
/// assert_eq!((features.tokens(), features.width(), features), (6, 3, encoder.answer(&input)));
/// ```
#[derive(Debug)]
pub struct FakeVision {
    config: FakeVisionConfig,
    info: VisionInfo,
    probe: Arc<FakeVisionProbe>,
}

impl FakeVision {
    /// An encoder.
    #[must_use]
    pub fn new(config: FakeVisionConfig) -> Self {
        let info = VisionInfo {
            architecture: "FakeVision".into(),
            device: DeviceKind::Cpu,
            parameters: 0,
            weight_bytes: 0,
            quantization: "none".into(),
            width: config.width,
            levels: config.levels,
            patch_len: config.patch_len,
            fingerprint: config.fingerprint.clone(),
        };
        Self { config, info, probe: Arc::default() }
    }

    /// Figures to watch from another thread.
    #[must_use]
    pub fn probe(&self) -> Arc<FakeVisionProbe> {
        Arc::clone(&self.probe)
    }

    /// What it gives for an input.
    #[must_use]
    pub fn answer(&self, input: &VisionInput) -> Features {
        let FakeVisionConfig { width, levels, merge, .. } = self.config;
        let mut digests = Vec::new();
        let mut rest = input.patches.as_slice();
        for [rows, columns] in &input.grids {
            let (picture, others) = rest.split_at(rows * columns * input.patch_len);
            let whole = digest(picture);
            digests.extend(picture.chunks(merge * input.patch_len).map(|patches| mix(whole, digest(patches))));
            rest = others;
        }
        let number = |digest: u64, i: usize| (mix(digest, i as u64) >> 40) as f32 / (1 << 23) as f32 - 1.0;
        let of_level = |level: usize| {
            let digests = digests.iter().map(move |&digest| mix(digest, level as u64));
            digests.flat_map(move |digest| (0..width).map(move |i| number(digest, i)))
        };
        Features::new((0..levels).flat_map(of_level).collect(), levels, width)
    }
}

fn digest(numbers: &[f32]) -> u64 {
    numbers.iter().fold(0, |digest, number| mix(digest, number.to_bits().into()))
}

impl VisionEncoder for FakeVision {
    fn info(&self) -> &VisionInfo {
        &self.info
    }

    fn memory(&self) -> Result<MemoryInfo> {
        Ok(MemoryInfo { total: 1 << 30, limit: 1 << 30, active: 0, cached: 0, peak: 0 })
    }

    fn encode(&mut self, input: &VisionInput, pause: &mut dyn FnMut()) -> Result<Features> {
        let call = self.probe.calls.fetch_add(1, Relaxed);
        self.probe.patches.fetch_add(input.num_patches() as u64, Relaxed);
        for _ in 0..self.config.slices {
            if !self.config.delay.is_zero() {
                std::thread::sleep(self.config.delay);
            }
            self.probe.pauses.fetch_add(1, Relaxed);
            pause();
        }
        assert!(!self.config.panic_at.contains(&call), "the fake was told to panic at call {call}");
        self.probe.ended.fetch_add(1, Relaxed);
        if self.config.fail_at.contains(&call) {
            return Err(Error::Step(format!("the fake was told to fail at call {call}")));
        }
        if input.grids.iter().any(|[rows, columns]| !(rows * columns).is_multiple_of(self.config.merge)) {
            return Err(Error::Step(format!("{:?} is not to be merged by {}", input.grids, self.config.merge)));
        }
        Ok(self.answer(input))
    }
}
