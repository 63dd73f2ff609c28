//! The commands `cargo xtask ...` in the documents are those that there are.

use clap::{CommandFactory as _, Parser as _};
use documents_support::{blocks, inline};

use super::Cli;

#[path = "../../limiter-daemon/tests/documents_support/mod.rs"]
mod documents_support;

#[test]
fn commands_in_the_documents_are_taken() {
    let mut wrong = Vec::new();
    let mut taken = 0;
    for block in blocks().iter().filter(|block| block.has_commands()) {
        for call in block.calls() {
            let [cargo, xtask, rest @ ..] = &call[..] else {
                continue;
            };
            if cargo != "cargo" || xtask != "xtask" {
                continue;
            }
            taken += 1;
            let words = std::iter::once("cargo xtask").chain(rest.iter().map(String::as_str));
            if let Err(error) = Cli::try_parse_from(words) {
                wrong.push(format!("{}: {}: {error}", block.place(), call.join(" ")));
            }
        }
    }
    let mut command = Cli::command();
    command.build();
    for (place, code) in inline() {
        let Some(rest) = code.strip_prefix("cargo xtask ") else {
            continue;
        };
        taken += 1;
        let words: Vec<&str> = rest
            .split([' ', '[', ']'])
            .filter(|word| !word.is_empty())
            .collect();
        let found = words.first().and_then(|name| command.find_subcommand(name));
        let Some(found) = found else {
            // A placeholder stands for any of them.
            if !rest.starts_with(['<', '.']) {
                wrong.push(format!("{place}: `{code}`: there is no such command"));
            }
            continue;
        };
        for flag in words.iter().filter_map(|word| word.strip_prefix("--")) {
            if !found
                .get_arguments()
                .any(|argument| argument.get_long() == Some(flag))
            {
                wrong.push(format!("{place}: `{code}`: no --{flag}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(taken > 20, "{taken}");
}
