//! A sequence that goes on from another's KV blocks, shared, copied or brought from another runner, says what it would
//! have said by itself.

mod support;

use support::{Run, fixture, load_into};
use vllm_platform::{
    BlockCopy, BlockId, KvStoreChoice, ModelRunner, Row, SampleAt, Sampled, SamplingParams, SeqId, StepPlan,
};

const PROMPT: usize = 50;
const MAX_LEN: usize = 240;

fn prompt() -> Vec<u32> {
    (0..PROMPT as u32).map(|i| (i * 37 + 11) % 96).collect()
}

/// What follows `tokens[start..]`, greedily, if those before are in the blocks of `tables`.
fn step(
    runner: &mut dyn ModelRunner,
    copies: Vec<BlockCopy>,
    tokens: &[u32],
    start: usize,
    tables: &[Vec<BlockId>],
) -> Sampled {
    let params =
        SamplingParams { temperature: 0.0, logprobs: Some(runner.info().vocab_size), ..SamplingParams::default() };
    let sample = Some(SampleAt { params: &params, prompt: &[], output: &[], processors: &[] });
    let row = Row { seq: SeqId(start as u64), tokens: &tokens[start..], start, tables, media: &[], sample };
    runner.step(&StepPlan { copies, rows: vec![row] }).unwrap().sampled.remove(0)
}

fn assert_same(what: &str, found: &Sampled, wanted: &Sampled) {
    assert_eq!(found.token, wanted.token, "{what}");
    let logprobs = |sampled: &Sampled| {
        let mut all = vec![0.0; 96];
        sampled.logprobs.as_ref().unwrap().top.iter().for_each(|l| all[l.token as usize] = l.logprob);
        all
    };
    for (found, wanted) in logprobs(found).into_iter().zip(logprobs(wanted)) {
        assert!((found - wanted).abs() < 1e-4, "{what}: {found} for {wanted}");
    }
}

#[test]
fn blocks_carry_over() {
    for name in ["llama", "gemma3"] {
        for store in [KvStoreChoice::Paged, KvStoreChoice::Contiguous] {
            let prompt = prompt();
            let load = || load_into(store, &fixture(name), 3, Some(MAX_LEN)).unwrap();
            let [mut runner, mut other] = [load(), load()];
            assert_eq!(runner.info().kv_fingerprint, other.info().kv_fingerprint);
            let spec = runner.info().kv_cache.clone();
            let blocks = MAX_LEN.div_ceil(spec.block_size) as BlockId;
            let table =
                |which: BlockId| vec![(which * blocks..(which + 1) * blocks).collect::<Vec<_>>(); spec.groups.len()];
            step(&mut *runner, Vec::new(), &prompt, 0, &table(0));

            for shared in [1, 7, 16, 23, 32, 48, 49] {
                let what = format!("{name}, {store:?}, {shared} tokens");
                let tokens: Vec<u32> = prompt[..shared].iter().copied().chain([5, 50, 95, 14]).collect();
                let wanted = Run::with(store, &fixture(name), 1, MAX_LEN).step(&[(0, &tokens)]).remove(0);

                // Whole blocks are the first sequence's own, the last one a copy.
                let (whole, part) = (shared / spec.block_size, shared % spec.block_size);
                let mut tables = table(1);
                let mut copies = Vec::new();
                for (group, table) in tables.iter_mut().enumerate() {
                    table.iter_mut().take(whole).enumerate().for_each(|(i, block)| *block = i as BlockId);
                    if part > 0 {
                        copies.push(BlockCopy { group, from: whole as BlockId, to: table[whole], tokens: part });
                    }
                }
                assert_same(&what, &step(&mut *runner, copies, &tokens, shared, &tables), &wanted);

                for (group, table) in table(2).iter().enumerate() {
                    for (i, &block) in table.iter().enumerate().take(shared.div_ceil(spec.block_size)) {
                        let held = spec.block_size.min(shared - i * spec.block_size);
                        let bytes = runner.export_block(group, i as BlockId, held).unwrap();
                        other.import_block(group, block, held, &bytes).unwrap();
                    }
                }
                let found = step(&mut *other, Vec::new(), &tokens, shared, &table(2));
                assert_same(&format!("{what}, imported"), &found, &wanted);
            }
            let [missing, short] = [
                runner.export_block(0, spec.groups[0].num_blocks as BlockId, 1).unwrap_err(),
                runner.import_block(0, 0, 1, &[1, 2, 3]).unwrap_err(),
            ]
            .map(|error| error.to_string());
            assert!(missing.contains("was named") && short.contains("3 bytes"), "{missing}, {short}");
        }
    }
}

/// Models, stores and what was trained into the weights are told apart; the room for blocks is not looked at.
#[test]
fn fingerprints_name_what_blocks_depend_on() {
    let of = |runner: Box<dyn ModelRunner>| runner.info().kv_fingerprint.clone();
    let loaded = |store, name: &str, sequences| of(load_into(store, &fixture(name), sequences, Some(64)).unwrap());
    let llama = loaded(KvStoreChoice::Paged, "llama", 1);
    assert_eq!(llama.len(), 64);
    assert!(llama.bytes().all(|digit| digit.is_ascii_hexdigit()), "{llama}");
    assert_eq!(loaded(KvStoreChoice::Auto, "llama", 3), llama);
    assert_ne!(loaded(KvStoreChoice::Contiguous, "llama", 1), llama);
    assert_ne!(loaded(KvStoreChoice::Paged, "llama_mlx_8bit", 1), llama);

    let mut edited = support::edited::Edited::of("llama");
    let again = edited.write();
    assert_eq!(of(load_into(KvStoreChoice::Paged, again.path(), 1, Some(64)).unwrap()), llama);
    edited.config["rope_theta"] = serde_json::json!(123_456.0);
    let other_config = edited.write();
    assert_ne!(of(load_into(KvStoreChoice::Paged, other_config.path(), 1, Some(64)).unwrap()), llama);
    let mut edited = support::edited::Edited::of("llama");
    edited.tensors.get_mut("model.layers.1.self_attn.k_proj.weight").unwrap().2[0] ^= 1;
    let other_weights = edited.write();
    assert_ne!(of(load_into(KvStoreChoice::Paged, other_weights.path(), 1, Some(64)).unwrap()), llama);
}
