//! The resampler beside the mathematics of a tone, and beside soxr (`fixtures/resampling.py`).

mod support;

use std::f64::consts::TAU;

use support::{chirp, floats, snr};
use vllm_audio::{Resampler, Sound, resample};

const PAIRS: &[(u32, u32)] = &[
    (48_000, 16_000),
    (44_100, 16_000),
    (24_000, 16_000),
    (22_050, 16_000),
    (11_025, 16_000),
    (8_000, 16_000),
    (16_000, 24_000),
    (24_000, 48_000),
    (16_000, 8_000),
];

fn tone(rate: u32, hertz: f64, samples: usize) -> Vec<f32> {
    (0..samples).map(|i| (0.5 * (TAU * hertz * i as f64 / f64::from(rate)).sin()) as f32).collect()
}

fn whole(samples: &[f32], from: u32, to: u32) -> Vec<f32> {
    let sound = resample(Sound { samples: samples.to_vec(), rate: from }, to);
    assert_eq!(sound.rate, to);
    sound.samples
}

/// By pieces of these sizes, over and over.
fn streamed(samples: &[f32], from: u32, to: u32, pieces: &[usize]) -> Vec<f32> {
    let mut resampler = Resampler::new(from, to);
    let (mut found, mut rest) = (Vec::new(), samples);
    for piece in pieces.iter().cycle() {
        let (now, later) = rest.split_at((*piece).min(rest.len()));
        found.extend(resampler.push(now));
        rest = later;
        if rest.is_empty() {
            break;
        }
    }
    found.extend(resampler.finish());
    found
}

/// Away from the ends, where a tone begins and stops.
fn middle(samples: &[f32]) -> &[f32] {
    &samples[samples.len() / 4..samples.len() * 3 / 4]
}

fn decibels(samples: &[f32]) -> f64 {
    let power = samples.iter().map(|&x| f64::from(x).powi(2)).sum::<f64>() / samples.len() as f64;
    10.0 * (power / 0.125).log10()
}

/// Up to 95 % of the lower rate's half a tone is what it would have been at the other rate (so it is neither louder, quieter nor
/// later); from there on nothing of it is left.
#[test]
fn tones_pass_or_are_gone() {
    for &(from, to) in PAIRS {
        let half = f64::from(from.min(to)) / 2.0;
        for share in [0.01, 0.1, 0.5, 0.8, 0.9, 0.92, 0.95, 1.0, 1.05, 1.2, 1.5, 2.0, 2.7] {
            let hertz = half * share + 3.0;
            if hertz >= f64::from(from) / 2.0 {
                continue;
            }
            let before = tone(from, hertz, from as usize);
            let ways = [("whole", whole(&before, from, to)), ("streamed", streamed(&before, from, to, &[480]))];
            for (way, after) in ways {
                let name = format!("{hertz:.0} Hz from {from} to {to}, {way}");
                assert_eq!(after.len(), to as usize, "{name}");
                if share < 1.0 {
                    let agreement = snr(middle(&after), middle(&tone(to, hertz, to as usize)));
                    let wanted = if share < 0.95 { 110.0 } else { 90.0 };
                    assert!(agreement > wanted, "{name}: {agreement:.1} dB");
                } else {
                    let left = decibels(middle(&after));
                    assert!(left < -135.0, "{name}: {left:.1} dB are left");
                }
            }
        }
    }
}

#[test]
fn a_rising_tone_is_as_soxr_makes_it() {
    for (from, to) in
        [(48_000, 16_000), (44_100, 16_000), (24_000, 16_000), (8_000, 16_000), (24_000, 48_000), (11_025, 24_000)]
    {
        let wanted = floats(&format!("resampled/{from}_{to}.f32"));
        let before = chirp(from, from as usize / 5);
        for (way, found) in [("whole", whole(&before, from, to)), ("streamed", streamed(&before, from, to, &[441]))] {
            assert_eq!(found.len(), wanted.len(), "{from} to {to}, {way}");
            let agreement = snr(middle(&found), middle(&wanted));
            assert!(agreement > 100.0, "{from} to {to}, {way}: {agreement:.1} dB");
        }
    }
}

#[test]
fn pieces_make_no_difference() {
    let before = chirp(44_100, 30_000);
    for to in [16_000, 48_000, 44_100] {
        let wanted = streamed(&before, 44_100, to, &[30_000]);
        for pieces in [&[1][..], &[0, 7, 1000], &[441], &[12_345, 3]] {
            assert_eq!(streamed(&before, 44_100, to, pieces), wanted, "to {to} by {pieces:?}");
        }
    }
}

/// Down to one sample, and to rates without a common divisor.
#[test]
fn there_is_a_sample_for_each_that_begun() {
    let rates = [1_000, 7_999, 16_000, 44_100, 48_000];
    for from in rates {
        for to in rates {
            for length in [0, 1, 999] {
                let before = tone(from, 100.0, length);
                let wanted = (length as u64 * u64::from(to)).div_ceil(u64::from(from)) as usize;
                assert_eq!(whole(&before, from, to).len(), wanted, "{length} from {from} to {to}");
                assert_eq!(streamed(&before, from, to, &[777]).len(), wanted, "{length} from {from} to {to}, streamed");
            }
        }
    }
}

/// What a listener waits for: never more than 64 ms between the usual rates.
#[test]
fn a_stream_comes_soon() {
    for (from, to) in
        [(48_000, 16_000), (24_000, 16_000), (16_000, 24_000), (8_000, 16_000), (44_100, 16_000), (24_000, 8_000)]
    {
        let mut resampler = Resampler::new(from, to);
        let mut given = 0;
        let piece = tone(from, 440.0, from as usize / 100);
        for pieces in 1..=100 {
            given += resampler.push(&piece).len();
            let behind = f64::from(pieces) / 100.0 - given as f64 / f64::from(to);
            let most = if from.min(to) == 8_000 { 0.11 } else { 0.064 };
            assert!(behind <= most, "from {from} to {to}: {behind:.3} s behind");
        }
    }
}

#[test]
fn the_same_rate_changes_nothing() {
    let before = chirp(16_000, 100);
    assert_eq!(whole(&before, 16_000, 16_000), before);
    let mut resampler = Resampler::new(16_000, 16_000);
    assert_eq!(resampler.push(&before), before);
    assert_eq!(resampler.finish(), []);
}
