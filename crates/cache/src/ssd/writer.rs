//! The thread that writes, scans and deletes: the only one that changes the folder.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use super::{
    config::SsdConfig,
    entry::{SsdEntry, SsdEvent, SsdFound},
    folder::{self, Folder},
    format::{self, Identity},
    index::{Index, Known, Slot},
    others::Others,
    queue::{Block, Job, Order, Queue, Why},
    reader,
    scan::{self, Scan},
};
use crate::BlockHash;

/// How much older a file's time of last use may be than the truth.
const STALE: Duration = Duration::from_secs(60);
/// Least time between two lines of the log about errors.
const QUIET: Duration = Duration::from_secs(60);

pub(super) struct Writer {
    queue: Arc<Queue>,
    folder: Arc<Folder>,
    identity: Arc<Identity>,
    max_bytes: u64,
    quantize: bool,
    index: Index,
    others: Others,
    /// When an error was last logged.
    complained: Option<Instant>,
}

/// Why a block was not written.
enum Refusal {
    /// It is larger than the cap.
    TooLarge,
    /// The caller's hash is not that of the content: nobody could read it.
    WrongHash,
    Io(io::Error),
}

impl From<io::Error> for Refusal {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl Writer {
    pub(super) fn new(config: &SsdConfig, queue: Arc<Queue>, folder: Arc<Folder>, identity: Arc<Identity>) -> Self {
        Self {
            queue,
            folder,
            identity,
            max_bytes: config.max_bytes,
            quantize: config.quantize,
            index: Index::default(),
            others: Others::default(),
            complained: None,
        }
    }

    pub(super) fn run(mut self) {
        // Sizes and times of all files come before the first write, for the cap is about all of them.
        let mut scan = Some(self.take_stock());
        if let Err(error) = self.make_room(0) {
            self.complain("delete", &error);
        }
        loop {
            self.publish_sizes();
            match self.queue.next_job(scan.is_some()) {
                Job::Orders(orders) => {
                    for order in orders {
                        self.obey(order);
                    }
                    continue;
                }
                Job::Write(block) => {
                    let event = self.write(&block);
                    self.publish_sizes();
                    self.queue.finish_write();
                    self.queue.tell([event]);
                }
                Job::Scan => {}
                Job::Stop => return,
            }
            // After every write too: neither waits for the end of the other.
            if scan.as_mut().is_some_and(|scan| self.scan(scan)) {
                scan = None;
            }
        }
    }

    fn take_stock(&mut self) -> Scan {
        let now = now();
        let mut files = self.accept(folder::list(self.folder.path()), "list").unwrap_or_default();
        files.sort_by_key(|file| file.used);
        let mut hashes = vec![];
        for file in files {
            // A clock set back must not keep a file for ever.
            let used = self.index.tick(file.used.min(now));
            match folder::hash_of(&file.path).filter(|hash| self.folder.file(*hash) == file.path) {
                Some(hash) => {
                    self.index.insert(hash, Slot { size: file.size, used, marked: file.used, known: None });
                    hashes.push(hash);
                }
                None => {
                    self.accept(folder::remove(&file.path), "delete");
                }
            }
        }
        self.others = self.accept(Others::find(&self.folder), "list").unwrap_or_default();
        Scan::new(hashes)
    }

    /// Looks at the next piece; true if it was the last.
    fn scan(&mut self, scan: &mut Scan) -> bool {
        let mut told = vec![];
        let mut done = false;
        for _ in 0..scan::PIECE {
            let Some(hash) = scan.next() else {
                done = true;
                break;
            };
            // Not there: evicted since. Known: written since, and told of.
            if self.index.get(hash).is_none_or(|slot| slot.known.is_some()) {
                scan.without(hash, &mut told);
                continue;
            }
            match reader::open(&self.folder, &self.identity, hash) {
                Ok((_, header)) => {
                    let groups = header.present();
                    let there = groups.iter().filter(|there| **there).count();
                    self.index.learn(hash, Known { parent: header.entry.parent, groups: there });
                    scan.good(SsdFound { entry: header.entry, groups }, &mut told);
                }
                Err(fault) => {
                    scan.without(hash, &mut told);
                    self.discard(hash, reader::judge(&self.folder, hash, &fault));
                }
            }
        }
        // Some waited for their parent, and were evicted meanwhile.
        told.retain(|found| self.index.get(found.entry.hash).is_some());
        let found = (!told.is_empty()).then_some(SsdEvent::Found(told));
        self.publish_sizes();
        self.queue.tell(found.into_iter().chain(done.then_some(SsdEvent::ScanDone)));
        done
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::Touch(hash) => {
                if self.index.touch(hash, now(), STALE.as_nanos() as u64) {
                    // At worst it is evicted early after a restart.
                    let _ = self.folder.mark_used(hash);
                }
            }
            Order::Lost { hash, why } => {
                self.discard(hash, why);
                self.publish_sizes();
                self.queue.tell([SsdEvent::Gone(hash)]);
            }
            Order::Clear => {
                let hashes = self.index.hashes();
                for hash in &hashes {
                    self.discard(*hash, Why::Absent);
                }
                self.publish_sizes();
                self.queue.tell(hashes.into_iter().map(SsdEvent::Gone));
            }
        }
    }

    /// Deletes a block that is of no use.
    fn discard(&mut self, hash: BlockHash, why: Why) {
        self.index.remove(hash);
        match why {
            Why::Absent => {}
            Why::Corrupt => self.queue.count(|stats| stats.corrupt += 1),
            Why::Error => self.queue.count(|stats| stats.errors += 1),
        }
        let removed = folder::remove(&self.folder.file(hash));
        self.accept(removed, "delete");
    }

    fn write(&mut self, block: &Block) -> SsdEvent {
        let hash = block.entry.hash;
        match self.store(block) {
            Ok(()) => return SsdEvent::Written(hash),
            Err(Refusal::TooLarge) => self.queue.count(|stats| stats.dropped += 1),
            Err(Refusal::WrongHash) => {
                let error =
                    io::Error::new(io::ErrorKind::InvalidInput, format!("{hash} is not the hash of its content"));
                self.complain("write", &error);
            }
            Err(Refusal::Io(error)) => self.complain("write", &error),
        }
        SsdEvent::Gone(hash)
    }

    fn store(&mut self, block: &Block) -> Result<(), Refusal> {
        let SsdEntry { hash, parent, .. } = block.entry;
        if !block.entry.is_named_right() {
            return Err(Refusal::WrongHash);
        }
        let groups = block.groups.iter().flatten().count();
        if self.index.get(hash).and_then(|slot| slot.known).is_some_and(|known| known.groups >= groups) {
            self.obey(Order::Touch(hash));
            return Ok(());
        }
        let content = format::encode(&self.identity, &block.entry, &block.groups, self.quantize);
        let size = content.len();
        if size > self.max_bytes {
            return Err(Refusal::TooLarge);
        }
        self.make_room(size)?;
        self.folder.save(hash, &content)?;
        let used = self.index.tick(now());
        self.index.insert(hash, Slot { size, used, marked: used, known: Some(Known { parent, groups }) });
        self.queue.count(|stats| {
            stats.written_blocks += 1;
            stats.written_bytes += size;
        });
        Ok(())
    }

    /// Deletes what was unused for the longest time until `size` bytes more fit.
    fn make_room(&mut self, size: u64) -> io::Result<()> {
        while self.index.bytes() + self.others.bytes() + size > self.max_bytes {
            let others_first = match (self.others.oldest(), self.index.oldest()) {
                (Some(theirs), Some(ours)) => theirs < ours,
                (theirs, _) => theirs.is_some(),
            };
            if others_first {
                let deleted = self.others.evict()?;
                self.queue.count(|stats| stats.evicted += u64::from(deleted));
                continue;
            }
            let Some(hash) = self.index.victim() else { return Ok(()) };
            let removed = folder::remove(&self.folder.file(hash));
            if removed.is_err() {
                // It still takes room. Another one is tried next time.
                self.index.touch(hash, now(), u64::MAX);
            }
            removed?;
            self.index.remove(hash);
            self.queue.count(|stats| stats.evicted += 1);
            self.queue.tell([SsdEvent::Gone(hash)]);
        }
        Ok(())
    }

    fn publish_sizes(&self) {
        let (entries, bytes) = (self.index.len(), self.index.bytes() + self.others.bytes());
        self.queue.count(|stats| (stats.entries, stats.bytes) = (entries, bytes));
    }

    /// What came of something that may fail without harm; counts and logs if it did.
    fn accept<T>(&mut self, result: io::Result<T>, verb: &str) -> Option<T> {
        result.map_err(|error| self.complain(verb, &error)).ok()
    }

    fn complain(&mut self, verb: &str, error: &io::Error) {
        self.queue.count(|stats| stats.errors += 1);
        if self.complained.is_none_or(|last| last.elapsed() >= QUIET) {
            self.complained = Some(Instant::now());
            let folder = self.folder.path().display();
            tracing::error!(
                "the SSD cache {folder} cannot {verb}: {error}; the server goes on without what that was about"
            );
        }
    }
}

/// Nanoseconds since 1970.
fn now() -> u64 {
    folder::nanos(SystemTime::now())
}
