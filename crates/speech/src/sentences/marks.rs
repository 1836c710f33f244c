//! Which marks end what, and what stands before a full stop that doesn't.

pub fn ends_sentence(c: char) -> bool {
    matches!(c, '.' | '!' | '?' | '…') || is_wide_end(c)
}

/// Ends a sentence without white space behind it.
pub fn is_wide_end(c: char) -> bool {
    matches!(c, '。' | '！' | '？' | '．' | '｡' | '।')
}

pub fn closes(c: char) -> bool {
    matches!(c, '"' | '\'' | ')' | ']' | '}' | '”' | '’' | '»' | '」' | '』' | '）' | '】' | '*' | '_')
}

/// Whether a clause ends with `c`, before `rest`.
pub fn ends_clause(c: char, rest: &str) -> bool {
    match c {
        ',' | ';' | ':' | ')' => rest.starts_with(char::is_whitespace),
        '–' | '-' => rest.starts_with(' '),
        '—' | '，' | '、' | '；' | '：' => true,
        _ => false,
    }
}

/// What is behind the white space, quotes and brackets that `text` begins with.
pub fn unquoted(text: &str) -> &str {
    text.trim_start_matches(|c: char| {
        c.is_whitespace() || matches!(c, '"' | '\'' | '(' | '[' | '“' | '‘' | '«' | '*' | '_')
    })
}

/// Whether the first letter, behind quotes and brackets, is in lower case.
pub fn starts_lower(text: &str) -> bool {
    unquoted(text).starts_with(char::is_lowercase)
}

/// Abbreviations that something follows, always or nearly so: titles, and words before numbers and names.
const BEFORE_MORE: [&str; 56] = [
    "adm", "al", "approx", "ave", "capt", "cf", "cmdr", "col", "dept", "dr", "ed", "eds", "e.g", "eg", "esp", "est",
    "fig", "figs", "ft", "gen", "gov", "hon", "i.e", "ie", "lt", "maj", "messrs", "mlle", "mme", "mr", "mrs", "ms",
    "mt", "mx", "no", "nos", "op", "p", "pp", "pres", "prof", "pvt", "ref", "rep", "rev", "sen", "sgt", "sr", "sra",
    "srta", "st", "supt", "viz", "vol", "vs", "ph.d",
];

/// Whether a full stop behind `text` ends no sentence, whatever comes.
pub fn never_ends(text: &str) -> bool {
    let start = text
        .rfind(|c: char| c.is_whitespace() || matches!(c, '(' | '[' | '"' | '“'))
        .map_or(0, |place| place + text[place..].chars().next().map_or(1, char::len_utf8));
    let word = &text[start..];
    let mut letters = word.chars();
    match (letters.next(), letters.next()) {
        // An initial: `J. S. Bach`. But `so do I.`
        (Some(only), None) if only.is_uppercase() => return only != 'I',
        _ => {}
    }
    // `1. Wash it`, at the beginning.
    if word.len() <= 2
        && !word.is_empty()
        && word.bytes().all(|byte| byte.is_ascii_digit())
        && text[..start].trim().is_empty()
    {
        return true;
    }
    // `U.S. Army`
    let initials = word.contains('.')
        && word.split('.').all(|part| matches!(part.as_bytes(), [letter] if letter.is_ascii_alphabetic()));
    let times = matches!(word, "a.m" | "p.m" | "A.M" | "P.M");
    // `No.` may be an answer.
    let answer = word == "No" && text[..start].trim().is_empty();
    let listed = BEFORE_MORE.contains(&word.to_lowercase().as_str());
    (initials && !times) || (listed && !answer)
}
