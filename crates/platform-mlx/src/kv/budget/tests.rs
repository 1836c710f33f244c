use serde_json::json;

use super::*;
use crate::kv::group_layers;

const MIB: u64 = 1 << 20;

fn options(max_num_seqs: usize) -> LoadOptions {
    LoadOptions { max_num_seqs, ..LoadOptions::default() }
}

#[test]
fn bytes_are_what_the_share_leaves() {
    let granted = 10_000 * MIB;
    // (what, share, bytes asked for, device, MiB or what the error says)
    type Case = (&'static str, f64, Option<u64>, DeviceKind, Result<u64, &'static str>);
    let cases: [Case; 8] = [
        ("a GPU is ours", 0.9, None, DeviceKind::Metal, Ok(6_900)),
        ("the host is shared", 0.9, None, DeviceKind::Cpu, Ok(5_000)),
        ("a small share of the host", 0.5, None, DeviceKind::Cpu, Ok(2_900)),
        ("named bytes are taken as they are", 0.9, Some(7 * MIB), DeviceKind::Cpu, Ok(7)),
        ("the whole GPU", 1.0, None, DeviceKind::Cuda, Ok(7_900)),
        ("nothing left", 0.2, None, DeviceKind::Cuda, Err("10000 MiB granted is 2000 MiB, weights take 2000 MiB")),
        ("more than there is", 1.5, None, DeviceKind::Cuda, Err("gpu-memory-utilization 1.5")),
        ("no number", f64::NAN, None, DeviceKind::Cuda, Err("gpu-memory-utilization NaN")),
    ];
    for (name, share, asked, device, wanted) in cases {
        let options = LoadOptions { memory_utilization: share, kv_cache_bytes: asked, ..options(16) };
        let request = Request { options: &options, device, granted, weights: 2_000 * MIB, headroom: 100 * MIB };
        match (request.bytes(), wanted) {
            (Ok(bytes), Ok(wanted)) => assert_eq!(bytes / MIB, wanted, "{name}"),
            (Err(error), Err(wanted)) => assert!(error.to_string().contains(wanted), "{name}: {error}"),
            (found, _) => panic!("{name}: {found:?}"),
        }
    }
}

#[test]
fn headroom_grows_with_the_step() {
    let config = json!({"hidden_size": 1000, "intermediate_size": 3000});
    let of = |tokens| LoadOptions { max_num_batched_tokens: tokens, ..options(10) };
    assert_eq!(headroom(&config, 50_000, &of(100)), 4 * (100 * 20_000 + 2 * 50_000 * 10) + BASE);
    assert_eq!(headroom(&json!({}), 0, &of(100)), BASE);
}

/// The layers of Gemma 3 1B: 22 with a window of 512, 4 without. A block of 16 tokens takes 32 KiB a layer.
fn gemma() -> Vec<LayerSpec> {
    let layer = |i: usize| LayerSpec { kv_heads: 1, head_dim: 256, window: (i % 6 != 5).then_some(512) };
    (0..26).map(layer).collect()
}

#[test]
fn blocks_of_all_groups_stay_within_the_bytes() {
    let groups = group_layers(&gemma(), 8192);
    // A window and a step of 256 tokens, in blocks, once more for where it starts: 49.
    let (window, whole) = (22 * (32 << 10), 4 * (32 << 10));
    // (MiB, sequences, blocks of [everything, windows])
    let cases = [(4_000, 16, [(4_000 * MIB - 1568 * window) / whole, 1568]), (35, 16, [10, 49])];
    for (mib, sequences, wanted) in cases {
        let found = paged(mib * MIB, &groups, &gemma(), 16, KvDtype::F32, 8192, &options(sequences)).expect("enough");
        assert_eq!(found.iter().map(|&n| n as u64).collect::<Vec<_>>(), wanted, "{mib} MiB");
    }
    for mib in 34..3_000 {
        let Ok(found) = paged(mib * MIB, &groups, &gemma(), 16, KvDtype::F32, 8192, &options(16)) else {
            assert!(mib * MIB < 49 * window + whole, "{mib} MiB would do");
            continue;
        };
        assert!(found[0] as u64 * whole + found[1] as u64 * window <= mib * MIB, "{mib} MiB: {found:?}");
        assert!(found[0] >= 1 && (49..=1568).contains(&found[1]), "{mib} MiB: {found:?}");
    }
    let short = paged(MIB, &groups, &gemma(), 16, KvDtype::F32, 8192, &options(16))
        .map(drop)
        .expect_err("too small")
        .to_string();
    let least = 49 * window + whole;
    assert_eq!(
        short,
        format!(
            "out of memory: KV storage of 1048576 bytes is too small: one sequence takes {least} in blocks of 16 tokens"
        )
    );
}

#[test]
fn all_bytes_go_to_the_only_group() {
    for window in [None, Some(512)] {
        let layers = [LayerSpec { kv_heads: 2, head_dim: 64, window }];
        let groups = group_layers(&layers, 8192);
        // 16 tokens of 2 · 2 · 64 numbers.
        let blocks = |bytes| paged(bytes, &groups, &layers, 16, KvDtype::F32, 8192, &options(4)).expect("enough");
        assert_eq!(blocks(100 * 16_384), [100], "{window:?}");
        assert_eq!(blocks(u64::MAX / 2), [MOST_BLOCKS], "{window:?}");
    }
}

#[test]
fn slots_are_whole_sequences() {
    let layers = gemma();
    // Everything for 4 layers, 512 + 256 + 256 tokens for the others, 1 KiB a token and layer.
    let slot = (4 * 8192 + 22 * 1024) * 1024;
    let slots = |bytes| contiguous(bytes, &layers, KvDtype::Bf16, 8192, 256);
    assert_eq!(slots(3 * slot).expect("three"), 3);
    assert_eq!(slots(3 * slot - 1).expect("two"), 2);
    let error = slots(slot - 1).expect_err("none").to_string();
    assert!(error.contains(&format!("one sequence of 8192 tokens takes {slot}; lower max-model-len")), "{error}");
}
