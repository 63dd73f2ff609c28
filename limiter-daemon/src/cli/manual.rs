//! `limiterd manual` (hidden): the manual pages and the completions of shells, made of the command
//! line's own definition, for packages.

use std::fs;
use std::io;
use std::path::Path;

use clap_complete::Shell;

const SHELLS: [Shell; 3] = [Shell::Bash, Shell::Fish, Shell::Zsh];

/// Writes the pages of `command` and of its subcommands to `into/man`, and the completions to
/// `into/completions`.
///
/// # Errors
/// When a file cannot be written.
pub fn write(command: clap::Command, into: &Path) -> io::Result<()> {
    // `help` says what the pages do.
    let mut command = without_help(command);
    let (man, completions) = (into.join("man"), into.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    let name = command.get_name().to_owned();
    clap_mangen::generate_to(command.clone(), man)?;
    for shell in SHELLS {
        clap_complete::generate_to(shell, &mut command, &name, &completions)?;
    }
    Ok(())
}

fn without_help(command: clap::Command) -> clap::Command {
    command
        .disable_help_subcommand(true)
        .mut_subcommands(without_help)
}
