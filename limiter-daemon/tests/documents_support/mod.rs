//! The code blocks of the documents, for the tests that hold them to what they are about.
//!
//! Each block says in its info string what it is, so that none is left untested by accident:
//!
//! | block | is |
//! |---|---|
//! | `yaml` | resources without any finding; `beside=FILE...` names what they refer to, `joined` those of the document before it |
//! | `yaml in=FILE` | a fragment, which stands for the line `HERE` of that file |
//! | `yaml by=TEST` | what the test of this name, in the file before `::`, does something with |
//! | `sh` | commands that a test runs, one after the other, as one script with all those of the document |
//! | `sh parsed="WHY"` | commands that are only held to the command line's own definition |
//! | `console`, `console parsed="WHY"` | the same, with what they print; `...` stands for anything |
//! | `usage` | what the command line takes |
//! | `json` | JSON |
//! | `text`, or `quoted="WHY"` in any language | nothing that could be run |
//!
//! Paths are relative to the root of the repository. `file=NAME` writes the block to a file before the
//! script goes on.

#![allow(
    dead_code,
    clippy::allow_attributes,
    clippy::panic,
    reason = "each of the test binaries uses a part of it, and one that fails, fails the test"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use pulldown_cmark::{CodeBlockKind, Event, Options, Parser, Tag, TagEnd};

/// Documents outside of `docs/`.
const OTHERS: [&str; 5] = [
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "README.md",
    "SECURITY.md",
    "examples/README.md",
];

/// A code block.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    /// The document, relative to the root of the repository.
    pub(crate) document: String,
    /// Of the fence, from 1.
    pub(crate) line: usize,
    pub(crate) language: String,
    pub(crate) attributes: BTreeMap<String, String>,
    pub(crate) text: String,
}

impl Block {
    /// Where it is, for messages.
    pub(crate) fn place(&self) -> String {
        format!("{}:{}", self.document, self.line)
    }

    pub(crate) fn has(&self, attribute: &str) -> bool {
        self.attributes.contains_key(attribute)
    }

    /// Whether it has commands, to be run or not.
    pub(crate) fn has_commands(&self) -> bool {
        ["sh", "console"].contains(&self.language.as_str()) && !self.has("quoted")
    }

    /// Its command lines, without what they print; comments and continued lines are as they are.
    pub(crate) fn script(&self) -> String {
        if self.language == "sh" {
            return self.text.clone();
        }
        let lines = self.text.lines().filter_map(|line| line.strip_prefix("$ "));
        lines.map(|line| format!("{line}\n")).collect()
    }

    /// Each program that it calls, with its arguments.
    pub(crate) fn calls(&self) -> Vec<Vec<String>> {
        let script = self.script().replace("\\\n", " ");
        let mut calls = Vec::new();
        for line in script.lines() {
            let words = shlex::split(line).unwrap_or_else(|| panic!("{}: {line}", self.place()));
            for call in words.split(|word| ["|", "||", "&&", "&", ";"].contains(&word.as_str())) {
                calls.extend(named(call));
            }
        }
        calls
    }
}

/// A call without what stands before the program; and the call within it, if it passes one on.
fn named(call: &[String]) -> Vec<Vec<String>> {
    let assignment = |word: &String| {
        word.split_once('=')
            .is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
    };
    let before = ["!", "do", "if", "sudo", "then", "until", "while"];
    let begin = call
        .iter()
        .position(|word| !assignment(word) && !before.contains(&word.as_str()));
    let call: Vec<String> = call[begin.unwrap_or(call.len())..].to_vec();
    let mut calls = Vec::new();
    if let Some(at) = call.iter().position(|word| word == "--") {
        calls.extend(named(&call[at + 1..]));
    }
    let end = call.iter().position(|word| is_redirection(word));
    let call = call[..end.unwrap_or(call.len())].to_vec();
    if !call.is_empty() {
        calls.push(call);
    }
    calls
}

fn is_redirection(word: &str) -> bool {
    let word = word.trim_start_matches(|c: char| c.is_ascii_digit());
    word.starts_with('>') || word.starts_with('<')
}

pub(crate) fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// The documents, relative to the root of the repository, in order of name.
pub(crate) fn documents() -> Vec<String> {
    let mut found: Vec<String> = OTHERS.map(str::to_owned).into();
    let mut folders = vec!["docs".to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(workspace().join(&folder)).expect("a directory") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().expect("a name").to_string_lossy();
            let path_here = format!("{folder}/{name}");
            if path.is_dir() {
                folders.push(path_here);
            } else if name.ends_with(".md") {
                found.push(path_here);
            }
        }
    }
    found.sort();
    found
}

/// All blocks of all documents, in their order.
pub(crate) fn blocks() -> Vec<Block> {
    let all = documents().into_iter();
    all.flat_map(|document| {
        let text = fs::read_to_string(workspace().join(&document)).expect("a document");
        blocks_of(&document, &text)
    })
    .collect()
}

/// The blocks of one document. One that is indented has no language.
pub(crate) fn blocks_of(document: &str, text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (event, range) in Parser::new(text).into_offset_iter() {
        match event {
            Event::Start(Tag::CodeBlock(kind)) => {
                let info = match &kind {
                    CodeBlockKind::Fenced(info) => info.to_string(),
                    CodeBlockKind::Indented => String::new(),
                };
                let line = 1 + text[..range.start].matches('\n').count();
                let place = format!("{document}:{line}");
                let words =
                    shlex::split(&info).unwrap_or_else(|| panic!("{place}: quotes in `{info}`"));
                let mut words = words.into_iter();
                let language = words.next().unwrap_or_default();
                let attributes = words.map(|word| match word.split_once('=') {
                    Some((name, value)) => (name.to_owned(), value.to_owned()),
                    None => (word, String::new()),
                });
                open = Some(Block {
                    document: document.to_owned(),
                    line,
                    language,
                    attributes: attributes.collect(),
                    text: String::new(),
                });
            }
            Event::Text(part) => {
                if let Some(block) = &mut open {
                    block.text.push_str(&part);
                }
            }
            Event::End(TagEnd::CodeBlock) => blocks.extend(open.take()),
            _ => {}
        }
    }
    blocks
}

/// What stands in code in the text of all documents, and where.
pub(crate) fn inline() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(workspace().join(&document)).expect("a document");
        for (event, range) in Parser::new_ext(&text, Options::ENABLE_TABLES).into_offset_iter() {
            if let Event::Code(code) = event {
                let line = 1 + text[..range.start].matches('\n').count();
                found.push((format!("{document}:{line}"), code.replace('\n', " ")));
            }
        }
    }
    found
}
