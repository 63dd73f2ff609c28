//! Commands in the documents, held to the command line's own definition.

use std::collections::BTreeSet;

use clap::{CommandFactory as _, Parser as _};
use documents_support::{blocks, inline};

use super::Args;

#[path = "../tests/documents_support/mod.rs"]
mod documents_support;

/// Programs of others that commands may call.
const OTHERS: [&str; 35] = [
    "apt",
    "cargo",
    "cat",
    "cd",
    "chmod",
    "chown",
    "cp",
    "curl",
    "done",
    "dpkg",
    "grep",
    "head",
    "helm",
    "install",
    "journalctl",
    "jq",
    "kill",
    "kubectl",
    "mkdir",
    "mount",
    "openssl",
    "podman",
    "redis-cli",
    "sed",
    "seq",
    "sleep",
    "sort",
    "ssh",
    "systemctl",
    "tail",
    "tcpdump",
    "uniq",
    "wait",
    "wrk",
    "xargs",
];

#[test]
fn commands_in_blocks_are_taken() {
    let mut seen = BTreeSet::new();
    let mut wrong = Vec::new();
    for block in blocks().iter().filter(|block| block.has_commands()) {
        for call in block.calls() {
            let (program, rest) = call.split_first().expect("a program");
            if program != "limiterd" {
                if !OTHERS.contains(&program.as_str()) {
                    wrong.push(format!("{}: what is `{program}`?", block.place()));
                }
                continue;
            }
            if rest.first().is_some_and(|first| first == "--version") {
                continue;
            }
            seen.insert(rest.first().cloned().unwrap_or_default());
            if let Err(error) = Args::try_parse_from(&call) {
                wrong.push(format!("{}: {}: {error}", block.place(), call.join(" ")));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let command = Args::command();
    let visible = command.get_subcommands().filter(|one| !one.is_hide_set());
    let missing: Vec<_> = visible
        .map(clap::Command::get_name)
        .filter(|name| !seen.contains(*name))
        .collect();
    assert!(missing.is_empty(), "no block shows {missing:?}");
}

/// The subcommand that a line names, and what is left of the line; `a|b` is each of both.
fn subcommand<'a>(words: &[&'a str]) -> Result<(clap::Command, Vec<&'a str>), String> {
    let mut command = Args::command();
    command.build();
    let mut words = words.iter().copied().peekable();
    while let Some(word) = words.peek() {
        let names: Vec<&str> = word.split('|').collect();
        let is_one = |name: &&str| command.find_subcommand(name).is_some();
        if names.iter().any(is_one) {
            if let Some(unknown) = names.iter().find(|name| !is_one(name)) {
                return Err(format!("there is no {unknown}"));
            }
            let next = command.find_subcommand(names[0]).cloned();
            command = next.ok_or("it is gone")?;
            words.next();
        } else if command.has_subcommands() && !word.starts_with('-') {
            return Err(format!("{} has no {word}", command.get_name()));
        } else {
            break;
        }
    }
    Ok((command, words.collect()))
}

/// What a line of usage has that the command line does not.
fn unknown_in(line: &str) -> Option<String> {
    let words: Vec<&str> = line
        .split([' ', '[', ']', '(', ')', '`', ',', ';'])
        .filter(|word| !word.is_empty())
        .skip(1)
        .collect();
    let (command, rest) = match subcommand(&words) {
        Ok(found) => found,
        Err(none) => return Some(none),
    };
    let flags = rest
        .iter()
        .filter(|word| word.starts_with('-') && word.len() > 1);
    for flag in flags {
        let flag = flag.split('=').next().unwrap_or(flag);
        let is_there = command.get_arguments().any(|argument| {
            let long = argument.get_long().map(|long| format!("--{long}"));
            let short = argument.get_short().map(|short| format!("-{short}"));
            long.as_deref() == Some(flag) || short.as_deref() == Some(flag)
        });
        if !is_there && flag != "--help" && flag != "--" {
            return Some(format!("{} has no {flag}", command.get_name()));
        }
    }
    None
}

#[test]
fn usage_and_commands_in_the_text_have_only_what_there_is() {
    let usage = blocks()
        .into_iter()
        .filter(|block| block.language == "usage");
    let lines = usage.flat_map(|block| {
        let place = block.place();
        let lines: Vec<_> = block.text.lines().map(str::to_owned).collect();
        lines.into_iter().map(move |line| (place.clone(), line))
    });
    let mut looked_at = 0;
    let mut wrong = Vec::new();
    for (place, line) in lines.chain(inline()) {
        if line.starts_with("limiterd ") {
            looked_at += 1;
            wrong.extend(unknown_in(&line).map(|why| format!("{place}: `{line}`: {why}")));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(looked_at > 30, "{looked_at}");
}

#[test]
fn what_there_is_not_is_noticed() {
    for (line, why) in [
        ("limiterd chek DIR", "limiterd has no chek"),
        (
            "limiterd check DIR [--deny-warning]",
            "check has no --deny-warning",
        ),
        ("limiterd counters get|forget NAME", "there is no forget"),
        ("limiterd explain -h x -Z", "explain has no -Z"),
    ] {
        assert_eq!(unknown_in(line).as_deref(), Some(why), "{line}");
    }
    assert_eq!(
        unknown_in("limiterd counters get|reset domain:NAME --descriptor K=V,... [--json]"),
        None
    );
}
