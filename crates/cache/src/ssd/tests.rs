//! The tier as the engine sees it, on real folders.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    sync::{
        Mutex,
        mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    },
    time::SystemTime,
};

use tempfile::TempDir;
use vllm_platform::KvDtype;

use super::*;

mod room;
mod trouble;

const OURS: &str = "0a";

fn config(dir: &Path) -> SsdConfig {
    SsdConfig {
        dir: dir.into(),
        max_bytes: 1 << 30,
        fingerprint: OURS.into(),
        dtype: KvDtype::F32,
        quantize: false,
        queue_bytes: SsdConfig::QUEUE_BYTES,
    }
}

type Groups = Vec<Option<Vec<u8>>>;

/// A tier, and what it has said.
struct Opened {
    tier: SsdTier,
    woken: Receiver<()>,
    told: Vec<SsdEvent>,
}

impl Opened {
    /// Waits until the scan is done.
    fn new(config: SsdConfig) -> Self {
        let (wake, woken) = channel();
        let tier = SsdTier::open(config, move || {
            let _ = wake.send(());
        })
        .unwrap();
        let mut opened = Self { tier, woken, told: vec![] };
        opened.wait(|event| *event == SsdEvent::ScanDone);
        opened
    }

    /// The first event, from here on, that is wanted.
    fn wait(&mut self, wanted: impl Fn(&SsdEvent) -> bool) -> SsdEvent {
        loop {
            while let Some(event) = self.tier.poll() {
                self.told.push(event.clone());
                if wanted(&event) {
                    return event;
                }
            }
            match self.woken.recv_timeout(Duration::from_secs(10)) {
                Ok(()) => {}
                Err(RecvTimeoutError::Timeout) => panic!("waited in vain; told so far: {:?}", self.told),
                Err(RecvTimeoutError::Disconnected) => unreachable!("the tier holds the other end"),
            }
        }
    }

    /// Whether it was written.
    fn write(&mut self, block: &(SsdEntry, Groups)) -> bool {
        let (entry, groups) = block.clone();
        let hash = entry.hash;
        assert!(self.tier.write(entry, groups));
        let done = |event: &SsdEvent| [SsdEvent::Written(hash), SsdEvent::Gone(hash)].contains(event);
        self.wait(done) == SsdEvent::Written(hash)
    }

    /// What is read, if anything.
    fn read(&mut self, hash: BlockHash) -> Option<Groups> {
        self.tier.read(hash);
        let answer = self.wait(|event| match event {
            SsdEvent::Loaded { hash: loaded, .. } => *loaded == hash,
            event => *event == SsdEvent::Gone(hash),
        });
        match answer {
            SsdEvent::Loaded { groups, .. } => Some(groups),
            _ => None,
        }
    }

    fn found(&self) -> Vec<SsdFound> {
        let pieces = self.told.iter().filter_map(|event| match event {
            SsdEvent::Found(piece) => Some(piece.clone()),
            _ => None,
        });
        pieces.flatten().collect()
    }
}

/// A block of its own with `bytes` bytes in its group.
fn block(number: u32, bytes: usize) -> (SsdEntry, Groups) {
    continuing(BlockHash::root(None), number, bytes)
}

fn continuing(parent: BlockHash, number: u32, bytes: usize) -> (SsdEntry, Groups) {
    let tokens = vec![number, 7];
    let content = (0..bytes).map(|at| (at as u32 ^ number) as u8).collect();
    (SsdEntry { hash: parent.extend(&tokens), parent, tokens, media: vec![] }, vec![Some(content)])
}

fn path(dir: &Path, fingerprint: &str, hash: BlockHash) -> PathBuf {
    let name = hash.to_string();
    dir.join(fingerprint).join(&name[..2]).join(format!("{name}.kv"))
}

/// All files of blocks, finished or not.
fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = |path: &Path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path());
    let models = entries(dir).filter(|path| path.is_dir());
    let fans = models.flat_map(|model| entries(&model).filter(|path| path.is_dir()).collect::<Vec<_>>());
    fans.flat_map(|fan| entries(&fan).collect::<Vec<_>>()).collect()
}

fn size(dir: &Path) -> u64 {
    files(dir).iter().map(|file| file.metadata().unwrap().len()).sum()
}

#[test]
fn blocks_survive_a_restart() {
    let dir = TempDir::new().unwrap();
    let (first, _) = block(1, 0);
    let first = (first, vec![Some(vec![1; 1000]), None, Some(vec![])]);
    let second = continuing(first.0.hash, 2, 5000);
    let mut tier = Opened::new(config(dir.path()));
    assert_eq!(tier.found(), []);
    assert!(tier.write(&first) && tier.write(&second));
    assert_eq!(tier.read(first.0.hash).as_ref(), Some(&first.1));
    let stats = tier.tier.stats();
    let size = size(dir.path());
    assert_eq!((stats.entries, stats.bytes, stats.max_bytes), (2, size, 1 << 30));
    assert_eq!((stats.written_blocks, stats.written_bytes), (2, size));
    assert_eq!((stats.read_blocks, stats.read_bytes), (1, 1000));
    drop(tier);

    let mut tier = Opened::new(config(dir.path()));
    let found = [(&first, vec![true, false, true]), (&second, vec![true])];
    assert_eq!(tier.found(), found.map(|(block, groups)| SsdFound { entry: block.0.clone(), groups }));
    assert_eq!((tier.tier.stats().entries, tier.tier.stats().bytes), (2, size));
    for block in [&first, &second] {
        assert_eq!(tier.read(block.0.hash).as_ref(), Some(&block.1));
    }
    assert_eq!(tier.read(BlockHash::root(None)), None);
    assert_eq!((tier.tier.stats().corrupt, tier.tier.stats().errors), (0, 0));
}

#[test]
fn many_blocks_are_found_with_parents_first() {
    let dir = TempDir::new().unwrap();
    let tier = Opened::new(config(dir.path()));
    let mut blocks: Vec<(SsdEntry, Groups)> = vec![block(0, 10)];
    for number in 1..3 * scan::PIECE as u32 {
        let parent = blocks[number as usize * 7 / 8].0.hash;
        blocks.push(continuing(parent, number, 10));
    }
    // Children before parents: the order of the files' ages.
    for block in blocks.iter().rev() {
        assert!(tier.tier.write(block.0.clone(), block.1.clone()));
    }
    drop(tier);

    let tier = Opened::new(config(dir.path()));
    let found: Vec<BlockHash> = tier.found().iter().map(|found| found.entry.hash).collect();
    assert_eq!(found.len(), blocks.len(), "all that was queued had been written when the tier was dropped");
    let place = |hash| found.iter().position(|found| *found == hash);
    for (entry, _) in &blocks {
        assert!(place(entry.hash).is_some());
        assert!(place(entry.parent) < place(entry.hash), "the root is nowhere, others stand before");
    }
}

/// A tier whose writer, having said something, waits for a word of ours before it goes on.
fn halting(config: SsdConfig) -> (Opened, Sender<()>) {
    let (go, gone) = channel::<()>();
    let gone = Mutex::new(gone);
    let (wake, woken) = channel();
    let tier = SsdTier::open(config, move || {
        let _ = wake.send(());
        if thread::current().name() == Some("ssd-write") {
            let _ = gone.lock().unwrap().recv();
        }
    });
    let mut tier = Opened { tier: tier.unwrap(), woken, told: vec![] };
    tier.wait(|event| *event == SsdEvent::ScanDone);
    (tier, go)
}

#[test]
fn what_waits_to_be_written_can_be_read() {
    let dir = TempDir::new().unwrap();
    let (mut tier, go) = halting(SsdConfig { queue_bytes: 2500, ..config(dir.path()) });
    let blocks = [block(1, 1000), block(2, 1000), block(3, 1000)];
    let queued = blocks.clone().map(|(entry, groups)| tier.tier.write(entry, groups));
    assert_eq!(queued, [true, true, false], "2500 bytes fit");
    assert_eq!(tier.tier.stats().dropped, 1);
    assert_eq!(tier.read(blocks[1].0.hash).as_ref(), Some(&blocks[1].1));
    assert_eq!(files(dir.path()).len(), 0);

    drop(go);
    tier.wait(|event| *event == SsdEvent::Written(blocks[1].0.hash));
    assert!(tier.write(&blocks[2]), "there is room again");
    assert_eq!(tier.read(blocks[2].0.hash).as_ref(), Some(&blocks[2].1));
}

#[test]
fn what_is_being_written_can_be_read() {
    let dir = TempDir::new().unwrap();
    let (mut tier, go) = halting(SsdConfig { max_bytes: 1500, ..config(dir.path()) });
    let [first, second] = [block(1, 1000), block(2, 1000)];
    go.send(()).unwrap();
    assert!(tier.write(&first));
    go.send(()).unwrap();
    // Half-way through the second's write the first is told to be gone.
    assert!(tier.tier.write(second.0.clone(), second.1.clone()));
    tier.wait(|event| *event == SsdEvent::Gone(first.0.hash));
    assert_eq!(files(dir.path()).len(), 0);
    assert_eq!(tier.read(second.0.hash), Some(second.1));
    drop(go);
}

#[test]
fn answers_that_nobody_polls_are_bounded() {
    let dir = TempDir::new().unwrap();
    let mut tier = Opened::new(SsdConfig { queue_bytes: 1500, ..config(dir.path()) });
    let blocks: Vec<_> = (0..5).map(|number| block(number, 1000)).collect();
    for block in &blocks {
        assert!(tier.write(block));
    }
    for (entry, _) in &blocks {
        tier.tier.read(entry.hash);
    }
    thread::sleep(Duration::from_millis(100));
    assert_eq!(tier.tier.stats().read_blocks, 2, "after two the bound is passed");
    for (entry, groups) in blocks {
        let loaded = SsdEvent::Loaded { hash: entry.hash, groups };
        assert_eq!(tier.wait(|event| matches!(event, SsdEvent::Loaded { .. })), loaded);
    }
}

#[test]
fn more_groups_replace_fewer() {
    let dir = TempDir::new().unwrap();
    let (entry, _) = block(1, 0);
    let few = vec![Some(vec![1; 100]), None];
    let all = vec![Some(vec![1; 100]), Some(vec![2; 100])];
    let mut tier = Opened::new(config(dir.path()));
    for (groups, kept, written) in [(&few, &few, 1), (&few, &few, 1), (&all, &all, 2), (&few, &all, 2)] {
        assert!(tier.write(&(entry.clone(), groups.clone())));
        assert_eq!(tier.read(entry.hash).as_ref(), Some(kept));
        assert_eq!(tier.tier.stats().written_blocks, written);
    }
    assert_eq!((tier.tier.stats().entries, tier.tier.stats().bytes), (1, size(dir.path())));
}

#[test]
fn clear_deletes_what_is_stored_and_what_is_queued() {
    let dir = TempDir::new().unwrap();
    let mut other = Opened::new(SsdConfig { fingerprint: "0b".into(), ..config(dir.path()) });
    assert!(other.write(&block(9, 1000)));
    let mut tier = Opened::new(config(dir.path()));
    let blocks: Vec<_> = (0..4).map(|number| block(number, 100_000)).collect();
    assert!(tier.write(&blocks[0]));
    for block in &blocks[1..] {
        assert!(tier.tier.write(block.0.clone(), block.1.clone()));
    }
    tier.tier.clear();
    let after = block(5, 1000);
    assert!(tier.write(&after));
    for (entry, _) in &blocks {
        assert!(tier.told.contains(&SsdEvent::Gone(entry.hash)));
        assert_eq!(tier.read(entry.hash), None);
    }
    assert_eq!(tier.read(after.0.hash), Some(after.1));
    assert_eq!(tier.tier.stats().entries, 1);
    assert_eq!(files(dir.path()).len(), 2, "what came after, and the other model's");
}

#[test]
fn eight_bits() {
    let dir = TempDir::new().unwrap();
    let numbers: Vec<f32> = (0..10_000).map(|number| (number as f32 * 0.37).sin() * 3.0).collect();
    let raw: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
    let infinite: Vec<u8> = [1.0, f32::INFINITY].iter().flat_map(|number| number.to_le_bytes()).collect();
    let (entry, _) = block(1, 0);
    let mut tier = Opened::new(SsdConfig { quantize: true, ..config(dir.path()) });
    assert!(tier.write(&(entry.clone(), vec![Some(raw.clone()), Some(infinite.clone())])));
    drop(tier);
    assert!(size(dir.path()) * 37 < raw.len() as u64 * 10, "{} of {} bytes", size(dir.path()), raw.len());

    // A tier that doesn't quantize reads it just as well.
    let mut tier = Opened::new(config(dir.path()));
    let groups = tier.read(entry.hash).unwrap();
    assert_eq!(groups[1], Some(infinite));
    let back = groups[0].as_ref().unwrap().as_chunks().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
    let errors: Vec<f32> = numbers.iter().zip(back).map(|(number, back)| (number - back).abs()).collect();
    assert_eq!(errors.len(), numbers.len());
    assert!(errors.iter().all(|error| *error <= 3.0 / 253.0));
}
