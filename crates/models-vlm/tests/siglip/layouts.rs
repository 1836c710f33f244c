//! The same weights under the names and in the layouts of other writers give the same numbers.

use super::{Reference, encoder, fixture};
use crate::sequences::{Run, edited::Edited};

/// Fixture, writer, beginnings of names with what they become, and whether convolutions have MLX's order of axes.
type Layout = (&'static str, &'static str, &'static [(&'static str, &'static str)], bool);

const LAYOUTS: [Layout; 8] = [
    (
        "gemma3",
        "transformers 5",
        &[
            ("language_model.model.", "model.language_model."),
            ("vision_tower.vision_model.", "model.vision_tower."),
            ("multi_modal_projector.", "model.multi_modal_projector."),
        ],
        false,
    ),
    (
        "gemma3",
        "transformers 4.52",
        &[
            ("language_model.model.", "model.language_model."),
            ("vision_tower.", "model.vision_tower."),
            ("multi_modal_projector.", "model.multi_modal_projector."),
        ],
        false,
    ),
    ("gemma3", "mlx-vlm", &[], true),
    (
        "llava_clip",
        "transformers 5",
        &[
            ("language_model.model.", "model.language_model."),
            ("language_model.lm_head.", "lm_head."),
            ("vision_tower.vision_model.", "model.vision_tower."),
            ("multi_modal_projector.", "model.multi_modal_projector."),
        ],
        false,
    ),
    ("llava_clip", "mlx-vlm", &[], true),
    (
        "smolvlm",
        "mlx-vlm",
        &[
            ("model.text_model.", "language_model."),
            ("model.vision_model.", "vision_model."),
            ("model.connector.", "connector."),
        ],
        true,
    ),
    ("mistral3", "mlx-vlm", &[("vision_tower.", "vision_tower.vision_model.")], true),
    ("pixtral", "mlx-vlm", &[("vision_tower.", "vision_tower.vision_model.")], true),
];

/// [outputs, channels, rows, columns] → [outputs, rows, columns, channels], of two-byte numbers.
fn channels_last(shape: &mut [usize], bytes: &mut Vec<u8>) {
    let &mut [outputs, channels, rows, columns] = shape else { panic!("four axes") };
    let mut out = Vec::with_capacity(bytes.len());
    for output in 0..outputs {
        for place in 0..rows * columns {
            for channel in 0..channels {
                let at = 2 * ((output * channels + channel) * rows * columns + place);
                out.extend_from_slice(&bytes[at..at + 2]);
            }
        }
    }
    *bytes = out;
    shape[1..].rotate_left(1);
}

#[test]
fn every_writers_names() {
    let whole: Vec<_> = LAYOUTS.iter().map(|&(name, writer, names, mlx)| (name, writer, names, mlx, "")).collect();
    // Idefics3 is SmolVLM under another name: `make_siglip.py` makes sure of it.
    let idefics3 = ("smolvlm", "Idefics3", &[][..], false, "Idefics3ForConditionalGeneration");
    for (name, writer, names, mlx, architecture) in whole.into_iter().chain([idefics3]) {
        let mut edited = Edited::of(name);
        edited.tensors = std::mem::take(&mut edited.tensors)
            .into_iter()
            .map(|(key, (dtype, mut shape, mut bytes))| {
                let renamed = names.iter().find_map(|(from, to)| Some(format!("{to}{}", key.strip_prefix(from)?)));
                if mlx && shape.len() == 4 {
                    channels_last(&mut shape, &mut bytes);
                }
                (renamed.unwrap_or(key), (dtype, shape, bytes))
            })
            .collect();
        if !architecture.is_empty() {
            edited.config["architectures"] = [architecture].into();
        }
        let (other, reference) = (edited.write(), Reference::load(name));
        let [wanted, found] = [fixture(name), other.path().into()].map(|path| {
            let mut encoder = encoder(&path).unwrap_or_else(|e| panic!("{name} by {writer}: {e}"));
            let features = encoder.encode(&reference.pictures, &mut || {}).unwrap();
            let mut run = Run::exact(&path, 1, 64);
            let answer = run.greedy(0, reference.cases[0].prompt(), 4);
            (features, answer.iter().map(|sampled| sampled.token).collect::<Vec<_>>())
        });
        assert_eq!(found, wanted, "{name} by {writer}");
    }
}
