use proptest::prelude::*;

use super::*;

const AMERICAN: Phonemizer = Phonemizer::new(Language::AmericanEnglish);
const BRITISH: Phonemizer = Phonemizer::new(Language::BritishEnglish);

#[test]
fn english_is_read() {
    let cases = [
        ("dictionary", "Hello, world!", "həlˈO, wˈɜɹld!"),
        ("context", "They record a record.", "ðˌA ɹəkˈɔɹd ɐ ɹˈɛkəɹd."),
        ("numbers", "It is 42.", "ˌɪt ɪz fˈɔɹTi tˈu."),
        ("said how", "[Kokoro](/kˈOkəɹO/) is nice.", "kˈOkəɹO ɪz nˈIs."),
        ("unknown", "a snorble", "ɐ snˈɔɹbᵊl"),
        ("unknown, owned", "the Snorble's", "ðə snˈɔɹbᵊlz"),
        ("made of two", "a bananabread", "ɐ bənˈænəbɹˌɛd"),
        ("letters and digits", "vllm-mlx", "vˌiˌɛlˌɛlˈɛm ˌɛmˌɛlˈɛks"),
        ("lines", "One\n\nTwo", "wˈʌn tˈu"),
    ];
    for (case, text, wanted) in cases {
        assert_eq!(AMERICAN.phonemes(text).unwrap(), wanted, "{case}");
    }
    assert_eq!(BRITISH.phonemes("The schedule is full.").unwrap(), "ðə ʃˈɛdjuːl ɪz fˈʊl.");
}

#[test]
fn nothing_vanishes() {
    let texts = [
        "Qzxwv",
        "Brzezinski",
        "Nguyen",
        "Reykjavík",
        "café",
        "Привет",
        "北京",
        "x=y",
        "XJ9",
        "5kg",
        "user_name",
        "http://a.b/c",
    ];
    for text in texts {
        for reader in [AMERICAN, BRITISH] {
            let alone = reader.phonemes(text).unwrap();
            let within = reader.phonemes(&format!("one {text} two")).unwrap();
            assert!(!alone.contains('❓') && within.split(' ').count() >= 3, "{text}: {alone:?}, {within:?}");
        }
    }
    for text in ["", " ", "...", "🎉", "—"] {
        assert!(matches!(AMERICAN.phonemes(text), Err(PhonemeError::Nothing)), "{text}");
    }
}

#[test]
fn what_is_too_long_is_cut() {
    let long = "one, two three four five six seven, eight nine ten eleven twelve";
    let parts = AMERICAN.within(long, 40).unwrap();
    let texts: Vec<_> = parts.iter().map(|part| part.text.as_str()).collect();
    assert_eq!(texts, ["one, two three four five six seven,", "eight nine ten eleven twelve"]);
    assert!(parts.iter().all(|part| part.phonemes.chars().count() <= 40));
    assert_eq!(AMERICAN.within("one", 40).unwrap().len(), 1);
    assert!(matches!(AMERICAN.within("a", 1), Err(PhonemeError::TooLong(_)) | Ok(_)));
    assert!(matches!(AMERICAN.within("!", 40), Err(PhonemeError::Nothing)));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Whatever is written, reading ends, with phonemes that Kokoro knows.
    #[test]
    fn any_text_is_read(text in "(?:\\PC{0,12}|[A-Za-z]{1,9}|[0-9$£€.,:/'’-]{1,9}|\\[[a-z]{1,3}\\]\\(/?[a-z0-9+#/-]{0,4}\\)| ){0,8}") {
        if let Ok(phonemes) = AMERICAN.phonemes(&text) {
            prop_assert!(!phonemes.contains('❓'), "{phonemes}");
        }
    }
}
