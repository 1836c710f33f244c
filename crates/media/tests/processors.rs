//! Against transformers: the same files, pictures and prompts must give the same tokens, grids, positions and patches
//! (fixtures/processors.py).

use std::path::Path;

use serde_json::Value;
use vllm_checkpoint::Checkpoint;
use vllm_media::{Detail, Frame, Part, Picture, PlacedSpan, Prepared, Processor, ProcessorError, Video};
use vllm_platform::rope_positions;

const LEVELS: &[u8] = include_bytes!("fixtures/processors.bin");

fn reference() -> Value {
    serde_json::from_str(include_str!("fixtures/processors.json")).unwrap()
}

/// The same as in fixtures/processors.py.
fn picture(width: u32, height: u32, frame: u64) -> Picture {
    let mut rgb = vec![];
    for y in 0..u64::from(height) {
        for x in 0..u64::from(width) {
            for c in 0..3 {
                let slope = (x * 5 + y * 3 + c * 50 + frame * 20) % 512;
                let noise = ((x * 7919 + y * 104_729 + c * 1_299_709 + frame * 15_485_863) ^ (x * y * 31)) % 65521;
                let level = if (x / 16 + y / 16) % 2 == 1 { noise % 256 } else { slope.min(511 - slope) };
                rgb.push(u8::try_from(level).unwrap());
            }
        }
    }
    Picture::from_rgb(width, height, rgb)
}

/// A video of the frames with these numbers.
fn video(width: u32, height: u32, frames: &[u64], fps: f64) -> Video {
    let frame = |&i: &u64| Frame { picture: picture(width, height, i), at: i as f64 / fps };
    Video { frames: frames.iter().map(frame).collect() }
}

/// A checkpoint without weights.
fn processor(files: &Value) -> Result<Option<Processor>, ProcessorError> {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(Path::join(folder.path(), name), bytes).unwrap();
    for (name, content) in files.as_object().unwrap() {
        write(name, content.to_string().as_bytes());
    }
    write("model.safetensors", b"\x02\0\0\0\0\0\0\0{}");
    Processor::load(&Checkpoint::open(folder.path()).unwrap())
}

fn processor_of(family: &Value) -> Processor {
    processor(&family["files"]).unwrap().unwrap()
}

/// Special tokens by text; any other byte is a token.
fn encode(specials: &Value, text: &str) -> Vec<u32> {
    let mut tokens = vec![];
    let mut at = 0;
    while at < text.len() {
        let special = specials
            .as_object()
            .unwrap()
            .iter()
            .find(|(special, _)| text.as_bytes()[at..].starts_with(special.as_bytes()));
        let (token, len) =
            special.map_or((text.as_bytes()[at].into(), 1), |(text, id)| (id.as_u64().unwrap(), text.len()));
        tokens.push(u32::try_from(token).unwrap());
        at += len;
    }
    tokens
}

fn tokenize(
    processor: &Processor,
    specials: &Value,
    text: &str,
    media: &[Prepared],
) -> Result<(Vec<u32>, Vec<PlacedSpan>), String> {
    let encode = |text: &str| Ok::<_, String>(encode(specials, text));
    processor.tokenize(text, media, &encode).map_err(|error| error.to_string())
}

fn number(value: &Value) -> u32 {
    u32::try_from(value.as_u64().unwrap()).unwrap()
}

fn numbers(value: &Value) -> Vec<u64> {
    value.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).collect()
}

/// Its images, then its videos.
fn media(processor: &Processor, case: &Value) -> Vec<Prepared> {
    let images = case["images"]
        .as_array()
        .unwrap()
        .iter()
        .map(|size| processor.image(&picture(number(&size[0]), number(&size[1]), 0), Detail::Auto).unwrap());
    let videos = case["videos"].as_array().unwrap().iter().map(|v| {
        let size = &v["size"];
        processor
            .video(&video(number(&size[0]), number(&size[1]), &numbers(&v["frames"]), v["fps"].as_f64().unwrap()))
            .unwrap()
    });
    images.chain(videos).collect()
}

/// Rows and columns of all pictures.
fn grids(case: &Value) -> Vec<[usize; 2]> {
    let side = |value: &Value| value.as_u64().unwrap() as usize;
    let mut grids = vec![];
    for grid in case["grids"].as_array().into_iter().flatten() {
        grids.push([side(&grid[0]), side(&grid[1])]);
    }
    for key in ["image_grid_thw", "video_grid_thw"] {
        for grid in case[key].as_array().into_iter().flatten() {
            grids.extend(vec![[side(&grid[1]), side(&grid[2])]; side(&grid[0])]);
        }
    }
    grids
}

#[test]
fn tokens_are_those_of_the_reference() {
    for (name, family) in reference().as_object().unwrap() {
        let processor = processor_of(family);
        for case in family["cases"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let media = media(&processor, case);
            let (tokens, spans) = tokenize(&processor, &family["tokens"], text, &media).unwrap();
            let wanted: Vec<u32> = case["tokens"].as_array().unwrap().iter().map(number).collect();
            assert_eq!(tokens, wanted, "{name}: {text}");
            // All features are placed, each once.
            let mut placed: Vec<_> = spans
                .iter()
                .flat_map(|placed| {
                    (0..placed.span.len).map(move |i| (placed.media, placed.part, placed.span.first + i))
                })
                .collect();
            placed.sort_unstable();
            let each = media.iter().enumerate().flat_map(|(m, prepared)| {
                prepared.parts.iter().enumerate().flat_map(move |(p, part)| (0..part.tokens()).map(move |i| (m, p, i)))
            });
            assert_eq!(placed, each.collect::<Vec<_>>(), "{name}: {text}");
            assert!(spans.is_sorted_by_key(|placed| placed.span.start), "{name}: {text}");
        }
    }
}

#[test]
fn positions_are_those_of_the_reference() {
    let reference = reference();
    let mut compared = 0;
    for (name, family) in reference.as_object().unwrap() {
        let processor = processor_of(family);
        for case in family["cases"].as_array().unwrap() {
            let text = case["text"].as_str().unwrap();
            let (tokens, spans) = tokenize(&processor, &family["tokens"], text, &media(&processor, case)).unwrap();
            let spans: Vec<_> = spans.into_iter().map(|placed| placed.span).collect();
            let positions = rope_positions(&spans, 0, tokens.len());
            let Some(wanted) = case["positions"].as_array() else {
                assert!(spans.iter().all(|span| span.grid.is_none()), "{name}: {text}");
                continue;
            };
            let wanted: Vec<_> = wanted.iter().map(|p| [number(&p[0]), number(&p[1]), number(&p[2])]).collect();
            assert_eq!(positions, wanted, "{name}: {text}");
            compared += 1;
        }
    }
    assert_eq!(compared, 10);
}

#[test]
fn patches_are_those_of_the_reference() {
    for (name, family) in reference().as_object().unwrap() {
        let processor = processor_of(family);
        let of = |key: &str, colour: usize| family[key][colour].as_f64().unwrap() as f32;
        for case in family["cases"].as_array().unwrap() {
            let text = format!("{name}: {}", case["text"]);
            let parts: Vec<Part> = media(&processor, case).into_iter().flat_map(|prepared| prepared.parts).collect();
            let inputs: Vec<_> = parts.iter().map(Part::input).collect();
            assert_eq!(inputs.iter().flat_map(|input| input.grids.clone()).collect::<Vec<_>>(), grids(case), "{text}");
            let patch_len = inputs[0].patch_len;
            let patches: Vec<f32> = inputs.into_iter().flat_map(|input| input.patches).collect();
            let shape = numbers(&case["patches"]);
            assert_eq!([(patches.len() / patch_len) as u64, patch_len as u64], *shape, "{text}");
            let start = case["start"].as_u64().unwrap() as usize;
            let wanted = &LEVELS[start..start + patches.len()];
            let level = |at: usize| {
                let colour = at % patch_len / (patch_len / 3);
                (patches[at] * of("std", colour) + of("mean", colour)) * 255.0
            };
            for (at, wanted) in wanted.iter().enumerate() {
                let off = (level(at) - f32::from(*wanted)).abs();
                assert!(off < 1.01, "{text}: number {at} is level {}, wanted {wanted}", level(at));
            }
            for number in case["numbers"].as_array().unwrap() {
                let (at, exact) = (number[0].as_u64().unwrap() as usize, number[1].as_f64().unwrap() as f32);
                let same_level = (level(at) - f32::from(wanted[at])).abs() < 0.01;
                assert!(!same_level || (patches[at] - exact).abs() < 1e-6, "{text}: {at}: {} not {exact}", patches[at]);
            }
        }
    }
}
