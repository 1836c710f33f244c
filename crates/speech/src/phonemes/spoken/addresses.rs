//! Addresses of pages and mail.

use super::Rule;

pub fn rules() -> Vec<Rule> {
    vec![
        Rule::new(r"\b([\w.+-]+)@((?:[\w-]+\.)+[A-Za-z]{2,})\b", |found, _| {
            format!("{} at {}", signs(&found[1]), signs(&found[2]))
        }),
        // The mark behind an address is the sentence's.
        Rule::new(r"\b(?:https?|ftp)://([^\s<>()]*[\w/])", |found, _| address(&found[1])),
        Rule::new(r"\b(www\.[^\s<>()]*[\w/])", |found, _| address(&found[1])),
        Rule::new(
            r"\b((?:[A-Za-z0-9-]+\.)+(?:com|org|net|edu|gov|io|ai|dev|app|info|co\.uk|de|eu)(?:/[^\s<>()]*[\w/])?)\b",
            |found, _| address(&found[1]),
        ),
    ]
}

fn address(address: &str) -> String {
    let address = address.trim_end_matches('/');
    match address.strip_prefix("www.") {
        Some(rest) => format!("W W W dot {}", signs(rest)),
        None => signs(address),
    }
}

/// Signs by their names.
fn signs(text: &str) -> String {
    let mut spoken = String::with_capacity(text.len() * 2);
    for c in text.chars() {
        let name = match c {
            '.' => "dot",
            '/' => "slash",
            '-' => "dash",
            '_' => "underscore",
            ':' => "colon",
            '?' => "question mark",
            '=' => "equals",
            '&' => "and",
            '#' => "hash",
            '%' => "percent",
            '+' => "plus",
            '~' => "tilde",
            '@' => "at",
            ',' => "comma",
            _ => {
                spoken.push(c);
                continue;
            }
        };
        spoken.push(' ');
        spoken.push_str(name);
        spoken.push(' ');
    }
    spoken.trim().to_owned()
}
