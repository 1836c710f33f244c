//! Names of voices: what they tell, how they are mixed, which are alike.

use super::VoiceError;

/// Whose voice it sounds like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gender {
    /// A woman's.
    Female,
    /// A man's.
    Male,
}

impl Gender {
    /// By a name's second letter, if the name is one of Kokoro's: `af_heart`.
    #[must_use]
    pub fn of_voice(name: &str) -> Option<Self> {
        match name.as_bytes() {
            [_, b'f', b'_', ..] => Some(Self::Female),
            [_, b'm', b'_', ..] => Some(Self::Male),
            _ => None,
        }
    }

    /// In a word.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Female => "female",
            Self::Male => "male",
        }
    }
}

/// OpenAI's voices and those of Kokoro that stand for them: of the same name where there is one, else of a like sound.
const OPENAI: [(&str, &str); 13] = [
    ("alloy", "af_alloy"),
    ("ash", "am_michael"),
    ("ballad", "bm_george"),
    ("cedar", "am_fenrir"),
    ("coral", "af_heart"),
    ("echo", "am_echo"),
    ("fable", "bm_fable"),
    ("marin", "af_sarah"),
    ("nova", "af_nova"),
    ("onyx", "am_onyx"),
    ("sage", "af_kore"),
    ("shimmer", "af_bella"),
    ("verse", "am_puck"),
];

/// The voice that stands for one of OpenAI's, so that programs written for its service find one: `alloy` is `af_alloy`, `coral`
/// `af_heart`, `shimmer` `af_bella`, and so on.
#[must_use]
pub fn openai_voice(name: &str) -> Option<&'static str> {
    OPENAI.iter().find(|(openai, _)| *openai == name).map(|(_, voice)| *voice)
}

/// One voice of a mixture.
#[derive(Debug, PartialEq)]
pub struct Part {
    pub name: String,
    pub weight: f32,
}

/// Letters, digits, `_` and `-`: nothing that leads out of a folder.
pub fn is_plain(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'))
}

/// Voices in a mixture.
const MOST: usize = 16;

/// `name`, or `name(weight)+name(weight)+…`.
pub fn parse(given: &str) -> Result<Vec<Part>, VoiceError> {
    let malformed = |why| VoiceError::Malformed { given: given.chars().take(100).collect(), why };
    let parts: Vec<&str> = given.split(['+', ',']).collect();
    if parts.len() > MOST {
        return Err(malformed("at most 16 voices can be mixed"));
    }
    let part = |text: &str| {
        let (name, weight) = match text.split_once('(') {
            None => (text.trim(), 1.0),
            Some((name, rest)) => {
                let weight = rest.trim().strip_suffix(')').ok_or_else(|| malformed("a bracket is not closed"))?;
                (name.trim(), weight.trim().parse().map_err(|_| malformed("a weight is no number"))?)
            }
        };
        if name.is_empty() {
            return Err(malformed("a name is missing"));
        }
        if !is_plain(name) {
            return Err(malformed("a name has letters, digits, _ and - only"));
        }
        // A NaN is not greater than anything.
        if !(weight > 0.0 && weight <= 1e6) {
            return Err(malformed("a weight is greater than 0 and at most a million"));
        }
        Ok(Part { name: name.to_owned(), weight })
    };
    parts.into_iter().map(part).collect()
}

/// Names within two changes of a letter, or that hold the wanted one, or that it holds; all, if there is none.
pub fn close<'a>(wanted: &str, names: impl Iterator<Item = &'a str>) -> Vec<String> {
    let all: Vec<&str> = names.collect();
    let alike = |name: &&&str| {
        let within = |whole: &str, part: &str| part.len() >= 3 && whole.contains(part);
        within(name, wanted) || within(wanted, name) || distance(name, wanted) <= 2
    };
    let found: Vec<String> = all.iter().filter(alike).map(|name| (*name).to_owned()).collect();
    if found.is_empty() { all.into_iter().map(str::to_owned).collect() } else { found }
}

/// Levenshtein's.
fn distance(a: &str, b: &str) -> usize {
    // A name is short; what was asked for needn't be.
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().take(64).collect());
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_alike() {
        let cases = [
            ("same", "a", "a", 0),
            ("one more", "af_heart", "af_hearth", 1),
            ("other", "abc", "xyz", 3),
            ("none", "", "ab", 2),
        ];
        for (case, a, b, wanted) in cases {
            assert_eq!(distance(a, b), wanted, "{case}");
        }
        let names = ["af_heart", "af_bella", "am_adam"];
        assert_eq!(close("bella", names.into_iter()), ["af_bella"]);
        assert_eq!(close("something", names.into_iter()), names);
    }

    #[test]
    fn names_tell_whose_voice_it_is() {
        let cases =
            [("af_heart", Some(Gender::Female)), ("zm_yunxi", Some(Gender::Male)), ("alloy", None), ("a", None)];
        for (name, gender) in cases {
            assert_eq!(Gender::of_voice(name), gender, "{name}");
        }
    }
}
