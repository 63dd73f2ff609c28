//! `cargo xtask vm-test --desk`: docs/desk.md, played on a [Debian](super::debian).
//!
//! The commands and files are those of the document: each of its blocks of `sh` or `yaml` has a
//! comment above it that gives it a name (`<!-- desk: NAME -->`, `<!-- desk: NAME, on MACHINE -->`,
//! `<!-- desk: NAME, file PATH -->`), and becomes a script by that name, which [`SCRIPT`] plays before
//! it looks at what came of it.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

use super::debian::{self, Story};
use crate::cmd::Workspace;

const SCRIPT: &str = include_str!("desk/guest.sh");
const DOCUMENT: &str = "docs/desk.md";
const MARK: &str = "<!-- desk: ";
const FENCE: &str = "```";
/// The end of a file that a script writes.
const END: &str = "END OF THE FILE";

pub(super) fn test(workspace: &Workspace, limiterd: Option<&Path>) -> Result<()> {
    let document = fs::read_to_string(workspace.root.join(DOCUMENT))?;
    let files: Vec<_> = blocks(&document)?
        .into_iter()
        .map(|block| (format!("desk/{}.sh", block.name), block.script()))
        .collect();
    let story = Story {
        name: "desk",
        script: SCRIPT,
        network: include_str!("desk/net.sh"),
        files: &files,
        figures: "VMSAID ",
    };
    debian::play(workspace, &story, limiterd)
}

/// A block that is played.
#[derive(Debug, PartialEq, Eq)]
struct Block<'a> {
    name: &'a str,
    what: What<'a>,
    text: String,
}

#[derive(Debug, PartialEq, Eq)]
enum What<'a> {
    /// On the machine that the document is about.
    Here,
    /// In the network namespace of this name.
    On(&'a str),
    /// The text of the file there.
    File(&'a str),
}

impl Block<'_> {
    fn script(&self) -> String {
        match self.what {
            What::Here | What::On(_) => self.text.clone(),
            What::File(path) => format!("cat >{path} <<'{END}'\n{}{END}\n", self.text),
        }
    }
}

/// The blocks of `sh` and `yaml` in `document`, every one of which has to have a name.
fn blocks(document: &str) -> Result<Vec<Block<'_>>> {
    let mut blocks = Vec::new();
    let (mut above, mut lines) = ("", document.lines());
    while let Some(line) = lines.next() {
        if let Some(info) = line.strip_prefix(FENCE) {
            let (language, _) = info.split_once(' ').unwrap_or((info, ""));
            let text: String = lines
                .by_ref()
                .take_while(|line| *line != FENCE)
                .flat_map(|line| [line, "\n"])
                .collect();
            if matches!(language, "sh" | "yaml") {
                blocks.push(block(above, text)?);
            }
        }
        above = line;
    }
    ensure!(!blocks.is_empty(), "{DOCUMENT} has no block to play");
    Ok(blocks)
}

fn block(above: &str, text: String) -> Result<Block<'_>> {
    let mark = above
        .strip_prefix(MARK)
        .and_then(|rest| rest.strip_suffix(" -->"))
        .with_context(|| {
            format!("{DOCUMENT}: a block without `{MARK}NAME -->` above it:\n{text}")
        })?;
    let (name, what) = match mark.split_once(", ") {
        None => (mark, What::Here),
        Some((name, rest)) => match rest.split_once(' ') {
            Some(("on", machine)) => (name, What::On(machine)),
            Some(("file", path)) => (name, What::File(path)),
            _ => bail!("{DOCUMENT}: `{rest}` is neither `on MACHINE` nor `file PATH`"),
        },
    };
    Ok(Block { name, what, text })
}

#[cfg(test)]
mod tests {
    use super::{SCRIPT, What, blocks};

    const DOCUMENT: &str = include_str!("../../../docs/desk.md");

    #[test]
    fn every_block_of_the_document_is_played_where_it_says() {
        let words: Vec<_> = SCRIPT.split_whitespace().collect();
        let played = |wanted: &[&str]| words.windows(wanted.len()).any(|some| some == wanted);
        for block in blocks(DOCUMENT).unwrap() {
            let is_played = match block.what {
                What::On(machine) => played(&["on", machine, block.name]),
                What::Here | What::File(_) => played(&["play", block.name]),
            };
            assert!(is_played, "{block:?}");
        }
    }

    #[test]
    fn blocks_have_names_and_places() {
        let text = "a\n<!-- desk: one, on client -->\n```sh parsed=\"here\"\nls\n```\n```text\nb\n```\n\
            <!-- desk: two, file /x -->\n```yaml\na: 1\n```\n";
        let found = blocks(text).unwrap();
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].what, What::On("client"));
        assert_eq!(found[0].script(), "ls\n");
        let file = found[1].script();
        assert!(
            file.starts_with("cat >/x <<'") && file.contains("\na: 1\n"),
            "{file}"
        );
        assert!(blocks("```sh\nls\n```\n").is_err());
        assert!(blocks("<!-- desk: a, at b -->\n```sh\nls\n```\n").is_err());
        assert!(blocks("nothing\n").is_err());
    }
}
