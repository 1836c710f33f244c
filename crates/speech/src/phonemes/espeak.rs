//! Phonemes by the program espeak-ng, mapped to Kokoro's alphabet as its pipeline does (misaki's `EspeakG2P`, as facts).
//!
//! The program runs once for each stretch between marks: it keeps no punctuation, of which Kokoro makes pauses and tunes.

use std::{
    io::{ErrorKind, Read, Write},
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::Duration,
};

use super::{Language, PhonemeError, english::marked};

const PROGRAM: &str = "espeak-ng";
/// A stretch takes milliseconds.
const PATIENCE: Duration = Duration::from_secs(10);

/// What stands for two sounds that are one: `^` ties them.
const TIED: [(&str, &str); 11] = [
    ("a^ɪ", "I"),
    ("a^ʊ", "W"),
    ("d^z", "ʣ"),
    ("d^ʒ", "ʤ"),
    ("e^ɪ", "A"),
    ("o^ʊ", "O"),
    ("ə^ʊ", "Q"),
    ("s^s", "S"),
    ("t^s", "ʦ"),
    ("t^ʃ", "ʧ"),
    ("ɔ^ɪ", "Y"),
];

fn voice(language: Language) -> &'static str {
    match language {
        Language::AmericanEnglish => "en-us",
        Language::BritishEnglish => "en-gb",
        Language::Spanish => "es",
        Language::French => "fr-fr",
        Language::Hindi => "hi",
        Language::Italian => "it",
        Language::Japanese => "ja",
        Language::BrazilianPortuguese => "pt-br",
        Language::Mandarin => "cmn",
    }
}

/// Whether the program is there.
pub fn look(language: Language) -> Result<(), PhonemeError> {
    run(PROGRAM, language, "a").map(drop)
}

/// The phonemes of a text.
pub fn read(language: Language, text: &str) -> Result<String, PhonemeError> {
    read_with(&mut |stretch| run(PROGRAM, language, stretch), language, text)
}

fn read_with(
    run: &mut dyn FnMut(&str) -> Result<String, PhonemeError>,
    language: Language,
    text: &str,
) -> Result<String, PhonemeError> {
    let mut phonemes = String::new();
    for (text, said) in marked(text) {
        if let Some(said) = said {
            phonemes.push_str(said);
            continue;
        }
        for stretch in text.split_inclusive(is_mark) {
            let mark = stretch.chars().next_back().filter(|c| is_mark(*c));
            let words = stretch.strip_suffix(is_mark).unwrap_or(stretch);
            if words.starts_with(char::is_whitespace) {
                phonemes.push(' ');
            }
            if words.chars().any(char::is_alphanumeric) {
                phonemes.push_str(&mapped(&run(words.trim())?, language, words)?);
            }
            if words.ends_with(char::is_whitespace) {
                phonemes.push(' ');
            }
            phonemes.extend(mark.and_then(kokoro_mark));
        }
    }
    Ok(phonemes)
}

fn is_mark(c: char) -> bool {
    kokoro_mark(c).is_some() || matches!(c, '¡' | '¿' | '\n')
}

/// Kokoro's mark for a mark.
fn kokoro_mark(c: char) -> Option<char> {
    Some(match c {
        ';' | ':' | ',' | '.' | '!' | '?' | '—' | '…' | '(' | ')' | '“' | '”' => c,
        '"' => '"',
        '«' | '「' | '『' => '“',
        '»' | '」' | '』' => '”',
        '、' | '，' => ',',
        '。' | '．' | '।' => '.',
        '！' => '!',
        '？' => '?',
        '；' => ';',
        '：' => ':',
        _ => return None,
    })
}

/// What the program wrote, in Kokoro's alphabet.
fn mapped(ipa: &str, language: Language, text: &str) -> Result<String, PhonemeError> {
    // A word of another language stands between that language's code and this one's: `(en)…(fr)`. Of a script that it doesn't know it
    // says the letters' names in English.
    if ipa.contains('(') && matches!(language, Language::Japanese | Language::Mandarin) {
        return Err(PhonemeError::Unreadable { language, text: text.trim().chars().take(40).collect() });
    }
    let mut plain = String::with_capacity(ipa.len());
    let mut inside = false;
    for c in ipa.chars() {
        match c {
            '(' => inside = true,
            ')' => inside = false,
            _ if inside => {}
            '\n' => plain.push(' '),
            _ => plain.push(c),
        }
    }
    for (tied, one) in TIED {
        plain = plain.replace(tied, one);
    }
    plain.retain(|c| !matches!(c, '^' | '-' | '_'));
    if language == Language::Mandarin {
        // The tones: high, rising, low, falling; the fifth is none.
        for (digit, tone) in [('1', "→"), ('2', "↗"), ('3', "↓"), ('4', "↘"), ('5', "")] {
            plain = plain.replace(digit, tone);
        }
    }
    Ok(plain.trim().to_owned())
}

/// Runs the program on a text. No shell; the text goes through a pipe, so that it cannot be an option.
fn run(program: &str, language: Language, text: &str) -> Result<String, PhonemeError> {
    let mut child = Command::new(program)
        .args(["-q", "--ipa", "--tie=^", "-b", "1", "--stdin", "-v", voice(language)])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| match error.kind() {
            ErrorKind::NotFound => PhonemeError::NotInstalled(language),
            _ => PhonemeError::Espeak(error.to_string()),
        })?;
    let outcome = converse(&mut child, text);
    // It is waited for in any case, so that nothing of it stays.
    let _ = child.kill();
    let status = child.wait().map_err(|error| PhonemeError::Espeak(error.to_string()))?;
    let (written, complaint) = outcome?;
    if written.is_empty() && (!status.success() || !complaint.is_empty()) {
        return Err(PhonemeError::Espeak(complaint.lines().next().unwrap_or("it said nothing").to_owned()));
    }
    Ok(written)
}

/// Writes the text and reads what is answered.
fn converse(child: &mut Child, text: &str) -> Result<(String, String), PhonemeError> {
    let failed = |error: std::io::Error| PhonemeError::Espeak(error.to_string());
    let (Some(mut input), Some(mut output), Some(mut errors)) =
        (child.stdin.take(), child.stdout.take(), child.stderr.take())
    else {
        return Err(PhonemeError::Espeak("it has no pipes".into()));
    };
    let text = text.to_owned();
    // Writing may wait until something is read. That it stops reading is seen in what it answers.
    thread::spawn(move || drop(input.write_all(text.as_bytes())));
    let (done, answer) = mpsc::channel();
    thread::spawn(move || {
        let (mut written, mut complaint) = (String::new(), String::new());
        let read = output.read_to_string(&mut written).and_then(|_| errors.read_to_string(&mut complaint));
        // Nobody waits any more: too late.
        let _ = done.send(read.map(|_| (written, complaint)));
    });
    match answer.recv_timeout(PATIENCE) {
        Ok(answer) => answer.map_err(failed),
        Err(_) => Err(PhonemeError::Espeak(format!("no answer in {} s", PATIENCE.as_secs()))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_mapped() {
        let cases = [
            ("ties", Language::Italian, "t^ʃˈa^ʊ", "ʧˈW"),
            ("a tie that is none", Language::Italian, "ˈɔ^iː", "ˈɔiː"),
            ("hyphens", Language::French, "sɛ la- vˈi", "sɛ la vˈi"),
            ("another language", Language::French, "lə (^e^n)wˈiːk(^f^r)ˈɛnd", "lə wˈiːkˈɛnd"),
            ("lines", Language::Spanish, "ˈola\nmˈundo\n", "ˈola mˈundo"),
            ("tones", Language::Mandarin, "ni2 χˈɑu4", "ni↗ χˈɑu↘"),
        ];
        for (case, language, ipa, wanted) in cases {
            assert_eq!(mapped(ipa, language, "").unwrap(), wanted, "{case}");
        }
        let unreadable = mapped("(^e^n)t^ʃˈa^ɪniːz(^j^a)", Language::Japanese, "世界").unwrap_err();
        assert!(unreadable.to_string().contains("世界"), "{unreadable}");
    }

    #[test]
    fn punctuation_stays_where_it_was() {
        let cases = [
            ("marks", "¿Qué tal? Bien, ¡gracias!", "<Qué tal>? <Bien>, <gracias>!"),
            ("quotes", "il dit «non».", "<il dit> “<non>”."),
            ("no words", "... !", "... !"),
            ("said how", "il [Zé](/ze/) va", "<il> ze <va>"),
            ("wide", "はい、そう。", "<はい>,<そう>."),
        ];
        for (case, text, wanted) in cases {
            let read = read_with(&mut |stretch| Ok(format!("<{stretch}>")), Language::Spanish, text).unwrap();
            let read = read.split_whitespace().collect::<Vec<_>>().join(" ");
            assert_eq!(read, wanted, "{case}");
        }
    }

    #[test]
    fn a_program_that_is_missing_or_fails_is_an_error() {
        let missing = run("no-such-program-as-this", Language::French, "a").unwrap_err();
        assert!(missing.to_string().contains("apt install espeak-ng"), "{missing}");
        // It knows no such options.
        assert!(matches!(run("ls", Language::French, "a"), Err(PhonemeError::Espeak(_))));
    }
}
