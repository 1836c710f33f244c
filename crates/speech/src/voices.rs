//! Voices: whose style a model speaks in. A voice is a table of styles, one row for each length of utterance; voices may be mixed.

mod file;
mod name;

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

pub use self::name::{Gender, openai_voice};
use crate::phonemes::Language;

/// Why a voice cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum VoiceError {
    /// The folder cannot be read.
    #[error("cannot read the voices in {folder}: {source}")]
    Folder {
        /// Where.
        folder: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The folder has no voice.
    #[error("no voice in {folder}: *.safetensors, *.bin and *.npy are read{hint}")]
    None {
        /// Where.
        folder: PathBuf,
        /// What to do about it.
        hint: &'static str,
    },
    /// Nobody of that name.
    #[error("no voice {name:?}{}", hint(.close))]
    Unknown {
        /// The name wanted.
        name: String,
        /// Names like it; if none is, all of them.
        close: Vec<String>,
    },
    /// What was asked for is no name, and no mixture of names.
    #[error("{given:?} is no voice: a name, or names with weights like af_heart(2)+am_adam(1): {why}")]
    Malformed {
        /// What was asked for.
        given: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A voice's file is not one.
    #[error("voice file {path}: {why}")]
    File {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
}

fn hint(close: &[String]) -> String {
    if close.is_empty() { String::new() } else { format!("; there is {}", close.join(", ")) }
}

/// A table of styles.
#[derive(Debug, Clone, PartialEq)]
pub struct Voice {
    name: String,
    /// [rows, style]
    styles: Arc<[f32]>,
    style_len: usize,
}

impl Voice {
    /// Its name, as it was asked for.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The language that it was recorded in; of a mixture, the first one's. `None` if the name doesn't say.
    #[must_use]
    pub fn language(&self) -> Option<Language> {
        Language::of_voice(&self.name)
    }

    /// How it says an utterance of so many symbols: row `symbols` − 1, as Kokoro's own pipeline takes it; the last for longer ones.
    #[must_use]
    pub fn style(&self, symbols: usize) -> &[f32] {
        let rows = self.styles.len() / self.style_len;
        let row = symbols.saturating_sub(1).min(rows - 1);
        &self.styles[row * self.style_len..(row + 1) * self.style_len]
    }
}

/// A voice of a folder, for lists.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VoiceInfo {
    /// Its name.
    pub name: String,
    /// By its name's first letter.
    pub language: Option<Language>,
    /// By its name's second letter.
    pub gender: Option<Gender>,
}

/// The voices of a model: a folder with a file for each, read when first wanted.
#[derive(Debug)]
pub struct Voices {
    files: BTreeMap<String, PathBuf>,
    style_len: usize,
    /// Those that were wanted already, mixtures too.
    read: Mutex<HashMap<String, Arc<Voice>>>,
}

/// Mixtures kept: whoever asks for ever new ones doesn't fill the memory.
const KEPT: usize = 256;

impl Voices {
    /// Looks what is in a folder. `style_len` is the model's: [`vllm_platform::SynthesizerInfo::style_len`].
    ///
    /// # Errors
    /// [`VoiceError::Folder`], or [`VoiceError::None`].
    pub fn open(folder: &Path, style_len: usize) -> Result<Self, VoiceError> {
        let failed = |source| VoiceError::Folder { folder: folder.to_path_buf(), source };
        let (mut files, mut pickled) = (BTreeMap::new(), false);
        for entry in fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let Some((name, kind)) = path.file_name().and_then(|name| name.to_str()?.rsplit_once('.')) else {
                continue;
            };
            pickled |= kind == "pt";
            // Of two files of one voice, the one that says what it holds: it comes last in the alphabet.
            if file::KINDS.contains(&kind) && name::is_plain(name) {
                let kept = files.entry(name.to_owned()).or_insert_with(|| path.clone());
                if path > *kept {
                    *kept = path;
                }
            }
        }
        if files.is_empty() {
            let hint = if pickled {
                ". Those that end in .pt are Python's pickles, which can run code: take a repository with safetensors, like \
                 mlx-community's"
            } else {
                ""
            };
            return Err(VoiceError::None { folder: folder.to_path_buf(), hint });
        }
        Ok(Self { files, style_len, read: Mutex::default() })
    }

    /// All names, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.files.keys().map(String::as_str)
    }

    /// All voices, in the order of their names.
    pub fn list(&self) -> impl Iterator<Item = VoiceInfo> {
        self.names().map(|name| VoiceInfo {
            name: name.to_owned(),
            language: Language::of_voice(name),
            gender: Gender::of_voice(name),
        })
    }

    /// A voice by its name, by a name of OpenAI's voices (see [`openai_voice`]), or a mixture: `af_heart+am_adam`, half of each;
    /// `af_heart(2)+am_adam(1)`, two parts and one. A comma is a plus.
    ///
    /// # Errors
    /// [`VoiceError::Unknown`], [`VoiceError::Malformed`] or [`VoiceError::File`].
    pub fn get(&self, wanted: &str) -> Result<Arc<Voice>, VoiceError> {
        let known = self.read.lock().unwrap_or_else(PoisonError::into_inner).get(wanted).cloned();
        if let Some(voice) = known {
            return Ok(voice);
        }
        let parts = name::parse(wanted)?;
        let total: f32 = parts.iter().map(|part| part.weight).sum();
        let mut mixed: Vec<f32> = Vec::new();
        let mut names = Vec::new();
        for part in &parts {
            let (name, path) = self.file(&part.name)?;
            let styles = file::read(path, self.style_len)?;
            let share = part.weight / total;
            if mixed.is_empty() {
                mixed = styles.iter().map(|number| number * share).collect();
            } else if mixed.len() == styles.len() {
                mixed.iter_mut().zip(&styles).for_each(|(sum, number)| *sum += number * share);
            } else {
                let why = format!("it has {} numbers, the voices before it have {}", styles.len(), mixed.len());
                return Err(VoiceError::File { path: path.to_path_buf(), why });
            }
            names.push(name);
        }
        let name = if let [name] = names[..] { name.to_owned() } else { wanted.trim().to_owned() };
        // A mixture may begin with a name of OpenAI's, which says nothing of a language.
        let name = if Language::of_voice(&name).is_none() && names.len() > 1 { names.join("+") } else { name };
        let voice = Arc::new(Voice { name, styles: mixed.into(), style_len: self.style_len });
        let mut read = self.read.lock().unwrap_or_else(PoisonError::into_inner);
        if read.len() >= KEPT {
            read.clear();
        }
        read.insert(wanted.to_owned(), Arc::clone(&voice));
        Ok(voice)
    }

    fn file(&self, name: &str) -> Result<(&str, &Path), VoiceError> {
        let found = self.files.get_key_value(name).or_else(|| self.files.get_key_value(openai_voice(name)?));
        let (name, path) = found
            .ok_or_else(|| VoiceError::Unknown { name: name.to_owned(), close: name::close(name, self.names()) })?;
        Ok((name, path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three rows of two numbers.
    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        let bytes = |numbers: [f32; 6]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>();
        fs::write(folder.path().join("af_heart.bin"), bytes([1., 2., 3., 4., 5., 6.])).unwrap();
        fs::write(folder.path().join("am_adam.bin"), bytes([10., 20., 30., 40., 50., 60.])).unwrap();
        fs::write(folder.path().join("am_onyx.bin"), bytes([0.; 6])).unwrap();
        fs::write(folder.path().join("README.md"), "").unwrap();
        folder
    }

    #[test]
    fn rows_go_by_the_number_of_symbols() {
        let folder = folder();
        let voice = Voices::open(folder.path(), 2).unwrap().get("af_heart").unwrap();
        let cases = [
            ("none", 0, [1., 2.]),
            ("one", 1, [1., 2.]),
            ("two", 2, [3., 4.]),
            ("three", 3, [5., 6.]),
            ("more", 9, [5., 6.]),
        ];
        for (case, symbols, style) in cases {
            assert_eq!(voice.style(symbols), style, "{case}");
        }
    }

    #[test]
    fn voices_are_mixed_by_weight() {
        let folder = folder();
        let voices = Voices::open(folder.path(), 2).unwrap();
        let cases = [
            ("one", "af_heart", [1., 2.]),
            ("half of each", "af_heart+am_adam", [5.5, 11.]),
            ("comma", "af_heart, am_adam", [5.5, 11.]),
            ("weights", "af_heart(2)+am_adam(1)", [4., 8.]),
            ("parts of one", "af_heart(0.25) + am_adam(0.75)", [7.75, 15.5]),
            ("OpenAI's name", "onyx", [0., 0.]),
        ];
        for (case, wanted, style) in cases {
            assert_eq!(voices.get(wanted).unwrap().style(1), style, "{case}");
        }
        assert_eq!(voices.get("onyx").unwrap().name(), "am_onyx");
        assert_eq!(voices.get("onyx+af_heart").unwrap().language(), Some(Language::AmericanEnglish));
    }

    #[test]
    fn what_is_no_voice_is_refused() {
        let folder = folder();
        fs::write(folder.path().join("zf_short.bin"), [0; 12]).unwrap();
        let voices = Voices::open(folder.path(), 2).unwrap();
        let cases = [
            ("unknown", "af_hearth", "there is af_heart"),
            ("nothing like it", "xyz", "af_heart, am_adam, am_onyx"),
            ("empty", "", "a name is missing"),
            ("no name", "af_heart+", "a name is missing"),
            ("path", "../af_heart", "letters, digits"),
            ("weight of nothing", "af_heart(0)", "greater than 0"),
            ("weight of infinity", "af_heart(inf)", "greater than 0"),
            ("open bracket", "af_heart(1", "bracket"),
            ("file of another size", "zf_short", "multiple"),
        ];
        for (case, wanted, said) in cases {
            let error = voices.get(wanted).unwrap_err().to_string();
            assert!(error.contains(said), "{case}: {error}");
        }
    }

    #[test]
    fn a_folder_without_voices_says_what_is_read() {
        let folder = tempfile::tempdir().unwrap();
        let error = Voices::open(folder.path(), 2).unwrap_err().to_string();
        assert!(error.contains("*.safetensors") && !error.contains("pickle"), "{error}");
        fs::write(folder.path().join("af_heart.pt"), "").unwrap();
        assert!(Voices::open(folder.path(), 2).unwrap_err().to_string().contains("pickle"));
        assert!(Voices::open(&folder.path().join("nowhere"), 2).is_err());
    }
}
