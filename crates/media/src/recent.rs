//! What was decoded lately.

use std::collections::HashMap;

use crate::{Picture, Video, video::Sampling};

/// A file by its SHA-256, and what was wanted of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub file: [u8; 32],
    /// `None` for a picture.
    pub sampling: Option<Sampled>,
}

/// A [`Sampling`], comparable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Sampled {
    fps: Option<u64>,
    frames: [Option<usize>; 2],
    multiple_of: usize,
    spread: crate::Spread,
}

impl From<&Sampling> for Sampled {
    fn from(sampling: &Sampling) -> Self {
        let Sampling { fps, min_frames, max_frames, multiple_of, spread } = *sampling;
        Self { fps: fps.map(f64::to_bits), frames: [min_frames, max_frames], multiple_of, spread }
    }
}

#[derive(Debug, Clone)]
pub(crate) enum Decoded {
    Picture(Picture),
    Video(Video),
}

impl Decoded {
    fn bytes(&self) -> usize {
        match self {
            Self::Picture(picture) => picture.pixels().len(),
            Self::Video(video) => video.frames.iter().map(|frame| frame.picture.pixels().len()).sum(),
        }
    }
}

/// What a [`crate::Loader`] remembers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Remembered {
    /// Pictures and videos.
    pub entries: usize,
    /// Their pixels' bytes.
    pub bytes: usize,
    /// What these may be.
    pub capacity: usize,
    /// Files that didn't have to be decoded.
    pub hits: u64,
    /// Files that had to be.
    pub misses: u64,
}

/// Pictures and videos, of which those that were not asked for the longest go when there is no room.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    entries: HashMap<Key, (Decoded, u64)>,
    clock: u64,
    counts: Remembered,
}

impl Recent {
    pub fn new(capacity: usize) -> Self {
        Self { counts: Remembered { capacity, ..Remembered::default() }, ..Self::default() }
    }

    pub fn get(&mut self, key: &Key) -> Option<Decoded> {
        self.clock += 1;
        let found = self.entries.get_mut(key).map(|(decoded, used)| {
            *used = self.clock;
            decoded.clone()
        });
        match found {
            Some(_) => self.counts.hits += 1,
            None => self.counts.misses += 1,
        }
        found
    }

    /// What is larger than all that there is room for is not kept.
    pub fn insert(&mut self, key: Key, decoded: Decoded) {
        let bytes = decoded.bytes();
        if bytes > self.counts.capacity {
            return;
        }
        self.remove(&key);
        while self.counts.bytes + bytes > self.counts.capacity {
            // There are few: what is kept has millions of pixels.
            let Some(oldest) = self.entries.iter().min_by_key(|(_, (_, used))| *used).map(|(key, _)| *key) else {
                break;
            };
            self.remove(&oldest);
        }
        self.clock += 1;
        self.counts.bytes += bytes;
        self.entries.insert(key, (decoded, self.clock));
    }

    fn remove(&mut self, key: &Key) {
        if let Some((decoded, _)) = self.entries.remove(key) {
            self.counts.bytes -= decoded.bytes();
        }
    }

    pub fn clear(&mut self) {
        self.entries.clear();
        self.counts.bytes = 0;
    }

    pub fn counts(&self) -> Remembered {
        Remembered { entries: self.entries.len(), ..self.counts }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(file: u8) -> Key {
        Key { file: [file; 32], sampling: None }
    }

    fn picture(width: u32) -> Decoded {
        Decoded::Picture(Picture::from_rgb(width, 1, vec![0; width as usize * 3]))
    }

    #[test]
    fn the_oldest_go() {
        let mut recent = Recent::new(30);
        recent.insert(key(1), picture(4));
        recent.insert(key(2), picture(4));
        assert!(recent.get(&key(1)).is_some());
        recent.insert(key(3), picture(4));
        let kept = [1, 2, 3].map(|file| recent.entries.contains_key(&key(file)));
        assert_eq!((kept, recent.counts().bytes), ([true, false, true], 24));
        recent.insert(key(3), picture(5));
        assert_eq!((recent.counts().entries, recent.counts().bytes), (2, 27));
        recent.insert(key(4), picture(11));
        assert_eq!((recent.counts().entries, recent.counts().bytes), (2, 27));
        recent.insert(key(4), picture(10));
        assert_eq!((recent.counts().entries, recent.counts().bytes), (1, 30));
        recent.clear();
        assert_eq!(recent.counts(), Remembered { capacity: 30, hits: 1, ..Remembered::default() });
        assert!(recent.get(&key(4)).is_none());
        assert_eq!(recent.counts().misses, 1);
    }

    #[test]
    fn a_video_is_one_for_each_sampling() {
        let two = Sampling { fps: Some(2.0), ..Sampling::default() };
        let of = |sampling: &Sampling| Key { file: [1; 32], sampling: Some(sampling.into()) };
        assert_eq!(of(&two), of(&two));
        assert_ne!(of(&two), of(&Sampling::default()));
        assert_ne!(of(&two), key(1));
    }
}
