//! English as it is written, written out as it is read aloud: dates, times, units, addresses; marks of Markdown are left out.
//!
//! Only what misaki reads wrongly or not at all: plain numbers, dollars and ordinals it reads itself.

mod addresses;
mod numbers;

use std::sync::LazyLock;

use regex::{Captures, Regex};

/// A rule: what is found, and what is written instead.
struct Rule {
    found: Regex,
    instead: fn(&Captures<'_>, bool) -> String,
}

impl Rule {
    fn new(found: &str, instead: fn(&Captures<'_>, bool) -> String) -> Self {
        Self { found: Regex::new(found).expect("a regular expression"), instead }
    }
}

/// Applied one after the other. Addresses before what has dots and slashes inside; dates before fractions; units before signs.
static RULES: LazyLock<Vec<Rule>> = LazyLock::new(|| {
    let mut rules = markdown();
    rules.extend(addresses::rules());
    rules.extend(numbers::rules());
    rules.extend(abbreviations());
    rules.extend(signs());
    rules
});

/// The text as it is read aloud, in one line. What stands in misaki's brackets, `[word](/phonemes/)` or `[word](+1)`, stays.
pub fn written_out(text: &str, british: bool) -> String {
    static BRACKETS: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(r"\[[^\]]+\]\((?:/[^)]*/|#[^)]*#|[+-]?\d+|[+-]?0\.5)\)").expect("a regular expression")
    });
    let mut out = String::with_capacity(text.len() + text.len() / 4);
    let mut end = 0;
    for brackets in BRACKETS.find_iter(text) {
        out.push_str(&stretch(&text[end..brackets.start()], british));
        out.push_str(brackets.as_str());
        end = brackets.end();
    }
    out.push_str(&stretch(&text[end..], british));
    out.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn stretch(text: &str, british: bool) -> String {
    let mut text: String = text.chars().map(plain_digit).collect();
    for rule in RULES.iter() {
        if rule.found.is_match(&text) {
            text = rule.found.replace_all(&text, |found: &Captures<'_>| (rule.instead)(found, british)).into_owned();
        }
    }
    plain_letters(&text)
}

/// A digit of any script; but not ², which is said otherwise.
fn plain_digit(c: char) -> char {
    if c.is_ascii() || !c.is_numeric() || matches!(c, '²' | '³') {
        return c;
    }
    match deunicode::deunicode_char(c).map(str::as_bytes) {
        Some([digit]) if digit.is_ascii_digit() => char::from(*digit),
        _ => c,
    }
}

/// Letters with marks, and those of other scripts, as plain ones: misaki's dictionaries have no others.
pub fn plain_letters(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            _ if c.is_ascii() || !c.is_alphabetic() => plain.push(c),
            // `Bei Jing `: each of such letters is a syllable.
            _ => plain.push_str(deunicode::deunicode_char(c).unwrap_or("")),
        }
    }
    plain
}

fn markdown() -> Vec<Rule> {
    vec![
        // Code's fences, rules, headings, quotations, list marks.
        Rule::new(r"(?m)^\s*(?:```.*|[-*_=]{3,}\s*)$", |_, _| String::new()),
        Rule::new(r"(?m)^\s*(?:#{1,6}|>|[-*•‣]) +", |_, _| String::new()),
        Rule::new(r"!?\[([^\]]*)\]\([^)\s]*(?: [^)]*)?\)", |found, _| found[1].to_owned()),
        Rule::new(r"\*{1,3}([^*\s](?:[^*]*[^*\s])?)\*{1,3}", |found, _| found[1].to_owned()),
        Rule::new(r"`+", |_, _| String::new()),
    ]
}

/// Abbreviations, without their stop, and what they are short for.
const ABBREVIATIONS: [(&str, &str); 36] = [
    ("Prof", "Professor"),
    ("Gen", "General"),
    ("Sgt", "Sergeant"),
    ("Capt", "Captain"),
    ("Lt", "Lieutenant"),
    ("Col", "Colonel"),
    ("Cmdr", "Commander"),
    ("Gov", "Governor"),
    ("Sen", "Senator"),
    ("Rev", "Reverend"),
    ("Hon", "Honorable"),
    ("Jr", "Junior"),
    ("Sr", "Senior"),
    ("Mt", "Mount"),
    ("Ft", "Fort"),
    ("Inc", "Incorporated"),
    ("Ltd", "Limited"),
    ("Corp", "Corporation"),
    ("Ave", "Avenue"),
    ("Blvd", "Boulevard"),
    ("Rd", "Road"),
    ("Jan", "January"),
    ("Feb", "February"),
    ("Apr", "April"),
    ("Aug", "August"),
    ("Sept", "September"),
    ("Oct", "October"),
    ("Nov", "November"),
    ("Dec", "December"),
    ("approx", "approximately"),
    ("dept", "department"),
    ("Dept", "Department"),
    ("fig", "figure"),
    ("Fig", "Figure"),
    ("vol", "volume"),
    ("Vol", "Volume"),
];

fn abbreviations() -> Vec<Rule> {
    let known: Vec<&str> = ABBREVIATIONS.iter().map(|(short, _)| *short).collect();
    vec![
        Rule::new(r"\be\.\s?g\.,?", |_, _| "for example,".into()),
        Rule::new(r"\bi\.\s?e\.,?", |_, _| "that is,".into()),
        // A saint stands before a name, a street behind one.
        Rule::new(r"\bSt\.( [A-Z])", |found, _| format!("Saint{}", &found[1])),
        Rule::new(r"\bSt\.(\s|$|,)", |found, _| format!("Street{}", &found[1])),
        // The stop of the sentence may be the abbreviation's.
        Rule::new(&format!(r"\b({})\.(\s*$)?", known.join("|")), |found, _| {
            let long = ABBREVIATIONS.iter().find(|(short, _)| *short == &found[1]).map_or("", |(_, long)| long);
            if found.get(2).is_some() { format!("{long}.") } else { long.to_owned() }
        }),
        Rule::new(r"\bC#", |_, _| "C sharp".into()),
        Rule::new(r"(^|\s)\.NET\b", |found, _| format!("{}dot net", &found[1])),
    ]
}

fn signs() -> Vec<Rule> {
    const SPOKEN: [(&str, &str); 18] = [
        ("=", "equals"),
        ("<", "less than"),
        (">", "greater than"),
        ("≤", "at most"),
        ("≥", "at least"),
        ("≠", "is not"),
        ("≈", "about"),
        ("×", "times"),
        ("÷", "divided by"),
        ("±", "plus or minus"),
        ("√", "the square root of"),
        ("°", "degrees"),
        ("²", "squared"),
        ("³", "cubed"),
        ("→", "to"),
        ("∞", "infinity"),
        ("§", "section"),
        ("№", "number"),
    ];
    vec![
        Rule::new(r"[#№](\d)", |found, _| format!("number {}", &found[1])),
        Rule::new(r"[~≈](\d)", |found, _| format!("about {}", &found[1])),
        Rule::new(r"(\d)\s?[*×]\s?(\d)", |found, _| format!("{} times {}", &found[1], &found[2])),
        Rule::new(r"(\d)\^(\d)", |found, _| format!("{} to the {}", &found[1], &found[2])),
        Rule::new(r"[=<>≤≥≠≈×÷±√°²³→∞§№]", |found, _| {
            format!(" {} ", SPOKEN.iter().find(|(sign, _)| *sign == &found[0]).map_or("", |(_, spoken)| spoken))
        }),
        Rule::new(r"[\\|{}~^*_•`]", |_, _| " ".into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_written_out() {
        let cases = [
            ("plain", "It costs $3.50, or 12%.", "It costs $3.50, or 12%."),
            ("Markdown", "# Title\n- **bold** and *so* `code`", "Title bold and so code"),
            ("link", "see [this page](x.html) now", "see this page now"),
            ("spoken so", "[Kokoro](/kˈOkəɹO/) & [it](+1)", "[Kokoro](/kˈOkəɹO/) & [it](+1)"),
            (
                "page",
                "Visit https://www.example.com/a-b?x=1.",
                "Visit W W W dot example dot com slash a dash b question mark x equals 1.",
            ),
            ("mail", "Mail me.too@example.org!", "Mail me dot too at example dot org!"),
            ("no page", "He left.Then he came.", "He left.Then he came."),
            ("date", "on 2024-03-14", "on March 14th, 2024"),
            ("American date", "on 3/14/2024", "on March 14th, 2024"),
            ("no date", "2024-13-41", "2 0 2 4, 1 3, 4 1"),
            ("time", "at 3:30 pm, 3:05, 12:00 and 4:00 am", "at 3 30 pm, 3 oh 5, 12 o'clock and 4 am"),
            ("decades", "the 1990s, 2000s and '80s", "the 19 nineties, 2 thousands and eighties"),
            (
                "units",
                "5kg, 1 km, 10 km/h, 20°C and 3.5 GB",
                "5 kilograms, 1 kilometer, 10 kilometers per hour, 20 degrees Celsius and 3.5 gigabytes",
            ),
            ("fractions", "1/2, 3/4, 2½ and 24/7", "one half, three quarters, 2 and one half and 24 7"),
            ("money", "£5 million, ¥100 and $2k", "5 million pounds, 100 yen and 2 thousand dollars"),
            ("ranges", "10-20, 1914–1918", "10 to 20, 1914 to 1918"),
            ("telephone", "call 555-1234", "call 5 5 5, 1 2 3 4"),
            ("signs", "x=y, #5, ~3, 2*3", "x equals y, number 5, about 3, 2 times 3"),
            (
                "abbreviations",
                "Prof. Hall, St. Louis, Main St., e.g. Apple Inc.",
                "Professor Hall, Saint Louis, Main Street, for example, Apple Incorporated.",
            ),
            ("letters", "Zürich, São Paulo, Привет", "Zurich, Sao Paulo, Privet"),
            ("digits", "٤٢ kg, x²", "42 kilograms, x squared"),
            ("nothing", " \n ", ""),
        ];
        for (case, text, wanted) in cases {
            assert_eq!(written_out(text, false), wanted, "{case}");
        }
        assert_eq!(written_out("on 3/4/2024", true), "on the 3rd of April, 2024");
    }
}
