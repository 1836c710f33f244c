//! Text of about so many tokens, whatever the tokenizer.

use std::sync::LazyLock;

use super::rng::Rng;

/// Short, frequent English words: each is one token, with the space before it, of nearly every vocabulary in use.
static WORDS: LazyLock<Vec<&str>> = LazyLock::new(|| {
    "time year people way day man thing woman life child world school state family student group country problem \
     hand part place case week company system program question work government number night point home water room \
     mother area money story fact month lot right study book eye job word business issue side kind head house \
     service friend father power hour game line end member law car city community name president team minute idea \
     kid body information back parent face others level office door health person art war history party result \
     change morning reason research girl guy moment air teacher force education foot boy age policy music market \
     sense nation plan college interest death experience effect use class control field development role effort \
     rate heart drug show leader light voice wife police mind price report decision son view relationship town road \
     arm difference value building action model season society tax director position player record paper space \
     ground form event official matter center"
        .split(' ')
        .collect()
});

const CONSONANTS: &[u8; 16] = b"bdfghjklmnprstvz";
const VOWELS: &[u8; 4] = b"aeio";

/// Tokens that an [`opening`] takes, about.
const OPENING_TOKENS: usize = 4;

/// A made-up word that no other number (below 2²⁴) has: four syllables.
///
/// Neighbouring numbers differ in the first syllable already, so that not even a first token is shared for long.
pub fn opening(number: u64) -> String {
    // Multiplying by an odd number permutes the numbers below a power of two.
    let mixed = number.wrapping_mul(0x9E_3779) & 0xFF_FFFF;
    let syllables = (0..4).rev().map(|place| (mixed >> (6 * place)) as usize & 63);
    let letters = syllables.flat_map(|syllable| [CONSONANTS[syllable / 4], VOWELS[syllable % 4]]);
    letters.map(char::from).collect()
}

/// Words that make about `tokens` tokens, the first of them the [`opening`] of `number`; never fewer than that one.
pub fn text(number: u64, rng: &mut Rng, tokens: usize) -> String {
    let mut text = opening(number);
    for _ in OPENING_TOKENS..tokens {
        text.push(' ');
        text.push_str(rng.choose(&WORDS));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn openings_are_all_different() {
        let openings: HashSet<String> = (0..100_000).map(opening).collect();
        assert_eq!(openings.len(), 100_000);
        assert_ne!(opening(5)[..2], opening(6)[..2]);
    }

    #[test]
    fn lengths_are_as_asked() {
        for (tokens, words) in [(0, 1), (1, 1), (4, 1), (5, 2), (512, 509)] {
            assert_eq!(text(0, &mut Rng::new(0, 0), tokens).split(' ').count(), words, "{tokens}");
        }
    }

    #[test]
    fn words_are_listed_once() {
        assert_eq!(WORDS.iter().collect::<HashSet<_>>().len(), WORDS.len());
    }
}
