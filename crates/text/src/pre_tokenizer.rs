//! How text is cut into words before byte-level BPE merges run, by the name a GGUF file gives it (`tokenizer.ggml.pre`).
//!
//! Source: the `pre_tokenizer` sections of the models' own `tokenizer.json` files (for families that never had one, the
//! rules of llama.cpp's `llm_tokenizer_bpe`), which is what the names stand for.

use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{PreTokenizerWrapper, SplitDelimiterBehavior};

use crate::error::{Result, TextError};

/// Words, numbers and punctuation with the space before them (GPT-2).
const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
/// Digits in groups of up to three, line breaks kept with the punctuation before them (Llama 3, cl100k).
const LLAMA3: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// As Llama 3, single digits (Qwen 2).
const QWEN2: &str =
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// As Qwen 2, combining marks belong to the word (Qwen 3.5).
const QWEN35: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// Words end where lower case turns to upper case (GPT-4o, o200k).
const GPT4O: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// As GPT-4o, single digits and no English contractions (Mistral's Tekken).
const TEKKEN: &str = r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// One digit or other numeric character.
const DIGIT: &str = r"\p{N}";
/// A run of Han, kana or Hangul, as DeepSeek's first tokenizers delimit it.
const DEEPSEEK_CJK: &str = r"[\u{800}-\u{9FA5}\u{AC00}-\u{D7FF}]+";
/// Words of the scripts that DeepSeek LLM lists: Latin, Greek, Cyrillic, Armenian, Georgian, Cherokee and a few more.
const DEEPSEEK_WORD: &str = concat!(
    r"\s?[",
    r"A-Za-z\u{B5}\u{C0}-\u{D6}\u{D8}-\u{F6}\u{F8}-\u{1BA}\u{1BC}-\u{1BF}\u{1C4}-\u{293}\u{295}-\u{2AF}",
    r"\u{370}-\u{373}\u{376}\u{377}\u{37B}-\u{37D}\u{37F}\u{386}\u{388}-\u{38A}\u{38C}\u{38E}-\u{3A1}",
    r"\u{3A3}-\u{3F5}\u{3F7}-\u{481}\u{48A}-\u{52F}\u{531}-\u{556}\u{10A0}-\u{10C5}\u{13A0}-\u{13F5}",
    r"\u{13F8}-\u{13FD}\u{1C90}-\u{1CBA}\u{1CBD}-\u{1CBF}\u{1D00}-\u{1D2B}\u{1D6B}-\u{1D77}",
    r"\u{1D79}-\u{1D9A}\u{1E00}-\u{1F15}\u{1F18}-\u{1F1D}\u{1F20}-\u{1F45}\u{1F48}-\u{1F4D}",
    r"\u{1F50}-\u{1F57}\u{1F59}\u{1F5B}\u{1F5D}\u{1F5F}-\u{1F7D}\u{1F80}-\u{1FB4}\u{1FB6}-\u{1FBC}\u{1FBE}",
    r"\u{1FC2}-\u{1FC4}\u{1FC6}-\u{1FCC}\u{1FD0}-\u{1FD3}\u{1FD6}-\u{1FDB}\u{1FE0}-\u{1FEC}",
    r"\u{1FF2}-\u{1FF4}\u{1FF6}-\u{1FFC}\u{2102}\u{2107}\u{210A}-\u{2113}\u{2115}\u{2119}-\u{211D}\u{2124}",
    r"\u{2126}\u{2128}\u{212A}-\u{212D}\u{212F}-\u{2134}\u{2139}\u{213C}-\u{213F}\u{2145}-\u{2149}\u{214E}",
    r"\u{2183}\u{2184}\u{2C00}-\u{2C7B}\u{2C7E}-\u{2CE4}\u{2CEB}-\u{2CEE}\u{2CF2}\u{2CF3}\u{A640}-\u{A66D}",
    r"\u{A680}-\u{A69B}\u{A722}-\u{A76F}\u{A771}-\u{A787}\u{A78B}-\u{A78E}\u{AB70}-\u{ABBF}",
    r"\u{FB00}-\u{FB06}\u{FB13}-\u{FB17}\u{FF21}-\u{FF3A}\u{FF41}-\u{FF5A}\u{10400}-\u{1044F}",
    r"\u{104B0}-\u{104D3}\u{104D8}-\u{104FB}\u{10C80}-\u{10CB2}\u{10CC0}-\u{10CF2}\u{118A0}-\u{118DF}",
    r"\u{1E900}-\u{1E943}",
    r"]+",
);
/// DeepSeek V3's last step: words with combining marks, punctuation directly before a Latin word.
const DEEPSEEK3_WORD: &str = r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##;

/// A family of pre-tokenizers that share their rules.
pub(crate) struct Rules {
    /// The names under which GGUF files know it.
    names: &'static [&'static str],
    /// Each cuts further what the one before left whole; text between matches is a word too.
    patterns: &'static [&'static str],
    /// Text is brought to normalization form C first.
    pub(crate) nfc: bool,
    /// A word that is itself a token is taken whole, without running the merges.
    pub(crate) ignore_merges: bool,
    /// Whether texts begin with the BOS token if the file does not say.
    pub(crate) add_bos: bool,
}

const PLAIN: Rules = Rules { names: &[], patterns: &[], nfc: false, ignore_merges: false, add_bos: false };

const ALL: &[Rules] = &[
    Rules { names: &["default"], patterns: &[r"[\p{P}\$\+<=>\^~\|]+", GPT2, r"\p{N}+", "[0-9][0-9][0-9]"], ..PLAIN },
    Rules {
        names: &[
            "gpt-2",
            "phi-2",
            "mpt",
            "olmo",
            "jais",
            "trillion",
            "exaone4",
            "gigachat",
            "mellum",
            "modern-bert",
            "granite-docling",
            "a.x-4.0",
        ],
        patterns: &[GPT2],
        ..PLAIN
    },
    Rules {
        names: &["smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b", "mellum2"],
        patterns: &[DIGIT, GPT2],
        ..PLAIN
    },
    Rules {
        names: &["llama-bpe", "llama3", "llama-v3", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2"],
        patterns: &[LLAMA3],
        ignore_merges: true,
        add_bos: true,
        ..PLAIN
    },
    Rules { names: &["falcon"], patterns: &[r"[\p{P}\$\+<=>\^~\|`]+", GPT2, "[0-9][0-9][0-9]"], ..PLAIN },
    Rules { names: &["dbrx", "smaug-bpe", "glm4", "chatglm-bpe"], patterns: &[LLAMA3], ..PLAIN },
    Rules { names: &["qwen2"], patterns: &[QWEN2], nfc: true, ..PLAIN },
    Rules {
        names: &["deepseek-r1-qwen", "megrez", "stablelm2", "hunyuan", "solar-open", "grok-2"],
        patterns: &[QWEN2],
        ..PLAIN
    },
    Rules { names: &["qwen35"], patterns: &[QWEN35], nfc: true, ..PLAIN },
    Rules {
        names: &["deepseek-llm"],
        patterns: &[
            r"[\r\n]",
            DEEPSEEK_WORD,
            r"\s?[!-/:-~\u{FF01}-\u{FF0F}\u{FF1A}-\u{FF5E}\u{2018}-\u{201F}\u{3000}-\u{3002}]+",
            r"\s+$",
            DEEPSEEK_CJK,
            r"\p{N}+",
        ],
        ..PLAIN
    },
    Rules {
        names: &["deepseek-coder"],
        patterns: &[r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", DEEPSEEK_CJK, DIGIT],
        ..PLAIN
    },
    Rules {
        names: &["deepseek-v3", "hunyuan-dense", "joyai-llm", "hy_v4"],
        patterns: &[r"\p{N}{1,3}", r"[\u{4E00}-\u{9FA5}\u{3040}-\u{30FF}]+", DEEPSEEK3_WORD],
        ..PLAIN
    },
    Rules { names: &["tekken"], patterns: &[TEKKEN], ignore_merges: true, add_bos: true, ..PLAIN },
    Rules { names: &["gpt-4o", "llama4", "kanana2", "minimax-m2"], patterns: &[GPT4O], ..PLAIN },
];

impl Rules {
    /// The rules that a GGUF file calls `pre`.
    ///
    /// # Errors
    /// [`TextError::UnknownPre`], which lists the known names.
    pub(crate) fn of(pre: &str) -> Result<&'static Self> {
        ALL.iter().find(|rules| rules.names.contains(&pre)).ok_or_else(|| TextError::UnknownPre {
            pre: pre.to_owned(),
            known: ALL.iter().flat_map(|rules| rules.names).copied().collect::<Vec<_>>().join(", "),
        })
    }

    /// As a pre-tokenizer that ends with the byte alphabet.
    pub(crate) fn pre_tokenizer(&self) -> Result<PreTokenizerWrapper> {
        let mut steps: Vec<PreTokenizerWrapper> = Vec::with_capacity(self.patterns.len() + 1);
        for &pattern in self.patterns {
            let split = Split::new(SplitPattern::Regex(pattern.to_owned()), SplitDelimiterBehavior::Isolated, false)
                .map_err(|error| TextError::Gguf(format!("pre-tokenizer pattern {pattern:?}: {error}")))?;
            steps.push(split.into());
        }
        steps.push(ByteLevel::new(false, true, false).into());
        Ok(Sequence::new(steps).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokenizers::{OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer};

    fn words(pre: &str, text: &str) -> Vec<String> {
        let rules = Rules::of(pre).expect(pre);
        let mut pieces = PreTokenizedString::from(text);
        rules.pre_tokenizer().expect(pre).pre_tokenize(&mut pieces).expect(text);
        pieces
            .get_splits(OffsetReferential::Original, OffsetType::Byte)
            .into_iter()
            .map(|(_, (start, end), _)| text[start..end].to_owned())
            .collect()
    }

    #[test]
    fn every_pattern_compiles_and_no_name_stands_twice() {
        let mut names: Vec<&str> = ALL.iter().flat_map(|rules| rules.names).copied().collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]));
        for rules in ALL {
            rules.pre_tokenizer().expect(rules.names[0]);
        }
    }

    #[test]
    fn texts_are_cut_as_the_family_does() {
        let cases: &[(&str, &str, &[&str])] = &[
            ("gpt-2", "I'll pay 1234  now\n\n", &["I", "'ll", " pay", " 1234", " ", " now", "\n\n"]),
            ("gpt-2", "WE'LL", &["WE", "'", "LL"]),
            ("smollm", "a 1234", &["a", " ", "1", "2", "3", "4"]),
            ("llama-bpe", "WE'LL 12345!\n\nx", &["WE", "'LL", " ", "123", "45", "!\n\n", "x"]),
            ("llama-bpe", "a  \n b", &["a", "  \n", " b"]),
            ("qwen2", "x=12", &["x", "=", "1", "2"]),
            ("qwen2", "\tfoo(bar)", &["\tfoo", "(bar", ")"]),
            // U+0301 is a mark: a word character for Qwen 3.5, punctuation for Qwen 2.
            ("qwen2", "e\u{301}a b", &["e", "\u{301}a", " b"]),
            ("qwen35", "e\u{301}a b", &["e\u{301}a", " b"]),
            ("gpt-4o", "camelCase don't 1234", &["camel", "Case", " don't", " ", "123", "4"]),
            ("tekken", "camelCase don't 12", &["camel", "Case", " don", "'t", " ", "1", "2"]),
            ("deepseek-v3", "价格1234元 a.b", &["价格", "123", "4", "元", " a", ".b"]),
            ("deepseek-coder", "x = 12\n", &["x", " = ", "1", "2", "\n"]),
            ("deepseek-llm", "\u{3A9}ψ, 12 中文\n", &["\u{3A9}ψ", ",", " ", "12", " ", "中文", "\n"]),
            ("default", "a, 1234", &["a", ",", " ", "123", "4"]),
        ];
        for (pre, text, expected) in cases {
            assert_eq!(words(pre, text), *expected, "{pre}: {text:?}");
        }
    }

    #[test]
    fn an_unknown_name_lists_the_known_ones() {
        let message = Rules::of("sphinx").err().expect("an error").to_string();
        assert!(
            message.contains("\"sphinx\"") && message.contains("llama-bpe") && message.contains("qwen2"),
            "{message}"
        );
    }
}
