//! The documents do not lie: each code block says what it is, and what it is about takes it. Policies are
//! loaded here; commands are held to the command line in `src/documented.rs` and run in
//! `tests/tests/documents.rs`.

#![expect(clippy::unwrap_used, reason = "a helper that fails, fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use limiter_daemon::admin::metrics::catalogue::ALL;
use limiter_daemon::cli::check;
use limiter_daemon::policy;
use regex::Regex;

mod documents_support;

use documents_support::{Block, blocks, blocks_of, inline, workspace};

/// Where a fragment goes in the file that it is shown without.
const HERE: &str = "HERE";

/// What a block may be, and the attributes that say so.
const KINDS: [(&str, &[&str]); 6] = [
    ("yaml", &["beside", "by", "file", "in", "joined", "quoted"]),
    ("sh", &["daemon", "parsed", "quoted"]),
    ("console", &["daemon", "parsed", "quoted"]),
    ("usage", &[]),
    ("json", &[]),
    ("text", &["by"]),
];

/// A module, and a metric with a `statPrefix` in it.
const NO_METRICS: [&str; 2] = ["envoy_gateway", "envoy_cluster_ratelimit_p_ok"];

/// A directory of its own in the target directory, removed at the end.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("documents-{}-{number}", std::process::id());
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.0.join(name), text).unwrap();
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).ok();
    }
}

/// What is wrong with what a block says of itself.
fn undeclared(block: &Block) -> Option<String> {
    if block.has("quoted") && !block.attributes["quoted"].is_empty() {
        return None;
    }
    let kind = KINDS
        .iter()
        .find(|(language, _)| *language == block.language);
    let Some((_, attributes)) = kind else {
        return Some(format!("`{}` is no kind of block", block.language));
    };
    let unknown = block
        .attributes
        .keys()
        .find(|name| !attributes.contains(&name.as_str()));
    if let Some(unknown) = unknown {
        return Some(format!(
            "a block of `{}` has no `{unknown}`",
            block.language
        ));
    }
    let needs = ["by", "beside", "daemon", "file", "in", "parsed", "quoted"];
    let empty = needs
        .iter()
        .find(|name| block.attributes.get(**name).is_some_and(String::is_empty));
    empty.map(|name| format!("`{name}` says nothing"))
}

#[test]
fn every_block_says_what_it_is() {
    let all = blocks();
    let wrong: Vec<_> = all
        .iter()
        .filter_map(|block| Some(format!("{}: {}", block.place(), undeclared(block)?)))
        .collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // What nothing holds to anything stays little.
    let quoted: Vec<_> = all
        .iter()
        .filter(|block| block.has("quoted"))
        .map(Block::place)
        .collect();
    assert!(quoted.len() * 5 < all.len(), "{quoted:?} of {}", all.len());
}

#[test]
fn a_block_that_says_nothing_is_noticed() {
    for (text, why) in [
        ("```\nlimiterd check DIR\n```\n", "`` is no kind"),
        ("# A\n\n    limiterd check DIR\n", "`` is no kind"),
        ("```bash\nlimiterd check DIR\n```\n", "`bash` is no kind"),
        (
            "```sh parsed\nlimiterd check DIR\n```\n",
            "`parsed` says nothing",
        ),
        ("```sh skip=yes\nlimiterd check DIR\n```\n", "has no `skip`"),
        (
            "```nginx quoted\nlimit_req zone=a;\n```\n",
            "`nginx` is no kind",
        ),
    ] {
        let found = blocks_of("a.md", text);
        assert_eq!(found.len(), 1, "{text}");
        let said = undeclared(&found[0]).unwrap_or_default();
        assert!(said.contains(why), "{text}: {said}");
    }
}

/// Indented as the line is that it stands for.
fn put_in(file: &str, fragment: &str) -> String {
    let mut text = String::new();
    for line in file.lines() {
        match line.strip_suffix(HERE) {
            Some(indent) if indent.trim().is_empty() => {
                for line in fragment.lines() {
                    text.push_str(&format!("{indent}{line}\n"));
                }
            }
            _ => text.push_str(&format!("{line}\n")),
        }
    }
    text
}

/// The findings in a block, beside what it says it needs, and with those that it is joined with.
fn findings(block: &Block, all: &[Block]) -> Vec<String> {
    let dir = Scratch::new();
    let is_joined = |other: &&Block| {
        other.document == block.document && block.has("joined") && other.has("joined")
    };
    let together = all
        .iter()
        .filter(|other| other.line == block.line || is_joined(other));
    let together = together.filter(|other| other.document == block.document);
    for one in together {
        let besides = one.attributes.get("beside");
        for file in besides.iter().flat_map(|files| files.split(',')) {
            let name = Path::new(file).file_name().unwrap().to_string_lossy();
            dir.write(&format!("{name}"), &read(file));
        }
        let text = match one.attributes.get("in") {
            Some(file) => put_in(&read(file), &one.text),
            None => one.text.clone(),
        };
        dir.write(&format!("line-{}.yaml", one.line), &text);
    }
    let outcome = policy::load(&dir.0);
    let mut found: Vec<String> = outcome
        .diagnostics
        .iter()
        .map(ToString::to_string)
        .collect();
    if outcome.counts.is_empty() {
        found.push("no resource in it".to_owned());
    }
    found
}

fn read(file: &str) -> String {
    fs::read_to_string(workspace().join(file)).expect(file)
}

#[test]
fn every_policy_is_without_findings() {
    let all = blocks();
    let mut wrong = Vec::new();
    let mut loaded = 0;
    for block in all.iter().filter(|block| block.language == "yaml") {
        if block.has("by") || block.has("quoted") {
            continue;
        }
        loaded += 1;
        for finding in findings(block, &all) {
            wrong.push(format!("{}: {finding}", block.place()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(loaded > 12, "{loaded}");
}

#[test]
fn blocks_of_json_are_json() {
    for block in blocks().iter().filter(|block| block.language == "json") {
        let parsed: Result<serde_json::Value, _> = serde_json::from_str(&block.text);
        assert!(parsed.is_ok(), "{}: {parsed:?}", block.place());
    }
}

#[test]
fn tests_that_blocks_name_are_there() {
    let mut named = BTreeSet::new();
    for block in blocks() {
        let Some(test) = block.attributes.get("by") else {
            continue;
        };
        let (file, name) = test.split_once("::").expect("a file and a test");
        let code = fs::read_to_string(workspace().join(file)).expect(file);
        let is_there = code.contains(&format!("#[test]\nfn {name}("));
        assert!(is_there, "{}: no test {name} in {file}", block.place());
        named.insert(test.clone());
    }
    assert!(named.len() > 4, "{named:?}");
}

/// The finding that the README shows is what `limiterd check` says of its own policy with that mistake.
#[test]
fn the_mistake_of_the_readme() {
    let all = blocks_of(
        "README.md",
        &fs::read_to_string(workspace().join("README.md")).unwrap(),
    );
    let dir = Scratch::new();
    for block in &all {
        if let Some(file) = block.attributes.get("file") {
            let name = file.strip_prefix("DIR/").unwrap();
            let mistaken = block.text.replacen("{requests: 50", "{requets: 50", 1);
            dir.write(name, &mistaken);
        }
    }
    let shown = all.iter().find(|block| block.has("by")).unwrap();
    let mut out = Vec::new();
    let code = check::run(&dir.0, &mut out).unwrap();
    let said = String::from_utf8(out).unwrap();
    let said = said.replace(&format!("{}/", dir.0.display()), "");
    assert_eq!(code, 1);
    assert!(said.contains(shown.text.trim()), "{said}");
}

/// Metrics that the text names are in the catalogue; `name_*` is some of them.
#[test]
fn metrics_in_the_text_are_there() {
    let name =
        Regex::new(r"^((?:limiterd|envoy|ratelimit_service)_[a-z0-9_]+)(\*?)(?:\{.*\})?$").unwrap();
    let samples: BTreeSet<String> = ALL
        .iter()
        .flat_map(|(_, metrics)| *metrics)
        .map(|one| one.sample())
        .collect();
    let labels: BTreeSet<&str> = ALL
        .iter()
        .flat_map(|(_, metrics)| *metrics)
        .flat_map(|one| one.labels)
        .copied()
        .collect();
    let bare: BTreeSet<&str> = ALL
        .iter()
        .flat_map(|(_, metrics)| *metrics)
        .map(|one| one.name)
        .collect();
    let (mut wrong, mut seen) = (Vec::new(), 0);
    for (place, code) in inline() {
        let Some(found) = name.captures(&code) else {
            continue;
        };
        seen += 1;
        let (metric, many) = (&found[1], !found[2].is_empty());
        let is_there = samples.contains(metric) || bare.contains(metric) || labels.contains(metric);
        let some = samples.iter().any(|sample| sample.starts_with(metric));
        if !(is_there || many && some || NO_METRICS.contains(&metric)) {
            wrong.push(format!("{place}: {code}"));
        }
    }
    assert!(wrong.is_empty(), "no such metrics:\n{}", wrong.join("\n"));
    assert!(seen > 100, "{seen}");
}

/// The version that is built has its section in the changelog, and every page its place in the book.
#[test]
fn the_version_and_every_page_are_told() {
    let changes = read("CHANGELOG.md");
    let version = regex::escape(env!("CARGO_PKG_VERSION"));
    let heading = Regex::new(&format!(r"(?m)^## {version} - \d{{4}}-\d{{2}}-\d{{2}}$")).unwrap();
    assert!(heading.is_match(&changes), "{version}");
    let summary = read("docs/SUMMARY.md");
    for page in documents_support::documents() {
        let link = match page.strip_prefix("docs/") {
            Some("SUMMARY.md") => continue,
            Some(page) => format!("({page})"),
            None => format!("(../{page})"),
        };
        assert!(summary.contains(&link), "{page} is not in the book");
    }
}
