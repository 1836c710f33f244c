//! How a word is said that no dictionary has: English spelling, read by rules.
//!
//! In the manner of the rules of the United States Naval Research Laboratory (Elovitz, Johnson, McHugh and Shore, 1976): each rule says
//! what some letters stand for between what stands before and behind. The rules are our own, fewer, and tried with names. What they give
//! is understood rather than right.

mod rules;

use rules::RULES;

/// The names of the letters, as misaki writes them.
const NAMES: [&str; 26] = [
    "ˈA",
    "bˈi",
    "sˈi",
    "dˈi",
    "ˈi",
    "ˈɛf",
    "ʤˈi",
    "ˈAʧ",
    "ˈI",
    "ʤˈA",
    "kˈA",
    "ˈɛl",
    "ˈɛm",
    "ˈɛn",
    "ˈO",
    "pˈi",
    "kjˈu",
    "ˈɑɹ",
    "ˈɛs",
    "tˈi",
    "jˈu",
    "vˈi",
    "dˈʌbᵊlju",
    "ˈɛks",
    "wˈI",
    "zˈi",
];

const VOWELS: &str = "AIOQWYaiuæɑɐɒɔəɛɜɪʊʌᵊ";

/// The phonemes of a word of ASCII letters: by rules, or letter by letter if it can't be a word or is an abbreviation.
pub fn read(word: &str, british: bool) -> String {
    let lower = word.to_ascii_lowercase();
    let capitals = word.len() > 1 && word.len() <= 4 && word.bytes().all(|byte| byte.is_ascii_uppercase());
    let american = if capitals || !lower.contains(['a', 'e', 'i', 'o', 'u', 'y']) {
        spelled(&lower)
    } else {
        stressed(&by_rules(&lower), &lower)
    };
    if british { to_british(&american) } else { american }
}

/// The letters' names; the last bears the stress.
fn spelled(word: &str) -> String {
    let names: Vec<&str> =
        word.bytes().filter(u8::is_ascii_lowercase).map(|byte| NAMES[usize::from(byte - b'a')]).collect();
    let last = names.len().saturating_sub(1);
    names
        .iter()
        .enumerate()
        .map(|(i, name)| if i == last { (*name).to_owned() } else { name.replace('ˈ', "ˌ") })
        .collect()
}

/// The sounds of a word, without stress.
fn by_rules(word: &str) -> Vec<&'static str> {
    let mut sounds = Vec::new();
    let mut place = 0;
    while place < word.len() {
        let (left, right) = word.split_at(place);
        let fits = |rule: &&(&str, &str, &str, &str)| {
            let (before, letters, behind, _) = **rule;
            right.strip_prefix(letters).is_some_and(|rest| ends(left, before) && begins(rest, behind))
        };
        match RULES.iter().find(fits) {
            Some((_, letters, _, said)) => {
                sounds.push(*said);
                place += letters.len();
            }
            // An apostrophe or the like.
            None => place += 1,
        }
    }
    sounds
}

fn is_vowel(byte: u8) -> bool {
    matches!(byte, b'a' | b'e' | b'i' | b'o' | b'u' | b'y')
}

/// Whether letters are as a pattern wants: a letter for itself; `_` the word's edge; `V` a vowel, `C` a consonant, `F` one of e, i, y;
/// `M` nothing but consonants to the edge, with no vowel among them; `W` at least one vowel somewhere.
fn ends(left: &str, pattern: &str) -> bool {
    fits(&mut left.bytes().rev(), &mut pattern.bytes().rev())
}

fn begins(right: &str, pattern: &str) -> bool {
    fits(&mut right.bytes(), &mut pattern.bytes())
}

fn fits(letters: &mut impl Iterator<Item = u8>, pattern: &mut impl Iterator<Item = u8>) -> bool {
    pattern.all(|wanted| match wanted {
        b'_' => letters.next().is_none(),
        b'V' => letters.next().is_some_and(is_vowel),
        b'C' => letters.next().is_some_and(|letter| !is_vowel(letter)),
        b'F' => letters.next().is_some_and(|letter| matches!(letter, b'e' | b'i' | b'y')),
        b'M' => letters.all(|letter| !is_vowel(letter)),
        b'W' => letters.any(is_vowel),
        letter => letters.next() == Some(letter),
    })
}

/// Endings before which the stress falls.
const STRESSED_BEFORE: [&str; 14] =
    ["tion", "sion", "cian", "ic", "ics", "ical", "ity", "ian", "ial", "ious", "ium", "eous", "ological", "ology"];

/// Puts the stress before a vowel.
fn stressed(sounds: &[&str], word: &str) -> String {
    let phonemes: Vec<char> = sounds.iter().flat_map(|said| said.chars()).collect();
    let vowels: Vec<usize> = (0..phonemes.len()).filter(|&i| VOWELS.contains(phonemes[i])).collect();
    let full = |i: usize| !matches!(phonemes[vowels[i]], 'ə' | 'ᵊ');
    let count = vowels.len();
    let long = |i: usize| {
        let next = vowels.get(i + 1).copied().unwrap_or(phonemes.len());
        "AIOWYiu".contains(phonemes[vowels[i]]) || next - vowels[i] > 2
    };
    let of_ending = STRESSED_BEFORE.iter().filter(|ending| word.ends_with(**ending)).map(|ending| match *ending {
        "ical" | "ity" | "ology" => 3,
        "ological" => 3,
        "ian" | "ial" | "ious" | "ium" | "eous" if phonemes.len() > 3 && long(count.saturating_sub(1)) => 3,
        _ => 2,
    });
    let from_end = match (of_ending.max(), count) {
        (_, 0) => return phonemes.into_iter().collect(),
        (Some(from_end), _) if from_end <= count => from_end,
        (_, 1) => 1,
        (_, 2) => 2,
        // Names from elsewhere that end in a vowel: Nakamura, Zamboni.
        _ if word.ends_with(['a', 'i', 'o']) || long(count - 2) => 2,
        _ => 3,
    };
    let mut at = count - from_end;
    // A neutral vowel bears none.
    if !full(at) {
        at = (at..count).find(|&i| full(i)).or_else(|| (0..at).find(|&i| full(i))).unwrap_or(at);
    }
    let mut said = String::new();
    for (i, phoneme) in phonemes.iter().enumerate() {
        if vowels[at] == i {
            said.push('ˈ');
        } else if at >= 2 && vowels[0] == i && full(0) {
            said.push('ˌ');
        }
        said.push(*phoneme);
    }
    said.replace("ˈə", "ˈʌ")
}

/// American phonemes as a British voice says them.
fn to_british(american: &str) -> String {
    let mut british = String::new();
    let mut letters = american.chars().peekable();
    while let Some(c) = letters.next() {
        let before_r = letters.peek() == Some(&'ɹ');
        let r_is_heard =
            before_r && letters.clone().nth(1).is_some_and(|next| VOWELS.contains(next) || "ˈˌ".contains(next));
        match c {
            'O' => british.push('Q'),
            'i' if letters.peek().is_some() => british.push_str("iː"),
            'u' => british.push_str("uː"),
            'ɑ' | 'ɔ' | 'ɜ' if before_r => british.extend([c, 'ː']),
            'ɑ' => british.push('ɒ'),
            'ɔ' => british.push_str("ɔː"),
            _ => british.push(c),
        }
        if before_r && !r_is_heard && VOWELS.contains(c) {
            letters.next();
        }
    }
    british
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_read_by_rules() {
        let cases = [
            ("blick", "blˈɪk"),
            ("snorble", "snˈɔɹbᵊl"),
            ("Kubernetes", "kˌubəɹnˈɛtiz"),
            ("frobnication", "fɹˌɑbnəkˈAʃən"),
            ("Zamboni", "zæmbˈOni"),
            ("Nakamura", "nˌækəmˈʊɹə"),
            ("phish", "fˈɪʃ"),
            ("glape", "ɡlˈAp"),
            ("whing", "wˈɪŋ"),
            ("XQ", "ˌɛkskjˈu"),
            ("bcd", "bˌisˌidˈi"),
        ];
        for (word, wanted) in cases {
            assert_eq!(read(word, false), wanted, "{word}");
        }
    }

    #[test]
    fn british_voices_say_it_their_way() {
        let cases = [("glar", "ɡlˈɑː"), ("Zamboni", "zæmbˈQni"), ("blorry", "blˈɔːɹi"), ("gleem", "ɡlˈiːm")];
        for (word, wanted) in cases {
            assert_eq!(read(word, true), wanted, "{word}");
        }
    }

    #[test]
    fn every_rule_says_what_kokoro_knows() {
        for (before, letters, behind, said) in RULES {
            assert!(
                said.chars().all(|c| VOWELS.contains(c) || "bdfhjklmnpstvwzðŋɡɹʃʒʤʧθ".contains(c)),
                "{before}[{letters}]{behind}"
            );
        }
    }

    #[test]
    fn every_letter_is_said() {
        for letter in 'a'..='z' {
            let said = by_rules(&format!("b{letter}b"));
            assert!(said.len() >= 2, "{letter}: {said:?}");
        }
    }
}
