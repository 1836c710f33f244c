//! `SubscribeKvEvents`: what the prefix cache holds and how that changes, and beside it how much there is to do. By the first a
//! gateway sends a prompt where its beginning is known; by the second it sees who is free, and who is stuck.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Instant, SystemTime},
};

use futures_util::Stream;
use tokio::time::{Interval, MissedTickBehavior, interval};
use tonic::Status;
use vllm_grpc_proto::smg::common::{
    KvBlock, KvBlockExtraKey, KvBlocksRemoved, KvBlocksStored, KvCacheCleared, KvCacheEvent, KvCacheLocality,
    KvCacheTier, KvEventBatch, KvMultimodalKey, KvSnapshotChunk, SubscribeKvEventsRequest, kv_block_extra_key::Key,
    kv_cache_event::Data,
};
use vllm_scheduler::{KvBatch, KvEvent, KvEvents, KvNews, KvSnapshot, KvTier, MediaMark, StoredBlock};

use super::{
    super::status::status,
    Worker,
    loads::{LOOK, Records},
};
use crate::http::{ApiError, Draining};

/// Blocks of a snapshot's chunk: with blocks of 64 tokens, some 300 KB, where clients take 4 MB.
const CHUNK: usize = 1024;

impl Worker {
    /// The events from there on.
    ///
    /// # Errors
    /// If there is no cache to tell of: to look at a model doesn't load it.
    pub fn kv_events(
        self: Arc<Self>,
        request: SubscribeKvEventsRequest,
    ) -> Result<impl Stream<Item = Result<KvEventBatch, Status>> + Send + use<>, Status> {
        if let Err(error) = self.app.default_model() {
            let loading = self.app.models().is_err();
            let none = Status::unimplemented("this worker has no model that generates, and so no KV cache");
            return Err(if loading { status(&error) } else { none });
        }
        let model =
            self.loaded().ok_or_else(|| Status::unavailable("the model isn't loaded: it has no KV cache now"))?;
        let mut look = interval(LOOK);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let feed = Feed {
            events: model.engine.kv_events(request.start_sequence_number),
            block_size: model.engine.info().kv_cache.block_size,
            draining: self.app.draining(),
            worker: self,
            look,
            records: Records::default(),
            last: request.load_records_before_first_batch.then_some(0),
            told: 0,
            ready: VecDeque::new(),
            ended: false,
        };
        Ok(futures_util::stream::unfold(feed, |mut feed| async move { Some((feed.next().await?, feed)) }))
    }
}

/// One subscriber's stream.
struct Feed {
    worker: Arc<Worker>,
    events: KvEvents,
    block_size: usize,
    draining: Draining,
    look: Interval,
    records: Records,
    /// The number that a record by itself has: the last batch's. `None` while there may be none.
    last: Option<u64>,
    /// Events told, snapshots apart.
    told: u64,
    /// Chunks of a snapshot.
    ready: VecDeque<KvEventBatch>,
    ended: bool,
}

impl Feed {
    async fn next(&mut self) -> Option<Result<KvEventBatch, Status>> {
        if self.ended {
            return None;
        }
        loop {
            if let Some(batch) = self.ready.pop_front() {
                return Some(Ok(self.with_load(batch)));
            }
            tokio::select! {
                biased;
                () = self.draining.begun() => {
                    self.ended = true;
                    return Some(Err(status(&ApiError::shutting_down())));
                }
                news = self.events.next() => match news {
                    Some(KvNews::Batch(batch)) => {
                        let batch = self.batch(&batch);
                        return Some(Ok(self.with_load(batch)));
                    }
                    Some(KvNews::Snapshot(snapshot)) => self.ready = chunks(&snapshot, self.block_size),
                    None => {
                        self.ended = true;
                        return Some(Err(Status::unavailable("the engine has stopped")));
                    }
                },
                _ = self.look.tick() => {
                    if let Some(batch) = self.load_only() {
                        return Some(Ok(batch));
                    }
                }
            }
        }
    }

    fn with_load(&mut self, batch: KvEventBatch) -> KvEventBatch {
        self.last = Some(batch.sequence_number);
        let load = self.records.beside_events(self.worker.load(), Instant::now());
        KvEventBatch { load: Some(load), ..batch }
    }

    fn load_only(&mut self) -> Option<KvEventBatch> {
        let sequence_number = self.last?;
        let load = self.records.by_itself(self.worker.load(), Instant::now())?;
        Some(KvEventBatch { load: Some(load), ..batch(sequence_number, SystemTime::now(), Vec::new()) })
    }

    fn batch(&mut self, new: &KvBatch) -> KvEventBatch {
        let events = new.events.iter().map(|event| {
            self.told += 1;
            KvCacheEvent { event_id: self.told, data: Some(data(event, self.block_size)) }
        });
        let events = events.collect();
        batch(new.sequence, new.at, events)
    }
}

fn batch(sequence_number: u64, at: SystemTime, events: Vec<KvCacheEvent>) -> KvEventBatch {
    let timestamp = at.duration_since(SystemTime::UNIX_EPOCH).map_or(0.0, |since| since.as_secs_f64());
    KvEventBatch { sequence_number, timestamp, events, dp_rank: Some(0), snapshot: None, load: None }
}

/// A snapshot in parts, the last of which has its number.
fn chunks(snapshot: &KvSnapshot, block_size: usize) -> VecDeque<KvEventBatch> {
    let mut parts: Vec<Vec<KvEvent>> = vec![Vec::new()];
    let mut room = CHUNK;
    for event in &snapshot.events {
        let KvEvent::Stored { blocks, parent, salt, tier } = event else {
            parts.last_mut().expect("at least one").push(event.clone());
            continue;
        };
        let (mut blocks, mut parent) = (blocks.as_slice(), *parent);
        while let Some(last) = blocks.get(..room.min(blocks.len())).and_then(<[StoredBlock]>::last) {
            let (now, later) = blocks.split_at(room.min(blocks.len()));
            let stored = KvEvent::Stored { blocks: now.to_vec(), parent, salt: salt.clone(), tier: *tier };
            parts.last_mut().expect("at least one").push(stored);
            room -= now.len();
            (blocks, parent) = (later, Some(last.hash));
            if room == 0 {
                parts.push(Vec::new());
                room = CHUNK;
            }
        }
    }
    if parts.len() > 1 && parts.last().is_some_and(Vec::is_empty) {
        parts.pop();
    }
    let count = parts.len();
    let (first, blocks) = (snapshot.sequence + 1 - count as u64, snapshot.blocks() as u64);
    let part = |(index, events): (usize, Vec<KvEvent>)| {
        let events = events.iter().map(|event| KvCacheEvent { event_id: 0, data: Some(data(event, block_size)) });
        let chunk = KvSnapshotChunk { index: index as u32, count: count as u32, blocks, unknown_before: 0 };
        KvEventBatch { snapshot: Some(chunk), ..batch(first + index as u64, snapshot.at, events.collect()) }
    };
    parts.into_iter().enumerate().map(part).collect()
}

fn data(event: &KvEvent, block_size: usize) -> Data {
    let local = Some(KvCacheLocality::Local.into());
    match event {
        KvEvent::Stored { blocks, parent, salt, tier } => Data::Stored(KvBlocksStored {
            blocks: blocks.iter().map(|stored| block(stored, block_size)).collect(),
            parent_block_hash: parent.map(u64::cast_signed),
            tier: Some(of(*tier).into()),
            locality: local,
            cache_salt: salt.as_deref().map(str::to_owned),
            ..KvBlocksStored::default()
        }),
        KvEvent::Removed { hashes, tier } => Data::Removed(KvBlocksRemoved {
            block_hashes: hashes.iter().map(|hash| hash.cast_signed()).collect(),
            tier: Some(of(*tier).into()),
            locality: local,
            ..KvBlocksRemoved::default()
        }),
        KvEvent::Cleared => Data::Cleared(KvCacheCleared { ownership: None }),
    }
}

fn of(tier: KvTier) -> KvCacheTier {
    match tier {
        KvTier::Device => KvCacheTier::Device,
    }
}

fn block(stored: &StoredBlock, block_size: usize) -> KvBlock {
    KvBlock {
        block_hash: stored.hash.cast_signed(),
        token_ids: stored.tokens.to_vec(),
        block_size: i32::try_from(block_size).unwrap_or(i32::MAX),
        lora_id: None,
        cache_level: None,
        extra_keys: stored.media.iter().map(extra_key).collect(),
    }
}

/// What tokens stand for that are placeholders: where it begins, from the block's start on; before it, if the block is not its first.
fn extra_key(mark: &MediaMark) -> KvBlockExtraKey {
    let offset = mark.start as i64 - mark.first as i64;
    KvBlockExtraKey { key: Some(Key::Multimodal(KvMultimodalKey { identifier: mark.key.to_string(), offset })) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(count: usize, first: u64, parent: Option<u64>) -> KvEvent {
        let block = |hash: u64| StoredBlock { hash, tokens: [hash as u32; 2].into(), media: Vec::new() };
        let blocks = (first..first + count as u64).map(block).collect();
        KvEvent::Stored { blocks, parent, salt: Some("s".into()), tier: KvTier::Device }
    }

    /// Hash and parent's hash of each block, in order, as the chunks have them.
    fn chain(chunks: &VecDeque<KvEventBatch>) -> Vec<(i64, Option<i64>)> {
        let mut chain = Vec::new();
        for event in chunks.iter().flat_map(|chunk| &chunk.events) {
            if let Some(Data::Stored(stored)) = &event.data {
                assert_eq!(stored.cache_salt.as_deref(), Some("s"));
                let mut parent = stored.parent_block_hash;
                for block in &stored.blocks {
                    chain.push((block.block_hash, parent));
                    parent = Some(block.block_hash);
                }
            }
        }
        chain
    }

    #[test]
    fn snapshots_in_parts_have_every_block_once_with_its_parent() {
        for (name, sizes, counts) in [
            ("empty", vec![], vec![0]),
            ("one part", vec![10], vec![10]),
            ("just one part", vec![CHUNK], vec![CHUNK]),
            ("a block more", vec![CHUNK + 1], vec![CHUNK, 1]),
            ("several chains", vec![CHUNK - 1, 3, 2 * CHUNK], vec![CHUNK, CHUNK, CHUNK, 2]),
        ] {
            let mut events = vec![KvEvent::Cleared];
            let (mut first, mut wanted) = (u64::MAX - 5 * CHUNK as u64, Vec::new());
            for &size in &sizes {
                events.push(stored(size, first, None));
                let mut parent = None;
                for hash in first..first + size as u64 {
                    wanted.push((hash.cast_signed(), parent));
                    parent = Some(hash.cast_signed());
                }
                first += size as u64;
            }
            let snapshot = KvSnapshot { sequence: 1_000_000, at: SystemTime::UNIX_EPOCH, events };
            let chunks = chunks(&snapshot, 2);
            assert_eq!(chain(&chunks), wanted, "{name}");
            let is_cleared = |event: &KvCacheEvent| matches!(event.data, Some(Data::Cleared(_)));
            assert!(chunks[0].events.first().is_some_and(is_cleared), "{name}");
            for (index, chunk) in chunks.iter().enumerate() {
                let part = chunk.snapshot.expect("a part");
                assert_eq!((part.index as usize, part.count as usize), (index, counts.len()), "{name}");
                assert_eq!(part.blocks as usize, wanted.len(), "{name}");
                assert_eq!(chunk.sequence_number, 1_000_001 - (counts.len() - index) as u64, "{name}");
                let blocks = chunk.events.iter().map(|event| match &event.data {
                    Some(Data::Stored(stored)) => stored.blocks.len(),
                    _ => 0,
                });
                assert_eq!(blocks.sum::<usize>(), counts[index], "{name}");
            }
        }
    }
}
