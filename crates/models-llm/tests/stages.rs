//! A model in stages, with hidden states handed from one to the next, gives the numbers of the whole: bit by bit, whatever the
//! engine does to get requests through. Each stage holds its own layers and no more.

mod support;

use std::{
    ops::Range,
    path::{Path, PathBuf},
};

use support::{Reference, fixture};
use vllm_models_llm as _;
use vllm_platform::{
    BlockId, DeviceChoice, Error, KvStoreChoice, LoadOptions, MemoryInfo, ModelInfo, ModelRunner, ModelSource,
    Platform, Result, Row, SampleAt, Sampled, SamplingParams, SeqId, StageOutput, StageRunner, StepOutput, StepPlan,
};
use vllm_platform_mlx::MlxPlatform;
use vllm_scheduler::{Engine, EngineConfig, Event, Request};

/// All stages of a model on one thread, first to last.
struct Chain(Vec<Box<dyn StageRunner>>, ModelInfo);

impl Chain {
    fn load(source: &ModelSource, options: &LoadOptions, stages: &[Range<usize>]) -> Result<Self> {
        let load = |layers: &Range<usize>| MlxPlatform.load_stage(source, options, layers.clone(), &mut |_, _| {});
        let stages = stages.iter().map(load).collect::<Result<Vec<_>>>()?;
        let mut info = stages.last().expect("a stage").info().clone();
        // Block tables are the same everywhere: what the smallest has.
        for (i, group) in info.kv_cache.groups.iter_mut().enumerate() {
            let blocks = stages.iter().map(|stage| stage.info().kv_cache.groups[i].num_blocks);
            group.num_blocks = blocks.min().expect("a stage");
        }
        Ok(Self(stages, info))
    }
}

impl ModelRunner for Chain {
    fn info(&self) -> &ModelInfo {
        &self.1
    }

    fn memory(&self) -> Result<MemoryInfo> {
        self.0[0].memory()
    }

    fn step(&mut self, plan: &StepPlan<'_>) -> Result<StepOutput> {
        let (last, others) = self.0.split_last_mut().expect("a stage");
        let mut hidden = Vec::new();
        for stage in others {
            let StageOutput::Hidden(made) = stage.step(plan, hidden)? else { panic!("not the last stage") };
            assert_eq!(made.len(), plan.num_tokens() * stage.width());
            hidden = made;
        }
        match last.step(plan, hidden)? {
            StageOutput::Sampled(output) => Ok(output),
            StageOutput::Hidden(_) => panic!("the last stage samples"),
        }
    }

    fn export_block(&mut self, _: usize, _: BlockId, _: usize) -> Result<Vec<u8>> {
        Err(Error::Step("not in stages".into()))
    }

    fn import_block(&mut self, _: usize, _: BlockId, _: usize, _: &[u8]) -> Result<()> {
        Err(Error::Step("not in stages".into()))
    }
}

fn options(kv_store: KvStoreChoice, max_num_seqs: usize, kv_cache_bytes: u64) -> LoadOptions {
    LoadOptions {
        device: DeviceChoice::Cpu,
        threads: Some(2),
        max_num_seqs,
        max_model_len: Some(96),
        kv_cache_bytes: Some(kv_cache_bytes),
        kv_store,
        ..LoadOptions::default()
    }
}

/// The ways in which layers can be cut into so many stages.
fn cuts(layers: usize) -> Vec<Vec<Range<usize>>> {
    let mut cuts: Vec<_> = (1..layers).map(|at| vec![0..at, at..layers]).collect();
    if layers > 2 {
        cuts.push(vec![0..1, 1..layers - 1, layers - 1..layers]);
    }
    cuts
}

fn source(path: &Path) -> ModelSource {
    let gguf = path.join("model.gguf");
    ModelSource { path: if gguf.exists() { gguf } else { path.into() } }
}

/// Every step's log probabilities of the whole vocabulary: two sequences, a prompt in chunks beside an answer, then both answer.
fn steps(runner: &mut dyn ModelRunner, tokens: &[u32]) -> Vec<Vec<Sampled>> {
    let vocab = runner.info().vocab_size;
    let groups = runner.info().kv_cache.groups.len();
    let size = runner.info().kv_cache.block_size;
    let params = SamplingParams { temperature: 0.0, logprobs: Some(vocab), ..SamplingParams::default() };
    let blocks = BlockId::try_from(96usize.div_ceil(size)).unwrap();
    let tables = [0, 1].map(|sequence| vec![(sequence * blocks..(sequence + 1) * blocks).collect::<Vec<_>>(); groups]);
    // (sequence, from, to), by step.
    let schedule: [&[(usize, usize, usize)]; 5] = [
        &[(0, 0, 5)],
        &[(0, 5, 6), (1, 0, 4)],
        &[(1, 4, 9), (0, 6, 7)],
        &[(0, 7, 8), (1, 9, 10)],
        &[(0, 8, 9), (1, 10, 11)],
    ];
    let step = |shares: &&[(usize, usize, usize)]| {
        let row = |&(sequence, from, to): &(usize, usize, usize)| Row {
            seq: SeqId(sequence as u64),
            tokens: &tokens[from..to],
            start: from,
            tables: &tables[sequence],
            media: &[],
            sample: Some(SampleAt { params: &params, prompt: &[], output: &[], processors: &[] }),
        };
        let plan = StepPlan { rows: shares.iter().map(row).collect(), ..StepPlan::default() };
        runner.step(&plan).unwrap().sampled
    };
    schedule.iter().map(step).collect()
}

#[test]
fn stages_give_the_numbers_of_the_whole() {
    for name in [
        "llama",
        "llama_bias_rope_linear",
        "llama_gguf",
        "llama_mlx_8bit",
        "mistral_window",
        "qwen2_mlx_4bit",
        "qwen3",
        "qwen3_gguf",
        "qwen3_mlx_4bit",
        "qwen3_moe",
        "qwen3_rope_yarn",
    ] {
        let options = options(KvStoreChoice::Auto, 2, 1 << 24);
        // Three stages want three layers; some files can't be edited here.
        let deeper = matches!(name, "llama" | "qwen3").then(|| deeper(name));
        let path = deeper.as_ref().map_or_else(|| fixture(name), |folder| folder.path().to_path_buf());
        let (source, tokens) = (source(&path), Reference::load(&fixture(name)).tokens);
        let mut whole = MlxPlatform.load(&source, &options, &mut |_, _| {}).unwrap();
        let wanted = steps(&mut *whole, &tokens);
        let outline = MlxPlatform.outline(&source).unwrap();
        let cuts = cuts(outline.layers.len());
        assert!(!cuts.is_empty(), "{name} has {} layers", outline.layers.len());
        for cut in cuts {
            let mut chain = Chain::load(&source, &options, &cut).unwrap_or_else(|e| panic!("{name} {cut:?}: {e}"));
            assert!(steps(&mut chain, &tokens) == wanted, "{name} {cut:?}: other numbers");
            // What one holds the others don't, but for a norm between two stages and an embedding that is the output layer too.
            let (all, tied) = (whole.info().weight_bytes, outline.after > outline.before);
            let held: Vec<u64> = chain.0.iter().map(|stage| stage.info().weight_bytes).collect();
            let twice = if tied { outline.before * 2 } else { 0 } + 4096;
            assert!(held.iter().all(|&bytes| bytes < all), "{name} {cut:?}: {held:?} of {all}");
            let sum = held.iter().sum::<u64>();
            assert!(sum >= all && sum <= all + twice, "{name} {cut:?}: {held:?} of {all}, {twice} twice");
        }
    }
}

/// A fixture of two layers with four: each of them twice.
fn deeper(name: &str) -> tempfile::TempDir {
    let mut model = support::edited::Edited::of(name);
    let names: Vec<String> = model.tensors.keys().cloned().collect();
    for name in names {
        for layer in 0..2 {
            if let Some(rest) = name.strip_prefix(&format!("model.layers.{layer}.")) {
                model.add(&format!("model.layers.{}.{rest}", layer + 2), &name);
            }
        }
    }
    model.config["num_hidden_layers"] = 4.into();
    if let Some(types) = model.config.get_mut("layer_types") {
        let types = types.as_array_mut().unwrap();
        types.extend(types.clone());
    }
    model.write()
}

/// Prompts, some of which begin alike.
fn prompts(path: &Path) -> Vec<Vec<u32>> {
    let tokens = Reference::load(path).tokens;
    let prompt = |i: usize| tokens[i % 3..].iter().cycle().take(12 + 5 * (i % 9)).copied().collect();
    (0..12).map(prompt).collect()
}

fn answers(
    make: impl FnOnce() -> Result<Box<dyn ModelRunner>> + Send + 'static,
    config: EngineConfig,
    prompts: &[Vec<u32>],
) -> (Vec<Vec<u32>>, usize, u64) {
    let engine = Engine::start(make, config).unwrap();
    let (mut answers, mut cached) = (Vec::new(), 0);
    // The second time prefixes are found.
    for _ in 0..2 {
        let submit = |(i, prompt): (usize, &Vec<u32>)| {
            engine.submit(Request { prompt: prompt.clone(), max_tokens: 40, ..Request::new(i.to_string()) }).unwrap()
        };
        let streams: Vec<_> = prompts.iter().enumerate().map(submit).collect();
        for mut stream in streams {
            let mut answer = Vec::new();
            while let Some(event) = stream.blocking_next() {
                match event {
                    Event::Token(token) => answer.push(token.token),
                    Event::Finished(end) => cached += end.usage.cached_tokens,
                    Event::Failed(failure) => panic!("{failure}"),
                }
            }
            answers.push(answer);
        }
    }
    let preemptions = engine.stats().preemptions;
    engine.drain();
    engine.join();
    (answers, cached, preemptions)
}

#[test]
fn an_engine_over_stages_gives_the_tokens_of_one_over_the_whole() {
    for (name, store) in [
        ("llama", KvStoreChoice::Paged),
        ("llama", KvStoreChoice::Contiguous),
        ("qwen3_mlx_4bit", KvStoreChoice::Paged),
    ] {
        let deeper = (name == "llama").then(|| deeper(name));
        let path = deeper.as_ref().map_or_else(|| fixture(name), |folder| folder.path().to_path_buf());
        let (source, prompts) = (source(&path), prompts(&fixture(name)));
        let layers = MlxPlatform.outline(&source).unwrap().layers.len();
        let config = |seqs, tokens| EngineConfig {
            max_num_seqs: seqs,
            max_num_batched_tokens: tokens,
            ..EngineConfig::default()
        };
        let whole = {
            let (source, options) = (source.clone(), options(store, 1, 1 << 24));
            let make = move || MlxPlatform.load(&source, &options, &mut |_, _| {});
            answers(make, config(1, 96), &prompts).0
        };
        // (name, blocks for so many whole sequences, engine)
        for (way, room, config) in [
            ("3 at once", 4, config(3, 96)),
            ("12 at once, in chunks", 13, config(12, 20)),
            ("preempted", 2, config(12, 40)),
        ] {
            for cut in cuts(layers) {
                let options = |bytes| LoadOptions {
                    max_num_batched_tokens: config.max_num_batched_tokens,
                    ..options(store, config.max_num_seqs, bytes)
                };
                let per_token = {
                    let probe = Chain::load(&source, &options(1 << 24), &cut).unwrap();
                    probe.0.iter().map(|stage| stage.info().kv_cache.bytes_per_token()).max().unwrap()
                };
                let (options, source, stages) = (options(per_token * room * 96), source.clone(), cut.clone());
                let make = move || Ok(Box::new(Chain::load(&source, &options, &stages)?) as Box<dyn ModelRunner>);
                let (found, cached, preemptions) = answers(make, config.clone(), &prompts);
                assert_eq!(found, whole, "{name} in {store:?}, {way}, {cut:?}");
                let tight = way == "preempted" && store == KvStoreChoice::Paged;
                assert!(preemptions > 0 || !tight, "{name}, {way}: nothing was preempted");
                assert!(cached > 0 || way == "preempted", "{name} in {store:?}, {way}: nothing was found");
            }
        }
    }
}

#[test]
fn what_cannot_be_in_stages_is_refused() {
    let refused = |path: PathBuf, layers: Range<usize>| {
        let options = options(KvStoreChoice::Auto, 1, 1 << 24);
        let stage = MlxPlatform.load_stage(&source(&path), &options, layers, &mut |_, _| {});
        stage.map(drop).expect_err("refused").to_string()
    };
    let known = "LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, Qwen3MoeForCausalLM";
    assert_eq!(
        refused(fixture("gemma3"), 0..1),
        format!("Gemma3ForCausalLM can't be spread over machines; these can: {known}")
    );
    for (layers, wanted) in [(0..0, "layers 0 to 0 of"), (0..99, "layers 0 to 99 of")] {
        let error = refused(fixture("llama"), layers);
        assert!(error.contains(wanted), "{error}");
    }
}

#[test]
fn a_model_is_known_by_its_weights() {
    let outline = |path: &Path| MlxPlatform.outline(&source(path)).unwrap();
    let llama = outline(&fixture("llama"));
    assert_eq!(llama, outline(&fixture("llama")));
    let mut other = support::edited::Edited::of("llama");
    let (_, _, bytes) = other.tensors.get_mut("model.norm.weight").unwrap();
    bytes[0] ^= 1;
    let other = outline(other.write().path());
    assert_eq!((&other.layers, other.before, other.after), (&llama.layers, llama.before, llama.after));
    assert_ne!(other.fingerprint, llama.fingerprint);
    assert_eq!(llama.bytes(&(0..llama.layers.len())), llama.before + llama.layers.iter().sum::<u64>() + llama.after);
}
