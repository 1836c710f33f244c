//! Languages that voices speak.

/// A language that Kokoro's voices speak, by their names' first letter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Language {
    /// `a`
    AmericanEnglish,
    /// `b`
    BritishEnglish,
    /// `e`
    Spanish,
    /// `f`
    French,
    /// `h`
    Hindi,
    /// `i`
    Italian,
    /// `j`
    Japanese,
    /// `p`
    BrazilianPortuguese,
    /// `z`
    Mandarin,
}

impl Language {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::AmericanEnglish,
        Self::BritishEnglish,
        Self::Spanish,
        Self::French,
        Self::Hindi,
        Self::Italian,
        Self::Japanese,
        Self::BrazilianPortuguese,
        Self::Mandarin,
    ];

    /// What a voice of that name speaks: `af_heart` American English. `None` for names that are not like that.
    #[must_use]
    pub fn of_voice(name: &str) -> Option<Self> {
        let [first, b'f' | b'm', b'_', ..] = name.as_bytes() else { return None };
        Self::ALL.into_iter().find(|language| language.letter() == char::from(*first))
    }

    /// The first letter of its voices' names.
    #[must_use]
    pub fn letter(self) -> char {
        match self {
            Self::AmericanEnglish => 'a',
            Self::BritishEnglish => 'b',
            Self::Spanish => 'e',
            Self::French => 'f',
            Self::Hindi => 'h',
            Self::Italian => 'i',
            Self::Japanese => 'j',
            Self::BrazilianPortuguese => 'p',
            Self::Mandarin => 'z',
        }
    }

    /// As in BCP 47.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Self::AmericanEnglish => "en-US",
            Self::BritishEnglish => "en-GB",
            Self::Spanish => "es",
            Self::French => "fr-FR",
            Self::Hindi => "hi",
            Self::Italian => "it",
            Self::Japanese => "ja",
            Self::BrazilianPortuguese => "pt-BR",
            Self::Mandarin => "zh",
        }
    }

    /// In English.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AmericanEnglish => "American English",
            Self::BritishEnglish => "British English",
            Self::Spanish => "Spanish",
            Self::French => "French",
            Self::Hindi => "Hindi",
            Self::Italian => "Italian",
            Self::Japanese => "Japanese",
            Self::BrazilianPortuguese => "Brazilian Portuguese",
            Self::Mandarin => "Mandarin",
        }
    }

    /// By the letter, or by a tag of BCP 47, whatever the case: `a`, `en`, `en-us`, `pt`, `zh-CN`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.to_ascii_lowercase();
        let whole =
            |language: &Self| text == language.code().to_ascii_lowercase() || text == language.letter().to_string();
        let (base, _) = text.split_once('-').unwrap_or((&text, ""));
        let by_base = |language: &Self| language.code().split('-').next() == Some(base);
        Self::ALL.into_iter().find(whole).or_else(|| Self::ALL.into_iter().find(by_base))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn languages_are_found() {
        let cases = [
            ("a", Some(Language::AmericanEnglish)),
            ("en", Some(Language::AmericanEnglish)),
            ("EN-gb", Some(Language::BritishEnglish)),
            ("pt", Some(Language::BrazilianPortuguese)),
            ("zh-CN", Some(Language::Mandarin)),
            ("de", None),
            ("", None),
        ];
        for (text, language) in cases {
            assert_eq!(Language::parse(text), language, "{text}");
        }
        let voices = [("bm_george", Some(Language::BritishEnglish)), ("xf_nobody", None), ("alloy", None), ("", None)];
        for (name, language) in voices {
            assert_eq!(Language::of_voice(name), language, "{name}");
        }
    }
}
