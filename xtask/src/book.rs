//! `cargo xtask book`: the documents as a book, in `target/book`.
//!
//! mdbook wants its chapters in one place, and links that lead to chapters. So they are copied as they lie
//! in the repository (links between them stay as they are); what else they link to is in the repository on
//! the web. Afterwards every link in the pages must lead to a page, and to a place that is on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, Result, bail, ensure};
use xshell::cmd;

use crate::cmd::{Workspace, shown};
use crate::setup;

const SUMMARY: &str = "docs/SUMMARY.md";

pub(crate) fn book(workspace: &Workspace) -> Result<()> {
    setup::setup_book(workspace)?;
    let source = workspace.target_dir().join("book-source");
    copy(&workspace.root, &source)?;
    let built = workspace.target_dir().join("book");
    cmd!(workspace.sh, "mdbook build {source} --dest-dir {built}").run()?;
    let pages = pages(&built)?;
    let broken = broken(&built, &pages);
    ensure!(
        broken.is_empty(),
        "links in the book lead nowhere:\n{}",
        broken.join("\n")
    );
    println!(
        "{}: {} pages, every link leads somewhere",
        shown(workspace, &built.join("index.html")).display(),
        pages.len()
    );
    Ok(())
}

/// Copies the chapters that the summary names, and what mdbook needs besides.
fn copy(root: &Path, to: &Path) -> Result<()> {
    if to.exists() {
        fs::remove_dir_all(to)?;
    }
    let summary = fs::read_to_string(root.join(SUMMARY))?;
    let chapters: BTreeSet<PathBuf> = targets(&summary)
        .map(|target| beside(Path::new(SUMMARY), target))
        .collect();
    ensure!(!chapters.is_empty(), "{SUMMARY} names no chapter");
    let manifest = fs::read_to_string(root.join("Cargo.toml"))?;
    let repository = manifest
        .lines()
        .find_map(|line| line.strip_prefix("repository = "))
        .context("Cargo.toml names no repository")?;
    let web = format!("{}/blob/main", repository.trim_matches('"'));
    for chapter in &chapters {
        let text = fs::read_to_string(root.join(chapter))
            .with_context(|| format!("{SUMMARY}: {}", chapter.display()))?;
        let path = to.join("src").join(chapter);
        fs::create_dir_all(path.parent().context("a chapter in a folder")?)?;
        let text = plain_fences(&text);
        fs::write(
            path,
            relink(&text, |target| {
                let file = beside(chapter, target);
                let known = is_remote(target) || target.is_empty() || chapters.contains(&file);
                (!known).then(|| format!("{web}/{}", file.display()))
            }),
        )?;
    }
    let summary = relink(&summary, |target| {
        let file = beside(Path::new(SUMMARY), target);
        Some(file.display().to_string())
    });
    fs::write(to.join("src/SUMMARY.md"), summary)?;
    fs::copy(root.join("docs/book.toml"), to.join("book.toml"))?;
    Ok(())
}

/// What `target` is when `file` links to it, from the root of the repository.
fn beside(file: &Path, target: &str) -> PathBuf {
    let folder = file.parent().unwrap_or_else(|| Path::new(""));
    let mut path = PathBuf::new();
    for part in folder.join(target).components() {
        match part {
            Component::ParentDir => drop(path.pop()),
            Component::Normal(name) => path.push(name),
            _ => {}
        }
    }
    path
}

fn is_remote(target: &str) -> bool {
    target.contains("://") || target.starts_with("mailto:")
}

/// Files that a text links to.
fn targets(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| {
        let target = rest.split([')', ' ']).next()?;
        target.split('#').next().filter(|file| !file.is_empty())
    })
}

/// The text with other targets of links where `other` has one; targets are given without what is behind
/// `#`, which stays. Code is left alone.
fn relink(text: &str, other: impl Fn(&str) -> Option<String>) -> String {
    let mut out = String::new();
    let mut fenced = false;
    for line in text.split_inclusive('\n') {
        fenced ^= line.trim_start().starts_with("```");
        if fenced {
            out.push_str(line);
            continue;
        }
        let mut parts = line.split("](");
        out.push_str(parts.next().unwrap_or_default());
        for part in parts {
            let end = part.find([')', ' ', '#']).unwrap_or(part.len());
            let (target, rest) = part.split_at(end);
            let target = other(target).unwrap_or_else(|| target.to_owned());
            out.push_str(&format!("]({target}{rest}"));
        }
    }
    out
}

/// Without what is for the tests behind the language of a block.
fn plain_fences(text: &str) -> String {
    let mut out = String::new();
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some(info) => {
                let language = info.split(' ').next().unwrap_or_default();
                let language = if language == "usage" {
                    "text"
                } else {
                    language
                };
                out.push_str(&format!("```{language}\n"));
            }
            None => out.push_str(&format!("{line}\n")),
        }
    }
    out
}

/// The pages by their paths in the book, and the places on each.
fn pages(built: &Path) -> Result<BTreeMap<PathBuf, (String, BTreeSet<String>)>> {
    let mut pages = BTreeMap::new();
    let mut folders = vec![built.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path
                .extension()
                .is_some_and(|extension| extension == "html")
            {
                let html = fs::read_to_string(&path)?;
                let places = values(&html, " id=\"").map(str::to_owned).collect();
                pages.insert(path.strip_prefix(built)?.to_owned(), (html, places));
            }
        }
    }
    if !pages.contains_key(Path::new("index.html")) {
        bail!("mdbook made no index.html");
    }
    Ok(pages)
}

/// Values of an attribute.
fn values<'a>(html: &'a str, attribute: &str) -> impl Iterator<Item = &'a str> {
    let parts = html.split(attribute).skip(1);
    parts.filter_map(|rest| rest.split('"').next())
}

/// Links that lead nowhere, with the page that they are on.
fn broken(built: &Path, pages: &BTreeMap<PathBuf, (String, BTreeSet<String>)>) -> Vec<String> {
    // One page has the text of all, and one is for what is not found.
    let made = ["print.html", "404.html", "toc.html"];
    let mut found = BTreeSet::new();
    for (page, (html, _)) in pages {
        if made.iter().any(|name| page == Path::new(name)) {
            continue;
        }
        for link in values(html, " href=\"").filter(|link| !is_remote(link)) {
            let (file, place) = link.split_once('#').unwrap_or((link, ""));
            let path = if file.is_empty() {
                page.clone()
            } else {
                beside(page, file)
            };
            let leads = match pages.get(&path) {
                Some((_, places)) => place.is_empty() || places.contains(place),
                None => built.join(&path).is_file(),
            };
            if !leads {
                found.insert(format!("{}: {link}", page.display()));
            }
        }
    }
    found.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::{beside, broken, plain_fences, relink, targets};

    #[test]
    fn links_go_where_they_went() {
        let at = |file, target| beside(Path::new(file), target);
        assert_eq!(at("docs/a.md", "b.md"), PathBuf::from("docs/b.md"));
        assert_eq!(at("docs/a.md", "../README.md"), PathBuf::from("README.md"));
        assert_eq!(
            at("README.md", "docs/fields/x.md"),
            PathBuf::from("docs/fields/x.md")
        );
        let text = "See [a](a.md#top \"A\") and [b](../b), `c`.\n```\n[d](../b)\n```\n";
        assert_eq!(targets(text).collect::<Vec<_>>(), ["a.md", "../b", "../b"]);
        let other = relink(text, |target| {
            (target == "../b").then(|| "https://x/b".to_owned())
        });
        assert_eq!(
            other,
            "See [a](a.md#top \"A\") and [b](https://x/b), `c`.\n```\n[d](../b)\n```\n"
        );
    }

    #[test]
    fn fences_keep_their_language() {
        let text = "```sh parsed=\"a b\"\nx\n```\n```usage\ny\n```\n";
        assert_eq!(plain_fences(text), "```sh\nx\n```\n```text\ny\n```\n");
    }

    #[test]
    fn a_link_to_nothing_is_told() {
        let page = |html: &str, places: &[&str]| {
            let places = places.iter().map(|place| (*place).to_owned());
            (html.to_owned(), places.collect())
        };
        let html = r##"<a href="#here"><a href="#gone"><a href="b/c.html#top"><a href="b/d.html"><a href="https://x">"##;
        let pages = [
            (PathBuf::from("a.html"), page(html, &["here"])),
            (
                PathBuf::from("b/c.html"),
                page(r#"<a href="../a.html#here">"#, &[]),
            ),
        ];
        let found = broken(Path::new("/nowhere"), &pages.into());
        assert_eq!(
            found,
            ["a.html: #gone", "a.html: b/c.html#top", "a.html: b/d.html"]
        );
    }
}
