//! Whisper against the reference implementations, on tiny checkpoints in the layouts there are.

mod support;

use support::{Reference, difference, fixture, listener, listeners, options};
use vllm_platform::{Listener, Mel, TextId, TextRow, WindowId};

/// Of the largest number: DESIGN §7's for ours, in f32. A model whose weights have 16 bits keeps what it hears in as many; and MLX's
/// own operations are less exact on the CPU.
fn tolerance(layout: &str, backend: &str) -> f32 {
    match (layout, backend) {
        (_, "MLX's") => 2e-3,
        ("whisper/mlx", _) => 6e-4,
        _ => 1e-4,
    }
}

/// Folder, reference, and which of the reference's alignment heads the checkpoint names.
const LAYOUTS: [(&str, &str, &[usize]); 3] = [
    ("whisper/hf", "whisper/reference.safetensors", &[0, 1, 2]),
    ("whisper/mlx", "whisper/reference.safetensors", &[0, 1, 2]),
    // Names none, so that all of the upper half of the layers are taken.
    ("whisper/mlx_4bit", "whisper/reference_4bit.safetensors", &[1, 2]),
];

struct Text {
    name: &'static str,
    window: usize,
    tokens: Vec<u32>,
    /// After each token.
    logits: Vec<Vec<f32>>,
    alignment: Vec<f32>,
}

struct Case {
    windows: Vec<Mel>,
    texts: Vec<Text>,
    places: usize,
}

impl Case {
    fn load(reference: &str) -> Self {
        let reference = Reference::load(&fixture(reference));
        let &[windows, frames, bands] = reference.shape("mel") else { panic!("three axes") };
        let mel = reference.floats("mel");
        let window = |numbers: &[f32]| Mel { numbers: numbers.to_vec(), frames };
        let texts = ["a", "b", "c"].map(|name| {
            let vocab = reference.shape(&format!("{name}.logits"))[1];
            Text {
                name,
                window: reference.metadata[&format!("{name}.window")].parse().unwrap(),
                tokens: reference.counts(&format!("{name}.tokens")),
                logits: reference.floats(&format!("{name}.logits")).chunks_exact(vocab).map(<[f32]>::to_vec).collect(),
                alignment: reference.floats(&format!("{name}.alignment")),
            }
        });
        let all: Vec<_> = mel.chunks_exact(frames * bands).map(window).collect();
        assert_eq!(all.len(), windows);
        Self { windows: all, texts: texts.into(), places: reference.shape("encoded")[1] }
    }

    fn encode(&self, model: &mut dyn Listener) -> Vec<WindowId> {
        model.encode(&self.windows.iter().collect::<Vec<_>>(), &mut || {}).unwrap()
    }
}

/// One row of a step.
fn step(model: &mut dyn Listener, text: TextId, tokens: &[u32], logits: usize) -> Vec<f32> {
    model.step(&[TextRow { text, tokens, logits }]).unwrap().swap_remove(0)
}

#[test]
fn what_a_model_is() {
    for (name, _, heads) in LAYOUTS {
        for (backend, model) in listeners(&fixture(name)) {
            let (info, listener) = (model.info(), model.listener_info());
            assert_eq!(info.architecture, "WhisperForConditionalGeneration", "{name}, {backend}");
            assert_eq!((info.vocab_size, info.mel.bands, info.mel.hop), (60, 8, 160), "{name}, {backend}");
            let sizes = (listener.window_frames, listener.encoded_frames, listener.max_text_len);
            assert_eq!(sizes, (80, 40, 24), "{name}, {backend}");
            let wanted: Vec<_> = heads.iter().map(|&head| [(0, 1), (1, 0), (1, 1)][head]).collect();
            assert_eq!(listener.alignment_heads, wanted, "{name}, {backend}");
            assert_eq!(info.quantization.contains("4 bit"), name.ends_with("4bit"), "{}", info.quantization);
        }
    }
}

#[test]
fn whole_texts() {
    for (name, reference, _) in LAYOUTS {
        let case = Case::load(reference);
        for (backend, mut model) in listeners(&fixture(name)) {
            let windows = case.encode(&mut *model);
            for text in &case.texts {
                let id = model.begin(windows[text.window]).unwrap();
                let found = step(&mut *model, id, &text.tokens, text.tokens.len());
                let error = difference(&found, &text.logits.concat());
                assert!(error < tolerance(name, backend), "{name}, {backend}, {}: {error:.1e}", text.name);
            }
        }
    }
}

/// A prompt, then token by token, all texts in the same steps: those of one row beside those of several.
#[test]
fn texts_side_by_side() {
    for (name, reference, _) in LAYOUTS {
        let case = Case::load(reference);
        for (backend, mut model) in listeners(&fixture(name)) {
            let windows = case.encode(&mut *model);
            let ids: Vec<_> = case.texts.iter().map(|text| model.begin(windows[text.window]).unwrap()).collect();
            let mut done = vec![0; ids.len()];
            for turn in 0.. {
                // How many tokens each goes on with: prompts of 3, 4 and 5 in turns of their own, and single tokens.
                let mut rows = Vec::new();
                for (i, text) in case.texts.iter().enumerate() {
                    let count = if turn == i { 3 + i } else { usize::from(turn > i) };
                    let end = text.tokens.len().min(done[i] + count);
                    if end > done[i] {
                        rows.push((i, done[i]..end));
                        done[i] = end;
                    }
                }
                if rows.is_empty() {
                    break;
                }
                let wanted = |range: &std::ops::Range<usize>| range.len().min(2);
                let of = |(i, range): &(usize, std::ops::Range<usize>)| TextRow {
                    text: ids[*i],
                    tokens: &case.texts[*i].tokens[range.clone()],
                    logits: wanted(range),
                };
                let logits = model.step(&rows.iter().map(of).collect::<Vec<_>>()).unwrap();
                for ((i, range), found) in rows.iter().zip(logits) {
                    let text = &case.texts[*i];
                    let error = difference(&found, &text.logits[range.end - wanted(range)..range.end].concat());
                    assert!(
                        error < tolerance(name, backend),
                        "{name}, {backend}, {} {range:?}: {error:.1e}",
                        text.name
                    );
                }
            }
            assert!(done.iter().zip(&case.texts).all(|(&done, text)| done == text.tokens.len()));
        }
    }
}

#[test]
fn alignment() {
    for (name, reference, heads) in LAYOUTS {
        let case = Case::load(reference);
        for (backend, mut model) in listeners(&fixture(name)) {
            let windows = case.encode(&mut *model);
            for text in &case.texts {
                let found = model.alignment(windows[text.window], &text.tokens).unwrap();
                let of_head = text.tokens.len() * case.places;
                let wanted: Vec<f32> = heads
                    .iter()
                    .flat_map(|head| &text.alignment[head * of_head..(head + 1) * of_head])
                    .copied()
                    .collect();
                let error = difference(&found, &wanted);
                assert!(error < tolerance(name, backend), "{name}, {backend}, {}: {error:.1e}", text.name);
            }
        }
    }
}

#[test]
fn there_are_pauses() {
    let (mut model, case) = (listener(&fixture("whisper/hf"), &options()).unwrap(), Case::load(LAYOUTS[0].1));
    let mut pauses = 0;
    model.encode(&[&case.windows[0]], &mut || pauses += 1).unwrap();
    // At least one in each layer of the encoder, and of the decoder.
    assert!(pauses >= 4, "{pauses} pauses");
}

#[test]
fn windows_and_texts_come_and_go() {
    for (backend, mut model) in listeners(&fixture("whisper/mlx")) {
        let case = Case::load(LAYOUTS[1].1);
        let text = &case.texts[0];
        let windows = case.encode(&mut *model);
        let [first, second] = [0, 1].map(|_| model.begin(windows[text.window]).unwrap());
        let wanted = step(&mut *model, first, &text.tokens, 1);
        // Another text about the same window begins anew, and what others do is nothing to it.
        model.end(first);
        assert_eq!(step(&mut *model, second, &text.tokens, 1), wanted, "{backend}");
        let error = |model: &mut dyn Listener, text: TextId, tokens: &[u32], logits: usize| {
            model.step(&[TextRow { text, tokens, logits }]).unwrap_err().to_string()
        };
        assert!(error(&mut *model, first, &[1], 1).contains("there is none"), "{backend}");
        let third = model.begin(windows[1]).unwrap();
        model.forget(windows[text.window]);
        assert!(error(&mut *model, second, &[1], 1).contains("there is none"), "{backend}");
        assert!(model.begin(windows[text.window]).unwrap_err().to_string().contains("no window"), "{backend}");
        assert!(
            model.alignment(windows[text.window], &[1]).unwrap_err().to_string().contains("no window"),
            "{backend}"
        );
        // What was ended or forgotten already is no error, and the other window is still there.
        model.end(first);
        model.forget(windows[text.window]);
        step(&mut *model, third, &[1, 2], 2);
    }
}

#[test]
fn what_no_model_can_do_is_refused() {
    for (backend, mut model) in listeners(&fixture("whisper/hf")) {
        let case = Case::load(LAYOUTS[0].1);
        let short = Mel { numbers: vec![0.0; 79 * 8], frames: 79 };
        let error = model.encode(&[&case.windows[0], &short], &mut || {}).unwrap_err().to_string();
        assert!(error.contains("a window of 79 frames") && error.contains("80 frames of 8 bands"), "{error}");
        let window = case.encode(&mut *model)[0];
        let id = model.begin(window).unwrap();
        let row = |tokens, logits| TextRow { text: id, tokens, logits };
        let long = [1; 25];
        for (rows, wanted) in [
            (vec![row(&[], 1)], "0 tokens"),
            (vec![row(&[1, 2], 0)], "the logits of 0"),
            (vec![row(&[1, 2], 3)], "the logits of 3"),
            (vec![row(&[1], 1), row(&[2], 1)], "stands in two rows"),
            (vec![row(&long, 1)], "of at most 24"),
        ] {
            let error = model.step(&rows).unwrap_err().to_string();
            assert!(error.contains(wanted), "{backend}: {error}");
        }
        assert!(model.alignment(window, &[]).unwrap_err().to_string().contains("0 tokens"), "{backend}");
    }
}

/// A step that fails breaks the texts that were in it, and no others. (MLX's own operations don't look at what a token is.)
#[test]
fn a_token_beyond_the_vocabulary() {
    let (mut model, case) = (listener(&fixture("whisper/hf"), &options()).unwrap(), Case::load(LAYOUTS[0].1));
    let windows = case.encode(&mut *model);
    let [broken, whole] = [0, 1].map(|i| model.begin(windows[i]).unwrap());
    let error = model.step(&[TextRow { text: broken, tokens: &[3, 60], logits: 1 }]).unwrap_err().to_string();
    assert!(error.contains("token 60"), "{error}");
    let error = model.step(&[TextRow { text: broken, tokens: &[1], logits: 1 }]).unwrap_err().to_string();
    assert!(error.contains("a step failed"), "{error}");
    step(&mut *model, whole, &[3, 4], 1);
}
