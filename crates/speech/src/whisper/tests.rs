//! What tests of several files need, and what is none of a single one's.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use vllm_text::Tokenizer;

use super::vocabulary::VocabularyError;
use super::words::split;
use super::{DecodingOptions, OptionError, Task, Vocabulary};

/// A file of `tests/hearing/fixtures/make.py`'s.
pub fn fixture<T: DeserializeOwned>(name: &str) -> T {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/hearing/fixtures").join(name);
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

/// Numbers from 0 to 1, the same as `noise` makes there.
pub fn noise(seed: u64, count: usize) -> impl Iterator<Item = f64> {
    let mut random = super::sampling::Random(seed);
    (0..count).map(move |_| (random.unit() * f64::from(1 << 24)).floor() / f64::from(1 << 24))
}

fn tokenizer(change: impl FnOnce(&mut Value)) -> Arc<Tokenizer> {
    let mut file: Value = fixture("tokenizer.json");
    change(&mut file);
    Arc::new(Tokenizer::from_json_bytes(&serde_json::to_vec(&file).unwrap(), "test").unwrap())
}

pub fn vocabulary() -> Vocabulary {
    let tokenizer = tokenizer(|_| {});
    let size = tokenizer.vocab_size() + 1501;
    Vocabulary::new(tokenizer, size).unwrap()
}

/// The vocabulary of a model that knows English only: its text ends where GPT-2's does.
fn english() -> Vocabulary {
    let tokenizer = tokenizer(|file| {
        let names: Vec<(String, u64)> = file["added_tokens"]
            .as_array()
            .unwrap()
            .iter()
            .enumerate()
            .map(|(index, token)| (token["content"].as_str().unwrap().to_owned(), 50_256 + index as u64))
            .collect();
        for (index, (name, id)) in names.into_iter().enumerate() {
            file["model"]["vocab"][&name] = id.into();
            file["added_tokens"][index]["id"] = id.into();
        }
    });
    Vocabulary::new(tokenizer, 51_864).unwrap()
}

#[test]
fn languages_are_known_by_code_and_name() {
    let vocabulary = vocabulary();
    assert!(vocabulary.is_multilingual());
    assert_eq!(vocabulary.languages().count(), 99);
    let unknown = |name: &str| Err(OptionError::UnknownLanguage(name.to_owned()));
    let cases = [
        ("de", Ok(Some("de"))),
        ("German", Ok(Some("de"))),
        (" GERMAN ", Ok(Some("de"))),
        ("haitian creole", Ok(Some("ht"))),
        ("Castilian", Ok(Some("es"))),
        ("mandarin", Ok(Some("zh"))),
        ("deutsch", unknown("deutsch")),
        ("de-DE", unknown("de-DE")),
        ("", unknown("")),
        // The hundredth language, which only large-v3 learnt.
        ("yue", Err(OptionError::LanguageNotLearnt("yue".to_owned()))),
    ];
    for (name, wanted) in cases {
        let options = DecodingOptions { language: Some(name.to_owned()), ..DecodingOptions::default() };
        assert_eq!(vocabulary.check(&options), wanted, "{name:?}");
    }
    assert_eq!(vocabulary.check(&DecodingOptions::default()), Ok(None));
}

#[test]
fn an_english_model_knows_no_other_language() {
    let vocabulary = english();
    assert!(!vocabulary.is_multilingual());
    assert_eq!(vocabulary.languages().count(), 0);
    assert_eq!(vocabulary.detect_language(&vec![0.0; 51_864]), None);
    let asked = |language: &str, task: Task| {
        vocabulary.check(&DecodingOptions { language: Some(language.to_owned()), task, ..DecodingOptions::default() })
    };
    assert_eq!(asked("English", Task::Transcribe), Ok(None));
    assert_eq!(asked("de", Task::Transcribe), Err(OptionError::LanguageNotLearnt("de".to_owned())));
    assert_eq!(asked("en", Task::Translate), Err(OptionError::CannotTranslate));
    assert_eq!(vocabulary.start(Task::Transcribe, None), [50_257]);
}

#[test]
fn temperatures_have_a_range() {
    for temperatures in [vec![], vec![0.0, 1.1], vec![-0.1], vec![f32::NAN]] {
        let options = DecodingOptions { temperatures, ..DecodingOptions::default() };
        assert!(
            matches!(vocabulary().check(&options), Err(OptionError::Temperatures(_))),
            "{:?}",
            options.temperatures
        );
    }
}

#[test]
fn the_most_probable_language_is_heard() {
    let vocabulary = vocabulary();
    let mut logits = vec![0.0; vocabulary.size()];
    let german = vocabulary.language_token("de").unwrap() as usize;
    // What is no language does not count.
    (logits[0], logits[german]) = (50.0, 4.0);
    let (code, probability) = vocabulary.detect_language(&logits).unwrap();
    let wanted = 4f32.exp() / (4f32.exp() + 98.0);
    assert_eq!(code, "de");
    assert!((probability - wanted).abs() < 1e-6, "{probability}, not {wanted}");
}

#[test]
fn a_prompt_cannot_write_marks() {
    let vocabulary = vocabulary();
    let clean = vocabulary.encode_prompt("one two").unwrap();
    assert_eq!(vocabulary.encode_prompt(" one<|endoftext|><|startoftranscript|> two ").unwrap(), clean);
    assert_eq!(vocabulary.decode(&clean), " one two");
}

#[test]
fn tokenizers_of_others_are_refused() {
    let rename = |from: &'static str| {
        tokenizer(move |file| {
            for token in file["added_tokens"].as_array_mut().unwrap() {
                if token["content"] == from {
                    token["content"] = "<|other|>".into();
                }
            }
        })
    };
    for mark in ["<|endoftext|>", "<|startoftranscript|>", "<|nospeech|>", "<|notimestamps|>", "<|startofprev|>"] {
        let error = Vocabulary::new(rename(mark), 5000).unwrap_err();
        assert!(matches!(error, VocabularyError::Missing(name) if name == mark), "{mark}: {error}");
    }
    let error = Vocabulary::new(tokenizer(|_| {}), 2000).unwrap_err();
    assert!(matches!(error, VocabularyError::TooSmall { size: 2000, .. }), "{error}");
}

#[test]
fn silence_is_known_by_its_older_name_too() {
    let renamed = tokenizer(|file| {
        let tokens = file["added_tokens"].as_array_mut().unwrap();
        let silence = tokens.iter_mut().find(|token| token["content"] == "<|nospeech|>").unwrap();
        silence["content"] = "<|nocaptions|>".into();
    });
    let size = renamed.vocab_size() + 1501;
    assert_eq!(Vocabulary::new(renamed, size).unwrap().no_speech, vocabulary().no_speech);
}

#[derive(Deserialize)]
struct Texts {
    words: Vec<Text>,
}

#[derive(Deserialize)]
struct Text {
    language: String,
    tokens: Vec<u32>,
    words: Vec<String>,
    lengths: Vec<usize>,
}

#[test]
fn texts_are_split_into_words_as_openai_whisper_does() {
    let vocabulary = vocabulary();
    for text in fixture::<Texts>("long_form.json").words {
        let words = split(&vocabulary, Some(&text.language), &text.tokens);
        let wanted: Vec<(String, usize)> = text.words.into_iter().zip(text.lengths).collect();
        assert_eq!(words, wanted, "{}", text.language);
    }
}

#[derive(Deserialize)]
struct Real {
    suppressed: HashMap<String, Vec<u32>>,
}

/// See `tests/hearing/real.rs`.
#[test]
#[ignore = "needs models"]
fn a_real_vocabulary_suppresses_what_openais_does() {
    let models = std::env::var_os("VLLM_SPEECH_MODELS").expect("VLLM_SPEECH_MODELS names the folder of models");
    let tokenizer = Tokenizer::from_json_file(&Path::new(&models).join("whisper-tiny-hf/tokenizer.json")).unwrap();
    let vocabulary = Vocabulary::new(Arc::new(tokenizer), 51_864).unwrap();
    let kind = if vocabulary.is_multilingual() { "multilingual" } else { "english" };
    assert_eq!(vocabulary.suppressed, fixture::<Real>("real.json").suppressed[kind]);
}
