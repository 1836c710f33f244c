//! English: misaki's dictionaries and rules (the crate `misaki-rs`), and what it has no phonemes for.

use std::sync::{LazyLock, OnceLock};

use misaki_rs::{G2P, MToken};
use regex::Regex;

use super::{Language, letters, spoken};

/// Reads English aloud, in one of its accents.
pub struct Reader {
    misaki: G2P,
    british: bool,
}

impl Reader {
    /// The process's reader of an accent: British, or else American. Made at the first call.
    pub fn of(language: Language) -> &'static Self {
        static AMERICAN: OnceLock<Reader> = OnceLock::new();
        static BRITISH: OnceLock<Reader> = OnceLock::new();
        if language == Language::BritishEnglish {
            BRITISH.get_or_init(|| Self { misaki: G2P::new(misaki_rs::Language::EnglishGB), british: true })
        } else {
            AMERICAN.get_or_init(|| Self { misaki: G2P::new(misaki_rs::Language::EnglishUS), british: false })
        }
    }

    /// The phonemes of a text; empty if nothing in it can be said.
    pub fn read(&self, text: &str) -> String {
        let text = spoken::written_out(text, self.british);
        let (_, tokens) = self.misaki.g2p(&text).expect("it fails where its fallback does, and it has none");
        let mut phonemes = String::new();
        for token in &tokens {
            match &token.phonemes {
                Some(known) if !known.contains(&self.misaki.unk) => phonemes.push_str(known),
                _ => phonemes.push_str(&self.unknown(token)),
            }
            phonemes.push_str(&token.whitespace);
        }
        phonemes
    }

    /// A word that misaki gives up, or a part of which.
    fn unknown(&self, token: &MToken) -> String {
        let text: String = token.text.chars().map(|c| if matches!(c, '’' | '‘') { '\'' } else { c }).collect();
        let text = spoken::plain_letters(&text);
        if let Some(phonemes) = self.known(&text, &token.tag) {
            return phonemes;
        }
        if let Some(owner) = text.strip_suffix("'s").filter(|owner| !owner.is_empty()) {
            let mut phonemes = self.pieces(owner, &token.tag);
            phonemes.push_str(plural(&phonemes));
            return phonemes;
        }
        self.pieces(&text, &token.tag)
    }

    fn known(&self, word: &str, tag: &str) -> Option<String> {
        let (phonemes, _) = self.misaki.lexicon.get_word(word, tag, None, None)?;
        // What misaki does to all that it gives.
        Some(phonemes.replace('ɾ', "T").replace('ʔ', "t"))
    }

    /// Words and numbers that stand together, each by itself.
    fn pieces(&self, text: &str, tag: &str) -> String {
        static PIECE: LazyLock<Regex> = LazyLock::new(|| {
            Regex::new(r"[A-Z]+[a-z']*|[a-z][a-z']*|[0-9]+(?:\.[0-9]+)?").expect("a regular expression")
        });
        let said = PIECE.find_iter(text).map(|piece| self.piece(piece.as_str().trim_end_matches('\''), tag));
        said.filter(|said| !said.is_empty()).collect::<Vec<_>>().join(" ")
    }

    fn piece(&self, piece: &str, tag: &str) -> String {
        if piece.starts_with(|c: char| c.is_ascii_digit()) {
            return self.misaki.g2p(piece).map(|(phonemes, _)| phonemes.trim().to_owned()).unwrap_or_default();
        }
        let whole = if piece.len() > 1 { self.known(piece, tag) } else { None };
        whole.or_else(|| self.compound(piece)).unwrap_or_else(|| letters::read(&piece.replace('\'', ""), self.british))
    }

    /// Two words of the better dictionary written as one: `snowplough`.
    fn compound(&self, word: &str) -> Option<String> {
        const SHORTEST: usize = 4;
        let word = word.to_ascii_lowercase();
        // The longest first word: `carpet` rather than `car`.
        (SHORTEST..=word.len().saturating_sub(SHORTEST)).rev().find_map(|place| {
            let (first, second) = word.split_at(place);
            let both = self.misaki.lexicon.in_gold(first) && self.misaki.lexicon.in_gold(second);
            both.then(|| Some(self.known(first, "NN")? + &self.known(second, "NN")?.replace('ˈ', "ˌ"))).flatten()
        })
    }
}

/// The sound of an `s` behind phonemes.
fn plural(phonemes: &str) -> &'static str {
    match phonemes.chars().next_back() {
        Some('s' | 'z' | 'ʃ' | 'ʒ' | 'ʧ' | 'ʤ') => "ᵻz",
        Some('p' | 't' | 'k' | 'f' | 'θ') => "s",
        _ => "z",
    }
}

/// A text in stretches: plain ones, and words of which is written how they are spoken: `[word](/phonemes/)`.
pub fn marked(text: &str) -> Vec<(&str, Option<&str>)> {
    static MARKED: LazyLock<Regex> =
        LazyLock::new(|| Regex::new(r"\[([^\]]+)\]\(/([^)]*?)/+\)").expect("a regular expression"));
    let mut stretches = Vec::new();
    let mut end = 0;
    for found in MARKED.captures_iter(text) {
        let (Some(whole), Some(word), Some(phonemes)) = (found.get(0), found.get(1), found.get(2)) else { continue };
        stretches.push((&text[end..whole.start()], None));
        stretches.push((word.as_str(), Some(phonemes.as_str())));
        end = whole.end();
    }
    stretches.push((&text[end..], None));
    stretches
}
