//! Environment variables of a server's process.

/// What a server's process gets of our environment. All else it needs, its configuration says.
pub const INHERITED: &[&str] = &["PATH", "HOME", "LANG", "TMPDIR"];

/// Variables that make a program load code of somebody else's choice, or another program run under a known name.
const REFUSED: &[&str] = &[
    "BASH_ENV",
    "ENV",
    "NODE_OPTIONS",
    "NODE_PATH",
    "PATH",
    "PERL5LIB",
    "PERL5OPT",
    "PYTHONHOME",
    "PYTHONPATH",
    "PYTHONSTARTUP",
    "RUBYLIB",
    "RUBYOPT",
];

/// Families of such variables: the dynamic linker's.
const REFUSED_PREFIXES: &[&str] = &["LD_", "DYLD_"];

/// Whether a configuration may not set this variable.
#[must_use]
pub fn is_refused_variable(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    REFUSED.contains(&name.as_str()) || REFUSED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Checks the name of a variable.
pub fn check(name: &str) -> Result<(), String> {
    if is_refused_variable(name) {
        return Err(format!("env: {name} is refused: it changes which code a program runs"));
    }
    let fits = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    if name.is_empty() || !fits {
        return Err(format!("env: {name:?} is no name of a variable"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_that_load_code_are_refused() {
        let cases = [
            ("GITHUB_TOKEN", true),
            ("MY_PATH", true),
            ("OLD_VALUE", true),
            ("lower", true),
            ("LD_PRELOAD", false),
            ("ld_preload", false),
            ("LD_LIBRARY_PATH", false),
            ("DYLD_INSERT_LIBRARIES", false),
            ("PATH", false),
            ("PYTHONPATH", false),
            ("NODE_OPTIONS", false),
            ("BASH_ENV", false),
            ("", false),
            ("A=B", false),
            ("A\0", false),
        ];
        for (name, wanted) in cases {
            assert_eq!(check(name).is_ok(), wanted, "{name:?}");
        }
    }
}
