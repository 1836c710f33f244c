//! `${NAME}` and `${NAME:-default}` in values, so that secrets need not stand in files.

/// `text` with its variables replaced. `$${` stands for `${` itself.
///
/// # Errors
/// A variable that isn't set, or a `${` without its end.
pub fn expand(text: &str, variables: &dyn Fn(&str) -> Option<String>) -> Result<String, String> {
    let mut expanded = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        if let Some(literal) = before.strip_suffix('$') {
            expanded.push_str(literal);
            expanded.push_str("${");
            rest = after;
            continue;
        }
        expanded.push_str(before);
        let (inside, after) = after.split_once('}').ok_or_else(|| format!("{text:?} has a ${{ without its }}"))?;
        let (name, default) = match inside.split_once(":-") {
            Some((name, default)) => (name, Some(default)),
            None => (inside, None),
        };
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_') {
            return Err(format!("${{{inside}}} is no name of a variable: use ${{NAME}}, or $${{ for the characters"));
        }
        match (variables(name).filter(|value| !value.is_empty() || default.is_none()), default) {
            (Some(value), _) => expanded.push_str(&value),
            (None, Some(default)) => expanded.push_str(default),
            (None, None) => return Err(format!("the environment variable {name} is not set")),
        }
        rest = after;
    }
    expanded.push_str(rest);
    Ok(expanded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_replaced() {
        let variables = |name: &str| match name {
            "TOKEN" => Some("s3cret".to_owned()),
            "EMPTY" => Some(String::new()),
            "NESTED" => Some("${TOKEN}".to_owned()),
            _ => None,
        };
        let cases = [
            ("plain", Ok("plain")),
            ("${TOKEN}", Ok("s3cret")),
            ("Bearer ${TOKEN}!", Ok("Bearer s3cret!")),
            ("${TOKEN}${TOKEN}", Ok("s3crets3cret")),
            ("$TOKEN and $5", Ok("$TOKEN and $5")),
            ("$${TOKEN}", Ok("${TOKEN}")),
            ("${EMPTY}", Ok("")),
            ("${EMPTY:-full}", Ok("full")),
            ("${NONE:-}", Ok("")),
            ("${NONE:-a:-b}", Ok("a:-b")),
            ("${NESTED}", Ok("${TOKEN}")),
            ("${NONE}", Err("the environment variable NONE is not set")),
            ("${TOKEN", Err("\"${TOKEN\" has a ${ without its }")),
            ("${}", Err("${} is no name of a variable: use ${NAME}, or $${ for the characters")),
            ("${A B}", Err("${A B} is no name of a variable: use ${NAME}, or $${ for the characters")),
        ];
        for (text, wanted) in cases {
            let wanted = wanted.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(expand(text, &variables), wanted, "{text}");
        }
    }
}
