//! Block tables of some sequences, kept as the engine keeps them.

use vllm_platform::{BlockId, KvCacheSpec, NO_BLOCK};

pub struct Tables {
    spec: KvCacheSpec,
    /// By group; the last one is taken first.
    free: Vec<Vec<BlockId>>,
    /// By sequence, then by group.
    tables: Vec<Vec<Vec<BlockId>>>,
}

impl Tables {
    /// For `sequences` sequences of `max_len` tokens. Neighbours in a table are never neighbours in the pool, as long as
    /// blocks are fresh.
    pub fn new(spec: &KvCacheSpec, sequences: usize, max_len: usize) -> Self {
        let blocks = sequences * max_len.div_ceil(spec.block_size);
        let free = spec.groups.iter().map(|group| {
            // A windowed group has to do with what there is.
            assert!(group.num_blocks >= blocks || group.window.is_some(), "{spec:?}");
            let all = 0..BlockId::try_from(group.num_blocks.min(blocks)).unwrap();
            all.clone().step_by(2).chain(all.skip(1).step_by(2)).collect()
        });
        Self { free: free.collect(), tables: vec![vec![Vec::new(); spec.groups.len()]; sequences], spec: spec.clone() }
    }

    /// A sequence's tables for the tokens `start..end`. Blocks that none of them reads are given back, and are the first
    /// to be given out again.
    pub fn cover(&mut self, sequence: usize, start: usize, end: usize) {
        let size = self.spec.block_size;
        for (group, table) in self.tables[sequence].iter_mut().enumerate() {
            let first = self.spec.groups[group].first_read(start, size).min(table.len());
            for block in table[..first].iter_mut().filter(|block| **block != NO_BLOCK) {
                self.free[group].push(std::mem::replace(block, NO_BLOCK));
            }
            while table.len() < end.div_ceil(size) {
                table.push(self.free[group].pop().expect("a block is free"));
            }
        }
    }

    /// A sequence's tables, one for each group.
    pub fn of(&self, sequence: usize) -> &[Vec<BlockId>] {
        &self.tables[sequence]
    }

    /// Entries of all tables that stand for blocks given back.
    pub fn given_back(&self) -> usize {
        self.tables.iter().flatten().flatten().filter(|&&block| block == NO_BLOCK).count()
    }

    /// Gives all of a sequence's blocks back.
    pub fn clear(&mut self, sequence: usize) {
        for (free, table) in self.free.iter_mut().zip(&mut self.tables[sequence]) {
            free.extend(table.drain(..).filter(|&block| block != NO_BLOCK));
        }
    }
}
