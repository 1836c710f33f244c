//! `--config FILE`: a TOML file whose keys are the names of flags.
//!
//! The file becomes arguments, put before those of the command line, so that clap checks both alike, and every flag that
//! there is or will be can stand in a file. Arguments of the file that the command line or the environment also gives, or
//! contradicts, are left out: flags come before variables, those before the file, the file before defaults.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
};

use clap::{
    Arg, ArgAction, ArgMatches, Command, Error,
    error::{ContextKind, ContextValue, ErrorKind},
    parser::ValueSource,
};
use toml::{Table, Value};

/// The flag that names the file.
const CONFIG: &str = "config";

/// The values of all flags, from wherever they come, by name.
pub type Settings = BTreeMap<String, Vec<OsString>>;

/// Parses a command line of `command` with the file it names, if it names one.
///
/// # Errors
/// What clap says, or what is wrong with the file.
pub fn parse(command: &Command, args: &[OsString]) -> Result<(ArgMatches, Settings), Error> {
    let mut args = args.to_vec();
    let mut file = None;
    // What is wrong here is said below: so far it only matters which file, and which arguments come before it.
    if let Ok(given) = command.clone().ignore_errors(true).try_get_matches_from(&args)
        && let Some((name, given)) = given.subcommand()
        && let Some(subcommand) = command.find_subcommand(name)
        && let Some(path) = given.try_get_one::<PathBuf>(CONFIG).ok().flatten()
    {
        let read = FileArgs::read(path, subcommand, given)?;
        // The subcommand is the first argument: there are none before it.
        args.splice(2..2, read.args.iter().cloned());
        file = Some(read);
    }
    let matches = command.clone().try_get_matches_from(&args).map_err(|error| match &file {
        Some(file) => file.blame(error),
        None => error,
    })?;
    let settings = settings(command, &matches);
    Ok((matches, settings))
}

/// The values of a subcommand's flags.
fn settings(command: &Command, matches: &ArgMatches) -> Settings {
    let Some((name, matches)) = matches.subcommand() else { return Settings::new() };
    let args = command.find_subcommand(name).into_iter().flat_map(Command::get_arguments);
    let value = |arg: &Arg| {
        let values = matches.try_get_raw(arg.get_id().as_str()).ok().flatten()?;
        Some((shown(arg), values.map(ToOwned::to_owned).collect()))
    };
    args.filter_map(value).collect()
}

/// Name of an argument in a file.
fn shown(arg: &Arg) -> String {
    arg.get_long().unwrap_or(arg.get_id().as_str()).to_owned()
}

/// A file as arguments.
struct FileArgs {
    path: PathBuf,
    args: Vec<OsString>,
    /// The names of those arguments.
    taken: Vec<String>,
}

impl FileArgs {
    fn read(path: &Path, command: &Command, given: &ArgMatches) -> Result<Self, Error> {
        let wrong = |kind, message: String| Error::raw(kind, format!("{}: {message}\n", path.display()));
        let text = fs::read_to_string(path).map_err(|error| wrong(ErrorKind::Io, error.to_string()))?;
        let table: Table =
            text.parse().map_err(|error: toml::de::Error| wrong(ErrorKind::InvalidValue, error.to_string()))?;
        let mut file = Self { path: path.to_owned(), args: Vec::new(), taken: Vec::new() };
        let mut seen = Vec::new();
        for (key, value) in table {
            let invalid = |message| wrong(ErrorKind::InvalidValue, format!("{key}: {message}"));
            let arg = find(command, &key).ok_or_else(|| wrong(ErrorKind::UnknownArgument, unknown(command, &key)))?;
            let name = shown(arg);
            if seen.contains(&name) {
                return Err(invalid("is there twice".into()));
            }
            // Checked even where it doesn't count: a mistake should not wait until a flag is gone.
            let args = to_args(arg, value).map_err(invalid)?;
            seen.push(name.clone());
            if !is_given(arg, given) && !contradicted(command, arg, given) {
                file.args.extend(args);
                file.taken.push(name);
            }
        }
        Ok(file)
    }

    /// Says that an error is the file's, if it is about something that stands there.
    fn blame(&self, error: Error) -> Error {
        let Some(ContextValue::String(about)) = error.get(ContextKind::InvalidArg) else { return error };
        let name = about.split_whitespace().next().unwrap_or_default().trim_matches(['-', '<', '>']);
        if !self.taken.iter().any(|taken| taken.eq_ignore_ascii_case(name)) {
            return error;
        }
        let text = error.to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        Error::raw(error.kind(), format!("{}: {text}", self.path.display()))
    }
}

/// The argument of a key: a flag by its name or another name it has, or an argument without a flag.
fn find<'a>(command: &'a Command, key: &str) -> Option<&'a Arg> {
    let key = key.replace('_', "-");
    let mut args = command.get_arguments().filter(|arg| is_setting(arg));
    args.find(|arg| {
        let aliases = arg.get_all_aliases().unwrap_or_default();
        shown(arg) == key || aliases.contains(&key.as_str())
    })
}

/// Whether an argument makes sense in a file.
fn is_setting(arg: &Arg) -> bool {
    let acts =
        matches!(arg.get_action(), ArgAction::Help | ArgAction::HelpShort | ArgAction::HelpLong | ArgAction::Version);
    !acts && arg.get_id() != CONFIG
}

fn unknown(command: &Command, key: &str) -> String {
    let names = command.get_arguments().filter(|arg| is_setting(arg)).map(shown);
    let distance = |name: &String| strsim::damerau_levenshtein(name, &key.replace('_', "-"));
    match names.min_by_key(distance) {
        Some(name) => format!("there is no setting {key:?}; the nearest is {name:?}"),
        None => format!("there is no setting {key:?}"),
    }
}

fn is_given(arg: &Arg, given: &ArgMatches) -> bool {
    let source = given.value_source(arg.get_id().as_str());
    matches!(source, Some(ValueSource::CommandLine | ValueSource::EnvVariable))
}

/// Whether something was given that excludes `arg`.
fn contradicted(command: &Command, arg: &Arg, given: &ArgMatches) -> bool {
    let excludes = |one: &Arg, other: &Arg| {
        command.get_arg_conflicts_with(one).iter().any(|excluded| excluded.get_id() == other.get_id())
    };
    let mut others = command.get_arguments().filter(|other| is_given(other, given));
    others.any(|other| excludes(arg, other) || excludes(other, arg))
}

fn to_args(arg: &Arg, value: Value) -> Result<Vec<OsString>, String> {
    let name = shown(arg);
    if !arg.get_action().takes_values() {
        return match value {
            Value::Boolean(true) => Ok(vec![format!("--{name}").into()]),
            Value::Boolean(false) => Ok(Vec::new()),
            _ => Err("must be true or false".into()),
        };
    }
    let values = match value {
        Value::Array(values) if matches!(arg.get_action(), ArgAction::Append) => values,
        Value::Array(_) => return Err("takes one value, not a list".into()),
        value => vec![value],
    };
    let text = |value: Value| match value {
        Value::String(text) => Ok(text),
        Value::Integer(number) => Ok(number.to_string()),
        Value::Float(number) => Ok(number.to_string()),
        Value::Boolean(yes) => Ok(yes.to_string()),
        Value::Datetime(_) => Err("dates have no meaning here".to_owned()),
        // Flags that take structures take them as JSON.
        structure => serde_json::to_string(&structure).map_err(|error| error.to_string()),
    };
    let to_arg = |value| {
        let text = text(value)?;
        Ok(if arg.is_positional() { text.into() } else { format!("--{name}={text}").into() })
    };
    values.into_iter().map(to_arg).collect()
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::{Cli, usage_error};

    /// The values of some settings after `serve` with these flags and this file, or the error.
    fn serve(flags: &str, file: &str) -> Result<Settings, String> {
        let folder = tempfile::TempDir::new().unwrap();
        let path = folder.path().join("serve.toml");
        fs::write(&path, file).unwrap();
        let path = path.to_str().unwrap();
        let args: Vec<OsString> =
            format!("vllm-mlx serve --config {path} {flags}").split(' ').map(Into::into).collect();
        let args: Vec<OsString> = args.into_iter().filter(|arg| !arg.is_empty()).collect();
        let parsed = parse(&Cli::command(), &args);
        parsed.map(|(_, settings)| settings).map_err(|error| usage_error(&error.to_string()).replace(path, "FILE"))
    }

    #[test]
    fn the_file_comes_after_flags_and_before_defaults() {
        let cases = [
            ("everything from the file", "", "model = 'm'\nport = 1", vec![("model", "m"), ("port", "1")]),
            ("a flag instead", "--port 2", "model = 'm'\nport = 1", vec![("port", "2")]),
            ("a model instead", "n", "model = 'm'", vec![("model", "n")]),
            ("a default", "", "model = 'm'", vec![("port", "8000")]),
            ("underscores", "m", "max_num_seqs = 3", vec![("max-num-seqs", "3")]),
            ("another name", "m", "chunked-prefill-tokens = 7", vec![("prefill-step-size", "7")]),
            ("a number", "m", "timeout = 2.5", vec![("timeout", "2.5")]),
            ("a switch", "m", "offline = true", vec![("offline", "true")]),
            ("a switch that is off", "m", "offline = false", vec![("offline", "false")]),
            ("a list", "m", "served-model-name = ['a', 'b']", vec![("served-model-name", "a b")]),
            ("a list of one", "m", "served-model-name = 'a'", vec![("served-model-name", "a")]),
            (
                "a flag instead of a list",
                "m --served-model-name c",
                "served-model-name = ['a', 'b']",
                vec![("served-model-name", "c")],
            ),
            (
                "a flag that excludes the file's",
                "m --disable-prefix-cache",
                "enable-prefix-cache = true",
                vec![("enable-prefix-cache", "false"), ("disable-prefix-cache", "true")],
            ),
            ("the other way round", "m --kv-cache-memory 1G", "cache-memory-mb = 5", vec![("kv-cache-memory", "1G")]),
            ("what a flag needs", "m --ssd-cache-quantize", "ssd-cache-dir = '/x'", vec![("ssd-cache-dir", "/x")]),
            ("a value like a flag", "m", "ssd-cache-dir = '--x'", vec![("ssd-cache-dir", "--x")]),
        ];
        for (name, flags, file, wanted) in cases {
            let settings = serve(flags, file).unwrap_or_else(|error| panic!("{name}: {error}"));
            for (setting, wanted) in wanted {
                let values = settings.get(setting).map(|values| values.join(" ".as_ref()));
                assert_eq!(values.unwrap_or_default(), wanted, "{name}: {setting}");
            }
        }
    }

    #[test]
    fn what_is_wrong_with_a_file() {
        let cases = [
            ("m", "prot = 1", "FILE: there is no setting \"prot\"; the nearest is \"port\" (see --help)"),
            ("m", "config = 'x'", "FILE: there is no setting \"config\"; the nearest is"),
            ("m", "port = 1\n[server]\nhost = 'x'", "FILE: there is no setting \"server\"; the nearest is"),
            ("m", "port = 70000", "FILE: invalid value '70000' for '--port <PORT>': 70000 is not in 0..=65535"),
            ("m --port 1", "port = [1]", "FILE: port: takes one value, not a list (see --help)"),
            ("m", "offline = 1", "FILE: offline: must be true or false (see --help)"),
            ("m", "max-tokens = 1\nmax_tokens = 1", "FILE: max_tokens: is there twice (see --help)"),
            ("m", "port = 1979-05-27", "FILE: port: dates have no meaning here (see --help)"),
            ("m", "port = ", "FILE: TOML parse error at line 1, column 8"),
            ("m --prot 1", "port = 1", "unexpected argument '--prot' found"),
            ("", "port = 1", "the following required arguments were not provided: <MODEL> (see --help)"),
            (
                "m",
                "enable-prefix-cache = true\ndisable-prefix-cache = true",
                "FILE: the argument '--disable-prefix-cache' cannot be used with '--enable-prefix-cache' (see --help)",
            ),
        ];
        for (flags, file, wanted) in cases {
            let error = serve(flags, file).unwrap_err();
            assert!(error.starts_with(wanted), "{file:?}: {error}");
        }
    }

    #[test]
    fn every_flag_of_serve_can_stand_in_a_file() {
        let mut command = Cli::command();
        command.build();
        let command = command.find_subcommand("serve").unwrap();
        let mut count = 0;
        for arg in command.get_arguments().filter(|arg| is_setting(arg)) {
            let found = find(command, arg.get_id().as_str()).map(Arg::get_id);
            assert_eq!(found, Some(arg.get_id()), "an argument's id is its flag's name: {}", shown(arg));
            count += 1;
        }
        assert!(count > 40, "{count}");
    }

    #[test]
    fn a_file_that_is_not_there() {
        let args = ["vllm-mlx", "serve", "m", "--config", "/no/such.toml"].map(OsString::from);
        let error = parse(&Cli::command(), &args).unwrap_err().to_string();
        assert!(error.contains("/no/such.toml: No such file"), "{error}");
    }
}
