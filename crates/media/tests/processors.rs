//! Against transformers: the same files, pictures and prompts must give the same tokens, grids, positions and patches
//! (fixtures/processors.py).

use std::path::Path;

use serde_json::{Value, json};
use vllm_checkpoint::Checkpoint;
use vllm_media::{Detail, Frame, Part, Picture, PlacedSpan, Prepared, Processor, ProcessorError, Spread, Video};
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

/// A file, a key, and its value.
type Change = (&'static str, &'static str, Value);

/// The files of a family, some of whose settings are others.
fn files(family: &str, changes: &[Change]) -> Value {
    let mut files = reference()[family]["files"].clone();
    for (file, key, value) in changes {
        files[file][key] = value.clone();
    }
    files
}

#[test]
fn files_that_cannot_be_followed_are_refused() {
    const IMAGE: &str = "preprocessor_config.json";
    const PROCESSOR: &str = "processor_config.json";
    const CONFIG: &str = "config.json";
    let cases: [(&str, &str, &str, Value, &str); 18] = [
        ("qwen2_vl", CONFIG, "model_type", json!("qwen9_vl"), r#"model_type "qwen9_vl" isn't one"#),
        ("qwen2_vl", IMAGE, "do_resize", json!(false), "do_resize is false"),
        ("qwen2_vl", IMAGE, "patch_size", json!(16), "patch_size is 16, but by config.json's vision_config it is 14"),
        ("qwen2_vl", IMAGE, "patch_size", json!("14"), r#"patch_size is "14", wanted a whole number, at least 1"#),
        ("qwen2_vl", IMAGE, "resample", json!(0), "resample is 0, wanted 1 (Lanczos), 2 (bilinear) or 3 (bicubic)"),
        ("qwen2_vl", IMAGE, "image_mean", json!([1, 2]), "image_mean is [1,2], wanted a number for each"),
        ("qwen2_vl", IMAGE, "image_std", json!([1, 0, 1]), "image_std has a 0"),
        ("qwen2_vl", IMAGE, "image_processor_type", json!("GlmImageProcessor"), "supported: Qwen2VLImageProcessor"),
        ("qwen3_vl", IMAGE, "size", json!({"height": 64}), "size must have shortest_edge and longest_edge"),
        ("gemma3", IMAGE, "do_pan_and_scan", json!(true), "do_pan_and_scan is true"),
        ("gemma3", IMAGE, "size", json!({"longest_edge": 60}), "size must have height and width"),
        ("gemma3", PROCESSOR, "image_seq_length", json!(9), "image_seq_length is 9, but by config.json's mm_tokens"),
        ("llava", PROCESSOR, "vision_feature_select_strategy", json!("full"), "isn't that of config.json"),
        ("llava", IMAGE, "do_pad", json!(true), "do_pad is true"),
        ("llava", IMAGE, "do_center_crop", json!(false), "size must have height and width"),
        (
            "idefics3",
            PROCESSOR,
            "image_seq_len",
            json!(9),
            "image_seq_len is 9, but by config.json and the size of a tile",
        ),
        ("pixtral", PROCESSOR, "patch_size", json!(16), "patch_size is 16, but by config.json's vision_config it is 8"),
        ("mistral3", PROCESSOR, "spatial_merge_size", json!(1), "spatial_merge_size is 1, but by config.json it is 2"),
    ];
    for (family, file, key, value, wanted) in cases {
        let error = processor(&files(family, &[(file, key, value)])).unwrap_err().to_string();
        assert!(error.starts_with(file) && error.contains(wanted), "{family}: {error}");
    }
    let mut bare = files("qwen2_vl", &[]);
    bare.as_object_mut().unwrap().remove(IMAGE);
    let error = processor(&bare).unwrap_err().to_string();
    assert!(error.contains("there is no preprocessor_config.json beside it"), "{error}");
    bare[CONFIG] = json!({"model_type": "qwen2"});
    assert!(processor(&bare).unwrap().is_none(), "a text model");
}

#[test]
fn other_spellings_mean_the_same() {
    let image = "preprocessor_config.json";
    let cases: [(&str, Value, &[Change]); 4] = [
        ("bare numbers", files("llava", &[]), &[(image, "size", json!(44)), (image, "crop_size", json!(44))]),
        (
            "one number for all colours",
            files("gemma3", &[]),
            &[(image, "image_mean", json!(0.5)), (image, "image_std", json!(0.5))],
        ),
        (
            "left out",
            files("gemma3", &[]),
            &[
                (image, "image_mean", Value::Null),
                (image, "do_normalize", Value::Null),
                (image, "rescale_factor", Value::Null),
            ],
        ),
        (
            "another name of the class",
            files("llava", &[]),
            &[(image, "image_processor_type", json!("CLIPImageProcessorFast"))],
        ),
    ];
    for (name, plain, changes) in cases {
        let family = if plain == files("llava", &[]) { "llava" } else { "gemma3" };
        let key = |files: &Value| {
            let prepared = processor(files).unwrap().unwrap().image(&picture(90, 70, 0), Detail::Auto).unwrap();
            (prepared.text, prepared.parts[0].key())
        };
        assert_eq!(key(&plain), key(&files(family, changes)), "{name}");
    }
}

#[test]
fn keys_name_pixels_and_what_is_done_to_them() {
    let image = "preprocessor_config.json";
    let key = |changes: &[Change], picture: Picture, detail| {
        let prepared = processor(&files("qwen2_vl", changes)).unwrap().unwrap().image(&picture, detail).unwrap();
        prepared.parts[0].key()
    };
    let plain = key(&[], picture(50, 37, 0), Detail::Auto);
    assert_eq!(plain, key(&[], picture(50, 37, 0), Detail::High), "the same again");
    assert_eq!(
        plain,
        key(&[(image, "min_pixels", json!(784))], picture(50, 37, 0), Detail::Auto),
        "a limit that changes nothing"
    );
    let others = [
        ("other pixels", key(&[], picture(50, 37, 1), Detail::Auto)),
        ("another size", key(&[(image, "max_pixels", json!(784))], picture(50, 37, 0), Detail::Auto)),
        ("another filter", key(&[(image, "resample", json!(1))], picture(50, 37, 0), Detail::Auto)),
        ("other colours", key(&[(image, "image_mean", json!([0, 0, 0]))], picture(50, 37, 0), Detail::Auto)),
        ("not normalised", key(&[(image, "do_normalize", json!(false))], picture(50, 37, 0), Detail::Auto)),
        ("not scaled", key(&[(image, "do_rescale", json!(false))], picture(50, 37, 0), Detail::Auto)),
    ];
    for (name, other) in others {
        assert_ne!(other, plain, "{name}");
    }
}

/// What another clip shares with a video is the same part.
#[test]
fn clips_share_their_steps() {
    for (family, step) in [("qwen2_vl", 2), ("qwen2_5_vl", 2), ("smolvlm", 1)] {
        let processor = processor(&files(family, &[])).unwrap().unwrap();
        let keys = |frames: &[u64]| -> Vec<_> {
            let prepared = processor.video(&video(60, 40, frames, 2.0)).unwrap();
            prepared.parts.iter().map(Part::key).collect()
        };
        let short = keys(&[0, 1, 2, 3]);
        assert_eq!(short.len(), 4 / step, "{family}");
        assert_eq!(keys(&[0, 1, 2, 3, 4, 5])[..short.len()], short, "{family}: longer");
        assert_eq!(keys(&[2, 3, 4, 5])[..2 / step], short[2 / step..], "{family}: later");
        assert_ne!(keys(&[1, 0])[..1], short[..1], "{family}: turned round");
    }
}

#[test]
fn low_detail_is_fewer_tokens_where_there_is_a_choice() {
    let image = "preprocessor_config.json";
    let large = json!({"shortest_edge": 3136, "longest_edge": 4_000_000});
    let cases: [(&str, &[Change], usize, usize); 5] = [
        ("qwen3_vl", &[(image, "size", large)], 30 * 22, 18 * 13),
        ("pixtral", &[(image, "size", json!({"longest_edge": 1024}))], 120 * 90, 64 * 48),
        ("idefics3", &[], (3 * 3 + 1) * 4, 4),
        ("gemma3", &[], 4, 4),
        ("llava", &[], 9, 9),
    ];
    for (family, changes, high, low) in cases {
        let processor = processor(&files(family, changes)).unwrap().unwrap();
        let picture = picture(960, 720, 0);
        let tokens = |detail| processor.image(&picture, detail).unwrap().tokens();
        assert_eq!([tokens(Detail::Auto), tokens(Detail::High), tokens(Detail::Low)], [high, high, low], "{family}");
    }
}

#[test]
fn what_a_model_cannot_see_is_refused() {
    let processor = |family: &str| processor(&files(family, &[])).unwrap().unwrap();
    let error = processor("qwen2_vl").image(&picture(1, 201, 0), Detail::Auto).unwrap_err();
    assert!(error.message.contains("1×201 pixels: the longer side may be at most 200 times"), "{error}");
    assert!(processor("qwen2_vl").image(&picture(1, 200, 0), Detail::Auto).is_ok());
    for family in ["gemma3", "llava", "idefics3", "pixtral"] {
        let processor = processor(family);
        assert!(!processor.takes_video() && processor.video_placeholder().is_none(), "{family}");
        let error = processor.video(&video(8, 8, &[0, 1], 1.0)).unwrap_err();
        assert!(error.message.contains("videos; send single frames as images"), "{family}: {error}");
    }
    let qwen = processor("qwen2_vl");
    assert!(qwen.takes_video() && qwen.video_placeholder().is_some());
    let mut video = video(8, 8, &[0, 1], 1.0);
    video.frames[1].picture = picture(8, 9, 0);
    assert!(qwen.video(&video).unwrap_err().message.contains("of one size"));
    video.frames.clear();
    assert!(qwen.video(&video).is_err());
}

/// However odd the shape, time and memory stay within what a picture of the usual shape takes.
#[test]
fn strips_are_seen() {
    for family in [
        "gemma3",
        "llava",
        "llava, more than is there",
        "llava with siglip",
        "idefics3",
        "smolvlm",
        "pixtral",
        "mistral3",
    ] {
        let processor = processor(&files(family, &[])).unwrap().unwrap();
        for (width, height) in [(1, 1), (1, 1_200_000), (1_200_000, 1)] {
            let prepared = processor
                .image(&Picture::from_rgb(width, height, vec![200; (width * height * 3) as usize]), Detail::Auto)
                .unwrap();
            let input = prepared.parts[0].input();
            assert_eq!(input.patches.len(), input.num_patches() * input.patch_len, "{family}: {width}×{height}");
            assert!(input.num_patches() > 0, "{family}: {width}×{height}");
        }
    }
}

#[test]
fn what_users_write_is_never_taken_for_media() {
    let reference = reference();
    let typed = [
        ("qwen2_vl", "what is <|image_pad|>, or <|video_pad|>?"),
        ("qwen3_vl", "<|vision_start|><|video_pad|><|vision_end|><|image_pad|>"),
        ("gemma3", "<start_of_image><image_soft_token>\u{FDD0}<image_soft_token>\u{FDD0}\u{FDD1}"),
        ("llava", "an <image> and <<image>>"),
        ("smolvlm", "<video> <image>"),
    ];
    for (family, typed) in typed {
        let specials = &reference[family]["tokens"];
        let processor = processor_of(&reference[family]);
        let prepared = [processor.image(&picture(50, 37, 0), Detail::Auto).unwrap()];
        let place = processor.image_placeholder();
        let guarded = processor.guard(typed);
        assert_eq!(Processor::unguard(&guarded), typed, "{family}");

        // The user's text before and behind an image: the image is found, and the user's text isn't special.
        let (tokens, spans) = tokenize(&processor, specials, &format!("{guarded}{place}{guarded}"), &prepared).unwrap();
        let (alone, there) = tokenize(&processor, specials, &place, &prepared).unwrap();
        let text = &tokens[..spans[0].span.start - there[0].span.start];
        assert_eq!(tokens, [text, &alone, text].concat(), "{family}");
        assert_eq!(spans.len(), there.len(), "{family}");
        let ids: Vec<u32> = [&prepared[0].pad, &place].iter().map(|text| encode(specials, text)[0]).collect();
        let written: usize = typed.matches("<image").count() + typed.matches("<start_of_image").count();
        assert!(written > 0 || typed.contains("_pad"), "{family}");
        assert!(!text.contains(&ids[0]), "{family}: {text:?}");

        // Without the mark it is an error, not another image.
        let error = tokenize(&processor, specials, &format!("{typed}{place}"), &prepared).unwrap_err();
        assert!(error.contains("the chat template wrote"), "{family}: {error}");
    }
    let processor = processor_of(&reference["llava"]);
    assert!(matches!(processor.guard("no < image > here"), std::borrow::Cow::Borrowed(_)), "nothing to do");
}

#[test]
fn prompts_that_do_not_fit_are_refused() {
    let reference = reference();
    let qwen = processor_of(&reference["qwen2_vl"]);
    let specials = &reference["qwen2_vl"]["tokens"];
    let image = qwen.image(&picture(50, 37, 0), Detail::Auto).unwrap();
    let clip = qwen.video(&video(50, 37, &[0], 1.0)).unwrap();
    let [image_place, video_place] = ["<|image_pad|>", "<|video_pad|>"];
    let cases: [(&str, String, &[&Prepared], &str); 4] = [
        ("left out", "hello".into(), &[&image], "wrote <|image_pad|> 0 times, for 1 images"),
        ("twice", image_place.repeat(2), &[&image], "wrote <|image_pad|> 2 times, for 1 images"),
        ("without an image", image_place.into(), &[], "wrote <|image_pad|> 1 times, for 0 images"),
        ("of another kind", image_place.into(), &[&clip], "wrote <|image_pad|> 1 times, for 0 images"),
    ];
    for (name, text, media, wanted) in cases {
        let media: Vec<Prepared> = media.iter().map(|&medium| medium.clone()).collect();
        let error = tokenize(&qwen, specials, &text, &media).unwrap_err();
        assert!(error.contains(wanted), "{name}: {error}");
    }
    // Order is the template's, by kind.
    let both = [image.clone(), clip];
    let (_, spans) = tokenize(&qwen, specials, &format!("{video_place} {image_place}"), &both).unwrap();
    assert_eq!(spans.iter().map(|placed| placed.media).collect::<Vec<_>>(), [1, 0]);

    // A tokenizer that makes pads of something else, makes several tokens of one, or fails.
    let pad = encode(specials, image_place)[0];
    let media = [image];
    let with = |encode: &dyn Fn(&str) -> Result<Vec<u32>, String>| {
        qwen.tokenize(image_place, &media, encode).unwrap_err().to_string()
    };
    let prompt = |text: &str| text.len() > image_place.len();
    let more = |text: &str| Ok([encode(specials, text), vec![pad; usize::from(prompt(text))]].concat());
    assert!(with(&more).contains("something else in it reads as <|image_pad|>"));
    let fewer = |text: &str| Ok(encode(specials, text).into_iter().skip(usize::from(prompt(text))).collect());
    assert!(with(&fewer).contains("something else in it reads as <|image_pad|>"));
    let bytes = |text: &str| Ok(text.bytes().map(u32::from).collect());
    assert_eq!(with(&bytes), "the tokenizer makes 13 tokens of <|image_pad|>, wanted one");
    assert_eq!(with(&|_| Err("no".to_owned())), "no");
}

#[test]
fn the_files_say_how_videos_are_sampled() {
    let cases = [
        ("qwen2_5_vl", None, 2, Spread::Starts),
        ("qwen3_vl", None, 1, Spread::Ends),
        ("smolvlm", Some(1.0), 1, Spread::Ends),
    ];
    for (family, fps, multiple_of, spread) in cases {
        let sampling = processor(&files(family, &[])).unwrap().unwrap().sampling();
        assert_eq!((sampling.fps, sampling.multiple_of, sampling.spread), (fps, multiple_of, spread), "{family}");
    }
}
