//! `cargo xtask tidy`: the rules of this repository that no compiler checks, as code.
//!
//! Each rule is a function from a file's path and text to what is wrong with it.

mod layers;
mod links;
mod text;

#[cfg(test)]
mod tests;

use std::fmt;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use xshell::cmd;

use crate::cmd::Workspace;

/// A rule that a file breaks.
#[derive(Debug, PartialEq, Eq)]
struct Offence {
    /// From 1; 0 where it is about the file as a whole.
    line: usize,
    message: String,
}

impl Offence {
    fn at(line: usize, message: impl Into<String>) -> Self {
        Self {
            line,
            message: message.into(),
        }
    }

    fn whole(message: impl Into<String>) -> Self {
        Self::at(0, message)
    }
}

impl fmt::Display for Offence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line > 0 {
            write!(f, "{}: ", self.line)?;
        }
        f.write_str(&self.message)
    }
}

/// Checks every file that is or would be in the repository.
pub(crate) fn tidy(workspace: &Workspace) -> Result<()> {
    // The checkout may be another user's: this runs as root.
    let safe = format!("safe.directory={}", workspace.root.display());
    let files = cmd!(
        workspace.sh,
        "git -c {safe} ls-files --cached --others --exclude-standard"
    )
    .quiet()
    .read()
    .context("tidy asks git which files there are")?;
    let mut checked = 0;
    let mut wrong = 0;
    for path in files.lines() {
        // Deleted but not yet recorded as such, or not a text: neither has rules.
        let Ok(text) = std::fs::read_to_string(workspace.root.join(path)) else {
            continue;
        };
        checked += 1;
        for offence in check(&workspace.root, path, &text) {
            wrong += 1;
            println!(
                "{path}:{}{offence}",
                if offence.line == 0 { " " } else { "" }
            );
        }
    }
    if wrong > 0 {
        bail!("tidy: {wrong} to put right");
    }
    println!("tidy: {checked} files, nothing to put right");
    Ok(())
}

/// All rules that apply to the file at `path`, which is relative to `root`.
fn check(root: &Path, path: &str, text: &str) -> Vec<Offence> {
    let mut offences = text::machine_paths(text);
    if path.ends_with(".rs") {
        offences.extend(text::length(path, text));
        offences.extend(text::module_doc(path, text));
        offences.extend(text::unfinished(text));
        offences.extend(text::unsafe_places(path, text));
        offences.extend(layers::check(path, text));
    } else if path.ends_with("Cargo.toml") {
        offences.extend(text::workspace_lints(text));
    } else if path.ends_with(".md") {
        offences.extend(links::check(root, path, text));
    }
    offences
}
