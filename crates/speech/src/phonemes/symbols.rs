//! Phonemes as a model's numbers.

use std::collections::BTreeMap;

use vllm_platform::TokenId;

use super::PhonemeError;

/// Letters of the phonetic alphabet that Kokoro hasn't learnt, and what comes nearest.
const NEAREST: [(char, &str); 26] = [
    ('g', "ɡ"),
    ('ɭ', "l"),
    ('ɫ', "l"),
    ('ɬ', "l"),
    ('ʟ', "l"),
    ('ɱ', "m"),
    ('ʐ', "ʒ"),
    ('ʑ', "ʒ"),
    ('ħ', "h"),
    ('ɦ', "h"),
    ('ɧ', "ʃ"),
    ('ɵ', "ə"),
    ('ɘ', "ə"),
    ('ɞ', "ɜ"),
    ('ɶ', "œ"),
    ('ʏ', "y"),
    ('ʉ', "u"),
    ('ʀ', "ʁ"),
    ('ɺ', "ɾ"),
    ('ɓ', "b"),
    ('ɗ', "d"),
    ('ɠ', "ɡ"),
    ('ʕ', "ʔ"),
    ('ʍ', "w"),
    ('ɝ', "ɜɹ"),
    ('ä', "a"),
];

/// The symbols of phonemes. A letter of the phonetic alphabet that the model hasn't learnt becomes the nearest that it has; marks that
/// change a letter, punctuation and digits that it hasn't learnt are left out, as in Kokoro's own pipeline.
///
/// # Errors
/// [`PhonemeError::Unknown`] for any other letter: leaving it out would leave out something said. [`PhonemeError::Nothing`] if nothing is
/// left.
pub fn symbols(phonemes: &str, known: &BTreeMap<String, TokenId>) -> Result<Vec<TokenId>, PhonemeError> {
    let mut buffer = [0; 4];
    let mut symbols = Vec::with_capacity(phonemes.len());
    let mut spoken = false;
    for phoneme in phonemes.chars() {
        if let Some(symbol) = known.get(&*phoneme.encode_utf8(&mut buffer)) {
            symbols.push(*symbol);
            spoken |= phoneme.is_alphabetic();
            continue;
        }
        let nearest = NEAREST.iter().find(|(unknown, _)| *unknown == phoneme).map_or("", |(_, nearest)| nearest);
        let before = symbols.len();
        symbols.extend(nearest.chars().filter_map(|near| known.get(&*near.encode_utf8(&mut buffer))));
        spoken |= symbols.len() > before;
        // U+02B0 to U+02FF are letters that only change others.
        if symbols.len() == before && phoneme.is_alphabetic() && !matches!(phoneme, '\u{2b0}'..='\u{2ff}') {
            return Err(PhonemeError::Unknown { phoneme, phonemes: phonemes.chars().take(100).collect() });
        }
    }
    if spoken { Ok(symbols) } else { Err(PhonemeError::Nothing) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phonemes_become_symbols() {
        let known: BTreeMap<String, TokenId> =
            ["a", "b", "ɡ", "ˈ", " ", "."].into_iter().zip(1..).map(|(name, id)| (name.to_owned(), id)).collect();
        let cases = [
            ("known", "ˈab .", Some(vec![4, 1, 2, 5, 6])),
            ("nearest", "ga", Some(vec![3, 1])),
            ("marks are left out", "a\u{303}bʱ!", Some(vec![1, 2])),
            ("a phoneme is not", "aω", None),
            ("nor nothing", "", None),
            ("nor punctuation alone", ". ", None),
        ];
        for (case, phonemes, wanted) in cases {
            assert_eq!(symbols(phonemes, &known).ok(), wanted, "{case}");
        }
    }
}
