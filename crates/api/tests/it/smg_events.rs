//! SMG's `SubscribeKvEvents` and `GetLoads` over a fake engine: what is told is what lookups find.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use serde_json::json;
use tonic::{Code, Status, Streaming};
use vllm_api::http::{App, HttpConfig};
use vllm_grpc_proto::smg::{
    common::{
        EngineLoad, FlushCacheRequest, KvEventBatch, KvSnapshotChunk, SubscribeKvEventsRequest,
        kv_block_extra_key::Key, kv_cache_event::Data,
    },
    vllm::{GenerateRequest, GetLoadsRequest, SamplingParams, TokenizedInput, generate_request::Input},
};
use vllm_platform::testing::{FakeConfig, FakeVisionConfig};
use vllm_scheduler::EngineConfig;

use crate::support::{
    Server, fake, seeing, server_with,
    smg::{vllm_answers, vllm_client, vllm_request},
};

/// Tokens of a block, as the fake has it.
const BLOCK: usize = 4;

/// Who follows the events, as a gateway would: blocks by what they come after, so that a prompt's beginning can be looked up.
#[derive(Debug, Default, Clone, PartialEq)]
struct Index {
    children: HashMap<Place, i64>,
}

/// Parent, salt and tokens of a block: what leads to its name.
type Place = (Option<i64>, Option<String>, Vec<u32>);

impl Index {
    fn apply(&mut self, batch: &KvEventBatch) {
        for event in &batch.events {
            match event.data.as_ref().unwrap() {
                Data::Cleared(_) => self.children.clear(),
                Data::Stored(stored) => {
                    let mut parent = stored.parent_block_hash;
                    for block in &stored.blocks {
                        assert_eq!((block.block_size as usize, block.token_ids.len()), (BLOCK, BLOCK));
                        let key = (parent, stored.cache_salt.clone(), block.token_ids.clone());
                        assert_eq!(self.children.insert(key, block.block_hash), None, "told twice");
                        parent = Some(block.block_hash);
                    }
                }
                Data::Removed(removed) => {
                    let gone: HashSet<i64> = removed.block_hashes.iter().copied().collect();
                    self.children.retain(|_, hash| !gone.contains(hash));
                }
            }
        }
    }

    /// Blocks that a prompt begins with.
    fn known(&self, prompt: &[u32]) -> usize {
        let mut parent = None;
        let found = |tokens: &&[u32]| {
            let next = self.children.get(&(parent, None, tokens.to_vec()));
            parent = next.copied();
            next.is_some()
        };
        prompt.chunks_exact(BLOCK).take_while(found).count()
    }
}

async fn subscribe(app: &App, from: u64, early_loads: bool) -> Result<Streaming<KvEventBatch>, Status> {
    let request =
        SubscribeKvEventsRequest { start_sequence_number: from, load_records_before_first_batch: early_loads };
    Ok(vllm_client(app).await.subscribe_kv_events(request).await?.into_inner())
}

/// The next batch that has events, or is part of a snapshot.
async fn next(stream: &mut Streaming<KvEventBatch>) -> KvEventBatch {
    loop {
        let batch = stream.message().await.unwrap().expect("a batch");
        if !batch.load.as_ref().is_some_and(|load| load.load_only) {
            return batch;
        }
        assert!(batch.events.is_empty() && batch.snapshot.is_none(), "{batch:?}");
    }
}

/// The next record by itself that `wanted` wants.
async fn load_only(stream: &mut Streaming<KvEventBatch>, wanted: fn(&EngineLoad) -> bool) -> (u64, EngineLoad) {
    loop {
        let (sequence, load) = load_when(stream, wanted).await;
        if load.load_only {
            return (sequence, load);
        }
    }
}

/// The next record of that kind, beside events or by itself, and its batch's number.
async fn load_when(stream: &mut Streaming<KvEventBatch>, wanted: fn(&EngineLoad) -> bool) -> (u64, EngineLoad) {
    loop {
        let batch = stream.message().await.unwrap().expect("a batch");
        let load = batch.load.expect("every batch has a record");
        if wanted(&load) {
            return (batch.sequence_number, load);
        }
    }
}

fn asking(prompt: &[u32], max_tokens: u32) -> GenerateRequest {
    let input = TokenizedInput { original_text: String::new(), input_ids: prompt.to_vec() };
    let params = SamplingParams { max_tokens: Some(max_tokens), temperature: Some(0.0), ..Default::default() };
    GenerateRequest { input: Some(Input::Tokenized(input)), sampling_params: Some(params), ..Default::default() }
}

/// Tokens that were there already.
async fn cached(server: &Server, prompt: &[u32]) -> usize {
    let answers = vllm_answers(&server.app, asking(prompt, 1)).await.unwrap();
    answers[0].end.clone().unwrap().cached as usize
}

/// What a subscriber that comes now is told, in one.
async fn snapshot(app: &App) -> (Index, u64) {
    let mut stream = subscribe(app, 0, false).await.unwrap();
    let mut index = Index::default();
    loop {
        let batch = next(&mut stream).await;
        index.apply(&batch);
        let KvSnapshotChunk { index: part, count, blocks, unknown_before } = batch.snapshot.expect("a snapshot first");
        assert_eq!(unknown_before, 0);
        if part + 1 == count {
            assert_eq!(blocks as usize, index.children.len());
            return (index, batch.sequence_number);
        }
    }
}

#[tokio::test]
async fn what_is_told_is_what_is_found() {
    // Room for some ninety tokens: blocks come and go.
    let server = server_with(FakeConfig { num_blocks: 24, ..fake() }, EngineConfig::default(), HttpConfig::default());
    let mut stream = subscribe(&server.app, 0, false).await.unwrap();
    let first = next(&mut stream).await;
    let chunk = first.snapshot.expect("a snapshot first");
    assert_eq!((chunk.index, chunk.count, chunk.blocks), (0, 1, 0), "nothing is there yet");
    let (mut index, mut last) = (Index::default(), first.sequence_number);
    let prompts: Vec<Vec<u32>> =
        (0..6_u32).map(|which| (0..23).map(|at| if at < 9 { at } else { 10 * which + at }).collect()).collect();
    for round in 0..3 {
        for prompt in &prompts {
            vllm_answers(&server.app, asking(prompt, 6)).await.unwrap();
            server.idle().await;
            let (now, to) = snapshot(&server.app).await;
            while last < to {
                let batch = next(&mut stream).await;
                assert_eq!(batch.sequence_number, last + 1, "no gaps");
                assert_eq!((batch.dp_rank, batch.snapshot), (Some(0), None));
                assert!(batch.timestamp > 1e9 && !batch.events.is_empty());
                last = batch.sequence_number;
                index.apply(&batch);
            }
            assert_eq!(index, now, "round {round}");
            assert!(index.known(prompt) >= 5, "just computed: {index:?}");
        }
    }
    let (before, _) = snapshot(&server.app).await;
    assert!(prompts.iter().any(|prompt| before.known(prompt) < 5), "some were forgotten");
    for prompt in &prompts {
        let known = snapshot(&server.app).await.0.known(prompt);
        // Of a block that isn't full a part may be there, and the last token is always computed.
        let found = cached(&server, prompt).await;
        assert_eq!(found / BLOCK, known.min((prompt.len() - 1) / BLOCK), "{found}");
        server.idle().await;
    }
}

#[tokio::test]
async fn a_flush_is_told_and_waits_for_requests() {
    let slow = FakeConfig { step_delay: Duration::from_millis(5), ..fake() };
    let server = server_with(slow, EngineConfig::default(), HttpConfig::default());
    let prompt: Vec<u32> = (0..40).collect();
    vllm_answers(&server.app, asking(&prompt, 2)).await.unwrap();
    let mut client = vllm_client(&server.app).await;
    let mut running =
        client.generate(GenerateRequest { stream: true, ..asking(&[1, 2, 3], 100) }).await.unwrap().into_inner();
    running.message().await.unwrap().expect("a chunk");
    let refused = client.flush_cache(FlushCacheRequest { timeout_s: 0.0 }).await.unwrap().into_inner();
    assert!(!refused.success && refused.message.contains("1 requests are running"), "{}", refused.message);
    assert!(snapshot(&server.app).await.0.known(&prompt) == 10);
    drop(running);
    let mut stream = subscribe(&server.app, 0, false).await.unwrap();
    next(&mut stream).await;
    let flushed = client.flush_cache(FlushCacheRequest { timeout_s: 20.0 }).await.unwrap().into_inner();
    assert!(flushed.success, "{}", flushed.message);
    let mut index = snapshot(&server.app).await.0;
    assert_eq!(index.children.len(), 0);
    index.apply(&next(&mut stream).await);
    let wrong = client.flush_cache(FlushCacheRequest { timeout_s: f32::NAN }).await.unwrap_err();
    assert_eq!(
        (wrong.code(), wrong.message()),
        (Code::InvalidArgument, "timeout_s: NaN is no number of seconds to wait")
    );
}

#[tokio::test]
async fn who_comes_back_goes_on_where_it_was() {
    let server = server_with(fake(), EngineConfig::default(), HttpConfig::default());
    let mut stream = subscribe(&server.app, 0, false).await.unwrap();
    let start = next(&mut stream).await.sequence_number;
    let prompts = [[7_u32; 9], [8; 9], [9; 9]];
    let mut batches = Vec::new();
    for prompt in &prompts {
        vllm_answers(&server.app, asking(prompt, 1)).await.unwrap();
        batches.push(next(&mut stream).await);
    }
    drop(stream);
    let mut again = subscribe(&server.app, start + 2, false).await.unwrap();
    for wanted in &batches[1..] {
        let batch = next(&mut again).await;
        assert_eq!((batch.sequence_number, batch.snapshot), (wanted.sequence_number, None));
        let data = |batch: &KvEventBatch| batch.events.iter().map(|event| event.data.clone()).collect::<Vec<_>>();
        assert_eq!(data(&batch), data(wanted));
    }
    // A number of another engine's, or of another time.
    for from in [1, start + 1000] {
        let mut lost = subscribe(&server.app, from, false).await.unwrap();
        let batch = next(&mut lost).await;
        assert_eq!(batch.snapshot.expect("all anew").blocks, 6, "from {from}");
    }
}

/// What the hashes depend on beside the tokens.
#[tokio::test]
async fn salts_and_media_are_told() {
    let server = server_with(fake(), EngineConfig::default(), HttpConfig::default());
    let mut stream = subscribe(&server.app, 0, false).await.unwrap();
    next(&mut stream).await;
    server.complete(json!({ "prompt": [1, 2, 3, 4, 5], "max_tokens": 1, "cache_salt": "mine" })).await;
    let batch = next(&mut stream).await;
    let Some(Data::Stored(stored)) = &batch.events[0].data else { panic!("{batch:?}") };
    assert_eq!((stored.cache_salt.as_deref(), stored.parent_block_hash), (Some("mine"), None));

    let seeing::Seeing { server, .. } = seeing::seeing(FakeVisionConfig::default(), HttpConfig::default(), None);
    let mut stream = subscribe(&server.app, 0, false).await.unwrap();
    next(&mut stream).await;
    let red = seeing::data_url(&seeing::bmp(32, 24, [255, 0, 0]));
    server.chat(seeing::user(json!([seeing::image_url(&red)]))).await;
    let mut marked = Vec::new();
    while marked.len() < 3 {
        let batch = next(&mut stream).await;
        for event in &batch.events {
            let Some(Data::Stored(stored)) = &event.data else { panic!("{event:?}") };
            for block in &stored.blocks {
                marked.extend(block.extra_keys.iter().map(|key| match &key.key {
                    Some(Key::Multimodal(key)) => (key.identifier.clone(), key.offset),
                    other => panic!("{other:?}"),
                }));
            }
        }
    }
    // `user:` and the token before an image, then twelve of the image's own: its first is the third of the second block.
    assert!(marked.iter().all(|(name, _)| *name == marked[0].0 && name.len() == 32), "{marked:?}");
    let offsets: Vec<i64> = marked.iter().map(|(_, offset)| *offset).collect();
    assert_eq!(offsets[..3], [2, -2, -6]);
}

#[tokio::test]
async fn loads_are_told_beside_the_events_and_when_asked() {
    let slow = FakeConfig { step_delay: Duration::from_millis(50), ..fake() };
    let config = EngineConfig { max_num_seqs: 2, ..EngineConfig::default() };
    let server = server_with(slow, config, HttpConfig::default());
    let mut stream = subscribe(&server.app, 0, false).await.unwrap();
    let first = stream.message().await.unwrap().expect("a batch").load.expect("with the load");
    assert_eq!((first.sample, first.load_only, first.max_running_requests, first.running_requests), (1, false, 2, 0));
    assert_eq!((first.max_total_num_tokens, first.num_used_tokens), (Some(4000), Some(0)), "the first has it all");
    assert_eq!(
        (first.engine_silence_ms, first.engine_reports_steps, first.prefill_pending_tokens),
        (None, Some(true), Some(0))
    );
    let mut client = vllm_client(&server.app).await;
    let mut answers = Vec::new();
    for which in 0..3_u32 {
        let request = GenerateRequest { stream: true, ..asking(&[which; 30], 160) };
        answers.push(client.generate(request).await.unwrap().into_inner());
    }
    let (_, busy) = load_when(&mut stream, |load| load.waiting_requests == 1 && load.running_requests == 2).await;
    assert_eq!(busy.waiting_uncached_tokens, Some(30));
    assert!(busy.prefill_pending_tokens >= Some(30) && busy.engine_silence_ms.is_some(), "{busy:?}");
    let polled = client.get_loads(GetLoadsRequest::default()).await.unwrap().into_inner();
    assert_eq!((polled.dp_rank_count, polled.loads.len(), polled.version.as_str()), (1, 1, env!("CARGO_PKG_VERSION")));
    let load = polled.loads[0];
    assert_eq!((load.num_running_reqs, load.num_waiting_reqs, load.num_total_reqs), (2, 1, 3));
    assert_eq!((load.max_running_requests, load.max_total_num_tokens, load.num_waiting_uncached_tokens), (2, 4000, 30));
    assert!(load.token_usage > 0.0 && load.num_used_tokens >= 60, "{load:?}");
    drop(answers);
    let (sequence, idle) = load_when(&mut stream, |load| load.running_requests + load.waiting_requests == 0).await;
    assert!(idle.sample > busy.sample && idle.active_token_usage == Some(0.0), "{idle:?}");
    assert!(sequence > 0, "the number of the batch before");
    let other = client.get_loads(GetLoadsRequest { dp_rank: Some(1), include: vec![] }).await.unwrap_err();
    assert_eq!(other.code(), Code::InvalidArgument);
}

/// A step that takes long: what there is can't be told meanwhile, but that there is silence.
#[tokio::test]
async fn silence_is_told_before_anything_else() {
    let stuck = FakeConfig { step_delay: Duration::from_millis(1500), ..fake() };
    let server = server_with(stuck, EngineConfig::default(), HttpConfig::default());
    let mut client = vllm_client(&server.app).await;
    let request = GenerateRequest { stream: true, ..vllm_request() };
    let answer = client.generate(request).await.unwrap().into_inner();
    while server.model.engine.silence().is_none() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut stream = subscribe(&server.app, 0, true).await.unwrap();
    let (sequence, load) = load_only(&mut stream, |load| load.engine_silence_ms.is_some()).await;
    assert_eq!((sequence, load.prefill_pending_tokens), (0, Some(2)), "nothing has a number yet");
    drop(answer);
    assert!(next(&mut stream).await.sequence_number > 0);
}

#[tokio::test]
async fn subscribers_hear_of_the_end() {
    let server = server_with(fake(), EngineConfig::default(), HttpConfig::default());
    let mut stream = subscribe(&server.app, 0, false).await.unwrap();
    next(&mut stream).await;
    server.app.drain();
    let end = loop {
        match stream.message().await {
            Ok(batch) => assert!(batch.expect("a word on the end").load.expect("a record").load_only),
            Err(end) => break end,
        }
    };
    assert_eq!((end.code(), end.message()), (Code::Unavailable, "the server is shutting down"));
    let loading = App::new(HttpConfig::default());
    assert_eq!(subscribe(&loading, 0, false).await.unwrap_err().code(), Code::Unavailable, "no model yet");
}
