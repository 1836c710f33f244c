//! English text as the words that are heard.

const SMALL: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 10] = ["", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"];
const SHORT: [(&str, &str); 6] =
    [("mr", "mister"), ("mrs", "missus"), ("dr", "doctor"), ("st", "saint"), ("ok", "okay"), ("vs", "versus")];
const ORDINALS: [(&str, &str); 8] = [
    ("one", "first"),
    ("two", "second"),
    ("three", "third"),
    ("five", "fifth"),
    ("eight", "eighth"),
    ("nine", "ninth"),
    ("twelve", "twelfth"),
    ("y", "ieth"),
];

/// The words of a text: in lower case, without punctuation, apostrophes left out (`dont`), hyphens and the like between words, numbers
/// written out (from 1100 to 1999 and from 2010 to 2099 like years), `%`, `$`, `£`, `€` and `&` by name, a few abbreviations in full.
#[must_use]
pub fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    for chunk in text.split(|c: char| c.is_whitespace() || matches!(c, '-' | '–' | '—' | '/')) {
        let chunk = chunk.trim_matches(|c: char| !c.is_alphanumeric() && !"$£€%&".contains(c));
        chunk_words(chunk, &mut words);
    }
    words
}

fn chunk_words(chunk: &str, words: &mut Vec<String>) {
    let currency =
        [('$', "dollar"), ('£', "pound"), ('€', "euro")].into_iter().find(|(sign, _)| chunk.starts_with(*sign));
    let chunk = currency.map_or(chunk, |(sign, _)| chunk.trim_start_matches(sign));
    let digits = chunk.find(|c: char| !c.is_ascii_digit() && !matches!(c, ',' | '.' | ':')).unwrap_or(chunk.len());
    let (number, rest) = chunk.split_at(digits);
    let number = number.trim_end_matches([',', '.', ':']);
    if number.is_empty() {
        let plain: String = chunk.to_lowercase().chars().filter(|c| c.is_alphanumeric()).collect();
        let plain = if chunk == "&" { "and".to_owned() } else { plain };
        let full = SHORT.iter().find(|(short, _)| *short == plain).map_or(plain.as_str(), |(_, full)| full);
        if !full.is_empty() {
            words.push(full.to_owned());
        }
        return;
    }
    let before = words.len();
    let plain = number.replace(',', "");
    if let Some((hour, minute)) = plain.split_once(':') {
        words.extend([hour, minute].iter().flat_map(|part| counted(part)));
    } else if let Some((whole, part)) = plain.split_once('.') {
        words.extend(counted(whole));
        if let Some((_, name)) = currency {
            words.push(format!("{name}s"));
            words.extend(counted(part));
            words.push("cents".into());
        } else {
            words.push("point".into());
            words.extend(part.bytes().map(|digit| SMALL[usize::from(digit.wrapping_sub(b'0')) % 10].to_owned()));
        }
    } else {
        words.extend(counted(&plain));
        if let Some((_, name)) = currency {
            words.push(if plain == "1" { name.to_owned() } else { format!("{name}s") });
        }
    }
    match rest.to_lowercase().as_str() {
        "" => {}
        "st" | "nd" | "rd" | "th" if words.len() > before => {
            let last = words.pop().unwrap_or_default();
            words.push(ordinal(&last));
        }
        "%" => words.push("percent".into()),
        "s" => {
            let last = words.pop().unwrap_or_default();
            words.push(last.strip_suffix('y').map_or_else(|| format!("{last}s"), |stem| format!("{stem}ies")));
        }
        _ => chunk_words(rest, words),
    }
}

fn ordinal(number: &str) -> String {
    let found = ORDINALS.iter().find_map(|(ending, ordinal)| Some(number.strip_suffix(ending)?.to_owned() + ordinal));
    found.unwrap_or_else(|| format!("{number}th"))
}

/// Digits as words; too long a number digit by digit.
fn counted(digits: &str) -> Vec<String> {
    let Ok(number) = digits.parse::<u64>() else { return Vec::new() };
    let mut words = Vec::new();
    match number {
        1100..=1999 | 2010..=2099 if digits.len() == 4 => {
            hundreds(number / 100, &mut words);
            match number % 100 {
                0 => words.push("hundred".into()),
                ones @ 1..=9 => words.extend(["oh".to_owned(), SMALL[ones as usize].to_owned()]),
                rest => hundreds(rest, &mut words),
            }
        }
        0 => words.push("zero".into()),
        1_000_000_000_000.. => words.extend(digits.bytes().map(|digit| SMALL[usize::from(digit - b'0')].to_owned())),
        _ => {
            for (size, name) in [(1_000_000_000, "billion"), (1_000_000, "million"), (1000, "thousand"), (1, "")] {
                let part = number / size % 1000;
                if part > 0 {
                    hundreds(part, &mut words);
                    words.extend((!name.is_empty()).then(|| name.to_owned()));
                }
            }
        }
    }
    words
}

/// A number below a thousand; nothing for 0.
fn hundreds(number: u64, words: &mut Vec<String>) {
    let (hundreds, rest) = (number as usize / 100, number as usize % 100);
    if hundreds > 0 {
        words.extend([SMALL[hundreds].to_owned(), "hundred".to_owned()]);
    }
    match rest {
        0 => {}
        1..20 => words.push(SMALL[rest].to_owned()),
        _ => {
            words.push(TENS[rest / 10].to_owned());
            words.extend((rest % 10 > 0).then(|| SMALL[rest % 10].to_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_become_words() {
        let cases = [
            ("plain", "Don't stop, Mr. O'Neil!", "dont stop mister oneil"),
            ("hyphens", "well-known — twenty-one", "well known twenty one"),
            (
                "numbers",
                "0 7 15 30 42 100 215 3,000,012",
                "zero seven fifteen thirty forty two one hundred two hundred fifteen three million twelve",
            ),
            (
                "years",
                "1912 1905 1900 2000 2024",
                "nineteen twelve nineteen oh five nineteen hundred two thousand twenty twenty four",
            ),
            (
                "ordinals",
                "1st 2nd 3rd 12th 20th 21st 25th",
                "first second third twelfth twentieth twenty first twenty fifth",
            ),
            ("money", "$40 $1 £2.50", "forty dollars one dollar two pounds fifty cents"),
            ("signs", "30% & 3.14", "thirty percent and three point one four"),
            ("times", "3:30 pm", "three thirty pm"),
            ("decades", "1990s", "nineteen nineties"),
            ("letters behind", "5kg", "five kg"),
            ("nothing", " ... ", ""),
        ];
        for (case, text, wanted) in cases {
            assert_eq!(words(text).join(" "), wanted, "{case}");
        }
    }
}
