//! `vllm-mlx completions` and `vllm-mlx man`.

use std::io::Write as _;

use clap::Command;
use clap_complete::Shell;

/// Flags of `completions`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The shell they are for
    shell: Shell,
}

/// Prints a script that completes this program's flags.
///
/// # Errors
/// Standard output is closed.
pub fn run(args: &Args, mut command: Command) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut command, "vllm-mlx", &mut script);
    std::io::stdout().write_all(&script)?;
    Ok(())
}

/// Prints the manual page: the program's, then those of its commands.
///
/// # Errors
/// Standard output is closed.
pub fn man(mut command: Command) -> anyhow::Result<()> {
    command.build();
    let mut page = Vec::new();
    let man = clap_mangen::Man::new(command.clone());
    man.render(&mut page)?;
    for part in command.get_subcommands().filter(|part| part.get_name() != "help" && !part.is_hide_set()) {
        // A page holds one title; those of the parts become headings.
        page.extend_from_slice(format!(".SH \"{}\"\n", part.get_name().to_uppercase()).as_bytes());
        let man = clap_mangen::Man::new(part.clone());
        man.render_synopsis_section(&mut page)?;
        man.render_options_section(&mut page)?;
    }
    std::io::stdout().write_all(&page)?;
    Ok(())
}
