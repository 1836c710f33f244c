//! Features on an SSD.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use vllm_cache::{BlockHash, MediaMark, SsdConfig, SsdEntry, SsdError, SsdEvent, SsdStats, SsdTier};
use vllm_platform::{ContentHash, Features, KvDtype, VisionInfo};

use super::desk::Desk;
use crate::{FeatureOrigin, SsdOptions};

/// Files of features. A picture's is that of a block without tokens after the empty prefix, with one group of bytes: f32,
/// little-endian, [levels, tokens, width].
pub(super) struct Tier {
    ssd: SsdTier,
    levels: usize,
    width: usize,
    /// Pictures that are there, as far as is known.
    stored: HashSet<BlockHash>,
    /// Whether nothing else can be there.
    complete: bool,
    /// Pictures that are being read.
    reading: HashMap<BlockHash, ContentHash>,
}

impl Tier {
    pub fn open(
        options: &SsdOptions,
        info: &VisionInfo,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, SsdError> {
        let config = SsdConfig {
            dir: options.dir.clone(),
            max_bytes: options.max_bytes,
            fingerprint: info.fingerprint.clone(),
            dtype: KvDtype::F32,
            quantize: options.quantize,
            queue_bytes: SsdConfig::QUEUE_BYTES,
        };
        Ok(Self {
            ssd: SsdTier::open(config, wake)?,
            levels: info.levels,
            width: info.width,
            stored: HashSet::new(),
            complete: false,
            reading: HashMap::new(),
        })
    }

    pub fn stats(&self) -> SsdStats {
        self.ssd.stats()
    }

    /// Begins to read a picture's features; false: they are not there.
    pub fn read(&mut self, key: ContentHash, tokens: usize) -> bool {
        let hash = entry(key, tokens).hash;
        let perhaps = self.stored.contains(&hash) || !self.complete;
        if perhaps {
            self.reading.insert(hash, key);
            self.ssd.read(hash);
        }
        perhaps
    }

    /// Counts as a use.
    pub fn touch(&self, key: ContentHash, tokens: usize) {
        let hash = entry(key, tokens).hash;
        if self.stored.contains(&hash) {
            self.ssd.touch(hash);
        }
    }

    /// Takes in what the tier's threads have done.
    pub fn take_in(&mut self, desk: &Desk) {
        while let Some(event) = self.ssd.poll() {
            match event {
                SsdEvent::Found(found) => self.stored.extend(found.iter().map(|found| found.entry.hash)),
                SsdEvent::ScanDone => self.complete = true,
                SsdEvent::Written(_) => {}
                SsdEvent::Gone(hash) => {
                    self.stored.remove(&hash);
                    if let Some(key) = self.reading.remove(&hash) {
                        desk.not_stored(key);
                    }
                }
                SsdEvent::Loaded { hash, groups } => {
                    if let Some(key) = self.reading.remove(&hash) {
                        self.loaded(key, &groups, desk);
                    }
                }
            }
        }
    }

    fn loaded(&self, key: ContentHash, groups: &[Option<Vec<u8>>], desk: &Desk) {
        let Some(job) = desk.read(key) else { return };
        match self.decode(groups, job.picture.tokens) {
            Some(features) => desk.end(&job, FeatureOrigin::Ssd, Ok(Arc::new(features))),
            None => {
                tracing::warn!(%key, "features on the SSD have another shape than the encoder's");
                desk.not_stored(key);
            }
        }
    }

    fn decode(&self, groups: &[Option<Vec<u8>>], tokens: usize) -> Option<Features> {
        let [Some(bytes)] = groups else { return None };
        let (numbers, rest) = bytes.as_chunks();
        if !rest.is_empty() || numbers.len() != self.levels * tokens * self.width {
            return None;
        }
        let numbers = numbers.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect();
        Some(Features::new(numbers, self.levels, self.width))
    }

    /// Queues features for writing.
    pub fn write(&mut self, key: ContentHash, features: &Features) {
        let entry = entry(key, features.tokens());
        let hash = entry.hash;
        let bytes = features.numbers().iter().flat_map(|number| number.to_le_bytes()).collect();
        if self.ssd.write(entry, vec![Some(bytes)]) {
            self.stored.insert(hash);
        }
    }

    /// Deletes everything.
    pub fn clear(&mut self) {
        self.ssd.clear();
    }
}

fn entry(key: ContentHash, tokens: usize) -> SsdEntry {
    let parent = BlockHash::root(None);
    let media = vec![MediaMark { start: 0, len: tokens, key, first: 0 }];
    SsdEntry { hash: parent.extend_with_media(&[], &media), parent, tokens: Vec::new(), media }
}
