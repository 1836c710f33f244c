//! The contiguous KV store under whole models: it says what the paged one says.

mod support;

use serde_json::json;
use support::{Reference, Run, edited::Edited, fixtures};
use vllm_platform::{
    KvDtype,
    KvStoreChoice::{Contiguous, Paged},
    LoadOptions,
};

/// Prefilled in chunks of 7, one of three sequences in the batch starting where the last one is.
fn answers(run: &mut Run, prompts: &[&[u32]], tokens: usize) -> Vec<Vec<u32>> {
    let answer = |(i, prompt): (usize, &&[u32])| {
        let cut = prompt.len().saturating_sub(1).min(7);
        if cut > 0 {
            run.step(&[(i, &prompt[..cut])]);
        }
        run.greedy(i, &prompt[cut..], tokens).iter().map(|sampled| sampled.token).collect()
    };
    prompts.iter().enumerate().map(answer).collect()
}

#[test]
fn every_family_answers_as_its_reference() {
    for fixture in fixtures() {
        let reference = Reference::load(&fixture);
        let mut run = Run::with(Contiguous, &fixture, 1, 64);
        assert_eq!(run.kv_cache().groups.len(), 1);
        let answer = answers(&mut run, &[reference.prompt()], reference.answer().len());
        assert_eq!(answer, [reference.answer()], "{}", fixture.display());
    }
}

/// Answers so long that paged tables give blocks back and extents forget.
#[test]
fn long_answers_over_windows_agree() {
    for (name, windowed) in [("gemma3", true), ("mistral_window", true), ("llama", false)] {
        let mut edited = Edited::of(name);
        edited.config["max_position_embeddings"] = json!(1024);
        let dir = edited.write();
        let prompts: [&[u32]; 3] = [&[3, 1, 4, 1, 5, 9, 2, 6, 5, 35, 8, 9, 79, 32, 38, 46], &[2, 7, 18], &[95]];
        let [mut paged, mut contiguous] = [Paged, Contiguous].map(|kv_store| {
            // What extents hold on the CPU.
            let options = LoadOptions { kv_store, kv_cache_dtype: Some(KvDtype::F32), ..LoadOptions::default() };
            Run::of(options, dir.path(), 3, 1024)
        });
        assert_eq!((contiguous.kv_cache().block_size, paged.kv_cache().block_size), (1024, 16), "{name}");
        assert_eq!((contiguous.kv_cache().rewind.is_some(), paged.kv_cache().rewind), (windowed, None), "{name}");
        let wanted = answers(&mut paged, &prompts, 700);
        assert_eq!(answers(&mut contiguous, &prompts, 700), wanted, "{name}");
        assert_eq!(paged.given_back() > 100, windowed, "{name}: {} blocks", paged.given_back());
    }
}
