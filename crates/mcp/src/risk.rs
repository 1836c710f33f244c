//! Tools whose names say that they run anything: they need the operator's consent.

/// What a word of such a name begins with.
const RISKY: &[&str] = &["eval", "exec", "powershell", "runcommand", "shell", "subprocess", "system"];

/// Whether a tool needs a line in `allowed_high_risk_tools`.
pub fn is_high_risk(tool: &str) -> bool {
    let words = words(tool);
    let risky = |word: &String| RISKY.iter().any(|risky| word.starts_with(risky)) || word == "bash";
    words.iter().any(risky)
        || words.windows(2).any(|pair| matches!(pair, [a, b] if a == "run" && b.starts_with("command")))
}

/// The words of `snake_case`, `kebab-case`, `camelCase` and the like, in lower case. Words, because `retrieval` is no
/// `eval` and a `filesystem` no `system`.
fn words(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut after_lower = false;
    for c in name.chars() {
        if !c.is_alphanumeric() || (c.is_uppercase() && after_lower) {
            words.push(String::new());
        }
        if let Some(word) = words.last_mut().filter(|_| c.is_alphanumeric()) {
            word.extend(c.to_lowercase());
        }
        after_lower = c.is_lowercase() || c.is_numeric();
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_run_anything_need_consent() {
        let cases = [
            ("execute", true),
            ("execute_query", true),
            ("exec", true),
            ("sql.exec", true),
            ("run_command", true),
            ("run-commands", true),
            ("runCommand", true),
            ("RunCommand", true),
            ("bash", true),
            ("shell", true),
            ("open_shell", true),
            ("evaluate_script", true),
            ("browserEval", true),
            ("SYSTEM", true),
            ("system_call", true),
            ("python_subprocess", true),
            ("read_file", false),
            ("retrieval", false),
            ("medieval_texts", false),
            ("list_filesystem", false),
            ("nutshell", false),
            ("commands_run", false),
            ("run_tests", false),
            ("bashful", false),
            ("", false),
        ];
        for (name, wanted) in cases {
            assert_eq!(is_high_risk(name), wanted, "{name}");
        }
    }
}
