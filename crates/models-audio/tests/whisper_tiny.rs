//! Whisper tiny.en by its published weights: what it writes down, greedily and without timestamps, is what openai-whisper does.
//!
//! The tokens below are openai-whisper's: torch in f32 on the same weights, no rule suppressing any token.

mod support;

use std::{fs::File, path::PathBuf};

use support::{listener, options};
use vllm_audio::{Limits, decode_at};
use vllm_platform::{Listener, Mel, TextId, TextRow};
use vllm_speech::mel::{MelSpectrogram, cut};

/// `<|startoftranscript|><|notimestamps|>` and `<|endoftext|>` of English models.
const PROMPT: [u32; 2] = [50257, 50362];
const END: u32 = 50256;

/// Clips, and the tokens of their first 30 s.
const CLIPS: [(&str, &[u32]); 4] = [
    ("counting", &[352, 12, 17, 12, 27712, 12, 3134, 4531, 940, 13]),
    ("hello_world", &[18435, 995, 13]),
    ("quick_brown_fox", &[383, 2068, 7586, 21831, 18045, 625, 262, 16931, 3290, 13]),
    (
        "two_cities",
        &[
            632, 373, 262, 1266, 286, 1661, 11, 340, 373, 262, 5290, 286, 1661, 13, 632, 373, 262, 2479, 286, 11501,
            11, 340, 373, 262, 2479, 286, 19538, 1108, 13, 632, 373, 262, 36835, 286, 4901, 11, 340, 373, 262, 36835,
            286, 4878, 377, 414, 13, 632, 373, 262, 1622, 286, 1657, 11, 340, 373, 262, 1622, 286, 11854, 13, 632, 373,
            262, 6076, 286, 2911, 11, 340, 373, 262, 7374, 286, 20234, 13, 775, 550, 2279, 878, 514, 11, 356, 550,
            2147, 878, 514, 13, 775, 547, 477, 1016, 1277, 284, 9538, 11, 356, 547, 477, 1016, 1277, 262, 584, 835, 13,
        ],
    ),
];

fn fetched(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/models").join(name);
    assert!(path.exists(), "{} is not there; run `cargo xtask models fetch {name}` first", path.display());
    path
}

/// The spectrogram of a clip's first window, with silence behind what is shorter.
fn window(model: &dyn Listener, clip: &str) -> Mel {
    let path = fetched("clips").join(clip).with_extension("wav");
    let (settings, frames) = (&model.info().mel, model.listener_info().window_frames);
    let mut sound =
        decode_at(settings.sample_rate, File::open(path).unwrap(), Some("wav"), &Limits::default()).unwrap();
    sound.samples.resize(frames * settings.hop, 0.0);
    let mel = MelSpectrogram::new(settings).log_mel(&sound.samples);
    cut(&mel, settings.bands, 0..frames, frames)
}

/// What each text goes on with until its end, all of them in the same steps.
fn greedy(model: &mut dyn Listener, texts: &[TextId]) -> Vec<Vec<u32>> {
    let mut written = vec![Vec::new(); texts.len()];
    let mut next: Vec<(usize, Vec<u32>)> = (0..texts.len()).map(|text| (text, PROMPT.to_vec())).collect();
    while !next.is_empty() {
        let rows: Vec<_> =
            next.iter().map(|(text, tokens)| TextRow { text: texts[*text], tokens, logits: 1 }).collect();
        let logits = model.step(&rows).unwrap();
        let greatest = |logits: &[f32]| (0u32..).zip(logits).max_by(|a, b| a.1.total_cmp(b.1)).unwrap().0;
        next = next.iter().zip(logits).map(|((text, _), logits)| (*text, vec![greatest(&logits)])).collect();
        next.retain(|(text, token)| token[0] != END && written[*text].len() < 200);
        next.iter().for_each(|(text, token)| written[*text].push(token[0]));
    }
    written
}

#[test]
fn clips_are_written_down_as_by_the_reference() {
    let mut model = listener(&fetched("whisper-tiny.en"), &options()).unwrap();
    let mels: Vec<Mel> = CLIPS.iter().map(|(clip, _)| window(&*model, clip)).collect();
    // One by one, and all side by side.
    for ((clip, wanted), mel) in CLIPS.iter().zip(&mels) {
        let id = model.encode(&[mel], &mut || {}).unwrap()[0];
        let text = model.begin(id).unwrap();
        assert_eq!(greedy(&mut *model, &[text])[0], *wanted, "{clip}");
        model.forget(id);
    }
    let ids = model.encode(&mels.iter().collect::<Vec<_>>(), &mut || {}).unwrap();
    let texts: Vec<_> = ids.iter().map(|&id| model.begin(id).unwrap()).collect();
    for ((clip, wanted), found) in CLIPS.iter().zip(greedy(&mut *model, &texts)) {
        assert_eq!(found, *wanted, "{clip}, beside the others");
    }
}
