//! Prefixes that are on the SSD: read ahead of prefill, written behind.

use vllm_cache::{BlockHash, KvCache};
use vllm_platform::SeqId;

use super::Planner;

/// Sequences whose prefixes are read at once: more would wait for each other's.
const SEQUENCES: usize = 4;

/// What a sequence waits for.
#[derive(Debug)]
pub(crate) struct ReadAhead {
    pub seq: SeqId,
    /// Blocks in all.
    pub blocks: usize,
    /// Those that are not being read yet.
    pub new: Vec<BlockHash>,
}

impl Planner {
    /// Says whether it is still being found out what the SSD has. A folder is looked through in a fraction of the time
    /// that one long prompt takes, so nobody is admitted before.
    pub fn set_searching(&mut self, searching: bool) {
        self.searching = searching;
    }

    /// Prefixes that those who wait need, in the order they are needed in. Each sequence asks once, and waits until all
    /// it asked for is [`resolved`](Self::resolved).
    pub fn read_ahead(&mut self) -> Vec<ReadAhead> {
        let mut asked = Vec::new();
        if self.searching {
            return asked;
        }
        let loading = self.waiting.iter().filter(|s| !s.loading.is_empty()).count();
        for _ in loading..SEQUENCES {
            let Some(seq) = self.waiting.next(&self.clients, |s| !s.looked_on_ssd) else { break };
            let Some(sequence) = self.waiting.get_mut(seq) else { break };
            sequence.looked_on_ssd = true;
            let wanted = self.cache.only_on_ssd(&sequence.prefix, sequence.tokens());
            if wanted.is_empty() {
                continue;
            }
            sequence.loading.extend(&wanted);
            let blocks = wanted.len();
            asked.push(ReadAhead {
                seq,
                blocks,
                new: wanted.into_iter().filter(|h| self.reading.insert(*h)).collect(),
            });
        }
        asked
    }

    /// Says that a prefix has been read, or cannot be.
    pub fn resolved(&mut self, hash: BlockHash) {
        self.reading.remove(&hash);
        for sequence in self.waiting.iter_mut() {
            sequence.loading.remove(&hash);
        }
    }

    /// Prefixes that were found since the last call and that the SSD has too, each one's end last.
    pub fn take_touched(&mut self) -> Vec<BlockHash> {
        std::mem::take(&mut self.touched)
    }

    /// The books, for what is written and read.
    pub fn cache(&mut self) -> &mut KvCache {
        &mut self.cache
    }
}
